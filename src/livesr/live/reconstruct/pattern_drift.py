"""Pattern phases that drift slowly, as gratings and mirrors do when they warm up: followed between frames.

Owns when the phases are corrected and by how much. What is measured in every frame anyway decides; the vectors stay, they
change with optics only. Sudden changes are not followed: such frames are doubtful (`quality.py`) and a person must look.
"""

from __future__ import annotations

from collections import deque

import numpy as np
from numpy.typing import NDArray

FRAMES = 8
"""Trusted frames whose median decides: one frame's noise or motion moves nothing."""

LEAST_RAD = 0.1
LEAST_CONTRAST = 6.0
"""Contrast to noise of frames that count: their phase is known to about 1 / (this x sqrt 2) rad."""


class PatternDrift:
    """Collects phase errors of trusted frames and says when to correct.

    Attributes
    ----------
    total_rad : corrections so far, (waves,); whoever applies them keeps it up to date with `set`
    """

    def __init__(self, waves: int) -> None:
        self.total_rad = np.zeros(waves)
        self._recent: deque[NDArray[np.float64]] = deque(maxlen=FRAMES)

    def add(self, phase_errors_rad: NDArray[np.float64], contrast_to_noise: float) -> NDArray[np.float64] | None:
        """Take the errors of one trusted frame, (waves,); return the new total if it is time to correct, else None."""
        if contrast_to_noise < LEAST_CONTRAST:
            return None
        self._recent.append(phase_errors_rad)
        if len(self._recent) < FRAMES:
            return None
        off = np.median(np.stack(self._recent), axis=0)
        return self.total_rad + off if np.abs(off).max() >= LEAST_RAD else None

    def set(self, total_rad: NDArray[np.float64]) -> None:
        """Note that the phases are now corrected by `total_rad`."""
        self.total_rad = np.asarray(total_rad, np.float64)
        self._recent.clear()
