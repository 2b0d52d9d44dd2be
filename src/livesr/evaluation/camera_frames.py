"""Stacks of frames for a characterisation.

From a recording, or taken with a real core, dark ones, then light ones.

Owns shutter, preset and region while they are taken. Measures nothing.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import psutil
from numpy.typing import NDArray
from useq import MDAEvent

from livesr.base.config import RigConfig
from livesr.base.errors import CalibrationError, ConfigError, LiveSRError, RunError
from livesr.base.frames import CameraFrame, Stream
from livesr.base.timing import now_ns
from livesr.live.sources.recordings.recording import open_recording
from livesr.modalities.registry import modalities_of, modality

if TYPE_CHECKING:
    from pymmcore_plus import CMMCorePlus

    from livesr.live.sources.triggered import Gate

_PATIENCE_S = 10.0


def patterned_frames(rig: RigConfig, channel: str) -> int:
    """Frames of a group of structured light, which differ on purpose.

    1 where every frame sees the same.
    """
    return rig.raw_frames(channel) if modality(rig.modality_of(channel)).structured else 1


def take_groups(core: CMMCorePlus, rig: RigConfig, channel: str, groups: int) -> list[CameraFrame]:
    """Acquire raw groups of a channel, the first pattern first.

    They are kept in memory, nothing is stored. What came before the camera stopped is returned: it
    is waited for as long as pymmcore-plus does, 20 s for the first frame of a sequence and 5 s, or
    five exposures, for each that follows.

    Raises
    ------
    RunError
        If no complete group came, or the camera or core fails.
    """
    from livesr.live.sources.mda import Placing, Received, listen
    from livesr.live.sources.patience import ended_by_itself
    from livesr.live.sources.plan import sim_sequence

    n_raw, received = rig.raw_frames(channel), list[Received]()

    def take(image: NDArray[Any], event: MDAEvent, metadata: Mapping[str, Any]) -> None:
        received.append(Received(image, event, metadata, now_ns()))

    _prepare(core, rig)
    plan = sim_sequence(groups, [channel] if channel else [], n_raw, group=rig.channel_group)
    listen(core.mda.events.frameReady, take)
    try:
        core.mda.run(plan)
    except LiveSRError:
        raise
    except Exception as e:  # an acquisition engine raises whatever a driver raises
        if not isinstance(e, TimeoutError) or len(received) < n_raw:
            raise ended_by_itself(e) from e
    finally:
        core.mda.events.frameReady.disconnect(take)
    place = Placing(lambda _: n_raw, channel)
    return [place.frame(each) for each in received]


def _prepare(core: CMMCorePlus, rig: RigConfig) -> None:
    for kind, section in modalities_of(rig):
        kind.prepare_run(core, section)


def groups_of(
    frames: Iterable[CameraFrame], channel: str, n_raw: int, most: int, z: int | None = None
) -> NDArray[Any]:
    """Collect the first complete groups of a channel, (t, n, y, x), at most `most`.

    Of the first position.

    Parameters
    ----------
    z : plane; the first that comes if None

    Raises
    ------
    CalibrationError
        If there is none.
    """
    complete: list[NDArray[Any]] = []
    stream = None
    for at, group in complete_groups(frames, channel, n_raw):
        stream = stream or (at if z is None else at._replace(z=z))
        if at == stream:
            complete.append(group)
        if len(complete) == most:
            break
    if not complete:
        raise CalibrationError(
            f"No complete group of {n_raw} raw frames of channel {channel!r} came."
        )
    return np.stack(complete)


def complete_groups(
    frames: Iterable[CameraFrame], channel: str, n_raw: int
) -> Iterator[tuple[Stream, NDArray[Any]]]:
    """Complete groups (n, y, x) of a channel, as they become complete."""
    open_groups: dict[tuple[Stream, int], dict[int, NDArray[Any]]] = {}
    for frame in frames:
        if frame.stream.channel != channel:
            continue
        group = open_groups.setdefault((frame.stream, frame.t), {})
        group[frame.raw] = np.array(frame.pixels)
        if len(group) == n_raw:
            yield frame.stream, np.stack([group[raw] for raw in range(n_raw)])
            del open_groups[frame.stream, frame.t]


class RecordedFrames:
    """The frames of a file, (n, y, x), read one by one; all its axes are time here.

    Attributes
    ----------
    notes : what is in the file and is not read, or is announced and not there, in sentences

    Raises
    ------
    ConfigError
        If it cannot be read, holds a single frame, or not the whole chip.
    """

    def __init__(self, path: Path) -> None:
        self._recording = open_recording(path)
        self._lengths = self._recording.lengths
        self.shape = (math.prod(self._lengths), *self._recording.shape)
        self.dtype = np.dtype(self._recording.dtype)
        damage = self._recording.damage
        self.notes = (*self._recording.notes, *((damage,) if damage else ()))
        try:
            self._check(path)
        except ConfigError:
            self.close()
            raise

    def _check(self, path: Path) -> None:
        if not self._lengths or self.shape[0] < 2 or self.dtype.name not in ("uint8", "uint16"):
            came = f"{' x '.join(map(str, (*self._lengths, *self._recording.shape)))} {self.dtype}"
            raise ConfigError(
                f"{path.name} holds {came}; expected raw frames (n, y, x) of uint8 or uint16."
            )
        if self._recording.origin_px and any(self._recording.origin_px):
            raise ConfigError(
                f"{path.name} is of a region of the chip; maps are of the whole chip: take it"
                " without a region."
            )

    def close(self) -> None:
        """Close the file."""
        self._recording.close()

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, i: int, /) -> NDArray[Any]:
        place = tuple(int(index) for index in np.unravel_index(i, self._lengths))
        plane = self._recording.read(place)
        if plane is None:
            raise ConfigError(
                f"{self._recording.path.name} lacks frame {i}; give a complete recording."
            )
        return plane.pixels


class CameraFrames:
    """Takes frames of the whole chip, without binning.

    Parameters
    ----------
    channel : whose camera it is, where presets choose one; the core's without

    Raises
    ------
    ConfigError
        If the camera's pixels are binned or of a type that livesr does not take.
    """

    def __init__(self, core: CMMCorePlus, rig: RigConfig, channel: str = "") -> None:
        from livesr.live.camera import camera_geometry, use_camera

        self._core, self._rig = core, rig
        use_camera(core, rig, channel)
        core.clearROI()
        # Maps are per pixel of the chip: whoever measures them needs what whoever uses them needs.
        corrected = rig.corrections.model_copy(update={"bad_pixels": [(0, 0)]})
        self._camera = camera_geometry(core, rig.model_copy(update={"corrections": corrected}))
        self._auto_shutter = core.getAutoShutter()
        core.setAutoShutter(False)

    def dark(self, n: int, preset: str | None = None) -> NDArray[Any]:
        """Take `n` frames with the shutter closed, or with the light off by a preset of the channel
        group.
        """
        if preset:
            self._select(preset)
        elif self._core.getShutterDevice():
            self._core.setShutterOpen(False)
        return self._take(n)

    def light(self, n: int, channel: str) -> NDArray[Any]:
        """Take `n` frames of a channel.

        Of structured light, whole groups that begin with pattern 0.
        """
        if channel:
            self._select(channel)
        if self._core.getShutterDevice():
            self._core.setShutterOpen(True)
        _prepare(self._core, self._rig)
        n_raw = patterned_frames(self._rig, channel)
        from livesr.live.sources.triggered import Gate, trigger_of

        trigger = trigger_of(self._rig)
        gate = Gate(self._core, trigger) if trigger else None
        try:
            return self._take(-(-n // n_raw) * n_raw, gate)
        finally:
            if gate:
                gate.lower()

    def close(self) -> None:
        """Close the shutter and let go of the devices."""
        if self._core.getShutterDevice():
            self._core.setShutterOpen(False)
        self._core.setAutoShutter(self._auto_shutter)
        self._core.unloadAllDevices()

    def _select(self, preset: str) -> None:
        group = self._rig.channel_group
        known = self._core.getAvailableConfigs(group)
        if preset not in known:
            raise ConfigError(
                f"Group {group!r} of rig.cfg has no preset {preset!r}: it has"
                f" {', '.join(known) or 'none'}."
            )
        self._core.setConfig(group, preset)
        self._core.waitForConfig(group, preset)
        if (camera := str(self._core.getCameraDevice())) != self._camera.camera:
            raise ConfigError(
                f"Preset {preset!r} chooses camera {camera!r}, and the frames are of"
                f" {self._camera.camera!r}: maps are of one chip. Say with --channel which camera"
                " is meant, and measure each with a rig.yaml of its own."
            )

    def _take(self, n: int, gate: Gate | None = None) -> NDArray[Any]:
        core, shape = self._core, (n, *self._camera.shape)
        needed, free = (
            int(np.prod(shape)) * np.dtype(self._camera.dtype).itemsize,
            psutil.virtual_memory().available,
        )
        if needed > free // 2:
            raise ConfigError(
                f"{n} frames take {needed / 1e9:.1f} GB and {free / 1e9:.1f} GB are free: take"
                " fewer with --acquire."
            )
        stack, taken = np.empty(shape, self._camera.dtype), 0
        if gate:
            gate.lower()
            gate.let_run("before")
        # Not of `n` frames: a camera that ends by itself may still be in its last lines when its
        # device is unloaded, which crashes the process (seen with DemoCamera, on a busy computer).
        # One that is stopped is waited for.
        core.startContinuousSequenceAcquisition(0)
        if gate:
            gate.let_run("armed")
        due_s = time.monotonic() + _PATIENCE_S + core.getExposure() / 1e3
        while taken < n:
            if core.getRemainingImageCount():
                stack[taken] = core.popNextImage()
                taken += 1
                due_s = time.monotonic() + _PATIENCE_S + core.getExposure() / 1e3
            elif time.monotonic() > due_s or (
                not core.isSequenceRunning() and not core.getRemainingImageCount()
            ):
                break
            else:
                time.sleep(0.001)
        if core.isSequenceRunning():
            core.stopSequenceAcquisition()
        core.clearCircularBuffer()
        if taken < n:
            raise RunError(
                f"The camera delivered {taken} of {n} frames and no more; is it waiting for a"
                " trigger?"
            )
        return stack
