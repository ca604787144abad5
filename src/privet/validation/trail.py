"""What was done for a validation, step by step and when (for the audit trail)."""

from collections import deque
from collections.abc import Iterable
from datetime import UTC, datetime

from privet.acme.attempts import LONGEST, STEPS, Step


def utc_now() -> datetime:
    return datetime.now(UTC)


class Trail:
    """The steps of a validation while it is under way: the latest ones, each cut to a size that can be kept."""

    def __init__(self, steps: Iterable[Step] = ()) -> None:
        self._steps = deque(steps, maxlen=STEPS)

    def add(self, what: str, target: str, source: str = "") -> None:
        self._steps.append(Step(what[:LONGEST], target, source))

    @property
    def steps(self) -> tuple[Step, ...]:
        return tuple(self._steps)
