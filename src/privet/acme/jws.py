"""JSON Web Signature as ACME uses it (RFC 8555 §6.2): flattened, everything protected, a short list of algorithms.

Two laws. Any bytes at all give a `JWS` or a `Problem`. And a `JWS` proves nothing until `verify` has returned: it
checks that key and algorithm belong together before it looks at the signature.
"""

import hashlib
import hmac
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from josepy.jwk import JWK, JWKEC, JWKRSA

from privet.acme.ed25519 import is_sound
from privet.acme.encoding import from_base64url, from_json, to_base64url, to_json
from privet.acme.problems import Problem, ProblemType

PublicKey = ec.EllipticCurvePublicKey | rsa.RSAPublicKey | ed25519.Ed25519PublicKey
Verifier = Callable[[bytes, bytes], None]


@dataclass(frozen=True, slots=True)
class _Elliptic:
    """ECDSA over one curve: the algorithm's name, its hash, and the octets of r and s (RFC 7518 §3.4)."""

    algorithm: str
    signature: ec.ECDSA
    octets: int


_ELLIPTIC = {
    "secp256r1": _Elliptic("ES256", ec.ECDSA(hashes.SHA256()), 32),
    "secp384r1": _Elliptic("ES384", ec.ECDSA(hashes.SHA384()), 48),
    "secp521r1": _Elliptic("ES512", ec.ECDSA(hashes.SHA512()), 66),
}
_HMAC = {"HS256": hashlib.sha256, "HS384": hashlib.sha384, "HS512": hashlib.sha512}
_PKCS1, _SHA256 = padding.PKCS1v15(), hashes.SHA256()

# RFC 8555 §6.2: never `none`, never a MAC; a MAC is for external account binding alone (§7.3.4).
ALGORITHMS = ("ES256", "ES384", "ES512", "RS256", "EdDSA")


@dataclass(frozen=True, slots=True)
class Key:
    """An account's public key: as cryptography has it, as a JWK of its required members, its thumbprint (RFC 7638)."""

    public_key: PublicKey
    jwk: Mapping[str, str]
    thumbprint: str
    algorithm: str
    verify: Verifier = field(repr=False, compare=False)
    """Returns if this signature of these bytes is the key's; raises `InvalidSignature` otherwise."""

    @classmethod
    def from_jwk(cls, jwk: object) -> "Key":
        """Read a public JWK (RFC 7517): EC on P-256, P-384 or P-521, RSA of 2048 to 4096 bits, OKP with Ed25519.

        Raises `Problem` (badPublicKey).
        """
        if not isinstance(jwk, dict):
            raise Problem(ProblemType.MALFORMED, "jwk must be a JSON object")
        if "d" in jwk or "k" in jwk:
            raise Problem(ProblemType.BAD_PUBLIC_KEY, "jwk contains a private or a symmetric key; throw that key away")
        match jwk.get("kty"):
            case "EC" | "RSA":
                public_key, required = _read_with_josepy(jwk)
            case "OKP":
                public_key, required = _read_octet_key_pair(jwk)
            case _:
                raise Problem(ProblemType.BAD_PUBLIC_KEY, "jwk must have the kty EC, RSA or OKP (Ed25519)")
        # One key has one spelling: leading zeros or padding would give it a second account.
        if any(jwk.get(name) != value for name, value in required.items()):
            raise Problem(ProblemType.BAD_PUBLIC_KEY, "jwk does not write its numbers as RFC 7518 §6 does")
        canonical = {name: required[name] for name in sorted(required)}
        thumbprint = to_base64url(hashlib.sha256(to_json(canonical)).digest())
        return cls(public_key, canonical, thumbprint, *_verifier(public_key))


class JWS(NamedTuple):
    """A signed message, read and not yet verified. `kid` or `jwk` says who claims to have signed it."""

    algorithm: str
    url: str
    nonce: str | None
    kid: str | None
    jwk: Mapping[str, Any] | None
    payload: bytes
    signing_input: bytes
    signature: bytes

    def verify(self, key: Key) -> None:
        """Return if this key made the signature; raise `Problem` otherwise."""
        if self.algorithm != key.algorithm:
            detail = f"the key is one for {key.algorithm}, and the request is signed with {self.algorithm}"
            # §6.2: "'alg' is 'ES256' but 'jwk' does not contain a valid P-256 public key" is badPublicKey. Where the
            # account is named instead, its key is what it is, and the algorithm is what to change.
            if self.jwk is not None:
                raise Problem(ProblemType.BAD_PUBLIC_KEY, detail)
            raise Problem(ProblemType.BAD_SIGNATURE_ALGORITHM, detail, algorithms=[key.algorithm])
        try:
            key.verify(self.signature, self.signing_input)
        except InvalidSignature:
            raise Problem(ProblemType.UNAUTHORIZED, "the signature does not fit the request and its key") from None

    def verify_mac(self, key: bytes) -> None:
        """Return if this MAC key made the signature of an external account binding; raise `Problem` otherwise."""
        mac = hmac.digest(key, self.signing_input, _HMAC[self.algorithm])
        if not hmac.compare_digest(mac, self.signature):
            raise Problem(ProblemType.UNAUTHORIZED, "the external account binding is not signed with the key it names")


def parse(body: bytes) -> JWS:
    """Read a request's body (§6.2). Raises `Problem`."""
    jws = _parse(from_json(body, "the request"), ALGORITHMS)
    if jws.nonce is None:
        raise Problem(ProblemType.MALFORMED, "the protected header has no nonce")
    return jws


def find_nonce(body: bytes) -> str | None:
    """The nonce in a body that `parse` refuses, if there is one to be found all the same."""
    try:
        message = from_json(body, "the request")
        nonce = from_json(from_base64url(message.get("protected"), "protected"), "the protected header").get("nonce")
    except Problem:
        return None
    return nonce if isinstance(nonce, str) else None


def parse_inner(message: object) -> JWS:
    """Read the JWS inside a key change (§7.3.5): signed by a key it carries, without a nonce. Raises `Problem`."""
    jws = _parse(message, ALGORITHMS)
    if jws.jwk is None or jws.nonce is not None:
        raise Problem(ProblemType.MALFORMED, "the inner JWS must have a jwk and no nonce")
    return jws


def parse_binding(message: object) -> JWS:
    """Read an external account binding (§7.3.4): a MAC by the key `kid` names, without a nonce. Raises `Problem`."""
    jws = _parse(message, tuple(_HMAC))
    if jws.kid is None or jws.nonce is not None:
        raise Problem(ProblemType.MALFORMED, "the external account binding must have a kid, and no jwk or nonce")
    return jws


def _parse(message: object, algorithms: tuple[str, ...]) -> JWS:
    if not isinstance(message, dict):
        raise Problem(ProblemType.MALFORMED, "a JWS must be a JSON object")
    # §6.2: flattened, one signature, and no unprotected header to slip anything in by.
    if "header" in message or "signatures" in message:
        raise Problem(ProblemType.MALFORMED, "the JWS must be flattened: one signature, and no unprotected header")
    protected, payload = message.get("protected"), message.get("payload")
    header = from_json(from_base64url(protected, "protected"), "the protected header")
    content = from_base64url(payload, "payload")
    signature = from_base64url(message.get("signature"), "signature")
    # RFC 7515 §4.1.11, RFC 7797: extensions that must be understood are not, so none is accepted.
    if "crit" in header or "b64" in header:
        raise Problem(ProblemType.MALFORMED, "the protected header has an extension that is not understood here")
    algorithm = header.get("alg")
    if not isinstance(algorithm, str):
        raise Problem(ProblemType.MALFORMED, "the protected header has no alg")
    if algorithm not in algorithms:
        raise Problem(
            ProblemType.BAD_SIGNATURE_ALGORITHM,
            f"the algorithm is not one of {', '.join(algorithms)}",
            algorithms=algorithms,
        )
    url, nonce, kid, jwk = header.get("url"), header.get("nonce"), header.get("kid"), header.get("jwk")
    if not isinstance(url, str):
        raise Problem(ProblemType.MALFORMED, "the protected header has no url")
    if not isinstance(nonce, str | None) or ("nonce" in header and nonce is None):
        raise Problem(ProblemType.MALFORMED, "the nonce in the protected header must be a string")
    if ("kid" in header) == ("jwk" in header):
        raise Problem(ProblemType.MALFORMED, "the protected header must have either a kid or a jwk")
    if not (isinstance(kid, str) if "kid" in header else isinstance(jwk, dict)):
        raise Problem(ProblemType.MALFORMED, "kid must be a string, and jwk a JSON object")
    return JWS(algorithm, url, nonce, kid, jwk, content, f"{protected}.{payload}".encode(), signature)


def _verifier(key: PublicKey) -> tuple[str, Verifier]:
    """The algorithm of a key, and what checks its signatures: chosen once for each key."""
    if isinstance(key, ec.EllipticCurvePublicKey):
        curve = _ELLIPTIC[key.curve.name]
        return curve.algorithm, partial(_verify_elliptic, key, curve)
    if isinstance(key, rsa.RSAPublicKey):
        return "RS256", partial(_verify_rsa, key)
    return "EdDSA", key.verify


def _verify_elliptic(key: ec.EllipticCurvePublicKey, curve: _Elliptic, signature: bytes, data: bytes) -> None:
    if len(signature) != 2 * curve.octets:
        raise InvalidSignature
    r, s = signature[: curve.octets], signature[curve.octets :]
    der = encode_dss_signature(int.from_bytes(r, "big"), int.from_bytes(s, "big"))
    key.verify(der, data, curve.signature)


def _verify_rsa(key: rsa.RSAPublicKey, signature: bytes, data: bytes) -> None:
    key.verify(signature, data, _PKCS1, _SHA256)


def _read_with_josepy(jwk: dict[str, Any]) -> tuple[PublicKey, dict[str, str]]:
    try:
        key = JWK.from_json(jwk)
        if not isinstance(key, JWKEC | JWKRSA):
            raise TypeError(key.typ)
        written: dict[str, str] = key.to_partial_json()
        public_key = key.key._wrapped
        if not isinstance(public_key, rsa.RSAPublicKey | ec.EllipticCurvePublicKey):
            raise TypeError("a private key")
    except Exception:  # josepy lets out whatever its input provokes: KeyError, TypeError, binascii.Error, ...
        raise Problem(ProblemType.BAD_PUBLIC_KEY, "jwk is not a valid public key") from None
    if isinstance(public_key, rsa.RSAPublicKey):
        numbers = public_key.public_numbers()
        # An exponent of 1 lets anyone sign; even ones are no keys at all; 65537 is what everybody's tools make; large
        # ones only make us work.
        sound = 2048 <= numbers.n.bit_length() <= 4096 and 65537 <= numbers.e < 2**64 and numbers.e & numbers.n & 1
        if not sound:
            raise Problem(
                ProblemType.BAD_PUBLIC_KEY,
                "an RSA key must have 2048 to 4096 bits and an odd exponent from 65537 to 2^64",
            )
    return public_key, written


def _read_octet_key_pair(jwk: dict[str, Any]) -> tuple[PublicKey, dict[str, str]]:
    if jwk.get("crv") != "Ed25519":
        raise Problem(ProblemType.BAD_PUBLIC_KEY, "an OKP key must be on the curve Ed25519")
    try:
        octets = from_base64url(jwk.get("x"), "x")
        key = ed25519.Ed25519PublicKey.from_public_bytes(octets)
    except (Problem, ValueError):
        raise Problem(ProblemType.BAD_PUBLIC_KEY, "jwk is not a valid Ed25519 key") from None
    if not is_sound(octets):
        raise Problem(
            ProblemType.BAD_PUBLIC_KEY, "this Ed25519 key lets anyone sign, or is not written as RFC 8032 does"
        )
    return key, {"kty": "OKP", "crv": "Ed25519", "x": to_base64url(octets)}
