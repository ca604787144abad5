"""The servers that other people's programs meet, each started once and used by all tests of its group."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.interop.serving import Privet

SETUPS = {
    "http": [],
    "http-mounted-asked": ["--mount", "/acme", "--ask-challenges"],
    "https": ["--tls"],
    "https-mounted-asked-workers": ["--tls", "--mount", "/acme", "--ask-challenges", "--workers", "2"],
}


@pytest.fixture(scope="session", params=[pytest.param(name, marks=pytest.mark.xdist_group(name)) for name in SETUPS])
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Privet]:
    with Privet(tmp_path_factory.mktemp(request.param), *SETUPS[request.param]) as running:
        yield running


@pytest.fixture(scope="session")
def root(server: Privet) -> Path:
    return server.root()


@pytest.fixture
def key_type(server: Privet) -> str:
    """Two servers are asked for EC certificates, two for RSA ones: over http one of each, over https one of each."""
    return "rsa" if "--ask-challenges" in server.options else "ec"


@pytest.fixture(autouse=True)
def what_the_server_said(request: pytest.FixtureRequest) -> Iterator[None]:
    """Printed, so that a failed test shows it."""
    yield
    if "server" in request.fixturenames:
        print(request.getfixturevalue("server").said())
