"""What the camera of a channel delivers.

Owns the record. Asks no camera: `livesr.live.camera` does.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np


class Geometry(NamedTuple):
    """Region, pixels and camera of a channel.

    Attributes
    ----------
    shape, origin_px : of the region (y, x), in pixels, and its first pixel on the chip
    dtype : "uint8" or "uint16"
    pixel_size_um : in the sample
    mirrored : whether the picture of the region is turned over along (y, x), compared with the one
        that was calibrated
    bit_depth : how many bits of a pixel are filled
    camera : label of the device, "" where nobody said
    drawn : whether the camera draws its pictures itself, as Micro-Manager's demo camera
    """

    shape: tuple[int, int]
    dtype: str
    pixel_size_um: float
    origin_px: tuple[float, float] = (0.0, 0.0)
    mirrored: tuple[bool, bool] = (False, False)
    bit_depth: int = 16
    camera: str = ""
    drawn: bool = False

    def ceiling(self, bit_depth: int) -> int:
        """Return the largest pixel in ADU, where rig.yaml gives the camera `bit_depth`."""
        bits: int = min(bit_depth, self.bit_depth, 8 * np.dtype(self.dtype).itemsize)
        return int(2**bits - 1)

    def words(self) -> str:
        """Say it in a few words."""
        (y, x), (y0, x0) = self.shape, self.origin_px
        by = f" of {self.camera}" if self.camera else ""
        return (
            f"{x} x {y} pixels of {self.bit_depth} bit and {1e3 * self.pixel_size_um:g} nm from"
            f" ({x0:g}, {y0:g}){by}"
        )
