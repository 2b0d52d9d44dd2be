"""Patterns that drift slowly, as gratings and mirrors do when they warm up.

Followed between frames.

Owns what patterns are corrected by, and when and by how much the phases are: what is measured in
every frame anyway decides. The vectors are measured beside the run (`vector_drift.py`). Sudden
changes are not followed: such frames are doubtful (`quality.py`) and a person must look.
"""

from __future__ import annotations

from collections import deque
from threading import Lock
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

FRAMES = 8
"""Frames without a doubt whose median decides: one frame's noise or motion moves nothing."""

VECTOR_DIGITS = 6  # of cycles/um: a phase of 1e-4 rad at the edge of 30 um
MIN_RAD = 0.1
MIN_CONTRAST = 6.0
"""Contrast to noise of frames that count: their phase is known to about 1 / (this x sqrt 2) rad."""


class Correction(NamedTuple):
    """What the calibrated patterns are corrected by.

    Attributes
    ----------
    phases_rad : (waves,), in the sense in which the reconstruction describes its waves
    vectors_um : added to the vector (ky, kx) of every angle's fundamental, (angles, 2), cycles/um
    """

    phases_rad: NDArray[np.float64]
    vectors_um: NDArray[np.float64]

    @classmethod
    def none(cls, waves: int, angles: int) -> Correction:
        """Patterns as they were calibrated."""
        return cls(np.zeros(waves), np.zeros((angles, 2)))


class PatternDrift:
    """Collects the phase errors of frames without a doubt and corrects the phases when it is time.

    Several reconstructions of one channel may share it; any thread may call any method.

    Attributes
    ----------
    correction : of the frames from now on; replaced, never written into
    """

    def __init__(self, waves: int, angles: int) -> None:
        self.correction = Correction.none(waves, angles)
        self._recent: deque[NDArray[np.float64]] = deque(maxlen=FRAMES)
        self._lock = Lock()

    def add(self, phases_rad: NDArray[np.float64], contrast_to_noise: float) -> None:
        """Take how far one such frame's phases are from the calibrated ones, (waves,).

        Correct if it is time to.
        """
        if contrast_to_noise < MIN_CONTRAST:
            return
        with self._lock:
            self._recent.append(phases_rad)
            if len(self._recent) < FRAMES:
                return
            median = np.median(np.stack(self._recent), axis=0)
            if np.abs(median - self.correction.phases_rad).max() >= MIN_RAD:
                self._replace(self.correction._replace(phases_rad=median))

    def set(self, correction: Correction) -> None:
        """Correct phases and vectors by `correction` from now on."""
        with self._lock:
            self._replace(correction)

    def set_vectors(self, vectors_um: NDArray[np.float64]) -> None:
        """Correct the vectors by `vectors_um` from now on.

        Phase errors that were seen with others do not count any more.
        """
        # rounded as it is recorded, or it could not be repeated
        vectors_um = np.round(vectors_um, VECTOR_DIGITS)
        with self._lock:
            self._replace(self.correction._replace(vectors_um=vectors_um))

    def _replace(self, correction: Correction) -> None:
        self.correction = correction
        self._recent.clear()
