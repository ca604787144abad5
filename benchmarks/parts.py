"""Where the time of one certificate goes: what each part of an issuance costs by itself, in microseconds and verifies.

    .venv/bin/python -m benchmarks.parts

The law of this program: every part is the code that serves requests, given what a request gives it.
"""

import argparse
import asyncio
import json
import sys
import tempfile
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from benchmarks.load import Account, Connection, Job, Place, jobs
from benchmarks.measure import Yardstick, cost, processor_seconds
from tests.interop.programs import Program, free_port

from privet import CertificateAuthority, MemoryStore, SQLiteStore
from privet.acme.encoding import from_base64url, to_json
from privet.acme.identifiers import Identifier, IdentifierType
from privet.acme.jws import Key, parse
from privet.acme.status import Status
from privet.ca.certificates import Certificate
from privet.ca.csr import parse_csr
from privet.server.nonces import Nonces
from privet.server.policy import Decision, Ruling
from privet.server.records import Order
from privet.stores.asynchronous import AsyncStore
from privet.stores.base import Batch, Record, new_id

ECHO = "a POST of 600 bytes, echoed by uvicorn"
VERIFY = "its signature verified"
SIGNING = ("a CSR read and its signature verified", "a certificate laid out", "a certificate signed")

URL = "http://127.0.0.1:8555"
REQUESTS, CONNECTIONS, OCTETS = 4000, 8, 600


@dataclass(frozen=True, slots=True)
class Part:
    name: str
    seconds: float
    verifies: float


async def echo(
    scope: dict[str, Any],
    receive: Callable[[], Awaitable[dict[str, Any]]],
    send: Callable[[dict[str, Any]], Awaitable[None]],
) -> None:
    """What the least ASGI application does that reads a request and answers it."""
    body = (await receive())["body"]
    headers = [(b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def parts() -> list[Part]:
    yardstick, measured = Yardstick(), []
    yardstick.look()
    for name, times, work in _pieces():
        seconds = []
        for _ in range(5):
            seconds.append(cost(work, times=times))
            yardstick.look()
        measured.append((name, min(seconds)))
    measured.append((ECHO, web_server()))
    yardstick.look()
    parts = [Part(name, seconds, seconds / yardstick.seconds) for name, seconds in measured]
    return [Part("a P-256 verification (the unit)", yardstick.seconds, 1.0), *parts]


def web_server() -> float:
    """Processor seconds of uvicorn for a request of the size that ACME's have, and nothing else."""
    port = free_port()
    command = [sys.executable, "-m", "uvicorn", "--loop", "uvloop", "--http", "httptools", "--lifespan", "off"]
    command += ["--no-access-log", "--port", str(port), "benchmarks.parts:echo"]
    with Program(*command, cwd=Path(__file__).parents[1]) as server:
        server.wait_for("Uvicorn running on")
        return asyncio.run(_load(Place(f"http://127.0.0.1:{port}"), server.process.pid))


async def _load(place: Place, pid: int) -> float:
    request = b"POST / HTTP/1.1\r\nhost: localhost\r\ncontent-length: %d\r\n\r\n%b" % (OCTETS, b"x" * OCTETS)
    connections = [await place.connect() for _ in range(CONNECTIONS)]

    async def ask(connection: Connection, times: int) -> None:
        for _ in range(times):
            await connection.send(request)

    await asyncio.gather(*(ask(connection, 50) for connection in connections))
    begun = processor_seconds(pid)
    await asyncio.gather(*(ask(connection, REQUESTS // CONNECTIONS) for connection in connections))
    seconds = processor_seconds(pid) - begun
    for connection in connections:
        connection.close()
    return seconds / REQUESTS


def _pieces() -> Iterator[tuple[str, int, Callable[[], object]]]:
    (job,) = jobs(1, seed=1)
    account = Account()
    jwk = json.loads(f"{{{account.signer}}}")["jwk"]
    key = Key.from_jwk(jwk)
    account.registered(f"{URL}/acct/{new_id(datetime.now(UTC))}")
    ca = CertificateAuthority(MemoryStore())
    ca.init()
    nonces = Nonces(AsyncStore(ca.store), timedelta(hours=1), lambda: datetime.now(UTC))
    asyncio.run(nonces.load())
    body = account.sign(f"{URL}/new-order", nonces.make(), job.order)
    jws = parse(body)
    yield "a request's JWS read", 2000, lambda: parse(body)
    yield VERIFY, 500, lambda: jws.verify(key)
    yield "an account's key read from its JWK", 2000, lambda: Key.from_jwk(jwk)
    yield "a nonce made", 5000, nonces.make
    csr = from_base64url(json.loads(from_base64url(job.csr, "csr"))["csr"], "csr")
    public_key = parse_csr(csr).public_key
    yield SIGNING[0], 300, lambda: parse_csr(csr)
    names = [Identifier(IdentifierType.DNS, job.name)]
    prepared = ca.prepare(public_key, names)
    yield SIGNING[1], 1000, lambda: ca.prepare(public_key, names)
    yield SIGNING[2], 1000, lambda: ca.sign(prepared)
    yield from _storing(job, ca.sign(prepared))


def _storing(job: Job, certificate: Certificate) -> Iterator[tuple[str, int, Callable[[], object]]]:
    now = datetime.now(UTC)
    order = Order(
        id=new_id(now),
        status=Status.VALID,
        account=new_id(now),
        identifiers=certificate.identifiers,
        authorizations=(new_id(now),),
        not_before=None,
        not_after=None,
        expires=now,
        certificate=certificate.id,
        kept_until=certificate.not_after,
        rulings=(Ruling(Decision.PROVE),),
    )
    record = order.to_record()
    yield "an order written as JSON", 2000, order.to_record
    yield "an order read from it", 2000, lambda: Order.from_record(record)
    yield "an answer written as JSON", 5000, lambda: to_json({"status": "valid", "identifiers": [job.order[:60]]})
    serial = iter(range(1, 1 << 40))

    def batch() -> Batch:
        made = certificate.to_record()
        unique = (f"serial:{next(serial):x}",)
        return Batch((record._replace(id=new_id(now)), made._replace(id=new_id(now), unique=unique, version=0)))

    def spend() -> None:
        store.commit(Record("spent-nonce", new_id(now), expires=now), durable=False)

    with tempfile.TemporaryDirectory(prefix="privet-bench-") as folder, SQLiteStore(f"{folder}/privet.db") as store:
        store.commit(record)
        yield "an order fetched from SQLite", 1000, lambda: store.get(record.kind, record.id)
        yield "a nonce spent in SQLite", 500, spend
        for together in (1, 8, 64):
            said = "alone" if together == 1 else f"{together} in one commit"
            work = lambda together=together: store.commit_each([batch() for _ in range(together)])  # noqa: E731
            yield f"an order and a certificate stored durably, {said}", max(8, 256 // together), work


def table(parts: list[Part]) -> str:
    lines = ["| part | CPU µs | verifies |", "|---|--:|--:|"]
    lines += [f"| {part.name} | {part.seconds * 1e6:.1f} | {part.verifies:.2f} |" for part in parts]
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.parts", description=__doc__.partition("\n")[0])
    parser.add_argument("--json", action="store_true", help="print everything as JSON")
    measured = parts()
    print(json.dumps([asdict(part) for part in measured]) if parser.parse_args().json else table(measured))
    return 0


if __name__ == "__main__":
    sys.exit(main())
