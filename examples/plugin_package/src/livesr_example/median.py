"""A modality: the median of a few exposures, which a cosmic ray or a blinking molecule leaves as
it is.

In rig.yaml::

    modality: median
    median: {frames: 3}
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from livesr import Modality, RigConfig, Section


class MedianSection(Section):
    """The section ``median`` of rig.yaml: how many exposures make one frame."""

    modality: Literal["median"] = "median"
    frames: Annotated[int, Field(ge=1, le=100)] = 3


class Median(Modality[MedianSection]):
    """The median of `frames` exposures of the camera."""

    name = "median"
    Section = MedianSection

    def raw_frames(self, section: MedianSection) -> int:
        """Return how many exposures make one frame."""
        return section.frames

    def build(self, rig: RigConfig, channel: str, camera: Any, *_: Any) -> MedianOfFrames:
        """Return what reconstructs the exposures of a channel, of `camera.shape` (y, x)."""
        return MedianOfFrames(camera.shape, rig.camera.offset_adu)


class MedianOfFrames:
    """The median above the camera's offset, on the camera's own grid; holds nothing."""

    scale, memory_bytes = 1, 0

    def __init__(self, shape: tuple[int, int], offset_adu: float) -> None:
        self.shape, self._offset_adu = shape, np.float32(offset_adu)

    def reconstruct(self, frames: Sequence[NDArray[Any]]) -> NDArray[np.float32]:
        """Return float32 (y, x) in ADU above the offset, of exposures (y, x)."""
        return np.median(frames, axis=0).astype(np.float32) - self._offset_adu
