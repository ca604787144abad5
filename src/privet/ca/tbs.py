"""The bytes a signature is about: TBSCertificate (RFC 5280 §4.1), laid out in DER.

cryptography's builder makes certificates and signs them in one step; we put on record what is about to be signed
before it is. The law of this module: what it writes is what cryptography reads back, field by field.
"""

import base64
import hashlib
from collections.abc import Iterable
from datetime import datetime
from ipaddress import ip_address

from cryptography import x509

from privet.acme.identifiers import Identifier, IdentifierType

SEQUENCE, SET, INTEGER, BIT_STRING, OCTET_STRING, UTF8_STRING = 0x30, 0x31, 0x02, 0x03, 0x04, 0x0C
_VERSION_3 = bytes.fromhex("a003020102")
_CRITICAL = bytes.fromhex("0101ff")


def der(tag: int, *contents: bytes) -> bytes:
    """One value with its tag and its length (X.690 §8.1)."""
    content = b"".join(contents)
    if (size := len(content)) < 0x80:
        return bytes((tag, size)) + content
    length = size.to_bytes((size.bit_length() + 7) // 8, "big")
    return bytes((tag, 0x80 | len(length))) + length + content


def tbs_certificate(
    *,
    serial: int,
    algorithm: bytes,
    issuer: bytes,
    not_before: datetime,
    not_after: datetime,
    subject: bytes,
    spki: bytes,
    extensions: Iterable[bytes],
) -> bytes:
    return der(
        SEQUENCE,
        _VERSION_3,
        der(INTEGER, serial.to_bytes(serial.bit_length() // 8 + 1, "big")),
        algorithm,
        issuer,
        der(SEQUENCE, _time(not_before), _time(not_after)),
        subject,
        spki,
        der(0xA3, der(SEQUENCE, *extensions)),
    )


def certificate(tbs: bytes, algorithm: bytes, signature: bytes) -> bytes:
    return der(SEQUENCE, tbs, algorithm, der(BIT_STRING, b"\0", signature))


def common_name(name: str | None) -> bytes:
    """A distinguished name of this common name alone (2.5.4.3), or an empty one."""
    if name is None:
        return der(SEQUENCE)
    return der(SEQUENCE, der(SET, der(SEQUENCE, b"\x06\x03\x55\x04\x03", der(UTF8_STRING, name.encode()))))


def extension(value: x509.ExtensionType, *, critical: bool = False) -> bytes:
    return _extension(int(value.oid.dotted_string.removeprefix("2.5.29.")), value.public_bytes(), critical=critical)


def key_identifier(spki: bytes) -> bytes:
    """RFC 7093 §2, method 4: the hash of the whole SubjectPublicKeyInfo."""
    return hashlib.sha256(spki).digest()


def subject_key_identifier(spki: bytes) -> bytes:
    return _extension(14, der(OCTET_STRING, key_identifier(spki)))


def subject_alternative_name(identifiers: Iterable[Identifier], *, critical: bool) -> bytes:
    return _extension(17, der(SEQUENCE, *map(_general_name, identifiers)), critical=critical)


def to_pem(der: bytes) -> bytes:
    text = base64.b64encode(der)
    lines = b"\n".join(text[i : i + 64] for i in range(0, len(text), 64))
    return b"-----BEGIN CERTIFICATE-----\n" + lines + b"\n-----END CERTIFICATE-----\n"


def _extension(number: int, value: bytes, *, critical: bool = False) -> bytes:
    """All of ours are under id-ce, 2.5.29 (RFC 5280 §4.2.1)."""
    identifier = bytes((0x06, 0x03, 0x55, 0x1D, number))
    return der(SEQUENCE, identifier, _CRITICAL if critical else b"", der(OCTET_STRING, value))


def _general_name(identifier: Identifier) -> bytes:
    if identifier.type == IdentifierType.IP:
        return der(0x87, ip_address(identifier.value).packed)
    return der(0x82, identifier.value.encode("ascii"))


def _time(time: datetime) -> bytes:
    # RFC 5280 §4.1.2.5: dates through the year 2049 MUST be UTCTime, later ones GeneralizedTime.
    if 1950 <= time.year < 2050:
        return der(0x17, f"{time:%y%m%d%H%M%SZ}".encode())
    return der(0x18, f"{time:%Y%m%d%H%M%SZ}".encode())
