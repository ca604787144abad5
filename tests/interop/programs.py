"""Programs that run beside a test or a benchmark: found, started, listened to, and ended.

The law of this module: a program is known to be up by what it says or by its port, never by having slept long enough;
and only what was started here is ended here.
"""

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from random import SystemRandom
from typing import Self

import pytest

HERE = str(Path(sys.executable).parent)
ELSEWHERE = os.pathsep.join(
    [folder for folder in os.environ.get("PATH", os.defpath).split(os.pathsep) if folder != HERE]
    + ["/usr/local/sbin", "/usr/sbin", "/sbin"]
)


def need(name: str, *, path: str = os.pathsep.join((HERE, ELSEWHERE)), source: str = "") -> str:
    """Return where the program is. Without it the test is skipped; in CI it fails, because there the set-up
    (scripts/install) was to bring it."""
    found = shutil.which(name, path=path)
    if found is not None:
        return found
    missing = f"{name} is not installed; it comes from {source or f'the {name} package'}"
    if os.environ.get("CI") == "true":
        pytest.fail(missing)
    pytest.skip(missing)


_SHARE = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
_SHARES = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
_GIVEN = deque[int](maxlen=1000)


def free_port() -> int:
    """A port that nobody has, out of those that the system gives to nobody who doesn't ask for them by number. Whoever
    was given it finds it free now and later: no other test of this run is given the same one."""
    for port in SystemRandom().sample(range(20_000 + _SHARE, 32_000, _SHARES), 100):
        with socket.socket() as probe, suppress(OSError):
            if port not in _GIVEN:
                probe.bind(("127.0.0.1", port))
                _GIVEN.append(port)
                return port
    raise OSError("a hundred ports tried, and all are taken")


class Program:
    """A running program. What it prints is read as it comes; `wait_for` waits for a line of it. Lines that it prints
    at once are heard at once: whoever has waited for one of them may look for the others."""

    def __init__(self, *command: str | Path, env: Mapping[str, str] | None = None, cwd: Path | None = None) -> None:
        self.command = [str(part) for part in command]
        self._said: list[str] = []
        self._ended = False
        self._news = threading.Condition()
        # A session of its own, so that what it started can be ended with it.
        self.process = subprocess.Popen(
            self.command,
            env={**os.environ, **(env or {})},
            cwd=cwd,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        rest = b""
        while piece := os.read(self.process.stdout.fileno(), 65536):
            lines, newline, rest = (rest + piece).rpartition(b"\n")
            self._hear(lines + newline)
        self._hear(rest, ended=True)

    def _hear(self, said: bytes, *, ended: bool = False) -> None:
        with self._news:
            self._said.append(said.decode(errors="replace").replace("\r\n", "\n"))
            self._ended = ended
            self._news.notify_all()

    @property
    def output(self) -> str:
        with self._news:
            return "".join(self._said)

    def wait_for(self, pattern: str, *, seconds: float = 60, after: int = 0) -> re.Match[str]:
        """Return the first match of `pattern` behind the character `after` of what the program prints."""
        deadline = time.monotonic() + seconds
        with self._news:
            while True:
                match = re.compile(pattern).search("".join(self._said), after)
                if match is not None:
                    return match
                if self._ended or not self._news.wait(deadline - time.monotonic()):
                    break
        ended = "ended" if self._ended else f"said nothing like it for {seconds:g} seconds"
        raise AssertionError(f"waited for {pattern!r}, but {self.command} {ended}:\n{self.output}")

    def wait_for_port(self, port: int, *, seconds: float = 60) -> None:
        """Return once the program takes connections there, for those that say they are up a little before they are."""
        deadline = time.monotonic() + seconds
        while True:
            with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=seconds):
                return
            assert self.process.poll() is None, f"{self.command} ended:\n{self.output}"
            assert time.monotonic() < deadline, f"nobody listens at port {port}:\n{self.output}"
            time.sleep(0.02)

    def stop(self, *, seconds: float = 30) -> int:
        """Ask the program to end and return its exit status; after `seconds` end it, and what it started, for good."""
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(seconds)
            except subprocess.TimeoutExpired:
                os.killpg(self.process.pid, signal.SIGKILL)
        status = self.process.wait()
        self._reader.join(seconds)
        if self.process.stdout is not None and not self._reader.is_alive():
            self.process.stdout.close()
        return status

    def kill(self) -> None:
        """End the program and what it started as a crash would."""
        with suppress(ProcessLookupError):  # it has ended by itself
            os.killpg(self.process.pid, signal.SIGKILL)
        self.stop()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


def run(*command: str | Path, env: Mapping[str, str] | None = None, cwd: Path | None = None) -> str:
    """Run a program to its end and return what it printed; a failure shows that and its complaints."""
    done = subprocess.run(
        [str(part) for part in command],
        env={**os.environ, **(env or {})},
        cwd=cwd,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
        timeout=120,
    )
    assert done.returncode == 0, f"{done.args} ended with {done.returncode}:\n{done.stdout}{done.stderr}"
    return done.stdout
