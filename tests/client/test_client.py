"""The client and the real responder: from a name to a certificate, and what may come between."""

import json
import logging
import ssl
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, load_pem_private_key
from tests.client.scene import BASE, DIRECTORY, Answer, Clock, on, problem, rewritten, stage, trickling
from tests.wire import csr as make_csr
from tests.wire import new_key

from privet import (
    ACMEResponder,
    CertificateAuthority,
    ClientError,
    FileStore,
    KeyType,
    MemoryStore,
    Problem,
    ProblemType,
    SyncClient,
)
from privet.acme.encoding import from_base64url
from privet.acme.identifiers import BadIdentifier
from privet.ca import keys
from privet.client.account import store_id
from privet.client.trust import fetch_roots, trust_in

pytestmark = pytest.mark.anyio


class Handler:
    """Remembers what it was asked for. The server takes its word."""

    def __init__(self, challenge_type: str = "http-01", failure: Exception | None = None) -> None:
        self.challenge_type = challenge_type
        self.failure = failure
        self.story: list[tuple[str, str]] = []

    async def present(self, identifier: str, token: str, key_authorization: str) -> None:
        assert key_authorization.startswith(f"{token}.")
        self.story.append(("present", identifier))
        if self.failure:
            raise self.failure

    async def cleanup(self, identifier: str, token: str, key_authorization: str) -> None:
        self.story.append(("cleanup", identifier))
        if self.failure:
            raise self.failure


def names_in(pem: bytes) -> set[str]:
    certificate = x509.load_pem_x509_certificate(pem)
    return {
        str(each.value) for each in certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    }


class TestIssue:
    async def test_a_name_becomes_a_certificate_with_its_key(self) -> None:
        async with stage() as scene, scene.client() as client:
            bundle = await client.issue("worker-1.internal")
            certificate = x509.load_pem_x509_certificate(bundle.cert_pem)
            key = load_pem_private_key(bundle.key_pem, None)
            assert bundle.domain == "worker-1.internal"
            assert key.public_key() == certificate.public_key()
            assert bundle.fullchain_pem == bundle.cert_pem + scene.ca.chain_pem
            assert (
                bundle.expires_at == certificate.not_valid_after_utc == scene.clock() + timedelta(hours=23, minutes=55)
            )
            # A short story, because there was nothing to prove.
            assert scene.way.paths() == ["new-account", "new-order", "finalize", "cert"]

    async def test_several_names_addresses_and_wildcards(self) -> None:
        names = ["a.internal", "*.b.internal", "10.0.0.1", "fd00::1", "A.internal", "Bücher.internal"]
        async with stage() as scene, scene.client() as client:
            bundle = await client.issue(names)
            expected = {"a.internal", "*.b.internal", "10.0.0.1", "fd00::1", "xn--bcher-kva.internal"}
            assert names_in(bundle.cert_pem) == set(bundle.domains) == expected

    @pytest.mark.parametrize("key_type", [KeyType.P256, KeyType.P384, KeyType.RSA2048, KeyType.ED25519])
    async def test_any_kind_of_key_for_accounts_and_certificates(self, key_type: KeyType) -> None:
        async with stage() as scene, scene.client(account_key_type=key_type, key_type=key_type) as client:
            bundle = await client.issue("a.internal")
            assert keys.check_public_key(keys.from_pem(bundle.key_pem).public_key()) is key_type

    async def test_a_key_of_ones_own(self) -> None:
        pem = keys.to_pem(keys.generate(KeyType.P384))
        async with stage() as scene, scene.client() as client:
            assert (await client.issue("a.internal", key_pem=pem)).key_pem == pem

    async def test_a_csr_of_ones_own_whose_key_stays_where_it_is(self) -> None:
        key = new_key()
        der = make_csr("a.internal", "b.internal", key=key)
        store = MemoryStore()
        async with stage() as scene, scene.client(store=store) as client:
            bundle = await client.issue(csr=der)
            assert x509.load_pem_x509_certificate(bundle.cert_pem).public_key() == key.public_key()
            assert bundle.key_pem == b""
            assert store.find("certs") == []
            with pytest.raises(ClientError, match="not those of the CSR"):
                await client.issue("c.internal", csr=der)
            with pytest.raises(ClientError, match="CSR cannot be used"):
                await client.issue(csr=b"nonsense")

    async def test_a_lifetime_of_ones_own(self) -> None:
        async with stage() as scene, scene.client() as client:
            end = scene.clock() + timedelta(hours=2)
            assert (await client.issue("a.internal", not_after=end)).expires_at == end

    async def test_what_is_no_name_is_said_at_once(self) -> None:
        async with stage() as scene, scene.client() as client:
            with pytest.raises(BadIdentifier):
                await client.issue("not a name")
            with pytest.raises(ClientError, match="one name at least"):
                await client.issue([])
            assert scene.way.requests == []

    async def test_refusals_come_as_the_server_says_them(self) -> None:
        async with stage() as scene, scene.client() as client:
            scene.way.changes.append(on("/new-order", problem(403, "rejectedIdentifier", "not for you")))
            with pytest.raises(Problem, match="not for you") as caught:
                await client.issue("a.internal")
            assert caught.value.type is ProblemType.REJECTED_IDENTIFIER

    async def test_an_order_that_takes_its_time_is_waited_for(self) -> None:
        def slowly(request: httpx.Request, answer: Answer) -> Answer:
            if not request.url.path.startswith("/finalize") or not answer[2]:
                return answer
            document = {**json.loads(answer[2]), "status": "processing"}
            return answer[0], {**answer[1], "retry-after": "3"}, json.dumps(document).encode()

        async with stage() as scene, scene.client() as client:
            scene.way.changes.append(slowly)
            await client.issue("a.internal")
            assert scene.clock.naps == [3]

    async def test_lets_encrypt_has_ways_of_its_own(self) -> None:
        """As Boulder documents them: an entry in the directory that means nothing, nothing said of orders and contacts,
        a certificate that is not there at once, and a busy day."""
        busy = problem(
            503,
            "rateLimited",
            "Service busy; retry later.",
            {"retry-after": "7", "link": '<https://letsencrypt.org/docs/rate-limits/>;rel="help"'},
        )

        def later(request: httpx.Request, answer: Answer) -> Answer:
            """Finalized, and asked for again before it is there; its order is called as it was at first."""
            if not request.url.path.startswith("/finalize") or answer[0] != 200:
                return answer
            document = {**json.loads(answer[2]), "status": "processing"}
            del document["certificate"]
            return 200, {**answer[1], "retry-after": "3"}, json.dumps(document).encode()

        async with stage() as scene, scene.client(contact="ops@example.com") as client:
            scene.way.changes += [
                rewritten(
                    "/directory",
                    newAuthz=None,
                    AyRtVb="https://community.letsencrypt.org/t/adding-random-entries-to-the-directory/33417",
                    meta={
                        "caaIdentities": ["letsencrypt.org"],
                        "termsOfService": "https://letsencrypt.org/documents/LE-SA.pdf",
                        "website": "https://letsencrypt.org",
                    },
                ),
                rewritten("/new-account", orders=None, contact=None, initialIp="10.0.0.1"),
                on("/new-order", busy),
                later,
            ]
            bundle = await client.issue(["a.internal", "b.internal"])
            assert bundle.domains == ("a.internal", "b.internal")
            assert scene.clock.naps == [7, 3]
            scene.way.changes.append(on("/new-order", problem(400, "malformed", "NotAfter is not supported")))
            with pytest.raises(Problem, match="NotAfter is not supported"):
                await client.issue("a.internal", not_after=scene.clock() + timedelta(hours=1))

    async def test_an_order_that_never_ends_is_given_up(self, caplog: pytest.LogCaptureFixture) -> None:
        caplog.set_level(logging.INFO)
        async with stage() as scene, scene.client(patience=30) as client:
            scene.way.changes += [rewritten(path, status="processing") for path in ("/finalize", "/order")]
            with pytest.raises(ClientError, match="still processing after"):
                await client.issue("a.internal")
            assert sum(scene.clock.naps) <= 30
        said = [each.getMessage() for each in caplog.records if each.name == "privet.client.waiting"]
        assert said == ["the order is still processing; that is waited for, 30 s at most"], "once"

    async def test_an_order_that_failed_says_why(self) -> None:
        async with stage() as scene, scene.client() as client:
            error = {"type": "urn:ietf:params:acme:error:caa", "detail": "CAA forbids it"}
            scene.way.changes.append(rewritten("/finalize", status="invalid", error=error))
            with pytest.raises(Problem, match="CAA forbids it"):
                await client.issue("a.internal")

    async def test_a_finalize_whose_answer_was_lost_is_no_loss(self) -> None:
        lost = [True]

        def lose(request: httpx.Request, answer: Answer) -> Answer:
            if request.url.path.startswith("/finalize") and lost:
                lost.clear()
                raise httpx.ReadError("connection reset", request=request)
            return answer

        async with stage() as scene, scene.client() as client:
            scene.way.changes.append(lose)
            await client.issue("a.internal")
            assert len(scene.ca.certificates()) == 1

    async def test_profiles_are_asked_for_where_there_are_any(self) -> None:
        async with stage() as scene, scene.client(profile="short") as client:
            with pytest.raises(ClientError, match="no profile 'short'; it has none"):
                await client.issue("a.internal")
        async with stage() as scene, scene.client() as client:
            scene.way.changes.append(
                rewritten("/directory", meta={"profiles": {"short": "six hours", "long": "a day"}})
            )
            await client.issue("a.internal", profile="short")
            with pytest.raises(ClientError, match="it has long, short"):
                await client.issue("a.internal", profile="other")
            orders = [each for each in scene.way.requests if each.url.path == "/new-order"]
            assert [payload_of(each)["profile"] for each in orders] == ["short"]


def payload_of(request: httpx.Request) -> Mapping[str, Any]:
    payload: Mapping[str, Any] = json.loads(from_base64url(json.loads(request.content)["payload"], "the payload"))
    return payload


class TestChallenges:
    async def test_a_handler_that_is_not_needed_is_not_touched(self) -> None:
        handler = Handler()
        async with stage() as scene, scene.client(challenge_handler=handler) as client:
            await client.issue("a.internal")
        assert handler.story == []

    async def test_one_that_fits_is_used_and_cleaned_up_after(self) -> None:
        web, zone = Handler("http-01"), Handler("dns-01")
        async with stage(ask_challenges=True) as scene, scene.client(challenge_handler=[web, zone]) as client:
            await client.issue(["a.internal", "*.b.internal"])
        assert web.story == [("present", "a.internal"), ("cleanup", "a.internal")]
        assert zone.story == [("present", "b.internal"), ("cleanup", "b.internal")]

    async def test_when_none_fits_the_error_names_the_types_that_would(self) -> None:
        handler = Handler("tls-alpn-01")
        async with stage(ask_challenges=True) as scene, scene.client(challenge_handler=handler) as client:
            with pytest.raises(ClientError, match=r"'b\.internal' .*: dns-01; .* for: tls-alpn-01"):
                await client.issue(["a.internal", "*.b.internal"])
            assert handler.story in ([], [("cleanup", "a.internal")])

    async def test_a_handler_that_fails_is_named_and_still_cleaned_up(self) -> None:
        handler = Handler(failure=OSError("the printer is on fire"))
        async with stage(ask_challenges=True) as scene, scene.client(challenge_handler=handler) as client:
            with pytest.raises(ClientError, match=r"http-01 failed for a\.internal: the printer is on fire"):
                await client.issue("a.internal")
        assert handler.story == [("present", "a.internal"), ("cleanup", "a.internal")]

    async def test_a_refused_challenge_says_why(self) -> None:
        class No:
            async def validate(self, identifier: str, type: str, token: str, key_authorization: str) -> bool:
                raise Problem(ProblemType.DNS, "there is no such host")

        handler = Handler()
        async with stage(challenge_validator=No()) as scene, scene.client(challenge_handler=handler) as client:
            with pytest.raises(Problem, match="there is no such host") as caught:
                await client.issue("a.internal")
        assert caught.value.type is ProblemType.DNS
        assert handler.story[-1] == ("cleanup", "a.internal")

    @pytest.mark.parametrize("token", ["../../etc/passwd", "a/b", "", "a b", "ä", 7, None, "x" * 600])
    async def test_a_token_that_is_none_reaches_no_handler(self, token: object) -> None:
        def hostile(request: httpx.Request, answer: Answer) -> Answer:
            if not request.url.path.startswith("/authz"):
                return answer
            document = json.loads(answer[2])
            for challenge in document["challenges"]:
                challenge["token"] = token
            return answer[0], answer[1], json.dumps(document).encode()

        handler = Handler()
        async with stage(ask_challenges=True) as scene, scene.client(challenge_handler=handler) as client:
            scene.way.changes.append(hostile)
            with pytest.raises(ClientError, match="token that is not base64url"):
                await client.issue("a.internal")
        assert handler.story == []

    @pytest.mark.parametrize("value", [None, [], "x", ["http://elsewhere.internal/authz/1"], [7]])
    async def test_authorizations_elsewhere_are_not_asked_for(self, value: object) -> None:
        async with stage(ask_challenges=True) as scene, scene.client(challenge_handler=Handler()) as client:
            scene.way.changes.append(rewritten("/new-order", authorizations=value))
            with pytest.raises(ClientError, match="authorization"):
                await client.issue("a.internal")


class TestStore:
    async def test_keys_and_certificates_lie_where_people_look(self, tmp_path: Path) -> None:
        with FileStore(tmp_path) as store:
            async with stage() as scene, scene.client(store=store) as client:
                bundle = await client.issue("worker-1.internal")
            assert bundle.fullchain_path == tmp_path / "certs/worker-1.internal/fullchain.pem"
            assert bundle.key_path is not None
            assert bundle.key_path.read_bytes() == bundle.key_pem
            account_key = store.path_of("accounts", store_id(DIRECTORY), "account.key")
            for path in (bundle.key_path, account_key):
                assert path.stat().st_mode & 0o777 == 0o600
            assert account_key.parent.name.startswith("ca.internal-directory-")

    async def test_the_account_is_found_again(self) -> None:
        store = MemoryStore()
        async with stage() as scene:
            async with scene.client(store=store) as client:
                url = await client.account_url()
            async with scene.client(store=store) as client:
                assert await client.account_url() == url
                await client.issue("a.internal")
            assert scene.way.paths().count("new-account") == 1

    async def test_a_server_that_was_set_up_anew_is_told_of_the_account_again(self) -> None:
        async with stage() as scene, stage() as anew, scene.client() as client:
            await client.issue("a.internal")
            url = await client.account_url()
            scene.way.inner = httpx.ASGITransport(anew.responder)
            scene.way.requests.clear()
            await client.issue("b.internal")
            assert await client.account_url() != url
            assert len(anew.ca.certificates()) == 1
            # It may offer something else now.
            assert scene.way.paths("GET") == ["directory"]

    async def test_two_processes_make_one_account(self, tmp_path: Path) -> None:
        async with stage() as scene:
            with FileStore(tmp_path) as one, FileStore(tmp_path) as other:
                async with scene.client(store=one) as first, scene.client(store=other) as second:
                    assert await first.account_url() == await second.account_url()

    async def test_a_key_that_another_process_changed_is_followed(self, tmp_path: Path) -> None:
        async with stage() as scene:
            with FileStore(tmp_path) as one, FileStore(tmp_path) as other:
                async with scene.client(store=one) as first, scene.client(store=other) as second:
                    assert await first.account_url() == await second.account_url()
                    await first.change_account_key()
                    await second.issue("a.internal")
                    await second.change_account_key()
                    await first.change_account_key()
                    await second.update_account("ops@ca.internal")
                    await first.deactivate_account()
                    await second.issue("b.internal")
            assert len(scene.ca.store.find("account")) == 2

    async def test_a_server_that_lost_the_account_is_told_again(self) -> None:
        store = MemoryStore()
        async with stage() as scene, scene.client(store=store) as client:
            await client.issue("a.internal")
        async with stage() as scene, scene.client(store=store) as client:  # as new: a CA set up again
            await client.issue("a.internal")

    async def test_a_restart_does_not_cost_a_certificate(self) -> None:
        store = MemoryStore()
        async with stage() as scene:
            async with scene.client(store=store) as client:
                first = await client.ensure("a.internal")
            async with scene.client(store=store) as client:
                assert (await client.ensure("a.internal")).serial == first.serial
                assert await client.owned() == ("a.internal",)
                assert (await client.ensure(["a.internal", "b.internal"])).serial != first.serial
                scene.clock.forward(hours=17)
                assert (await client.ensure(["a.internal", "b.internal"])).serial != first.serial
            assert len(scene.ca.certificates()) == 3

    @pytest.mark.parametrize("name", ["key.pem", "cert.pem", "fullchain.pem"])
    async def test_what_is_damaged_in_the_store_is_not_used(self, name: str) -> None:
        store = MemoryStore()
        async with stage() as scene, scene.client(store=store) as client:
            first = await client.ensure("a.internal")
            record = store.get("certs", "a.internal")
            assert record is not None
            for content in (record.files[name][:-30], b"", keys.to_pem(keys.generate(KeyType.P256))):
                current = store.get("certs", "a.internal")
                assert current is not None
                store.commit(current._replace(files={**current.files, name: content}))
                assert (await client.ensure("a.internal")).serial != first.serial

    async def test_half_a_key_with_a_password_is_not_used(self) -> None:
        store = MemoryStore()
        async with stage() as scene, scene.client(store=store, key_password=b"open sesame") as client:
            first = await client.ensure("a.internal")
            assert (await client.ensure("a.internal")).serial == first.serial
            record = store.get("certs", "a.internal")
            assert record is not None
            store.commit(record._replace(files={**record.files, "key.pem": record.files["key.pem"][:-30]}))
            assert (await client.ensure("a.internal")).serial != first.serial

    async def test_a_restart_while_the_ca_is_down_goes_on_with_what_is_still_good(self) -> None:
        store = MemoryStore()
        async with stage() as scene:
            async with scene.client(store=store) as client:
                first = await client.ensure("a.internal")
            scene.clock.forward(hours=17)
            scene.way.down = True
            async with scene.client(store=store) as client:
                assert (await client.ensure("a.internal")).serial == first.serial
                assert await client.owned() == ("a.internal",)
                scene.clock.forward(hours=17)
                with pytest.raises(ClientError, match="the CA is down"):
                    await client.ensure("a.internal")


class TestAccount:
    async def test_external_accounts_are_bound(self) -> None:
        keys = {"kid-1": b"a key of thirty-two octets or so"}
        async with stage(external_account_keys=keys, external_account_required=True) as scene:
            async with scene.client() as client:
                with pytest.raises(ClientError, match=r"external_account=\(kid, mac_key\)"):
                    await client.issue("a.internal")
            async with scene.client(external_account=("kid-1", keys["kid-1"])) as client:
                await client.issue("a.internal")
            encoded = "YSBrZXkgb2YgdGhpcnR5LXR3byBvY3RldHMgb3Igc28"
            async with scene.client(external_account=("kid-1", encoded)) as client:
                await client.account_url()
            async with scene.client(external_account=("kid-1", b"wrong")) as client:
                with pytest.raises(Problem, match="external account binding"):
                    await client.account_url()

    async def test_terms_are_agreed_to_unless_one_does_not_want_to(self) -> None:
        async with stage(terms_of_service="http://ca.internal/terms") as scene:
            async with scene.client(agree_to_terms=False) as client:
                with pytest.raises(ClientError, match=r"http://ca\.internal/terms"):
                    await client.account_url()
            async with scene.client() as client:
                await client.account_url()

    async def test_contacts_can_be_changed(self) -> None:
        store = MemoryStore()
        async with stage() as scene:
            async with scene.client(store=store, contact="ops@ca.internal") as client:
                url = await client.account_url()
                await client.update_account(["mailto:team@ca.internal"])
            async with scene.client(store=store, contact=["new@ca.internal"]) as client:
                assert await client.account_url() == url
            (record,) = scene.ca.store.find("account")
            assert json.loads(record.body)["contact"] == ["mailto:new@ca.internal"]

    async def test_the_key_can_be_changed(self) -> None:
        store = MemoryStore()
        async with stage() as scene:
            async with scene.client(store=store) as client:
                url = await client.account_url()
                await client.change_account_key(KeyType.ED25519)
                await client.issue("a.internal")
            async with scene.client(store=store) as client:
                assert await client.account_url() == url
                await client.issue("a.internal")

    @pytest.mark.parametrize("arrived", [True, False])
    async def test_a_key_change_that_was_cut_short_loses_nothing(self, arrived: bool) -> None:
        def cut(request: httpx.Request, answer: Answer) -> Answer:
            if request.url.path.startswith("/key-change"):
                raise httpx.ReadError("the plug was pulled", request=request)
            return answer

        store = MemoryStore()
        async with stage() as scene:
            async with scene.client(store=store) as client:
                url = await client.account_url()
                scene.way.changes.append(cut)
                scene.way.down = not arrived
                with pytest.raises((ClientError, Problem)):
                    await client.change_account_key()
            scene.way.changes.clear()
            scene.way.down = False
            async with scene.client(store=store) as client:
                assert await client.account_url() == url
                await client.issue("a.internal")

    @pytest.mark.parametrize("lost", [None, problem(502, "serverInternal")])
    async def test_a_key_change_whose_answer_was_lost_has_happened(self, lost: Answer | None) -> None:
        """The request is sent again, signed with a key that is not the account's any more, and refused; or somebody in
        between says that it failed."""
        answers = [lost]

        def lose(request: httpx.Request, answer: Answer) -> Answer:
            if not request.url.path.startswith("/key-change") or not answers:
                return answer
            if instead := answers.pop():
                return instead
            raise httpx.ReadError("connection reset", request=request)

        store = MemoryStore()
        async with stage() as scene:
            async with scene.client(store=store) as client:
                url = await client.account_url()
                before = store.find("accounts")[0].files["account.key"]
                scene.way.changes.append(lose)
                await client.change_account_key()
            files = store.find("accounts")[0].files
            assert files.keys() == {"account.key"}
            assert files["account.key"] != before
            async with scene.client(store=store) as client:
                assert await client.account_url() == url
                await client.issue("a.internal")

    async def test_a_key_that_is_being_changed_is_not_lost_to_whoever_looks_on(self) -> None:
        """Another process finds both keys in the store, and that the old one is the account's as yet."""

        class Between(httpx.AsyncBaseTransport):
            async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
                if request.url.path.startswith("/key-change"):
                    async with scene.client(store=store) as other:
                        assert await other.account_url() == url
                return await real.handle_async_request(request)

        store = MemoryStore()
        async with stage() as scene:
            async with scene.client(store=store) as client:
                url = await client.account_url()
                real, scene.way.inner = scene.way.inner, Between()  # type: ignore[assignment]
                await client.change_account_key()
            async with scene.client(store=store) as client:
                assert await client.account_url() == url
                await client.issue("a.internal")

    async def test_a_key_change_that_is_refused_leaves_everything_as_it_was(self) -> None:
        store = MemoryStore()
        async with stage() as scene, scene.client(store=store) as client:
            scene.way.changes.append(rewritten("/directory", keyChange=f"{BASE}/new-nonce"))
            url = await client.account_url()
            before = store.find("accounts")[0].files
            with pytest.raises(Problem, match="malformed"):
                await client.change_account_key()
            assert store.find("accounts")[0].files == before
            await client.issue("a.internal")
            assert await client.account_url() == url

    async def test_an_end_whose_answer_was_lost_is_one(self) -> None:
        lost = [True]

        def lose(request: httpx.Request, answer: Answer) -> Answer:
            if request.url.path.startswith("/acct/") and lost:
                lost.clear()
                raise httpx.ReadError("connection reset", request=request)
            return answer

        async with stage() as scene, scene.client() as client:
            url = await client.account_url()
            scene.way.changes.append(lose)
            await client.deactivate_account()
            assert await client.account_url() != url
            await client.issue("a.internal")

    async def test_an_end_that_is_refused_is_none(self) -> None:
        class Refuses(httpx.AsyncBaseTransport):
            async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
                if not request.url.path.startswith("/acct/"):
                    return await real.handle_async_request(request)
                status, headers, body = problem(403, "unauthorized", "not today")
                return httpx.Response(status, headers=dict(headers), content=body)

        async with stage() as scene, scene.client() as client:
            url = await client.account_url()
            real, scene.way.inner = scene.way.inner, Refuses()  # type: ignore[assignment]
            with pytest.raises(Problem, match="not today"):
                await client.deactivate_account()
            assert await client.account_url() == url
            await client.issue("a.internal")

    async def test_a_stranger_s_refusal_is_no_end(self) -> None:
        """Something between lets nobody through: it knows nothing about accounts."""

        class Forbids(httpx.AsyncBaseTransport):
            async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
                if request.method != "POST":
                    return await real.handle_async_request(request)
                return httpx.Response(status, stream=httpx.ByteStream(b"<h1>Access denied</h1>"))

        async with stage() as scene, scene.client() as client:
            url = await client.account_url()
            real, scene.way.inner = scene.way.inner, Forbids()  # type: ignore[assignment]
            for status in (401, 403):
                with pytest.raises(Problem, match=f"the server answered {status}"):
                    await client.deactivate_account()
            scene.way.inner = real
            assert await client.account_url() == url

    async def test_a_deactivated_account_is_followed_by_a_new_one(self) -> None:
        store = MemoryStore()
        async with stage() as scene:
            async with scene.client(store=store) as client:
                url = await client.account_url()
                await client.deactivate_account()
                assert await client.account_url() != url
            async with scene.client(store=store) as client:
                assert await client.account_url() != url
                await client.issue("a.internal")


class TestRevocation:
    async def test_by_the_account(self) -> None:
        async with stage() as scene, scene.client() as client:
            bundle = await client.issue("a.internal")
            await client.revoke(bundle, "superseded")
            (certificate,) = scene.ca.certificates()
            assert (certificate.status, certificate.reason) == ("revoked", 4)
            with pytest.raises(Problem) as caught:
                await client.revoke(bundle.cert_pem)
            assert caught.value.type is ProblemType.ALREADY_REVOKED

    async def test_by_whoever_has_its_key(self) -> None:
        async with stage() as scene:
            async with scene.client() as owner:
                bundle = await owner.issue("a.internal")
            async with scene.client() as other:
                der = x509.load_pem_x509_certificate(bundle.cert_pem).public_bytes(Encoding.DER)
                with pytest.raises(Problem):
                    await other.revoke(der)
                await other.revoke(der, 1, key_pem=bundle.key_pem)
            assert scene.ca.certificates()[0].status == "revoked"

    async def test_reasons_and_certificates_that_are_none(self) -> None:
        async with stage() as scene, scene.client() as client:
            bundle = await client.issue("a.internal")
            with pytest.raises(ClientError, match=r"usable are 0 \(unspecified\), 1"):
                await client.revoke(bundle, "boredom")
            with pytest.raises(ClientError, match="not a certificate"):
                await client.revoke(b"nonsense")


class TestAlternates:
    async def test_the_chain_of_the_issuer_that_is_preferred(self) -> None:
        """The responder has one chain, so another is put beside it: the same leaf, and no root."""

        def with_alternate(request: httpx.Request, answer: Answer) -> Answer:
            if request.url.path.startswith("/cert/") and not request.url.query:
                links = f'<{BASE}/directory>;rel="index", <{request.url}?alternate>; rel="alternate"'
                return answer[0], {**answer[1], "link": links}, answer[2]
            return answer

        async with stage() as scene, scene.client() as client:
            scene.way.changes.append(with_alternate)
            await client.issue("a.internal", preferred_chain="privet Internal CA")
            assert scene.way.paths().count("cert") == 1
            await client.issue("a.internal", preferred_chain="Some Other Root")
            assert scene.way.paths().count("cert") == 3


class TestTrust:
    async def test_a_root_known_by_its_fingerprint(self) -> None:
        async with stage() as scene, scene.client(ca_fingerprint=scene.ca.fingerprint) as client:
            bundle = await client.issue("a.internal")
            assert bundle.fullchain_pem.endswith(scene.ca.root_cert_pem)
            assert scene.way.requests[0].url.path == "/ca.pem"

    async def test_another_root_is_not_talked_to(self) -> None:
        other = CertificateAuthority(MemoryStore())
        other.init()
        async with stage() as scene, scene.client(ca_fingerprint=other.fingerprint) as client:
            with pytest.raises(ClientError, match="another CA, or somebody in between"):
                await client.issue("a.internal")
            assert [each.url.path for each in scene.way.requests] == ["/ca.pem"]

    async def test_what_is_issued_has_to_come_from_that_root(self) -> None:
        other = CertificateAuthority(MemoryStore(), now=Clock())
        other.init(cn="privet Internal CA")

        async with stage() as scene, scene.client(ca_fingerprint=other.fingerprint) as client:
            scene.way.changes.append(on("/ca.pem", (200, {}, other.root_cert_pem)))
            with pytest.raises(ClientError, match="did not sign"):
                await client.issue("a.internal")

    @pytest.mark.parametrize("answer", [(404, {}, b""), (200, {}, b"nonsense"), (200, {}, b"x" * 300_000)])
    async def test_a_root_that_is_none(self, answer: Answer) -> None:
        async with stage() as scene, scene.client(ca_fingerprint=scene.ca.fingerprint) as client:
            scene.way.changes.append(on("/ca.pem", answer))
            with pytest.raises(ClientError, match=r"root|certificate"):
                await client.issue("a.internal")

    async def test_a_root_that_no_parser_takes_is_a_sentence(self) -> None:
        """Of version 2, which is none of the errors that a parser usually has."""
        async with stage() as scene:
            der = ssl.PEM_cert_to_DER_cert(scene.ca.root_cert_pem.decode())
        odd = ssl.DER_cert_to_PEM_cert(der.replace(b"\xa0\x03\x02\x01\x02", b"\xa0\x03\x02\x01\x01", 1)).encode()
        stranger = httpx.MockTransport(lambda _: httpx.Response(200, stream=httpx.ByteStream(odd)))
        with pytest.raises(ClientError, match="is not a certificate in PEM"):
            await fetch_roots(DIRECTORY, transport=stranger)
        with pytest.raises(ClientError, match="has no certificate in PEM"):
            trust_in(odd)

    async def test_a_root_that_never_comes_to_its_end_is_not_waited_for(self) -> None:
        async with trickling() as url:
            with pytest.raises(ClientError, match=r"took longer than 0\.5 seconds"):
                await fetch_roots(f"{url}/directory", patience=0.5)

    async def test_fingerprints_as_people_write_them(self) -> None:
        async with stage() as scene:
            for text in (
                scene.ca.fingerprint,
                scene.ca.fingerprint.lower().replace(":", ""),
                f"SHA256:{scene.ca.fingerprint}",
            ):
                async with scene.client(ca_fingerprint=text) as client:
                    await client.account_url()
            async with scene.client(ca_fingerprint="12:34") as client:
                with pytest.raises(ClientError, match="64 hexadecimal digits"):
                    await client.account_url()

    async def test_a_bundle_has_to_be_one(self, tmp_path: Path) -> None:
        async with stage() as scene:
            for bundle in (b"nonsense", tmp_path / "missing.pem", scene.ca.root_cert_pem[:-40]):
                async with scene.client(ca_bundle=bundle) as client:
                    with pytest.raises(ClientError, match="ca_bundle"):
                        await client.account_url()
            with pytest.raises(ClientError, match="one of them"):
                scene.client(ca_bundle=b"x", ca_fingerprint="x")


class TestWithoutAsync:
    def test_the_same_verbs(self) -> None:
        clock = Clock()
        store = MemoryStore()
        ca = CertificateAuthority(store, now=clock)
        ca.init()
        transport = httpx.ASGITransport(ACMEResponder(ca, auto_approve=True, now=clock))
        with SyncClient(DIRECTORY, allow_insecure=True, transport=transport, now=clock) as client:
            bundle = client.issue(["a.internal", "10.0.0.1"])
            assert client.ensure(["a.internal", "10.0.0.1"]).serial == bundle.serial
            assert client.renewal_info(bundle) is None
            assert client.account_url().startswith(BASE)
            client.change_account_key()
            client.auto_renew()
            client.revoke(bundle)
        assert ca.certificates()[0].status == "revoked"

    def test_a_problem_comes_through(self) -> None:
        def down(request: httpx.Request) -> httpx.Response:
            raise httpx.ConnectError("nobody is there", request=request)

        with (
            SyncClient(DIRECTORY, allow_insecure=True, transport=httpx.MockTransport(down)) as client,
            pytest.raises(ClientError, match="nobody is there"),
        ):
            client.issue("a.internal")
