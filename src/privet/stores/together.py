"""Group commit: commits that wait for the medium at the same time are written by one of them, with one fsync.

The law of this module: every batch gets an outcome of its own; what spoils one leaves its neighbours alone.
"""

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Sequence
from threading import Lock
from typing import Self

from privet.stores.base import Batch, Outcome, Record, StoreError


class Together(ABC):
    """The half of a store that decides who writes. The other half says how, in `_write`."""

    def __init__(self) -> None:
        self._waiting: deque[_Waiting] = deque()
        self._writer = Lock()

    def commit(self, *records: Record, unchanged: Sequence[Record] = (), durable: bool = True) -> None:
        (outcome,) = self.commit_each([Batch(records, unchanged, durable)])
        if outcome is not None:
            raise outcome

    def commit_each(self, batches: Sequence[Batch]) -> list[Outcome]:
        """Commit each batch, whole or not at all, and return what `commit` would have raised for it."""
        ours = _Waiting(batches)
        self._waiting.append(ours)
        with self._writer:
            # Whoever wrote before us may have written ours with theirs; otherwise we write everybody's.
            if not ours.done:
                everybody = [self._waiting.popleft() for _ in range(len(self._waiting))]
                try:
                    outcomes = iter(self._write([batch for one in everybody for batch in one.batches]))
                except BaseException:
                    outcomes = iter(lambda: StoreError("the commit was cut short"), None)
                    raise
                finally:
                    for one in everybody:
                        one.outcomes, one.done = [next(outcomes) for _ in one.batches], True
        return ours.outcomes

    @abstractmethod
    def _write(self, batches: list[Batch]) -> list[Outcome]: ...

    @abstractmethod
    def close(self) -> None: ...

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class _Waiting:
    """What one thread wants written, and what became of it."""

    __slots__ = ("batches", "done", "outcomes")

    def __init__(self, batches: Sequence[Batch]) -> None:
        self.batches = batches
        self.outcomes: list[Outcome] = []
        self.done = False
