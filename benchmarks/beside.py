"""privet beside Caddy's `acme_server` and Pebble: the same certificates, by the same clients, in one run.

    .venv/bin/python -m benchmarks.beside

Each validates http-01 for real, of 127.0.0.1 on port 80, and serves over TLS. Caddy and privet keep what they did on
disk, Pebble in memory. The law of this program: nothing is compared that had an error, and the order of the servers
changes from round to round.
"""

import argparse
import asyncio
import json
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from dataclasses import asdict
from functools import partial
from statistics import mean

from benchmarks.issuance import Load, Row, measure
from benchmarks.load import jobs
from benchmarks.servers import Server, caddy, pebble, privet

ADDRESS = "127.0.0.1"
PRIVET = (
    *("--validate", "http-01", "--validate-allow", f"{ADDRESS}/32"),
    *("--limit", "orders-for-same-names=1000000/1h", "--limit", "validations-of-name=1000000/1h"),
)

SERVERS: dict[str, Callable[[], AbstractContextManager[Server]]] = {
    "privet, one worker": partial(privet, "sqlite", PRIVET, approve=False, tls=True),
    "privet, two workers": partial(privet, "sqlite", (*PRIVET, "--workers", "2"), approve=False, tls=True),
    "Caddy": caddy,
    "Pebble": pebble,
}


def compare(certificates: int, rounds: int, load: Load) -> dict[str, list[Row]]:
    """Measure all servers in turns. Each keeps running, and keeps what it has, until the end."""
    rows: dict[str, list[Row]] = {name: [] for name in SERVERS}
    with ExitStack() as stack:
        running = {name: stack.enter_context(start()) for name, start in SERVERS.items()}
        for number in range(rounds):
            work = jobs(certificates // rounds, load.seed + number, load.address)
            names = list(running)
            for name in names[number % len(names) :] + names[: number % len(names)]:
                server = running[name]
                row = asyncio.run(measure(name, "http-01", server.place, server.pid, work, load))
                if row.errors:
                    print(server.program.output[-4000:], file=sys.stderr)
                rows[name].append(row)
    return rows


def table(rows: dict[str, list[Row]]) -> str:
    """What it showed, with the first server as the measure of the others."""
    lines = ["| server | certificates/s | of privet's | CPU ms | verifies | of privet's | p50 ms | p99 ms | requests |"]
    lines.append("|---|" + "--:|" * 8)
    first = next(iter(rows.values()))
    for name, several in rows.items():
        pace, cost = (mean(getattr(row, each) for row in several) for each in ("per_second", "verifies"))
        shares = pace / mean(row.per_second for row in first), cost / mean(row.verifies for row in first)
        cells = [name, f"{pace:.0f}", f"{shares[0]:.2f}", f"{mean(row.cpu for row in several):.2f}", f"{cost:.1f}"]
        cells += [f"{shares[1]:.2f}", *(f"{mean(getattr(row, p) for row in several):.1f}" for p in ("p50", "p99"))]
        lines.append(f"| {' | '.join(cells)} | {mean(row.requests for row in several):.1f} |")
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.beside", description=__doc__.partition("\n")[0])
    parser.add_argument("--certificates", type=int, default=1500, help="of each server (1500)")
    parser.add_argument("--rounds", type=int, default=3, help="turns that these are got in (3)")
    parser.add_argument("--clients", type=int, default=8, help="clients at once, each with an account (8)")
    parser.add_argument("--json", action="store_true", help="print everything as JSON")
    options = parser.parse_args()
    rows = compare(options.certificates, options.rounds, Load(clients=options.clients, address=ADDRESS))
    if options.json:
        print(json.dumps({name: [asdict(row) for row in several] for name, several in rows.items()}))
    else:
        print(table(rows))
    errors = {name: [row.errors for row in several if row.errors] for name, several in rows.items()}
    for name, some in errors.items():
        if some:
            print(f"{name}: {some}", file=sys.stderr)
    return 1 if any(errors.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
