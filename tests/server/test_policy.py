"""Policies: who is asked, what they are told, and what their answers do."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import pytest
from tests.server.conftest import Stage
from tests.wire import problem_of

from privet import Applicant, Decision, Policy, Problem, ProblemType
from privet.acme.identifiers import Identifier, IdentifierType
from privet.acme.problems import Subproblem

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
    """What is not TRUST is to be proved, whatever it is: deny by default (lesson 2)."""
    for answer in (Decision.TRUST, Decision.PROVE, None, True, "trust"):
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
            (known, ("a.internal", "*.a.internal", "10.0.0.1")),
            (known, ("b.internal",)),
        ]


async def test_a_policy_is_asked_once_and_only_about_what_is_new(stage: Stage) -> None:
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
        # nor again when an order that was allowed is looked at and finalized.
        ordered = await wire.order("a.internal")
        assert len(policy.asked) == 2
        await wire.post(ordered.headers["location"])
        await wire.post(ordered.json()["authorizations"][0])
        assert (await wire.finalize(ordered.json())).json()["status"] == "valid"
        assert len(policy.asked) == 2


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
