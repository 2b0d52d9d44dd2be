"""Richardson-Lucy deconvolution, or Fourier reweighting, of the mean of the last frames.

Owns what a stream keeps for it. The arithmetic is `livesr.optics.richardson_lucy`'s.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from livesr.base.errors import FrameShapeError
from livesr.base.frames import Pixels, RawStack
from livesr.live.arrays import HOST
from livesr.live.reconstruct.reconstructor import RawFrames, RunningImage
from livesr.modalities.widefield.reconstructor import Passthrough
from livesr.optics.richardson_lucy import Filter, GaussianBlur, Reweighting, richardson_lucy

Image = NDArray[np.float32]
Correct = Callable[[list[Pixels]], Image]


class Deconvolved:
    """Frames above the camera's offset, averaged and sharpened, in ADU.

    Parameters
    ----------
    shape : of a frame (y, x)
    offset_adu : level of a dark frame, subtracted; what is below it counts as no light
    sigma_px : standard deviation of a point's image, camera pixels
    rounds : of Richardson-Lucy; at least 1 without `reweighting`
    mean_of : frames that are averaged, the last so many
    reweighting : Wiener's parameter of Fourier reweighting; 0 deconvolves
    """

    scale = 1

    def __init__(
        self,
        shape: tuple[int, int],
        offset_adu: float,
        sigma_px: float,
        rounds: int,
        mean_of: int,
        reweighting: float = 0.0,
    ) -> None:
        self.shape, self.rounds, self.mean_of = shape, rounds, mean_of
        self.reweighting = reweighting
        self.mean = Passthrough(shape, offset_adu)
        self._filter: Filter = (
            Reweighting(shape, sigma_px, reweighting, HOST)
            if reweighting
            else GaussianBlur(shape, sigma_px, HOST)
        )

    @property
    def history(self) -> float:
        """Frames before its own that a picture is made of."""
        return self.mean_of - 1

    @property
    def shown(self) -> float:
        """Frames before its own whose light a picture shows."""
        return self.history

    @property
    def memory_bytes(self) -> int:
        """The frames that are averaged, and the pictures of a round."""
        return 4 * (self.mean_of + 4) * self.shape[0] * self.shape[1] + self._filter.memory_bytes

    def reconstruct(self, frames: RawFrames) -> Image:
        """Sharpen the mean of the frames, a new picture in ADU.

        Raises
        ------
        FrameShapeError
            If there is no frame or a frame has another shape.
        """
        return self.sharpen(self.mean.reconstruct(frames))

    def sharpen(self, picture: Image) -> Image:
        """Sharpen a picture above the offset; a new one, of the same light.

        Reweighting leaves what is below 0, which the mean of noise needs.
        """
        if self.reweighting:
            return np.asarray(self._filter.apply(picture), np.float32)
        return np.asarray(richardson_lucy(picture, self._filter, self.rounds, HOST), np.float32)

    def running(self, correct: Correct | None = None) -> RunningMean:
        """Return what one stream of one run accumulates; `correct` is applied to its frames."""
        return RunningMean(self, correct)


class RunningMean(RunningImage):
    """The last frames of a stream.

    Attributes
    ----------
    localisations, drift_nm : None: neither is measured
    """

    def __init__(self, reconstructor: Deconvolved, correct: Correct | None = None) -> None:
        self._reconstructor, self._correct = reconstructor, correct
        self._frames: deque[tuple[int, Image]] = deque()

    def add(self, stack: RawStack) -> Image:
        """Take a frame; return the picture with it, which the caller owns.

        Raises
        ------
        FrameShapeError
            If it has another shape, or is missing and none of the last ones came.
        """
        this = self._reconstructor
        if came := stack.came:
            corrected = self._correct(came) if self._correct else came
            self._frames.append((stack.t, this.mean.reconstruct(corrected)))
        while self._frames and self._frames[0][0] <= stack.t - this.mean_of:
            self._frames.popleft()
        if not self._frames:
            raise FrameShapeError("none of the frames that are to be averaged came")
        # Summed anew: subtracting what leaves would keep the rounding of all that ever was.
        total = np.sum([frame for _, frame in self._frames], axis=0, dtype=np.float32)
        mean: Image = np.asarray(total / np.float32(len(self._frames)), np.float32)
        return this.sharpen(mean)
