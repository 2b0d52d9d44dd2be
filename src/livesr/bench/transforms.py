"""The Fourier transforms that no linear reconstruction of nine raw frames can do without.

By scipy.fft on whole arrays: one real and three complex ones of the camera's size, and one real
inverse of twice that.
"""

from __future__ import annotations

import numpy as np
import scipy.fft


class Transforms:
    """Fresh arrays for every block.

    Overwriting transforms would otherwise grow or shrink their numbers.
    """

    def __init__(self, raw: np.ndarray[tuple[int, ...], np.dtype[np.uint16]]) -> None:
        self._mean = raw[0].astype(np.float32)
        self._bands = [(frame + 1j * frame).astype(np.complex64) for frame in raw[:3]]
        y, x = self._mean.shape
        self._shape = 2 * y, 2 * x
        self._half = np.zeros((2 * y, x + 1), np.complex64)

    def run(self) -> None:
        """Compute them all once."""
        scipy.fft.rfft2(self._mean)
        for band in self._bands:
            scipy.fft.fft2(band)
        scipy.fft.irfft2(self._half, self._shape)
