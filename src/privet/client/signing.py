"""Account keys and what they sign (RFC 8555 §6.2): flattened JWS, everything in the protected header.

The law of this module: a private key goes into it and signatures come out; the key itself is in no repr or message.
"""

import hashlib
import hmac
from collections.abc import Callable, Mapping
from typing import NamedTuple

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

from privet.acme.encoding import from_base64url, to_base64url, to_json
from privet.acme.jws import Key
from privet.acme.problems import Problem
from privet.ca import keys
from privet.ca.keys import KeyType, PrivateKey
from privet.client.errors import ClientError


class _Curve(NamedTuple):
    """RFC 7518 §3.4 and §6.2.1."""

    name: str
    octets: int
    hash: hashes.HashAlgorithm


_CURVES = {"secp256r1": _Curve("P-256", 32, hashes.SHA256()), "secp384r1": _Curve("P-384", 48, hashes.SHA384())}


class AccountKey:
    """The private key of an account: ES256, ES384, RS256 or EdDSA, as its kind says."""

    def __init__(self, private_key: PrivateKey) -> None:
        self.private_key = private_key
        self.key = Key.from_jwk(_jwk(private_key))

    @classmethod
    def generate(cls, key_type: KeyType = KeyType.P256) -> "AccountKey":
        return cls(keys.generate(key_type))

    @classmethod
    def from_pem(cls, pem: bytes) -> "AccountKey":
        """Raises `ClientError`."""
        try:
            return cls(keys.from_pem(pem))
        except (keys.BadKey, Problem) as error:
            raise ClientError(f"the account key in the store cannot be used: {error}") from None

    def to_pem(self) -> bytes:
        return keys.to_pem(self.private_key)

    def __repr__(self) -> str:
        return f"<AccountKey {self.key.thumbprint}>"

    @property
    def thumbprint(self) -> str:
        return self.key.thumbprint

    @property
    def jwk(self) -> Mapping[str, str]:
        return self.key.jwk

    def sign(self, header: Mapping[str, object], payload: bytes) -> dict[str, str]:
        """A flattened JWS of the payload. The header gets its `alg` here."""
        return _flattened({"alg": self.key.algorithm, **header}, payload, self._signature)

    def _signature(self, data: bytes) -> bytes:
        match self.private_key:
            case ec.EllipticCurvePrivateKey() as key:
                curve = _CURVES[key.curve.name]
                r, s = decode_dss_signature(key.sign(data, ec.ECDSA(curve.hash)))
                return r.to_bytes(curve.octets, "big") + s.to_bytes(curve.octets, "big")
            case rsa.RSAPrivateKey() as key:
                return key.sign(data, padding.PKCS1v15(), hashes.SHA256())
            case key:
                return key.sign(data)


class ExternalAccount(NamedTuple):
    """What a CA gave out to let an account in (RFC 8555 §7.3.4): the id of a MAC key, and that key."""

    kid: str
    mac_key: bytes

    @classmethod
    def read(cls, kid: str, mac_key: bytes | str) -> "ExternalAccount":
        """Take the key as bytes, or as the base64url that CAs hand out. Raises `ClientError`."""
        if isinstance(mac_key, str):
            try:
                mac_key = from_base64url(mac_key.strip().rstrip("="), "the MAC key")
            except Problem as problem:
                raise ClientError(f"the MAC key of the external account cannot be read: {problem.detail}") from None
        if not kid or not mac_key:
            raise ClientError("an external account has a key id and a MAC key; one of them is empty")
        return cls(kid, mac_key)

    def __repr__(self) -> str:
        return f"<ExternalAccount {self.kid!r}>"

    def bind(self, url: str, key: AccountKey) -> dict[str, str]:
        """The binding: the account's public key, signed with the MAC key."""
        header = {"alg": "HS256", "kid": self.kid, "url": url}
        return _flattened(header, to_json(dict(key.jwk)), lambda data: hmac.digest(self.mac_key, data, hashlib.sha256))


def _flattened(header: Mapping[str, object], payload: bytes, sign: Callable[[bytes], bytes]) -> dict[str, str]:
    protected, content = to_base64url(to_json(dict(header))), to_base64url(payload)
    signature = sign(f"{protected}.{content}".encode())
    return {"protected": protected, "payload": content, "signature": to_base64url(signature)}


def _jwk(key: PrivateKey) -> dict[str, str]:
    """The public half as a JWK (RFC 7517, RFC 8037)."""
    match key:
        case ec.EllipticCurvePrivateKey():
            curve = _CURVES[key.curve.name]
            point = key.public_key().public_numbers()
            x, y = (to_base64url(number.to_bytes(curve.octets, "big")) for number in (point.x, point.y))
            return {"kty": "EC", "crv": curve.name, "x": x, "y": y}
        case rsa.RSAPrivateKey():
            numbers = key.public_key().public_numbers()
            n, e = (
                to_base64url(number.to_bytes((number.bit_length() + 7) // 8, "big"))
                for number in (numbers.n, numbers.e)
            )
            return {"kty": "RSA", "n": n, "e": e}
        case _:
            return {"kty": "OKP", "crv": "Ed25519", "x": to_base64url(key.public_key().public_bytes_raw())}
