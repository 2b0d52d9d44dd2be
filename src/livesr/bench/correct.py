"""Correction of 9 x 512 x 512 on one core, beside a plain copy of the frames into float32.

The copy is what any correction must do at least: read the camera's integers and write floating
point.
"""

from __future__ import annotations

from functools import partial

import numpy as np

from livesr.bench.result import Result, Target, compared
from livesr.bench.timing import calls_ms, interleave
from livesr.live.correct import Correction

_SIDE = 512
_BAD = 0.002  # of all pixels


def measure(quick: bool) -> list[Result]:
    """Return the time of one group with per-pixel maps and bad pixels."""
    rng = np.random.default_rng(0)
    raw = list(rng.integers(100, 4000, (9, _SIDE, _SIDE), np.uint16))
    scale = rng.uniform(0.8, 1.2, (_SIDE, _SIDE)).astype(np.float32)
    bad = rng.random(scale.shape) < _BAD
    correction = Correction(scale.shape, scale, -100 * scale, bad, len(raw))
    planes = np.empty((len(raw), *scale.shape), np.float32)

    def copy() -> None:
        for frame, plane in zip(raw, planes, strict=True):
            np.copyto(plane, frame)

    calls, blocks = (2, 2) if quick else (20, 15)
    comparison = interleave(
        lambda: calls_ms(partial(correction.apply, raw), calls),
        lambda: calls_ms(copy, calls),
        blocks,
    )
    about = f"9 x {_SIDE}^2 uint16 to float32, {_BAD:.1%} bad pixels, one core"
    return [
        compared(
            "correct.apply",
            comparison,
            "ms",
            "a copy into float32",
            (Target(6, "most", "ratio"),),
            about,
        )
    ]
