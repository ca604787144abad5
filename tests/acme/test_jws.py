"""JSON Web Signature: vectors of the RFCs, every algorithm, and every way of bending a key or a message."""

import hashlib
import json
from collections.abc import Callable, Mapping
from typing import Any

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.laws import documents, outcome, texts
from tests.wire import PrivateKey, algorithm_of, bind, jwk_of, sign, signature, thumbprint_of

from privet.acme.encoding import from_base64url, to_base64url, to_json
from privet.acme.jws import ALGORITHMS, JWS, Key, parse, parse_binding, parse_inner
from privet.acme.problems import Problem, ProblemType

URL = "https://ca.internal/new-order"
JOE = "eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ"

KEYS: Mapping[str, PrivateKey] = {
    "ES256": ec.generate_private_key(ec.SECP256R1()),
    "ES384": ec.generate_private_key(ec.SECP384R1()),
    "ES512": ec.generate_private_key(ec.SECP521R1()),
    "RS256": rsa.generate_private_key(65537, 2048),
    "EdDSA": ed25519.Ed25519PrivateKey.generate(),
}

RFC7515_A2 = {
    "kty": "RSA",
    "n": "ofgWCuLjybRlzo0tZWJjNiuSfb4p4fAkd_wWJcyQoTbji9k0l8W26mPddxHmfHQp-Vaw-4qPCJrcS2mJPMEzP1Pt0Bm4d4QlL-yRT-SFd2lZS"
    "-pCgNMsD1W_YpRPEwOWvG6b32690r2jZ47soMZo9wGzjb_7OMg0LOL-bSf63kpaSHSXndS5z5rexMdbBYUsLA9e-KXBdQOS-UTo7WTBEMa2R2CapHg6"
    "65xsmtdVMTBQY4uDZlxvb3qCo5ZwKh9kG4LT6_I5IhlJH7aGhyxXFvUK-DWNmoudF8NAco9_h9iaGNj8q2ethFkMLs91kzk2PAcDTW9gb54h4FRWyu"
    "XpoQ",
    "e": "AQAB",
}
RFC7515_A3 = {
    "kty": "EC",
    "crv": "P-256",
    "x": "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU",
    "y": "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0",
}
RFC7515_A4 = {
    "kty": "EC",
    "crv": "P-521",
    "x": "AekpBQ8ST8a8VcfVOTNl353vSrDCLLJXmPk06wTjxrrjcBpXp5EOnYG_NjFZ6OvLFV1jSfS9tsz4qUxcWceqwQGk",
    "y": "ADSmRA43Z1DSNx_RvcLI87cdL07l6jQyyBXMoxVg_l2Th-x3S1WDhjDly79ajL4Kkd0AZMaZmh9ubmf63e3kyMj2",
}
RFC8037_A2 = {"kty": "OKP", "crv": "Ed25519", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}
RFC7638_3_1 = {
    "kty": "RSA",
    "n": "0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuhDR1L6tSoc_BJECPebWKRXjBZCiFV4n3o"
    "knjhMstn64tZ_2W-5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4QyQ5v-65YGjQR0_FDW2QvzqY368QQMicAtaSqzs8KJZgnYb9c7d0zgdAZHzu6qMQv"
    "RL5hajrn1n91CbOpbISD08qNLyrdkt-bFTWhAI4vMQFh6WeZu0fM4lFd2NcRwr3XPksINHaQ-G_xBniIqbw0Ls1jF44-csFCur-kEgU8awapJ"
    "zKnqDKgw",
    "e": "AQAB",
    "alg": "RS256",
    "kid": "2011-04-29",
}


def hexadecimal(text: str) -> str:
    return to_base64url(bytes.fromhex(text))


# RFC 6979 appendix A.2.6: P-384 and SHA-384, of which RFC 7515 has no example.
RFC6979_A2_6 = {
    "kty": "EC",
    "crv": "P-384",
    "x": hexadecimal(
        "EC3A4E415B4E19A4568618029F427FA5DA9A8BC4AE92E02E06AAE5286B300C64DEF8F0EA9055866064A254515480BC13"
    ),
    "y": hexadecimal(
        "8015D9B72D7D57244EA8EF9AC0C621896708A59367F9DFB9F54CA84B3F1C9DB1288B231C3AE0D4FE7344FD2533264720"
    ),
}
RFC6979_SIGNATURE = hexadecimal(
    "94EDBB92A5ECB8AAD4736E56C691916B3F88140666CE9FA73D64C4EA95AD133C81A648152E44ACF96E36DD1E80FABE46"
    "99EF4AEB15F178CEA1FE40DB2603138F130E740A19624526203B6351D0A3A94FA329C145786E679E7B82C71A38628AC8"
)

VECTORS = [
    pytest.param(
        "RS256",
        RFC7515_A2,
        f"eyJhbGciOiJSUzI1NiJ9.{JOE}",
        "cC4hiUPoj9Eetdgtv3hF80EGrhuB__dzERat0XF9g2VtQgr9PJbu3XOiZj5RZmh7AAuHIm4Bh-0Qc_lF5YKt_O8W2Fp5jujGbds9uJdbF9CUAr7"
        "t1dnZcAcQjbKBYNX4BAynRFdiuB--f_nZLgrnbyTyWzO75vRK5h6xBArLIARNPvkSjtQBMHlb1L07Qe7K0GarZRmB_eSN9383LcOLn6_dO--xi1"
        "2jzDwusC-eOkHWEsqtFZESc6BfI7noOPqvhJ1phCnvWh6IeYI2w9QOYEUipUTI8np6LbgGY9Fs98rqVt5AXLIhWkWywlVmtVrBp0igcN_IoypGl"
        "UPQGe77Rw",
        id="RFC 7515 A.2",
    ),
    pytest.param(
        "ES256",
        RFC7515_A3,
        f"eyJhbGciOiJFUzI1NiJ9.{JOE}",
        "DtEhU3ljbEg8L38VWAfUAqOyKAM6-Xx-F4GawxaepmXFCgfTjDxw5djxLa8ISlSApmWQxfKTUJqPP3-Kg6NU1Q",
        id="RFC 7515 A.3",
    ),
    pytest.param(
        "ES512",
        RFC7515_A4,
        "eyJhbGciOiJFUzUxMiJ9.UGF5bG9hZA",
        "AdwMgeerwtHoh-l192l60hp9wAHZFVJbLfD_UxMi70cwnZOYaRI1bKPWROc-mZZqwqT2SI-KGDKB34XO0aw_7XdtAG8GaSwFKdCAPZgoXD2YBJZC"
        "PEX3xKpRwcdOO8KpEHwJjyqOgzDO7iKvU8vcnwNrmxYbSW9ERBXukOXolLzeO_Jn",
        id="RFC 7515 A.4",
    ),
    pytest.param("ES384", RFC6979_A2_6, "sample", RFC6979_SIGNATURE, id="RFC 6979 A.2.6"),
    pytest.param(
        "EdDSA",
        RFC8037_A2,
        "eyJhbGciOiJFZERTQSJ9.RXhhbXBsZSBvZiBFZDI1NTE5IHNpZ25pbmc",
        "hgyY0il_MGCjP0JzlnLWG1PPOt7-09PGcvMg3AIbQR6dWbhijcNR4ki4iylGjg5BhVsPt9g7sVvpAr_MuM0KAg",
        id="RFC 8037 A.4",
    ),
]


def signed(algorithm: str, signing_input: str, signature: str) -> JWS:
    """A message that has no url and no nonce, as those in the RFCs."""
    octets = from_base64url(signature, "signature")
    return JWS(algorithm, URL, None, None, None, b"", signing_input.encode(), octets)


def header(key: PrivateKey, **changes: object) -> dict[str, object]:
    good: dict[str, object] = {"alg": algorithm_of(key), "nonce": "bm9uY2U", "url": URL, "jwk": jwk_of(key)}
    return {name: value for name, value in (good | changes).items() if value is not None}


def message(key: PrivateKey, payload: object = None, **changes: object) -> dict[str, Any]:
    return sign(key, header(key, **changes), payload)


def refused(type: ProblemType, call: Callable[..., object], *arguments: object) -> Problem:
    with pytest.raises(Problem) as refusal:
        call(*arguments)
    assert refusal.value.type is type, refusal.value
    return refusal.value


# Vectors


@pytest.mark.parametrize(("algorithm", "jwk", "signing_input", "signature"), VECTORS)
def test_vectors_of_the_rfcs_verify(algorithm: str, jwk: dict[str, str], signing_input: str, signature: str) -> None:
    key = Key.from_jwk(jwk)
    assert key.algorithm == algorithm
    signed(algorithm, signing_input, signature).verify(key)


@pytest.mark.parametrize(("algorithm", "jwk", "signing_input", "signature"), VECTORS)
def test_a_vector_with_any_bit_of_its_signature_changed_does_not(
    algorithm: str, jwk: dict[str, str], signing_input: str, signature: str
) -> None:
    key = Key.from_jwk(jwk)
    good = signed(algorithm, signing_input, signature)
    for place in range(len(good.signature)):
        octets = bytearray(good.signature)
        octets[place] ^= 1 << place % 8
        refused(ProblemType.UNAUTHORIZED, good._replace(signature=bytes(octets)).verify, key)
    for octets in (bytearray(), bytearray(good.signature[:-1]), bytearray(good.signature + b"\0")):
        refused(ProblemType.UNAUTHORIZED, good._replace(signature=bytes(octets)).verify, key)
    refused(ProblemType.UNAUTHORIZED, good._replace(signing_input=good.signing_input + b"x").verify, key)


@pytest.mark.parametrize(
    ("jwk", "thumbprint"),
    [
        (RFC7638_3_1, "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs"),  # RFC 7638 §3.1
        (RFC8037_A2, "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k"),  # RFC 8037 appendix A.3
    ],
)
def test_thumbprints_of_the_rfcs(jwk: dict[str, str], thumbprint: str) -> None:
    assert Key.from_jwk(jwk).thumbprint == thumbprint


def test_the_mac_of_rfc_7515_verifies_and_no_other() -> None:
    """RFC 7515 appendix A.1."""
    octets = from_base64url(
        "AyM1SysPpbyDfgZld3umj1qzKObwVMkoqQ-EstJQLr_T-1qS0gZH75aKtMN3Yj0iPS4hcgUuTwjAzZr1Z9CAow", "k"
    )
    jws = signed(
        "HS256", f"eyJ0eXAiOiJKV1QiLA0KICJhbGciOiJIUzI1NiJ9.{JOE}", "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk"
    )
    jws.verify_mac(octets)
    refused(ProblemType.UNAUTHORIZED, jws.verify_mac, octets[1:])
    refused(ProblemType.UNAUTHORIZED, jws._replace(signature=jws.signature[:-1]).verify_mac, octets)
    refused(ProblemType.UNAUTHORIZED, jws._replace(signature=b"").verify_mac, octets)


# Algorithms


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_every_algorithm_signs_a_request(algorithm: str) -> None:
    signer = KEYS[algorithm]
    jws = parse(json.dumps(message(signer, {"a": 1})).encode())
    key = Key.from_jwk(jws.jwk)
    jws.verify(key)
    assert (jws.algorithm, jws.url, jws.nonce, jws.kid) == (algorithm, URL, "bm9uY2U", None)
    assert json.loads(jws.payload) == {"a": 1}
    assert (key.algorithm, key.jwk, key.thumbprint) == (algorithm, jwk_of(signer), thumbprint_of(signer))
    assert key.public_key == signer.public_key()


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_key_takes_no_algorithm_but_its_own(algorithm: str) -> None:
    """Lesson 17, and RFC 8555 §6.2: a key that comes along is a bad one for the algorithm; of an account's key the
    `algorithms` member says what it takes."""
    key = Key.from_jwk(jwk_of(KEYS[algorithm]))
    for other in set(ALGORITHMS) - {algorithm}:
        jws = parse(json.dumps(message(KEYS[algorithm], alg=other)).encode())
        refused(ProblemType.BAD_PUBLIC_KEY, jws.verify, key)
        named = jws._replace(jwk=None, kid="https://ca.internal/acct/1")
        problem = refused(ProblemType.BAD_SIGNATURE_ALGORITHM, named.verify, key)
        assert problem.to_json()["algorithms"] == [algorithm]


@pytest.mark.parametrize(
    "algorithm",
    [
        "none",
        "None",
        "",
        "HS256",
        "HS384",
        "HS512",
        "RS384",
        "RS512",
        "RS1",
        "PS256",
        "ES256K",
        "es256",
        "ES256 ",
        "Ed448",
    ],
)
def test_no_other_algorithm_signs_a_request(algorithm: str) -> None:
    """Lesson 17: an allow-list; no MAC, and never `none`."""
    body = message(KEYS["ES256"], alg=algorithm)
    problem = refused(ProblemType.BAD_SIGNATURE_ALGORITHM, parse, json.dumps(body).encode())
    assert problem.to_json()["algorithms"] == list(ALGORITHMS)
    refused(ProblemType.BAD_SIGNATURE_ALGORITHM, parse, json.dumps(body | {"signature": ""}).encode())


def test_a_public_key_is_no_mac_key() -> None:
    """Lesson 17: the oldest trick, a MAC made with the bytes of a public key."""
    jwk = jwk_of(KEYS["RS256"])
    forged = bind("k", json.dumps(jwk).encode(), URL, KEYS["ES256"])
    refused(ProblemType.BAD_SIGNATURE_ALGORITHM, parse, json.dumps(forged).encode())


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_another_key_of_the_same_kind_did_not_sign(algorithm: str) -> None:
    strangers: Mapping[str, PrivateKey] = {
        "ES256": ec.generate_private_key(ec.SECP256R1()),
        "ES384": ec.generate_private_key(ec.SECP384R1()),
        "ES512": ec.generate_private_key(ec.SECP521R1()),
        "RS256": rsa.generate_private_key(65537, 2048),
        "EdDSA": ed25519.Ed25519PrivateKey.generate(),
    }
    jws = parse(json.dumps(message(strangers[algorithm])).encode())
    refused(ProblemType.UNAUTHORIZED, jws.verify, Key.from_jwk(jwk_of(KEYS[algorithm])))


def test_a_signature_of_zeros_or_in_der_is_none() -> None:
    """ECDSA as RFC 7518 §3.4 writes it; r and s from 1 up (CVE-2022-21449 took zeros)."""
    signer = KEYS["ES256"]
    assert isinstance(signer, ec.EllipticCurvePrivateKey)
    jws = parse(json.dumps(message(signer)).encode())
    key = Key.from_jwk(jws.jwk)
    order = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
    bad = [bytes(64), jws.signature[:32] + bytes(32), bytes(32) + jws.signature[32:], order.to_bytes(32, "big") * 2]
    from_cryptography = signer.sign(jws.signing_input, ec.ECDSA(hashes.SHA256()))
    longer = jws.signature[:32] + b"\0" + jws.signature[32:]  # the same numbers, spelled in another way
    for octets in (*bad, from_cryptography, b"\xff" * 64, jws.signature * 2, longer):
        refused(ProblemType.UNAUTHORIZED, jws._replace(signature=octets).verify, key)


# Keys


def rsa_jwk(n: int, e: int) -> dict[str, str]:
    return {"kty": "RSA"} | {
        name: to_base64url(number.to_bytes(max(1, (number.bit_length() + 7) // 8), "big"))
        for name, number in (("n", n), ("e", e))
    }


def modulus() -> int:
    numbers = KEYS["RS256"].public_key().public_numbers()  # type: ignore[union-attr]
    assert isinstance(numbers, rsa.RSAPublicNumbers)
    return numbers.n


@pytest.mark.parametrize(
    "exponent", ["0", "1", "2", "3", "17", "65535", "65536", "65538", "2**64 + 1", "n - 2", "n", "n + 2"]
)
def test_rsa_exponents_that_prove_nothing_or_cost_much_are_refused(exponent: str) -> None:
    """Lesson 26: with an exponent of 1 anybody can sign."""
    n = modulus()
    refused(ProblemType.BAD_PUBLIC_KEY, Key.from_jwk, rsa_jwk(n, eval(exponent, {"n": n})))


@pytest.mark.parametrize("exponent", [65537, 65539, 2**32 + 1, 2**64 - 1])
def test_rsa_exponents_that_are_as_good_as_65537_pass(exponent: int) -> None:
    assert Key.from_jwk(rsa_jwk(modulus(), exponent)).algorithm == "RS256"


@pytest.mark.parametrize("bits", [1, 2, 8, 512, 1024, 2047, 4097, 8192, 16384])
def test_rsa_moduli_too_short_or_too_long_are_refused(bits: int) -> None:
    """Lesson 26: from 2048 to 4096 bits; longer ones only cost time."""
    refused(ProblemType.BAD_PUBLIC_KEY, Key.from_jwk, rsa_jwk(2**bits - 1, 65537))


@pytest.mark.parametrize("bits", [2048, 2049, 3072, 4096])
def test_rsa_moduli_of_2048_to_4096_bits_pass_unless_they_are_even(bits: int) -> None:
    assert Key.from_jwk(rsa_jwk(2**bits - 1, 65537)).algorithm == "RS256"
    refused(ProblemType.BAD_PUBLIC_KEY, Key.from_jwk, rsa_jwk(2**bits - 2, 65537))


@pytest.mark.parametrize("member", ["n", "e"])
@pytest.mark.parametrize(
    "bend", ["zero in front", "padding", "newline", "other alphabet", "number", "missing", "empty"]
)
def test_an_rsa_key_has_one_spelling(member: str, bend: str) -> None:
    refused(ProblemType.BAD_PUBLIC_KEY, Key.from_jwk, bent(jwk_of(KEYS["RS256"]), member, bend))


@pytest.mark.parametrize("algorithm", ["ES256", "ES384", "ES512"])
@pytest.mark.parametrize("member", ["x", "y"])
@pytest.mark.parametrize("bend", ["zero in front", "padding", "newline", "number", "missing", "empty"])
def test_an_elliptic_key_has_one_spelling(algorithm: str, member: str, bend: str) -> None:
    refused(ProblemType.BAD_PUBLIC_KEY, Key.from_jwk, bent(jwk_of(KEYS[algorithm]), member, bend))


@pytest.mark.parametrize("bend", ["zero in front", "padding", "newline", "number", "missing", "empty"])
def test_an_ed25519_key_has_one_spelling(bend: str) -> None:
    refused(ProblemType.BAD_PUBLIC_KEY, Key.from_jwk, bent(jwk_of(KEYS["EdDSA"]), "x", bend))


def bent(jwk: dict[str, str], member: str, bend: str) -> dict[str, object]:
    octets = from_base64url(jwk[member], member)
    text = jwk[member]
    values: dict[str, object] = {
        "zero in front": to_base64url(b"\0" + octets),
        "padding": text + "=" * (-len(text) % 4 or 4),
        "newline": text + "\n",
        "other alphabet": "+" + text[1:],
        "number": int.from_bytes(octets, "big") % 2**53,
        "empty": "",
    }
    others: dict[str, object] = {name: value for name, value in jwk.items() if name != member}
    return others if bend == "missing" else others | {member: values[bend]}


def coordinate_with_a_leading_zero(curve: ec.EllipticCurve) -> ec.EllipticCurvePrivateKey:
    scalar = 1
    while True:
        key = ec.derive_private_key(scalar, curve)
        if key.public_key().public_numbers().x.bit_length() <= curve.key_size - 8:
            return key
        scalar += 1


@pytest.mark.parametrize("curve", [ec.SECP256R1(), ec.SECP384R1(), ec.SECP521R1()])
def test_coordinates_keep_their_leading_zeros(curve: ec.EllipticCurve) -> None:
    """RFC 7518 §6.2.1.2: the length is that of the curve's field; without its zeros it is another spelling."""
    signer = coordinate_with_a_leading_zero(curve)
    jwk = jwk_of(signer)
    key = Key.from_jwk(jwk)
    assert key.thumbprint == thumbprint_of(signer)
    octets = from_base64url(jwk["x"], "x")
    assert octets[0] == 0
    refused(ProblemType.BAD_PUBLIC_KEY, Key.from_jwk, jwk | {"x": to_base64url(octets.lstrip(b"\0"))})


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_private_key_is_refused_and_its_owner_told(algorithm: str) -> None:
    jwk = jwk_of(KEYS[algorithm])
    problem = refused(ProblemType.BAD_PUBLIC_KEY, Key.from_jwk, jwk | {"d": "AQAB"})
    assert "private" in problem.detail
    assert "AQAB" not in problem.detail
    for empty in ("", None, 0):
        refused(ProblemType.BAD_PUBLIC_KEY, Key.from_jwk, jwk | {"d": empty})


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_members_that_are_no_part_of_the_key_change_nothing(algorithm: str) -> None:
    """RFC 7638 §3.2: the thumbprint is of the required members alone, in their order."""
    jwk = jwk_of(KEYS[algorithm])
    decorated = {
        "use": "sig",
        "kid": "1",
        **dict(reversed(jwk.items())),
        "alg": algorithm,
        "x5c": [1, {"\ud800": None}],
    }
    assert Key.from_jwk(decorated).thumbprint == Key.from_jwk(jwk).thumbprint
    canonical = json.dumps(jwk, sort_keys=True, separators=(",", ":")).encode()
    assert Key.from_jwk(decorated).thumbprint == to_base64url(hashlib.sha256(canonical).digest())


P256 = 0xFFFFFFFF00000001000000000000000000000000FFFFFFFFFFFFFFFFFFFFFFFF


def p256_jwk(x: int, y: int) -> dict[str, str]:
    return {"kty": "EC", "crv": "P-256"} | {
        name: to_base64url((number % 2**256).to_bytes(32, "big")) for name, number in (("x", x), ("y", y))
    }


def test_points_off_the_curve_are_refused() -> None:
    point = KEYS["ES256"].public_key().public_numbers()  # type: ignore[union-attr]
    assert isinstance(point, ec.EllipticCurvePublicNumbers)
    assert Key.from_jwk(p256_jwk(point.x, point.y))
    assert Key.from_jwk(p256_jwk(point.x, P256 - point.y))
    for x, y in [
        (0, 0),  # how some write the point at infinity
        (point.x, point.y + 1),
        (point.x + 1, point.y),
        (point.y, point.x),
        (1, 1),
        (P256, point.y),
        (2**256 - 1, 2**256 - 1),
    ]:
        refused(ProblemType.BAD_PUBLIC_KEY, Key.from_jwk, p256_jwk(x, y))


def test_coordinates_beyond_the_field_are_no_second_spelling() -> None:
    """The point with x = 5 is on P-256, and x + p fits into 32 octets as well."""
    y = pow(5**3 - 3 * 5 + 0x5AC635D8AA3A93E7B3EBBD55769886BC651D06B0CC53B0F63BCE3C3E27D2604B, (P256 + 1) // 4, P256)
    assert Key.from_jwk(p256_jwk(5, y))
    refused(ProblemType.BAD_PUBLIC_KEY, Key.from_jwk, p256_jwk(5 + P256, y))


@pytest.mark.parametrize(
    "crv",
    [
        "P-192",
        "P-224",
        "secp224r1",
        "secp256r1",
        "secp256k1",
        "p-256",
        "P-384",
        "P-521",
        "Ed25519",
        "",
        None,
        256,
        ["P-256"],
    ],
)
def test_a_point_of_one_curve_is_none_of_another(crv: object) -> None:
    refused(ProblemType.BAD_PUBLIC_KEY, Key.from_jwk, jwk_of(KEYS["ES256"]) | {"crv": crv})


@pytest.mark.parametrize("crv", ["X25519", "Ed448", "ed25519", "P-256", "", None, 25519])
def test_octet_key_pairs_are_on_ed25519(crv: object) -> None:
    refused(ProblemType.BAD_PUBLIC_KEY, Key.from_jwk, jwk_of(KEYS["EdDSA"]) | {"crv": crv})


@pytest.mark.parametrize("kty", ["oct", "ec", "rsa", "", None, 1, ["EC"], "AKP"])
def test_keys_of_another_kind_are_refused(kty: object) -> None:
    for algorithm in ALGORITHMS:
        refused(ProblemType.BAD_PUBLIC_KEY, Key.from_jwk, jwk_of(KEYS[algorithm]) | {"kty": kty})
    refused(ProblemType.BAD_PUBLIC_KEY, Key.from_jwk, {"kty": kty, "k": "AQAB"})


FIELD = 2**255 - 19
# The points whose order divides 8 (RFC 7748 §6.1 speaks of the like on the sister curve): who has one of them for a
# key can be signed for by everybody.
ORDER_8 = (
    0x05FC536D880238B13933C6D305ACDFD5F098EFF289F4C345B027B2C28F95E826,
    0x7A03AC9277FDC74EC6CC392CFA53202A0F67100D760B3CBA4FD84D3D706A17C7,
)
SMALL_ORDER = [
    pytest.param(y | sign << 255, id=f"{name}{', negative' if sign else ''}")
    for name, y in (
        ("the identity", 1),
        ("order 2", FIELD - 1),
        ("order 4", 0),
        ("order 8", ORDER_8[0]),
        ("the other order 8", ORDER_8[1]),
        ("the identity beyond the field", FIELD + 1),
        ("order 4 beyond the field", FIELD),
    )
    for sign in (0, 1)
]


def ed25519_jwk(number: int) -> dict[str, str]:
    return {"kty": "OKP", "crv": "Ed25519", "x": to_base64url(number.to_bytes(32, "little"))}


@pytest.mark.parametrize("number", SMALL_ORDER)
def test_ed25519_points_of_small_order_are_refused(number: int) -> None:
    """Lesson 26 once more: for such keys anybody can sign."""
    refused(ProblemType.BAD_PUBLIC_KEY, Key.from_jwk, ed25519_jwk(number))


def test_the_points_of_small_order_are_what_they_are_said_to_be() -> None:
    """-x² + y² = 1 + dx²y² (RFC 8032 §5.1), doubled three times, gives the identity (0, 1)."""
    d = -121665 * pow(121666, -1, FIELD) % FIELD
    for y in (1, FIELD - 1, 0, *ORDER_8):
        square = (y * y - 1) * pow(d * y * y + 1, -1, FIELD) % FIELD
        x = pow(square, (FIELD + 3) // 8, FIELD)
        x = x if x * x % FIELD == square else x * pow(2, (FIELD - 1) // 4, FIELD) % FIELD
        assert x * x % FIELD == square
        for _ in range(3):
            cross = d * x * x * y * y
            x, y = 2 * x * y * pow(1 + cross, -1, FIELD) % FIELD, (y * y + x * x) * pow(1 - cross, -1, FIELD) % FIELD
        assert (x, y) == (0, 1)


@pytest.mark.parametrize("y", range(19))
def test_an_ed25519_key_beyond_the_field_is_no_second_spelling(y: int) -> None:
    refused(ProblemType.BAD_PUBLIC_KEY, Key.from_jwk, ed25519_jwk(FIELD + y))
    refused(ProblemType.BAD_PUBLIC_KEY, Key.from_jwk, ed25519_jwk(FIELD + y | 1 << 255))


def test_a_signature_by_the_identity_would_fit_anything() -> None:
    """Why those keys are refused: s = 0 and R the identity satisfy sB = R + hA for every message."""
    identity = (1).to_bytes(32, "little")
    key = ed25519.Ed25519PublicKey.from_public_bytes(identity)
    key.verify(identity + bytes(32), b"anything at all")


jwk_values = documents | texts | st.sampled_from([*RFC7515_A3.values(), *RFC8037_A2.values(), "AQAB", "P-521", "RSA"])
jwks = st.dictionaries(st.sampled_from(["kty", "crv", "x", "y", "n", "e", "d", "k", "p"]) | texts, jwk_values)


@settings(suppress_health_check=[HealthCheck.too_slow])  # on a busy machine
@given(
    jwks | st.sampled_from([RFC7515_A3, RFC7515_A2, RFC8037_A2]).flatmap(lambda jwk: jwks.map(lambda more: jwk | more))
)
def test_any_json_gives_a_key_or_a_problem(jwk: dict[str, object]) -> None:
    key = outcome(Key.from_jwk, jwk)
    if isinstance(key, Problem):
        assert key.type in (ProblemType.BAD_PUBLIC_KEY, ProblemType.MALFORMED)
    else:
        assert {name: jwk[name] for name in key.jwk} == key.jwk
        assert Key.from_jwk(dict(key.jwk)) == key


@given(documents)
def test_what_is_no_object_is_no_key(jwk: object) -> None:
    if not isinstance(jwk, dict):
        refused(ProblemType.MALFORMED, Key.from_jwk, jwk)


# Messages


def test_a_message_names_its_account_or_brings_its_key() -> None:
    """§6.2: "must contain either a jwk or a kid, and must not contain both"."""
    signer = KEYS["ES256"]
    by_name = parse(json.dumps(message(signer, jwk=None, kid="https://ca.internal/acct/1")).encode())
    assert (by_name.kid, by_name.jwk) == ("https://ca.internal/acct/1", None)
    bad: list[dict[str, object]] = [
        {"jwk": None},
        {"kid": "https://ca.internal/acct/1"},
        {"jwk": None, "kid": 7},
        {"jwk": None, "kid": ["a"]},
        {"jwk": "EC"},
        {"jwk": []},
        {"jwk": 7},
    ]
    for changes in bad:
        refused(ProblemType.MALFORMED, parse, json.dumps(message(signer, **changes)).encode())


@pytest.mark.parametrize("name", ["kid", "jwk"])
def test_a_null_is_no_absence(name: str) -> None:
    good = header(KEYS["ES256"])
    both = good | {name: None} if name == "kid" else good | {"kid": "https://ca.internal/acct/1", "jwk": None}
    refused(ProblemType.MALFORMED, parse, json.dumps(sign(KEYS["ES256"], both, None)).encode())


@pytest.mark.parametrize("name", ["alg", "nonce", "url"])
@pytest.mark.parametrize("value", [None, 7, ["ES256"], {"a": 1}, True])
def test_a_header_without_alg_nonce_or_url_is_malformed(name: str, value: object) -> None:
    refused(ProblemType.MALFORMED, parse, json.dumps(message(KEYS["ES256"], **{name: value})).encode())


def test_a_nonce_of_null_is_malformed() -> None:
    bad = header(KEYS["ES256"]) | {"nonce": None}
    refused(ProblemType.MALFORMED, parse, json.dumps(sign(KEYS["ES256"], bad, None)).encode())


@pytest.mark.parametrize(
    "extension", [{"crit": ["exp"], "exp": 1}, {"crit": []}, {"b64": False, "crit": ["b64"]}, {"b64": True}]
)
def test_extensions_that_must_be_understood_are_not(extension: dict[str, object]) -> None:
    """RFC 7515 §4.1.11 and RFC 7797; RFC 8555 §6.2 has the payload encoded."""
    refused(ProblemType.MALFORMED, parse, json.dumps(message(KEYS["ES256"], **extension)).encode())


@pytest.mark.parametrize(
    "change",
    [
        lambda m: m | {"header": {}},
        lambda m: m | {"header": None},
        lambda m: m | {"header": {"alg": "ES256"}},
        lambda m: m | {"signatures": []},
        lambda m: {"payload": m["payload"], "signatures": [{k: m[k] for k in ("protected", "signature")}]},
        lambda m: {"payload": m["payload"], "signatures": []},
        lambda m: {k: m[k] for k in ("payload", "signature")},
        lambda m: {k: m[k] for k in ("protected", "signature")},
        lambda m: {k: m[k] for k in ("protected", "payload")},
        lambda m: m | {"protected": ""},
        lambda m: m | {"protected": None},
        lambda m: m | {"payload": None},
        lambda m: m | {"payload": {}},
        lambda m: m | {"signature": None},
        lambda m: m | {"signature": m["signature"] + "="},
        lambda m: m | {"payload": m["payload"] + "=="},
        lambda m: m | {"protected": m["protected"] + "\n"},
        lambda m: [m],
        lambda m: f"{m['protected']}.{m['payload']}.{m['signature']}",
        lambda m: None,
    ],
)
def test_a_message_is_flattened_and_wholly_protected(change: Callable[[dict[str, Any]], object]) -> None:
    """Lesson 18, RFC 8555 §6.2."""
    refused(ProblemType.MALFORMED, parse, json.dumps(change(message(KEYS["ES256"], {"a": 1}))).encode())


def test_members_given_twice_are_refused_at_every_level() -> None:
    good = message(KEYS["ES256"])
    body = json.dumps(good).encode()
    refused(ProblemType.MALFORMED, parse, body[:-1] + b',"payload":"e30"}')
    protected = json.dumps(header(KEYS["ES256"])).encode()
    for addition in (b',"alg":"none"}', b',"url":"https://ca.internal/revoke-cert"}', b',"nonce":"bm9uY2Ux"}'):
        twice = good | {"protected": to_base64url(protected[:-1] + addition)}
        refused(ProblemType.MALFORMED, parse, json.dumps(twice).encode())


@pytest.mark.parametrize("octets", [b"", b"\xff", b"[]", b"null", b'"a"', b"{", b"\xef\xbb\xbf{}", b'{"alg":NaN}'])
def test_a_protected_header_is_a_json_object(octets: bytes) -> None:
    body = message(KEYS["ES256"]) | {"protected": to_base64url(octets)}
    refused(ProblemType.MALFORMED, parse, json.dumps(body).encode())


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_message_with_any_byte_changed_is_refused_or_the_same(algorithm: str) -> None:
    signer = KEYS[algorithm]
    body = json.dumps(message(signer, {"identifiers": [{"type": "dns", "value": "a.internal"}]})).encode()
    key, good = Key.from_jwk(jwk_of(signer)), parse(body)

    def read(changed: bytes) -> JWS | Problem:
        jws = outcome(parse, changed)
        verdict = jws if isinstance(jws, Problem) else outcome(jws.verify, key)
        return verdict if isinstance(verdict, Problem) else jws

    assert read(body) == good
    same = 0
    for place in range(len(body)):
        for bit in range(8) if algorithm == "EdDSA" else (place % 8,):
            changed = bytearray(body)
            changed[place] ^= 1 << bit
            jws = read(bytes(changed))
            same += not isinstance(jws, Problem)
            assert isinstance(jws, Problem) or jws == good, f"byte {place}, bit {bit}"
        assert isinstance(read(body[:place]), Problem), f"cut at {place}"
        assert isinstance(read(body[:place] + body[place + 1 :]), Problem) or body[place] in b" ", f"without {place}"
    assert same <= 6  # of the spaces that json.dumps writes, some may become other white space


@given(st.binary())
def test_any_bytes_give_a_message_or_a_problem(body: bytes) -> None:
    assert isinstance(outcome(parse, body), Problem)


headers = st.fixed_dictionaries(
    {},
    optional={
        "alg": st.sampled_from([*ALGORITHMS, "none", "HS256"]) | documents,
        "nonce": st.just("bm9uY2U") | documents,
        "url": st.just(URL) | documents,
        "kid": texts | documents,
        "jwk": jwks | documents,
        "crit": documents,
    },
)
encoded = st.binary().map(to_base64url)
messages = st.fixed_dictionaries(
    {"protected": headers.map(to_json).map(to_base64url) | encoded | documents, "payload": encoded | documents},
    optional={"signature": encoded | documents, "header": documents, "signatures": documents},
)


@given(messages | documents)
def test_anything_shaped_like_a_message_is_one_or_a_problem(body: object) -> None:
    for read in (parse_inner, parse_binding):
        assert isinstance(outcome(read, body), JWS | Problem)
    jws = outcome(parse, to_json(body))
    if isinstance(jws, JWS):
        assert jws.algorithm in ALGORITHMS
        assert (jws.kid is None) != (jws.jwk is None)
        key = Key.from_jwk(RFC7515_A3)
        assert isinstance(outcome(jws.verify, key), Problem)


@given(st.sampled_from(ALGORITHMS), st.binary(), st.text(), st.text("ABCabc012-_"), st.none() | st.text())
def test_what_is_signed_is_read(algorithm: str, payload: bytes, url: str, nonce: str, kid: str | None) -> None:
    signer = KEYS[algorithm]
    named: dict[str, object] = {"jwk": jwk_of(signer)} if kid is None else {"kid": kid}
    jws = parse(to_json(sign(signer, {"alg": algorithm, "nonce": nonce, "url": url, **named}, payload)))
    assert (jws.algorithm, jws.payload, jws.url, jws.nonce, jws.kid) == (algorithm, payload, url, nonce, kid)
    jws.verify(Key.from_jwk(jwk_of(signer)))


# The two messages inside messages


def test_an_inner_message_brings_its_key_and_no_nonce() -> None:
    """§7.3.5: "The inner JWS MUST have a "jwk" header parameter", and "MUST omit the "nonce" header parameter"."""
    signer = KEYS["ES256"]
    jws = parse_inner(message(signer, {"account": "a"}, nonce=None))
    assert jws.nonce is None
    jws.verify(Key.from_jwk(jws.jwk))
    refused(ProblemType.MALFORMED, parse_inner, message(signer))
    refused(ProblemType.MALFORMED, parse_inner, message(signer, nonce=None, jwk=None, kid="a"))
    refused(ProblemType.BAD_SIGNATURE_ALGORITHM, parse_inner, message(signer, nonce=None, alg="HS256"))


@pytest.mark.parametrize("algorithm", ["HS256", "HS384", "HS512"])
def test_a_binding_is_a_mac_by_a_named_key(algorithm: str) -> None:
    """§7.3.4."""
    good = bind("kid-1", b"secret", URL, KEYS["ES256"], algorithm)
    jws = parse_binding(good)
    jws.verify_mac(b"secret")
    assert (jws.kid, jws.url, jws.algorithm) == ("kid-1", URL, algorithm)
    assert json.loads(jws.payload) == jwk_of(KEYS["ES256"])
    refused(ProblemType.UNAUTHORIZED, jws.verify_mac, b"Secret")
    refused(ProblemType.UNAUTHORIZED, jws.verify_mac, b"")


def test_a_binding_is_nothing_else() -> None:
    signer = KEYS["ES256"]
    for algorithm in (*ALGORITHMS, "none", "HS1"):
        changed = sign(signer, {"alg": algorithm, "kid": "k", "url": URL}, jwk_of(signer))
        refused(ProblemType.BAD_SIGNATURE_ALGORITHM, parse_binding, changed)
    for bad in (
        {"alg": "HS256", "kid": "k", "url": URL, "nonce": "bm9uY2U"},
        {"alg": "HS256", "jwk": jwk_of(signer), "url": URL},
        {"alg": "HS256", "url": URL},
        {"alg": "HS256", "kid": "k"},
    ):
        refused(ProblemType.MALFORMED, parse_binding, sign(signer, bad, {}))
    nothings: list[object] = [None, [], "", 7, {}]
    for nothing in nothings:
        refused(ProblemType.MALFORMED, parse_binding, nothing)


def test_the_signature_of_our_own_client_is_the_one_of_the_rfc() -> None:
    """The tests' own signer, held to RFC 8037, whose signatures are always the same."""
    seed = from_base64url("nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A", "d")
    signer = ed25519.Ed25519PrivateKey.from_private_bytes(seed)
    assert jwk_of(signer) == RFC8037_A2
    made = signature(signer, b"eyJhbGciOiJFZERTQSJ9.RXhhbXBsZSBvZiBFZDI1NTE5IHNpZ25pbmc")
    assert (
        to_base64url(made) == "hgyY0il_MGCjP0JzlnLWG1PPOt7-09PGcvMg3AIbQR6dWbhijcNR4ki4iylGjg5BhVsPt9g7sVvpAr_MuM0KAg"
    )
