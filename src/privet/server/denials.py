"""What the log says of requests that are refused.

The law: of one client there are so many lines of a kind in a minute, and then a number. Whoever asks for ever fills no
disk with what is said about it.
"""

import logging
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta

from privet.server.rates import network_of

log = logging.getLogger("privet")

MOST, SPAN = 100, timedelta(minutes=1)
_REMEMBERED = 1000


@dataclass(slots=True)
class _Told:
    since: datetime
    lines: int = 0
    untold: int = 0


class Denials:
    """The refusals of a responder, by the address of who asked, and by the kind of line: so nobody hides what is not
    allowed behind a thousand requests that make no sense."""

    def __init__(self, now: Callable[[], datetime]) -> None:
        self._now = now
        self._clients: OrderedDict[tuple[str, str], _Told] = OrderedDict()

    def say(self, client: str, message: str, *arguments: object) -> None:
        # Whoever has one IPv6 address has a network full of them.
        kind, now = (network_of(client) if ":" in client else client[:50], message), self._now()
        self._close(now)
        told = self._clients.get(kind)
        if told is None or not told.since <= now < told.since + SPAN:
            if told is not None:
                self._sum_up(kind, told)
            told = self._clients[kind] = _Told(now)
            if len(self._clients) > _REMEMBERED:
                self._sum_up(*self._clients.popitem(last=False))
        self._clients.move_to_end(kind)
        if told.lines < MOST:
            told.lines += 1
            log.info(message, *arguments)
        else:
            told.untold += 1

    def _close(self, now: datetime) -> None:
        """Sum up those who have not been heard of since their minute was over: they may never come again."""
        while self._clients:
            kind, told = next(iter(self._clients.items()))
            if told.since <= now < told.since + SPAN:
                return
            del self._clients[kind]
            self._sum_up(kind, told)

    def _sum_up(self, kind: tuple[str, str], told: _Told) -> None:
        if told.untold:
            client, message = kind
            words, since = message.partition(" %")[0], told.since.isoformat()
            log.info("%s: %d more of %a within a minute of %s", words, told.untold, client, since)
