"""What `privet serve` prints to be copied: run as it is printed, by a shell, in an empty folder."""

import os
from pathlib import Path

import pytest
from tests.certificates import openssl_verify
from tests.interop.programs import ELSEWHERE, HERE, Program, free_port, need, run
from tests.interop.serving import Privet
from tests.interop.test_caddy import fetch

pytestmark = [pytest.mark.interop, pytest.mark.xdist_group("printed")]


def printed(output: str, head: str) -> str:
    """The lines below the comment that begins so, up to the next empty one."""
    lines = iter(output.splitlines())
    next(line for line in lines if line.startswith(f"# {head}"))
    return "\n".join(iter(lambda: next(lines, ""), ""))


@pytest.mark.parametrize("options", [[], ["--tls"]], ids=["http", "https"])
def test_the_printed_lines_work(tmp_path: Path, options: list[str]) -> None:
    for name in ("curl", "openssl", "certbot", "lego", "caddy"):
        need(name)
    folder = tmp_path / "stranger"
    folder.mkdir()
    env = {"HOME": str(folder), "PATH": os.pathsep.join((HERE, ELSEWHERE))}
    with Privet(tmp_path / "server", *options) as server:
        assert server.program is not None
        output = server.program.wait_for(r"(?s).*# Caddy.*\n}\n").group()

        fingerprint = run("bash", "-euc", printed(output, "The root certificate"), env=env, cwd=folder)
        root = folder / "privet-root.pem"
        assert fingerprint.strip().rpartition("=")[2] in output
        assert '"newOrder"' in run("bash", "-euc", printed(output, "curl"), env=env, cwd=folder)

        run("bash", "-euc", printed(output, "certbot"), env=env, cwd=folder)
        chain = (folder / "certbot/live/web.internal/fullchain.pem").read_bytes()
        openssl_verify(chain, root.read_bytes(), chain_pem=chain, name="web.internal")

        run("bash", "-euc", printed(output, "lego"), env=env, cwd=folder)
        chain = (folder / "lego/certificates/web.internal.crt").read_bytes()
        openssl_verify(chain, root.read_bytes(), chain_pem=chain, name="web.internal")

        # As printed but for the ports, which somebody else on this machine may have.
        port = str(free_port())
        caddyfile = printed(output, "Caddy").replace("8443", port).replace("8080", f"{free_port()}\n    admin off")
        (folder / "Caddyfile").write_text(caddyfile)
        with Program(need("caddy"), "run", env=env, cwd=folder) as caddy:
            caddy.wait_for('certificate obtained successfully","identifier":"web.internal"')
            assert "Hello from web.internal" in fetch(int(port), "web.internal", root)
