"""Raw frames whose noise a network takes out, and what is reconstructed of them.

What is made so is a prediction: the measurement is reconstructed of the frames as they came.

Owns the way from raw frames to the picture of the restored ones. Knows no queue, sink or thread.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from livesr.live.inference.session import AroundSession, InferenceSession
from livesr.live.normalise import BORDER, background_and_scale
from livesr.live.reconstruct.reconstructor import Reconstructor


class RawGroups(NamedTuple):
    """What a network that sees raw frames is opened for.

    Attributes
    ----------
    shape : (y, x) of a raw frame
    pixel_size_um : in the sample
    labels : what each raw frame of a group is, in the rig's order
    left_adu : level of a dark frame that the corrections leave
    again : makes a reconstructor of its own for restored frames
    """

    shape: tuple[int, int]
    pixel_size_um: float
    labels: tuple[str, ...]
    left_adu: float
    again: Callable[[], Reconstructor]


class RestoredSession(AroundSession):
    """A session for raw frames: the network's, and a reconstruction behind it.

    Each frame is normalised by the background and the scale of the mean of its group, as in
    training.

    Parameters
    ----------
    inner : of an engine that sees one raw frame, or as many as a group has, and gives as many;
        closed with this one
    groups : what it is opened for
    """

    def __init__(self, inner: InferenceSession, groups: RawGroups) -> None:
        super().__init__(inner)
        self._left_adu = groups.left_adu
        self._reconstructor = groups.again()
        self._block = np.empty((len(groups.labels), *groups.shape), np.float32)
        self._out = np.empty((1, *self._reconstructor.shape), np.float32)
        self.levels = 0.0, 1.0

    @property
    def input(self) -> NDArray[np.float32]:
        """The (n, y, x) block that `infer` reads: raw frames, normalised by `levels`."""
        return self._block

    @property
    def memory_bytes(self) -> int:
        """A group and its picture, what both become on the way, and the reconstruction's."""
        frames = 5 * self._block.nbytes  # one is held; as they came, restored, and back in ADU
        pictures = 2 * self._out.nbytes
        return frames + pictures + self._reconstructor.memory_bytes + super().memory_bytes

    def infer(self) -> NDArray[np.float32]:
        """Return (1, sy, sx), the reconstruction of the restored frames, normalised by `levels`."""
        background, scale = self.levels
        frames = self._block * np.float32(scale) + np.float32(background)
        b, s = background_and_scale(frames.mean(0), border=BORDER)
        restored = self._restored((frames - np.float32(b)) / np.float32(s))
        self.like(self._inner)  # another runtime may have taken over
        picture = self._reconstructor.reconstruct(
            restored * np.float32(s) + np.float32(b + self._left_adu)
        )
        np.subtract(picture, np.float32(background), out=self._out[0])
        self._out /= np.float32(scale)
        return self._out

    def _restored(self, x: NDArray[np.float32]) -> NDArray[np.float32]:
        one_by_one = len(self._inner.input) < len(x)
        if not one_by_one:
            self._inner.input[...] = x
            return self._inner.infer()
        for frame in x:
            self._inner.input[0] = frame
            frame[...] = self._inner.infer()[0]
        return x
