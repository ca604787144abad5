"""kill -9, at every step and at any moment: what was promised is there, and what is there is whole."""

import random
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import psycopg
import pytest
from tests.stores.process import PAST, check, step

from privet.stores import open_store

PROCESS = Path(__file__).with_name("process.py")


def end_sessions(url: str) -> None:
    """Wait until nothing that a killed process asked for is still under way."""
    with psycopg.connect(url, autocommit=True) as other:
        other.execute("SELECT pg_terminate_backend(pid, 60000) FROM pg_stat_activity WHERE application_name = 'privet'")


def run(*arguments: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, PROCESS, *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )


@pytest.fixture
def folder() -> Iterator[Path]:
    """In memory where there is such a place: what a killed process wrote is as safe there, and it is quicker."""
    with TemporaryDirectory(dir="/dev/shm" if Path("/dev/shm").is_dir() else None) as folder:
        yield Path(folder)


@pytest.mark.parametrize("deed", ["open", "commit", "prune", "fill"])
@pytest.mark.parametrize("scheme", ["file", "sqlite"])
def test_killed_at_every_step(folder: Path, scheme: str, deed: str) -> None:
    kill_everywhere(f"{scheme}:///{folder}/store", deed)


def test_killed_at_every_step_of_making_a_journal_shorter(folder: Path) -> None:
    kill_everywhere(f"file:///{folder}/store", "compact")


def kill_everywhere(url: str, deed: str) -> None:
    with run("kill", url, deed) as process:
        output, _ = process.communicate("\n")
    assert process.returncode == 0
    assert int(output.removeprefix("steps ")) > 10


def test_killed_at_any_moment(url: str) -> None:
    """Eight processes in turn, each killed while it commits, under the eyes of one that has the store open."""
    seed = random.randrange(2**32)
    print("seed", seed)
    moments = random.Random(seed)
    with open_store(url) as watching:
        for _ in range(8):
            with run("issue", url) as process:
                assert process.stdin
                assert process.stdout
                process.stdin.write("\n")
                process.stdin.flush()
                promised = 0
                for _ in range(moments.randrange(1, 6)):
                    promised = int(process.stdout.readline().removeprefix("stored "))
                for _ in range(moments.randrange(10_000)):
                    pass
                process.kill()
                said = process.stdout.read().split()
            if url.startswith("postgresql:"):
                end_sessions(url)
            promised = max([promised, *map(int, said[1::2])])
            assert check(watching, tidy=False) in (promised, promised + 1)
            with open_store(url) as opened:
                assert check(opened) in (promised, promised + 1)
                step(opened)
                opened.prune(PAST)
