"""What docs/nodes.md says about the command line runs as it stands there."""

import configparser
import re
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.cli.command import PRIVET, Person, Serving, environment
from tests.interop.programs import Program

TEXT = (Path(__file__).parents[2] / "docs/nodes.md").read_text()
PART = TEXT.split("## On the command line\n")[1].split("\n## ")[0]


@pytest.fixture
def serving(person: Person) -> Iterator[Serving]:
    with person.serves("--auto-approve", "--tls") as running:
        yield running


def block(kind: str) -> str:
    (found,) = re.findall(rf"```{kind}\n(.*?)```", PART, re.DOTALL)
    return str(found)


def here(text: str, serving: Serving) -> str:
    """The same, with this machine's paths, programs and CA."""
    folder = serving.person.folder
    for said, meant in {
        "https://ca.internal:8555/directory": serving.directory,
        "5C:0B:…": str(serving.person.does("root", "--json").json["fingerprint"]),
        "/usr/local/bin/privet": "privet",
        "privet node": f"{shlex.join(PRIVET)} node",
        " /etc/web": f" {folder}/web",
        " /tls": f" {folder}/tls",
        " --owner www-data": "",
        "'nginx -s reload'": f"'touch {folder}/reloaded'",
    }.items():
        text = text.replace(said, meant)
    return text


def shell(text: str, person: Person) -> str:
    done = subprocess.run(
        ["sh", "-euc", text], cwd=person.folder, env=environment(person.folder), capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def daemon(command: list[str], person: Person, folder: str) -> None:
    with Program(*command, env=environment(person.folder), cwd=person.folder) as running:
        running.wait_for(f"INFO keeping the certificate for web.internal in {person.folder}/{folder} renewed")
        person.does("node", "status", folder)
        assert running.stop() == 0, running.output


def test_the_commands_and_the_unit(person: Person, serving: Serving) -> None:
    said = shell(here(block("sh"), serving), person)
    assert (person.folder / "root.pem").read_text() == person.does("root").out
    assert (person.folder / "reloaded").exists()
    assert f"unchanged    {person.folder}/web, for web.internal, 10.0.0.7 until " in said
    unit = configparser.ConfigParser(interpolation=None)
    unit.optionxform = str  # type: ignore[assignment, method-assign]
    unit.read_string(block("ini"))
    daemon(shlex.split(here(unit["Service"]["ExecStart"], serving)), person, "web")


def test_the_sidecar(person: Person, serving: Serving) -> None:
    (command,) = re.findall(r'sh -c "(privet.*?)"', block("yaml"), re.DOTALL)
    for _ in range(2):  # it restarts
        daemon(["sh", "-c", here(" ".join(command.split()), serving)], person, "tls")
    (check,) = re.findall("test: (.*)", block("yaml"))
    shell(here(check, serving), person)
    issued = [each for each in person.does("list", "--json").json if each["names"] == ["web.internal"]]
    assert len(issued) == 1


def test_every_option_it_names_is_there(person: Person) -> None:
    known = "".join(
        person.does("node", each, "--help", env={"COLUMNS": "250"}).out for each in ("bootstrap", "issue", "renew")
    )
    for option in set(re.findall(r"`(--[a-z0-9-]+)", PART)):
        assert option in known
