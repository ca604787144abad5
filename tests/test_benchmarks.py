"""All benchmarks, with little to do: what docs/performance.md says how to measure can be measured."""

import socket
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.mark.interop
def test_the_page_about_performance_can_be_made_again() -> None:
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", 80))
        except OSError as error:
            pytest.skip(f"Caddy proves control on port 80 and nowhere else, which is not to be had here: {error}")
    command = [sys.executable, "-m", "benchmarks", "--quick"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stderr
    tables = done.stdout.count("\n|---") + done.stdout.count("\n|--:")
    assert tables == (ROOT / "docs/performance.md").read_text().count("<!-- end -->") + 1
    assert done.stdout.startswith((ROOT / "docs/performance.md").read_text().split("<!--")[0])
