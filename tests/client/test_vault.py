"""`VaultClient` against the real API, and against servers that answer whatever they like."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from cryptography import x509
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from tests.certificates import assert_is_leaf
from tests.interop.programs import free_port
from tests.vault.conftest import Scene

from privet import ClientError, KeyType, MemoryStore, RenewalManager, VaultClient
from privet.ca import CLIENT, keys
from privet.ca.csr import from_pem, parse_csr

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def scene() -> Scene:
    return Scene()


Answer = Callable[[Request], Awaitable[Response]]


def server(answer: Answer) -> httpx.ASGITransport:
    """Another server, that answers whatever it likes."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await (await answer(Request(scope, receive)))(scope, receive, send)

    return httpx.ASGITransport(app)


@asynccontextmanager
async def client_of(scene: Scene, role: str = "database", **options: Any) -> AsyncIterator[VaultClient]:
    token = options.pop("token", None) or scene.token(role)
    transport = options.pop("transport", None) or httpx.ASGITransport(scene.replica())
    async with VaultClient(
        "https://ca.internal",
        role,
        token,
        ca_bundle=options.pop("ca_bundle", scene.ca.root_cert_pem),
        transport=transport,
        now=scene.clock,
        **options,
    ) as client:
        yield client


async def test_the_user_of_a_database(scene: Scene) -> None:
    async with client_of(scene, key_password=b"horse", traditional_key=True) as client:
        bundle = await client.issue(common_name="epoch_user")
        certificate = x509.load_pem_x509_certificate(bundle.cert_pem)
        assert_is_leaf(certificate, issuer=scene.ca.root_cert, names=[], client=True, cn="epoch_user")
        assert (bundle.domain, bundle.common_name, bundle.domains) == ("epoch_user", "epoch_user", ())
        assert b"ENCRYPTED" in bundle.key_pem.splitlines()[1]
        assert keys.from_pem(bundle.key_pem, b"horse").public_key() == certificate.public_key()
        assert scene.ca.certificate(bundle.serial) is not None
        assert await client.ensure(common_name="epoch_user") == bundle
        assert (await client.ensure(common_name="report-1")).domain == "report-1"
        assert await client.owned() == ("epoch_user", "report-1")
        assert "horse" not in repr(client)


async def test_names_and_a_common_name(scene: Scene) -> None:
    async with client_of(scene, "curves", key_type=KeyType.P384) as client:
        bundle = await client.issue(["a.internal", "b.internal"], common_name="My App")
        certificate = x509.load_pem_x509_certificate(bundle.cert_pem)
        names = ["a.internal", "b.internal"]
        assert_is_leaf(certificate, issuer=scene.ca.root_cert, names=names, client=True, cn="My App")
        plain = await client.issue(["a.internal", "b.internal"])
        certificate = x509.load_pem_x509_certificate(plain.cert_pem)
        assert_is_leaf(certificate, issuer=scene.ca.root_cert, names=names, client=True, cn="a.internal")
        assert (await client.issue("a.internal", common_name="a.internal")).common_name is None
    async with client_of(scene, "web") as client:
        bundle = await client.issue(["web.internal", "10.0.0.7"])
        assert bundle.domains == ("web.internal", "10.0.0.7")


@pytest.mark.parametrize("rotate_key", [True, False])
@pytest.mark.parametrize("common_name", ["epoch_user", "report-App"])
async def test_renewal_keeps_what_was_asked_for(scene: Scene, rotate_key: bool, common_name: str) -> None:
    store = MemoryStore()
    async with client_of(scene, key_password=b"horse", store=store) as client:
        first = await client.issue(common_name=common_name)
        names = [common_name]
        manager = RenewalManager(
            client=client,
            names=names,
            rotate_key=rotate_key,
            renewal_threshold=0.7,
            now=scene.clock,
            random=lambda: 0.0,
        )
        assert await manager.sweep() == []
        scene.clock.forward(minutes=39)
        assert await manager.sweep() == []
        scene.clock.forward(minutes=3, seconds=1)
        (renewed,) = await manager.sweep()
        assert x509.load_pem_x509_certificate(renewed.cert_pem).subject.rfc4514_string() == f"CN={common_name}"
        assert renewed.serial != first.serial
        same = (
            keys.from_pem(renewed.key_pem, b"horse").public_key() == keys.from_pem(first.key_pem, b"horse").public_key()
        )
        assert same is not rotate_key


async def test_a_program_that_starts_again_renews_what_it_has(scene: Scene) -> None:
    store = MemoryStore()
    async with client_of(scene, store=store) as client:
        first = await client.ensure(common_name="epoch_user")
    async with client_of(scene, store=store) as client:
        assert await client.ensure(common_name="epoch_user") == first
        assert await client.owned() == ("epoch_user",)
        scene.clock.forward(minutes=41)
        (renewed,) = await RenewalManager(client=client, now=scene.clock, random=lambda: 0.0).sweep()
        assert renewed.serial != first.serial


async def test_a_lifetime_is_asked_for(scene: Scene) -> None:
    async with client_of(scene, ttl=timedelta(minutes=7)) as client:
        bundle = await client.issue(common_name="epoch_user")
        assert bundle.expires_at == scene.clock() + timedelta(minutes=7)


async def test_a_token_in_a_file_is_read_each_time(scene: Scene, tmp_path: Path) -> None:
    path = tmp_path / "token"
    async with client_of(scene, token=path) as client:
        with pytest.raises(ClientError, match="the token cannot be read from"):
            await client.issue(common_name="epoch_user")
        path.write_text("two\nlines")
        with pytest.raises(ClientError, match="a line of printable characters"):
            await client.issue(common_name="epoch_user")
        path.write_text("s.wrong\n")
        with pytest.raises(ClientError, match="refuses to sign for the role 'database': permission denied"):
            await client.issue(common_name="epoch_user")
        path.write_text(f"{scene.token('database')}\n")
        await client.issue(common_name="epoch_user")


async def test_what_the_role_refuses_is_said_and_the_old_one_stays(scene: Scene) -> None:
    async with client_of(scene) as client:
        with pytest.raises(ClientError, match="'other_user' is not allowed by the role 'database'"):
            await client.issue(common_name="other_user")
        with pytest.raises(ClientError, match="for one name at least"):
            await client.issue()
        for none in ("", "x" * 65, "\ud800"):
            with pytest.raises(ClientError, match="cannot be the common name of a certificate: "):
                await client.issue(common_name=none)
        old = await client.issue(common_name="epoch_user")
        scene.clock.forward(minutes=50)
        for token in scene.tokens():
            scene.store.commit(token.take_back(scene.clock()).to_record())
        assert await client.ensure(common_name="epoch_user") == old
        scene.clock.forward(minutes=10)
        with pytest.raises(ClientError, match="permission denied"):
            await client.ensure(common_name="epoch_user")


async def test_the_root_is_known_by_its_fingerprint(scene: Scene) -> None:
    """Whoever answers: what is issued by another root is not used."""
    other = Scene()

    async def answer(request: Request) -> Response:
        if request.url.path == "/ca.pem":
            return Response(scene.ca.root_cert_pem)
        api = other if request.headers["x-vault-token"] == "other" else scene
        reply = await api.ask("sign/database", api.token("database"), await request.body())
        return Response(reply.content, reply.status_code)

    async def issue(token: str) -> None:
        async with client_of(
            scene, token=token, ca_bundle=None, ca_fingerprint=scene.ca.fingerprint, transport=server(answer)
        ) as client:
            await client.issue(common_name="epoch_user")

    async with scene.http, other.http:
        await issue("ours")
        with pytest.raises(ClientError, match="did not sign"):
            await issue("other")


def _of_another_key(scene: Scene) -> dict[str, Any]:
    bundle = scene.ca.issue(common_name="epoch_user", client=True)
    return {"certificate": bundle.cert_pem.decode()}


ANSWERS: list[tuple[Callable[[Scene], Response], str]] = [
    (lambda _: Response(b"<html>"), "answers something that is not Vault's"),
    (lambda _: Response(b"[" * 100_000), "answers something that is not Vault's"),
    (lambda _: JSONResponse({"data": None}), "answers something that is not Vault's"),
    (lambda _: JSONResponse({"data": {}}), "something else than certificates"),
    (lambda _: JSONResponse({"data": {"certificate": "x", "ca_chain": [1]}}), "something else"),
    (lambda _: Response(b'{"data": {"certificate": "\\udcff"}}'), "something else than certificates"),
    (lambda scene: JSONResponse({"data": _of_another_key(scene)}), "has another key"),
    (lambda _: Response(b" " * (1 << 21)), "too long for a certificate"),
    (lambda _: Response(status_code=302, headers={"location": "https://elsewhere/"}), "it answers 302"),
    (lambda _: JSONResponse({"errors": ["sealed\x1b[2J", 1, None]}, 503), r"sealed\\x1b\[2J$"),
    (lambda _: JSONResponse({"errors": "no"}, 400), "it answers 400"),
]


@pytest.mark.parametrize(("answer", "sentence"), ANSWERS)
async def test_whatever_a_server_answers_is_a_sentence(
    scene: Scene, answer: Callable[[Scene], Response], sentence: str
) -> None:
    async def answers(_: Request) -> Response:
        return answer(scene)

    async with client_of(scene, transport=server(answers)) as client:
        with pytest.raises(ClientError, match=sentence):
            await client.issue(common_name="epoch_user")
        assert client.store.get("certs", "epoch_user") is None


async def test_another_common_name_than_was_asked_for_is_not_used(scene: Scene) -> None:
    async def answer(request: Request) -> Response:
        csr = parse_csr(from_pem((await request.json())["csr"].encode()), any_common_name=True)
        prepared = scene.ca.prepare(csr.public_key, [], common_name="root_user", profile=CLIENT)
        return JSONResponse({"data": {"certificate": scene.ca.sign(prepared).cert_pem.decode()}})

    async with client_of(scene, transport=server(answer)) as client:
        with pytest.raises(ClientError, match="is for 'root_user', not for 'epoch_user'; it is not used"):
            await client.issue(common_name="epoch_user")


async def test_plain_http_and_two_trusts_are_refused(scene: Scene) -> None:
    with pytest.raises(ClientError, match="is not https"):
        VaultClient("http://ca.internal", "database", "token")
    with pytest.raises(ClientError, match="give one of them"):
        VaultClient("https://ca.internal", "database", "token", ca_bundle="x", ca_fingerprint="y")
    with pytest.raises(ValueError, match="an empty password"):
        VaultClient("https://ca.internal", "database", "token", key_password=b"")
    with pytest.raises(ValueError, match="has 1023 octets at most"):
        VaultClient("https://ca.internal", "database", "token", key_password=b"x" * 1024)


async def test_a_server_that_does_not_answer_is_a_sentence(scene: Scene) -> None:
    async def answers_never(_: Request) -> Response:
        await asyncio.sleep(60)
        raise AssertionError

    async with client_of(scene, transport=server(answers_never), timeout=0.05) as client:
        with pytest.raises(ClientError, match="/ cannot be asked: it takes too long"):
            await client.issue(common_name="epoch_user")


async def test_a_server_that_is_down_is_a_sentence(scene: Scene) -> None:
    url = f"https://127.0.0.1:{free_port()}"
    async with VaultClient(url, "database", "token", ca_bundle=scene.ca.root_cert_pem) as client:
        with pytest.raises(ClientError, match=f"{url}/ cannot be asked: "):
            await client.issue(common_name="epoch_user")
