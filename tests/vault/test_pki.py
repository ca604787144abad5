"""Vault's PKI API as its clients meet it: who is let in, what comes back, and how it says no."""

import asyncio
import base64
import json
import logging
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_der_private_key,
    load_pem_private_key,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.ca.tier import Tier
from tests.certificates import Party, assert_is_leaf, make_csr, openssl_verify, same_key, tls_handshake
from tests.laws import documents
from tests.server.conftest import Clock
from tests.vault.conftest import ROLES, Scene, errors_of, leaf

from privet import CertificateAuthority, Limits, MemoryStore, NameConstraints, Rate, Record, Roles, StoreError, VaultPKI
from privet.acme.encoding import to_json
from privet.ca import KeyType, keys
from privet.server import events
from privet.server.denials import MOST
from privet.vault import issuing, tokens

pytestmark = pytest.mark.anyio

KEY = keys.generate(KeyType.P256)
FIELDS = ["common_name", "alt_names", "ip_sans", "ttl", "format", "private_key_format", "exclude_cn_from_sans", "csr"]


def pem_csr(names: list[str], cn: str | None = None, key: keys.PrivateKey = KEY) -> str:
    der = make_csr(key, names, cn=cn)
    return x509.load_der_x509_csr(der).public_bytes(Encoding.PEM).decode()


# --- issue and sign ---


async def test_a_token_gets_a_key_and_a_certificate_of_its_role(scene: Scene) -> None:
    response = await scene.ask("issue/web", scene.token(), {"common_name": "a.web.internal", "ip_sans": "10.0.0.7"})
    assert response.status_code == 200
    assert response.headers["cache-control"] == "no-store"
    document = response.json()
    data = document.pop("data")
    assert document.pop("request_id")
    assert document == {
        "lease_id": "",
        "renewable": False,
        "lease_duration": 0,
        "wrap_info": None,
        "warnings": None,
        "auth": None,
    }
    assert set(data) == {
        "certificate",
        "issuing_ca",
        "ca_chain",
        "serial_number",
        "expiration",
        "private_key",
        "private_key_type",
    }
    certificate, root = leaf(data), x509.load_pem_x509_certificate(data["issuing_ca"].encode())
    assert root == scene.ca.root_cert
    assert data["ca_chain"] == [data["issuing_ca"]]
    assert_is_leaf(certificate, issuer=root, names=["a.web.internal", "10.0.0.7"])
    openssl_verify(data["certificate"].encode(), scene.ca.root_cert_pem, name="10.0.0.7", at=scene.clock())
    assert data["private_key"].startswith("-----BEGIN EC PRIVATE KEY-----\n")
    assert data["private_key_type"] == "ec"
    assert same_key(certificate, load_pem_private_key(data["private_key"].encode(), None).public_key())
    assert re.fullmatch("[0-9a-f]{2}(:[0-9a-f]{2})+", data["serial_number"])
    assert int(data["serial_number"].replace(":", ""), 16) == certificate.serial_number
    assert data["expiration"] == certificate.not_valid_after_utc.timestamp()
    assert not any(data[name].endswith("\n") for name in ("certificate", "issuing_ca", "private_key"))


async def test_it_is_on_record_without_its_key(scene: Scene, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        token = scene.token()
        data = await scene.issue("web", token, common_name="a.web.internal", private_key_format="pkcs8")
    (found,) = scene.ca.certificates("a.web.internal")
    (known,) = scene.tokens()
    assert found.status == "valid"
    assert found.serial == leaf(data).serial_number
    assert (found.requester, found.profile) == (f"token:{known.id}", "role web")
    key = load_pem_private_key(data["private_key"].encode(), None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    secret = key.private_numbers().private_value.to_bytes(32, "big")
    body = data["private_key"].splitlines()[1]
    everything = [record for kind in ("certificate", "token", "certs") for record in scene.store.find(kind)]
    for record in everything:
        for content in (record.body, *record.files.values()):
            assert not any(each in content for each in (secret, base64.b64encode(secret), body.encode()))
            assert token.encode() not in content
            assert token.rpartition(".")[2].encode() not in content
    assert f"issued {found.serial:x} for a.web.internal to token {known.id} (a test) for the role web" in caplog.text
    assert f"SHA-256 {found.fingerprint}" in caplog.text
    assert body not in caplog.text
    assert token.rpartition(".")[2] not in caplog.text


async def test_a_csr_is_signed_and_no_key_comes_back(scene: Scene) -> None:
    csr = pem_csr(["a.web.internal", "10.0.0.7"], cn="a.web.internal")
    response = await scene.ask("sign/web", scene.token(), {"csr": csr, "common_name": "a.web.internal"})
    data = response.json()["data"]
    assert "private_key" not in data
    assert "private_key_type" not in data
    assert same_key(leaf(data), KEY.public_key())
    assert_is_leaf(leaf(data), issuer=scene.ca.root_cert, names=["a.web.internal", "10.0.0.7"])


async def test_the_user_of_a_database_gets_a_certificate_for_clients_alone(scene: Scene) -> None:
    token = scene.token("database")
    issued = await scene.issue("database", token, common_name="epoch_user")
    assert_is_leaf(leaf(issued), issuer=scene.ca.root_cert, names=[], client=True, cn="epoch_user")
    assert issued["expiration"] == (scene.clock() + timedelta(hours=1)).timestamp()
    openssl_verify(issued["certificate"].encode(), scene.ca.root_cert_pem, purpose="sslclient", at=scene.clock())
    response = await scene.ask("sign/database", token, {"csr": pem_csr([], cn="report-7")})
    assert_is_leaf(leaf(response.json()["data"]), issuer=scene.ca.root_cert, names=[], client=True, cn="report-7")
    assert {each.names for each in scene.ca.certificates()} == {("epoch_user",), ("report-7",)}
    assert len(scene.ca.certificates("epoch_user")) == 1


async def test_both_ends_of_a_handshake(scene: Scene) -> None:
    # The clock of the handshake is the real one.
    scene.clock.time = datetime.now(UTC)
    real = Scene(clock=scene.clock)
    server = await real.issue("web", real.token(), common_name="a.web.internal")
    client = await real.issue("database", real.token("database"), common_name="epoch_user")
    parties = [Party(each["certificate"].encode(), each["private_key"].encode()) for each in (server, client)]
    tls_handshake(parties[0], real.ca.root_cert_pem, name="a.web.internal", client=parties[1])
    await real.http.aclose()


@pytest.mark.parametrize(
    ("role", "type", "kind", "begin"),
    [
        ("web", "ec", ec.EllipticCurvePrivateKey, "-----BEGIN EC PRIVATE KEY-----"),
        ("curves", "ed25519", ed25519.Ed25519PrivateKey, "-----BEGIN PRIVATE KEY-----"),
        ("rsa", "rsa", rsa.RSAPrivateKey, "-----BEGIN RSA PRIVATE KEY-----"),
    ],
)
async def test_keys_come_in_the_form_that_was_asked_for(
    scene: Scene, role: str, type: str, kind: type, begin: str
) -> None:
    token, name = scene.token(role), "a.web.internal"
    for key_format in (None, "", "der", "pem", "pkcs8"):
        data = await scene.issue(role, token, common_name=name, private_key_format=key_format)
        assert data["private_key_type"] == type
        assert data["private_key"].startswith("-----BEGIN PRIVATE KEY-----" if key_format == "pkcs8" else begin)
        key = load_pem_private_key(data["private_key"].encode(), None)
        assert isinstance(key, kind)
        assert same_key(leaf(data), key.public_key())

        data = await scene.issue(role, token, common_name=name, private_key_format=key_format, format="der")
        key_der, own, issuing, chain = (
            base64.b64decode(each, validate=True)
            for each in (data["private_key"], data["certificate"], data["issuing_ca"], *data["ca_chain"])
        )
        assert issuing == chain == scene.ca.root_cert.public_bytes(Encoding.DER)
        loaded = load_der_private_key(key_der, None)
        pkcs8 = key_format == "pkcs8" or type == "ed25519"
        form = PrivateFormat.PKCS8 if pkcs8 else PrivateFormat.TraditionalOpenSSL
        assert key_der == loaded.private_bytes(Encoding.DER, form, NoEncryption())
        assert same_key(x509.load_der_x509_certificate(own), loaded.public_key())

        data = await scene.issue(role, token, common_name=name, private_key_format=key_format, format="pem_bundle")
        key_pem, *certificates = re.findall(r"-----BEGIN .*?-----END [^\n]*-----", data["certificate"], re.DOTALL)
        assert key_pem.startswith(begin)
        assert certificates[1:] == data["ca_chain"]
        bundled = load_pem_private_key(key_pem.encode(), None).public_key()
        assert same_key(x509.load_pem_x509_certificate(certificates[0].encode()), bundled)


async def test_a_bundle_of_what_was_signed_has_no_key(scene: Scene) -> None:
    wish = {"csr": pem_csr(["a.web.internal"]), "format": "pem_bundle"}
    data = (await scene.ask("sign/web", scene.token(), wish)).json()["data"]
    assert re.findall("BEGIN .*?-", data["certificate"]) == ["BEGIN CERTIFICATE-"] * 2


async def test_below_an_intermediate_the_chain_leads_to_the_root() -> None:
    begin = datetime(2026, 1, 1, tzinfo=UTC)
    root = Tier("root", begin=begin)
    middle = Tier("middle", root, begin=begin)
    store = MemoryStore()
    CertificateAuthority(store, now=Clock()).import_ca(middle.cert_pem + root.cert_pem, middle.key_pem)
    scene = Scene(store)
    token = scene.token()
    for without_root, expected in ((False, [middle, root]), (True, [middle])):
        data = await scene.issue("web", token, common_name="web.internal", remove_roots_from_chain=without_root)
        assert data["issuing_ca"].strip() == middle.cert_pem.decode().strip()
        assert data["ca_chain"] == [each.cert_pem.decode().strip() for each in expected]
    assert (await scene.http.get("/v1/pki/ca/pem")).content == middle.cert_pem
    assert (await scene.http.get("/v1/pki/ca_chain")).content == middle.cert_pem + root.cert_pem
    await scene.http.aclose()


@pytest.mark.parametrize(
    ("wish", "seconds", "warns"),
    [
        ({}, 24 * 3600, False),
        ({"ttl": ""}, 24 * 3600, False),
        ({"ttl": 0}, 24 * 3600, False),
        ({"ttl": "0"}, 24 * 3600, False),
        ({"ttl": "0s"}, 24 * 3600, False),
        ({"ttl": "0h0m0s"}, 24 * 3600, False),
        ({"ttl": "90m"}, 5400, False),
        ({"ttl": "1h0m30s"}, 3630, False),
        ({"ttl": 90}, 90, False),
        ({"ttl": "90"}, 90, False),
        ({"ttl": "72h"}, 72 * 3600, False),
        ({"ttl": "72h1s"}, 72 * 3600, True),
        ({"ttl": "365d"}, 72 * 3600, True),
    ],
)
async def test_it_lives_as_long_as_was_asked_and_never_longer_than_the_role_says(
    scene: Scene, wish: dict[str, Any], seconds: int, warns: bool
) -> None:
    response = await scene.ask("issue/web", scene.token(), {"common_name": "web.internal", **wish})
    document = response.json()
    assert document["data"]["expiration"] == scene.clock().timestamp() + seconds
    assert leaf(document["data"]).not_valid_before_utc < scene.clock()
    if warns:
        (warning,) = document["warnings"]
        assert warning.endswith("is longer than the 3 days, 0:00:00 of the role, which is used")
    else:
        assert document["warnings"] is None


async def test_it_ends_with_the_authority_and_says_so(scene: Scene) -> None:
    scene.clock.time = scene.ca.not_after - timedelta(hours=1)
    response = await scene.ask("issue/web", scene.token(), {"common_name": "web.internal"})
    assert response.json()["data"]["expiration"] == scene.ca.not_after.timestamp()
    assert "ends with the authority" in response.json()["warnings"][0]
    scene.clock.forward(hours=2)
    status, (error,) = errors_of(await scene.ask("issue/web", scene.token(), {"common_name": "web.internal"}))
    assert (status, error) == (503, "the authority cannot sign this now; its log says why")
    health = await scene.http.get("/v1/sys/health")
    assert (health.status_code, health.json()["sealed"]) == (503, True)


# --- names ---

NAMES: list[tuple[dict[str, object], list[str], str | None]] = [
    ({"common_name": "a.web.internal"}, ["a.web.internal"], None),
    ({"common_name": "A.Web.Internal", "alt_names": "a.web.internal"}, ["a.web.internal"], None),
    (
        {"common_name": "b.web.internal", "alt_names": "a.web.internal, web.internal"},
        ["b.web.internal", "a.web.internal", "web.internal"],
        None,
    ),
    (
        {"common_name": "b.web.internal", "alt_names": ["a.web.internal"], "ip_sans": ["10.1.1.1", "fd00::1"]},
        ["b.web.internal", "a.web.internal", "10.1.1.1", "fd00::1"],
        None,
    ),
    ({"alt_names": "a.web.internal"}, ["a.web.internal"], None),
    ({"common_name": "", "ip_sans": "10.0.0.7"}, ["10.0.0.7"], None),
    ({"common_name": "10.0.0.7", "ip_sans": "10.0.0.7"}, ["10.0.0.7"], None),
    ({"common_name": "*.web.internal"}, ["*.web.internal"], None),
    ({"common_name": "bücher.web.internal"}, ["xn--bcher-kva.web.internal"], None),
    (
        {"common_name": "b.web.internal", "alt_names": "a.web.internal", "exclude_cn_from_sans": True},
        ["a.web.internal"],
        "b.web.internal",
    ),
    (
        {"common_name": "b.web.internal", "alt_names": "a.web.internal", "exclude_cn_from_sans": "true"},
        ["a.web.internal"],
        "b.web.internal",
    ),
    (
        {"common_name": "b.web.internal", "alt_names": "a.web.internal", "exclude_cn_from_sans": "false"},
        ["b.web.internal", "a.web.internal"],
        None,
    ),
    (
        {"common_name": "a.web.internal", "uri_sans": "", "other_sans": [], "user_ids": None, "not_after": ""},
        ["a.web.internal"],
        None,
    ),
]


@pytest.mark.parametrize(("wish", "names", "cn"), NAMES)
async def test_names_come_into_the_certificate(
    scene: Scene, wish: dict[str, object], names: list[str], cn: str | None
) -> None:
    data = await scene.issue("web", scene.token(), **wish)
    assert_is_leaf(leaf(data), issuer=scene.ca.root_cert, names=names, cn=cn)


REFUSED: list[tuple[dict[str, object], str]] = [
    ({"common_name": "web.example"}, "web.example is not allowed by the role 'web'"),
    ({"common_name": "a.b.web.internal"}, "a.b.web.internal is not allowed by the role 'web'"),
    ({"common_name": "*.internal"}, "*.internal is not allowed by the role 'web'"),
    ({"common_name": "epoch_user"}, "'epoch_user' is not allowed by the role 'web'"),
    ({"common_name": "a.web.internal\0.example"}, "'a.web.internal\\x00.example' is not allowed by the role 'web'"),
    ({"common_name": "10.0.0.7"}, "common_name is the address 10.0.0.7, which goes into ip_sans"),
    ({"common_name": "a.web.internal", "alt_names": "b.example"}, "b.example is not allowed by the role 'web'"),
    (
        {"common_name": "a.web.internal", "alt_names": "a@web.internal"},
        "alt_names: 'a@web.internal' is not a valid DNS name: ",
    ),
    (
        {"common_name": "a.web.internal", "alt_names": "10.0.0.7"},
        "alt_names has the address 10.0.0.7, which goes into ip_sans",
    ),
    ({"common_name": "a.web.internal", "ip_sans": "192.0.2.1"}, "192.0.2.1 is not allowed by the role 'web'"),
    (
        {"common_name": "a.web.internal", "ip_sans": "b.web.internal"},
        "ip_sans has b.web.internal, which is no address ",
    ),
    ({"common_name": "a.web.internal", "uri_sans": "spiffe://a/b"}, "'uri_sans' is not supported here"),
    ({"common_name": "a.web.internal", "other_sans": ["1.2.3;UTF8:x"]}, "'other_sans' is not supported here"),
    ({"common_name": "a.web.internal", "not_after": "9999-12-31T23:59:59Z"}, "'not_after' is not supported here"),
    ({"common_name": "a.web.internal", "key_type": "rsa"}, "'key_type' is not supported here"),
    ({"common_name": "a.web.internal", "csr": pem_csr(["a.web.internal"])}, "'csr' is not supported here"),
    ({"common_name": "a.web.internal", "ttl": "soon"}, "ttl has to be a duration such as 90m, 24h or 7d, not 'soon'"),
    ({"common_name": "a.web.internal", "ttl": -1}, "ttl has to be a duration"),
    ({"common_name": "a.web.internal", "ttl": True}, "ttl has to be a duration"),
    ({"common_name": "a.web.internal", "ttl": "9" * 4000}, "ttl has to be between a second and a century"),
    ({"common_name": "a.web.internal", "format": "p12"}, "format has to be one of pem, der, pem_bundle"),
    ({"common_name": "a.web.internal", "private_key_format": "jwk"}, "private_key_format has to be one of "),
    (
        {"common_name": "a.web.internal", "exclude_cn_from_sans": "perhaps"},
        "exclude_cn_from_sans has to be true or false",
    ),
    ({"common_name": ["a.web.internal"]}, "common_name has to be a text"),
    ({"common_name": "a.web.internal", "alt_names": {"a": 1}}, "alt_names has to be a list of texts, or a text "),
    (
        {"alt_names": [f"{n}.web.internal" for n in range(60)], "ip_sans": [f"10.0.0.{n}" for n in range(41)]},
        "there are 101 names, and 100 are allowed",
    ),
    ({}, "there is no name for the certificate: say which with common_name, alt_names or ip_sans"),
    ({"common_name": "a.web.internal", "exclude_cn_from_sans": True}, "there is no name for the certificate: "),
]


@pytest.mark.parametrize(("wish", "sentence"), REFUSED)
async def test_what_the_role_does_not_allow_is_refused(scene: Scene, wish: dict[str, object], sentence: str) -> None:
    status, (error,) = errors_of(await scene.ask("issue/web", scene.token(uses=1), wish))
    assert status == 400
    assert error.startswith(sentence), error
    assert scene.certificates() == []
    assert [each.used for each in scene.tokens()] == [0]


async def test_all_that_is_wrong_is_said_at_once(scene: Scene) -> None:
    wish = {"common_name": "a.example", "alt_names": "b.example,web.internal", "ip_sans": "192.0.2.1"}
    status, sentences = errors_of(await scene.ask("issue/web", scene.token(), wish))
    assert status == 400
    assert sorted(each.partition(" ")[0] for each in sentences) == ["192.0.2.1", "a.example", "b.example"]


async def test_no_more_is_looked_at_than_fits_into_a_certificate(scene: Scene) -> None:
    """Whoever has a token makes nobody else wait, and gets no answer of a megabyte."""
    many = ",".join(f"ü{number}" for number in range(8000))
    status, (error,) = errors_of(await scene.ask("issue/web", scene.token(), {"alt_names": many}))
    assert (status, error) == (400, "alt_names has 8000 names, and 100 are allowed in one certificate")
    status, sentences = errors_of(await scene.ask("issue/web", scene.token(), {f"x{n}": 1 for n in range(4000)}))
    assert (status, len(sentences)) == (400, 20)


async def test_a_role_without_wildcards_has_none(scene: Scene) -> None:
    _, (error,) = errors_of(await scene.ask("issue/rsa", scene.token("rsa"), {"common_name": "*.a.internal"}))
    assert error == "*.a.internal is a wildcard, and the role 'rsa' allows none"


@pytest.mark.parametrize(
    ("cn", "sentence"),
    [
        ("EPOCH_USER", "'EPOCH_USER' is not allowed by the role 'database'"),
        ("epoch_user2", "'epoch_user2' is not allowed"),
        ("report-1.example", "report-1.example is not allowed"),
        ("web.internal", "web.internal is not allowed by the role 'database'"),
        ("report-\n", "a common name has 1 to 64 printable characters"),
        (f"report-{'x' * 64}", "a common name has 1 to 64 printable characters"),
    ],
)
async def test_a_client_is_called_as_its_role_says_to_the_letter(scene: Scene, cn: str, sentence: str) -> None:
    status, (error,) = errors_of(await scene.ask("issue/database", scene.token("database"), {"common_name": cn}))
    assert status == 400
    assert error.startswith(sentence), error


SIGNED: list[tuple[str, dict[str, object], list[str], str | None]] = [
    (pem_csr(["a.web.internal"]), {}, ["a.web.internal"], None),
    (pem_csr(["a.web.internal"]), {"common_name": "a.web.internal"}, ["a.web.internal"], None),
    (pem_csr(["a.web.internal"]), {"common_name": "b.web.internal"}, ["b.web.internal", "a.web.internal"], None),
    (pem_csr([], cn="b.web.internal"), {}, ["b.web.internal"], None),
    (pem_csr(["10.0.0.7"], cn="10.0.0.7"), {}, ["10.0.0.7"], None),
    (pem_csr([], cn="10.0.0.7"), {}, ["10.0.0.7"], None),
    (
        pem_csr(["a.web.internal"], cn="b.web.internal"),
        {"exclude_cn_from_sans": "true"},
        ["a.web.internal"],
        "b.web.internal",
    ),
    (
        pem_csr(["a.web.internal", "10.0.0.7"], cn="a.web.internal"),
        {"alt_names": "a.web.internal", "ip_sans": "10.0.0.7", "uri_sans": ""},
        ["a.web.internal", "10.0.0.7"],
        None,
    ),
]


@pytest.mark.parametrize(("csr", "wish", "names", "cn"), SIGNED)
async def test_the_names_of_a_csr_are_those_of_its_certificate(
    scene: Scene, csr: str, wish: dict[str, object], names: list[str], cn: str | None
) -> None:
    response = await scene.ask("sign/web", scene.token(), {"csr": csr, **wish})
    assert response.status_code == 200, response.text
    assert_is_leaf(leaf(response.json()["data"]), issuer=scene.ca.root_cert, names=names, cn=cn)


UNSIGNED: list[tuple[object, dict[str, object], str]] = [
    (None, {}, "csr is missing"),
    ("", {}, "csr is missing"),
    (7, {}, "csr has to be a text"),
    ("nonsense", {}, "the CSR is not a well-formed PKCS #10 request"),
    (
        "-----BEGIN CERTIFICATE REQUEST-----\nMIIB\n-----END CERTIFICATE REQUEST-----\n",
        {},
        "the CSR is not a well-formed",
    ),
    (pem_csr(["a.example"]), {}, "a.example is not allowed by the role 'web'"),
    (pem_csr(["a.web.internal"], cn="root"), {}, "root is not allowed by the role 'web'"),
    (pem_csr([]), {"common_name": "a.web.internal"}, "the CSR names nobody"),
    (pem_csr(["a.web.internal"]), {"alt_names": "b.web.internal"}, "b.web.internal is not in the CSR, which has to "),
    (pem_csr(["a.web.internal"]), {"ip_sans": "10.0.0.7"}, "10.0.0.7 is not in the CSR, which has to "),
    (
        pem_csr([], cn="a.web.internal"),
        {"common_name": "b.web.internal"},
        "common_name is 'b.web.internal', and the CSR has 'a.web.internal'",
    ),
    (
        pem_csr(["a.web.internal"], key=rsa.generate_private_key(65537, 1024)),
        {},
        "the key of the CSR is refused: RSA keys of 1024 bits",
    ),
]


@pytest.mark.parametrize(("csr", "wish", "sentence"), UNSIGNED)
async def test_a_csr_that_is_not_what_its_role_allows_is_refused(
    scene: Scene, csr: object, wish: dict[str, object], sentence: str
) -> None:
    """Lesson 20: from the CSR come the key and the names, and nothing that was not asked for."""
    status, sentences = errors_of(await scene.ask("sign/web", scene.token(uses=1), {"csr": csr, **wish}))
    assert status == 400
    assert any(each.startswith(sentence) for each in sentences), sentences
    assert scene.certificates() == []
    assert [each.used for each in scene.tokens()] == [0]


async def test_a_key_that_the_role_does_not_take_is_refused(scene: Scene) -> None:
    wish = {"csr": pem_csr(["a.internal"])}
    status, (error,) = errors_of(await scene.ask("sign/rsa", scene.token("rsa"), wish))
    assert (status, error) == (400, "the profile 'role rsa' is not for P-256 keys")


async def test_what_the_authority_may_not_certify_is_refused() -> None:
    scene = Scene()
    narrow = CertificateAuthority(scene.store, "narrow", now=scene.clock)
    narrow.init(name_constraints=NameConstraints(["web.internal"]))
    roles = Roles.from_toml('[[role]]\nname = "all"\nnames = ["**"]')
    token = tokens.create(scene.store, "narrow", "all", "a", scene.clock())[1]
    async with scene.http, scene.at(VaultPKI(narrow, roles, now=scene.clock)) as http:
        status, (error,) = errors_of(await scene.ask("issue/all", token, {"common_name": "a.example"}, http=http))
        assert (status, "a.example" in error) == (400, True)
        assert (await scene.ask("issue/all", token, {"common_name": "a.web.internal"}, http=http)).is_success


# --- who is let in ---


def test_one_path_leads_from_a_token_to_the_signing_room() -> None:
    """Lesson 1: the second door has one way as well, and it takes a token and its role."""
    paths = [
        (file.name, verb)
        for file in sorted(Path(issuing.__file__).parent.glob("*.py"))
        for verb in re.findall(r"\b(?:ca|issuer)\.(prepare|sign|issue\w*|leaf)\b(?=\()", file.read_text())
    ]
    assert sorted(paths) == [("issuing.py", "prepare"), ("issuing.py", "sign")]


@pytest.mark.parametrize("path", ["issue/web", "sign/web", "cert/00:11", "issue/nothing"])
async def test_without_a_good_token_nothing_is_told(scene: Scene, path: str) -> None:
    method = "GET" if path.startswith("cert") else "POST"

    async def ask(headers: Any) -> tuple[int, list[str]]:
        return errors_of(await scene.http.request(method, f"/v1/pki/{path}", headers=headers, content=b"{"))

    good = scene.token()
    assert await ask({}) == (403, ["missing client token: send it as X-Vault-Token"])
    assert await ask({"Authorization": "Basic abc"}) == (403, ["missing client token: send it as X-Vault-Token"])
    prefix, id, secret = good.split(".")
    for text in (
        "",
        "root",
        "hvs.CAESIJ",
        f"{good}x",
        good[:-1],
        f"{prefix}.{id}.{secret[:-4]}AAAA",
        f"{prefix}.{'0' * 40}.{secret}",
        good.upper(),
        scene.tokens()[0].id,
        scene.tokens()[0].hash,
        f"{prefix}.{id}.{'é' * 43}".encode(),
    ):
        assert await ask({"X-Vault-Token": text}) == (403, ["permission denied"])
        assert await ask([(b"Authorization", b"Bearer " + (text if isinstance(text, bytes) else text.encode()))]) == (
            403,
            ["permission denied"],
        )
    other = scene.token()
    assert await ask([("X-Vault-Token", good), ("X-Vault-Token", other)]) == (
        400,
        ["there are two tokens in this request"],
    )
    assert await ask({"X-Vault-Token": good, "Authorization": f"Bearer {other}"}) == (
        400,
        ["there are two tokens in this request"],
    )
    assert scene.certificates() == []


async def test_a_token_can_be_shown_as_bearer_too(scene: Scene) -> None:
    wish, token = {"common_name": "web.internal"}, scene.token()
    for headers in ({"Authorization": f"Bearer {token}"}, {"authorization": f"bearer {token}", "x-vault-token": token}):
        for method in ("POST", "PUT"):
            response = await scene.http.request(method, "/v1/pki/issue/web", headers=headers, json=wish)
            assert response.status_code == 200


async def test_a_token_is_for_its_role_alone(scene: Scene) -> None:
    token = scene.token("web")
    for role in ("database", "nothing"):
        status, sentences = errors_of(await scene.ask(f"issue/{role}", token, {"common_name": "epoch_user"}))
        assert (status, sentences) == (403, ["permission denied: the token is for the role 'web'"])
    status, sentences = errors_of(await scene.ask("issue/gone", scene.token("gone"), {"common_name": "web.internal"}))
    assert (status, sentences) == (400, ["unknown role: gone"])


async def test_a_token_ends_when_it_was_to_end(scene: Scene) -> None:
    token = scene.token(ends=scene.clock() + timedelta(hours=1))
    await scene.issue("web", token, common_name="web.internal")
    scene.clock.forward(hours=1)
    refused = await scene.ask("issue/web", token, {"common_name": "web.internal"})
    assert errors_of(refused) == (403, ["permission denied: the token is expired; ask for another"])


async def test_a_revoked_token_is_good_for_nothing(scene: Scene) -> None:
    token = scene.token()
    await scene.issue("web", token, common_name="web.internal")
    tokens.revoke(scene.store, scene.tokens()[0], scene.clock())
    refused = await scene.ask("issue/web", token, {"common_name": "web.internal"})
    assert errors_of(refused) == (403, ["permission denied: the token is revoked; ask for another"])
    assert len(scene.certificates()) == 1


async def test_a_token_has_as_many_uses_as_it_was_given(scene: Scene) -> None:
    token = scene.token(uses=2)
    for used in (1, 2):
        await scene.issue("web", token, common_name="web.internal")
        assert [each.used for each in scene.tokens()] == [used]
    refused = await scene.ask("issue/web", token, {"common_name": "web.internal"})
    assert errors_of(refused) == (403, ["permission denied: the token is used up; ask for another"])
    assert len(scene.certificates()) == 2


async def test_a_token_of_another_authority_is_none(scene: Scene) -> None:
    other = CertificateAuthority(scene.store, "other", now=scene.clock)
    other.init()
    token = tokens.create(scene.store, "other", "web", "a", scene.clock())[1]
    assert errors_of(await scene.ask("issue/web", token, {})) == (403, ["permission denied"])
    async with scene.at(VaultPKI(other, Roles.from_toml(ROLES), now=scene.clock)) as http:
        assert (await scene.ask("issue/web", token, {"common_name": "web.internal"}, http=http)).is_success


async def test_a_store_that_is_stolen_has_no_tokens(scene: Scene) -> None:
    """What is in it opens nothing: neither the id nor the hash, in whatever form."""
    token = scene.token()
    (record,) = scene.store.find("token")
    secret = token.rpartition(".")[2]
    assert secret.encode() not in record.body
    for text in [*re.findall(r"[\w-]{20,}", record.body.decode()), record.id]:
        for guess in (text, f"privet.{record.id}.{text[:43]}", f"privet.{record.id}.{text}"):
            assert errors_of(await scene.ask("issue/web", guess, {})) == (403, ["permission denied"])


async def test_one_token_has_a_rate(scene: Scene) -> None:
    app = scene.replica(limits=Limits(certificates_of_token=Rate(2, timedelta(hours=1))))
    token, wish = scene.token(), {"common_name": "web.internal"}
    async with scene.at(app) as http:
        statuses = [(await scene.ask("issue/web", token, wish, http=http)).status_code for _ in range(4)]
        assert statuses[0] == 200
        assert statuses[-1] == 429
        refused = await scene.ask("issue/web", token, wish, http=http)
        assert errors_of(refused)[1][0].startswith("no more than 2 certificates for this token within 1 h")
        assert int(refused.headers["retry-after"]) > 0
        assert (await scene.ask("issue/web", scene.token(), wish, http=http)).status_code == 200


# --- what is read ---


async def test_everybody_may_read_the_authority(scene: Scene) -> None:
    root = scene.ca.root_cert
    pem = await scene.http.get("/v1/pki/ca/pem")
    assert (pem.content, pem.headers["content-type"]) == (scene.ca.root_cert_pem, "application/pem-certificate-chain")
    der = await scene.http.get("/v1/pki/ca")
    assert (der.content, der.headers["content-type"]) == (root.public_bytes(Encoding.DER), "application/pkix-cert")
    assert (await scene.http.get("/v1/pki/ca_chain")).content == scene.ca.chain_pem
    for path in ("cert/ca", "cert/ca_chain"):
        data = (await scene.http.get(f"/v1/pki/{path}")).json()["data"]
        assert data["certificate"] == scene.ca.root_cert_pem.decode().strip()
        assert (data["revocation_time"], data["revocation_time_rfc3339"]) == (0, "")
    head = await scene.http.head("/v1/pki/ca/pem")
    assert (head.status_code, head.content) == (200, b"")
    assert head.headers["content-length"] == str(len(pem.content))
    health = (await scene.http.get("/v1/sys/health")).json()
    assert health.pop("server_time_utc") == scene.clock().timestamp()
    assert health == {"initialized": True, "sealed": False, "standby": False}


async def test_a_token_reads_the_certificates_of_its_role(scene: Scene) -> None:
    first, second, other = scene.token(), scene.token(), scene.token("database")
    serial = (await scene.issue("web", first, common_name="web.internal"))["serial_number"]

    async def read(serial: str, token: str) -> httpx.Response:
        return await scene.http.get(f"/v1/pki/cert/{serial}", headers={"X-Vault-Token": token})

    for text in (serial, serial.replace(":", "-"), serial.replace(":", ""), serial.upper()):
        data = (await read(text, second)).json()["data"]
        assert x509.load_pem_x509_certificate(data["certificate"].encode()).serial_number == int(
            serial.replace(":", ""), 16
        )
    own = scene.ca.issue("other.internal").serial
    for text, token in ((serial, other), (f"{own:032x}", first), ("00:11", first)):
        assert errors_of(await read(text, token)) == (404, ["there is no such certificate for the role of this token"])
    scene.ca.revoke(int(serial.replace(":", ""), 16))
    data = (await read(serial, first)).json()["data"]
    assert data["revocation_time"] == scene.clock().timestamp()
    assert data["revocation_time_rfc3339"] == "2026-03-01T12:00:00Z"


async def test_a_token_revokes_what_it_got_itself(scene: Scene, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    first, second = scene.token(), scene.token()
    data = await scene.issue("web", first, common_name="web.internal")
    serial, number = data["serial_number"], leaf(data).serial_number
    acme = scene.ca.issue("other.internal").serial
    for token, text in ((second, serial), (first, f"{acme:032x}"), (first, "00:11")):
        refused = await scene.ask("revoke", token, {"serial_number": text})
        assert errors_of(refused) == (404, ["there is no such certificate that this token got"])
    for wish in ({}, {"serial_number": "xyz"}, {"serial_number": 7}, {"certificate": data["certificate"]}):
        status, sentences = errors_of(await scene.ask("revoke", first, wish))
        assert (status, sentences[-1]) == (400, "serial_number has to be that of a certificate, such as 39:dd:2e:90")
    assert errors_of(await scene.ask("revoke", None, {"serial_number": serial}))[0] == 403
    assert {each.status for each in scene.certificates()} == {"valid"}

    answer = (await scene.ask("revoke", first, {"serial_number": serial})).json()["data"]
    when = int(scene.clock().timestamp())
    assert answer == {
        "revocation_time": when,
        "revocation_time_rfc3339": "2026-03-01T12:00:00Z",
        "state": "revoked",
    }
    found = scene.ca.certificate(number)
    assert found is not None
    assert (found.status, found.reason) == ("revoked", 0)
    assert re.search(rf"revoked {number:x} for token .*, SHA-256 {found.fingerprint}", caplog.text)
    scene.clock.forward(hours=1)
    again = (await scene.ask("revoke", first, {"serial_number": serial})).json()["data"]
    assert again["revocation_time"] == when, "it stays as it is"


async def test_a_token_is_told_about_itself(scene: Scene) -> None:
    async def look(token: str) -> Any:
        response = await scene.http.get("/v1/auth/token/lookup-self", headers={"X-Vault-Token": token})
        return response.json()["data"] if response.is_success else errors_of(response)

    token = scene.token(uses=3, ends=scene.clock() + timedelta(hours=1))
    await scene.issue("web", token, common_name="web.internal")
    (known,) = scene.tokens()
    assert await look(token) == {
        "accessor": known.id,
        "display_name": "a test",
        "policies": ["web"],
        "type": "service",
        "renewable": False,
        "orphan": True,
        "creation_time": int(scene.clock().timestamp()),
        "expire_time": "2026-03-01T13:00:00Z",
        "ttl": 3600,
        "num_uses": 2,
    }
    endless = await look(scene.token())
    assert (endless["ttl"], endless["expire_time"], endless["num_uses"]) == (0, None, 0)
    scene.clock.forward(hours=1)
    assert await look(token) == (403, ["permission denied: the token is expired; ask for another"])


async def test_who_counts_is_told_what_happened_and_of_nobody(scene: Scene) -> None:
    told: list[events.Event] = []
    token = scene.token()
    async with scene.at(scene.replica(observe=told.append)) as http:
        issued = await scene.ask("issue/web", token, {"common_name": "web.internal"}, http=http)
        serial = issued.json()["data"]["serial_number"]
        await scene.ask("revoke", token, {"serial_number": serial}, http=http)
        await scene.ask("issue/web", "nonsense", http=http)
        await http.get("/v1/pki/ca/pem")
        await http.get("/v1/nothing")
    answered = [each for each in told if isinstance(each, events.Answered)]
    assert [(each.resource, each.status, each.problem) for each in answered] == [
        ("vault-issue", 200, None),
        ("vault-revoke", 200, None),
        ("vault-issue", 403, "unauthorized"),
        ("vault-ca", 200, None),
        ("none", 404, "malformed"),
    ]
    others = [each for each in told if not isinstance(each, events.Answered | events.Stored)]
    assert others == [events.Issued("role web"), events.Revoked(0)]
    assert any(isinstance(each, events.Stored) for each in told)


async def test_who_asks_for_ever_without_a_token_fills_no_log(scene: Scene, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        for _ in range(MOST + 50):
            await scene.ask("issue/web", "nonsense")
    assert len([line for line in caplog.messages if line.startswith("refused")]) == MOST


# --- everything else is refused, in Vault's form ---


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/v1/pki/issue/web", 405),
        ("LIST", "/v1/pki/certs", 404),
        ("LIST", "/v1/pki/roles", 404),
        ("DELETE", "/v1/pki/ca", 405),
        ("POST", "/v1/pki/sign-verbatim", 404),
        ("POST", "/v1/pki/sign-verbatim/web", 404),
        ("POST", "/v1/pki/root/generate/internal", 404),
        ("POST", "/v1/pki/root/sign-intermediate", 404),
        ("POST", "/v1/pki/issue/", 404),
        ("POST", "/v1/pki/issue/web/", 404),
        ("POST", "/v1/pki/issue/../web", 404),
        ("POST", "/v1/pki//issue/web", 404),
        ("POST", "/v1/pki/issue/w%65b%0a", 404),
        ("GET", "/v1/pki/cert/ca/", 404),
        ("GET", "/v1/pki/cert/0", 403),
        ("GET", "/v1/pki/cert/xyz", 404),
        ("GET", "/v1/secret/data/a", 404),
        ("POST", "/v1/auth/token/create", 404),
        ("GET", "/", 404),
    ],
)
async def test_what_is_not_there_is_refused(scene: Scene, method: str, path: str, status: int) -> None:
    response = await scene.http.request(method, path)
    assert errors_of(response)[0] == status
    if status == 405:
        assert response.headers["allow"] in ("GET, HEAD", "POST, PUT")


async def test_responses_are_not_wrapped(scene: Scene) -> None:
    """Who asks for a wrapped response does not expect a private key in it."""
    headers = {"X-Vault-Token": scene.token(), "X-Vault-Wrap-TTL": "1m"}
    refused = await scene.http.post("/v1/pki/issue/web", headers=headers, json={"common_name": "web.internal"})
    assert errors_of(refused) == (400, ["responses are not wrapped here: ask without X-Vault-Wrap-TTL"])
    assert scene.certificates() == []


@pytest.mark.parametrize(
    "body",
    [b"", b"[]", b'"a"', b"{", b'{"common_name": "a", "common_name": "b"}', b"\xff", b"common_name=a"],
)
async def test_what_is_no_json_object_is_refused(scene: Scene, body: bytes) -> None:
    status, (error,) = errors_of(await scene.ask("issue/web", scene.token(), body))
    assert status == 400
    assert "JSON object" in error


async def test_what_is_too_long_is_refused_unread(scene: Scene) -> None:
    status, (error,) = errors_of(await scene.ask("issue/web", scene.token(), b" " * 65537))
    assert (status, error) == (413, "the request is larger than 65536 bytes")


async def test_a_store_that_fails_is_said_to_fail(caplog: pytest.LogCaptureFixture) -> None:
    class Failing(MemoryStore):
        failing = False

        def commit(self, *records: Record, unchanged: Any = (), durable: bool = True) -> None:
            if self.failing:
                raise StoreError("the disk is full")
            super().commit(*records, unchanged=unchanged, durable=durable)

    scene = Scene(Failing())
    token = scene.token()
    Failing.failing = True
    async with scene.http:
        refused = await scene.ask("issue/web", token, {"common_name": "web.internal"})
    assert errors_of(refused) == (503, ["the server cannot store anything now"])
    assert refused.headers["retry-after"] == "30"


@given(documents | st.dictionaries(st.sampled_from(FIELDS), documents, max_size=6))
@settings(max_examples=200, deadline=None)
def test_any_json_has_an_answer_below_500(document: Any) -> None:
    asyncio.run(has_an_answer(to_json(document)))


@given(st.binary(max_size=300), st.binary(max_size=100))
@settings(deadline=None)
def test_any_bytes_have_an_answer_below_500(body: bytes, token: bytes) -> None:
    asyncio.run(has_an_answer(body))
    asyncio.run(has_an_answer(body, token=bytes(each for each in token if each not in b"\r\n\0")))


@given(st.text(max_size=80), st.sampled_from(["GET", "POST", "PUT", "HEAD", "LIST", "DELETE"]))
@settings(deadline=None)
def test_any_path_has_an_answer_below_500(path: str, method: str) -> None:
    asyncio.run(has_an_answer(b"{}", path=f"/v1/pki/{path}", method=method))


async def has_an_answer(body: bytes, *, token: bytes | None = None, path: str = "", method: str = "POST") -> None:
    scene = Scene()
    app = scene.replica()
    shown = scene.token("curves").encode() if token is None else token
    sent: list[Any] = []

    async def receive() -> Any:
        return {"type": "http.request", "body": body}

    async def send(message: Any) -> None:
        sent.append(message)

    for each in [path] if path else ["/v1/pki/issue/curves", "/v1/pki/sign/curves"]:
        sent.clear()
        scope = {"type": "http", "method": method, "path": each, "headers": [(b"x-vault-token", shown)]}
        await app(scope, receive, send)
        status = sent[0]["status"]
        assert status < 500
        if status == 200 and each.endswith("/curves"):
            (certificate,) = scene.certificates()
            assert certificate.status == "valid"
        elif method != "HEAD":
            assert status == 200 or list(json.loads(sent[1]["body"])) == ["errors"]
