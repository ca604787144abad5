"""Validators: what they are told, whatever they do, and how long they take over it."""

import asyncio
from collections.abc import Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import timedelta
from typing import Any

import httpx
import pytest
from tests.server.conftest import Scene, Stage
from tests.wire import BASE, Wire, problem_of, thumbprint_of

from privet import (
    ACMEResponder,
    CertificateAuthority,
    ChallengeValidator,
    Limits,
    MemoryStore,
    Problem,
    ProblemType,
    Rate,
    Record,
    StoreError,
)

pytestmark = pytest.mark.anyio


class Answers:
    """A validator that says, raises or waits for what it is told to, and notes what it was asked."""

    def __init__(self, answer: object = True) -> None:
        self.answer = answer
        self.asked: list[tuple[str, str, str, str]] = []

    async def validate(self, identifier: str, identifier_type: str, token: str, key_authorization: str) -> bool:
        self.asked.append((identifier, identifier_type, token, key_authorization))
        if isinstance(self.answer, BaseException):
            raise self.answer
        return self.answer  # type: ignore[return-value]


class Slow:
    """A validator that takes until it is let go."""

    def __init__(self, answer: bool = True) -> None:
        self.answer = answer
        self.reached = asyncio.Event()
        self.gate = asyncio.Event()
        self.begun = 0

    async def validate(self, identifier: str, identifier_type: str, token: str, key_authorization: str) -> bool:
        self.begun += 1
        self.reached.set()
        await self.gate.wait()
        return self.answer


async def challenges_of(wire: Wire, *names: str) -> tuple[httpx.Response, list[list[dict[str, Any]]]]:
    """A new order, and the challenges of each of its authorizations."""
    ordered = await wire.order(*names)
    authorizations = [(await wire.post(url)).json() for url in ordered.json()["authorizations"]]
    return ordered, [authorization["challenges"] for authorization in authorizations]


async def settled(wire: Wire, url: str) -> dict[str, Any]:
    """What becomes of an authorization that somebody is at: asked for until it is decided."""
    while (look := (await wire.post(url)).json())["status"] == "pending":
        pass
    return dict(look)


# --- what they are told ---


async def test_a_validator_is_told_what_to_look_for(stage: Stage) -> None:
    """`key_authorization` was always empty; the challenge type was not told. Here it is the real one."""
    validators = {type: Answers() for type in ("http-01", "dns-01", "tls-alpn-01")}
    async with stage(challenge_validator=validators) as scene:
        wire = await scene.account()
        names = {
            "a.internal": ("a.internal", "dns", "tls-alpn-01"),
            "*.b.internal": ("b.internal", "dns", "dns-01"),
            "10.0.0.1": ("10.0.0.1", "ip", "http-01"),
            "fd00::1": ("fd00::1", "ip", "tls-alpn-01"),
        }
        ordered, challenges = await challenges_of(wire, *names)
        for offered, (name, kind, type) in zip(challenges, names.values(), strict=True):
            (challenge,) = [each for each in offered if each["type"] == type]
            assert (await wire.post(challenge["url"], {})).json()["status"] == "valid"
            token = challenge["token"]
            assert validators[type].asked.pop() == (name, kind, token, f"{token}.{thumbprint_of(wire.key)}")
        assert [validator.asked for validator in validators.values()] == [[], [], []]
        assert (await wire.post(ordered.headers["location"])).json()["status"] == "ready"


async def test_one_validator_may_serve_all_types(stage: Stage) -> None:
    validator = Answers()
    assert isinstance(validator, ChallengeValidator)
    async with stage(challenge_validator=validator) as scene:
        wire = await scene.account()
        for number in range(3):
            _, (challenges,) = await challenges_of(wire, "a.internal")
            assert (await wire.post(challenges[number]["url"], {})).json()["status"] == "valid"
        assert len(validator.asked) == 3


# --- whatever they do, it is an answer ---


@pytest.mark.parametrize(
    ("answer", "type"),
    [
        *[(answer, "incorrectResponse") for answer in (False, None, 1, "yes", ["true"], object())],
        (RuntimeError("the secret of the resolver"), "serverInternal"),
        (KeyError("secret"), "serverInternal"),
        (TimeoutError("secret"), "connection"),
        (OSError("secret"), "serverInternal"),
        (asyncio.CancelledError("secret"), "serverInternal"),
        (Problem(ProblemType.DNS, "there is no a.internal"), "dns"),
        (Problem(ProblemType.TLS, "the handshake failed"), "tls"),
        (Problem(ProblemType.CAA, "the CAA record says no"), "caa"),
    ],
)
async def test_nothing_but_true_is_a_yes(stage: Stage, answer: object, type: str) -> None:
    async with stage(challenge_validator=Answers(answer)) as scene:
        wire = await scene.account()
        ordered, (challenges,) = await challenges_of(wire, "a.internal")
        answered = await wire.post(challenges[0]["url"], {})
        assert (answered.status_code, answered.json()["status"]) == (200, "invalid")
        error = answered.json()["error"]
        assert error["type"] == f"urn:ietf:params:acme:error:{type}"
        assert "secret" not in error["detail"]
        if isinstance(answer, Problem):
            assert error["detail"] == answer.detail
        order = (await wire.post(ordered.headers["location"])).json()
        assert (order["status"], order["error"]) == ("invalid", error)
        # It stays so: answering again gets the challenge as it is.
        again = await wire.post(challenges[0]["url"], {})
        assert (again.status_code, again.json()) == (200, answered.json())
        assert problem_of(await wire.post(challenges[1]["url"], {})) == (400, "malformed")


async def test_a_plain_function_is_no_validator(stage: Stage) -> None:
    class Plain:
        def validate(self, identifier: str, identifier_type: str, token: str, key_authorization: str) -> bool:
            return True

    async with stage(challenge_validator=Plain()) as scene:
        wire = await scene.account()
        _, (challenges,) = await challenges_of(wire, "a.internal")
        answered = (await wire.post(challenges[0]["url"], {})).json()
        assert (answered["status"], answered["error"]["type"].split(":")[-1]) == ("invalid", "serverInternal")


async def test_what_takes_too_long_has_failed(stage: Stage) -> None:
    async with stage(challenge_validator=Slow(), limits=Limits(validation=timedelta(0))) as scene:
        wire = await scene.account()
        _, (challenges,) = await challenges_of(wire, "a.internal")
        answered = (await wire.post(challenges[0]["url"], {})).json()
        assert answered["status"] == "invalid"
        assert answered["error"]["type"] == "urn:ietf:params:acme:error:connection"
        assert "longer than 0" in answered["error"]["detail"]


async def test_a_refusal_decides_at_once_whatever_the_others_are_at(stage: Stage) -> None:
    slow, no = Slow(), Answers(False)
    limits = Limits(patience=timedelta(0))
    async with stage(challenge_validator={"http-01": slow, "dns-01": no}, limits=limits) as scene:
        wire = await scene.account()
        ordered, (challenges,) = await challenges_of(wire, "a.internal")
        by_type = {challenge["type"]: challenge["url"] for challenge in challenges}
        assert (await wire.post(by_type["http-01"], {})).json()["status"] == "processing"
        await wire.post(by_type["dns-01"], {})
        (url,) = ordered.json()["authorizations"]
        assert (await settled(wire, url))["status"] == "invalid"
        slow.gate.set()
        assert (await settled(wire, url))["status"] == "invalid"
        assert (await wire.post(ordered.headers["location"])).json()["status"] == "invalid"


# --- slow ones ---

IMPATIENT = Limits(patience=timedelta(0))
LEASE = IMPATIENT.validation + timedelta(seconds=5)


async def test_a_slow_validation_goes_on_behind_the_reply(stage: Stage) -> None:
    """Validation inside the request for up to 40 s, no Retry-After anywhere: neither happens here."""
    slow = Slow()
    async with stage(challenge_validator=slow, limits=IMPATIENT) as scene:
        wire = await scene.account()
        ordered, (challenges,) = await challenges_of(wire, "a.internal")
        url = challenges[0]["url"]
        (authorization,) = ordered.json()["authorizations"]
        for _ in range(3):  # asking again, or looking, begins nothing anew
            for look in (await wire.post(url, {}), await wire.post(url), await wire.post(authorization)):
                assert look.status_code == 200
                assert int(look.headers["retry-after"]) == 2
        assert look.json()["status"] == "pending"
        assert look.json()["challenges"][0]["status"] == "processing"
        assert (await wire.post(ordered.headers["location"])).json()["status"] == "pending"
        assert problem_of(await wire.finalize(ordered.json())) == (403, "orderNotReady")
        assert slow.begun == 1
        slow.gate.set()
        assert (await settled(wire, authorization))["status"] == "valid"
        assert (await wire.post(url)).json()["status"] == "valid"
        assert (await wire.finalize(ordered.json())).json()["status"] == "valid"
        assert slow.begun == 1


async def test_what_there_is_no_room_for_waits_in_the_store(stage: Stage) -> None:
    """However many are under way, the memory they take has an end; nobody is refused for it, and nothing is lost."""
    slow = Slow()
    limits = replace(IMPATIENT, validations_at_once=2, validations_of_name=Rate(50, timedelta(hours=1)))
    async with stage(challenge_validator=slow, limits=limits) as scene:
        wire = await scene.account()
        ordered, all_challenges = await challenges_of(wire, *(f"{number}.internal" for number in range(5)))
        urls = [challenges[0]["url"] for challenges in all_challenges]
        for url in urls:
            answered = await wire.post(url, {})
            assert (answered.json()["status"], answered.headers["retry-after"]) == ("processing", "2")
        for url in (*urls, *ordered.json()["authorizations"], ordered.headers["location"]):  # asking makes no room
            assert (await wire.post(url)).status_code == 200
        assert (await wire.post(urls[4], {})).json()["status"] == "processing"
        assert (slow.begun, len(scene.responder._server.validating)) == (2, 2)
        slow.gate.set()
        for url in ordered.json()["authorizations"]:
            assert (await settled(wire, url))["status"] == "valid"
        assert slow.begun == 5
        assert (await wire.finalize(ordered.json())).json()["status"] == "valid"


async def test_what_waits_for_room_is_counted_as_well(stage: Stage) -> None:
    slow = Slow()
    limits = replace(IMPATIENT, validations_at_once=1, validations_of_name=Rate(1, timedelta(hours=1)))
    async with stage(challenge_validator=slow, limits=limits) as scene:
        wire = await scene.account()
        _, (first,) = await challenges_of(wire, "other.internal")
        await wire.post(first[0]["url"], {})
        answers = []
        for _ in range(4):
            _, (challenges,) = await challenges_of(wire, "a.internal")
            answers.append((await wire.post(challenges[0]["url"], {})).status_code)
        assert answers == [200, 200, 429, 429]  # one, and the share of a process
        slow.gate.set()


async def test_a_slow_refusal_arrives_too(stage: Stage) -> None:
    slow = Slow(answer=False)
    async with stage(challenge_validator=slow, limits=IMPATIENT) as scene:
        wire = await scene.account()
        ordered, (challenges,) = await challenges_of(wire, "a.internal")
        assert (await wire.post(challenges[0]["url"], {})).json()["status"] == "processing"
        slow.gate.set()
        refused = await settled(wire, ordered.json()["authorizations"][0])
        assert (refused["status"], refused["challenges"][0]["status"]) == ("invalid", "invalid")


async def test_who_has_the_lease_is_left_alone_until_it_lapses(stage: Stage) -> None:
    """A validation whose process died is taken up by another one that is asked; not before the lease has lapsed."""
    slow, other = Slow(), Answers()
    async with (
        stage(challenge_validator=slow, limits=IMPATIENT) as scene,
        elsewhere(scene, challenge_validator=other) as http,
    ):
        wire = await scene.account()
        ordered, (challenges,) = await challenges_of(wire, "a.internal")
        (url,) = ordered.json()["authorizations"]
        assert (await wire.post(challenges[0]["url"], {})).json()["status"] == "processing"
        there = Wire(http, BASE, wire.key, wire.kid)
        scene.clock.time += LEASE - timedelta(seconds=1)
        assert (await there.post(challenges[0]["url"], {})).json()["status"] == "processing"
        for look in (await there.post(url), await there.post(challenges[0]["url"])):
            assert look.headers["retry-after"] == "2"
        assert (await there.post(ordered.headers["location"])).json()["status"] == "pending"
        assert other.asked == []
        scene.clock.forward(seconds=1)
        assert (await there.post(url)).json()["status"] == "valid"
        assert len(other.asked) == 1
        # The one that was thought dead comes to the same end, and changes nothing.
        slow.gate.set()
        assert (await wire.post(ordered.headers["location"])).json()["status"] == "ready"


@pytest.mark.parametrize("asking", ["order", "authorization", "challenge", "answer", "finalize"])
async def test_whoever_asks_takes_up_what_was_cut_short(stage: Stage, asking: str) -> None:
    slow, other = Slow(), Answers()
    async with (
        stage(challenge_validator=slow, limits=IMPATIENT) as scene,
        elsewhere(scene, challenge_validator=other) as http,
    ):
        wire = await scene.account()
        ordered, (challenges,) = await challenges_of(wire, "a.internal")
        await wire.post(challenges[0]["url"], {})
        scene.clock.time += LEASE
        there = Wire(http, BASE, wire.key, wire.kid)
        if asking == "order":
            assert (await there.post(ordered.headers["location"])).json()["status"] == "ready"
        elif asking == "authorization":
            assert (await there.post(ordered.json()["authorizations"][0])).json()["status"] == "valid"
        elif asking == "challenge":
            assert (await there.post(challenges[0]["url"])).json()["status"] == "valid"
        elif asking == "answer":
            assert (await there.post(challenges[0]["url"], {})).json()["status"] == "valid"
        else:
            assert (await there.finalize(ordered.json())).json()["status"] == "valid"


class Together:
    """A validator that answers nobody before three ask."""

    def __init__(self) -> None:
        self.barrier = asyncio.Barrier(3)

    async def validate(self, identifier: str, identifier_type: str, token: str, key_authorization: str) -> bool:
        await self.barrier.wait()
        return True


async def test_many_that_were_cut_short_are_taken_up_at_the_same_time(stage: Stage) -> None:
    """Who asks about an order waits no longer than for one of its authorizations."""
    async with (
        stage(challenge_validator=Slow(), limits=IMPATIENT) as scene,
        elsewhere(scene, challenge_validator=Together(), limits=Limits(patience=timedelta(seconds=60))) as http,
    ):
        wire = await scene.account()
        ordered, all_challenges = await challenges_of(wire, "a.internal", "b.internal", "c.internal")
        for challenges in all_challenges:
            await wire.post(challenges[0]["url"], {})
        scene.clock.time += LEASE
        there = Wire(http, BASE, wire.key, wire.kid)
        look = await asyncio.wait_for(there.post(ordered.headers["location"]), 50)
        assert look.json()["status"] == "ready"


async def test_what_was_given_up_meanwhile_stays_given_up(stage: Stage) -> None:
    """Lesson 29: whatever the validator finds out then."""
    slow = Slow()
    async with stage(challenge_validator=slow, limits=IMPATIENT) as scene:
        wire = await scene.account()
        ordered, (challenges,) = await challenges_of(wire, "a.internal")
        (url,) = ordered.json()["authorizations"]
        await wire.post(challenges[0]["url"], {})
        assert (await wire.post(url, {"status": "deactivated"})).json()["status"] == "deactivated"
        slow.gate.set()
        for _ in range(5):
            assert (await wire.post(url)).json()["status"] == "deactivated"
        assert (await wire.post(ordered.headers["location"])).json()["status"] == "invalid"


async def test_what_has_expired_meanwhile_is_not_valid_any_more(stage: Stage) -> None:
    slow = Slow()
    async with stage(challenge_validator=slow, limits=IMPATIENT) as scene:
        wire = await scene.account()
        ordered, (challenges,) = await challenges_of(wire, "a.internal")
        (url,) = ordered.json()["authorizations"]
        await wire.post(challenges[0]["url"], {})
        scene.clock.forward(days=1)
        wire.nonce = None
        slow.gate.set()
        for _ in range(5):
            assert (await wire.post(url)).json()["status"] == "invalid"


async def test_twenty_answers_at_once_are_one_validation(stage: Stage) -> None:
    slow = Slow()
    async with stage(challenge_validator=slow, limits=Limits(patience=timedelta(seconds=60))) as scene:
        wire = await scene.account()
        _, (challenges,) = await challenges_of(wire, "a.internal")
        url = challenges[0]["url"]
        answering = [asyncio.create_task(Wire(scene.http, BASE, wire.key, wire.kid).post(url, {})) for _ in range(20)]
        await slow.reached.wait()
        slow.gate.set()
        answers = await asyncio.gather(*answering)
        assert {(answer.status_code, answer.json()["status"]) for answer in answers} == {(200, "valid")}
        assert slow.begun == 1


async def test_two_replicas_may_both_validate_and_agree(stage: Stage) -> None:
    """Before the lease is written nobody knows of the other; the first judgement stands."""
    yes, no = Slow(answer=True), Slow(answer=False)
    patient = Limits(patience=timedelta(seconds=60))
    async with (
        stage(challenge_validator=yes, limits=patient) as scene,
        elsewhere(scene, challenge_validator=no, limits=patient) as http,
    ):
        wire = await scene.account()
        there = Wire(http, BASE, wire.key, wire.kid)
        ordered, (challenges,) = await challenges_of(wire, "a.internal")
        answering = [asyncio.create_task(each.post(challenges[0]["url"], {})) for each in (wire, there)]
        await asyncio.gather(yes.reached.wait(), no.reached.wait())
        yes.gate.set()
        assert (await answering[0]).json()["status"] == "valid"
        no.gate.set()
        assert (await answering[1]).json()["status"] == "valid"
        wire.nonce = None
        assert (await wire.post(ordered.headers["location"])).json()["status"] == "ready"


class Failing(MemoryStore):
    """A store whose medium fails while it is told to, for authorizations."""

    failing = False

    def commit(self, *records: Record, unchanged: Any = (), durable: bool = True) -> None:
        if self.failing and any(record.kind == "authorization" for record in records):
            raise StoreError("the disk is full")
        super().commit(*records, unchanged=unchanged, durable=durable)


async def test_a_judgement_that_could_not_be_written_is_made_again(
    stage: Stage, caplog: pytest.LogCaptureFixture
) -> None:
    """`processing` is never a trap."""
    slow = Slow()
    async with stage(store=Failing(), challenge_validator=slow, limits=IMPATIENT) as scene:
        assert isinstance(scene.store, Failing)
        wire = await scene.account()
        ordered, (challenges,) = await challenges_of(wire, "a.internal")
        (url,) = ordered.json()["authorizations"]
        await wire.post(challenges[0]["url"], {})
        scene.store.failing = True
        slow.gate.set()
        while "the disk is full" not in caplog.text:
            assert (await wire.post(url)).json()["challenges"][0]["status"] == "processing"
        scene.store.failing = False
        assert (await wire.post(url)).json()["status"] == "pending"
        scene.clock.time += LEASE
        assert (await settled(wire, url))["status"] == "valid"
        assert slow.begun == 2
        assert "Traceback" not in caplog.text


async def test_a_store_that_fails_at_once_is_told_at_once(stage: Stage) -> None:
    async with stage(store=Failing(), challenge_validator=Answers()) as scene:
        assert isinstance(scene.store, Failing)
        wire = await scene.account()
        _, (challenges,) = await challenges_of(wire, "a.internal")
        scene.store.failing = True
        assert problem_of(await wire.post(challenges[0]["url"], {})) == (503, "serverInternal")
        scene.store.failing = False
        assert (await wire.post(challenges[0]["url"], {})).json()["status"] == "valid"


async def test_a_type_that_is_no_longer_offered_cannot_be_met(stage: Stage) -> None:
    async with (
        stage(challenge_validator=Answers()) as scene,
        elsewhere(scene, challenge_validator={"dns-01": Answers()}) as http,
    ):
        wire = await scene.account()
        ordered, (challenges,) = await challenges_of(wire, "a.internal")
        url = next(each["url"] for each in challenges if each["type"] == "http-01")
        there = Wire(http, BASE, wire.key, wire.kid)
        await there.post(url, {})
        assert (await settled(there, ordered.json()["authorizations"][0]))["status"] == "invalid"
        error = (await there.post(url)).json()["error"]
        assert error["type"].split(":")[-1] == "serverInternal"


@asynccontextmanager
async def elsewhere(scene: Scene, **arguments: Any) -> Any:
    """A client of another responder on the same store."""
    ca = CertificateAuthority(scene.store, now=scene.clock)
    ca.init()
    options: Mapping[str, Any] = {"limits": IMPATIENT} | arguments
    async with scene.at(ACMEResponder(ca, now=scene.clock, **options)) as http:
        yield http
