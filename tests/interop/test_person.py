"""A person decides while certbot and lego wait: by a rule, although their challenge could be validated."""

import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.interop.clients import Certbot, Client, Issued, Lego
from tests.interop.serving import Privet

pytestmark = [pytest.mark.interop, pytest.mark.xdist_group("person")]

RULES = """
[[rule]]
name = "four eyes"
ask = ["**.internal"]
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Privet]:
    folder = tmp_path_factory.mktemp("person")
    (folder / "policy.toml").write_text(RULES)
    sooner = ("--limit", "retry-after-person=1s")
    options = (*sooner, "--policy", "policy.toml", "--validate", "http-01", "--resolver", "127.0.0.1:9")
    with Privet(folder, *options, auto_approve=False) as running:
        yield running


@pytest.fixture(params=[Certbot, Lego], ids=lambda client: client.name)
def client(request: pytest.FixtureRequest, server: Privet, tmp_path: Path) -> Client:
    made: Client = request.param(tmp_path / "client", server.directory, server.root())
    return made


class Waiting(threading.Thread):
    """Somebody who orders a certificate, and what becomes of it."""

    def __init__(self, client: Client, name: str) -> None:
        super().__init__(daemon=True)
        self.client, self.name_ordered = client, name
        self.issued: Issued | None = None
        self.failure: AssertionError | None = None

    def run(self) -> None:
        try:
            self.issued = self.client.issue([self.name_ordered])
        except AssertionError as failure:
            self.failure = failure


def waiting_at(server: Privet, name: str) -> str:
    """The id of the request for this name, once its client has answered the challenge and waits."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        for each in json.loads(server.privet("pending", "--json")):
            if each["identifier"]["value"] == name:
                assert (each["decision"], each["rule"]) == ("ask", "four eyes")
                return str(each["id"])
    raise AssertionError(f"nobody waits for {name}")


def test_they_get_their_certificate_when_a_person_says_yes(server: Privet, client: Client) -> None:
    name = f"{client.name}-yes.internal"
    somebody = Waiting(client, name)
    somebody.start()
    server.privet("approve", waiting_at(server, name))
    somebody.join(120)
    assert somebody.failure is None
    assert somebody.issued is not None
    somebody.issued.check(server.root(), [name])
    assert server.show(somebody.issued.serial)["allowed"] == [{"name": name, "decision": "ask", "rule": "four eyes"}]


def test_they_are_told_when_a_person_says_no(server: Privet, client: Client) -> None:
    name = f"{client.name}-no.internal"
    somebody = Waiting(client, name)
    somebody.start()
    server.privet("refuse", waiting_at(server, name), "--reason", "ask the network team first")
    somebody.join(120)
    assert somebody.issued is None
    assert "ask the network team first" in str(somebody.failure)
    assert server.certificates([name]) == []
