from ipaddress import ip_network
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed448
from cryptography.hazmat.primitives.asymmetric.types import CertificateIssuerPrivateKeyTypes
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from hypothesis import given
from hypothesis import strategies as st
from tests.certificates import make_csr, openssl

from privet.acme.identifiers import from_text
from privet.ca import keys, tbs
from privet.ca.csr import CSR, BadCSR, from_pem, parse_csr
from privet.ca.keys import KeyType, check_public_key

# cryptography warns of a common name that is empty or longer than 64 characters, and reads it nevertheless
pytestmark = pytest.mark.filterwarnings("ignore:Attribute's length must be")

KEY = keys.generate(KeyType.P256)
REAL = make_csr(KEY, ["a.internal", "10.0.0.1"], cn="a.internal")


def names(csr: CSR) -> list[str]:
    return [identifier.value for identifier in csr.identifiers]


def test_a_request_gives_its_key_and_its_names() -> None:
    csr = parse_csr(make_csr(KEY, ["a.internal", "*.b.internal", "10.0.0.1", "2001:db8::1"]))
    assert csr.public_key == KEY.public_key()
    assert names(csr) == ["a.internal", "*.b.internal", "10.0.0.1", "2001:db8::1"]
    assert [identifier.type for identifier in csr.identifiers] == ["dns", "dns", "ip", "ip"]


def test_common_name_and_alternative_names_are_one_list() -> None:
    assert names(parse_csr(make_csr(KEY, cn="only.internal"))) == ["only.internal"]
    assert names(parse_csr(make_csr(KEY, ["a.internal", "b.internal"], cn="b.internal"))) == [
        "b.internal",
        "a.internal",
    ]
    assert names(parse_csr(make_csr(KEY, ["a.internal"], cn="B.Internal"))) == ["b.internal", "a.internal"]


def test_a_common_name_may_be_any_text_where_that_is_meant() -> None:
    client = make_csr(KEY, ["a.internal"], cn="epoch_user")
    with pytest.raises(BadCSR, match="bad name"):
        parse_csr(client)
    csr = parse_csr(client, any_common_name=True)
    assert (csr.common_name, names(csr)) == ("epoch_user", ["a.internal"])
    csr = parse_csr(make_csr(KEY, cn="epoch_user"), any_common_name=True)
    assert (csr.common_name, names(csr), csr.alternative_names) == ("epoch_user", [], ())
    csr = parse_csr(make_csr(KEY, ["a.internal"], cn="B.internal"), any_common_name=True)
    assert (csr.common_name, names(csr)) == ("B.internal", ["b.internal", "a.internal"])
    assert [each.value for each in csr.alternative_names] == ["a.internal"]
    two = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, cn) for cn in ("a.internal", "b.internal")])
    request = x509.CertificateSigningRequestBuilder().subject_name(two).sign(KEY, hashes.SHA256())
    der = request.public_bytes(Encoding.DER)
    assert names(parse_csr(der)) == ["a.internal", "b.internal"]
    with pytest.raises(BadCSR, match="several common names"):
        parse_csr(der, any_common_name=True)
    with pytest.raises(BadCSR, match="names nobody"):
        parse_csr(make_csr(KEY), any_common_name=True)


def test_letter_case_does_not_count() -> None:
    assert names(parse_csr(make_csr(KEY, ["A.Internal", "a.internal"], cn="A.INTERNAL"))) == ["a.internal"]


@pytest.mark.parametrize("address", ["10.0.0.1", "2001:db8::1"])
def test_an_address_in_the_common_name_is_an_ip_identifier(address: str) -> None:
    csr = parse_csr(make_csr(KEY, [address], cn=address))
    assert csr.identifiers == (from_text(address),)
    assert csr.identifiers[0].type == "ip"


@pytest.mark.parametrize("key_type", KeyType)
def test_every_kind_of_key_we_make_may_ask(key_type: KeyType) -> None:
    csr = parse_csr(make_csr(keys.generate(key_type), ["a.internal"]))
    assert check_public_key(csr.public_key) is key_type


def test_other_wishes_are_not_looked_at() -> None:
    wishes = [
        x509.BasicConstraints(ca=False, path_length=None),
        x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CODE_SIGNING]),
        x509.TLSFeature([x509.TLSFeatureType.status_request]),
        x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3.4"), b"anything"),
    ]
    assert names(parse_csr(make_csr(KEY, ["a.internal"], extensions=wishes))) == ["a.internal"]


def test_a_request_for_a_ca_is_refused() -> None:
    with pytest.raises(BadCSR, match="CA certificate"):
        parse_csr(make_csr(KEY, ["a.internal"], extensions=[x509.BasicConstraints(ca=True, path_length=0)]))


def test_a_request_for_nobody_is_refused() -> None:
    with pytest.raises(BadCSR, match="names nobody"):
        parse_csr(make_csr(KEY))


@pytest.mark.parametrize(
    "name",
    [
        x509.RFC822Name("a@b.internal"),
        x509.UniformResourceIdentifier("spiffe://a/b"),
        x509.DirectoryName(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "a.internal")])),
        x509.OtherName(x509.ObjectIdentifier("1.3.6.1.4.1.311.20.2.3"), b"\x0c\x01a"),
        x509.RegisteredID(x509.ObjectIdentifier("1.2.3")),
        x509.IPAddress(ip_network("10.0.0.0/24")),
        x509.IPAddress(ip_network("2001:db8::/64")),
    ],
    ids=lambda name: type(name).__name__,
)
def test_names_that_are_neither_dns_nor_ip_are_refused(name: x509.GeneralName) -> None:
    with pytest.raises(BadCSR, match="neither a DNS name nor an IP address"):
        parse_csr(make_csr(KEY, ["a.internal", name]))


BAD_NAMES = [
    "a\0.evil.internal",
    "a b.internal",
    "under_score.internal",
    "a..internal",
    ".internal",
    "a.internal.",
    "-a.internal",
    "a-.internal",
    "a*.internal",
    "a.*.internal",
    "*.*.internal",
    "*",
    "*.",
    f"{'a' * 64}.internal",
    f"{'a.' * 127}internal",
    "xn--a.internal",
    "xn--.internal",
    "ab--c.internal",
    "1.2.3",
    "a.0x7f",
    "10.0.0.1.",
    "::ffff:10.0.0.1",
    "fe80::1%eth0",
    "010.0.0.1",
]


@pytest.mark.parametrize("name", BAD_NAMES)
def test_bad_names_are_refused_wherever_they_stand(name: str) -> None:
    with pytest.raises(BadCSR, match="bad name"):
        parse_csr(make_csr(KEY, [x509.DNSName(name)]))
    with pytest.raises(BadCSR, match="bad name"):
        parse_csr(handmade_csr(KEY, tbs.common_name(name)))


@pytest.mark.parametrize("name", ["10.0.0.1", "::1"])
def test_an_address_is_no_dns_name(name: str) -> None:
    with pytest.raises(BadCSR, match="bad name"):
        parse_csr(make_csr(KEY, [x509.DNSName(name)]))


@pytest.mark.parametrize("name", ["", "My Device", "bücher.internal", "a@b.internal", "\N{FULLWIDTH DIGIT ONE}.2.3.4"])
def test_a_common_name_that_is_no_name_is_refused(name: str) -> None:
    with pytest.raises(BadCSR, match="bad name"):
        parse_csr(handmade_csr(KEY, tbs.common_name(name)))


def test_a_common_name_longer_than_it_may_be_is_a_name_nevertheless() -> None:
    long = f"{'a' * 56}.internal"
    assert len(long) == 65
    assert names(parse_csr(handmade_csr(KEY, tbs.common_name(long)))) == [long]


def test_an_ipv4_address_in_the_clothes_of_ipv6_is_refused() -> None:
    with pytest.raises(BadCSR, match="bad name"):
        parse_csr(make_csr(KEY, ["::ffff:10.0.0.1"]))


def test_a_name_may_not_hide_in_a_second_extension_of_its_kind() -> None:
    san = tbs.subject_alternative_name([from_text("a.internal")], critical=False)
    other = tbs.subject_alternative_name([from_text("b.internal")], critical=False)
    assert names(parse_csr(handmade_csr(KEY, tbs.common_name(None), san))) == ["a.internal"]
    with pytest.raises(BadCSR):
        parse_csr(handmade_csr(KEY, tbs.common_name(None), san, other))


@pytest.mark.parametrize(
    ("key", "hash"),
    [
        (ec.generate_private_key(ec.SECP224R1()), hashes.SHA256()),
        (dsa.generate_private_key(2048), hashes.SHA256()),
        (ed448.Ed448PrivateKey.generate(), None),
    ],
    ids=["P-224", "DSA", "Ed448"],
)
def test_keys_of_other_kinds_are_refused(key: CertificateIssuerPrivateKeyTypes, hash: hashes.SHA256 | None) -> None:
    csr = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([])).sign(key, hash)
    with pytest.raises(BadCSR, match="key of the CSR is refused"):
        parse_csr(csr.public_bytes(Encoding.DER))


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        (["-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:1024"], "1024 bits"),
        (["-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048", "-pkeyopt", "rsa_keygen_pubexp:3"], "exponent"),
        (["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-224"], "secp224r1"),
        (["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-521"], "secp521r1"),
        (["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:secp256k1"], "secp256k1"),
        (["-algorithm", "ED448"], "this kind"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_weak_keys_from_the_openssl_program_are_refused(options: list[str], complaint: str, tmp_path: Path) -> None:
    key = tmp_path / "key.pem"
    openssl("genpkey", *options, "-out", key, "-quiet")
    with pytest.raises(BadCSR, match=complaint):
        parse_csr(openssl("req", "-new", "-key", key, "-subj", "/CN=a.internal", "-outform", "DER"))


def test_a_dsa_key_from_the_openssl_program_is_refused(tmp_path: Path) -> None:
    key = tmp_path / "key.pem"
    openssl("dsaparam", "-genkey", "-out", key, "2048")
    with pytest.raises(BadCSR, match="this kind"):
        parse_csr(openssl("req", "-new", "-key", key, "-subj", "/CN=a.internal", "-outform", "DER"))


def test_an_rsa_key_with_exponent_1_whose_signature_anybody_can_make_is_refused() -> None:
    private = keys.generate(KeyType.RSA2048)
    n = private.public_key().public_numbers().n  # type: ignore[union-attr]
    rsa_encryption = bytes.fromhex("300d06092a864886f70d0101010500")
    integers = [tbs.der(tbs.INTEGER, i.to_bytes(i.bit_length() // 8 + 1, "big")) for i in (n, 1)]
    spki = tbs.der(tbs.SEQUENCE, rsa_encryption, tbs.der(tbs.BIT_STRING, b"\0", tbs.der(tbs.SEQUENCE, *integers)))
    digest = hashes.Hash(hashes.SHA256())
    info = request_info(spki, tbs.common_name("a.internal"))
    digest.update(info)
    padded = bytes.fromhex("3031300d060960864801650304020105000420") + digest.finalize()
    signature = b"\x00\x01" + b"\xff" * (256 - 3 - len(padded)) + b"\x00" + padded
    with pytest.raises(BadCSR):
        parse_csr(tbs.certificate(info, keys.SIGNATURE_ALGORITHMS[KeyType.RSA2048], signature))


@pytest.mark.parametrize("san", ["DNS:a.internal", "DNS:a.internal,IP:10.0.0.1", "IP:::1"])
@pytest.mark.parametrize("key", [["rsa:2048"], ["ec", "-pkeyopt", "ec_paramgen_curve:P-256"], ["ed25519"]], ids=str)
def test_requests_from_the_openssl_program_are_read(san: str, key: list[str], tmp_path: Path) -> None:
    pem = openssl(
        "req", "-new", "-newkey", *key, "-nodes", "-keyout", tmp_path / "key.pem", "-subj", "/", "-addext",
        f"subjectAltName={san}",
    )  # fmt: skip
    expected = [name.split(":", 1)[1] for name in san.split(",")]
    assert names(parse_csr(from_pem(pem))) == expected


def test_a_request_signed_with_rsa_pss_is_read(tmp_path: Path) -> None:
    pem = openssl(
        "req", "-new", "-newkey", "rsa:2048", "-nodes", "-keyout", tmp_path / "key.pem", "-subj", "/CN=a.internal",
        "-sigopt", "rsa_padding_mode:pss",
    )  # fmt: skip
    assert names(parse_csr(from_pem(pem))) == ["a.internal"]


@pytest.mark.parametrize("digest", ["sha1", "md5"])
def test_a_request_signed_with_a_broken_hash_is_refused(digest: str, tmp_path: Path) -> None:
    pem = openssl(
        "req", "-new", "-newkey", "rsa:2048", "-nodes", "-keyout", tmp_path / "key.pem", "-subj", "/CN=a.internal",
        f"-{digest}",
    )  # fmt: skip
    with pytest.raises(BadCSR):
        parse_csr(from_pem(pem))


def test_a_request_signed_by_another_key_is_refused() -> None:
    info = request_info(keys.spki(KEY.public_key()), tbs.common_name("a.internal"))
    signature = keys.sign(keys.generate(KeyType.P256), info)
    with pytest.raises(BadCSR, match="signature"):
        parse_csr(tbs.certificate(info, keys.SIGNATURE_ALGORITHMS[KeyType.P256], signature))


@pytest.mark.parametrize("key_type", [KeyType.RSA2048, KeyType.ED25519, KeyType.P384])
def test_a_signature_of_another_algorithm_than_the_key_is_refused(key_type: KeyType) -> None:
    info = request_info(keys.spki(KEY.public_key()), tbs.common_name("a.internal"))
    with pytest.raises(BadCSR):
        parse_csr(tbs.certificate(info, keys.SIGNATURE_ALGORITHMS[key_type], keys.sign(KEY, info)))


def test_a_request_changed_in_any_one_bit_is_refused() -> None:
    unused_bits = len(REAL) - len(x509.load_der_x509_csr(REAL).signature) - 1  # of the last octet: none or some is one
    for at in {*range(len(REAL))} - {unused_bits}:
        for bit in range(8):
            with pytest.raises(BadCSR):
                parse_csr(REAL[:at] + bytes([REAL[at] ^ 1 << bit]) + REAL[at + 1 :])


def test_a_request_cut_short_or_prolonged_is_refused() -> None:
    der = make_csr(KEY, ["a.internal"])
    for end in range(len(der)):
        with pytest.raises(BadCSR):
            parse_csr(der[:end])
    with pytest.raises(BadCSR):
        parse_csr(der + b"\0")


def csr_or_bad_csr(data: bytes) -> None:
    for any_common_name in (False, True):
        try:
            csr = parse_csr(from_pem(data), any_common_name=any_common_name)
        except BadCSR as error:
            assert_sentence(str(error))
        else:
            assert csr.identifiers or (any_common_name and csr.common_name is not None)


def assert_sentence(text: str) -> None:
    assert text.isprintable()
    assert len(text) < 2500


@given(st.binary(max_size=2000))
def test_any_bytes_give_a_request_or_a_refusal(data: bytes) -> None:
    csr_or_bad_csr(data)
    csr_or_bad_csr(b"-----BEGIN CERTIFICATE REQUEST-----\n" + data)


@given(st.lists(st.tuples(st.integers(0, len(REAL)), st.integers(0, 20), st.binary(max_size=20)), max_size=8))
def test_a_request_with_pieces_replaced_gives_a_request_or_a_refusal(edits: list[tuple[int, int, bytes]]) -> None:
    data = REAL
    for at, length, piece in edits:
        data = data[:at] + piece + data[at + length :]
    csr_or_bad_csr(data)


@given(st.binary(max_size=200), st.binary(max_size=200))
def test_a_well_signed_request_for_nonsense_gives_a_request_or_a_refusal(subject: bytes, extensions: bytes) -> None:
    csr_or_bad_csr(handmade_csr(KEY, tbs.der(tbs.SEQUENCE, subject), extensions))


@given(st.lists(st.text(max_size=80), max_size=5), st.text(max_size=80))
def test_a_well_signed_request_for_any_names_gives_a_request_or_a_refusal(texts: list[str], cn: str) -> None:
    general_names = b"".join(tbs.der(0x82, text.encode()) for text in texts)
    san = tbs.extension(x509.UnrecognizedExtension(x509.ObjectIdentifier("2.5.29.17"), tbs.der(0x30, general_names)))
    csr_or_bad_csr(handmade_csr(KEY, tbs.common_name(cn), san))


def handmade_csr(key: keys.PrivateKey, subject: bytes, *extensions: bytes) -> bytes:
    """A CSR with a good signature and whatever else is given."""
    info = request_info(keys.spki(key.public_key()), subject, *extensions)
    return tbs.certificate(info, keys.SIGNATURE_ALGORITHMS[check_public_key(key.public_key())], keys.sign(key, info))


def request_info(spki: bytes, subject: bytes, *extensions: bytes) -> bytes:
    """CertificationRequestInfo (RFC 2986 §4.1)."""
    extension_request = bytes.fromhex("06092a864886f70d01090e")
    attribute = tbs.der(tbs.SEQUENCE, extension_request, tbs.der(tbs.SET, tbs.der(tbs.SEQUENCE, *extensions)))
    return tbs.der(
        tbs.SEQUENCE, tbs.der(tbs.INTEGER, b"\0"), subject, spki, tbs.der(0xA0, attribute if extensions else b"")
    )
