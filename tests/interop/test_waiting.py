"""certbot and lego wait for a person: they get their certificate when the approval comes within their patience."""

import json
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from tests.interop.clients import Certbot, Client, Issued, Lego
from tests.interop.serving import Privet

from privet import open_store
from privet.acme.status import Status
from privet.server.records import Authorization, Kind

pytestmark = [pytest.mark.interop, pytest.mark.xdist_group("waiting")]


@pytest.fixture
def authority(tmp_path: Path) -> Iterator[Privet]:
    with Privet(tmp_path / "server", "--ask-person", "--limit", "retry-after-person=1s", auto_approve=False) as running:
        yield running


@pytest.fixture(params=[Certbot, Lego], ids=lambda client: client.name)
def client(request: pytest.FixtureRequest, authority: Privet, tmp_path: Path) -> Client:
    made: Client = request.param(tmp_path / "client", authority.directory, authority.root())
    return made


def waiting(authority: Privet, issuing: Future[Issued]) -> Iterator[dict[str, Any]]:
    """What `privet pending` shows, as soon as the client has answered the challenge and asks what became of it."""
    with open_store(authority.store) as store:
        while not issuing.done():
            for shown in json.loads(authority.privet("pending", "--json")):
                record = store.get(Kind.AUTHORIZATION, shown["id"])
                assert record
                challenges = Authorization.from_record(record).challenges
                if any(each.status is Status.PROCESSING for each in challenges):
                    yield shown
            time.sleep(0.2)


def test_a_client_gets_its_certificate_when_a_person_approves(authority: Privet, client: Client) -> None:
    names = ["web.internal", "www.web.internal"]
    with ThreadPoolExecutor(1) as elsewhere:
        issuing = elsewhere.submit(client.issue, names)
        approved = set()
        for shown in waiting(authority, issuing):
            approved.add(shown["identifier"]["value"])
            authority.privet("approve", shown["id"])
    issuing.result().check(authority.root(), names)
    assert approved == set(names)
    (listed,) = authority.certificates(names)
    assert [proof["method"] for proof in authority.show(listed["serial"])["proofs"]] == ["person", "person"]


def test_a_client_hears_why_when_a_person_refuses(authority: Privet, client: Client) -> None:
    with ThreadPoolExecutor(1) as elsewhere:
        issuing = elsewhere.submit(client.issue, ["web.internal"])
        for shown in waiting(authority, issuing):
            authority.privet("refuse", shown["id"], "--reason", "ask the network team first")
        with pytest.raises(AssertionError, match="refused by a person: ask the network team first"):
            issuing.result()
