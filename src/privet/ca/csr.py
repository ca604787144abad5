"""Certificate signing requests (RFC 2986) as ACME uses them (RFC 8555 §7.4).

The law of this module: any bytes at all give a `CSR` or `BadCSR`, never another exception. From a request come the
public key, proved by its signature, and the names; whatever else it wishes for is not looked at.
"""

from contextlib import suppress
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from privet.acme import identifiers
from privet.acme.identifiers import BadIdentifier, Identifier, IdentifierType
from privet.ca.keys import PublicKey, WeakKey, check_public_key


class BadCSR(ValueError):  # noqa: N818 - its text is for the person at the other end
    """The request is not one we can answer. The text says why."""


@dataclass(frozen=True, slots=True)
class CSR:
    """A public key whose owner asked for these names: the common name's first, each once.

    `common_name` and `alternative_names` are the same apart, as they were written.
    """

    public_key: PublicKey
    identifiers: tuple[Identifier, ...]
    common_name: str | None = None
    alternative_names: tuple[Identifier, ...] = ()


def from_pem(csr: bytes) -> bytes:
    """The DER of a request in PEM; what is not in PEM is taken for DER. Raises `BadCSR`."""
    if b"-----BEGIN" not in csr:
        return csr
    try:
        return x509.load_pem_x509_csr(csr).public_bytes(Encoding.DER)
    except ValueError:
        raise BadCSR("the CSR is not a well-formed PKCS #10 request in PEM") from None


def parse_csr(der: bytes, *, any_common_name: bool = False) -> CSR:
    """Read and verify a request in DER. With `any_common_name` its common name may be a text that is no identifier,
    such as the user of a database. Raises `BadCSR`."""
    try:
        return _parse(x509.load_der_x509_csr(der), any_common_name)
    except BadCSR:
        raise
    except WeakKey as error:
        raise BadCSR(f"the key of the CSR is refused: {error}") from None
    except BadIdentifier as error:
        raise BadCSR(f"the CSR asks for a bad name: {error}") from None
    except Exception:
        # The parser has a dozen exceptions for bytes that make no sense; a stranger chooses which one we meet.
        raise BadCSR("the CSR is not a well-formed PKCS #10 request in DER") from None


def _parse(csr: x509.CertificateSigningRequest, any_common_name: bool) -> CSR:
    public_key = csr.public_key()
    check_public_key(public_key)  # first, because a signature by an absurd key takes absurdly long to verify
    # SHA-1 and MD5 prove nothing; Ed25519 has no hash of its own to name.
    if not isinstance(csr.signature_hash_algorithm, hashes.SHA256 | hashes.SHA384 | hashes.SHA512 | None):
        raise BadCSR("the CSR is signed with a hash that is not accepted; SHA-256, SHA-384 and SHA-512 are")
    if not csr.is_signature_valid:
        raise BadCSR("the signature of the CSR is not that of its key")
    subject = [attribute.value for attribute in csr.subject.get_attributes_for_oid(NameOID.COMMON_NAME)]
    if any_common_name and (len(subject) > 1 or not all(isinstance(each, str) for each in subject)):
        raise BadCSR("the CSR has several common names, or one that is no text")
    names: list[Identifier] = []
    for value in subject:
        try:
            names.append(_common_name(value))
        except BadIdentifier:
            if not any_common_name:
                raise
    alternative_names: list[Identifier] = []
    for extension in csr.extensions:
        match extension.value:
            case x509.SubjectAlternativeName():
                alternative_names += [_alternative_name(name) for name in extension.value]
            case x509.BasicConstraints(ca=True):
                raise BadCSR("the CSR asks for a CA certificate")
    if not subject and not alternative_names:
        raise BadCSR("the CSR names nobody: it has neither a common name nor subject alternative names")
    return CSR(
        public_key,
        tuple(dict.fromkeys([*names, *alternative_names])),
        str(subject[0]) if subject else None,
        tuple(dict.fromkeys(alternative_names)),
    )


def _common_name(value: str | bytes) -> Identifier:
    try:
        return identifiers.from_json(IdentifierType.DNS, value)
    except BadIdentifier:
        with suppress(ValueError):
            return identifiers.from_json(IdentifierType.IP, str(ip_address(value)))
        raise


def _alternative_name(name: x509.GeneralName) -> Identifier:
    match name:
        case x509.DNSName():
            return identifiers.from_json(IdentifierType.DNS, name.value)
        case x509.IPAddress(value=IPv4Address() | IPv6Address()):
            return identifiers.from_json(IdentifierType.IP, str(name.value))
        case _:
            raise BadCSR("the CSR asks for a name that is neither a DNS name nor an IP address")
