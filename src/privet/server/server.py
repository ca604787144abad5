"""What every handler is given: the authority, the store, the clock, and the rules. It holds no request's state."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, NamedTuple, Protocol, TypeVar, cast

from privet.acme.challenges import ChallengeType
from privet.acme.jws import Key
from privet.acme.problems import Problem, ProblemType
from privet.acme.status import Status
from privet.ca.authority import CertificateAuthority
from privet.ca.profiles import Profile
from privet.server.denials import Denials
from privet.server.events import Observer, Pruned, unobserved
from privet.server.limits import Limits
from privet.server.nonces import Nonces
from privet.server.policy import Policy
from privet.server.rates import Rates
from privet.server.records import Account, Authorization, Kind, Named, Order
from privet.server.urls import URLs
from privet.server.validators import Validators
from privet.stores.asynchronous import AsyncStore
from privet.stores.base import Record, StoreError
from privet.stores.horizon import Horizon

log = logging.getLogger("privet")

ExternalAccountKeys = Callable[[str], bytes | None]
Read = TypeVar("Read")
Read_co = TypeVar("Read_co", covariant=True)


class Readable(Protocol[Read_co]):
    """A type that knows how to read its records."""

    def from_record(self, record: Record, /) -> Read_co: ...


# What has expired is pruned once this many records were written, spent nonces included, and in bites of twice that
# until nothing is left, so that pruning keeps up with whatever is written.
_BITE = 256
_READINGS_REMEMBERED = 5000
_FULL = timedelta(seconds=1)
_HOUR = timedelta(hours=1)


class VerifiedRequest(NamedTuple):
    """A request that is what it says: signed by `key`, of `account` where the resource asks for one.

    `payload` is None for an empty one (POST-as-GET). Nothing behind this looks at a header, a signature or a nonce.
    """

    account: Account | None
    key: Key
    payload: Mapping[str, Any] | None
    url: str
    id: str
    record: Record | None
    """The record that the URL names, fetched along the way; whether the account may see it, the handler decides."""
    authorizations: Mapping[str, Record | None]
    """Of an order, those of its authorizations that came with it, by id."""
    query: Mapping[str, str]
    accept: str
    client: str
    urls: URLs
    client_certificate: str | None = None
    """In PEM, if the connection is mutual TLS."""
    again: bool = False
    """Whether something changed under the first attempt, which has counted it already."""

    @property
    def owner(self) -> Account:
        assert self.account is not None, "this resource is for accounts"
        return self.account


class Reply(NamedTuple):
    """What a handler answers: a JSON document or bytes, and where it lies."""

    document: Mapping[str, object] | bytes = b""
    status: int = 200
    location: str | None = None
    links: tuple[tuple[str, str], ...] = ()
    retry_after: timedelta | None = None
    content_type: str = "application/json"
    headers: tuple[tuple[str, str], ...] = ()


@dataclass(slots=True)
class Server:
    ca: CertificateAuthority
    store: AsyncStore
    nonces: Nonces
    rates: Rates
    denials: Denials
    policy: Policy
    validators: Validators | None
    limits: Limits
    now: Callable[[], datetime]
    profile: Profile
    terms_of_service: str | None
    website: str | None
    external_account_keys: ExternalAccountKeys | None
    external_account_required: bool
    observe: Observer = unobserved
    validating: dict[tuple[str, ChallengeType], asyncio.Task[Authorization]] = field(default_factory=dict)
    """Validations under way in this process; others are known by their lease."""
    _keys: dict[tuple[str, int], Key] = field(default_factory=dict)
    _readings: dict[tuple[str, str], Any] = field(default_factory=dict)
    _room: dict[str, int] = field(default_factory=dict)
    _full: dict[str, datetime] = field(default_factory=dict)
    _written: int = 0
    _pruning: asyncio.Task[None] | None = None
    _horizon: Horizon = field(init=False)

    def __post_init__(self) -> None:
        # A clock that leaps ahead and back must not bring spent nonces back, whatever else it does.
        lifetime = self.limits.nonce_lifetime
        self._horizon = Horizon(lifetime, lifetime + _HOUR)

    async def commit(self, *things: Any, unchanged: Sequence[Named] = (), durable: bool = True) -> tuple[Any, ...]:
        """Commit all or none of these, at the versions at which they were read; return them as they are stored.

        With `durable=False` a power cut may take back what nothing durable was built on: what is then asked for again.

        Raises `Conflict`.
        """
        records = [thing.to_record() for thing in things]
        await self.store.commit(
            *records,
            unchanged=[Record(thing.kind, thing.id, version=thing.version) for thing in unchanged],
            durable=durable,
        )
        self.tidy(len(records))
        stored = tuple([thing._replace(version=thing.version + 1) for thing in things])
        for record, thing in zip(records, stored, strict=True):
            self._remember(record, thing)
        return stored

    def spend(self, nonce: str) -> Awaitable[None]:
        """Begin to spend a nonce: `Nonces.redeem`, which writes a record that is to be pruned some day."""
        spending = self.nonces.redeem(nonce)
        self.tidy(1)
        return spending

    async def check_room(self, kind: str, name: str, most: int, what: str, *, adding: int = 1) -> None:
        """Refuse what would make more than `most` records of this name: a client in a loop must not fill the disk.

        They are counted when a part of the room that was left the last time is used up, not for every request; the
        part is a small one because other processes fill the same room. Raises `Problem` (rateLimited).
        """
        now = self.now()
        if now < self._full.get(name, now) <= now + _FULL:
            raise _no_room(most, what)
        left = self._room.pop(name, 0)
        if left < adding:
            # What has expired takes no room: if it did, who is refused would wait for a pruning that nobody brings on.
            count, after = 0, ""
            while count < most and (records := await self.store.find(kind, name, after=after, limit=most)):
                count += sum(record.expires is None or record.expires > now for record in records)
                after = records[-1].id
            if count + adding > most:
                if len(self._full) >= _READINGS_REMEMBERED:
                    self._full.clear()
                if count >= most:
                    # Whoever asks all the time does not have everything counted each time.
                    self._full[name] = now + _FULL
                raise _no_room(count, what)
            left = 1 + (most - count) // 8
        if len(self._room) >= _READINGS_REMEMBERED:
            self._room.clear()
        self._room[name] = left - adding

    def read(self, type: Readable[Read], record: Record) -> Read:
        """What a record says, read once for each version of it: a record at a version never says anything else."""
        known = self._readings.get((record.kind, record.id))
        if known is None or known.version != record.version:
            known = type.from_record(record)
            self._remember(record, known)
        return cast("Read", known)

    def known_authorizations(self, order: str) -> Sequence[str]:
        """The authorizations of an order that this process has seen pending. An order's never change, so that whoever
        knows them need not read the order first."""
        known = self._readings.get((Kind.ORDER, order))
        return known.authorizations if isinstance(known, Order) and known.status is Status.PENDING else ()

    def _remember(self, record: Record, thing: object) -> None:
        if len(self._readings) >= _READINGS_REMEMBERED:
            self._readings.clear()
        self._readings[record.kind, record.id] = thing

    def tidy(self, written: int) -> None:
        """Let what has expired go, in small bites, as a by-product of work."""
        self._written += written
        if self._written >= _BITE and (self._pruning is None or self._pruning.done()):
            self._written = 0
            self._pruning = asyncio.create_task(self._prune())

    async def _prune(self) -> None:
        try:
            until, gone = self._horizon.until(self.now()), 2 * _BITE
            while gone == 2 * _BITE:
                gone = await self.store.prune(until, limit=2 * _BITE)
                self.observe(Pruned(gone))
        except StoreError as error:
            log.error("what has expired could not be pruned: %s", error)
        except Exception:
            log.exception("what has expired could not be pruned")

    def key_of(self, account: Account) -> Key:
        """The account's key, parsed once for each version of the account: a new key counts at once, everywhere."""
        name = (account.id, account.version)
        key = self._keys.get(name)
        if key is None:
            if len(self._keys) >= _READINGS_REMEMBERED:
                self._keys.clear()
            key = self._keys[name] = Key.from_jwk(dict(account.jwk))
        return key


def _no_room(most: int, what: str) -> Problem:
    return Problem(ProblemType.RATE_LIMITED, f"{most} {what}", retry_after=timedelta(minutes=5))
