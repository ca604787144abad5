from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from privet.stores.horizon import Horizon

NOW = datetime(2026, 3, 1, tzinfo=UTC)
MINUTE, HOUR, DAY = timedelta(minutes=1), timedelta(hours=1), timedelta(days=1)


def test_a_clock_that_goes_on_steadily_is_believed() -> None:
    horizon = Horizon(HOUR, 2 * HOUR)
    assert [horizon.until(NOW + number * HOUR) for number in range(5)] == [NOW + number * HOUR for number in range(5)]


def test_a_leap_is_believed_when_it_has_lasted() -> None:
    horizon = Horizon(HOUR, 2 * HOUR)
    horizon.until(NOW)
    later = NOW + 5 * DAY
    assert [horizon.until(later + number * HOUR) for number in range(4)] == [
        NOW,
        NOW,
        later + 2 * HOUR,
        later + 3 * HOUR,
    ]


def test_a_leap_is_believed_no_sooner_where_nobody_looks_meanwhile() -> None:
    horizon = Horizon(HOUR, 2 * HOUR)
    horizon.until(NOW)
    later = NOW + 5 * DAY
    looks = [later, later + 90 * MINUTE, later + 180 * MINUTE, later + 190 * MINUTE]
    assert [horizon.until(look) for look in looks] == [NOW, NOW, later + 90 * MINUTE, later + 90 * MINUTE]
    assert horizon.until(NOW + 2 * HOUR) == NOW + 2 * HOUR


def test_a_clock_that_is_put_back_is_believed_at_once() -> None:
    horizon = Horizon(HOUR, 2 * HOUR)
    horizon.until(NOW)
    assert horizon.until(NOW + 5 * DAY) == NOW
    assert horizon.until(NOW + MINUTE) == NOW + MINUTE


def test_whoever_seldom_looks_is_behind_by_a_look() -> None:
    horizon = Horizon(HOUR, 2 * HOUR)
    days = [NOW + number * DAY for number in range(5)]
    assert [horizon.until(day) for day in days] == [days[0], *days[:-1]]


@given(st.lists(st.integers(-(10**6), 10**6), max_size=20))
def test_it_is_never_ahead_of_the_clock(minutes: list[int]) -> None:
    horizon, now = Horizon(HOUR, 2 * HOUR), NOW
    for each in minutes:
        now += each * MINUTE
        assert horizon.until(now) <= now
