"""Name constraints (RFC 5280 §4.2.1.10): which names a CA may certify, as its own certificate tells every verifier.

The law of this module: what it lets through, verifiers let through, and a constraint it does not understand is refused
as a whole.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network, collapse_addresses, ip_address, ip_network

from cryptography import x509

from privet.acme.identifiers import BadIdentifier, Identifier, IdentifierType, from_text
from privet.ca.certificates import AuthorityError

# As verifiers compare it: a name stands for itself and all below it, one with a leading dot for all below it alone
# (not in the RFC, but OpenSSL and Go agree), an empty one for every name.
_DNS_SUBTREE = re.compile(r"|\.?[a-z0-9_-]+(\.[a-z0-9_-]+)*", re.IGNORECASE)

# What OpenSSL takes for a DNS name, and holds to the constraints, in the common name of a certificate that has no
# other: two labels at least, which may have underscores and be numbers.
_LABEL = r"[a-z0-9_](?:[a-z0-9_-]*[a-z0-9_])?"
_LIKE_A_NAME = re.compile(rf"(?:\*|{_LABEL})(?:\.{_LABEL})+", re.IGNORECASE)

_EVERY_NAME, _EVERY_NAME_TEXT = x509.DNSName(""), "any DNS name"
_EVERY_ADDRESS = (x509.IPAddress(ip_network("0.0.0.0/0")), x509.IPAddress(ip_network("::/0")))


class NamesRefused(AuthorityError):  # noqa: N818 - it is the outcome, and reads so where it is caught
    """The authority may not certify these names. `refused` has each with the reason, the text all of them."""

    def __init__(self, refused: Sequence[tuple[Identifier, str]]) -> None:
        super().__init__("; ".join(reason for _, reason in refused))
        self.refused = tuple(refused)


@dataclass(frozen=True, slots=True)
class NameConstraints:
    """The names that an authority may certify: those in `permitted`, if anything is, less those in `excluded`.

    `internal` stands for this name and all below it, `.internal` for all below it alone, `10.0.0.0/8` for the
    addresses of a network. Where only names are permitted no address is, and the other way round.

    Raises `ValueError`.
    """

    permitted: Sequence[str] = ()
    excluded: Sequence[str] = ()

    def __post_init__(self) -> None:
        if isinstance(self.permitted, str) or isinstance(self.excluded, str):
            raise ValueError("name constraints are lists of names and networks")
        if not self.permitted and not self.excluded:
            raise ValueError("name constraints permit or exclude something")
        self.to_extension()
        excluded = _subtrees(self.excluded)
        if self.permitted and all(_lies_in(each, excluded) for each in _subtrees(self.permitted)):
            raise ValueError("everything that is permitted is excluded, so that the authority could certify nothing")

    def to_extension(self) -> x509.NameConstraints:
        """What the certificate of the CA says. The same constraints in any order are the same extension."""
        permitted, excluded = _subtrees(self.permitted), _subtrees(self.excluded)
        # A type of name without a permitted subtree would be free, which nobody means who permits something.
        if permitted and not any(isinstance(each, x509.DNSName) for each in permitted):
            excluded = [_EVERY_NAME, *(each for each in excluded if not isinstance(each, x509.DNSName))]
        if permitted and not any(isinstance(each, x509.IPAddress) for each in permitted):
            excluded = [*(each for each in excluded if not isinstance(each, x509.IPAddress)), *_EVERY_ADDRESS]
        return x509.NameConstraints(permitted or None, excluded or None)


def named_by(common_name: str) -> list[Identifier]:
    """The name that verifiers take a client's common name for, if they do: an address in it is a name to them."""
    return [Identifier(IdentifierType.DNS, common_name.lower())] if _LIKE_A_NAME.fullmatch(common_name) else []


def read_subtree(text: str) -> x509.DNSName | x509.IPAddress:
    """Read a subtree as a person writes it. Raises `ValueError`, with a sentence."""
    try:
        return x509.IPAddress(ip_network(text))
    except ValueError as error:
        if "/" in text:
            raise ValueError(f"{text!a} is no network: {error}") from None
    dot = "." if text.startswith(".") else ""
    name = from_text(text.removeprefix(dot))
    if name.wildcard:
        raise BadIdentifier(f"{text!a} is a wildcard; write {name.value[1:]} for all that is below {name.value[2:]}")
    if name.type is IdentifierType.IP:
        raise BadIdentifier(f"{text!a} is neither a name nor a network")
    return x509.DNSName(dot + name.value)


def constraints_of(chain: Iterable[x509.Certificate]) -> tuple[x509.NameConstraints, ...]:
    """All name constraints of these certificates; a name has to pass every one (§6.1.4)."""
    extensions = [extension.value for certificate in chain for extension in certificate.extensions]
    return tuple(value for value in extensions if isinstance(value, x509.NameConstraints))


def to_texts(subtrees: Iterable[x509.GeneralName] | None) -> list[str]:
    """The subtrees as a person writes them; those that concern us."""
    kinds = (x509.DNSName, x509.IPAddress)
    return [str(each.value) or _EVERY_NAME_TEXT for each in subtrees or () if isinstance(each, kinds)]


def refusal(constraints: x509.NameConstraints, identifier: Identifier) -> str | None:
    """Why the constraints do not let this name through; None if they do."""
    kind = _KINDS[identifier.type]
    excluded = [each for each in _values(kind, constraints.excluded_subtrees) if _touches(identifier, each)]
    if excluded:
        return f"{identifier} is among what this authority must not certify: {_shown(excluded)}"
    permitted = _values(kind, constraints.permitted_subtrees)
    if permitted and not any(_within(identifier, each) for each in permitted):
        return f"{identifier} is not among what this authority may certify: {_shown(permitted)}"
    return None


def about_subjects(constraints: x509.NameConstraints) -> bool:
    """Whether they say which subjects may be certified. An empty one always may."""
    return bool(_values(x509.DirectoryName, _all(constraints)))


def lets_subject(constraints: x509.NameConstraints, subject: x509.Name) -> bool:
    """Whether a CA with this subject may be below the one with the constraints."""
    path = _path(subject)
    permitted, excluded = (
        [_path(each.value) for each in subtrees or () if isinstance(each, x509.DirectoryName)]
        for subtrees in (constraints.permitted_subtrees, constraints.excluded_subtrees)
    )
    if any(path[: len(each)] == each for each in excluded):
        return False
    return not permitted or any(path[: len(each)] == each for each in permitted)


def not_understood(constraints: x509.NameConstraints, der: bytes) -> str | None:
    """What in the constraints of a certificate, of which these are the bytes, cannot be enforced; None if all can."""
    if wrong := [each for each in _values(x509.DNSName, _all(constraints)) if not _DNS_SUBTREE.fullmatch(str(each))]:
        return f"the DNS name {wrong[0]!a}"
    # §4.2.1.10: the minimum MUST be zero, and maximum MUST be absent; and whatever else reading left out.
    return None if constraints.public_bytes() in der else "their encoding"


_KINDS: dict[IdentifierType, type[x509.DNSName | x509.IPAddress]] = {
    IdentifierType.DNS: x509.DNSName,
    IdentifierType.IP: x509.IPAddress,
}


def _subtrees(texts: Iterable[str]) -> list[x509.DNSName | x509.IPAddress]:
    return sorted(set(map(read_subtree, texts)), key=repr)


def _lies_in(inner: x509.DNSName | x509.IPAddress, outer: Iterable[x509.DNSName | x509.IPAddress]) -> bool:
    """Whether all of a subtree lies in others."""
    match inner.value:
        case IPv4Network() as network:
            v4 = [each.value for each in outer if isinstance(each.value, IPv4Network)]
            return any(map(network.subnet_of, collapse_addresses(v4)))
        case IPv6Network() as network:
            v6 = [each.value for each in outer if isinstance(each.value, IPv6Network)]
            return any(map(network.subnet_of, collapse_addresses(v6)))
        case name:
            names = [each.value for each in outer if isinstance(each, x509.DNSName)]
            base = str(name).removeprefix(".")
            return any(
                each in (name, base) or base.endswith(each if each.startswith(".") else f".{each}") for each in names
            )


def _all(constraints: x509.NameConstraints) -> list[x509.GeneralName]:
    return [*(constraints.permitted_subtrees or []), *(constraints.excluded_subtrees or [])]


def _values(kind: type[x509.GeneralName], subtrees: Iterable[x509.GeneralName] | None) -> list[object]:
    return [each.value for each in subtrees or () if isinstance(each, kind)]


def _within(identifier: Identifier, subtree: object) -> bool:
    """Whether all that the identifier stands for lies in the subtree."""
    match subtree:
        case IPv4Network() | IPv6Network():
            return ip_address(identifier.value) in subtree
        case str():
            name, base = identifier.value, subtree.lower()
            return not base or name == base or name.endswith(base if base.startswith(".") else f".{base}")
        case _:
            return False


def _touches(identifier: Identifier, subtree: object) -> bool:
    """Whether anything that the identifier stands for lies in the subtree: `*.internal` is `db.internal` as well."""
    if _within(identifier, subtree):
        return True
    label, _, above = str(subtree).lower().partition(".")
    return identifier.wildcard and bool(label) and above == identifier.base.value


def _path(name: x509.Name) -> list[list[tuple[str, str]]]:
    """A distinguished name as it is compared (RFC 5280 §7.1): without regard to case and superfluous spaces."""
    return [
        sorted((each.oid.dotted_string, " ".join(str(each.value).casefold().split())) for each in rdn)
        for rdn in name.rdns
    ]


def _shown(values: Sequence[object]) -> str:
    shown = [str(each) or _EVERY_NAME_TEXT for each in values[:5]]
    return ", ".join([*shown, f"and {len(values) - 5} more"] if len(values) > 5 else shown)
