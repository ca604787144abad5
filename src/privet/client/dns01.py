"""dns-01 (RFC 8555 §8.4): a TXT record below `_acme-challenge`, put there by whoever can change the zone.

The law of this module: a challenge is answered only once every nameserver of the zone shows the record, or when the
time for that is over and the error says who doesn't.
"""

import asyncio
import errno
import ipaddress
from contextlib import suppress
from typing import Protocol

import dns.asyncquery
import dns.asyncresolver
import dns.exception
import dns.flags
import dns.message
import dns.rdatatype
import dns.resolver

from privet.client.errors import ClientError
from privet.client.handlers import dns_digest
from privet.client.session import Sleep, waiting

_LABEL = "_acme-challenge"
_QUERY = 5.0
_ALIASES = 8


class DNSProvider(Protocol):
    """Whoever can change a zone. There may be several values at one name: `add` leaves the others alone."""

    async def add(self, name: str, value: str) -> None:
        """Add a TXT record. Raises whatever it likes if that fails."""
        ...

    async def remove(self, name: str, value: str) -> None:
        """Remove this TXT record."""
        ...


class DNS01Handler:
    """Meets dns-01 challenges, those of wildcards too, by a provider.

    An alias (CNAME) at `_acme-challenge` is followed, so that the record may be in another zone. Then the zone's
    nameservers are asked, at `port`, until all show the record, for `wait` seconds at most; `wait=0` asks nobody.
    `resolver` is the address, perhaps with a port, of the resolver that knows the zone; the system's by default.
    """

    challenge_type = "dns-01"

    def __init__(
        self,
        provider: DNSProvider,
        *,
        resolver: str | None = None,
        port: int = 53,
        wait: float = 120,
        interval: float = 2,
        sleep: Sleep = asyncio.sleep,
    ) -> None:
        self.provider = provider
        self._resolver = resolver
        self._port = port
        self._wait = wait
        self._interval = interval
        self._sleep = sleep
        self._names: dict[str, str] = {}

    async def present(self, identifier: str, token: str, key_authorization: str) -> None:
        value = dns_digest(key_authorization)
        name = await self._name(f"{_LABEL}.{identifier}")
        self._names[key_authorization] = name
        await self.provider.add(name, value)
        if self._wait > 0:
            await self._until_shown(name, value)

    async def cleanup(self, identifier: str, token: str, key_authorization: str) -> None:
        name = self._names.pop(key_authorization, f"{_LABEL}.{identifier}")
        await self.provider.remove(name, dns_digest(key_authorization))

    async def _name(self, name: str) -> str:
        """Where the record belongs: the name, or what it is an alias for."""
        resolver = self._make_resolver()
        for _ in range(_ALIASES):
            try:
                answer = await resolver.resolve(name, dns.rdatatype.CNAME, lifetime=_QUERY)
            except (dns.exception.DNSException, OSError):
                return name
            name = answer[0].target.to_text(omit_final_dot=True)
        raise ClientError(f"{_LABEL} is an alias that leads through more than {_ALIASES} others")

    async def _until_shown(self, name: str, value: str) -> None:
        waited = 0.0
        while True:
            missing = await self._missing(name, value)
            if not missing:
                return
            if not waited:
                waiting.info("the TXT record at %s is waited for, %g s at most", name, self._wait)
            if waited >= self._wait:
                raise ClientError(f"the TXT record at {name} is not shown after {waited:g} s by {', '.join(missing)}")
            await self._sleep(self._interval)
            waited += self._interval

    async def _missing(self, name: str, value: str) -> list[str]:
        """Which of the zone's nameservers do not show the record yet."""
        servers = await self._authoritative(name)
        if not servers:
            return ["any nameserver of its zone: none was found"]
        shown = await asyncio.gather(*(self._shows(server, name, value) for server in servers))
        return [server for server, shows in zip(servers, shown, strict=True) if not shows]

    async def _authoritative(self, name: str) -> list[str]:
        resolver = self._make_resolver()
        addresses: list[str] = []
        with suppress(dns.exception.DNSException, OSError):
            zone = await dns.asyncresolver.zone_for_name(name, resolver=resolver)
            for server in await resolver.resolve(zone, dns.rdatatype.NS, lifetime=_QUERY):
                for type in (dns.rdatatype.A, dns.rdatatype.AAAA):
                    with suppress(dns.exception.DNSException, OSError):
                        found = await resolver.resolve(server.target, type, lifetime=_QUERY)
                        addresses += [each.address for each in found]
        return list(dict.fromkeys(addresses))

    async def _shows(self, server: str, name: str, value: str) -> bool:
        query = dns.message.make_query(name, dns.rdatatype.TXT)
        query.flags &= ~dns.flags.RD
        try:
            reply, _ = await dns.asyncquery.udp_with_fallback(query, server, timeout=_QUERY, port=self._port)
        except OSError as error:
            # One that cannot be reached from here at all, over IPv6 say, is for the CA to ask.
            return error.errno in (errno.ENETUNREACH, errno.EHOSTUNREACH, errno.EADDRNOTAVAIL)
        except (dns.exception.DNSException, EOFError):
            return False
        return any(
            b"".join(record.strings) == value.encode()
            for rrset in reply.answer
            if rrset.rdtype == dns.rdatatype.TXT
            for record in rrset
        )

    def _make_resolver(self) -> dns.asyncresolver.Resolver:
        if self._resolver is None:
            try:
                resolver = dns.asyncresolver.Resolver()
            except dns.resolver.NoResolverConfiguration as error:
                raise ClientError(f"there is no resolver to look the zone up with: {error}; give resolver=") from None
        else:
            resolver = dns.asyncresolver.Resolver(configure=False)
            host, port = split_address(self._resolver)
            resolver.nameservers, resolver.port = [host], port
        resolver.cache = None
        return resolver


def split_address(text: str) -> tuple[str, int]:
    """An address and a port, 53 if there is none: `10.0.0.2`, `10.0.0.2:5353`, `[::1]:5353`. Raises `ClientError`."""
    host, port = text, 53
    if text.startswith("["):
        host, _, rest = text[1:].partition("]")
        port = int(rest[1:]) if rest[1:].isdecimal() else 53
    elif text.count(":") == 1:
        host, _, number = text.partition(":")
        port = int(number) if number.isdecimal() else 53
    try:
        return str(ipaddress.ip_address(host)), port
    except ValueError:
        raise ClientError(f"{text!a} is not the address of a nameserver, such as 10.0.0.2 or 10.0.0.2:5353") from None
