"""Pictures at half their size, and how often: the levels of a multiscale image.

Owns the arithmetic. Opens nothing.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

SMALLEST = 256
"""Pixels across that need no smaller level, as of bioformats2raw."""


def level_sizes(height: int, width: int) -> list[tuple[int, int]]:
    """Return (y, x) of every level below the first, down to one that fits `SMALLEST`."""
    sizes: list[tuple[int, int]] = []
    while max(height, width) > SMALLEST:
        height, width = -(-height // 2), -(-width // 2)
        sizes.append((height, width))
    return sizes


def halved(planes: NDArray[Any]) -> NDArray[Any]:
    """Average 2 x 2 pixels of (..., y, x), an odd rim with itself; of the same type, rounded.

    Newly allocated.
    """
    for axis in (-2, -1):
        if planes.shape[axis] % 2:
            rim = np.take(planes, [-1], axis)
            planes = np.concatenate([planes, rim], axis)
    wide = planes.astype(np.uint32 if planes.dtype.kind == "u" else np.float64)
    total = wide[..., ::2, ::2] + wide[..., 1::2, ::2]
    total += wide[..., ::2, 1::2]
    total += wide[..., 1::2, 1::2]
    if planes.dtype.kind == "u":
        total += 2
        total //= 4
        return total.astype(planes.dtype)
    return (total / 4).astype(planes.dtype)
