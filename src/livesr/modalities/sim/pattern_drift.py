"""Patterns that drift slowly, as gratings and mirrors do when they warm up.

Followed between frames.

Owns what patterns are corrected by, and when and by how much the phases are: what is measured in
every frame anyway decides. The vectors are measured beside the run (`vector_drift.py`). Sudden
changes are not followed: such frames are doubtful (`quality.py`) and a person must look.
"""

from __future__ import annotations

from collections import deque
from threading import Lock

import numpy as np
from numpy.typing import NDArray

FRAMES = 8
"""Trusted frames whose median decides: one frame's noise or motion moves nothing."""

VECTOR_DIGITS = 6  # of cycles/um: a phase of 1e-4 rad at the edge of 30 um
MIN_RAD = 0.1
MIN_CONTRAST = 6.0
"""Contrast to noise of frames that count: their phase is known to about 1 / (this x sqrt 2) rad."""


class PatternDrift:
    """Collects the phase errors of trusted frames and corrects the phases when it is time.

    Several reconstructions of one channel may share it; any thread may call any method.

    Attributes
    ----------
    total_rad : what phases are to be corrected by now, (waves,); replaced, never written into
    vectors_um : likewise what is to be added to the vector (ky, kx) of every angle's fundamental,
        (angles, 2), in cycles/um
    """

    def __init__(self, waves: int, angles: int) -> None:
        self.total_rad = np.zeros(waves)
        self.vectors_um = np.zeros((angles, 2))
        self._recent: deque[NDArray[np.float64]] = deque(maxlen=FRAMES)
        self._lock = Lock()

    def add(self, phases_rad: NDArray[np.float64], contrast_to_noise: float) -> None:
        """Take how far one trusted frame's phases are from the calibrated ones, (waves,).

        Correct if it is time to.
        """
        if contrast_to_noise < MIN_CONTRAST:
            return
        with self._lock:
            self._recent.append(phases_rad)
            if len(self._recent) < FRAMES:
                return
            median = np.median(np.stack(self._recent), axis=0)
            if np.abs(median - self.total_rad).max() >= MIN_RAD:
                self._set(median)

    def set(self, total_rad: NDArray[np.float64], vectors_um: NDArray[np.float64]) -> None:
        """Correct the phases by `total_rad` and the vectors by `vectors_um` from now on."""
        with self._lock:
            self._set(total_rad)
            self.vectors_um = vectors_um

    def set_vectors(self, vectors_um: NDArray[np.float64]) -> None:
        """Correct the vectors by `vectors_um` from now on.

        Phase errors that were seen with others do not count any more.
        """
        with self._lock:
            self.vectors_um = np.round(
                vectors_um, VECTOR_DIGITS
            )  # as it is recorded, or it could not be repeated
            self._recent.clear()

    def _set(self, total_rad: NDArray[np.float64]) -> None:
        self.total_rad = total_rad
        self._recent.clear()
