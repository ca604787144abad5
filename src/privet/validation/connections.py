"""Connecting to whoever is validated: looked up once, checked, and connected to exactly that address.

The law: no address is connected to that `Networks` has not allowed, and nothing between the check and the connection
looks the name up again.
"""

import asyncio
import contextlib
import ipaddress
import itertools
import socket
import ssl
from collections.abc import AsyncIterator, Iterable
from typing import NamedTuple

from privet.acme.problems import Problem, ProblemType
from privet.validation.gates import Gate
from privet.validation.networks import AddressRefused, IPAddress, Networks
from privet.validation.resolver import LookupFailed, Resolver, shown, why
from privet.validation.trail import Trail


class Connection(NamedTuple):
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    @property
    def tls(self) -> ssl.SSLObject:
        found = self.writer.get_extra_info("ssl_object")
        assert found is not None
        return found  # type: ignore[no-any-return]


class Place(NamedTuple):
    """Where to connect to. `known_as` is what it is called in problems: whatever a stranger's redirect says is not
    repeated there, nor the address it leads to."""

    host: str
    """A DNS name or an address."""
    port: int
    known_as: str | None = None


def tls_with_strangers(protocol: str) -> ssl.SSLContext:
    """For a TLS connection to somebody who may have no good certificate yet."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    # RFC 8737 §4: "ACME servers that implement "acme-tls/1" MUST only negotiate TLS 1.2 or higher".
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    # Whoever is at the other end may not have us begin again and again (TLS 1.2).
    context.options |= ssl.OP_NO_RENEGOTIATION
    context.set_alpn_protocols([protocol])
    return context


class Connector:
    """Opens connections. At most `max_addresses` of a name's addresses are tried, IPv6 and IPv4 in turns, each for
    `connect_timeout` seconds."""

    def __init__(
        self,
        resolver: Resolver | None = None,
        networks: Networks | None = None,
        gate: Gate | None = None,
        *,
        connect_timeout: float = 3.0,
        max_addresses: int = 4,
    ) -> None:
        self.resolver = resolver or Resolver()
        self.networks = networks or Networks()
        self.gate = gate or Gate()
        self.connect_timeout = connect_timeout
        self.max_addresses = max_addresses

    @contextlib.asynccontextmanager
    async def connect(
        self,
        place: Place,
        what: str,
        trail: Trail,
        *,
        tls: ssl.SSLContext | None = None,
        server_name: str | None = None,
    ) -> AsyncIterator[Connection]:
        """A connection to the first address that takes it; `what` is what the trail says it was for. Raises
        `Problem`."""
        called = place.known_as or place.host
        failures: list[str] = []
        for address in await self._allowed(place, trail):
            at = called if place.known_as or str(address) == called else f"{called} at {address}"
            # The place is taken for as long as the connection lives: it is the other end that we spare.
            async with contextlib.AsyncExitStack() as stack:
                with trail.paused():
                    await stack.enter_async_context(self.gate.enter(str(address), trail.asker))
                try:
                    sock = await self._dial(address, place.port, what, trail)
                except TimeoutError:
                    failures.append(f"{at} did not answer on port {place.port} within {self.connect_timeout:g} s")
                    continue
                except OSError as error:
                    failures.append(f"{at} could not be connected to on port {place.port}: {why(error)}")
                    continue
                connection = await _converse(sock, called, tls, server_name)
                try:
                    yield connection
                finally:
                    # Whoever is at the other end, saying goodbye politely would mean waiting for them.
                    connection.writer.transport.abort()
                return
        raise Problem(ProblemType.CONNECTION, "; ".join(failures))

    async def _allowed(self, place: Place, trail: Trail) -> list[IPAddress]:
        """The addresses to try. Raises `Problem` if there are none."""
        called = place.known_as or place.host
        refusals: list[str] = []
        allowed: list[IPAddress] = []
        for address in await self._addresses(place, trail):
            try:
                allowed.append(self.networks.check(str(address), place.port))
            except AddressRefused as refused:
                trail.add(f"refused: {refused}", shown(address, place.port))
                refusals.append(f"{called} is {refused}" if place.known_as else f"{called} is at {address}, {refused}")
        if not allowed:
            raise Problem(ProblemType.CONNECTION, f"{refusals[0]}, and no such address is connected to")
        return allowed[: self.max_addresses]

    async def _addresses(self, place: Place, trail: Trail) -> Iterable[IPAddress]:
        with contextlib.suppress(ValueError):
            return [ipaddress.ip_address(place.host)]
        try:
            found = await self.resolver.addresses(place.host, trail)
        except LookupFailed as failure:
            called = place.known_as or place.host
            raise Problem(ProblemType.DNS, f"{called} could not be looked up: {failure}") from None
        six = [address for address in found if address.version == 6]
        four = [address for address in found if address.version == 4]
        pairs = itertools.zip_longest(six, four)
        return dict.fromkeys(address for pair in pairs for address in pair if address is not None)

    async def _dial(self, address: IPAddress, port: int, what: str, trail: Trail) -> socket.socket:
        sock = socket.socket(socket.AF_INET if address.version == 4 else socket.AF_INET6, socket.SOCK_STREAM)
        try:
            sock.setblocking(False)
            async with asyncio.timeout(self.connect_timeout):
                await asyncio.get_running_loop().sock_connect(sock, (str(address), port))
            trail.add(what, shown(address, port), shown(*sock.getsockname()[:2]))
        except OSError:  # a TimeoutError is one
            trail.add(f"{what} (failed)", shown(address, port))
            sock.close()
            raise
        except BaseException:
            sock.close()
            raise
        return sock


async def _converse(
    sock: socket.socket, called: str, tls: ssl.SSLContext | None, server_name: str | None
) -> Connection:
    if tls is None:
        return Connection(*await asyncio.open_connection(sock=sock))
    try:
        # An empty name stands for no server name indication: addresses have none.
        return Connection(*await asyncio.open_connection(sock=sock, ssl=tls, server_hostname=server_name or ""))
    except ssl.SSLError as error:
        raise Problem(ProblemType.TLS, f"no TLS connection to {called}: {_tls_reason(error)}") from None
    except OSError as error:
        raise Problem(ProblemType.TLS, f"{called} broke off the TLS handshake: {why(error)}") from None


def _tls_reason(error: ssl.SSLError) -> str:
    """OpenSSL's name for what went wrong: from a table of its own, so none of the peer's bytes are in it."""
    return (error.reason or "the handshake failed").replace("_", " ").lower()
