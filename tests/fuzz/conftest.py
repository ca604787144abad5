from collections.abc import Iterator
from typing import Any

import pytest
from tests.fuzz.scene import Scene

from privet import Rules
from privet.server.validators import TakesTheirWord

RULES = """
[[rule]]
name = "never"
deny = ["b.internal", "10.0.0.2"]

[[rule]]
name = "four eyes"
ask = ["*.b.internal"]

[[rule]]
name = "rest"
trust = ["**", "0.0.0.0/0", "::/0"]
wildcard = true
key-types = ["P-256"]
max-lifetime = "12h"
"""

MODES: dict[str, dict[str, Any]] = {
    "approves": {"auto_approve": True, "external_account_keys": {"kid-1": b"secret"}},
    "validates": {"challenge_validator": TakesTheirWord()},
    "asks a person": {},
    "follows rules": {"policy": Rules.from_toml(RULES), "challenge_validator": TakesTheirWord()},
}


@pytest.fixture(scope="module", params=MODES)
def scene(request: pytest.FixtureRequest) -> Iterator[Scene]:
    """A responder that lives on through a whole module, in each of the modes."""
    with Scene(**MODES[request.param]) as scene:
        yield scene
        scene.is_well()
