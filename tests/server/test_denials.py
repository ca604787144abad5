"""What the log says of refusals: every one of who errs, and a number of who never stops."""

from datetime import UTC, datetime, timedelta

import pytest
from tests.server.conftest import Clock, Stage

from privet.acme.problems import Problem, ProblemType
from privet.server.denials import MOST, SPAN, Denials

pytestmark = pytest.mark.anyio


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level("INFO", "privet")
    return caplog


async def test_a_client_in_a_loop_fills_no_log(stage: Stage, log: pytest.LogCaptureFixture) -> None:
    class Nothing:
        def allow_account(self, applicant: object) -> None: ...

        def allow_order(self, applicant: object, identifiers: object) -> None:
            raise Problem(ProblemType.REJECTED_IDENTIFIER, "nothing for you")

    async with stage(policy=Nothing()) as scene:
        wire = await scene.account()
        for _ in range(300):
            assert (await wire.order("a.internal")).status_code == 403
        said = [line for line in log.messages if line.startswith(("refused ", "not allowed "))]
        assert len(said) == 2 * MOST
        scene.clock.time += SPAN
        wire.nonce = None
        await wire.order("a.internal")
    for kind in ("refused", "not allowed"):
        assert f"{kind}: {300 - MOST} more of '127.0.0.1' within a minute of 2026-03-01T12:00:00+00:00" in log.messages
    assert len(log.messages) < 2 * MOST + 10


def test_others_are_told_of_as_ever(log: pytest.LogCaptureFixture) -> None:
    denials = Denials(Clock())
    for _ in range(2 * MOST):
        denials.say("10.0.0.1", "refused %s", "one")
    denials.say("10.0.0.2", "refused %s", "other")
    denials.say("10.0.0.1", "not allowed %s", "this")
    assert log.messages == ["refused one"] * MOST + ["refused other", "not allowed this"]


def test_a_network_full_of_addresses_is_one_client(log: pytest.LogCaptureFixture) -> None:
    denials = Denials(Clock())
    for number in range(3 * MOST):
        denials.say(f"fd00::{number:x}", "refused")
    assert log.messages == ["refused"] * MOST


def test_who_is_forgotten_is_summed_up(log: pytest.LogCaptureFixture) -> None:
    denials = Denials(Clock())
    for _ in range(MOST + 7):
        denials.say("10.0.0.1", "refused")
    for number in range(1000):
        denials.say(f"fd00:0:0:{number:x}::1", "refused")
    assert log.messages[-2].startswith("refused: 7 more of '10.0.0.1' within a minute of ")
    assert len(denials._clients) == 1000


def test_who_never_comes_again_is_summed_up_when_another_comes(log: pytest.LogCaptureFixture) -> None:
    clock = Clock()
    denials = Denials(clock)
    for _ in range(MOST + 7):
        denials.say("10.0.0.1", "refused")
    clock.time += SPAN
    denials.say("10.0.0.2", "refused")
    assert log.messages[MOST:] == [
        f"refused: 7 more of '10.0.0.1' within a minute of {Clock().time.isoformat()}",
        "refused",
    ]
    assert len(denials._clients) == 1


def test_a_clock_that_is_set_back_silences_nobody(log: pytest.LogCaptureFixture) -> None:
    clock = Clock(datetime(2031, 1, 1, tzinfo=UTC))
    denials = Denials(clock)
    for _ in range(MOST):
        denials.say("10.0.0.1", "refused")
    clock.time -= timedelta(days=1000)
    denials.say("10.0.0.1", "refused")
    assert len(log.messages) == MOST + 1
