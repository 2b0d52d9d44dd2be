"""A rig with its devices on: a few groups are taken, and what they show is measured and drawn.

Owns the measures of `livesr check --hardware` and what is plausible of them. Loads no configuration
and stores nothing.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from livesr.base.config import RigConfig
from livesr.base.errors import ConfigError
from livesr.base.frames import CameraFrame, FrameQuality, RawStack
from livesr.base.geometry import Geometry
from livesr.evaluation.camera_frames import take_groups
from livesr.evaluation.contact_sheet import sheet, tile
from livesr.live.arrays import HOST
from livesr.live.camera import camera_geometry
from livesr.live.paths import ChannelPath, build_path
from livesr.live.reconstruct.reconstructor import ReportsQuality
from livesr.live.sources.continuous import BUFFER_S, frame_ms
from livesr.modalities.registry import modality
from livesr.optics.exposure import examine, without_picture

if TYPE_CHECKING:
    from pymmcore_plus import CMMCorePlus

Verdict = Literal["ok", "warning", "error"]
_FEWEST_EXPOSURES = 10  # for a frame rate
_BELOW_OFFSET_ADU = 5.0  # that the darkest part of a mean frame may be, by noise and uneven offsets
_MAX_RAW_SHOWN = 9


@dataclass(frozen=True, slots=True)
class Measured:
    """One thing that was measured.

    `value` with its unit, whether that is plausible, and what to do if not.
    """

    name: str
    value: str
    verdict: Verdict = "ok"
    advice: str = ""


class Looked(NamedTuple):
    """Raw groups of one channel and what was made of them, for what its modality says of them.

    Attributes
    ----------
    rig, channel, camera : whose they are; the rig reconstructs doubtful frames as well
    path : the steps of the channel
    stacks : complete groups, in the order in which they were taken
    quality : what the reconstructor said of the last one, None where it says nothing
    """

    rig: RigConfig
    channel: str
    camera: Geometry
    path: ChannelPath
    stacks: Sequence[RawStack]
    quality: FrameQuality | None


@dataclass(frozen=True, slots=True)
class Look:
    """What one channel of a rig showed.

    Attributes
    ----------
    channel : its name
    measured : in the order of a table
    raw, labels : the last group that was taken, uint8 or uint16 (n, y, x), and what each frame of
        it is
    widefield, reconstruction : of that group, (y, x); None where there is none
    """

    channel: str
    measured: tuple[Measured, ...]
    raw: NDArray[Any]
    labels: tuple[str, ...]
    widefield: NDArray[Any] | None
    reconstruction: NDArray[Any] | None

    def picture(self) -> Image.Image:
        """Draw the raw group, and widefield beside reconstruction below.

        The same part of the field in every tile.
        """
        shown = list(zip(self.labels, self.raw, strict=True))[:_MAX_RAW_SHOWN]
        columns = math.ceil(math.sqrt(len(shown)))
        groups = [shown[first : first + columns] for first in range(0, len(shown), columns)]
        pictures = (("widefield", self.widefield), ("reconstruction", self.reconstruction))
        groups.append([(title, picture) for title, picture in pictures if picture is not None])
        return sheet(
            [[(title, tile(self._enlarged(p))) for title, p in group] for group in groups if group]
        )

    def _enlarged(self, picture: NDArray[Any]) -> NDArray[Any]:
        """Bring a picture to the grid of the reconstruction, pixel by pixel."""
        shape = picture.shape if self.reconstruction is None else self.reconstruction.shape
        y, x = (np.arange(n) * m // n for n, m in zip(shape, picture.shape, strict=True))
        return np.asarray(picture[np.ix_(y, x)])


def look(core: CMMCorePlus, rig: RigConfig, channel: str) -> Look:
    """Take a few groups of `channel` and say what they show.

    Raises
    ------
    ConfigError
        If the camera cannot be used as it is set.
    RunError
        If not one group is complete.
    """
    cameras = {name: camera_geometry(core, rig, name) for name in rig.channels or [channel]}
    camera, kind = cameras[channel], modality(rig.modality_of(channel))
    section, n_raw = rig.section(channel), rig.raw_frames(channel)
    groups = kind.hardware_groups(section) or math.ceil(_FEWEST_EXPOSURES / n_raw)
    frames = take_groups(core, rig, channel, groups)
    stacks = _stacks(frames, n_raw)
    raw = np.stack([f for f in stacks[-1].frames if f is not None])
    image, shown = _reconstruction(rig, channel, camera, stacks)
    measured = (
        *_camera(core, rig, camera),
        *(
            Measured(f"channel {name}", each.words())
            for name, each in cameras.items()
            if len(cameras) > 1
        ),
        _frame_rate(frames, core.getExposure(), groups * n_raw),
        _buffer(core, camera),
        *_light(raw, rig, camera),
        *shown,
    )
    mean = raw.mean(axis=0) if n_raw > 1 else None
    return Look(channel, measured, raw, rig.raw_labels(channel), mean, image)


def _reconstruction(
    rig: RigConfig, channel: str, camera: Geometry, stacks: Sequence[RawStack]
) -> tuple[NDArray[Any] | None, list[Measured]]:
    """Return the picture of the last group, and what the modality says of the groups."""
    kind = modality(rig.modality_of(channel))
    if rig.channel(channel).learned:
        shown = ", ".join(rig.raw_labels(channel))
        return None, [
            Measured(
                "raw frames",
                f"{rig.raw_frames(channel)}, {shown}; only whole groups tell order and contrast",
            )
        ]
    if (missing := kind.not_ready(rig, channel)) is not None:
        return None, [missing]
    believing = kind.believing(rig)
    path = _path(believing, channel, camera)
    image, quality = _reconstructed(path, stacks[-1])
    looked = Looked(believing, channel, camera, path, stacks, quality)
    return image, list(kind.check_hardware(looked))


def _path(rig: RigConfig, channel: str, camera: Geometry) -> ChannelPath:
    """Return the steps of a channel, without a network."""
    plain = rig.channel(channel).without_engines()
    alone = rig.model_copy(update={"channels": {**rig.channels, channel: plain}})
    return build_path(alone, channel, camera)


def _stacks(frames: Sequence[CameraFrame], n_raw: int) -> list[RawStack]:
    groups: dict[int, dict[int, CameraFrame]] = {}
    for frame in frames:
        groups.setdefault(frame.t, {})[frame.raw] = frame
    whole = [[group[i] for i in range(n_raw)] for group in groups.values() if len(group) == n_raw]
    if not whole:
        raise ConfigError(
            f"{len(frames)} frames came, and no complete group of {n_raw}: does the camera wait for"
            " triggers that do not come? See TRIGGER SOURCE in rig.cfg, and trigger in rig.yaml."
        )
    return [
        RawStack(
            tuple(f.pixels for f in group),
            group[0].stream,
            group[0].t,
            group[0].t_host_ns,
            group[-1].t_host_ns,
        )
        for group in whole
    ]


def _reconstructed(path: ChannelPath, stack: RawStack) -> tuple[NDArray[Any], FrameQuality | None]:
    if running := path.running():
        return running.add(stack), None
    frames = stack.came
    if isinstance(path.reconstructor, ReportsQuality):
        path.reconstructor.look_at(path.exposures(frames, HOST))
    image = path.reconstructor.reconstruct(
        path.correction.apply(frames) if path.correction else frames
    )
    return image, (
        path.reconstructor.quality if isinstance(path.reconstructor, ReportsQuality) else None
    )


def _camera(core: CMMCorePlus, rig: RigConfig, camera: Geometry) -> Iterator[Measured]:
    label = camera.camera
    yield Measured(
        "camera", f"{label}: {core.getDeviceLibrary(label)}, {core.getDeviceName(label)}"
    )
    bits = 8 if camera.dtype == "uint8" else 16
    kind = (
        core.getProperty(label, "PixelType")
        if core.hasProperty(label, "PixelType")
        else camera.dtype
    )
    yield Measured(
        "pixel type",
        f"{kind} ({camera.dtype}, {camera.bit_depth} bit), camera.bit_depth {rig.camera.bit_depth}",
        "error" if rig.camera.bit_depth > bits else "ok",
        (
            "Set PixelType to 16bit, or bit_depth in rig.yaml to 8."
            if rig.camera.bit_depth > bits
            else ""
        ),
    )
    y0, x0 = camera.origin_px
    yield Measured("region", f"{camera.shape[1]} x {camera.shape[0]} from ({x0:.0f}, {y0:.0f})")
    asked, is_ms = rig.exposure_ms, core.getExposure()
    differs = abs(is_ms - asked) > 0.01 * asked
    advice = "The camera rounds or refuses it: choose one that it takes." if differs else ""
    yield Measured("exposure", f"{is_ms:g} ms of {asked:g}", "warning" if differs else "ok", advice)


def _frame_rate(frames: Sequence[CameraFrame], exposure_ms: float, asked: int) -> Measured:
    if len(frames) < asked:
        said = f"{len(frames)} of {asked} frames came"
        return Measured(
            "frame rate",
            said,
            "error",
            "Look for triggers that do not come, and for the camera's cable.",
        )
    # By the camera's clock where it has one; pauses between groups do not count.
    by_camera = all(f.t_camera_ms is not None for f in frames)
    times = np.array(
        [f.t_camera_ms if by_camera else f.t_host_ns / 1e6 for f in frames], np.float64
    )
    period_ms = float(np.median(np.diff(times)))
    reached = 1e3 / max(period_ms, 1e-3)
    if not exposure_ms:
        return Measured("frame rate", f"{reached:.1f} /s, the camera tells no exposure")
    possible = 1e3 / exposure_ms
    slow = reached < 0.9 * possible
    advice = (
        "Readout or triggers take longer than the exposure: a smaller region, or a faster readout."
        if slow
        else ""
    )
    return Measured(
        "frame rate",
        f"{reached:.1f} /s, exposure allows {possible:.1f}",
        "warning" if slow else "ok",
        advice,
    )


def _buffer(core: CMMCorePlus, camera: Geometry) -> Measured:
    mib = core.getCircularBufferMemoryFootprint()
    frame_bytes = math.prod(camera.shape) * np.dtype(camera.dtype).itemsize
    frames = mib * 2**20 // frame_bytes
    seconds = frames * frame_ms(core) / 1e3
    short = seconds < BUFFER_S
    advice = (
        "A disk that pauses stops a triggered run: core.setCircularBufferMemoryFootprint."
        if short
        else ""
    )
    return Measured(
        "buffer",
        f"{mib} MiB, {frames} frames, {seconds:.1f} s",
        "warning" if short else "ok",
        advice,
    )


def _light(raw: NDArray[Any], rig: RigConfig, camera: Geometry) -> Iterator[Measured]:
    ceiling = camera.ceiling(rig.camera.bit_depth)
    exposures = examine(raw, rig.camera.offset_adu, ceiling)
    ceiling = int(exposures.ceiling or ceiling)
    share = exposures.saturated / raw.size
    verdict: Verdict = "error" if share > 1e-2 else "warning" if share > 0 else "ok"
    advice = (
        "Less light or a shorter exposure: saturated pixels are lost to every reconstruction."
        if share
        else ""
    )
    bright = float(np.percentile(raw, 99.9))
    yield Measured(
        "saturation",
        f"{share:.2%} at {ceiling}; brightest 0.1 % at {bright:.0f} ADU",
        verdict,
        advice,
    )
    if missing := without_picture(exposures.faults()):
        advice = "Check shutter and triggers, and that the camera's buffer holds every frame."
        yield Measured("raw frames", missing, "error", advice)
    offset = rig.camera.offset_adu
    dark = float(np.percentile(raw.mean(axis=0), 0.5))
    if dark < offset - _BELOW_OFFSET_ADU:
        advice = (
            "Darker than without light: offset_adu is too high. 'livesr characterise' measures it."
        )
    elif dark - offset > max(0.5 * (bright - offset), 50.0):
        advice = (
            "Nothing is near the offset: much background, or offset_adu is too low. Look with the"
            " light off."
        )
    else:
        advice = ""
    said = f"darkest 0.5 % at {dark:.0f} ADU, camera.offset_adu {offset:g}"
    yield Measured("offset", said, "warning" if advice else "ok", advice)
