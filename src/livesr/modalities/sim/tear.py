"""Whether a raw frame shows one pattern above and another below.

Owns the measurement and the verdict. Of one thread; knows no camera and no file.

A camera's buffer that is read while it is filled holds the upper rows of one exposure and the lower
rows of another. Where the second one was never delivered whole, no rows are alike, but the pattern
is: with g_i the raw frames, m their mean and k_a the vector of angle a, the sum over a band of rows
of m (g_i - m) exp(-2 pi i k_a r) is the amplitude with which frame i shows pattern a there (see
`raw_order.py`). Divided by the phase factor that belongs to frame i it is the same for all frames
of an angle. In a torn frame it is so on one side of a row alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from livesr.live.arrays import HOST, Arrays
from livesr.modalities.sim.parameters import SIMParameters
from livesr.optics.illumination import Pattern

Complex = NDArray[np.complex128]

_BANDS = 16  # of rows, at whose limits a tear is looked for
_EDGE = 2  # bands above and below that are not told apart: too little is seen in fewer
_MAX_WIDTH = 128  # columns in the middle that are looked at: bounds the cost
_ELSEWHERE = 0.8  # from the other frames, relative to these: half a turn is 2, no pattern 1
_ALIKE = 0.4
_SURE = 6.0  # amplitude of the others over what the vectors of other angles show by chance
_AS_SURE = 4.0  # deviation of a torn frame over the same


class Tear(NamedTuple):
    """A raw frame, and the share of its rows from above to where it is torn."""

    raw: int
    share: float


class TearCheck:
    """Looks for torn frames in the raw groups of one channel.

    Parameters
    ----------
    parameters : as the frames are reconstructed
    patterns : one per angle
    arrays : what the frames are arrays of
    """

    def __init__(
        self, parameters: SIMParameters, patterns: Sequence[Pattern], arrays: Arrays = HOST
    ) -> None:
        (height, width), self._arrays = parameters.shape, arrays
        seen = min(width, _MAX_WIDTH)
        left = (width - seen) // 2
        self._rows = height // _BANDS
        self._region = slice(0, self._rows * _BANDS), slice(left, left + seen)
        self._offset_adu = parameters.offset_adu
        order = parameters.raw_order(len(patterns))
        steps = parameters.steps_rad(len(patterns), len(order) // len(patterns))
        self._angles = np.array([angle for angle, _ in order])
        self._turn = np.array([np.exp(-1j * steps[angle, phase]) for angle, phase in order])
        px = parameters.pixel_size_um
        ky, kx = np.array([p.k_um for p in patterns]).T
        y, x = np.arange(self._rows * _BANDS), np.arange(seen)
        self._along_y = np.exp(-2j * np.pi * px * np.outer(ky, y)).astype(np.complex64)
        waves = np.exp(-2j * np.pi * px * np.outer(x, kx))
        self._along_x = np.concatenate([waves.real, waves.imag], axis=1).astype(np.float32)

    def look(self, frames: Sequence[Any] | Any) -> Tear | None:
        """Return the torn frame of a group, None without one or where that cannot be told."""
        if not self._rows or len(self._angles) < 3 * len(self._along_y):
            return None
        shown = self._amplitudes(frames)
        for angle in range(shown.shape[1]):
            mine = np.flatnonzero(self._angles == angle)
            turned = shown[mine, angle] * self._turn[mine, None]
            if found := _torn(turned, self._noise(shown, mine)):
                return Tear(int(mine[found[0]]), found[1] / _BANDS)
        return None

    def _noise(self, shown: Complex, mine: NDArray[np.intp]) -> NDArray[np.float64]:
        """Return what frames show by chance in every band (bands,): mean square."""
        others = np.delete(shown, self._angles[mine[0]], axis=1)[mine]
        if not others.size:
            return np.zeros(shown.shape[2])
        return np.asarray(np.median(np.abs(others) ** 2, axis=(0, 1)) / np.log(2), np.float64)

    def _amplitudes(self, frames: Sequence[Any] | Any) -> Complex:
        """Return how each frame shows each pattern in each band of rows, complex (n, angle,
        bands).
        """
        seen = [self._arrays.on_host(frames[i][self._region]) for i in range(len(self._angles))]
        raw = np.asarray(seen, np.float32) - np.float32(self._offset_adu)
        light = raw.mean(axis=(1, 2), keepdims=True)
        raw *= light.mean() / np.maximum(light, 1e-3)  # flicker and bleaching are no pattern
        mean = raw.mean(axis=0)
        # frame by frame: small enough that BLAS starts no threads
        parts = np.stack([((frame - mean) * mean) @ self._along_x for frame in raw])
        parts = parts.reshape(*raw.shape[:2], 2, -1)
        sums = (parts[:, :, 0] + 1j * parts[:, :, 1]).transpose(0, 2, 1) * self._along_y
        return np.asarray(sums.reshape(len(raw), -1, _BANDS, self._rows).sum(axis=3), np.complex128)


def _torn(shown: Complex, noise: NDArray[np.float64]) -> tuple[int, int] | None:
    """Return which of an angle's frames is torn, and below how many bands; None if none is.

    Parameters
    ----------
    shown : amplitude without the phase factor of each frame (phases, bands)
    noise : mean square of an amplitude by chance (bands,)
    """
    above, by_chance = np.cumsum(shown, axis=1), np.cumsum(noise)
    sides = np.stack([above[:, :-1], above[:, -1:] - above[:, :-1]])  # (2, phases, cuts)
    error = np.sqrt(np.stack([by_chance[:-1], by_chance[-1] - by_chance[:-1]]))
    best, found = 0.0, None
    for i in range(len(shown)):
        others = np.delete(sides, i, axis=1)
        level = others.mean(axis=1)
        strength, apart = np.abs(level), np.abs(sides[:, i] - level)
        spread = np.abs(others - level[:, None]).max(axis=1)
        sure = (strength > _SURE * error) & (spread < 0.5 * _ALIKE * strength)
        elsewhere = sure & (apart > np.maximum(_ELSEWHERE * strength, _AS_SURE * error))
        alike = sure & (apart < _ALIKE * strength)
        torn = (elsewhere & alike[::-1]).any(axis=0)
        torn[: _EDGE - 1] = torn[len(torn) - _EDGE + 1 :] = False
        contrast = torn * np.abs(apart[0] - apart[1]) / np.maximum(strength.max(axis=0), 1e-30)
        if torn.any() and contrast.max() > best:
            best, found = float(contrast.max()), (i, int(contrast.argmax()) + 1)
    return found
