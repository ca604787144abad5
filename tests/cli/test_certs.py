"""Rows C7 to C12: `privet cert`, an authority in two files."""

import base64
import os
import re
import stat
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, load_pem_private_key
from hypothesis import given
from hypothesis import strategies as st
from tests.certificates import assert_is_ca, assert_is_leaf, openssl, openssl_verify, same_key
from tests.cli.command import PRIVET, Person, environment
from tests.interop.programs import Program
from tests.mtls.nodes import Authority, shake

from privet import TLSConfig, extract_peer_cn
from privet.ca import KeyType, keys
from privet.ca.constraints import NameConstraints
from privet.ca.issuer import make_root
from privet.cli.certs import _document
from privet.cli.contents import Kind, contents_of


def read(path: Path) -> x509.Certificate:
    return x509.load_pem_x509_certificate(path.read_bytes())


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.fixture
def founder(person: Person) -> Person:
    person.does("cert", "create-ca", "--out", "certs/")
    return person


def test_an_authority_is_two_files(founder: Person) -> None:
    folder = founder.folder / "certs"
    assert {path.name: mode(path) for path in folder.iterdir()} == {"ca.crt": 0o644, "ca.key": 0o600}
    ca = read(folder / "ca.crt")
    assert_is_ca(ca, cn="privet CA")
    assert ca.not_valid_after_utc - ca.not_valid_before_utc == timedelta(days=365)
    key = load_pem_private_key((folder / "ca.key").read_bytes(), None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    assert isinstance(key.curve, ec.SECP256R1)
    assert same_key(ca, key.public_key())


def test_a_node_and_a_client_of_it_shake_hands(founder: Person) -> None:
    founder.does("cert", "create-node", "10.0.0.1", "node-1.internal", "--ca-dir", "certs/", "--out", "certs/node-1/")
    founder.does("cert", "create-client", "my_app user", "--ca-dir", "certs/", "--out", "certs/client/")
    certs = founder.folder / "certs"
    root, node, client = (read(certs / each) for each in ("ca.crt", "node-1/node.crt", "client/client.crt"))
    assert_is_leaf(node, issuer=root, names=["10.0.0.1", "node-1.internal"])
    assert_is_leaf(client, issuer=root, names=[], cn="my_app user", client=True)
    for each in (node, client):
        assert each.not_valid_after_utc - each.not_valid_before_utc == timedelta(days=90)
    assert mode(certs / "node-1/node.key") == mode(certs / "client/client.key") == 0o600
    pem = (certs / "ca.crt").read_bytes()
    openssl_verify((certs / "node-1/node.crt").read_bytes(), pem, name="10.0.0.1")
    openssl_verify((certs / "client/client.crt").read_bytes(), pem, purpose="sslclient")
    server = TLSConfig.from_paths(certs / "node-1/node.crt", certs / "ca.crt", certs / "node-1/node.key")
    caller = TLSConfig.from_paths(certs / "client/client.crt", certs / "ca.crt", certs / "client/client.key")
    shake(server.server_context, caller.client_context, "node-1.internal")


def test_nothing_is_overwritten_unasked(founder: Person) -> None:
    for command in (["create-ca"], ["create-node", "a.internal"], ["create-client", "a"]):
        where = ["--out", "certs/", *([] if command == ["create-ca"] else ["--ca-dir", "certs/"])]
        part = command[0].removeprefix("create-")
        if part != "ca":
            founder.does("cert", *command, *where)
        before = (founder.folder / f"certs/{part}.key").read_bytes()
        again = founder.tries("cert", *command, *where)
        assert (again.status, again.sentences) == (
            1,
            [f"certs/{part}.crt exists: replace it with --force, or choose another folder with --out"],
        )
        assert (founder.folder / f"certs/{part}.key").read_bytes() == before
        if part != "ca":
            founder.does("cert", *command, *where, "--force")
            assert (founder.folder / f"certs/{part}.key").read_bytes() != before
    link = founder.folder / "certs/lost/node.key"
    link.parent.mkdir()
    link.symlink_to("nowhere")
    again = founder.tries("cert", "create-node", "a.internal", "--ca-dir", "certs/", "--out", "certs/lost")
    assert again.sentences[0].startswith("certs/lost/node.key exists: ")
    assert link.is_symlink()
    founder.does("cert", "create-ca", "--out", "certs/", "--force")
    key = founder.folder / "certs/ca.key"
    key.chmod(0o644)
    founder.does("cert", "create-ca", "--out", "certs/", "--force")
    assert mode(key) == 0o600
    assert not [path for path in (founder.folder / "certs").iterdir() if path.name.startswith(".")]


def test_of_several_that_make_an_authority_at_once_one_does(person: Person) -> None:
    """No certificate beside the key of another, whoever was first."""
    command = [*PRIVET, "cert", "create-ca", "--out", "certs"]
    several = [
        Program(*command, "--cn", f"CA {number}", env=environment(person.folder), cwd=person.folder)
        for number in range(4)
    ]
    ended = [(each.process.wait(60), each.stop(), each.output) for each in several]
    assert sorted(status for status, *_ in ended) == [0, 1, 1, 1]
    for status, _, output in ended:
        assert status == 0 or re.search(r"^privet: certs/ca\.(crt|key) exists: ", output)
    person.does("cert", "create-node", "a.internal", "--ca-dir", "certs", "--out", "certs/node")
    assert sorted(path.name for path in (person.folder / "certs").iterdir()) == ["ca.crt", "ca.key", "node"]


def test_an_authority_whose_key_others_may_open_is_pointed_out(founder: Person) -> None:
    (founder.folder / "certs/ca.key").chmod(0o640)
    done = founder.does("cert", "create-node", "a.internal", "--ca-dir", "certs", "--out", "certs/node")
    (told,) = done.sentences
    assert told == "others may open certs/ca.key, which signs for everybody: chmod 600 certs/ca.key"


def test_what_strangers_wrote_moves_no_cursor(founder: Person) -> None:
    """Names in certificates may have anything in them."""
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "\x1b[2J\x9b31mred")])
    key, now = ec.generate_private_key(ec.SECP256R1()), datetime.now(UTC)
    builder = x509.CertificateBuilder(name, name, key.public_key(), 1, now - timedelta(1), now + timedelta(1))
    (founder.folder / "red.crt").write_bytes(builder.sign(key, hashes.SHA256()).public_bytes(Encoding.PEM))
    for command in (
        ("cert", "list"),
        ("cert", "info", "red.crt"),
        ("doctor", "--cert", "red.crt", "--ca", "certs/ca.crt"),
    ):
        said = founder.tries(*command).out
        assert "red" in said
        assert not re.search(r"[\x1b\x9b]", said)


def test_how_long_and_with_which_key_can_be_said(person: Person) -> None:
    person.does("cert", "create-ca", "--validity", "30", "--cn", "Short CA", "--key-type", "Ed25519")
    assert isinstance(load_pem_private_key((person.folder / "ca.key").read_bytes(), None), ed25519.Ed25519PrivateKey)
    made = person.does("cert", "create-node", "a.internal", "--validity", "7", "--key-type", "RSA-2048", "--json").json
    leaf, root = read(person.folder / "node.crt"), read(person.folder / "ca.crt")
    assert_is_ca(root, cn="Short CA")
    assert_is_leaf(leaf, issuer=root, names=["a.internal"])
    assert leaf.not_valid_after_utc - leaf.not_valid_before_utc == timedelta(days=7)
    assert isinstance(leaf.public_key(), rsa.RSAPublicKey)
    assert made["files"] == {"crt": "node.crt", "key": "node.key"}
    assert made["names"] == ["a.internal"]
    clamped = person.does("cert", "create-node", "a.internal", "--force")
    assert clamped.sentences == ["it ends with its CA, before 90 days are over"]


def test_keys_can_have_passwords(person: Person) -> None:
    (person.folder / "one").write_text("open sesame\n")
    (person.folder / "two").write_text("other\n")
    person.does("cert", "create-ca", "--password-file", "one")
    wrong = person.tries("cert", "create-node", "a.internal", "--ca-password-file", "two")
    missing = person.tries("cert", "create-node", "a.internal")
    for each in (wrong, missing):
        assert each.status == 1
        assert "--ca-password-file says which file has it" in each.sentences[0]
    person.does("cert", "create-node", "a.internal", "--ca-password-file", "one", "--password-file", "two")
    load_pem_private_key((person.folder / "node.key").read_bytes(), b"other")
    assert "its password is missing" in person.does("cert", "info", "node.key").out
    assert "P-256" in person.does("cert", "info", "node.key", "--password-file", "two").out
    assert "password is another" in person.does("cert", "info", "node.key", "--password-file", "one").out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["create-node", "a_b.internal"], "a_b.internal"),
        (["create-node", "10.0.0.256"], "10.0.0.256"),
        (["create-client", ""], "common name"),
        (["create-client", "x" * 65], "1 to 64"),
        (["create-client", "a\nb"], "printable"),
        (["create-node", "a.internal", "--ca-dir", "nowhere"], "privet cert create-ca --out nowhere"),
        (["info", "missing.pem"], "missing.pem"),
        (["list", "certs/ca.crt"], "privet cert info certs/ca.crt"),
        (["list", "certz"], "there is no folder certz"),
    ],
)
def test_what_cannot_be_done_is_said(arguments: list[str], words: str, founder: Person) -> None:
    where = ["--ca-dir", "certs"] if arguments[0].startswith("create") and "--ca-dir" not in arguments else []
    done = founder.tries("cert", *arguments, *where)
    assert done.status in (1, 2)
    assert words in done.sentences[0]
    assert not (founder.folder / "node.key").exists()


def test_a_wildcard_that_openssl_does_not_know_is_pointed_out(founder: Person) -> None:
    done = founder.does("cert", "create-node", "*.internal", "*.mesh.internal", "--ca-dir", "certs")
    (told,) = done.sentences
    assert "takes *.internal for no wildcard" in told
    # That is so: what the doctor says here comes from OpenSSL.
    files = ("--cert", "node.crt", "--key", "node.key", "--ca", "certs/ca.crt")
    assert "hostname-mismatch" in founder.tries("doctor", *files, "--name", "a.internal").out
    founder.does("doctor", *files, "--name", "a.mesh.internal")


def test_the_files_of_an_authority_are_told_apart(founder: Person) -> None:
    folder = founder.folder / "certs"
    cert, key = (folder / "ca.crt").read_bytes(), (folder / "ca.key").read_bytes()
    (folder / "ca.crt").write_bytes(key)
    done = founder.tries("cert", "create-node", "a.internal", "--ca-dir", "certs")
    assert done.sentences == ["certs/ca.crt is a private key, and not a certificate"]
    (folder / "ca.crt").write_bytes(cert)
    (folder / "ca.key").write_bytes(cert + cert)
    done = founder.tries("cert", "create-node", "a.internal", "--ca-dir", "certs")
    assert done.sentences == ["certs/ca.key is a certificate, and not a private key"]


def test_info_tells_what_a_certificate_says(founder: Person) -> None:
    founder.does("cert", "create-node", "10.0.0.1", "n.internal", "--ca-dir", "certs")
    leaf = read(founder.folder / "node.crt")
    (told,) = founder.does("cert", "info", "node.crt", "--json").json
    assert told["kind"] == "certificate"
    assert told["names"] == ["10.0.0.1", "n.internal"]
    assert told["serial"] == f"{leaf.serial_number:x}"
    assert told["uses"] == ["serverAuth", "clientAuth"]
    assert told["status"] == "valid"
    (key,) = founder.does("cert", "info", "node.key", "--json").json
    assert (key["kind"], key["form"], key["key"]) == ("private key", "PKCS#8", "P-256")
    assert key["key_id"] == told["key_id"], "so that one sees whether they belong together"
    shown = founder.does("cert", "info", "node.crt").out
    assert "10.0.0.1, n.internal" in shown
    (root,) = founder.does("cert", "info", "certs/ca.crt", "--json").json
    assert root["ca"] == "yes"
    assert root["certifies"] is None, "whatever is asked for"
    constraints = NameConstraints(permitted=["internal", "10.0.0.0/8"])
    narrow = make_root(keys.generate(KeyType.P256), "Narrow CA", datetime.now(UTC), timedelta(days=1), constraints)
    (founder.folder / "narrow.crt").write_bytes(narrow.chain_pem)
    assert "certifies    only internal, 10.0.0.0/8\n" in founder.does("cert", "info", "narrow.crt").out


def forms(folder: Path) -> dict[str, tuple[bytes, Kind, str]]:
    """Everything a file can be, made by openssl where it can."""
    ca = Authority()
    key = openssl("genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256")
    rsa_key = openssl("genpkey", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048")
    (folder / "k").write_bytes(key)
    csr = openssl("req", "-new", "-key", folder / "k", "-subj", "/CN=a.internal")
    crl = ca.revocation_list()
    locked = openssl("pkcs8", "-topk8", "-passout", "pass:x", input=key)
    (folder / "c").write_bytes(ca.pem)
    container = openssl("pkcs12", "-export", "-nokeys", "-in", folder / "c", "-passout", "pass:x")
    rsa_ = ["rsa", "-traditional"]
    der, new = ["-outform", "DER"], ["-passout", "pass:x"]
    return {
        "certificate": (ca.pem, Kind.CERTIFICATE, "PEM"),
        "certificate in DER": (ca.root.public_bytes(Encoding.DER), Kind.CERTIFICATE, "DER"),
        "key": (key, Kind.KEY, "PKCS#8"),
        "key with parameters": (openssl("ecparam", "-genkey", "-name", "prime256v1"), Kind.KEY, "traditional"),
        "traditional RSA": (openssl(*rsa_, input=rsa_key), Kind.KEY, "traditional"),
        "traditional RSA in DER": (openssl(*rsa_, *der, input=rsa_key), Kind.KEY, "traditional in DER"),
        "key in DER": (openssl("pkcs8", "-topk8", "-nocrypt", *der, input=key), Kind.KEY, "PKCS#8 in DER"),
        "locked": (locked, Kind.KEY, "PKCS#8"),
        "locked in DER": (openssl("pkcs8", "-topk8", *der, *new, input=key), Kind.KEY, "PKCS#8 in DER"),
        "locked, traditional": (openssl(*rsa_, "-aes256", *new, input=rsa_key), Kind.KEY, "traditional"),
        "request": (csr, Kind.CSR, "PEM"),
        "request in DER": (openssl("req", *der, input=csr), Kind.CSR, "DER"),
        "revocation list": (crl, Kind.CRL, "PEM"),
        "revocation list in DER": (x509.load_pem_x509_crl(crl).public_bytes(Encoding.DER), Kind.CRL, "DER"),
        "public key": (openssl("pkey", "-pubout", input=key), Kind.PUBLIC_KEY, "PEM"),
        "container": (container, Kind.PKCS12, "DER"),
    }


def test_info_reads_everything_there_is(person: Person) -> None:
    for name, (content, kind, form) in forms(person.folder).items():
        (item,) = contents_of(content)
        assert (item.kind, item.form) == (kind, form), name
        (person.folder / "f").write_bytes(content)
        out = person.does("cert", "info", "f").out
        assert kind.value.partition(" ")[2] in out, name
        if item.encrypted and kind is Kind.KEY:
            (opened,) = contents_of(content, b"x")
            assert opened.value is not None, name
            (closed,) = contents_of(content, b"y")
            assert closed.problem == "its password is another, or it is damaged", name


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "is empty"),
        (b"\n\n", "is empty"),
        (b"hello\n", "none of certificate, key, request"),
        (b"\x30\x03\x02\x01", "none of certificate, key, request"),
        (b"\xff" * 100, "none of certificate, key, request"),
        (b"-----BEGIN CERTIFICATE-----\nMIIB", "does not end"),
        (b"-----BEGIN PGP MESSAGE-----\nx\n-----END PGP MESSAGE-----\n", "PGP MESSAGE"),
    ],
)
def test_info_says_what_is_nothing_of_the_kind(content: bytes, words: str, person: Person) -> None:
    (person.folder / "f").write_bytes(content)
    done = person.tries("cert", "info", "f")
    assert done.status == 1
    assert words in done.sentences[0]


@pytest.mark.parametrize("command", [("cert", "create-ca", "--out", "certs"), ("issue", "a.internal", "--out", "web")])
def test_a_password_that_openssl_cannot_read_is_said_beforehand(person: Person, command: tuple[str, ...]) -> None:
    """Such as a file of something else."""
    (person.folder / "long").write_text("x" * 1024)
    refused = person.tries(*command, "--password-file", "long")
    assert refused.sentences == ["the password file long has 1024 octets, and a password has 1023 at most"]
    (person.folder / "long").write_text("x" * 1023 + "\n")
    done = person.does("cert", "create-ca", "--out", "certs", "--password-file", "long")
    assert done.sentences == []


@pytest.mark.parametrize("label", ["CERTIFICATE", "CERTIFICATE REQUEST", "X509 CRL", "PUBLIC KEY", "PRIVATE KEY"])
def test_what_is_damaged_is_still_named(label: str) -> None:
    (item,) = contents_of(f"-----BEGIN {label}-----\nAAAA\n-----END {label}-----\n".encode())
    assert item.problem == "it is damaged"
    assert item.kind is not Kind.UNKNOWN


@given(st.binary(max_size=400), st.sampled_from(["", "CERTIFICATE", "EC PRIVATE KEY", "X509 CRL", "PUBLIC KEY"]))
def test_any_bytes_at_all_are_named(content: bytes, label: str) -> None:
    if label:
        text = base64.encodebytes(content)
        content = b"-----BEGIN %b-----\n%b-----END %b-----\n" % (label.encode(), text, label.encode())
    items = contents_of(content, b"password")
    assert items
    assert all(item.value is not None or item.problem or item.kind in (Kind.EMPTY, Kind.UNKNOWN) for item in items)


@given(st.data())
def test_a_certificate_with_a_wrong_byte_is_named(data: st.DataObject) -> None:
    der = bytearray(SOUND)
    der[data.draw(st.integers(0, len(der) - 1))] = data.draw(st.integers(0, 255))
    (item,) = contents_of(bytes(der))
    _document(item, datetime.now(UTC))
    assert extract_peer_cn(bytes(der)) is None or isinstance(extract_peer_cn(bytes(der)), str)


SOUND = Authority().root.public_bytes(Encoding.DER)


def test_list_finds_them_all_and_marks_what_has_expired(founder: Person) -> None:
    founder.does("cert", "create-node", "n.internal", "--ca-dir", "certs", "--out", "certs/deep/er")
    ca = Authority()
    old = ca.node("old.internal", hours=1, at=datetime.now(UTC) - timedelta(minutes=55))
    (founder.folder / "certs/old.pem").write_bytes(old.cert + ca.pem)
    (founder.folder / "certs/notes.txt").write_text("nothing")
    (founder.folder / "certs/gone").symlink_to("nowhere")
    os.mkfifo(founder.folder / "certs/pipe")
    listed = founder.does("cert", "list", "certs").out.splitlines()
    assert [line.split()[0] for line in listed] == [
        "FILE",
        "certs/ca.crt",
        "certs/deep/er/node.crt",
        "certs/old.pem",
        "certs/old.pem",
    ]
    assert "n.internal" in listed[2]
    documents = founder.does("cert", "list", "certs", "--json").json
    assert [(each["file"], each["status"]) for each in documents][1] == ("certs/deep/er/node.crt", "valid")


def test_an_expired_one_is_marked(person: Person) -> None:
    ca = Authority()
    cert = ca.node("old.internal", hours=0.5, at=datetime.now(UTC) - timedelta(minutes=50)).cert
    (person.folder / "old.crt").write_bytes(cert)
    out = person.does("cert", "list").out
    assert "EXPIRED" in out
    assert "old.internal" in out
    assert person.does("cert", "info", "old.crt", "--json").json[0]["status"] == "expired"
