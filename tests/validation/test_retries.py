"""Trying again for a while: what may pass, and how long that is waited for."""

from dataclasses import dataclass, field

import pytest
from tests.validation.scene import DIGEST, NOW, PATH, PROOF, TOKEN, Scene
from tests.validation.town import Site, response

from privet.acme.problems import Problem, ProblemType
from privet.validation import Attempt, DNSPersist01Validator, NotProved, Proof, Resolver, Retrying, Step, prove

pytestmark = pytest.mark.anyio

ATTEMPT = Attempt("www.internal", "dns", TOKEN, PROOF)
MOMENT = NotProved(ProblemType.DNS, "not yet", method="dns-01", steps=(Step("TXT", "ns"),))


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@dataclass
class Fickle:
    """A validator that answers as it is told to, one answer after the other."""

    answers: list[Problem | None]
    method: str = "dns-01"

    async def prove(self, attempt: Attempt) -> Proof:
        answer = self.answers.pop(0)
        if answer is not None:
            raise answer
        return Proof(attempt.identifier, attempt.identifier_type, attempt.wildcard, self.method, NOW)


@dataclass
class Night:
    """Time that passes when somebody sleeps."""

    time: float = 0
    naps: list[float] = field(default_factory=list)

    async def sleep(self, seconds: float, /) -> None:
        self.naps.append(seconds)
        self.time += seconds

    def clock(self) -> float:
        return self.time


async def test_it_is_tried_again_until_it_is_there() -> None:
    night = Night()
    validator = Retrying(Fickle([MOMENT, MOMENT, MOMENT, None]), sleep=night.sleep, clock=night.clock)
    assert (await validator.prove(ATTEMPT)).method == "dns-01"
    assert night.naps == [1, 2, 4]


async def test_it_ends_in_the_last_problem_with_all_that_was_done() -> None:
    night = Night()
    last = NotProved(ProblemType.CONNECTION, "the last", steps=(Step("TXT", "other"),))
    validator = Retrying(Fickle([*[MOMENT] * 5, last]), within=30, longest=10, sleep=night.sleep, clock=night.clock)
    with pytest.raises(NotProved, match="the last") as caught:
        await validator.prove(ATTEMPT)
    assert night.naps == [1, 2, 4, 8, 10]
    assert caught.value.type is ProblemType.CONNECTION
    assert [step.target for step in caught.value.steps] == [*["ns"] * 5, "other"]


async def test_no_more_steps_are_kept_than_wanted() -> None:
    night = Night()
    validator = Retrying(Fickle([MOMENT] * 40), within=300, sleep=night.sleep, clock=night.clock, steps=7)
    with pytest.raises(NotProved) as caught:
        await validator.prove(ATTEMPT)
    assert len(caught.value.steps) == 7


@pytest.mark.parametrize("type", [ProblemType.CAA, ProblemType.MALFORMED, ProblemType.SERVER_INTERNAL])
async def test_what_will_be_no_different_is_not_tried_again(type: ProblemType) -> None:
    night = Night()
    validator = Retrying(Fickle([Problem(type, "no")]), sleep=night.sleep, clock=night.clock)
    with pytest.raises(NotProved) as caught:
        await validator.prove(ATTEMPT)
    assert caught.value.type is type
    assert night.naps == []


async def test_a_validator_of_the_simple_protocol_is_asked_again_too() -> None:
    class Simple:
        def __init__(self) -> None:
            self.answers = [False, False, True]

        async def validate(self, *asked: str) -> bool:
            assert asked == ("www.internal", "dns", TOKEN, PROOF)
            return self.answers.pop(0)

    night = Night()
    validator = Retrying(Simple(), method="http-01", now=lambda: NOW, sleep=night.sleep, clock=night.clock)
    assert await validator.validate("www.internal", "dns", TOKEN, PROOF) is True
    assert night.naps == [1, 2]
    with pytest.raises(NotProved, match=r"http-01 for www\.internal was not answered"):
        await prove(Fickle_(False), ATTEMPT, method="http-01", now=lambda: NOW)


class Fickle_:  # noqa: N801
    def __init__(self, answer: object) -> None:
        self.answer = answer

    async def validate(self, *asked: str) -> bool:
        return self.answer  # type: ignore[return-value]


@pytest.mark.parametrize("answer", [False, None, 1, "yes"])
async def test_nothing_but_true_is_a_yes(answer: object) -> None:
    with pytest.raises(NotProved) as caught:
        await prove(Fickle_(answer), ATTEMPT, method="http-01", now=lambda: NOW)
    assert caught.value.type is ProblemType.INCORRECT_RESPONSE


async def test_what_the_inner_one_tells_clients_is_told() -> None:
    inner = DNSPersist01Validator(["ca.internal"], "https://ca.internal/h/", resolver=Resolver(["127.0.0.1"]))
    wrapped = Retrying(inner)
    assert wrapped.method == "dns-persist-01"
    assert wrapped.challenge_fields == inner.challenge_fields
    assert wrapped.directory_meta == inner.directory_meta
    assert Retrying(Fickle([])).challenge_fields == {}


def test_a_record_that_comes_a_moment_later_is_found(scene: Scene) -> None:
    """The client says it is ready, and its nameserver is not."""
    naps: list[float] = []

    async def sleep(seconds: float, /) -> None:
        naps.append(seconds)
        scene.nameserver.add("_acme-challenge.www.internal", "TXT", DIGEST)

    proof = scene.prove(Retrying(scene.dns01(), sleep=sleep), "www.internal")
    assert proof.method == "dns-01"
    assert naps == [1]


def test_the_trail_of_a_long_journey_stays_short(scene: Scene) -> None:
    """Whoever is validated decides how far it goes, not how much of it is kept."""
    for number in range(8):
        scene.nameserver.add(f"h{number}.internal", "A", scene.town.client.address)
    pages = {PATH: response(302, Location=scene.url("h0.internal", "/0" + "x" * 1900))}
    pages |= {
        f"/{number}{'x' * 1900}": response(
            302, Location=scene.url(f"h{number + 1}.internal", f"/{number + 1}{'x' * 1900}")
        )
        for number in range(8)
    }
    with scene.town.client.serve(Site(pages), scene.http):
        refusal = scene.refused(scene.http01(), "h0.internal")
    assert len(refusal.steps) <= 60
    assert all(len(step.what) <= 300 for step in refusal.steps)
