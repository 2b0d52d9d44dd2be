"""Which plane of a stack is in focus, by how strongly it shows the patterns.

Owns the measure. Pure; needs neither order nor patterns: what changes within a group is the pattern
on what is in focus, and noise.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy.fft
from numpy.typing import NDArray

from livesr.modalities.sim.calibration.correlation import radial_power
from livesr.modalities.sim.calibration.groups import Optics, conditioned

_RANGE = (0.25, 0.8)  # of the cutoff: out-of-focus light lies below, noise above


def pattern_strength(group: NDArray[Any], optics: Optics, offset_adu: float) -> float:
    """Return how much of one raw group (n, y, x) changes from frame to frame where the optics show
    detail, noise taken off.

    Power in ADU squared; planes of one stack may be compared.

    Raises
    ------
    CalibrationError
        If the frames are tiny, or hold no light.
    """
    frames = conditioned(group[None], offset_adu)[0]
    frames -= frames.mean(axis=0)
    power = radial_power(
        np.asarray(scipy.fft.fft2(frames), np.complex64), optics.pixel_size_um, optics.cutoff_um
    )
    noise = power[int(0.92 * len(power)) :].min()
    low, high = (int(r * len(power)) for r in _RANGE)
    rings = np.arange(low, high) + 0.5  # frequencies of a ring, up to a factor
    return float(np.sum(rings * np.maximum(power[low:high] - noise, 0)))
