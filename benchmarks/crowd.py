"""What a crowd does to a server, and to those who want a certificate meanwhile: idle connections, bodies that trickle
in, answers that nobody reads, floods of newNonce and newAccount.

    .venv/bin/python -m benchmarks.crowd
    .venv/bin/python -m benchmarks.crowd --connections 10000 --crowds idle,trickle --serve-options "--tls"

Each crowd meets a server of its own, comes from a process of its own, and comes back whenever it is thrown out. The law
of this program: every certificate that is not issued is counted, and makes it end with status 1.
"""

import argparse
import asyncio
import contextlib
import json
import math
import multiprocessing
import resource
import ssl
import sys
import tempfile
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass
from multiprocessing.synchronize import Event
from pathlib import Path
from statistics import quantiles
from time import monotonic
from urllib.parse import urlsplit

from benchmarks.load import Account, Client, Failed, Place, Tally, jobs
from benchmarks.measure import memory_mib, processor_seconds
from benchmarks.servers import privet

FLOODERS = 32


@dataclass(frozen=True, slots=True)
class Row:
    """What one crowd did. Memory in MiB, times in milliseconds; `done` is what of its doings had an answer, `refused`
    those of them with a problem document; `kib` is what the store has grown by."""

    crowd: str
    connections: int
    before: float
    meanwhile: float
    after: float
    p50_alone: float
    p50: float
    p95: float
    certificates: int
    cpu: float
    done: int
    refused: int
    kib: float
    errors: dict[str, int]


class Crowd:
    """So many connections at once, to be found in their places; what they did is counted."""

    def __init__(self, place: Place, connections: int) -> None:
        self._place = place
        self._connections = connections
        self._missing = connections
        self._all = asyncio.Event()
        self.done = self.refused = 0
        url = urlsplit(place.directory)
        self._host, self._port = url.hostname or "", url.port or 443
        self._get = f"GET {url.path} HTTP/1.1\r\nhost: {url.netloc}\r\n\r\n".encode()
        self._post = f"POST {url.path} HTTP/1.1\r\nhost: {url.netloc}\r\ncontent-length: 60000\r\n\r\n".encode()

    async def come(self, kind: str, there: Event, go: Event) -> None:
        members = [asyncio.create_task(self._stay(getattr(self, f"be_{kind}"))) for _ in range(self._connections)]
        await self._all.wait()
        there.set()
        await asyncio.to_thread(go.wait)
        for member in members:
            member.cancel()
        await asyncio.gather(*members, return_exceptions=True)

    async def _stay(self, be: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]) -> None:
        counted = False
        while True:
            writer = None
            try:
                reader, writer = await asyncio.open_connection(
                    self._host, self._port, ssl=self._place.trust, limit=4096
                )
                if not counted:
                    counted = True
                    self._missing -= 1
                    if not self._missing:
                        self._all.set()
                await be(reader, writer)
            except (OSError, EOFError, Failed, asyncio.LimitOverrunError):
                await asyncio.sleep(0.1)
            finally:
                if writer is not None:
                    writer.close()

    async def be_silent(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Connect, and say nothing."""
        await reader.read()

    async def be_idle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Be answered once, and say nothing more."""
        writer.write(self._get)
        await reader.readuntil(b"\r\n\r\n")
        self.done += 1
        await reader.read()

    async def be_trickle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Send a body, half of it at once and then a byte each second."""
        writer.write(self._post + b"x" * 30_000)
        while not reader.at_eof():
            await asyncio.sleep(1)
            writer.write(b"x")
            await writer.drain()

    async def be_deaf(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Ask on and on, and read no answer."""
        while True:
            writer.write(self._get * 100)
            await writer.drain()
            self.done += 100

    async def be_nonce(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Ask for nonces as fast as they come."""
        with contextlib.closing(await Client.connect(self._place, Account(), Tally())) as client:
            while True:
                await client.new_nonce()
                self.done += 1

    async def be_account(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Make accounts, each with another key, as fast as they come."""
        with contextlib.closing(await Client.connect(self._place, Account(), Tally())) as client:
            while True:
                self.done += 1
                try:
                    await client.register(Account())
                except Failed as failure:
                    self.refused += 1
                    if not str(failure).startswith("429 "):
                        raise


def crowd(
    kind: str, directory: str, connections: int, there: Event, go: Event, counts: "multiprocessing.Queue[int]"
) -> None:
    allow_files()
    trust = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    trust.check_hostname, trust.verify_mode = False, ssl.CERT_NONE  # a crowd does not care whom it meets
    made = Crowd(Place(directory, trust if directory.startswith("https:") else None), connections)
    asyncio.run(made.come(kind, there, go))
    counts.put(made.done)
    counts.put(made.refused)


KINDS = {"silent": 0, "idle": 0, "trickle": 0, "deaf": FLOODERS, "nonce": FLOODERS, "account": FLOODERS}


def allow_files() -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def meet(kind: str, connections: int, seconds: float, options: list[str]) -> Row:
    with tempfile.TemporaryDirectory(prefix="privet-bench-") as folder:
        tls = "--tls" in options
        more = [each for each in options if each != "--tls"]
        with privet(f"sqlite:///{folder}/privet.db", more, tls=tls) as server:
            return asyncio.run(_meet(kind, connections, seconds, server.place, server.pid, Path(folder)))


async def _meet(kind: str, connections: int, seconds: float, place: Place, pid: int, folder: Path) -> Row:
    tally, account = Tally(), Account()
    await (await Client.connect(place, account, tally)).register()
    await _issue_for(seconds / 2, place, account, tally, seed=1)
    alone, tally.seconds = tally.seconds[5:], []  # the server's first steps are not its pace
    before, kept = memory_mib(pid, now=True), _kib(folder)
    spawn = multiprocessing.get_context("spawn")
    there, go, counts = spawn.Event(), spawn.Event(), spawn.Queue()
    theirs = spawn.Process(target=crowd, args=(kind, place.directory, connections, there, go, counts), daemon=True)
    theirs.start()
    await asyncio.to_thread(there.wait, 600)
    cpu, begun = processor_seconds(pid), monotonic()
    await _issue_for(seconds, place, account, tally, seed=2)
    cpu = (processor_seconds(pid) - cpu) / (monotonic() - begun)
    meanwhile, grown = memory_mib(pid, now=True), _kib(folder) - kept
    go.set()
    done, refused = [await asyncio.to_thread(counts.get, True, 600) for _ in range(2)]
    theirs.join(60)
    await asyncio.sleep(2)
    after = memory_mib(pid, now=True)
    cut = _cut(tally.seconds)
    return Row(
        kind,
        connections,
        before,
        meanwhile,
        after,
        _cut(alone)[49],
        cut[49],
        cut[94],
        len(tally.seconds),
        cpu,
        done,
        refused,
        grown,
        dict(tally.errors),
    )


async def _issue_for(seconds: float, place: Place, account: Account, tally: Tally, *, seed: int) -> None:
    """Issue one certificate after the other, a quarter of a second apart, each by a connection of its own."""
    until = monotonic() + seconds
    for job in jobs(int(seconds * 4), seed):
        begun = monotonic()
        try:
            async with asyncio.timeout(60):
                client = await Client.connect(place, account, tally)
                await client.issue(job)
                client.close()
            tally.seconds.append(monotonic() - begun)
        except (Failed, OSError) as failure:
            tally.errors[str(failure) or type(failure).__name__] += 1
        await asyncio.sleep(0.25)
        if monotonic() > until:
            break


def _cut(seconds: list[float]) -> list[float]:
    """The percentiles in milliseconds."""
    return (
        [each * 1e3 for each in quantiles(seconds, n=100, method="inclusive")] if len(seconds) > 1 else [math.nan] * 99
    )


def _kib(folder: Path) -> float:
    size = 0
    for path in folder.iterdir():
        with contextlib.suppress(FileNotFoundError):
            size += path.stat().st_size
    return size / 1024


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.crowd", description=__doc__.partition("\n")[0])
    parser.add_argument("--connections", type=int, default=10_000, help="of those who wait (10000)")
    parser.add_argument("--crowds", default=",".join(KINDS), help=f"with commas between: {', '.join(KINDS)}")
    parser.add_argument("--seconds", type=float, default=30, help="how long each stays (30)")
    parser.add_argument("--serve-options", default="", help="more options for `privet serve`, in one argument")
    parser.add_argument("--json", action="store_true", help="print everything as JSON")
    options = parser.parse_args()
    allow_files()
    rows = []
    if not options.json:
        print("| crowd | connections | MiB before | meanwhile | after | p50 ms alone | p50 ms | p95 ms ", end="")
        print("| certificates | CPU s/s | asked | refused | store KiB | errors |")
        print("|---|" + "--:|" * 13)
    for kind in options.crowds.split(","):
        row = meet(kind, KINDS[kind] or options.connections, options.seconds, options.serve_options.split())
        rows.append(row)
        if not options.json:
            cells = [row.crowd, str(row.connections), f"{row.before:.0f}", f"{row.meanwhile:.0f}", f"{row.after:.0f}"]
            cells += [
                f"{row.p50_alone:.1f}",
                f"{row.p50:.1f}",
                f"{row.p95:.1f}",
                str(row.certificates),
                f"{row.cpu:.2f}",
            ]
            cells += [str(row.done), str(row.refused), f"{row.kib:.0f}", str(sum(row.errors.values()))]
            print("|", " | ".join(cells), "|", flush=True)
    if options.json:
        print(json.dumps([asdict(row) for row in rows]))
    for row in rows:
        for error, count in row.errors.items():
            print(f"{row.crowd}: {count} times: {error}", file=sys.stderr)
    return 1 if any(row.errors for row in rows) else 0


if __name__ == "__main__":
    sys.exit(main())
