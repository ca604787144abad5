from collections.abc import Iterator

import pytest
from tests.validation.nameserver import Nameserver
from tests.validation.scene import Scene
from tests.validation.town import Town


@pytest.fixture(scope="session")
def town() -> Iterator[Town]:
    town = Town()
    try:
        yield town
    finally:
        town.end()


@pytest.fixture(scope="session")
def running_nameserver(town: Town) -> Iterator[Nameserver]:
    nameserver = Nameserver(town.dns, town.port(53))
    with nameserver.running():
        yield nameserver


@pytest.fixture
def nameserver(running_nameserver: Nameserver) -> Nameserver:
    running_nameserver.forget()
    return running_nameserver


@pytest.fixture
def scene(town: Town, nameserver: Nameserver) -> Scene:
    return Scene(town, nameserver)
