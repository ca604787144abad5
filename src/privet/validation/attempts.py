"""What is to be proved, and what was (RFC 8555 §8): the words between a server and its validators.

A validator may know as little as `ChallengeValidator` says, a name and a key authorization. One that wants more, the
account or whether a wildcard is meant, has the method `prove` and is given an `Attempt`; what it returns says what was
done, and what it raises says so too. The law: nothing but a `Proof` is a yes.
"""

from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Protocol, Self, runtime_checkable

from privet.acme.problems import Problem, ProblemType

STEPS = 60
LONGEST = 300

Clock = Callable[[], datetime]


def utc_now() -> datetime:
    return datetime.now(UTC)


@dataclass(frozen=True, slots=True)
class Attempt:
    """One try at one challenge.

    `identifier` is the name or address, a wildcard's without its `*.`; `identifier_type` is `dns` or `ip`.
    """

    identifier: str
    identifier_type: str
    token: str
    key_authorization: str
    wildcard: bool = False
    """Whether the certificate is to be for `*.` and the identifier."""
    account: str | None = None
    """The account's URL as the client knows it: what its `Location` said (RFC 8555 §7.3)."""
    thumbprints: tuple[str, ...] = ()
    """The account's earlier keys, newest first. Its present one is in the key authorization."""

    @property
    def name(self) -> str:
        """The identifier as a person knows it."""
        return f"*.{self.identifier}" if self.wildcard else self.identifier


@dataclass(frozen=True, slots=True)
class Step:
    """One thing done for a validation: a nameserver was asked, or a host was connected to.

    `what` may have been chosen by whoever is validated (a redirect's URL, the target of an alias). It is plain ASCII,
    and it is for the audit trail: never for the client.
    """

    what: str
    target: str
    """Where to: address and port."""
    source: str = ""
    """From where: our own address and port, where there was a connection."""

    def to_json(self) -> dict[str, str]:
        return {"what": self.what, "target": self.target, "source": self.source}


@dataclass(frozen=True, slots=True)
class Proof:
    """That control was proved: of what, when, by which method, and all that was done to find out."""

    identifier: str
    identifier_type: str
    wildcard: bool
    method: str
    """The type of the challenge."""
    validated: datetime
    steps: tuple[Step, ...] = ()
    expires: datetime | None = None
    """The proof must not be relied on after this: the authorization must expire no later."""
    caa: str | None = None
    """Where the CAA records that allow this were found; empty if there are none, None if nobody looked."""

    def to_json(self) -> dict[str, object]:
        document: dict[str, object] = {
            "identifier": {"type": self.identifier_type, "value": self.identifier},
            "wildcard": self.wildcard,
            "method": self.method,
            "validated": self.validated.isoformat(),
            "steps": [step.to_json() for step in self.steps],
        }
        if self.expires is not None:
            document["expires"] = self.expires.isoformat()
        if self.caa is not None:
            document["caa"] = self.caa
        return document


class NotProved(Problem):
    """A validator's refusal: a problem for the client, and for the audit trail what was done until then."""

    def __init__(self, type: ProblemType, detail: str, *, method: str = "", steps: tuple[Step, ...] = ()) -> None:
        super().__init__(type, detail)
        self.method = method
        self.steps = steps

    @classmethod
    def from_problem(cls, problem: Problem, method: str, steps: tuple[Step, ...]) -> Self:
        return cls(problem.type, problem.detail, method=method, steps=steps)


class SimpleValidator(Protocol):
    """`ChallengeValidator` as the server has it."""

    async def validate(self, identifier: str, identifier_type: str, token: str, key_authorization: str) -> bool: ...


@runtime_checkable
class Prover(Protocol):
    """A validator that wants to know more, and to say more."""

    async def prove(self, attempt: Attempt) -> Proof:
        """Return what was proved. Raises `Problem`, ours always `NotProved`."""
        ...


class Trail:
    """The steps of a validation while it is under way: the latest ones, each cut to a size that can be kept."""

    def __init__(self, steps: Iterable[Step] = ()) -> None:
        self._steps = deque(steps, maxlen=STEPS)

    def add(self, what: str, target: str, source: str = "") -> None:
        self._steps.append(Step(what[:LONGEST], target, source))

    @property
    def steps(self) -> tuple[Step, ...]:
        return tuple(self._steps)


async def prove(
    validator: SimpleValidator | Prover, attempt: Attempt, *, method: str = "", now: Clock = utc_now
) -> Proof:
    """Ask any validator, whichever of the two protocols it speaks. Raises `Problem`."""
    if isinstance(validator, Prover):
        return await validator.prove(attempt)
    method = getattr(validator, "method", method)
    found = await validator.validate(
        attempt.identifier, attempt.identifier_type, attempt.token, attempt.key_authorization
    )
    if found is not True:
        raise NotProved(
            ProblemType.INCORRECT_RESPONSE,
            f"{method} for {attempt.name} was not answered as it should be",
            method=method,
        )
    return Proof(attempt.identifier, attempt.identifier_type, attempt.wildcard, method, now())
