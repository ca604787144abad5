"""Handlers and the validators they are for, over real sockets: what one puts up, the other finds."""

import asyncio
import socket
import stat
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dns.message
import dns.rrset
import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Mount, Route
from tests.client.named import Named
from tests.client.scene import stage, trickling
from tests.interop.programs import free_port, need
from tests.validation.nameserver import Nameserver
from tests.validation.town import Town

from privet import ClientError, Problem
from privet.challenges.dns01 import RFC2136, AcmeDNS, DNS01Handler, Hook
from privet.challenges.http01 import HTTP01Handler
from privet.challenges.tlsalpn01 import TLSALPN01Handler
from privet.validation import DNS01Validator, HTTP01Validator, Networks, Resolver, TLSALPN01Validator

pytestmark = pytest.mark.anyio

LOOPBACK = Networks(allow=["127.0.0.0/8"])
NAME, TOKEN = "web.internal", "evaGxfADs6pSRb2LAv9IZf17Dt3juxGJ"
PROOF = f"{TOKEN}.NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs"


class Zone(Nameserver):
    """Says which zone it has when it has nothing else to say, as an authoritative one does."""

    def reply(self, query: dns.message.Message) -> dns.message.Message:
        reply = super().reply(query)
        if reply.authority:
            reply.authority = [
                dns.rrset.from_text("internal.", 60, "IN", "SOA", "ns.internal. you.internal. 1 1 1 1 1")
            ]
        return reply


@pytest.fixture(scope="module")
def nameserver() -> Iterator[Nameserver]:
    """A nameserver at an address of this machine, whatever else the machine has."""
    town = Town(real=False)
    server = Zone(town.dns, free_port())
    try:
        with server.running():
            yield server
    finally:
        town.end()


@pytest.fixture(autouse=True)
def records(nameserver: Nameserver) -> None:
    nameserver.forget()
    nameserver.add(NAME, "A", "127.0.0.1")
    nameserver.add("internal", "SOA", "ns.internal. you.internal. 1 1 1 1 1")
    nameserver.add("internal", "NS", "ns.internal.")
    nameserver.add("ns.internal", "A", nameserver.host.address)


def is_open(port: int, host: str = "127.0.0.1") -> bool:
    with socket.socket() as probe:
        return probe.connect_ex((host, port)) == 0


class TestHTTP01:
    async def test_a_certificate_by_http_01(self, nameserver: Nameserver) -> None:
        port = free_port()
        resolver = Resolver([nameserver.address])
        validator = HTTP01Validator(resolver=resolver, networks=LOOPBACK, port=port)
        handler = HTTP01Handler(port)
        assert not is_open(port)
        async with (
            stage(challenge_validator={"http-01": validator}) as scene,
            scene.client(challenge_handler=handler, sleep=asyncio.sleep) as client,
        ):
            await client.issue([NAME, "127.0.0.1"])
        assert not is_open(port)

    async def test_nothing_but_tokens_is_served(self) -> None:
        port = free_port()
        handler = HTTP01Handler(port, "127.0.0.1")
        await handler.present(NAME, TOKEN, PROOF)
        base = f"http://127.0.0.1:{port}"
        async with httpx.AsyncClient(trust_env=False) as http:
            found = await http.get(f"{base}/.well-known/acme-challenge/{TOKEN}")
            assert (found.status_code, found.text) == (200, PROOF)
            assert (await http.head(f"{base}/.well-known/acme-challenge/{TOKEN}")).text == ""
            for path in ("/", f"/{TOKEN}", "/.well-known/acme-challenge/", "/.well-known/acme-challenge/other"):
                assert (await http.get(base + path)).status_code == 404
            assert (await http.post(f"{base}/.well-known/acme-challenge/{TOKEN}")).status_code == 404
        await handler.cleanup(NAME, TOKEN, PROOF)
        assert not is_open(port)

    @pytest.mark.parametrize("request_", [b"\r\n\r\n", b"nonsense", b"\x16\x03\x01\r\n\r\n", b"GET " + b"x" * 20000])
    async def test_whatever_is_asked_it_serves_the_next(self, request_: bytes) -> None:
        port = free_port()
        handler = HTTP01Handler(port, "127.0.0.1")
        await handler.present(NAME, TOKEN, PROOF)
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(request_)
        writer.write_eof()
        assert PROOF.encode() not in await reader.read()
        writer.close()
        async with httpx.AsyncClient(trust_env=False) as http:
            assert (await http.get(f"http://127.0.0.1:{port}/.well-known/acme-challenge/{TOKEN}")).text == PROOF
        await handler.cleanup(NAME, TOKEN, PROOF)

    async def test_a_crowd_makes_room_for_the_ca(self) -> None:
        port = free_port()
        handler = HTTP01Handler(port, "127.0.0.1")
        await handler.present(NAME, TOKEN, PROOF)
        crowd = [await asyncio.open_connection("127.0.0.1", port) for _ in range(100)]
        async with httpx.AsyncClient(trust_env=False) as http:
            found = await http.get(f"http://127.0.0.1:{port}/.well-known/acme-challenge/{TOKEN}")
        assert found.text == PROOF
        first, last = crowd[0][0], crowd[-1][0]
        assert await first.read() == b"", "who came first has waited for longest"
        assert not last.at_eof()
        await handler.cleanup(NAME, TOKEN, PROOF)
        for _, writer in crowd:
            writer.close()

    async def test_a_port_that_is_taken_is_named(self) -> None:
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            taken.listen()
            handler = HTTP01Handler(taken.getsockname()[1], "127.0.0.1")
            with pytest.raises(ClientError, match=r"needs to listen at 127\.0\.0\.1:\d+.*webroot"):
                await handler.present(NAME, TOKEN, PROOF)

    async def test_as_an_application_mounted_in_another(self) -> None:
        handler = HTTP01Handler(port=None)
        app = Starlette(routes=[Mount("/.well-known/acme-challenge", handler)])
        await handler.present(NAME, TOKEN, PROOF)
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://web.internal") as http:
            for application_path in (f"/.well-known/acme-challenge/{TOKEN}",):
                assert (await http.get(application_path)).text == PROOF
            assert (await http.get("/.well-known/acme-challenge/other")).status_code == 404
            await handler.cleanup(NAME, TOKEN, PROOF)
            assert (await http.get(f"/.well-known/acme-challenge/{TOKEN}")).status_code == 404

    async def test_as_files_that_a_web_server_shows(self, tmp_path: Path) -> None:
        handler = HTTP01Handler(webroot=tmp_path)
        path = tmp_path / ".well-known/acme-challenge" / TOKEN
        await handler.present(NAME, TOKEN, PROOF)
        assert path.read_text() == PROOF
        assert stat.S_IMODE(path.stat().st_mode) & 0o044
        await handler.cleanup(NAME, TOKEN, PROOF)
        assert not path.exists()

    async def test_a_link_in_the_way_is_not_followed(self, tmp_path: Path) -> None:
        folder = tmp_path / ".well-known/acme-challenge"
        folder.mkdir(parents=True)
        precious = tmp_path / "precious"
        precious.write_text("precious")
        (folder / TOKEN).symlink_to(precious)
        await HTTP01Handler(webroot=tmp_path).present(NAME, TOKEN, PROOF)
        assert precious.read_text() == "precious"

    @pytest.mark.parametrize("token", ["../x", "a/b", "", ".", "a\x00b"])
    async def test_a_token_that_is_none_touches_no_file(self, tmp_path: Path, token: str) -> None:
        handler = HTTP01Handler(webroot=tmp_path)
        for verb in (handler.present, handler.cleanup):
            with pytest.raises(ClientError, match="base64url"):
                await verb(NAME, token, PROOF)
        assert not is_anything_in(tmp_path)


class TestTLSALPN01:
    async def test_a_certificate_by_tls_alpn_01(self, nameserver: Nameserver) -> None:
        port = free_port()
        validator = TLSALPN01Validator(resolver=Resolver([nameserver.address]), networks=LOOPBACK, port=port)
        async with (
            stage(challenge_validator={"tls-alpn-01": validator}) as scene,
            scene.client(challenge_handler=TLSALPN01Handler(port), sleep=asyncio.sleep) as client,
        ):
            await client.issue([NAME, "127.0.0.1"])
        assert not is_open(port)

    async def test_a_name_that_was_not_presented_gets_no_certificate(self, nameserver: Nameserver) -> None:
        port = free_port()
        nameserver.add("other.internal", "A", "127.0.0.1")
        handler = TLSALPN01Handler(port, "127.0.0.1")
        await handler.present(NAME, TOKEN, PROOF)
        validator = TLSALPN01Validator(resolver=Resolver([nameserver.address]), networks=LOOPBACK, port=port)
        async with (
            stage(challenge_validator={"tls-alpn-01": validator}) as scene,
            scene.client(challenge_handler=Silent("tls-alpn-01"), sleep=asyncio.sleep) as client,
        ):
            with pytest.raises(Problem, match="broke off the TLS handshake"):
                await client.issue("other.internal")
        await handler.cleanup(NAME, TOKEN, PROOF)


def is_anything_in(folder: Path) -> bool:
    return any(folder.iterdir())


class Silent:
    def __init__(self, challenge_type: str) -> None:
        self.challenge_type = challenge_type

    async def present(self, identifier: str, token: str, key_authorization: str) -> None: ...

    async def cleanup(self, identifier: str, token: str, key_authorization: str) -> None: ...


class InRecords:
    """A provider for the zone of the test's nameserver, which takes a while to show what it was told."""

    def __init__(self, nameserver: Nameserver, late: int = 0) -> None:
        self.nameserver = nameserver
        self.late = late
        self.waiting: list[tuple[str, str]] = []
        self.naps = 0

    async def add(self, name: str, value: str) -> None:
        self.waiting.append((name, value))
        await self.sleep(0)

    async def remove(self, name: str, value: str) -> None:
        self.nameserver.records[name, "TXT"].remove(f'"{value}"')

    async def sleep(self, seconds: float) -> None:
        self.naps += 1
        if self.naps > self.late:
            for name, value in self.waiting:
                self.nameserver.add(name, "TXT", f'"{value}"')
            self.waiting.clear()


class TestDNS01:
    def handler(self, nameserver: Nameserver, provider: Any, **options: Any) -> DNS01Handler:
        return DNS01Handler(provider, resolver=nameserver.address, port=nameserver.port, **{"wait": 60, **options})

    async def test_a_certificate_by_dns_01_for_a_wildcard_too(self, nameserver: Nameserver) -> None:
        provider = InRecords(nameserver)
        validator = DNS01Validator(resolver=Resolver([nameserver.address]))
        async with (
            stage(challenge_validator={"dns-01": validator}) as scene,
            scene.client(challenge_handler=self.handler(nameserver, provider), sleep=asyncio.sleep) as client,
        ):
            await client.issue([NAME, f"*.{NAME}"])
        assert nameserver.records[f"_acme-challenge.{NAME}", "TXT"] == []

    async def test_it_waits_until_the_nameservers_of_the_zone_show_the_record(self, nameserver: Nameserver) -> None:
        provider = InRecords(nameserver, late=5)
        handler = self.handler(nameserver, provider, sleep=provider.sleep, wait=60)
        await handler.present(NAME, TOKEN, PROOF)
        assert provider.naps == 6
        assert f"TXT _acme-challenge.{NAME}" in nameserver.asked

    async def test_and_says_which_do_not_when_the_time_is_over(self, nameserver: Nameserver) -> None:
        provider = InRecords(nameserver, late=1000)
        handler = self.handler(nameserver, provider, sleep=provider.sleep, wait=10, interval=2)
        with pytest.raises(ClientError, match=rf"not shown after 10 s by {nameserver.host.address}"):
            await handler.present(NAME, TOKEN, PROOF)

    async def test_an_alias_is_followed(self, nameserver: Nameserver) -> None:
        nameserver.add(f"_acme-challenge.{NAME}", "CNAME", "abc.acme.internal.")
        handler = self.handler(nameserver, InRecords(nameserver))
        await handler.present(NAME, TOKEN, PROOF)
        assert nameserver.records["abc.acme.internal", "TXT"]
        await handler.cleanup(NAME, TOKEN, PROOF)
        assert nameserver.records["abc.acme.internal", "TXT"] == []

    async def test_a_nameserver_has_an_address(self) -> None:
        with pytest.raises(ClientError, match="not the address of a nameserver"):
            RFC2136("ns.internal")


@pytest.fixture
def named(tmp_path: Path) -> Iterator[Named]:
    need("named", source="the bind9 package")
    with Named(tmp_path, "internal") as running:
        yield running


class TestRFC2136:
    """A real BIND, which takes updates from whoever has its TSIG key."""

    async def test_a_certificate_by_dynamic_update(self, named: Named) -> None:
        provider = RFC2136(named.address, key_name="acme", key_secret=named.secret)
        handler = DNS01Handler(provider, resolver=named.address, port=named.port)
        validator = DNS01Validator(resolver=Resolver([named.address]))
        async with (
            stage(challenge_validator={"dns-01": validator}) as scene,
            scene.client(challenge_handler=handler, sleep=asyncio.sleep) as client,
        ):
            await client.issue(["a.internal", "*.a.internal"])

    async def test_without_the_key_it_is_refused(self, named: Named) -> None:
        with pytest.raises(ClientError, match=r"refused the update of _acme-challenge\.a\.internal: REFUSED"):
            await RFC2136(named.address).add("_acme-challenge.a.internal", "x")
        wrong = RFC2136(named.address, zone="internal", key_name="acme", key_secret="d3Jvbmc=")
        with pytest.raises(ClientError, match=r"did not take the update|refused the update"):
            await wrong.add("_acme-challenge.a.internal", "x")

    async def test_a_key_has_two_halves(self) -> None:
        with pytest.raises(ClientError, match="one of them is missing"):
            RFC2136("127.0.0.1", key_name="acme")
        with pytest.raises(ClientError, match="not base64"):
            RFC2136("127.0.0.1", key_name="acme", key_secret="%%%")


class TestHook:
    async def test_the_program_is_told_what_to_do(self, tmp_path: Path) -> None:
        diary = tmp_path / "diary"
        program = tmp_path / "hook.py"
        program.write_text(
            "import os, sys\n"
            f"with open({str(diary)!r}, 'a') as diary:\n"
            "    print(*sys.argv[1:], os.environ['ZONE'], file=diary)\n"
        )
        hook = Hook(sys.executable, program, env={"ZONE": "in zone x"})
        await hook.add("_acme-challenge.a.internal", "; rm -rf / $(id)")
        await hook.remove("_acme-challenge.a.internal", "value")
        assert diary.read_text().splitlines() == [
            "present _acme-challenge.a.internal ; rm -rf / $(id) in zone x",
            "cleanup _acme-challenge.a.internal value in zone x",
        ]

    async def test_a_program_that_fails_is_quoted(self, tmp_path: Path) -> None:
        script = "import sys; print('no such zone', file=sys.stderr); sys.exit(3)"
        with pytest.raises(ClientError, match=r"ended with 3 for a\.internal: no such zone"):
            await Hook(sys.executable, "-c", script).add("a.internal", "value")
        with pytest.raises(ClientError, match="cannot be run: No such file"):
            await Hook(tmp_path / "missing").add("a.internal", "value")
        with pytest.raises(ClientError, match=r"did not end within 0\.2 seconds"):
            await Hook(sys.executable, "-c", "import time; time.sleep(3600)", timeout=0.2).add("a.internal", "value")

    async def test_its_end_counts_and_not_that_of_what_it_leaves_running(self) -> None:
        script = "sleep 20 & echo started; exit 3"
        with pytest.raises(ClientError, match=r"ended with 3 for a\.internal: started"):
            await Hook("sh", "-c", script, timeout=15).add("a.internal", "value")

    async def test_of_very_many_words_the_last_are_quoted(self) -> None:
        script = "import sys; print('x' * 9_999_999, 'the last'); sys.exit(3)"
        with pytest.raises(ClientError, match=r": x{491} the last$"):
            await Hook(sys.executable, "-c", script).add("a.internal", "value")


class TestAcmeDNS:
    async def test_the_update_is_sent_as_acme_dns_wants_it(self) -> None:
        seen: list[Any] = []

        async def update(request: Request) -> JSONResponse:
            seen.append((request.headers["x-api-user"], request.headers["x-api-key"], await request.json()))
            return JSONResponse({"txt": "x"}, status_code=200 if request.headers["x-api-key"] == "key" else 401)

        way = httpx.ASGITransport(Starlette(routes=[Route("/update", update, methods=["POST"])]))
        account: dict[str, Any] = {"username": "me", "subdomain": "abc", "transport": way}
        await AcmeDNS("http://auth.internal/", password="key", **account).add("_acme-challenge.a.internal", "value")
        assert seen == [("me", "key", {"subdomain": "abc", "txt": "value"})]
        with pytest.raises(ClientError, match="answered 401"):
            await AcmeDNS("http://auth.internal", password="other", **account).add("a", "value")
        with pytest.raises(ClientError, match="cannot be asked"):
            await AcmeDNS("http://127.0.0.1:1", username="", password="", subdomain="").add("a", "value")

    async def test_an_answer_without_end_is_not_waited_for(self) -> None:
        async with trickling() as url:
            with pytest.raises(ClientError, match="it takes too long"):
                await AcmeDNS(url, username="", password="", subdomain="", timeout=0.5).add("a", "value")
