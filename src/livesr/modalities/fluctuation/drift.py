"""How far the specimen has drifted, from the mean frames of its groups.

Owns the reference that a stream's groups are compared with. Moves nothing itself.
"""

from __future__ import annotations

import math

import numpy as np
import scipy.fft
from numpy.typing import NDArray

from livesr.optics.summit import FIT_BINS, summit

_SEARCH_PX = 4
_FADE = 1 / 8  # of each side
_BLUR_PX = 1.0
_COARSE_PX = 8.0  # what is coarser is background and says little about a shift


class MeanFrameDrift:
    """Drift of the mean frames of groups against everything that was seen before.

    Every mean frame is laid on the sum of the earlier ones, each moved back by its own drift, at
    the peak of their cross-correlation, to a fraction of a camera pixel. It is looked for within 4
    pixels of the last group's; a group that shows none there keeps the last one.

    Parameters
    ----------
    shape : of a camera frame (y, x)

    Notes
    -----
    Causal, as STORM's is, so that a live run and an offline one agree, and errors do not add up.
    """

    def __init__(self, shape: tuple[int, int]) -> None:
        self._window = np.outer(*(_faded_edges(n) for n in shape)).astype(np.float32)
        ky, kx = np.fft.fftfreq(shape[0])[:, None], np.fft.rfftfreq(shape[1])
        k2 = ky**2 + kx**2
        self._ramps = (-2j * math.pi * ky, -2j * math.pi * kx)
        fine, coarse = (np.exp(-2 * (math.pi * s) ** 2 * k2) for s in (_BLUR_PX, _COARSE_PX))
        self._band = (fine - coarse).astype(np.float32)
        self._reference: NDArray[np.complex128] | None = None
        self._drift_px = np.zeros(2)

    @property
    def memory_bytes(self) -> int:
        """The reference, and what one comparison needs."""
        return 6 * 16 * self._band.size + 4 * self._window.size

    def update(self, mean: NDArray[np.floating]) -> tuple[float, float]:
        """Take the mean frame of the next group.

        Return its drift (y, x) in camera pixels: place minus place in the first group.
        """
        spectrum = scipy.fft.rfft2((mean - mean.mean()) * self._window)
        if self._reference is None:
            self._reference = spectrum.astype(np.complex128)
            return 0.0, 0.0
        moved = self._back(spectrum)
        self._drift_px = self._drift_px + self._shift(moved)
        self._reference += self._back(spectrum)
        return float(self._drift_px[0]), float(self._drift_px[1])

    def _back(self, spectrum: NDArray[np.complexfloating]) -> NDArray[np.complexfloating]:
        """Return the spectrum of a frame moved back by its drift."""
        y, x = self._drift_px
        return np.asarray(spectrum * np.exp(-(self._ramps[0] * y + self._ramps[1] * x)))

    def _shift(self, here: NDArray[np.complexfloating]) -> NDArray[np.float64]:
        """Return by how much `here` lies beside the reference, (y, x) in pixels; 0 without peak."""
        assert self._reference is not None
        product = here * self._reference.conj() * self._band
        correlation = scipy.fft.irfft2(product, self._window.shape)
        reach = _SEARCH_PX + FIT_BINS
        places = [np.arange(-reach, reach + 1) % n for n in correlation.shape]
        window = correlation[np.ix_(*places)]
        row, column = (int(v) for v in np.unravel_index(int(window.argmax()), window.shape))
        if not all(FIT_BINS <= v < 2 * reach + 1 - FIT_BINS for v in (row, column)):
            return np.zeros(2)
        return np.array([row, column]) + summit(window, (row, column)) - reach


def _faded_edges(n: int) -> NDArray[np.float64]:
    width = max(int(n * _FADE), 1)
    ramp = np.sin((np.arange(width) + 0.5) * math.pi / (2 * width)) ** 2
    line = np.ones(n)
    line[:width], line[n - width :] = ramp, ramp[::-1]
    return line
