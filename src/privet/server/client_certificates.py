"""The certificate that a client showed in its TLS handshake, by the TLS extension of ASGI.

The law: it is believed only where the server says that it verified it. What is missing, not verified or unreadable is
the same as none, and no header ever is one.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.x509.oid import NameOID


@dataclass(frozen=True, slots=True)
class ClientCertificate:
    """Who a client is by a certificate that the server verified.

    `names` are those of hosts among its subject alternative names, DNS names in lower case and addresses; `others` are
    URIs and mail addresses, which are not to be taken for the former.
    `fingerprint` is the SHA-256 of the certificate in hexadecimal, `issuer` a distinguished name as RFC 4514 has it.
    """

    common_name: str | None
    names: tuple[str, ...]
    fingerprint: str
    issuer: str
    others: tuple[str, ...] = ()


def find_client_certificate(scope: Mapping[str, object]) -> str | None:
    """The PEM of the client's own certificate, if the server has verified one."""
    extensions = scope.get("extensions")
    tls = extensions.get("tls") if isinstance(extensions, Mapping) else None
    if not isinstance(tls, Mapping) or tls.get("client_cert_error") is not None:
        return None
    chain = tls.get("client_cert_chain")
    leaf = next(iter(chain), None) if isinstance(chain, list | tuple) else None
    return leaf if isinstance(leaf, str) else None


def read_client_certificate(pem: str, now: datetime) -> ClientCertificate | None:
    """What the certificate says, or None if it cannot be read or has ended since the handshake: a connection may live
    for longer."""
    try:
        certificate = x509.load_pem_x509_certificate(pem.encode())
        if not certificate.not_valid_before_utc <= now <= certificate.not_valid_after_utc:
            return None
        common_names = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
        names = _alternative_names(certificate)
        hosts = [each for each in names if isinstance(each, x509.DNSName | x509.IPAddress)]
        others = [each for each in names if isinstance(each, x509.UniformResourceIdentifier | x509.RFC822Name)]
        return ClientCertificate(
            common_name=str(common_names[0].value) if len(common_names) == 1 else None,
            names=tuple(str(each.value).lower() for each in hosts),
            others=tuple(str(each.value) for each in others),
            fingerprint=certificate.fingerprint(hashes.SHA256()).hex(),
            issuer=certificate.issuer.rfc4514_string(),
        )
    except Exception:  # as with CSRs: the parser has many exceptions for what makes no sense
        return None


def _alternative_names(certificate: x509.Certificate) -> list[x509.GeneralName]:
    try:
        return list(certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value)
    except x509.ExtensionNotFound:
        return []
