"""Crowds at a `privet serve`: its memory and its disk stay bounded, and whoever wants a certificate gets one meanwhile.

`python -m benchmarks.crowd` prints what ten thousand of them cost; PRIVET_TEST_CROWD=10000 has as many here.
"""

import asyncio
import os
import resource
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import httpx
import pytest
from tests.interop.serving import PRIVET, Privet
from tests.wire import Wire, new_key, problem_of

from privet.stores import SQLiteStore

CROWD = int(os.environ.get("PRIVET_TEST_CROWD", "1500"))


@pytest.fixture(autouse=True)
def as_many_files_as_there_may_be() -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def memory_kib(privet: Privet) -> int:
    assert privet.program
    status = Path(f"/proc/{privet.program.process.pid}/status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0])


def files(privet: Privet) -> int:
    assert privet.program
    return len(list(Path(f"/proc/{privet.program.process.pid}/fd").iterdir()))


def issue(privet: Privet, *names: str) -> None:
    async def ask() -> None:
        async with httpx.AsyncClient(timeout=120) as http:
            wire = Wire(http, privet.directory.removesuffix("/directory"))
            await wire.register()
            for name in names:
                assert (await wire.issue(name)).startswith(b"-----BEGIN CERTIFICATE-----")

    asyncio.run(ask())


@contextmanager
def crowd(privet: Privet, count: int, said: bytes, answer: bytes = b"") -> Iterator[list[socket.socket]]:
    """So many connections that have said this, and have had this answer."""
    address = ("127.0.0.1", int(privet.directory.split(":")[2].partition("/")[0]))
    with ExitStack() as stack:
        connections = []
        for _ in range(count):
            connections.append(stack.enter_context(socket.create_connection(address, timeout=60)))
            with suppress(ConnectionError):  # some are thrown out before they have said it all
                connections[-1].sendall(said)
        for each in connections:
            heard = b""
            while answer not in heard:
                piece = each.recv(65536)
                assert piece, heard
                heard += piece
        yield connections


ASK = b"GET /directory HTTP/1.1\r\nhost: ca\r\n\r\n"
TRICKLE = b"POST /new-order HTTP/1.1\r\nhost: ca\r\ncontent-length: 60000\r\n\r\n" + b"x" * 20_000


@pytest.mark.parametrize(
    ("said", "answer", "kib"),
    [(b"", b"", 20), (ASK, b"}", 25), (TRICKLE, b"", 80)],
    ids=["silent", "idle", "trickling"],
)
def test_many_who_wait_cost_little_each_and_keep_nobody_else_waiting(
    tmp_path: Path, said: bytes, answer: bytes, kib: int
) -> None:
    with Privet(tmp_path) as privet:
        issue(privet, "before.internal")
        before = memory_kib(privet)
        with crowd(privet, CROWD, said, answer):
            while files(privet) < CROWD:
                pass  # it has yet to see some of them
            assert memory_kib(privet) - before < CROWD * kib + 8192
            issue(privet, "one.internal", "two.internal")
        issue(privet, "after.internal")
        assert len(privet.listed()) == 4


def test_more_than_there_is_room_for_make_room_for_those_who_come(tmp_path: Path) -> None:
    few = ("sh", "-c", 'ulimit -n 256; exec "$0" "$@"', *PRIVET)
    with Privet(tmp_path, command=few) as privet, crowd(privet, 150, ASK, b"}") as first:
        with crowd(privet, 400, b""):
            issue(privet, "one.internal")
            assert files(privet) < 256
            # Those who were there first have been silent for longest.
            assert first[0].recv(1) == b""
            issue(privet, "two.internal")
        issue(privet, "three.internal")


def test_whoever_asks_without_listening_is_cut_short(tmp_path: Path) -> None:
    """They cost what a few dozen requests cost, whatever they have said at once."""
    with Privet(tmp_path) as privet:
        for _ in range(3):
            with crowd(privet, 20, ASK * 2000):
                issue(privet, "one.internal")


def test_a_flood_of_new_nonces_leaves_no_trace(tmp_path: Path) -> None:
    with Privet(tmp_path) as privet:
        issue(privet, "one.internal")
        before = memory_kib(privet)
        with httpx.Client() as http:
            url = privet.directory.replace("directory", "new-nonce")
            assert len({http.head(url).headers["replay-nonce"] for _ in range(2000)}) == 2000
        assert memory_kib(privet) - before < 4096
    with SQLiteStore(tmp_path / "privet.db") as store:
        assert len(store.find("spent-nonce", limit=1000)) < 10  # those of the one who wanted a certificate


def test_a_flood_of_new_accounts_from_one_network_has_an_end(tmp_path: Path) -> None:
    async def flood(base: str) -> list[httpx.Response]:
        async with httpx.AsyncClient(timeout=60) as http:
            nonce, answers = None, []
            for _ in range(300):
                wire = Wire(http, base, key=new_key(), nonce=nonce)
                answers.append(await wire.register())
                nonce = wire.nonce
            return answers

    with Privet(tmp_path, "--limit", "accounts-of-network=50/24h") as privet:
        before = memory_kib(privet)
        answers = asyncio.run(flood(privet.directory.removesuffix("/directory")))
        made = [answer for answer in answers if answer.status_code == 201]
        assert 50 <= len(made) <= 51  # a share of a fiftieth is the process's own
        refused = [answer for answer in answers if answer.status_code != 201]
        assert {problem_of(answer) for answer in refused} == {(429, "rateLimited")}
        assert all(int(answer.headers["retry-after"]) > 0 for answer in refused)
        assert memory_kib(privet) - before < 16 * 1024
    with SQLiteStore(tmp_path / "privet.db") as store:
        assert len(store.find("account", limit=1000)) == len(made)
        # A nonce is spent by appearing, and is forgotten when it would be too old in any case.
        assert all(nonce.expires for nonce in store.find("spent-nonce", limit=1000))
