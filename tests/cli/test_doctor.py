"""Row E10: each cause of a handshake that fails is reproduced, and found by its name with what to do about it."""

import json
import os
import socket
import ssl
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import pytest
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
from cryptography.x509.oid import ExtendedKeyUsageOID
from tests.cli.command import Person
from tests.mtls.nodes import Authority, Node

from privet import CertificateAuthority, MemoryStore, testing
from privet.ca import KeyType, keys
from privet.ca.constraints import NameConstraints
from privet.ca.issuer import Issuer, make_root
from privet.client.issued import certificate_id
from privet.mtls import server_ssl_context
from privet.mtls.contexts import read, server_context


@pytest.fixture
def ca() -> Authority:
    return Authority()


@pytest.fixture
def files(person: Person, ca: Authority) -> Path:
    """`ca.pem`, `node.crt` and `node.key`, with nothing wrong."""
    (person.folder / "ca.pem").write_bytes(ca.pem)
    put(person.folder, ca.node())
    return person.folder


def put(folder: Path, node: Node, name: str = "node") -> None:
    (folder / f"{name}.crt").write_bytes(node.cert)
    key = folder / f"{name}.key"
    key.touch(0o600)
    key.write_bytes(node.key)


FILES = ("--cert", "node.crt", "--key", "node.key", "--ca", "ca.pem")


def causes(person: Person, *arguments: str, problems: bool = True) -> list[str]:
    """The causes that are found; every one says something, and what to do."""
    done = person.tries("doctor", *arguments, "--json")
    findings: list[dict[str, Any]] = done.json["findings"]
    assert all(finding["says"] and finding["do"] for finding in findings)
    found = [finding["cause"] for finding in findings if finding["problem"]]
    assert done.status == (1 if found else 0)
    assert done.json["well"] is not found or not found
    return found if problems else [finding["cause"] for finding in findings if not finding["problem"]]


def says(person: Person, *arguments: str) -> str:
    return person.tries("doctor", *arguments).out


def test_what_is_well_is_well(person: Person, files: Path) -> None:
    done = person.does("doctor", *FILES, "--name", "localhost")
    assert done.out == "nothing is wrong with what was looked at\n"
    assert causes(person, *FILES, problems=False) == []


def test_expired(person: Person, files: Path, ca: Authority) -> None:
    put(files, ca.node(hours=0.5, at=datetime.now(UTC) - timedelta(minutes=50)))
    assert causes(person, *FILES) == ["expired"]
    assert "renew it" in says(person, *FILES)


def test_it_ends_soon(person: Person, files: Path, ca: Authority) -> None:
    put(files, ca.node(hours=1, at=datetime.now(UTC) - timedelta(minutes=55)))
    assert causes(person, *FILES) == []
    assert causes(person, *FILES, problems=False) == ["expires-soon"]


def test_clock_skew(person: Person, files: Path, ca: Authority) -> None:
    put(files, ca.node(at=datetime.now(UTC) + timedelta(minutes=50)))
    assert causes(person, *FILES) == ["clock-skew"]
    assert "NTP" in says(person, *FILES)


def test_chain_incomplete(person: Person, files: Path, ca: Authority) -> None:
    """Found exactly where the missing certificate is at hand, and as one of two where it is not."""
    intermediate, node = below(ca)
    put(files, node)
    assert causes(person, *FILES) == ["chain-incomplete", "wrong-ca"]
    (files / "intermediate.pem").write_bytes(intermediate)
    assert causes(person, *FILES) == ["chain-incomplete"]
    assert "put intermediate.pem behind the certificate" in says(person, *FILES)
    (files / "node.crt").write_bytes(node.cert + intermediate)
    assert causes(person, *FILES) == []


def below(ca: Authority) -> tuple[bytes, Node]:
    """An intermediate of the authority, and a node of it."""
    now = datetime.now(UTC)
    key, leaf_key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "Intermediate CA")])
    hour = timedelta(hours=1)
    intermediate = (
        x509.CertificateBuilder(ca.root.subject, subject, key.public_key(), 7, now - hour / 2, now + hour)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(ca.issuer.key, hashes.SHA256())
    )
    leaf = (
        x509.CertificateBuilder(subject, x509.Name([]), leaf_key.public_key(), 8, now - hour / 2, now + hour)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=True)
        .sign(key, hashes.SHA256())
    )
    pkcs8 = leaf_key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return intermediate.public_bytes(Encoding.PEM), Node(leaf.public_bytes(Encoding.PEM), pkcs8)


def test_wrong_ca(person: Person, files: Path, ca: Authority) -> None:
    other = Authority("Other CA")
    put(files, other.node())
    assert "wrong-ca" in causes(person, *FILES)
    (files / "other-root.pem").write_bytes(other.pem)
    assert causes(person, *FILES) == ["wrong-ca"]
    assert "CN=Other CA" in says(person, *FILES)
    assert "other-root.pem" in says(person, *FILES)
    (files / "node.crt").write_bytes(other.node().cert + other.pem)
    assert "wrong-ca" in causes(person, "--cert", "node.crt", "--ca", "ca.pem")


def test_wrong_ca_of_the_same_name(person: Person, files: Path) -> None:
    """The authority was made anew, and the old root is still about."""
    put(files, Authority().node())
    assert causes(person, *FILES) == ["wrong-ca"]
    assert "its key is another" in says(person, *FILES)


def test_hostname_mismatch(person: Person, files: Path, ca: Authority) -> None:
    put(files, ca.node("*.mesh.internal", "10.0.0.1", "fd00::1"))
    for name in ("a.mesh.internal", "A.MESH.INTERNAL", "10.0.0.1", "fd00:0::1"):
        assert causes(person, *FILES, "--name", name) == []
    for name in ("mesh.internal", "a.b.mesh.internal", "elsewhere", "10.0.0.2"):
        assert causes(person, *FILES, "--name", name) == ["hostname-mismatch"]
    assert "*.mesh.internal, 10.0.0.1, fd00::1" in says(person, *FILES, "--name", "elsewhere")
    put(files, ca.node(cn="elsewhere", client=True))
    assert "a common name does not count" in says(person, *FILES, "--name", "elsewhere")


def test_what_openssl_calls_a_mismatch(person: Person, files: Path, ca: Authority) -> None:
    """Some programs find the name in such a certificate, and OpenSSL does not."""
    put(files, ca.node("*.internal"))
    assert causes(person, *FILES, "--name", "a.internal") == ["hostname-mismatch"]
    assert "two labels behind its star" in says(person, *FILES, "--name", "a.internal")
    with serving(one_way(ca.node("localhost"))) as address:
        assert causes(person, address, "--ca", "ca.pem", "--name", "localhost.") == ["hostname-mismatch"]


def test_what_only_openssl_finds(person: Person, files: Path) -> None:
    """A root that is good for other names: everything else is well, in files and at a server, of either side."""
    constraints = NameConstraints(permitted=["mesh.internal"])
    root = make_root(keys.generate(KeyType.P256), "Mesh CA", datetime.now(UTC), timedelta(days=2), constraints)
    (files / "ca.pem").write_bytes(root.chain_pem)
    node = signed_in_spite_of(root, "other.internal")
    put(files, node)
    assert causes(person, *FILES) == ["not-verified"]
    assert "permitted subtree violation" in says(person, *FILES)
    assert "good for some names alone" in says(person, *FILES)
    client = signed_in_spite_of(root, "other.internal", ExtendedKeyUsageOID.CLIENT_AUTH)
    put(files, client)
    assert causes(person, *FILES) == ["not-verified"]
    with serving(one_way(node)) as address:
        assert causes(person, address, "--ca", "ca.pem", "--name", "other.internal") == ["not-verified"]
    put(files, signed_in_spite_of(root, "a.mesh.internal"))
    assert causes(person, *FILES) == []


def signed_in_spite_of(root: Issuer, name: str, *uses: x509.ObjectIdentifier) -> Node:
    """A certificate such as a CA makes that does not look at its own constraints."""
    key, now, hour = ec.generate_private_key(ec.SECP256R1()), datetime.now(UTC), timedelta(hours=1)
    issuer = root.chain[0]
    key_id = issuer.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    builder = (
        x509.CertificateBuilder(issuer.subject, x509.Name([]), key.public_key(), 9, now - hour, now + hour)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=True)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(key_id), critical=False)
    )
    if uses:
        builder = builder.add_extension(x509.ExtendedKeyUsage(uses), critical=False)
    certificate = builder.sign(root.key, hashes.SHA256())
    return Node(certificate.public_bytes(Encoding.PEM), keys.to_pem(key))


@pytest.mark.parametrize("folder", ["~nobody-here", "-----BEGIN"])
def test_openssl_is_asked_whatever_files_are_called(person: Person, files: Path, folder: str, ca: Authority) -> None:
    put(files, ca.node("*.internal"))
    (files / folder).mkdir()
    for each in ("ca.pem", "node.crt", "node.key"):
        (files / each).rename(files / folder / each)
    there = [f"{folder}/{each}" if "." in each else each for each in FILES]
    assert causes(person, *there, "--name", "a.internal") == ["hostname-mismatch"]


def test_a_name_that_is_empty_is_none(person: Person, files: Path) -> None:
    (sentence,) = person.tries("doctor", *FILES, "--name", "").sentences
    assert sentence.startswith("the name that it is called by is empty")


def test_what_only_a_strict_verifier_refuses(person: Person, files: Path, ca: Authority) -> None:
    intermediate, node = below(ca)
    put(files, Node(node.cert + intermediate, node.key))
    assert causes(person, *FILES) == []
    assert causes(person, *FILES, problems=False) == ["not-strict"]
    assert "as Python is one from 3.13 on" in says(person, *FILES)


def test_without_a_ca_nobody_has_looked_whether_it_is_trusted(person: Person, files: Path, ca: Authority) -> None:
    assert causes(person, "--cert", "node.crt", "--key", "node.key", problems=False) == ["no-ca"]
    with serving(one_way(ca.node())) as address:
        assert causes(person, address, problems=False) == ["no-ca"]
    assert causes(person, "--key", "node.key", problems=False) == []


def test_the_key_of_another_certificate(person: Person, files: Path, ca: Authority) -> None:
    (files / "right.key").write_bytes((files / "node.key").read_bytes())
    (files / "node.key").write_bytes(ca.node().key)
    assert causes(person, *FILES) == ["key-mismatch"]
    assert "use right.key" in says(person, *FILES)
    (files / "right.key").unlink()
    (files / "node.key").write_bytes(keys.to_pem(keys.generate(KeyType.RSA2048)))
    assert "does not belong to the certificate in node.crt: it is RSA-2048, and not P-256" in says(person, *FILES)


def test_permissions_of_the_key(person: Person, files: Path) -> None:
    (files / "node.key").chmod(0o644)
    assert causes(person, *FILES) == ["key-permissions"]
    assert "chmod 600 node.key" in says(person, *FILES)
    for mode, of_root in ((0o640, []), (0o660, ["key-permissions"])):  # as libpq has it
        (files / "node.key").chmod(mode)
        assert causes(person, *FILES) == (of_root if os.geteuid() == 0 else ["key-permissions"])


def test_a_key_that_may_not_be_read(ca: Authority) -> None:
    with tempfile.TemporaryDirectory() as short:  # nobody may enter the folders of pytest
        folder = Path(short)
        folder.chmod(0o755)
        put(folder, ca.node())
        (folder / "node.crt").chmod(0o644)
        (folder / "node.key").chmod(0o600 if os.geteuid() == 0 else 0o000)
        done = Person(folder).tries("doctor", "--cert", "node.crt", "--key", "node.key", "--json", nobody=True)
        assert [finding["cause"] for finding in done.json["findings"]] == ["not-readable", "no-ca"]


def encrypt(files: Path, form: PrivateFormat) -> None:
    key = load_pem_private_key((files / "node.key").read_bytes(), None)
    (files / "node.key").write_bytes(key.private_bytes(Encoding.PEM, form, BestAvailableEncryption(b"open sesame")))
    (files / "right").write_text("open sesame\n")
    (files / "wrong").write_text("open barley\n")


def test_wrong_password_and_none(person: Person, files: Path) -> None:
    encrypt(files, PrivateFormat.PKCS8)
    assert causes(person, *FILES) == ["password-missing"]
    assert causes(person, *FILES, "--password-file", "wrong") == ["wrong-password"]
    assert "bad decrypt" in says(person, *FILES, "--password-file", "wrong")
    assert causes(person, *FILES, "--password-file", "right") == []


def test_pkcs8_and_traditional(person: Person, files: Path) -> None:
    encrypt(files, PrivateFormat.TraditionalOpenSSL)
    assert causes(person, *FILES, "--password-file", "right") == []
    assert causes(person, *FILES, "--password-file", "right", problems=False) == ["key-format"]
    assert "openssl pkcs8 -topk8 -in node.key" in says(person, *FILES, "--password-file", "right")


def test_wrong_usage(person: Person, files: Path, ca: Authority) -> None:
    put(files, ca.node("localhost", client=True))
    assert causes(person, *FILES) == []
    assert causes(person, *FILES, "--name", "localhost") == ["wrong-eku"]


def test_files_that_are_something_else(person: Person, files: Path) -> None:
    assert causes(person, "--cert", "node.key", "--key", "node.crt") == ["wrong-file", "key-permissions", "wrong-file"]
    assert causes(person, "--ca", "missing.pem") == ["not-there"]
    (files / "half.pem").write_bytes((files / "node.crt").read_bytes()[:200] + b"\n-----END CERTIFICATE-----\n")
    assert causes(person, "--cert", "half.pem") == ["damaged"]
    der = x509.load_pem_x509_certificate((files / "node.crt").read_bytes()).public_bytes(Encoding.DER)
    (files / "node.der").write_bytes(der)
    assert causes(person, "--cert", "node.der", "--ca", "ca.pem", problems=False) == ["not-pem"]


def test_a_file_without_end_is_not_read_to_it(person: Person) -> None:
    assert causes(person, "--cert", "/dev/zero") == ["not-there"]
    assert "/dev/zero cannot be read: File too large" in says(person, "--cert", "/dev/zero")
    assert person.tries("cert", "info", "/dev/zero").sentences == ["/dev/zero cannot be read: File too large"]


def test_a_ca_as_the_certificate_and_a_weak_key(person: Person, files: Path) -> None:
    assert "ca-as-leaf" in causes(person, "--cert", "ca.pem")
    key = ec.generate_private_key(ec.SECP224R1())
    now = datetime.now(UTC)
    name = x509.Name([])
    weak = x509.CertificateBuilder(name, name, key.public_key(), 1, now - timedelta(hours=1), now + timedelta(hours=1))
    (files / "weak.pem").write_bytes(weak.sign(key, hashes.SHA256()).public_bytes(Encoding.PEM))
    assert causes(person, "--cert", "weak.pem") == ["weak-key"]


def test_a_key_may_stand_behind_its_certificate(person: Person, files: Path) -> None:
    both = files / "both.pem"
    both.write_bytes((files / "node.crt").read_bytes() + (files / "node.key").read_bytes())
    both.chmod(0o644)
    assert causes(person, "--cert", "both.pem", "--ca", "ca.pem") == ["key-permissions"]


def test_a_file_is_no_address(person: Person, files: Path) -> None:
    (sentence,) = person.tries("doctor", "node.crt").sentences
    assert sentence.endswith("; for a file there are --cert, --key and --ca")


@pytest.mark.parametrize("arguments", [[], ["nonsense"], ["host:"], ["host:70000"], [":443"]])
def test_it_has_to_be_said_what_to_look_at(arguments: list[str], person: Person) -> None:
    assert person.tries("doctor", *arguments).status == 2


# --- servers ---


@contextmanager
def serving(context: ssl.SSLContext | None) -> Iterator[str]:
    """A server that shakes hands with everybody, and then waits; without a context, one that hangs up."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.settimeout(30)

        def serve() -> None:
            while True:
                try:
                    plain, _ = listening.accept()
                except OSError:
                    return
                with plain:
                    try:
                        if context is not None:
                            with context.wrap_socket(plain, server_side=True) as tls:
                                tls.settimeout(30)
                                tls.recv(1)
                    except OSError:
                        continue

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        try:
            yield f"127.0.0.1:{listening.getsockname()[1]}"
        finally:
            listening.shutdown(socket.SHUT_RDWR)
            thread.join()


def one_way(node: Node) -> ssl.SSLContext:
    return server_context(read(node.cert, node.key, None))


def test_a_server_that_is_well(person: Person, files: Path, ca: Authority) -> None:
    with serving(one_way(ca.node())) as address:
        for spelled in (address, f"https://{address}", f"https://{address}/directory?x"):
            assert causes(person, spelled, "--ca", "ca.pem") == []
        assert causes(person, address, "--ca", "ca.pem", "--name", "localhost") == []
        assert causes(person, address, "--ca", "ca.pem", "--name", "other.internal") == ["hostname-mismatch"]
        (files / "other.pem").write_bytes(Authority("Other CA").pem)
        assert causes(person, address, "--ca", "other.pem") == ["wrong-ca"], "the right root lies beside it"


def test_a_server_with_everything_wrong(person: Person, files: Path, ca: Authority) -> None:
    node = ca.node("elsewhere.internal", client=True, hours=0.5, at=datetime.now(UTC) - timedelta(minutes=50))
    with serving(one_way(node)) as address:
        assert causes(person, address, "--ca", "ca.pem") == ["expired", "hostname-mismatch", "wrong-eku"]


def test_a_server_that_does_not_send_its_intermediate(person: Person, files: Path, ca: Authority) -> None:
    intermediate, node = below(ca)
    with serving(one_way(node)) as address:
        found = causes(person, address, "--ca", "ca.pem", "--name", "localhost")
        assert found == ["chain-incomplete", "wrong-ca"]
    with serving(one_way(Node(node.cert + intermediate, node.key))) as address:
        assert causes(person, address, "--ca", "ca.pem", "--name", "localhost") == []


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_a_server_that_wants_a_certificate(version: ssl.TLSVersion, person: Person, files: Path, ca: Authority) -> None:
    node = ca.node()
    context = server_ssl_context(node.cert, node.key, ca.pem)
    context.maximum_version = version
    with serving(context) as address:
        assert causes(person, address, "--ca", "ca.pem") == ["client-certificate-missing"]
        assert causes(person, address, *FILES) == []
        put(files, Authority("Other CA").node())
        assert causes(person, address, *FILES)[-1] == "client-certificate-refused"


def test_no_server_and_no_tls(person: Person) -> None:
    for spelled in ("https://[::1", "https:///directory", "https://localhost:port"):
        assert person.tries("doctor", spelled).sentences == [
            f"{spelled} does not say where it is: https://HOST:PORT does"
        ]
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    assert causes(person, f"127.0.0.1:{port}") == ["unreachable"]
    with serving(None) as address:
        assert causes(person, address) == ["no-tls"]


# --- what the CA says ---


class Opinionated:
    """A CA with renewal information (RFC 9773), whose clock may be wrong."""

    def __init__(self, folder: Path) -> None:
        self.ca = CertificateAuthority(MemoryStore())
        self.ca.init()
        (folder / "ca.pem").write_bytes(self.ca.root_cert_pem)
        bundle = self.ca.issue("localhost")
        put(folder, Node(bundle.cert_pem, bundle.key_pem))
        self.window = timedelta(hours=1), timedelta(hours=2)
        self.skew = timedelta()
        self.asked: list[str] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        now = datetime.now(UTC)
        url = f"http://{dict(scope['headers'])[b'host'].decode()}"
        answer: dict[str, object] = {name: f"{url}/{name}" for name in ("newNonce", "newAccount", "newOrder")}
        answer["renewalInfo"] = f"{url}/renewal-info"
        if scope["path"] != "/directory":
            self.asked.append(scope["path"])
            start, end = ((now + each).isoformat() for each in self.window)
            answer = {"suggestedWindow": {"start": start, "end": end}, "explanationURL": "https://ca.internal/why"}
        headers = [(b"date", format_datetime(now + self.skew, usegmt=True).encode())]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": json.dumps(answer).encode()})


def test_the_ca_says_now(person: Person) -> None:
    ca = Opinionated(person.folder)
    with testing.serving(ca, date_header=False) as port:
        asked = (*FILES, "--directory", f"http://127.0.0.1:{port}/directory")
        assert causes(person, *asked) == causes(person, *asked, problems=False) == []
        certificate = x509.load_pem_x509_certificate((person.folder / "node.crt").read_bytes())
        assert ca.asked[0] == f"/renewal-info/{certificate_id(certificate)}"
        ca.window = -timedelta(hours=1), timedelta(hours=1)
        assert causes(person, *asked) == []
        assert causes(person, *asked, problems=False) == ["renew-now"]
        ca.window = -timedelta(hours=2), -timedelta(hours=1)  # as it is for one that was revoked
        assert causes(person, *asked) == ["renew-now"]
        assert "says more at https://ca.internal/why" in says(person, *asked)


@pytest.mark.parametrize(("skew", "told"), [(-300, "5 min ahead of"), (7200, "120 min behind"), (-30, None)])
def test_the_clock_of_the_ca_is_another(person: Person, skew: int, told: str | None) -> None:
    ca = Opinionated(person.folder)
    ca.skew = timedelta(seconds=skew)
    with testing.serving(ca, date_header=False) as port:
        asked = ("--directory", f"http://127.0.0.1:{port}/directory")
        assert causes(person, *asked) == ["clock-skew"] * (told is not None)
        assert (told or "") in says(person, *asked)


def test_a_ca_that_cannot_be_asked(person: Person, files: Path) -> None:
    for directory in ("https://127.0.0.1:9/directory", "ca.internal"):
        assert causes(person, *FILES, "--directory", directory) == ["ca-does-not-answer"]
    with testing.ACMEServer() as server:
        (files / "root.pem").write_bytes(server.root_pem)
        assert causes(person, "--directory", server.directory_url, "--ca", "root.pem") == []
        assert causes(person, "--directory", server.directory_url, "--ca", "ca.pem") == ["ca-does-not-answer"]
        assert "not trusted here" in says(person, "--directory", server.directory_url, "--ca", "ca.pem")
