"""What all our validators share: one attempt, with an end to it, and a record of what was done.

The law: whatever the other side does, an attempt ends within its time, in a `Proof` or a `Problem`; and no problem
repeats a byte of what the other side sent.
"""

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Mapping
from datetime import datetime
from typing import ClassVar

from privet.acme.attempts import Attempt, ChallengeValidator, Clock, NotProved, Proof, Prover
from privet.acme.challenges import TOKEN
from privet.acme.identifiers import BadIdentifier, Identifier, IdentifierType, from_json
from privet.acme.problems import Problem, ProblemType
from privet.validation.trail import Trail, utc_now


class Validator(ABC):
    """One type of challenge. Speaks both protocols: `validate`, and `prove` for who wants to know more."""

    method: ClassVar[str]
    for_addresses: ClassVar[bool] = False
    for_wildcards: ClassVar[bool] = False

    def __init__(self, *, timeout: float, now: Clock = utc_now) -> None:
        self.timeout = timeout
        self.now = now

    async def validate(self, identifier: str, identifier_type: str, token: str, key_authorization: str) -> bool:
        """Return True, or raise the `Problem` that says why not."""
        await self.prove(Attempt(identifier, identifier_type, token, key_authorization))
        return True

    async def prove(self, attempt: Attempt) -> Proof:
        """Return what was proved. Raises `NotProved`."""
        trail = Trail(asker=attempt.account or "")
        try:
            identifier = self._check(attempt)
            async with asyncio.timeout(self.timeout) as trail.clock:
                expires = await self.look(attempt, identifier, trail)
        except TimeoutError:
            detail = f"{self.method} for {attempt.name} took longer than {self.timeout:g} s"
            raise NotProved(ProblemType.CONNECTION, detail, method=self.method, steps=trail.steps) from None
        except Problem as problem:
            raise NotProved.from_problem(problem, self.method, trail.steps) from None
        return Proof(
            identifier.value,
            identifier.type.value,
            attempt.wildcard,
            self.method,
            self.now(),
            trail.steps,
            expires=expires,
        )

    @property
    def challenge_fields(self) -> Mapping[str, object]:
        """What each challenge object of this type says besides what all do."""
        return {}

    @property
    def directory_meta(self) -> Mapping[str, object]:
        """What the directory's `meta` says because this type is offered."""
        return {}

    @abstractmethod
    async def look(self, attempt: Attempt, identifier: Identifier, trail: Trail) -> datetime | None:
        """Look where the challenge says. Returns how long what was found is good for, if it says so, and raises
        `Problem` if it is not there."""

    def _check(self, attempt: Attempt) -> Identifier:
        """The identifier, if this method can prove anything about it. Raises `Problem`."""
        try:
            identifier = from_json(attempt.identifier_type, attempt.identifier)
        except BadIdentifier as error:
            raise Problem(ProblemType.MALFORMED, str(error)) from None
        if identifier.type is IdentifierType.IP and not self.for_addresses:
            # RFC 8738 §7: dns-01 must not be used for addresses.
            raise Problem(ProblemType.MALFORMED, f"{self.method} cannot prove control of an address")
        if identifier.wildcard or (attempt.wildcard and not self.for_wildcards):
            # RFC 8555 §8.3, RFC 8737 §3: serving one name says nothing about all names beside it.
            raise Problem(ProblemType.MALFORMED, f"{self.method} cannot prove control of a wildcard")
        if not TOKEN.fullmatch(attempt.token):
            raise Problem(ProblemType.MALFORMED, "the challenge's token is not one")
        return identifier


class Wrapper(ABC):
    """A validator around another, of whichever protocol. `method` is the type of the challenge, for one inside that
    does not know its own."""

    def __init__(self, validator: ChallengeValidator | Prover, *, method: str = "", now: Clock = utc_now) -> None:
        self.validator = validator
        self.method: str = getattr(validator, "method", method)
        self.now = now

    async def validate(self, identifier: str, identifier_type: str, token: str, key_authorization: str) -> bool:
        """Return True, or raise the `Problem` that says why not."""
        await self.prove(Attempt(identifier, identifier_type, token, key_authorization))
        return True

    @abstractmethod
    async def prove(self, attempt: Attempt) -> Proof:
        """Return what was proved. Raises `NotProved`."""

    @property
    def challenge_fields(self) -> Mapping[str, object]:
        return getattr(self.validator, "challenge_fields", {})

    @property
    def directory_meta(self) -> Mapping[str, object]:
        return getattr(self.validator, "directory_meta", {})
