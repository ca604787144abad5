"""Rows L11, L12, L15 and the server half of L28: programs written for lacme run here, and other clients are served."""

import json
import stat
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from tests.interop.clients import Lego
from tests.interop.programs import Program, free_port

pytestmark = [pytest.mark.interop, pytest.mark.xdist_group("reference")]

PROGRAMS = Path(__file__).parent


@contextmanager
def running(program: str, home: Path) -> Iterator[str]:
    """The program as it stands, served on a free port, at home in a folder of its own."""
    port = str(free_port())
    command = [sys.executable, "-m", "uvicorn", "--app-dir", str(PROGRAMS), f"{program}:app", "--port", port]
    with Program(*command, env={"HOME": str(home)}, cwd=home) as server:
        server.wait_for("Uvicorn running on")
        yield f"http://127.0.0.1:{port}"


def fetch(url: str) -> bytes:
    with urllib.request.urlopen(url) as answer:
        content: bytes = answer.read()
        return content


@pytest.mark.parametrize("program", ["mounted", "ca_server"])
def test_a_client_gets_a_certificate_from_the_program(program: str, tmp_path: Path) -> None:
    root = tmp_path / "root.pem"
    with running(program, tmp_path) as url:
        assert json.loads(fetch(f"{url}/health"))["status"] == "ok"
        root.write_bytes(fetch(f"{url}/acme/ca.pem"))
        lego = Lego(tmp_path / "lego", f"{url}/acme/directory", root)
        lego.issue(["worker-1.internal"]).check(root, ["worker-1.internal"])

    # What it kept is where the guide says, for nobody else to read, and still there when it starts again.
    authority = tmp_path / ".privet-ca/ca/root"
    assert (authority / "cert.pem").read_bytes() == root.read_bytes()
    assert stat.S_IMODE((authority / "key.pem").stat().st_mode) == 0o600
    with running(program, tmp_path) as url:
        assert fetch(f"{url}/acme/ca.pem") == root.read_bytes()
        lego = Lego(tmp_path / "lego", f"{url}/acme/directory", root)
        lego.issue(["worker-2.internal"]).check(root, ["worker-2.internal"])


def test_health_tells_whether_there_is_an_authority(tmp_path: Path) -> None:
    with running("mounted", tmp_path) as url:
        assert json.loads(fetch(f"{url}/health")) == {"status": "ok", "ca_initialized": True}


def test_the_root_is_served_beside_the_responder(tmp_path: Path) -> None:
    with running("ca_server", tmp_path) as url, urllib.request.urlopen(f"{url}/root-ca.pem") as answer:
        assert answer.headers["content-type"] == "application/x-pem-file"
        assert answer.read() == fetch(f"{url}/acme/ca.pem")
