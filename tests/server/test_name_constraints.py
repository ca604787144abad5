"""What an authority may not certify is refused when it is asked for, and not when it comes to signing."""

import pytest
from tests.server.conftest import Clock, Stage
from tests.wire import problem_of

from privet import CertificateAuthority, MemoryStore, NameConstraints

pytestmark = pytest.mark.anyio


def constrained() -> MemoryStore:
    """A store with an authority for some names alone."""
    store = MemoryStore()
    CertificateAuthority(store, now=Clock()).init(name_constraints=NameConstraints(["internal"], ["secret.internal"]))
    return store


@pytest.mark.parametrize("auto_approve", [True, False])
async def test_an_order_is_refused_with_every_name_outside(stage: Stage, auto_approve: bool) -> None:
    async with stage(store=constrained(), auto_approve=auto_approve) as scene:
        wire = await scene.account()
        refused = await wire.order("a.example", "a.internal", "10.0.0.1", "b.secret.internal")
        assert problem_of(refused) == (403, "rejectedIdentifier")
        subproblems = refused.json()["subproblems"]
        assert [each["identifier"]["value"] for each in subproblems] == ["a.example", "10.0.0.1", "b.secret.internal"]
        assert {each["type"].rpartition(":")[2] for each in subproblems} == {"rejectedIdentifier"}
        assert subproblems[0]["detail"] == "a.example is not among what this authority may certify: internal"
        assert (await wire.order("a.internal")).status_code == 201


async def test_no_authorization_is_made_ahead_for_a_name_outside(stage: Stage) -> None:
    async with stage(store=constrained()) as scene:
        wire = await scene.account()
        for name, status in {"a.example": 403, "a.internal": 201}.items():
            answer = await wire.post("new-authz", {"identifier": {"type": "dns", "value": name}})
            assert answer.status_code == status, answer.text


async def test_what_is_inside_is_certified(stage: Stage) -> None:
    async with stage(store=constrained(), auto_approve=True) as scene:
        wire = await scene.account()
        order = (await wire.order("a.internal")).json()
        assert (await wire.finalize(order)).json()["status"] == "valid"
