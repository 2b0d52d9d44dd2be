"""Linear filters of a camera frame on a finer grid, as one small matrix of its 5 x 5 neighbourhood.

Owns their coefficients: gradients half a camera pixel apart, and the intensity at every pixel of
the image. Both by cubic convolution (Keys 1981, IEEE Trans. ASSP 29, 1153, with a = -1/2).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating[Any]]

SIDE = 5
REACH = SIDE // 2
"""Camera pixels to every side that a filter looks at."""


def cubic(at: Floats) -> Floats:
    """Return the weight of a sample at the distance `at`, in samples."""
    d = np.abs(at)
    near = (1.5 * d - 2.5) * d**2 + 1
    far = ((2.5 - 0.5 * d) * d - 4) * d + 2
    return np.where(d < 1, near, np.where(d < 2, far, 0.0))


def gradients() -> NDArray[np.float32]:
    """Return the filters (8, 25) of the gradient, four of x and four of y.

    Each at (0, 0), (0, 1/2), (1/2, 0) and (1/2, 1/2) camera pixels from the corner that a pixel
    shares with the one before it: at corners by Roberts' cross, between them interpolated.
    """
    corner = np.zeros((2, SIDE, SIDE))  # of the pixel itself; x, y
    here, before = REACH, REACH - 1
    corner[0][[here, before, here, before], [here, here, before, before]] = 1, 1, -1, -1
    corner[1][[here, here, before, before], [here, before, here, before]] = 1, 1, -1, -1
    filters = [
        _shifted(component, along_y, along_x)
        for component in corner
        for along_y in (0.0, 0.5)
        for along_x in (0.0, 0.5)
    ]
    return np.stack(filters).reshape(8, -1).astype(np.float32)


def _shifted(corner: Floats, along_y: float, along_x: float) -> Floats:
    """Interpolate a filter between corners, `along_y` and `along_x` of a pixel further."""
    found = np.zeros_like(corner)
    for i in range(-1, 3):
        for j in range(-1, 3):
            weight = float(cubic(np.array(along_y - i)) * cubic(np.array(along_x - j)))
            if weight:
                found += weight * np.roll(corner, (i, j), (0, 1))
    return found


def intensities(magnification: int, shift_px: float = 0.0) -> NDArray[np.float64]:
    """Return the filters (25, magnification squared) of the intensity.

    Of every pixel of the image in a camera pixel. `shift_px` is by how much they look further, in
    camera pixels.
    """
    centres = (np.arange(magnification) + 0.5) / magnification - 0.5 + shift_px
    weights = cubic(centres[:, None] - np.arange(-REACH, REACH + 1))  # (pixel, tap)
    return np.asarray(np.einsum("pt,qu->tupq", weights, weights).reshape(SIDE**2, -1), np.float64)
