"""A PostgreSQL and its clients go over to renewed certificates under load: no connection is lost, and no query."""

import asyncio
import socket
import ssl
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import asyncpg
import psycopg
import pytest
from cryptography import x509
from tests.cli.command import Person, Serving
from tests.cli.test_node_daemon import fingerprint, serial, starts
from tests.interop.postgresql import PostgreSQL
from tests.interop.programs import Program

from privet.cli.startup import offers_tls

pytestmark = pytest.mark.interop

ROLES = """
[[role]]
name = "database"
common-names = ["epoch_user"]
usages = ["client"]
lifetime = "30s"
"""
RENEWALS = 2


@pytest.fixture
def person(tmp_path: Path) -> Person:
    person = Person(tmp_path)
    person.does("init")
    (tmp_path / "roles.toml").write_text(ROLES)
    return person


@pytest.fixture
def ca(person: Person) -> Iterator[Serving]:
    """It issues to servers by ACME, and to the user by a token, for half a minute each."""
    with person.serves("--auto-approve", "--tls", "--validity", "30s", "--roles", "roles.toml") as serving:
        made = person.does("token", "create", "--role", "database", "--roles", "roles.toml", "--json")
        (person.folder / "token").write_text(made.json["token"])
        yield serving


class Load:
    """What goes on while certificates change."""

    def __init__(self, dsn: str) -> None:
        self.dsn = dsn
        self.ended = asyncio.Event()
        self.queries = 0
        self.shown: set[object] = set()

    async def stay(self) -> None:
        """One connection, and one transaction, that see it all."""
        connection = await asyncpg.connect(self.dsn)
        try:
            async with connection.transaction():
                await connection.execute("CREATE TEMPORARY TABLE seen (number integer) ON COMMIT DROP")
                count = 0
                while not self.ended.is_set():
                    await connection.execute("INSERT INTO seen VALUES ($1)", count)
                    count += 1
                    assert await connection.fetchval("SELECT count(*) FROM seen") == count
                    await self._pause()
        finally:
            await connection.close()

    async def come_and_go(self) -> None:
        """A connection for each query."""
        while not self.ended.is_set():
            connection = await asyncpg.connect(self.dsn)
            self.shown.add(await connection.fetchval(_SHOWN))
            await connection.close()
            await self._pause()

    async def come_and_go_with_libpq(self) -> None:
        while not self.ended.is_set():
            self.shown.add(await asyncio.to_thread(self._ask))
            await self._pause()

    def _ask(self) -> object:
        with psycopg.connect(self.dsn) as connection:
            ((shown,),) = connection.execute(_SHOWN).fetchall()
            return shown

    async def _pause(self) -> None:
        self.queries += 1
        await asyncio.sleep(0.02)  # others want this machine as well


_SHOWN = "SELECT client_serial FROM pg_stat_ssl WHERE pid = pg_backend_pid()"


def server_serial(port: int, root: Path) -> int:
    """The serial number of the certificate that the server shows now."""
    context = ssl.create_default_context(cafile=str(root))
    with socket.create_connection(("127.0.0.1", port), timeout=60) as plain:
        assert offers_tls(plain)
        with context.wrap_socket(plain, server_hostname="localhost") as tls:
            return x509.load_der_x509_certificate(tls.getpeercert(binary_form=True) or b"").serial_number


async def under_load(dsn: str, watch: Callable[[Load], Awaitable[None]]) -> None:
    load = Load(dsn)
    works = [load.stay(), load.stay(), load.come_and_go(), load.come_and_go(), load.come_and_go_with_libpq()]
    async with asyncio.TaskGroup() as group:
        for work in works:
            group.create_task(work)
        await watch(load)
        load.ended.set()


def test_certificates_of_server_and_user_change_and_nobody_notices(person: Person, ca: Serving) -> None:
    trust = ("--fingerprint", fingerprint(person))
    with PostgreSQL() as running:
        running.do("CREATE ROLE epoch_user LOGIN")
        tls, client = running.folder / "tls", person.folder / "client"
        to_server = ("--owner", running.user, "--reload-command", running.reload())
        person.does("node", "issue", "localhost", "--directory", ca.directory, *trust, "--out", tls, *to_server)
        running.speak_tls(
            {"ssl_cert_file": tls / "fullchain.pem", "ssl_key_file": tls / "key.pem", "ssl_ca_file": tls / "ca.pem"},
            "hostssl all epoch_user all cert clientcert=verify-full",
        )
        url = f"postgresql://epoch_user@localhost:{running.port}/postgres"
        by_token = ("--vault", ca.base, "--role", "database", "--token-file", "token")
        asked = ("--postgres", url, *by_token, *trust, "--out", client, "--reuse-key", "--json")
        dsn = person.does("node", "issue", *asked).json["postgresql"]["dsn"]
        key = (client / "key.pem").read_bytes()
        servers, users = {server_serial(running.port, tls / "ca.pem")}, {serial(client / "cert.pem")}

        async def watch(daemon: Program, load: Load) -> None:
            """Until both have been renewed, and new connections show the new certificates."""
            async with asyncio.timeout(240):
                while min(len(servers), len(users), len(load.shown)) <= RENEWALS or load.queries <= 100:
                    assert daemon.process.poll() is None, daemon.output
                    servers.add(await asyncio.to_thread(server_serial, running.port, tls / "ca.pem"))
                    users.add(serial(client / "cert.pem"))
                    await asyncio.sleep(0.2)  # between two looks

        with starts(person, "renew", tls, client, "--daemon") as daemon:
            asyncio.run(under_load(dsn, lambda load: watch(daemon, load)))
            assert daemon.stop() == 0
        assert (client / "key.pem").read_bytes() == key
