"""Asking the policy: what a request may have, and by which rule.

The law: nothing is written before the policy has answered, and whatever is not a clear answer is a no. All that is
refused is named at once (RFC 8555 §6.7.1).
"""

import asyncio
import contextlib
import inspect
import logging
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from datetime import timedelta
from typing import Generic, NamedTuple, TypeVar

from privet.acme.encoding import to_json
from privet.acme.identifiers import Identifier
from privet.acme.problems import Problem, ProblemType, Subproblem, compound
from privet.ca.keys import PublicKey, check_public_key
from privet.server.client_certificates import read_client_certificate
from privet.server.external_accounts import Bound, find_bound
from privet.server.policy import Applicant, CertificatePolicy, Ruling, read_rulings
from privet.server.records import Named
from privet.server.server import Server, VerifiedRequest

log = logging.getLogger("privet")

# An order may have many names, and a client many orders.
_TOLD = 10

Allowed = TypeVar("Allowed")
Answer = TypeVar("Answer")
Read = TypeVar("Read")


class Permission(NamedTuple, Generic[Allowed]):
    """What is allowed, and what this depends on: it has to be `unchanged` when use is made of it."""

    allowed: Allowed
    unchanged: tuple[Named, ...]


async def permit_account(
    server: Server, request: VerifiedRequest, contact: tuple[str, ...], bound: Bound | None
) -> None:
    """Ask whether the account may be made. Raises `Problem`."""
    applicant = _applicant(server, request, None, contact, bound)

    def read(answer: object) -> None:
        # `return False` is a no as well, and not one that anybody means to be overheard.
        if answer is not None and answer is not True:
            raise TypeError("a policy lets an account be by returning None, and refuses by raising Problem")

    with _on_record(server, applicant):
        await _ask(server, lambda: server.policy.allow_account(applicant), read)


async def permit_identifiers(
    server: Server,
    request: VerifiedRequest,
    identifiers: Sequence[Identifier],
    *,
    profile: str | None = None,
    lifetime: timedelta | None = None,
) -> Permission[Mapping[Identifier, Ruling]]:
    """Ask what the account has to do for each of these. Raises `Problem` if it may not have all of them."""
    bound = await find_bound(server, request.owner)
    applicant = _applicant_of(server, request, bound, profile, lifetime)
    with _on_record(server, applicant):
        rulings = await _rule_on(server, applicant, bound, identifiers)
    return Permission(rulings, _unchanged(bound))


def log_rulings(account: str, rulings: Mapping[Identifier, Ruling]) -> None:
    """A line for each name, by which rule an account has it. For orders that are made: others fill the log."""
    for identifier, ruling in rulings.items():
        if ruling.rule:
            log.info("account %s, %s: %s by %a", account, identifier, ruling.decision.value, ruling.rule)


async def _rule_on(
    server: Server, applicant: Applicant, bound: Bound | None, identifiers: Sequence[Identifier]
) -> Mapping[Identifier, Ruling]:
    """What the account's external account key and the policy say together. Raises `Problem`."""
    wrong = [
        Subproblem(ProblemType.REJECTED_IDENTIFIER, why, identifier)
        for identifier, why in (bound.key.objections(identifiers) if bound and bound.key else ())
    ]
    try:
        rulings: Mapping[Identifier, Ruling] = await _ask(
            server,
            lambda: server.policy.allow_order(applicant, identifiers),
            lambda answer: read_rulings(answer, identifiers),
        )
    except Problem as problem:
        if not wrong:
            raise
        raise compound([*wrong, *(problem.subproblems or [Subproblem(problem.type, problem.detail)])]) from None
    wrong += [
        Subproblem(ProblemType.REJECTED_IDENTIFIER, f"{identifier} is not allowed", identifier)
        for identifier in identifiers
        if identifier not in rulings
    ]
    if wrong:
        raise compound(wrong)
    return bound.key.rule_on(rulings) if bound and bound.key else rulings


async def permit_certificate(
    server: Server,
    request: VerifiedRequest,
    identifiers: Sequence[Identifier],
    public_key: PublicKey,
    lifetime: timedelta | None,
) -> Permission[timedelta]:
    """Ask about the certificate itself, whose key is known by now: how long it may live. Raises `Problem`."""
    longest = server.profile.validity
    bound = await find_bound(server, request.owner)
    policy: CertificatePolicy = server.policy  # type: ignore[assignment] # if it has the verb, which it need not
    if not hasattr(policy, "allow_certificate"):
        return Permission(longest, _unchanged(bound))
    applicant = _applicant_of(server, request, bound, server.profile.name, lifetime)
    key_type = check_public_key(public_key)

    def read(answer: object) -> timedelta:
        if answer is None:
            return longest
        if not isinstance(answer, timedelta) or answer < timedelta(seconds=1):
            raise TypeError("a policy answers with the lifetime that a certificate may have, or None")
        return min(answer, longest)

    with _on_record(server, applicant):
        allowed = await _ask(server, lambda: policy.allow_certificate(applicant, identifiers, key_type), read)
        if lifetime is not None and lifetime > allowed:
            raise Problem(ProblemType.UNAUTHORIZED, f"this certificate may live for {allowed} at most; order it anew")
    return Permission(allowed, _unchanged(bound))


@contextlib.contextmanager
def _on_record(server: Server, applicant: Applicant) -> Iterator[None]:
    """A line in the log for what is not allowed: who asked, from where, and why not."""
    try:
        yield
    except Problem as problem:
        shown = applicant.client_certificate
        about = {
            "account": applicant.account,
            "client": applicant.client,
            "externalAccount": applicant.external_account_name,
            "clientCertificate": shown.fingerprint if shown else None,
            "reasons": [each.detail for each in problem.subproblems[:_TOLD]] or [problem.detail],
        }
        server.denials.say(applicant.client, "not allowed %s", to_json(about).decode())
        raise


def _unchanged(bound: Bound | None) -> tuple[Named, ...]:
    return (bound.key,) if bound and bound.key else ()


def _applicant_of(
    server: Server, request: VerifiedRequest, bound: Bound | None, profile: str | None, lifetime: timedelta | None
) -> Applicant:
    account = request.owner
    return _applicant(server, request, account.id, account.contact, bound, profile, lifetime)


def _applicant(
    server: Server,
    request: VerifiedRequest,
    account: str | None,
    contact: tuple[str, ...],
    bound: Bound | None,
    profile: str | None = None,
    lifetime: timedelta | None = None,
) -> Applicant:
    pem = request.client_certificate
    return Applicant(
        account=account,
        contact=contact,
        external_account=bound.id if bound else None,
        client=request.client,
        external_account_name=bound.name if bound else None,
        client_certificate=read_client_certificate(pem, server.now()) if pem else None,
        profile=profile,
        lifetime=lifetime,
    )


async def _ask(
    server: Server, question: Callable[[], Awaitable[Answer] | Answer], read: Callable[[Answer], Read]
) -> Read:
    """Take the answer of a policy, which may be async; if it fails in whatever way, the answer is no."""
    try:
        answer = question()
        if inspect.isawaitable(answer):
            async with asyncio.timeout(server.limits.policy.total_seconds()):
                answer = await answer
        return read(answer)
    except Problem:
        raise
    except asyncio.CancelledError:
        task = asyncio.current_task()
        if task is None or task.cancelling():
            raise  # it is the request that ends
        log.exception("the policy was cancelled")
    except Exception:
        log.exception("the policy failed")
    raise Problem(ProblemType.SERVER_INTERNAL, "whether this is allowed could not be decided")
