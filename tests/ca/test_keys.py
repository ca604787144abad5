import math
import secrets
import traceback
from collections.abc import Callable

import pytest
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed448, ed25519, rsa, x448, x25519
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, NoEncryption, PrivateFormat
from tests.certificates import openssl

from privet.ca import keys
from privet.ca.keys import BadKey, KeyType, WeakKey, check_public_key


@pytest.mark.parametrize("key_type", KeyType)
def test_what_we_generate_is_what_we_accept(key_type: KeyType) -> None:
    assert check_public_key(keys.generate(key_type).public_key()) is key_type


@pytest.mark.parametrize(
    "key",
    [
        ec.generate_private_key(ec.SECP224R1()),
        ec.generate_private_key(ec.SECP192R1()),
        ec.generate_private_key(ec.SECP256K1()),
        ec.generate_private_key(ec.BrainpoolP256R1()),
        ec.generate_private_key(ec.SECP521R1()),
        dsa.generate_private_key(2048),
        ed448.Ed448PrivateKey.generate(),
        x25519.X25519PrivateKey.generate(),
        x448.X448PrivateKey.generate(),
    ],
    ids=lambda key: getattr(getattr(key, "curve", None), "name", type(key).__name__),
)
def test_other_kinds_are_refused_by_name(key: ec.EllipticCurvePrivateKey) -> None:
    with pytest.raises(WeakKey, match=r"are not accepted; .*P-256"):
        check_public_key(key.public_key())


def test_what_is_no_key_is_refused() -> None:
    with pytest.raises(WeakKey):
        check_public_key(None)


def rsa_key(n: int, e: int = 65537) -> rsa.RSAPublicKey:
    return rsa.RSAPublicNumbers(e, n).public_key()


GOOD_MODULUS = rsa.generate_private_key(65537, 2048).public_key().public_numbers().n


@pytest.mark.parametrize(("size", "known_as"), [(2048, "RSA-2048"), (2560, "RSA-2048"), (3072, "RSA-3072")])
def test_rsa_keys_count_as_the_size_they_reach(size: int, known_as: str) -> None:
    assert check_public_key(rsa.generate_private_key(65537, size).public_key()) == known_as


@pytest.mark.parametrize("size", [1024, 2040, 2047, 2049, 4104, 8192])
def test_rsa_keys_of_other_sizes_are_refused(size: int) -> None:
    modulus = secrets.randbits(size) | 1 << (size - 1) | 1
    with pytest.raises(WeakKey, match=f"RSA keys of {size} bits are not accepted"):
        check_public_key(rsa_key(modulus))


@pytest.mark.parametrize("exponent", [3, 17, 257, 65535, 2**64 + 1, 2**200 + 1])
def test_rsa_exponents_that_invite_forgery_or_cost_time_are_refused(exponent: int) -> None:
    with pytest.raises(WeakKey, match="exponent"):
        check_public_key(rsa_key(GOOD_MODULUS, exponent))


def rough(make: Callable[[], int]) -> int:
    """The first odd number of 2048 bits that `make` makes without a small factor."""
    return next(n for n in iter(make, 0) if n % 2 and n.bit_length() == 2048 and math.gcd(n, keys._SMALL_FACTORS) == 1)


def test_rsa_modulus_with_a_small_factor_is_refused() -> None:
    with pytest.raises(WeakKey, match="can be factored"):
        check_public_key(rsa_key(751 * (2**2038 + 2 * secrets.randbits(2000) + 1)))


@pytest.mark.parametrize("distance", [0, 2, 2**500])
def test_rsa_modulus_of_close_primes_is_refused(distance: int) -> None:
    def modulus() -> int:
        p = secrets.randbits(1024) | 3 << 1022 | 1
        return p * (p + distance)

    with pytest.raises(WeakKey, match="can be factored"):
        check_public_key(rsa_key(rough(modulus)))


def test_rsa_modulus_of_a_roca_smart_card_is_refused() -> None:
    primorial = math.prod(keys._PRIMES[:126])
    spare = 1024 - primorial.bit_length()

    def factor() -> int:
        """Of the shape those cards made: k * M + (65537 ** a mod M)."""
        return (secrets.randbits(spare) | 3 << (spare - 2)) * primorial + pow(65537, secrets.randbits(200), primorial)

    with pytest.raises(WeakKey, match="can be factored"):
        check_public_key(rsa_key(rough(lambda: factor() * factor())))


def test_hardly_any_good_rsa_key_looks_like_that_of_a_roca_smart_card() -> None:
    assert math.prod(len(residues) / (prime - 1) for prime, residues in keys._ROCA) < 2**-26


@pytest.mark.parametrize("key_type", [KeyType.P256, KeyType.P384, KeyType.RSA2048, KeyType.ED25519])
@pytest.mark.parametrize("password", [None, b"s3cret"])
def test_a_key_comes_back_from_its_pem(key_type: KeyType, password: bytes | None) -> None:
    key = keys.generate(key_type)
    pem = keys.to_pem(key, password)
    assert pem.startswith(b"-----BEGIN ENCRYPTED PRIVATE KEY" if password else b"-----BEGIN PRIVATE KEY")
    assert keys.from_pem(pem, password).public_key() == key.public_key()


@pytest.mark.parametrize("password", [None, b"s3cret"])
@pytest.mark.parametrize("key_type", [KeyType.P256, KeyType.RSA2048])
def test_traditional_pem_is_read_too(key_type: KeyType, password: bytes | None) -> None:
    key = keys.generate(key_type)
    assert not isinstance(key, ed25519.Ed25519PrivateKey)
    traditional = key.private_bytes(
        Encoding.PEM,
        PrivateFormat.TraditionalOpenSSL,
        BestAvailableEncryption(password) if password else NoEncryption(),
    )
    assert (b"ENCRYPTED" in traditional) == bool(password)
    assert keys.from_pem(traditional, password).public_key() == key.public_key()


def test_keys_from_the_openssl_program_are_read() -> None:
    plain = openssl("ecparam", "-name", "prime256v1", "-genkey", "-noout")
    assert check_public_key(keys.from_pem(plain).public_key()) is KeyType.P256
    behind_parameters = openssl("ecparam", "-name", "prime256v1", "-genkey")
    assert check_public_key(keys.from_pem(behind_parameters).public_key()) is KeyType.P256
    encrypted = openssl("genrsa", "-aes256", "-passout", "pass:s3cret", "2048")
    assert check_public_key(keys.from_pem(encrypted, b"s3cret").public_key()) is KeyType.RSA2048


@pytest.mark.parametrize(
    ("stored", "given", "complaint"),
    [
        (b"s3cret", None, "its password is missing"),
        (b"s3cret", b"wrong", "has another password"),
        (None, b"s3cret", "is not encrypted"),
    ],
)
def test_a_password_that_does_not_fit_is_named_as_the_cause(
    stored: bytes | None, given: bytes | None, complaint: str
) -> None:
    with pytest.raises(BadKey, match=complaint):
        keys.from_pem(keys.to_pem(keys.generate(KeyType.P256), stored), given)


def test_a_weak_private_key_is_refused() -> None:
    with pytest.raises(WeakKey):
        keys.from_pem(openssl("genpkey", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:1024", "-quiet"))


def test_a_broken_key_is_refused_without_showing_it() -> None:
    pem = keys.to_pem(keys.generate(KeyType.P256))
    lines = pem.splitlines()
    secret = lines[1].decode()
    for broken in (b"", b"\xff", pem[:80], pem.replace(lines[2], b"AAAA"), b"-----BEGIN PRIVATE KEY-----\n" + lines[1]):
        with pytest.raises(BadKey, match="cannot be read") as caught:
            keys.from_pem(broken)
        assert secret[:20] not in "".join(traceback.format_exception(caught.value))
    assert secret[:20] not in repr(keys.from_pem(pem))


@pytest.mark.parametrize("key_type", KeyType)
def test_a_signature_is_of_the_algorithm_it_is_said_to_be(key_type: KeyType) -> None:
    # assert_is_leaf looks at the certificates; this looks at the table: nothing in it is missing or doubled in meaning
    assert keys.SIGNATURE_ALGORITHMS[key_type][0] == 0x30
    assert keys.sign(keys.generate(key_type), b"to be signed")


def test_an_ed25519_key_for_which_anyone_can_sign_is_weak() -> None:
    identity = ed25519.Ed25519PublicKey.from_public_bytes(b"\1" + bytes(31))
    identity.verify(b"\1" + bytes(63), b"anything at all")
    with pytest.raises(WeakKey, match="anyone can sign"):
        check_public_key(identity)
