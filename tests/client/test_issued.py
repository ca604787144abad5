"""What a server hands out is looked at before it is used: each of these is refused, and the message says why."""

import re
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from hypothesis import given
from hypothesis import strategies as st
from tests.client.scene import Answer, stage
from tests.wire import new_key

from privet import ClientError
from privet.acme.identifiers import Identifier, from_text
from privet.client.issued import Issued, certificate_id, check_issued, read_chain

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
KEY, ISSUER, STRANGER = new_key(), new_key(), new_key()
HOUR = timedelta(hours=1)


def make(
    key: ec.EllipticCurvePrivateKey,
    signer: ec.EllipticCurvePrivateKey,
    *extensions: x509.ExtensionType,
    subject: str = "a.internal",
    issuer: str = "CA",
    begin: datetime = NOW - HOUR,
    end: datetime = NOW + HOUR,
) -> x509.Certificate:
    builder = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, subject)]))
        .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, issuer)]))
        .public_key(key.public_key())
        .serial_number(0x87654321)
        .not_valid_before(begin)
        .not_valid_after(end)
    )
    for extension in extensions:
        builder = builder.add_extension(extension, critical=False)
    return builder.sign(signer, hashes.SHA256())


def san(*names: str) -> x509.SubjectAlternativeName:
    general: list[x509.GeneralName] = []
    for name in names:
        try:
            general.append(x509.IPAddress(ip_address(name)))
        except ValueError:
            general.append(x509.DNSName(name))
    return x509.SubjectAlternativeName(general)


CA = x509.BasicConstraints(ca=True, path_length=None)
ROOT = make(ISSUER, ISSUER, CA, subject="CA")
NO_CA = make(ISSUER, ISSUER, subject="CA")
ENDED = make(ISSUER, ISSUER, CA, subject="CA", begin=NOW - 3 * HOUR, end=NOW - HOUR)
OTHER = make(STRANGER, STRANGER, CA, subject="CA")
ENCIPHERS = x509.KeyUsage(False, False, True, False, False, False, False, False, False)


def leaf(*extensions: x509.ExtensionType, **options: Any) -> x509.Certificate:
    return make(options.pop("key", KEY), ISSUER, *(extensions or (san("a.internal"),)), **options)


def check(*chain: x509.Certificate, root: x509.Certificate | None = None, names: str = "a.internal") -> None:
    wanted: list[Identifier] = [from_text(name) for name in names.split()]
    check_issued(Issued(chain), wanted, KEY.public_key(), NOW, root)


def test_what_was_asked_for_passes() -> None:
    check(leaf())
    check(leaf(), ROOT)
    check(leaf(), ROOT, root=ROOT)
    check(leaf(), root=ROOT)
    check(leaf(san("A.internal", "10.0.0.1", "*.b.internal")), ROOT, names="a.internal 10.0.0.1 *.b.internal")
    check(leaf(begin=NOW + timedelta(minutes=2)), ROOT)  # the CA's clock is a little ahead


@pytest.mark.parametrize(
    ("chain", "why"),
    [
        ([leaf(key=STRANGER)], "has another key"),
        ([leaf(san("a.internal", "b.internal"))], "is for a.internal, b.internal, not for a.internal"),
        ([leaf(san("b.internal"))], "is for b.internal"),
        ([leaf(san("*.internal"))], "is for *.internal"),
        ([leaf(x509.SubjectAlternativeName([x509.RFC822Name("a@b.internal")]))], "is for a RFC822Name"),
        ([leaf(x509.BasicConstraints(ca=False, path_length=None))], "is for no name"),
        ([leaf(begin=NOW - 3 * HOUR, end=NOW - HOUR)], "ended on"),
        ([leaf(begin=NOW + HOUR, end=NOW + 2 * HOUR)], "set the clock"),
        ([leaf(san("a.internal"), CA)], "is a CA's own"),
        ([leaf(san("a.internal"), ENCIPHERS)], "lacks digitalSignature"),
        ([leaf(san("a.internal"), x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CODE_SIGNING]))], "neither serverAuth"),
        ([leaf(), OTHER], "chain that is broken"),
        ([leaf(), NO_CA], "is not a CA"),
        ([leaf(), ENDED], "in its chain, which ended on"),
        ([leaf(), ROOT, OTHER], "chain that is broken"),
    ],
)
def test_anything_else_is_refused(chain: list[x509.Certificate], why: str) -> None:
    with pytest.raises(ClientError, match=re.escape(why)):
        check(*chain)


def test_a_root_that_is_known_has_to_be_the_one() -> None:
    with pytest.raises(ClientError, match="did not sign"):
        check(leaf(), root=OTHER)
    with pytest.raises(ClientError, match="did not sign"):
        check(leaf(), ROOT, root=OTHER)


@pytest.mark.parametrize(
    ("pem", "why"),
    [
        (b"", "something else"),
        (b"<html>", "something else"),
        (leaf().public_bytes(Encoding.PEM) + b"and more", "something else"),
        (b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n", "something else"),
        (b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", "cannot be read"),
        (leaf().public_bytes(Encoding.PEM) * 11, "a chain of 11"),
    ],
)
def test_what_is_not_a_chain_is_refused(pem: bytes, why: str) -> None:
    with pytest.raises(ClientError, match=why):
        read_chain(pem)


@given(st.binary(max_size=300), st.integers(0, 600))
def test_any_bytes_give_a_chain_or_a_client_error(noise: bytes, place: int) -> None:
    pem = leaf_pem[:place] + noise + leaf_pem[place + len(noise) :]
    try:
        issued = read_chain(pem)
        check_issued(issued, [from_text("a.internal")], KEY.public_key(), NOW)
    except ClientError:
        pass


leaf_pem = leaf().public_bytes(Encoding.PEM)


def test_the_id_of_a_certificate_is_made_as_rfc_9773_says() -> None:
    """The example of §4.1: key identifier 69:88:5B:…, serial number 87:65:43:21, which needs a zero in front."""
    identifier = bytes.fromhex("69885B6B87464041E1B37B847BA0AE2CDE01C8D4")
    certificate = leaf(x509.AuthorityKeyIdentifier(identifier, None, None))
    assert certificate_id(certificate) == "aYhba4dGQEHhs3uEe6CuLN4ByNQ.AIdlQyE"
    assert certificate_id(leaf()) is None


@pytest.mark.anyio
async def test_nothing_of_it_is_stored() -> None:
    def swap(request: Any, answer: Answer) -> Answer:
        if request.url.path.startswith("/cert/"):
            return answer[0], answer[1], other.cert_pem
        return answer

    async with stage() as scene, scene.client() as client:
        other = scene.ca.issue("a.internal")
        before = client.store.find("certs")
        scene.way.changes.append(swap)
        with pytest.raises(ClientError, match="has another key than the one that was asked for; it is not used"):
            await client.issue("a.internal")
        assert client.store.find("certs") == before
