"""Mutual TLS on the way in: real handshakes with the protocol class and the context that `privet serve` uses."""

import asyncio
import contextlib
import json
import ssl
from collections.abc import AsyncIterator, Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn
from cryptography import x509
from tests.cli.command import Person

from privet import CertBundle, CertificateAuthority, MemoryStore
from privet.cli.serve.listening import listen
from privet.cli.serve.protocol import Connection
from privet.cli.serve.tls import OwnCertificate

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


def authority(cn: str = "ours") -> CertificateAuthority:
    ca = CertificateAuthority(MemoryStore())
    ca.init(cn=cn)
    return ca


OURS = authority()


async def told(scope: Any, receive: Any, send: Any) -> None:
    """An application that answers with what it was told of the connection."""
    body = json.dumps(scope.get("extensions")).encode()
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(body))]})
    await send({"type": "http.response.body", "body": body})


@contextlib.asynccontextmanager
async def served(client_ca: str | None, loop: str = "auto") -> AsyncIterator[str]:
    own = OwnCertificate(OURS, ["127.0.0.1"], timedelta(hours=1), client_ca=client_ca)
    own.refresh()
    config = uvicorn.Config(
        told, http=Connection, ws="none", lifespan="off", ssl_context_factory=lambda *_: own.context, log_config=None
    )
    server = uvicorn.Server(config)
    with listen("127.0.0.1", 0) as sockets:
        serving = asyncio.create_task(server._serve(sockets))
        try:
            yield f"https://127.0.0.1:{sockets[0].getsockname()[1]}"
        finally:
            server.should_exit = True
            await serving


def client(folder: Path, bundle: CertBundle | None = None) -> httpx.AsyncClient:
    context = ssl.create_default_context(cadata=OURS.root_cert_pem.decode())
    if bundle is not None:
        file = folder / "client.pem"
        file.write_bytes(bundle.fullchain_pem + bundle.key_pem)
        context.load_cert_chain(file)
    return httpx.AsyncClient(verify=context, trust_env=False)


async def extension(folder: Path, url: str, bundle: CertBundle | None = None) -> Any:
    async with client(folder, bundle) as http:
        first, second = await http.get(url), await http.get(url)
        assert first.json() == second.json()
        return first.json()["tls"]


async def test_a_verified_certificate_reaches_the_application(tmp_path: Path) -> None:
    bundle = OURS.issue("host-1.internal", client=True)
    async with served(OURS.root_cert_pem.decode()) as url:
        found = await extension(tmp_path, url, bundle)
    leaf = x509.load_pem_x509_certificate(found["client_cert_chain"][0].encode())
    assert leaf == x509.load_pem_x509_certificate(bundle.cert_pem)
    assert (found["client_cert_name"], found["client_cert_error"]) == ("CN=host-1.internal", None)
    assert found["tls_version"] == 0x0304


@pytest.mark.parametrize("client_ca", [None, OURS.root_cert_pem.decode()])
async def test_who_shows_none_is_anybody(tmp_path: Path, client_ca: str | None) -> None:
    async with served(client_ca) as url:
        found = await extension(tmp_path, url)
    assert (found["client_cert_chain"], found["client_cert_name"]) == ([], None)


async def test_where_nobody_is_asked_for_a_certificate_none_is_believed(tmp_path: Path) -> None:
    async with served(None) as url:
        assert (await extension(tmp_path, url, OURS.issue("host-1.internal", client=True)))["client_cert_chain"] == []


def of_another_ca() -> CertBundle:
    """The CA has the name of ours, and is another."""
    return authority().issue("host-1.internal", client=True)


def expired() -> CertBundle:
    store = MemoryStore()
    record = OURS.store.get("ca", "root")
    assert record
    store.commit(record._replace(version=0))
    past = CertificateAuthority(store, now=lambda: x509_begin() + timedelta(minutes=1))
    past.load()
    return past.issue("host-1.internal", client=True, validity_hours=0.001)


def x509_begin() -> Any:
    return OURS.root_cert.not_valid_before_utc


@pytest.mark.parametrize("make", [of_another_ca, expired])
async def test_a_certificate_that_does_not_verify_ends_the_handshake(
    tmp_path: Path, make: Callable[[], CertBundle]
) -> None:
    async with served(OURS.root_cert_pem.decode()) as url, client(tmp_path, make()) as http:
        with pytest.raises((httpx.ConnectError, httpx.ReadError, httpx.RemoteProtocolError)):
            await http.get(url)


def test_what_is_wrong_with_a_client_ca_is_told(person: Person) -> None:
    (person.folder / "empty.pem").write_text("")
    for options, sentence in (
        (["--tls", "--client-ca", "nowhere.pem"], "--client-ca nowhere.pem cannot be read: No such file or directory"),
        (
            ["--tls", "--client-ca", "empty.pem"],
            "--client-ca empty.pem has no certificate in PEM: name a file with those of your CA",
        ),
        (["--client-ca", "empty.pem"], "--client-ca is about --tls: without it nobody shows a certificate"),
    ):
        refused = person.tries("serve", *options)
        assert refused.sentences == [sentence]
        assert refused.status == 2
