"""Everybody wants the same thing at once, and one gets it: tasks, threads, processes."""

import asyncio
import subprocess
import sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

from privet.stores import (
    AsyncStore,
    Batch,
    Conflict,
    FileStore,
    Record,
    SQLiteStore,
    Store,
    StoreError,
    open_store,
)
from privet.stores.postgres import PostgresStore

PROCESS = Path(__file__).with_name("process.py")


def test_of_fifty_tasks_one_finalizes(store: Store) -> None:
    store.commit(Record("order", "1", b"ready"))

    async def finalize(orders: AsyncStore, number: int) -> int:
        order = await orders.get("order", "1")
        assert order
        await orders.commit(order._replace(body=b"%d" % number), Record("certificate", str(number)))
        return number

    async def race() -> list[int | BaseException]:
        with AsyncStore(store) as orders:
            return await asyncio.gather(*(finalize(orders, number) for number in range(50)), return_exceptions=True)

    outcomes = asyncio.run(race())
    (winner,) = [outcome for outcome in outcomes if isinstance(outcome, int)]
    assert sum(isinstance(outcome, Conflict) for outcome in outcomes) == 49
    assert store.get("order", "1") == Record("order", "1", b"%d" % winner, version=2)
    assert [record.id for record in store.find("certificate")] == [str(winner)]


def test_of_twenty_tasks_one_spends_the_nonce_and_all_others_go_on(store: Store) -> None:
    async def race() -> list[BaseException | None]:
        with AsyncStore(store) as nonces:
            same = [nonces.commit(Record("nonce", "same"), durable=False) for _ in range(20)]
            others = [nonces.commit(Record("nonce", str(number)), durable=False) for number in range(20)]
            return await asyncio.gather(*same, *others, return_exceptions=True)

    outcomes = asyncio.run(race())
    assert Counter(type(outcome) for outcome in outcomes[:20]) == {type(None): 1, Conflict: 19}
    assert outcomes[20:] == [None] * 20
    assert len(store.find("nonce")) == 21


def test_threads_count_together_without_losing_one(store: Store) -> None:
    together = Barrier(8)

    def count(name: int) -> int:
        won = 0
        together.wait()
        for number in range(25):
            try:
                store.commit(Record("order", str(number), b"%d" % name))
                won += 1
            except Conflict:
                pass
            while True:
                counter = store.get("counter", "") or Record("counter", "", b"0")
                try:
                    store.commit(counter._replace(body=b"%d" % (int(counter.body) + 1)), durable=name == 0)
                    break
                except Conflict:
                    pass
        return won

    with ThreadPoolExecutor(8) as threads:
        assert sum(threads.map(count, range(8))) == 25
    assert store.get("counter", "") == Record("counter", "", b"200", version=200)


def test_readers_see_a_commit_whole_or_not_at_all(store: Store) -> None:
    def write() -> None:
        for number in range(200):
            body = b"%d" % number
            store.commit(
                Record("account", "", body, number),
                Record("certs", "", body, number, files={"cert.pem": body, "key.pem": body}),
                durable=False,
            )

    def read() -> None:
        last = 0
        while last < 200:
            account, bundle = store.get("account", ""), store.get("certs", "")
            if account and bundle:
                assert (
                    bundle.body == bundle.files["cert.pem"] == bundle.files["key.pem"] == b"%d" % (bundle.version - 1)
                )
                assert last <= account.version <= bundle.version
                last = account.version

    with ThreadPoolExecutor(3) as threads:
        for done in [threads.submit(write), threads.submit(read), threads.submit(read)]:
            done.result()


def test_processes_race_and_count_together(url: str) -> None:
    processes = [
        subprocess.Popen(
            [sys.executable, PROCESS, "race", url, str(number)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for number in range(4)
    ]
    for process in processes:
        assert process.stdin
        process.stdin.write("\n")
        process.stdin.flush()
    won = {}
    for name, process in enumerate(processes):
        output, _ = process.communicate()
        assert process.returncode == 0
        for line in output.splitlines():
            assert line not in won
            won[line] = name
    assert sorted(won) == sorted(f"won {number}" for number in range(50))
    with open_store(url) as store:
        assert store.get("counter", "") == Record("counter", "", b"200", version=200)
        for line, name in won.items():
            (order,) = store.find("order", f"name:{line.removeprefix('won ')}")
            assert order.body == b"%d" % name


class TestTogether:
    """Batches that are written together, with one fsync, stay apart in everything else."""

    def test_each_batch_has_an_outcome_of_its_own(self, url: str) -> None:
        with opened(url) as store:
            store.commit(Record("account", "1", unique=("key",)), Record("order", "1"))
            outcomes = store.commit_each(
                [
                    Batch([Record("nonce", "1")]),
                    Batch([Record("order", "1", b"stale", version=7), Record("order", "2")]),
                    Batch([Record("order", "1", b"won", version=1)]),
                    Batch([Record("order", "1", b"lost", version=1), Record("order", "3")]),
                    Batch([Record("account", "2", unique=("key",)), Record("order", "4")]),
                    Batch([Record("nonce", "1"), Record("order", "5")]),
                    Batch([Record("order", "1", b"in turn", version=2)]),
                    Batch([]),
                    Batch([Record("nonce", "2")]),
                ]
            )
            lost = [number for number, outcome in enumerate(outcomes) if isinstance(outcome, Conflict)]
            assert [outcomes[number] for number in (0, 2, 7, 8)] == [None] * 4
            # Nobody can have read what is only being written, so a store may also refuse the one that builds on it.
            assert lost in ([1, 3, 4, 5], [1, 3, 4, 5, 6])
            assert [record.id for record in store.find("order")] == ["1"]
            assert [record.id for record in store.find("nonce")] == ["1", "2"]

    def test_no_batch_rests_on_what_another_one_changes(self, url: str) -> None:
        """Each was sure that the other's record is as it was; they cannot both be right."""
        with opened(url) as store:
            a, b = Record("order", "a", version=1), Record("order", "b", version=1)
            store.commit(a._replace(version=0), b._replace(version=0))
            outcomes = store.commit_each([Batch([a], [b]), Batch([b], [a])])
            assert sorted(map(type, outcomes), key=str) == sorted([type(None), Conflict], key=str)
            new = Record("order", "c"), Record("order", "d")
            outcomes = store.commit_each([Batch([new[0]], [new[1]]), Batch([new[1]], [new[0]])])
            assert sorted(map(type, outcomes), key=str) == sorted([type(None), Conflict], key=str)

    def test_one_that_cannot_be_stored_leaves_the_others_alone(self, url: str) -> None:
        with opened(url) as store:
            outcomes = store.commit_each(
                [Batch([Record("a", "1")]), Batch([Record("a", "\ud800")]), Batch([Record("a", "2")])]
            )
            assert (outcomes[0], outcomes[2]) == (None, None)
            assert outcomes[1] is None or isinstance(outcomes[1], StoreError)
            assert [record.id for record in store.find("a")][:2] == ["1", "2"]

    def test_commits_that_wait_for_a_slow_one_go_together(self, url: str) -> None:
        """The first to come writes for itself; those who came meanwhile are written by one of them."""
        with opened(url) as store, ThreadPoolExecutor(20) as threads:
            write, groups, began = store._write, [], Barrier(2)

            def slowly(batches: list[Batch]) -> list[Conflict | StoreError | None]:
                groups.append(len(batches))
                if len(groups) == 1:
                    began.wait()
                    while len(store._waiting) < 19:
                        pass
                return write(batches)

            store._write = slowly  # type: ignore[method-assign]
            first = threads.submit(store.commit, Record("order", "first"))
            began.wait()
            others = [threads.submit(store.commit, Record("order", str(number))) for number in range(19)]
            for commit in [first, *others]:
                commit.result()
            assert groups == [1, 19]
            assert len(store.find("order")) == 20


def opened(url: str) -> FileStore | SQLiteStore | PostgresStore:
    store = open_store(url)
    assert isinstance(store, FileStore | SQLiteStore | PostgresStore)
    return store
