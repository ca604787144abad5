import re
import stat
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from cryptography.x509.oid import ExtendedKeyUsageOID
from tests.certificates import assert_is_leaf, openssl, openssl_verify, same_key
from tests.cli.command import Done, Person
from tests.wire import csr

from privet.cli.certificates import _serial

KEYS = {
    "P-256": ec.EllipticCurvePrivateKey,
    "P-384": ec.EllipticCurvePrivateKey,
    "RSA-2048": rsa.RSAPrivateKey,
    "Ed25519": ed25519.Ed25519PrivateKey,
}


def serial_of(done: Done) -> str:
    found = re.search(r"^issued +([0-9a-f]+)$", done.out, re.MULTILINE)
    assert found, done.out
    return found.group(1)


def test_a_certificate_is_written_where_it_is_wanted(owner: Person) -> None:
    done = owner.does("issue", "web.internal", "10.0.0.7", "--out", "tls/web", "--validity", "7d")
    folder = owner.folder / "tls/web"
    files = {file.name: stat.S_IMODE(file.stat().st_mode) for file in folder.iterdir()}
    assert files == {"cert.pem": 0o644, "fullchain.pem": 0o644, "key.pem": 0o600}
    root = owner.does("root").out.encode()
    chain = (folder / "fullchain.pem").read_bytes()
    leaf = x509.load_pem_x509_certificate((folder / "cert.pem").read_bytes())
    assert chain == (folder / "cert.pem").read_bytes() + root
    assert_is_leaf(leaf, issuer=x509.load_pem_x509_certificate(root), names=["web.internal", "10.0.0.7"])
    assert (leaf.not_valid_after_utc - leaf.not_valid_before_utc).days == 7
    openssl_verify(chain, root, name="web.internal")
    key = load_pem_private_key((folder / "key.pem").read_bytes(), None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    assert same_key(leaf, key.public_key())
    assert f"{leaf.serial_number:x}" == serial_of(done)
    assert f"{Path('tls/web/key.pem')}" in done.out


def test_without_a_folder_it_gets_one_of_its_name_and_nothing_is_overwritten(owner: Person) -> None:
    owner.does("issue", "*.internal", "--wildcard", "--key-type", "ed25519")
    key = owner.folder / "_.internal/key.pem"
    before = key.read_bytes()
    again = owner.tries("issue", "*.internal", "--wildcard")
    assert (again.status, again.sentences) == (
        1,
        ["_.internal/cert.pem exists: replace it with --force, or choose another folder with --out"],
    )
    assert key.read_bytes() == before
    assert len(owner.does("list", "--json").json) == 1, "nothing was issued in vain"
    owner.does("issue", "*.internal", "--wildcard", "--force")
    assert key.read_bytes() != before


@pytest.mark.parametrize("key_type", ["P-384", "RSA-2048"])
def test_the_kind_of_key_can_be_chosen_and_the_use(owner: Person, key_type: str) -> None:
    done = owner.does("issue", "a.internal", "--key-type", key_type, "--client", "--json")
    files = done.json["files"]
    assert isinstance(load_pem_private_key((owner.folder / files["key"]).read_bytes(), None), KEYS[key_type])
    leaf = x509.load_pem_x509_certificate((owner.folder / files["cert"]).read_bytes())
    usages = leaf.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert list(usages) == [ExtendedKeyUsageOID.CLIENT_AUTH]
    assert "PRIVATE" not in done.out


def test_a_folder_keeps_them_as_files_and_says_where(tmp_path: Path) -> None:
    person = Person(tmp_path, "file:///store")
    person.does("init")
    files = person.does("issue", "web.internal", "--json").json["files"]
    assert {part: Path(path).relative_to(tmp_path) for part, path in files.items()} == {
        part: Path(f"store/certs/web.internal/{part}.pem") for part in ("cert", "fullchain", "key")
    }
    assert stat.S_IMODE(Path(files["key"]).stat().st_mode) == 0o600
    assert Path(files["key"]).read_text().startswith("-----BEGIN PRIVATE KEY-----")


def test_a_csr_is_certified_and_its_key_stays_where_it_is(owner: Person) -> None:
    (owner.folder / "web.csr").write_bytes(csr("web.internal", "10.0.0.7"))
    files = owner.does("issue", "--csr", "web.csr", "--json").json["files"]
    assert files == {"cert": "web/cert.pem", "fullchain": "web/fullchain.pem"}
    assert not (owner.folder / "web/key.pem").exists()
    (owner.folder / "star.csr").write_bytes(csr("*.internal"))
    assert owner.tries("issue", "--csr", "star.csr").sentences == [
        "the CSR is refused: *.internal is a wildcard: add --wildcard if that is meant"
    ]
    (owner.folder / "bad.csr").write_bytes(b"nothing")
    (sentence,) = owner.tries("issue", "--csr", "bad.csr").sentences
    assert sentence.startswith("the CSR is refused: ")


def test_what_cannot_be_issued_is_told_all_at_once(owner: Person) -> None:
    wrong = owner.tries("issue", "x..y", "*.internal", "--validity", "0s")
    assert (wrong.status, wrong.out) == (2, "")
    assert wrong.sentences == [
        "--validity has to be between a second and a century, not '0s'",
        "'x..y' is not a valid DNS name: it has an empty label",
        "*.internal is a wildcard: add --wildcard if that is meant",
    ]
    nothing = owner.tries("issue")
    assert (nothing.status, nothing.sentences) == (
        2,
        ["say which names the certificate is for, or which CSR has them with --csr; one of both"],
    )
    assert owner.tries("issue", "a.internal", "--csr", "a.csr").status == 2
    assert owner.tries("issue", "--csr", "a.csr").sentences == ["a.csr cannot be read: No such file or directory"]
    (owner.folder / "taken").write_text("a file")
    assert owner.tries("issue", "a.internal", "--out", "taken").sentences == [
        "cannot write into taken: File exists; choose another folder with --out"
    ]
    assert owner.does("list", "--json").json == []


def test_what_was_issued_is_listed_shown_and_revoked(owner: Person) -> None:
    first = serial_of(owner.does("issue", "web.internal", "--out", "1"))
    second = serial_of(owner.does("issue", "web.internal", "10.0.0.7", "--out", "2"))
    listed = owner.does("list", "--json").json
    assert [(each["serial"], each["names"], each["status"]) for each in listed] == [
        (first, ["web.internal"], "valid"),
        (second, ["web.internal", "10.0.0.7"], "valid"),
    ]
    assert [each["serial"] for each in owner.does("list", "10.0.0.7", "--json").json] == [second]
    head, line, _ = owner.does("list").out.splitlines()
    assert re.split(" {2,}", head) == ["SERIAL", "STATUS", "VALID UNTIL", "NAMES"]
    assert re.split(" {2,}", line) == [first, "valid", listed[0]["not_after"], "web.internal"]

    newest = owner.does("show", "web.internal", "--json").json
    assert newest | listed[1] == newest
    told = openssl("x509", "-in", owner.folder / "2/cert.pem", "-noout", "-fingerprint", "-sha256")
    assert told.decode().strip().partition("=")[2] == newest["fingerprint"]
    assert newest["fullchain"] == (owner.folder / "2/fullchain.pem").read_text()
    colons = ":".join(re.findall("..", first.zfill(32))).upper()
    shown = owner.does("show", colons).out
    assert f"serial       {first}\n" in shown
    assert shown.endswith("\n" + (owner.folder / "1/fullchain.pem").read_text() + "\n")

    done = owner.does("revoke", first, "--reason", "KEYCOMPROMISE")
    assert done.out == f"revoked {first} for web.internal\n"
    revoked = owner.does("show", first, "--json").json
    assert (revoked["status"], revoked["reason"]) == ("revoked", "keyCompromise")
    again = owner.tries("revoke", first, second, "--reason", "4", "--json")
    assert again.status == 1
    assert again.sentences == [f"certificate {first} is revoked; it cannot be revoked"]
    assert [(each["serial"], each["reason"]) for each in again.json] == [(second, "superseded")]
    assert owner.does("list", "--status", "valid", "--json").json == []


def test_what_cannot_be_shown_or_revoked_is_told(owner: Person) -> None:
    missing = owner.tries("show", "nobody.internal")
    assert (missing.status, missing.sentences) == (
        1,
        ["there is no certificate with the serial number or the name nobody.internal: `privet list` shows all"],
    )
    wrong = owner.tries("revoke", "nobody", "abc", "--reason", "boredom")
    assert wrong.status == 2
    assert wrong.sentences == [
        "nobody is no serial number: `privet show nobody` shows that of the newest certificate of a name",
        "--reason boredom is none that is usable; these are: 0 (unspecified), 1 (keyCompromise), "
        "3 (affiliationChanged), 4 (superseded), 5 (cessationOfOperation), 9 (privilegeWithdrawn)",
    ]
    unknown = owner.tries("revoke", "abc")
    assert unknown.status == 1
    assert unknown.sentences == ["the authority 'root' has no certificate with the serial number abc"]
    assert owner.tries("list", "x..y").sentences == ["'x..y' is not a valid DNS name: it has an empty label"]


@pytest.mark.parametrize(
    ("text", "serial"),
    [("ff", 255), ("0xFF", 255), ("00:FF", 255), ("g", None), ("", None), ("0x", None), ("f" * 41, None)],
)
def test_serial_numbers_are_read_as_others_print_them(text: str, serial: int | None) -> None:
    assert _serial(text) == serial


def test_a_certificate_for_a_databases_user(owner: Person) -> None:
    database = "postgresql://epoch_user@db.internal:5433/production"
    done = owner.does("issue", "--postgres", database, "--out", "client")
    client = owner.folder / "client"
    assert stat.S_IMODE((client / "key.pem").stat().st_mode) == 0o600
    assert (client / "ca.pem").read_text() == owner.does("root").out
    files = f"sslcert={client}/fullchain.pem&sslkey={client}/key.pem&sslrootcert={client}/ca.pem"
    assert f"dsn          {database}?sslmode=verify-full&{files}\n" in done.out
    assert "\n  hostssl production epoch_user all cert clientcert=verify-full\n" in done.out
    shown = owner.does("show", "epoch_user", "--json").json
    assert (shown["names"], shown["profile"]) == (["epoch_user"], "client")
    assert owner.tries("issue", "--postgres", database, "--out", "client").sentences == [
        "client/cert.pem exists: replace it with --force, or choose another folder with --out"
    ]

    named = owner.does("issue", "--client", "--cn", "my app", "app.internal", "--out", "app", "--json").json
    assert named["names"] == ["my app", "app.internal"]


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (("--cn", "my_app"), "--cn is for clients' certificates: add --client"),
        (("--client", "--cn", "x" * 65), "--cn: a common name has 1 to 64 printable characters"),
        (("--postgres", "a", "--cn", "a"), "--cn and --postgres both say what the common name is: leave --cn out"),
        (("--postgres", "x" * 65), "--postgres: a common name has 1 to 64 printable characters"),
        (("--postgres", ""), "--postgres: it is not the URL of a user's database"),
        (("--postgres", "postgresql://db.internal/x"), "--postgres: it is not the URL of a user's database"),
        (("--postgres", "postgres://a:horse@db/"), "--postgres: leave the password out of the URL"),
        (("--postgres", "a", "--csr", "a.csr"), "a CSR has its common name and its key already"),
    ],
)
def test_what_cannot_be_a_user_is_said(owner: Person, options: tuple[str, ...], sentence: str) -> None:
    refused = owner.tries("issue", *options)
    assert refused.status == 2
    assert any(each.startswith(sentence) for each in refused.sentences)
    assert "horse" not in refused.err
    assert owner.does("list", "--json").json == []
