"""Rows L16 to L19, L25, L26, L28: programs of nodes that were written for lacme run here, against its CA server."""

import shutil
import subprocess
import sys
import time
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


# A network of their own, in which the two programs can have the addresses that they name.
APART = """
ip link set lo up
trap 'kill $ca ${node-}' EXIT
trap exit TERM
"$0" ca_server.py & ca=$!
until "$0" -c 'import httpx
with open("root-ca.pem", "wb") as f:
    f.write(httpx.get("http://localhost:8443/root-ca.pem").raise_for_status().content)' 2>/dev/null
do sleep 0.1; done
"$0" service_node.py & node=$!
wait $node
"""


def test_the_two_complete_programs_run_together_as_they_stand(tmp_path: Path) -> None:
    apart = ("unshare", "--map-root-user", "--net")
    if shutil.which("ip") is None or subprocess.run([*apart, "true"], capture_output=True).returncode:
        pytest.skip("no namespaces can be made here")
    for name in ("ca_server.py", "service_node.py"):
        shutil.copy(PROGRAMS / name, tmp_path)
    key = tmp_path / ".privet-node/certs/worker-1.internal/key.pem"
    command = (*apart, "sh", "-euc", APART, sys.executable)
    with Program(*command, env={"HOME": str(tmp_path)}, cwd=tmp_path) as programs:
        deadline = time.monotonic() + 60
        while not key.exists():
            assert programs.process.poll() is None, programs.output
            assert time.monotonic() < deadline, programs.output
            time.sleep(0.05)
        # Whatever comes after the certificate, its contexts and its renewal, would end the node at once.
        time.sleep(1)
        assert programs.process.poll() is None, programs.output
        assert "Traceback" not in programs.output, programs.output


def test_the_two_complete_programs_run_together(tmp_path: Path) -> None:
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
