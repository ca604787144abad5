"""Approval by a person: the authorizations that wait, and what becomes of them.

It works on the store alone, so that a command line in another process reaches a running server.
"""

from datetime import datetime

from privet.acme.attempts import LONGEST, Proof
from privet.acme.problems import Problem, ProblemType
from privet.acme.status import Status
from privet.server.records import PENDING, PERSON, Account, Authorization, Challenge, Kind
from privet.server.refusals import refused_orders
from privet.server.validators import log_judgement, refusal_to_json
from privet.stores.asynchronous import AsyncStore
from privet.stores.base import Conflict, Record


class NotPending(LookupError):  # noqa: N818 - reads as what it says
    """There is no such authorization, or it no longer waits. The text says which."""


async def pending(store: AsyncStore, now: datetime, *, authority: str | None = None) -> list[Authorization]:
    """The authorizations that wait, oldest first: all, or those of one authority's accounts."""
    waiting: list[Authorization] = []
    after = ""
    while records := await store.find(Kind.AUTHORIZATION, PENDING, after=after, limit=500):
        found = [Authorization.from_record(record).settle(now) for record in records]
        there = {each: store.get(Kind.ACCOUNT, each) for each in {each.account for each in found}}
        accounts = {name: await record for name, record in there.items()}
        waiting += [
            each for each in found if each.status is Status.PENDING and _waits(accounts[each.account], authority)
        ]
        after = records[-1].id
    return waiting


async def approve(
    store: AsyncStore, id: str, now: datetime, *, authority: str | None = None, by: str = ""
) -> Authorization:
    """Let it be valid, by the challenge that the client chose, or else the first. `by` says for the record who decides.
    Raises `NotPending`."""
    return await _decide(store, id, now, None, authority, by)


async def refuse(
    store: AsyncStore, id: str, now: datetime, reason: str = "", *, authority: str | None = None, by: str = ""
) -> Authorization:
    """Let it and its order be invalid, and say why: the client is told. Raises `NotPending`."""
    detail = f"refused by a person: {reason}" if reason else "refused by a person"
    return await _decide(store, id, now, Problem(ProblemType.UNAUTHORIZED, detail), authority, by)


def _waits(account: Record | None, authority: str | None) -> bool:
    """Whether it is for us to decide, and somebody is there to hear of it: an account that has been given up waits for
    nothing."""
    if account is None:
        return False
    found = Account.from_record(account)
    return found.status is Status.VALID and authority in (None, found.authority)


async def _decide(
    store: AsyncStore, id: str, now: datetime, problem: Problem | None, authority: str | None, by: str
) -> Authorization:
    who = {"by": by[:LONGEST]} if by else {}
    while True:
        record = await store.get(Kind.AUTHORIZATION, id)
        if record is None:
            raise NotPending(f"there is no authorization {id}")
        found = Authorization.from_record(record).settle(now)
        if found.status is not Status.PENDING:
            raise NotPending(f"authorization {id} for {found.identifier} is {found.status}, it no longer waits")
        account = await store.get(Kind.ACCOUNT, found.account)
        if account is None or not _waits(account, authority):
            raise NotPending(f"authorization {id} for {found.identifier} is of an account that waits for nothing here")
        answered = _answered(found, Account.from_record(account))
        base, type = found.identifier.base.value, found.identifier.type.value
        if problem is None:
            proof = Proof(base, type, found.identifier.wildcard, PERSON, now)
            judgement = proof.to_json() | who
            decided = found.decide(answered.validate(now), judgement)
        else:
            judgement = refusal_to_json(problem, found.identifier.value, type, PERSON, now) | who
            decided = found.decide(answered.refuse(problem), judgement)
        orders = [] if problem is None else await refused_orders(store, decided)
        try:
            await store.commit(decided.to_record(), *[order.to_record() for order in orders], unchanged=[account])
        except Conflict:
            continue
        log_judgement(decided, judgement, proved=problem is None)
        return decided


def _answered(found: Authorization, account: Account) -> Challenge:
    """The challenge that the client has answered; a person may be quicker than the client."""
    chosen = next((each for each in found.challenges if each.status is Status.PROCESSING), found.challenges[0])
    return chosen.answer(account.thumbprint, None)
