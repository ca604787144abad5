"""All benchmarks, with little to do: what docs/performance.md says how to measure can be measured."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from tests.interop.programs import need

ROOT = Path(__file__).parents[1]
TABLE = ("\n|---", "\n|--:")


def host() -> list[str]:
    """How to run a command where nobody has port 80, in which Caddy looks for proof: on a host of its own."""
    if os.geteuid() == 0:
        need("ip", source="Debian's iproute2 package")
        return ["unshare", "--net", "sh", "-c", 'ip link set lo up && exec "$@"', "sh"]
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", 80))
        except OSError as error:
            pytest.skip(f"Caddy proves control on port 80 and nowhere else, which is not to be had here: {error}")
    return []


@pytest.mark.interop
@pytest.mark.timeout(900)
def test_the_page_about_performance_can_be_made_again() -> None:
    command = [*host(), sys.executable, "-m", "benchmarks", "--quick"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=840)
    assert done.returncode == 0, done.stderr
    page = (ROOT / "docs/performance.md").read_text()
    assert sum(map(done.stdout.count, TABLE)) == page.count("<!-- end -->") + 1
    assert done.stdout.startswith(page.split("<!--")[0])
