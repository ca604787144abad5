"""What somebody would try who wants our validators to go where they should not, to wait for ever, or to talk.

Every case ends in the right problem, within its time, and says nothing of what the attacker sent. Attacks on DNS are in
test_resolver.py, those by certificate in test_tlsalpn01.py.
"""

import asyncio
import gzip
import itertools
import os
import socket
import struct
from collections.abc import Iterator

import dns.message
import pytest
from tests.validation.scene import CANARY, PATH, PROOF, Scene
from tests.validation.town import Handler, Listener, Site, never, response, says, says_for_ever, self_signed

from privet.acme.problems import ProblemType
from privet.validation import Prover, Resolver

GOOD = response(200, PROOF.encode())

FORBIDDEN = {
    "loopback": "127.0.0.1",
    "another loopback": "127.99.12.5",
    "unspecified": "0.0.0.0",
    "this network": "0.1.2.3",
    "link-local": "169.254.7.7",
    "metadata": "169.254.169.254",
    "container metadata": "169.254.170.2",
    "metadata elsewhere": "100.100.100.200",
    "multicast": "224.0.0.251",
    "broadcast": "255.255.255.255",
    "reserved": "250.1.2.3",
    "unspecified, IPv6": "::",
    "loopback, IPv4-mapped": "::ffff:127.0.0.1",
    "private, IPv4-mapped": "::ffff:10.77.0.2",
    "metadata, IPv4-mapped": "::ffff:169.254.169.254",
    "loopback, IPv4-compatible": "::127.0.0.1",
    "loopback, IPv4-translated": "::ffff:0:127.0.0.1",
    "loopback, 6to4": "2002:7f00:1::1",
    "private, 6to4": "2002:0a4d:2::1",
    "loopback, NAT64": "64:ff9b::7f00:1",
    "private, NAT64": "64:ff9b::a4d:2",
    "loopback, NAT64 of one's own": "64:ff9b:1::7f00:1",
    "loopback, Teredo": "2001:0:a4d:2:0:ffff:80ff:fffe",
    "loopback, ISATAP": "fd77::5efe:127.0.0.1",
    "metadata, IPv6": "fd00:ec2::254",
    "link-local, IPv6": "fe80::1",
    "site-local, IPv6": "fec0::1",
    "multicast, IPv6": "ff02::1",
    "discarded": "100::1",
}


@pytest.fixture
def own_services(scene: Scene) -> Iterator[list[Listener]]:
    """What listens on the CA's own loopback, and must not be called."""
    if not scene.town.real:
        yield []
        return
    ca = scene.town.ca
    with (
        ca.serve(says(GOOD), scene.http, address="127.0.0.1") as four,
        ca.serve(says(GOOD), scene.http, address="::1") as six,
        ca.serve(never, scene.https, address="127.0.0.1") as tls,
    ):
        yield [four, six, tls]
        assert [listener.calls for listener in (four, six, tls)] == [0, 0, 0]


def validator(scene: Scene, method: str) -> Prover:
    return scene.http01() if method == "http-01" else scene.tls()


@pytest.mark.parametrize("method", ["http-01", "tls-alpn-01"])
@pytest.mark.parametrize("address", FORBIDDEN.values(), ids=FORBIDDEN)
def test_a_name_of_a_forbidden_address(scene: Scene, own_services: list[Listener], method: str, address: str) -> None:
    scene.nameserver.add("evil.internal", "AAAA" if ":" in address else "A", address)
    refusal = scene.refused(validator(scene, method), "evil.internal")
    assert refusal.type is ProblemType.CONNECTION
    assert "no such address is connected to" in refusal.detail
    assert refusal.steps[-1].what.startswith("refused")
    assert not any(step.source for step in refusal.steps), "somebody was connected to"


@pytest.mark.parametrize("method", ["http-01", "tls-alpn-01"])
def test_loopback_by_ipv6_as_an_identifier(scene: Scene, own_services: list[Listener], method: str) -> None:
    if not scene.town.real:
        pytest.skip("here, loopback is where the client lives")
    assert scene.refused(validator(scene, method), "::1", "ip").type is ProblemType.CONNECTION


@pytest.mark.parametrize("address", FORBIDDEN.values(), ids=FORBIDDEN)
def test_a_redirect_to_a_forbidden_address(scene: Scene, own_services: list[Listener], address: str) -> None:
    scene.nameserver.add("evil.internal", "A", scene.town.client.address)
    host = f"[{address}]" if ":" in address else address
    with scene.town.client.serve(says(response(302, Location=scene.url(host, f"/{CANARY}"))), scene.http):
        refusal = scene.refused(scene.http01(), "evil.internal")
    assert refusal.type is ProblemType.CONNECTION
    assert refusal.detail.startswith("the host that redirect 1 of evil.internal leads to is ")
    assert address not in refusal.detail


@pytest.mark.parametrize("address", FORBIDDEN.values(), ids=FORBIDDEN)
def test_a_redirect_to_a_name_of_a_forbidden_address(scene: Scene, own_services: list[Listener], address: str) -> None:
    scene.nameserver.add("evil.internal", "A", scene.town.client.address)
    scene.nameserver.add(f"{CANARY}.internal", "CNAME", "metadata.google.internal.")
    scene.nameserver.add("metadata.google.internal", "AAAA" if ":" in address else "A", address)
    with scene.town.client.serve(says(response(302, Location=scene.url(f"{CANARY}.internal", "/"))), scene.http):
        refusal = scene.refused(scene.http01(), "evil.internal")
    assert refusal.type is ProblemType.CONNECTION
    assert address not in refusal.detail


LOCATIONS = {
    "a file": "file:///etc/passwd",
    "gopher": "gopher://client.internal:80/_GET",
    "ftp": "ftp://client.internal/x",
    "data": "data:text/plain,hello",
    "a script": "javascript:alert(1)",
    "a Unix socket": "http+unix://%2Frun%2Fdocker.sock/info",
    "a user name": "http://client.internal@127.0.0.1/",
    "a user name and password": "http://client.internal:80@127.0.0.1/",
    "an empty user name": "http://@127.0.0.1/",
    "two at signs": "http://a@b@127.0.0.1/",
    "a backslash": "http://client.internal\\@127.0.0.1/",
    "a short address": "http://127.1/",
    "an address as a number": "http://2130706433/",
    "an address in hexadecimal": "http://0x7f000001/",
    "an address in hexadecimal parts": "http://0x7f.0.0.1/",
    "an address in octal": "http://0177.0.0.1/",
    "an address with a scope": "http://[fe80::1%25lo]/",
    "an address of too many parts": "http://[1::2::3]/",
    "an address that is none": "http://[::g]/",
    "a future address": "http://[v1.x]/",
    "brackets around a name": "http://[client.internal]/",
    "open brackets": "http://[::1/",
    "an escaped host": "http://%31%32%37.0.0.1/",
    "a wildcard": "http://*.internal/",
    "an underscore": "http://a_b.internal/",
    "no host": "http:///x",
    "two dots": "http://client..internal/",
    "a port of another service": "http://client.internal:22/",
    "a port out of range": "http://client.internal:70000/",
    "a port that is no number": "http://client.internal:http/",
    "a port and more": "http://client.internal:80:80/",
    "a negative port": "http://client.internal:-1/",
    "a space": "http://client.internal /",
    "a tab in the scheme": "ht\ttp://127.0.0.1/",
    "beyond ASCII": "http://client\xe9.internal/",
    "a full-width dot": "http://127\xef\xbc\x8e0.0.1/",
    "a label too long": f"http://{'a' * 64}.internal/",
    "a name too long": f"http://{'a.' * 130}internal/",
    "a URL too long": f"http://client.internal/{'a' * 2000}",
    "nothing": "",
}


@pytest.mark.parametrize("location", LOCATIONS.values(), ids=LOCATIONS)
def test_a_redirect_to_something_that_is_not_followed(
    scene: Scene, own_services: list[Listener], location: str
) -> None:
    scene.nameserver.add("client.internal", "A", scene.town.client.address)
    answer = response(302, body=CANARY.encode(), Location=location, X_Canary=CANARY)
    with scene.town.client.serve(says(answer), scene.http) as called:
        refusal = scene.refused(scene.http01(), "client.internal")
    assert refusal.type is ProblemType.INCORRECT_RESPONSE
    assert "redirect" in refusal.detail
    assert called.calls == 1


def test_two_locations_are_nowhere(scene: Scene) -> None:
    scene.nameserver.add("evil.internal", "A", scene.town.client.address)
    head = f"HTTP/1.1 302 Found\r\nLocation: /a\r\nLocation: http://{CANARY}/\r\nContent-Length: 0\r\n\r\n"
    with scene.town.client.serve(says(head.encode()), scene.http):
        refusal = scene.refused(scene.http01(), "evil.internal")
    assert "several places at once" in refusal.detail


def test_a_redirect_in_a_circle(scene: Scene) -> None:
    scene.nameserver.add("evil.internal", "A", scene.town.client.address)
    with scene.town.client.serve(
        Site({PATH: response(302, Location="/a"), "/a": response(301, Location=PATH)}), scene.http
    ) as called:
        refusal = scene.refused(scene.http01(), "evil.internal")
    assert refusal.type is ProblemType.INCORRECT_RESPONSE
    assert "in a circle" in refusal.detail
    assert called.calls == 2


def test_redirects_without_end(scene: Scene) -> None:
    scene.nameserver.add("evil.internal", "A", scene.town.client.address)
    pages = {PATH: response(302, Location="/0")}
    pages |= {f"/{number}": response(302, Location=f"/{number + 1}") for number in range(50)}
    with scene.town.client.serve(Site(pages), scene.http) as called:
        refusal = scene.refused(scene.http01(), "evil.internal")
    assert "more than 10 times" in refusal.detail
    assert called.calls == 11


def test_the_name_is_rebound_after_it_was_checked(scene: Scene, own_services: list[Listener]) -> None:
    """The nameserver tells one thing to who checks and another to who connects: nobody asks twice."""
    answers = itertools.chain([scene.town.client.address], itertools.repeat("127.0.0.1"))

    def rebinding(query: dns.message.Message, tcp: bool) -> bytes:
        if query.question[0].rdtype.name == "A":
            scene.nameserver.records["evil.internal", "A"] = [next(answers)]
        return scene.nameserver.answer(query, tcp)

    scene.nameserver.answering["evil.internal"] = rebinding
    with scene.town.client.serve(says(GOOD), scene.http):
        proof = scene.prove(scene.http01(), "evil.internal")
    assert scene.nameserver.asked.count("A evil.internal") == 1
    assert proof.steps[-1].target == f"{scene.town.client.address}:{scene.http}"


def test_the_name_is_rebound_between_redirects(scene: Scene, own_services: list[Listener]) -> None:
    answers = itertools.chain([scene.town.client.address], itertools.repeat("127.0.0.1"))

    def rebinding(query: dns.message.Message, tcp: bool) -> bytes:
        if query.question[0].rdtype.name == "A":
            scene.nameserver.records["evil.internal", "A"] = [next(answers)]
        return scene.nameserver.answer(query, tcp)

    scene.nameserver.answering["evil.internal"] = rebinding
    with scene.town.client.serve(says(response(302, Location="/again")), scene.http) as called:
        refusal = scene.refused(scene.http01(), "evil.internal")
    assert refusal.type is ProblemType.CONNECTION
    assert "loopback" in refusal.detail
    assert called.calls == 1


def test_good_and_forbidden_addresses_in_one_answer(scene: Scene, own_services: list[Listener]) -> None:
    scene.nameserver.add("evil.internal", "A", "127.0.0.1", scene.town.client.address, "169.254.169.254")
    with scene.town.client.serve(says(GOOD), scene.http):
        proof = scene.prove(scene.http01(), "evil.internal")
    assert {step.target for step in proof.steps if step.source} == {f"{scene.town.client.address}:{scene.http}"}


async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.close()


async def reset(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.read(1)
    sock: socket.socket = writer.get_extra_info("socket")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


BOMB = gzip.compress(b"\0" * 1_000_000)

RESPONSES: dict[str, tuple[Handler, ProblemType, str]] = {
    "says nothing": (never, ProblemType.CONNECTION, "took longer"),
    "hangs up": (hang_up, ProblemType.CONNECTION, "the connection"),
    "resets the connection": (reset, ProblemType.CONNECTION, "broke off the connection"),
    "a body without end": (
        says_for_ever(b"HTTP/1.1 200 OK\r\n\r\n", CANARY.encode() * 100),
        ProblemType.INCORRECT_RESPONSE,
        "more than 32768 bytes",
    ),
    "a body larger than it says it is": (
        says(response(200, (CANARY * 10_000).encode())),
        ProblemType.INCORRECT_RESPONSE,
        "more than 32768 bytes",
    ),
    "a body that trickles": (
        says_for_ever(b"HTTP/1.1 200 OK\r\n\r\n", b"a", 0.05),
        ProblemType.CONNECTION,
        "took longer",
    ),
    "a body that never comes": (
        says_for_ever(b"HTTP/1.1 200 OK\r\nContent-Length: 76\r\n\r\n", b"", 0.05),
        ProblemType.CONNECTION,
        "took longer",
    ),
    "headers that trickle": (
        says_for_ever(b"HTTP/1.1 200 OK\r\nX: ", b"a", 0.05),
        ProblemType.CONNECTION,
        "took longer",
    ),
    "a header without end": (
        says_for_ever(b"HTTP/1.1 200 OK\r\nX: ", CANARY.encode() * 100),
        ProblemType.INCORRECT_RESPONSE,
        "",
    ),
    "headers without end": (
        says_for_ever(b"HTTP/1.1 200 OK\r\n", f"X-Canary: {CANARY}\r\n".encode() * 100),
        ProblemType.INCORRECT_RESPONSE,
        "",
    ),
    "interim responses without end": (
        says_for_ever(b"", b"HTTP/1.1 103 Early Hints\r\n\r\n" * 10),
        ProblemType.INCORRECT_RESPONSE,
        "more than 32768 bytes",
    ),
    "a chunk's extension without end": (
        says_for_ever(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5;", CANARY.encode() * 100),
        ProblemType.INCORRECT_RESPONSE,
        "",
    ),
    "empty chunks that trickle": (
        says_for_ever(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"1\r\na\r\n", 0.05),
        ProblemType.CONNECTION,
        "took longer",
    ),
    "a chunk of absurd size": (
        says(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + b"f" * 30 + b"\r\n"),
        ProblemType.INCORRECT_RESPONSE,
        "as HTTP/1.1 wants it",
    ),
    "a bomb in gzip": (
        says(response(200, BOMB, Content_Encoding="gzip")),
        ProblemType.INCORRECT_RESPONSE,
        "something else than the key authorization",
    ),
    "the key authorization in gzip": (
        says(response(200, gzip.compress(PROOF.encode()), Content_Encoding="gzip")),
        ProblemType.INCORRECT_RESPONSE,
        "something else than the key authorization",
    ),
    "two lengths": (
        says(b"HTTP/1.1 200 OK\r\nContent-Length: 76\r\nContent-Length: 77\r\n\r\n" + PROOF.encode()),
        ProblemType.INCORRECT_RESPONSE,
        "as HTTP/1.1 wants it",
    ),
    "a negative length": (
        says(b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n" + PROOF.encode()),
        ProblemType.INCORRECT_RESPONSE,
        "as HTTP/1.1 wants it",
    ),
    "less than its length": (
        says(b"HTTP/1.1 200 OK\r\nContent-Length: 200\r\n\r\n" + PROOF.encode()),
        ProblemType.INCORRECT_RESPONSE,
        "as HTTP/1.1 wants it",
    ),
    "no HTTP": (
        says(f"220 {CANARY} ESMTP\r\n".encode()),
        ProblemType.INCORRECT_RESPONSE,
        "as HTTP/1.1 wants it",
    ),
    "the key authorization alone, as in HTTP/0.9": (
        says(PROOF.encode()),
        ProblemType.INCORRECT_RESPONSE,
        "as HTTP/1.1 wants it",
    ),
    "a status that is none": (
        says(f"HTTP/1.1 {CANARY} OK\r\n\r\n".encode()),
        ProblemType.INCORRECT_RESPONSE,
        "as HTTP/1.1 wants it",
    ),
    "another protocol": (
        says(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: h2c\r\n\r\n" + PROOF.encode()),
        ProblemType.INCORRECT_RESPONSE,
        "as HTTP/1.1 wants it",
    ),
    "a page of its own": (
        says(response(500, f"<h1>{CANARY}</h1>".encode(), X_Canary=CANARY)),
        ProblemType.INCORRECT_RESPONSE,
        "the status 500",
    ),
    "the key authorization of another account": (
        says(response(200, PROOF.replace("NzbL", "xxxx").encode())),
        ProblemType.INCORRECT_RESPONSE,
        "something else",
    ),
    "the path it was asked for": (
        says(response(200, PATH.encode())),
        ProblemType.INCORRECT_RESPONSE,
        "something else",
    ),
}


@pytest.mark.parametrize(("handler", "type", "words"), RESPONSES.values(), ids=RESPONSES)
def test_a_response_that_is(scene: Scene, handler: Handler, type: ProblemType, words: str) -> None:
    scene.nameserver.add("evil.internal", "A", scene.town.client.address)
    with scene.town.client.serve(handler, scene.http):
        refusal = scene.refused(scene.http01(timeout=0.4 if words == "took longer" else 30), "evil.internal")
    assert refusal.type is type
    assert words in refusal.detail


HTTPS: dict[str, tuple[Handler, ProblemType, str]] = {
    "says nothing": (never, ProblemType.CONNECTION, "took longer"),
    "hangs up": (hang_up, ProblemType.TLS, "redirect 1 of evil.internal"),
    "speaks no TLS": (says_for_ever(b"", CANARY.encode()), ProblemType.CONNECTION, "took longer"),
}


@pytest.mark.parametrize(("handler", "type", "words"), HTTPS.values(), ids=HTTPS)
def test_a_redirect_to_https_that(scene: Scene, handler: Handler, type: ProblemType, words: str) -> None:
    scene.nameserver.add("evil.internal", "A", scene.town.client.address)
    away = response(302, Location=scene.url("evil.internal", "/", "https"))
    with scene.town.client.serve(says(away), scene.http), scene.town.client.serve(handler, scene.https):
        refusal = scene.refused(scene.http01(timeout=0.6 if words == "took longer" else 30), "evil.internal")
    assert refusal.type is type
    assert words in refusal.detail


async def speak_garbage(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """After the handshake, talk past TLS."""
    await reader.readuntil(b"\r\n\r\n")
    os.write(writer.get_extra_info("socket").fileno(), CANARY.encode() * 10)
    await reader.read()


def test_a_redirect_to_https_that_breaks_in_the_middle(scene: Scene) -> None:
    scene.nameserver.add("evil.internal", "A", scene.town.client.address)
    away = response(302, Location=scene.url("evil.internal", "/", "https"))
    tls = self_signed("evil.internal")
    with (
        scene.town.client.serve(says(away), scene.http),
        scene.town.client.serve(speak_garbage, scene.https, tls=tls),
    ):
        refusal = scene.refused(scene.http01(), "evil.internal")
    assert refusal.type is ProblemType.TLS
    assert "broke" in refusal.detail


def test_redirects_between_http_and_https_without_end(scene: Scene) -> None:
    scene.nameserver.add("evil.internal", "A", scene.town.client.address)
    there = {PATH: response(302, Location=scene.url("evil.internal", "/0", "https"))}
    there |= {f"/{n}": response(302, Location=scene.url("evil.internal", f"/{n + 1}", "https")) for n in range(20)}
    back = {f"/{n}": response(302, Location=scene.url("evil.internal", f"/{n + 1}")) for n in range(20)}
    with (
        scene.town.client.serve(Site(there), scene.http),
        scene.town.client.serve(Site(back), scene.https, tls=self_signed("evil.internal")),
    ):
        refusal = scene.refused(scene.http01(), "evil.internal")
    assert "more than 10 times" in refusal.detail


def test_a_nameserver_that_is_not_there(scene: Scene) -> None:
    resolver = Resolver([f"{scene.town.client.address}:{scene.town.port(53)}"], timeout=10)
    refusal = scene.refused(scene.http01(resolver=resolver), "www.internal")
    assert refusal.type is ProblemType.DNS
    assert "connection refused" in refusal.detail
