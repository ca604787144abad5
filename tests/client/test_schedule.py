"""When a certificate is due, by whatever it is decided, and how long to wait after a failure."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from privet.client.schedule import RenewalInfo, Schedule, retry_delay

BEGIN = datetime(2026, 3, 1, 12, tzinfo=UTC)
DAY = timedelta(days=1)

spans = st.timedeltas(timedelta(seconds=10), timedelta(days=3650))
randoms = st.floats(0, 1)


def early() -> float:
    return 0.0


def late() -> float:
    return 1.0


@pytest.mark.parametrize(
    ("schedule", "lifetime", "after"),
    [
        (Schedule(), DAY, timedelta(hours=16)),
        (Schedule(fraction=0.7), timedelta(hours=10), timedelta(hours=7)),
        (Schedule(days_before_expiry=30), 90 * DAY, 60 * DAY),
        # A day before its end it is new: what was renewed at every sweep elsewhere is left alone for half its life.
        (Schedule(days_before_expiry=1), DAY, timedelta(hours=12)),
        (Schedule(days_before_expiry=1), timedelta(hours=6), timedelta(hours=3)),
        (Schedule(days_before_expiry=1e9), DAY, timedelta(hours=12)),
    ],
)
def test_by_part_of_its_life_or_by_days(schedule: Schedule, lifetime: timedelta, after: timedelta) -> None:
    due = schedule.due(BEGIN, BEGIN + lifetime, early)
    assert abs(due - (BEGIN + after)) < timedelta(seconds=1)
    # A little later for some, so that not all come at once; with most of the time that is left still left.
    assert due < schedule.due(BEGIN, BEGIN + lifetime, late) <= due + (lifetime - after) / 10 + timedelta(seconds=1)


def test_the_window_of_the_server_comes_first() -> None:
    info = RenewalInfo(BEGIN + timedelta(hours=3), BEGIN + timedelta(hours=5))
    for schedule in (Schedule(), Schedule(days_before_expiry=1)):
        assert schedule.due(BEGIN, BEGIN + DAY, early, info) == info.start
        assert schedule.due(BEGIN, BEGIN + DAY, late, info) == info.end


def test_a_window_after_the_end_does_not_keep_us_waiting_for_it() -> None:
    info = RenewalInfo(BEGIN + 5 * DAY, BEGIN + 6 * DAY)
    assert Schedule().due(BEGIN, BEGIN + DAY, early, info) == BEGIN + 0.9 * DAY


@given(st.builds(Schedule, st.floats(0.01, 0.99), st.none() | st.floats(1e-6, 1e12)), spans, randoms)
def test_there_is_always_time_for_another_try(schedule: Schedule, lifetime: timedelta, random: float) -> None:
    due = schedule.due(BEGIN, BEGIN + lifetime, lambda: random)
    assert BEGIN < due < BEGIN + lifetime


@pytest.mark.parametrize("fraction", [0, 1, -1, 2, float("nan")])
def test_a_part_is_a_part(fraction: float) -> None:
    with pytest.raises(ValueError, match="between 0 and 1"):
        Schedule(fraction)


@pytest.mark.parametrize("days", [0, -1, float("nan")])
def test_days_are_some(days: float) -> None:
    with pytest.raises(ValueError, match="more than 0"):
        Schedule(days_before_expiry=days)


@given(st.integers(1, 10_000), st.timedeltas(-100 * DAY, 100 * DAY), spans, randoms)
def test_a_retry_comes_within_the_hour_and_not_at_once(
    failures: int, left: timedelta, lifetime: timedelta, random: float
) -> None:
    delay = retry_delay(failures, left, lifetime, lambda: random)
    assert timedelta(milliseconds=10) <= delay <= timedelta(hours=1)
    if left <= timedelta():
        assert delay <= timedelta(minutes=1)


def test_near_its_end_it_is_tried_ever_more_often() -> None:
    lefts = (timedelta(hours=8), timedelta(hours=2), timedelta(minutes=5))
    delays = [retry_delay(20, left, DAY, early) for left in lefts]
    assert delays == [timedelta(minutes=48), timedelta(minutes=12), timedelta(seconds=30)]
