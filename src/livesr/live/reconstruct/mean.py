"""No reconstruction: the mean of the raw frames.

Owns nothing but the camera's offset. For widefield streams, for cameras whose frames are already
reconstructed, and for raw frames that a network makes a picture of: it is the measurement beside
its prediction.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from livesr.base.errors import FrameShapeError
from livesr.live.reconstruct.reconstructor import RawFrames


class GroupMean:
    """The mean of the raw frames minus the camera's offset, on the camera's own grid.

    Parameters
    ----------
    shape : raw frame (y, x)
    offset_adu : level of a dark frame, subtracted
    """

    __slots__ = ("_offset_adu", "shape")

    scale = 1

    def __init__(self, shape: tuple[int, int], offset_adu: float = 0.0) -> None:
        self.shape = shape
        self._offset_adu = np.float32(offset_adu)

    @property
    def memory_bytes(self) -> int:
        """Nothing is held between frames."""
        return 0

    def reconstruct(self, frames: RawFrames) -> NDArray[np.float32]:
        """Average the frames into a new picture, in ADU above the offset.

        Parameters
        ----------
        frames : one or more raw frames, uint8, uint16 or corrected float32 (y, x); only read

        Raises
        ------
        FrameShapeError
            If there is no frame or a frame has another shape.
        """
        if len(frames) == 0:
            raise FrameShapeError("a raw stack without frames cannot be reconstructed")
        picture = np.zeros(self.shape, np.float32)
        for frame in frames:
            if frame.shape != self.shape:
                raise FrameShapeError(
                    f"raw frame is {frame.shape}, this stream expects {self.shape}"
                )
            picture += frame
        picture *= np.float32(1.0 / len(frames))
        picture -= self._offset_adu
        return picture
