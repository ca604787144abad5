"""What docs/authority.md says of names happens as it says."""

import re
import shlex
import subprocess
from pathlib import Path

import pytest
from tests.cli.command import Person

TEXT = (Path(__file__).parents[2] / "docs/authority.md").read_text()
(LINE,) = re.findall(r"^privet init --permit .*$", TEXT, re.MULTILINE)


@pytest.fixture
def founder(person: Person) -> Person:
    """Somebody who has made the authority as the page does."""
    program, *words = shlex.split(LINE)
    assert program == "privet"
    person.does(*words)
    (person.folder / "root.pem").write_text(person.does("root").out)
    return person


def test_the_root_says_for_which_names_it_is(founder: Person) -> None:
    shown = subprocess.run(
        ["openssl", "x509", "-in", founder.folder / "root.pem", "-noout", "-text"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert re.search(
        r"Name Constraints: critical\s+Permitted:\s+DNS:internal\s+IP:10\.0\.0\.0/255\.0\.0\.0\s+"
        r"Excluded:\s+DNS:secret\.internal\s",
        shown,
    )


@pytest.mark.parametrize("name", ["internal", "web.internal", "a.b.internal", "10.1.2.3", "topsecret.internal"])
def test_what_is_permitted_is_issued_and_verifies(founder: Person, name: str) -> None:
    founder.does("issue", name, "--out", "made")
    subprocess.run(
        ["openssl", "verify", "-x509_strict", "-CAfile", "root.pem", "made/cert.pem"],
        cwd=founder.folder,
        capture_output=True,
        check=True,
    )


@pytest.mark.parametrize(
    ("names", "told"),
    [
        (["web.example"], "web.example"),
        (["secret.internal"], "secret.internal"),
        (["x.secret.internal"], "x.secret.internal"),
        (["web.internal", "11.0.0.1"], "11.0.0.1"),
        (["fd00::1"], "fd00::1"),  # only IPv4 networks were named, and what is not permitted is not there
        (["*.internal", "--wildcard"], "*.internal"),  # it stands for secret.internal
    ],
)
def test_what_is_not_permitted_is_refused(founder: Person, names: list[str], told: str) -> None:
    refused = founder.tries("issue", *names, "--out", "made")
    assert refused.status != 0
    assert any(told in sentence for sentence in refused.sentences)
    assert founder.does("list", "--json").json == []


def test_they_are_there_for_good(founder: Person) -> None:
    other = founder.tries("serve", "--permit", "example")
    assert other.status != 0
    (sentence,) = other.sentences
    assert "has other name constraints than --permit and --exclude say" in sentence


def test_an_authority_for_nothing_is_told(person: Person) -> None:
    refused = person.tries("init", *shlex.split(re.findall(r"`(--permit internal --exclude internal)`", TEXT)[0]))
    assert refused.status != 0
    assert list(person.folder.iterdir()) == []
