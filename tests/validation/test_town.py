"""The town itself: real where it can be, and the same on 127.0.0.0/8 where it cannot."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from tests.validation.nameserver import Nameserver
from tests.validation.scene import PROOF, Scene
from tests.validation.town import Town, response, says


def test_without_namespaces_everything_happens_on_loopback() -> None:
    town = Town(real=False)
    nameserver = Nameserver(town.dns, town.port(53))
    scene = Scene(town, nameserver)
    nameserver.add("www.internal", "A", town.client.address)
    try:
        with nameserver.running(), town.client.serve(says(response(200, PROOF.encode())), scene.http):
            proof = scene.prove(scene.http01(), "www.internal")
    finally:
        town.end()
    assert proof.steps[-1].target == f"{town.client.address}:{scene.http}"
    assert town.client.address.startswith("127.")


@pytest.mark.skipif(os.environ.get("PRIVET_TOWN") == "loopback", reason="they run there as it is")
def test_the_same_tests_hold_where_no_namespaces_can_be_made() -> None:
    here = Path(__file__).parent
    names = ("http01", "dns01", "dnspersist01", "tlsalpn01", "resolver", "attacks", "with_responder")
    env = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *(here / f"test_{name}.py" for name in names)],
        cwd=here.parents[1],
        env=env | {"PRIVET_TOWN": "loopback"},
        capture_output=True,
        text=True,
        timeout=250,
    )
    assert done.returncode == 0, done.stdout + done.stderr
