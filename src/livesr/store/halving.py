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
    integer = planes.dtype.kind == "u"
    wide: NDArray[Any] = planes.astype(np.uint32 if integer else np.float64)
    rows: NDArray[Any] = np.add(wide[..., ::2, :], wide[..., 1::2, :])
    total: NDArray[Any] = np.add(rows[..., ::2], rows[..., 1::2])
    mean: NDArray[Any] = np.floor_divide(total + 2, 4) if integer else np.divide(total, 4)
    return mean.astype(planes.dtype)
