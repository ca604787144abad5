"""A store for callers on an event loop: the same four verbs, awaited, and the loop never waits for a disk.

What is asked during one turn of a loop goes to one worker thread together, with whatever else has come while it was
busy: reads are answered first, then all commits in one group. Its law: an answer reaches the loop that asked, or
nobody.
"""

import asyncio
import contextlib
import operator
import weakref
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from functools import partial
from itertools import islice
from queue import Empty, SimpleQueue
from threading import Lock, Thread
from time import perf_counter
from typing import Any, Self

from privet.stores.base import Batch, Record, Store


class AsyncStore:
    """A `Store` behind awaitables. It needs no start, and serves any event loop, several at once if need be."""

    def __init__(self, store: Store, observe: Callable[[float], None] | None = None) -> None:
        """`observe` is told for each turn how many seconds its callers waited."""
        self.store = store
        self._observe = observe
        self._turns: dict[asyncio.AbstractEventLoop, _Turn] = {}
        self._queue: SimpleQueue[_Turn | None] = SimpleQueue()
        self._worker: Thread | None = None
        self._handing = Lock()
        weakref.finalize(self, self._queue.put, None)

    def get(self, kind: str, id: str) -> asyncio.Future[Record | None]:
        turn = self._turn()
        future: asyncio.Future[Record | None] = turn.loop.create_future()
        turn.gets.append((future, (kind, id)))
        return future

    def find(
        self, kind: str, name: str | None = None, *, after: str = "", limit: int = 100
    ) -> asyncio.Future[list[Record]]:
        turn = self._turn()
        future: asyncio.Future[list[Record]] = turn.loop.create_future()
        turn.calls.append((future, (partial(self.store.find, kind, name, after=after, limit=limit),)))
        return future

    def commit(self, *records: Record, unchanged: Sequence[Record] = (), durable: bool = True) -> asyncio.Future[None]:
        turn = self._turn()
        future: asyncio.Future[None] = turn.loop.create_future()
        turn.commits.append((future, Batch(records, unchanged, durable)))
        return future

    def prune(self, now: datetime, *, limit: int = 100) -> asyncio.Future[int]:
        turn = self._turn()
        future: asyncio.Future[int] = turn.loop.create_future()
        turn.calls.append((future, (partial(self.store.prune, now, limit=limit),)))
        return future

    def close(self) -> None:
        """Wait until the worker has done what it was given. The store is for whoever opened it to close."""
        with self._handing:
            if self._worker is not None:
                self._queue.put(None)
                self._worker.join()
                self._worker = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _turn(self) -> "_Turn":
        loop = asyncio.get_running_loop()
        turn = self._turns.get(loop)
        if turn is None:
            turn = self._turns[loop] = _Turn(loop, self._observe)
            loop.call_soon(self._hand_over, turn)
        return turn

    def _hand_over(self, turn: "_Turn") -> None:
        del self._turns[turn.loop]
        with self._handing:
            self._queue.put(turn)
            if self._worker is None or not self._worker.is_alive():  # none yet, or we are a fork of where it was
                self._worker = Thread(target=_work, args=(self.store, self._queue), name="privet-store", daemon=True)
                self._worker.start()


class _Turn:
    """What was asked during one turn of a loop, and the answers on their way back."""

    __slots__ = ("_begun", "_observe", "answers", "calls", "commits", "gets", "loop")

    def __init__(self, loop: asyncio.AbstractEventLoop, observe: Callable[[float], None] | None) -> None:
        self.loop = loop
        self._observe = observe
        self._begun = perf_counter() if observe else 0.0
        self.gets: list[tuple[asyncio.Future[Record | None], tuple[str, str]]] = []
        self.calls: list[tuple[asyncio.Future[Any], tuple[Callable[[], Any]]]] = []
        self.commits: list[tuple[asyncio.Future[None], Batch]] = []
        self.answers: list[tuple[asyncio.Future[Any], Any]] = []

    def answer(self) -> None:
        if self._observe is not None:
            self._observe(perf_counter() - self._begun)
        for future, result in self.answers:
            if future.done():  # cancelled
                continue
            if isinstance(result, Exception):
                future.set_exception(result)
            else:
                future.set_result(result)


def _work(store: Store, queue: "SimpleQueue[_Turn | None]") -> None:
    while (turn := queue.get()) is not None:
        turns = [turn]
        with contextlib.suppress(Empty):
            while (turn := queue.get_nowait()) is not None:
                turns.append(turn)
        _serve(store, turns)
        if turn is None:
            return


def _serve(store: Store, turns: list[_Turn]) -> None:
    """Answer what was asked. A store that can get or commit many at once is asked for all of them at once."""

    def commit(records: Sequence[Record], unchanged: Sequence[Record], durable: bool) -> None:
        store.commit(*records, unchanged=unchanged, durable=durable)

    found = _results(store.get, getattr(store, "get_each", None), [one for turn in turns for one in turn.gets])
    called = _results(operator.call, None, [one for turn in turns for one in turn.calls])
    outcomes = _results(commit, getattr(store, "commit_each", None), [one for turn in turns for one in turn.commits])
    for turn in turns:
        for asked, answers in ((turn.gets, found), (turn.calls, called), (turn.commits, outcomes)):
            turn.answers += islice(answers, len(asked))
        with contextlib.suppress(RuntimeError):  # the loop is closed, and nobody waits any more
            turn.loop.call_soon_threadsafe(turn.answer)


def _results(
    one: Callable[..., Any], each: Callable[[list[Any]], list[Any]] | None, asked: list[tuple[asyncio.Future[Any], Any]]
) -> Iterator[tuple[asyncio.Future[Any], Any]]:
    """What comes of each thing asked for: a value, or an exception in its place."""
    things = [thing for _, thing in asked]
    if each is None:
        results = [_attempt(one, *thing) for thing in things]
    else:
        results = _attempt(each, things) if things else []
        if isinstance(results, Exception):
            results = [results] * len(things)
    return zip([future for future, _ in asked], results, strict=True)


def _attempt(verb: Callable[..., Any], *arguments: Any) -> Any:
    try:
        return verb(*arguments)
    except Exception as error:
        return error
