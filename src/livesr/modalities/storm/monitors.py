"""What watches a STORM run: whether its frames are those that rig.yaml describes.

Owns which frames are looked at, and what is said. What is measured in them is in `camera_levels.py`
and `spot_shape.py`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from livesr.base.frames import Pixels, RawStack
from livesr.live.reconstruct.monitor import Monitor, Observation
from livesr.modalities.storm import camera_levels, spot_shape
from livesr.modalities.storm.localise import Localiser

FRAMES = 100
"""Frames from the beginning of a run that are looked at; few enough to be said at once."""

_SIDE = 192  # pixels of their middle
_MIN_FRAMES = 20


class SettingsMonitor(Monitor):
    """Compares the first frames of a run with the camera and the optics of rig.yaml.

    Parameters
    ----------
    localiser : of the channel
    channel : its name
    """

    watches = "camera and optics"

    def __init__(self, localiser: Localiser, channel: str) -> None:
        self._localiser, self._channel = localiser, channel
        self._frames: list[Pixels] = []
        self._seen = 0

    def before(self, stack: RawStack) -> None:
        """Copy the middle of the first frames."""
        room = FRAMES - len(self._frames)
        self._frames += [middle(f).copy() for f in stack.frames[:room] if f is not None]

    def look(self) -> Observation:
        """Say what does not go together, whenever there are twice as many frames as before."""
        frames = self._frames[:]
        if len(frames) < max(_MIN_FRAMES, 2 * self._seen):
            return Observation()
        self._seen = len(frames)
        said = tuple(
            f"Channel {self._channel or 'default'}: {sentence}."
            for sentence in misfits(frames, self._localiser)
        )
        return Observation(said, said)


def middle(frame: Pixels) -> Pixels:
    """Return the part of a frame that is looked at."""
    y, x = (max((n - _SIDE) // 2, 0) for n in frame.shape)
    return frame[y : y + _SIDE, x : x + _SIDE]


def misfits(frames: Sequence[Pixels], localiser: Localiser) -> Iterator[str]:
    """Yield what of rig.yaml does not go with frames, sentences without a full stop.

    Parameters
    ----------
    frames : in order of time, (y, x) each, ADU, as the camera gave them
    localiser : with the camera and the width of a spot that rig.yaml gives
    """
    levels = camera_levels.measure_levels(frames, localiser.sigma_px)
    said = list(camera_levels.misfits(levels, localiser.scale)) if levels else []
    yield from said
    # The width of a spot behind a cylindrical lens is what the fit looks for.
    if not said and not localiser.astigmatism:  # with wrong levels, it says little of the optics
        yield from _shape_misfits(frames, localiser)


def _shape_misfits(frames: Sequence[Pixels], localiser: Localiser) -> Iterator[str]:
    here, scale = localiser.of_shape(frames[0].shape), localiser.scale
    found = here.localise(frames, range(len(frames)))
    places_px = np.stack([found["y_nm"], found["x_nm"]], axis=1) / here.pixel_size_nm
    photons = np.array(frames, np.float32)
    photons -= np.float32(scale.offset_adu)
    photons *= np.float32(scale.photons_per_adu)
    shape = spot_shape.measure_shape(
        photons, found["frame"], places_px, here.sigma_px, scale.excess
    )
    if shape:
        yield from spot_shape.misfits(shape, here.sigma_px, here.pixel_size_nm)
