"""What newNonce (RFC 8555 §7.2) costs beside a bare web server that answers 200 to anything.

    .venv/bin/python -m benchmarks.nonce

Both are asked in turns, over the same number of keep-alive connections, HEAD after HEAD. The law of this program: an
answer that is not 200, or a nonce that came before, is an error, and makes it end with status 1.
"""

import argparse
import asyncio
import json
import sys
from collections.abc import Awaitable, Callable, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import mean, quantiles
from time import perf_counter
from typing import Any

from benchmarks.load import Account, Client, Connection, Place, Tally
from benchmarks.measure import Yardstick, processor_seconds
from benchmarks.servers import privet as serve
from tests.interop.programs import Program, free_port

ROUNDS = 10


async def bare(scope: dict[str, Any], receive: object, send: Callable[[dict[str, Any]], Awaitable[None]]) -> None:
    """The least an ASGI application can do."""
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"0")]})
    await send({"type": "http.response.body"})


@dataclass(slots=True)
class Server:
    """One of the two, and what it showed: processor seconds and requests a second by round, seconds by request."""

    name: str
    pid: int
    ask: list[Callable[[], Awaitable[str]]]
    cpu: list[float]
    per_second: list[float]
    seconds: list[float]

    async def round(self, each: int, seen: set[str], errors: list[str]) -> None:
        begun, begun_cpu = perf_counter(), processor_seconds(self.pid)
        await asyncio.gather(*(self._connection(ask, each, seen, errors) for ask in self.ask))
        asked = each * len(self.ask)
        self.cpu.append((processor_seconds(self.pid) - begun_cpu) / asked)
        self.per_second.append(asked / (perf_counter() - begun))

    async def _connection(
        self, ask: Callable[[], Awaitable[str]], each: int, seen: set[str], errors: list[str]
    ) -> None:
        for _ in range(each):
            begun = perf_counter()
            try:
                nonce = await ask()
            except Exception as error:
                errors.append(f"{self.name}: {error!r}")
                continue
            self.seconds.append(perf_counter() - begun)
            if nonce and nonce in seen:
                errors.append(f"{self.name}: a nonce came twice")
            seen.add(nonce)


@dataclass(frozen=True, slots=True)
class Row:
    server: str
    per_second: float
    p50: float
    p99: float
    cpu_us: float
    verifies: float


@dataclass(frozen=True, slots=True)
class Load:
    clients: int = 8
    requests: int = 40_000
    seconds: float = 300


def measure(load: Load) -> tuple[list[Row], float, list[str]]:
    """Both rows, how many times as much as the bare server ours costs, and what went wrong."""
    with ExitStack() as stack:
        privet = stack.enter_context(serve("sqlite"))
        port = str(free_port())
        uvicorn = [sys.executable, "-m", "uvicorn", "--loop", "uvloop", "--http", "httptools", "--lifespan", "off"]
        uvicorn += ["--no-access-log", "--port", port, "benchmarks.nonce:bare"]
        plain = stack.enter_context(Program(*uvicorn, cwd=Path(__file__).parents[1]))
        plain.wait_for("Uvicorn running on")
        pids = privet.pid, plain.process.pid
        rows, errors = asyncio.run(_measure(privet.place.directory, f"http://127.0.0.1:{port}", pids, load))
    return rows, rows[0].cpu_us / rows[1].cpu_us, errors


def table(rows: Sequence[Row], ratio: float) -> str:
    lines = ["| server | requests/s | p50 ms | p99 ms | CPU µs/request | verifies |", "|---|--:|--:|--:|--:|--:|"]
    for row in rows:
        cells = [row.server, f"{row.per_second:.0f}", f"{row.p50:.2f}", f"{row.p99:.2f}", f"{row.cpu_us:.1f}"]
        lines.append(f"| {' | '.join(cells)} | {row.verifies:.2f} |")
    return "\n".join([*lines, "", f"newNonce costs {ratio:.2f} times the bare web server."])


def main() -> int:
    options = _options()
    rows, ratio, errors = measure(Load(options.clients, options.requests, options.seconds))
    if options.json:
        print(json.dumps({"rows": [asdict(row) for row in rows], "ratio": ratio, "errors": errors}))
    else:
        print(table(rows, ratio), f"{len(errors)} errors", *errors[:5], sep="\n")
    return 1 if errors else 0


async def _measure(directory: str, plain: str, pids: tuple[int, int], load: Load) -> tuple[list[Row], list[str]]:
    connections = range(load.clients)
    acme = [await Client.connect(Place(directory), Account(), Tally()) for _ in connections]
    http = [await Place(plain).connect() for _ in connections]
    privet = Server("privet newNonce", pids[0], [client.new_nonce for client in acme], [], [], [])
    uvicorn = Server("uvicorn, bare", pids[1], [_head(connection) for connection in http], [], [], [])
    yardstick, seen, errors = Yardstick(), set[str](), list[str]()
    each = load.requests // load.clients // ROUNDS
    async with asyncio.timeout(load.seconds):
        for _ in range(ROUNDS):
            yardstick.look()
            for server in (privet, uvicorn):
                await server.round(each, seen, errors)
    for client in acme:
        client.close()
    for connection in http:
        connection.close()
    return [_row(server, yardstick.seconds) for server in (privet, uvicorn)], errors


def _head(connection: Connection) -> Callable[[], Awaitable[str]]:
    async def ask() -> str:
        answer = await connection.send(
            b"HEAD / HTTP/1.1\r\nhost: localhost\r\nuser-agent: bench\r\n\r\n", bodiless=True
        )
        if answer.status != 200:
            raise ValueError(answer.status)
        return ""

    return ask


def _row(server: Server, verify: float) -> Row:
    cut = quantiles(server.seconds, n=100, method="inclusive")
    cpu = mean(server.cpu)
    return Row(server.name, mean(server.per_second), cut[49] * 1e3, cut[98] * 1e3, cpu * 1e6, cpu / verify)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.nonce", description=__doc__.partition("\n")[0])
    parser.add_argument("--clients", type=int, default=8, help="connections at once (8)")
    parser.add_argument("--requests", type=int, default=40_000, help="requests to each server (40,000)")
    parser.add_argument("--seconds", type=float, default=300, help="give up after this long (300)")
    parser.add_argument("--json", action="store_true", help="print everything as JSON")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
