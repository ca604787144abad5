"""Rows L16 to L19, L25, L26, L28: programs of nodes that were written for lacme run here, against its CA server."""

import importlib.util
import sys
from pathlib import Path

import pytest
from tests.interop.programs import Program, run
from tests.reference.test_lacme_programs import PROGRAMS, fetch, running

pytestmark = [pytest.mark.interop, pytest.mark.xdist_group("reference")]


def moved(program: str, url: str, folder: Path) -> Path:
    """The program as it stands, but for the address of its CA, which is another one here."""
    text = (PROGRAMS / f"{program}.py").read_text()
    for address in ("http://ca-server:8443", "http://localhost:8443"):
        text = text.replace(address, url)
    path = folder / f"{program}.py"
    path.write_text(text)
    return path


def test_a_node_gets_its_certificate(tmp_path: Path) -> None:
    with running("ca_server", tmp_path) as url:
        said = run(sys.executable, moved("issuing", url, tmp_path), env={"HOME": str(tmp_path)}, cwd=tmp_path)
    assert said.startswith("Certificate issued, expires 20")
    assert (tmp_path / ".privet-node/certs/worker-1.internal/fullchain.pem").exists()


def test_the_two_complete_programs_run_together(tmp_path: Path) -> None:
    if importlib.util.find_spec("privet.mtls") is None:
        pytest.skip("there is no privet.mtls here")
    with running("ca_server", tmp_path) as url:
        (tmp_path / "root-ca.pem").write_bytes(fetch(f"{url}/root-ca.pem"))
        path = moved("service_node", url, tmp_path)
        # The program says nothing until it has renewed, so it is made to say when it waits for that.
        path.write_text(path.read_text().replace("await asyncio.sleep(3600)", "print('up'); await asyncio.sleep(3600)"))
        with Program(sys.executable, "-u", path, env={"HOME": str(tmp_path)}, cwd=tmp_path) as node:
            node.wait_for("up")
    assert (tmp_path / ".privet-node/certs/worker-1.internal/key.pem").exists()


def test_renewal_in_the_process_of_the_authority(tmp_path: Path) -> None:
    said = run(sys.executable, PROGRAMS / "direct.py", env={"HOME": str(tmp_path)}, cwd=tmp_path)
    assert said.startswith("True api.internal 20")
