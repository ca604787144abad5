"""Who is at the other end of a connection, by the certificate that TLS has verified; and who of them is let in.

Speaks for RFC 5280 §4.2.1.6 and for ASGI's TLS extension. The law of this module: a name counts only if it is in a
certificate that was verified, whole and alike; who cannot be told is not let in.
"""

import logging
import ssl
from collections.abc import Awaitable, Callable, Collection, Mapping, MutableMapping
from ipaddress import ip_address
from typing import Any

from cryptography import x509
from cryptography.x509.oid import NameOID

from privet.ca.certificates import fingerprint

log = logging.getLogger("privet.mtls")

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

PeerCert = Mapping[str, Any] | bytes | str
"""A certificate as `getpeercert()` tells of it, in DER, or in PEM."""


def extract_peer_cn(peercert: PeerCert | None) -> str | None:
    """The common name; None if there is no certificate, none in it, or more than one."""
    names = _names(peercert)[0]
    return names[0] if len(names) == 1 else None


def extract_peer_sans(peercert: PeerCert | None) -> list[str]:
    """The alternative names: DNS names, addresses, URIs and mail addresses, in the order of the certificate."""
    return _names(peercert)[1]


def _names(peercert: PeerCert | None) -> tuple[list[str], list[str]]:
    """Common names and alternative names. What cannot be read has none."""
    if not peercert:
        return [], []
    if isinstance(peercert, Mapping):
        cns = [value for rdn in peercert.get("subject", ()) for name, value in rdn if name == "commonName"]
        kinds = ("DNS", "IP Address", "URI", "email")
        return cns, [_plain(kind, value) for kind, value in peercert.get("subjectAltName", ()) if kind in kinds]
    try:
        if isinstance(peercert, bytes) and not peercert.startswith(b"-----BEGIN"):
            certificate = x509.load_der_x509_certificate(peercert)
        else:
            certificate = x509.load_pem_x509_certificate(peercert if isinstance(peercert, bytes) else peercert.encode())
        cns = [str(each.value) for each in certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)]
        found = [each.value for each in certificate.extensions if isinstance(each.value, x509.SubjectAlternativeName)]
        kinds_ = x509.DNSName | x509.IPAddress | x509.UniformResourceIdentifier | x509.RFC822Name
        return cns, [str(name.value) for names in found for name in names if isinstance(name, kinds_)]
    except Exception:  # the parser has many; OpenSSL reads what it does not
        return [], []


def _fingerprint(pem: str | None) -> str | None:
    """What logs call a certificate by."""
    try:
        return None if pem is None else fingerprint(x509.load_pem_x509_certificate(pem.encode()))
    except Exception:  # the parser has many; OpenSSL reads what it does not
        return None


def _plain(kind: str, value: str) -> str:
    """An address in its usual form: `getpeercert` writes out every zero."""
    return str(ip_address(value.strip())) if kind == "IP Address" else value


def tls_extension(tls: ssl.SSLObject | ssl.SSLSocket | None) -> dict[str, object] | None:
    """What ASGI's TLS extension says of a connection; None if it has no TLS. A certificate that does not verify ends
    the handshake, so whatever certificate is here was verified; with verification off there is none."""
    if tls is None:
        return None
    der = tls.getpeercert(binary_form=True) if tls.context.verify_mode is not ssl.CERT_NONE else None
    return {
        "server_cert": None,
        "client_cert_chain": [ssl.DER_cert_to_PEM_cert(der)] if der else [],
        "client_cert_name": _subject(der) if der else None,
        "client_cert_error": None,
        # On the wire TLS 1.0 is 3.1 (RFC 8446 appendix D).
        "tls_version": {"TLSv1.2": 0x0303, "TLSv1.3": 0x0304}.get(tls.version() or ""),
        "cipher_suite": None,
    }


def _subject(der: bytes) -> str | None:
    try:
        return x509.load_der_x509_certificate(der).subject.rfc4514_string()
    except Exception:  # the parser has many; OpenSSL reads what it does not
        return None


def with_tls(app: App, extension: Mapping[str, object]) -> App:
    """The application, told of the connection in every scope."""

    async def told(scope: Scope, receive: Receive, send: Send) -> None:
        extensions = {**(scope.get("extensions") or {}), "tls": dict(extension)}
        await app({**scope, "extensions": extensions}, receive, send)

    return told


class CertAuthenticator:
    """Lets in clients whose certificate has one of these common names or alternative names, and nobody else: ASGI
    middleware for HTTP and WebSockets, behind a server that tells of certificates (`docs/mtls.md` says which).

    Raises `ValueError` if nobody is named.
    """

    def __init__(
        self, app: App | None = None, *, allowed_cns: Collection[str] = (), allowed_sans: Collection[str] = ()
    ) -> None:
        if isinstance(allowed_cns, str) or isinstance(allowed_sans, str):
            raise ValueError("say whom to let in as a set of names")
        if not allowed_cns and not allowed_sans:
            raise ValueError("say whom to let in: allowed_cns, allowed_sans or both")
        self.app = app
        self.allowed_cns = frozenset(allowed_cns)
        self.allowed_sans = frozenset(map(_comparable, allowed_sans))

    def around(self, app: App) -> "CertAuthenticator":
        """The same people, let in to this application."""
        return CertAuthenticator(app, allowed_cns=self.allowed_cns, allowed_sans=self.allowed_sans)

    def allows(self, peercert: PeerCert | None) -> bool:
        """Whether this certificate, which TLS has to have verified, has a name that is let in."""
        if extract_peer_cn(peercert) in self.allowed_cns:
            return True
        return not self.allowed_sans.isdisjoint(map(_comparable, extract_peer_sans(peercert)))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self.app is None:
            raise TypeError("there is nothing to let anybody in to: CertAuthenticator(app, …), or around(app)")
        if scope["type"] == "lifespan" or self._lets_in(scope):
            await self.app(scope, receive, send)
        elif scope["type"] == "http":
            await _answer("http", send)
        elif scope["type"] == "websocket":
            await receive()
            if "websocket.http.response" in (scope.get("extensions") or {}):
                await _answer("websocket.http", send)
            else:
                await send({"type": "websocket.close", "code": 1008, "reason": "not let in"})

    def _lets_in(self, scope: Scope) -> bool:
        tls = (scope.get("extensions") or {}).get("tls")
        if tls is None:
            log.warning("nobody is let in: the server does not tell of certificates, or this is no TLS")
            return False
        chain = tls.get("client_cert_chain") or ()
        first = next(iter(chain), None)
        if tls.get("client_cert_error") is None and self.allows(first):
            return True
        log.info(
            "refused a client by its certificate: CN %r, names %r, SHA-256 %s",
            extract_peer_cn(first),
            extract_peer_sans(first),
            _fingerprint(first),
        )
        return False


async def _answer(kind: str, send: Send) -> None:
    body = b"This certificate is not let in here.\n"
    headers = [(b"content-type", b"text/plain; charset=utf-8"), (b"content-length", str(len(body)).encode())]
    await send({"type": f"{kind}.response.start", "status": 403, "headers": headers})
    await send({"type": f"{kind}.response.body", "body": body})


def _comparable(name: str) -> str:
    """DNS names compare without case, and addresses by what they are; URIs have a colon and stay."""
    try:
        return str(ip_address(name))
    except ValueError:
        return name if ":" in name or "@" in name else name.lower().removesuffix(".")
