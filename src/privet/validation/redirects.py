"""Where http-01 is looked for, and where redirects may lead (RFC 8555 §8.3, §10.2).

The law: any bytes in a Location are a `Target` with a well-formed host and a port we were allowed, or a `Problem`;
and the problem repeats none of them.
"""

import contextlib
import ipaddress
import re
from collections.abc import Collection
from typing import NamedTuple
from urllib.parse import urljoin, urlsplit

from privet.acme.identifiers import BadIdentifier, from_json
from privet.acme.problems import Problem, ProblemType

DEFAULT_PORTS = {"http": 80, "https": 443}

# What RFC 3986 §2 allows in a URI, and nothing that one reader of URLs takes otherwise than another: no space, no
# backslash, no control character, nothing beyond ASCII.
_URL = re.compile(r"[A-Za-z0-9\-._~:/?#\[\]@!$&'()*+,;=%]{1,2000}")
# Read here and not by urllib, which takes what stands before the first colon for the host, whatever comes after.
_AUTHORITY = re.compile(r"(?:\[(?P<address>[0-9A-Fa-f:.]+)\]|(?P<name>[^:@\[\]]+))(?::(?P<port>[0-9]{1,5})?)?")


class Target(NamedTuple):
    scheme: str
    host: str
    """A DNS name in lower case, or an address."""
    port: int
    path: str
    """With the query."""

    @property
    def authority(self) -> str:
        """The Host header (RFC 9110 §7.2): the port is left out where it is the scheme's own."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == DEFAULT_PORTS[self.scheme] else f"{host}:{self.port}"

    def __str__(self) -> str:
        return f"{self.scheme}://{self.authority}{self.path}"


def first_target(host: str, port: int, token: str) -> Target:
    # RFC 8555 §8.3: http://{domain}/.well-known/acme-challenge/{token}, always by HTTP first.
    return Target("http", host, port, f"/.well-known/acme-challenge/{token}")


def follow(target: Target, location: bytes, ports: Collection[int]) -> Target:
    """Where a redirect leads. Raises `Problem`."""
    text = location.decode("latin-1")
    if not _URL.fullmatch(text):
        raise _refused("is not a URL, or is longer than 2000 characters")
    try:
        said, parts = urlsplit(text), urlsplit(urljoin(str(target), text))
    except ValueError:
        raise _refused("is not a URL") from None
    if parts.scheme not in DEFAULT_PORTS:
        raise _refused("is neither http nor https")
    if said.scheme and not said.netloc:
        raise _refused("names no host")
    if "@" in parts.netloc:
        raise _refused("has a user name in it")
    authority = _AUTHORITY.fullmatch(parts.netloc)
    if authority is None:
        raise _refused("has no well-formed host and port")
    port = int(authority["port"] or DEFAULT_PORTS[parts.scheme])
    if port not in ports:
        allowed = ", ".join(map(str, sorted(ports)))
        raise _refused(f"leads to another port than those allowed ({allowed})")
    path = parts.path if parts.path.startswith("/") else "/" + parts.path
    host = _read_host(authority["address"], authority["name"])
    return Target(parts.scheme, host, port, f"{path}?{parts.query}" if parts.query else path)


def _read_host(address: str | None, name: str | None) -> str:
    with contextlib.suppress(ValueError):
        # In one spelling, so that a circle is seen.
        return str(ipaddress.IPv6Address(address) if address else ipaddress.IPv4Address(name))
    if name:
        with contextlib.suppress(BadIdentifier):
            # Also refuses what only some take for an address: 127.1, 0x7f000001, 2130706433.
            identifier = from_json("dns", name.removesuffix("."))
            if not identifier.wildcard:
                return identifier.value
    raise _refused("has no well-formed name or address for a host")


def _refused(why: str) -> Problem:
    return Problem(ProblemType.INCORRECT_RESPONSE, f"a redirect {why}, so it is not followed")
