"""Simulated frames of fluctuation microscopy: the fluorophores of a virtual rig, dim and dense.

Owns their numbers, which are those of `hardware_configs/virtual_fluctuation`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from livesr.base.config import RigConfig
from livesr.modalities.fluctuation.config import FluctuationConfig
from livesr.simulation.blinking_rig import BlinkingBank

FLUOROPHORES_PER_PX = 0.3  # of the camera's chip
LIT = 0.05
"""Share of the fluorophores that is lit at a time."""
PHOTONS, BACKGROUND, ON_FRAMES = 150.0, 20.0, 2.0
"""Photo-electrons of a fluorophore in a frame, of the background per pixel, frames of a blink."""


def fluctuating_bank(
    rig: RigConfig, size: int, frames: int, lit: float = LIT, **others: Any
) -> BlinkingBank:
    """Return a bank of frames, `size` pixels a side; `lit` is the share that is lit at a time."""
    fluorophores = round(FLUOROPHORES_PER_PX * size**2)
    settings = {"photons": PHOTONS, "background": BACKGROUND, "on_frames": ON_FRAMES, **others}
    return BlinkingBank(
        rig, size, frames, fluorophores=fluorophores, lit=lit * fluorophores, **settings
    )


def simulated_groups(rig: RigConfig, size: int, groups: int) -> NDArray[np.uint16]:
    """Return raw groups (t, n, y, x), ADU."""
    every = FluctuationConfig.of(rig).every
    return fluctuating_bank(rig, size, groups * every).frames.reshape(groups, every, size, size)
