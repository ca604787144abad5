"""Whether a certificate costs the same when many are stored already: time, memory, start-up and disk, as a store grows.

    .venv/bin/python -m benchmarks.growth
    .venv/bin/python -m benchmarks.growth --levels 0,10000

One account owns everything. The store is filled through its own commits, with copies of what real issuances left in it,
under other ids, serial numbers and names, as it would be after eight days of certificates that live for one: those are
on record for eight days, and authorizations for one. The law of this program: what is measured is a server that was
started anew on the store as it lies there, and every error ends it with status 1.
"""

import argparse
import asyncio
import json
import secrets
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from statistics import mean
from time import perf_counter

from benchmarks.issuance import Load, Row, measure
from benchmarks.load import jobs
from benchmarks.measure import memory_mib
from benchmarks.servers import privet

from privet import SQLiteStore
from privet.acme.identifiers import Identifier, IdentifierType
from privet.ca.certificates import KEPT_AFTER_EXPIRY, Certificate
from privet.ca.certificates import KIND as CERTIFICATE
from privet.server.records import Authorization, Kind, Order
from privet.stores.base import Record, new_id

LEVELS = (0, 10_000, 100_000, 1_000_000)
TOGETHER = 500
KEPT = KEPT_AFTER_EXPIRY + timedelta(
    hours=23
)  # a little less than the time for which a certificate of a day is on record
OPTIONS = ("--ask-challenges", "--limit", "orders-of-account=100000000/1h", "--limit", "orders-of-network=100000000/1h")


@dataclass(frozen=True, slots=True)
class Level:
    """What a store with so many certificates shows: seconds until it serves, bytes on disk for each certificate beyond
    the certificate itself, MiB of memory once it serves, and the cost of issuing more."""

    stored: int
    start_seconds: float
    bytes_each: float
    idle_mib: float
    row: Row


class Filling:
    """A store that is filled with copies of what a hundred real issuances left in it."""

    def __init__(self, path: Path) -> None:
        self._path = path
        with SQLiteStore(path) as store:
            orders = map(Order.from_record, store.find(Kind.ORDER, limit=1000))
            self._models = [(order, *_read(store, order)) for order in orders if order.certificate]
            self.count = len(store.find(CERTIFICATE, limit=1000))

    def fill(self, level: int) -> None:
        """Bring the store to so many certificates."""
        first, begun = self.count, datetime.now(UTC)
        with SQLiteStore(self._path) as store:
            while self.count < level:
                some = range(self.count, min(self.count + TOGETHER, level))
                copies = [
                    record
                    for at in some
                    for record in _copy(
                        *self._models[at % len(self._models)], KEPT * (level - at) / (level - first), begun
                    )
                ]
                store.commit(*copies, durable=False)
                self.count = some.stop
                if self.count % 50_000 < TOGETHER:
                    print(f"{self.count} of {level} certificates stored", file=sys.stderr)

    def bytes_each(self) -> float:
        """The bytes on disk for each certificate, beyond those of the certificate itself."""
        size = sum(each.stat().st_size for each in self._path.parent.iterdir())
        return size / self.count - mean(len(certificate.der or b"") for _, _, certificate in self._models)


def grow(levels: Sequence[int], certificates: int, load: Load) -> Iterator[Level]:
    """Measure at each level, on one store that grows. Says on stderr how far it is."""
    with tempfile.TemporaryDirectory(prefix="privet-bench-") as folder:
        path = Path(folder) / "privet.db"
        url = f"sqlite:///{path}"
        with privet(url, OPTIONS) as server:
            asyncio.run(measure("sqlite", "long", server.place, server.pid, jobs(100, load.seed + 9), load))
        filling = Filling(path)
        for level in levels:
            filling.fill(level)
            each, begun = filling.bytes_each(), perf_counter()
            with privet(url, OPTIONS) as server:
                start, memory = perf_counter() - begun, memory_mib(server.pid)
                work = jobs(certificates, load.seed + level)
                row = asyncio.run(measure("sqlite", "long", server.place, server.pid, work, load))
                filling.count += certificates + 4 * load.clients
            yield Level(level, start, each, memory, row)


def _read(store: SQLiteStore, order: Order) -> tuple[Authorization, Certificate]:
    authorization = store.get(Kind.AUTHORIZATION, order.authorizations[0])
    certificate = store.get(CERTIFICATE, order.certificate or "")
    assert authorization is not None
    assert certificate is not None
    return Authorization.from_record(authorization), Certificate.from_record(certificate)


def _copy(
    order: Order, authorization: Authorization, certificate: Certificate, age: timedelta, now: datetime
) -> Iterator[Record]:
    """The records of another issuance like this one, so long ago."""
    moment, until = now - age, certificate.not_after - age
    identifier = Identifier(IdentifierType.DNS, f"host-{secrets.token_hex(8)}.bench.internal")
    ids = [new_id(moment) for _ in range(3)]
    yield order._replace(
        id=ids[0],
        identifiers=(identifier,),
        authorizations=(ids[1],),
        certificate=ids[2],
        kept_until=until + KEPT_AFTER_EXPIRY,
        version=0,
    ).to_record()
    if age < timedelta(days=1):
        yield authorization._replace(
            id=ids[1], order=ids[0], identifier=identifier, expires=authorization.expires - age, version=0
        ).to_record()
    yield certificate._replace(
        id=ids[2],
        serial=secrets.randbits(128),
        not_before=certificate.not_before - age,
        not_after=until,
        identifiers=(identifier,),
        request=ids[0],
        version=0,
    ).to_record()


def table(levels: Sequence[Level]) -> str:
    """What it showed, each level beside the first."""
    lines = ["| stored | CPU ms | verifies | of the first | p50 ms | start s | MiB at start | MiB | bytes each |"]
    lines.append("|--:|" + "--:|" * 8)
    for level in levels:
        row = level.row
        share = row.verifies / levels[0].row.verifies
        cells = [f"{level.stored:,}", f"{row.cpu:.2f}", f"{row.verifies:.1f}", f"{share:.2f}", f"{row.p50:.1f}"]
        cells += [f"{level.start_seconds:.2f}", f"{level.idle_mib:.0f}", f"{row.memory_mib:.0f}"]
        lines.append(f"| {' | '.join(cells)} | {f'{level.bytes_each:,.0f}' if level.stored else ''} |")
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.growth", description=__doc__.partition("\n")[0])
    parser.add_argument("--levels", default=",".join(map(str, LEVELS)), help="how many are stored, with commas between")
    parser.add_argument("--certificates", type=int, default=1000, help="to issue at each level (1000)")
    parser.add_argument("--clients", type=int, default=8, help="clients at once (8)")
    parser.add_argument("--json", action="store_true", help="print everything as JSON")
    options = parser.parse_args()
    wanted = sorted(int(level) for level in options.levels.split(","))
    levels = list(grow(wanted, options.certificates, Load(clients=options.clients, accounts="one")))
    print(json.dumps([asdict(level) for level in levels]) if options.json else table(levels))
    errors = [level.row.errors for level in levels if level.row.errors]
    if errors:
        print(*errors, sep="\n", file=sys.stderr)
    return 1 if errors else 0


if __name__ == "__main__":
    sys.exit(main())
