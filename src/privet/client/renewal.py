"""Renewal: each certificate this node was asked for is replaced in time, by ACME or by an authority in this process.

Its laws: a failure of any kind ends one attempt and nothing else; of several processes with one store, one renews; and
how long to wait is decided by the clock on the wall, which goes on while a machine sleeps.
"""

import asyncio
import inspect
import logging
import secrets
from collections.abc import Callable, Coroutine, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from random import SystemRandom
from typing import Any, Protocol, TypeVar

from privet.acme.encoding import from_json, to_json
from privet.acme.identifiers import BadIdentifier, from_text
from privet.acme.problems import Problem
from privet.bundle import KIND as BUNDLE
from privet.bundle import CertBundle
from privet.client.direct import Authority, Direct
from privet.client.errors import ClientError
from privet.client.keeping import span_of, whole
from privet.client.schedule import Random, RenewalInfo, Schedule, retry_delay, shortest_delay
from privet.client.session import Sleep, retry_after_of
from privet.stores.asynchronous import AsyncStore
from privet.stores.base import Conflict, Record, Store

log = logging.getLogger("privet.renewal")

KIND = "renewal"
_TICK = timedelta(minutes=1)
_HOUR = timedelta(hours=1)
_DAY = timedelta(days=1)
_CALLBACK = 60.0
_NEVER = datetime.min.replace(tzinfo=UTC)
_random = SystemRandom().random
_AT_ONCE = 4

OnRenewed = Callable[[CertBundle], object]
OnError = Callable[[str, Exception], object]
_Result = TypeVar("_Result")


class Renewer(Protocol):
    """Whoever can renew certificates that lie in a store."""

    @property
    def store(self) -> Store: ...

    async def owned(self) -> Sequence[str]:
        """The first names of the certificates that are this one's to renew."""
        ...

    async def renew(self, bundle: CertBundle, *, rotate_key: bool) -> CertBundle:
        """A certificate for the same names and uses. It is the store's current one when this returns."""
        ...

    async def renewal_info(self, bundle: CertBundle) -> RenewalInfo | None:
        """What the server suggests, if it suggests anything."""
        ...


@dataclass(frozen=True, slots=True)
class RenewalStatus:
    """How it stands with one certificate. `error` is what the last attempt failed with, None if it did not."""

    domain: str
    expires_at: datetime | None
    due: datetime | None
    renewed_at: datetime | None
    failures: int
    error: str | None
    next_attempt: datetime | None
    expired: bool


@dataclass(slots=True)
class _State:
    serial: int | None = None
    expires_at: datetime | None = None
    due: datetime | None = None
    info: RenewalInfo | None = None
    ask_at: datetime | None = None
    renewed_at: datetime | None = None
    failures: int = 0
    error: str | None = None
    tried_at: datetime = _NEVER
    retry_at: datetime | None = None


def _utc_now() -> datetime:
    return datetime.now(UTC)


class RenewalManager:
    """Renews the certificates of a client, or those an authority has issued itself, as long as its task runs.

    A client's are those it was asked for with `issue`, an authority's all that it issued without ACME into its store.
    `names`, the first name of each, says so instead. When the server has a renewal window, that counts; then
    `days_before_expiry`, but never in the first half of a certificate's life; then `fraction` of that life
    (`renewal_threshold` is the same). `interval_hours` is the longest that the server is not asked for its window.

    `on_renewed` is called with the new bundle, also when another process with the same store has renewed it;
    `on_error` with the name and the exception. Both may be async; what they raise is reported and stops nothing.
    With `rotate_key=False` the key stays.

    Raises `ValueError` for arguments that do not go together.
    """

    def __init__(
        self,
        *,
        client: Renewer | None = None,
        ca: Authority | None = None,
        store: Store | None = None,
        names: Iterable[str] | None = None,
        interval_hours: float = 12,
        days_before_expiry: float | None = None,
        fraction: float = 2 / 3,
        renewal_threshold: float | None = None,
        on_renewed: OnRenewed | None = None,
        on_error: OnError | None = None,
        rotate_key: bool = True,
        now: Callable[[], datetime] = _utc_now,
        sleep: Sleep = asyncio.sleep,
        random: Random = _random,
    ) -> None:
        if (client is None) == (ca is None):
            raise ValueError("a RenewalManager renews with a client or with a ca; give one of them")
        if not interval_hours > 0:
            raise ValueError("interval_hours must be more than 0")
        self._renewer: Renewer = Direct(ca) if ca is not None else client  # type: ignore[assignment]
        if store is not None and store is not self._renewer.store:
            raise ValueError("what is renewed goes where the client or the ca keeps it; leave store out")
        self._store = AsyncStore(self._renewer.store)
        self._names = None if names is None else tuple(dict.fromkeys(names))
        self._interval = timedelta(hours=min(interval_hours, 24 * 365))
        self._schedule = Schedule(fraction if renewal_threshold is None else renewal_threshold, days_before_expiry)
        self._on_renewed = on_renewed
        self._on_error = on_error
        self._rotate_key = rotate_key
        self._now = now
        self._sleep = sleep
        self._random = random
        self._states: dict[str, _State] = {}
        self._warned = False
        self._holder = secrets.token_hex(8)
        self._task: asyncio.Task[None] | None = None
        self._places = asyncio.Semaphore(_AT_ONCE)

    def start(self) -> asyncio.Task[None]:
        """Renew from now on, in a task of the running event loop; cancel it to stop. Raises `RuntimeError` where no
        loop runs."""
        if self._task is None or self._task.done():
            self._task = asyncio.get_running_loop().create_task(self.run(), name="privet renewal")
        return self._task

    async def run(self) -> None:
        """Renew for ever."""
        while True:
            try:
                await self.sweep()
            except Exception:
                log.exception("the certificates could not be looked through; that is tried again")
            await self._sleep(self._pause().total_seconds())

    async def sweep(self) -> list[CertBundle]:
        """Look at each certificate once and renew what is due. Returns what was renewed here."""
        domains = list(self._names) if self._names is not None else list(await self._renewer.owned())
        if not domains and not self._warned:
            self._warned = True
            log.warning("there is nothing to renew: issue certificates first, or give their names")
        for domain in self._states.keys() - set(domains):
            del self._states[domain]
        renewed = await asyncio.gather(*map(self._look, domains))
        return [bundle for bundle in renewed if bundle is not None]

    def status(self) -> tuple[RenewalStatus, ...]:
        """How it stands with each certificate, for health checks."""
        now = self._now()
        return tuple(
            RenewalStatus(
                domain=domain,
                expires_at=state.expires_at,
                due=state.due,
                renewed_at=state.renewed_at,
                failures=state.failures,
                error=state.error,
                next_attempt=state.retry_at or state.due,
                expired=state.expires_at is None or state.expires_at <= now,
            )
            for domain, state in sorted(self._states.items())
        )

    @property
    def healthy(self) -> bool:
        """Whether renewal runs and no certificate has expired."""
        running = self._task is not None and not self._task.done()
        return running and not any(each.expired for each in self.status())

    # --- one certificate ---

    async def _look(self, domain: str) -> CertBundle | None:
        state = self._states.setdefault(domain, _State())
        async with self._places:
            try:
                bundle = await self._current(domain)
                await self._notice(bundle, state)
                await self._plan(bundle, state)
                if not self._is_due(state):
                    return None
                renewed = await self._renew(bundle, state)
                if state.due is None:  # there is another one now, here or by another process
                    await self._plan(renewed or await self._current(domain), state)
                return renewed
            except Exception as error:
                await self._failed(domain, state, error)
                return None

    async def _current(self, domain: str) -> CertBundle:
        # As it is written first: the client "Alice" is another than "alice", and a name in DNS is the same.
        record = await self._store.get(BUNDLE, domain)
        if record is None and (spelled := _spelled(domain)) != domain:
            record = await self._store.get(BUNDLE, spelled)
        if record is None:
            raise ClientError(f"there is no certificate for {domain} in the store; issue it first")
        bundle = whole(record)
        if bundle is None:
            raise ClientError(f"the certificate for {domain} in the store is damaged; issue it again")
        return bundle.located(self._renewer.store)

    async def _notice(self, bundle: CertBundle, state: _State) -> None:
        """Take note of what is current now. If that is news, another process has renewed it, and we follow."""
        if state.serial == bundle.serial:
            return
        news = state.serial is not None
        self._adopt(bundle, state)
        if news:
            log.info("the certificate for %s was renewed elsewhere", bundle.domain)
            await self._tell(bundle)

    def _adopt(self, bundle: CertBundle, state: _State) -> None:
        state.serial, state.expires_at = bundle.serial, bundle.expires_at
        state.due = state.info = state.ask_at = state.retry_at = state.error = None
        state.failures = 0

    async def _plan(self, bundle: CertBundle, state: _State) -> None:
        """Decide when it is due, and decide anew when the server has something new to say."""
        now = self._now()
        begin, end = span_of(bundle)
        # A clock that was set back must not make us wait for a moment that is years away.
        if state.ask_at is None or state.ask_at <= now or state.ask_at > now + _DAY:
            info = await self._ask(bundle)
            wait = min(self._interval, (end - begin) / 8)
            if info is not None and info.retry_after is not None:
                wait = min(max(info.retry_after, shortest_delay(end - begin)), _DAY)
            state.ask_at = now + wait
            # A server that cannot be asked now has not changed its mind.
            if state.due is None or (info is not None and _window(info) != _window(state.info)):
                state.info = info
                state.due = self._schedule.due(begin, end, self._random, info)
                if state.renewed_at is not None:
                    # A server that always says "now" must not have us renew for ever.
                    state.due = max(state.due, state.renewed_at + min((end - begin) / 10, _HOUR))

    def _is_due(self, state: _State) -> bool:
        now = self._now()
        assert state.due is not None
        if now < state.due:
            state.failures, state.error, state.retry_at = 0, None, None
            return False
        return state.retry_at is None or now >= state.retry_at or now < state.tried_at

    async def _ask(self, bundle: CertBundle) -> RenewalInfo | None:
        """A server that gives no sensible answer suggests nothing."""
        try:
            return await _theirs(self._renewer.renewal_info(bundle))
        except Exception as error:
            log.info("no renewal information for %s: %s", bundle.domain, error)
            return None

    async def _renew(self, bundle: CertBundle, state: _State) -> CertBundle | None:
        begin, end = span_of(bundle)
        span = min(max((end - begin) / 10, timedelta(seconds=5)), timedelta(minutes=10))
        lease = await self._lease(bundle.domain, span)
        if lease is None:
            # Another process is at it. It may die on the way, so we look again before its lease has lapsed.
            state.tried_at = self._now()
            state.retry_at = state.tried_at + max(span / 10, shortest_delay(end - begin))
            return None
        try:
            current = await self._current(bundle.domain)
            if current.serial != bundle.serial:
                await self._notice(current, state)
                return None
            async with asyncio.timeout(span.total_seconds()):
                renewed = await _theirs(self._renewer.renew(current, rotate_key=self._rotate_key))
        except TimeoutError:
            raise ClientError(f"it took longer than {span.total_seconds():g} seconds") from None
        finally:
            await self._release(lease)
        self._adopt(renewed, state)
        state.renewed_at = self._now()
        log.info(
            "renewed the certificate for %s until %s, SHA-256 %s",
            renewed.domain,
            renewed.expires_at,
            renewed.fingerprint,
        )
        await self._tell(renewed)
        return renewed

    async def _failed(self, domain: str, state: _State, error: Exception) -> None:
        now = self._now()
        state.failures += 1
        state.error = str(error) or type(error).__name__
        left = lifetime = _DAY
        if state.expires_at is not None:
            left = state.expires_at - now
            if state.due is not None and state.due < state.expires_at:
                lifetime = 3 * (state.expires_at - state.due)
        delay = retry_delay(state.failures, left, lifetime, self._random)
        if isinstance(error, Problem) and (told := retry_after_of(error, now)) is not None:
            # A server that says when is obeyed, as far as that leaves time for another try.
            delay = max(delay, min(told, left / 2 if left > timedelta() else _TICK))
        state.tried_at, state.retry_at = now, now + delay
        log.warning("the certificate for %s was not renewed (attempt %d): %s", domain, state.failures, state.error)
        await _call(self._on_error, domain, error)

    async def _tell(self, bundle: CertBundle) -> None:
        await _call(self._on_renewed, bundle)

    def _pause(self) -> timedelta:
        """Until something is due, and a minute at most: a machine that slept has missed what it slept through, and
        only the clock on the wall tells."""
        now = self._now()
        pause = min(_TICK, self._interval)
        for state in self._states.values():
            moments = (state.retry_at,) if state.retry_at else (state.due, state.ask_at)
            pause = min([pause, *(moment - now for moment in moments if moment is not None)])
        return max(pause, timedelta(seconds=0.1))

    # --- one of several processes ---

    async def _lease(self, domain: str, span: timedelta) -> Record | None:
        """Take the lease on renewing a certificate; None if another process has it."""
        now = self._now()
        record = await self._store.get(KIND, domain) or Record(KIND, domain)
        if record.version:
            until = _until(record)
            # One that lapses further ahead than any lease does was written by a clock that was wrong.
            if until is not None and now < until <= now + timedelta(minutes=10):
                return None
        body = {"holder": self._holder, "until": (now + span).isoformat()}
        lease = record._replace(body=to_json(body), expires=now + span + _DAY)
        try:
            await self._store.commit(lease, durable=False)
        except Conflict:
            return None
        return lease._replace(version=lease.version + 1)

    async def _release(self, lease: Record) -> None:
        with suppress(Exception):  # it lapses by itself
            await self._store.commit(lease._replace(body=to_json({})), durable=False)


def _spelled(name: str) -> str:
    try:
        return from_text(name).value
    except BadIdentifier:
        return name


def _window(info: RenewalInfo | None) -> tuple[datetime, datetime] | None:
    return None if info is None else (info.start, info.end)


def _until(record: Record) -> datetime | None:
    try:
        until = from_json(record.body, "the lease").get("until")
        return None if until is None else datetime.fromisoformat(until)
    except (Problem, TypeError, ValueError):
        return None


async def _call(callback: Callable[..., object] | None, *arguments: object) -> None:
    """Call back. What is raised is reported, and one that does not come back is left alone."""
    if callback is None:
        return

    async def call() -> None:
        result = callback(*arguments)
        if inspect.isawaitable(result):
            async with asyncio.timeout(_CALLBACK):
                await result

    try:
        await _theirs(call())
    except Exception:
        log.exception("a callback failed; renewal goes on")


async def _theirs(coroutine: Coroutine[Any, Any, _Result]) -> _Result:
    """Somebody else's work. Whatever is cancelled in it has failed; only our own cancellation ends renewal."""
    try:
        return await coroutine
    except asyncio.CancelledError:
        task = asyncio.current_task()
        if task is not None and task.cancelling():
            raise
        raise ClientError("what it waited for was cancelled") from None
