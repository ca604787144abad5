"""Rates (RFC 8555 §6.6): so many of something in so long, over all workers and replicas that share the store.

A process takes from the common store a share at a time and spends it by itself, and its first share of a period is
free: whoever behaves costs the store nothing, and whoever loops costs it one small record. So a rate holds give or take
a share for each process, which is a fiftieth of it, or one. The law of this module: a refusal that a look into memory
can decide asks no store, and leaves no trace there either.
"""

import asyncio
import hashlib
import secrets
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from ipaddress import IPv6Address, ip_address, ip_network
from typing import NamedTuple, TypeVar

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


class Count(NamedTuple):
    """One of `what`, such as `orders of this account`, for those named by `whose`."""

    rate: Rate
    what: str
    whose: tuple[str, ...] = ()


@dataclass(slots=True)
class _Share:
    """What a process may still spend by itself. With `until`, a new one is free."""

    left: int
    until: float
    coming: asyncio.Event | None = None
    """Set once somebody has come back from the store with more."""


class Rates:
    """Counts for every responder of one authority that shares the store."""

    def __init__(self, store: AsyncStore, authority: str, now: Callable[[], datetime]) -> None:
        self._store = store
        self._authority = authority
        self._now = now
        # Those that were used last. If they all went at once, whoever makes up many names would have shares anew.
        self._shares: OrderedDict[bytes, _Share] = OrderedDict()
        self._refused: OrderedDict[bytes, float] = OrderedDict()

    async def take(self, *counts: Count) -> None:
        """Count one for each of these, in their order, unless it is known that there is no room for one of them.

        Raises `Problem` (rateLimited) with the time until there is room for another.
        """
        names = [self._name(count) for count in counts]
        for count, name in zip(counts, names, strict=True):
            self._look(count, name)
        for count, name in zip(counts, names, strict=True):
            await self._take(count, name)

    def _name(self, count: Count) -> bytes:
        # What clients write may be long, and is not to be kept here.
        text = "\0".join((self._authority, count.what, *count.whose)).encode(errors="replace")
        return hashlib.blake2b(text, digest_size=16).digest()

    def _look(self, count: Count, name: bytes) -> None:
        """Raise `Problem` if it is remembered that there is no room."""
        now, until = self._now().timestamp(), self._refused.get(name, 0.0)
        # What is further away than a period was remembered by a clock that was ahead.
        if now < until <= now + count.rate.period.total_seconds():
            self._refused.move_to_end(name)
            raise _refusal(count.rate, count.what, until - now)

    async def _take(self, count: Count, name: bytes) -> None:
        now = self._now().timestamp()
        share = self._shares.get(name)
        if share is None or now >= share.until:
            share = _Share(_share_of(count.rate), now + count.rate.period.total_seconds())
        _remember(self._shares, name, share)
        while not share.left:
            # One goes to the store for all: if each did, each would come back with a share, and all but one be lost.
            if share.coming is not None:
                await share.coming.wait()
                self._look(count, name)
                continue
            share.coming = asyncio.Event()
            try:
                taken = await self._take_share(count.rate, count.what, name)
                share.left += taken
            finally:
                share.coming.set()
                share.coming = None
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


def _remember(among: OrderedDict[bytes, T], name: bytes, thing: T) -> None:
    among[name] = thing
    among.move_to_end(name)
    if len(among) > _REMEMBERED:
        among.popitem(last=False)


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
