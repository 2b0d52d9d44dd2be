"""SOFI: cross-cumulants of neighbouring pixels, of the orders 2 to 4.

Owns which pixels are combined and the arithmetic of a group of frames. Keeps nothing from group to
group.

Of Dertinger et al. 2009, PNAS 106, 22287, and 2010, Optics Express 18, 18875: fluorophores blink
independently, so that the cumulant of order n at a point is the sum over fluorophores of their n-th
power of the image of a point, which is sqrt(n) times as narrow. Cumulants of n different pixels
belong to the point in their middle, which makes n times as many pixels along each axis, and have no
shot noise, which differs from pixel to pixel. What n pixels have in common falls with the distance
between them; of a Gaussian image by exp(-sum of squares / 2 sigma^2), which is divided out.

Estimated without bias from the few frames of a group: Fisher's k-statistics, for different pixels
(Kendall and Stuart, The Advanced Theory of Statistics, chapter 13).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from functools import cache
from itertools import combinations
from typing import NamedTuple

import numpy as np

from livesr.live.arrays import HOST, Array, Arrays

_BAND = 32  # camera rows that are worked on at a time

Pixel = tuple[int, int]


class _Combination(NamedTuple):
    """Pixels (y, x) around a camera pixel, and how much less than one they have in common."""

    pixels: tuple[Pixel, ...]
    spread: int  # squared distances from their middle, in squared fractions of a pixel


class Cumulants:
    """Images of groups of frames.

    Of even orders they lie half of their pixel beside the camera's frame: see `beside_px`.

    Parameters
    ----------
    shape : camera frame (y, x)
    order : 2 to 4; also pixels of the image per camera pixel
    sigma_px : standard deviation of a single emitter's image, camera pixels
    arrays : what to compute with
    """

    def __init__(
        self, shape: tuple[int, int], order: int, sigma_px: float, *, arrays: Arrays = HOST
    ) -> None:
        self.scale, self._camera_shape, self._arrays = order, shape, arrays
        self._sigma_px = sigma_px
        self._around = 1 + max(
            max(abs(v) for pixel in c.pixels for v in pixel)
            for found in _combinations(order).values()
            for c in found
        )

    @property
    def beside_px(self) -> float:
        """By how much what an image shows lies further than its pixels say, along each axis."""
        return 0.5 if self.scale % 2 == 0 else 0.0

    @property
    def shape(self) -> tuple[int, int]:
        """Image (y, x)."""
        return self._camera_shape[0] * self.scale, self._camera_shape[1] * self.scale

    def memory_bytes(self, frames: int) -> int:
        """Return what a group of so many frames needs while it is folded in."""
        band = frames * (_BAND + 2 * self._around) * (self._camera_shape[1] + 2 * self._around)
        return 4 * math.prod(self.shape) + 4 * (self.scale + 3) * band

    def group(self, frames: Sequence[Array | None]) -> Array:
        """Return the cumulants that the frames show, float32 of `shape`, ADU to the power `order`.

        Parameters
        ----------
        frames : (y, x) each, in order of time; None where one is missing. More of them than `order`

        Raises
        ------
        ValueError
            If there are fewer.
        """
        arrays, xp = self._arrays, self._arrays.xp
        came = [frame for frame in frames if frame is not None]
        if len(came) <= self.scale:
            raise ValueError(
                f"{len(came)} frames came, a cumulant of order {self.scale} needs more"
            )
        image = xp.empty(self.shape, dtype=xp.float32)
        step = _BAND if arrays.pieces else self._camera_shape[0]
        for first in range(0, self._camera_shape[0], step):
            last = min(first + step, self._camera_shape[0])
            self._fold(self._beyond_mean(came, first, last), image[first * self.scale :, :])
        return image

    def _beyond_mean(self, frames: Sequence[Array], first: int, last: int) -> Array:
        """Return by how much the frames exceed their mean, float32 (n, y, x), with pixels around.

        Beyond the edges of the chip there is none.
        """
        arrays, xp, m = self._arrays, self._arrays.xp, self._around
        height, width = self._camera_shape
        shape = (len(frames), last - first + 2 * m, width + 2 * m)
        found = xp.zeros(shape, dtype=xp.float32)
        top, bottom = max(first - m, 0), min(last + m, height)
        inside = found[:, top - first + m : bottom - first + m, m : m + width]
        for i, frame in enumerate(frames):
            arrays.copy(frame[top:bottom, :], out=inside[i, :, :])
        mean = xp.sum(inside, axis=0) / len(frames)
        for i in range(len(frames)):
            arrays.subtract(inside[i, :, :], mean, out=inside[i, :, :])
        return found

    def _fold(self, beyond: Array, rows: Array) -> None:
        """Fill the first `rows` of an image: the cumulants of a band."""
        m, order = self._around, self.scale
        n, height, width = beyond.shape[0], beyond.shape[1] - 2 * m, beyond.shape[2] - 2 * m

        def at(pixel: Pixel) -> Array:
            y, x = m + pixel[0], m + pixel[1]
            return beyond[:, y : y + height, x : x + width]

        for (y, x), found in _combinations(order).items():
            total: Array = 0.0
            for combination in found:
                total = total + _cumulant([at(p) for p in combination.pixels], n, self._arrays)
            common = sum(math.exp(-c.spread / order**2 / (2 * self._sigma_px**2)) for c in found)
            rows[y : height * order : order, x::order] = total / common


def _cumulant(values: Sequence[Array], n: int, arrays: Arrays) -> Array:
    """Return the joint cumulant of pixels whose means are subtracted, (n, y, x) each."""

    def mean(a: Array, b: Array) -> Array:
        return arrays.xp.sum(a * b, axis=0) / n

    if len(values) == 2:
        return mean(*values) * (n / (n - 1))
    a, b, c, *rest = values
    if not rest:
        return mean(a * b, c) * (n**2 / ((n - 1) * (n - 2)))
    d = rest[0]
    pairs = mean(a, b) * mean(c, d) + mean(a, c) * mean(b, d) + mean(a, d) * mean(b, c)
    found = (n + 1) * mean(a * b, c * d) - (n - 1) * pairs
    return found * (n**2 / ((n - 1) * (n - 2) * (n - 3)))


@cache
def _combinations(order: int) -> dict[Pixel, tuple[_Combination, ...]]:
    """Return for each pixel of the image in a camera pixel the pixels to combine.

    Pixels of the image are `order`-ths of a camera pixel apart, and one of them is in its middle.
    Of all combinations of different pixels whose middle it is, those that are nearest to each
    other: all of them, for without one the others lie to one side.
    """
    near = [(y, x) for y in range(-1, 3) for x in range(-1, 3)]
    first = (order - 1) // 2
    return {
        (y, x): tuple(_nearest(near, order, (y - first, x - first)))
        for y in range(order)
        for x in range(order)
    }


def _nearest(near: Sequence[Pixel], order: int, middle: Pixel) -> Iterator[_Combination]:
    found = []
    for pixels in combinations(near, order):
        sums = tuple(int(v) for v in np.sum(pixels, axis=0))
        if sums == middle:
            away = order * np.array(pixels) - middle
            found.append(_Combination(pixels, int((away**2).sum())))
    least = min(c.spread for c in found)
    yield from [c for c in found if c.spread == least]
