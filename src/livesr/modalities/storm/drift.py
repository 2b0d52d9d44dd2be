"""How far the specimen has drifted, from localisations alone.

Owns the reference that a stream's groups are compared with. Moves nothing itself.
"""

from __future__ import annotations

import numpy as np
import scipy.fft
from numpy.typing import NDArray

from livesr.optics.summit import FIT_BINS, summit

_BIN_NM = 25.0
_SEARCH_NM = 250.0
_BLUR_NM = 30.0
_FEWEST = 200
_ROUNDS = 2  # the top of the paraboloid is least biased where the groups already lie on each other


class DriftTracker:
    """Drift of groups of localisations against everything that was seen before, in order of time.

    Every group is laid on the sum of all earlier ones, each moved back by its own drift, at the
    peak of their cross-correlation, to a fraction of a bin. It is looked for within 250 nm (y and
    x) of the last group's drift; a group that shows none there, or has fewer than 200
    localisations, keeps the last one.

    Parameters
    ----------
    field_nm : size (y, x) of what the camera sees

    Notes
    -----
    Causal, so that a live run and an offline one agree: of redundant cross-correlation (Wang et al.
    2014, Optics Express 22, 15982) this is the part that does not look into the future. The
    reference is dominated by the past, so that errors do not add up as they do from group to group.
    """

    def __init__(self, field_nm: tuple[float, float]) -> None:
        self._shape = tuple(
            scipy.fft.next_fast_len(int((n + 2 * _SEARCH_NM) / _BIN_NM) + 1, real=True)
            for n in field_nm
        )
        self._blur = self._gaussian()
        self._reference: NDArray[np.complex64] | None = None
        self._drift_nm = np.zeros(2)

    @property
    def memory_bytes(self) -> int:
        """The reference, and what one comparison needs."""
        return 6 * 8 * self._shape[0] * (self._shape[1] // 2 + 1)

    def update(self, y_nm: NDArray[np.float32], x_nm: NDArray[np.float32]) -> tuple[float, float]:
        """Take the next group.

        Return its drift (y, x) in nm: measured position minus position in the first group.
        """
        if len(y_nm) >= _FEWEST:
            if self._reference is None:
                self._reference = self._spectrum(y_nm, x_nm)
            else:
                last_nm = self._drift_nm
                for _ in range(_ROUNDS):
                    here = self._spectrum(y_nm - self._drift_nm[0], x_nm - self._drift_nm[1])
                    self._drift_nm = self._drift_nm + self._shift(here)
                if np.abs(self._drift_nm - last_nm).max() > _SEARCH_NM:
                    self._drift_nm = last_nm  # further than is believable: no peak, but noise
                self._reference += self._spectrum(
                    y_nm - self._drift_nm[0], x_nm - self._drift_nm[1]
                )
        return float(self._drift_nm[0]), float(self._drift_nm[1])

    def _spectrum(
        self, y_nm: NDArray[np.floating], x_nm: NDArray[np.floating]
    ) -> NDArray[np.complex64]:
        row, column = (np.floor((at + _SEARCH_NM) / _BIN_NM).astype(np.intp) for at in (y_nm, x_nm))
        inside = (row >= 0) & (row < self._shape[0]) & (column >= 0) & (column < self._shape[1])
        counts = np.bincount(
            row[inside] * self._shape[1] + column[inside], minlength=self._shape[0] * self._shape[1]
        )
        return np.asarray(
            scipy.fft.rfft2(counts.reshape(self._shape).astype(np.float32)), np.complex64
        )

    def _shift(self, here: NDArray[np.complex64]) -> NDArray[np.float64]:
        """Return by how much `here` lies beside the reference, (y, x) in nm."""
        assert self._reference is not None
        # Without zero frequency: the even part of both says nothing about a shift.
        product = here * self._reference.conj() * self._blur
        product[0, 0] = 0
        correlation = scipy.fft.irfft2(product, self._shape)
        reach = int(_SEARCH_NM / _BIN_NM) + FIT_BINS
        window = np.roll(correlation, (reach, reach), axis=(0, 1))[: 2 * reach + 1, : 2 * reach + 1]
        peak = np.unravel_index(int(window.argmax()), window.shape)
        if not all(FIT_BINS <= p < 2 * reach + 1 - FIT_BINS for p in peak):
            return np.zeros(2)  # at the edge of what is believable: no peak, but noise
        return (np.array(peak) + summit(window, (int(peak[0]), int(peak[1]))) - reach) * _BIN_NM

    def _gaussian(self) -> NDArray[np.float32]:
        ky = np.fft.fftfreq(self._shape[0], _BIN_NM)[:, None]
        kx = np.fft.rfftfreq(self._shape[1], _BIN_NM)
        return np.exp(-2 * (np.pi * _BLUR_NM) ** 2 * (ky**2 + kx**2)).astype(np.float32)
