"""What every channel's camera delivers, known before a run.

Region, binning, pixel type, bit depth, pixel size.

Owns the reading from the core, and what a channel's preset changes about it. A preset may choose
another camera (Core, Camera), or set its binning: these are set in turn, as the run will, read, and
set back. Nothing else moves, and no frame is taken.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any, NamedTuple

from pymmcore_plus import CMMCorePlus, DeviceType
from useq import MDASequence

from livesr.base.config import RigConfig
from livesr.base.errors import ConfigError
from livesr.base.frames import StagePosition
from livesr.base.geometry import Geometry
from livesr.live.optical_state import ChannelState, Setting, mirrored_since, value_now
from livesr.live.sources.plan import RawFramesPlan
from livesr.modalities.modality import Modality
from livesr.modalities.registry import modalities_of

_CAMERA = ("Core", "Camera")
_SAME = 0.01  # pixel sizes that differ by less are the same


class Cameras(NamedTuple):
    """What the channels' cameras deliver, by channel, and what is to be said of it."""

    geometries: dict[str, Geometry]
    notes: tuple[str, ...] = ()


class _Taken(NamedTuple):
    geometry: Geometry
    note: str


def camera_geometry(core: CMMCorePlus, rig: RigConfig, channel: str | None = None) -> Geometry:
    """Return what the core's camera delivers as it is set now; of a `channel`, with its preset.

    Raises
    ------
    ConfigError
        If there is no camera, more than one, colour pixels, no pixel size, a binning that the
        rig's modality cannot take, or a preset that a device refuses.
    """
    if channel is not None:
        return channel_cameras(core, rig, {channel: ChannelState()}).geometries[channel]
    return _read(core, rig, "", ()).geometry


def channel_cameras(
    core: CMMCorePlus, rig: RigConfig, channels: Mapping[str, ChannelState]
) -> Cameras:
    """Return what is delivered for each channel when they are acquired in turn, in this order,
    again and again.

    Nothing is set while a camera runs: its channel is then what is set now.

    Raises
    ------
    ConfigError
        As `camera_geometry`; or if one channel's preset leaves another one's camera as it is not
        when that one begins.
    """
    settings = {name: channel_settings(core, rig, name, state) for name, state in channels.items()}
    _refuse_maps_of_another_chip(core, rig, settings)
    if core.isSequenceRunning():
        taken = {name: _read(core, rig, name, settings[name]) for name in channels}
        return _cameras(taken)
    with _set_back(core, [s for each in settings.values() for s in each]):
        first = {
            name: _in_turn(core, rig, name, settings[name], channels[name]) for name in channels
        }
        if len(channels) > 1:
            again = {
                name: _in_turn(core, rig, name, settings[name], channels[name]) for name in channels
            }
            _refuse_what_changes(first, again)
    return _cameras(first)


def _cameras(taken: Mapping[str, _Taken]) -> Cameras:
    notes = tuple(dict.fromkeys(each.note for each in taken.values() if each.note))
    return Cameras({name: each.geometry for name, each in taken.items()}, notes)


def channel_settings(
    core: CMMCorePlus, rig: RigConfig, name: str, state: ChannelState | None = None
) -> tuple[Setting, ...]:
    """Return (device, property, value) that a channel's preset and its events set.

    () where the core has no such preset.
    """
    group = (state.group if state else None) or rig.channel_group
    preset: tuple[Setting, ...] = ()
    with suppress(RuntimeError):
        if group in core.getAvailableConfigGroups() and name in core.getAvailableConfigs(group):
            preset = tuple((str(d), str(p), str(v)) for d, p, v in core.getConfigData(group, name))
    return (*preset, *(state.properties if state else ()))


def use_camera(core: CMMCorePlus, rig: RigConfig, channel: str) -> None:
    """Choose the camera of a channel and set of it what the channel's preset says.

    Nothing else moves.

    Raises
    ------
    ConfigError
        If a device refuses it.
    """
    for device, name, value in _of_cameras(core, channel_settings(core, rig, channel)):
        _set(core, device, name, value)


def size_fields(core: CMMCorePlus, plan: object) -> None:
    """Give the grids of a plan the camera's region as the size of their fields, as pymmcore-plus
    does when the plan runs.

    How many fields a grid has may depend on it. Of plans of other kinds than `useq.MDASequence` the
    one that has raw frames in it is given them, to which pymmcore-plus does nothing.
    """
    plan = plan.plan if isinstance(plan, RawFramesPlan) else plan
    if not isinstance(plan, MDASequence) or not (pixel_um := core.getPixelSizeUm()):
        return
    *_, width, height = core.getROI()
    inner = [position.sequence for position in plan.stage_positions if position.sequence]
    for grid in (sequence.grid_plan for sequence in (plan, *inner) if sequence.grid_plan):
        grid.fov_width, grid.fov_height = width * pixel_um, height * pixel_um


def stage_position(core: CMMCorePlus) -> StagePosition:
    """Return where the stages are; None for those that are not there, or say no number."""
    x_um = y_um = z_um = None
    with suppress(RuntimeError):
        if core.getXYStageDevice():
            x_um, y_um = map(float, core.getXYPosition())
    with suppress(RuntimeError):
        if core.getFocusDevice():
            z_um = float(core.getZPosition())
    said = (x_um, y_um, z_um)
    # A stage of Micro-Manager that stands at 0 often says -0.0.
    known = (None if um is None or not math.isfinite(um) else um + 0.0 for um in said)
    return StagePosition(*known)


def camera_of(core: CMMCorePlus, settings: Sequence[Setting]) -> str:
    """Return the camera that is used once `settings` are made."""
    named = [value for device, name, value in settings if (device, name) == _CAMERA]
    return named[-1] if named else str(core.getCameraDevice())


# -- one channel -----------------------------------------------------------------------------------


def _in_turn(
    core: CMMCorePlus, rig: RigConfig, name: str, settings: Sequence[Setting], state: ChannelState
) -> _Taken:
    """Set what concerns the camera, and read."""
    for device, prop, value in _of_cameras(core, settings):
        _set(core, device, prop, value)
    if state.roi:
        with _named(f"region {state.roi} of channel {name!r}"):
            core.setROI(*state.roi)
    return _read(core, rig, name, settings)


def _of_cameras(core: CMMCorePlus, settings: Sequence[Setting]) -> Iterator[Setting]:
    """Yield what changes a picture's size or scale.

    The choice of a camera first, then what is set of cameras.
    """
    loaded = set(core.getLoadedDevices())
    yield from (s for s in settings if s[:2] == _CAMERA)
    for device, name, value in settings:
        if device in loaded and core.getDeviceType(device) in (
            DeviceType.Camera,
            DeviceType.Magnifier,
        ):
            yield device, name, value


def _set(core: CMMCorePlus, device: str, name: str, value: str) -> None:
    with _named(f"{device}-{name} = {value!r}"):
        if (device, name) == _CAMERA:
            if value != core.getCameraDevice():
                core.setCameraDevice(value)
        elif not _same(str(core.getProperty(device, name)), value):
            core.setProperty(device, name, value)
            core.waitForDevice(device)


@contextmanager
def _named(setting: str) -> Iterator[None]:
    """Say what a device refuses, and why.

    Adapters raise RuntimeError by way of the core; a device that is written in Python, anything.
    """
    try:
        yield
    except Exception as e:
        raise ConfigError(
            f"{setting} was refused by its device: {e}. Correct the preset in the system"
            " configuration, or the channel in the rig."
        ) from e


@contextmanager
def _set_back(core: CMMCorePlus, settings: Sequence[Setting]) -> Iterator[None]:
    """Leave cameras as they were: which one is used, their properties, their regions."""
    camera = str(core.getCameraDevice())
    touched = [s for s in _of_cameras(core, settings) if s[:2] != _CAMERA]
    before = {(d, p): str(core.getProperty(d, p)) for d, p, _ in touched}
    named = [camera, *(v for d, p, v in settings if (d, p) == _CAMERA), *(d for d, _, _ in touched)]
    cameras = set(core.getLoadedDevicesOfType(DeviceType.Camera))
    regions = {
        label: tuple(core.getROI(label)) for label in dict.fromkeys(named) if label in cameras
    }
    try:
        yield
    finally:
        for (device, name), value in before.items():
            _set(core, device, name, value)
        for label, region in regions.items():
            if tuple(core.getROI(label)) != region:
                core.setROI(label, *region)
        _set(core, *_CAMERA, camera)


def _read(core: CMMCorePlus, rig: RigConfig, channel: str, settings: Sequence[Setting]) -> _Taken:
    """Read the camera as it is set now.

    `settings` say what else will be, of objectives for instance.
    """
    if not (camera := str(core.getCameraDevice())):
        raise ConfigError(
            "The core has no camera: load a system configuration, or set the core's Camera"
            " property."
        )
    if (cameras := core.getNumberOfCameraChannels()) > 1:
        raise ConfigError(
            f"The camera delivers {cameras} images at once; livesr takes one. Select a single"
            " camera."
        )
    if (components := core.getNumberOfComponents()) != 1:
        raise ConfigError(
            f"The camera delivers {components} colour components a pixel; set a monochrome"
            " PixelType."
        )
    if (width_bytes := core.getBytesPerPixel()) not in (1, 2):
        raise ConfigError(
            f"The camera delivers {8 * width_bytes} bit pixels; livesr takes 8 and 16 bit. Set"
            " PixelType."
        )
    x0, y0, width, height = core.getROI()
    binning, n = binning_of(core, camera)
    pixel_size_um, note = _pixel_size_um(core, rig, channel, settings, n)
    _refuse_binning(rig, binning, pixel_size_um)
    calibrated = [s for way, section in modalities_of(rig) for s in way.calibrated_with(section)]
    mirrored = mirrored_since(core, calibrated, rig.name, settings, camera)
    if rig.corrections.per_pixel and any(mirrored):
        raise ConfigError(
            f"The picture is mirrored since rig {rig.name!r} was calibrated, and its corrections"
            " are maps of the chip: set the camera's mirrors back, or use a rig.yaml without maps."
        )
    # The centre of the first binned pixel lies between the pixels of the chip.
    half = (n - 1) / (2 * n)
    geometry = Geometry(
        (height, width),
        "uint8" if width_bytes == 1 else "uint16",
        pixel_size_um,
        (y0 + half, x0 + half),
        mirrored,
        _bit_depth(core, width_bytes),
        camera,
        str(core.getDeviceLibrary(camera)) == "DemoCamera",
    )
    return _Taken(geometry, note)


def binning_of(core: CMMCorePlus, camera: str) -> tuple[str, int]:
    """Return a camera's binning as it says it ("2x2"), and how many pixels that is along a side."""
    said = str(core.getProperty(camera, "Binning")) if core.hasProperty(camera, "Binning") else "1"
    return said, int(said.partition("x")[0])


def _bit_depth(core: CMMCorePlus, width_bytes: int) -> int:
    """Return how many bits of a pixel the camera fills.

    Adapters that do not know say 0, or more than there are.
    """
    said = int(core.getImageBitDepth())
    return said if 8 <= said <= 8 * width_bytes else 8 * width_bytes


def _refuse_binning(rig: RigConfig, binning: str, pixel_size_um: float) -> None:
    if binning in ("1", "1x1"):
        return
    for way, _ in modalities_of(rig):
        if way.needs_sampling and 1e3 * pixel_size_um > (largest := _largest_nm(rig, way)):
            raise ConfigError(
                f"Binning is {binning}: pixels of {1e3 * pixel_size_um:.0f} nm remove the"
                f" resolution that {way.title} needs ({largest:.0f} nm or less). Set Binning to 1."
            )
    if rig.corrections.per_pixel:
        raise ConfigError(
            f"Binning is {binning}: the corrections of rig {rig.name!r} are for single pixels of"
            " the chip. Set Binning to 1, or use a rig.yaml without them."
        )


def _largest_nm(rig: RigConfig, way: Modality[Any]) -> float:
    """Largest pixel that samples all that the objective passes, in the channel of the shortest
    emission that `way` reconstructs.
    """
    emissions = map(rig.emission_nm, rig.channels_of(way.name))
    return way.largest_pixel_nm(rig.optics.na, min(emissions, default=rig.optics.emission_nm))


# -- pixel size ------------------------------------------------------------------------------------


def _pixel_size_um(
    core: CMMCorePlus, rig: RigConfig, channel: str, settings: Sequence[Setting], binning: int
) -> tuple[float, str]:
    """Return the binned pixel in the sample, and what is to be said of where it comes from."""
    own_um = _micromanager_um(core, settings)
    asked_nm, note = _asked_nm(core, rig, channel, own_um)
    size_um = asked_nm / 1e3 if asked_nm else own_um
    if not size_um > 0:
        raise ConfigError(
            "The pixel size is unknown: set optics.pixel_size_nm in rig.yaml, or a pixel size in"
            " Micro-Manager."
        )
    return binning * size_um, note


def _asked_nm(
    core: CMMCorePlus, rig: RigConfig, channel: str, own_um: float
) -> tuple[float | None, str]:
    """Return rig.yaml's pixel size for a channel; None where Micro-Manager's `own_um` holds.

    One number for all channels holds for those to which Micro-Manager gives the same, where it
    tells channels apart.
    """
    one_nm = rig.optics.pixel_size_nm
    if channel in rig.channels and (said := rig.channels[channel].pixel_size_nm):
        return said, ""
    if one_nm is None or not own_um > 0:
        return one_nm, ""
    known = {
        name: 1e3 * _micromanager_um(core, channel_settings(core, rig, name))
        for name in rig.channels
    }
    told = {
        name: nm for name, nm in known.items() if nm > 0 and not rig.channels[name].pixel_size_nm
    }
    if all(math.isclose(nm, 1e3 * own_um, rel_tol=_SAME) for nm in told.values()):
        return one_nm, ""
    if math.isclose(one_nm, 1e3 * own_um, rel_tol=_SAME):
        return one_nm, ""
    if not any(math.isclose(nm, one_nm, rel_tol=_SAME) for nm in told.values()):
        listed = ", ".join(f"{nm:g} nm for {name}" for name, nm in told.items())
        raise ConfigError(
            f"rig.yaml says {one_nm:g} nm for every channel, Micro-Manager {listed}: set"
            f" channels.{channel}.pixel_size_nm, or leave optics.pixel_size_nm out to take"
            " Micro-Manager's."
        )
    return (
        None,
        (
            f"Channel {channel}: pixels of {1e3 * own_um:g} nm, as Micro-Manager says, not"
            f" rig.yaml's {one_nm:g} nm, which are those of another channel. Set"
            f" channels.{channel}.pixel_size_nm to say otherwise."
        ),
    )


def _micromanager_um(core: CMMCorePlus, settings: Sequence[Setting]) -> float:
    """Return Micro-Manager's size of an unbinned pixel in the sample once `settings` are made.

    0 where it knows none.
    """
    for name in core.getAvailablePixelSizeConfigs():
        if all(
            _same(value_now(core, str(d), str(p), settings), str(v))
            for d, p, v in core.getPixelSizeConfigData(name)
        ):
            return float(core.getPixelSizeUmByID(name)) / float(
                core.getMagnificationFactor() or 1.0
            )
    return 0.0


def _same(one: str, other: str) -> bool:
    """Whether two values of a property are the same; devices spell numbers in their own way."""
    try:
        return one == other or float(one) == float(other)
    except ValueError:
        return False


# -- what cannot be --------------------------------------------------------------------------------


def _refuse_what_changes(first: Mapping[str, _Taken], again: Mapping[str, _Taken]) -> None:
    """Refuse presets that leave a camera otherwise than another channel found it."""
    for name, before in first.items():
        if (after := again[name]).geometry != before.geometry:
            raise ConfigError(
                f"Channel {name!r} is taken with {before.geometry.words()} at first, and with"
                f" {after.geometry.words()} after the other channels"
                f" ({', '.join(n for n in first if n != name)}): their presets change what its own"
                " does not set. Let every preset set the camera (Core, Camera), its binning and"
                " its pixel type, or none of them."
            )


def _refuse_maps_of_another_chip(
    core: CMMCorePlus, rig: RigConfig, settings: Mapping[str, Sequence[Setting]]
) -> None:
    cameras = {name: camera_of(core, each) for name, each in settings.items()}
    if len(set(cameras.values())) > 1 and (maps := rig.corrections.of_every_channel()):
        raise ConfigError(
            f"Channels are taken by different cameras ({_listed(cameras)}), and"
            f" corrections.{maps[0]} is a map of one chip: use a rig.yaml for each camera, or leave"
            " the maps out."
        )


def _listed(cameras: Mapping[str, str]) -> str:
    return ", ".join(f"{name} by {camera}" for name, camera in cameras.items())
