"""Three replicas on one PostgreSQL, with nginx in front that asks them in turn and closes each connection after an
answer: clients cannot tell them from one."""

import asyncio
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Self
from urllib.parse import urlsplit

import httpx
import pytest
from tests.interop.clients import Caddy, Certbot, Lego
from tests.interop.nginx import Nginx
from tests.interop.postgresql import PostgreSQL
from tests.interop.programs import free_port
from tests.interop.serving import Privet
from tests.wire import Wire, csr, jwk_of, new_key, problem_of, sign

from privet import CertificateAuthority, MemoryStore
from privet.acme.encoding import to_base64url

pytestmark = [pytest.mark.interop, pytest.mark.xdist_group("replicas")]


class Site:
    """nginx on `front`; the replicas behind it, each with the port it listens at itself."""

    def __init__(self, folder: Path, store: str) -> None:
        self.folder = folder
        self.front = free_port()
        self.base = f"http://localhost:{self.front}/pki"
        self.ports = [free_port() for _ in range(3)]
        self.replicas = [
            Privet(folder / str(port), "--port", str(port), "--external-url", self.base, store=store)
            for port in self.ports
        ]

    @contextmanager
    def running(self) -> Iterator[Self]:
        self.folder.mkdir(exist_ok=True)
        with ExitStack() as stack, ThreadPoolExecutor() as threads:
            # Started at once: one of them makes the schema, and one the authority.
            list(threads.map(stack.enter_context, self.replicas))
            upstreams = [f"127.0.0.1:{port}" for port in self.ports]
            stack.enter_context(Nginx(self.folder / "nginx", self.front, *upstreams, keep_alive=False))
            yield self

    @property
    def directory(self) -> str:
        return f"{self.base}/directory"


@pytest.fixture(scope="module")
def site(postgresql: PostgreSQL, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with Site(tmp_path_factory.mktemp("replicas"), postgresql.new_database()).running() as running:
        yield running


def test_all_replicas_have_the_same_authority(site: Site) -> None:
    assert len({replica.root().read_bytes() for replica in site.replicas}) == 1


@pytest.mark.parametrize("client", [Certbot, Lego], ids=lambda client: client.name)
def test_a_client_gets_renews_and_revokes(site: Site, tmp_path: Path, client: type[Certbot | Lego]) -> None:
    root = site.replicas[0].root()
    made = client(tmp_path, site.directory, root)
    names = [f"{client.name}.replicas.internal"]
    made.issue(names).check(root, names)
    made.renew(names).check(root, names)
    made.revoke(names)
    for replica in site.replicas:
        assert [each["status"] for each in replica.certificates(names)] == ["valid", "revoked"]


def test_caddy_gets_a_certificate(site: Site, tmp_path: Path) -> None:
    root = site.replicas[0].root()
    caddy = Caddy(tmp_path, site.directory, root, debian=False)
    try:
        caddy.start(["caddy.replicas.internal"])
        caddy.issued("caddy.replicas.internal").check(root, ["caddy.replicas.internal"])
    finally:
        caddy.stop()


def test_a_key_change_counts_at_once_everywhere(site: Site) -> None:
    """RFC 8555 §7.3.5, asked of each replica right after the other one made it."""

    async def change_keys() -> None:
        async with httpx.AsyncClient() as http:
            wire = Wire(http, site.base)
            await wire.register()
            for number in range(6):
                at, elsewhere = site.ports[number % 3], site.ports[(number + 1) % 3]
                assert wire.kid
                assert (await sent_to(wire, at, wire.kid)).status_code == 200  # so that it has seen the key
                old, key = wire.key, new_key()
                url = wire.url("key-change")
                inner = sign(
                    key, {"alg": "ES256", "jwk": jwk_of(key), "url": url}, {"account": wire.kid, "oldKey": jwk_of(old)}
                )
                changed = await sent_to(wire, elsewhere, url, inner)
                assert changed.status_code == 200, changed.text
                for port in site.ports:
                    assert problem_of(await sent_to(wire, port, wire.kid)) == (403, "unauthorized")
                wire.key = key
                for port in site.ports:
                    assert (await sent_to(wire, port, wire.kid)).status_code == 200

    asyncio.run(change_keys())


def test_of_requests_with_one_nonce_at_all_replicas_at_once_one_wins(site: Site) -> None:
    """RFC 8555 §6.5."""

    async def spend() -> None:
        async with httpx.AsyncClient() as http:
            wire = Wire(http, site.base)
            await wire.register()
            assert wire.kid
            for _ in range(20):
                url = wire.url("new-order")
                names = {"identifiers": [{"type": "dns", "value": "one.internal"}]}
                message = sign(wire.key, await wire.header(url), names)
                answers = await asyncio.gather(*(post(http, port, url, message) for port in site.ports))
                assert sorted(answer.status_code for answer in answers) == [201, 400, 400]
                refused = [answer for answer in answers if answer.status_code == 400]
                assert {problem_of(answer) for answer in refused} == {(400, "badNonce")}

    asyncio.run(spend())


def test_a_spent_nonce_stays_spent_when_replicas_are_started_again(site: Site) -> None:
    async def spend() -> None:
        async with httpx.AsyncClient() as http:
            wire = Wire(http, site.base)
            await wire.register()
            assert wire.kid
            message = sign(wire.key, await wire.header(wire.kid), None)
            assert (await post(http, site.ports[0], wire.kid, message)).status_code == 200
            unspent = sign(wire.key, await wire.header(wire.kid), None)
            for replica in site.replicas:
                replica.stop()
                replica.start()
            for port in site.ports:
                assert problem_of(await post(http, port, wire.kid, message)) == (400, "badNonce")
            assert (await post(http, site.ports[1], wire.kid, unspent)).status_code == 200

    asyncio.run(spend())


def test_the_authority_may_be_files_on_each_machine_and_its_key_in_no_database(
    postgresql: PostgreSQL, tmp_path: Path
) -> None:
    store = postgresql.new_database()
    maker = CertificateAuthority(MemoryStore(), key_password=b"a password")
    maker.init(cn="Ours")
    made = maker.store.get("ca", "root")
    assert made
    for name, content in {**made.files, "password": b"a password"}.items():
        (tmp_path / name).write_bytes(content)
        (tmp_path / name).chmod(0o600)
    files = [
        *("--ca-cert", str(tmp_path / "cert.pem"), "--ca-key", str(tmp_path / "key.pem")),
        *("--key-password-file", str(tmp_path / "password")),
    ]
    ports = [free_port() for _ in range(2)]
    base = f"http://127.0.0.1:{ports[0]}"
    replicas = [
        Privet(tmp_path / str(port), "--port", str(port), "--external-url", base, *files, store=store) for port in ports
    ]
    with replicas[0], replicas[1]:

        async def ask() -> None:
            async with httpx.AsyncClient() as http:
                wire = Wire(http, base)
                await wire.register()
                ordered = await wire.order("web.internal")
                url = ordered.json()["finalize"]
                message = sign(wire.key, await wire.header(url), {"csr": to_base64url(csr("web.internal"))})
                assert (await post(http, ports[1], url, message)).json()["status"] == "valid"

        asyncio.run(ask())
    assert postgresql.do(
        "SELECT count(*) FROM privet.record WHERE files LIKE '%PRIVATE%'", store.rpartition("/")[2]
    ) == [(0,)]


def test_a_rate_is_counted_by_all_together(postgresql: PostgreSQL, tmp_path: Path) -> None:
    """RFC 8555 §6.6. A share of the first period is each replica's own, and one fiftieth of it."""
    store = postgresql.new_database()
    ports = [free_port() for _ in range(3)]
    base = f"http://127.0.0.1:{ports[0]}"
    options = ("--external-url", base, "--limit", "orders-of-account=10/1h")
    with ExitStack() as stack:
        for port in ports:
            stack.enter_context(Privet(tmp_path / str(port), "--port", str(port), *options, store=store))

        async def order() -> list[int]:
            async with httpx.AsyncClient() as http:
                wire = Wire(http, base)
                await wire.register()
                url, answers = wire.url("new-order"), []
                for number in range(30):
                    names = {"identifiers": [{"type": "dns", "value": f"n{number}.internal"}]}
                    message = sign(wire.key, await wire.header(url), names)
                    answers.append(await post(http, ports[number % 3], url, message))
                refused = [answer for answer in answers if answer.status_code != 201]
                assert {problem_of(answer) for answer in refused} == {(429, "rateLimited")}
                assert all(int(answer.headers["retry-after"]) > 0 for answer in refused)
                return [answer.status_code for answer in answers]

        assert 10 <= asyncio.run(order()).count(201) <= 10 + len(ports)


async def sent_to(wire: Wire, port: int, url: str, payload: object = None) -> httpx.Response:
    """Sign a request for the address that clients know, and bring it to one of the replicas."""
    return await post(wire.http, port, url, sign(wire.key, await wire.header(url), payload))


async def post(http: httpx.AsyncClient, port: int, url: str, message: object) -> httpx.Response:
    path = urlsplit(url).path.removeprefix("/pki")
    headers = {"content-type": "application/jose+json"}
    return await http.post(f"http://127.0.0.1:{port}{path}", json=message, headers=headers)


def test_when_the_database_is_gone_clients_are_told_when_to_come_back(tmp_path: Path) -> None:
    with PostgreSQL() as own, Privet(tmp_path, store=own.url()) as privet:
        base = privet.directory.removesuffix("/directory")

        async def order() -> httpx.Response:
            async with httpx.AsyncClient(timeout=60) as http:
                wire = Wire(http, base)
                await wire.register()
                return await wire.order("one.internal")

        assert asyncio.run(order()).status_code == 201
        own.stop()
        nonce = httpx.head(f"{base}/new-nonce", timeout=60)
        assert nonce.status_code == 200  # which takes no database

        async def register() -> httpx.Response:
            async with httpx.AsyncClient(timeout=60) as http:
                return await Wire(http, base).register()

        refused = asyncio.run(register())
        assert refused.status_code == 503
        assert int(refused.headers["retry-after"]) > 0
        own.start()
        assert asyncio.run(order()).status_code == 201


def test_a_password_in_the_address_is_told_to_nobody(tmp_path: Path) -> None:
    with PostgreSQL(password="s3cr3t") as own:
        privet = Privet(tmp_path, "--log-level", "debug", store=own.url())
        with privet:
            Lego(tmp_path / "lego", privet.directory, privet.root()).issue(["one.internal"])
            assert len(privet.listed()) == 1
            told = privet.privet("root", "--json")
            assert f'"data": "postgresql://postgres@127.0.0.1:{own.port}/postgres"' in told
            own.stop()
            assert httpx.get(f"{privet.directory.removesuffix('/directory')}/directory", timeout=60).status_code == 200
        assert privet.program
        assert "s3cr3t" not in told + privet.program.output
