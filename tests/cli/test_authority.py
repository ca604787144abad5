import re
import sqlite3
import stat
import subprocess
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from tests.certificates import assert_is_ca
from tests.cli.command import PRIVET, Person, environment

from privet.ca import KeyType, NameConstraints, keys
from privet.stores import open_store

PASSWORD = "correct horse\n"


def test_the_authority_is_made_once(person: Person) -> None:
    made = person.does("init", "--cn", "Example CA", "--key-type", "P-384", "--ca-validity", "30d", "--json").json
    root = x509.load_pem_x509_certificate(made["root_pem"].encode())
    assert_is_ca(root)
    assert root.subject.rfc4514_string() == "CN=Example CA"
    assert made["fingerprint"] == root.fingerprint(hashes.SHA256()).hex(":").upper()
    assert (root.not_valid_after_utc - root.not_valid_before_utc).days == 30
    assert made["data"] == str(person.folder / "privet.db")
    assert stat.S_IMODE((person.folder / "privet.db").stat().st_mode) == 0o600
    again = person.does("init", "--cn", "Another CA").out
    assert f"root SHA-256 {made['fingerprint']}\n" in again
    assert person.does("root").out == made["root_pem"]


def test_an_authority_that_ends_before_its_certificates_would_is_worth_a_word(person: Person) -> None:
    made = person.does("init", "--ca-validity", "30m", "--json")
    (sentence,) = made.sentences
    assert re.fullmatch(
        r"the authority 'root' ends at \S+Z, and its certificates with it, .* --name before .*", sentence
    )
    root = x509.load_pem_x509_certificate(made.json["root_pem"].encode())
    assert root.not_valid_after_utc - root.not_valid_before_utc == timedelta(minutes=30)
    person.does("issue", "a.internal")
    assert person.does("init", env={"PRIVET_VALIDITY": "20m"}).err == ""


def test_an_authority_that_would_hardly_live_is_refused(person: Person) -> None:
    refused = person.tries("init", "--ca-validity", "59s")
    assert (refused.status, refused.sentences) == (2, ["--ca-validity has to be a minute at least, not '59s'"])


def test_an_authority_for_some_names_alone(person: Person) -> None:
    options = ("--permit", "internal", "--permit", "10.0.0.0/8", "--exclude", "secret.internal")
    made = person.does("init", *options, "--json").json
    names = NameConstraints(["internal", "10.0.0.0/8"], ["secret.internal"])
    assert_is_ca(x509.load_pem_x509_certificate(made["root_pem"].encode()), constraints=names.to_extension())
    assert made["names"] == "only internal, 10.0.0.0/8; not secret.internal"
    person.does("issue", "a.internal", "10.0.0.1")
    refused = person.tries("issue", "a.example", "b.internal", "x.secret.internal")
    assert (refused.status, refused.sentences) == (
        1,
        [
            "a.example is not among what this authority may certify: internal; x.secret.internal is among what this "
            "authority must not certify: secret.internal"
        ],
    )
    assert "\nnames        only internal, 10.0.0.0/8; not secret.internal\n" in person.does("init").out
    person.does("init", *options)
    assert person.tries("init", "--permit", "internal").sentences == [
        "the authority 'root' is there already, and has other name constraints than --permit and --exclude say: leave "
        "them out, or make another authority with --name"
    ]


def test_names_that_are_none_permit_nothing(person: Person) -> None:
    refused = person.tries("init", "--permit", "*.internal", "--exclude", "10.0.0.1/8")
    assert (refused.status, refused.sentences) == (
        2,
        [
            "--permit has a name or network that is none: '*.internal' is a wildcard; write .internal for all that is "
            "below internal",
            "--exclude has a name or network that is none: '10.0.0.1/8' is no network: 10.0.0.1/8 has host bits set",
        ],
    )


def test_an_authority_that_could_certify_nothing_is_refused_before_it_is_made(person: Person) -> None:
    for command in ("init", "serve"):
        refused = person.tries(command, "--permit", "internal", "--exclude", "internal")
        assert (refused.status, refused.sentences) == (
            2,
            [
                "--permit and --exclude contradict each other: everything that is permitted is excluded, so that the "
                "authority could certify nothing"
            ],
        )
    assert list(person.folder.iterdir()) == []


def test_without_a_word_about_it_everything_lies_at_home(tmp_path: Path) -> None:
    person = Person(tmp_path, store="")
    assert f"data         {tmp_path}/.privet/privet.db\n" in person.does("init").out
    assert stat.S_IMODE((tmp_path / ".privet").stat().st_mode) == 0o700


def test_several_authorities_share_a_store(owner: Person) -> None:
    owner.does("init", "--name", "clients")
    assert owner.does("root").out != owner.does("root", "--name", "clients").out
    owner.does("issue", "a.internal", "--name", "clients")
    assert owner.does("list", "--json").json == []
    assert len(owner.does("list", "--json", "--name", "clients").json) == 1


def test_a_key_with_a_password_needs_it_for_signing_and_for_nothing_else(person: Person) -> None:
    (person.folder / "password").write_text(PASSWORD)
    (person.folder / "wrong").write_text("wrong")
    (person.folder / "empty").write_text("\n")
    for file in person.folder.iterdir():
        file.chmod(0o600)
    with_password = {"PRIVET_KEY_PASSWORD_FILE": "password"}
    person.does("init", env=with_password)
    person.does("issue", "a.internal", env=with_password)
    assert len(person.does("list", "--json").json) == 1
    person.does("root")
    person.does("show", "a.internal")
    (missing,) = person.tries("issue", "b.internal").sentences
    assert missing.endswith("its password is missing; give it with --key-password-file")
    (wrong,) = person.tries("issue", "b.internal", "--key-password-file", "wrong").sentences
    assert wrong.endswith("has another password; --key-password-file says which file has it")
    assert person.tries("issue", "b.internal", "--key-password-file", "empty").sentences == [
        "the password file empty is empty: write the password into its first line"
    ]
    assert person.tries("serve", "--key-password-file", "nowhere").sentences == [
        "the password file nowhere cannot be read: No such file or directory"
    ]


def test_a_password_for_a_key_that_has_none_is_told(owner: Person) -> None:
    (owner.folder / "password").write_text(PASSWORD)
    (owner.folder / "password").chmod(0o640)
    (sentence,) = owner.tries("issue", "b.internal", "--key-password-file", "password").sentences
    assert sentence.endswith("the private key is not encrypted; leave --key-password-file out")


def test_a_password_that_everybody_can_read_is_worth_a_word(person: Person) -> None:
    (person.folder / "password").write_text(PASSWORD)
    (person.folder / "password").chmod(0o644)
    told = ["everybody here can read the password file password: `chmod o-r` ends that"]
    locked = ("--key-password-file", "password")
    assert person.does("init", *locked).sentences == told
    assert person.does("issue", "a.internal", *locked).sentences == told
    with person.serves(*locked, "--workers", "2") as serving:
        serving.program.wait_for("directory")
    assert serving.program.output.count("everybody here can read") == 1


def make_ca(folder: Path) -> None:
    """A CA as others make it: by openssl, with an encrypted key."""
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "rsa:2048", "-keyout", "ca.key", "-out", "ca.crt", "-days", "30"),
            *("-subj", "/CN=Old CA", "-passout", "pass:correct horse"),
            *("-addext", "keyUsage=critical,keyCertSign,cRLSign"),
        ],
        cwd=folder,
        check=True,
        capture_output=True,
    )


def test_an_existing_ca_is_taken_over(person: Person) -> None:
    make_ca(person.folder)
    (person.folder / "password").write_text(PASSWORD)
    missing = person.tries("import-ca", "ca.crt", "ca.key")
    assert missing.status == 1
    assert missing.sentences[0].endswith("its password is missing; --password-file says which file has it")
    imported = person.does("import-ca", "ca.crt", "ca.key", "--password-file", "password").out
    assert "subject      CN=Old CA\n" in imported
    assert person.does("root").out == (person.folder / "ca.crt").read_text()
    person.does("issue", "a.internal")
    again = person.tries("import-ca", "ca.crt", "ca.key", "--password-file", "password")
    assert again.sentences == [
        "there already is an authority 'root' in this store: choose another name with --name, or another store with "
        "--store"
    ]
    person.does("import-ca", "ca.crt", "ca.key", "--password-file", "password", "--name", "old", "--json")


def test_what_is_no_ca_is_not_taken_over(person: Person) -> None:
    for name in ("ca.crt", "ca.key"):
        (person.folder / name).write_text("nothing")
    refused = person.tries("import-ca", "ca.crt", "ca.key")
    assert (refused.status, len(refused.sentences)) == (1, 1)
    assert person.tries("import-ca", "ca.crt", "nowhere").sentences == [
        "nowhere cannot be read: No such file or directory"
    ]
    make_ca(person.folder)
    (person.folder / "other.key").write_bytes(keys.to_pem(keys.generate(KeyType.P256)))
    (sentence,) = person.tries("import-ca", "ca.crt", "other.key").sentences
    assert "the private key does not belong to the CA certificate" in sentence


@pytest.mark.parametrize(
    "command", ["list", "show x", "revoke ab", "root", "pending", "approve x", "refuse x", "issue x"]
)
def test_looking_at_what_is_not_there_makes_nothing(person: Person, command: str) -> None:
    missing = person.tries(*command.split())
    assert (missing.status, missing.sentences) == (
        1,
        [
            f"there is nothing at {person.folder}/privet.db: `privet init` or `privet serve` makes a store, and "
            "--store says which one to use"
        ],
    )
    assert list(person.folder.iterdir()) == []


def test_a_store_without_an_authority_says_how_to_make_one(owner: Person) -> None:
    for command in ("list", "issue x", "root"):
        assert owner.tries(*command.split(), "--name", "other").sentences == [
            f"there is no authority 'other' in {owner.store}: `privet init` makes one"
        ]


def test_a_store_in_memory_is_no_place_to_look(person: Person) -> None:
    assert person.tries("list", "--store", "memory:").sentences == [
        "a store in memory ends with the process that made it: `privet init` or `privet serve` makes a store, and "
        "--store says which one to use"
    ]


@pytest.mark.parametrize("command", ["init", "list", "serve"])
def test_what_is_no_database_is_told(person: Person, command: str) -> None:
    (person.folder / "privet.db").write_text("something else, and long enough to be taken for something" * 20)
    broken = person.tries(command)
    assert (broken.status, broken.sentences) == (
        1,
        [
            f"the store {person.store} cannot be opened: {person.folder}/privet.db: file is not a database; "
            "choose another with --store"
        ],
    )


def test_a_store_of_a_newer_privet_is_told(owner: Person) -> None:
    with sqlite3.connect(owner.folder / "privet.db") as database:
        database.execute("PRAGMA user_version = 999")
    database.close()
    (sentence,) = owner.tries("list").sentences
    assert "from a newer privet" in sentence


@pytest.mark.parametrize("scheme", ["sqlite", "file"])
def test_where_nobody_may_write_is_told(person: Person, scheme: str) -> None:
    (person.folder / "file").write_text("")
    (sentence,) = person.tries("init", "--store", f"{scheme}:///file/below").sentences
    assert sentence.startswith(f"the store {scheme}:///file/below cannot be opened: ")
    assert sentence.endswith("choose another with --store")


@pytest.mark.parametrize("command", ["init", "list"])
def test_a_store_of_somebody_else_is_told(owner: Person, command: str) -> None:
    (owner.folder / "privet.db").chmod(0o400)
    refused = owner.tries(command, nobody=True)
    assert (refused.status, len(refused.sentences)) == (1, 1)
    assert f"run this as the owner of {owner.folder}/privet.db" in refused.sentences[0]


def test_the_version_is_told(person: Person) -> None:
    versions = person.does("version", "--json").json
    assert set(versions) == {"privet", "python", "cryptography", "openssl"}
    module = subprocess.run(
        [*PRIVET, "version"], env=environment(person.folder), capture_output=True, text=True, check=True
    )
    assert (
        module.stdout == person.does("version").out == person.does("--version").out == f"privet {versions['privet']}\n"
    )


COMMANDS = ("serve", "issue", "list", "show", "revoke", "pending", "approve", "refuse", "init", "import-ca", "root")


def test_help_names_every_command(person: Person) -> None:
    shown = person.does("--help").out
    assert all(re.search(rf"^│ {command} ", shown, re.MULTILINE) for command in (*COMMANDS, "version"))
    assert person.tries("").status == 2


@pytest.mark.parametrize("command", COMMANDS)
def test_help_teaches_by_example(person: Person, command: str) -> None:
    usage, _, more = person.does(command, "--help").out.strip().partition("\n")
    assert f"privet {command} [OPTIONS]" in usage
    assert f" privet {command}" in more


def test_a_word_that_is_none_ends_with_2(person: Person) -> None:
    assert person.tries("sreve").status == 2
    assert "No such option: --prot" in person.tries("serve", "--prot", "1").err
    assert person.tries("revoke").status == 2


class TestFilesOfItsOwn:
    """--ca-cert and --ca-key: the key stays where it is."""

    FILES = ("--ca-cert", "ca.crt", "--ca-key", "ca.key")

    @pytest.fixture
    def files(self, person: Person) -> tuple[str, ...]:
        make_ca(person.folder)
        (person.folder / "password").write_text("correct horse")
        for name in ("password", "ca.key"):
            (person.folder / name).chmod(0o600)
        return (*self.FILES, "--key-password-file", "password")

    def test_the_store_has_the_certificate_and_no_key(self, person: Person, files: tuple[str, ...]) -> None:
        with person.serves("--auto-approve", "--workers", "2", *files):
            person.does("issue", "web.internal", *files)
        assert person.does("root").out == (person.folder / "ca.crt").read_text()
        with open_store(f"sqlite:///{person.folder / 'privet.db'}") as store:
            record = store.get("ca", "root")
            assert record
            assert set(record.files) == {"cert.pem"}
        person.does("eab", "create", "--name", "a", *files)
        (serial,) = (each["serial"] for each in person.does("list", "--json").json)
        person.does("revoke", serial)  # which takes no key

    def test_without_them_nothing_is_signed(self, person: Person, files: tuple[str, ...]) -> None:
        person.does("init", *files)
        for command in (["serve"], ["init"], ["issue", "web.internal"]):
            (sentence,) = person.tries(*command).sentences
            assert sentence.endswith("its key is not in the store; say where it is with --ca-cert and --ca-key")

    def test_a_store_of_another_authority_is_left_alone(self, owner: Person) -> None:
        make_ca(owner.folder)
        (owner.folder / "password").write_text("correct horse")
        (owner.folder / "password").chmod(0o600)
        before = owner.does("root").out
        (sentence,) = owner.tries("serve", *self.FILES, "--key-password-file", "password").sentences
        assert sentence == (
            "the store has an authority 'root' with another certificate than that in --ca-cert; choose another name "
            "with --name, or another store with --store"
        )
        assert owner.does("root").out == before

    @pytest.mark.parametrize(
        ("options", "sentence"),
        [
            (FILES[:2], "--ca-cert and --ca-key belong together: the certificate of the authority, and its key"),
            (FILES[2:], "--ca-cert and --ca-key belong together: the certificate of the authority, and its key"),
            (
                (*FILES, "--permit", "internal"),
                "--permit and --exclude are for an authority that privet makes, and --ca-cert is made already",
            ),
            (FILES, "the certificate ca.crt cannot be read: No such file or directory"),
        ],
    )
    @pytest.mark.parametrize("command", ["serve", "init"])
    def test_what_is_wrong_with_them_is_told(
        self, person: Person, command: str, options: tuple[str, ...], sentence: str
    ) -> None:
        assert person.tries(command, *options).sentences == [sentence]

    def test_a_key_that_is_another_or_that_everybody_can_read_is_told(
        self, person: Person, files: tuple[str, ...]
    ) -> None:
        (person.folder / "ca.key").chmod(0o644)
        assert person.does("init", *files).sentences == [
            "everybody here can read the key ca.key: `chmod o-r` ends that"
        ]
        (person.folder / "ca.key").write_bytes(keys.to_pem(keys.generate(KeyType.P256), b"correct horse"))
        (person.folder / "ca.key").chmod(0o600)
        (sentence,) = person.tries("serve", *files).sentences
        assert sentence == "the private key does not belong to the CA certificate"
