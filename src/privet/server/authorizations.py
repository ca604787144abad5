"""Authorizations and their challenges (RFC 8555 §7.4.1, §7.5): shown, proved, given up."""

import asyncio
import contextlib
import logging
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import cast

from privet.acme.attempts import Attempt
from privet.acme.challenges import STANDARD, ChallengeType, challenge_types, key_authorization
from privet.acme.identifiers import Identifier
from privet.acme.payloads import read_new_authorization, read_status
from privet.acme.problems import Problem, ProblemType
from privet.acme.status import Status
from privet.ca.constraints import NamesRefused
from privet.server.events import Validated
from privet.server.limits import Limits
from privet.server.permissions import log_rulings, permit_identifiers
from privet.server.policy import Decision, Ruling
from privet.server.rates import Count, network_of
from privet.server.records import Account, Authorization, Challenge, Kind
from privet.server.refusals import refused_orders
from privet.server.server import Reply, Server, VerifiedRequest
from privet.server.tokens import new_token
from privet.server.urls import URLs
from privet.server.validators import (
    Judgement,
    TakesTheirWord,
    Validators,
    challenge_fields,
    judge,
    log_judgement,
    refuse,
)
from privet.stores.base import Conflict, StoreError, new_id

log = logging.getLogger("privet")


async def new_authorization(server: Server, request: VerifiedRequest) -> Reply:
    """newAuthz (§7.4.1): prove control of an identifier ahead of an order."""
    identifier = read_new_authorization(request.payload or {})
    account = request.owner
    rulings, unchanged = await permit_identifiers(server, request, [identifier])
    await check_pending(server, account)
    await server.check_room(
        Kind.AUTHORIZATION,
        f"ahead:{account.id}",
        server.limits.authorizations_ahead,
        "authorizations of this account were made ahead of orders; use them, or deactivate some",
    )
    if not request.again:
        await server.rates.take(*count_order(server.limits, account, [identifier], request.client))
    authorization = make_authorization(
        server,
        account,
        identifier,
        rulings[identifier],
        server.now() + server.limits.order_lifetime,
        request.client,
        ahead=True,
    )
    await server.commit(authorization, unchanged=[account, *unchanged])
    log_rulings(account.id, rulings)
    return Reply(
        _shown(server, authorization, request.urls), status=201, location=request.urls.to("authz", authorization.id)
    )


async def authorization(server: Server, request: VerifiedRequest) -> Reply:
    """An authorization (§7.5), and its deactivation (§7.5.2)."""
    found = _load(server, request)
    if request.payload is not None:
        status = read_status(request.payload)
        if status == Status.DEACTIVATED and found.status in (Status.PENDING, Status.VALID):
            changed = found.deactivate()
            orders = await refused_orders(server.store, changed)
            await server.commit(changed, *orders, unchanged=[request.owner])
            found = changed
        elif status not in (None, found.status):
            raise Problem(
                ProblemType.MALFORMED, f"an authorization that is {found.status} cannot be made {status[:50]!a}"
            )
    found = await take_up(server, request, found)
    return _reply(server, found, request.urls)


async def challenge(server: Server, request: VerifiedRequest) -> Reply:
    """A challenge (§7.5.1): an object, usually {}, says that it is ready; POST-as-GET only looks."""
    _, _, type = request.id.partition(".")
    found = _load(server, request)
    asked = found.challenge(type)
    if asked is None:
        raise Problem(ProblemType.NOT_FOUND, "there is no such challenge of yours")
    if request.payload is None or asked.status in (Status.VALID, Status.INVALID):
        found = await take_up(server, request, found)
    elif found.status is Status.VALID:
        pass  # another of its challenges was met
    elif found.status is not Status.PENDING:
        raise Problem(ProblemType.MALFORMED, f"the authorization of this challenge is {found.status}")
    else:
        found = await _answer(server, request, found, asked)
    asked = found.challenge(type)
    assert asked is not None
    return Reply(
        _shown_challenge(server, found, asked, request.urls),
        links=((request.urls.to("authz", found.id), "up"),),
        retry_after=_retry_after(server, found) if asked.status is Status.PROCESSING else None,
    )


async def _answer(server: Server, request: VerifiedRequest, found: Authorization, asked: Challenge) -> Authorization:
    """The client says it is ready. Where the policy wants it so, or without validators, a person decides."""
    answered = asked.answer(request.key.thumbprint, None)
    validators = _validators(server, found)
    if asked.status is Status.PROCESSING and (validators is None or _is_held(server, found, asked)):
        return found
    if validators is None:
        waiting = found.with_challenge(answered)
        await server.commit(waiting, unchanged=[request.owner])
        return waiting
    if isinstance(validators.get(asked.type), TakesTheirWord):
        believed = found.with_challenge(answered.validate(server.now()))
        await server.commit(believed, unchanged=[request.owner], durable=False)
        return believed
    return await _validate(server, request, found, answered)


async def take_up(server: Server, request: VerifiedRequest, found: Authorization) -> Authorization:
    """Go on with a validation that somebody began and was not heard of again: whoever asks sees to it."""
    asked = _cut_short(server, found)
    if asked is None or asked.thumbprint is None:
        return found
    return await _validate(server, request, found, asked.answer(asked.thumbprint, None))


async def take_up_all(
    server: Server, request: VerifiedRequest, found: Sequence[Authorization]
) -> Sequence[Authorization]:
    """The same for many, at the same time: who asks waits no longer than for one."""
    if not any(_cut_short(server, each) for each in found):
        return found
    return await asyncio.gather(*[take_up(server, request, each) for each in found])


def _validators(server: Server, found: Authorization) -> Validators | None:
    """Who validates its challenges; None if a person decides."""
    return None if found.ruling.decision is Decision.ASK else server.validators


def _is_held(server: Server, found: Authorization, asked: Challenge) -> bool:
    """Whether another process is at it."""
    if (found.id, asked.type) in server.validating:
        return False
    return asked.lease is not None and server.now() < asked.lease


def _cut_short(server: Server, found: Authorization) -> Challenge | None:
    if _validators(server, found) is None or found.status is not Status.PENDING:
        return None
    now = server.now()
    return next(
        (
            each
            for each in found.challenges
            if each.status is Status.PROCESSING and each.thumbprint and (each.lease is None or each.lease <= now)
        ),
        None,
    )


async def _validate(
    server: Server, request: VerifiedRequest, found: Authorization, answered: Challenge
) -> Authorization:
    """Validate, waiting for as long as is polite; go on behind the reply if that is not enough (§7.5.1)."""
    name = (found.id, answered.type)
    task = server.validating.get(name)
    if task is None and len(server.validating) >= server.limits.validations_at_once:
        return await _queue(server, request, found, answered)
    if task is None:
        task = asyncio.create_task(_judge(server, request, found, answered))
        server.validating[name] = task
        task.add_done_callback(lambda task: _done(server, name, task))
    await asyncio.wait({task}, timeout=server.limits.patience.total_seconds())
    if task.done():
        return task.result()
    # Not quick, so others have to know that somebody is at it, and until when.
    lease = server.now() + server.limits.validation + timedelta(seconds=5)
    assert answered.thumbprint is not None
    with contextlib.suppress(Conflict):  # the judgement came in between, or a person's
        await server.commit(found.with_challenge(answered.answer(answered.thumbprint, lease)), durable=False)
    return await _reload(server, found)


async def _queue(server: Server, request: VerifiedRequest, found: Authorization, answered: Challenge) -> Authorization:
    """Leave it for when there is room: without a lease, whoever asks next takes it up."""
    asked = found.challenge(answered.type)
    if asked is None or asked.status is not Status.PENDING:
        return found
    if not request.again:
        await _count(server, found)
    (waiting,) = await server.commit(found.with_challenge(answered), unchanged=[request.owner])
    return cast("Authorization", waiting)


async def _count(server: Server, found: Authorization) -> None:
    """Count a validation for its account and name. Raises `Problem` (rateLimited)."""
    whose = (found.account, str(found.identifier))
    await server.rates.take(Count(server.limits.validations_of_name, "validations of this identifier", whose))


def _done(server: Server, name: tuple[str, ChallengeType], task: asyncio.Task[Authorization]) -> None:
    del server.validating[name]
    if not task.cancelled() and (error := task.exception()) and not isinstance(error, Problem):
        # Perhaps nobody waits for it any more. The lease lapses, and whoever asks then takes it up.
        trace = None if isinstance(error, StoreError) else error
        why = "what became of %s for authorization %s could not be written down: %s"
        log.error(why, name[1], name[0], error, exc_info=trace)


def _attempt(request: VerifiedRequest, found: Authorization, answered: Challenge) -> Attempt:
    """What the validator is told. The key authorization belongs to the key that answered (§8.1)."""
    account, thumbprint = request.owner, answered.thumbprint or ""
    return Attempt(
        identifier=found.identifier.base.value,
        identifier_type=found.identifier.type.value,
        token=answered.token,
        key_authorization=key_authorization(answered.token, thumbprint),
        wildcard=found.identifier.wildcard,
        account=request.urls.to("acct", account.id),
        thumbprints=tuple(each for each in (account.thumbprint, *account.earlier) if each != thumbprint),
    )


async def _judge(server: Server, request: VerifiedRequest, found: Authorization, answered: Challenge) -> Authorization:
    """Ask the validator and write down what it says, unless the authorization is no longer waiting. Raises `Problem`
    (rateLimited), and leaves everything as it is, for whoever asks too often."""
    asked = found.challenge(answered.type)
    if asked is not None and asked.status is Status.PENDING:  # one that was cut short has been counted
        await _count(server, found)
    account: Account | None = request.owner
    attempt = _attempt(request, found, answered)
    judgement = await judge(
        (server.validators or {}).get(answered.type), attempt, answered.type, server.limits, server.now
    )
    now = server.now()
    while found.settle(now).status is Status.PENDING:
        if judgement.problem is None and (account is None or account.status is not Status.VALID):
            # What was proved for an account that has been given up meanwhile proves nothing.
            problem = Problem(ProblemType.UNAUTHORIZED, "the account has been given up")
            judgement = refuse(problem, attempt, answered.type, now)
        decided = _decide(server, found, answered, judgement, now)
        orders = [] if judgement.problem is None else await refused_orders(server.store, decided)
        try:
            await server.commit(decided, *orders, unchanged=[account] if account else [])
        except Conflict:  # the lease, most likely; the judgement stands
            found = await _reload(server, found)
            record = await server.store.get(Kind.ACCOUNT, found.account)
            account = None if record is None else server.read(Account, record)
        else:
            server.observe(Validated(answered.type, judgement.problem is None))
            log_judgement(found, judgement.validation, proved=judgement.problem is None)
            return decided
    return found


def _decide(
    server: Server, found: Authorization, answered: Challenge, judgement: Judgement, now: datetime
) -> Authorization:
    if judgement.problem is not None:
        return found.decide(answered.refuse(judgement.problem), judgement.validation)
    expires = max(found.expires, now + server.limits.authorization_reuse)
    if judgement.expires is not None:
        expires = min(expires, judgement.expires)
    return found.decide(answered.validate(now), judgement.validation, expires)


async def _reload(server: Server, found: Authorization) -> Authorization:
    record = await server.store.get(Kind.AUTHORIZATION, found.id)
    if record is None:
        raise Problem(ProblemType.NOT_FOUND, "there is no such authorization of yours")
    return server.read(Authorization, record).settle(server.now())


def _load(server: Server, request: VerifiedRequest) -> Authorization:
    """The authorization, if it is the account's own; to everybody else it is not there."""
    found = None if request.record is None else server.read(Authorization, request.record)
    if found is None or found.account != request.owner.id:
        raise Problem(ProblemType.NOT_FOUND, "there is no such authorization or challenge of yours")
    return found.settle(server.now())


def make_authorization(
    server: Server,
    account: Account,
    identifier: Identifier,
    ruling: Ruling,
    expires: datetime,
    client: str,
    *,
    ahead: bool = False,
    order: str | None = None,
) -> Authorization:
    """A new authorization: valid from birth where nothing has to be proved, which §7.1.6 allows."""
    try:
        server.ca.check_names([identifier])
    except NamesRefused as error:
        raise Problem(ProblemType.REJECTED_IDENTIFIER, str(error)) from None
    validators = None if ruling.decision is Decision.ASK else server.validators
    offered = STANDARD if validators is None else validators
    types = tuple(type for type in challenge_types(identifier) if type in offered)
    trusted = ruling.decision is Decision.TRUST
    if not types and not trusted:
        raise Problem(ProblemType.REJECTED_IDENTIFIER, f"no challenge offered here can prove control of {identifier}")
    now = server.now()
    return Authorization(
        id=new_id(now),
        status=Status.VALID if trusted else Status.PENDING,
        account=account.id,
        identifier=identifier,
        challenges=tuple(_make_challenge(type, now if trusted else None) for type in types),
        created=now,
        expires=expires,
        ahead=ahead,
        client=client,
        order=order,
        ruling=ruling,
    )


def _make_challenge(type: ChallengeType, validated: datetime | None) -> Challenge:
    status = Status.PENDING if validated is None else Status.VALID
    return Challenge(type, new_token(), status, validated=validated)


def count_order(limits: Limits, account: Account, identifiers: Sequence[Identifier], client: str) -> list[Count]:
    """For whom an order counts, or an authorization ahead of one (§6.6): for the account itself first, so that whoever
    is refused takes nothing from others."""
    names = sorted(map(str, identifiers))
    counts = [
        Count(limits.orders_for_same_names, "orders of this account for the same names", (account.id, *names)),
        Count(limits.orders_of_account, "orders of this account", (account.id,)),
    ]
    if external := account.external_account:
        counts.append(Count(limits.orders_of_external_account, "orders of this external account", (external,)))
    return [*counts, Count(limits.orders_of_network, f"orders from {network_of(client)}")]


async def check_pending(server: Server, account: Account, *, adding: int = 1) -> None:
    await server.check_room(
        Kind.AUTHORIZATION,
        f"pending:{account.id}",
        server.limits.pending_authorizations,
        "authorizations of this account are pending; finish or deactivate some",
        adding=adding,
    )


def _reply(server: Server, found: Authorization, urls: URLs) -> Reply:
    waiting = any(each.status is Status.PROCESSING for each in found.challenges) and found.status is Status.PENDING
    return Reply(_shown(server, found, urls), retry_after=_retry_after(server, found) if waiting else None)


def _retry_after(server: Server, found: Authorization) -> timedelta:
    """When to look again: people take longer than validators."""
    limits = server.limits
    return limits.retry_after_person if _validators(server, found) is None else limits.retry_after


def _shown(server: Server, found: Authorization, urls: URLs) -> dict[str, object]:
    # §7.1.4: a pending authorization shows what may be tried, any other what decided it.
    shown = [each for each in found.challenges if found.status is Status.PENDING or each.status is not Status.PENDING]
    document: dict[str, object] = {
        "status": found.status,
        "expires": to_rfc3339(found.expires),
        "identifier": found.identifier.base.to_json(),
        "challenges": [_shown_challenge(server, found, each, urls) for each in shown],
    }
    if found.identifier.wildcard:
        document["wildcard"] = True
    return document


def _shown_challenge(server: Server, found: Authorization, each: Challenge, urls: URLs) -> dict[str, object]:
    document: dict[str, object] = {
        **challenge_fields(server.validators, each.type),
        "type": each.type,
        "url": urls.to("chall", f"{found.id}.{each.type}"),
        "status": each.status,
    }
    if each.type.has_token:
        document["token"] = each.token
    if each.validated:
        document["validated"] = to_rfc3339(each.validated)
    if each.error:
        document["error"] = each.error
    return document


def to_rfc3339(time: datetime) -> str:
    return time.isoformat(timespec="seconds").replace("+00:00", "Z")
