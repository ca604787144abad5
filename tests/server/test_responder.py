"""The way in and out: paths, methods, sizes, mounts, addresses, and what happens when something breaks."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from datetime import timedelta
from threading import Event
from typing import Any

import httpx
import pytest
from cryptography import x509
from fastapi import FastAPI
from starlette.applications import Starlette
from starlette.routing import Mount
from tests.server.conftest import Stage
from tests.wire import BASE, Wire, bind, csr, der_of, problem_of

from privet import ACMEResponder, CertificateAuthority, Conflict, Limits, MemoryStore, Record, StoreError
from privet.acme.encoding import to_base64url
from privet.server.responder import RESOURCES

pytestmark = pytest.mark.anyio

SOME_ID = "0" * 32
PATHS = [f"{name}/{SOME_ID}" if resource.names else name for name, resource in RESOURCES.items() if name != "orders"]
PATHS.append(f"acct/{SOME_ID}/orders")


@contextlib.asynccontextmanager
async def browser(app: Any, base: str = BASE, root_path: str = "") -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(app, root_path=root_path)
    async with httpx.AsyncClient(transport=transport, base_url=base) as http:
        yield http


def authority(store: MemoryStore | None = None, name: str = "root") -> CertificateAuthority:
    ca = CertificateAuthority(store or MemoryStore(), name)
    ca.init(cn=f"{name} CA")
    return ca


# --- the directory, and what everybody may read ---


async def test_every_url_in_the_directory_works(stage: Stage) -> None:
    async with stage(auto_approve=True) as scene:
        directory = (await scene.http.get("/directory")).json()
        assert directory.pop("meta") == {}
        assert (await scene.http.head(directory.pop("newNonce"))).status_code == 200
        wire = scene.stranger()
        registered = await wire.post(directory.pop("newAccount"), {})
        assert registered.status_code == 201
        wire.kid = registered.headers["location"]
        identifier = {"type": "dns", "value": "a.internal"}
        assert (await wire.post(directory.pop("newAuthz"), {"identifier": identifier})).status_code == 201
        order = await wire.post(directory.pop("newOrder"), {"identifiers": [identifier]})
        assert order.status_code == 201
        finalized = await wire.finalize(order.json())
        chain = (await wire.post(finalized.json()["certificate"])).content
        assert (await wire.post(directory.pop("revokeCert"), {"certificate": der_of(chain)})).status_code == 200
        # What a key change has to look like, test_accounts shows; the resource is there.
        assert problem_of(await wire.post(directory.pop("keyChange"), {})) == (400, "malformed")
        assert directory == {}


async def test_the_directory_says_what_is_asked_of_clients(stage: Stage) -> None:
    terms, website = "https://ca.internal/terms", "https://ca.internal"
    async with stage(
        terms_of_service=terms, website=website, external_account_keys={}, external_account_required=True
    ) as scene:
        response = await scene.http.get("/directory")
        assert response.headers["content-type"] == "application/json"
        assert response.json()["meta"] == {
            "termsOfService": terms,
            "website": website,
            "externalAccountRequired": True,
        }


async def test_the_directory_can_be_read_by_post_as_get(stage: Stage) -> None:
    """RFC 8555 §6.3: "in addition to POST-as-GET requests for these resources"."""
    async with stage() as scene:
        wire = await scene.account()
        by_post = await wire.post("directory")
        assert by_post.status_code == 200
        assert by_post.json() == (await scene.http.get("/directory")).json()
        assert by_post.headers["replay-nonce"]


async def test_a_head_request_gets_what_get_would_without_the_body(stage: Stage) -> None:
    async with stage() as scene:
        for path in ("/directory", "/ca.pem", "/nothing"):
            got, head = await scene.http.get(path), await scene.http.head(path)
            assert head.content == b""
            assert (head.status_code, head.headers) == (got.status_code, got.headers)
            assert int(head.headers["content-length"]) == len(got.content) > 0


async def test_a_nonce_comes_by_head_get_and_post_as_get(stage: Stage) -> None:
    """RFC 8555 §7.2: 200 to HEAD, 204 to GET, nobody may keep it."""
    async with stage() as scene:
        wire = await scene.account()
        answers = [
            await scene.http.head("/new-nonce"),
            await scene.http.get("/new-nonce"),
            await wire.post("new-nonce"),
        ]
        assert [answer.status_code for answer in answers] == [200, 204, 204]
        assert len({answer.headers["replay-nonce"] for answer in answers}) == 3
        for answer in answers:
            assert answer.content == b""
            assert "content-type" not in answer.headers
            assert answer.headers["cache-control"] == "no-store"
            assert answer.headers["link"] == f'<{BASE}/directory>;rel="index"'
        # RFC 9110 §8.6: no Content-Length in a 204
        assert "content-length" not in answers[1].headers


async def test_the_root_is_there_for_everybody(stage: Stage) -> None:
    async with stage() as scene:
        response = await scene.http.get("/ca.pem")
        assert response.status_code == 200
        assert response.headers["content-type"] == "application/x-pem-file"
        assert response.content == scene.ca.root_cert_pem


async def test_every_answer_leads_to_the_directory(stage: Stage) -> None:
    """RFC 8555 §7.1: the index link, without which lego and certbot stop; and up from a challenge."""
    async with stage() as scene:
        wire = await scene.account()
        order = await wire.order("a.internal")
        authorization = await wire.post(order.json()["authorizations"][0])
        challenge = authorization.json()["challenges"][0]["url"]
        index = f'<{BASE}/directory>;rel="index"'
        looked_at = await wire.post(challenge)
        assert looked_at.headers.get_list("link") == [
            index,
            f'<{order.json()["authorizations"][0]}>;rel="up"',
        ]
        for answer in (order, authorization, await wire.post("nothing"), await scene.http.get("/order")):
            assert answer.headers.get_list("link") == [index]


async def test_scripts_of_other_sites_read_nothing(stage: Stage) -> None:
    """RFC 8555 §6.1 lets a server allow them to; browsers are no clients here."""
    async with stage() as scene:
        wire = await scene.account()
        origin = {"origin": "https://elsewhere.example"}
        asking = {**origin, "access-control-request-method": "POST"}
        for answer in (
            await scene.http.get("/directory", headers=origin),
            await scene.http.options("/new-order", headers=asking),
            await wire.post("new-order", {}, headers=origin),
        ):
            assert not [name for name in answer.headers if name.startswith("access-control")]


# --- what is not there, and what is not allowed ---


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "HEAD"])
@pytest.mark.parametrize(
    "path",
    [
        *("", "nothing", "directory/", "Directory", "new-nonce/", "new-nonce/x", "ca.pem/", "new-order/", "acct"),
        *("acct/", f"acct/{SOME_ID}/", f"acct/{SOME_ID}/orders/", "acct//orders", f"acct/{SOME_ID}/orders/orders"),
        *(f"new-order/{SOME_ID}", "order/A", "order/..", "order/a/b", f"order/{'a' * 65}", "order/%00", "order/é"),
        *(f"orders/{SOME_ID}", "orders", "order", "authz", "chall", "finalize", "cert", f"/order/{SOME_ID}"),
    ],
)
async def test_what_is_not_there_is_a_problem_document(stage: Stage, method: str, path: str) -> None:
    async with stage() as scene:
        response = await scene.http.request(method, f"{BASE}/{path}")
        assert response.status_code == 404
        if method != "HEAD":
            assert problem_of(response) == (404, "malformed")
        assert ("replay-nonce" in response.headers) == (method == "POST")


@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "DELETE", "OPTIONS", "PATCH"])
@pytest.mark.parametrize("path", PATHS)
async def test_signed_resources_take_post_alone(stage: Stage, path: str, method: str) -> None:
    """RFC 8555 §6.3: a GET "MUST return an error with status code 405 and type malformed"."""
    async with stage() as scene:
        response = await scene.http.request(method, f"/{path}")
        assert (response.status_code, response.headers["allow"]) == (405, "POST")
        if method != "HEAD":
            assert problem_of(response) == (405, "malformed")


@pytest.mark.parametrize(
    ("path", "allowed"),
    [("directory", "GET, HEAD, POST"), ("new-nonce", "GET, HEAD, POST"), ("ca.pem", "GET, HEAD")],
)
async def test_open_resources_say_what_they_take(stage: Stage, path: str, allowed: str) -> None:
    async with stage() as scene:
        for method in {"GET", "HEAD", "POST", "PUT", "DELETE"} - set(allowed.split(", ")):
            response = await scene.http.request(method, f"/{path}")
            assert problem_of(response) == (405, "malformed")
            assert response.headers["allow"] == allowed


@pytest.mark.parametrize(
    "media_type",
    [
        "application/json",
        "application/jose",
        "application/jose+jsonx",
        "text/plain; x=application/jose+json",
        "",
        "*/*",
    ],
)
async def test_another_media_type_is_unsupported(stage: Stage, media_type: str) -> None:
    """RFC 8555 §6.2: 415."""
    async with stage() as scene:
        for path in (*PATHS, "directory", "new-nonce"):
            response = await scene.http.post(f"/{path}", content=b"{}", headers={"content-type": media_type})
            assert problem_of(response) == (415, "malformed")
            assert response.headers["replay-nonce"]
        without = await scene.http.post("/new-account", content=b"{}")
        assert problem_of(without) == (415, "malformed")


@pytest.mark.parametrize(
    "media_type",
    [
        "APPLICATION/JOSE+JSON",
        "Application/Jose+Json; charset=utf-8",
        "application/jose+json ;profile=x",
        " application/jose+json",
    ],
)
async def test_media_types_compare_without_case_and_parameters(stage: Stage, media_type: str) -> None:
    async with stage() as scene:
        response = await scene.stranger().post("new-account", {}, headers={"content-type": media_type})
        assert response.status_code == 201


# --- size (lesson 16) ---


async def test_a_large_body_is_refused_by_its_announced_length(stage: Stage) -> None:
    """Lesson 16: nothing of it is read."""
    async with stage() as scene:
        for length in (b"65537", b"10485760", b"9" * 5000):
            scope = http_scope("/new-account", [(b"content-length", length)])
            started = await run(scene.responder, scope, [])  # there is nothing to receive: asking would fail
            assert started["status"] == 413


async def test_a_large_body_is_refused_however_it_is_sent(stage: Stage) -> None:
    """Lesson 16: chunked bodies too, and no more of them is read than it takes to know."""
    async with stage(limits=Limits(body=1000)) as scene:
        taken = []

        async def endless() -> dict[str, Any]:
            taken.append(400)
            return {"type": "http.request", "body": b"x" * 400, "more_body": True}

        started = await run(scene.responder, http_scope("/new-account", []), endless)
        assert started["status"] == 413
        assert len(taken) == 3


async def test_the_limit_itself_is_allowed(stage: Stage) -> None:
    async with stage() as scene:
        wire = scene.stranger()

        async def chunks(size: int) -> AsyncIterator[bytes]:
            message = await as_json(wire)
            yield message[:-1]
            yield b', "more": "' + b"x" * (size - len(message) - 12) + b'"}'

        headers = {"content-type": "application/jose+json"}
        enough = await scene.http.post("/new-account", content=chunks(65536), headers=headers)
        assert enough.status_code == 201
        more = await scene.http.post("/new-account", content=chunks(65537), headers=headers)
        assert problem_of(more) == (413, "malformed")
        assert more.headers["replay-nonce"]


async def test_what_is_turned_away_unread_spends_no_nonce(stage: Stage) -> None:
    """RFC 8555 §6.5 is about nonces that have appeared in a request; of these nobody has seen one."""
    async with stage(limits=Limits(body=5000)) as scene:
        wire = scene.stranger()
        message = await as_json(wire)
        headers = {"content-type": "application/jose+json"}
        turned_away = [
            await scene.http.post("/nothing", content=message, headers=headers),
            await scene.http.put("/new-account", content=message, headers=headers),
            await scene.http.post("/new-account", content=message + b" " * 5000, headers=headers),
            await scene.http.post("/new-account", content=message, headers={"content-type": "application/json"}),
        ]
        assert [answer.status_code for answer in turned_away] == [404, 405, 413, 415]
        for status in (201, 400):  # and now it is
            assert (await scene.http.post("/new-account", content=message, headers=headers)).status_code == status


async def as_json(wire: Wire) -> bytes:
    """A good newAccount request as it goes over the wire."""
    sent: list[bytes] = []

    class Recording(httpx.AsyncBaseTransport):
        async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
            sent.append(await request.aread())
            return httpx.Response(200)

    nonce = await wire.fresh_nonce()
    async with httpx.AsyncClient(transport=Recording()) as http:
        await Wire(http, wire.base, wire.key, nonce=nonce).post("new-account", {})
    return sent[0]


async def test_a_client_that_goes_away_is_no_mistake_of_ours(stage: Stage, caplog: pytest.LogCaptureFixture) -> None:
    async with stage() as scene:
        messages: list[Any] = [{"type": "http.request", "body": b"{", "more_body": True}, {"type": "http.disconnect"}]
        started = await run(scene.responder, http_scope("/new-account", []), messages)
        assert started["status"] == 400
        assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


def http_scope(path: str, headers: list[tuple[bytes, bytes]]) -> dict[str, Any]:
    content_type = (b"content-type", b"application/jose+json")
    return {
        "type": "http",
        "method": "POST",
        "scheme": "http",
        "path": path,
        "query_string": b"",
        "headers": [(b"host", b"ca.internal"), content_type, *headers],
        "client": ("10.0.0.7", 4711),
        "server": ("10.0.0.1", 80),
    }


async def run(
    app: ACMEResponder,
    scope: dict[str, Any],
    incoming: Sequence[dict[str, Any]] | Callable[[], Awaitable[dict[str, Any]]],
) -> dict[str, Any]:
    """Serve one request from these messages; return how the answer starts, with its headers as a mapping."""
    outgoing: list[Any] = []
    if not callable(incoming):
        messages = iter(incoming)

        async def receive() -> dict[str, Any]:
            return next(messages)
    else:
        receive = incoming  # type: ignore[assignment]

    async def send(message: Any) -> None:
        outgoing.append(message)

    await app(scope, receive, send)
    start: dict[str, Any] = outgoing[0]
    rest = outgoing[1:]
    assert start["type"] == "http.response.start"
    assert [(message["type"], message.get("more_body", False)) for message in rest] == [("http.response.body", False)]
    return start | {"headers": {name.decode(): value.decode() for name, value in start["headers"]}}


# --- where it is mounted, and what its address is ---


async def issue_at(http: httpx.AsyncClient, base: str) -> list[str]:
    """A whole issuance; return every URL that was met on the way."""
    directory = (await http.get(f"{base}/directory")).json()
    wire = Wire(http, base)
    account = await wire.register()
    order = (await wire.order("a.internal")).json()
    authorization = (await wire.post(order["authorizations"][0])).json()
    finalized = await wire.finalize(order)
    chain = await wire.post(finalized.json()["certificate"])
    assert chain.content.count(b"BEGIN CERTIFICATE") == 2
    return [
        *(url for url in directory.values() if isinstance(url, str)),
        account.headers["location"],
        account.json()["orders"],
        order["finalize"],
        *order["authorizations"],
        *(challenge["url"] for challenge in authorization["challenges"]),
        finalized.headers["location"],
        finalized.json()["certificate"],
    ]


def starlette(responder: ACMEResponder, prefix: str) -> Any:
    return Starlette(routes=[Mount(prefix, app=responder)])


def fastapi(responder: ACMEResponder, prefix: str) -> Any:
    app = FastAPI()
    app.mount(prefix, responder)
    return app


@pytest.mark.parametrize("framework", [starlette, fastapi])
@pytest.mark.parametrize("prefix", ["/acme", "/a/b/acme"])
async def test_it_works_mounted_under_a_prefix(framework: Callable[..., Any], prefix: str) -> None:
    app = framework(ACMEResponder(authority(), auto_approve=True), prefix)
    async with browser(app) as http:
        urls = await issue_at(http, f"{BASE}{prefix}")
        assert all(url.startswith(f"{BASE}{prefix}/") for url in urls)
        assert problem_of(await http.get(f"{prefix}/nothing")) == (404, "malformed")
        assert (await http.get("/directory")).status_code == 404  # the frame's own


@pytest.mark.parametrize("root_path", ["/acme", "/acme/"])
async def test_it_works_behind_a_proxy_that_says_where_it_is(root_path: str) -> None:
    """`uvicorn --root-path`: the path begins with it, or the proxy has taken it off already."""
    responder = ACMEResponder(authority(), auto_approve=True)
    async with browser(responder, root_path=root_path) as http:
        assert all(url.startswith(f"{BASE}/acme/") for url in await issue_at(http, f"{BASE}/acme"))
        assert (await http.get("/directory")).json()["newNonce"] == f"{BASE}/acme/new-nonce"
        # Cut at a slash: what merely begins with the same letters is another place.
        assert problem_of(await http.get("/acmedirectory")) == (404, "malformed")


async def test_two_mounts_of_one_responder_are_two_addresses_of_it() -> None:
    responder = ACMEResponder(authority(), auto_approve=True)
    app = Starlette(routes=[Mount("/one", app=responder), Mount("/two", app=responder)])
    async with browser(app) as http:
        await issue_at(http, f"{BASE}/one")
        # State keyed by URL: another address of the same server didn't know the order. Ids are kept here, not URLs.
        wire = Wire(http, f"{BASE}/one")
        await wire.register()
        order = await wire.order("a.internal")
        assert wire.kid
        there = Wire(http, f"{BASE}/two", wire.key, wire.kid.replace("/one/", "/two/"))
        look = await there.post(order.headers["location"].replace("/one/", "/two/"))
        assert (await there.finalize(look.json())).json()["status"] == "valid"
        assert (await wire.post(order.headers["location"])).json()["status"] == "valid"


async def test_its_address_is_what_it_was_told_whatever_the_host_header_says() -> None:
    """Lesson 21: URLs are never built from Host or X-Forwarded headers when `external_url` is there."""
    told = "https://acme.example:8443/ca"
    responder = ACMEResponder(authority(), auto_approve=True, external_url=f"{told}/")
    lies = {"host": "evil.example", "x-forwarded-host": "evil.example", "x-forwarded-proto": "gopher"}
    async with browser(responder, base="http://evil.example") as http:
        http.headers.update(lies)
        directory = (await http.get("/directory")).json()
        assert {url for url in directory.values() if isinstance(url, str)} == {
            f"{told}/{name}"
            for name in ("new-nonce", "new-account", "new-order", "new-authz", "revoke-cert", "key-change")
        }
        # A request signed for where it was sent to is not for us; signed for our address, it is.
        wire = Wire(http, "http://evil.example")
        assert problem_of(await wire.post("new-account", {})) == (403, "unauthorized")
        registered = await wire.post("new-account", {}, url=f"{told}/new-account")
        assert registered.status_code == 201
        assert registered.headers["location"].startswith(f"{told}/acct/")
        assert registered.headers["link"] == f'<{told}/directory>;rel="index"'


async def test_behind_a_proxy_the_whole_story_is_told_at_the_external_url() -> None:
    """The proxy takes the prefix off and speaks HTTP; clients know nothing of that."""
    told = "https://acme.example/pki"
    responder = ACMEResponder(authority(), auto_approve=True, external_url=told)

    async def proxy(scope: Any, receive: Any, send: Any) -> None:
        path = scope["path"].removeprefix("/pki")
        headers = [(b"host", b"127.0.0.1:8555"), *[each for each in scope["headers"] if each[0] != b"host"]]
        await responder(scope | {"path": path, "scheme": "http", "headers": headers}, receive, send)

    async with browser(proxy, base=told) as http:
        assert all(url.startswith(f"{told}/") for url in await issue_at(http, told))


@pytest.mark.parametrize(
    ("scheme", "host", "base"),
    [
        ("http", b"ca.internal", "http://ca.internal"),
        ("https", b"ca.internal:8443", "https://ca.internal:8443"),
        ("http", b"127.0.0.1:8555", "http://127.0.0.1:8555"),
        ("http", b"[::1]:8555", "http://[::1]:8555"),
        # What is no host is not repeated; the socket's own address is.
        ("http", b'evil"><script>', "http://10.0.0.1:80"),
        ("http", b"ca.internal\r\nX: y", "http://10.0.0.1:80"),
        ("http", b"user@ca.internal", "http://10.0.0.1:80"),
        ("http", b"", "http://10.0.0.1:80"),
    ],
)
async def test_without_an_external_url_the_request_says_it(stage: Stage, scheme: str, host: bytes, base: str) -> None:
    async with stage() as scene:
        scope = http_scope("/directory", []) | {"scheme": scheme, "method": "GET", "headers": [(b"host", host)]}
        started = await run(scene.responder, scope, [])
        assert started["headers"]["link"] == f'<{base}/directory>;rel="index"'


async def test_on_a_unix_socket_there_is_an_address_too(stage: Stage) -> None:
    async with stage() as scene:
        for server in (("/run/privet.sock", None), None):
            scope = http_scope("/directory", []) | {"method": "GET", "headers": [], "server": server, "client": None}
            started = await run(scene.responder, scope, [])
            assert started["headers"]["link"] == '<http://localhost/directory>;rel="index"'


# --- other scopes ---


async def test_it_lives_and_dies_when_told(stage: Stage) -> None:
    async with stage() as scene:
        messages, sent = iter([{"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}]), []

        async def receive() -> Any:
            return next(messages)

        async def send(message: Any) -> None:
            sent.append(message["type"])

        await scene.responder({"type": "lifespan"}, receive, send)
        assert sent == ["lifespan.startup.complete", "lifespan.shutdown.complete"]


async def test_it_takes_no_websockets(stage: Stage) -> None:
    async with stage() as scene:
        sent = []

        async def receive() -> Any:
            return {"type": "websocket.connect"}

        async def send(message: Any) -> None:
            sent.append(message["type"])

        await scene.responder({"type": "websocket", "path": "/directory", "headers": []}, receive, send)
        assert sent == ["websocket.close"]


async def test_it_needs_no_lifespan_and_works_on_one_loop_after_another() -> None:
    responder = ACMEResponder(authority(), auto_approve=True)

    async def story() -> None:
        async with browser(responder) as http:
            await issue_at(http, BASE)

    await story()
    await asyncio.to_thread(asyncio.run, story())


# --- several of them ---


async def test_two_responders_with_two_authorities_share_a_process() -> None:
    one, two = authority(name="one"), authority(name="two")
    apps = Starlette(
        routes=[
            Mount("/one", app=ACMEResponder(one, auto_approve=True)),
            Mount("/two", app=ACMEResponder(two, auto_approve=True)),
        ]
    )
    async with browser(apps) as http:
        for ca in (one, two):
            base = f"{BASE}/{ca.name}"
            assert (await http.get(f"{base}/ca.pem")).content == ca.root_cert_pem
            wire = Wire(http, base)
            await wire.register()
            leaf, root = x509.load_pem_x509_certificates(await wire.issue("a.internal"))
            leaf.verify_directly_issued_by(ca.root_cert)
            assert root == ca.root_cert


async def test_authorities_that_share_a_store_share_no_accounts() -> None:
    """Lesson 1: what one authority lets pass, under its policy, is nothing to the other; and each key has an account
    with both."""
    store = MemoryStore()
    lax, strict = authority(store, "lax"), authority(store, "strict")
    apps = Starlette(
        routes=[
            Mount("/lax", app=ACMEResponder(lax, auto_approve=True)),
            Mount("/strict", app=ACMEResponder(strict)),
        ]
    )
    async with browser(apps) as http:
        wire = Wire(http, f"{BASE}/lax")
        await wire.register()
        order = (await wire.order("a.internal")).json()
        assert order["status"] == "ready"
        assert wire.kid
        elsewhere = Wire(http, f"{BASE}/strict", wire.key, wire.kid.replace("/lax/", "/strict/"))
        finalize = order["finalize"].replace("/lax/", "/strict/")
        request = {"csr": to_base64url(csr("a.internal"))}
        assert problem_of(await elsewhere.post(finalize, request)) == (400, "accountDoesNotExist")
        chain = (await wire.post((await wire.finalize(order)).json()["certificate"])).content
        # The same key is another account there, to which all of this is not there.
        assert (await elsewhere.register()).status_code == 201
        assert problem_of(await elsewhere.post(finalize, request)) == (404, "malformed")
        refused = await elsewhere.post("revoke-cert", {"certificate": der_of(chain)})
        assert problem_of(refused) == (404, "malformed")


# --- when something breaks ---


async def test_an_unexpected_exception_is_told_to_the_log_and_not_to_the_client(
    stage: Stage, caplog: pytest.LogCaptureFixture
) -> None:
    def fails(kid: str) -> bytes | None:
        raise RuntimeError("the secret of the vault")

    async with stage(external_account_keys=fails) as scene:
        wire = scene.stranger()
        binding = bind("kid", b"key", wire.url("new-account"), wire.key)
        response = await wire.post("new-account", {"externalAccountBinding": binding})
        assert problem_of(response) == (500, "serverInternal")
        assert "secret" not in response.text
        assert "the secret of the vault" in caplog.text
        assert response.headers["replay-nonce"]
        assert (await wire.post("new-account", {})).status_code == 201


class Failing(MemoryStore):
    """A store whose medium fails while it is told to."""

    failing = False

    def commit(self, *records: Record, unchanged: Sequence[Record] = (), durable: bool = True) -> None:
        if self.failing:
            raise StoreError("the disk is full: /dev/secret")
        super().commit(*records, unchanged=unchanged, durable=durable)


async def test_a_store_that_fails_is_a_503_and_passes(stage: Stage) -> None:
    """Nothing is promised that was not stored; the client is told when to come back."""
    async with stage(store=Failing(), auto_approve=True) as scene:
        assert isinstance(scene.store, Failing)
        wire = await scene.account()
        scene.store.failing = True
        for response in (await wire.order("a.internal"), await scene.stranger().register()):
            assert problem_of(response) == (503, "serverInternal")
            assert int(response.headers["retry-after"]) > 0
            assert "secret" not in response.text
            assert response.headers["replay-nonce"]
        scene.store.failing = False
        assert (await wire.order("a.internal")).status_code == 201


async def test_a_store_that_fails_from_the_start_is_a_503_too() -> None:
    ca, store = authority(), Failing()
    store.failing = True
    async with browser(ACMEResponder(ca, store, auto_approve=True)) as http:
        for response in (await http.get("/new-nonce"), await http.get("/directory")):
            assert problem_of(response) == (503, "serverInternal")
            assert "replay-nonce" not in response.headers
        store.failing = False
        await issue_at(http, BASE)


class Contested(MemoryStore):
    """A store in which somebody else is always faster."""

    def commit(self, *records: Record, unchanged: Sequence[Record] = (), durable: bool = True) -> None:
        if any(record.kind == "order" for record in records):
            raise Conflict("somebody else was faster")
        super().commit(*records, unchanged=unchanged, durable=durable)


async def test_who_is_always_too_late_is_asked_to_come_back(stage: Stage) -> None:
    async with stage(store=Contested(), auto_approve=True) as scene:
        wire = await scene.account()
        refused = await wire.order("a.internal")
        assert problem_of(refused) == (503, "serverInternal")
        assert refused.headers["retry-after"] == "1"


class Slow(MemoryStore):
    """A store that takes as long over a commit as it is told to."""

    def __init__(self) -> None:
        super().__init__()
        self.reached, self.released = Event(), Event()
        self.released.set()
        self.patient = True

    def commit(self, *records: Record, unchanged: Sequence[Record] = (), durable: bool = True) -> None:
        self.reached.set()
        self.patient = self.released.wait(timeout=60)
        super().commit(*records, unchanged=unchanged, durable=durable)


async def test_a_slow_store_does_not_stop_the_event_loop(stage: Stage) -> None:
    store = Slow()
    async with stage(store=store, auto_approve=True) as scene:
        wire = await scene.account()
        wire.nonce = await wire.fresh_nonce()
        store.released.clear()
        store.reached.clear()
        ordering = asyncio.create_task(wire.order("a.internal"))
        assert await asyncio.to_thread(store.reached.wait, 60)
        # The store is at it, and while it is, others are answered.
        assert (await scene.http.get("/directory")).status_code == 200
        assert (await scene.http.head("/new-nonce")).status_code == 200
        assert not ordering.done()
        store.released.set()
        assert (await ordering).status_code == 201
        assert store.patient


async def test_arguments_that_contradict_each_other_are_refused() -> None:
    ca = authority()
    for arguments in (
        {"auto_approve": True, "challenge_validator": object()},
        {"auto_approve": True, "policy": object()},
        {"ask_challenges": True},
        {"challenge_validator": {"http-02": object()}},
    ):
        with pytest.raises(ValueError, match=r"auto_approve|ask_challenges|http-02"):
            ACMEResponder(ca, **arguments)


@pytest.mark.parametrize(
    "url",
    ["ca.internal", "//ca.internal", "ftp://ca.internal", "https://ca.internal/acme/directory", "https://ca.internal?"],
)
async def test_an_external_url_is_the_address_above_the_directory(url: str) -> None:
    with pytest.raises(ValueError, match="external_url has to be"):
        ACMEResponder(authority(), auto_approve=True, external_url=url)


class Indeed:
    async def validate(self, identifier: str, identifier_type: str, token: str, key_authorization: str) -> bool:
        return True


class Forwarding:
    """As wrappers and mocks are: it has what another has."""

    def __init__(self, to: object) -> None:
        self._to = to

    def __getattr__(self, name: str) -> Any:
        return getattr(self._to, name)


async def test_what_is_no_validator_is_noticed_at_once() -> None:
    """And not by the first client that answers a challenge. Who forgets the parentheses gives a class."""
    for validator in (object(), Indeed, {"http-01": Indeed}, {"dns-01": None}, Forwarding(object())):
        with pytest.raises(TypeError, match="is no challenge validator"):
            ACMEResponder(authority(), challenge_validator=validator)  # type: ignore[arg-type]
    ACMEResponder(authority(), challenge_validator={"http-01": Indeed(), "dns-01": Forwarding(Indeed())})


async def test_reading_and_nonsense_leave_nothing_behind_for_long(stage: Stage) -> None:
    """Bounded storage: spent nonces go although nothing else is ever written, whoever spends them."""
    async with stage(auto_approve=True) as scene:
        wire, stranger = await scene.account(), scene.stranger()
        assert wire.kid
        for _ in range(6):
            for _ in range(100):
                await wire.post(wire.kid)
                await stranger.post("new-order", {}, alg="none")
            scene.clock.forward(hours=3)
            wire.nonce = stranger.nonce = None
        await scene.responder.pending()
        assert len(scene.store.find("spent-nonce", limit=2000)) <= 600


async def test_many_large_orders_go_as_quickly_as_they_came(stage: Stage) -> None:
    """Bounded storage: pruning keeps up with what one commit writes, however much that is."""
    async with stage(auto_approve=True) as scene:
        wire = await scene.account()
        for day in range(8):
            for number in range(4):
                await wire.order(*[f"n{number}-{each}.internal" for each in range(100)])
            await scene.responder.pending()
            if day:
                assert len(scene.store.find("authorization", limit=5000)) <= 1200
            scene.clock.forward(days=2)
            wire.nonce = None


async def test_what_has_expired_goes_as_a_by_product_of_work(stage: Stage) -> None:
    """Lesson 24 and bounded storage: orders, authorizations and nonces go; a certificate stays for as long as it is
    valid, and longer."""
    async with stage(auto_approve=True) as scene:
        wire = await scene.account()

        async def work() -> None:
            wire.nonce = None  # it is too old
            for number in range(40):
                await wire.issue(f"b{number}.internal")
            await scene.responder.pending()  # the store does one thing after another: the tidying is done by now

        await wire.issue("kept.internal")
        kept = scene.store.find("order")
        for number in range(20):
            await wire.order(f"a{number}.internal")
        assert len(scene.store.find("order")) == 21
        scene.clock.forward(days=2)
        await work()
        assert len(scene.store.find("order")) == 41  # that of kept.internal, and the forty new ones
        assert scene.store.find("order", limit=1) == kept
        assert len(scene.store.find("authorization")) == 40
        assert len(scene.store.find("spent-nonce", limit=1000)) <= 121
        assert scene.ca.certificates("kept.internal")
        scene.clock.forward(days=9)
        await work()
        scene.clock.forward(hours=2)
        await work()
        assert not scene.ca.certificates("kept.internal")
        assert len(scene.store.find("certificate")) == 80


async def test_a_clock_that_leaps_ahead_and_is_put_right_costs_nothing(stage: Stage) -> None:
    """Lessons 24 and 27: no record goes that is still good, and no spent nonce is good again."""
    async with stage(auto_approve=True) as scene:
        wire = await scene.account()
        chain = await wire.issue("a.internal")
        order = await wire.order("b.internal")
        spent = await wire.fresh_nonce()
        assert (await wire.post(order.headers["location"], nonce=spent)).status_code == 200

        async def work() -> None:
            wire.nonce = None
            for number in range(30):
                await wire.issue(f"{number}.internal")
            await scene.responder.pending()  # the tidying is done by now

        await work()
        right = scene.clock.time
        for leap in (timedelta(hours=3), timedelta(days=100)):
            scene.clock.time = right + leap
            await work()
            scene.clock.time += timedelta(minutes=50)
            await work()
            scene.clock.time = right + timedelta(minutes=50)
            await work()
            assert problem_of(await wire.post(order.headers["location"], nonce=spent)) == (400, "badNonce")
        assert (await wire.finalize(order.json())).json()["status"] == "valid"
        assert (await wire.post("revoke-cert", {"certificate": der_of(chain)})).status_code == 200
