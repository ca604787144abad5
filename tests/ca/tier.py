"""CAs that somebody else has made, one above the other."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding
from tests.certificates import Party

from privet.acme.identifiers import from_text
from privet.ca import DEFAULT, CertificateAuthority, KeyType, keys
from privet.ca.issuer import new_serial
from privet.ca.tbs import to_pem

NOON = datetime(2026, 6, 1, 12, tzinfo=UTC)
DAY = timedelta(days=1)


class Clock:
    def __init__(self, now: datetime = NOON) -> None:
        self.now = now

    def __call__(self) -> datetime:
        return self.now


class Tier:
    """One CA of a chain made elsewhere."""

    def __init__(
        self,
        name: str,
        issuer: "Tier | None" = None,
        *,
        begin: datetime = NOON - DAY,
        end: datetime = NOON + 100 * DAY,
        ca: bool = True,
        signs: bool = True,
        path_length: int | None = None,
        key: keys.PrivateKey | None = None,
        says: Sequence[x509.ExtensionType] = (),
        critical: bool = True,
    ) -> None:
        """`says` are extensions that a root of ours would not have, all of them critical or none."""
        self.key = key or keys.generate(KeyType.P256)
        self.name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
        self.issuer = issuer or self
        public_key, issuer_key = self.key.public_key(), self.issuer.key.public_key()
        builder = (
            x509.CertificateBuilder()
            .serial_number(x509.random_serial_number())
            .issuer_name(self.issuer.name)
            .subject_name(self.name)
            .not_valid_before(begin)
            .not_valid_after(end)
            .public_key(public_key)
            .add_extension(x509.BasicConstraints(ca, path_length), critical=True)
            .add_extension(
                x509.KeyUsage(True, False, False, False, False, signs, signs, False, False),
                critical=True,
            )
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(public_key), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key), critical=False)
        )
        for extension in says:
            builder = builder.add_extension(extension, critical=critical)
        self.cert = builder.sign(self.issuer.key, hashes.SHA256())

    @property
    def cert_pem(self) -> bytes:
        return self.cert.public_bytes(Encoding.PEM)

    @property
    def key_pem(self) -> bytes:
        return keys.to_pem(self.key)


def smuggled(ca: CertificateAuthority, name: str) -> Party:
    """A certificate such as only a thief of the authority's key could make, valid now."""
    key = keys.generate(KeyType.P256)
    begin, end, _ = ca.issuer.span(datetime.now(UTC), None, None, DAY)
    tbs = ca.issuer.leaf(new_serial(), begin, end, key.public_key(), [from_text(name)], DEFAULT)
    return Party(to_pem(ca.issuer.sign(tbs)) + ca.chain_pem, keys.to_pem(key))
