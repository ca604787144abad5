"""`--help` of every command: it teaches with an example, and is text as it is meant to be read."""

import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
from tests.cli.command import Person, environment
from typer.main import get_command
from typer.testing import CliRunner

from privet.cli.app import app
from privet.cli.node.commands import node


def commands(command: Any, *path: str) -> Iterator[tuple[str, ...]]:
    """Every command by its words, groups included."""
    yield path
    for name, below in getattr(command, "commands", {}).items():
        yield from commands(below, *path, name)


def examples(words: Sequence[str]) -> list[str]:
    """The lines of a command's examples, as they were written."""
    of_node = len(words) > 1 and words[0] == "node"
    command: Any = get_command(node if of_node else app)
    for word in words[1:] if of_node else words:
        command = command.commands[word]
    blocks = re.findall(r"```\n(.*?)```", command.help or "", re.DOTALL)
    return [line.strip() for block in blocks for line in block.splitlines() if line.strip()]


GROUPED = [*commands(get_command(app))] + [("node", name) for name in ("bootstrap", "issue", "renew", "status")]
OBVIOUS = {(), ("version",), ("cert",), ("eab",), ("policy",), ("token",)}


@pytest.mark.parametrize("words", GROUPED, ids=" ".join)
def test_help_is_to_be_read_and_has_an_example(words: tuple[str, ...]) -> None:
    shown = CliRunner().invoke(app, [*words, "--help"], env={"COLUMNS": "80", "TERMINAL_WIDTH": "80"})
    assert shown.exit_code == 0
    assert "```" not in shown.output
    about = shown.output.partition("─ ")[0]
    lines = [line.strip() for line in about.splitlines()]
    assert any(line.startswith(f"privet {' '.join(words)}") for line in lines[2:]) or words in OBVIOUS
    # An example that is broken into lines by the terminal cannot be copied.
    assert [line for line in examples(words) if line not in lines] == []


def test_a_group_says_of_each_of_its_commands_in_a_line_what_it_does() -> None:
    shown = CliRunner().invoke(app, ["node", "--help"], env={"COLUMNS": "80", "TERMINAL_WIDTH": "80"}).output
    lines = [line for line in shown.partition("─ Commands")[2].splitlines() if line.startswith("│")]
    assert [line.split()[1] for line in lines] == ["bootstrap", "issue", "renew", "status"]


def test_what_cannot_be_printed_is_a_sentence(person: Person) -> None:
    """On a disk that is full, into a terminal that has other letters, and into none."""
    person.does("cert", "create-ca")
    privet, environ = (sys.executable, "-m", "privet"), environment(person.folder)

    def run(command: str, **more: str) -> subprocess.CompletedProcess[bytes]:
        words = ("sh", "-c", f'"$@" {command}', "sh", *privet)
        return subprocess.run(words, cwd=person.folder, env=environ | more, capture_output=True, timeout=60)

    full = run("cert list >/dev/full")
    assert (full.returncode, full.stderr) == (
        1,
        b"privet: what was to be printed cannot be written: No space left on device\n",
    )
    foreign = run("doctor --cert nope", PYTHONIOENCODING="ascii")
    assert (foreign.returncode, foreign.stderr) == (1, b"")
    assert rb"\u2192 see whether its name is right" in foreign.stdout
    closed = run("cert list >&-")
    assert (closed.returncode, closed.stderr) == (0, b"")
