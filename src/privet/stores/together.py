"""Group commit: commits that wait for the medium at the same time are written by one of them, with one fsync.

The law of this module: every batch gets its own outcome; what spoils one leaves its neighbours alone.
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
        ours = [_Waiting(batch) for batch in batches]
        self._waiting.extend(ours)
        with self._writer:
            # Whoever wrote before us may have written ours with theirs; otherwise we write everybody's.
            if not all(one.done for one in ours):
                everybody = [self._waiting.popleft() for _ in range(len(self._waiting))]
                outcomes: list[Outcome] = [StoreError("the commit was cut short")] * len(everybody)
                try:
                    outcomes = self._write([one.batch for one in everybody])
                finally:
                    for one, outcome in zip(everybody, outcomes, strict=True):
                        one.outcome, one.done = outcome, True
        return [one.outcome for one in ours]

    @abstractmethod
    def _write(self, batches: list[Batch]) -> list[Outcome]: ...

    @abstractmethod
    def close(self) -> None: ...

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class _Waiting:
    """A batch on its way to the medium, and what became of it."""

    __slots__ = ("batch", "done", "outcome")

    def __init__(self, batch: Batch) -> None:
        self.batch = batch
        self.outcome: Outcome = None
        self.done = False
