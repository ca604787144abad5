"""Nonces (RFC 8555 §6.5) that prove themselves: making one writes nothing, and each is accepted once.

A nonce is a time, random bits and a MAC over both, so made-up ones cost no look-up, and any process that shares the
store can judge it. It is spent by a record that must not exist yet. That record needs no fsync of its own: it lies in
the store ahead of whatever its request goes on to write, so a power cut that loses the one loses the other too, and a
replayed request cannot take effect a second time.
"""

import contextlib
import hashlib
import secrets
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta

from privet.acme.encoding import from_base64url, to_base64url
from privet.acme.problems import Problem, ProblemType
from privet.stores.asynchronous import AsyncStore
from privet.stores.base import Conflict, Record

KEY = ("nonce-key", "nonce-key")
_SPENT = "spent-nonce"
_STAMP, _MAC = 16, 16
# Replicas' clocks differ a little; a nonce from the near future is one of theirs.
_SKEW = timedelta(minutes=5)


class Nonces:
    """Makes and redeems the nonces of everybody who shares a store."""

    def __init__(self, store: AsyncStore, lifetime: timedelta, now: Callable[[], datetime]) -> None:
        self._store = store
        self._lifetime = lifetime
        self._now = now
        self._keyed: hashlib.blake2b | None = None

    @property
    def ready(self) -> bool:
        return self._keyed is not None

    async def load(self) -> None:
        """Fetch the key that all processes share, or make it; until then there are no nonces."""
        while self._keyed is None:
            record = await self._store.get(*KEY)
            if record is None:
                with contextlib.suppress(Conflict):
                    await self._store.commit(Record(*KEY, body=secrets.token_bytes(32)))
            else:
                self._keyed = hashlib.blake2b(key=record.body, digest_size=_MAC)

    def make(self) -> str:
        milliseconds = int(self._now().timestamp() * 1000)
        stamp = milliseconds.to_bytes(6, "big") + secrets.token_bytes(_STAMP - 6)
        return to_base64url(stamp + self._mac(stamp))

    def redeem(self, nonce: str) -> Awaitable[None]:
        """Begin to spend a nonce; awaiting the answer raises `Conflict` if it was spent before.

        Raises `Problem` at once if it is not one of ours, or too old (badNonce), or no nonce at all (malformed).
        """
        stamp = self._prove(nonce)
        issued = datetime.fromtimestamp(int.from_bytes(stamp[:6], "big") / 1000, UTC)
        age = self._now() - issued
        if age > self._lifetime or age < -_SKEW:
            raise Problem(ProblemType.BAD_NONCE, "the nonce is too old; take the new one and try again")
        # Remembered for longer than it would be accepted, in case a clock is put back.
        return self._store.commit(Record(_SPENT, stamp.hex(), expires=issued + 2 * self._lifetime), durable=False)

    def _prove(self, nonce: str) -> bytes:
        octets = from_base64url(nonce, "the nonce")  # §6.5.2: what is not base64url is malformed
        stamp, mac = octets[:_STAMP], octets[_STAMP:]
        if not secrets.compare_digest(self._mac(stamp), mac):
            raise Problem(ProblemType.BAD_NONCE, "the nonce is not one of ours; take the new one and try again")
        return stamp

    def _mac(self, stamp: bytes) -> bytes:
        assert self._keyed is not None, "load() comes first"
        mac = self._keyed.copy()  # which is quicker than to begin with the key each time
        mac.update(stamp)
        return mac.digest()
