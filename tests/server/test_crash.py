"""kill -9 at every commit of an issuance, and two processes at the same order (lessons 15 and 19).

No order has two certificates, no client has a certificate that is not on record, and what was begun can be finished:
with the serial and the bytes that were on record before the signature.
"""

import json
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from tests.server.crashing import NAME, Convinced
from tests.wire import BASE, Wire, new_key, problem_of

from privet import ACMEResponder, CertificateAuthority, Record, Store, StoreError, open_store
from privet.ca.certificates import KIND, Certificate
from privet.server.records import Kind, Order

pytestmark = pytest.mark.anyio

ROOT = Path(__file__).parents[2]
START = datetime(2026, 3, 1, 12, tzinfo=UTC)
LATER = START + timedelta(seconds=11)  # by then nobody can still be signing
KEY = new_key()
KEY_PEM = KEY.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
KILLED = -signal.SIGKILL


@dataclass
class Nursery:
    """The process that has the children, and buries them."""

    process: subprocess.Popen[str]

    def run(self, **task: Any) -> tuple[list[dict[str, Any]], list[int]]:
        """What the children told, and how they ended."""
        assert self.process.stdin
        assert self.process.stdout
        print(json.dumps({"key": KEY_PEM, "now": START.isoformat(), **task}), file=self.process.stdin, flush=True)
        told: list[dict[str, Any]] = []
        for line in self.process.stdout:
            words = json.loads(line)
            if "ended" in words:
                return told, words["ended"]
            told.append(words)
        raise AssertionError("the nursery itself has died")


@pytest.fixture(scope="module")
def nursery() -> Iterator[Nursery]:
    command = [sys.executable, "-m", "tests.server.crashing"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT) as process:
        yield Nursery(process)


@pytest.fixture(scope="module", params=["sqlite", "file"])
def template(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    """A store with nothing in it but an authority."""
    folder = tmp_path_factory.mktemp("template")
    with open_store(f"{request.param}:///{folder}/store") as store:
        CertificateAuthority(store, now=lambda: START).init()
    return request.param, folder


@pytest.fixture
def stores(template: tuple[str, Path], tmp_path: Path) -> Iterator[str]:
    """The URLs of as many such stores as a test wants."""
    scheme, folder = template

    def copies() -> Iterator[str]:
        number = 0
        while True:
            number += 1
            shutil.copytree(folder, tmp_path / str(number), symlinks=True)
            yield f"{scheme}:///{tmp_path}/{number}/store"

    return copies()


@dataclass
class After:
    """A responder of the next process, and the same client."""

    store: Store
    wire: Wire

    def certificates(self) -> list[Certificate]:
        return [Certificate.from_record(record) for record in self.store.find(KIND)]

    def orders(self) -> list[Order]:
        return [Order.from_record(record) for record in self.store.find(Kind.ORDER)]


def open_after(url: str, now: datetime) -> tuple[Any, ACMEResponder]:
    store = open_store(url)
    ca = CertificateAuthority(store, now=lambda: now)
    assert ca.load()
    return store, ACMEResponder(ca, challenge_validator=Convinced(), now=lambda: now, external_url=BASE)


async def take_stock(url: str, told: Sequence[Mapping[str, Any]], before: Mapping[str, Certificate]) -> None:
    """Whatever the child was at: what it was told is true, and what it began is finished."""
    store, responder = open_after(url, LATER)
    with store:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(responder), base_url=BASE) as http:
            after = After(store, Wire(http, key=KEY))
            await accounts_are_there(after, told)
            await nonces_are_spent(after, told)
            await orders_are_finished(after)
            certificates_are_on_record(after, told, before)


async def accounts_are_there(after: After, told: Sequence[Mapping[str, Any]]) -> None:
    registered = [words["location"] for words in told if words.get("answered") == f"{BASE}/new-account"]
    response = await after.wire.register(onlyReturnExisting=True)
    if registered:
        assert (response.status_code, after.wire.kid) == (200, registered[0])
    elif response.status_code != 200:
        assert problem_of(response) == (400, "accountDoesNotExist")
        assert (await after.wire.register()).status_code == 201


async def nonces_are_spent(after: After, told: Sequence[Mapping[str, Any]]) -> None:
    """Whatever was answered is not answered again; not even if it could have been lost without loss."""
    for words in told:
        if "answered" in words:
            replayed = await after.wire.send(words["answered"], words["message"])
            assert problem_of(replayed) == (400, "badNonce")


async def orders_are_finished(after: After) -> None:
    """By the client that has nothing but its account: it asks which orders it has."""
    urls = (await after.wire.post(f"{after.wire.kid}/orders")).json()["orders"]
    assert len(urls) == len(after.orders()) <= 1
    for url in urls:
        order = (await after.wire.post(url)).json()
        if order["status"] == "pending":
            authorization = (await after.wire.post(order["authorizations"][0])).json()
            answered = await after.wire.post(authorization["challenges"][0]["url"], {})
            assert answered.json()["status"] == "valid"
            order = (await after.wire.post(url)).json()
        if order["status"] == "ready":
            assert not after.certificates(), "nothing is on record before the order says so"
            order = (await after.wire.finalize(order)).json()
        assert order["status"] == "valid"
        chain = x509.load_pem_x509_certificates((await after.wire.post(order["certificate"])).content)
        (certificate,) = after.certificates()
        assert certificate.der == chain[0].public_bytes(Encoding.DER)
        assert f"{BASE}/cert/{certificate.id}" == order["certificate"]


def certificates_are_on_record(
    after: After, told: Sequence[Mapping[str, Any]], before: Mapping[str, Certificate]
) -> None:
    for words in told:
        if words.get("answered", "").startswith(f"{BASE}/cert/"):
            received = x509.load_pem_x509_certificates(words["body"].encode())[0]
            (certificate,) = after.certificates()
            assert certificate.der == received.public_bytes(Encoding.DER)
    for certificate in after.certificates():
        assert certificate.status == "valid"
        assert certificate.der is not None
        prepared = before.get(certificate.id)
        if prepared is not None and prepared.tbs is not None:
            signed = x509.load_der_x509_certificate(certificate.der)
            assert (certificate.serial, signed.serial_number) == (prepared.serial, prepared.serial)
            assert signed.tbs_certificate_bytes == prepared.tbs


def on_record(url: str) -> dict[str, Certificate]:
    with open_store(url) as store:
        return {record.id: Certificate.from_record(record) for record in store.find(KIND)}


@pytest.mark.parametrize("when", ["before", "after"])
async def test_an_issuance_survives_a_kill_at_every_commit(nursery: Nursery, stores: Iterator[str], when: str) -> None:
    statuses: list[set[str]] = []
    for commit in range(1, 100):
        url = next(stores)
        told, ended = nursery.run(story="whole story", store=url, commit=commit, when=when)
        before = on_record(url)
        await take_stock(url, told, before)
        if ended == [0]:
            break
        assert ended == [KILLED], f"commit {commit}"
        statuses.append({certificate.status for certificate in before.values()})
    # It was killed before there was a certificate, while one was prepared and not signed, and when it was there.
    assert len(statuses) >= 12
    assert [each for index, each in enumerate(statuses) if each != statuses[index - 1] or not index] == [
        set(),
        {"prepared"},
        {"valid"},
    ]


@pytest.mark.parametrize("when", ["before", "after"])
async def test_whoever_finishes_an_order_can_be_killed_as_well(
    nursery: Nursery, stores: Iterator[str], when: str
) -> None:
    """Killed between the serial and the signature, and killed again at each commit of whoever takes over."""
    begun, account, order = half_an_issuance(nursery, stores)
    for commit in range(1, 20):
        url = next(stores)
        shutil.rmtree(folder_of(url))
        shutil.copytree(folder_of(begun), folder_of(url), symlinks=True)
        before = on_record(url)
        assert [each.status for each in before.values()] == ["prepared"]
        told, ended = nursery.run(
            story="look", store=url, commit=commit, when=when, now=LATER.isoformat(), kid=account, order=order
        )
        # The next one may have to wait for as long again, as the one that was killed might be signing still.
        store, responder = open_after(url, LATER + timedelta(seconds=11))
        with store:
            async with httpx.AsyncClient(transport=httpx.ASGITransport(responder), base_url=BASE) as http:
                after = After(store, Wire(http, key=KEY, kid=account))
                assert (await after.wire.post(order)).json()["status"] == "valid"
                assert len(after.certificates()) == 1
                certificates_are_on_record(after, told, before)
        if ended == [0]:
            break
        assert ended == [KILLED]
    assert commit >= 4


def folder_of(url: str) -> Path:
    return Path(url.partition(":///")[2]).parent


def half_an_issuance(nursery: Nursery, stores: Iterator[str]) -> tuple[str, str, str]:
    """A store in which an order is processing, the account's URL and the order's."""
    for commit in range(1, 100):
        url = next(stores)
        told, _ = nursery.run(story="whole story", store=url, commit=commit, when="after")
        if [each.status for each in on_record(url).values()] == ["prepared"]:
            located = {words["answered"]: words["location"] for words in told if "answered" in words}
            return url, located[f"{BASE}/new-account"], located[f"{BASE}/new-order"]
    raise AssertionError("the story never gets to a certificate")


async def test_an_order_cut_short_is_processing_until_nobody_can_be_at_it(
    nursery: Nursery, stores: Iterator[str]
) -> None:
    begun, account, order = half_an_issuance(nursery, stores)
    for now, status in ((START, "processing"), (START + timedelta(seconds=9), "processing"), (LATER, "valid")):
        store, responder = open_after(begun, now)
        with store:
            async with httpx.AsyncClient(transport=httpx.ASGITransport(responder), base_url=BASE) as http:
                wire = Wire(http, key=KEY, kid=account)
                response = await wire.post(order)
                assert response.json()["status"] == status
                assert ("retry-after" in response.headers) == (status == "processing")
                again = await wire.finalize(response.json())
                assert problem_of(again) == (403, "orderNotReady")


class Interrupted:
    """A store that fails when a certificate is to be recorded: what a full disk does."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.get, self.find, self.prune = store.get, store.find, store.prune

    def commit(self, *records: Record, unchanged: Sequence[Record] = (), durable: bool = True) -> None:
        if any(record.kind == KIND and record.version for record in records):
            raise StoreError("there is no room for a certificate")
        self._store.commit(*records, unchanged=unchanged, durable=durable)


@pytest.mark.parametrize("begun", [False, True], ids=["ready", "cut short"])
async def test_two_processes_finish_the_same_order_in_the_same_moment(
    nursery: Nursery, stores: Iterator[str], begun: bool
) -> None:
    """By finalizing it at once, or by looking at once at one whose signing was cut short."""
    url, rounds = next(stores), 25
    orders: list[tuple[str, str | None]] = []
    store, _ = open_after(url, START)
    with store:
        ca = CertificateAuthority(store, now=lambda: START)
        assert ca.load()
        responder = ACMEResponder(
            ca, Interrupted(store), challenge_validator=Convinced(), now=lambda: START, external_url=BASE
        )
        async with httpx.AsyncClient(transport=httpx.ASGITransport(responder), base_url=BASE) as http:
            wire = Wire(http, key=KEY)
            await wire.register()
            for _ in range(rounds):
                made = await wire.order(NAME)
                authorization = (await wire.post(made.json()["authorizations"][0])).json()
                await wire.post(authorization["challenges"][0]["url"], {})
                if begun:
                    assert problem_of(await wire.finalize(made.json())) == (503, "serverInternal")
                orders.append((made.headers["location"], None if begun else made.json()["finalize"]))
        before = {record.id: Certificate.from_record(record) for record in store.find(KIND)}
    assert len(before) == (rounds if begun else 0)

    told, ended = nursery.run(story="compete", store=url, orders=orders, kid=wire.kid, now=LATER.isoformat())
    assert ended == [0, 0]

    store, responder = open_after(url, LATER)
    with store:
        after = After(store, wire)
        recorded = {certificate.request: certificate for certificate in after.certificates()}
        assert len(recorded) == len(after.certificates()) == rounds
        for place, finalize in orders:
            answers = [words for words in told if words.get("answered") == (finalize or place)]
            assert len(answers) == 2
            certificates = {json.loads(words["body"]).get("certificate") for words in answers if words["status"] == 200}
            statuses = sorted(json.loads(words["body"])["status"] for words in answers if words["status"] == 200)
            refused = [words for words in answers if words["status"] != 200]
            assert len(refused) == (0 if begun else 1)
            assert all("orderNotReady" in words["body"] for words in refused)
            assert "valid" in statuses
            assert certificates - {None} == {f"{BASE}/cert/{recorded[place.rsplit('/', 1)[1]].id}"}
        certificates_are_on_record(after, [], before)
