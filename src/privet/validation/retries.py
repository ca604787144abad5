"""Trying again (RFC 8555 §8.2): records and files take a while to be everywhere, and a client that said it is ready
may have been a moment too early."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Collection
from typing import Protocol

from privet.acme.attempts import STEPS, Attempt, ChallengeValidator, Clock, NotProved, Proof, Prover, Step, prove
from privet.acme.problems import Problem, ProblemType
from privet.validation.trail import utc_now
from privet.validation.validator import Wrapper

# What may be otherwise in a moment. What CAA says, or that a name is malformed, will not be.
PASSING = frozenset(
    {
        ProblemType.CONNECTION,
        ProblemType.DNS,
        ProblemType.INCORRECT_RESPONSE,
        ProblemType.TLS,
        ProblemType.UNAUTHORIZED,
    }
)


class Sleep(Protocol):
    def __call__(self, seconds: float, /) -> Awaitable[None]: ...


class Retrying(Wrapper):
    """A validator, asked again when it fails: after `pause` seconds, then `factor` times as long, never longer than
    `longest`, as long as the next try begins within `within` seconds of the first. Only the types of problem in
    `passing` are tried again. The last problem is the answer;
    of the steps, the last ones are kept."""

    def __init__(
        self,
        validator: ChallengeValidator | Prover,
        *,
        within: float = 40.0,
        pause: float = 1.0,
        factor: float = 2.0,
        longest: float = 10.0,
        passing: Collection[ProblemType] = PASSING,
        method: str = "",
        now: Clock = utc_now,
        sleep: Sleep = asyncio.sleep,
        clock: Callable[[], float] = time.monotonic,
        steps: int = STEPS,
    ) -> None:
        super().__init__(validator, method=method, now=now)
        self.within = within
        self.pause = pause
        self.factor = factor
        self.longest = longest
        self.passing = passing
        self.steps = steps
        self._sleep = sleep
        self._clock = clock

    async def prove(self, attempt: Attempt) -> Proof:
        last = self._clock() + self.within
        pause = self.pause
        steps: tuple[Step, ...] = ()
        while True:
            try:
                proof = await prove(self.validator, attempt, method=self.method, now=self.now)
            except Problem as problem:
                steps += problem.steps if isinstance(problem, NotProved) else ()
                steps = steps[-self.steps :]
                if problem.type not in self.passing or self._clock() + pause > last:
                    raise NotProved.from_problem(problem, self.method, steps) from None
            else:
                return proof
            await self._sleep(pause)
            pause = min(pause * self.factor, self.longest)
