"""Validators: who finds out whether a challenge has been met (RFC 8555 §8), and what is kept of what they say.

The law: whatever happens inside a validator, it is an answer, and nothing but a proof of what was asked is a yes.
"""

import asyncio
import logging
from collections.abc import Mapping
from datetime import datetime
from typing import NamedTuple

from privet.acme.attempts import Attempt, ChallengeValidator, Clock, NotProved, Proof, Prover, prove, steps_to_json
from privet.acme.challenges import STANDARD, ChallengeType
from privet.acme.encoding import to_json
from privet.acme.problems import Problem, ProblemType
from privet.server.limits import Limits
from privet.server.records import Authorization

log = logging.getLogger("privet")


class TakesTheirWord:
    """Accepts every answer: what `auto_approve` does when clients are to answer challenges all the same."""

    async def validate(self, identifier: str, identifier_type: str, token: str, key_authorization: str) -> bool:
        return True


AnyValidator = ChallengeValidator | Prover
Validators = Mapping[ChallengeType, AnyValidator]


def choose_validators(validator: AnyValidator | Mapping[str, AnyValidator] | None) -> Validators | None:
    """Read what the constructor was given: one validator for all usual types, or one for each type to offer.

    Raises `ValueError` for a type of challenge that does not exist, and `TypeError` for what is no validator.
    """
    if validator is None:
        return None
    if not isinstance(validator, Mapping):
        return dict.fromkeys(STANDARD, _checked(validator))
    if unknown := [type for type in validator if type not in list(ChallengeType)]:
        raise ValueError(f"{unknown[0]!r} is no type of challenge; there are {', '.join(ChallengeType)}")
    return {ChallengeType(type): _checked(each) for type, each in validator.items()}


def _checked(validator: AnyValidator) -> AnyValidator:
    """A class in place of an object has the methods too, and could do nothing with them."""
    # Not by isinstance, to which from Python 3.12 on a method that `__getattr__` finds is none.
    validates = callable(getattr(validator, "validate", None)) or isinstance(validator, Prover)
    if isinstance(validator, type) or not validates:
        raise TypeError(f"{validator!r} is no challenge validator: that is an object with an async method validate")
    return validator


def challenge_fields(validators: Validators | None, type: ChallengeType) -> Mapping[str, object]:
    """What a challenge of this type says besides what all do, if its validator knows of something."""
    fields: Mapping[str, object] = getattr((validators or {}).get(type), "challenge_fields", {})
    return fields


def directory_meta(validators: Validators | None) -> dict[str, object]:
    """What the directory says because of the validators: the names we go by, for one."""
    meta: dict[str, object] = {}
    for validator in (validators or {}).values():
        meta |= getattr(validator, "directory_meta", {})
    return meta


class Judgement(NamedTuple):
    """What a validator came to: why not, or None; what is kept of how it came to it; how long it is good for."""

    problem: Problem | None
    validation: Mapping[str, object]
    expires: datetime | None = None


async def judge(
    validator: AnyValidator | None, attempt: Attempt, type: ChallengeType, limits: Limits, now: Clock
) -> Judgement:
    """Ask a validator whether the challenge is met."""
    failed = Problem(ProblemType.SERVER_INTERNAL, f"{type} for {attempt.name} could not be validated")
    if validator is None:
        gone = Problem(ProblemType.SERVER_INTERNAL, f"{type} is no longer offered here")
        return refuse(gone, attempt, type, now())
    try:
        async with asyncio.timeout(limits.validation.total_seconds()):
            proof = await prove(validator, attempt, method=type, now=now)
        return _accept(proof, attempt, type, now())
    except Problem as problem:
        return refuse(problem, attempt, type, now())
    except asyncio.CancelledError:
        task = asyncio.current_task()
        if task is None or task.cancelling():
            raise  # it is we who are to stop
        return refuse(failed, attempt, type, now())
    except TimeoutError:
        seconds = limits.validation.seconds
        late = Problem(ProblemType.CONNECTION, f"{type} for {attempt.name} took longer than {seconds} s")
        return refuse(late, attempt, type, now())
    except Exception:
        log.exception("the validator of %s failed for %s", type, attempt.name)
        return refuse(failed, attempt, type, now())


def _accept(proof: Proof, attempt: Attempt, type: ChallengeType, now: datetime) -> Judgement:
    """The proof, if it is one, of what was asked, and not over. Raises `Problem`, and anything else if it is none."""
    asked = (attempt.identifier, attempt.identifier_type, attempt.wildcard)
    if not isinstance(proof, Proof) or (proof.identifier, proof.identifier_type, proof.wildcard) != asked:
        raise TypeError("the validator proved something else than it was asked to")
    if proof.expires is not None and proof.expires <= now:
        raise Problem(ProblemType.UNAUTHORIZED, f"what proves {type} for {attempt.name} is over")
    return Judgement(None, proof.to_json(), proof.expires)


def refuse(problem: Problem, attempt: Attempt, type: ChallengeType, now: datetime) -> Judgement:
    """A judgement that somebody else came to."""
    return Judgement(problem, refusal_to_json(problem, attempt.name, attempt.identifier_type, type, now))


def log_judgement(about: Authorization, judgement: Mapping[str, object], *, proved: bool) -> None:
    """A line for what was found out, or decided, about an authorization: who asked, from where, and what is kept."""
    who = {"authorization": about.id, "account": about.account, "client": about.client}
    log.info("%s %s", "proved" if proved else "not proved", to_json({**who, **judgement}).decode())


def refusal_to_json(problem: Problem, name: str, identifier_type: str, method: str, now: datetime) -> dict[str, object]:
    """What is kept of a refusal, next to `Proof.to_json`."""
    return {
        "identifier": {"type": identifier_type, "value": name.removeprefix("*.")},
        "wildcard": name.startswith("*."),
        "method": method,
        "refused": now.isoformat(),
        "error": problem.to_json(),
        "steps": steps_to_json(problem.steps if isinstance(problem, NotProved) else ()),
    }
