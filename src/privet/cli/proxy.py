"""Who asks, when a proxy asks for them: X-Forwarded-For, to whose end every proxy adds the address it was asked from.

The law of this module: an address counts only if a trusted proxy wrote it, and what is no address is nobody's.
"""

from collections.abc import Sequence
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

from privet.server.responder import Scope

UNIX = "unix"
"""Stands for whoever may open our Unix socket."""

Address = IPv4Address | IPv6Address


def read_proxy(text: str) -> None:
    """Raises `ValueError` for what is neither an address nor a network, nor a Unix socket's."""
    if text == "*":
        raise ValueError(
            f"'*' would believe anybody about anybody: name the proxy's address or network, or {UNIX} for one that "
            "comes by --uds"
        )
    if text != UNIX:
        ip_network(text)


class TrustedProxies:
    def __init__(self, trusted: Sequence[str]) -> None:
        self._unix = UNIX in trusted
        self._networks = [ip_network(each) for each in trusted if each != UNIX]

    def client(self, scope: Scope) -> tuple[str, int] | None:
        """The address of the client and its port, or None if nobody who is believed has said it."""
        peer = scope.get("client")
        address = None if peer is None else _address(peer[0])
        if not (self._unix if address is None else self._trusts(address)):
            return peer
        said = b",".join(value for name, value in scope["headers"] if name == b"x-forwarded-for").decode("latin-1")
        if not said:
            return peer
        for hop in reversed(said.split(",")):
            address = _address(hop.strip())
            if address is None:
                return None
            if not self._trusts(address):
                break
        return (str(address), 0)

    def _trusts(self, address: Address) -> bool:
        return any(address in network for network in self._networks)


def _address(text: str) -> Address | None:
    try:
        address = ip_address(text)
    except ValueError:
        return None
    # What a socket for both families calls an IPv4 address.
    return (isinstance(address, IPv6Address) and address.ipv4_mapped) or address
