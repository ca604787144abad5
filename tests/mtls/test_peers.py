"""Rows H8 to H10: whom a certificate names, and who is let in, by name and at the handshake, over real sockets."""

import ssl
from collections.abc import Iterator
from typing import Any

import anyio
import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from tests.mtls.nodes import Authority, Node, shake
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from privet.auth_types import CertAuthenticator as OldAddress
from privet.mtls import (
    CertAuthenticator,
    client_ssl_context,
    extract_peer_cn,
    extract_peer_sans,
    server_ssl_context,
)
from privet.mtls.peers import with_tls
from privet.testing import serving


@pytest.fixture(scope="module")
def ca() -> Authority:
    return Authority()


@pytest.fixture(scope="module")
def node(ca: Authority) -> Node:
    return ca.node()


def der(node: Node) -> bytes:
    return x509.load_pem_x509_certificate(node.cert).public_bytes(Encoding.DER)


NAMES = ["localhost", "worker-1.internal", "10.0.0.1", "fd00::1"]


def test_names_are_the_same_from_python_from_der_and_from_pem(ca: Authority, node: Node) -> None:
    peer = ca.node(*NAMES, cn="device_01")
    _, end = shake(server_ssl_context(node.cert, node.key, ca.pem), client_ssl_context(peer.cert, peer.key, ca.pem))
    for told in (end.getpeercert(), end.getpeercert(binary_form=True), der(peer), peer.cert, peer.cert.decode()):
        assert extract_peer_cn(told) == "device_01"
        assert extract_peer_sans(told) == NAMES


def test_who_has_no_name_has_none(ca: Authority) -> None:
    nothings: list[Any] = [None, {}, b"", "", b"\x30\x00", "-----BEGIN CERTIFICATE-----"]
    for nothing in nothings:
        assert extract_peer_cn(nothing) is None
        assert extract_peer_sans(nothing) == []
    assert extract_peer_cn(ca.node("10.0.0.1").cert) is None
    assert extract_peer_sans(ca.node(cn="epoch_user", client=True).cert) == []


def test_what_openssl_reads_and_cryptography_does_not_is_nobody(node: Node, caplog: pytest.LogCaptureFixture) -> None:
    """A certificate of version 2, which nobody makes."""
    odd = der(node).replace(b"\xa0\x03\x02\x01\x02", b"\xa0\x03\x02\x01\x01", 1)
    chain = [ssl.DER_cert_to_PEM_cert(odd)]
    caplog.set_level("INFO")
    told = with_tls(CertAuthenticator(nobody_is_called, allowed_cns={"x"}), {"client_cert_chain": chain})
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    async def receive() -> Any:
        return {"type": "http.request"}

    anyio.run(told, {"type": "http"}, receive, send)
    assert sent[0]["status"] == 403
    assert "refused a client by its certificate: CN None, names [], SHA-256 None" in caplog.text


async def nobody_is_called(scope: Any, receive: Any, send: Any) -> None:
    raise AssertionError


def test_two_common_names_are_none() -> None:
    """Which of them counts is what programs disagree about."""
    told = {"subject": ((("commonName", "admin"),), (("commonName", "guest"),))}
    assert extract_peer_cn(told) is None
    assert not CertAuthenticator(allowed_cns={"admin", "guest"}).allows(told)


def test_addresses_uris_and_mail_are_names_and_others_are_left_out() -> None:
    told = {
        "subjectAltName": (
            ("DNS", "a.internal"),
            ("IP Address", "0:0:0:0:0:0:0:1"),
            ("URI", "spiffe://mesh/web"),
            ("email", "Ops@a.internal"),
            ("DirName", ((("commonName", "x"),),)),
        )
    }
    assert extract_peer_sans(told) == ["a.internal", "::1", "spiffe://mesh/web", "Ops@a.internal"]


@pytest.mark.parametrize(
    ("allowed", "let_in"),
    [
        ({"allowed_cns": {"device_01"}}, True),
        ({"allowed_cns": {"DEVICE_01"}}, False),
        ({"allowed_cns": {"device"}}, False),
        ({"allowed_cns": {"worker-1.internal"}}, False),
        ({"allowed_sans": {"Worker-1.internal"}}, True),
        ({"allowed_sans": {"internal"}}, False),
        ({"allowed_sans": {"*.internal"}}, False),
        ({"allowed_sans": {"device_01"}}, False),
        ({"allowed_sans": {"fd00:0::1"}}, True),
        ({"allowed_sans": {"10.0.0.2"}}, False),
        ({"allowed_cns": {"nobody"}, "allowed_sans": {"10.0.0.1"}}, True),
    ],
    ids=str,
)
def test_a_name_counts_whole_and_in_its_place(allowed: dict[str, Any], let_in: bool, ca: Authority) -> None:
    peer = ca.node(*NAMES, cn="device_01")
    assert CertAuthenticator(**allowed).allows(peer.cert) is let_in


def test_somebody_has_to_be_named() -> None:
    with pytest.raises(ValueError, match="say whom"):
        CertAuthenticator()
    with pytest.raises(ValueError, match="as a set"):
        CertAuthenticator(allowed_cns="device-01")
    assert OldAddress is CertAuthenticator


# --- over real sockets ---


async def app(scope: Any, receive: Any, send: Any) -> None:
    """Says who is calling."""
    tls = scope["extensions"]["tls"]
    who = f"{extract_peer_cn(tls['client_cert_chain'][0])} {tls['client_cert_name']} {tls['tls_version']:x}"
    if scope["type"] == "http":
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": who.encode()})
    else:
        assert (await receive())["type"] == "websocket.connect"
        await send({"type": "websocket.accept"})
        await send({"type": "websocket.send", "text": who})
        await send({"type": "websocket.close"})


@pytest.fixture(scope="module", params=["websockets-sansio", "wsproto"])
def port(request: pytest.FixtureRequest, ca: Authority, node: Node) -> Iterator[int]:
    """uvicorn, with each of its implementations of WebSockets."""
    guarded = CertAuthenticator(app, allowed_cns={"device_01"}, allowed_sans={"gateway.internal"})
    context = server_ssl_context(node.cert, node.key, ca.pem)
    with serving(guarded, context, http="privet.mtls.uvicorn:Protocol", ws=request.param) as port:
        yield port


def get(port: int, context: ssl.SSLContext) -> httpx.Response:
    with httpx.Client(verify=context) as client:
        return client.get(f"https://localhost:{port}/")


def test_who_is_on_the_list_is_let_in(port: int, ca: Authority) -> None:
    device = ca.node(cn="device_01", client=True)
    context = client_ssl_context(device.cert, device.key, ca.pem)
    answer = get(port, context)
    assert (answer.status_code, answer.text) == (200, "device_01 CN=device_01 304")
    with connect(f"wss://localhost:{port}/", ssl=context) as connection:
        assert connection.recv() == "device_01 CN=device_01 304"
    gateway = ca.node("gateway.internal")
    assert get(port, client_ssl_context(gateway.cert, gateway.key, ca.pem)).status_code == 200


def test_who_is_not_is_refused_by_name(port: int, ca: Authority, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "privet.mtls")
    other = ca.node("other.internal")
    context = client_ssl_context(other.cert, other.key, ca.pem)
    answer = get(port, context)
    assert (answer.status_code, answer.text) == (403, "This certificate is not let in here.\n")
    with pytest.raises(InvalidStatus) as refused, connect(f"wss://localhost:{port}/", ssl=context):
        pass
    assert refused.value.response.status_code == 403
    digest = x509.load_pem_x509_certificate(other.cert).fingerprint(hashes.SHA256()).hex(":").upper()
    assert caplog.text.count(f"names ['other.internal'], SHA-256 {digest}") == 2


@pytest.mark.parametrize("who", ["nobody", "a stranger with the right name"])
def test_who_cannot_be_verified_is_refused_at_the_handshake(who: str, port: int, ca: Authority) -> None:
    stranger = Authority().node(cn="device_01")
    cert, key = (None, None) if who == "nobody" else (stranger.cert, stranger.key)
    with pytest.raises((httpx.ReadError, httpx.ConnectError, httpx.RemoteProtocolError)):
        get(port, client_ssl_context(cert, key, ca.pem))


def test_where_the_server_does_not_tell_nobody_is_let_in(ca: Authority, node: Node) -> None:
    guarded = CertAuthenticator(app, allowed_cns={"device_01"})
    device = ca.node(cn="device_01")
    context = client_ssl_context(device.cert, device.key, ca.pem)
    with serving(guarded, server_ssl_context(node.cert, node.key, ca.pem), http="h11") as port:
        assert get(port, context).status_code == 403
        with pytest.raises(InvalidStatus), connect(f"wss://localhost:{port}/", ssl=context):
            pass
    with serving(guarded, http="privet.mtls.uvicorn:Protocol") as port:
        assert httpx.get(f"http://localhost:{port}/").status_code == 403


def test_it_is_a_middleware_of_starlette(ca: Authority, node: Node) -> None:
    starlette = Starlette(
        routes=[Route("/", lambda request: PlainTextResponse("let in"))],
        middleware=[Middleware(CertAuthenticator, allowed_cns={"device_01"})],
    )
    context = server_ssl_context(node.cert, node.key, ca.pem)
    with serving(starlette, context, http="privet.mtls.uvicorn:Protocol", lifespan="on") as port:
        for cn, status in (("device_01", 200), ("device_02", 403)):
            peer = ca.node(cn=cn, client=True)
            assert get(port, client_ssl_context(peer.cert, peer.key, ca.pem)).status_code == status


@pytest.mark.anyio
async def test_lifespans_pass_and_what_is_unknown_does_not() -> None:
    seen: list[str] = []

    async def inner(scope: Any, receive: Any, send: Any) -> None:
        seen.append(scope["type"])

    guarded = CertAuthenticator(allowed_cns={"x"}).around(inner)
    await guarded({"type": "lifespan"}, None, None)  # type: ignore[arg-type]
    await guarded({"type": "something.new"}, None, None)  # type: ignore[arg-type]
    assert seen == ["lifespan"]
    with pytest.raises(TypeError, match="nothing to let anybody in to"):
        await CertAuthenticator(allowed_cns={"x"})({"type": "http"}, None, None)  # type: ignore[arg-type]


@pytest.mark.anyio
async def test_without_the_extension_for_answers_a_websocket_is_closed() -> None:
    sent: list[Any] = []

    async def receive() -> Any:
        return {"type": "websocket.connect"}

    async def send(message: Any) -> None:
        sent.append(message)

    await CertAuthenticator(app, allowed_cns={"x"})({"type": "websocket"}, receive, send)
    assert [message["type"] for message in sent] == ["websocket.close"]


def test_the_certificate_of_an_error_is_none(ca: Authority) -> None:
    """A server that lets connections with a bad certificate through says so."""
    device = ca.node(cn="device_01")
    tls = {"client_cert_chain": [device.cert.decode()], "client_cert_error": "expired"}
    guard = CertAuthenticator(allowed_cns={"device_01"})
    assert not guard._lets_in({"extensions": {"tls": tls}})
    assert guard._lets_in({"extensions": {"tls": {**tls, "client_cert_error": None}}})
