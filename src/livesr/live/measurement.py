"""A raw group of one channel becomes a measurement.

Owns the order of the steps on its pixels (exposure, correction, reconstruction, background), and
the change from a device that fails to the CPU. What follows from earlier frames is added by
`livesr.live.stages.reconstruct`.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from livesr.base.errors import RunError
from livesr.base.frames import FrameQuality, Normalisation, RawStack
from livesr.live.arrays import Array
from livesr.live.device import HOST_DEVICE, Device
from livesr.live.normalise import BORDER, background_and_scale
from livesr.live.paths import ChannelPath, Measuring
from livesr.live.reconstruct.reconstructor import (
    DoubtfulFrameError,
    NewerFrames,
    ReportsQuality,
    RunningImage,
    Updates,
)
from livesr.live.recorded import Recorded
from livesr.live.run_state import RunState
from livesr.optics.exposure import Exposures

log = logging.getLogger(__name__)


class Measured(NamedTuple):
    """What is made of one raw group.

    Attributes
    ----------
    image : float32 (y, x), ADU, on the host
    levels : its background and scale, or those recorded
    exposures : what its raw frames say
    quality : what its reconstruction says, None where nothing is to be said
    resident : the image on the device, None unless the network is there
    group : float32 (n, y, x), raw frames as the network sees them; None where it sees none
    """

    image: NDArray[np.float32]
    levels: Normalisation
    exposures: Exposures
    quality: FrameQuality | None
    resident: Array | None
    group: NDArray[np.float32] | None = None


class Measurement:
    """Measures the raw groups of one channel through one run.

    Called from the threads of the slots: what is on a device has a place for each, the CPU's part
    serves one at a time, behind a lock.

    Parameters
    ----------
    path : of the channel
    recorded : what is used instead of being measured
    state : of the run

    Attributes
    ----------
    left_device : whether the device failed; only ever turns True
    """

    def __init__(self, path: ChannelPath, recorded: Recorded, state: RunState) -> None:
        self._path, self._recorded, self._state = path, recorded, state
        self._on_cpu = threading.Lock()
        self.left_device = False

    @property
    def device(self) -> str:
        """Name of the device that groups are measured on now."""
        return HOST_DEVICE.name if self.left_device else self._path.device.name

    def measure(self, slot: int, stack: RawStack, running: RunningImage | None) -> Measured:
        """Measure a group in a slot, on the CPU if the slot's device fails.

        Parameters
        ----------
        running : what the group is added to, where the channel accumulates

        Raises
        ------
        DoubtfulFrameError
            If it is not to be shown.
        """
        path = self._path
        if path.on_device and not self.left_device:
            try:
                return self._measure(path.on_device[slot], (path.device, slot), stack, running)
            except DoubtfulFrameError:
                raise
            except Exception as e:  # a driver may raise anything
                self._leave_device(e)
        with self._on_cpu:
            return self._measure(path.measuring, (HOST_DEVICE, 0), stack, running)

    def _measure(
        self,
        measuring: Measuring,
        where: tuple[Device, int],
        stack: RawStack,
        running: RunningImage | None,
    ) -> Measured:
        device, slot = where
        steps, path = self._state.steps, self._path
        with device.slots[slot] as place:
            with steps.measure("reconstruct"):
                frames = place.upload(stack.came)
                exposures = path.exposures(frames, device.arrays)
                image = (
                    running.add(stack)
                    if running
                    else self._reconstruct(measuring, frames, exposures, stack)
                )
                _check_picture(image, path)
            with steps.measure("normalise"):
                levels = self._recorded.normalisation(stack.stream, stack.t) or Normalisation(
                    *background_and_scale(image, border=BORDER, arrays=device.arrays)
                )
                quality = self._quality(measuring, exposures, stack)
                stays = image if device is not HOST_DEVICE and path.resident else None
                return Measured(
                    place.download(image), levels, exposures, quality, stays, self._group(stack)
                )

    def update(self, slot: int, stack: RawStack) -> Measured:
        """Measure an update of a group under way; likewise on the CPU if the slot's device fails.

        Its levels are those of no picture: it is normalised as the whole group before it.

        Raises
        ------
        DoubtfulFrameError
            If it is not to be shown.
        """
        path = self._path
        if path.on_device and not self.left_device:
            return self._update(path.on_device[slot], (path.device, slot), stack)
        with self._on_cpu:
            return self._update(path.measuring, (HOST_DEVICE, 0), stack)

    def _update(self, measuring: Measuring, where: tuple[Device, int], stack: RawStack) -> Measured:
        (device, slot), (correction, reconstructor) = where, measuring
        assert isinstance(reconstructor, Updates)
        looked: list[Exposures] = []

        def examine_(frames: Sequence[Any]) -> Exposures:
            looked.append(self._path.exposures(frames, device.arrays))
            return looked[-1]

        with device.slots[slot] as place, self._state.steps.measure("update"):
            newer = NewerFrames(
                stack.came,
                [f for f in stack.before if f is not None],
                place.upload,
                correction.apply if correction else lambda frames: frames,
                examine_,
            )
            image = reconstructor.update(newer)
            _check_picture(image, self._path)
            quality = reconstructor.quality if isinstance(reconstructor, ReportsQuality) else None
            levels = Normalisation(0.0, 1.0)
            return Measured(place.download(image), levels, looked[-1], quality, None)

    def _reconstruct(
        self, measuring: Measuring, frames: Sequence[Any], exposures: Exposures, stack: RawStack
    ) -> Array:
        """Reconstruct a group by itself; a recorded one with the patterns of then."""
        correction, reconstructor = measuring
        if isinstance(reconstructor, ReportsQuality):
            if drift := self._recorded.pattern_drift(stack):
                reconstructor.correct_drift(*drift)
            reconstructor.look_at(exposures)
        if self._path.updates and isinstance(reconstructor, Updates):
            reconstructor.remember(stack.frames)
        return reconstructor.reconstruct(correction.apply(frames) if correction else frames)

    def _group(self, stack: RawStack) -> NDArray[np.float32] | None:
        """Return the raw frames that the network sees, corrected anew on the CPU."""
        if not self._path.networks.raw_order:
            return None
        frames, correction = list(stack.frames), self._path.correction
        return self._path.group(correction.apply(frames) if correction else frames)

    def _quality(
        self, measuring: Measuring, exposures: Exposures, stack: RawStack
    ) -> FrameQuality | None:
        if isinstance(measuring.reconstructor, ReportsQuality):
            return measuring.reconstructor.quality
        return self._path.quality(exposures, stack.frames)

    def _leave_device(self, error: Exception) -> None:
        """Compute the frames of the channel on the CPU from here on."""
        name, device = self._path.name, self._path.device
        log.error("channel %s leaves its device", name, exc_info=error)
        self.left_device = True
        self._state.warn(
            f"Channel {name or 'default'} is reconstructed on the CPU since"
            f" {device.description} failed ({type(error).__name__}: {error})."
        )


def _check_picture(image: Array, path: ChannelPath) -> None:
    """Refuse what the sinks were not opened for, before it reaches them.

    Raises
    ------
    RunError
        With what came, and what was expected.
    """
    expected = path.description.recon_shape
    # Namespaces other than NumPy refuse to compare their types with its own.
    if image.shape != expected or not str(image.dtype).endswith("float32"):
        raise RunError(
            f"{path.description.recon_method} made a picture of {'x'.join(map(str, image.shape))}"
            f" {image.dtype}, expected {'x'.join(map(str, expected))} float32"
        )
