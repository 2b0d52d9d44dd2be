"""When there is time for something extra."""

from __future__ import annotations

from livesr.base.timing import Pace


def came(pace: Pace, series: str, *times_s: float) -> None:
    for now_s in times_s:
        pace.came(series, now_s)


def test_nothing_is_allowed_before_anything_is_known() -> None:
    pace = Pace()
    assert not pace.allows(0.0)
    pace.worked(0.01)
    assert not pace.allows(0.0)
    came(pace, "a", 0.0)
    assert not pace.allows(0.1)


def test_work_must_fit_before_the_next_item() -> None:
    pace = Pace()
    came(pace, "a", 0.0, 1.0)
    pace.worked(0.4)
    assert pace.allows(1.1)
    assert not pace.allows(1.6)


def test_the_slowest_of_the_last_works_counts_and_is_forgotten() -> None:
    pace = Pace()
    came(pace, "a", 0.0, 1.0)
    for seconds in (2.0, *[0.1] * 7):
        pace.worked(seconds)
    assert not pace.allows(1.0)
    pace.worked(0.1)
    assert pace.allows(1.0)


def test_the_shortest_of_the_last_intervals_counts() -> None:
    pace = Pace()
    came(pace, "a", 0.0, 0.2, 1.2, 2.2)
    pace.worked(0.5)
    assert not pace.allows(2.2)
    came(pace, "a", 3.2)
    assert pace.allows(3.2)


def test_the_next_item_of_any_series_counts() -> None:
    pace = Pace()
    came(pace, "a", 0.0, 10.0)
    came(pace, "b", 1.0, 11.0)
    pace.worked(0.5)
    assert pace.allows(11.0)
    came(pace, "a", 20.0)
    assert pace.allows(20.1)
    assert not pace.allows(20.5)  # b is due at 21


def test_an_item_that_is_late_may_come_any_moment_and_a_series_that_ended_does_not_count() -> None:
    pace = Pace()
    came(pace, "ended", 0.0, 1.0)
    came(pace, "a", 0.0, 10.0)
    pace.worked(0.1)
    assert not pace.allows(20.5)
    assert not pace.allows(30.5)  # nothing is expected any more: nothing is known
    came(pace, "a", 31.0)
    assert pace.allows(31.0)
