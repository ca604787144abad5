from collections.abc import Iterator
from typing import Any

import pytest
from tests.fuzz.scene import Scene

from privet.server.validators import TakesTheirWord

MODES: dict[str, dict[str, Any]] = {
    "approves": {"auto_approve": True, "external_account_keys": {"kid-1": b"secret"}},
    "validates": {"challenge_validator": TakesTheirWord()},
    "asks a person": {},
}


@pytest.fixture(scope="module", params=MODES)
def scene(request: pytest.FixtureRequest) -> Iterator[Scene]:
    """A responder that lives on through a whole module, in each of the three modes."""
    with Scene(**MODES[request.param]) as scene:
        yield scene
        scene.is_well()
