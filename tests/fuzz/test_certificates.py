"""Hostile CSRs and certificates (lessons 3, 5, 20 and 26): broken byte by byte, and made to be misread."""

from collections.abc import Callable, Iterator
from datetime import timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed448, ed25519, rsa
from cryptography.hazmat.primitives.asymmetric.types import CertificateIssuerPrivateKeyTypes
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import NameOID
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.fuzz.scene import BASE, Answer, Player, Scene
from tests.wire import PrivateKey, csr, new_key

from privet.acme.encoding import to_base64url
from privet.ca.certificates import KIND, Certificate
from privet.ca.tbs import BIT_STRING, INTEGER, OCTET_STRING, SEQUENCE, SET, der

often = settings(max_examples=150, deadline=None)
pytestmark = pytest.mark.parametrize("scene", ["approves"], indirect=True)

NAME = "a.internal"
SAN, BASIC_CONSTRAINTS, KEY_USAGE = (x509.ObjectIdentifier(f"2.5.29.{number}") for number in (17, 19, 15))


@pytest.fixture(scope="module")
def player(scene: Scene) -> Player:
    player = Player(scene)
    assert player.register().status == 201
    return player


def names_in(request: bytes) -> list[object]:
    """Whatever names a CSR has anywhere, read by somebody else."""
    read = x509.load_der_x509_csr(request)
    found: list[object] = [attribute.value for attribute in read.subject.get_attributes_for_oid(NameOID.COMMON_NAME)]
    for extension in read.extensions:
        if isinstance(extension.value, x509.SubjectAlternativeName):
            found += [name.value for name in extension.value]
    return found


class Orders:
    """An order that is ready, and a new one once that has been used up."""

    def __init__(self, player: Player) -> None:
        self.player = player
        self.order: dict[str, str] = {}

    def finalize(self, request: bytes) -> tuple[Answer, x509.Certificate | None]:
        """What becomes of a CSR; if that is a certificate, it is for the order's name and for nothing else."""
        if not self.order:
            self.order = self.player.order(NAME).document
        answer = self.player.post(self.order["finalize"], {"csr": to_base64url(request)})
        if answer.status >= 400:
            assert answer.problem in ("badCSR", "malformed", "compound")
            return answer, None
        self.order = {}
        assert {str(name).lower() for name in names_in(request)} == {NAME}, (
            "lesson 20: its names are the order's, exactly"
        )
        chain = x509.load_pem_x509_certificates(self.player.post(answer.document["certificate"]).body)
        names = chain[0].extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        assert list(names) == [x509.DNSName(NAME)]
        assert not chain[0].extensions.get_extension_for_class(x509.BasicConstraints).value.ca
        assert len(chain[0].extensions) == 6, "nothing is copied from a CSR"
        chain[0].verify_directly_issued_by(chain[1])
        return answer, chain[0]


@pytest.fixture(scope="module")
def orders(player: Player) -> Orders:
    return Orders(player)


def spki(key: PrivateKey) -> bytes:
    return key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def broken(octets: bytes, step: int = 1) -> Iterator[bytes]:
    """The octets with one of them changed, left out, or all from there on."""
    for place in range(0, len(octets), step):
        for change in (1 << place % 8, 0x80 if place % 8 != 7 else 1):
            yield octets[:place] + bytes([octets[place] ^ change]) + octets[place + 1 :]
        yield octets[:place] + octets[place + 1 :]
        yield octets[:place]
    yield octets + b"\0"
    yield octets * 2


@pytest.mark.parametrize("kind", ["P-256", "Ed25519", "RSA"])
def test_a_csr_broken_byte_by_byte_certifies_nothing_new(orders: Orders, kind: str) -> None:
    keys: dict[str, Callable[[], PrivateKey]] = {
        "P-256": new_key,
        "Ed25519": ed25519.Ed25519PrivateKey.generate,
        "RSA": lambda: rsa.generate_private_key(65537, 2048),
    }
    key = keys[kind]()
    good = csr(NAME, key=key)
    for request in broken(good, step=7 if kind == "RSA" else 3):
        _, certificate = orders.finalize(request)
        if certificate is not None:  # some bits mean nothing; the signature says which
            assert certificate.public_key() == key.public_key()
    _, certificate = orders.finalize(good)
    assert certificate is not None


octets = st.binary(max_size=60)
general_names = st.tuples(
    st.sampled_from([0x80, 0x81, 0x82, 0x82, 0x86, 0x87, 0x88, 0xA0, 0xA3, 0xA4, 0x00, 0x9F]),
    st.sampled_from(
        [
            NAME.encode(),
            b"b.internal",
            b"*.internal",
            b"A.INTERNAL",
            b"a.internal\0",
            b"a.internal\0.evil.example",
            b"a.internal.",
            b"",
            b".",
            b"\xff\xfe",
            b"xn--a",
            b"a" * 300,
            b"\x0a\x00\x00\x01",
            b"\x0a\x00\x00\x01\xff\x00\x00\x00",
            bytes(16),
            bytes(10) + b"\xff\xff\x0a\x00\x00\x01",
        ]
    )
    | octets,
).map(lambda pair: der(pair[0], pair[1]))
alternative_names = st.lists(general_names, max_size=4).map(lambda names: der(SEQUENCE, *names)) | octets
common_names = st.sampled_from(
    [NAME, "A.internal", "b.internal", "10.0.0.1", "", " ", "a.internal\0", "\u00fc.internal"]
) | (st.text(max_size=70))


def signed(key: PrivateKey, extensions: list[tuple[str, bytes]], common_name: str | None) -> bytes:
    """A request with extensions of any bytes, which cryptography would not write itself."""
    subject = [] if not common_name else [x509.NameAttribute(NameOID.COMMON_NAME, common_name, _validate=False)]
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name(subject))
    for oid, value in extensions:
        builder = builder.add_extension(x509.UnrecognizedExtension(x509.ObjectIdentifier(oid), value), critical=False)
    return builder.sign(key, hashes.SHA256()).public_bytes(Encoding.DER)


@pytest.mark.filterwarnings("ignore:Attribute's length")
@often
@given(
    alternative_names,
    st.none() | common_names,
    st.dictionaries(
        st.sampled_from(["2.5.29.19", "2.5.29.15", "2.5.29.37", "1.3.6.1.5.5.7.1.24", "1.2.3"]),
        octets | st.sampled_from([der(SEQUENCE, b"\x01\x01\xff"), der(SEQUENCE), der(BIT_STRING, b"\0\xff")]),
        max_size=3,
    ),
)
def test_a_csr_that_is_signed_may_say_anything(
    orders: Orders, names: bytes, common_name: str | None, others: dict[str, bytes]
) -> None:
    """Whatever it says, only the order's names are certified, and only where it says exactly these."""
    try:
        request = signed(new_key(), [("2.5.29.17", names), *others.items()], common_name)
    except ValueError:
        return  # a common name that even this builder does not write
    orders.finalize(request)


@often
@given(st.binary(max_size=300))
def test_a_csr_may_be_any_bytes(orders: Orders, request: bytes) -> None:
    assert orders.finalize(request)[0].problem == "badCSR"


@pytest.mark.parametrize(
    "request_",
    [
        b"\x30\x80" * 2000,  # indefinite lengths, nested
        b"\x30\x82\xff\xff",
        b"\x30\x84\xff\xff\xff\xff",
        b"\x30\x89" + b"\xff" * 9,
        b"\x31" * 40_000,
        csr(NAME)[:-1] + b"\x01",
        csr(NAME) + b"\0" * 100,
        b"-----BEGIN CERTIFICATE REQUEST-----\n",
    ],
    ids=range(8),
)
def test_a_csr_may_be_made_to_blow_up(orders: Orders, request_: bytes) -> None:
    assert orders.finalize(request_)[0].problem in ("badCSR", "malformed")


def request_with(public_key: bytes, signer: PrivateKey | None = None) -> bytes:
    """A request for NAME with a public key of any bytes, signed by another's key or not at all."""
    extensions = der(
        SEQUENCE, der(SEQUENCE, b"\x06\x03\x55\x1d\x11", der(OCTET_STRING, der(SEQUENCE, der(0x82, NAME.encode()))))
    )
    attributes = der(0xA0, der(SEQUENCE, b"\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x09\x0e", der(SET, extensions)))
    information = der(SEQUENCE, der(INTEGER, b"\0"), der(SEQUENCE), public_key, attributes)
    algorithm = bytes.fromhex("300a06082a8648ce3d040302")
    signature = b""
    if isinstance(signer, ec.EllipticCurvePrivateKey):
        signature = signer.sign(information, ec.ECDSA(hashes.SHA256()))
    return der(SEQUENCE, information, algorithm, der(BIT_STRING, b"\0", signature))


def rsa_spki(n: int, e: int) -> bytes:
    def integer(number: int) -> bytes:
        return der(INTEGER, number.to_bytes(number.bit_length() // 8 + 1, "big"))

    algorithm = bytes.fromhex("300d06092a864886f70d0101010500")
    return der(SEQUENCE, algorithm, der(BIT_STRING, b"\0", der(SEQUENCE, integer(n), integer(e))))


def test_the_requests_made_here_are_good_ones(orders: Orders) -> None:
    key = new_key()
    _, certificate = orders.finalize(request_with(spki(key), key))
    assert certificate is not None
    assert certificate.public_key() == key.public_key()


@often
@given(octets)
def test_a_public_key_may_be_any_bytes(orders: Orders, public_key: bytes) -> None:
    assert orders.finalize(request_with(public_key))[0].problem == "badCSR"


def test_a_public_key_broken_byte_by_byte_is_refused(orders: Orders) -> None:
    key = new_key()
    for public_key in broken(spki(key)):
        assert orders.finalize(request_with(public_key, key))[0].problem == "badCSR"


@pytest.mark.parametrize(
    "public_key",
    [
        rsa_spki(2**2048 - 1, 1),
        rsa_spki(2**2048 - 1, 3),
        rsa_spki(2**2048 - 1, 65536),
        rsa_spki(2**2048 - 2, 65537),
        rsa_spki(2**1024 - 1, 65537),
        rsa_spki(2**16384 - 1, 65537),
        rsa_spki(2**65536 - 1, 2**65536 - 1),
        rsa_spki(0, 0),
        rsa_spki(1, 1),
    ],
    ids=["e=1", "e=3", "e even", "n even", "1024 bits", "16384 bits", "65536 bits", "zeros", "ones"],
)
def test_an_absurd_rsa_key_is_refused_before_it_costs_anything(orders: Orders, public_key: bytes) -> None:
    """Lesson 26."""
    assert orders.finalize(request_with(public_key))[0].problem == "badCSR"


def test_a_csr_of_an_unsuitable_key_is_refused(orders: Orders) -> None:
    """Lesson 26: P-224, DSA, Ed448, secp256k1, short RSA."""
    unsuitable: list[CertificateIssuerPrivateKeyTypes] = [
        ec.generate_private_key(ec.SECP224R1()),
        ec.generate_private_key(ec.SECP256K1()),
        ec.generate_private_key(ec.BrainpoolP256R1()),
        rsa.generate_private_key(65537, 1024),
        rsa.generate_private_key(3, 2048),
        dsa.generate_private_key(2048),
        ed448.Ed448PrivateKey.generate(),
    ]
    for key in unsuitable:
        names = x509.SubjectAlternativeName([x509.DNSName(NAME)])
        builder = (
            x509.CertificateSigningRequestBuilder().subject_name(x509.Name([])).add_extension(names, critical=False)
        )
        request = builder.sign(key, None if isinstance(key, ed448.Ed448PrivateKey) else hashes.SHA256())
        assert orders.finalize(request.public_bytes(Encoding.DER))[0].problem == "badCSR"


def test_a_csr_with_a_name_too_many_is_refused(orders: Orders) -> None:
    """Lesson 20; §7.4: "MUST indicate the exact same set of requested identifiers as the initial newOrder request"."""
    for names, common_name in [((NAME, "b.internal"), None), ((NAME,), "b.internal"), ((NAME, "10.0.0.1"), NAME)]:
        assert orders.finalize(csr(*names, common_name=common_name))[0].problem == "badCSR"


def test_a_csr_signed_by_another_key_is_refused(orders: Orders) -> None:
    """Lesson 26: "a CSR whose signature nobody checked"."""
    assert orders.finalize(request_with(spki(new_key()), new_key()))[0].problem == "badCSR"
    assert orders.finalize(request_with(spki(new_key())))[0].problem == "badCSR"


def test_a_csr_of_the_account_key_is_refused(player: Player, orders: Orders) -> None:
    """Lesson 20, §11.1."""
    assert orders.finalize(csr(NAME, key=player.key))[0].problem == "badCSR"


# revokeCert


def issue(player: Player, key: PrivateKey) -> x509.Certificate:
    _, certificate = Orders(player).finalize(csr(NAME, key=key))
    assert certificate is not None
    return certificate


def revoke(player: Player, certificate: bytes) -> Answer:
    return player.post(f"{BASE}/revoke-cert", {"certificate": to_base64url(certificate)})


def test_a_certificate_broken_byte_by_byte_revokes_nothing(scene: Scene, player: Player) -> None:
    """Lesson 5: only the very bytes that were issued here, whoever asks."""
    key = new_key()
    good = issue(player, key)
    octets = good.public_bytes(Encoding.DER)
    stranger = Player(scene, key)
    for count, certificate in enumerate(broken(octets, step=5)):
        assert revoke(player if count % 2 else stranger, certificate).problem == "malformed"
    assert kept(scene, good).status == "valid"
    assert revoke(stranger, octets).status == 200
    assert kept(scene, good).status == "revoked"
    assert revoke(player, octets).problem == "alreadyRevoked"


def kept(scene: Scene, certificate: x509.Certificate) -> Certificate:
    found = scene.ca.certificate(certificate.serial_number)
    assert found is not None
    return found


@often
@given(st.binary(max_size=300))
def test_a_certificate_may_be_any_bytes(player: Player, certificate: bytes) -> None:
    assert revoke(player, certificate).problem == "malformed"


@pytest.mark.filterwarnings("ignore::cryptography.utils.CryptographyDeprecationWarning")
@pytest.mark.parametrize("serial", ["same", "another", "1"])
def test_a_certificate_from_elsewhere_revokes_nothing(scene: Scene, player: Player, serial: str) -> None:
    """A twin with the serial, the names and the key of one of ours, only not signed by us."""
    key = new_key()
    good = issue(player, key)
    twin = x509.CertificateBuilder(
        issuer_name=good.issuer,
        subject_name=good.subject,
        public_key=key.public_key(),
        serial_number={"same": good.serial_number, "another": good.serial_number ^ 1, "1": 1}[serial],
        not_valid_before=good.not_valid_before_utc,
        not_valid_after=good.not_valid_after_utc + timedelta(days=1),
        extensions=list(good.extensions),
    ).sign(key, hashes.SHA256())
    for revoker in (player, Player(scene, key)):
        assert revoke(revoker, twin.public_bytes(Encoding.DER)).problem == "malformed"
    assert kept(scene, good).status == "valid"


def test_the_root_is_not_for_clients_to_revoke(scene: Scene, player: Player) -> None:
    assert revoke(player, scene.ca.root_cert.public_bytes(Encoding.DER)).problem == "malformed"


def test_all_that_was_issued_is_on_record_and_nothing_was_issued_twice(scene: Scene) -> None:
    """After all of the above: one certificate for each order that got one."""
    found = [Certificate.from_record(record) for record in scene.store.find(KIND, limit=10_000)]
    assert len({each.request for each in found}) == len(found)
    assert len({each.serial for each in found}) == len(found)
    assert {each.status for each in found} <= {"valid", "revoked"}
