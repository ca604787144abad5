"""The town itself: real where it can be, and the same on 127.0.0.0/8 where it cannot."""

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
