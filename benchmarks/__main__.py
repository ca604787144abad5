"""All measurements in one run, written into docs/performance.md with their picture, docs/performance.svg.

    .venv/bin/python -m benchmarks           # half an hour on two cores
    .venv/bin/python -m benchmarks --quick   # two minutes, to see that it works; the page is printed and not written

The law of this program: a table in the page is what a command printed, and errors leave the page as it was.
"""

import argparse
import asyncio
import os
import re
import sys
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from functools import partial
from itertools import chain
from pathlib import Path

from benchmarks import beside, growth, issuance, nonce, parts
from benchmarks.issuance import Load, Row, measure
from benchmarks.load import jobs
from benchmarks.measure import Minimum
from benchmarks.picture import draw
from benchmarks.servers import Server, privet

DOCS = Path(__file__).parents[1] / "docs"
WAYS = {"long": ["--ask-challenges"], "short": list[str]()}


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__.partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="little of everything, and the page on standard output")
    options = parser.parse_args()
    count, levels = (200, (0, 2000)) if options.quick else (2000, growth.LEVELS)
    load = Load()
    tell("issuances on each store")
    rows = [
        run(partial(privet, store, more), f"{store}", way, count, load)
        for store in ("memory", "file", "sqlite", "postgresql")
        for way, more in WAYS.items()
    ]
    tell("one account, two workers, https")
    ask = ["--ask-challenges"]
    more_rows = [
        run(partial(privet, "sqlite", ask), "16 clients of one account", "long", count, Load(16, "one")),
        run(partial(privet, "sqlite", ask), "http, one worker", "long", count, load),
        run(partial(privet, "sqlite", ask, tls=True), "https, one worker", "long", count, load),
        run(partial(privet, "sqlite", [*ask, "--workers", "2"]), "http, two workers", "long", count, load),
    ]
    tell("each part")
    pieces = parts.parts()
    tell("growth")
    levels_seen = list(growth.grow(levels, count // 2, Load(accounts="one")))
    tell("others")
    others = beside.compare(count, 1 if options.quick else 4, Load(address=beside.ADDRESS))
    tell("nonces")
    nonces, ratio, nonce_errors = nonce.measure(nonce.Load(requests=count * 10))
    everything = [*rows, *more_rows, *(level.row for level in levels_seen), *chain(*others.values())]
    if errors := [*(f"{row.store}: {row.errors}" for row in everything if row.errors), *nonce_errors]:
        print(*errors, sep="\n", file=sys.stderr)
        return 1
    floor = {way: Minimum().measure(requests) for way, requests in issuance.WAYS.items()}
    tables = {
        "issuance": issuance.table(rows, floor),
        "workers": issuance.table(more_rows, {}),
        "parts": parts.table(pieces),
        "growth": growth.table(levels_seen),
        "beside": beside.table(others),
        "nonce": nonce.table(nonces, ratio),
    }
    text = fill((DOCS / "performance.md").read_text(), tables)
    if options.quick:
        print(text)
        draw(rows, pieces, levels_seen, others, Path(os.devnull))
    else:
        (DOCS / "performance.md").write_text(text)
        draw(rows, pieces, levels_seen, others, DOCS / "performance.svg")
    return 0


def tell(what: str) -> None:
    print(f"measuring {what} …", file=sys.stderr)


def run(start: Callable[[], AbstractContextManager[Server]], name: str, way: str, count: int, load: Load) -> Row:
    with start() as server:
        return asyncio.run(measure(name, way, server.place, server.pid, jobs(count, load.seed), load))


def fill(page: str, tables: Mapping[str, str]) -> str:
    """Put each table between its two marks. Raises `ValueError` unless the page has a place for every one."""
    for name, table in tables.items():
        marks = re.compile(rf"(<!-- {name} -->\n).*?(<!-- end -->)", re.DOTALL)
        page, places = marks.subn(lambda match, table=table: f"{match[1]}\n{table}\n\n{match[2]}", page)  # type: ignore[misc]
        if places != 1:
            raise ValueError(f"docs/performance.md has {places} places for the table {name!r}")
    return page


if __name__ == "__main__":
    sys.exit(main())
