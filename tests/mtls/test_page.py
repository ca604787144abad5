"""What docs/mtls.md says beside its servers and clients, which test_programs.py runs."""

import re
import shlex
import sys
from pathlib import Path

import httpx
import pytest
from tests.cli.command import Person
from tests.interop.programs import Program, free_port
from tests.mtls import page
from tests.mtls.nodes import Authority, Node, shake

from privet.mtls import client_ssl_context

ROOT = Path(__file__).parents[2]


def test_the_contexts_of_the_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    ca = Authority()
    ca.node().write(tmp_path)
    (tmp_path / "ca.crt").write_bytes(ca.pem)
    names: dict[str, object] = {"__name__": "page"}
    run = [block for block in page.blocks("python") if not re.match(r"# \w+\.py\n", block)]
    assert len(run) == 3
    for block in run:
        exec(compile(block, "docs/mtls.md", "exec"), names)
        shake(names["server_ctx"], names["client_ctx"])  # type: ignore[arg-type]


def test_the_guarded_application_of_the_page(tmp_path: Path) -> None:
    ca, port = Authority(), free_port()
    ca.node().write(tmp_path)
    (tmp_path / "ca.crt").write_bytes(ca.pem)
    (tmp_path / "guarded.py").write_text(page.program("guarded.py"))
    words = shlex.split(page.command("uvicorn guarded:app").replace("8443", str(port)))

    def answer(node: Node) -> tuple[int, str]:
        with httpx.Client(verify=client_ssl_context(node.cert, node.key, ca.pem)) as client:
            answer = client.get(f"https://localhost:{port}/")
        return answer.status_code, answer.text

    with Program(sys.executable, "-m", *words, cwd=tmp_path) as program:
        program.wait_for("Uvicorn running on")
        assert answer(ca.node(cn="device-01", client=True)) == (200, "hello, device-01")
        assert answer(ca.node("worker-1.internal"))[0] == 200
        assert answer(ca.node("worker-2.internal"))[0] == 403


def test_the_commands_of_the_page(person: Person) -> None:
    (block,) = [block for block in page.blocks("sh") if block.startswith("privet cert")]
    for line in block.splitlines():
        person.does(*line.split()[1:])
    doctor = page.command("privet doctor --cert").split()[1:]
    assert person.does(*doctor).out == "nothing is wrong with what was looked at\n"
    assert (person.folder / "certs/client/client.crt").exists()


@pytest.fixture
def person(tmp_path: Path) -> Person:
    return Person(tmp_path)


def test_the_page_names_every_cause_and_no_other() -> None:
    source = "".join((ROOT / f"src/privet/cli/{name}.py").read_text() for name in ("doctor", "diagnosis", "verifying"))
    given = set(re.findall(r'Finding\(\s*"([\w-]+)"', source))
    given.update(*re.findall(r'cause = "([\w-]+)" if .* else "([\w-]+)"', source))
    (section,) = re.findall(r"## When it does not work\n(.*)", page.TEXT, re.DOTALL)
    table = [line for line in section.splitlines() if line.startswith("|")]
    assert set(re.findall(r"`([\w-]+)`", "\n".join(table))) == given
    tested = "".join((ROOT / f"tests/{name}.py").read_text() for name in ("cli/test_doctor", "interop/test_databases"))
    assert [cause for cause in given - {"not-yet-valid"} if f'"{cause}"' not in tested] == []
