"""What is in a file: certificates, keys, requests, revocation lists, in PEM (RFC 7468) or DER.

The law of this module: any bytes at all are named, and nothing of a private key is shown but its public half.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import (
    load_der_private_key,
    load_der_public_key,
    load_pem_private_key,
    load_pem_public_key,
    pkcs12,
)


class Kind(StrEnum):
    CERTIFICATE = "a certificate"
    KEY = "a private key"
    CSR = "a certificate signing request"
    CRL = "a revocation list"
    PUBLIC_KEY = "a public key"
    PKCS12 = "a PKCS #12 container"
    EMPTY = "empty"
    UNKNOWN = "none of certificate, key, request and revocation list"


@dataclass(frozen=True, slots=True)
class Item:
    """One thing that a file has. `value` is None where it has no more to tell, or cannot be read: see `problem`."""

    kind: Kind
    form: str
    value: object = field(default=None, repr=False)
    encrypted: bool = False
    problem: str | None = None


_BLOCK = re.compile(rb"-----BEGIN ([A-Z0-9 #]+)-----.*?-----END \1-----", re.DOTALL)
_CERTIFICATES = ("CERTIFICATE", "X509 CERTIFICATE", "TRUSTED CERTIFICATE")
_FORMS = {
    "PRIVATE KEY": "PKCS#8",
    "ENCRYPTED PRIVATE KEY": "PKCS#8",
    "RSA PRIVATE KEY": "traditional",
    "EC PRIVATE KEY": "traditional",
    "DSA PRIVATE KEY": "traditional",
    "OPENSSH PRIVATE KEY": "OpenSSH",
}


def contents_of(data: bytes, password: bytes | None = None) -> list[Item]:
    """Everything in a file, in its order; at least one item."""
    if not data.strip():
        return [Item(Kind.EMPTY, "")]
    if b"-----BEGIN " in data:
        blocks = (_of_block(match[0], match[1].decode(), password) for match in _BLOCK.finditer(data))
        found = [item for item in blocks if item is not None]
        return found or [Item(Kind.UNKNOWN, "PEM", problem="a block in PEM begins, and does not end")]
    return [_of_der(data, password)]


def described(items: Sequence[Item]) -> str:
    """What a file is, for a sentence."""
    kinds = list(dict.fromkeys(item.kind.value for item in items))
    return kinds[0] if len(kinds) == 1 else f"{', '.join(kinds[:-1])} and {kinds[-1]}"


def certificates_of(items: Sequence[Item]) -> list[x509.Certificate]:
    return [item.value for item in items if isinstance(item.value, x509.Certificate)]


def key_type(key: object) -> str:
    """What a public key is, in the words that `--key-type` has."""
    match key:
        case rsa.RSAPublicKey():
            return f"RSA-{key.key_size}"
        case ec.EllipticCurvePublicKey():
            return {"secp256r1": "P-256", "secp384r1": "P-384", "secp521r1": "P-521"}.get(
                key.curve.name, key.curve.name
            )
        case _:
            return type(key).__name__.lstrip("_").removesuffix("PublicKey")


def _of_block(block: bytes, label: str, password: bytes | None) -> Item | None:
    if label == "EC PARAMETERS":
        return None  # openssl writes them before the key, which has them too
    if label in _FORMS:
        return _key(block, _FORMS[label], label.startswith("ENCRYPTED") or b"ENCRYPTED" in block[:200], password)
    try:
        if label in _CERTIFICATES:
            plain = block.replace(label.encode(), b"CERTIFICATE")
            return Item(Kind.CERTIFICATE, "PEM", _whole(x509.load_pem_x509_certificate(plain)))
        if label in ("CERTIFICATE REQUEST", "NEW CERTIFICATE REQUEST"):
            return Item(Kind.CSR, "PEM", _whole(x509.load_pem_x509_csr(block)))
        if label == "X509 CRL":
            return Item(Kind.CRL, "PEM", _whole(x509.load_pem_x509_crl(block)))
        if label == "PUBLIC KEY":
            return Item(Kind.PUBLIC_KEY, "PEM", load_pem_public_key(block))
    except Exception:  # the parsers have many
        kinds = {"X509 CRL": Kind.CRL, "PUBLIC KEY": Kind.PUBLIC_KEY}
        kind = Kind.CERTIFICATE if label in _CERTIFICATES else kinds.get(label, Kind.CSR)
        return Item(kind, "PEM", problem="it is damaged")
    return Item(Kind.UNKNOWN, "PEM", problem=f"nothing is known here of {label}")


def _whole(value: object) -> object:
    """The same, after a look at every part: cryptography reads most of them only when asked for, and raises then."""
    for part in ("subject", "issuer", "extensions", "not_valid_before_utc", "not_valid_after_utc", "next_update_utc"):
        getattr(value, part, None)
    if isinstance(value, x509.Certificate | x509.CertificateSigningRequest):
        value.public_key()
    if isinstance(value, x509.CertificateSigningRequest):
        _ = value.is_signature_valid
    return value


def _key(block: bytes, form: str, encrypted: bool, password: bytes | None) -> Item:
    if encrypted and password is None:
        return Item(Kind.KEY, form, encrypted=True, problem="it is encrypted, and its password is missing")
    if form == "OpenSSH":
        return Item(Kind.KEY, form, problem="TLS has no use for keys in OpenSSH's own format")
    try:
        key = load_pem_private_key(block, password if encrypted else None)
    except UnsupportedAlgorithm:
        return Item(Kind.KEY, form, encrypted=encrypted, problem="it is of an unknown kind")
    except (ValueError, TypeError):
        why = "its password is another, or it is damaged" if encrypted else "it is damaged"
        return Item(Kind.KEY, form, encrypted=encrypted, problem=why)
    return Item(Kind.KEY, form, key.public_key(), encrypted)


def _of_der(data: bytes, password: bytes | None) -> Item:
    if data[:1] != b"\x30":  # all of them are a SEQUENCE
        return Item(Kind.UNKNOWN, "text" if _is_text(data) else "binary")
    for kind, load in (
        (Kind.CERTIFICATE, x509.load_der_x509_certificate),
        (Kind.CSR, x509.load_der_x509_csr),
        (Kind.CRL, x509.load_der_x509_crl),
        (Kind.PUBLIC_KEY, load_der_public_key),
    ):
        try:
            value = load(data)
        except Exception:  # noqa: S112 - then it is another
            continue
        try:
            return Item(kind, "DER", _whole(value))
        except Exception:
            return Item(kind, "DER", problem="it is damaged")
    return next(_key_of_der(data, password), Item(Kind.UNKNOWN, "binary"))


def _key_of_der(data: bytes, password: bytes | None) -> Iterator[Item]:
    try:
        key = load_der_private_key(data, None)
        # PKCS#8 has an AlgorithmIdentifier behind the version, traditional keys a number or an octet string.
        yield Item(
            Kind.KEY,
            "PKCS#8 in DER" if data[data.find(b"\x02\x01") + 3] == 0x30 else "traditional in DER",
            key.public_key(),
        )
        return
    except TypeError:
        if password is None:
            yield Item(
                Kind.KEY, "PKCS#8 in DER", encrypted=True, problem="it is encrypted, and its password is missing"
            )
            return
        try:
            yield Item(Kind.KEY, "PKCS#8 in DER", load_der_private_key(data, password).public_key(), True)
        except (ValueError, TypeError, UnsupportedAlgorithm):
            problem = "its password is another, or it is damaged"
            yield Item(Kind.KEY, "PKCS#8 in DER", encrypted=True, problem=problem)
        return
    except (ValueError, UnsupportedAlgorithm):
        pass
    try:
        pkcs12.load_pkcs12(data, password)
    except ValueError as error:
        if "password" in str(error).lower():
            yield Item(Kind.PKCS12, "DER", encrypted=True, problem="unpack it with `openssl pkcs12 -in FILE`")
    else:
        yield Item(Kind.PKCS12, "DER", problem="unpack it with `openssl pkcs12 -in FILE`")


def _is_text(data: bytes) -> bool:
    try:
        return data[:4096].decode().isprintable() or b"\n" in data[:4096]
    except UnicodeDecodeError:
        return False
