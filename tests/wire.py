"""A client that says exactly what a test wants said: every part of a signed request can be made wrong."""

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from ipaddress import ip_address
from typing import Any

import httpx
from cryptography import x509
from cryptography.hazmat.primitives import hashes, hmac
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding

from privet.acme.encoding import to_base64url
from privet.acme.identifiers import Identifier, IdentifierType, from_text

PrivateKey = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey
CURVES = {"secp256r1": ("ES256", "P-256", 32), "secp384r1": ("ES384", "P-384", 48), "secp521r1": ("ES512", "P-521", 66)}
HASHES: Mapping[str, hashes.HashAlgorithm] = {
    "ES256": hashes.SHA256(),
    "ES384": hashes.SHA384(),
    "ES512": hashes.SHA512(),
}
BASE = "http://ca.internal"


def new_key() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


def jwk_of(key: PrivateKey) -> dict[str, str]:
    if isinstance(key, ec.EllipticCurvePrivateKey):
        _, curve, size = CURVES[key.curve.name]
        point = key.public_key().public_numbers()
        x, y = (to_base64url(value.to_bytes(size, "big")) for value in (point.x, point.y))
        return {"kty": "EC", "crv": curve, "x": x, "y": y}
    if isinstance(key, rsa.RSAPrivateKey):
        numbers = key.public_key().public_numbers()
        n, e = (to_base64url(v.to_bytes((v.bit_length() + 7) // 8, "big")) for v in (numbers.n, numbers.e))
        return {"kty": "RSA", "n": n, "e": e}
    return {"kty": "OKP", "crv": "Ed25519", "x": to_base64url(key.public_key().public_bytes_raw())}


def algorithm_of(key: PrivateKey) -> str:
    if isinstance(key, ec.EllipticCurvePrivateKey):
        return CURVES[key.curve.name][0]
    return "RS256" if isinstance(key, rsa.RSAPrivateKey) else "EdDSA"


def thumbprint_of(key: PrivateKey) -> str:
    canonical = json.dumps(jwk_of(key), sort_keys=True, separators=(",", ":"))
    return to_base64url(hashlib.sha256(canonical.encode()).digest())


def signature(key: PrivateKey, data: bytes) -> bytes:
    if isinstance(key, ec.EllipticCurvePrivateKey):
        algorithm, _, size = CURVES[key.curve.name]
        r, s = decode_dss_signature(key.sign(data, ec.ECDSA(HASHES[algorithm])))
        return r.to_bytes(size, "big") + s.to_bytes(size, "big")
    if isinstance(key, rsa.RSAPrivateKey):
        return key.sign(data, padding.PKCS1v15(), hashes.SHA256())
    return key.sign(data)


def sign(key: PrivateKey, header: Mapping[str, Any], payload: object) -> dict[str, Any]:
    """A flattened JWS. A payload of None is empty, as in POST-as-GET; bytes go as they are."""
    content = b"" if payload is None else payload if isinstance(payload, bytes) else json.dumps(payload).encode()
    protected, encoded = to_base64url(json.dumps(header).encode()), to_base64url(content)
    signed = signature(key, f"{protected}.{encoded}".encode())
    return {"protected": protected, "payload": encoded, "signature": to_base64url(signed)}


def bind(kid: str, mac_key: bytes, url: str, key: PrivateKey, algorithm: str = "HS256") -> dict[str, str]:
    """An external account binding (RFC 8555 §7.3.4)."""
    protected = to_base64url(json.dumps({"alg": algorithm, "kid": kid, "url": url}).encode())
    payload = to_base64url(json.dumps(jwk_of(key)).encode())
    sha = {"HS256": hashes.SHA256(), "HS384": hashes.SHA384(), "HS512": hashes.SHA512()}[algorithm]
    mac = hmac.HMAC(mac_key, sha)
    mac.update(f"{protected}.{payload}".encode())
    return {"protected": protected, "payload": payload, "signature": to_base64url(mac.finalize())}


def csr(*names: str, key: PrivateKey | None = None, common_name: str | None = None) -> bytes:
    """A CSR in DER for these names, all of them alternative names."""
    general = [
        x509.DNSName(each.value) if each.type is IdentifierType.DNS else x509.IPAddress(ip_address(each.value))
        for each in map(from_text, names)
    ]
    subject = [] if common_name is None else [x509.NameAttribute(x509.NameOID.COMMON_NAME, common_name)]
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name(subject))
    if general:
        builder = builder.add_extension(x509.SubjectAlternativeName(general), critical=False)
    signer = key or new_key()
    algorithm = None if isinstance(signer, ed25519.Ed25519PrivateKey) else hashes.SHA256()
    return builder.sign(signer, algorithm).public_bytes(Encoding.DER)


def der_of(chain: bytes) -> str:
    """The first certificate of a chain, as revokeCert wants it."""
    return to_base64url(x509.load_pem_x509_certificate(chain).public_bytes(Encoding.DER))


@dataclass
class Wire:
    """One account's side of the wire. `http` is an httpx client on the responder; `base` is where it is mounted."""

    http: httpx.AsyncClient
    base: str = BASE
    key: PrivateKey = field(default_factory=new_key)
    kid: str | None = None
    nonce: str | None = None

    def url(self, path: str) -> str:
        return path if path.startswith("http") else f"{self.base}/{path}"

    async def fresh_nonce(self) -> str:
        nonce, self.nonce = self.nonce, None
        if nonce is None:
            nonce = (await self.http.head(self.url("new-nonce"))).headers["replay-nonce"]
        return nonce

    async def header(self, url: str, /, **changes: object) -> dict[str, object]:
        """The protected header of a good request; a change of None takes a member out."""
        header: dict[str, object] = {"alg": algorithm_of(self.key), "nonce": await self.fresh_nonce(), "url": url}
        header |= {"kid": self.kid} if self.kid else {"jwk": jwk_of(self.key)}
        return {name: value for name, value in (header | changes).items() if value is not None}

    async def send(self, path: str, message: object, *, headers: Mapping[str, str] | None = None) -> httpx.Response:
        content = message if isinstance(message, bytes) else json.dumps(message).encode()
        response = await self.http.post(
            self.url(path), content=content, headers={"content-type": "application/jose+json", **(headers or {})}
        )
        self.nonce = response.headers.get("replay-nonce")
        return response

    async def post(
        self,
        path: str,
        payload: object = None,
        *,
        change: Callable[[dict[str, Any]], Any] = lambda message: message,
        headers: Mapping[str, str] | None = None,
        **header: object,
    ) -> httpx.Response:
        """Send a request as it should be, save for what `header` changes under the signature and `change` after it."""
        message = sign(self.key, await self.header(self.url(path), **header), payload)
        return await self.send(path, change(message), headers=headers)

    async def register(self, **payload: object) -> httpx.Response:
        self.kid = None
        response = await self.post("new-account", {"termsOfServiceAgreed": True, **payload})
        self.kid = response.headers.get("location")
        return response

    async def order(self, *names: str, **payload: object) -> httpx.Response:
        identifiers = [each.to_json() for each in map(from_text, names)]
        return await self.post("new-order", {"identifiers": identifiers, **payload})

    async def finalize(self, order: Mapping[str, Any], der: bytes | None = None) -> httpx.Response:
        names = [Identifier(each["type"], each["value"]).value for each in order["identifiers"]]
        return await self.post(order["finalize"], {"csr": to_base64url(der or csr(*names))})

    async def issue(self, *names: str, key: PrivateKey | None = None) -> bytes:
        """Order and finalize where orders are born ready; return the chain in PEM."""
        order = (await self.order(*names)).json()
        finalized = (await self.finalize(order, csr(*names, key=key))).json()
        return (await self.post(finalized["certificate"])).content


def problem_of(response: httpx.Response) -> tuple[int, str]:
    """The status and the type of a problem document, which is all that may come back with an error."""
    assert response.headers["content-type"] == "application/problem+json", response.text
    document = response.json()
    assert document["status"] == response.status_code
    return response.status_code, document["type"].removeprefix("urn:ietf:params:acme:error:")
