"""http-01 (RFC 8555 §8.3, RFC 8738 §4): the key authorization is fetched by HTTP, with everything about it bounded."""

import hmac
import ssl
from collections.abc import Awaitable, Callable, Collection
from datetime import datetime
from typing import ClassVar, NamedTuple

import h11

from privet.acme.attempts import Attempt, Clock
from privet.acme.identifiers import Identifier
from privet.acme.problems import Problem, ProblemType
from privet.validation.connections import Connector, Place, tls_with_strangers
from privet.validation.gates import Gate
from privet.validation.networks import Networks
from privet.validation.redirects import Target, first_target, follow
from privet.validation.resolver import Resolver, why
from privet.validation.trail import Trail, utc_now
from privet.validation.validator import Validator

# The redirects that keep GET a GET without being "see something else" (RFC 9110 §15.4).
_REDIRECTS = (301, 302, 307, 308)


class Response(NamedTuple):
    status: int
    location: bytes | None
    body: bytes


class HTTP01Validator(Validator):
    """Fetches `http://IDENTIFIER/.well-known/acme-challenge/TOKEN`.

    Redirects are followed, `redirects` of them at most, to http and https and to the ports `redirect_ports` (80 and
    443, and `port` itself). An https server's certificate is not verified: whoever asks us for a certificate may not
    have a good one yet, and the request began without TLS. A response of more than `max_response` bytes, headers and
    all, is refused, and so is what takes longer than `timeout` seconds in all.
    """

    method: ClassVar[str] = "http-01"
    for_addresses: ClassVar[bool] = True

    def __init__(
        self,
        *,
        resolver: Resolver | None = None,
        networks: Networks | None = None,
        gate: Gate | None = None,
        port: int = 80,
        redirects: int = 10,
        redirect_ports: Collection[int] = (80, 443),
        max_response: int = 32 * 1024,
        timeout: float = 10.0,
        connect_timeout: float = 3.0,
        now: Clock = utc_now,
    ) -> None:
        super().__init__(timeout=timeout, now=now)
        self.connector = Connector(resolver, networks, gate, connect_timeout=connect_timeout)
        self.port = port
        self.redirects = redirects
        self.redirect_ports = frozenset({port, *redirect_ports})
        self.max_response = max_response
        self._tls = tls_with_strangers("http/1.1")

    async def look(self, attempt: Attempt, identifier: Identifier, trail: Trail) -> datetime | None:
        target = first_target(identifier.value, self.port, attempt.token)
        response = await self._fetch(target, None, trail)
        seen = {target}
        while response.status in _REDIRECTS:
            if len(seen) > self.redirects:
                raise _wrong(attempt, f"was redirected more than {self.redirects} times")
            if response.location is None:
                raise _wrong(attempt, "was redirected to nowhere, or to several places at once")
            target = follow(target, response.location, self.redirect_ports)
            if target in seen:
                raise _wrong(attempt, "was redirected in a circle")
            known_as = f"the host that redirect {len(seen)} of {attempt.identifier} leads to"
            response = await self._fetch(target, known_as, trail)
            seen.add(target)
        if response.status != 200:
            raise _wrong(attempt, f"got the status {response.status} instead of 200")
        # §8.3: "The server SHOULD ignore whitespace characters at the end of the body."
        if not hmac.compare_digest(response.body.rstrip(), attempt.key_authorization.encode()):
            raise _wrong(attempt, "found something else than the key authorization")
        return None

    async def _fetch(self, target: Target, known_as: str | None, trail: Trail) -> Response:
        place = Place(target.host, target.port, known_as)
        tls = self._tls if target.scheme == "https" else None
        name = None if tls is None or _is_address(target.host) else target.host
        async with self.connector.connect(place, f"GET {target}", trail, tls=tls, server_name=name) as connection:
            exchange = h11.Connection(h11.CLIENT, max_incomplete_event_size=self.max_response)
            called = known_as or target.host
            try:
                connection.writer.write(request(exchange, target))
                return await read_response(exchange, lambda: connection.reader.read(4096), self.max_response, called)
            except ssl.SSLError:
                raise Problem(ProblemType.TLS, f"the TLS connection to {called} broke") from None
            except OSError as error:
                raise Problem(ProblemType.CONNECTION, f"{called} broke off the connection: {why(error)}") from None


def request(exchange: h11.Connection, target: Target) -> bytes:
    headers = [
        ("Host", target.authority),
        ("User-Agent", "privet (ACME http-01 validation)"),
        ("Accept", "*/*"),
        ("Accept-Encoding", "identity"),  # nothing is ever unpacked here
        ("Connection", "close"),
    ]
    sent = exchange.send(h11.Request(method="GET", target=target.path, headers=headers))
    return (sent or b"") + (exchange.send(h11.EndOfMessage()) or b"")


async def read_response(
    exchange: h11.Connection, receive: Callable[[], Awaitable[bytes]], limit: int, called: str
) -> Response:
    """Read one response: of a redirect where it leads, of anything but 200 no body. Any bytes are a `Response` or a
    `Problem`."""
    status, location, body = 0, None, b""
    received = 0
    garbled = Problem(ProblemType.INCORRECT_RESPONSE, f"{called} did not answer as HTTP/1.1 wants it")
    while True:
        try:
            event = exchange.next_event()
        except h11.RemoteProtocolError:
            raise garbled from None
        if event is h11.NEED_DATA:
            data = await receive()
            if not data and not received:
                raise Problem(ProblemType.CONNECTION, f"{called} closed the connection without an answer")
            received += len(data)
            if received > limit:
                raise Problem(ProblemType.INCORRECT_RESPONSE, f"{called} sent a response of more than {limit} bytes")
            exchange.receive_data(data)
        elif isinstance(event, h11.Response):
            status = event.status_code
            locations = [value for name, value in event.headers if name == b"location"]
            location = locations[0] if len(locations) == 1 else None
            if status != 200:
                return Response(status, location, b"")
        elif isinstance(event, h11.Data):
            body += event.data
        elif isinstance(event, h11.EndOfMessage):
            return Response(status, location, body)
        elif not isinstance(event, h11.InformationalResponse):  # pragma: no cover - h11 has no others, so far
            raise garbled


def _is_address(host: str) -> bool:
    return ":" in host or host.rpartition(".")[2].isdigit()  # no DNS name ends in a number


def _wrong(attempt: Attempt, what: str) -> Problem:
    return Problem(ProblemType.INCORRECT_RESPONSE, f"http-01 for {attempt.identifier} {what}")
