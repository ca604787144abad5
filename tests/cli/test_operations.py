"""docs/operations.md, which does what it says: its commands run as they stand there, from the first to the last."""

import os
import re
import subprocess
from pathlib import Path

import pytest
from tests.cli.command import Person, environment
from tests.interop.postgresql import PostgreSQL
from tests.interop.programs import HERE, need

from privet.stores import open_store

PAGE = (Path(__file__).parents[2] / "docs/operations.md").read_text()
BLOCKS = re.findall(r"```sh\n(.*?)```", PAGE, re.DOTALL)


@pytest.fixture
def place(tmp_path: Path) -> Path:
    for folder in ("etc/privet", "var/lib/privet", "var/backups"):
        (tmp_path / folder).mkdir(parents=True)
    return tmp_path


def test_the_page_can_be_followed(place: Path, postgresql: PostgreSQL) -> None:
    need("openssl")
    owner = Person(place, f"sqlite:///{place}/var/lib/privet/privet.db")
    owner.does("init")
    owner.does("issue", "web.internal")
    moved = postgresql.new_database()
    script = "set -e\n" + "".join(BLOCKS)
    script = re.sub(r"(?<![\w.])/(etc|var)/", rf"{place}/\1/", script)
    script = script.replace("postgresql://privet@db.internal/privet", moved)
    path = f"{HERE}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-c", script],
        cwd=place,
        env=environment(place, {"PATH": path}),
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    with open_store(owner.store) as one, open_store(moved) as other:
        assert [each for each in other.records() if each.kind == "certificate"] == list(one.find("certificate"))
    assert {path.name for path in (place / "var/lib/privet").glob("*.db")} == {"privet.db", "restored.db"}
    assert b"BEGIN CERTIFICATE" in (place / "var/lib/privet/root-2.pem").read_bytes()


def test_every_page_it_names_has_what_it_names() -> None:
    docs = Path(__file__).parents[2] / "docs"
    for page, section in re.findall(r"\]\(([a-z]+\.md)(?:#([a-z-]+))?\)", PAGE):
        headings = re.findall(r"^#+ (.*)$", (docs / page).read_text(), re.MULTILINE)
        assert not section or section in [heading.lower().replace(" ", "-") for heading in headings]
