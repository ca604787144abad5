"""Identifiers (RFC 8555 §7.1.3, RFC 8738): the names a certificate can be for.

The law of this module: an `Identifier` that exists is well-formed and canonical, so two of them are the same name
exactly when they are equal.
"""

import ipaddress
import re
from enum import StrEnum
from typing import NamedTuple

import idna

_LABEL = re.compile(r"(?!-)[a-z0-9-]{1,63}(?<!-)")


class IdentifierType(StrEnum):
    DNS = "dns"
    IP = "ip"


class BadIdentifier(ValueError):  # noqa: N818 - its text is for the person at the other end
    """The name is not well-formed. The text says why, with the name."""


class Identifier(NamedTuple):
    """A DNS name (lower case, A-labels, perhaps with a leading `*.`) or an IP address (canonical text)."""

    type: IdentifierType
    value: str

    @property
    def wildcard(self) -> bool:
        return self.value.startswith("*.")

    @property
    def base(self) -> "Identifier":
        """The name whose control is proved: a wildcard's without its `*.` (RFC 8555 §7.1.3)."""
        return Identifier(self.type, self.value[2:]) if self.wildcard else self

    def __str__(self) -> str:
        return self.value

    def to_json(self) -> dict[str, str]:
        return {"type": str(self.type), "value": self.value}


def from_text(text: str) -> Identifier:
    """Read a name as a person writes it: an IP address is an IP identifier, `Bücher.internal` gets its A-labels.

    Raises `BadIdentifier`.
    """
    if not isinstance(text, str) or isinstance(text, IdentifierType):
        # `ipaddress` takes numbers for addresses, and bytes given for a list of names are numbers; an identifier given
        # for a list is its type and its value.
        raise BadIdentifier(f"{text!r} is no name: names are text, such as 'web.internal' or '10.0.0.1'")
    try:
        return Identifier(IdentifierType.IP, str(_address(text)))
    except ValueError:
        pass
    if not text.isascii():
        star = "*." if text.startswith("*.") else ""
        try:
            text = star + idna.encode(text.removeprefix(star), uts46=True).decode()
        except UnicodeError as error:
            raise BadIdentifier(f"{_shown(text)} is not a valid internationalized DNS name: {error}") from None
    return Identifier(IdentifierType.DNS, _dns_name(text))


def from_json(type: object, value: object) -> Identifier:
    """Read an identifier as the protocol writes it: exact, nothing converted but letter case.

    Raises `BadIdentifier`; for a type we do not know, `UnsupportedIdentifier`.
    """
    if not isinstance(type, str) or not isinstance(value, str):
        raise BadIdentifier("an identifier has a type and a value, both strings")
    if type == IdentifierType.DNS:
        return Identifier(IdentifierType.DNS, _dns_name(value))
    if type == IdentifierType.IP:
        try:
            address = _address(value)
        except ValueError:
            raise BadIdentifier(f"{_shown(value)} is not an IP address") from None
        # RFC 8738 §3: IPv6 in the form of RFC 5952. One address with two spellings would be two identifiers.
        if str(address) != value:
            raise BadIdentifier(f"{_shown(value)} is not in canonical form; write {address}")
        return Identifier(IdentifierType.IP, value)
    raise UnsupportedIdentifier(f"identifiers of type {_shown(type)} are not supported; dns and ip are")


class UnsupportedIdentifier(BadIdentifier):
    """The identifier is of a type we do not certify (RFC 8555 §7.1.3)."""


def _address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    address = ipaddress.ip_address(text)
    if isinstance(address, ipaddress.IPv6Address) and (address.scope_id is not None or address.ipv4_mapped):
        raise ValueError("scoped and IPv4-mapped addresses name no host")
    return address


def _dns_name(text: str) -> str:
    name = text.lower() if text.isascii() else text
    labels = (name.removeprefix("*.")).split(".")
    if len(name) > 253:
        raise BadIdentifier(f"{_shown(text)} is longer than the 253 characters of a DNS name")
    for label in labels:
        if not _LABEL.fullmatch(label):
            raise BadIdentifier(f"{_shown(text)} is not a valid DNS name: {_fault(label)}")
        # RFC 5890 §2.3.1: what has hyphens in its third and fourth place is an A-label or nothing.
        if label[2:4] == "--":
            try:
                idna.decode(label)
                if not label.startswith("xn--"):
                    raise BadIdentifier(
                        f"{_shown(text)} is not a valid DNS name: the label {_shown(label)} is reserved"
                    )
            except UnicodeError:
                raise BadIdentifier(
                    f"{_shown(text)} is not a valid DNS name: {_shown(label)} is broken punycode"
                ) from None
    # An address must not pass for a name: no top-level domain is a number (RFC 3696 §2), in any base inet_aton reads.
    if re.fullmatch(r"[0-9]+|0x[0-9a-f]*", labels[-1]):
        raise BadIdentifier(f"{_shown(text)} ends in a number, so it is no DNS name; an address has the type ip")
    return name


def _fault(label: str) -> str:
    if not label:
        return "it has an empty label"
    if len(label) > 63:
        return "a label is longer than 63 characters"
    if label.startswith("-") or label.endswith("-"):
        return f"the label {_shown(label)} begins or ends with a hyphen"
    return f"the label {_shown(label)} has characters other than letters, digits and hyphens"


def _shown(text: str) -> str:
    """The text as it may appear in a message: printable, and not without end."""
    return ascii(text if len(text) <= 100 else text[:100] + "…")
