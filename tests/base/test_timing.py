"""What is said of latencies, against NumPy; and when there is time for something extra."""

from __future__ import annotations

import math
import sys
import threading
import time
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from livesr.base.timing import Histogram, Pace, StepTimes, now_ns, starts_ns

SHORTEST_MS, LONGEST_MS = 1e-3, 1e6
PERCENTILES = (0, 1, 5, 25, 50, 75, 90, 99, 99.9, 100)


def histogram_of(durations_ms: NDArray[np.float64] | list[float]) -> Histogram:
    histogram = Histogram()
    for ms in durations_ms:
        histogram.add(float(ms))
    return histogram


def check_percentiles(durations_ms: NDArray[np.float64]) -> None:
    """Every percentile is within 5 % of the duration that NumPy finds.

    Where `n * q / 100` is a whole number, NumPy's rounding may take the next one.
    """
    histogram = histogram_of(durations_ms)
    for q in PERCENTILES:
        exact = np.percentile(durations_ms, q, method="inverted_cdf")
        assert histogram.percentile(q) == pytest.approx(exact, rel=0.05), q


@pytest.mark.parametrize(
    "durations_ms",
    [
        np.random.default_rng(0).uniform(0.5, 80, 4999),
        np.random.default_rng(1).lognormal(3, 1.5, 4999),
        np.random.default_rng(2).exponential(12, 4999) + SHORTEST_MS,
        np.concatenate([np.full(990, 20.0), np.full(10, 900.0)]),  # a tail of one in a hundred
        np.arange(1, 101, dtype=float),
        np.array([7.3]),
        np.full(12, 0.25),
    ],
    ids=["uniform", "lognormal", "exponential", "tail", "1 to 100", "one", "alike"],
)
def test_percentiles_are_numpys_to_within_a_bin(durations_ms: NDArray[np.float64]) -> None:
    check_percentiles(durations_ms)


@given(st.lists(st.floats(SHORTEST_MS, LONGEST_MS), min_size=1, max_size=50))
def test_percentiles_of_any_durations_are_numpys_to_within_a_bin(durations_ms: list[float]) -> None:
    check_percentiles(np.array(durations_ms))


@given(st.floats(SHORTEST_MS, LONGEST_MS))
def test_one_duration_is_known_to_half_a_bin(ms: float) -> None:
    # 1.05 ** 0.5 from the middle of a bin to its edge, and the last digits of a logarithm
    assert histogram_of([ms]).percentile(50) == pytest.approx(ms, rel=1.05**0.5 - 1 + 1e-9)


def test_a_step_of_six_percent_is_seen_wherever_it_is() -> None:
    for ms in np.geomspace(SHORTEST_MS, LONGEST_MS / 1.06, 500):
        assert histogram_of([ms]).percentile(50) < histogram_of([ms * 1.06]).percentile(50)


def test_without_durations_nothing_is_said() -> None:
    empty = Histogram()
    assert math.isnan(empty.percentile(50))
    assert empty.summary() == {"p50": None, "p99": None, "mean": None}
    assert (empty.count, empty.total_ms) == (0, 0.0)


def test_what_is_off_the_scale_counts_at_its_ends() -> None:
    histogram = histogram_of([0.0, 1e-6, 5.0, 1e9, 1e12])
    assert histogram.count == 5
    assert histogram.percentile(0) == pytest.approx(SHORTEST_MS, rel=0.05)
    assert histogram.percentile(50) == pytest.approx(5.0, rel=0.05)
    assert histogram.percentile(100) == pytest.approx(LONGEST_MS, rel=0.07)
    assert histogram.summary()["mean"] == pytest.approx((5 + 1e9 + 1e12) / 5)


def test_the_summary_is_of_all_durations() -> None:
    durations = np.random.default_rng(3).gamma(2.0, 15.0, 20_000)
    found = histogram_of(durations).summary()
    assert found["mean"] == pytest.approx(durations.mean(), abs=1e-3)
    for name, q in (("p50", 50), ("p99", 99)):
        assert found[name] == pytest.approx(np.percentile(durations, q), rel=0.05)


@pytest.fixture
def switching_often() -> Iterator[None]:
    """Threads take turns after a few instructions."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


@pytest.mark.usefixtures("switching_often")
def test_a_reader_meanwhile_sees_what_was_added_and_nothing_else() -> None:
    histogram, read = histogram_of([2.0]), []

    def write() -> None:
        for _ in range(5000):
            histogram.add(2.0)

    writer = threading.Thread(target=write)
    writer.start()
    while writer.is_alive() or not read:
        read += [histogram.percentile(q) for q in (0, 50, 100)]
    writer.join()
    assert histogram.count == 5001
    assert max(read) == min(read) == pytest.approx(2.0, rel=0.05)


@pytest.mark.usefixtures("switching_often")
def test_every_thread_may_time_a_step() -> None:
    times, each = StepTimes(("infer", "write", "never")), 500

    def work() -> None:
        for _ in range(each):
            with times.measure("infer"), times.measure("write"):
                pass

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert times["infer"].count == times["write"].count == 4 * each
    assert times["infer"].total_ms > times["write"].total_ms  # the block inside
    assert set(times.summary()) == {"infer", "write"}


def test_a_step_that_fails_is_timed_as_well() -> None:
    times = StepTimes(("infer",))
    with pytest.raises(ZeroDivisionError), times.measure("infer"):
        _ = 1 / 0
    assert times["infer"].count == 1


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


@pytest.mark.parametrize("hours", [-3, 3])
def test_a_clock_that_is_set_moves_the_next_run_and_not_this_one(
    monkeypatch: pytest.MonkeyPatch, hours: int
) -> None:
    """A computer that slept, or whose clock was wrong when a window was opened."""
    wall_ns, set_ns = time.time_ns, int(hours * 3600e9)
    before = starts_ns()
    try:
        with monkeypatch.context() as changed:
            changed.setattr(time, "time_ns", lambda: wall_ns() + set_ns)
            assert 0 <= now_ns() - before < 60e9
            assert abs(starts_ns() - wall_ns() - set_ns) < 1e9
            assert abs(now_ns() - wall_ns() - set_ns) < 1e9
    finally:
        assert abs(starts_ns() - wall_ns()) < 1e9
