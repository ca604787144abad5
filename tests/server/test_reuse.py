"""Authorizations that count for later orders, where that is wanted, and what becomes of orders without theirs."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest
from tests.server.conftest import Scene, Stage
from tests.server.test_proofs import Proves, answered
from tests.server.test_requests import Meddling
from tests.wire import Wire, problem_of

from privet import ACMEResponder, Applicant, Decision, Limits
from privet.acme.identifiers import Identifier
from privet.server.records import Authorization, Kind, Order

pytestmark = pytest.mark.anyio

REUSE = Limits(authorization_reuse=timedelta(hours=8), nonce_lifetime=timedelta(days=10))


async def ordered(wire: Wire, *names: str) -> dict[str, Any]:
    response = await wire.order(*names)
    assert response.status_code == 201, response.text
    return {**response.json(), "url": response.headers["location"]}


def stored(scene: Scene, order: dict[str, Any]) -> Order:
    record = scene.store.get(Kind.ORDER, order["finalize"].rpartition("/")[2])
    assert record
    return Order.from_record(record)


async def test_usually_every_order_is_proved_anew(stage: Stage) -> None:
    async with stage(challenge_validator={"dns-01": Proves()}) as scene:
        wire = await scene.account()
        first, _, _ = await answered(wire)
        second = await ordered(wire, "a.internal")
        assert second["status"] == "pending"
        assert second["authorizations"] != first["authorizations"]


async def test_what_was_proved_counts_for_a_while(stage: Stage) -> None:
    prover = Proves()
    async with stage(challenge_validator={"dns-01": prover}, limits=REUSE) as scene:
        wire = await scene.account()
        first, shown, _ = await answered(wire)
        assert (await wire.finalize(first)).json()["status"] == "valid"
        scene.clock.forward(hours=7, minutes=59)
        second = await ordered(wire, "a.internal", "b.internal")
        assert second["status"] == "pending", "the other name was not proved"
        assert second["authorizations"][0] == first["authorizations"][0]
        third = await ordered(wire, "a.internal")
        assert third["status"] == "ready"
        assert third["expires"] == shown["expires"], "its expiry bounds the order"
        assert (await wire.finalize(third)).json()["status"] == "valid"
        assert len(prover.asked) == 1
        assert [len(stored(scene, order).proofs) for order in (first, second, third)] == [1, 0, 1]
        scene.clock.forward(minutes=1)
        assert (await ordered(wire, "a.internal"))["status"] == "pending"


async def test_it_may_count_for_longer_than_an_order_lives(stage: Stage) -> None:
    limits = replace(REUSE, authorization_reuse=timedelta(days=7))
    async with stage(challenge_validator={"dns-01": Proves()}, limits=limits) as scene:
        wire = await scene.account()
        _, shown, _ = await answered(wire)
        assert datetime.fromisoformat(shown["expires"]) == scene.clock.time + timedelta(days=7)
        scene.clock.forward(days=6, hours=12)
        order = await ordered(wire, "a.internal")
        assert (order["status"], order["expires"]) == ("ready", shown["expires"])


async def test_it_counts_for_no_longer_than_the_proof_itself(stage: Stage) -> None:
    async with stage(challenge_validator={"dns-01": Proves()}, limits=REUSE) as scene:
        prover = Proves({"expires": scene.clock.time + timedelta(hours=1)})
        app = ACMEResponder(scene.ca, challenge_validator={"dns-01": prover}, limits=REUSE, now=scene.clock)
        async with scene.at(app) as http:
            wire = Wire(http)
            await wire.register()
            await answered(wire)
            assert (await ordered(wire, "a.internal"))["expires"] == "2026-03-01T13:00:00Z"
            scene.clock.forward(hours=1)
            assert (await ordered(wire, "a.internal"))["status"] == "pending"


async def test_it_counts_for_the_same_account_and_the_same_identifier_alone(stage: Stage) -> None:
    async with stage(challenge_validator={"dns-01": Proves()}, limits=REUSE) as scene:
        wire, other = await scene.account(), await scene.account()
        await answered(wire, "a.internal")
        await answered(wire, "*.b.internal")
        for asking, name in ((other, "a.internal"), (wire, "*.a.internal"), (wire, "b.internal"), (wire, "c.internal")):
            assert (await ordered(asking, name))["status"] == "pending", name
        assert (await ordered(wire, "*.b.internal", "a.internal"))["status"] == "ready"


@pytest.mark.parametrize("becomes", ["deactivated", "invalid", "expired"])
async def test_what_is_over_counts_no_more(stage: Stage, becomes: str) -> None:
    prover = Proves()
    async with stage(challenge_validator={"dns-01": prover}, limits=REUSE) as scene:
        wire = await scene.account()
        if becomes == "invalid":
            prover.refusal = RuntimeError("no")
        order, _, _ = await answered(wire)
        if becomes == "deactivated":
            await wire.post(order["authorizations"][0], {"status": "deactivated"})
        if becomes == "expired":
            scene.clock.forward(days=1)
        assert (await wire.post(order["authorizations"][0])).json()["status"] == becomes
        assert (await ordered(wire, "a.internal"))["status"] == "pending"


class Trusts:
    """A policy that can change its mind."""

    decision = Decision.TRUST

    def allow_account(self, applicant: Applicant) -> None: ...

    def allow_order(self, applicant: Applicant, identifiers: Sequence[Identifier]) -> Decision:
        return self.decision


async def test_what_was_merely_trusted_does_not_count(stage: Stage) -> None:
    policy = Trusts()
    async with stage(challenge_validator={"dns-01": Proves()}, policy=policy, limits=REUSE) as scene:
        wire = await scene.account()
        assert (await ordered(wire, "a.internal"))["status"] == "ready"
        policy.decision = Decision.PROVE
        assert (await ordered(wire, "a.internal"))["status"] == "pending"


async def test_what_was_proved_by_other_means_than_today_does_not_count(stage: Stage) -> None:
    async with stage(challenge_validator={"dns-01": Proves()}, limits=REUSE) as scene:
        wire = await scene.account()
        await answered(wire)
        for validator in ({"http-01": Proves()}, None):
            app = ACMEResponder(scene.ca, challenge_validator=validator, limits=REUSE, now=scene.clock)
            async with scene.at(app) as http:
                assert (await ordered(Wire(http, key=wire.key, kid=wire.kid), "a.internal"))["status"] == "pending"


async def test_what_a_person_approved_counts_as_well(stage: Stage) -> None:
    async with stage(limits=REUSE) as scene:
        wire = await scene.account()
        await ordered(wire, "a.internal")
        (waiting,) = await scene.responder.pending()
        await scene.responder.approve(waiting.id)
        assert (await ordered(wire, "a.internal"))["status"] == "ready"


# --- orders without one of their authorizations ---


async def test_a_refused_order_is_no_longer_open(stage: Stage) -> None:
    """By a validator, by a person, or given up by the client: it leaves room for another at once."""
    prover = Proves(refusal=RuntimeError("no"))
    async with stage(challenge_validator={"dns-01": prover}, limits=Limits(open_orders=1)) as scene:
        wire = await scene.account()
        for end in ("validator", "client", "person", ""):
            order = await ordered(wire, "a.internal", "b.internal")
            first, second = order["authorizations"]
            if end == "validator":
                (challenge,) = (await wire.post(second)).json()["challenges"]
                await wire.post(challenge["url"], {})
            elif end == "client":
                await wire.post(first, {"status": "deactivated"})
            elif end == "person":
                refused = await scene.responder.refuse(second.rpartition("/")[2], "no such host")
                assert stored(scene, order).error == refused.error
            if end:
                assert stored(scene, order).status == "invalid"
                assert (await wire.post(order["url"])).json()["status"] == "invalid"
        assert problem_of(await wire.order("a.internal")) == (429, "rateLimited")


async def test_orders_that_share_an_authorization_fall_together(stage: Stage) -> None:
    async with stage(challenge_validator={"dns-01": Proves()}, limits=REUSE) as scene:
        wire = await scene.account()
        done, _, _ = await answered(wire)
        assert (await wire.finalize(done)).json()["status"] == "valid"
        second, third = [await ordered(wire, "a.internal", name) for name in ("b.internal", "c.internal")]
        other = await ordered(wire, "b.internal")
        await wire.post(done["authorizations"][0], {"status": "deactivated"})
        assert [stored(scene, order).status for order in (done, second, third)] == ["valid", "invalid", "invalid"]
        for order in (second, third):
            assert (await wire.post(order["url"])).json()["status"] == "invalid"
        assert (await wire.post(other["url"])).json()["status"] == "pending"


async def test_so_do_orders_that_took_up_a_pre_authorization(stage: Stage) -> None:
    async with stage(challenge_validator={"dns-01": Proves(refusal=RuntimeError("no"))}) as scene:
        wire = await scene.account()
        ahead = await wire.post("new-authz", {"identifier": {"type": "dns", "value": "a.internal"}})
        orders = [await ordered(wire, "a.internal") for _ in range(2)]
        assert [order["authorizations"] for order in orders] == 2 * [[ahead.headers["location"]]]
        await wire.post(ahead.json()["challenges"][0]["url"], {})
        assert [stored(scene, order).status for order in orders] == ["invalid", "invalid"]


@pytest.mark.parametrize("earlier", [0, 1], ids=["the first order of an account", "a later one"])
async def test_what_is_given_up_while_an_order_takes_it_up_is_not_taken_up(stage: Stage, earlier: int) -> None:
    async with stage(store=Meddling(), challenge_validator={"dns-01": Proves()}) as scene:
        assert isinstance(scene.store, Meddling)
        wire = await scene.account()
        for _ in range(earlier):
            await ordered(wire, "before.internal")
        ahead = await wire.post("new-authz", {"identifier": {"type": "dns", "value": "a.internal"}})
        id = ahead.headers["location"].rpartition("/")[2]

        def give_up() -> None:
            record = scene.store.get(Kind.AUTHORIZATION, id)
            assert record
            scene.store.commit(Authorization.from_record(record).deactivate().to_record())

        scene.store.meddle = give_up
        order = await ordered(wire, "a.internal")
        assert order["authorizations"] != [ahead.headers["location"]]
        assert (await wire.post(order["url"])).json()["status"] == "pending"
        assert scene.store.meddle is None


async def test_a_proof_does_not_get_around_a_person(stage: Stage) -> None:
    """Nor the other way round: what a policy decides now is what counts."""

    class Changes:
        decision = Decision.PROVE

        def allow_account(self, applicant: Applicant) -> None:
            return None

        def allow_order(self, applicant: Applicant, identifiers: Sequence[Identifier]) -> Decision:
            return self.decision

    policy = Changes()
    async with stage(challenge_validator={"dns-01": Proves()}, policy=policy, limits=REUSE) as scene:
        wire = await scene.account()
        await answered(wire)
        assert (await ordered(wire, "a.internal"))["status"] == "ready"
        policy.decision = Decision.ASK
        asked = await ordered(wire, "a.internal")
        assert asked["status"] == "pending"
        (waiting,) = await scene.responder.pending()
        await scene.responder.approve(waiting.id)
        assert (await wire.post(asked["url"])).json()["status"] == "ready"
        assert (await ordered(wire, "a.internal"))["status"] == "ready", "the person has decided"
        policy.decision = Decision.PROVE
        assert (await ordered(wire, "a.internal"))["status"] == "ready", "it was proved once"
