"""How far the specimen has drifted, from localisations alone.

Owns the reference that a stream's groups are compared with. Moves nothing itself.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import scipy.fft
from numpy.typing import NDArray

from livesr.optics.summit import FIT_BINS, summit

_BIN_NM = 25.0
_SEARCH_NM = 250.0
_BLUR_NM = 30.0
_COARSE_NM, _TREND_NM = 100.0, 400.0
_FINE_NM = 150.0
_FEWEST = 200
_ROUNDS = 2  # the top of the paraboloid is least biased where the groups already lie on each other
_NEAR = 5.0  # standard deviations of the coarse correlation over the field
_FAR = 10.0  # structures that look alike reach 8.5
_OVER_NEAR = 1.15  # the foot of a peak just beyond the near ones is no peak


class DriftTracker:
    """Drift of groups of localisations against everything that was seen before, in order of time.

    Every group is laid on the sum of all earlier ones, each moved back by its own drift, at the
    peak of their cross-correlation, first coarsely, then to a fraction of a bin. Slow drift is a
    peak within 250 nm (y and x) of the last group's drift. Where another peak anywhere in the field
    is higher, and ten times as high as the correlation varies, the specimen jumped.

    A group that shows neither keeps the last drift, and is not laid on anything yet: it is looked
    at again together with the next. So is a group of less than 200 localisations left out.

    Parameters
    ----------
    field_nm : size (y, x) of what the camera sees

    Attributes
    ----------
    jump_nm : (y, x) by which the last group jumped, None if it did not

    Notes
    -----
    Causal, so that a live run and an offline one agree: of redundant cross-correlation (Wang et al.
    2014, Optics Express 22, 15982) this is the part that does not look into the future. The
    reference is dominated by the past, so that errors do not add up as they do from group to group.
    """

    def __init__(self, field_nm: tuple[float, float]) -> None:
        height, width = (
            scipy.fft.next_fast_len(int((n + 2 * _SEARCH_NM) / _BIN_NM) + 1, real=True)
            for n in field_nm
        )
        self._shape = height, width
        self._ky = np.fft.fftfreq(height, _BIN_NM).astype(np.float32)[:, None]
        self._kx = np.fft.rfftfreq(width, _BIN_NM).astype(np.float32)
        rows, columns = (
            np.clip(n / _BIN_NM - np.arange(bins), 0, 1)
            for n, bins in zip(field_nm, self._shape, strict=True)
        )
        inside = np.outer(rows, columns)
        self._evenly = np.asarray(inside / inside.sum(), np.float32)
        # Without zero frequency: the even part of both says nothing about a shift.
        self._fine = self._gaussian(_BLUR_NM)
        self._fine[0, 0] = 0
        self._coarse = self._gaussian(_COARSE_NM) * (1 - self._gaussian(_TREND_NM))
        self._reference: NDArray[np.complex64] | None = None
        self._waiting: NDArray[np.complex64] | None = None  # moved back by the last drift
        self._drift_nm = np.zeros(2)
        self.jump_nm: tuple[float, float] | None = None

    @property
    def memory_bytes(self) -> int:
        """The reference, what waits, and what one comparison needs."""
        return 9 * 8 * self._shape[0] * (self._shape[1] // 2 + 1)

    def update(self, y_nm: NDArray[np.float32], x_nm: NDArray[np.float32]) -> tuple[float, float]:
        """Take the next group.

        Return its drift (y, x) in nm: measured position minus position in the first group.
        """
        self.jump_nm = None
        if len(y_nm) >= _FEWEST:
            here = self._moved_back(self._spectrum(y_nm, x_nm), self._drift_nm)
            if self._reference is None:
                self._reference = here
            else:
                self._follow(here)
        return float(self._drift_nm[0]), float(self._drift_nm[1])

    def _follow(self, here: NDArray[np.complex64]) -> None:
        """Find where a group lies that was moved back by the last drift."""
        surface = self._correlated(here, self._coarse)
        peak, far = _highest(surface, _SEARCH_NM), _highest(surface)
        if far.height > max(_FAR, _OVER_NEAR * peak.height):
            peak = far  # what waits was too little to see, and belongs to what was before
        elif self._waiting is not None:
            here = here + self._waiting
            peak = _highest(self._correlated(here, self._coarse), _SEARCH_NM)
        if peak.height > _NEAR:
            self._waiting = None
            self._place(here, peak.at_nm)
        else:
            self._waiting = here

    def _place(self, here: NDArray[np.complex64], at_nm: NDArray[np.float64]) -> None:
        """Lay a group on the reference, about `at_nm` from where it is, and follow its drift."""
        assert self._reference is not None
        for _ in range(_ROUNDS):
            at_nm = at_nm + self._beside(self._moved_back(here, at_nm))
        if np.abs(at_nm).max() > _SEARCH_NM:
            self.jump_nm = float(at_nm[0]), float(at_nm[1])
        self._drift_nm = self._drift_nm + at_nm
        self._reference += self._moved_back(here, at_nm)

    def _moved_back(
        self, here: NDArray[np.complex64], by_nm: NDArray[np.float64]
    ) -> NDArray[np.complex64]:
        turn_y, turn_x = (
            np.exp(2j * np.pi * k * by).astype(np.complex64)
            for k, by in zip((self._ky, self._kx), by_nm, strict=True)
        )
        return np.asarray(here * turn_y * turn_x, np.complex64)

    def _spectrum(
        self, y_nm: NDArray[np.floating], x_nm: NDArray[np.floating]
    ) -> NDArray[np.complex64]:
        """Return the spectrum of a histogram, less what as many spread evenly would give.

        The edges of the field do not drift.
        """
        height, width = self._shape
        (row, below), (column, right) = (np.divmod(at / _BIN_NM - 0.5, 1) for at in (y_nm, x_nm))
        counts = np.zeros(height * width)
        # Shared among four bins: whole bins would hold positions to the grid.
        for dy, share_y in ((0, 1 - below), (1, below)):
            for dx, share_x in ((0, 1 - right), (1, right)):
                flat = (row + dy).astype(np.intp) % height * width
                flat += (column + dx).astype(np.intp) % width
                counts += np.bincount(flat, share_y * share_x, height * width)
        evenly = np.float32(len(y_nm)) * self._evenly
        return np.asarray(
            scipy.fft.rfft2(counts.reshape(self._shape).astype(np.float32) - evenly), np.complex64
        )

    def _correlated(
        self, here: NDArray[np.complex64], passed: NDArray[np.float32]
    ) -> NDArray[np.float32]:
        """Return the correlation with the reference at every shift, (0, 0) first."""
        assert self._reference is not None
        return np.asarray(
            scipy.fft.irfft2(here * self._reference.conj() * passed, self._shape), np.float32
        )

    def _beside(self, here: NDArray[np.complex64]) -> NDArray[np.float64]:
        """Return by how much `here` lies beside the reference, (y, x) in nm, if it is little."""
        window = _around_zero(
            self._correlated(here, self._fine), int(_FINE_NM / _BIN_NM) + FIT_BINS
        )
        reach = len(window) // 2
        peak = np.unravel_index(int(window.argmax()), window.shape)
        if not all(FIT_BINS <= p < 2 * reach + 1 - FIT_BINS for p in peak):
            return np.zeros(2)
        return (np.array(peak) + summit(window, (int(peak[0]), int(peak[1]))) - reach) * _BIN_NM

    def _gaussian(self, blur_nm: float) -> NDArray[np.float32]:
        squared = self._ky**2 + self._kx**2
        return np.asarray(np.exp(-2 * (np.pi * blur_nm) ** 2 * squared), np.float32)


class _Peak(NamedTuple):
    """Where a correlation is highest, nm, and how high, in its standard deviations."""

    at_nm: NDArray[np.float64]
    height: float


def _highest(surface: NDArray[np.float32], within_nm: float = math.inf) -> _Peak:
    """Return the highest point of a correlation, as far as `within_nm` along y and x."""
    shape = np.array(surface.shape)
    reach = int(min(within_nm / _BIN_NM, (shape.min() - 1) // 2))
    searched = surface if math.isinf(within_nm) else _around_zero(surface, reach)
    peak = np.array(np.unravel_index(int(searched.argmax()), searched.shape))
    at = (peak + shape // 2) % shape - shape // 2 if math.isinf(within_nm) else peak - reach
    height = float(searched.max() / max(float(surface.std()), 1e-30))
    return _Peak(np.asarray(at * _BIN_NM, float), height)


def _around_zero(surface: NDArray[np.float32], reach: int) -> NDArray[np.float32]:
    """Return the part up to `reach` bins from (0, 0), which is in its middle."""
    around = np.arange(-reach, reach + 1)
    return surface[np.ix_(around, around)]
