"""What docs/validation.md shows runs as it stands there, from top to bottom."""

import re
from pathlib import Path
from typing import Any

import pytest
from tests.validation.scene import PROOF, TOKEN, Scene
from tests.validation.town import response, says

from privet.validation import AddressRefused, Attempt, HTTP01Validator, Networks, prove
from privet.validation.trail import utc_now

TEXT = (Path(__file__).parents[2] / "docs/validation.md").read_text()
BLOCKS = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)


@pytest.fixture
def shown() -> dict[str, Any]:
    """Every name the page defines."""
    names: dict[str, Any] = {"__name__": "page"}
    for block in BLOCKS:
        exec(compile(block, "docs/validation.md", "exec"), names)
    return names


def test_the_page_runs(shown: dict[str, Any]) -> None:
    assert len(BLOCKS) == 8
    assert [route.path for route in shown["both"].routes] == ["/inside", "/outside"]
    assert shown["record"].startswith('_validation-persist.www.internal. IN TXT "ca.internal; accounturi=https://')


def allows(networks: Networks, address: str, port: int = 80) -> bool:
    try:
        networks.check(address, port)
    except AddressRefused:
        return False
    return True


def test_the_networks_are_what_the_page_says(shown: dict[str, Any]) -> None:
    assert not allows(shown["anywhere_private"], "127.0.0.1", 8443)
    assert allows(shown["only_the_lab"], "10.20.1.1")
    assert not allows(shown["only_the_lab"], "10.21.1.1")
    assert not allows(shown["not_the_storage"], "10.9.0.1")
    assert allows(shown["on_my_laptop"], "::1")
    assert allows(shown["behind_nat64"], "64:ff9b::a00:1")
    assert not allows(shown["behind_nat64"], "64:ff9b::7f00:1")
    assert not allows(Networks(allow=["169.254.0.0/16", "0.0.0.0/0"]), "169.254.169.254")
    assert not allows(Networks(allow=["0.0.0.0/0"]), "127.0.0.1")


def test_a_validator_of_ones_own_is_asked_and_then_caa(scene: Scene, shown: dict[str, Any]) -> None:
    own = shown["InTheInventory"]()
    attempt = Attempt("db-1.internal", "dns", TOKEN, PROOF)
    assert scene.run(prove(own, attempt, method="http-01", now=utc_now)).identifier == "db-1.internal"


def test_the_limits_are_what_the_page_says(scene: Scene) -> None:
    validator = HTTP01Validator(resolver=scene.resolver())
    assert (validator.timeout, validator.connector.connect_timeout, validator.redirects) == (10, 3, 10)
    assert (validator.connector.gate.total, validator.connector.gate.per_target) == (500, 20)
    assert validator.max_response == 32 * 1024
    assert validator.port == 80
    assert sorted(validator.redirect_ports) == [80, 443]


def test_a_lab_is_as_the_page_says(scene: Scene) -> None:
    scene.nameserver.add("www.internal", "A", scene.town.client.address)
    validator = HTTP01Validator(port=5002, resolver=scene.resolver(), networks=scene.town.networks())
    with scene.town.client.serve(says(response(200, PROOF.encode())), 5002):
        scene.prove(validator, "www.internal")
