"""Proofs: what validators that want to know more are told, and what is kept of what they say."""

import json
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

import pytest
from tests.server.conftest import Scene, Stage
from tests.wire import Wire, jwk_of, new_key, sign, thumbprint_of

from privet import Attempt, Limits, NotProved, Problem, ProblemType, Proof, Step
from privet.acme.attempts import LONGEST, STEPS
from privet.server.records import EARLIER_KEYS, Account, Authorization, Kind, Order

pytestmark = pytest.mark.anyio

STEP = Step("GET http://a.internal/", "10.0.0.7:80", "10.0.0.1:40000")
NOW = datetime.fromisoformat("2026-03-01T12:00:00+00:00")


@dataclass
class Proves:
    """A validator that proves what it is asked to, with changes, or raises."""

    changes: dict[str, Any] = field(default_factory=dict)
    refusal: Exception | None = None
    asked: list[Attempt] = field(default_factory=list)

    async def prove(self, attempt: Attempt) -> Proof:
        self.asked.append(attempt)
        if self.refusal:
            raise self.refusal
        fields = {
            "identifier": attempt.identifier,
            "identifier_type": attempt.identifier_type,
            "wildcard": attempt.wildcard,
            "method": "dns-01",
            "validated": NOW,
            "steps": (STEP,),
        }
        return Proof(**{**fields, **self.changes})


async def answered(wire: Wire, name: str = "a.internal") -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    """An order, its authorization and the dns-01 challenge, after the client said that it is ready."""
    order = (await wire.order(name)).json()
    (url,) = order["authorizations"]
    offered = (await wire.post(url)).json()["challenges"]
    challenge = await wire.post(next(each["url"] for each in offered if each["type"] == "dns-01"), {})
    return order, (await wire.post(url)).json(), challenge.json()


def kept(scene: Scene) -> Authorization:
    (record,) = scene.store.find(Kind.AUTHORIZATION)
    return Authorization.from_record(record)


async def change_key(wire: Wire) -> None:
    key = new_key()
    url = wire.url("key-change")
    payload = {"account": wire.kid, "oldKey": jwk_of(wire.key)}
    inner = sign(key, {"alg": "ES256", "jwk": jwk_of(key), "url": url}, payload)
    assert (await wire.post("key-change", inner)).status_code == 200
    wire.key = key


async def test_a_validator_may_know_the_account_and_the_wildcard(stage: Stage) -> None:
    prover = Proves()
    async with stage(challenge_validator={"dns-01": prover}) as scene:
        wire = await scene.account()
        await answered(wire, "*.a.internal")
        (attempt,) = prover.asked
        assert (attempt.identifier, attempt.identifier_type, attempt.wildcard) == ("a.internal", "dns", True)
        assert attempt.account == wire.kid, "the URL, as the client knows it"
        assert attempt.key_authorization == f"{attempt.token}.{thumbprint_of(wire.key)}"
        assert attempt.thumbprints == ()


async def test_earlier_keys_are_remembered_newest_first(stage: Stage) -> None:
    """draft-ietf-acme-dns-persist-02 §4.2: a record may name any key the account has used."""
    prover = Proves()
    async with stage(challenge_validator={"dns-01": prover}) as scene:
        wire = await scene.account()
        keys = [thumbprint_of(wire.key)]
        for _ in range(2):
            await change_key(wire)
            keys.insert(0, thumbprint_of(wire.key))
        await answered(wire)
        assert prover.asked[0].key_authorization.endswith(f".{keys[0]}")
        assert prover.asked[0].thumbprints == tuple(keys[1:])


async def test_of_earlier_keys_no_more_are_kept_than_a_record_can_hold(stage: Stage) -> None:
    async with stage(auto_approve=True) as scene:
        await scene.account()
        (record,) = scene.store.find(Kind.ACCOUNT)
        account = Account.from_record(record)
        for number in range(EARLIER_KEYS + 2):
            account = account.change_key({}, f"key {number}")
        assert account.earlier[0] == f"key {EARLIER_KEYS}"
        assert len(account.earlier) == EARLIER_KEYS
        assert account.change_key({}, "key 100").earlier.count("key 100") == 0


async def test_what_was_done_is_kept_logged_and_not_told(stage: Stage, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    async with stage(challenge_validator={"dns-01": Proves()}) as scene:
        wire = await scene.account()
        order, shown, challenge = await answered(wire)
        proof = kept(scene).proof
        assert proof == {
            "identifier": {"type": "dns", "value": "a.internal"},
            "wildcard": False,
            "method": "dns-01",
            "validated": NOW.isoformat(),
            "steps": [STEP.to_json()],
        }
        (line,) = [record.message for record in caplog.records if record.message.startswith("proved ")]
        logged = json.loads(line.removeprefix("proved "))
        assert logged.items() >= proof.items()
        assert (logged["authorization"], logged["client"]) == (kept(scene).id, "127.0.0.1")
        for told in (order, shown, challenge):
            assert "10.0.0." not in json.dumps(told)
        # The order keeps it for as long as the certificate is on record.
        assert (await wire.finalize(order)).json()["status"] == "valid"
        (record,) = scene.store.find(Kind.ORDER)
        assert Order.from_record(record).proofs == (proof,)


async def test_what_was_done_until_a_refusal_is_kept_too(stage: Stage, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    refusal = NotProved(ProblemType.DNS, "there is no a.internal", method="dns-01", steps=(STEP,))
    async with stage(challenge_validator={"dns-01": Proves(refusal=refusal)}) as scene:
        _, shown, challenge = await answered(await scene.account())
        found = kept(scene)
        assert found.proof is None
        assert found.validation is not None
        assert found.validation["steps"] == [STEP.to_json()]
        assert found.validation["error"] == challenge["error"]
        assert found.validation["refused"] == scene.clock.time.isoformat()
        assert "10.0.0." not in json.dumps([shown, challenge])
        assert any(record.message.startswith('not proved {"authorization":') for record in caplog.records)


async def test_what_is_kept_is_of_bounded_size(stage: Stage) -> None:
    steps = tuple(Step("x" * 5000, "y" * 5000, "z" * 5000) for _ in range(500))
    prover = Proves({"steps": steps, "caa": "c" * 5000, "method": "m" * 5000})
    async with stage(challenge_validator={"dns-01": prover}) as scene:
        await answered(await scene.account())
        proof = kept(scene).proof
        assert proof is not None
        assert len(proof["steps"]) == STEPS
        assert len(json.dumps(proof)) < STEPS * 4 * LONGEST


@pytest.mark.parametrize(
    "changes", [{"identifier": "b.internal"}, {"identifier_type": "ip"}, {"wildcard": True}, {"expires": "tomorrow"}]
)
async def test_a_proof_of_something_else_proves_nothing(stage: Stage, changes: dict[str, Any]) -> None:
    async with stage(challenge_validator={"dns-01": Proves(changes)}) as scene:
        _, shown, challenge = await answered(await scene.account())
        assert shown["status"] == "invalid"
        assert challenge["error"]["type"].endswith(":serverInternal")


async def test_an_authorization_lives_no_longer_than_its_proof(stage: Stage) -> None:
    """draft-ietf-acme-dns-persist-02 §4.1: "MUST NOT rely on that validation to issue certificates after T"."""
    prover = Proves({"expires": NOW + timedelta(minutes=10)})
    async with stage(challenge_validator={"dns-01": prover}) as scene:
        wire = await scene.account()
        order, shown, _ = await answered(wire)
        assert shown["expires"] == "2026-03-01T12:10:00Z"
        scene.clock.forward(minutes=10)
        assert (await wire.finalize(order)).json()["type"].endswith(":orderNotReady")
        _, shown, _ = await answered(wire)
        assert shown["status"] == "invalid", "by now the proof is over when it is made"


async def test_nothing_is_proved_for_an_account_that_was_given_up_meanwhile(stage: Stage) -> None:
    """draft-ietf-acme-dns-persist-02 §4.2: the account's status counts at the time of validation."""

    class GivesUp(Proves):
        async def prove(self, attempt: Attempt) -> Proof:
            assert wire.kid
            other = Wire(scene.http, scene.base, wire.key, wire.kid)
            assert (await other.post(wire.kid, {"status": "deactivated"})).status_code == 200
            return await super().prove(attempt)

    async with stage(challenge_validator={"dns-01": GivesUp()}) as scene:
        wire = await scene.account()
        order = (await wire.order("a.internal")).json()
        (challenge,) = (await wire.post(order["authorizations"][0])).json()["challenges"]
        await wire.post(challenge["url"], {})
        assert kept(scene).status == "invalid"


async def test_what_a_person_decided_is_kept_and_logged_too(stage: Stage, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    async with stage() as scene:
        wire = await scene.account()
        await wire.order("*.a.internal")
        (waiting,) = await scene.responder.pending()
        approved = await scene.responder.approve(waiting.id, by="alice")
        assert approved.proof is not None
        assert approved.proof["by"] == "alice"
        assert (approved.proof["method"], approved.proof["wildcard"]) == ("person", True)
        await wire.order("b.internal")
        (waiting,) = await scene.responder.pending()
        refused = await scene.responder.refuse(waiting.id, "no such host", by="bob")
        assert refused.proof is None
        assert refused.validation is not None
        assert refused.validation["error"]["detail"] == "refused by a person: no such host"
        assert refused.validation["by"] == "bob"
        lines = [json.loads(line.partition("proved ")[2]) for line in caplog.messages if "proved {" in line]
        assert [(line["account"], line["client"], line["method"], line["by"]) for line in lines] == [
            (approved.account, "127.0.0.1", "person", "alice"),
            (approved.account, "127.0.0.1", "person", "bob"),
        ]


async def test_where_nothing_had_to_be_proved_there_is_no_proof(stage: Stage) -> None:
    for arguments in ({}, {"ask_challenges": True}):
        async with stage(auto_approve=True, **arguments) as scene:
            wire = await scene.account()
            if arguments:
                await answered(wire)
            else:
                await wire.order("a.internal")
            assert (kept(scene).status, kept(scene).proof) == ("valid", None)


async def test_a_problem_without_steps_is_a_refusal_as_well(stage: Stage) -> None:
    refusal = Problem(ProblemType.CAA, "the records say no")
    async with stage(challenge_validator={"dns-01": Proves(refusal=refusal)}, limits=Limits()) as scene:
        await answered(await scene.account())
        validation = kept(scene).validation
        assert validation is not None
        assert validation["steps"] == []
