"""The light of a SIM pattern, as the formula is written: what the virtual microscope, which works
with one wave at a time, and the reconstruction are held against.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from livesr.optics.illumination import Pattern


def illumination(
    shape: tuple[int, int],
    pixel_size_um: float,
    pattern: Pattern,
    phase_step_rad: float = 0.0,
    origin_px: tuple[float, float] = (0.0, 0.0),
) -> NDArray[np.float32]:
    """Return 1 + the sum over the waves of m cos(2 pi k.r + phase + step), float32 (y, x)."""
    y, x = np.mgrid[: shape[0], : shape[1]] * pixel_size_um
    light = np.ones(shape)
    for wave in pattern.seen_from(origin_px, pixel_size_um).stepped(phase_step_rad).waves:
        turns = wave.k_um[0] * y + wave.k_um[1] * x
        light += wave.modulation * np.cos(2 * np.pi * turns + wave.phase_rad)
    return light.astype(np.float32)
