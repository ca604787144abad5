"""Validators: who finds out whether a challenge has been met (RFC 8555 §8)."""

import asyncio
import logging
from collections.abc import Mapping
from datetime import timedelta
from typing import Protocol, runtime_checkable

from privet.acme.challenges import ChallengeType, key_authorization
from privet.acme.identifiers import Identifier
from privet.acme.problems import Problem, ProblemType
from privet.server.records import Challenge

log = logging.getLogger("privet")


@runtime_checkable
class ChallengeValidator(Protocol):
    async def validate(self, identifier: str, identifier_type: str, token: str, key_authorization: str) -> bool:
        """Return whether the key authorization was found where the challenge says it must be.

        `identifier` is the name or address (a wildcard's without its `*.`), `identifier_type` is `dns` or `ip`. A
        validator that knows why it refuses raises a `Problem` instead of returning False.
        """
        ...


class TakesTheirWord:
    """Accepts every answer: what `auto_approve` does when clients are to answer challenges all the same."""

    async def validate(self, identifier: str, identifier_type: str, token: str, key_authorization: str) -> bool:
        return True


Validators = Mapping[ChallengeType, ChallengeValidator]


def choose_validators(
    validator: ChallengeValidator | Mapping[str, ChallengeValidator] | None,
) -> Validators | None:
    """Read what the constructor was given: one validator for all types, or one for each type to offer.

    Raises `ValueError` for a type of challenge that does not exist.
    """
    if validator is None:
        return None
    if isinstance(validator, Mapping):
        return {ChallengeType(type): each for type, each in validator.items()}
    return dict.fromkeys(ChallengeType, validator)


async def judge(
    validator: ChallengeValidator, identifier: Identifier, challenge: Challenge, within: timedelta
) -> Problem | None:
    """Ask a validator; return None if the challenge is met, and otherwise why it is not. Whatever happens inside the
    validator, it is an answer, and nothing but `True` is a yes."""
    name = identifier.base.value
    proof = key_authorization(challenge.token, challenge.thumbprint or "")
    try:
        async with asyncio.timeout(within.total_seconds()):
            found = await validator.validate(name, identifier.type.value, challenge.token, proof)
    except Problem as problem:
        return problem
    except asyncio.CancelledError:
        task = asyncio.current_task()
        if task is None or task.cancelling():
            raise  # it is we who are to stop
        return Problem(ProblemType.SERVER_INTERNAL, f"{challenge.type} for {name} could not be validated")
    except TimeoutError:
        return Problem(ProblemType.CONNECTION, f"{challenge.type} for {name} took longer than {within.seconds} s")
    except Exception:
        log.exception("the validator of %s failed for %s", challenge.type, name)
        return Problem(ProblemType.SERVER_INTERNAL, f"{challenge.type} for {name} could not be validated")
    if found is True:
        return None
    return Problem(ProblemType.INCORRECT_RESPONSE, f"{challenge.type} for {name} was not answered as it should be")
