"""Rows L20 to L24, C16, C17: contexts from PEM and from paths, and everything they refuse."""

import os
import ssl
import stat
import subprocess
import sys
import tempfile
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import trustme
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from tests.certificates import openssl
from tests.mtls.nodes import Authority, Node, now, serial_shown, shake

from privet.ca import KeyType
from privet.mtls import TLSConfigError, client_ssl_context, server_ssl_context
from privet.mtls.contexts import Source, file_of


@pytest.fixture(scope="module")
def ca() -> Authority:
    return Authority()


@pytest.fixture(scope="module")
def node(ca: Authority) -> Node:
    return ca.node()


def as_bytes(folder: Path, name: str, content: bytes) -> Source:
    return content


def as_path(folder: Path, name: str, content: bytes) -> Source:
    (folder / name).write_bytes(content)
    return folder / name


def as_text(folder: Path, name: str, content: bytes) -> Source:
    return str(as_path(folder, name, content))


@pytest.mark.parametrize("form", [as_bytes, as_path, as_text])
def test_certificates_come_as_bytes_as_str_and_as_path(
    form: Callable[[Path, str, bytes], Source], ca: Authority, node: Node, tmp_path: Path
) -> None:
    cert, key, root = form(tmp_path, "c", node.cert), form(tmp_path, "k", node.key), form(tmp_path, "r", ca.pem)
    server = server_ssl_context(cert_pem=cert, key_pem=key, ca_cert_pem=root)
    client = client_ssl_context(cert_pem=cert, key_pem=key, ca_cert_pem=root)
    for name in ("localhost", "127.0.0.1", "::1"):
        ends = shake(server, client, name)
        assert [serial_shown(end) for end in ends] == [node.serial, node.serial]
        assert ends[0].version() == "TLSv1.3"


def test_pem_in_a_str_is_no_path_and_a_key_may_stand_behind_its_certificate(ca: Authority, node: Node) -> None:
    both = (node.cert + node.key).decode()
    shake(
        server_ssl_context(cert_pem=both, ca_cert_pem=ca.pem.decode()),
        client_ssl_context(cert_pem=both, ca_cert_pem=ca.pem.decode()),
    )


def test_the_home_folder_may_be_a_tilde(
    ca: Authority, node: Node, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "ca.pem").write_bytes(ca.pem)
    client_ssl_context(ca_cert_pem="~/ca.pem")


@pytest.mark.parametrize("key_type", KeyType)
def test_whatever_key_the_authority_has(key_type: KeyType) -> None:
    ca = Authority(key_type=key_type)
    node = ca.node()
    shake(
        server_ssl_context(node.cert, node.key, ca.pem),
        client_ssl_context(node.cert, node.key, ca.pem),
    )


def test_tls_begins_at_1_2(ca: Authority, node: Node) -> None:
    server, client = server_ssl_context(node.cert, node.key, ca.pem), client_ssl_context(node.cert, node.key, ca.pem)
    assert server.minimum_version == client.minimum_version == ssl.TLSVersion.TLSv1_2
    client.maximum_version = ssl.TLSVersion.TLSv1_2
    assert shake(server, client)[0].version() == "TLSv1.2"


def test_both_sides_are_strict(ca: Authority, node: Node) -> None:
    for context in (server_ssl_context(node.cert, node.key, ca.pem), client_ssl_context(ca_cert_pem=ca.pem)):
        assert context.verify_flags & ssl.VERIFY_X509_STRICT
        assert context.verify_mode is ssl.CERT_REQUIRED


# --- who is refused at the handshake ---


def test_a_client_without_a_certificate_is_refused(ca: Authority, node: Node) -> None:
    with pytest.raises(ssl.SSLError, match="PEER_DID_NOT_RETURN_A_CERTIFICATE"):
        shake(server_ssl_context(node.cert, node.key, ca.pem), client_ssl_context(ca_cert_pem=ca.pem))


def test_a_client_of_another_authority_of_the_same_name_is_refused(ca: Authority, node: Node) -> None:
    stranger = Authority().node()
    with pytest.raises(ssl.SSLError, match="CERTIFICATE_VERIFY_FAILED"):
        shake(server_ssl_context(node.cert, node.key, ca.pem), client_ssl_context(stranger.cert, stranger.key, ca.pem))


def test_a_server_of_another_authority_is_refused(ca: Authority, node: Node) -> None:
    stranger = Authority().node()
    with pytest.raises(ssl.SSLCertVerificationError):
        shake(server_ssl_context(stranger.cert, stranger.key, ca.pem), client_ssl_context(node.cert, node.key, ca.pem))


def test_a_server_of_another_name_is_refused_and_a_common_name_is_none(ca: Authority, node: Node) -> None:
    client = client_ssl_context(node.cert, node.key, ca.pem)
    with pytest.raises(ssl.SSLCertVerificationError, match="mismatch"):
        shake(server_ssl_context(node.cert, node.key, ca.pem), client, "elsewhere.internal")
    by_cn = ca.node("10.0.0.1", cn="localhost")
    with pytest.raises(ssl.SSLCertVerificationError, match="mismatch"):
        shake(server_ssl_context(by_cn.cert, by_cn.key, ca.pem), client)


def test_one_whose_time_is_over_is_refused(ca: Authority, node: Node) -> None:
    late = ca.node(hours=0.1, at=now() - timedelta(minutes=50))
    with pytest.raises(ssl.SSLError, match="CERTIFICATE_VERIFY_FAILED"):
        shake(server_ssl_context(node.cert, node.key, ca.pem), client_ssl_context(late.cert, late.key, ca.pem))


def test_a_certificate_for_clients_serves_nobody(ca: Authority, node: Node) -> None:
    client = ca.node("localhost", client=True)
    with pytest.raises(ssl.SSLCertVerificationError, match="purpose"):
        shake(server_ssl_context(client.cert, client.key, ca.pem), client_ssl_context(node.cert, node.key, ca.pem))


def test_nobody_resumes_a_session_without_showing_a_certificate(ca: Authority, node: Node) -> None:
    server, client = server_ssl_context(node.cert, node.key, ca.pem), client_ssl_context(node.cert, node.key, ca.pem)
    first, _ = shake(server, client)
    assert not (first.session and first.session.has_ticket)
    assert not shake(server, client, session=first.session)[0].session_reused


def test_with_tls_1_2_no_ticket_is_given_to_keep(ca: Authority, node: Node) -> None:
    """OpenSSL's own memory of sessions ends with the context, at the latest."""
    server, client = server_ssl_context(node.cert, node.key, ca.pem), client_ssl_context(node.cert, node.key, ca.pem)
    client.maximum_version = ssl.TLSVersion.TLSv1_2
    first, _ = shake(server, client)
    assert first.session is not None
    assert not first.session.has_ticket
    fresh = server_ssl_context(node.cert, node.key, ca.pem)
    assert not shake(fresh, client, session=first.session)[0].session_reused


# --- revocation lists ---


def test_a_revoked_certificate_is_refused_on_either_side(ca: Authority, node: Node) -> None:
    revoked = ca.node()
    crl = ca.revocation_list([revoked])
    server = server_ssl_context(node.cert, node.key, ca.pem, crl_pem=crl)
    client = client_ssl_context(node.cert, node.key, ca.pem, crl_pem=crl)
    shake(server, client)
    with pytest.raises(ssl.SSLError, match="CERTIFICATE_VERIFY_FAILED"):
        shake(server, client_ssl_context(revoked.cert, revoked.key, ca.pem))
    with pytest.raises(ssl.SSLCertVerificationError, match="revoked"):
        shake(server_ssl_context(revoked.cert, revoked.key, ca.pem), client)


def test_without_the_list_of_its_authority_nobody_is_let_in(ca: Authority, node: Node) -> None:
    crl = Authority("Another CA").revocation_list()
    client = client_ssl_context(node.cert, node.key, ca.pem, crl_pem=crl)
    with pytest.raises(ssl.SSLCertVerificationError, match="CRL"):
        shake(server_ssl_context(node.cert, node.key, ca.pem), client)


# --- what makes no context ---


def test_a_missing_file_is_an_error_that_names_it(ca: Authority, node: Node, tmp_path: Path) -> None:
    missing = tmp_path / "missing.pem"
    for given in ((missing, node.key, ca.pem), (node.cert, missing, ca.pem), (node.cert, node.key, missing)):
        with pytest.raises(FileNotFoundError) as raised:
            server_ssl_context(*given)
        assert Path(raised.value.filename) == missing
    with pytest.raises(FileNotFoundError):
        client_ssl_context(ca_cert_pem=ca.pem, crl_pem=missing)


def encrypted(node: Node, password: bytes = b"open sesame") -> bytes:
    key = load_pem_private_key(node.key, None)
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(password))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"ca_cert_pem": b""}, "no certificate in PEM among those to trust"),
        ({"ca_cert_pem": "key"}, "no certificate in PEM among those to trust"),
        ({"ca_cert_pem": "crl"}, "no certificate in PEM among those to trust"),
        ({"ca_cert_pem": None}, "whom to trust is missing"),
        ({"cert_pem": b""}, "no certificate in PEM where one is to be shown"),
        ({"cert_pem": "key"}, "no certificate in PEM where one is to be shown"),
        ({"key_pem": None}, "no private key in PEM"),
        ({"key_pem": "cert"}, "no private key in PEM"),
        ({"key_pem": "other"}, "does not belong to the certificate"),
        ({"key_pem": "encrypted"}, "its password is missing"),
        ({"key_pem": "encrypted", "key_password": b"wrong"}, "its password is another"),
        ({"crl_pem": b""}, "no revocation list"),
        ({"crl_pem": "cert"}, "no revocation list"),
    ],
    ids=str,
)
def test_what_cannot_be_used_is_refused_in_a_sentence(
    change: dict[str, bytes | str | None], words: str, ca: Authority, node: Node
) -> None:
    contents = {
        "key": node.key,
        "cert": node.cert,
        "other": ca.node().key,
        "crl": ca.revocation_list(),
        "encrypted": encrypted(node),
    }
    given: dict[str, Any] = {
        name: contents.get(value, value) if isinstance(value, str) else value for name, value in change.items()
    }
    all = {"cert_pem": node.cert, "key_pem": node.key, "ca_cert_pem": ca.pem, **given}
    with pytest.raises(TLSConfigError, match=words) as raised:
        server_ssl_context(**all)
    assert raised.value.__cause__ is None
    if "crl_pem" not in change and "cert_pem" not in change:
        with pytest.raises(TLSConfigError, match=words):
            client_ssl_context(**all)


def test_a_key_with_its_password_is_read_and_the_password_is_not_asked_for(ca: Authority, node: Node) -> None:
    for password in (b"open sesame", "open sesame"):
        server = server_ssl_context(node.cert, encrypted(node), ca.pem, key_password=password)
        shake(server, client_ssl_context(node.cert, node.key, ca.pem))


def test_a_key_without_its_certificate_is_refused(ca: Authority, node: Node) -> None:
    with pytest.raises(TLSConfigError, match="without its certificate"):
        client_ssl_context(key_pem=node.key, ca_cert_pem=ca.pem)


# --- keys and the disk ---


def test_a_key_in_memory_touches_no_disk(ca: Authority, node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    if not hasattr(os, "memfd_create"):
        pytest.skip("this system has no files in memory")
    monkeypatch.setattr(tempfile, "tempdir", "/nowhere")
    server_ssl_context(node.cert, node.key, ca.pem)
    with file_of(b"secret") as path:
        assert path.startswith("/proc/self/fd/")
        assert Path(path).read_bytes() == b"secret"
    assert not Path(path).exists()


def test_where_files_in_memory_are_not_to_be_had_it_is_a_private_file_that_is_gone_at_once(
    ca: Authority, node: Node, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def refuse(name: str, flags: int) -> int:
        raise PermissionError("not here")

    monkeypatch.setattr(os, "memfd_create", refuse, raising=False)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with file_of(b"secret") as path:
        assert [file.name for file in tmp_path.iterdir()] == [Path(path).name]
        assert stat.S_IMODE(Path(path).stat().st_mode) == 0o600
    server_ssl_context(node.cert, node.key, ca.pem)
    with pytest.raises(TLSConfigError):
        server_ssl_context(node.cert, ca.node().key, ca.pem)
    assert list(tmp_path.iterdir()) == []


def test_without_proc_it_is_a_private_file_as_well(node: Node, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("privet.mtls.contexts._path", lambda descriptor: f"/nowhere/{descriptor}")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    before = len(list(Path("/proc/self/fd").iterdir()))
    with file_of(b"secret") as path:
        assert Path(path).parent == tmp_path
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_no_descriptor_is_left_open(ca: Authority, node: Node) -> None:
    before = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(3):
        server_ssl_context(node.cert, node.key, ca.pem)
        with pytest.raises(TLSConfigError):
            server_ssl_context(node.cert, ca.node().key, ca.pem)
    assert len(list(Path("/proc/self/fd").iterdir())) == before


# --- certificates that others made ---


def test_certificates_of_trustme_work() -> None:
    ca = trustme.CA()
    cert = ca.issue_cert("localhost")
    chain = b"".join(blob.bytes() for blob in cert.cert_chain_pems)
    given = (chain, cert.private_key_pem.bytes(), ca.cert_pem.bytes())
    shake(server_ssl_context(*given), client_ssl_context(*given))


def test_certificates_of_openssl_work(tmp_path: Path) -> None:
    """Those of the recipe in Casty's guide: its CA has no key usage, which strict verification would never accept."""
    path = {name: tmp_path / name for name in ("ca.key", "ca.pem", "node.key", "node.csr", "node.pem", "ext")}
    path["ext"].write_text("subjectAltName=IP:10.0.0.1")
    make: list[str] = ["req", "-x509", "-newkey", "rsa:2048", "-days", "365", "-nodes", "-subj", "/CN=CastyCA"]
    openssl(*make, "-keyout", path["ca.key"], "-out", path["ca.pem"])
    ask: list[str] = ["req", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=10.0.0.1"]
    openssl(*ask, "-keyout", path["node.key"], "-out", path["node.csr"])
    sign: list[str | Path] = [
        "x509",
        "-req",
        "-CAcreateserial",
        "-days",
        "365",
        "-in",
        path["node.csr"],
        "-out",
        path["node.pem"],
    ]
    openssl(*sign, "-CA", path["ca.pem"], "-CAkey", path["ca.key"], "-extfile", path["ext"])
    given = (path["node.pem"], path["node.key"], path["ca.pem"])
    shake(server_ssl_context(*given), client_ssl_context(*given), "10.0.0.1")


def test_a_certificate_that_does_not_say_who_issued_it_is_refused(ca: Authority, node: Node) -> None:
    """What Python 3.13 refuses by default is refused on 3.11 as well."""
    key = ec.generate_private_key(ec.SECP256R1())
    bare = (
        x509.CertificateBuilder(ca.root.subject, x509.Name([]), key.public_key(), 1, now(), now() + timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=True)
        .sign(ca.issuer.key, hashes.SHA256())
    )
    traditional = key.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption())
    server = server_ssl_context(bare.public_bytes(Encoding.PEM), traditional, ca.pem)
    with pytest.raises(ssl.SSLCertVerificationError, match="Authority Key Identifier"):
        shake(server, client_ssl_context(node.cert, node.key, ca.pem))


def test_nobody_is_asked_on_a_terminal(ca: Authority, node: Node, tmp_path: Path) -> None:
    """OpenSSL would ask for the password of a key, and a service would hang at its start."""
    (tmp_path / "node.pem").write_bytes(node.cert + encrypted(node))
    (tmp_path / "ca.pem").write_bytes(ca.pem)
    program = "from privet.mtls import server_ssl_context as s; s('node.pem', None, 'ca.pem')"
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        check=False,
    )
    assert "its password is missing" in done.stderr
    assert "PRIVATE" not in done.stderr
