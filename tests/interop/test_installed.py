"""A newcomer's first minutes: a clean checkout and one command, or the wheel and `privet serve`."""

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.interop.clients import Certbot
from tests.interop.programs import Program, free_port, need, run

pytestmark = [pytest.mark.interop, pytest.mark.xdist_group("installed")]

HERE = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """What git knows of this tree, as it is now, and nothing else."""
    if not (HERE / ".git").exists():
        pytest.skip("this is no checkout")
    folder = tmp_path_factory.mktemp("newcomer") / "privet"
    for name in run(need("git"), "ls-files", cwd=HERE).splitlines():
        if (HERE / name).exists():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(HERE / name, folder / name)
    yield folder
    shutil.rmtree(folder)  # an environment is large, and pytest would keep three


def fetch(*command: str | Path) -> None:
    """Run what fetches packages, which takes as long as it takes."""
    done = subprocess.run(command, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stdout + done.stderr


def believed(program: Program, folder: Path) -> Certbot:
    """A client of the server that says so, told nothing but what was printed. What it gets, openssl has to believe."""
    directory = program.wait_for(r"http://\S+/directory\b", seconds=280).group()
    root = folder / "root.pem"
    run("curl", "-sS", "-o", root, directory.removesuffix("directory") + "ca.pem")
    fingerprint = run("openssl", "x509", "-in", root, "-noout", "-fingerprint", "-sha256").strip().rpartition("=")[2]
    assert f"root SHA-256 {fingerprint}" in program.output
    return Certbot(folder / "certbot", directory, root)


def test_a_clean_checkout_serves_by_one_command_and_keeps_what_it_did(checkout: Path, tmp_path: Path) -> None:
    command = ("scripts/serve", "--port", str(free_port()))
    with Program(*command, cwd=checkout) as serving:
        client = believed(serving, tmp_path)
        client.issue(["web.internal"]).check(tmp_path / "root.pem", ["web.internal"])
        root = (tmp_path / "root.pem").read_bytes()
        assert serving.stop() == 0, serving.output
    with Program(*command, cwd=checkout) as serving:
        client = believed(serving, tmp_path)
        client.renew(["web.internal"]).check(tmp_path / "root.pem", ["web.internal"])
        assert (tmp_path / "root.pem").read_bytes() == root
        assert len(client.accounts()) == 1
        assert serving.stop() == 0, serving.output
    listed = run(checkout / ".venv/bin/privet", "list", "--json", "--store", f"sqlite:///{checkout}/.privet/privet.db")
    assert [each["names"] for each in json.loads(listed)] == 2 * [["web.internal"]]


def test_the_wheel_brings_the_command(checkout: Path, tmp_path: Path) -> None:
    venv = checkout / "venv"
    fetch(sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", tmp_path, checkout)
    (wheel,) = tmp_path.glob("privet-*.whl")
    fetch(sys.executable, "-m", "venv", venv)
    fetch(venv / "bin/pip", "install", "--quiet", wheel)
    command = (venv / "bin/privet", "serve", "--auto-approve", "--store", f"sqlite:///{tmp_path}/ca.db")
    with Program(*command, "--port", str(free_port()), cwd=tmp_path) as serving:
        client = believed(serving, tmp_path)
        client.issue(["web.internal"]).check(tmp_path / "root.pem", ["web.internal"])
        assert serving.stop() == 0, serving.output
