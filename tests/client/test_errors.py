"""Why a server could not be asked: said as the system says it, by every client alike."""

import contextlib
import errno
import socket
import ssl
from collections.abc import Awaitable, Callable, Iterator

import httpx
import pytest
from tests.interop.programs import free_port

from privet import Client, VaultClient
from privet.challenges.dns01 import AcmeDNS
from privet.client.errors import ClientError, reason_of
from privet.client.trust import fetch_roots
from privet.testing import ACMEServer, serving

pytestmark = pytest.mark.anyio


async def acme(url: str) -> object:
    async with Client(f"{url}/directory") as client:
        return await client.issue("a.internal")


async def vault(url: str) -> object:
    async with VaultClient(url, "web", "token") as client:
        return await client.issue("a.internal")


async def root(url: str) -> object:
    return await fetch_roots(f"{url}/directory")


async def acme_dns(url: str) -> object:
    await AcmeDNS(url, username="a", password="b", subdomain="c").add("_acme-challenge.a.internal", "value")
    return None


@contextlib.contextmanager
def nobody() -> Iterator[str]:
    yield f"https://127.0.0.1:{free_port()}"


async def nothing(scope: object, receive: object, send: object) -> None:
    raise AssertionError


@contextlib.contextmanager
def plain_http() -> Iterator[str]:
    with serving(nothing) as port:
        yield f"https://127.0.0.1:{port}"


@contextlib.contextmanager
def stranger() -> Iterator[str]:
    with ACMEServer() as server:
        yield server.directory_url.removesuffix("/directory")


@pytest.mark.parametrize("ask", [acme, vault, root, acme_dns])
@pytest.mark.parametrize(
    ("server", "why"),
    [
        (nobody, "Connection refused"),
        (plain_http, "what is there does not speak TLS"),
        (stranger, "self-signed certificate in certificate chain"),
    ],
)
async def test_the_reason_is_the_system_s(
    server: Callable[[], contextlib.AbstractContextManager[str]], why: str, ask: Callable[[str], Awaitable[object]]
) -> None:
    with server() as url:
        if (server, ask) == (stranger, root):  # a root is fetched from whoever answers
            assert await ask(url)
            return
        with pytest.raises(ClientError, match=why) as failed:
            await ask(url)
    assert "_ssl.c" not in str(failed.value)
    if server is stranger and ask is not acme_dns:
        assert "give the CA's root as ca_bundle=" in str(failed.value)


async def test_a_url_that_is_no_directory_is_named() -> None:
    with ACMEServer() as server:
        wrong = server.directory_url.replace("/directory", "/acme/directory")
        async with Client(wrong, ca_bundle=server.ca_bundle) as client:
            with pytest.raises(ClientError, match=f"there is no ACME directory at {wrong}: the server answers 404"):
                await client.issue("a.internal")


async def test_a_server_that_takes_too_long_is_said_to() -> None:
    error = httpx.ConnectTimeout("")
    error.__cause__ = TimeoutError()
    assert reason_of(error) == "it takes too long"
    assert reason_of(OSError(errno.ETIMEDOUT, "?")) == "Connection timed out"


async def test_what_has_numbers_of_its_own_is_not_said_to_be_something_else() -> None:
    """As 8, which is the system's `Exec format error`: a name that is not known on macOS, and an end of TLS."""
    assert reason_of(socket.gaierror(8, "nodename nor servname provided")) == "nodename nor servname provided"
    assert reason_of(socket.gaierror(-2, "Name or service not known")) == "Name or service not known"
    assert reason_of(ssl.SSLEOFError(8, "EOF occurred in violation of protocol")).startswith("EOF occurred")
