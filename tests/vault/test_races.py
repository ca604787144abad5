"""Several who use one token at once, at one process or at replicas that share a store."""

import asyncio
from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import datetime
from pathlib import Path

import pytest
from tests.vault.conftest import Scene, errors_of, leaf

from privet import CertificateAuthority, Conflict, MemoryStore, Record, Store, StoreError, open_store
from privet.ca.certificates import KIND, Certificate
from privet.vault import tokens

pytestmark = pytest.mark.anyio

WISH = {"common_name": "web.internal"}


@pytest.fixture(
    params=["memory:", "file:///{}/store", "sqlite:///{}/privet.db", "postgresql"],
    ids=lambda url: url.partition(":")[0],
)
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    url: str = request.param.format(tmp_path)
    return request.getfixturevalue("postgresql").new_database() if url == "postgresql" else url


@pytest.fixture
def stores(url: str) -> Iterator[list[Store]]:
    """Two of one database, as two replicas open it; a store in memory is for one process."""
    if url == "memory:":
        yield [MemoryStore()] * 2
        return
    with open_store(url) as one, open_store(url) as other:
        yield [one, other]


@pytest.mark.parametrize("uses", [1, 3])
async def test_the_last_use_is_for_one(stores: list[Store], uses: int) -> None:
    replicas = [Scene(store) for store in stores]
    token = replicas[0].token(uses=uses)
    asking = [each.ask("issue/web", token, WISH) for each in replicas for _ in range(8)]
    responses = await asyncio.gather(*asking)
    got = [leaf(each.json()["data"]).serial_number for each in responses if each.status_code == 200]
    refused = Counter(str(errors_of(each)) for each in responses if each.status_code != 200)
    assert len(set(got)) == len(got) == uses
    # Who meets others too often is told to try again, and has used nothing up.
    assert set(refused) <= {
        str((403, ["permission denied: the token is used up; ask for another"])),
        str((503, ["too many use this token at once; try again"])),
    }
    for each in replicas:
        assert [(one.used, one.status(each.clock())) for one in each.tokens()] == [(uses, "used up")]
        assert sorted(one.serial for one in each.certificates()) == sorted(got)
        assert {one.status for one in each.certificates()} == {"valid"}
        await each.http.aclose()


async def test_a_token_made_here_is_good_there_and_taken_back_everywhere(stores: list[Store]) -> None:
    here, there = (Scene(store) for store in stores)
    token = here.token()
    serial = (await there.issue("web", token, **WISH))["serial_number"]
    read = await here.http.get(f"/v1/pki/cert/{serial}", headers={"X-Vault-Token": token})
    assert read.status_code == 200
    tokens.revoke(here.store, here.tokens()[0], here.clock())
    assert errors_of(await there.ask("issue/web", token, WISH))[0] == 403
    for each in (here, there):
        await each.http.aclose()


async def test_those_without_a_count_do_not_wait_for_each_other(stores: list[Store]) -> None:
    replicas = [Scene(store) for store in stores]
    token = replicas[0].token()
    responses = await asyncio.gather(*[each.ask("issue/web", token, WISH) for each in replicas for _ in range(8)])
    assert [each.status_code for each in responses] == [200] * 16
    assert [(each.used, each.version) for each in replicas[0].tokens()] == [(0, 1)]
    for each in replicas:
        await each.http.aclose()


class Meddling(MemoryStore):
    """A store in which something happens just before a certificate is committed."""

    def __init__(self) -> None:
        super().__init__()
        self.before: list[str] = []

    def commit(self, *records: Record, unchanged: Sequence[Record] = (), durable: bool = True) -> None:
        certificates = [record for record in records if record.kind == KIND]
        if self.before and certificates:
            match self.before.pop(0):
                case "revoke":
                    (known,) = tokens.find_all(self, "root")
                    tokens.revoke(self, known, known.created)
                case "conflict":
                    raise Conflict
                case "fail":
                    raise StoreError("the disk is full")
        super().commit(*records, unchanged=unchanged, durable=durable)

    def prune(self, now: datetime, *, limit: int = 100) -> int:
        if "no pruning" in self.before:
            raise StoreError("the disk is full")
        return super().prune(now, limit=limit)


async def test_many_who_revoke_at_once_revoke_once(stores: list[Store]) -> None:
    replicas = [Scene(store) for store in stores]
    token = replicas[0].token()
    serial = (await replicas[0].issue("web", token, **WISH))["serial_number"]
    asking = [each.ask("revoke", token, {"serial_number": serial}) for each in replicas for _ in range(5)]
    answers = await asyncio.gather(*asking)
    assert {each.status_code for each in answers} == {200}
    assert [each.status for each in replicas[1].certificates()] == ["revoked"]
    for each in replicas:
        await each.http.aclose()


@pytest.mark.parametrize("uses", [None, 5])
async def test_a_token_that_is_taken_back_meanwhile_gets_nothing(uses: int | None) -> None:
    store = Meddling()
    scene = Scene(store)
    token = scene.token(uses=uses)
    store.before = ["revoke"]
    async with scene.http:
        refused = await scene.ask("issue/web", token, WISH)
    assert errors_of(refused) == (403, ["permission denied: the token is revoked; ask for another"])
    assert scene.certificates() == []


async def test_who_conflicts_too_often_is_told_to_come_back() -> None:
    store = Meddling()
    scene = Scene(store)
    token = scene.token(uses=5)
    store.before = ["conflict"] * 9
    async with scene.http:
        refused = await scene.ask("issue/web", token, WISH)
        assert errors_of(refused) == (503, ["too many use this token at once; try again"])
        assert refused.headers["retry-after"] == "1"
        store.before = ["conflict"] * 3
        await scene.issue("web", token, **WISH)
    assert [each.used for each in scene.tokens()] == [1]


async def test_a_certificate_that_cannot_be_recorded_is_shown_to_nobody() -> None:
    """The signature is made, and the store fails: what is on record is what was to be signed."""

    class FailsSecond(MemoryStore):
        commits = 0

        def commit(self, *records: Record, unchanged: Sequence[Record] = (), durable: bool = True) -> None:
            if any(Certificate.from_record(each).status == "valid" for each in records if each.kind == KIND):
                raise StoreError("the disk is full")
            super().commit(*records, unchanged=unchanged, durable=durable)

    scene = Scene(FailsSecond())
    token = scene.token(uses=1)
    async with scene.http:
        refused = await scene.ask("issue/web", token, WISH)
    assert errors_of(refused) == (503, ["the server cannot store anything now"])
    assert "BEGIN" not in refused.text
    assert [(each.status, each.der) for each in scene.certificates()] == [("prepared", None)]
    assert [each.used for each in scene.tokens()] == [1]


async def test_what_cannot_be_signed_is_said_without_its_reason(caplog: pytest.LogCaptureFixture) -> None:
    class Broken(CertificateAuthority):
        def sign(self, certificate: Certificate) -> Certificate:
            raise RuntimeError("the token in slot 3 is gone")

    scene = Scene()
    broken = Broken(scene.store, now=scene.clock)
    broken.load()
    scene.ca = broken
    token = scene.token(uses=1)
    async with scene.at(scene.replica()) as http:
        refused = await scene.ask("issue/web", token, WISH, http=http)
    assert errors_of(refused) == (500, ["the certificate could not be signed; ask again"])
    assert "slot 3" in caplog.text
    assert [each.status for each in scene.certificates()] == ["prepared"]
    await scene.http.aclose()


async def test_what_has_expired_goes_by_itself_and_never_in_the_way() -> None:
    store = Meddling()
    scene = Scene(store)
    token = scene.token()
    ending = scene.token(ends=scene.clock.time)
    async with scene.http:
        await scene.issue("web", token, **WISH)
        scene.clock.forward(days=31)
        store.before = ["", "no pruning"]
        await scene.issue("web", token, **WISH)
        assert len(scene.certificates()) == 2
        store.before = []
        scene.clock.forward(hours=2)  # a clock that leapt by a month is believed by and by
        await scene.issue("web", token, **WISH)
    assert len(scene.certificates()) == 2, "the first has expired, and more than a week ago"
    assert [each.id for each in scene.tokens()] == [token.split(".")[1]]
    assert ending.split(".")[1] not in {each.id for each in scene.tokens()}
