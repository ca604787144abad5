"""Up to when what has expired may be pruned, though clocks leap.

The law of this module: what a clock says that has just leapt ahead is believed once it has gone on saying so for a
while. Until then nothing goes but what had expired before; so a clock that is put right in time has cost nothing.
"""

from datetime import datetime, timedelta


class Horizon:
    """`steady` is how far a clock may go between two looks and be believed at once, `patience` how long a leap takes to
    be believed. Where nobody looks for long, that is a leap as well: pruning is behind by a look, or by as long as it
    takes a leap to be believed."""

    def __init__(self, steady: timedelta, patience: timedelta) -> None:
        self._steady = steady
        self._patience = patience
        self._looked: datetime | None = None
        self._leapt: datetime | None = None
        self._before: datetime | None = None

    def until(self, now: datetime) -> datetime:
        """What expired up to then may go."""
        looked, self._looked = self._looked, now
        if self._before is not None and self._leapt is not None and self._leapt <= now < self._leapt + self._patience:
            return self._before  # also if nobody has looked meanwhile: that is no leap of its own
        self._before = None
        if looked is not None and now - looked > self._steady:
            self._before, self._leapt = looked, now
            return looked
        return now
