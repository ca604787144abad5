"""What a client has been told would survive a power cut: seen from the kernel's side, with strace.

Of the files of a store, only those in which commits are kept matter here: SQLite's log, or the journal.
"""

import re
import subprocess
import sys
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
from tests.interop.programs import need

CHILD = Path(__file__).with_name("synced.py")
CALLS = "trace=write,pwrite64,fsync,fdatasync"


def watch(url: str) -> Mapping[str, Sequence[str]]:
    """What was written ("write") and synced ("sync") of the log before each thing the child says."""
    strace = need("strace")
    traced = subprocess.run(
        [strace, "-f", "-y", "-e", CALLS, "-e", "signal=none", sys.executable, str(CHILD), url],
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
        cwd=Path(__file__).parents[2],
        env={"PYTHONPATH": "."},
    )
    seen: dict[str, list[str]] = defaultdict(list)
    deeds: list[str] = []
    for line in traced.stderr.splitlines():
        if said := re.search(r'write\(2<[^>]*>, "# ([\w -]+)\\n"', line):
            seen[said[1]], deeds = deeds, []
        elif call := re.search(r"\b(write|pwrite64|fsync|fdatasync)\(\d+<[^>]*(-wal|journal)>", line):
            deeds.append("sync" if "sync" in call[1] else "write")
    return seen


@pytest.mark.interop
@pytest.mark.parametrize("url", ["sqlite:///{}/privet.db", "file:///{}/store"], ids=["sqlite", "file"])
def test_no_answer_is_ahead_of_the_medium(tmp_path: Path, url: str) -> None:
    seen = watch(url.format(tmp_path))
    assert list(seen) == ["begin", "new-account", "new-order", "finalize", "certificate", "issued by hand"]
    for told in ("new-account", "new-order", "finalize", "issued by hand"):
        assert "write" in seen[told], told
        assert seen[told][-1] == "sync", told
    # Once before the signature and once behind it: what is about to be signed is on the medium before it is signed.
    assert seen["finalize"].count("sync") >= 2
    # A spent nonce is written, and waits for nobody.
    assert set(seen["certificate"]) == {"write"}
