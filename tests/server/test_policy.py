"""Policies: who is asked, what they are told, and what their answers do."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any
from urllib.parse import quote

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding
from tests.server.conftest import Scene, Stage
from tests.wire import BASE, Wire, problem_of

from privet import (
    ACMEResponder,
    Applicant,
    ClientCertificate,
    Decision,
    KeyType,
    Limits,
    Policy,
    Problem,
    ProblemType,
    Ruling,
)
from privet.acme.identifiers import Identifier, IdentifierType, from_text
from privet.acme.problems import Subproblem
from privet.server.records import Authorization, Order

pytestmark = pytest.mark.anyio


class Plain:
    """A policy that answers at once what it is told to, and notes who asked for what."""

    def __init__(self, account: object = None, order: object = Decision.TRUST) -> None:
        self.account, self.order = account, order
        self.asked: list[tuple[Applicant, tuple[str, ...]]] = []

    def allow_account(self, applicant: Applicant) -> None:
        self.asked.append((applicant, ()))
        say(self.account)

    def allow_order(self, applicant: Applicant, identifiers: Sequence[Identifier]) -> Decision:
        self.asked.append((applicant, tuple(map(str, identifiers))))
        decision: Decision = say(self.order)
        return decision


class Pondering(Plain):
    """The same, after some thought."""

    async def allow_account(self, applicant: Applicant) -> None:  # type: ignore[override]
        await asyncio.sleep(0)
        super().allow_account(applicant)

    async def allow_order(  # type: ignore[override]
        self, applicant: Applicant, identifiers: Sequence[Identifier]
    ) -> Decision:
        await asyncio.sleep(0)
        return super().allow_order(applicant, identifiers)


def say(answer: Any) -> Any:
    if isinstance(answer, Exception):
        raise answer
    return answer


KINDS = pytest.mark.parametrize("kind", [Plain, Pondering])


@KINDS
async def test_a_policy_may_be_plain_or_async(stage: Stage, kind: Callable[..., Policy]) -> None:
    async with stage(policy=kind()) as scene:
        wire = await scene.account()
        assert (await wire.issue("a.internal")).startswith(b"-----BEGIN")


@KINDS
async def test_a_policy_decides_what_has_to_be_proved(stage: Stage, kind: Callable[..., Plain]) -> None:
    for answer in (Decision.TRUST, Decision.PROVE, Decision.ASK):
        status = "ready" if answer is Decision.TRUST else "pending"
        async with stage(policy=kind(order=answer)) as scene:
            wire = await scene.account()
            assert (await wire.order("a.internal")).json()["status"] == status
            made = await wire.post("new-authz", {"identifier": {"type": "dns", "value": "a.internal"}})
            assert made.json()["status"] == ("valid" if status == "ready" else "pending")


@KINDS
async def test_a_policy_that_refuses_says_why(stage: Stage, kind: Callable[..., Plain]) -> None:
    rejected = Identifier(IdentifierType.DNS, "b.internal")
    no = Problem(
        ProblemType.REJECTED_IDENTIFIER,
        "b.internal is not for you",
        subproblems=[Subproblem(ProblemType.REJECTED_IDENTIFIER, "b.internal is not for you", rejected)],
    )
    async with stage(policy=kind(order=no)) as scene:
        wire = await scene.account()
        refused = await wire.order("a.internal", "b.internal")
        assert problem_of(refused) == (403, "rejectedIdentifier")
        assert refused.json()["detail"] == "b.internal is not for you"
        assert [each["identifier"]["value"] for each in refused.json()["subproblems"]] == ["b.internal"]
        ahead = await wire.post("new-authz", {"identifier": {"type": "dns", "value": "b.internal"}})
        assert problem_of(ahead) == (403, "rejectedIdentifier")
        assert scene.store.find("order") + scene.store.find("authorization") == []
    async with stage(policy=kind(account=Problem(ProblemType.UNAUTHORIZED, "we do not know you"))) as scene:
        refused = await scene.stranger().post("new-account", {})
        assert (problem_of(refused), refused.json()["detail"]) == ((403, "unauthorized"), "we do not know you")
        assert scene.store.find("account") == []


@KINDS
async def test_a_policy_that_fails_has_said_no(stage: Stage, kind: Callable[..., Plain]) -> None:
    for error in (RuntimeError("the secret of the vault"), KeyError("secret"), Exception()):
        async with stage(policy=kind(order=error)) as scene:
            wire = await scene.account()
            refused = await wire.order("a.internal")
            assert problem_of(refused) == (500, "serverInternal")
            assert refused.json()["detail"] == "whether this is allowed could not be decided"
            ahead = await wire.post("new-authz", {"identifier": {"type": "dns", "value": "a.internal"}})
            assert problem_of(ahead) == (500, "serverInternal")
            assert scene.store.find("order") + scene.store.find("authorization") == []
        async with stage(policy=kind(account=error)) as scene:
            assert problem_of(await scene.stranger().post("new-account", {})) == (500, "serverInternal")
            assert scene.store.find("account") == []


async def test_a_policy_is_told_who_asks_for_what(stage: Stage) -> None:
    policy = Plain()
    async with stage(policy=policy) as scene:
        wire = await scene.account(contact=["mailto:a@example.org"])
        await wire.order("a.internal", "*.a.internal", "10.0.0.1", "a.internal")
        await wire.post("new-authz", {"identifier": {"type": "dns", "value": "b.internal"}})
        assert wire.kid
        contact = ("mailto:a@example.org",)
        known = Applicant(wire.kid.rsplit("/", 1)[1], contact, None, "127.0.0.1")
        assert policy.asked == [
            (Applicant(None, contact, None, "127.0.0.1"), ()),
            (replace(known, profile="default"), ("a.internal", "*.a.internal", "10.0.0.1")),
            (known, ("b.internal",)),
        ]


async def test_a_policy_is_asked_about_what_is_new_and_what_is_to_be_signed(stage: Stage) -> None:
    policy = Plain()
    async with stage(policy=policy, terms_of_service="https://ca.internal/terms") as scene:
        wire = scene.stranger()
        # Not about what is refused anyway,
        await wire.post("new-account", {})
        await wire.post("new-account", {"onlyReturnExisting": True})
        await wire.post("new-account", {"termsOfServiceAgreed": True, "contact": ["tel:110"]})
        assert policy.asked == []
        await wire.register()
        assert len(policy.asked) == 1
        # nor about an account that is there,
        await wire.register()
        assert wire.kid
        await wire.post(wire.kid, {"contact": []})
        assert len(policy.asked) == 1
        # nor about orders that nobody could fulfil,
        for payload in ({}, {"identifiers": [{"type": "dns", "value": "-"}]}):
            await wire.post("new-order", payload)
            await wire.post("new-authz", payload)
        await wire.order("a.internal", notAfter="2020-01-01T00:00:00Z")
        assert len(policy.asked) == 1
        # nor when an order that was allowed is looked at, but once more when it is finalized.
        ordered = await wire.order("a.internal")
        assert len(policy.asked) == 2
        await wire.post(ordered.headers["location"])
        await wire.post(ordered.json()["authorizations"][0])
        assert (await wire.finalize(ordered.json())).json()["status"] == "valid"
        assert len(policy.asked) == 3


async def test_a_policy_may_trust_some_names_and_not_others(stage: Stage) -> None:
    class Ours:
        def allow_account(self, applicant: Applicant) -> None:
            return None

        def allow_order(
            self, applicant: Applicant, identifiers: Sequence[Identifier]
        ) -> Awaitable[Decision] | Decision:
            ours = all(identifier.value.endswith(".ours.internal") for identifier in identifiers)
            return Decision.TRUST if ours else Decision.PROVE

    async with stage(policy=Ours()) as scene:
        wire = await scene.account()
        assert (await wire.order("a.ours.internal", "b.ours.internal")).json()["status"] == "ready"
        assert (await wire.order("a.ours.internal", "b.internal")).json()["status"] == "pending"
        # What was proved ahead is no way around it, and what is trusted needs no proof ahead.
        assert (await wire.order("a.ours.internal.evil.internal")).json()["status"] == "pending"


# --- one answer for each name ---


def named(*names: str) -> list[Identifier]:
    return [from_text(name) for name in names]


async def test_each_name_may_have_its_own_answer_and_its_rule_is_on_record(
    stage: Stage, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "privet")
    trusted, proved, asked = named("a.internal", "b.internal", "c.internal")
    answer = {
        trusted: Ruling(Decision.TRUST, "the inventory"),
        proved: Decision.PROVE,
        asked: Ruling(Decision.ASK, "four eyes"),
    }
    async with stage(policy=Plain(order=answer), challenge_validator=Convinced()) as scene:
        wire = await scene.account()
        ordered = await wire.order("a.internal", "b.internal", "c.internal")
        looks = [(await wire.post(url)).json() for url in ordered.json()["authorizations"]]
        assert [look["status"] for look in looks] == ["valid", "pending", "pending"]
        kept = [Authorization.from_record(record) for record in scene.store.find("authorization")]
        assert {str(each.identifier): each.ruling for each in kept} == {
            "a.internal": (Decision.TRUST, "the inventory"),
            "b.internal": (Decision.PROVE, ""),
            "c.internal": (Decision.ASK, "four eyes"),
        }
        assert {str(each.identifier): each.ruling.rule for each in await scene.responder.pending()} == {
            "b.internal": "",
            "c.internal": "four eyes",
        }
        # The order outlives its authorizations, and says so too.
        (order,) = [Order.from_record(record) for record in scene.store.find("order")]
        assert [each.rule for each in order.rulings] == ["the inventory", "", "four eyes"]
        assert "a.internal: trust by 'the inventory'" in caplog.text
        assert "c.internal: ask by 'four eyes'" in caplog.text


class Convinced:
    """A validator for whom everything is proved."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    async def validate(self, identifier: str, identifier_type: str, token: str, key_authorization: str) -> bool:
        self.asked.append(identifier)
        return True


async def test_a_rule_by_any_name_is_a_line_in_the_log(stage: Stage, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "privet")
    rule = "x\n2026-01-01T00:00:00Z INFO issued everything"
    async with stage(policy=Plain(order=Ruling(Decision.TRUST, rule))) as scene:
        wire = await scene.account()
        assert (await wire.order("a.internal")).json()["status"] == "ready"
    assert rule not in caplog.text


async def test_what_a_person_is_to_decide_waits_although_it_could_be_proved(stage: Stage) -> None:
    validator = Convinced()
    async with stage(policy=Plain(order=Decision.ASK), challenge_validator={"http-01": validator}) as scene:
        wire = await scene.account()
        # A person needs no challenge, so a wildcard waits too where only http-01 is validated.
        ordered = await wire.order("a.internal", "*.b.internal")
        urls = ordered.json()["authorizations"]
        for url in urls:
            challenge = (await wire.post(url)).json()["challenges"][0]
            for _ in range(2):
                answered = await wire.post(challenge["url"], {})
                assert (answered.json()["status"], answered.headers["retry-after"]) == ("processing", "10")
            assert (await wire.post(url)).headers["retry-after"] == "10"
        # Nobody takes it up as a validation that was cut short, however late it is.
        scene.clock.forward(hours=1)
        assert (await wire.post(ordered.headers["location"])).json()["status"] == "pending"
        assert validator.asked == []
        waiting = {str(each.identifier): each.id for each in await scene.responder.pending()}
        await scene.responder.approve(waiting["a.internal"])
        assert (await wire.post(ordered.headers["location"])).json()["status"] == "pending"
        await scene.responder.approve(waiting["*.b.internal"])
        assert (await wire.post(ordered.headers["location"])).json()["status"] == "ready"
        assert (await wire.finalize(ordered.json())).json()["status"] == "valid"
        assert validator.asked == []


async def test_what_a_person_approved_ahead_serves_every_order_until_it_expires(stage: Stage) -> None:
    async with stage(policy=Plain(order=Decision.ASK)) as scene:
        wire = await scene.account()
        ahead = await wire.post("new-authz", {"identifier": {"type": "dns", "value": "a.internal"}})
        (waiting,) = await scene.responder.pending()
        await scene.responder.approve(waiting.id)
        for _ in range(2):
            order = (await wire.order("a.internal")).json()
            assert (order["authorizations"], order["status"]) == ([ahead.headers["location"]], "ready")
            assert (await wire.finalize(order)).json()["status"] == "valid"
        scene.clock.time = datetime.fromisoformat((await wire.post(ahead.headers["location"])).json()["expires"])
        wire.nonce = None  # as old as that
        assert (await wire.order("a.internal")).json()["status"] == "pending"


async def test_names_that_an_answer_leaves_out_are_refused_and_all_of_them_named(stage: Stage) -> None:
    (allowed,) = named("a.internal")
    async with stage(policy=Plain(order={allowed: Decision.TRUST})) as scene:
        wire = await scene.account()
        refused = await wire.order("a.internal", "b.internal", "c.internal")
        assert problem_of(refused) == (403, "rejectedIdentifier")
        found = refused.json()["subproblems"]
        assert [each["identifier"]["value"] for each in found] == ["b.internal", "c.internal"]
        assert scene.store.find("order") + scene.store.find("authorization") == []


@KINDS
@pytest.mark.parametrize(
    "nonsense",
    [
        None,
        True,
        "trust",
        Ruling("trust"),  # type: ignore[arg-type]
        Ruling(Decision.TRUST, 7),  # type: ignore[arg-type]
        (Decision.TRUST, "the form of a ruling, and none"),
        {from_text("a.internal"): "trust"},
        {from_text("a.internal"): None},
        {"a.internal": Decision.TRUST},
        {from_text("a.internal"): Decision.TRUST, "b.internal": Decision.TRUST},
        [Decision.TRUST],
        Decision,
    ],
    ids=repr,
)
async def test_what_nobody_understands_is_a_no(stage: Stage, kind: Callable[..., Plain], nonsense: object) -> None:
    """Lesson 2: deny by default."""
    async with stage(policy=kind(order=nonsense)) as scene:
        wire = await scene.account()
        assert problem_of(await wire.order("a.internal")) == (500, "serverInternal")
        ahead = await wire.post("new-authz", {"identifier": {"type": "dns", "value": "a.internal"}})
        assert problem_of(ahead) == (500, "serverInternal")
        assert scene.store.find("order") + scene.store.find("authorization") == []


async def test_an_answer_by_texts_says_what_is_wrong_with_it(stage: Stage, caplog: pytest.LogCaptureFixture) -> None:
    async with stage(policy=Plain(order={"a.internal": Decision.TRUST})) as scene:
        await (await scene.account()).order("a.internal")
    assert "a policy answered for 'a.internal', a str; the keys have to be identifiers" in caplog.text


async def test_a_method_that_nobody_calls_is_worth_a_word(stage: Stage, caplog: pytest.LogCaptureFixture) -> None:
    class Misspelled(Plain):
        def allow_certificates(self) -> None: ...

    async with stage(policy=Plain()):
        assert caplog.text == ""
    async with stage(policy=Misspelled()):
        assert "the policy Misspelled has allow_certificates, which nobody calls: there are allow_acc" in caplog.text


async def test_an_account_is_not_let_in_by_a_policy_that_says_false(stage: Stage) -> None:
    class Answering(Plain):
        def allow_account(self, applicant: Applicant) -> Any:
            return self.account

    for answer, allowed in ((None, True), (True, True), (False, False), ("no", False), (0, False)):
        async with stage(policy=Answering(account=answer)) as scene:
            response = await scene.stranger().register()
            assert response.status_code == (201 if allowed else 500)


async def test_a_policy_that_never_answers_has_said_no(stage: Stage, caplog: pytest.LogCaptureFixture) -> None:
    class Lost(Plain):
        async def allow_order(  # type: ignore[override]
            self, applicant: Applicant, identifiers: Sequence[Identifier]
        ) -> Decision:
            await asyncio.Event().wait()
            return Decision.TRUST

    async with stage(policy=Lost(), limits=Limits(policy=timedelta(milliseconds=10))) as scene:
        wire = await scene.account()
        assert problem_of(await wire.order("a.internal")) == (500, "serverInternal")
        assert scene.store.find("order") == []
    assert "the policy failed" in caplog.text


async def test_a_policy_that_swallows_its_cancellation_holds_its_request(stage: Stage) -> None:
    late, answer = asyncio.Event(), asyncio.Event()

    class Stubborn(Plain):
        async def allow_order(  # type: ignore[override]
            self, applicant: Applicant, identifiers: Sequence[Identifier]
        ) -> Decision:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                late.set()
            await answer.wait()
            return Decision.TRUST

    async with stage(policy=Stubborn(), limits=Limits(policy=timedelta(milliseconds=10))) as scene:
        wire = await scene.account()
        ordering = asyncio.create_task(wire.order("a.internal"))
        await late.wait()
        assert not ordering.done()
        answer.set()
        await ordering


async def test_a_policy_that_is_cancelled_inside_has_said_no(stage: Stage) -> None:
    class Cancelled(Plain):
        async def allow_order(  # type: ignore[override]
            self, applicant: Applicant, identifiers: Sequence[Identifier]
        ) -> Decision:
            raise asyncio.CancelledError

    async with stage(policy=Cancelled()) as scene:
        wire = await scene.account()
        assert problem_of(await wire.order("a.internal")) == (500, "serverInternal")


async def test_what_was_trusted_ahead_has_to_be_proved_once_it_is_trusted_no_more(stage: Stage) -> None:
    policy = Plain(order=Decision.TRUST)
    async with stage(policy=policy, challenge_validator=Convinced()) as scene:
        wire = await scene.account()
        ahead = {"identifier": {"type": "dns", "value": "a.internal"}}
        assert (await wire.post("new-authz", ahead)).json()["status"] == "valid"
        for decision in (Decision.PROVE, Decision.ASK):
            policy.order = decision
            assert (await wire.order("a.internal")).json()["status"] == "pending"
        # And what was proved is no way around a person.
        policy.order = Decision.PROVE
        made = (await wire.post("new-authz", ahead)).json()
        assert (await wire.post(made["challenges"][0]["url"], {})).json()["status"] == "valid"
        assert (await wire.order("a.internal")).json()["status"] == "ready"
        policy.order = Decision.ASK
        assert (await wire.order("a.internal")).json()["status"] == "pending"


# --- the certificate itself ---


class Strict(Plain):
    """A policy that is asked at the end, too."""

    def __init__(self, certificate: object = None) -> None:
        super().__init__()
        self.certificate = certificate
        self.told: list[tuple[Applicant, tuple[str, ...], KeyType]] = []

    def allow_certificate(self, applicant: Applicant, identifiers: Sequence[Identifier], key_type: KeyType) -> Any:
        self.told.append((applicant, tuple(map(str, identifiers)), key_type))
        return say(self.certificate)


async def test_a_policy_judges_the_key_and_the_lifetime_of_a_certificate(stage: Stage) -> None:
    policy = Strict()
    async with stage(policy=policy) as scene:
        wire = await scene.account()
        noon = scene.clock.time
        order = await wire.order("a.internal", notAfter=(noon + timedelta(hours=6)).isoformat())
        assert policy.asked[-1][0].lifetime == timedelta(hours=6)
        policy.certificate = Problem(ProblemType.BAD_CSR, "P-256 is out of fashion")
        assert problem_of(await wire.finalize(order.json())) == (400, "badCSR")
        (applicant, names, key_type) = policy.told[-1]
        assert (applicant.account, applicant.profile, applicant.lifetime) == (
            str(wire.kid).rsplit("/", 1)[1],
            "default",
            timedelta(hours=6),
        )
        assert (names, key_type) == (("a.internal",), KeyType.P256)
        for nonsense in (7, False, timedelta(0), timedelta(days=-1)):
            policy.certificate = nonsense
            assert problem_of(await wire.finalize(order.json())) == (500, "serverInternal")
        policy.certificate = timedelta(hours=5)
        assert problem_of(await wire.finalize(order.json())) == (403, "unauthorized")
        assert scene.ca.certificates() == []
        policy.certificate = timedelta(hours=7)
        assert (await wire.finalize(order.json())).json()["status"] == "valid"


@pytest.mark.parametrize(("allowed", "hours"), [(timedelta(hours=3), 3), (timedelta(days=300), 24), (None, 24)])
async def test_who_asks_for_no_lifetime_gets_what_the_policy_allows(
    stage: Stage, allowed: timedelta | None, hours: int
) -> None:
    async with stage(policy=Strict(allowed)) as scene:
        wire = await scene.account()
        await wire.issue("a.internal")
        (certificate,) = scene.ca.certificates()
        assert certificate.not_after - certificate.not_before == timedelta(hours=hours)


# --- the client's certificate ---


def shown(scene: Scene, extensions: object) -> Wire:
    """A client whose connections are told of in this way."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await scene.responder({**scope, "extensions": extensions}, receive, send)

    return Wire(httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url=BASE))


def certificate_of(scene: Scene, *names: str) -> x509.Certificate:
    return x509.load_pem_x509_certificate(scene.ca.issue(names, client=True, wildcard=True).cert_pem)


async def test_a_policy_is_told_of_the_clients_certificate(stage: Stage) -> None:
    policy = Plain()
    async with stage(policy=policy) as scene:
        certificate = certificate_of(scene, "host-1.internal", "10.0.0.7")
        pem = certificate.public_bytes(Encoding.PEM).decode()
        wire = shown(scene, {"tls": {"client_cert_chain": [pem], "client_cert_error": None}})
        await wire.register()
        await wire.order("a.internal")
        known = ClientCertificate(
            "host-1.internal",
            ("host-1.internal", "10.0.0.7"),
            certificate.fingerprint(SHA256()).hex(),
            certificate.issuer.rfc4514_string(),
        )
        assert [applicant.client_certificate for applicant, _ in policy.asked] == [known, known]
        # A connection may live for longer than the certificate that opened it.
        scene.clock.forward(days=2)
        wire.nonce = None
        await wire.order("b.internal")
        assert policy.asked[-1][0].client_certificate is None
        await wire.http.aclose()


@pytest.mark.parametrize(
    "change",
    [
        lambda pem: None,
        lambda pem: [],
        lambda pem: {},
        lambda pem: {"tls": None},
        lambda pem: {"tls": {}},
        lambda pem: {"tls": {"client_cert_chain": []}},
        lambda pem: {"tls": {"client_cert_chain": None}},
        lambda pem: {"tls": {"client_cert_chain": pem}},
        lambda pem: {"tls": {"client_cert_chain": [pem.encode()]}},
        lambda pem: {"tls": {"client_cert_chain": ["-----BEGIN CERTIFICATE-----"]}},
        lambda pem: {"tls": {"client_cert_chain": ["\ud800"]}},
        lambda pem: {"tls": {"client_cert_chain": [pem], "client_cert_error": "self-signed certificate"}},
        lambda pem: {"tls": {"client_cert_chain": [pem], "client_cert_error": ""}},
    ],
)
async def test_a_certificate_that_nobody_verified_is_none(stage: Stage, change: Callable[[str], object]) -> None:
    policy = Plain()
    async with stage(policy=policy) as scene:
        pem = certificate_of(scene, "host-1.internal").public_bytes(Encoding.PEM).decode()
        wire = shown(scene, change(pem))
        assert (await wire.register()).status_code == 201
        assert [applicant.client_certificate for applicant, _ in policy.asked] == [None]
        await wire.http.aclose()


async def test_no_header_is_a_client_certificate_or_an_address(stage: Stage) -> None:
    """Lesson 21: what a client writes says nothing about who it is."""
    policy = Plain()
    async with stage(policy=policy) as scene:
        pem = quote(certificate_of(scene, "host-1.internal").public_bytes(Encoding.PEM).decode())
        wire = scene.stranger()
        headers = {"X-Client-Cert": pem, "X-SSL-Client-Cert": pem, "Client-Cert": pem, "X-Real-IP": "10.0.0.1"}
        headers |= {"X-Forwarded-For": "10.0.0.1", "Forwarded": "for=10.0.0.1", "X-Forwarded-Client-Cert": pem}
        assert (await wire.post("new-account", {}, headers=headers)).status_code == 201
        ((applicant, _),) = policy.asked
        assert (applicant.client, applicant.client_certificate) == ("127.0.0.1", None)


STRICTER = [(Decision.TRUST, Decision.PROVE), (Decision.TRUST, Decision.ASK), (Decision.PROVE, Decision.ASK)]


@pytest.mark.parametrize(("then", "now"), STRICTER)
async def test_what_a_policy_wants_by_now_counts_when_an_order_is_finalized(
    stage: Stage, then: Decision, now: Decision
) -> None:
    async with stage(policy=Plain(order=then), challenge_validator=Convinced()) as scene:
        wire = await scene.account()
        ordered = (await wire.order("a.internal", "b.internal")).json()
        if then is Decision.PROVE:
            for url in ordered["authorizations"]:
                await wire.post((await wire.post(url)).json()["challenges"][0]["url"], {})
        stricter = ACMEResponder(
            scene.ca, policy=Plain(order=now), challenge_validator=Convinced(), now=scene.clock, external_url=scene.base
        )
        async with scene.at(stricter) as wire.http:
            refused = await wire.finalize(ordered)
            assert problem_of(refused) == (403, "unauthorized")
            named = [each["identifier"]["value"] for each in refused.json()["subproblems"]]
            assert named == ["a.internal", "b.internal"]
        assert scene.store.find("certificate") == []
        # Where nothing more is wanted, it is the same order still.
        wire.http = scene.http
        assert (await wire.finalize(ordered)).json()["status"] == "valid"


@pytest.mark.parametrize(("now", "then"), STRICTER)
async def test_a_policy_that_wants_less_by_now_is_no_obstacle(stage: Stage, now: Decision, then: Decision) -> None:
    async with stage(policy=Plain(order=then), challenge_validator=Convinced()) as scene:
        wire = await scene.account()
        ordered = (await wire.order("a.internal")).json()
        await wire.post((await wire.post(ordered["authorizations"][0])).json()["challenges"][0]["url"], {})
        for waiting in await scene.responder.pending():
            await scene.responder.approve(waiting.id)
        laxer = ACMEResponder(scene.ca, policy=Plain(order=now), challenge_validator=Convinced(), now=scene.clock)
        async with scene.at(laxer) as wire.http:
            assert (await wire.finalize(ordered)).json()["status"] == "valid"
