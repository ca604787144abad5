"""Which addresses a validator may connect to: what keeps validation from being a way into the network.

Private addresses are where our clients live, so they are allowed. What belongs to the machine itself or to what runs
it is not: loopback, link-local, metadata services, our own listeners, and the ways to write an IPv4 address as an IPv6
one. The law: of all the networks an address is in, the narrowest decides, so that an exception has to be named at
least as narrowly as what it is an exception to.
"""

import ipaddress
import socket
from collections.abc import Iterable, Iterator
from typing import NamedTuple

IPAddress = ipaddress.IPv4Address | ipaddress.IPv6Address
IPNetwork = ipaddress.IPv4Network | ipaddress.IPv6Network

METADATA = "the metadata service of a cloud"

REFUSED = {
    "0.0.0.0/8": "an unspecified address",
    "127.0.0.0/8": "a loopback address",
    "169.254.0.0/16": "a link-local address",
    "169.254.169.254/32": METADATA,
    "169.254.170.2/32": METADATA,
    "169.254.170.23/32": METADATA,
    "100.100.100.200/32": METADATA,
    "168.63.129.16/32": METADATA,
    "192.0.0.0/24": "an address of a protocol's own",
    "192.0.0.192/32": METADATA,
    "192.88.99.0/24": "a 6to4 relay",
    "224.0.0.0/4": "a multicast address",
    "240.0.0.0/4": "a reserved address",
    "255.255.255.255/32": "the broadcast address",
    "::/128": "an unspecified address",
    "::1/128": "a loopback address",
    "::/96": "an IPv4 address in IPv6 form",
    "::ffff:0:0/96": "an IPv4 address in IPv6 form",
    "::ffff:0:0:0/96": "an IPv4 address in IPv6 form",
    "64:ff9b::/96": "an IPv4 address behind NAT64",
    "64:ff9b:1::/48": "an IPv4 address behind NAT64",
    "100::/64": "an address for discarding",
    "2001::/32": "a Teredo address",
    "2002::/16": "a 6to4 address",
    "fd00:ec2::/32": METADATA,
    "fd00:42::42/128": METADATA,
    "fd20:ce::254/128": METADATA,
    "fe80::/10": "a link-local address",
    "fec0::/10": "a site-local address",
    "ff00::/8": "a multicast address",
}


class AddressRefused(ValueError):  # noqa: N818 - its text is for a person
    """No connection is made to this address. The text says what it is."""


class _Rule(NamedTuple):
    network: IPNetwork
    rank: int
    """Which of two rules for the same network counts: what is denied, then what is allowed, then what is built in."""
    why: str | None
    """Why it is refused; None if it is not."""


class Networks:
    """The addresses validators may connect to.

    `allow` and `deny` are networks (`10.0.0.0/8`) or single addresses; for every address the narrowest network that
    holds it decides, and of two alike `deny`. `Networks(deny=["0.0.0.0/0", "::/0"], allow=["10.0.0.0/8"])` is
    10.0.0.0/8 and nothing else, and still not the server itself. An IPv6 address that stands for an IPv4 one is
    allowed only if both are. `listeners` are the addresses and ports we listen at ourselves; `0.0.0.0` and `::` mean
    every address of this machine.

    Raises `ValueError` for what is no network or address.
    """

    def __init__(
        self, *, allow: Iterable[str] = (), deny: Iterable[str] = (), listeners: Iterable[tuple[str, int]] = ()
    ) -> None:
        self._rules = [
            *(_Rule(ipaddress.ip_network(network), 0, why) for network, why in REFUSED.items()),
            *(_Rule(_network(network), 1, None) for network in allow),
            *(_Rule(_network(network), 2, "a denied address") for network in deny),
        ]
        self._listeners = [(ipaddress.ip_address(address), port) for address, port in listeners]

    def check(self, address: str, port: int) -> IPAddress:
        """Return the address if it may be connected to. Raises `AddressRefused`."""
        try:
            asked = ipaddress.ip_address(address)
        except ValueError:
            raise AddressRefused("no IP address") from None
        if isinstance(asked, ipaddress.IPv6Address) and asked.scope_id is not None:
            raise AddressRefused("an address with a scope")
        self._check(asked, port)
        if isinstance(asked, ipaddress.IPv6Address):
            for inner in embedded(asked):
                self._check(inner, port)
        return asked

    def _check(self, address: IPAddress, port: int) -> None:
        rules = [rule for rule in self._rules if address in rule.network]
        if self._is_listener(address, port):
            rules.append(_Rule(ipaddress.ip_network(address), 0, "where this server itself listens"))
        if rules:
            decisive = max(rules, key=lambda rule: (rule.network.prefixlen, rule.rank))
            if decisive.why is not None:
                raise AddressRefused(decisive.why)

    def _is_listener(self, address: IPAddress, port: int) -> bool:
        for listener, listening in self._listeners:
            if listening == port and (listener == address or (listener.is_unspecified and _is_ours(address))):
                return True
        return False


def embedded(address: ipaddress.IPv6Address) -> Iterator[ipaddress.IPv4Address]:
    """The IPv4 addresses that packets to this address could end at."""
    value = int(address)
    last = ipaddress.IPv4Address(value & 0xFFFFFFFF)
    high = value >> 32
    if high in (0x0, 0xFFFF, 0xFFFF0000, 0x64FF9B << 64) and value > 1:
        yield last  # compatible, mapped, translated (RFC 4291 §2.5.5, RFC 2765), NAT64 (RFC 6052)
    elif value >> 80 == 0x64FF9B0001:
        # RFC 8215: who runs it says how long its prefix is. These are the places for /96 and for /48.
        for inner in (last, ipaddress.IPv4Address((value >> 48 & 0xFFFF0000) | (value >> 40 & 0xFFFF))):
            if int(inner):
                yield inner
    elif address.sixtofour:
        yield address.sixtofour
    elif address.teredo:
        yield from address.teredo
    if high & 0xFDFFFFFF == 0x5EFE:
        yield last  # ISATAP (RFC 5214 §6.1)


def _network(text: str) -> IPNetwork:
    try:
        return ipaddress.ip_network(text)
    except ValueError as error:
        raise ValueError(f"{text!a} is not a network such as 10.0.0.0/8, or an address: {error}") from None


def _is_ours(address: IPAddress) -> bool:
    """Whether the address is one of this machine's: nobody else's can be bound. Nothing is sent."""
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        try:
            probe.bind((str(address), 0))
        except OSError:
            return False
    return True
