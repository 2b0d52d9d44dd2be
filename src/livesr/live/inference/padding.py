"""Frames of any size for a network that takes only some.

Owns the input block that a runtime reads, padded at the bottom and the right by reflection, and the
crop of the output. Knows no runtime.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from livesr.base.errors import BackendError, EngineError
from livesr.live.inference.engine import Engine
from livesr.live.inference.session import InferenceSession

MEAN_DEVIATION = "mean-deviation"
"""`Manifest.normalisation` of a network that sees frames of mean 0 and standard deviation 1."""

_EPSILON = 1e-6


def padded_shape(engine: Engine, shape: tuple[int, int]) -> tuple[int, int]:
    """Return `shape` (y, x), enlarged to what the network takes."""
    step = engine.manifest.multiple_of
    return -(-shape[0] // step) * step, -(-shape[1] // step) * step


class PaddedBlock:
    """The memory between the live path and a runtime, allocated once.

    Parameters
    ----------
    engine : gives window, scale, channels and `multiple_of`
    shape : (y, x) of the frames
    zeros : makes the memory, as `numpy.zeros` does; CuPy's own and its pinned one are others

    Attributes
    ----------
    block : float32 (1, window, Y, X), contiguous; what the runtime reads
    frames : (window, y, x) view of it that the live path writes
    output_shape : (1, c, Y, X) of what the runtime returns for `block`

    Notes
    -----
    Reflection, not zeros: channel attention averages over the whole image, and a black margin would
    dim the average.

    Raises
    ------
    EngineError
        If `shape` is too small to be reflected.
    """

    __slots__ = ("_scale", "block", "frames", "output_shape")

    def __init__(
        self, engine: Engine, shape: tuple[int, int], zeros: Callable[..., Any] = np.zeros
    ) -> None:
        engine.check_fits(engine.manifest.task, shape=shape)
        padded = padded_shape(engine, shape)
        self._scale = engine.manifest.scale
        self.block: NDArray[np.float32] = zeros((1, engine.manifest.inputs, *padded), np.float32)
        self.frames: NDArray[np.float32] = self.block[0, :, : shape[0], : shape[1]]
        self.output_shape = (1, *engine.output_shape(padded))

    @contextmanager
    def standardised(self) -> Iterator[tuple[np.float32, np.float32]]:
        """Give the frames mean 0 and standard deviation 1 for a while; yield what they had."""
        as_they_came = self.frames.copy()
        mean = np.float32(as_they_came.mean(dtype=np.float64))
        deviation = np.float32(as_they_came.std(dtype=np.float64) + _EPSILON)
        np.subtract(as_they_came, mean, out=self.frames)
        np.divide(self.frames, deviation, out=self.frames)
        try:
            yield mean, deviation
        finally:
            self.frames[...] = as_they_came

    def reflect(self) -> None:
        """Fill the margin from the frames; does nothing where they need none."""
        (_, y, x), (height, width) = self.frames.shape, self.block.shape[2:]
        if height > y:
            self.block[0, :, y:, :x] = self.block[0, :, 2 * y - height - 1 : y - 1, :x][:, ::-1]
        if width > x:
            self.block[0, :, :, x:] = self.block[0, :, :, 2 * x - width - 1 : x - 1][:, :, ::-1]

    def crop(self, output: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the (c, scale y, scale x) view of `output` (1, c, Y, X) that belongs to the
        frames.
        """
        _, y, x = self.frames.shape
        return output[0, :, : y * self._scale, : x * self._scale]


class PaddedSession(InferenceSession):
    """A session whose frames and predictions pass through memory of the host, allocated once.

    A runtime says in `_run` how its output follows from its block, and sets `_features` to None if
    it cannot hand them out.

    Parameters
    ----------
    engine, shape : as of `Runtime.open`
    zeros : makes the memory, as `numpy.zeros` does
    """

    _padded: PaddedBlock | None = None
    _features: NDArray[np.float32] | None = None

    def __init__(
        self, engine: Engine, shape: tuple[int, int], zeros: Callable[..., Any] = np.zeros
    ) -> None:
        self._padded = padded = PaddedBlock(engine, shape, zeros)
        self._output: NDArray[np.float32] = zeros(padded.output_shape, np.float32)
        self._result = padded.crop(self._output)
        self._standardised = engine.manifest.normalisation == MEAN_DEVIATION
        if engine.manifest.weights.features:
            self._features = zeros((engine.manifest.weights.features,), np.float32)

    @property
    def features(self) -> NDArray[np.float32] | None:
        """Second output of the last `infer`, float32 (n,); None without."""
        return self._features

    @property
    def input(self) -> NDArray[np.float32]:
        """The (window, y, x) block that `infer` reads."""
        return self._opened().frames

    def infer(self) -> NDArray[np.float32]:
        """Return (c, scale y, scale x) for the current `input`; overwritten by the next call."""
        padded = self._opened()
        if self._standardised:
            with padded.standardised() as (mean, deviation):
                padded.reflect()
                self._run(padded)
            self._result *= deviation
            self._result += mean
            return self._result
        padded.reflect()
        self._run(padded)
        return self._result

    def close(self) -> None:
        """Release the buffers."""
        self._padded = None
        self._output = self._result = np.empty(0, np.float32)

    @abstractmethod
    def _run(self, padded: PaddedBlock) -> None:
        """Fill `_output`, (1, c, Y, X), with what the network makes of `padded.block`.

        And `_features`, unless it is None.
        """

    def _opened(self) -> PaddedBlock:
        if self._padded is None:
            raise BackendError(f"The {self.name} session is closed.")
        return self._padded


def check_features(engine: Engine, found: int | None) -> None:
    """Compare how many features a network returns with what its manifest says.

    Parameters
    ----------
    found : how many numbers its output `FEATURES_OUTPUT` has; None where it has none

    Raises
    ------
    EngineError
        If they differ.
    """
    expected = engine.manifest.weights.features
    if expected and found != expected:
        raise EngineError(
            f"The network of engine {engine.manifest.id!r} returns {found or 'no'} features, and"
            f" its manifest says {expected}. Export it anew, or correct 'weights: features'."
        )


def check_output(engine: Engine, found: tuple[int, ...], expected: tuple[int, ...]) -> None:
    """Compare what a network returns with what its manifest says, (1, c, Y, X).

    Raises
    ------
    EngineError
        If they differ.
    """
    if found != expected:
        raise EngineError(
            f"The network of engine {engine.manifest.id!r} returns {found}, and its manifest says"
            f" {expected} (1, channels, y, x). Correct channels, scale or multiple_of in the"
            " manifest, or export it anew."
        )
