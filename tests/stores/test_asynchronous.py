"""A store for an event loop: the same verbs, awaited; asked together, answered together; and no loop waits."""

import asyncio
import gc
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from threading import Barrier, Event
from typing import Any

import pytest
import uvloop

from privet.stores import AsyncStore, Batch, Conflict, MemoryStore, Record, SQLiteStore, Store, StoreError
from privet.stores.base import Outcome

NOW = datetime(2026, 3, 1, tzinfo=UTC)

Run = Callable[[Coroutine[Any, Any, Any]], Any]


@pytest.fixture(params=["asyncio", "uvloop"])
def run(request: pytest.FixtureRequest) -> Run:
    """Run a coroutine, each time on a new event loop."""

    def run(main: Coroutine[Any, Any, Any]) -> Any:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop if request.param == "uvloop" else None) as runner:
            return runner.run(main)

    return run


class Slow(SQLiteStore):
    """A store whose commits wait until they are let, and that remembers what was asked of it together."""

    def __init__(self, path: Any) -> None:
        super().__init__(path)
        self.busy, self.go_on = Event(), Event()
        self.asked: list[tuple[str, int]] = []

    def get_each(self, keys: Any) -> list[Record | None]:
        self.asked.append(("get", len(keys)))
        return super().get_each(keys)

    def commit_each(self, batches: Any) -> list[Outcome]:
        self.asked.append(("commit", len(batches)))
        self.busy.set()
        self.go_on.wait()
        return super().commit_each(batches)


@pytest.fixture
def slow(tmp_path: Any) -> Iterator[Slow]:
    with Slow(tmp_path / "database") as store:
        yield store
        store.go_on.set()


def test_the_four_verbs(store: Store, run: Run) -> None:
    async def main() -> None:
        with AsyncStore(store) as records:
            assert await records.get("order", "1") is None
            await records.commit(Record("order", "1", index=("a",), expires=NOW), Record("order", "2"))
            order = await records.get("order", "1")
            assert order == Record("order", "1", version=1, index=("a",), expires=NOW)
            assert await records.find("order", "a") == [order]
            assert await records.find("order", after="1", limit=1) == [Record("order", "2", version=1)]
            await records.commit(Record("order", "3"), unchanged=[order], durable=False)
            with pytest.raises(Conflict):
                await records.commit(Record("order", "4"), unchanged=[order._replace(version=2)])
            assert await records.prune(NOW, limit=5) == 1
            assert await records.get("order", "1") is None

    run(main())


def test_what_is_asked_in_one_turn_is_answered_together(slow: Slow, run: Run) -> None:
    slow.go_on.set()

    async def main() -> None:
        with AsyncStore(slow) as records:
            commits = [records.commit(Record("order", str(number))) for number in range(10)]
            gets = [records.get("order", str(number)) for number in range(10)]
            assert await asyncio.gather(*gets) == [None] * 10  # reads first
            await asyncio.gather(*commits)
            assert all(await asyncio.gather(*(records.get("order", str(number)) for number in range(10))))

    run(main())
    assert slow.asked == [("get", 10), ("commit", 10), ("get", 10)]


def test_the_loop_goes_on_while_the_store_is_busy_and_what_comes_meanwhile_goes_together(slow: Slow, run: Run) -> None:
    async def main() -> None:
        with AsyncStore(slow) as records:
            first = records.commit(Record("order", "first"))
            await asyncio.to_thread(slow.busy.wait)
            others = []
            for number in range(10):
                others.append(records.commit(Record("order", str(number))))
                await asyncio.sleep(0)
                await asyncio.sleep(0)
            assert not any(commit.done() for commit in (first, *others))
            slow.go_on.set()
            await asyncio.gather(first, *others)

    run(main())
    assert slow.asked == [("commit", 1), ("commit", 10)]


def test_each_is_told_its_own_failure(sqlite: SQLiteStore, run: Run) -> None:
    async def main() -> list[type]:
        with AsyncStore(sqlite) as records:
            asked: list[asyncio.Future[Any]] = [
                records.commit(Record("order", "1")),
                records.commit(Record("order", "2", version=5)),
                records.get("order", "\ud800"),
            ]
            await asyncio.wait(asked)
            sqlite.close()
            asked += [
                records.get("order", "1"),
                records.find("order"),
                records.prune(NOW),
                records.commit(Record("a", "1")),
            ]
            return [type(outcome) for outcome in await asyncio.gather(*asked, return_exceptions=True)]

    assert run(main()) == [type(None), Conflict, type(None)] + [StoreError] * 4


def test_a_store_that_does_one_thing_at_a_time_serves_as_well(run: Run) -> None:
    class Plain:
        """The four verbs and no more."""

        def __init__(self) -> None:
            memory = MemoryStore()
            self.get, self.find, self.commit, self.prune = memory.get, memory.find, memory.commit, memory.prune

    async def main() -> None:
        with AsyncStore(Plain()) as records:
            same = [records.commit(Record("order", "1")) for _ in range(3)]
            outcomes = await asyncio.gather(*same, return_exceptions=True)
            assert [type(outcome) for outcome in outcomes] == [type(None), Conflict, Conflict]
            assert await records.get("order", "1")

    run(main())


def test_an_answer_nobody_waits_for_any_more_troubles_nobody(slow: Slow, run: Run) -> None:
    async def main() -> None:
        with AsyncStore(slow) as records:
            cancelled = asyncio.ensure_future(records.commit(Record("order", "1")))
            kept = records.commit(Record("order", "2"))
            await asyncio.to_thread(slow.busy.wait)
            cancelled.cancel()
            slow.go_on.set()
            await kept
            assert cancelled.cancelled()
            assert await records.get("order", "1")  # it had been asked for

    run(main())


def test_whoever_goes_with_the_first_failure_leaves_no_other_for_the_log(sqlite: SQLiteStore, run: Run) -> None:
    async def main() -> None:
        told: list[object] = []
        asyncio.get_running_loop().set_exception_handler(lambda loop, context: told.append(context))
        with AsyncStore(sqlite) as records:
            sqlite.close()
            first, second = records.get("order", "1"), records.get("order", "2")
            with pytest.raises(StoreError):
                await first
            assert second.done()
        del first, second
        await asyncio.sleep(0)  # what the loop does now still has the first one
        gc.collect()
        assert told == []

    run(main())


def test_a_loop_that_has_gone_troubles_nobody(slow: Slow, run: Run) -> None:
    async def leave(records: AsyncStore) -> None:
        records.commit(Record("order", "1"))
        await asyncio.to_thread(slow.busy.wait)

    async def come(records: AsyncStore) -> Record | None:
        return await records.get("order", "1")

    with AsyncStore(slow) as records:
        run(leave(records))
        slow.go_on.set()
        assert run(come(records))


def test_several_loops_share_it(store: Store, run: Run) -> None:
    together = Barrier(4)

    async def main(records: AsyncStore, loop: int) -> int:
        together.wait()
        won = 0
        for number in range(50):
            try:
                await records.commit(Record("order", str(number)), durable=False)
                won += 1
            except Conflict:
                pass
            assert await records.get("order", str(number))
        return won

    with AsyncStore(store) as records, ThreadPoolExecutor(4) as threads:
        assert sum(threads.map(lambda loop: run(main(records, loop)), range(4))) == 50


def test_one_process_may_have_two(memory: MemoryStore, sqlite: SQLiteStore, run: Run) -> None:
    async def main() -> None:
        with AsyncStore(memory) as one, AsyncStore(sqlite) as two:
            await asyncio.gather(one.commit(Record("order", "1")), two.commit(Record("order", "2")))
            assert await one.get("order", "2") is await two.get("order", "1") is None

    run(main())


class TestWorker:
    """The thread that does the waiting."""

    async def ask(self, records: AsyncStore) -> Any:
        await records.get("order", "1")
        return records._worker

    def test_there_is_none_before_it_is_needed(self, memory: MemoryStore) -> None:
        with AsyncStore(memory) as records:
            assert records._worker is None

    def test_it_ends_with_close_and_comes_back_when_asked(self, memory: MemoryStore, run: Run) -> None:
        records = AsyncStore(memory)
        worker = run(self.ask(records))
        assert worker.is_alive()
        records.close()
        assert not worker.is_alive()
        assert run(self.ask(records)) is not worker
        records.close()
        records.close()

    def test_it_ends_when_nobody_can_ask_any_more(self, memory: MemoryStore, run: Run) -> None:
        records = AsyncStore(memory)
        worker = run(self.ask(records))
        del records
        gc.collect()
        worker.join()

    def test_it_ends_then_although_what_was_asked_last_has_failed(self, memory: MemoryStore, run: Run) -> None:
        async def fail(records: AsyncStore) -> Any:
            with pytest.raises(Conflict):
                await records.commit(Record("order", "1", version=1))
            return records._worker

        records = AsyncStore(memory)
        worker = run(fail(records))
        del records
        for _ in range(100):
            gc.collect()
            worker.join(0.1)  # it may not have let go yet
            if not worker.is_alive():
                return
        pytest.fail("the worker waits for nobody")

    def test_close_waits_for_what_was_asked(self, sqlite: SQLiteStore, run: Run) -> None:
        records = AsyncStore(sqlite)

        async def main() -> None:
            commits = [records.commit(Record("order", str(number))) for number in range(10)]
            await asyncio.sleep(0)  # the turn in which they were asked
            await asyncio.sleep(0)
            records.close()
            assert len(sqlite.find("order")) == 10
            await asyncio.gather(*commits)

        run(main())


def test_it_is_the_stores_business_to_be_closed(memory: MemoryStore) -> None:
    memory.commit(Record("order", "1"))
    AsyncStore(memory).close()
    assert memory.get("order", "1")


def test_a_batch_says_what_a_commit_does(sqlite: SQLiteStore) -> None:
    assert sqlite.commit_each([Batch([Record("order", "1")]), Batch([])]) == [None, None]
