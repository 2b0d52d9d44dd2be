"""The clock of a run, how long each step takes, and when something more fits in between.

Owns `now_ns`, `starts_ns`, `StepTimes` and `Pace`. Prints nothing.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Hashable, Iterator
from contextlib import contextmanager

import numpy as np

_APART_NS = 1_000_000_000


class _Clock:
    """One reading of the wall clock, then the monotonic one: a clock that is set back mid-run moves
    no time stamp.
    """

    def __init__(self) -> None:
        self.epoch_ns = time.time_ns() - time.perf_counter_ns()


_CLOCK = _Clock()


def now_ns() -> int:
    """Nanoseconds since the Unix epoch, never going backwards within a run."""
    return _CLOCK.epoch_ns + time.perf_counter_ns()


def starts_ns() -> int:
    """Return `now_ns` for a run that starts, by the wall clock where it has left the two for more
    than a second.

    A window stays open for weeks: its computer sleeps, in which the monotonic clock of Linux and
    macOS stands, its wall clock is set, or the two drift apart by seconds a day.
    """
    now, perf_ns = time.time_ns(), time.perf_counter_ns()
    if abs(now - perf_ns - _CLOCK.epoch_ns) > _APART_NS:
        _CLOCK.epoch_ns = now - perf_ns
    return now_ns()


class Histogram:
    """Durations in bins of 5 % width from 1 us to about 1000 s: percentiles without the values.

    Constant memory whatever the run's length. What is shorter or longer counts in the first or the
    last bin; the mean is of the durations themselves. One thread adds, any may read meanwhile.

    Attributes
    ----------
    count : durations that were added
    total_ms : their sum
    """

    _RATIO = 1.05
    _BINS = 426

    __slots__ = ("_counts", "count", "total_ms")

    def __init__(self) -> None:
        self._counts = np.zeros(self._BINS, np.int64)
        self.count = 0
        self.total_ms = 0.0

    def add(self, ms: float) -> None:
        """Record one duration in milliseconds."""
        micro = max(ms * 1e3, 1.0)
        self._counts[min(int(np.log(micro) / np.log(self._RATIO)), self._BINS - 1)] += 1
        self.count += 1
        self.total_ms += ms

    def percentile(self, q: float) -> float:
        """Return the smallest duration that `q` % (0..100) do not exceed, in ms, to within 5 %.

        NaN if empty.
        """
        if not self.count:
            return float("nan")
        # of q = 0, the shortest one: no duration is in the empty bins before it
        rank = max(self.count * q / 100, 1)
        index = int(np.searchsorted(np.cumsum(self._counts), rank))
        return float(self._RATIO ** (index + 0.5) / 1e3)

    def summary(self) -> dict[str, float | None]:
        """p50, p99 and mean in ms, rounded for people; None if empty."""
        if not self.count:
            return {"p50": None, "p99": None, "mean": None}
        return {
            "p50": round(self.percentile(50), 3),
            "p99": round(self.percentile(99), 3),
            "mean": round(self.total_ms / self.count, 3),
        }


class StepTimes:
    """A `Histogram` per named step of a run; any thread may measure."""

    def __init__(self, names: tuple[str, ...]) -> None:
        self._steps = {name: Histogram() for name in names}
        self._lock = threading.Lock()

    def __getitem__(self, name: str) -> Histogram:
        return self._steps[name]

    @contextmanager
    def measure(self, name: str) -> Iterator[None]:
        """Time a block and add it to step `name`."""
        start = time.perf_counter_ns()
        try:
            yield
        finally:
            with self._lock:
                self._steps[name].add((time.perf_counter_ns() - start) / 1e6)

    def summary(self) -> dict[str, dict[str, float | None]]:
        """``{step: {p50, p99, mean}}`` in ms, of the steps that ran."""
        return {name: h.summary() for name, h in self._steps.items() if h.count}


class Pace:
    """Whether there is time for extra work before the next item of one of several series comes.

    Learns from what happened: the next item of a series is expected after the shortest of its last
    intervals, and the work takes as long as the longest of its last times. A series that is late by
    more than an interval is taken to have ended. Any thread may call any method.
    """

    _INTERVALS = 3
    _WORK = 8
    _MARGIN = 1.2

    def __init__(self) -> None:
        self._series: dict[
            Hashable, tuple[float, deque[float]]
        ] = {}  # last arrival and intervals in s
        self._work_s: deque[float] = deque(maxlen=self._WORK)
        self._lock = threading.Lock()

    def came(self, series: Hashable, now_s: float) -> None:
        """Take note that the next item of `series` came at `now_s` (any clock, always the same)."""
        with self._lock:
            last_s, intervals = self._series.get(series, (None, deque(maxlen=self._INTERVALS)))
            if last_s is not None:
                intervals.append(now_s - last_s)
            self._series[series] = now_s, intervals

    def worked(self, seconds: float) -> None:
        """Take note of how long the work took."""
        self._work_s.append(seconds)

    def allows(self, now_s: float) -> bool:
        """Return whether work begun at `now_s` will probably end before the next item comes.

        False while nothing is known.
        """
        if not self._work_s:
            return False
        with self._lock:
            due = [
                (last_s + min(intervals), min(intervals))
                for last_s, intervals in self._series.values()
                if intervals
            ]
        left = [due_s - now_s for due_s, interval_s in due if now_s < due_s + interval_s]
        return bool(left) and min(left) > self._MARGIN * max(self._work_s)
