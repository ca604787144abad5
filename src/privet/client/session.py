"""Talking ACME (RFC 8555 §6): the directory, nonces, signed requests, waiting as told, and problems.

Its laws: whatever bytes a server sends give a `Reply`, a `Problem` or a `ClientError`; nothing is asked of another
origin than the directory's; and no answer, wait or number of attempts is without a bound.
"""

import asyncio
import email.utils
import logging
import re
import urllib.parse
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple, Protocol

import httpx

from privet.acme.encoding import from_base64url, from_json, to_json
from privet.acme.problems import Problem, ProblemType
from privet.client.errors import ClientError, reason_of, received_problem, untrusted
from privet.client.signing import AccountKey

waiting = logging.getLogger("privet.client.waiting")
"""What takes its time is said here, for people who wait for it."""

Sleep = Callable[[float], Awaitable[None]]

USER_AGENT = "privet"
_JOSE = "application/jose+json"
_URL_MAX = 2000
_NONCES_KEPT = 16
# Pebble refuses one good nonce in twenty: eleven refusals in a row have another cause.
_BAD_NONCES = 10
_BROKEN = 2
# How long to wait before a request is sent again that broke on its way, in seconds.
_MOMENT = 0.25
# How many seconds are waited before anybody is told.
_QUIETLY = 3.0
_LINK = re.compile(r"<([^<>]*)>([^<]*)")
_REL = re.compile(r""";\s*rel\s*=\s*(?:"([^"]*)"|([^\s;,"]+))""", re.IGNORECASE)


class Unreachable(ClientError):  # noqa: N818 - it is the outcome
    """No answer came from the server. Another time one may."""


class Reply(NamedTuple):
    """An answer that is no refusal."""

    url: str
    status: int
    headers: httpx.Headers
    body: bytes

    def json(self) -> dict[str, Any]:
        """The answer as a JSON object. Raises `ClientError`."""
        try:
            return from_json(self.body, "the answer")
        except Problem:
            raise ClientError(f"the server's answer at {self.url} is not a JSON object") from None


class Resource(NamedTuple):
    """An object of the server's and where it lies: an order, an authorization, a challenge, an account."""

    url: str
    document: Mapping[str, Any]
    retry_after: timedelta | None

    @property
    def status(self) -> str:
        return text_of(self.document, "status")


@dataclass(frozen=True, slots=True)
class Directory:
    """Where the server's resources are (§7.1.1), as far as they are known here."""

    new_nonce: str
    new_account: str
    new_order: str
    revoke_cert: str | None
    key_change: str | None
    renewal_info: str | None
    terms_of_service: str | None
    external_account_required: bool
    profiles: Mapping[str, str] | None


class Signer(Protocol):
    """Who signs: a key, and the account it belongs to once there is one."""

    @property
    def key(self) -> AccountKey: ...
    @property
    def kid(self) -> str | None: ...


class KeyAlone(NamedTuple):
    """A signer without an account: requests carry its public key (§6.2)."""

    key: AccountKey
    kid: str | None = None


class Session:
    """All requests to one ACME server. `patience` bounds what is waited before one request is sent again, `timeout` a
    single answer, both in seconds; `limit` is the most octets of an answer that are read.

    Raises `ClientError` for a directory URL that is none, or that is not https without `allow_insecure`.
    """

    def __init__(
        self,
        directory_url: str,
        http: httpx.AsyncClient,
        *,
        allow_insecure: bool = False,
        timeout: float = 60,
        patience: float = 60,
        limit: int = 1 << 20,
        now: Callable[[], datetime],
        sleep: Sleep = asyncio.sleep,
    ) -> None:
        self.directory_url = directory_url
        self._origin = check_directory_url(directory_url, allow_insecure=allow_insecure)
        self._http = http
        self._timeout = timeout
        self._patience = patience
        self._limit = limit
        self._now = now
        self._sleep = sleep
        self._nonces: deque[str] = deque(maxlen=_NONCES_KEPT)
        self._directory: Directory | None = None

    async def directory(self) -> Directory:
        """What the server offers, asked for once."""
        if self._directory is None:
            try:
                reply = await self.get(self.directory_url)
            except Problem as problem:
                if problem.type.status not in (404, 405):
                    raise
                raise ClientError(
                    f"there is no ACME directory at {self.directory_url}: the server answers {problem.type.status}"
                ) from problem
            self._directory = self._read_directory(reply.json())
        return self._directory

    def forget_directory(self) -> None:
        """Ask for the directory again when it is next needed: the server may have been set up anew."""
        self._directory = None

    async def get(self, url: str) -> Reply:
        """An unsigned GET, for what everybody may read."""
        return await self._with_patience(lambda: self._exchange("GET", url))

    async def post(
        self, url: str, payload: Mapping[str, object] | None, signer: Signer, *, accept: str = "application/json"
    ) -> Reply:
        """A signed request; a payload of None is POST-as-GET (§6.3). Raises `Problem` and `ClientError`."""

        async def send() -> Reply:
            header: dict[str, object] = {"nonce": await self._nonce(), "url": url}
            header |= {"kid": signer.kid} if signer.kid else {"jwk": dict(signer.key.jwk)}
            jws = signer.key.sign(header, b"" if payload is None else to_json(dict(payload)))
            return await self._exchange("POST", url, content=to_json(jws), accept=accept)

        return await self._with_patience(send)

    async def fetch(self, url: str, signer: Signer) -> Resource:
        """An object by POST-as-GET."""
        return self.resource(await self.post(url, None, signer), url)

    def resource(self, reply: Reply, url: str) -> Resource:
        return Resource(url, reply.json(), retry_after(reply.headers, self._now()))

    async def settled(self, resource: Resource, signer: Signer, *until: str, patience: float) -> Resource:
        """Ask for an object again and again until it has another status than `until`, and as often as the server says
        (§7.5.1). Raises `ClientError` once `patience` seconds have been waited."""
        waited, pause, said = 0.0, _MOMENT, False
        while resource.status in until:
            told = resource.retry_after
            wait = pause if told is None else max(told.total_seconds(), _MOMENT)
            if waited + wait > patience:
                raise ClientError(
                    f"{resource.url} is still {resource.status} after {waited:.0f} seconds, and to be asked again in "
                    f"{wait:.0f}"
                )
            if waited + wait >= _QUIETLY and not said:
                waiting.info("%s is still %s; that is waited for, %.0f s at most", *_about(resource), patience)
                said = True
            await self._sleep(wait)
            waited, pause = waited + wait, min(2 * pause, 5.0)
            resource = await self.fetch(resource.url, signer)
        return resource

    # --- URLs ---

    def url_in(self, document: Mapping[str, Any], name: str) -> str:
        """The URL that a member of an answer gives. Raises `ClientError` unless it is of the server's own origin."""
        return self.check_url(document.get(name), name)

    def location(self, reply: Reply) -> str:
        value = reply.headers.get("location")
        if value is None:
            raise ClientError(f"the server's answer at {reply.url} does not say where the new object is (Location)")
        return self.check_url(urllib.parse.urljoin(reply.url, value), "Location")

    def links(self, reply: Reply, relation: str) -> list[str]:
        """The URLs of the Link headers (RFC 8288) with this relation, as far as they are of the server's origin."""
        found = []
        for value in reply.headers.get_list("link"):
            for target, parameters in _LINK.findall(value):
                match = _REL.search(parameters)
                if match and relation in (match[1] or match[2] or "").lower().split():
                    try:
                        found.append(self.check_url(urllib.parse.urljoin(reply.url, target), "Link"))
                    except (ClientError, ValueError):
                        continue
        return found

    def check_url(self, value: object, what: str) -> str:
        if not isinstance(value, str):
            raise ClientError(f"the server's answer has no URL where {what} should be")
        if origin_of(value) != self._origin:
            raise ClientError(
                f"the server gives {shown(value)} for {what}, which is not a URL of {self.directory_url}; "
                "nothing is asked there"
            )
        return value

    # --- one request, and what may be tried again ---

    async def _with_patience(self, send: Callable[[], Awaitable[Reply]]) -> Reply:
        bad_nonces = broken = 0
        waited = 0.0
        while True:
            try:
                return await send()
            except Unreachable:
                broken += 1
                if broken > _BROKEN:
                    raise
                await self._sleep(_MOMENT * 2**broken)
            except Problem as problem:
                if problem.type is ProblemType.BAD_NONCE:
                    bad_nonces += 1
                    if bad_nonces > _BAD_NONCES:
                        raise
                    continue
                told = retry_after_of(problem, self._now())
                if problem.type not in (ProblemType.RATE_LIMITED, ProblemType.UNAVAILABLE) or told is None:
                    raise
                wait = max(told.total_seconds(), _MOMENT)
                if waited + wait > self._patience:
                    raise
                waited += wait
                await self._sleep(wait)

    async def _nonce(self) -> str:
        if not self._nonces:
            new_nonce = (await self.directory()).new_nonce
            await self._exchange("HEAD", new_nonce)
            if not self._nonces:
                raise ClientError(f"the server gives no usable nonce at {new_nonce}")
        return self._nonces.pop()

    async def _exchange(self, method: str, url: str, *, content: bytes = b"", accept: str = "*/*") -> Reply:
        """Send a request and read its answer. Raises `Problem` for a refusal."""
        headers = {"accept": accept, "accept-encoding": "identity", "user-agent": USER_AGENT}
        if content:
            headers["content-type"] = _JOSE
        try:
            async with (
                asyncio.timeout(self._timeout),
                self._http.stream(method, url, content=content or None, headers=headers) as response,
            ):
                status, answered = response.status_code, response.headers
                body = await self._read(response, url)
        except TimeoutError:
            raise Unreachable(f"{url} did not answer within {self._timeout:g} seconds") from None
        except (httpx.HTTPError, httpx.InvalidURL, httpx.StreamError, ValueError, OSError) as error:
            if refusal := untrusted(url, error):
                raise refusal from None
            raise Unreachable(f"no answer from {url}: {reason_of(error)}") from None
        self._keep_nonce(answered)
        if status >= 400:
            raise received_problem(_document(body), status, dict(answered))
        if status >= 300:
            raise ClientError(f"{url} answers with a redirect ({status}); a signed URL does not survive one")
        return Reply(url, status, answered, body)

    async def _read(self, response: httpx.Response, url: str) -> bytes:
        if response.headers.get("content-encoding", "identity").strip().lower() not in ("", "identity"):
            raise ClientError(f"the answer of {url} is compressed, which was not asked for")
        body = bytearray()
        async for chunk in response.aiter_raw():
            body += chunk
            if len(body) > self._limit:
                raise ClientError(f"the answer of {url} is longer than {self._limit} octets")
        return bytes(body)

    def _keep_nonce(self, headers: httpx.Headers) -> None:
        nonce = headers.get("replay-nonce", "")
        try:
            # §6.5.1: "Clients MUST ignore invalid Replay-Nonce values."
            if nonce and len(nonce) <= _URL_MAX and from_base64url(nonce, "the nonce"):
                self._nonces.append(nonce)
        except Problem:
            pass

    def _read_directory(self, document: Mapping[str, Any]) -> Directory:
        def maybe(name: str) -> str | None:
            return self.url_in(document, name) if name in document else None

        meta = document.get("meta")
        meta = meta if isinstance(meta, dict) else {}
        profiles = meta.get("profiles")
        return Directory(
            new_nonce=self.url_in(document, "newNonce"),
            new_account=self.url_in(document, "newAccount"),
            new_order=self.url_in(document, "newOrder"),
            revoke_cert=maybe("revokeCert"),
            key_change=maybe("keyChange"),
            renewal_info=maybe("renewalInfo"),
            terms_of_service=text_of(meta, "termsOfService") or None,
            external_account_required=meta.get("externalAccountRequired") is True,
            profiles={str(name): str(about) for name, about in profiles.items()}
            if isinstance(profiles, dict)
            else None,
        )


def check_directory_url(url: str, *, allow_insecure: bool) -> tuple[str, str, int]:
    """The origin of a directory. Raises `ClientError` unless it is https, or http by permission."""
    origin = origin_of(url)
    if origin is None:
        raise ClientError(f"{shown(url)} is not the URL of an ACME directory, such as https://ca.internal/directory")
    if origin[0] == "http" and not allow_insecure:
        raise ClientError(
            f"{shown(url)} is not https, so anybody on the way could answer for the CA; use https with ca_bundle= or "
            "ca_fingerprint=, or say allow_insecure=True on a network you trust"
        )
    return origin


def origin_of(url: str) -> tuple[str, str, int] | None:
    """Scheme, host and port of a URL that can be asked (RFC 6454); None if it can't."""
    if len(url) > _URL_MAX or not url.isascii() or not url.isprintable() or " " in url or "\\" in url:
        return None
    try:
        parsed = httpx.URL(url)
        port = parsed.port or {"http": 80, "https": 443}.get(parsed.scheme, 0)
    except (httpx.InvalidURL, ValueError):
        return None
    if parsed.scheme not in ("http", "https") or not parsed.host or parsed.userinfo or parsed.fragment:
        return None
    return parsed.scheme, parsed.host.lower(), port


def retry_after(headers: Mapping[str, str], now: datetime) -> timedelta | None:
    """How long the server wants us to wait: in seconds or until a date (RFC 9110 §10.2.3), a day at most. None if it
    does not say."""
    value = headers.get("retry-after", "").strip()
    if not value:
        return None
    if value.isascii() and value.isdigit():
        return timedelta(seconds=min(int(value[:9]), 86400))
    until = _date(value)
    if until is None:
        return None
    # The server's clock made this date, so it is its clock that it is compared with, where it shows it.
    wait = until - (date_of(headers) or now)
    return min(max(wait, timedelta()), timedelta(days=1))


def date_of(headers: Mapping[str, str]) -> datetime | None:
    """What time it is at the server (RFC 9110 §6.6.1), if it says so."""
    return _date(headers.get("date", ""))


def retry_after_of(problem: Problem, now: datetime) -> timedelta | None:
    return retry_after({name.lower(): value for name, value in problem.headers.items()}, now)


def _date(value: str) -> datetime | None:
    try:
        date = email.utils.parsedate_to_datetime(value)
        return (date if date.tzinfo else date.replace(tzinfo=UTC)).astimezone(UTC)
    except (ValueError, TypeError, IndexError, OverflowError):
        return None


def text_of(document: Mapping[str, Any], name: str) -> str:
    """A member that should be text, or none."""
    value = document.get(name)
    return value if isinstance(value, str) else ""


def _about(resource: Resource) -> tuple[str, str]:
    """What people call it, and its status."""
    identifier = resource.document.get("identifier")
    name = text_of(identifier, "value") if isinstance(identifier, dict) else ""
    return f"the CA's decision about {shown(name)}" if name else "the order", ascii(resource.status[:50])[1:-1]


def shown(text: str) -> str:
    return ascii(text if len(text) <= 200 else text[:200] + "…")


def _document(body: bytes) -> object:
    try:
        return from_json(body, "the problem")
    except Problem:
        return None
