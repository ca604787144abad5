"""How many at once, and that those who wait for a slow place are in nobody's way."""

import asyncio
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.validation.scene import PROOF, Scene
from tests.validation.town import never, response, says

from privet.validation import Attempt, Gate
from privet.validation.trail import Trail

pytestmark = pytest.mark.anyio

GOOD = response(200, PROOF.encode())


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


class Crowd:
    """People who pass a gate and stay until they are let go."""

    def __init__(self, gate: Gate) -> None:
        self.gate = gate
        self.inside: list[str] = []
        self.go = asyncio.Event()

    async def pass_through(self, target: str) -> None:
        async with self.gate.enter(target):
            self.inside.append(target)
            await self.go.wait()

    async def gather(self, *targets: str) -> list[asyncio.Task[None]]:
        tasks = [asyncio.create_task(self.pass_through(target)) for target in targets]
        for _ in range(10):
            await asyncio.sleep(0)
        return tasks


async def test_so_many_to_one_target_and_so_many_in_all() -> None:
    crowd = Crowd(Gate(total=5, per_target=2))
    tasks = await crowd.gather(*"aaaaa", *"bbb", *"cccc")
    assert crowd.inside == ["a", "a", "b", "b", "c"]
    crowd.go.set()
    await asyncio.gather(*tasks)
    assert sorted(crowd.inside) == sorted("aaaaabbbcccc")


async def test_who_waits_for_a_slow_target_holds_no_place() -> None:
    crowd = Crowd(Gate(total=3, per_target=2))
    tasks = await crowd.gather(*"aaaaaaaaaa", "b")
    assert crowd.inside == ["a", "a", "b"]
    crowd.go.set()
    await asyncio.gather(*tasks)


async def test_who_gives_up_leaves_no_trace() -> None:
    gate = Gate(total=1, per_target=1)
    crowd = Crowd(gate)
    first, *others = await crowd.gather("a", "a", "b", "c")
    for other in others:
        other.cancel()
    await asyncio.gather(*others, return_exceptions=True)
    crowd.go.set()
    await first
    (room,) = gate._rooms.values()
    assert room.places == {}
    async with asyncio.timeout(5), gate.enter("a"):
        pass


async def test_places_go_round_among_those_who_ask() -> None:
    """Somebody asks for a thousand things that take their time. Who comes later with one thing is in soon."""
    gate = Gate(total=4, per_target=2)
    inside: list[str] = []

    async def pass_through(target: str, asker: str) -> None:
        async with gate.enter(target, asker):
            inside.append(asker)
            await asyncio.sleep(0)

    for targets in (["a"] * 1000, [f"host-{number}" for number in range(1000)]):
        inside.clear()
        greedy = [asyncio.create_task(pass_through(target, "greedy")) for target in targets]
        await asyncio.sleep(0)
        await asyncio.gather(*(pass_through("a", asker) for asker in ("modest", "late")))
        assert len(inside) < 20
        await asyncio.gather(*greedy)
        assert len(inside) == 1002
        (room,) = gate._rooms.values()
        assert (room.places, room.free._free, room.free._waiting) == ({}, 4, {})


PEOPLE = st.tuples(st.sampled_from("ab"), st.sampled_from("xyz"), st.integers(0, 3), st.booleans())


@given(st.lists(PEOPLE, max_size=30))
def test_no_place_is_lost_or_made(people: list[tuple[str, str, int, bool]]) -> None:
    """Whoever waits, goes in, stays or gives up, at whatever moment: never too many, and in the end all are free."""
    gate, inside = Gate(total=3, per_target=2), Counter[str]()

    async def pass_through(target: str, asker: str, steps: int) -> None:
        async with gate.enter(target, asker):
            inside[target] += 1
            try:
                assert inside[target] <= 2
                assert inside.total() <= 3
                for _ in range(steps):
                    await asyncio.sleep(0)
            finally:
                inside[target] -= 1

    async def crowd() -> None:
        tasks = []
        for target, asker, steps, gives_up in people:
            task = asyncio.create_task(pass_through(target, asker, steps))
            tasks.append(task)
            await asyncio.sleep(0)
            if gives_up:
                task.cancel()
        outcomes = await asyncio.gather(*tasks, return_exceptions=True)
        assert all(each is None or isinstance(each, asyncio.CancelledError) for each in outcomes), outcomes
        for room in gate._rooms.values():
            assert (room.places, room.free._free, room.free._waiting) == ({}, 3, {})

    asyncio.run(crowd())


def test_a_gate_may_be_used_in_several_event_loops() -> None:
    gate = Gate(total=1, per_target=1)

    async def crowd() -> list[str]:
        crowd = Crowd(gate)
        tasks = await crowd.gather("a", "a", "b")
        crowd.go.set()
        await asyncio.gather(*tasks)
        return crowd.inside

    assert [sorted(asyncio.run(crowd())) for _ in range(3)] == [["a", "a", "b"]] * 3


@pytest.mark.parametrize(("total", "per_target"), [(0, 1), (1, 0)])
def test_a_gate_that_lets_nobody_through(total: int, per_target: int) -> None:
    with pytest.raises(ValueError, match="at least one"):
        Gate(total=total, per_target=per_target)


def test_a_black_hole_is_not_in_the_way_of_others(scene: Scene) -> None:
    """Two hundred validations, half of them of a host that takes every call and says nothing: the others are done
    while it is still being waited for, and it is never called more often than one target may be."""
    town = scene.town
    scene.nameserver.add("hole.internal", "A", town.neighbour.address)
    scene.nameserver.add("www.internal", "A", town.client.address)
    validator = scene.http01(gate=Gate(total=30, per_target=10), timeout=300)

    async def prove(name: str) -> None:
        await validator.prove(Attempt(name, "dns", PROOF.partition(".")[0], PROOF))

    async def all_at_once() -> int:
        lost = [asyncio.create_task(prove("hole.internal")) for _ in range(100)]
        await asyncio.gather(*(prove("www.internal") for _ in range(100)))
        waiting = sum(not each.done() for each in lost)
        for each in lost:
            each.cancel()
        await asyncio.gather(*lost, return_exceptions=True)
        return waiting

    with town.neighbour.serve(never, scene.http) as hole, town.client.serve(says(GOOD), scene.http) as well:
        assert scene.run(all_at_once()) == 100
    assert hole.most_at_once <= 10
    assert well.most_at_once <= 10
    assert well.calls == 100


async def test_waiting_for_a_place_takes_nothing_from_an_attempts_time() -> None:
    """Or many black holes at once would use up the time of those who wait behind them."""
    trail, waited = Trail(), asyncio.Event()

    async def attempt() -> None:
        async with asyncio.timeout(0.001) as trail.clock:
            with trail.paused():
                await asyncio.sleep(0.05)
                waited.set()
            await asyncio.Event().wait()

    with pytest.raises(TimeoutError):
        await attempt()
    assert waited.is_set()
    with Trail().paused():
        pass
