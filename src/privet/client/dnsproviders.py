"""Whoever can change a zone for dns-01: a nameserver that takes updates, a program, an acme-dns server.

The law of this module: names and values are handed over as they are, as arguments or as data, and never to a shell.
"""

import asyncio
import base64
from collections.abc import Mapping
from pathlib import Path

import dns.asyncquery
import dns.asyncresolver
import dns.exception
import dns.name
import dns.rcode
import dns.rdatatype
import dns.tsig
import dns.update
import httpx

from privet.client.dns01 import split_address
from privet.client.errors import ClientError, reason_of
from privet.client.programs import run_program


class RFC2136:
    """Dynamic updates (RFC 2136), signed with TSIG (RFC 8945) if there is a key: for BIND, Knot, PowerDNS, Windows.

    `server` is an address, perhaps with a port. Without `zone` the server is asked which one a name is in.
    """

    def __init__(
        self,
        server: str,
        *,
        zone: str | None = None,
        key_name: str | None = None,
        key_secret: str | None = None,
        key_algorithm: str = "hmac-sha256",
        ttl: int = 60,
        timeout: float = 30,
    ) -> None:
        self._host, self._port = split_address(server)
        self._zone = None if zone is None else dns.name.from_text(zone)
        self._keyring: dict[dns.name.Name, dns.tsig.Key] | None = None
        if key_name is not None and key_secret is not None:
            name = dns.name.from_text(key_name)
            try:
                self._keyring = {name: dns.tsig.Key(name, base64.b64decode(key_secret, validate=True), key_algorithm)}
            except ValueError:
                raise ClientError(f"the secret of the TSIG key {key_name!a} is not base64") from None
        elif key_name is not None or key_secret is not None:
            raise ClientError("a TSIG key has a key_name and a key_secret; one of them is missing")
        self._ttl = ttl
        self._timeout = timeout

    async def add(self, name: str, value: str) -> None:
        update = await self._update(name)
        update.add(dns.name.from_text(name), self._ttl, dns.rdatatype.TXT, value)
        await self._send(update, name)

    async def remove(self, name: str, value: str) -> None:
        update = await self._update(name)
        update.delete(dns.name.from_text(name), dns.rdatatype.TXT, value)
        await self._send(update, name)

    async def _update(self, name: str) -> dns.update.UpdateMessage:
        zone = self._zone
        if zone is None:
            resolver = dns.asyncresolver.Resolver(configure=False)
            resolver.nameservers, resolver.port = [self._host], self._port
            try:
                zone = await dns.asyncresolver.zone_for_name(name, resolver=resolver)
            except (dns.exception.DNSException, OSError) as error:
                raise ClientError(f"{self._host} does not say which zone {name} is in: {error}; give zone=") from None
        return dns.update.UpdateMessage(zone, keyring=self._keyring)

    async def _send(self, update: dns.update.UpdateMessage, name: str) -> None:
        try:
            reply = await dns.asyncquery.tcp(update, self._host, timeout=self._timeout, port=self._port)
        except (dns.exception.DNSException, OSError, EOFError) as error:
            raise ClientError(
                f"{self._host} did not take the update of {name}: {str(error) or type(error).__name__}"
            ) from None
        if reply.rcode() != dns.rcode.NOERROR:
            raise ClientError(f"{self._host} refused the update of {name}: {dns.rcode.to_text(reply.rcode())}")


class Hook:
    """A program that changes the zone: it is run, without a shell, as `PROGRAM present NAME VALUE` and as
    `PROGRAM cleanup NAME VALUE`, and has to end with 0. `env`, if given, is all of its environment."""

    def __init__(self, *command: str | Path, env: Mapping[str, str] | None = None, timeout: float = 120) -> None:
        if not command:
            raise ClientError("a hook needs a program")
        self._command = [str(part) for part in command]
        self._env = env
        self._timeout = timeout

    async def add(self, name: str, value: str) -> None:
        await self._run("present", name, value)

    async def remove(self, name: str, value: str) -> None:
        await self._run("cleanup", name, value)

    async def _run(self, *arguments: str) -> None:
        what = f"the hook {self._command[0]}"
        status, said = await run_program(what, [*self._command, *arguments], patience=self._timeout, env=self._env)
        if status:
            raise ClientError(f"{what} ended with {status} for {arguments[1]}: {said}")


class AcmeDNS:
    """An acme-dns server, which answers for one name of its own that `_acme-challenge` is an alias (CNAME) for.

    It keeps the last two values and forgets older ones, so nothing is removed.
    """

    def __init__(
        self,
        url: str,
        *,
        username: str,
        password: str,
        subdomain: str,
        timeout: float = 30,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self._url = url.rstrip("/") + "/update"
        self._username = username
        self._password = password
        self._subdomain = subdomain
        self._timeout = timeout
        self._transport = transport

    async def add(self, name: str, value: str) -> None:
        try:
            async with (
                asyncio.timeout(self._timeout),
                httpx.AsyncClient(timeout=self._timeout, transport=self._transport, trust_env=False) as http,
            ):
                reply = await http.post(
                    self._url,
                    json={"subdomain": self._subdomain, "txt": value},
                    headers={"X-Api-User": self._username, "X-Api-Key": self._password},
                )
        except (httpx.HTTPError, httpx.InvalidURL, ValueError, TimeoutError) as error:
            raise ClientError(f"acme-dns at {self._url} cannot be asked: {reason_of(error)}") from None
        if reply.status_code != 200:
            raise ClientError(f"acme-dns at {self._url} answered {reply.status_code} to the update for {name}")

    async def remove(self, name: str, value: str) -> None:
        pass
