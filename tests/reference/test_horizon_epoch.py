"""Rows E2, E3 and E10: files as Horizon Epoch's guide to mTLS describes them, and the commands of its troubleshooting
on them. What its databases do with such files is in tests/interop."""

import re
from pathlib import Path

import pytest
from tests.certificates import openssl
from tests.cli.command import Person

CREATE = ("cert", "create-client", "epoch_user", "--ca-dir", ".", "--force")


@pytest.fixture
def epoch(tmp_path: Path) -> Person:
    person = Person(tmp_path)
    person.does("cert", "create-ca", "--key-type", "RSA-2048")
    return person


@pytest.mark.parametrize(
    ("options", "begin"),
    [
        ([], "-----BEGIN PRIVATE KEY-----"),
        (["--traditional"], "-----BEGIN RSA PRIVATE KEY-----"),
        (["--password-file", "password"], "-----BEGIN ENCRYPTED PRIVATE KEY-----"),
    ],
)
def test_the_forms_of_its_files_and_how_they_are_compared(epoch: Person, options: list[str], begin: str) -> None:
    folder = epoch.folder
    (folder / "password").write_text("open sesame\n")
    epoch.does(*CREATE, "--key-type", "RSA-2048", *options)
    assert (folder / "client.key").read_text().startswith(begin)
    assert (folder / "client.crt").read_text().startswith("-----BEGIN CERTIFICATE-----")
    asked = ["-passin", f"file:{folder}/password"]
    certificate = openssl("x509", "-noout", "-modulus", "-in", folder / "client.crt")
    assert openssl("rsa", "-noout", "-modulus", "-in", folder / "client.key", *asked) == certificate
    assert re.match(rb"notAfter=.* GMT", openssl("x509", "-enddate", "-noout", "-in", folder / "client.crt"))
    assert openssl("x509", "-subject", "-noout", "-in", folder / "client.crt").strip().endswith(b"CN = epoch_user")
    password = options if "--password-file" in options else []
    epoch.does("doctor", "--cert", "client.crt", "--key", "client.key", "--ca", "ca.crt", *password)


def test_what_it_says_may_go_wrong_is_found_by_name(epoch: Person) -> None:
    """Each heading of its troubleshooting, but for what time does; tests/cli/test_doctor.py has all of them."""
    folder = epoch.folder
    for name, word in (("right", "open sesame"), ("wrong", "open barley")):
        (folder / name).write_text(f"{word}\n")
    epoch.does(*CREATE, "--password-file", "right")
    files = ("--cert", "client.crt", "--key", "client.key", "--ca", "ca.crt")

    def found(*more: str) -> list[str]:
        findings = epoch.tries("doctor", *files, *more, "--json").json["findings"]
        return [each["cause"] for each in findings if each["problem"]]

    assert found("--password-file", "right") == []
    assert found("--password-file", "wrong") == ["wrong-password"]
    (folder / "client.key").chmod(0o644)
    assert found("--password-file", "right") == ["key-permissions"]
    epoch.does(*CREATE)
    assert found("--name", "db.example.com") == ["hostname-mismatch", "wrong-eku"]
    (folder / "client.key").write_bytes((folder / "ca.key").read_bytes())
    assert found() == ["key-mismatch"]
    (folder / "other").mkdir()
    epoch.does("cert", "create-ca", "--out", "other", "--cn", "Another CA")
    epoch.does(*CREATE)
    files = (*files[:-1], "other/ca.crt")
    assert found() == ["wrong-ca"]
