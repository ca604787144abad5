"""What was done for a validation, step by step and when (for the audit trail)."""

import asyncio
import contextlib
from collections import deque
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime

from privet.acme.attempts import LONGEST, STEPS, Step


def utc_now() -> datetime:
    return datetime.now(UTC)


class Trail:
    """The steps of a validation while it is under way: the latest ones, each cut to a size that can be kept."""

    def __init__(self, steps: Iterable[Step] = (), asker: str = "") -> None:
        self.asker = asker
        """For whom it is done: the account, if it is known."""
        self._steps = deque(steps, maxlen=STEPS)
        self.clock: asyncio.Timeout | None = None
        """When the attempt has to end."""

    def add(self, what: str, target: str, source: str = "") -> None:
        self._steps.append(Step(what[:LONGEST], target, source))

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """While it waits for a place of ours, an attempt's time does not run: the other side has not been asked yet."""
        end = self.clock.when() if self.clock else None
        if self.clock is None or end is None:
            yield
            return
        loop = asyncio.get_running_loop()
        begun = loop.time()
        self.clock.reschedule(None)
        try:
            yield
        finally:
            self.clock.reschedule(end + loop.time() - begun)

    @property
    def steps(self) -> tuple[Step, ...]:
        return tuple(self._steps)
