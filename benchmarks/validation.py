"""What a thousand validations in flight, half of them of hosts that never answer, cost everybody else.

    .venv/bin/python -m benchmarks.validation
    .venv/bin/python -m benchmarks.validation --validations 200 --certificates 500

A server of its own trusts some accounts and validates one by http-01, on addresses of 127.0.0.0/8. The trusted ones are
issued certificates, first with no validation under way and then beside all of them; the ratio of the two is what it is
about. The law of this program: every error is counted, whatever waits has an end, and no packet leaves the machine.
"""

import argparse
import asyncio
import contextlib
import json
import resource
import socket
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from hashlib import sha256
from pathlib import Path
from statistics import quantiles
from time import perf_counter
from typing import Any

import uvicorn
from benchmarks.load import Account, Client, Failed, Job, Place, Tally, base64url, clients, drive, jobs
from benchmarks.measure import processor_seconds
from tests.interop.programs import Program, free_port

from privet import ACMEResponder, Applicant, CertificateAuthority, Decision, Limits, SQLiteStore
from privet.acme.encoding import to_json
from privet.acme.identifiers import Identifier, IdentifierType
from privet.acme.status import Status
from privet.server.asgi import Receive, Scope, Send
from privet.server.records import Authorization, Kind
from privet.validation import Networks, make_validators

PATIENCE = timedelta(milliseconds=200)
"""Shorter than usual, so that a thousand challenges are answered before the first validation is over."""
SLOW = 8.0
"""Seconds until a host that answers does so."""
AT_ONCE = 200
PER_ORDER = 100


@dataclass(frozen=True, slots=True)
class Row:
    """What the trusted accounts saw: times in milliseconds, and the server's processor time for each certificate."""

    validations: int
    per_second: float
    p50: float
    p95: float
    cpu: float
    errors: int


def main() -> int:
    options = _options()
    _allow_files()
    if options.serve:
        _serve(options.serve, options.port, options.hosts_port)
        return 0
    if options.hosts:
        asyncio.run(_answer(options.hosts, options.hosts_port))
        return 0
    with tempfile.TemporaryDirectory(prefix="privet-bench-") as folder:
        return asyncio.run(_compare(options, Path(folder)))


async def _compare(options: argparse.Namespace, folder: Path) -> int:
    port, hosts_port, account = free_port(), free_port(), Account()
    here = [sys.executable, "-m", "benchmarks.validation", "--hosts-port", str(hosts_port)]
    server = Program(*here, "--serve", str(folder), "--port", str(port))
    with server, Program(*here, f"--hosts={_thumbprint(account)}") as hosts:
        hosts.wait_for("hosts answer")
        server.wait_for("serving")
        async with asyncio.timeout(options.seconds):
            place, tally = Place(f"http://127.0.0.1:{port}/directory"), Tally()
            trusted = await clients(place, options.clients, "each", tally)
            await drive(trusted, jobs(100, options.seed + 1))  # the server's first steps are not its pace
            work = jobs(2 * options.certificates, options.seed)
            alone = await _measure(trusted, tally, work[::2], server.process.pid, 0)
            await _begin(place, account, options.validations)
            before = await _in_flight(port)
            beside = await _measure(trusted, tally, work[1::2], server.process.pid, before)
            after = await _in_flight(port)
            while await _in_flight(port):  # noqa: ASYNC110 - it is in another process
                await asyncio.sleep(0.2)
        proved = _proved(folder)
    _print(alone, beside, after, proved, options)
    return 0 if before == options.validations and proved == (before + 1) // 2 and not tally.errors else 1


async def _measure(trusted: Sequence[Client], tally: Tally, work: list[Job], pid: int, validations: int) -> Row:
    tally.seconds = []
    errors, cpu, begun = tally.errors.total(), processor_seconds(pid), perf_counter()
    await drive(trusted, work)
    wall, cpu = perf_counter() - begun, processor_seconds(pid) - cpu
    cut = quantiles(tally.seconds, n=100, method="inclusive")
    done = len(tally.seconds)
    return Row(validations, done / wall, cut[49] * 1e3, cut[94] * 1e3, cpu / done * 1e3, tally.errors.total() - errors)


async def _begin(place: Place, account: Account, count: int) -> None:
    """Have this many validations begun: order the addresses, and say that each challenge is met."""
    tally = Tally()
    first = await Client.connect(place, account, tally)
    await first.register()
    connected = [first, *[await Client.connect(place, account, tally) for _ in range(AT_ONCE - 1)]]
    # Every other one is of the hosts that never answer.
    addresses = [f"127.{1 + at % 2}.{at // 500}.{at // 2 % 250 + 1}" for at in range(count)]
    new_order = place.directory.replace("directory", "new-order")
    authorizations: list[str] = []
    for at in range(0, count, PER_ORDER):
        names = [{"type": "ip", "value": address} for address in addresses[at : at + PER_ORDER]]
        answer = await first.post(new_order, base64url(json.dumps({"identifiers": names}).encode()))
        authorizations += answer.json()["authorizations"]
    looked = await _share(connected, authorizations, "")
    challenges = [each["url"] for look in looked for each in look["challenges"] if each["type"] == "http-01"]
    answered = await _share(connected, challenges, base64url(b"{}"))
    if {each["status"] for each in answered} != {"processing"}:
        raise Failed("a validation was over before all had begun")
    for client in connected:
        client.close()


async def _share(connected: Sequence[Client], urls: Sequence[str], payload: str) -> list[Any]:
    """What posting to each URL brings, with all clients at it."""

    async def take(client: Client, mine: Sequence[str]) -> list[Any]:
        return [(await client.post(url, payload)).json() for url in mine]

    parts = [take(client, urls[at :: len(connected)]) for at, client in enumerate(connected)]
    return [each for part in await asyncio.gather(*parts) for each in part]


async def _in_flight(port: int) -> int:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"GET /in-flight HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")
    body = (await reader.read()).partition(b"\r\n\r\n")[2]
    writer.close()
    return int(json.loads(body)["inFlight"])


def _proved(folder: Path) -> int:
    count, after = 0, ""
    with contextlib.closing(SQLiteStore(folder / "privet.db")) as store:
        while records := store.find(Kind.AUTHORIZATION, after=after, limit=500):
            found = map(Authorization.from_record, records)
            count += sum(each.status is Status.VALID and each.proof is not None for each in found)
            after = records[-1].id
    return count


# --- the server and the hosts, each in a process of its own ---


class Guests:
    """Who orders names is trusted, who orders addresses has to prove them."""

    def allow_account(self, applicant: Applicant) -> None: ...

    def allow_order(self, applicant: Applicant, identifiers: Sequence[Identifier]) -> Decision:
        names = all(identifier.type is IdentifierType.DNS for identifier in identifiers)
        return Decision.TRUST if names else Decision.PROVE


def _serve(folder: str, port: int, hosts_port: int) -> None:
    sys.setswitchinterval(0.0005)  # as `privet serve` does
    store = SQLiteStore(Path(folder) / "privet.db")
    ca = CertificateAuthority(store)
    ca.init()
    validators = make_validators(["http-01"], http_port=hosts_port, networks=Networks(allow=["127.0.0.0/8"]))
    limits = Limits(patience=PATIENCE, pending_authorizations=10_000)
    url = f"http://127.0.0.1:{port}"
    responder = ACMEResponder(ca, policy=Guests(), challenge_validator=validators, external_url=url, limits=limits)

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope.get("path") == "/in-flight":
            body = to_json({"inFlight": len(responder._server.validating)})
            headers = [(b"content-length", str(len(body)).encode())]
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            await send({"type": "http.response.body", "body": body})
            return
        await responder(scope, receive, send)

    config = uvicorn.Config(app, log_level="warning", access_log=False, lifespan="off")
    with socket.create_server(("127.0.0.1", port), backlog=4096) as listening:
        print("serving", flush=True)
        uvicorn.Server(config).run([listening])


async def _answer(thumbprint: str, port: int) -> None:
    """Be all hosts: those in 127.1.0.0/16 answer late, and those in 127.2.0.0/16 never."""

    async def host(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            head = await reader.readuntil(b"\r\n\r\n")
            if writer.get_extra_info("sockname")[0].startswith("127.2."):
                await reader.read()  # until the other side gives up
            else:
                await asyncio.sleep(SLOW)
                body = head.split(b" ")[1].rpartition(b"/")[2] + b"." + thumbprint.encode()
                writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%s" % (len(body), body))
        writer.close()

    async with await asyncio.start_server(host, "0.0.0.0", port, backlog=4096) as server:
        print("hosts answer", flush=True)
        await server.serve_forever()


def _thumbprint(account: Account) -> str:
    """RFC 7638; the signer's JWK has its members in order already."""
    jwk = json.loads("{" + account.signer + "}")["jwk"]
    return base64url(sha256(json.dumps(jwk, separators=(",", ":")).encode()).digest())


def _allow_files() -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _print(alone: Row, beside: Row, after: int, proved: int, options: argparse.Namespace) -> None:
    print(
        f"{options.clients} trusted clients with an account each, {options.certificates} certificates a row, SQLite\n"
    )
    print("| validations in flight | cert/s | p50 ms | p95 ms | CPU ms/cert | errors |")
    print("|--:|--:|--:|--:|--:|--:|")
    for row in (alone, beside):
        cells = [f"{row.per_second:.0f}", f"{row.p50:.1f}", f"{row.p95:.1f}", f"{row.cpu:.2f}", str(row.errors)]
        print(f"| {row.validations} |", " | ".join(cells), "|")
    print(f"\nthroughput {beside.per_second / alone.per_second:.2f} of what it is without", end="")
    print(f", CPU for each certificate {beside.cpu / alone.cpu:.2f} times as much")
    print(f"{after} validations were in flight still at the end of the second row; {proved} came to a proof later")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.validation", description=__doc__.partition("\n")[0])
    parser.add_argument("--validations", type=int, default=1000, help="in flight at once, half of them for ever (1000)")
    parser.add_argument("--certificates", type=int, default=500, help="certificates for each row (500)")
    parser.add_argument("--clients", type=int, default=8, help="trusted clients at once (8)")
    parser.add_argument("--seed", type=int, default=1, help="which names and keys to ask for (1)")
    parser.add_argument("--seconds", type=float, default=120, help="give up after this long (120)")
    parser.add_argument("--serve", default="", help=argparse.SUPPRESS)
    parser.add_argument("--hosts", default="", help=argparse.SUPPRESS)
    parser.add_argument("--port", type=int, default=0, help=argparse.SUPPRESS)
    parser.add_argument("--hosts-port", type=int, default=0, help=argparse.SUPPRESS)
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
