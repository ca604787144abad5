"""Who asks, when a proxy asks for them: X-Forwarded-For, to whose end every proxy adds the address it was asked from.

The law of this module: an address counts only if a trusted proxy wrote it, and what is no address is nobody's. A
trusted proxy that does not say who asks lends nobody its own.
"""

import logging
import re
from collections.abc import Sequence
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

from privet.server.asgi import Scope

UNIX = "unix"
"""Stands for whoever may open our Unix socket."""

Address = IPv4Address | IPv6Address

log = logging.getLogger("privet")

# Some proxies add the client's port, and with it the brackets of an IPv6 address.
_WITH_PORT = re.compile(r"(?:([0-9.]+)|\[([^\]]*)\])(?::[0-9]{1,5})?")


def read_proxy(text: str) -> None:
    """Raises `ValueError` for what is neither an address nor a network, nor a Unix socket's."""
    if text == UNIX:
        return
    if text == "*" or not ip_network(text).prefixlen:
        raise ValueError(
            f"{text!r} would believe anybody about anybody: name the proxy's address or network, or {UNIX} for one "
            "that comes by --uds"
        )


class TrustedProxies:
    def __init__(self, trusted: Sequence[str]) -> None:
        self._unix = UNIX in trusted
        self._networks = [ip_network(each) for each in trusted if each != UNIX]
        self._warned = False

    def request_id(self, scope: Scope) -> bytes | None:
        """The X-Request-ID that a trusted proxy has given the request, if it has."""
        if not self._believes(scope.get("client")):
            return None
        return next((value for name, value in scope["headers"] if name == b"x-request-id"), None)

    def client(self, scope: Scope) -> tuple[str, int] | None:
        """The address of the client and its port, or None if nobody who is believed has said it."""
        peer: tuple[str, int] | None = scope.get("client")
        if not self._believes(peer):
            return peer
        said = b",".join(value for name, value in scope["headers"] if name == b"x-forwarded-for").decode("latin-1")
        if not said:
            return None
        for hop in reversed(said.split(",")):
            address = _hop(hop.strip())
            if address is None:
                self._warn(said)
                return None
            if not self._trusts(address):
                break
        return (str(address), 0)

    def _believes(self, peer: tuple[str, int] | None) -> bool:
        """Whether what this peer says of others counts. Without trusted proxies no address is read for it."""
        if not self._unix and not self._networks:
            return False
        address = None if peer is None else _address(peer[0])
        return self._unix if address is None else self._trusts(address)

    def _warn(self, said: str) -> None:
        if not self._warned:
            self._warned = True
            log.warning(
                "a trusted proxy says X-Forwarded-For: %a, which is no address; its clients have none", said[:200]
            )

    def _trusts(self, address: Address) -> bool:
        return any(address in network for network in self._networks)


def _hop(text: str) -> Address | None:
    with_port = _WITH_PORT.fullmatch(text)
    return _address((with_port[1] or with_port[2]) if with_port else text)


def _address(text: str) -> Address | None:
    try:
        address = ip_address(text)
    except ValueError:
        return None
    # What a socket for both families calls an IPv4 address.
    return (isinstance(address, IPv6Address) and address.ipv4_mapped) or address
