"""Repeated measurements, and two of them taken turn by turn so that a busy machine slows both.

Owns the statistics. Knows nothing of what is measured.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Block = Callable[[], Sequence[float]]
"""Runs one block; returns its samples, all blocks in the same unit."""

_RESAMPLES, _RESAMPLES_UNPAIRED = 5000, 1000


def per_second(count: int, work: Callable[[], object]) -> float:
    """Return how many of what `work` does `count` of are done in a second."""
    start = time.perf_counter()
    work()
    return count / (time.perf_counter() - start)


@dataclass(frozen=True, slots=True)
class Summary:
    """`n` samples: median, 99th percentile, and the width of their middle half relative to the
    median.
    """

    n: int
    median: float
    p99: float
    spread: float

    @classmethod
    def of(cls, samples: Sequence[float]) -> Summary:
        """Summarise at least one sample."""
        q25, median, q75, p99 = np.percentile(np.asarray(samples, np.float64), (25, 50, 75, 99))
        return cls(
            len(samples), float(median), float(p99), float((q75 - q25) / median) if median else 0.0
        )


@dataclass(frozen=True, slots=True)
class Comparison:
    """Subject and reference from interleaved blocks.

    `ratio` is the median over pairs of neighbouring blocks of (subject's median / reference's
    median), `ratio_interval` its bootstrap 95 % interval over those pairs: blocks are what the
    machine's other work hits independently, calls are not.
    """

    subject: Summary
    reference: Summary
    ratio: float
    ratio_interval: tuple[float, float]


def interleave(
    subject: Block, reference: Block, blocks: int, *, warm_up: bool = True
) -> Comparison:
    """Run `blocks` pairs of blocks: subject, reference, reference, subject, subject, ...

    Parameters
    ----------
    subject, reference : one block each
    blocks : pairs; at least 1
    warm_up : run each once before, uncounted

    Raises
    ------
    ValueError
        If `blocks` is below 1.
    """
    if blocks < 1:
        raise ValueError(f"blocks is {blocks}, expected at least 1")
    if warm_up:
        subject()
        reference()
    found: tuple[list[float], list[float]] = [], []
    ratios = []
    for i in range(blocks):
        pair = [0.0, 0.0]
        # Who goes first alternates: a drift of the machine then favours neither.
        for which in (0, 1) if i % 2 == 0 else (1, 0):
            samples = (subject, reference)[which]()
            found[which].extend(samples)
            pair[which] = float(np.median(samples))
        ratios.append(pair[0] / pair[1])
    return Comparison(
        Summary.of(found[0]), Summary.of(found[1]), float(np.median(ratios)), _interval(ratios)
    )


def in_turns(ways: Mapping[str, Callable[[], float]], rounds: int) -> list[dict[str, float]]:
    """Measure every way once a round, in their order and backwards in turn; one sample of each."""
    there = list(ways)
    return [
        {name: ways[name]() for name in (there if i % 2 == 0 else there[::-1])}
        for i in range(rounds)
    ]


def paired(pairs: Sequence[tuple[float, float]]) -> Comparison:
    """Compare samples that were taken in pairs, (subject, reference), one right after the other."""
    subject, reference = zip(*pairs, strict=True)
    ratios = [s / r for s, r in pairs]
    return Comparison(
        Summary.of(subject), Summary.of(reference), float(np.median(ratios)), _interval(ratios)
    )


def ratio_of_medians(
    subject: Sequence[float], reference: Sequence[float]
) -> tuple[float, tuple[float, float]]:
    """Return median / median of samples that were not taken in pairs, and the ratio's bootstrap 95
    % interval.
    """
    rng = np.random.default_rng(0)

    def medians(samples: Sequence[float]) -> NDArray[np.float64]:
        values = np.asarray(samples, np.float64)
        return np.asarray(
            [np.median(rng.choice(values, values.size)) for _ in range(_RESAMPLES_UNPAIRED)]
        )

    low, high = np.percentile(medians(subject) / medians(reference), (2.5, 97.5))
    ratio = float(np.median(subject) / np.median(reference))
    return ratio, (min(float(low), ratio), max(float(high), ratio))


def calls_ms(call: Callable[[], object], n: int) -> list[float]:
    """Call `n` times; return the duration of each in ms."""
    durations = []
    for _ in range(n):
        start = time.perf_counter_ns()
        call()
        durations.append((time.perf_counter_ns() - start) / 1e6)
    return durations


def _interval(ratios: Sequence[float]) -> tuple[float, float]:
    rng = np.random.default_rng(0)
    medians = np.median(rng.choice(np.asarray(ratios), (_RESAMPLES, len(ratios))), axis=1)
    low, high = np.percentile(medians, (2.5, 97.5))
    return float(low), float(high)
