"""How unlike the frames of its training a network's input is.

A few numbers of the frame, and how far they lie from theirs.

Owns the numbers and their distance (Mahalanobis, as in Lee et al. 2018, NeurIPS 31, but of the
frame itself, so that every runtime gives the same). Where training lies is measured by `livesr
limits` and stands in the engine's manifest. Knows no stream.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from livesr.base.frames import Normalisation, SRFrame

if TYPE_CHECKING:
    from livesr.live.inference.engine import TrainingDistribution

FEATURES = (
    "detail 1",
    "detail 2",
    "detail 4",
    "detail 8",
    "spread 16",
    "level",
    "cover",
    "peaks",
    "noise",
)
"""Energy of the detail at so many pixels and of what is coarser (logarithms of x^2), mean of x,
share of pixels that a structure covers, how much the brightest stand out (logarithm of the
kurtosis), noise of dark pixels (logarithm of x)."""

SMALLEST_PX = 64
"""Side of the smallest frame that is judged."""

_BORDER = 1 / 16  # of each side: there a SIM reconstruction fades out
_TILE_PX, _TILES = 128, 2
_SCALES = 4
_COVERED = 0.15  # of x: where bright parts are 0.55
_EPSILON = 1e-9


class OutOfDistribution:
    """Judges frames of one size.

    A frame of any size gives as many pixels, so that it takes as long.

    Parameters
    ----------
    shape : (y, x) of the network's input
    training_distribution : where training lies; None judges nothing

    Attributes
    ----------
    tiles : the places in a frame that are looked at
    """

    def __init__(
        self, shape: tuple[int, int], training_distribution: TrainingDistribution | None
    ) -> None:
        self.tiles = _tiles(shape) if training_distribution and min(shape) >= SMALLEST_PX else []
        if training_distribution:
            self._mean, self._whitening = (
                np.array(training_distribution.mean),
                np.array(training_distribution.whitening),
            )
            self._limit = training_distribution.limit

    def numbers(
        self, tiles: Sequence[NDArray[np.float32]], normalisation: Normalisation, noise_adu: float
    ) -> NDArray[np.float64] | None:
        """Return what `FEATURES` names of a frame; None if it is not judged.

        Parameters
        ----------
        tiles : of the middle frame that the network saw, at the places of `tiles`
        noise_adu : `livesr.live.compose.noise_threshold` of it
        """
        if not tiles:
            return None
        found = _measured(tiles, normalisation, noise_adu)
        return found if np.isfinite(found).all() else None

    def ood_score(self, numbers: NDArray[np.float64] | None) -> float | None:
        """Return the distance from training over the distance that 1 in 40 of its frames exceeds.

        None if not judged.
        """
        if numbers is None:
            return None
        return float(np.linalg.norm(self._whitening @ (numbers - self._mean)) / self._limit)


def features(frame: SRFrame, noise_adu: float) -> NDArray[np.float64]:
    """Return the numbers that `FEATURES` names."""
    return _measured(
        [frame.image[tile] for tile in _tiles(frame.image.shape)], frame.normalisation, noise_adu
    )


def _tiles(shape: Sequence[int]) -> list[tuple[slice, slice]]:
    """Where in a frame is looked.

    Evenly spaced squares, the same number and size for any large frame.
    """
    places = []
    for n in shape:
        border = int(n * _BORDER)
        inside = n - 2 * border
        side = min(_TILE_PX, inside // _TILES) // 2**_SCALES * 2**_SCALES
        gap = (inside - _TILES * side) // _TILES
        places.append(
            [
                slice(top, top + side)
                for top in (border + gap // 2 + i * (side + gap) for i in range(_TILES))
            ]
        )
    return [(y, x) for y in places[0] for x in places[1]]


def _measured(
    tiles: Sequence[NDArray[np.float32]], normalisation: Normalisation, noise_adu: float
) -> NDArray[np.float64]:
    background, scale = normalisation
    level = np.stack(tiles)
    level -= np.float32(background)
    level *= np.float32(1 / scale)
    mean, energy = float(level.mean()), [_mean_square(level)]
    for _ in range(_SCALES):
        level = _halved(level)
        energy.append(_mean_square(level))
        if len(energy) == 2:
            cover = float(np.count_nonzero(level > np.float32(_COVERED))) / level.size
            fourth = _mean_square(level * level)
    # Of block means, what a coarser scale lacks of the finer one's energy is the detail between
    # them (Haar).
    details = [max(fine - coarse, _EPSILON) for fine, coarse in pairwise(energy)]
    spread = max(energy[-1] - mean**2, _EPSILON)
    peaks = math.log(max(fourth, _EPSILON**2) / max(energy[1], _EPSILON) ** 2)
    noise = math.log(max(noise_adu / scale, 1e-6))
    return np.array([*map(math.log, (*details, spread)), mean, cover, peaks, noise])


def _halved(level: NDArray[np.float32]) -> NDArray[np.float32]:
    """Mean of every 2 x 2 pixels of each tile; whole rows first, which is faster."""
    rows = level[:, 0::2] + level[:, 1::2]
    halved: NDArray[np.float32] = rows[..., 0::2] + rows[..., 1::2]
    halved *= np.float32(0.25)
    return halved


def _mean_square(level: NDArray[np.float32]) -> float:
    flat = level.reshape(-1)
    return float(flat @ flat) / flat.size
