"""A store for callers on an event loop: the same four verbs, awaited, and the loop never waits for a disk.

What is asked during one turn of a loop goes to one worker thread together, with whatever else has come while it was
busy: reads are answered first, then all commits in one group. Its law: an answer reaches the loop that asked, or
nobody.
"""

import asyncio
import contextlib
import weakref
from collections.abc import Callable, Sequence
from datetime import datetime
from functools import partial
from queue import Empty, SimpleQueue
from threading import Lock, Thread
from time import perf_counter
from typing import Any, Self

from privet.stores.base import Batch, Record, Store

Observe = Callable[[float], None]
_Answer = tuple[asyncio.Future[Any], Any]


class AsyncStore:
    """A `Store` behind awaitables. It needs no start, and serves any event loop, several at once if need be."""

    def __init__(self, store: Store, observe: Observe | None = None) -> None:
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
        turn.calls.append((future, partial(self.store.find, kind, name, after=after, limit=limit)))
        return future

    def commit(self, *records: Record, unchanged: Sequence[Record] = (), durable: bool = True) -> asyncio.Future[None]:
        turn = self._turn()
        future: asyncio.Future[None] = turn.loop.create_future()
        turn.commits.append((future, Batch(records, unchanged, durable)))
        return future

    def prune(self, now: datetime, *, limit: int = 100) -> asyncio.Future[int]:
        turn = self._turn()
        future: asyncio.Future[int] = turn.loop.create_future()
        turn.calls.append((future, partial(self.store.prune, now, limit=limit)))
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
            turn = self._turns[loop] = _Turn(loop)
            loop.call_soon(self._hand_over, turn)
        return turn

    def _hand_over(self, turn: "_Turn") -> None:
        del self._turns[turn.loop]
        with self._handing:
            self._queue.put(turn)
            if self._worker is None or not self._worker.is_alive():  # none yet, or we are a fork of where it was
                work = (self.store, self._queue, self._observe)
                self._worker = Thread(target=_work, args=work, name="privet-store", daemon=True)
                self._worker.start()


class _Turn:
    """What was asked during one turn of a loop."""

    __slots__ = ("begun", "calls", "commits", "gets", "loop")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.begun = perf_counter()
        self.gets: list[tuple[asyncio.Future[Record | None], tuple[str, str]]] = []
        self.calls: list[tuple[asyncio.Future[Any], Callable[[], Any]]] = []
        self.commits: list[tuple[asyncio.Future[None], Batch]] = []


def _work(store: Store, queue: "SimpleQueue[_Turn | None]", observe: Observe | None) -> None:
    # A store that can get or commit many at once is asked for all of them at once.
    get_each = getattr(store, "get_each", partial(_one_by_one, store.get))
    commit_each = getattr(store, "commit_each", partial(_one_by_one, partial(_commit, store)))
    while (turn := queue.get()) is not None:
        turns = [turn]
        with contextlib.suppress(Empty):
            while (turn := queue.get_nowait()) is not None:
                turns.append(turn)
        answers = _all_at_once(get_each, [one for each in turns for one in each.gets])
        answers += [(future, _attempt(call)) for each in turns for future, call in each.calls]
        answers += _all_at_once(commit_each, [one for each in turns for one in each.commits])
        for loop in {each.loop for each in turns}:
            with contextlib.suppress(RuntimeError):  # the loop is closed, and nobody waits any more
                loop.call_soon_threadsafe(_answer, loop, turns, answers, observe)
        if turn is None:
            return
        # An exception among the answers knows by its traceback who asked, and would keep them as long as we wait.
        del turn, turns, answers, loop


def _answer(
    loop: asyncio.AbstractEventLoop, turns: list[_Turn], answers: list[_Answer], observe: Observe | None
) -> None:
    """Give those who asked on this loop what they asked for."""
    for future, result in answers:
        if future.get_loop() is not loop or future.done():  # another's, or cancelled
            continue
        if isinstance(result, Exception):
            future.set_exception(result)
            # Whoever asked for several things at once goes with the first that fails, and that is no news for the log.
            future.exception()
        else:
            future.set_result(result)
    if observe is not None:
        for turn in turns:
            if turn.loop is loop:
                observe(perf_counter() - turn.begun)


def _all_at_once(verb: Callable[[list[Any]], list[Any]], asked: list[tuple[asyncio.Future[Any], Any]]) -> list[_Answer]:
    """What comes of each thing asked for: a value, or an exception in its place."""
    if not asked:
        return []
    results = _attempt(verb, [thing for _, thing in asked])
    if isinstance(results, Exception):
        results = [results] * len(asked)
    return [(future, result) for (future, _), result in zip(asked, results, strict=True)]


def _one_by_one(verb: Callable[..., Any], things: list[Any]) -> list[Any]:
    return [_attempt(verb, *thing) for thing in things]


def _commit(store: Store, records: Sequence[Record], unchanged: Sequence[Record], durable: bool) -> None:
    store.commit(*records, unchanged=unchanged, durable=durable)


def _attempt(verb: Callable[..., Any], *arguments: Any) -> Any:
    try:
        return verb(*arguments)
    except Exception as error:
        return error
