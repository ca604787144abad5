"""What is to be proved, and what was (RFC 8555 §8): the words between a server and its validators.

A validator may know as little as `ChallengeValidator` says, a name and a key authorization. One that wants more, the
account or whether a wildcard is meant, has the method `prove` and is given an `Attempt`; what it returns says what was
done, and what it raises says so too. The law: nothing but a `Proof` is a yes.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol, Self, runtime_checkable

from privet.acme.problems import Problem, ProblemType

# What is kept of a validation: its last steps, each cut to a length.
STEPS = 60
LONGEST = 300

Clock = Callable[[], datetime]


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
    """The account's other keys, newest first. The one that answered is in the key authorization."""

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
        return {"what": self.what[:LONGEST], "target": self.target[:LONGEST], "source": self.source[:LONGEST]}


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
        """As it is kept: of bounded size, whatever the validator put into it."""
        document: dict[str, object] = {
            "identifier": {"type": self.identifier_type, "value": self.identifier},
            "wildcard": self.wildcard,
            "method": self.method[:LONGEST],
            "validated": self.validated.isoformat(),
            "steps": steps_to_json(self.steps),
        }
        if self.expires is not None:
            document["expires"] = self.expires.isoformat()
        if self.caa is not None:
            document["caa"] = self.caa[:LONGEST]
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


def steps_to_json(steps: Sequence[Step]) -> list[dict[str, str]]:
    return [step.to_json() for step in steps[-STEPS:]]


@runtime_checkable
class ChallengeValidator(Protocol):
    async def validate(self, identifier: str, identifier_type: str, token: str, key_authorization: str) -> bool:
        """Return whether the key authorization was found where the challenge says it must be.

        `identifier` is the name or address (a wildcard's without its `*.`), `identifier_type` is `dns` or `ip`. A
        validator that knows why it refuses raises a `Problem` instead of returning False.
        """
        ...


@runtime_checkable
class Prover(Protocol):
    """A validator that wants to know more, and to say more."""

    async def prove(self, attempt: Attempt) -> Proof:
        """Return what was proved. Raises `Problem`, ours always `NotProved`."""
        ...


async def prove(validator: ChallengeValidator | Prover, attempt: Attempt, *, method: str = "", now: Clock) -> Proof:
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
