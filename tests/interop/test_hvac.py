"""hvac, Vault's client for Python, against a running privet."""

import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hvac
import psycopg
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, load_pem_private_key
from hvac.exceptions import Forbidden, InvalidPath, InvalidRequest
from tests.certificates import assert_is_leaf, make_csr, openssl_verify, same_key
from tests.interop.postgresql import PostgreSQL
from tests.interop.serving import Privet

from privet.ca import KeyType, keys

pytestmark = [pytest.mark.interop, pytest.mark.filterwarnings("ignore::DeprecationWarning:hvac")]

ROLES = """
[[role]]
name = "web"
names = ["*.web.internal", "localhost", "127.0.0.0/8"]
max-lifetime = "72h"

[[role]]
name = "epoch"
common-names = ["epoch_user"]
usages = ["client"]
lifetime = "1h"
"""


@pytest.fixture(scope="module", params=[("--tls",), ("--mount", "/acme", "--workers", "2")], ids=["tls", "workers"])
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Privet]:
    folder = tmp_path_factory.mktemp("privet")
    (folder / "roles.toml").write_text(ROLES)
    with Privet(folder, "--roles", "roles.toml", *request.param) as running:
        yield running


def make_token(server: Privet, role: str, *options: str) -> dict[str, Any]:
    made: dict[str, Any] = json.loads(server.privet("token", "create", "--role", role, *options, "--json"))
    return made


def client(server: Privet, token: str | None) -> hvac.Client:
    return hvac.Client(server.directory.removesuffix("/directory"), token=token, verify=str(server.root()))


def test_it_gets_certificates_that_verify(server: Privet) -> None:
    vault = client(server, make_token(server, "web")["token"])
    assert vault.is_authenticated()
    assert vault.sys.read_health_status(method="GET")["sealed"] is False
    pki = vault.secrets.pki
    root = pki.read_ca_certificate()
    assert root.strip() == server.root().read_text().strip()
    assert pki.read_ca_certificate_chain() == root

    answer = pki.generate_certificate("web", "a.web.internal", {"ip_sans": "127.0.0.1", "ttl": "1h"})
    data = answer["data"]
    certificate = x509.load_pem_x509_certificate(data["certificate"].encode())
    assert_is_leaf(
        certificate, issuer=x509.load_pem_x509_certificate(root.encode()), names=["a.web.internal", "127.0.0.1"]
    )
    openssl_verify(data["certificate"].encode(), root.encode(), name="a.web.internal")
    assert same_key(certificate, load_pem_private_key(data["private_key"].encode(), None).public_key())
    assert (answer["lease_id"], answer["renewable"], answer["lease_duration"]) == ("", False, 0)
    assert pki.read_certificate(data["serial_number"])["data"]["certificate"] == data["certificate"]

    key = keys.generate(KeyType.P384)
    csr = x509.load_der_x509_csr(make_csr(key, ["b.web.internal"], cn="b.web.internal")).public_bytes(Encoding.PEM)
    signed = pki.sign_certificate("web", csr.decode(), "b.web.internal")["data"]
    assert same_key(x509.load_pem_x509_certificate(signed["certificate"].encode()), key.public_key())
    assert signed["expiration"] > data["expiration"]
    assert pki.revoke_certificate(signed["serial_number"])["data"]["state"] == "revoked"
    listed = server.certificates(["a.web.internal", "127.0.0.1"])[-1]
    assert (listed["status"], listed["profile"]) == ("valid", "role web")


def test_a_user_of_a_database_gets_one(server: Privet) -> None:
    pki = client(server, make_token(server, "epoch", "--uses", "1")["token"]).secrets.pki
    data = pki.generate_certificate("epoch", "epoch_user")["data"]
    root = server.root().read_bytes()
    certificate = x509.load_pem_x509_certificate(data["certificate"].encode())
    assert_is_leaf(certificate, issuer=x509.load_pem_x509_certificate(root), names=[], client=True, cn="epoch_user")
    openssl_verify(data["certificate"].encode(), root, purpose="sslclient")
    with pytest.raises(Forbidden, match="the token is used up"):
        pki.generate_certificate("epoch", "epoch_user")


def test_a_database_lets_in_who_has_a_certificate_from_here(server: Privet, tmp_path: Path) -> None:
    """Both ends of it have theirs by token, and PostgreSQL takes the common name for the user."""
    vaults = {role: client(server, make_token(server, role)["token"]).secrets.pki for role in ("web", "epoch")}
    with PostgreSQL() as database:
        own, theirs = database.folder / "tls", tmp_path / "client"
        for folder, role, name in ((own, "web", "localhost"), (theirs, "epoch", "epoch_user")):
            data = vaults[role].generate_certificate(role, name, {"private_key_format": "pkcs8"})["data"]
            folder.mkdir()
            for file, content in (("key.pem", data["private_key"]), ("cert.pem", data["certificate"])):
                (folder / file).touch(0o600)
                (folder / file).write_text(content)
            shutil.copy(server.root(), folder / "ca.pem")
        for path in own.iterdir():
            shutil.chown(path, database.user)
        files = {"ssl_cert_file": own / "cert.pem", "ssl_key_file": own / "key.pem", "ssl_ca_file": own / "ca.pem"}
        database.speak_tls(files, "hostssl all all all cert clientcert=verify-full")
        for user in ("epoch_user", "other_user"):
            database.do(f"CREATE ROLE {user} LOGIN")
        dsn = f"host=localhost port={database.port} dbname=postgres sslmode=verify-full sslrootcert={theirs / 'ca.pem'}"
        shown = f"sslcert={theirs / 'cert.pem'} sslkey={theirs / 'key.pem'}"
        with psycopg.connect(f"{dsn} {shown} user=epoch_user") as connection:
            assert connection.execute("SELECT current_user").fetchone() == ("epoch_user",)
        for wrong in (f"{dsn} {shown} user=other_user", f"{dsn} user=epoch_user sslcert=/none sslkey=/none"):
            with pytest.raises(psycopg.OperationalError, match="certificate"):
                psycopg.connect(wrong)


def test_refusals_are_its_own_exceptions(server: Privet) -> None:
    assert not client(server, "hvs.nonsense").is_authenticated()
    made = make_token(server, "web", "--name", "for a while")
    vault = client(server, made["token"])
    pki = vault.secrets.pki
    with pytest.raises(InvalidRequest, match=r"web\.example is not allowed by the role 'web'"):
        pki.generate_certificate("web", "web.example")
    with pytest.raises(Forbidden, match="the token is for the role 'web'"):
        pki.generate_certificate("epoch", "epoch_user")
    with pytest.raises(InvalidRequest, match="responses are not wrapped here"):
        pki.generate_certificate("web", "a.web.internal", wrap_ttl="1m")
    with pytest.raises(InvalidPath):
        pki.read_certificate("00:11")
    with pytest.raises(Forbidden, match="missing client token"):
        client(server, None).secrets.pki.generate_certificate("web", "a.web.internal")
    server.privet("token", "revoke", made["id"])
    with pytest.raises(Forbidden, match="the token is revoked"):
        pki.generate_certificate("web", "a.web.internal")


def test_what_is_printed_with_a_token_works(server: Privet) -> None:
    address = server.directory.removesuffix("/directory")
    printed = server.privet("token", "create", "--role", "web", "--external-url", address)
    lines = printed[printed.index("\nexport ") :].replace("NAME", "c.web.internal")
    curl = lines.replace("curl -sS", f"curl -sS --cacert {server.root()}")
    done = subprocess.run(["sh", "-ec", curl], capture_output=True, text=True, check=True)
    assert "BEGIN CERTIFICATE" in json.loads(done.stdout)["data"]["certificate"]
