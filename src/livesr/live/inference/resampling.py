"""Frames of one pixel size for a network that learned from another.

Owns the size at which a network sees a frame, and the way there and back. Knows no runtime.

References
----------
Keys 1981, "Cubic convolution interpolation for digital image processing", IEEE Transactions on
Acoustics, Speech, and Signal Processing 29, 1153.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from livesr.live.inference.engine import Engine, Range
from livesr.live.inference.session import AroundSession, InferenceSession

LARGEST = 1.45
"""Factor up to which frames are brought to an engine's pixel size: 23 to 46 nm to 32."""

_REACH = 2.0  # of the kernel, pixels


def middle_nm(trained: Range) -> float:
    """Return the pixel size in the middle of those that an engine was trained for."""
    return math.sqrt(trained.min * trained.max)


def own_pixel_nm(engine: Engine, pixel_size_nm: float) -> float | None:
    """Return the pixel size to which an engine's frames are brought; None where they stay.

    That is the middle of what it was trained for, for a separation whose frames lie outside of it
    and within `LARGEST` of its middle.
    """
    manifest = engine.manifest
    trained = manifest.pixel_size_nm
    if trained is None or manifest.task != "separate" or not engine.wrong_pixels(pixel_size_nm):
        return None
    middle = middle_nm(trained)
    factor = pixel_size_nm / middle
    return middle if 1 / LARGEST <= factor <= LARGEST else None


def resampled_shape(shape: tuple[int, int], factor: float) -> tuple[int, int]:
    """Return `shape` (y, x) with `factor` times as many pixels along each axis."""
    return round(shape[0] * factor), round(shape[1] * factor)


class ResampledSession(AroundSession):
    """A session for frames of other pixels than those that its network sees.

    What it predicts is on the pixels of the frames.

    Parameters
    ----------
    inner : of `engine`, open for `seen`; closed with this one
    engine : says how many planes go in and out, and of which scale
    shape : (y, x) of the frames
    seen : (y, x) of what the network sees
    pixel_size_nm : of that
    """

    def __init__(
        self,
        inner: InferenceSession,
        engine: Engine,
        shape: tuple[int, int],
        seen: tuple[int, int],
        pixel_size_nm: float,
    ) -> None:
        super().__init__(inner)
        self.resampled_nm = pixel_size_nm
        self._there = [matrix(n, m) for n, m in zip(shape, seen, strict=True)]
        made, wanted = engine.output_shape(seen), engine.output_shape(shape)
        self._working = max(
            _working_bytes((engine.manifest.inputs, *shape), seen),
            _working_bytes(made, wanted[1:]),
        )
        self._back = [matrix(m, n) for n, m in zip(wanted[1:], made[1:], strict=True)]
        self._frames = np.zeros((engine.manifest.inputs, *shape), np.float32)
        self._output = np.empty(wanted, np.float32)

    @property
    def input(self) -> NDArray[np.float32]:
        """The (window, y, x) block that `infer` reads, on the pixels of the frames."""
        return self._frames

    @property
    def memory_bytes(self) -> int:
        """Frames and prediction on their pixels, the matrices, and the larger of the two ways."""
        matrices = sum(
            m.data.nbytes + m.indices.nbytes + m.indptr.nbytes for m in (*self._there, *self._back)
        )
        held = self._frames.nbytes + self._output.nbytes + matrices
        return held + self._working + super().memory_bytes

    def infer(self) -> NDArray[np.float32]:
        """Return (c, y, x) for the current `input`, on the pixels of the frames."""
        self._inner.input[...] = resampled(self._frames, *self._there)
        predicted = self._inner.infer()
        self.like(self._inner)  # another runtime may have taken over
        # A kernel with negative parts may fall below 0, and no light is less than none.
        np.maximum(resampled(predicted, *self._back), 0, out=self._output)
        return self._output


def resampled(planes: NDArray[np.float32], along_y: csr_array, along_x: csr_array) -> Any:
    """Return planes (n, y, x) on other pixels, float32 (n, y', x').

    Parameters
    ----------
    along_y, along_x : (y', y) and (x', x), as of `matrix`
    """
    n, y, x = planes.shape
    tall = along_y @ np.ascontiguousarray(planes.transpose(1, 0, 2)).reshape(y, n * x)
    turned = np.ascontiguousarray(tall.reshape(-1, n, x).transpose(2, 1, 0)).reshape(x, -1)
    wide = along_x @ turned
    return wide.reshape(along_x.shape[0], n, along_y.shape[0]).transpose(1, 2, 0)


def _working_bytes(planes: tuple[int, ...], wanted: tuple[int, ...]) -> int:
    """Return what `resampled` holds at most while it brings planes (n, y, x) to `wanted` (y, x)."""
    n, y, x = planes
    tall = wanted[0] * x
    return 4 * n * max(y * x + tall, 2 * tall + wanted[0] * wanted[1])


def matrix(given: int, wanted: int) -> csr_array:
    """Return the float32 (wanted, given) matrix that brings a line of pixels to another number.

    Cubic convolution (Keys 1981, a = -1/2), as wide as a pixel of the coarser one, so that what the
    finer one alone can show is not folded into it. Rows sum to 1, edges are repeated.
    """
    widened = max(given / wanted, 1.0)
    centres = (np.arange(wanted) + 0.5) * given / wanted - 0.5
    reach = math.ceil(_REACH * widened)
    places = np.floor(centres)[:, None].astype(int) + np.arange(1 - reach, reach + 1)
    weights = _keys((places - centres[:, None]) / widened)
    weights /= weights.sum(1, keepdims=True)
    rows = np.repeat(np.arange(wanted), places.shape[1])
    columns = np.clip(places, 0, given - 1).ravel()
    entries = (weights.astype(np.float32).ravel(), (rows, columns))
    return csr_array(entries, shape=(wanted, given))


def _keys(distance: NDArray[np.float64]) -> NDArray[np.float64]:
    d = np.abs(distance)
    near = (1.5 * d - 2.5) * d * d + 1
    far = ((-0.5 * d + 2.5) * d - 4) * d + 2
    return np.where(d <= 1, near, np.where(d < _REACH, far, 0.0))
