"""Looking at what was issued before it is used (RFC 8555 §7.4.2, RFC 5280 §6.1): a server's word is not enough.

The law of this module: any bytes give an `Issued` that is what was asked for, or a `ClientError` that says what it is
instead.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from ipaddress import ip_address
from typing import TypeVar

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from privet.acme.encoding import to_base64url
from privet.acme.identifiers import Identifier, IdentifierType
from privet.ca import keys
from privet.ca.keys import PublicKey
from privet.client.errors import ClientError

_CHAIN_MAX = 10
_AHEAD = timedelta(minutes=5)
"""How much the CA's clock may be ahead of ours."""
# RFC 8555 §9.1: certificates in PEM with the strict encoding of RFC 7468, and a client must refuse anything else.
_CERTIFICATE = re.compile(rb"-----BEGIN CERTIFICATE-----\s+[A-Za-z0-9+/=\s]+-----END CERTIFICATE-----\s*")
_USAGES = (ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH)

_T = TypeVar("_T", bound=x509.ExtensionType)


@dataclass(frozen=True, slots=True)
class Issued:
    """A certificate and what leads from it towards a root, in order."""

    chain: tuple[x509.Certificate, ...]

    @property
    def certificate(self) -> x509.Certificate:
        return self.chain[0]

    @property
    def cert_pem(self) -> bytes:
        return self.certificate.public_bytes(Encoding.PEM)

    @property
    def fullchain_pem(self) -> bytes:
        return b"".join(each.public_bytes(Encoding.PEM) for each in self.chain)

    @property
    def common_name(self) -> str | None:
        found = self.certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
        return str(found[0].value) if len(found) == 1 else None

    def is_from(self, issuer: str) -> bool:
        """Whether an issuer in the chain has this common name."""
        return any(
            attribute.value == issuer
            for each in self.chain
            for attribute in each.issuer.get_attributes_for_oid(NameOID.COMMON_NAME)
        )


def read_chain(pem: bytes) -> Issued:
    """Read a certificate and its chain. Raises `ClientError` for what is not certificates in PEM and nothing else."""
    blocks = _CERTIFICATE.findall(pem)
    if not blocks or _CERTIFICATE.sub(b"", pem).strip():
        raise ClientError("the server sent something else than certificates in PEM")
    if len(blocks) > _CHAIN_MAX:
        raise ClientError(f"the server sent a chain of {len(blocks)} certificates")
    try:
        return Issued(tuple([x509.load_pem_x509_certificate(block) for block in blocks]))
    except Exception:  # the parser has many, and a stranger chooses which one we meet
        raise ClientError("the server sent a certificate that cannot be read") from None


def check_issued(
    issued: Issued,
    identifiers: Iterable[Identifier],
    public_key: PublicKey,
    now: datetime,
    root: x509.Certificate | None = None,
) -> None:
    """Raises `ClientError` unless the certificate is for these names and this key, is valid now, may be used for TLS,
    and each of its chain was signed by the next; with `root`, the last by that."""
    try:
        wrong = _wrong(issued, frozenset(identifiers), public_key, now, root)
    except Exception:  # extensions are parsed when they are looked at
        wrong = "has an extension that cannot be read"
    if wrong:
        raise ClientError(f"the certificate that was issued {wrong}; it is not used")


def _wrong(
    issued: Issued, wanted: frozenset[Identifier], public_key: PublicKey, now: datetime, root: x509.Certificate | None
) -> str | None:
    certificate = issued.certificate
    if keys.spki(certificate.public_key()) != keys.spki(public_key):
        return "has another key than the one that was asked for"
    if (names := names_of(certificate)) != wanted:
        return f"is for {_listed(names)}, not for {_listed(wanted)}"
    begin, end = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    if not begin < end or end <= now:
        return f"ended on {end}, and it is now {now:%Y-%m-%d %H:%M:%S} here; if that is wrong, set the clock"
    if begin > now + _AHEAD:
        return f"begins on {begin}, and it is now {now:%Y-%m-%d %H:%M:%S} here; if that is wrong, set the clock"
    constraints, usage = _value(certificate, x509.BasicConstraints), _value(certificate, x509.KeyUsage)
    if constraints is not None and constraints.ca:
        return "is a CA's own"
    if usage is not None and not usage.digital_signature:
        return "must not be used for TLS: its key usage lacks digitalSignature"
    extended = _value(certificate, x509.ExtendedKeyUsage)
    if extended is not None and not any(each in extended for each in _USAGES):
        return "must not be used for TLS: its extended key usage has neither serverAuth nor clientAuth"
    return _wrong_chain(issued.chain, now, root)


def _wrong_chain(chain: Sequence[x509.Certificate], now: datetime, root: x509.Certificate | None) -> str | None:
    for below, above in zip(chain, [*chain[1:], *([root] if root else [])], strict=False):
        if above == below:  # the root is in the chain already
            continue
        constraints = _value(above, x509.BasicConstraints)
        if constraints is None or not constraints.ca:
            return f"comes with {_name(above)} in its chain, which is not a CA"
        try:
            below.verify_directly_issued_by(above)
        except (ValueError, TypeError, InvalidSignature):
            return f"comes with a chain that is broken: {_name(above)} did not sign {_name(below)}"
        if above.not_valid_after_utc <= now:
            return f"comes with {_name(above)} in its chain, which ended on {above.not_valid_after_utc}"
    return None


def names_of(certificate: x509.Certificate) -> frozenset[Identifier]:
    """The subject alternative names; one of another kind than DNS and IP counts as one nobody asked for."""
    found = _value(certificate, x509.SubjectAlternativeName)
    names = []
    for name in found or ():
        if isinstance(name, x509.IPAddress):
            names.append(Identifier(IdentifierType.IP, str(name.value)))
        elif isinstance(name, x509.DNSName):
            names.append(Identifier(IdentifierType.DNS, name.value.lower()))
        else:
            names.append(Identifier(IdentifierType.DNS, f"a {type(name).__name__}"))
    return frozenset(names)


def certificate_id(certificate: x509.Certificate) -> str | None:
    """What renewal information is asked for by (RFC 9773 §4.1): the issuer's key identifier and the serial number.
    None for a certificate that does not name its issuer's key."""
    authority = _value(certificate, x509.AuthorityKeyIdentifier)
    if authority is None or not authority.key_identifier:
        return None
    serial = certificate.serial_number
    # The serial as the content octets of a DER INTEGER: with a zero in front where the first bit would be a sign.
    octets = serial.to_bytes(serial.bit_length() // 8 + 1, "big")
    return f"{to_base64url(authority.key_identifier)}.{to_base64url(octets)}"


def make_csr(key: keys.PrivateKey, identifiers: Sequence[Identifier], common_name: str | None = None) -> bytes:
    """A CSR for the names, in DER. They are all alternative names: a common name adds nothing (RFC 8555 §7.4), unless
    it is none of them."""
    names: list[x509.GeneralName] = [
        x509.IPAddress(ip_address(each.value)) if each.type is IdentifierType.IP else x509.DNSName(each.value)
        for each in identifiers
    ]
    subject = [] if common_name is None else [x509.NameAttribute(NameOID.COMMON_NAME, common_name)]
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name(subject))
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    algorithm: hashes.SHA256 | hashes.SHA384 | None = hashes.SHA256()
    if isinstance(key, ed25519.Ed25519PrivateKey):
        algorithm = None
    elif isinstance(key, ec.EllipticCurvePrivateKey) and key.curve.name == "secp384r1":
        algorithm = hashes.SHA384()
    return builder.sign(key, algorithm).public_bytes(Encoding.DER)


def _value(certificate: x509.Certificate, kind: type[_T]) -> _T | None:
    try:
        return certificate.extensions.get_extension_for_class(kind).value
    except x509.ExtensionNotFound:
        return None


def _name(certificate: x509.Certificate) -> str:
    return ascii(certificate.subject.rfc4514_string()[:200])


def _listed(names: Iterable[Identifier]) -> str:
    return ", ".join(ascii(str(name))[1:-1] for name in sorted(names)) or "no name"
