"""Authorities and nodes for tests of mutual TLS: certificates in memory and in files, and handshakes in memory."""

import ssl
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from tests.certificates import assert_is_ca, assert_is_leaf

from privet.ca import KeyType, keys
from privet.ca.issuer import Issuer, make_root
from privet.ca.offline import certify


def now() -> datetime:
    return datetime.now(UTC)


@dataclass(frozen=True)
class Node:
    """A certificate with its key, as bytes; as files once they are written."""

    cert: bytes
    key: bytes = field(repr=False)

    @property
    def fullchain_pem(self) -> bytes:
        return self.cert

    @property
    def key_pem(self) -> bytes:
        return self.key

    @property
    def serial(self) -> int:
        return x509.load_pem_x509_certificate(self.cert).serial_number

    def write(self, folder: Path) -> None:
        """Put it where a renewal would, each file replaced as a whole."""
        for name, content in (("node.key", self.key), ("node.crt", self.cert)):
            fresh = folder / f".{name}"
            fresh.touch(0o600)
            fresh.write_bytes(content)
            fresh.replace(folder / name)


class Authority:
    def __init__(self, cn: str = "Mesh CA", key_type: KeyType = KeyType.P256) -> None:
        self.issuer: Issuer = make_root(keys.generate(key_type), cn, now(), timedelta(days=2))
        self.root = self.issuer.chain[0]
        self.pem = self.issuer.chain_pem
        assert_is_ca(self.root, cn=cn)

    def node(
        self, *names: str, cn: str | None = None, client: bool = False, hours: float = 1, at: datetime | None = None
    ) -> Node:
        names = names or (("localhost", "127.0.0.1", "::1") if cn is None else ())
        cert, key = certify(self.issuer, names, at or now(), timedelta(hours=hours), cn=cn, client=client)
        assert_is_leaf(cert, issuer=self.root, names=names, cn=cn, client=client)
        return Node(cert.public_bytes(Encoding.PEM), keys.to_pem(key))

    def revocation_list(self, revoked: Sequence[Node] = ()) -> bytes:
        builder = x509.CertificateRevocationListBuilder(
            issuer_name=self.root.subject,
            last_update=now() - timedelta(minutes=1),
            next_update=now() + timedelta(days=1),
        )
        ski = self.root.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
        builder = builder.add_extension(x509.AuthorityKeyIdentifier(ski.digest, None, None), critical=False)
        builder = builder.add_extension(x509.CRLNumber(len(revoked) + 1), critical=False)
        for node in revoked:
            entry = x509.RevokedCertificateBuilder(node.serial, now() - timedelta(minutes=1))
            builder = builder.add_revoked_certificate(entry.build())
        hash = self.root.signature_hash_algorithm
        return builder.sign(self.issuer.key, hash).public_bytes(Encoding.PEM)  # type: ignore[arg-type]


def shake(
    server: ssl.SSLContext,
    client: ssl.SSLContext,
    name: str | None = "localhost",
    session: ssl.SSLSession | None = None,
) -> tuple[ssl.SSLObject, ...]:
    """Shake hands, and return both ends. Raises `ssl.SSLError` when either refuses the other."""
    up, down = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = (
        client.wrap_bio(down, up, server_hostname=name, session=session),
        server.wrap_bio(up, down, server_side=True),
    )
    waiting = list(ends)
    while waiting:
        for end in waiting.copy():
            try:
                end.do_handshake()
                waiting.remove(end)
            except ssl.SSLWantReadError:
                pass
    return ends


def serial_shown(end: ssl.SSLObject | ssl.SSLSocket) -> int:
    """The serial number of the certificate that the other end has shown."""
    der = end.getpeercert(binary_form=True)
    assert der is not None
    return x509.load_der_x509_certificate(der).serial_number
