"""Pattern phases that drift slowly, as gratings and mirrors do when they warm up: followed between frames.

Owns when the phases are corrected and by how much. What is measured in every frame anyway decides; the vectors stay, they
change with optics only. Sudden changes are not followed: such frames are doubtful (`quality.py`) and a person must look.
"""

from __future__ import annotations

from collections import deque
from threading import Lock

import numpy as np
from numpy.typing import NDArray

FRAMES = 8
"""Trusted frames whose median decides: one frame's noise or motion moves nothing."""

LEAST_RAD = 0.1
LEAST_CONTRAST = 6.0
"""Contrast to noise of frames that count: their phase is known to about 1 / (this x sqrt 2) rad."""


class PatternDrift:
    """Collects the phase errors of trusted frames and corrects the phases when it is time.

    Several reconstructions of one channel may share it; any thread may call any method.

    Attributes
    ----------
    total_rad : what phases are to be corrected by now, (waves,); replaced, never written into
    """

    def __init__(self, waves: int) -> None:
        self.total_rad = np.zeros(waves)
        self._recent: deque[NDArray[np.float64]] = deque(maxlen=FRAMES)
        self._lock = Lock()

    def add(self, phases_rad: NDArray[np.float64], contrast_to_noise: float) -> None:
        """Take how far one trusted frame's phases are from the calibrated ones, (waves,); correct if it is time to."""
        if contrast_to_noise < LEAST_CONTRAST:
            return
        with self._lock:
            self._recent.append(phases_rad)
            if len(self._recent) < FRAMES:
                return
            median = np.median(np.stack(self._recent), axis=0)
            if np.abs(median - self.total_rad).max() >= LEAST_RAD:
                self._set(median)

    def set(self, total_rad: NDArray[np.float64]) -> None:
        """Correct the phases by `total_rad` from now on."""
        with self._lock:
            self._set(np.asarray(total_rad, np.float64))

    def _set(self, total_rad: NDArray[np.float64]) -> None:
        self.total_rad = total_rad
        self._recent.clear()
