"""What an engine of two inputs sees beside the frames of its channel: another channel's newest one.

Owns which frame goes with which, and its way onto the other's pixels. Knows no queue or thread.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import affine_transform

from livesr.base.errors import ConfigError
from livesr.base.frames import SRFrame, Stream
from livesr.live.paths import ChannelPath

Image = NDArray[np.float32]


def on_pixels(
    image: Image,
    shape: tuple[int, int],
    finer: float,
    shift_px: tuple[float, float] = (0.0, 0.0),
) -> Image:
    """Return an image of the same field on other pixels, by linear interpolation.

    Parameters
    ----------
    image : float32 (y, x)
    shape : (y, x) of the result; beyond the image its edge goes on
    finer : how many pixels of the result lie side by side in one of the image
    shift_px : (y, x) by which what is shown moved, in pixels of the result: it is moved back
    """
    corner = [(0.5 + moved) / finer - 0.5 for moved in shift_px]
    moved = affine_transform(
        image, [1 / finer, 1 / finer], corner, output_shape=shape, order=1, mode="nearest"
    )
    return np.asarray(moved, np.float32)


class Companions:
    """The newest frames of channels that others are seen with; one thread.

    Parameters
    ----------
    paths : of every channel, by name
    """

    def __init__(self, paths: Mapping[str, ChannelPath]) -> None:
        self._paths = paths
        self._wanted = {path.networks.beside for path in paths.values()} - {""}
        self._newest: dict[Stream, SRFrame] = {}

    def with_companion(self, frame: SRFrame) -> SRFrame:
        """Take the next frame of a stream; return it with what its engine sees beside it.

        That is the newest frame of the other channel at the same position and plane, whenever it
        was exposed, on the pixels of this one and moved back by its drift. Without one the frame
        has none beside it.
        """
        if frame.stream.channel in self._wanted:
            self._newest[frame.stream] = frame
        if not (other := self._paths[frame.stream.channel].networks.beside):
            return frame
        newest = self._newest.get(frame.stream._replace(channel=other))
        return frame if newest is None else replace(frame, beside=self._fitted(newest, frame))

    def _fitted(self, other: SRFrame, frame: SRFrame) -> SRFrame:
        seen, about = self._paths[other.stream.channel], self._paths[frame.stream.channel]
        pixel_um = about.description.recon_pixel_size_um
        y_nm, x_nm = (frame.drift_nm or (0.0, 0.0))[:2]
        image = on_pixels(
            other.image,
            about.description.recon_shape,
            seen.description.recon_pixel_size_um / pixel_um,
            (y_nm / (1e3 * pixel_um), x_nm / (1e3 * pixel_um)),
        )
        return replace(other, image=image, resident=None)


def check_companions(paths: Mapping[str, ChannelPath]) -> None:
    """Refuse channels that are seen with others which the run does not acquire, or which show
    another field.

    Raises
    ------
    ConfigError
        With what does not go together.
    """
    for path in paths.values():
        if not (other := path.networks.beside):
            continue
        if other not in paths:
            raise ConfigError(
                f"The engine of channel {path.name!r} sees channel {other!r} beside it, and the run"
                " does not acquire that: acquire both, or leave out the engine."
            )
        here, there = path.description, paths[other].description
        fields = [
            (d.camera, d.raw_shape, d.raw_origin_px, d.raw_mirrored, d.raw_pixel_size_um)
            for d in (here, there)
        ]
        if fields[0] != fields[1]:
            raise ConfigError(
                f"Channels {here.name!r} and {there.name!r} are seen together by an engine, and do"
                " not show the same field: take them with the same camera, region and binning."
            )
