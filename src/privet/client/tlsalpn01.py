"""tls-alpn-01 (RFC 8737, RFC 8738 §6): a certificate with the digest of the key authorization, on port 443.

The law of this module: a connection that does not speak `acme-tls/1` for a name that was presented gets no further than
the handshake.
"""

import asyncio
import contextlib
import hashlib
import ssl
import tempfile
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from privet.client.errors import ClientError

ALPN = "acme-tls/1"
ACME_IDENTIFIER = x509.ObjectIdentifier("1.3.6.1.5.5.7.1.31")
_PATIENCE = 10.0


class TLSALPN01Handler:
    """Meets tls-alpn-01 challenges at `port`, where it listens from the first challenge to the last."""

    challenge_type = "tls-alpn-01"

    def __init__(self, port: int = 443, host: str = "") -> None:
        self.port = port
        self.host = host
        self._contexts: dict[str, ssl.SSLContext] = {}
        self._server: asyncio.Server | None = None
        self._turn = asyncio.Lock()

    async def present(self, identifier: str, token: str, key_authorization: str) -> None:
        context = await asyncio.to_thread(_context, *challenge_certificate(identifier, key_authorization))
        self._contexts[server_name(identifier)] = context
        async with self._turn:
            if self._server is None:
                self._server = await self._listen()

    async def cleanup(self, identifier: str, token: str, key_authorization: str) -> None:
        self._contexts.pop(server_name(identifier), None)
        async with self._turn:
            if self._server is not None and not self._contexts:
                self._server.close()
                self._server = None

    async def _listen(self) -> asyncio.Server:
        context = _bare_context()
        context.sni_callback = self._choose
        try:
            return await asyncio.start_server(
                _hang_up, self.host or None, self.port, ssl=context, ssl_handshake_timeout=_PATIENCE
            )
        except OSError as error:
            raise ClientError(
                f"tls-alpn-01 needs to listen at {self.host or '*'}:{self.port}, and cannot: {error}"
            ) from None

    def _choose(self, tls: ssl.SSLObject, name: str | None, _: ssl.SSLContext) -> int | None:
        """RFC 8737 §3: the certificate is the one for the name that is asked for, and there is no other."""
        context = self._contexts.get((name or "").lower())
        if context is None:
            return ssl.ALERT_DESCRIPTION_UNRECOGNIZED_NAME
        tls.context = context
        return None


def challenge_certificate(identifier: str, key_authorization: str) -> tuple[bytes, bytes]:
    """The certificate of RFC 8737 §3 and its key, in PEM: for the identifier alone, signed by itself."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "ACME challenge")])
    name: x509.GeneralName
    try:
        name = x509.IPAddress(ip_address(identifier))
    except ValueError:
        name = x509.DNSName(identifier)
    # §3: "the acmeIdentifier extension [...] MUST be critical", and is an OCTET STRING of the SHA-256.
    digest = b"\x04\x20" + hashlib.sha256(key_authorization.encode()).digest()
    # Nobody looks at its span, and this one is right on any clock.
    begin = datetime(2020, 1, 1, tzinfo=UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(begin)
        .not_valid_after(begin + timedelta(days=365 * 29))
        .add_extension(x509.SubjectAlternativeName([name]), critical=False)
        .add_extension(x509.UnrecognizedExtension(ACME_IDENTIFIER, digest), critical=True)
        .sign(key, hashes.SHA256())
    )
    return (
        certificate.public_bytes(Encoding.PEM),
        key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()),
    )


def server_name(identifier: str) -> str:
    """What the CA will ask for: the name, or the reverse name of an address (RFC 8738 §6)."""
    try:
        return ip_address(identifier).reverse_pointer
    except ValueError:
        return identifier.lower()


def _bare_context() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols([ALPN])
    return context


def _context(certificate: bytes, key: bytes) -> ssl.SSLContext:
    context = _bare_context()
    # Python reads certificates from files alone. This one is for nobody else to read, and is gone at once.
    with tempfile.NamedTemporaryFile() as file:
        file.write(certificate + key)
        file.flush()
        context.load_cert_chain(file.name)
    return context


async def _hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """RFC 8737 §3: the server has nothing to say on such a connection, and closes it."""
    with contextlib.suppress(OSError, TimeoutError):
        async with asyncio.timeout(_PATIENCE):
            await reader.read(1)
    writer.close()
