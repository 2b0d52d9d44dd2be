"""SIM reconstruction of 9 x 512 x 512 on one core, beside nothing but its Fourier transforms.

The reference are the transforms that no linear reconstruction of this kind can do without, by
scipy.fft on whole arrays: one real and three complex ones of 512 x 512, and one real inverse of
1024 x 1024.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import numpy as np
from numpy.typing import NDArray

from livesr.bench.result import Result, Target, compared
from livesr.bench.timing import calls_ms, interleave
from livesr.bench.transforms import Transforms
from livesr.live.reconstruct.reconstructor import NewerFrames
from livesr.modalities.sim.parameters import SIMParameters
from livesr.modalities.sim.quality import QualityLimits
from livesr.modalities.sim.reconstructor import SIMReconstructor
from livesr.optics.exposure import examine
from livesr.optics.illumination import Pattern

_SIDE = 512


def measure(quick: bool) -> list[Result]:
    """Return the time of one reconstruction, and with its quality measured.

    Targets: 25 to 30 ms, 3 times its transforms.
    """
    rng = np.random.default_rng(0)
    raw = rng.integers(100, 4000, (9, _SIDE, _SIDE), np.uint16)
    angles = np.radians((14.0, 74.0, 134.0))
    patterns = [Pattern((5.1 * float(np.sin(a)), 5.1 * float(np.cos(a))), 0.3, 0.7) for a in angles]
    parameters = SIMParameters((_SIDE, _SIDE), 0.065, 1.49, 0.525)
    reconstructor, judging = (
        SIMReconstructor(parameters, patterns, limits)
        for limits in (None, QualityLimits(then="reconstruct"))
    )
    subject = partial(reconstructor.reconstruct, raw)
    judged = partial(judging.reconstruct, raw)
    calls, blocks = (2, 2) if quick else (10, 15)
    comparison = interleave(
        lambda: calls_ms(subject, calls), lambda: calls_ms(Transforms(raw).run, calls), blocks
    )
    cost = interleave(lambda: calls_ms(judged, calls), lambda: calls_ms(subject, calls), blocks)
    updated = interleave(
        lambda: calls_ms(_Updates(judging, raw).one, calls),
        lambda: calls_ms(judged, calls),
        blocks,
    )
    sections = SIMReconstructor(replace(parameters, sectioning=True), patterns)
    sectioned = interleave(
        lambda: calls_ms(partial(sections.reconstruct, raw), calls),
        lambda: calls_ms(subject, calls),
        blocks,
    )
    return [
        compared(
            "sim.reconstruct",
            comparison,
            "ms",
            "its FFTs alone",
            (Target(30, "most"), Target(3, "most", "ratio")),
            f"9 x {_SIDE}^2 uint16 to {2 * _SIDE}^2 float32, one core",
        ),
        compared(
            "sim.judged",
            cost,
            "ms",
            "the same without measuring its quality",
            (Target(25, "most"), Target(1.3, "most", "ratio")),
            "contrast, modulation, phase error and motion of every frame",
        ),
        compared(
            "sim.update",
            updated,
            "ms",
            "the whole group, judged as well",
            (Target(0.7, "most", "ratio"),),
            "the newest of all patterns after one of three angles: sim.update: angle",
        ),
        compared(
            "sim.sectioned",
            sectioned,
            "ms",
            "plain reconstruction",
            (Target(1.05, "most", "ratio"),),
            "optical sections: sim.sectioning",
        ),
    ]


class _Updates:
    """Updates of a reconstruction by one angle after the other, for ever."""

    def __init__(self, reconstructor: SIMReconstructor, raw: NDArray[np.uint16]) -> None:
        self._reconstructor = reconstructor
        self._groups = [list(raw), list(raw[::-1])]
        self._before = [*self._groups[0]]
        self._angle = 0
        reconstructor.remember(self._before)
        reconstructor.reconstruct(self._before)

    def one(self) -> None:
        """Make the next one."""
        came = slice(3 * self._angle, 3 * self._angle + 3)
        frames = [*self._before]
        frames[came] = self._groups[frames[came.start] is self._groups[0][came.start]][came]
        newer = NewerFrames(frames, self._before, list, list, lambda f: examine(f, 100.0))
        self._reconstructor.update(newer)
        self._before, self._angle = frames, (self._angle + 1) % 3
