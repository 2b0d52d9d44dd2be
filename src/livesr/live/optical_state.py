"""What of the microscope's state a SIM calibration holds for: which objective, and how the camera turns its picture.

Owns the reading from the core and the comparison. Region and binning are no part of it: patterns are corrected for these, and
for Micro-Manager's mirrors, which turn the picture of the region over after it was read out. Another objective has other
patterns, and what other flips and rotations do differs from driver to driver: these are refused.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from pymmcore_plus import CMMCorePlus, DeviceType

from livesr.base.errors import ConfigError

_OBJECTIVE = re.compile(r"objective|nose[ _-]?piece|turret", re.IGNORECASE)
_ORIENTATION = re.compile(r"^transpose|mirror|flip|rotat|reverse[ _-]?[xy]", re.IGNORECASE)

_MIRRORS = {"transposemirrory": 0, "transposemirrorx": 1}

State = list[tuple[str, str, str]]


def optical_state(core: CMMCorePlus) -> State:
    """Return (device, property, value) of objectives and of the camera's orientation."""
    camera = core.getCameraDevice()
    found = [
        (label, "Label", core.getStateLabel(label))
        for label in core.getLoadedDevicesOfType(DeviceType.State)
        if _OBJECTIVE.search(label) or _OBJECTIVE.search(core.getDeviceName(label))
    ]
    names = core.getDevicePropertyNames(camera) if camera else ()
    return found + [(camera, name, str(core.getProperty(camera, name))) for name in names if _ORIENTATION.search(name)]


def mirrored_since(core: CMMCorePlus, calibrated: Sequence[tuple[str, str, str]], rig: str) -> tuple[bool, bool]:
    """Compare the microscope with the state that it was calibrated in; return whether the picture is mirrored (y, x) since.

    Raises
    ------
    ConfigError
        If an objective, or a flip that cannot be corrected, is another one.
    """
    mirrored = [False, False]
    for device, name, expected in calibrated:
        if device not in core.getLoadedDevices() or not core.hasProperty(device, name):
            raise ConfigError(
                f"Rig {rig!r} was calibrated with {device} {name} = {expected!r}, which the microscope no longer has: "
                "calibrate again."
            )
        now = str(core.getProperty(device, name))
        if now != expected and (axis := _MIRRORS.get(name.lower().replace("_", ""))) is not None:
            mirrored[axis] = True
        elif now != expected:
            raise ConfigError(
                f"{device} {name} is {now!r}; the patterns of rig {rig!r} were calibrated with {expected!r}. Set it back, or "
                "calibrate again."
            )
    return mirrored[0], mirrored[1]
