"""When a certificate is to be renewed: by what its server suggests (RFC 9773), by its lifetime, or by days.

Pure: no clock, no store. Its law: whatever is asked for, there is time left for a second try, and a certificate that
was just renewed is not due.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta

Random = Callable[[], float]
"""A number from 0 to 1."""

_HOUR = timedelta(hours=1)
_FIRST_RETRY = timedelta(seconds=30)


@dataclass(frozen=True, slots=True)
class RenewalInfo:
    """When the server would like a certificate to be renewed, and when to ask again (RFC 9773 §4.2)."""

    start: datetime
    end: datetime
    explanation_url: str | None = None
    retry_after: timedelta | None = None


@dataclass(frozen=True, slots=True)
class Schedule:
    """After which part of its life, or how many days before its end, a certificate is due.

    Raises `ValueError` for a fraction that is none, and for days that are not positive.
    """

    fraction: float = 2 / 3
    days_before_expiry: float | None = None

    def __post_init__(self) -> None:
        if not 0 < self.fraction < 1:
            raise ValueError(f"a certificate is renewed after a part of its life between 0 and 1, not {self.fraction}")
        if self.days_before_expiry is not None and not self.days_before_expiry > 0:
            raise ValueError("a certificate is renewed some days before its end; their number must be more than 0")

    def due(self, begin: datetime, end: datetime, random: Random, info: RenewalInfo | None = None) -> datetime:
        """When to renew a certificate with this span: a random moment, so that not all come at once."""
        latest = end - (end - begin) / 10
        if info is not None and info.start < info.end:
            # RFC 9773 §4.2: "Select a uniform random time within the suggested window."
            return min(info.start + (info.end - info.start) * random(), latest)
        if self.days_before_expiry is None:
            start = begin + (end - begin) * self.fraction
        else:
            # A day before its end, a certificate that lives for a day is new. It is left alone for half of its life.
            start = max(_before(end, self.days_before_expiry), begin + (end - begin) / 2)
        return start + (end - start) / 10 * random()


def retry_delay(failures: int, left: timedelta, lifetime: timedelta, random: Random) -> timedelta:
    """How long to wait after so many failures: ever longer, an hour at most, but the less is left of the certificate
    the less; and when nothing is left, still a minute at most."""
    delay: timedelta = min(_FIRST_RETRY * 2 ** min(failures - 1, 10), _HOUR)
    if left > timedelta():
        delay = min(delay, max(left / 10, shortest_delay(lifetime)))
    else:
        delay = min(delay, max(lifetime / 10, shortest_delay(lifetime)), timedelta(minutes=1))
    return delay - delay * random() / 4


def shortest_delay(lifetime: timedelta) -> timedelta:
    return min(max(lifetime / 100, timedelta(seconds=0.2)), timedelta(seconds=5))


def _before(end: datetime, days: float) -> datetime:
    try:
        return end - timedelta(days=days)
    except OverflowError:
        return datetime.min.replace(tzinfo=end.tzinfo)
