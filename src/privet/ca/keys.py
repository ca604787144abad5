"""Keys: the kinds we make and the ones we certify (RFC 5280 §4.1.2.7, RFC 8410).

The law of this module: a key that passes `check_public_key` is of a kind every TLS stack knows, and nobody is known
to forge its signatures.
"""

import math
from enum import StrEnum

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.asymmetric.types import CertificatePublicKeyTypes
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)

from privet.acme.ed25519 import is_sound

LONGEST_PASSWORD = 1023
"""Of a key, in octets: OpenSSL, and with it cryptography, reads no longer one."""

PublicKey = CertificatePublicKeyTypes

PrivateKey = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey


class KeyType(StrEnum):
    P256 = "P-256"
    P384 = "P-384"
    RSA2048 = "RSA-2048"
    RSA3072 = "RSA-3072"
    RSA4096 = "RSA-4096"
    ED25519 = "Ed25519"

    @property
    def rsa(self) -> bool:
        return self.startswith("RSA")


class BadKey(ValueError):  # noqa: N818 - its text is for the person at the other end
    """The key cannot be read. The text says why, and shows nothing of it."""


class WeakKey(BadKey):
    """The key is of a kind, a size or a shape we do not certify. The text says which."""


def generate(key_type: KeyType) -> PrivateKey:
    match KeyType(key_type):
        case KeyType.P256:
            return ec.generate_private_key(ec.SECP256R1())
        case KeyType.P384:
            return ec.generate_private_key(ec.SECP384R1())
        case KeyType.ED25519:
            return ed25519.Ed25519PrivateKey.generate()
        case rsa_type:
            return rsa.generate_private_key(65537, int(rsa_type.removeprefix("RSA-")))


def check_public_key(key: object) -> KeyType:
    """Return what the key is; for an RSA key between two sizes, the smaller. Raises `WeakKey`."""
    match key:
        case ec.EllipticCurvePublicKey():
            try:
                return _CURVES[key.curve.name]
            except KeyError:
                raise WeakKey(f"keys on the curve {key.curve.name} are not accepted; P-256 and P-384 are") from None
        case ed25519.Ed25519PublicKey():
            if not is_sound(key.public_bytes_raw()):
                raise WeakKey("for this Ed25519 key anyone can sign; make a new one")
            return KeyType.ED25519
        case rsa.RSAPublicKey():
            return _check_rsa(key)
        case _:
            raise WeakKey("keys of this kind are not accepted; EC (P-256, P-384), RSA and Ed25519 are")


_CURVES = {"secp256r1": KeyType.P256, "secp384r1": KeyType.P384}


def _check_rsa(key: rsa.RSAPublicKey) -> KeyType:
    size = key.key_size
    if not 2048 <= size <= 4096 or size % 8:
        raise WeakKey(f"RSA keys of {size} bits are not accepted; 2048 to 4096 are")
    numbers = key.public_numbers()
    # NIST SP 800-56B §6.2: anybody can forge for exponent 1, and 3 has a history; more than 64 bits only cost time.
    if numbers.e < 65537 or numbers.e % 2 == 0 or numbers.e >= 2**64:
        raise WeakKey("RSA keys are accepted with an odd exponent from 65537 to 2^64")
    if math.gcd(numbers.n, _SMALL_FACTORS) != 1 or _close_factors(numbers.n) or _roca(numbers.n):
        raise WeakKey("this RSA key can be factored; make a new one")
    return next(k for k in (KeyType.RSA4096, KeyType.RSA3072, KeyType.RSA2048) if size >= int(k.removeprefix("RSA-")))


_PRIMES = [n for n in range(2, 752) if all(n % d for d in range(2, math.isqrt(n) + 1))]
_SMALL_FACTORS = math.prod(_PRIMES)
# CVE-2017-15361 (ROCA): primes made by some smart cards are powers of 65537 modulo every small prime.
_ROCA = [(p, residues) for p in _PRIMES[1:39] if len(residues := {pow(65537, i, p) for i in range(p - 1)}) < p - 1]


def _roca(n: int) -> bool:
    return all(n % p in residues for p, residues in _ROCA)


def _close_factors(n: int) -> bool:
    """Whether Fermat's method finds the factors at once (CVE-2022-26320)."""
    a = math.isqrt(n - 1) + 1
    return any(math.isqrt(b) ** 2 == b for b in (x * x - n for x in range(a, a + 20)))


def spki(key: PublicKey) -> bytes:
    """The key as SubjectPublicKeyInfo (RFC 5280 §4.1) in DER."""
    return key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


# The AlgorithmIdentifier of RFC 5758 §3.2, RFC 4055 §5 and RFC 8410 §3 that says how a key of this type signs.
_SHA256_RSA = bytes.fromhex("300d06092a864886f70d01010b0500")
SIGNATURE_ALGORITHMS = {
    KeyType.P256: bytes.fromhex("300a06082a8648ce3d040302"),
    KeyType.P384: bytes.fromhex("300a06082a8648ce3d040303"),
    KeyType.RSA2048: _SHA256_RSA,
    KeyType.RSA3072: _SHA256_RSA,
    KeyType.RSA4096: _SHA256_RSA,
    KeyType.ED25519: bytes.fromhex("300506032b6570"),
}
_ECDSA = {"secp256r1": ec.ECDSA(hashes.SHA256()), "secp384r1": ec.ECDSA(hashes.SHA384())}


def sign(key: PrivateKey, data: bytes) -> bytes:
    """Sign as `SIGNATURE_ALGORITHMS` says for the type of the key."""
    match key:
        case ec.EllipticCurvePrivateKey():
            return key.sign(data, _ECDSA[key.curve.name])
        case rsa.RSAPrivateKey():
            return key.sign(data, padding.PKCS1v15(), hashes.SHA256())
        case _:
            return key.sign(data)


def to_pem(key: PrivateKey, password: bytes | None = None, *, traditional: bool = False) -> bytes:
    """The private key in PEM, as PKCS#8 or in the traditional form, encrypted if there is a password. Raises
    `ValueError` for an empty one."""
    encryption = NoEncryption() if password is None else BestAvailableEncryption(password)
    return key.private_bytes(Encoding.PEM, _traditional(key) if traditional else PrivateFormat.PKCS8, encryption)


def to_der(key: PrivateKey, *, traditional: bool = False) -> bytes:
    """The private key in DER, as PKCS#8 or in the traditional form."""
    return key.private_bytes(Encoding.DER, _traditional(key) if traditional else PrivateFormat.PKCS8, NoEncryption())


def _traditional(key: PrivateKey) -> PrivateFormat:
    """How it was written before PKCS#8, where there is such a form: PKCS#1 for RSA, SEC 1 for EC."""
    plain = isinstance(key, ed25519.Ed25519PrivateKey)
    return PrivateFormat.PKCS8 if plain else PrivateFormat.TraditionalOpenSSL


def from_pem(pem: bytes, password: bytes | None = None) -> PrivateKey:
    """Read a private key: PKCS#8 or traditional, encrypted or not. Raises `BadKey`, for a weak one `WeakKey`."""
    try:
        key = load_pem_private_key(pem, password)
    except TypeError:
        raise BadKey(
            "the private key is encrypted and its password is missing"
            if password is None
            else "a password was given, but the private key is not encrypted"
        ) from None
    except (ValueError, UnsupportedAlgorithm):
        raise BadKey(
            "the private key cannot be read: it is damaged, of an unknown kind, or has another password"
        ) from None
    check_public_key(key.public_key())
    assert isinstance(key, PrivateKey)
    return key


def derive(key: PrivateKey, purpose: bytes) -> bytes:
    """A secret of 32 bytes that follows from a private key, and from which it does not; another for each purpose."""
    match key:
        case ec.EllipticCurvePrivateKey():
            private = key.private_numbers().private_value.to_bytes((key.key_size + 7) // 8, "big")
        case rsa.RSAPrivateKey():
            private = key.private_numbers().d.to_bytes((key.key_size + 7) // 8, "big")
        case _:
            private = key.private_bytes_raw()
    return HKDF(hashes.SHA256(), 32, salt=None, info=purpose).derive(private)
