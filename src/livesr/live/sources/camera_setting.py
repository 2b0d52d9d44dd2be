"""How the core's camera is set while it takes a frame: what no pixel of a frame shows.

Owns the reading and its words. Changes nothing, and raises nothing: a frame is not lost because a
driver does not answer.
"""

from __future__ import annotations

import logging
from contextlib import suppress
from typing import NamedTuple

from pymmcore_plus import CMMCorePlus

log = logging.getLogger(__name__)


class CameraSetting(NamedTuple):
    """What frames of the same size may differ in.

    Attributes
    ----------
    camera : label of the device
    region : (x, y, width, height) on its chip, in binned pixels
    binning : as the camera says it, "" where it does not
    bit_depth : bits of a pixel that are filled
    pixel_size_um : binned, in the sample, of Micro-Manager; 0 where it knows none
    """

    camera: str
    region: tuple[int, int, int, int]
    binning: str
    bit_depth: int
    pixel_size_um: float

    @property
    def origin_px(self) -> tuple[float, float] | None:
        """Where the region begins (y, x), as `Geometry.origin_px`; None where the binning is
        unknown.
        """
        binning = self.binning.partition("x")[0]
        if not binning.isdigit() or not int(binning):
            return None
        half = (int(binning) - 1) / (2 * int(binning))
        return self.region[1] + half, self.region[0] + half

    def words(self) -> str:
        """Say it in a few words."""
        x, y, width, height = self.region
        binned = f", binning {self.binning}" if self.binning else ""
        size = f"{1e3 * self.pixel_size_um:g} nm" if self.pixel_size_um else "unknown size"
        return (
            f"{width} x {height} pixels from ({x}, {y}) of {self.camera}, {self.bit_depth}"
            f" bit{binned}, pixels of {size}"
        )


def setting_now(core: CMMCorePlus) -> CameraSetting | None:
    """Return how the core's camera is set, None without one, or where it does not say.

    Takes 4 us with the demo camera: binning and pixel size come from what the core has in mind, and
    no device is asked for them.
    """
    try:
        camera, binning = str(core.getCameraDevice()), ""
        with suppress(Exception):  # a camera without binning, or one that nobody has asked yet
            binning = str(core.getPropertyFromCache(camera, "Binning"))
        if not camera:
            return None
        x, y, width, height = map(int, core.getROI())
        depth, size_um = int(core.getImageBitDepth()), float(core.getPixelSizeUm(True))
        return CameraSetting(camera, (x, y, width, height), binning, depth, size_um)
    except Exception as e:  # whatever a driver raises
        log.debug("the camera does not say how it is set: %s", e)
        return None
