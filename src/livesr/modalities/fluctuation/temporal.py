"""What is made of a pixel's values through a group of frames, one frame after the other.

Owns the three statistics of eSRRF. Each takes every frame once and keeps sums only, counted from
the first frame, so that float32 is enough.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from livesr.live.arrays import Array, Arrays


class Statistic:
    """Takes frames, float32 of one shape.

    Parameters
    ----------
    shape : of a frame
    arrays : what to compute with

    Attributes
    ----------
    planes : frames that it holds
    """

    planes: ClassVar[int] = 1

    def __init__(self, shape: tuple[int, ...], arrays: Arrays) -> None:
        self._arrays, self._n = arrays, 0
        xp = arrays.xp
        self._held = [xp.zeros(shape, dtype=xp.float32) for _ in range(self.planes)]

    def add(self, frame: Array | None) -> None:
        """Take the next frame, which is only read; None where one is missing."""
        raise NotImplementedError

    def image(self) -> Array:
        """Return what was found; once."""
        raise NotImplementedError


class Average(Statistic):
    """The mean, published as AVG."""

    def add(self, frame: Array | None) -> None:
        """Add the frame."""
        if frame is not None:
            self._arrays.add(self._held[0], frame, out=self._held[0])
            self._n += 1

    def image(self) -> Array:
        """Return the mean."""
        return self._arrays.multiply(self._held[0], 1 / max(self._n, 1), out=self._held[0])


class Variance(Statistic):
    """The variance over the n frames, published as VAR."""

    planes = 4

    def add(self, frame: Array | None) -> None:
        """Add how the frame differs from the first one, and the square of it."""
        if frame is None:
            return
        arrays, (first, total, squares, beyond) = self._arrays, self._held
        if not self._n:
            arrays.copy(frame, out=first)
        arrays.subtract(frame, first, out=beyond)
        arrays.add(total, beyond, out=total)
        arrays.multiply(beyond, beyond, out=beyond)
        arrays.add(squares, beyond, out=squares)
        self._n += 1

    def image(self) -> Array:
        """Return the variance."""
        arrays, (_, total, squares, beyond) = self._arrays, self._held
        n = max(self._n, 1)
        arrays.multiply(total, 1 / n, out=total)
        arrays.multiply(total, total, out=beyond)
        arrays.multiply(squares, 1 / n, out=squares)
        return arrays.subtract(squares, beyond, out=squares)


class Autocorrelation(Statistic):
    """The covariance of every frame with the next one, published as TAC2.

    A missing frame takes its two pairs away.
    """

    planes = 7

    def __init__(self, shape: tuple[int, ...], arrays: Arrays) -> None:
        super().__init__(shape, arrays)
        self._pairs, self._has_last = 0, False

    def add(self, frame: Array | None) -> None:
        """Add the frame, and its product and sum with the last one."""
        if frame is None:
            self._has_last = False
            return
        arrays = self._arrays
        first, total, products, sums, last, beyond, scratch = self._held
        if not self._n:
            arrays.copy(frame, out=first)
        arrays.subtract(frame, first, out=beyond)
        arrays.add(total, beyond, out=total)
        if self._has_last:
            arrays.multiply(beyond, last, out=scratch)
            arrays.add(products, scratch, out=products)
            arrays.add(sums, beyond, out=sums)
            arrays.add(sums, last, out=sums)
            self._pairs += 1
        self._held[4], self._held[5] = beyond, last
        self._n, self._has_last = self._n + 1, True

    def image(self) -> Array:
        """Return the mean of (a - m) (b - m) over the pairs: ab - m (a + b) + m m."""
        arrays = self._arrays
        _, total, products, sums, _, _, scratch = self._held
        mean = arrays.multiply(total, 1 / max(self._n, 1), out=total)
        found = arrays.multiply(products, 1 / max(self._pairs, 1), out=products)
        arrays.multiply(sums, 1 / max(self._pairs, 1), out=sums)
        arrays.multiply(sums, mean, out=sums)
        arrays.subtract(found, sums, out=found)
        arrays.multiply(mean, mean, out=scratch)
        if self._pairs:
            arrays.add(found, scratch, out=found)
        return found


TEMPORAL: Mapping[str, type[Statistic]] = {
    "average": Average,
    "variance": Variance,
    "autocorrelation": Autocorrelation,
}
"""By their names in rig.yaml."""
