"""So many in so long: counted by all processes together, and refused at no cost (RFC 8555 §6.6)."""

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.server.conftest import Clock, Stage
from tests.wire import BASE, Wire, bind, problem_of

from privet import ACMEResponder, Limits, MemoryStore, Rate, Record, SQLiteStore, Store
from privet.acme.identifiers import from_text
from privet.acme.problems import Problem, ProblemType
from privet.acme.status import Status
from privet.server.authorizations import count_order
from privet.server.rates import KIND, Count, Rates, network_of
from privet.server.records import Account
from privet.stores.asynchronous import AsyncStore

pytestmark = pytest.mark.anyio

HOUR = timedelta(hours=1)


class Counting(MemoryStore):
    """A store that counts what it is asked."""

    asked = 0

    def get(self, kind: str, id: str) -> Record | None:
        self.asked += 1
        return super().get(kind, id)

    def commit(self, *records: Record, unchanged: Sequence[Record] = (), durable: bool = True) -> None:
        self.asked += 1
        super().commit(*records, unchanged=unchanged, durable=durable)


async def exhaust(rates: Rates, rate: Rate, what: str = "deeds") -> int:
    """How many there is room for."""
    for count in range(10 * rate.most):
        if not await _takes(rates, rate, what):
            return count
    raise AssertionError("there is no end to it")


async def _takes(rates: Rates, rate: Rate, what: str) -> bool:
    try:
        await rates.take(Count(rate, what))
    except Problem as problem:
        if problem.type is ProblemType.RATE_LIMITED:
            return False
        raise
    return True


async def test_a_rate_holds_give_or_take_a_share_of_each_process() -> None:
    store, clock, rate = MemoryStore(), Clock(), Rate(500, HOUR)
    processes = [Rates(AsyncStore(store), "root", clock) for _ in range(3)]
    assert sum([await exhaust(process, rate) for process in processes]) == 500 + 3 * 10


async def test_processes_that_take_at_once_get_no_more_than_in_turn(tmp_path: Path) -> None:
    rate, clock = Rate(1000, HOUR), Clock()
    with SQLiteStore(tmp_path / "one") as one, SQLiteStore(tmp_path / "one") as other:
        processes = [Rates(AsyncStore(store), "root", clock) for store in (one, other, one, other)]

        async def try_hard(rates: Rates) -> int:
            return sum([await _takes(rates, rate, "deeds") for _ in range(600)])

        assert sum(await asyncio.gather(*map(try_hard, processes))) == 1000 + 4 * 20


async def test_who_waits_as_long_as_is_said_has_room_again() -> None:
    clock, rate = Clock(), Rate(100, HOUR)
    rates = Rates(AsyncStore(MemoryStore()), "root", clock)
    await exhaust(rates, rate)
    with pytest.raises(Problem, match="no more than 100 deeds within 1 h") as refused:
        await rates.take(Count(rate, "deeds"))
    wait = timedelta(seconds=int(refused.value.headers["Retry-After"]))
    assert timedelta(0) < wait <= timedelta(seconds=37)  # a hundredth of an hour
    clock.time += wait
    await rates.take(Count(rate, "deeds"))
    clock.forward(hours=3)
    assert await exhaust(rates, rate) == 100 + 2  # whole again, and the share that is free


async def test_names_are_counted_for_themselves() -> None:
    rates, rate = Rates(AsyncStore(MemoryStore()), "root", Clock()), Rate(50, HOUR)
    await exhaust(rates, rate, "orders of a")
    assert await exhaust(rates, rate, "orders of b") == 51


async def test_who_behaves_costs_the_store_nothing_and_who_is_refused_costs_nothing_more() -> None:
    store, clock, rate = Counting(), Clock(), Rate(500, HOUR)
    rates = Rates(AsyncStore(_plain(store)), "root", clock)
    for _ in range(10):
        await rates.take(Count(rate, "deeds"))
    assert store.asked == 0
    await exhaust(rates, rate)
    asked = store.asked
    assert asked <= 2 * 50 + 1
    for _ in range(100):
        with pytest.raises(Problem):
            await rates.take(Count(rate, "deeds"))
    assert store.asked == asked


def _plain(store: Store) -> Any:
    """The four verbs and no more."""

    class Plain:
        get, find, commit, prune = store.get, store.find, store.commit, store.prune

    return Plain()


async def test_what_is_kept_goes_when_the_rate_is_whole_again() -> None:
    store, clock = MemoryStore(), Clock()
    await exhaust(Rates(AsyncStore(store), "root", clock), Rate(500, HOUR))
    assert len(store.find(KIND)) == 1
    store.prune(clock() + timedelta(minutes=59))
    assert len(store.find(KIND)) == 1
    store.prune(clock() + HOUR)
    assert store.find(KIND) == []


async def test_a_clock_that_was_ahead_locks_nobody_out() -> None:
    store, rate = MemoryStore(), Rate(500, HOUR)
    await exhaust(Rates(AsyncStore(store), "root", Clock(datetime(2031, 1, 1, tzinfo=UTC))), rate)
    clock = Clock()
    rates = Rates(AsyncStore(store), "root", clock)
    await exhaust(rates, rate)
    clock.forward(hours=1)
    await rates.take(Count(rate, "deeds"))


@pytest.mark.parametrize(
    ("client", "network"),
    [
        ("10.1.2.3", "10.1.2.0/24"),
        ("::ffff:10.1.2.3", "10.1.2.0/24"),
        ("fd00:1:2:3::4", "fd00:1:2:3::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("", "unknown"),
        ("unix:", "unknown"),
    ],
)
def test_a_network_is_one_party(client: str, network: str) -> None:
    assert network_of(client) == network


class TestAtTheResponder:
    async def refused(self, response: httpx.Response) -> None:
        assert problem_of(response) == (429, "rateLimited")
        assert int(response.headers["retry-after"]) >= 1
        assert "no more than" in response.json()["detail"]

    async def test_new_accounts_of_a_network(self, stage: Stage) -> None:
        async with stage(auto_approve=True, limits=Limits(accounts_of_network=Rate(50, HOUR))) as scene:
            wires = [await scene.account() for _ in range(51)]
            stranger = scene.stranger()
            await self.refused(await stranger.register())
            # Who has an account finds it all the same, and can work with it.
            assert (await wires[0].register()).status_code == 200
            assert await wires[0].issue("a.internal")
            # Another network is another party.
            neighbour = httpx.ASGITransport(scene.responder, client=("10.9.9.9", 1))
            async with httpx.AsyncClient(transport=neighbour, base_url=BASE) as http:
                assert (await Wire(http, scene.base).register()).status_code == 201
            scene.clock.forward(hours=1)
            assert (await stranger.register()).status_code == 201

    @pytest.mark.parametrize(
        ("limit", "names"),
        [
            ("orders_of_account", ["{}.internal"]),
            ("orders_of_network", ["{}.internal"]),
            ("orders_for_same_names", ["a.internal", "b.internal"]),
        ],
    )
    async def test_orders(self, stage: Stage, limit: str, names: list[str]) -> None:
        limits = Limits(**{limit: Rate(50, HOUR)})  # type: ignore[arg-type]
        async with stage(auto_approve=True, limits=limits) as scene:
            wire = await scene.account()
            for number in range(51):
                await wire.issue(*(name.format(number) for name in names))
            await self.refused(await wire.order(*(name.format("z") for name in names)))
            orders = len(scene.store.find("order", limit=1000))
            for _ in range(20):  # a client in a loop
                await self.refused(await wire.order(*(name.format("z") for name in reversed(names))))
            assert len(scene.store.find("order", limit=1000)) == orders
            if limit == "orders_for_same_names":
                assert await wire.issue("a.internal")
                assert await (await scene.account()).issue(*names)
            scene.clock.forward(hours=1)
            assert await wire.issue(*(name.format("z") for name in names))

    async def test_authorizations_ahead_count_as_orders(self, stage: Stage) -> None:
        """Whoever gives them up as soon as they are made meets no ceiling, and fills the disk all the same."""
        limits = Limits(orders_of_account=Rate(50, HOUR))
        async with stage(limits=limits) as scene:
            wire = await scene.account()
            for number in range(51):
                made = await wire.post("new-authz", {"identifier": {"type": "dns", "value": f"{number}.internal"}})
                assert (await wire.post(made.headers["location"], {"status": "deactivated"})).status_code == 200
            refused = {"identifier": {"type": "dns", "value": "z.internal"}}
            await self.refused(await wire.post("new-authz", refused))
            await self.refused(await wire.order("z.internal"))

    async def test_orders_of_an_external_account_key(self, stage: Stage) -> None:
        limits = Limits(orders_of_external_account=Rate(50, HOUR))
        async with stage(auto_approve=True, limits=limits, external_account_keys={"team": b"k" * 32}) as scene:
            wires = [await _bound(scene.stranger()) for _ in range(3)]
            for number in range(51):
                await wires[number % 3].issue(f"{number}.internal")
            for wire in wires:
                await self.refused(await wire.order("z.internal"))
            assert await (await scene.account()).issue("z.internal")

    async def test_validations_of_a_name(self, stage: Stage) -> None:
        class Refuses:
            asked = 0

            async def validate(self, identifier: str, identifier_type: str, token: str, key_authorization: str) -> bool:
                Refuses.asked += 1
                return False

        limits = Limits(validations_of_name=Rate(50, HOUR))
        async with stage(challenge_validator=Refuses(), limits=limits) as scene:
            wire = await scene.account()
            for _ in range(51):
                assert (await _answer(wire, "a.internal")).json()["status"] == "invalid"
            await self.refused(await _answer(wire, "a.internal"))
            assert Refuses.asked == 51
            assert (await _answer(wire, "b.internal")).json()["status"] == "invalid"

    async def test_replicas_count_together_and_a_restart_forgets_little(self, stage: Stage) -> None:
        limits = Limits(orders_of_account=Rate(100, HOUR))
        async with stage(auto_approve=True, limits=limits) as scene:
            wire = await scene.account()
            done = 0
            for _ in range(3):
                responder = ACMEResponder(scene.ca, auto_approve=True, now=scene.clock, limits=limits)
                async with scene.at(responder) as wire.http:
                    for number in range(60):
                        done += (await wire.order(f"{number}.internal")).status_code == 201
            assert done == 100 + 3 * 2


async def _bound(wire: Wire) -> Wire:
    binding = bind("team", b"k" * 32, wire.url("new-account"), wire.key)
    assert (await wire.register(externalAccountBinding=binding)).status_code == 201
    return wire


async def _answer(wire: Wire, name: str) -> httpx.Response:
    order = (await wire.order(name)).json()
    authorization = (await wire.post(order["authorizations"][0])).json()
    return await wire.post(authorization["challenges"][0]["url"], {})


@pytest.mark.parametrize(("most", "seconds"), [(0, 60), (-5, 60), (5, 0), (5, 0.5)])
def test_a_rate_is_one_at_least(most: int, seconds: float) -> None:
    with pytest.raises(ValueError, match="a rate is one at least, in a second at least"):
        Rate(most, timedelta(seconds=seconds))


async def test_whoever_is_refused_takes_nothing_from_the_neighbours(stage: Stage) -> None:
    limits = Limits(orders_for_same_names=Rate(50, HOUR), orders_of_network=Rate(100, HOUR), open_orders=1000)
    async with stage(auto_approve=True, limits=limits) as scene:
        wire, neighbour = await scene.account(), await scene.account()
        for _ in range(300):
            await wire.order("a.internal")
        for number in range(45):
            assert (await neighbour.order(f"{number}.internal")).status_code == 201


async def test_whoever_has_too_many_orders_open_takes_nothing_from_the_neighbours(stage: Stage) -> None:
    limits = Limits(orders_of_network=Rate(100, HOUR), open_orders=10)
    async with stage(auto_approve=True, limits=limits) as scene:
        wire = await scene.account()
        for number in range(300):
            await wire.order(f"{number}.internal")
        for _ in range(10):
            assert await (await scene.account()).issue("a.internal")


async def test_long_names_are_not_kept() -> None:
    rates, rate = Rates(AsyncStore(MemoryStore()), "root", Clock()), Rate(50, HOUR)
    for number in range(100):
        await rates.take(Count(rate, "deeds", ("x" * 20_000, str(number))))
    assert max(map(len, rates._shares)) == 16


async def test_of_many_at_once_one_goes_to_the_store_and_nothing_is_lost(tmp_path: Path) -> None:
    """If each of them came back with a share, a moment in which many come would use up the day."""
    rate = Rate(1000, HOUR)
    with SQLiteStore(tmp_path / "privet.db") as store:
        rates = Rates(AsyncStore(store), "root", Clock())

        async def keep_asking() -> int:
            taken = 0
            for _ in range(50):
                taken += await _takes(rates, rate, "deeds")
                await asyncio.sleep(0)  # others ask in between
            return taken

        assert sum(await asyncio.gather(*(keep_asking() for _ in range(50)))) == 1000 + 20


async def test_who_gives_up_at_the_store_keeps_nobody_waiting() -> None:
    rates, rate = Rates(AsyncStore(MemoryStore()), "root", Clock()), Rate(100, HOUR)
    await rates.take(Count(rate, "deeds"))
    await rates.take(Count(rate, "deeds"))  # the free share is gone
    first, second = (asyncio.create_task(rates.take(Count(rate, "deeds"))) for _ in range(2))
    await asyncio.sleep(0)
    first.cancel()
    await second
    assert first.cancelled()


async def test_made_up_names_are_no_way_to_be_forgotten() -> None:
    """Every order of other names is counted for these names as well; those counts must not push out the account's."""
    rates, most = Rates(AsyncStore(MemoryStore()), "root", Clock()), Rate(30_000, HOUR)

    async def orders(number: int) -> bool:
        try:
            await rates.take(Count(Rate(500, HOUR), "the same names", (str(number),)), Count(most, "orders of a"))
        except Problem:
            return False
        return True

    assert sum([await orders(number) for number in range(32_000)]) == 30_000 + 600


async def test_a_refusal_leaves_no_trace_of_what_else_would_have_been_counted() -> None:
    rates, rate = Rates(AsyncStore(MemoryStore()), "root", Clock()), Rate(50, HOUR)
    await exhaust(rates, rate, "orders of a")
    kept = len(rates._shares)
    for number in range(100):
        with pytest.raises(Problem, match="orders of a"):
            await rates.take(Count(rate, "the same names", (str(number),)), Count(rate, "orders of a"))
    assert len(rates._shares) == kept


@pytest.mark.parametrize("shares", ["one external account key", "one account"])
async def test_ten_thousand_nodes_that_renew_daily_notice_nothing(shares: str) -> None:
    """Behind one address, at four processes; they live by certificates of a day, so each renews every 16 hours. All of
    them have to begin on the same day, and each comes twice in the same round because something went wrong."""
    limits, clock, store = Limits(), Clock(), MemoryStore()
    processes = [Rates(AsyncStore(store), "root", clock) for _ in range(4)]
    first = Account("0", Status.VALID, {}, "", (), True, "team", None, clock(), clock(), "root")
    nodes = [first if shares == "one account" else first._replace(id=str(number)) for number in range(10_000)]
    names = [[from_text(f"node-{number}.internal")] for number in range(10_000)]

    async def renews(number: int) -> None:
        rates = processes[number % 4]
        await rates.take(*count_order(limits, nodes[number], names[number], "10.0.0.1"))
        if number % 100 == 0:
            await asyncio.sleep(0)
        await rates.take(Count(limits.validations_of_name, "validations", (nodes[number].id, str(names[number]))))

    await asyncio.gather(
        *(
            processes[number % 4].take(Count(limits.accounts_of_network, "new accounts from 10.0.0.0/24"))
            for number in range(10_000)
        )
    )
    for at in range(4):
        for _ in range(2 if at == 2 else 1):
            await asyncio.gather(*map(renews, range(10_000)))
        clock.forward(hours=16)


async def test_authorities_that_share_a_store_count_for_themselves() -> None:
    store, clock, rate = MemoryStore(), Clock(), Rate(50, HOUR)
    for authority in ("one", "other"):
        assert await exhaust(Rates(AsyncStore(store), authority, clock), rate) == 51


async def test_what_was_remembered_by_a_clock_that_was_ahead_is_forgotten() -> None:
    clock, rate = Clock(datetime(2031, 1, 1, tzinfo=UTC)), Rate(50, HOUR)
    rates = Rates(AsyncStore(MemoryStore()), "root", clock)
    await exhaust(rates, rate)
    clock.time = datetime(2026, 3, 1, tzinfo=UTC)
    assert await exhaust(rates, rate) == 50
    clock.forward(hours=1)
    await rates.take(Count(rate, "deeds"))


async def test_a_conflict_is_not_counted(stage: Stage) -> None:
    """Ten at once of one account that has to be kept for longer: they conflict, and there is room for ten."""
    limits = Limits(orders_of_account=Rate(10, HOUR), account_lifetime=timedelta(days=400))
    async with stage(auto_approve=True, limits=limits) as scene:
        wire = await scene.account()
        wires = [Wire(scene.http, scene.base, wire.key, wire.kid) for _ in range(10)]
        answers = await asyncio.gather(*(each.order(f"{at}.internal") for at, each in enumerate(wires)))
        assert [answer.status_code for answer in answers] == [201] * 10
