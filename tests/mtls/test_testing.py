"""Rows H11 to H14: certificates for tests, with one call."""

import stat
from datetime import timedelta
from pathlib import Path

from cryptography import x509
from tests.certificates import assert_is_ca, assert_is_leaf, openssl_verify
from tests.mtls.nodes import shake

from privet import TLSConfig, build_client_ssl_context, build_server_ssl_context, generate_test_certificates


def test_one_call_makes_an_authority_a_server_and_a_client(tmp_path: Path) -> None:
    folder = tmp_path / "made"
    tls = generate_test_certificates(str(folder))
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) & 0o077 for path in folder.iterdir()}
    assert set(modes) == {"ca.pem", "server.pem", "server.key", "client.pem", "client.key"}
    assert modes["server.key"] == modes["client.key"] == 0
    ca, server, client = (
        x509.load_pem_x509_certificate((folder / f"{each}.pem").read_bytes()) for each in ("ca", "server", "client")
    )
    assert_is_ca(ca, cn="privet Test CA")
    names = ["localhost", "127.0.0.1", "::1"]
    assert_is_leaf(server, issuer=ca, names=names, cn="privet Test Server")
    assert_is_leaf(client, issuer=ca, names=[], cn="privet Test Client", client=True)
    for each in (server, client):
        assert each.not_valid_after_utc - each.not_valid_before_utc == timedelta(days=365)
    root = (folder / "ca.pem").read_bytes()
    openssl_verify((folder / "server.pem").read_bytes(), root, name="localhost")
    openssl_verify((folder / "client.pem").read_bytes(), root, purpose="sslclient")
    assert tls == TLSConfig(str(folder / "server.pem"), str(folder / "server.key"), str(folder / "ca.pem"))


def test_they_shake_hands_and_can_be_made_again(tmp_path: Path) -> None:
    for _ in range(2):
        server = generate_test_certificates(tmp_path)
        client = TLSConfig(str(tmp_path / "client.pem"), str(tmp_path / "client.key"), str(tmp_path / "ca.pem"))
        for name in ("localhost", "127.0.0.1", "::1"):
            shake(build_server_ssl_context(server), build_client_ssl_context(client), name)
