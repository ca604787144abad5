"""Talking ACME to servers that are slow, forgetful, hostile, or merely different."""

import asyncio
import json
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.client.scene import BASE, DIRECTORY, Answer, Clock, Scene, on, problem, rewritten, stage
from tests.laws import documents

from privet import ClientError, Problem, ProblemType
from privet.acme import jws
from privet.ca.keys import KeyType
from privet.client.session import KeyAlone, Session, origin_of, retry_after
from privet.client.signing import AccountKey, ExternalAccount

pytestmark = pytest.mark.anyio

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)


def session_of(scene: Scene, **options: Any) -> Session:
    options = {"allow_insecure": True, "now": scene.clock, "sleep": scene.clock.sleep, **options}
    http = httpx.AsyncClient(transport=scene.way, trust_env=False)
    return Session(options.pop("directory_url", DIRECTORY), http, **options)


async def register(session: Session) -> str:
    directory = await session.directory()
    reply = await session.post(directory.new_account, {}, KeyAlone(AccountKey.generate()))
    return session.location(reply)


class TestNonces:
    async def test_one_is_fetched_and_the_next_comes_with_each_answer(self) -> None:
        async with stage() as scene:
            session = session_of(scene)
            await register(session)
            await register(session)
            assert scene.way.paths("HEAD") == ["new-nonce"]

    async def test_a_refused_one_is_replaced_and_the_request_signed_again(self) -> None:
        async with stage() as scene:
            refused = problem(400, "badNonce")
            scene.way.changes.append(on("/new-account", refused, refused))
            await register(session_of(scene))
            bodies = [json.loads(each.content) for each in scene.way.requests if each.url.path == "/new-account"]
            assert len({body["protected"] for body in bodies}) == len(bodies) == 3

    async def test_nobody_tries_for_ever(self) -> None:
        async with stage() as scene:
            scene.way.changes.append(on("/new-account", *[problem(400, "badNonce")] * 100))
            with pytest.raises(Problem) as caught:
                await register(session_of(scene))
            assert caught.value.type is ProblemType.BAD_NONCE
            assert len(scene.way.paths()) == 11

    async def test_what_is_no_nonce_is_ignored(self) -> None:
        def spoil(request: httpx.Request, answer: Answer) -> Answer:
            return answer[0], {**answer[1], "replay-nonce": "not a nonce!"}, answer[2]

        async with stage() as scene:
            scene.way.changes.append(spoil)
            with pytest.raises(ClientError, match="no usable nonce"):
                await register(session_of(scene))


class TestWaiting:
    async def test_a_server_that_says_when_is_asked_again_then(self) -> None:
        async with stage() as scene:
            scene.way.changes.append(on("/new-account", problem(429, "rateLimited", headers={"retry-after": "7"})))
            await register(session_of(scene))
            assert scene.clock.naps == [7]

    async def test_a_date_is_as_good_and_is_read_by_the_servers_own_clock(self) -> None:
        async with stage() as scene:
            wrong = scene.clock() + timedelta(days=300)  # the server's clock is a little off
            headers = {
                "date": format_datetime(wrong, usegmt=True),
                "retry-after": format_datetime(wrong + timedelta(seconds=9), usegmt=True),
            }
            scene.way.changes.append(on("/new-account", problem(503, "serverInternal", headers=headers)))
            await register(session_of(scene))
            assert scene.clock.naps == [9]

    async def test_one_that_wants_too_much_patience_is_left(self) -> None:
        async with stage() as scene:
            refusal = problem(429, "rateLimited", "come back tomorrow", {"retry-after": "86400"})
            scene.way.changes.append(on("/new-account", refusal))
            with pytest.raises(Problem, match="come back tomorrow"):
                await register(session_of(scene))
            assert scene.clock.naps == []

    async def test_patience_is_for_all_waits_together(self) -> None:
        async with stage() as scene:
            again = problem(503, "serverInternal", headers={"retry-after": "20"})
            scene.way.changes.append(on("/new-account", *[again] * 100))
            with pytest.raises(Problem):
                await register(session_of(scene, patience=60))
            assert scene.clock.naps == [20, 20, 20]

    @pytest.mark.parametrize(
        ("value", "expected"),
        [
            ("", None),
            ("0", timedelta()),
            ("120", timedelta(minutes=2)),
            ("999999999999999999999", timedelta(days=1)),
            ("-5", None),
            ("Sun, 01 Mar 2026 12:00:30 GMT", timedelta(seconds=30)),
            ("Sun, 01 Mar 2026 11:00:00 GMT", timedelta()),
            ("Sun, 01 Mar 2076 11:00:00 GMT", timedelta(days=1)),
            ("soon", None),
            ("Sun, 99 Foo 2026", None),
            ("\u0663", None),
        ],
    )
    def test_both_forms_of_retry_after(self, value: str, expected: timedelta | None) -> None:
        assert retry_after(httpx.Headers([(b"retry-after", value.encode())]), NOW) == expected

    @given(st.binary(max_size=60))
    def test_any_retry_after_is_a_bounded_wait_or_none(self, value: bytes) -> None:
        wait = retry_after(httpx.Headers([(b"retry-after", value)]), NOW)
        assert wait is None or timedelta() <= wait <= timedelta(days=1)


class TestOrigins:
    @pytest.mark.parametrize(
        "url",
        [
            "http://elsewhere.internal/new-order",
            "https://ca.internal/new-order",
            "http://ca.internal:8080/new-order",
            "http://ca.internal@elsewhere.internal/new-order",
            "http://ca.internal.elsewhere/new-order",
            "//elsewhere.internal/new-order",
            "file:///etc/passwd",
            "http://ca.internal\\@elsewhere.internal/",
            "http://ca.internal/new order",
            "http://ca.internal:99999/",
            "http://[::1/",
            "",
            7,
            None,
        ],
    )
    async def test_what_lies_elsewhere_is_not_asked(self, url: object) -> None:
        async with stage() as scene:
            scene.way.changes.append(
                on(
                    "/directory",
                    (
                        200,
                        {},
                        json.dumps(
                            {
                                "newNonce": f"{BASE}/new-nonce",
                                "newAccount": f"{BASE}/new-account",
                                "newOrder": url,
                            }
                        ).encode(),
                    ),
                )
            )
            with pytest.raises(ClientError, match="newOrder"):
                await session_of(scene).directory()
            assert [each.url.path for each in scene.way.requests] == ["/directory"]

    async def test_an_account_elsewhere_is_refused(self) -> None:
        def elsewhere(request: httpx.Request, answer: Answer) -> Answer:
            return answer[0], {**answer[1], "location": "http://elsewhere.internal/acct/1"}, answer[2]

        async with stage() as scene:
            scene.way.changes.append(elsewhere)
            with pytest.raises(ClientError, match=r"http://elsewhere\.internal/acct/1.*not a URL of"):
                await register(session_of(scene))

    async def test_redirects_are_not_followed(self) -> None:
        async with stage() as scene:
            moved = (307, {"location": f"{BASE}/new-order"}, b"")
            scene.way.changes.append(on("/new-account", moved))
            with pytest.raises(ClientError, match=r"redirect \(307\)"):
                await register(session_of(scene))
            assert scene.way.paths() == ["new-account"]

    async def test_http_has_to_be_allowed(self) -> None:
        async with stage() as scene:
            with pytest.raises(ClientError, match="allow_insecure=True"):
                session_of(scene, allow_insecure=False)
            with pytest.raises(ClientError, match="not the URL of an ACME directory"):
                session_of(scene, directory_url="ca.internal/directory")

    @given(st.text(max_size=60))
    def test_any_text_has_an_origin_or_none(self, text: str) -> None:
        origin_of(text)


class TestAnswers:
    async def test_a_problem_comes_whole(self) -> None:
        async with stage() as scene:
            scene.way.changes.append(
                on(
                    "/new-account",
                    problem(
                        403,
                        "rejectedIdentifier",
                        "not these",
                        {"x-more": "yes"},
                        instance="http://ca.internal/why",
                        subproblems=[
                            {
                                "type": "urn:ietf:params:acme:error:caa",
                                "detail": "CAA says no",
                                "identifier": {"type": "dns", "value": "a.internal"},
                            },
                            {"type": "urn:example:novel", "detail": "never heard of", "future": 1},
                            "not a subproblem",
                        ],
                        future="unknown",
                    ),
                )
            )
            with pytest.raises(Problem) as caught:
                await register(session_of(scene))
            refusal: Any = caught.value
            assert refusal.type is ProblemType.REJECTED_IDENTIFIER
            assert refusal.instance == "http://ca.internal/why"
            assert [each.type for each in refusal.subproblems] == [ProblemType.CAA, ProblemType.MALFORMED]
            assert str(refusal.subproblems[0].identifier) == "a.internal"
            assert (refusal.status, refusal.document["future"]) == (403, "unknown")
            assert "a.internal: caa: CAA says no" in str(refusal)

    @pytest.mark.parametrize(
        ("status", "body", "type"),
        [
            (500, b"<html>oops</html>", ProblemType.SERVER_INTERNAL),
            (418, b"", ProblemType.MALFORMED),
            (403, b'{"type": "urn:example:other", "detail": "no"}', ProblemType.UNAUTHORIZED),
            (409, b'{"type": "urn:ietf:params:acme:error:malformed"}', ProblemType.CONFLICT),
            (404, b"[]", ProblemType.NOT_FOUND),
            (401, b'{"type": 7, "detail": ["x"]}', ProblemType.ACCOUNT_NOT_VALID),
        ],
    )
    async def test_a_refusal_that_is_no_problem_document_becomes_one(
        self, status: int, body: bytes, type: ProblemType
    ) -> None:
        async with stage() as scene:
            scene.way.changes.append(on("/new-account", (status, {}, body)))
            with pytest.raises(Problem) as caught:
                await register(session_of(scene))
            assert caught.value.type is type
            assert caught.value.detail

    async def test_what_a_problem_says_moves_nobodys_cursor(self) -> None:
        async with stage() as scene:
            scene.way.changes.append(on("/new-account", problem(403, "unauthorized", "a\x1b[2Jb\nc" + "x" * 9000)))
            with pytest.raises(Problem) as caught:
                await register(session_of(scene))
            assert caught.value.detail.isprintable()
            assert len(caught.value.detail) <= 4000

    async def test_an_answer_without_end_is_cut_off(self) -> None:
        async with stage() as scene:
            scene.way.changes.append(on("/directory", (200, {}, b" " * 2_000_000)))
            with pytest.raises(ClientError, match="longer than 1048576 octets"):
                await session_of(scene).directory()

    async def test_a_compressed_answer_is_not_unpacked(self) -> None:
        async with stage() as scene:
            scene.way.changes.append(on("/directory", (200, {"content-encoding": "gzip"}, b"\x1f\x8b")))
            with pytest.raises(ClientError, match="compressed"):
                await session_of(scene).directory()

    async def test_a_server_that_is_silent_is_not_waited_for(self) -> None:
        async def silent(request: httpx.Request, answer: Answer) -> Answer:
            await asyncio.Event().wait()
            return answer

        async with stage() as scene:
            scene.way.changes.append(silent)
            with pytest.raises(ClientError, match=r"did not answer within 0\.01 seconds"):
                await session_of(scene, timeout=0.01).directory()
            assert len(scene.way.requests) == 3

    async def test_a_request_that_broke_on_its_way_is_sent_again(self) -> None:
        broken = [True]

        def breaks(request: httpx.Request, answer: Answer) -> Answer:
            if request.url.path == "/new-account" and broken.pop() if broken else False:
                raise httpx.RemoteProtocolError("Server disconnected without sending a response.", request=request)
            return answer

        async with stage() as scene:
            session = session_of(scene)
            await session.directory()
            scene.way.changes.append(breaks)
            await register(session)

    async def test_members_nobody_knows_are_no_trouble(self) -> None:
        async with stage() as scene:
            scene.way.changes.append(rewritten("/directory", meta={"future": [1], "profiles": 7}, x="http://elsewhere"))
            directory = await session_of(scene).directory()
            assert directory.profiles is None


class Anything(httpx.AsyncBaseTransport):
    """A server that says the same to everybody."""

    def __init__(self, status: int, headers: list[tuple[bytes, bytes]], body: bytes) -> None:
        self.answer = status, headers, body

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        status, headers, body = self.answer
        return httpx.Response(status, headers=headers, stream=httpx.ByteStream(body))


HEADERS = st.sampled_from([b"location", b"link", b"retry-after", b"replay-nonce", b"date", b"set-cookie"])
BODIES = st.binary(max_size=200) | documents.map(lambda value: json.dumps(value).encode())


@settings(deadline=None, max_examples=200)
@given(st.integers(200, 599), st.lists(st.tuples(HEADERS, st.binary(max_size=40)), max_size=4), BODIES)
def test_whatever_a_server_says_gives_a_value_a_problem_or_a_client_error(
    status: int, headers: list[tuple[bytes, bytes]], body: bytes
) -> None:
    async def ask() -> None:
        clock = Clock()
        http = httpx.AsyncClient(transport=Anything(status, headers, body), trust_env=False)
        session = Session(DIRECTORY, http, allow_insecure=True, now=clock, sleep=clock.sleep)
        with suppress(Problem, ClientError):
            reply = await session.get(DIRECTORY)
            session.links(reply, "alternate")
            session.location(reply)
            await session.directory()

    asyncio.run(ask())


class TestSigning:
    @pytest.mark.parametrize(
        ("key_type", "algorithm"),
        [
            (KeyType.P256, "ES256"),
            (KeyType.P384, "ES384"),
            (KeyType.RSA2048, "RS256"),
            (KeyType.ED25519, "EdDSA"),
        ],
    )
    def test_what_is_signed_here_is_read_there(self, key_type: KeyType, algorithm: str) -> None:
        key = AccountKey.generate(key_type)
        message = key.sign({"nonce": "bm9uY2U", "url": "http://ca.internal/x", "jwk": dict(key.jwk)}, b"{}")
        read = jws.parse(json.dumps(message).encode())
        assert read.algorithm == algorithm
        read.verify(jws.Key.from_jwk(read.jwk))
        assert AccountKey.from_pem(key.to_pem()).thumbprint == key.thumbprint

    def test_nothing_shows_a_key(self) -> None:
        key = AccountKey.generate()
        assert key.thumbprint in repr(key)
        assert "secret" not in repr(ExternalAccount.read("kid-1", b"secret"))

    def test_a_damaged_key_is_said_to_be_one(self) -> None:
        with pytest.raises(ClientError, match="cannot be used"):
            AccountKey.from_pem(b"nonsense")
        with pytest.raises(ClientError, match="cannot be read"):
            ExternalAccount.read("kid-1", "%%%")
        with pytest.raises(ClientError, match="empty"):
            ExternalAccount.read("kid-1", b"")
