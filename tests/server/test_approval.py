"""Approval by a person, on a running server and through the store alone."""

import asyncio
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.server.conftest import Stage
from tests.wire import Wire, problem_of, thumbprint_of

from privet import ACMEResponder, CertificateAuthority, Limits, SQLiteStore
from privet.acme.status import Status
from privet.server import approval
from privet.server.approval import NotPending
from privet.server.records import Authorization
from privet.stores.asynchronous import AsyncStore

pytestmark = pytest.mark.anyio


async def ordered_by(wire: Wire, *names: str) -> tuple[httpx.Response, list[dict[str, Any]]]:
    ordered = await wire.order(*names)
    return ordered, [(await wire.post(url)).json() for url in ordered.json()["authorizations"]]


async def waiting_at(responder: ACMEResponder) -> dict[str, Authorization]:
    """What waits, by its identifier."""
    return {str(each.identifier): each for each in await responder.pending()}


async def test_a_person_approves_while_the_client_polls(stage: Stage) -> None:
    """Row L14: without a validator challenges stay `processing` until somebody decides out of band."""
    async with stage() as scene:
        wire = await scene.account(contact=["mailto:admin@example.org"])
        ordered, authorizations = await ordered_by(wire, "a.internal", "*.b.internal")
        for authorization in authorizations:
            answered = await wire.post(authorization["challenges"][0]["url"], {})
            assert (answered.json()["status"], answered.headers["retry-after"]) == ("processing", "10")
        # It stays so, however often the client asks and says that it is ready.
        for url in ordered.json()["authorizations"]:
            look = await wire.post(url)
            assert (look.json()["status"], look.headers["retry-after"]) == ("pending", "10")
        again = await wire.post(authorizations[0]["challenges"][0]["url"], {})
        assert again.json()["status"] == "processing"
        assert problem_of(await wire.finalize(ordered.json())) == (403, "orderNotReady")

        waiting = await waiting_at(scene.responder)
        assert set(waiting) == {"a.internal", "*.b.internal"}
        assert wire.kid
        assert {(each.account, each.client) for each in waiting.values()} == {(wire.kid.rsplit("/", 1)[1], "127.0.0.1")}

        approved = await scene.responder.approve(waiting["a.internal"].id)
        assert approved.status is Status.VALID
        first = (await wire.post(ordered.json()["authorizations"][0])).json()
        assert first["status"] == "valid"
        assert [each["type"] for each in first["challenges"]] == [authorizations[0]["challenges"][0]["type"]]
        assert first["challenges"][0]["validated"]
        assert (await wire.post(ordered.headers["location"])).json()["status"] == "pending"
        assert set(await waiting_at(scene.responder)) == {"*.b.internal"}

        await scene.responder.approve(waiting["*.b.internal"].id)
        assert await scene.responder.pending() == []
        assert (await wire.post(ordered.headers["location"])).json()["status"] == "ready"
        assert (await wire.finalize(ordered.json())).json()["status"] == "valid"


async def test_of_where_a_request_came_from_no_more_is_kept_than_an_address(stage: Stage) -> None:
    """The server in front says what it likes; of an address with an interface, everything is kept."""
    async with stage() as scene:
        for said, kept in (("fe80::1%eth0", "fe80::1%eth0"), (60_000 * "x", 100 * "x")):
            scene.clock.forward(seconds=1)  # ids are in the order of time, and no finer
            transport = httpx.ASGITransport(scene.responder, client=(said, 4711))
            async with httpx.AsyncClient(transport=transport, base_url=scene.base) as http:
                wire = Wire(http)
                await wire.register()
                await wire.order("a.internal")
            assert (await scene.responder.pending())[-1].client == kept


async def test_a_person_may_be_quicker_than_the_client(stage: Stage) -> None:
    async with stage() as scene:
        wire = await scene.account()
        ordered, (authorization,) = await ordered_by(wire, "a.internal")
        (waiting,) = await scene.responder.pending()
        approved = await scene.responder.approve(waiting.id)
        # By the challenge the client would have chosen first, and for the key it has.
        assert approved.challenges[0].thumbprint == thumbprint_of(wire.key)
        for challenge in authorization["challenges"]:
            answered = await wire.post(challenge["url"], {})
            assert answered.status_code == 200
        assert (await wire.post(ordered.headers["location"])).json()["status"] == "ready"


@pytest.mark.parametrize("reason", ["", "no such host here"])
@pytest.mark.parametrize("answered", [False, True])
async def test_a_person_refuses(stage: Stage, reason: str, answered: bool) -> None:
    async with stage() as scene:
        wire = await scene.account()
        ordered, (authorization, _) = await ordered_by(wire, "a.internal", "b.internal")
        if answered:
            await wire.post(authorization["challenges"][1]["url"], {})
        waiting = await waiting_at(scene.responder)
        refused = await scene.responder.refuse(waiting["a.internal"].id, reason)
        assert refused.status is Status.INVALID
        look = (await wire.post(ordered.json()["authorizations"][0])).json()
        (challenge,) = look["challenges"]
        assert (look["status"], challenge["status"]) == ("invalid", "invalid")
        assert challenge["type"] == authorization["challenges"][1 if answered else 0]["type"]
        order = (await wire.post(ordered.headers["location"])).json()
        assert (order["status"], order["error"]) == ("invalid", challenge["error"])
        assert order["error"]["type"] == "urn:ietf:params:acme:error:unauthorized"
        assert order["error"]["detail"].endswith(reason or "person")
        assert problem_of(await wire.finalize(ordered.json())) == (403, "orderNotReady")


async def test_what_does_not_wait_cannot_be_decided(stage: Stage) -> None:
    async with stage() as scene:
        wire = await scene.account()
        names = ["approved.internal", "refused.internal", "given-up.internal", "expired.internal"]
        ordered, _ = await ordered_by(wire, *names)
        ids = {name: each.id for name, each in (await waiting_at(scene.responder)).items()}
        assert set(ids) == set(names)
        await scene.responder.approve(ids["approved.internal"])
        await scene.responder.refuse(ids["refused.internal"])
        await wire.post(ordered.json()["authorizations"][2], {"status": "deactivated"})
        scene.clock.forward(days=1)
        for id in (*ids.values(), "nothing", ""):
            with pytest.raises(NotPending):
                await scene.responder.approve(id)
            with pytest.raises(NotPending):
                await scene.responder.refuse(id)
        assert await scene.responder.pending() == []
        with pytest.raises(NotPending, match=r"approved\.internal is expired, it no longer waits"):
            await scene.responder.approve(ids["approved.internal"])
        with pytest.raises(NotPending, match="there is no authorization nothing"):
            await scene.responder.approve("nothing")


async def test_all_that_wait_are_listed_oldest_first(stage: Stage) -> None:
    async with stage(limits=Limits(pending_authorizations=2000)) as scene:
        wire = await scene.account()
        names = [[f"a{number}.b{batch}.internal" for number in range(100)] for batch in range(6)]
        for batch in names:
            assert (await wire.order(*batch)).status_code == 201
            scene.clock.forward(seconds=1)
        waiting = await scene.responder.pending()
        assert len(waiting) == 600
        batches = [str(each.identifier).split(".")[1] for each in waiting]
        assert batches == [f"b{batch}" for batch in range(6) for _ in range(100)]


async def test_approving_and_refusing_at_the_same_time(stage: Stage) -> None:
    """One of them is told that it came too late."""
    async with stage() as scene:
        wire = await scene.account()
        for _ in range(5):
            await ordered_by(wire, "a.internal")
            (waiting,) = await scene.responder.pending()
            outcomes = await asyncio.gather(
                scene.responder.approve(waiting.id), scene.responder.refuse(waiting.id), return_exceptions=True
            )
            decided = [each for each in outcomes if not isinstance(each, BaseException)]
            late = [each for each in outcomes if isinstance(each, NotPending)]
            assert (len(decided), len(late)) == (1, 1)


async def test_approving_while_the_client_answers(stage: Stage) -> None:
    async with stage() as scene:
        wire = await scene.account()
        for _ in range(5):
            ordered, (authorization,) = await ordered_by(wire, "a.internal")
            (waiting,) = await scene.responder.pending()
            _, answered = await asyncio.gather(
                scene.responder.approve(waiting.id), wire.post(authorization["challenges"][2]["url"], {})
            )
            assert answered.status_code == 200
            assert (await wire.post(ordered.headers["location"])).json()["status"] == "ready"


async def test_another_process_approves_on_a_running_server(stage: Stage, tmp_path: Path) -> None:
    """The command line has the store and nothing else."""
    with SQLiteStore(tmp_path / "privet.db") as served, SQLiteStore(tmp_path / "privet.db") as opened:
        async with stage(store=served) as scene:
            wire = await scene.account()
            ordered, _ = await ordered_by(wire, "a.internal", "b.internal")
            with AsyncStore(opened) as store:
                waiting = {str(each.identifier): each.id for each in await approval.pending(store, scene.clock())}
                await approval.approve(store, waiting["a.internal"], scene.clock())
                await approval.refuse(store, waiting["b.internal"], scene.clock(), "not ours")
            look = [(await wire.post(url)).json()["status"] for url in ordered.json()["authorizations"]]
            assert look == ["valid", "invalid"]
            assert (await wire.post(ordered.headers["location"])).json()["error"]["detail"].endswith("not ours")


class Never:
    """A validator that says nothing until it is asked no more."""

    def __init__(self) -> None:
        self.gate = asyncio.Event()

    async def validate(self, identifier: str, identifier_type: str, token: str, key_authorization: str) -> bool:
        await self.gate.wait()
        return False


async def test_a_person_may_decide_where_a_validator_is_at_it(stage: Stage) -> None:
    """The first decision stands."""
    never = Never()
    async with stage(challenge_validator=never, limits=Limits(patience=timedelta(0))) as scene:
        wire = await scene.account()
        ordered, (authorization,) = await ordered_by(wire, "a.internal")
        assert (await wire.post(authorization["challenges"][0]["url"], {})).json()["status"] == "processing"
        (waiting,) = await scene.responder.pending()
        await scene.responder.approve(waiting.id)
        never.gate.set()
        for _ in range(3):
            assert (await wire.post(ordered.headers["location"])).json()["status"] == "ready"


async def test_whoever_gave_up_the_account_waits_for_nothing(stage: Stage) -> None:
    async with stage() as scene:
        wire = await scene.account()
        await ordered_by(wire, "a.internal")
        (waiting,) = await scene.responder.pending()
        assert wire.kid
        await wire.post(wire.kid, {"status": "deactivated"})
        assert await scene.responder.pending() == []
        for decide in (scene.responder.approve, scene.responder.refuse):
            with pytest.raises(NotPending, match="of an account that waits for nothing here"):
                await decide(waiting.id)


async def test_each_authority_has_its_own_who_wait(stage: Stage) -> None:
    """Several share a store; who decides for one does not decide for another."""
    async with stage() as scene:
        other_ca = CertificateAuthority(scene.store, "other", now=scene.clock)
        other_ca.init()
        other = ACMEResponder(other_ca, now=scene.clock)
        await ordered_by(await scene.account(), "a.internal")
        async with scene.at(other) as http:
            wire = Wire(http, scene.base)
            await wire.register()
            await ordered_by(wire, "b.internal")
        assert set(await waiting_at(scene.responder)) == {"a.internal"}
        (waiting,) = await other.pending()
        with pytest.raises(NotPending):
            await scene.responder.approve(waiting.id)
        # Whoever has the store, as the command line does, decides for all of them.
        with AsyncStore(scene.store) as store:
            assert len(await approval.pending(store, scene.clock())) == 2
            assert (await approval.approve(store, waiting.id, scene.clock())).status is Status.VALID
