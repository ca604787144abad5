"""Rows C1 to C5 and H2 to H7: one frozen object for every way to say where certificates lie."""

import dataclasses
import ssl
from pathlib import Path

import pytest
from tests.mtls.nodes import Authority, shake

from privet.ca import keys
from privet.mtls import TLSConfig, TLSConfigError, build_client_ssl_context, build_server_ssl_context


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A node's folder: `node.crt`, `node.key`, `ca.pem`, both in `node.pem`, and the key with a password."""
    ca = Authority()
    node = ca.node()
    node.write(tmp_path)
    (tmp_path / "ca.pem").write_bytes(ca.pem)
    (tmp_path / "node.pem").write_bytes(node.cert + node.key)
    (tmp_path / "locked.key").write_bytes(keys.to_pem(keys.from_pem(node.key), b"open sesame"))
    return tmp_path


def paths(folder: Path) -> tuple[str, str, str]:
    return str(folder / "node.crt"), str(folder / "node.key"), str(folder / "ca.pem")


def test_from_paths_holds_both_contexts_of_mutual_tls(folder: Path) -> None:
    cert, key, ca = paths(folder)
    tls = TLSConfig.from_paths(certfile=cert, cafile=ca, keyfile=key)
    assert tls.server_context is tls.server_context
    shake(tls.server_context, tls.client_context)
    with pytest.raises(ssl.SSLError, match="PEER_DID_NOT_RETURN"):
        shake(tls.server_context, build_client_ssl_context(TLSConfig(ca_certificates_path=ca)))


def test_without_a_keyfile_the_key_is_in_the_same_file(folder: Path) -> None:
    tls = TLSConfig.from_paths(certfile=folder / "node.pem", cafile=folder / "ca.pem")
    shake(tls.server_context, tls.client_context)


def test_from_paths_finds_out_at_once(folder: Path) -> None:
    with pytest.raises(FileNotFoundError):
        TLSConfig.from_paths(certfile=folder / "node.pem", cafile=folder / "missing.pem")
    with pytest.raises(TLSConfigError, match="no private key"):
        TLSConfig.from_paths(certfile=folder / "node.crt", cafile=folder / "ca.pem")


def test_two_contexts_of_ones_own(folder: Path) -> None:
    made = TLSConfig.from_paths(certfile=folder / "node.pem", cafile=folder / "ca.pem")
    server, client = made.server_context, made.client_context
    tls = TLSConfig(server_context=server, client_context=client)
    assert (tls.server_context, tls.client_context) == (server, client)
    assert tls != TLSConfig(server_context=server)
    assert tls == TLSConfig(server_context=server, client_context=client)


def test_it_is_frozen_and_compares_by_what_it_says(folder: Path) -> None:
    tls = TLSConfig(*paths(folder))
    with pytest.raises(dataclasses.FrozenInstanceError):
        tls.certificate_path = "other.pem"  # type: ignore[misc]
    assert tls == TLSConfig(*paths(folder))
    assert hash(tls) == hash(TLSConfig(*paths(folder)))
    _ = tls.server_context
    other = dataclasses.replace(tls, ca_certificates_path=None)
    assert other != tls
    with pytest.raises(TLSConfigError, match="whom to trust"):
        _ = other.server_context


def test_every_path_is_optional_and_nothing_is_read_before_it_is_needed() -> None:
    assert TLSConfig() == TLSConfig(None, None, None)
    tls = TLSConfig(certificate_path="path/to/cert.pem", private_key_path="path/to/key.pem")
    with pytest.raises(FileNotFoundError):
        build_server_ssl_context(tls)


def test_secrets_are_not_in_its_repr(folder: Path) -> None:
    cert, _, ca = paths(folder)
    tls = TLSConfig(cert, str(folder / "locked.key"), ca, key_password=b"open sesame")
    shake(tls.server_context, tls.client_context)
    shown = repr(tls)
    assert "sesame" not in shown
    assert "PRIVATE" not in shown
    assert shown.startswith("TLSConfig(certificate_path='")


def test_the_contexts_that_are_built_speak_tls_1_3_alone(folder: Path) -> None:
    tls = TLSConfig(*paths(folder))
    server, client = build_server_ssl_context(tls), build_client_ssl_context(tls)
    assert server.minimum_version == client.minimum_version == ssl.TLSVersion.TLSv1_3
    assert shake(server, client)[0].version() == "TLSv1.3"
    assert server.verify_mode is ssl.CERT_REQUIRED
    old = TLSConfig(*paths(folder)).client_context
    old.maximum_version = ssl.TLSVersion.TLSv1_2
    with pytest.raises(ssl.SSLError):
        shake(server, old)


def test_a_server_without_a_ca_asks_for_no_certificate(folder: Path) -> None:
    cert, key, ca = paths(folder)
    server = build_server_ssl_context(TLSConfig(cert, key))
    assert server.verify_mode is ssl.CERT_NONE
    shake(server, build_client_ssl_context(TLSConfig(ca_certificates_path=ca)))


def test_a_client_without_a_ca_trusts_what_the_system_trusts(folder: Path) -> None:
    cert, key, _ = paths(folder)
    client = build_client_ssl_context(TLSConfig())
    assert client.verify_mode is ssl.CERT_REQUIRED
    with pytest.raises(ssl.SSLCertVerificationError):
        shake(build_server_ssl_context(TLSConfig(cert, key)), client)


def test_a_missing_file_is_an_error_and_no_empty_trust_store(folder: Path) -> None:
    cert, key, _ = paths(folder)
    for build in (build_client_ssl_context, build_server_ssl_context):
        with pytest.raises(FileNotFoundError):
            build(TLSConfig(cert, key, str(folder / "missing.pem")))
    with pytest.raises(TLSConfigError, match="needs a certificate"):
        build_server_ssl_context(TLSConfig())


def test_revocation_lists_have_a_path_too(folder: Path) -> None:
    cert, key, ca = paths(folder)
    with pytest.raises(FileNotFoundError):
        build_server_ssl_context(TLSConfig(cert, key, ca, revocation_lists_path=folder / "missing.pem"))
    for build in (build_client_ssl_context, build_server_ssl_context):
        with pytest.raises(TLSConfigError, match="revocation lists without"):
            build(TLSConfig(cert, key, revocation_lists_path=ca))
    assert TLSConfig(cert, key, ca).server_context.cert_store_stats()["crl"] == 0
