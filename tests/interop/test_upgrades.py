"""Replicas that come and go while clients ask: upgraded one by one to a newer privet with another schema, ended,
killed, and their database started again. No issuance fails."""

import asyncio
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Self

import psycopg
import pytest
from cryptography import x509
from tests.interop.clients import Lego
from tests.interop.nginx import Nginx
from tests.interop.postgresql import PostgreSQL
from tests.interop.programs import free_port
from tests.interop.serving import PRIVET, Privet

from privet import Client, MemoryStore

pytestmark = [pytest.mark.interop, pytest.mark.xdist_group("upgrades")]

# What comes after the privet we have: it keeps more of each record, and says so in the view.
NEWER = (
    sys.executable,
    "-c",
    """
from privet.cli import main
from privet.stores.postgres import schema

schema.MIGRATIONS += ((
    "ALTER TABLE privet.record ADD COLUMN more text",
    "CREATE VIEW privet.more AS SELECT kind, id, more FROM privet.record",
    "CREATE INDEX record_more ON privet.record (more) WHERE more IS NOT NULL",
),)
main()
""",
)


class Clients:
    """Clients that ask for one certificate after the other: three of ours, and lego, which does not wait when it is
    told to come back later."""

    def __init__(self, folder: Path, directory: str, root: Path, *, lego: bool) -> None:
        self._directory = directory
        self._ending = threading.Event()
        self._issued = threading.Semaphore(0)
        self._threads = ThreadPoolExecutor(4)
        works: list[Callable[[], list[str]]] = [self._ask_in_thread] * 3
        if lego:
            works.append(partial(self._run, Lego(folder / "lego", directory, root)))
        self._working: list[Future[list[str]]] = [self._threads.submit(work) for work in works]

    def _run(self, lego: Lego) -> list[str]:
        serials: list[str] = []
        while not self._ending.is_set():
            serials.append(lego.issue([f"n{len(serials)}.lego.internal"]).serial)
            self._issued.release()
        return serials

    def _ask_in_thread(self) -> list[str]:
        return asyncio.run(self._ask())

    async def _ask(self) -> list[str]:
        serials: list[str] = []
        async with Client(self._directory, allow_insecure=True, store=MemoryStore()) as client:
            while not self._ending.is_set():
                bundle = await client.issue(f"n{len(serials)}.ours.internal")
                serials.append(f"{x509.load_pem_x509_certificate(bundle.cert_pem).serial_number:x}")
                self._issued.release()
        return serials

    def wait_for(self, more: int) -> None:
        """Wait until so many more certificates were issued, by whomever."""
        for _ in range(more):
            while not self._issued.acquire(timeout=1):
                for each in self._working:
                    if each.done():
                        each.result()  # which says what was wrong

    def end(self) -> list[str]:
        """The serial numbers of all that was issued."""
        self._ending.set()
        serials = [serial for each in self._working for serial in each.result()]
        self._threads.shutdown()
        return serials


class Site:
    """nginx, and behind it as many replicas as are told to be there."""

    def __init__(self, folder: Path, database: PostgreSQL) -> None:
        self.folder = folder
        self.database = database
        self.store = database.url()
        front = free_port()
        self.base = f"http://localhost:{front}/pki"
        self.running: dict[int, Privet] = {}
        self.nginx = Nginx(folder / "nginx", front, keep_alive=False)
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        ports = [self.start() for _ in range(3)]
        self.nginx.upstreams = [f"127.0.0.1:{port}" for port in ports]
        self._stack.enter_context(self.nginx)
        return self

    def __exit__(self, *failure: object) -> None:
        self._stack.close()
        for replica in self.running.values():
            replica.__exit__(*failure)

    def start(self, command: tuple[str, ...] = PRIVET) -> int:
        """Start a replica that nobody asks yet."""
        port = free_port()
        options = ("--port", str(port), "--external-url", self.base)
        folder = self.folder / str(port)
        self.running[port] = Privet(folder, *options, store=self.store, command=command).start()
        return port

    def tell(self) -> None:
        """Let nginx ask those that run."""
        self.nginx.pass_to(*(f"127.0.0.1:{port}" for port in self.running))

    def end(self, port: int) -> None:
        self.running.pop(port).stop()

    @contextmanager
    def asked(self, *, lego: bool = True) -> Iterator[Clients]:
        """While clients ask, whose certificates are all on record afterwards, each once, and each order's only one."""
        privet = next(iter(self.running.values()))
        clients = Clients(self.folder, f"{self.base}/directory", privet.root(), lego=lego)
        try:
            clients.wait_for(10)
            yield clients
            clients.wait_for(10)
        finally:
            serials = clients.end()
        with psycopg.connect(self.store) as somebody:
            known = somebody.execute('SELECT serial, status, "order" FROM privet.certificate').fetchall()
            orders = somebody.execute(
                "SELECT convert_from(body, 'UTF8')::jsonb ->> 'certificate' FROM privet.record "
                "WHERE kind = 'order' AND convert_from(body, 'UTF8')::jsonb ->> 'status' = 'valid'"
            ).fetchall()
        assert len(set(serials)) == len(serials)
        assert set(serials) <= {serial for serial, status, _ in known if status == "valid"}
        assert len({order for _, _, order in known}) == len(known)
        assert len(set(orders)) == len(orders)

    def refusals(self) -> list[str]:
        """What clients were told that is the fault of those who serve."""
        return [asked for status, asked in self.nginx.answers() if status >= 500]


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    with PostgreSQL() as database, Site(tmp_path, database) as site:
        yield site


def test_an_upgrade_of_one_replica_after_the_other_is_noticed_by_nobody(site: Site) -> None:
    old = list(site.running)
    with site.asked() as clients:
        for port in old:
            site.start(NEWER)
            site.tell()
            site.end(port)
            clients.wait_for(5)
            # Somebody starts an old one again in the middle of it, or undoes the upgrade.
            again = site.start()
            site.tell()
            clients.wait_for(5)
            site.end(again)  # which nginx notices by itself
            clients.wait_for(5)
    assert site.refusals() == []
    assert site.database.do("SELECT count(*) > 0 FROM privet.more") == [(True,)]


def test_replicas_that_are_ended_and_started_are_missed_by_nobody(site: Site) -> None:
    """nginx is told nothing: it asks another when one is not there."""
    with site.asked() as clients:
        for replica in list(site.running.values()) * 2:
            replica.stop()
            clients.wait_for(5)
            replica.start()
            clients.wait_for(5)
    assert site.refusals() == []


def test_a_replica_that_is_killed_takes_no_issuance_with_it(site: Site) -> None:
    with site.asked() as clients:
        for replica in site.running.values():
            assert replica.program
            replica.program.kill()
            clients.wait_for(5)
            replica.start()
            clients.wait_for(5)
    assert site.refusals() == []


def test_a_database_that_is_started_again_takes_no_issuance_with_it(site: Site) -> None:
    with site.asked(lego=False) as clients:
        for mode in ("fast", "immediate"):
            site.database.stop(mode)
            site.database.start()
            clients.wait_for(10)
