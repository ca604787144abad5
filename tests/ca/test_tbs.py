from datetime import UTC, datetime, timedelta
from ipaddress import ip_address

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID
from hypothesis import given
from hypothesis import strategies as st
from tests.certificates import general_name

from privet.acme.identifiers import from_text
from privet.ca import keys, tbs
from privet.ca.keys import KeyType

KEY = keys.generate(KeyType.P256)
assert isinstance(KEY, ec.EllipticCurvePrivateKey)

labels = st.from_regex(r"[a-z]([a-z0-9]{0,20}[a-z0-9])?", fullmatch=True)
dns_names = st.lists(labels, min_size=1, max_size=6).map(".".join).filter(lambda name: len(name) <= 64)
addresses = st.ip_addresses().filter(lambda a: a.version == 4 or not a.ipv4_mapped).map(str)
times = st.datetimes(datetime(1970, 1, 1), datetime(9999, 12, 31)).map(lambda t: t.replace(microsecond=0, tzinfo=UTC))  # noqa: DTZ001


@given(
    serial=st.integers(1, 2**128 - 1),
    issuer=st.text(st.characters(codec="utf-8", exclude_categories=["Cc"]), min_size=1, max_size=16),
    names=st.lists(dns_names | addresses, min_size=1, max_size=100, unique=True),
    span=st.lists(times, min_size=2, max_size=2, unique=True).map(sorted),
    critical=st.booleans(),
)
def test_our_layout_is_that_of_cryptography_octet_by_octet(
    serial: int, issuer: str, names: list[str], span: list[datetime], critical: bool
) -> None:
    issuer_name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, issuer)])
    constraints = x509.BasicConstraints(ca=False, path_length=None)
    spki = keys.spki(KEY.public_key())
    theirs = (
        x509.CertificateBuilder()
        .serial_number(serial)
        .issuer_name(issuer_name)
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, names[0])]))
        .not_valid_before(span[0])
        .not_valid_after(span[1])
        .public_key(KEY.public_key())
        .add_extension(constraints, critical=critical)
        .add_extension(x509.SubjectKeyIdentifier(tbs.key_identifier(spki)), critical=False)
        .add_extension(x509.SubjectAlternativeName([general_name(name) for name in names]), critical=not critical)
        .sign(KEY, hashes.SHA256())
    )
    ours = tbs.tbs_certificate(
        serial=serial,
        algorithm=keys.SIGNATURE_ALGORITHMS[KeyType.P256],
        issuer=issuer_name.public_bytes(),
        not_before=span[0],
        not_after=span[1],
        subject=tbs.common_name(names[0]),
        spki=spki,
        extensions=(
            tbs.extension(constraints, critical=critical),
            tbs.subject_key_identifier(spki),
            tbs.subject_alternative_name([from_text(name) for name in names], critical=not critical),
        ),
    )
    assert ours == theirs.tbs_certificate_bytes
    whole = tbs.certificate(ours, keys.SIGNATURE_ALGORITHMS[KeyType.P256], theirs.signature)
    assert whole == theirs.public_bytes(Encoding.DER)
    assert tbs.to_pem(whole) == theirs.public_bytes(Encoding.PEM)


@pytest.mark.parametrize("size", [0, 1, 127, 128, 255, 256, 65535, 65536])
def test_lengths_are_written_in_as_few_octets_as_they_need(size: int) -> None:
    value = x509.UnrecognizedExtension(x509.ObjectIdentifier("2.5.29.99"), b"x" * size)
    assert tbs.der(tbs.OCTET_STRING, b"x" * size) in tbs.extension(value)
    assert len(tbs.der(tbs.OCTET_STRING, b"x" * size)) == size + 2 + (size > 127) + (size > 255) + (size > 65535)


def test_the_years_before_and_after_2050_are_written_as_rfc_5280_says() -> None:
    last = datetime(2049, 12, 31, 23, 59, 59, tzinfo=UTC)
    assert tbs._time(last) == b"\x17\x0d491231235959Z"
    assert tbs._time(last + timedelta(seconds=1)) == b"\x18\x0f20500101000000Z"


def test_an_address_is_four_or_sixteen_octets() -> None:
    for address in ("10.0.0.1", "2001:db8::1"):
        packed = ip_address(address).packed
        assert tbs.subject_alternative_name([from_text(address)], critical=False).endswith(
            bytes([0x87, len(packed)]) + packed
        )
