"""What of the microscope's state a SIM calibration holds for.

Which objective, and how the camera turns its picture.

Owns the reading from the core and the comparison. Region and binning are no part of it: patterns
are corrected for these, and for Micro-Manager's mirrors, which turn the picture of the region over
after it was read out. Another objective has other patterns, and what other flips and rotations do
differs from driver to driver: these are refused.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

from pymmcore_plus import CMMCorePlus, DeviceType

from livesr.base.errors import ConfigError

_OBJECTIVE = re.compile(r"objective|nose[ _-]?piece|turret", re.IGNORECASE)
_ORIENTATION = re.compile(r"^transpose|mirror|flip|rotat|reverse[ _-]?[xy]", re.IGNORECASE)

_MIRRORS = {"transposemirrory": 0, "transposemirrorx": 1}

Setting: TypeAlias = tuple[str, str, str]
"""(device, property, value)."""

State: TypeAlias = list[Setting]


@dataclass(frozen=True, slots=True)
class ChannelState:
    """What an event sets for a channel, beside the preset.

    Its group, a region (x, y, width, height), properties.
    """

    group: str | None = None
    roi: tuple[int, int, int, int] | None = None
    properties: tuple[Setting, ...] = ()


def optical_state(
    core: CMMCorePlus, settings: Sequence[Setting] = (), camera: str | None = None
) -> State:
    """Return (device, property, value) of objectives and of a camera's orientation.

    Parameters
    ----------
    settings : what a channel's preset sets, instead of what is set now
    camera : the channel's, instead of the core's
    """
    camera = camera or core.getCameraDevice()
    found = [
        (label, "Label", value_now(core, label, "Label", settings))
        for label in core.getLoadedDevicesOfType(DeviceType.State)
        if _OBJECTIVE.search(label) or _OBJECTIVE.search(core.getDeviceName(label))
    ]
    names = core.getDevicePropertyNames(camera) if camera else ()
    return found + [
        (camera, name, value_now(core, camera, name, settings))
        for name in names
        if _ORIENTATION.search(name)
    ]


def of_other_cameras(core: CMMCorePlus, calibrated: Sequence[Setting], camera: str) -> State:
    """Return what was written down of cameras that take other channels.

    It stays when this one is calibrated again.
    """
    return [entry for entry in calibrated if entry[0] != camera and _is_camera(core, entry[0])]


def value_now(core: CMMCorePlus, device: str, name: str, settings: Sequence[Setting]) -> str:
    """Return a property's value once `settings` are made, "" where the core does not have it.

    Moves nothing.
    """
    state = ""
    for label, prop, value in reversed(settings):
        if (label, prop) == (device, name):
            return value
        if label == device and prop == "State" and name == "Label":
            state = state or value
    if (device, name) == ("Core", "Camera"):
        return str(core.getCameraDevice())
    if state.isdigit() and int(state) < len(labels := core.getStateLabels(device)):
        return str(labels[int(state)])
    if device not in ("Core", *core.getLoadedDevices()) or not core.hasProperty(device, name):
        return ""
    return str(core.getProperty(device, name))


def mirrored_since(
    core: CMMCorePlus,
    calibrated: Sequence[Setting],
    rig: str,
    settings: Sequence[Setting] = (),
    camera: str | None = None,
) -> tuple[bool, bool]:
    """Compare the microscope with the state that it was calibrated in.

    Return whether the picture is mirrored (y, x) since.

    Parameters
    ----------
    settings : what a channel's preset sets, instead of what is set now
    camera : the channel's; what was written down of other cameras is not about its picture

    Raises
    ------
    ConfigError
        If an objective, or a flip that cannot be corrected, is another one.
    """
    mirrored = [False, False]
    for device, name, expected in calibrated:
        if camera and device != camera and _is_camera(core, device):
            continue
        if device not in core.getLoadedDevices() or not core.hasProperty(device, name):
            raise ConfigError(
                f"Rig {rig!r} was calibrated with {device} {name} = {expected!r}, which the"
                " microscope no longer has: calibrate again."
            )
        now = value_now(core, device, name, settings)
        if now != expected and (axis := _MIRRORS.get(name.lower().replace("_", ""))) is not None:
            mirrored[axis] = True
        elif now != expected:
            raise ConfigError(
                f"{device} {name} is {now!r}; the patterns of rig {rig!r} were calibrated with"
                f" {expected!r}. Set it back, or calibrate again."
            )
    return mirrored[0], mirrored[1]


def _is_camera(core: CMMCorePlus, device: str) -> bool:
    return device in core.getLoadedDevices() and core.getDeviceType(device) == DeviceType.Camera
