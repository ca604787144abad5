"""Servers to be harmed: `privet serve` on each kind of store, with what they stand on under our control.

The law of this module: what is killed, paused or cut off here was started here, and all of it is gone at the end.
"""

import os
import resource
import select
import shutil
import signal
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path
from typing import Self

from tests.interop.postgresql import PostgreSQL
from tests.interop.programs import Program, free_port, need, run
from tests.interop.serving import PRIVET

_NUMBERS = count(1)
FAKETIME = sorted(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"))


class Replica:
    """One `privet serve`, with its workers. It is at the same address whenever it is started."""

    def __init__(
        self, folder: Path, store: str, *options: str, inside: Sequence[str] = (), env: Mapping[str, str] | None = None
    ) -> None:
        folder.mkdir(exist_ok=True)
        self.folder = folder
        self._command = [*inside, *PRIVET, "serve", "--store", store, "--auto-approve", *options]
        self._env = dict(env or {})
        self.program: Program | None = None
        self.ended: list[str] = []
        """What those said that are no more."""

    def start(self) -> None:
        self.program = Program(*self._command, cwd=self.folder, env=self._env)
        self.program.wait_for(r"https?://\S+/directory\b")

    def fail_to_start(self) -> str:
        """Start where that cannot go well; return the sentence it ends with."""
        program = Program(*self._command, cwd=self.folder, env=self._env)
        status = program.process.wait(60)
        program.stop()
        self.ended.append(program.output)
        assert status == 1, program.output
        return program.output.splitlines()[-1]

    def processes(self) -> list[int]:
        """Those that answer requests."""
        assert self.program is not None
        pid = self.program.process.pid
        return [child for child in _children_of(pid) if b"spawn_main" in _command_of(child)] or [pid]

    def kill_worker(self, number: int) -> None:
        workers = self.processes()
        with suppress(ProcessLookupError):
            os.kill(workers[number % len(workers)], signal.SIGKILL)

    def kill(self) -> None:
        if self.program is not None:
            ends = []
            for child in _children_of(self.program.process.pid):
                with suppress(ProcessLookupError):
                    ends.append(os.pidfd_open(child))
            self.program.kill()
            for end in ends:  # until then they have files open
                select.select([end], [], [], 60)
                os.close(end)
            self.ended.append(self.program.output)
            self.program = None

    def stop(self) -> None:
        assert self.program is not None
        assert self.program.stop(seconds=60) == 0, self.program.output
        self.ended.append(self.program.output)
        self.program = None

    @contextmanager
    def paused(self) -> Iterator[None]:
        assert self.program is not None
        os.killpg(self.program.process.pid, signal.SIGSTOP)
        try:
            yield
        finally:
            os.killpg(self.program.process.pid, signal.SIGCONT)

    @contextmanager
    def small_files(self) -> Iterator[None]:
        """No file of theirs may become larger than a few pages: a full disk, where none can be mounted."""
        pids = self.processes()
        before = [resource.prlimit(pid, resource.RLIMIT_FSIZE) for pid in pids]
        for pid, (_, hard) in zip(pids, before, strict=True):
            resource.prlimit(pid, resource.RLIMIT_FSIZE, (20_000, hard))
        try:
            yield
        finally:
            for pid, limits in zip(pids, before, strict=True):
                with suppress(ProcessLookupError):
                    resource.prlimit(pid, resource.RLIMIT_FSIZE, limits)


def _children_of(pid: int) -> list[int]:
    with suppress(OSError):
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    return []


def _command_of(pid: int) -> bytes:
    with suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    return b""


class Disk:
    """A folder that can be full or read-only: a small device of its own, where we may mount one."""

    def __init__(self, folder: Path, megabytes: int) -> None:
        folder.mkdir()
        self.folder = folder
        mount = ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "privet-chaos", str(folder)]
        self.mounted = os.geteuid() == 0 and not subprocess.run(mount, capture_output=True).returncode

    @contextmanager
    def full(self) -> Iterator[None]:
        ballast, size = self.folder / "ballast", 1 << 20
        try:
            with ballast.open("wb", buffering=0) as file:
                while size:
                    try:
                        file.write(bytes(size))
                    except OSError:
                        size //= 2
            yield
        finally:
            ballast.unlink()

    @contextmanager
    def read_only(self) -> Iterator[None]:
        """Only while no file in it is open for writing."""
        run("mount", "-o", "remount,ro", self.folder)
        try:
            yield
        finally:
            run("mount", "-o", "remount,rw", self.folder)

    def remove(self) -> None:
        if self.mounted:
            run("umount", self.folder)


class Clock:
    """What the servers take for the time, if Debian's libfaketime is there."""

    def __init__(self, folder: Path) -> None:
        self._file = folder / "clock"
        self.there = bool(FAKETIME)
        if not self.there and os.environ.get("CI") == "true":
            need("faketime")
        self.set(0)

    def set(self, minutes: int) -> None:
        new = self._file.with_suffix(".new")
        new.write_text(f"{minutes * 60:+d}\n")
        new.replace(self._file)

    @property
    def env(self) -> dict[str, str]:
        if not self.there:
            return {}
        return {
            "LD_PRELOAD": str(FAKETIME[0]),
            "FAKETIME_TIMESTAMP_FILE": str(self._file),
            "FAKETIME_CACHE_DURATION": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            "NO_FAKE_STAT": "1",
        }


class Site:
    """Everything that serves, on files of our own: one replica with two workers."""

    def __init__(self, folder: Path, scheme: str, seconds: float) -> None:
        self.folder = folder
        self.disk = Disk(folder / "disk", 64 + int(seconds))
        self.clock = Clock(folder)
        self.store = f"{scheme}:///{self.disk.folder}/store"
        self.port = free_port()
        self.base = f"http://127.0.0.1:{self.port}"
        options = ("--workers", "2", "--port", str(self.port))
        self.replicas = [Replica(folder / "replica", self.store, *options, env=self.clock.env)]
        self.sockets: list[Path] = []
        self.crashes = 0
        """How often the database has lost what it had not written to disk yet."""

    def __enter__(self) -> Self:
        for replica in self.replicas:
            replica.start()
        return self

    def __exit__(self, failure: object, *_: object) -> None:
        for replica in self.replicas:
            replica.kill()
            if failure:
                print(*replica.ended, sep="\n")
        self.disk.remove()


class Replicas(Site):
    """Two replicas on a PostgreSQL, the first one with two workers, with a network in between if namespaces can be
    made: theirs and the database's."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.network = Network()
        self.database = _Reachable(self.network)
        self.store = self.database.near
        self.sockets = [folder / f"{number}.sock" for number in (1, 2)]
        self.base = "http://chaos.internal"
        self.replicas = [
            Replica(
                folder / socket.stem,
                self.database.far,
                *("--uds", str(socket), "--external-url", self.base, "--workers", str(workers)),
                inside=self.network.inside("servers"),
            )
            for socket, workers in zip(self.sockets, (2, 1), strict=True)
        ]
        self.crashes = 0

    def __enter__(self) -> Self:
        try:
            self.database.make().start()
            return super().__enter__()
        except BaseException:
            self._remove()
            raise

    def __exit__(self, failure: object, *_: object) -> None:
        for replica in self.replicas:
            replica.kill()
            if failure:
                print(*replica.ended, sep="\n")
        self._remove()

    def _remove(self) -> None:
        self.database.remove()
        self.network.remove()


class Network:
    """Two hosts and the wire between them, which can be cut."""

    def __init__(self) -> None:
        self._name = f"privetchaos{os.getpid()}x{next(_NUMBERS)}"
        self.there = (
            os.geteuid() == 0
            and not subprocess.run(["ip", "netns", "add", f"{self._name}-servers"], capture_output=True).returncode
        )
        if not self.there:
            return
        servers, database = f"{self._name}-servers", f"{self._name}-database"
        run("ip", "netns", "add", database)
        run("ip", "link", "add", "wire", "netns", servers, "type", "veth", "peer", "name", "wire", "netns", database)
        for host, address in ((servers, "10.88.0.1"), (database, "10.88.0.2")):
            run("ip", "-n", host, "addr", "add", f"{address}/24", "dev", "wire")
            run("ip", "-n", host, "link", "set", "lo", "up")
            run("ip", "-n", host, "link", "set", "wire", "up")

    def inside(self, host: str) -> list[str]:
        return ["ip", "netns", "exec", f"{self._name}-{host}"] if self.there else []

    @contextmanager
    def cut(self) -> Iterator[None]:
        wire = ["-n", f"{self._name}-database", "link", "set", "wire"]
        run("ip", *wire, "down")
        try:
            yield
        finally:
            run("ip", *wire, "up")

    def remove(self) -> None:
        if self.there:
            for host in ("servers", "database"):
                run("ip", "netns", "delete", f"{self._name}-{host}")


class _Reachable(PostgreSQL):
    """A PostgreSQL that the replicas reach by the network, and we by its socket."""

    def __init__(self, network: Network) -> None:
        listen = "*" if network.there else "127.0.0.1"
        super().__init__(options=f"-c fsync=off -c max_connections=50 -c listen_addresses={listen}")
        self._as = [*network.inside("database"), *self._as]
        self._network = network

    @property
    def near(self) -> str:
        return f"postgresql://postgres@/postgres?host={self.folder}&port={self.port}"

    @property
    def far(self) -> str:
        host = "10.88.0.2" if self._network.there else "127.0.0.1"
        return f"postgresql://postgres@{host}:{self.port}/postgres"

    def url(self, database: str = "postgres", user: str = "postgres") -> str:
        return self.near

    def make(self) -> Self:
        super().make()
        if self._network.there:
            with (self.data / "pg_hba.conf").open("a") as rules:
                rules.write("host all all 10.88.0.1/32 trust\n")
        return self

    def remove(self) -> None:
        with suppress(AssertionError):
            self.stop("immediate")
        shutil.rmtree(self.folder)
