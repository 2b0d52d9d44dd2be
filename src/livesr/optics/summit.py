"""Where a sampled surface has its top, to a fraction of a bin.

Owns the fit. Finds no peak itself.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

FIT_BINS = 2
"""The fit takes this many bins to every side of the peak."""


def summit(surface: NDArray[np.floating], peak: tuple[int, int]) -> NDArray[np.float64]:
    """Return where the paraboloid through the neighbourhood of `peak` has its top, (y, x) in bins
    from it.
    """
    offsets = np.arange(-FIT_BINS, FIT_BINS + 1)
    y, x = (axis.ravel() for axis in np.meshgrid(offsets, offsets, indexing="ij"))
    z = surface[peak[0] + y, peak[1] + x]
    design = np.stack([np.ones_like(y), y, x, y * y, y * x, x * x], axis=1).astype(float)
    _, by, bx, byy, byx, bxx = np.linalg.lstsq(design, z, rcond=None)[0]
    curvature = np.array([[2 * byy, byx], [byx, 2 * bxx]])
    if not (np.trace(curvature) < 0 < np.linalg.det(curvature)):
        return np.zeros(2)
    return np.clip(np.linalg.solve(curvature, [-by, -bx]), -FIT_BINS, FIT_BINS)
