"""Nonces: made for nothing, good once, and good wherever and whenever they may be."""

import asyncio
from collections.abc import Iterator, Sequence
from pathlib import Path

import httpx
import pytest
from tests.server.conftest import Clock, Scene, Stage
from tests.wire import Wire, problem_of

from privet import ACMEResponder, CertificateAuthority, Limits, MemoryStore, Record, SQLiteStore, Store
from privet.acme.encoding import from_base64url, to_base64url
from privet.acme.problems import Problem
from privet.server.nonces import Nonces
from privet.stores.asynchronous import AsyncStore

pytestmark = pytest.mark.anyio


class Counting(MemoryStore):
    """A store that counts what is written to it."""

    def __init__(self) -> None:
        super().__init__()
        self.written: list[str] = []

    def commit(self, *records: Record, unchanged: Sequence[Record] = (), durable: bool = True) -> None:
        super().commit(*records, unchanged=unchanged, durable=durable)
        self.written += [record.kind for record in records]


async def test_issuing_a_nonce_writes_nothing(stage: Stage) -> None:
    """Lessons 13, 14: a nonce per response, gigabytes of them; and one client's pushed out another's."""
    async with stage(store=Counting()) as scene:
        assert isinstance(scene.store, Counting)
        first = (await scene.http.head("/new-nonce")).headers["replay-nonce"]
        scene.store.written.clear()
        nonces = {(await scene.http.head("/new-nonce")).headers["replay-nonce"] for _ in range(100)}
        refusals = [await scene.http.post("/nothing") for _ in range(100)]
        nonces |= {refusal.headers["replay-nonce"] for refusal in refusals}
        assert len(nonces) == 200
        assert scene.store.written == []
        # However many came after it, the first is as good as it was.
        assert (await scene.stranger().post("new-account", {}, nonce=first)).status_code == 201
        assert scene.store.written == ["spent-nonce", "account"]


async def test_made_up_nonces_cost_nothing(stage: Stage) -> None:
    """Nobody can fill the store with nonces that were never issued."""
    async with stage(store=Counting()) as scene:
        assert isinstance(scene.store, Counting)
        wire = await scene.account()
        good = await wire.fresh_nonce()
        scene.store.written.clear()
        octets = bytearray(from_base64url(good, "the nonce"))
        for position in range(len(octets)):
            octets[position] ^= 1
            assert problem_of(await wire.post("new-order", {}, nonce=to_base64url(bytes(octets)))) == (400, "badNonce")
            octets[position] ^= 1
        for forged in (good[:40], to_base64url(bytes(octets) + b"\0"), to_base64url(bytes(octets[:16]))):
            assert problem_of(await wire.post("new-order", {}, nonce=forged)) == (400, "badNonce")
        assert scene.store.written == []
        # And nobody has burnt the good one by playing with it.
        assert problem_of(await wire.post("new-order", {}, nonce=good)) == (400, "malformed")


async def test_a_nonce_has_one_spelling(stage: Stage) -> None:
    """Spare bits and padding would make a second one of it. RFC 8555 §6.5.2: not base64url is malformed."""
    async with stage() as scene:
        wire = await scene.account()
        assert wire.kid
        good = await wire.fresh_nonce()
        assert (await wire.post(wire.kid, nonce=good)).status_code == 200
        alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
        others = [good[:-1] + letter for letter in alphabet if letter != good[-1]]
        for spelling in (*others, f"{good}=", f" {good}", f"{good}\n"):
            assert problem_of(await wire.post(wire.kid, nonce=spelling)) in [(400, "malformed"), (400, "badNonce")]


async def test_twenty_tasks_with_one_nonce(stage: Stage) -> None:
    """Lesson 15: one of them wins."""
    async with stage() as scene:
        wire = await scene.account()
        assert wire.kid
        nonce = await wire.fresh_nonce()
        answers = await asyncio.gather(*[wire.post(wire.kid, {}, nonce=nonce) for _ in range(20)])
        assert sorted(answer.status_code for answer in answers) == [200] + [400] * 19
        assert {problem_of(answer) for answer in answers if answer.is_error} == {(400, "badNonce")}


@pytest.fixture(params=["memory", "sqlite"])
def two_stores(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[Store, Store]]:
    """What two replicas have of one store: the same object, or two connections to one database."""
    if request.param == "memory":
        store = MemoryStore()
        yield store, store
    else:
        with SQLiteStore(tmp_path / "privet.db") as one, SQLiteStore(tmp_path / "privet.db") as two:
            yield one, two


async def test_one_nonce_at_two_replicas_at_the_same_time(stage: Stage, two_stores: tuple[Store, Store]) -> None:
    """Lesson 15: one wins, and a nonce of one replica is good at the other."""
    async with stage(store=two_stores[0]) as scene:
        wire = await scene.account()
        assert wire.kid
        async with scene.at(replica(scene, two_stores[1])) as http:
            elsewhere = Wire(http, wire.base, wire.key, wire.kid)
            for _ in range(5):
                nonce = await wire.fresh_nonce()
                answers = await asyncio.gather(
                    wire.post(wire.kid, {}, nonce=nonce), elsewhere.post(wire.kid, {}, nonce=nonce)
                )
                assert sorted(answer.status_code for answer in answers) == [200, 400]
            there = (await http.head("/new-nonce")).headers["replay-nonce"]
            assert (await wire.post(wire.kid, {}, nonce=there)).status_code == 200
            here = (await scene.http.head("/new-nonce")).headers["replay-nonce"]
            assert (await elsewhere.post(wire.kid, {}, nonce=here)).status_code == 200


async def test_a_restart_forgets_no_nonce(stage: Stage, two_stores: tuple[Store, Store]) -> None:
    """Lesson 15: the good ones are still good, the spent ones still spent."""
    async with stage(store=two_stores[0]) as scene:
        wire = await scene.account()
        assert wire.kid
        good, spent = await wire.fresh_nonce(), await wire.fresh_nonce()
        assert (await wire.post(wire.kid, {}, nonce=spent)).status_code == 200
        async with scene.at(replica(scene, two_stores[1])) as http:
            afterwards = Wire(http, wire.base, wire.key, wire.kid)
            assert problem_of(await afterwards.post(wire.kid, {}, nonce=spent)) == (400, "badNonce")
            assert (await afterwards.post(wire.kid, {}, nonce=good)).status_code == 200


async def test_replicas_that_start_together_agree_on_the_key_of_their_nonces(stage: Stage) -> None:
    async with stage() as scene:
        responders = [replica(scene, scene.store) for _ in range(8)]
        clients = [scene.at(responder) for responder in responders]
        answers = await asyncio.gather(*[http.head("/new-nonce") for http in clients])
        for answer in answers:
            assert (await scene.stranger().post("new-account", {}, nonce=answer.headers["replay-nonce"])).is_success
        await asyncio.gather(*[http.aclose() for http in clients])


def replica(scene: Scene, store: Store) -> ACMEResponder:
    ca = CertificateAuthority(store, now=scene.clock)
    ca.init()
    return ACMEResponder(ca, now=scene.clock)


async def test_a_nonce_lives_for_its_lifetime(stage: Stage) -> None:
    async with stage(limits=Limits()) as scene:
        wire = await scene.account()
        assert wire.kid
        first, second = await wire.fresh_nonce(), await wire.fresh_nonce()
        scene.clock.forward(minutes=60)
        assert (await wire.post(wire.kid, {}, nonce=first)).status_code == 200
        scene.clock.forward(seconds=1)
        assert problem_of(await wire.post(wire.kid, {}, nonce=second)) == (400, "badNonce")


async def test_a_clock_put_back_brings_no_nonce_back(stage: Stage) -> None:
    """Spent is spent, also when what has expired was forgotten in between."""
    async with stage() as scene:
        wire = await scene.account()
        assert wire.kid
        spent = await wire.fresh_nonce()
        assert (await wire.post(wire.kid, {}, nonce=spent)).status_code == 200
        for forward in (61, 119):
            scene.clock.forward(minutes=forward)
            scene.store.prune(scene.clock())
            scene.clock.forward(minutes=-forward)
            assert problem_of(await wire.post(wire.kid, {}, nonce=spent)) == (400, "badNonce")


async def test_clocks_of_replicas_may_differ_a_little(stage: Stage) -> None:
    async with stage() as scene:
        wire = await scene.account()
        assert wire.kid
        for ahead, status in ((4, 200), (6, 400)):
            scene.clock.forward(minutes=ahead)
            nonce = (await scene.http.head("/new-nonce")).headers["replay-nonce"]
            scene.clock.forward(minutes=-ahead)
            assert (await wire.post(wire.kid, {}, nonce=nonce)).status_code == status


async def test_spent_nonces_do_not_stay(stage: Stage) -> None:
    """Lesson 13: bounded."""
    async with stage() as scene:
        wire = await scene.account()
        assert wire.kid
        for _ in range(30):
            await wire.post(wire.kid, {})
        assert len(scene.store.find("spent-nonce")) == 31
        scene.clock.forward(hours=2)
        scene.store.prune(scene.clock())
        assert scene.store.find("spent-nonce") == []


async def test_every_nonce_is_another(stage: Stage) -> None:
    """Random bits and not the hour tell them apart: a clock that stands still makes different ones."""
    clock, store = Clock(), MemoryStore()
    with AsyncStore(store) as async_store:
        nonces = Nonces(async_store, Limits().nonce_lifetime, clock)
        await nonces.load()
        made = [nonces.make() for _ in range(1000)]
        assert len(set(made)) == 1000
        await nonces.redeem(made[0])
        other = Nonces(AsyncStore(MemoryStore()), Limits().nonce_lifetime, clock)
        await other.load()
        # Of another store, and so of another authority: not one of ours.
        with pytest.raises(Problem, match="not one of ours"):
            other.redeem(made[1])


async def test_any_client_may_use_any_nonce(stage: Stage) -> None:
    """RFC 8555 §6.5: clients may "assume that nonces have broad scope"."""
    async with stage() as scene:
        one, two = await scene.account(), await scene.account()
        assert two.kid
        answer: httpx.Response = await one.post("new-order", {})
        assert (await two.post(two.kid, {}, nonce=answer.headers["replay-nonce"])).status_code == 200
