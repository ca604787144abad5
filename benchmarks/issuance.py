"""How many certificates a second, and at what cost: concurrent ACME clients against a `privet serve` of its own.

    .venv/bin/python -m benchmarks.issuance
    .venv/bin/python -m benchmarks.issuance --stores sqlite --long-way --clients 16 --accounts one

The long way is six signed requests (newOrder, authorization, challenge, order, finalize, certificate), the short way
three: the order is born ready. A store named by its URL is kept, so the next run shows what it costs once it is full.
The law of this program: every error is counted, and makes it end with status 1.
"""

import argparse
import asyncio
import json
import math
import ssl
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import quantiles
from time import perf_counter, process_time

from benchmarks.load import Job, Place, Proofs, Tally, clients, drive, jobs
from benchmarks.measure import Minimum, Yardstick, loop_seconds, memory_mib, processor_seconds
from benchmarks.servers import HTTP01_PORT, privet

ROUNDS = 20
WAYS = {"long": 6, "short": 3}


@dataclass(frozen=True, slots=True)
class Row:
    """What one run showed. Times in milliseconds; `cpu` and `verifies` are the server's, for each certificate, and
    `loop` is what of `cpu` its event loop took; the rest is the store's."""

    store: str
    way: str
    certificates: int
    per_second: float
    p50: float
    p95: float
    p99: float
    cpu: float
    loop: float
    verifies: float
    verify_us: float
    requests: float
    client_cpu: float
    memory_mib: float
    errors: dict[str, int]


@dataclass(frozen=True, slots=True)
class Load:
    """Who asks: so many clients, with `one` account among them or one for `each`. With an `address`, all certificates
    are for it, and control is proved there by http-01."""

    clients: int = 8
    accounts: str = "each"
    seed: int = 1
    seconds: float = 600
    address: str = ""


def main() -> int:
    options = _options()
    load = Load(options.clients, options.accounts, options.seed, options.seconds)
    work = jobs(options.certificates, options.seed)
    ways = [way for way in WAYS if getattr(options, f"{way}_way")] or list(WAYS)
    rows = []
    if options.directory:
        place = Place(options.directory, ssl.create_default_context(cafile=options.ca) if options.ca else None)
        rows.append(asyncio.run(measure("-", "-", place, options.pid, work, load)))
    else:
        for store in options.stores.split(","):
            for way in ways:
                more = [*options.serve_options.split(), *(["--ask-challenges"] if way == "long" else [])]
                with privet(store, more) as server:
                    row = asyncio.run(measure(store, way, server.place, server.pid, work, load))
                    if row.errors:
                        print(server.program.output[-4000:], file=sys.stderr)
                    rows.append(row)
    _print(rows, {way: Minimum().measure(requests) for way, requests in WAYS.items()}, options)
    return 1 if any(row.errors for row in rows) else 0


async def measure(store: str, way: str, place: Place, pid: int, work: list[Job], load: Load) -> Row:
    """Do the work in rounds, with a look at the yardstick between them, while the server is idle."""
    tally, yardstick, proofs = Tally(), Yardstick(), Proofs()
    listening = await proofs.serve(load.address, HTTP01_PORT) if load.address else None
    async with asyncio.timeout(load.seconds):
        workers = await clients(place, load.clients, load.accounts, tally, proofs if listening else None)
        # The server's first steps are not its pace.
        await drive(workers, jobs(load.clients * 4, load.seed + 1, load.address))
    tally.seconds, tally.requests, early = [], 0, tally.errors.total()
    yardstick.look()
    wall = client_cpu = 0.0
    server_cpu, server_loop = processor_seconds(pid), loop_seconds(pid)
    for at in range(ROUNDS):
        begun, begun_cpu = perf_counter(), process_time()
        try:
            await asyncio.wait_for(drive(workers, work[at::ROUNDS]), timeout=load.seconds / ROUNDS)
        except TimeoutError:
            break
        finally:
            wall += perf_counter() - begun
            client_cpu += process_time() - begun_cpu
        yardstick.look()
    cpu, loop = processor_seconds(pid) - server_cpu, loop_seconds(pid) - server_loop
    memory = memory_mib(pid)
    for worker in workers:
        worker.close()
    if listening:
        listening.close()
    done: float = len(tally.seconds)
    if missing := len(work) - len(tally.seconds) - (tally.errors.total() - early):
        tally.errors[f"not done within {load.seconds:g} seconds"] += missing
    cut = quantiles(tally.seconds, n=100, method="inclusive") if done > 1 else [math.nan] * 99
    done = done or math.nan  # with nothing done, nothing has a cost
    return Row(
        store=store,
        way=way,
        certificates=len(tally.seconds),
        per_second=done / wall,
        p50=cut[49] * 1e3,
        p95=cut[94] * 1e3,
        p99=cut[98] * 1e3,
        cpu=cpu / done * 1e3,
        loop=loop / done * 1e3,
        verifies=cpu / done / yardstick.seconds,
        verify_us=yardstick.seconds * 1e6,
        requests=tally.requests / done,
        client_cpu=client_cpu / done * 1e3,
        memory_mib=memory,
        errors=dict(tally.errors),
    )


def table(rows: Sequence[Row], minimum: Mapping[str, tuple[float, float]]) -> str:
    """What it showed, and what an issuance cannot do without beside it."""
    lines = ["| store | way | cert/s | p50 ms | p95 ms | p99 ms | CPU ms/cert | its loop "]
    lines[0] += "| **verifies** | verify µs | requests | client ms | MiB | errors |"
    lines.append("|---|---|" + "--:|" * 12)
    for row in rows:
        cells = [row.store, row.way, f"{row.per_second:.0f}", f"{row.p50:.1f}", f"{row.p95:.1f}", f"{row.p99:.1f}"]
        cells += [f"{row.cpu:.2f}", f"{row.loop:.2f}", f"**{row.verifies:.1f}**", f"{row.verify_us:.0f}"]
        cells += [
            f"{row.requests:.2f}",
            f"{row.client_cpu:.2f}",
            f"{row.memory_mib:.0f}",
            str(sum(row.errors.values())),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    for way, (seconds, verifies) in minimum.items():
        lines.append(
            f"| unavoidable | {way} | | | | | {seconds * 1e3:.2f} | | **{verifies:.1f}** | | {WAYS[way]} | | | |"
        )
    return "\n".join(lines)


def _print(rows: list[Row], minimum: dict[str, tuple[float, float]], options: argparse.Namespace) -> None:
    if options.json:
        floor = {way: {"cpu": seconds * 1e3, "verifies": verifies} for way, (seconds, verifies) in minimum.items()}
        asked = {name: value for name, value in vars(options).items() if name != "json"}
        print(json.dumps({"options": asked, "minimum": floor, "rows": [asdict(row) for row in rows]}))
        return
    print(f"{options.clients} clients, {'one account' if options.accounts == 'one' else 'an account each'}; ", end="")
    print("a verify is one P-256 verification, timed between the rounds of the same row\n")
    print(table(rows, minimum))
    for row in rows:
        for error, count in sorted(row.errors.items()):
            print(f"\n{row.store}, {row.way} way: {count} times: {error}")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.issuance", description=__doc__.partition("\n")[0])
    parser.add_argument("--clients", type=int, default=8, help="clients at once, each with a connection (8)")
    parser.add_argument("--certificates", type=int, default=2000, help="certificates for each row of the table (2000)")
    parser.add_argument(
        "--stores", default="memory,file,sqlite", help="with commas between: memory, file, sqlite, postgresql; or a URL"
    )
    parser.add_argument(
        "--accounts", choices=("one", "each"), default="each", help="one shared, or one for each client"
    )
    parser.add_argument("--long-way", action="store_true", help="only six requests, challenges asked")
    parser.add_argument("--short-way", action="store_true", help="only three requests, orders born ready")
    parser.add_argument("--seed", type=int, default=1, help="which names and keys to ask for (1)")
    parser.add_argument("--seconds", type=float, default=600, help="give up on a row after this long (600)")
    parser.add_argument("--serve-options", default="", help="more options for `privet serve`, in one argument")
    parser.add_argument("--json", action="store_true", help="print everything as JSON")
    other = parser.add_argument_group("another server, already running on this machine")
    other.add_argument("--directory", default="", help="its directory URL")
    other.add_argument("--pid", type=int, default=0, help="its process")
    other.add_argument("--ca", default="", help="what to trust its https by, a file")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
