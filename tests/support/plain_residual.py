"""The summation residual in its plain form, which what runs for every frame is held against."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from livesr.live.compose import noise_threshold


def summation_residual(channels: NDArray[np.float32], x: NDArray[np.float32]) -> float:
    """Return sum |sum_c channels - x| / sum |x| over pixels where x or the channels' sum is above
    noise: the sum counts as well, so that structures painted into an empty frame show.
    """
    total = channels.sum(0)
    above = np.maximum(x, total) > noise_threshold(x)
    return float(np.abs(total - x)[above].sum() / np.abs(x)[above].sum())
