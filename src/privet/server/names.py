"""Patterns of names and networks, by which rules and external account keys say whom or what they mean.

The law: `*` and `?` stay within one label, and only `**` in front crosses dots; no pattern takes long to compare. A
wildcard is all the names it stands for: what allows it has to cover them all, and what forbids one of them forbids it.
"""

import ipaddress
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TypeVar

from privet.acme.identifiers import BadIdentifier, Identifier, IdentifierType, from_text

IPAddress = ipaddress.IPv4Address | ipaddress.IPv6Address
IPNetwork = ipaddress.IPv4Network | ipaddress.IPv6Network
T = TypeVar("T")


class BadPattern(ValueError):  # noqa: N818 - its text is for whoever wrote it
    """The pattern means nothing. The text says why, with the pattern."""


@dataclass(frozen=True, slots=True)
class _Name:
    whole: re.Pattern[str]
    """What a name has to look like."""
    below: re.Pattern[str] | None
    """What a wildcard has to look like without its `*.`, for one of the names it stands for to fit."""


class Names:
    """Identifiers by patterns: `web.internal`, `db-?.internal`, `*.team-a.internal` (one label more), `**.internal`
    (one or more), `**` (any DNS name), `10.0.0.0/8`, `fd00::/8`, `10.0.0.7`.

    Raises `BadPattern`.
    """

    def __init__(self, patterns: Iterable[str]) -> None:
        self.patterns = tuple(patterns)
        self._names: list[_Name] = []
        self._networks: list[IPNetwork] = []
        for read in read_all(self.patterns, _read):
            if isinstance(read, _Name):
                self._names.append(read)
            else:
                self._networks.append(read)

    def __repr__(self) -> str:
        return f"Names({list(self.patterns)})"

    def cover(self, identifier: Identifier) -> bool:
        """Whether it is one of them; a wildcard, if every name is that it stands for."""
        if identifier.type is IdentifierType.IP:
            return is_in(ipaddress.ip_address(identifier.value), self._networks)
        return any(name.whole.fullmatch(identifier.value) for name in self._names)

    def touch(self, identifier: Identifier) -> bool:
        """Whether it is one of them; a wildcard, if a single name is that it stands for."""
        if not identifier.wildcard:
            return self.cover(identifier)
        rest = identifier.base.value
        return any(name.below is not None and name.below.fullmatch(rest) for name in self._names)


def read_all(texts: Iterable[str], read: Callable[[str], T]) -> list[T]:
    """Read each of them. Raises `BadPattern`, whose text is about every one that cannot be read."""
    found, mistakes = [], []
    for text in texts:
        try:
            found.append(read(text))
        except BadPattern as error:
            mistakes.append(str(error))
    if mistakes:
        raise BadPattern("; ".join(mistakes))
    return found


def _read(text: str) -> _Name | IPNetwork:
    return read_network(text) if "/" in text or _is_address(text) else _read_name(text)


def read_network(text: str) -> IPNetwork:
    """Read a network such as 10.0.0.0/8, or a single address. Raises `BadPattern`."""
    try:
        network = ipaddress.ip_network(text)
    except ValueError as error:
        raise BadPattern(f"{text!a} is not a network such as 10.0.0.0/8: {error}") from None
    if isinstance(network, ipaddress.IPv6Network) and network.network_address.ipv4_mapped and network.prefixlen >= 96:
        inner = f"{network.network_address.ipv4_mapped}/{network.prefixlen - 96}"
        raise BadPattern(f"{text!a} is an IPv4 network in IPv6 form; write {inner}")
    if isinstance(network, ipaddress.IPv6Network) and network.network_address.scope_id is not None:
        raise BadPattern(f"{text!a} has a scope, which says something on one machine only")
    return network


def read_address(text: str) -> IPAddress | None:
    """Where a request came from: an IPv4 address is one in whatever form a dual-stack socket shows it. None if it
    cannot be told."""
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return None
    if isinstance(address, ipaddress.IPv6Address):
        return address.ipv4_mapped or ipaddress.IPv6Address(int(address))
    return address


def is_in(address: IPAddress, networks: Iterable[IPNetwork]) -> bool:
    return any(address.version == network.version and address in network for network in networks)


def read_text_pattern(text: str, *, any_case: bool = True) -> re.Pattern[str]:
    """A pattern for names in certificates, which need not be DNS names. With `any_case` case does not count, and what
    is compared has to be in lower case. Raises `BadPattern`."""
    if not text.strip() or not text.isprintable():
        raise BadPattern(f"{text!a} is no name")
    if "/" in text:
        raise BadPattern(f"{text!a} is no name in a certificate; networks are for client")
    _check_stars(text)
    if text == "**":
        return re.compile(".+")
    first, *others = (text.lower() if any_case else text).split(".")
    labels = [r"(?:[^.]+\.)*[^.]+" if first == "**" else _compare(first, "[^.]")]
    return re.compile(r"\.".join(labels + [_compare(label, "[^.]") for label in others]))


def _check_stars(text: str) -> None:
    """Whether the stars are where they mean something. Raises `BadPattern`."""
    if text == "*":
        raise BadPattern("'*' alone is a single label; write ** for every name, or ?* for every name without a dot")
    first, *others = text.split(".")
    if any("**" in label for label in others) or ("**" in first and first != "**"):
        raise BadPattern(f"{text!a} has ** where it means nothing: it goes in front, as in **.internal")


def _compare(label: str, character: str) -> str:
    """A label with `*` and `?` as a regular expression. What is between two stars counts where it is found first,
    which is as good as any place, and is never sought again: so no name takes long, however it is made."""
    first, *others = (
        "".join(character if each == "?" else re.escape(each) for each in part) for part in label.split("*")
    )
    if not others:
        return first
    return first + "".join(f"(?>{character}*?{part})" for part in others[:-1]) + f"{character}*{others[-1]}"


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def _read_name(text: str) -> _Name:
    if text == "**":
        return _Name(re.compile(".+"), re.compile(".+"))
    _check_stars(text)
    if "*" not in text and "?" not in text:
        try:
            exact = from_text(text).value
        except BadIdentifier as error:
            raise BadPattern(str(error)) from None
        first, _, rest = exact.partition(".")
        return _Name(re.compile(re.escape(exact)), re.compile(re.escape(rest)) if rest else None)
    if re.fullmatch(r"[0-9.*?]*[0-9][0-9.*?]*", text):
        raise BadPattern(f"{text!a} is no pattern of names; addresses go by networks such as 10.0.0.0/8")
    first, *others = text.split(".")
    if len(text) > 253:
        raise BadPattern(f"{text[:100]!a}… is longer than a DNS name can be")
    tail = r"\.".join(_read_label(label, text, last=number == len(others)) for number, label in enumerate(others, 1))
    if first == "**":
        return _Name(re.compile(rf"(?:[^.]+\.)+{tail}"), re.compile(rf"(?:[^.]+\.)*{tail}"))
    head = _read_label(first, text, last=not others)
    return _Name(re.compile(rf"{head}\.{tail}" if others else head), re.compile(tail) if others else None)


def _read_label(label: str, text: str, *, last: bool) -> str:
    """A label as a regular expression. `*` alone is a wildcard's `*` as well; no other pattern is."""
    if label == "*":
        return "[^.]+"
    if "*" in label or "?" in label:
        lower = label.lower()
        if not re.fullmatch(r"(?!-)[a-z0-9*?-]{1,63}(?<!-)", lower):
            raise BadPattern(
                f"{text!a} is no pattern of names: beside * and ? a label has letters, digits and hyphens, and where "
                "it has others its punycode"
            )
        return _compare(lower, "[a-z0-9-]")
    try:
        # A label alone may be a number; at the end of a name it is none.
        read = from_text(label if last else f"{label}.internal").value
    except BadIdentifier as error:
        raise BadPattern(f"{text!a} is no pattern of names: {error}") from None
    exact = read if last else read.removesuffix(".internal")
    if "." in exact:
        raise BadPattern(f"{text!a} is no pattern of names: write its dots as dots")
    return re.escape(exact)
