"""A virtual STORM rig: the camera that `hardware_configs/virtual_storm` names.

Owns the name; bank, playback and truth are `livesr.simulation.blinking_rig`'s.
"""

from __future__ import annotations

from pymmcore_plus import CMMCorePlus

from livesr.simulation.blinking_rig import VirtualBlinkingCamera
from livesr.simulation.camera import find_virtual_camera


class VirtualSTORMCamera(VirtualBlinkingCamera):
    """Plays frames of fluorophores few of which are lit at a time, one per exposure."""


def find_storm_camera(core: CMMCorePlus) -> VirtualSTORMCamera | None:
    """Return the virtual camera that `core` uses, to ask it for the truth.

    None if it uses another one.
    """
    return find_virtual_camera(core, VirtualSTORMCamera)
