"""Rates (RFC 8555 §6.6): so many of something in so long, over all workers and replicas that share the store.

A process takes from the common store a share at a time and spends it by itself, and its first share of a period is
free: whoever behaves costs the store nothing, and whoever loops costs it one small record. So a rate holds give or take
a share for each process, which is a fiftieth of it. The law of this module: a refusal that a look into memory can
decide asks no store.
"""

import asyncio
import hashlib
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from ipaddress import IPv6Address, ip_address, ip_network
from typing import TypeVar

from privet.acme.problems import Problem, ProblemType
from privet.server.limits import Rate
from privet.stores.asynchronous import AsyncStore
from privet.stores.base import Conflict, Record

T = TypeVar("T")

KIND = "rate"
_SHARES = 50
_REMEMBERED = 20_000
# Replicas' clocks differ a little, in seconds.
_SKEW = 600
# Whoever meets others at the same record waits for a moment that doubles and is random.
_ATTEMPTS, _MOMENT = 9, 0.003


@dataclass(slots=True)
class _Share:
    """What a process may still spend by itself. With `until`, a new one is free."""

    left: int
    until: float


class Rates:
    """Counts for every responder of one authority that shares the store."""

    def __init__(self, store: AsyncStore, authority: str, now: Callable[[], datetime]) -> None:
        self._store = store
        self._authority = authority
        self._now = now
        self._shares: dict[bytes, _Share] = {}
        self._refused: dict[bytes, float] = {}

    async def take(self, rate: Rate, what: str, *whose: str) -> None:
        """Count one of `what`, such as `orders of this account`, for those named by `whose`.

        Raises `Problem` (rateLimited) with the time until there is room for another.
        """
        # What clients write may be long, and is not to be kept here.
        text = "\0".join((self._authority, what, *whose)).encode(errors="replace")
        name = hashlib.blake2b(text, digest_size=16).digest()
        now, period = self._now().timestamp(), rate.period.total_seconds()
        until = self._refused.get(name, 0.0)
        if now < until <= now + period:  # what is further away was remembered by a clock that was ahead
            raise _refusal(rate, what, until - now)
        share = self._shares.get(name)
        if share is None or now >= share.until:
            share = _Share(_share_of(rate), now + period)
            _remember(self._shares, name, share)
        elif not share.left:
            share.left += await self._take_share(rate, what, name)
        share.left -= 1

    async def _take_share(self, rate: Rate, what: str, name: bytes) -> int:
        """Take from the store. What it keeps is the time at which the rate is whole again, if nobody takes more."""
        period = rate.period.total_seconds()
        id = name.hex()
        for attempt in range(_ATTEMPTS):
            record = await self._store.get(KIND, id)
            now = self._now().timestamp()
            whole = max(float(record.body), now) if record else now
            if whole > now + period + _SKEW:
                whole = now  # as a clock wrote it that was far ahead; nobody knows what it would be by this one
            room = int(rate.most * (now + period - whole) / period + 1e-6)
            if room < 1:
                until = whole + period / rate.most - period
                _remember(self._refused, name, until)
                raise _refusal(rate, what, until - now)
            taken = min(_share_of(rate), room)
            whole += taken * period / rate.most
            changed = (record or Record(KIND, id))._replace(
                body=str(whole).encode(), expires=datetime.fromtimestamp(whole, UTC)
            )
            try:
                await self._store.commit(changed, durable=False)
            except Conflict:
                await asyncio.sleep(_MOMENT * 2**attempt * secrets.randbelow(1000) / 1000)
            else:
                return taken
        raise Problem(ProblemType.UNAVAILABLE, "too many ask at once; try again", retry_after=timedelta(seconds=1))


def _share_of(rate: Rate) -> int:
    return max(1, rate.most // _SHARES)


def _refusal(rate: Rate, what: str, seconds: float) -> Problem:
    detail = f"no more than {rate.most} {what} within {rate.period / timedelta(hours=1):g} h"
    return Problem(ProblemType.RATE_LIMITED, detail, retry_after=timedelta(seconds=seconds))


def _remember(among: dict[bytes, T], name: bytes, thing: T) -> None:
    if len(among) >= _REMEMBERED:
        among.clear()
    among[name] = thing


@lru_cache(4096)
def network_of(client: str) -> str:
    """The network of a client, as far as it is one party: a /24, or the /64 of an IPv6 address."""
    try:
        address = ip_address(client.partition("%")[0])
    except ValueError:
        return "unknown"
    if isinstance(address, IPv6Address) and address.ipv4_mapped:
        address = address.ipv4_mapped
    return str(ip_network((address, 24 if address.version == 4 else 64), strict=False))
