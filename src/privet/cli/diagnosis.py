"""What is wrong with a certificate, its key and whom it is to convince: each cause by its name, with what to do.

Speaks for RFC 5280 §6.1 and RFC 9525 as verifiers go by them. Pure: no files, no sockets, no clock. The law of this
module: what it finds is what a verifier would refuse, or soon will, said so that somebody can act on it.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from ipaddress import ip_address

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import ExtendedKeyUsageOID

from privet.ca.keys import WeakKey, check_public_key
from privet.cli.contents import key_type
from privet.cli.printing import printable, to_text

_SOON_PART = 10
_LONGEST_SKEW = timedelta(days=1)
_SKEW = timedelta(minutes=1)


@dataclass(frozen=True, slots=True)
class Finding:
    """A cause by its name. What is no `problem` yet, or not for everybody, is a note."""

    cause: str
    says: str
    do: str
    problem: bool = True


@dataclass(frozen=True, slots=True)
class Shown:
    """The certificate in question, what stands behind it, and what to call both."""

    chain: Sequence[x509.Certificate]
    where: str

    @property
    def leaf(self) -> x509.Certificate:
        return self.chain[0]


def times(shown: Shown, now: datetime) -> Iterator[Finding]:
    """Whether the certificate and all behind it are valid now."""
    for certificate in shown.chain:
        begin, end = certificate.not_valid_before_utc, certificate.not_valid_after_utc
        whose = "the certificate" if certificate is shown.leaf else f"{_name(certificate)} behind the certificate"
        if now >= end:
            yield Finding(
                "expired",
                f"{whose} in {shown.where} ended at {to_text(end)}, and it is {to_text(now)}",
                "renew it, and look into the log of what should have: it did not, or its files are not those in use",
            )
        elif now < begin:
            cause = "clock-skew" if begin - now < _LONGEST_SKEW else "not-yet-valid"
            yield Finding(
                cause,
                f"{whose} in {shown.where} begins at {to_text(begin)}, and here it is {to_text(now)}",
                "compare the clocks of this machine and of the authority (`timedatectl`), and have both follow NTP",
            )
        elif end - now < (end - begin) / _SOON_PART:
            left = end - now
            yield Finding(
                "expires-soon",
                f"{whose} in {shown.where} ends at {to_text(end)}, with {_span(left)} left of {_span(end - begin)}",
                "renew it now, and look why that did not happen by itself",
                problem=False,
            )


def trust(
    shown: Shown, anchors: Sequence[x509.Certificate], nearby: Sequence[tuple[str, x509.Certificate]] = ()
) -> Iterator[Finding]:
    """Whether the chain leads to one of `anchors`. `nearby` are others at hand, which may be what is missing."""
    top, behind = shown.leaf, list(shown.chain[1:])
    while top not in anchors:
        above = next((each for each in [*anchors, *behind] if _issued(each, top)), None)
        if above is None or above is top:
            yield from _untrusted(shown, top, anchors, nearby)
            return
        if above in anchors:
            return
        behind.remove(above)
        top = above


def _untrusted(
    shown: Shown,
    top: x509.Certificate,
    anchors: Sequence[x509.Certificate],
    nearby: Sequence[tuple[str, x509.Certificate]],
) -> Iterator[Finding]:
    issuer = top.issuer.rfc4514_string()
    trusted = ", ".join(map(_name, anchors))
    whose = "the certificate" if top is shown.leaf else _name(top)
    if any(each.subject == top.issuer for each in anchors):
        yield Finding(
            "wrong-ca",
            f"{whose} in {shown.where} was issued by another CA that is called {issuer} as well: its key is another",
            "take the CA file from the authority that issued it; an authority that was made anew has to be distributed "
            "anew",
        )
        return
    found = next(((path, each) for path, each in nearby if _issued(each, top) and each is not top), None)
    if top.subject == top.issuer or (found and found[1].subject == found[1].issuer):
        there = f"; its root is in {found[0]}" if found else ""
        yield Finding(
            "wrong-ca",
            f"the chain in {shown.where} ends at {issuer}, which is not trusted; trusted is {trusted}{there}",
            f"have the CA file say {issuer} instead, or in addition, if that is the authority you mean",
        )
    elif found:
        yield Finding(
            "chain-incomplete",
            f"{whose} in {shown.where} was issued by {issuer}, whose certificate is not behind it; it is in {found[0]}",
            f"put {found[0]} behind the certificate, or use the file that has all of them (fullchain.pem)",
        )
    else:
        yield Finding(
            "chain-incomplete",
            f"{whose} in {shown.where} was issued by {issuer}, whose certificate is neither behind it nor trusted",
            f"if {issuer} is an intermediate, put its certificate behind this one (fullchain.pem has both)",
        )
        yield Finding(
            "wrong-ca",
            f"or {issuer} is a root that is not trusted here; trusted is {trusted}",
            f"if {issuer} is the authority you mean, have the CA file say so",
        )


def clock(here: datetime, there: datetime | None, where: str) -> Iterator[Finding]:
    """Whether this machine has the time that the CA has."""
    if there is not None and abs(here - there) > _SKEW:
        is_ = "ahead of" if here > there else "behind"
        yield Finding(
            "clock-skew",
            f"here it is {to_text(here)}, which is {_span(abs(here - there))} {is_} the clock of the CA at {where}",
            "have both follow NTP (`timedatectl`): certificates that are valid there may not be valid here",
        )


def renewal(shown: Shown, window: tuple[datetime, datetime], why: str | None, now: datetime) -> Iterator[Finding]:
    """Whether the CA wants the certificate to be renewed now (RFC 9773)."""
    start, end = window
    if start <= now:
        yield Finding(
            "renew-now",
            f"the CA wants the certificate in {shown.where} to be renewed from {to_text(start)} to {to_text(end)}"
            + (f", and says more at {printable(why)}" if why else ""),
            "renew it now: it may have been revoked, or its authority is to change" if end <= now else "renew it now",
            problem=end <= now,
        )


def name(shown: Shown, wanted: str) -> Iterator[Finding]:
    """Whether the certificate is for this DNS name or IP address (RFC 9525 §6)."""
    names = _names(shown.leaf)
    if any(_matches(each, wanted) for each in names):
        return
    for_ = f"it is for {', '.join(names)}" if names else "it names nobody in its alternative names"
    only_cn = "" if names else ", and a common name does not count"
    yield Finding(
        "hostname-mismatch",
        f"the certificate in {shown.where} is not for {wanted}: {for_}{only_cn}",
        f"call it by a name that it has, or have it issued for {wanted} as well",
    )


def uses(certificate: x509.Certificate) -> list[str]:
    """Of servers and clients, those whom its extended key usage is for; both where there is none."""
    usage = next((e.value for e in _extensions(certificate) if isinstance(e.value, x509.ExtendedKeyUsage)), None)
    allowed = {ExtendedKeyUsageOID.SERVER_AUTH: "servers", ExtendedKeyUsageOID.CLIENT_AUTH: "clients"}
    return [text for oid, text in allowed.items() if usage is None or oid in usage]


def use(shown: Shown, *, server: bool | None) -> Iterator[Finding]:
    """Whether it may be used as a server's, or a client's; None if that is not known."""
    known = uses(shown.leaf)
    wanted = None if server is None else "servers" if server else "clients"
    if (wanted or (known or ["servers"])[0]) not in known:
        yield Finding(
            "wrong-eku",
            f"the certificate in {shown.where} is for {' and '.join(known) or 'neither servers nor clients'}, by its "
            f"extended key usage, and not for {wanted or 'either'}",
            "have it issued for the right use: `privet cert create-node` and `privet issue` make one for both",
        )
    if any(isinstance(e.value, x509.BasicConstraints) and e.value.ca for e in _extensions(shown.leaf)):
        yield Finding(
            "ca-as-leaf",
            f"the first certificate in {shown.where} is a CA's own, {_name(shown.leaf)}",
            "put the certificate that the CA issued first, and the CA's behind it",
        )
    try:
        check_public_key(shown.leaf.public_key())
    except WeakKey as error:
        yield Finding("weak-key", f"the key of the certificate in {shown.where} is weak: {error}", "make a new key")


def key(shown: Shown, public_key: object, where: str, others: Sequence[tuple[str, object]] = ()) -> Iterator[Finding]:
    """Whether the private key in `where` belongs to the certificate."""
    if _spki(public_key) == _spki(shown.leaf.public_key()):
        return
    right = next((path for path, each in others if _spki(each) == _spki(shown.leaf.public_key())), None)
    kinds = key_type(public_key), key_type(shown.leaf.public_key())
    hint = f": it belongs to {right}" if right else f": it is {kinds[0]}, and not {kinds[1]}" * (kinds[0] != kinds[1])
    yield Finding(
        "key-mismatch",
        f"the key in {where} does not belong to the certificate in {shown.where}{hint}",
        f"use {right}" if right else "find the key it was made with, or have a certificate issued for this key",
    )


def _issued(above: x509.Certificate, below: x509.Certificate) -> bool:
    try:
        below.verify_directly_issued_by(above)
    except (ValueError, TypeError, InvalidSignature):
        return False
    return True


def _matches(pattern: str, wanted: str) -> bool:
    try:
        return ip_address(pattern) == ip_address(wanted)
    except ValueError:
        pass
    pattern, wanted = pattern.lower(), wanted.lower().removesuffix(".")
    return pattern == wanted or (pattern.startswith("*.") and wanted.partition(".")[2] == pattern[2:])


def _names(certificate: x509.Certificate) -> list[str]:
    found = [e.value for e in _extensions(certificate) if isinstance(e.value, x509.SubjectAlternativeName)]
    return [str(n.value) for names in found for n in names if isinstance(n, x509.DNSName | x509.IPAddress)]


def _extensions(certificate: x509.Certificate) -> Sequence[x509.Extension[x509.ExtensionType]]:
    return list(certificate.extensions)


def _spki(public_key: object) -> bytes:
    spki: bytes = public_key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)  # type: ignore[attr-defined]
    return spki


def _name(certificate: x509.Certificate) -> str:
    return certificate.subject.rfc4514_string() or f"{certificate.serial_number:x}"


def _span(span: timedelta) -> str:
    hours = span / timedelta(hours=1)
    return f"{hours / 24:.0f} days" if hours >= 72 else f"{hours:.0f} hours" if hours >= 3 else f"{hours * 60:.0f} min"
