"""A store for callers on an event loop: the same four verbs, awaited, and the loop never waits for a disk.

What is asked during one turn of the loop goes to a single worker thread together: reads are answered first, then
everything that commits does so in one group. Its law: an answer reaches only the loop that asked.
"""

import asyncio
import contextlib
import weakref
from collections.abc import Callable, Sequence
from datetime import datetime
from queue import Empty, SimpleQueue
from threading import Lock, Thread
from typing import Any, Self

from privet.stores.base import Batch, Outcome, Record, Store


class AsyncStore:
    """A `Store` behind awaitables. Works on any event loop, and on several at once; no start-up needed."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self._queue: SimpleQueue[_Turn | None] = SimpleQueue()
        self._turns: dict[asyncio.AbstractEventLoop, _Turn] = {}
        self._starting = Lock()
        self._thread: Thread | None = None
        weakref.finalize(self, self._queue.put, None)

    def get(self, kind: str, id: str) -> asyncio.Future[Record | None]:
        turn = self._turn()
        future: asyncio.Future[Record | None] = turn.loop.create_future()
        turn.calls.append((future, self.store.get, (kind, id), {}))
        return future

    def find(
        self, kind: str, name: str | None = None, *, after: str = "", limit: int = 100
    ) -> asyncio.Future[list[Record]]:
        turn = self._turn()
        future: asyncio.Future[list[Record]] = turn.loop.create_future()
        turn.calls.append((future, self.store.find, (kind, name), {"after": after, "limit": limit}))
        return future

    def commit(self, *records: Record, unchanged: Sequence[Record] = (), durable: bool = True) -> asyncio.Future[None]:
        turn = self._turn()
        future: asyncio.Future[None] = turn.loop.create_future()
        turn.commits.append((future, Batch(records, unchanged, durable)))
        return future

    def prune(self, now: datetime, *, limit: int = 100) -> asyncio.Future[int]:
        turn = self._turn()
        future: asyncio.Future[int] = turn.loop.create_future()
        turn.calls.append((future, self.store.prune, (now,), {"limit": limit}))
        return future

    def close(self) -> None:
        """Wait until everything handed over is done. The store itself belongs to whoever opened it."""
        with self._starting:
            if self._thread is not None:
                self._queue.put(None)
                self._thread.join()
                self._thread = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _turn(self) -> "_Turn":
        loop = asyncio.get_running_loop()
        turn = self._turns.get(loop)
        if turn is None:
            turn = self._turns[loop] = _Turn(loop)
            loop.call_soon(self._hand_over, turn)
        return turn

    def _hand_over(self, turn: "_Turn") -> None:
        del self._turns[turn.loop]
        self._queue.put(turn)
        if self._thread is None or not self._thread.is_alive():
            with self._starting:
                if self._thread is None or not self._thread.is_alive():
                    self._thread = Thread(
                        target=_work, args=(self.store, self._queue), name="privet-store", daemon=True
                    )
                    self._thread.start()


class _Turn:
    """What one loop asked in one turn, and the answers on their way back."""

    __slots__ = ("answers", "calls", "commits", "loop")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.calls: list[tuple[asyncio.Future[Any], Callable[..., Any], tuple[Any, ...], dict[str, Any]]] = []
        self.commits: list[tuple[asyncio.Future[None], Batch]] = []
        self.answers: list[tuple[asyncio.Future[Any], Any, BaseException | None]] = []

    def answer(self) -> None:
        for future, result, error in self.answers:
            if future.done():  # its task was cancelled
                continue
            if error is None:
                future.set_result(result)
            else:
                future.set_exception(error)


def _work(store: Store, queue: "SimpleQueue[_Turn | None]") -> None:
    while (turn := queue.get()) is not None:
        turns = [turn]
        try:
            while (turn := queue.get_nowait()) is not None:
                turns.append(turn)
        except Empty:
            pass
        for one in turns:
            for future, verb, args, options in one.calls:
                try:
                    one.answers.append((future, verb(*args, **options), None))
                except BaseException as error:
                    one.answers.append((future, None, error))
        batches = [batch for one in turns for _, batch in one.commits]
        outcomes = iter(_commit_each(store, batches))
        for one in turns:
            one.answers += [(future, None, next(outcomes)) for future, _ in one.commits]
            with contextlib.suppress(RuntimeError):  # the loop has closed; nobody is waiting any more
                one.loop.call_soon_threadsafe(one.answer)
        if turn is None:
            return


def _commit_each(store: Store, batches: list[Batch]) -> "list[Outcome | BaseException]":
    if not batches:
        return []
    together = getattr(store, "commit_each", None)
    if together is not None:
        try:
            return list(together(batches))
        except BaseException as error:
            return [error] * len(batches)
    outcomes: list[Outcome | BaseException] = []
    for batch in batches:
        try:
            store.commit(*batch.records, unchanged=batch.unchanged, durable=batch.durable)
            outcomes.append(None)
        except BaseException as error:
            outcomes.append(error)
    return outcomes
