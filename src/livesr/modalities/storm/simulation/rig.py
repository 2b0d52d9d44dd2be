"""A virtual STORM rig: camera and activation laser that `hardware_configs/virtual_storm` names.

Owns what the laser does; bank, playback and its truth are `livesr.simulation.blinking_rig`'s.
"""

from __future__ import annotations

from collections.abc import Mapping
from weakref import WeakValueDictionary

import numpy as np
from numpy.typing import NDArray
from pymmcore_plus import CMMCorePlus
from pymmcore_plus.experimental.unicore import GenericDevice, pymm_property

from livesr.modalities.storm.simulation.activated import ActivatedFluorophores
from livesr.simulation.blinking_rig import VirtualBlinkingCamera
from livesr.simulation.camera import find_virtual_camera

_REFERENCE_MW = 5.0
_LASERS: WeakValueDictionary[str, VirtualActivationLaser] = WeakValueDictionary()


class VirtualActivationLaser(GenericDevice):
    """A laser of 405 nm, which switches fluorophores on.

    Properties: Name before initialisation, by which a camera knows it (of two the newest); Power in
    mW: at 5, as many are lit as the camera's `Lit` says, at 0 a fiftieth of them.
    """

    def __init__(self) -> None:
        super().__init__()
        self._power_mw = _REFERENCE_MW
        self.register_property("Name", default_value="405", is_pre_init=True)

    def initialize(self) -> None:
        """Be found by a camera."""
        _LASERS[str(self.get_property_value("Name"))] = self

    @pymm_property(name="Power", limits=(0.0, 100.0), property_type=float)
    def power(self) -> float:
        """Power in mW."""
        return self._power_mw

    @power.setter
    def _set_power(self, value: float) -> None:
        self._power_mw = float(value)


class VirtualSTORMCamera(VirtualBlinkingCamera):
    """Plays frames of fluorophores few of which are lit at a time, one per exposure.

    Property before initialisation, beside those of `VirtualBlinkingCamera`: ActivatedBy, the `Name`
    of the laser that switches fluorophores on, "" for none. Once its power is another than 5 mW,
    each frame is computed when it is exposed, as long as the camera lives or until `Frame` is
    written; at 256 pixels that takes about as long as an exposure of 10 ms.

    Attributes
    ----------
    lit : how many were lit in each frame that was computed
    """

    def __init__(self) -> None:
        super().__init__()
        self._activated: ActivatedFluorophores | None = None
        self.lit: list[int] = []
        self.register_property("ActivatedBy", default_value="", is_pre_init=True)

    def prepare(self, n: int | None) -> None:
        """Compute the frames of the next `n` exposures, unless the laser makes them."""
        if self._activating() is None:
            super().prepare(n)

    def next_frame(self, i: int) -> tuple[NDArray[np.uint16], Mapping[str, str]]:
        """Return the next frame of the bank, or what the laser makes of the fluorophores."""
        laser = self._activating()
        if laser is None:
            return super().next_frame(i)
        if self._activated is None:
            self._activated = ActivatedFluorophores(self.bank)
        frame, lit = self._activated.expose(laser.power / _REFERENCE_MW)
        self.lit.append(lit)
        return frame, {"Blinking-Lit": str(lit)}

    def _activating(self) -> VirtualActivationLaser | None:
        """Return the laser whose power decides what is lit; None where the bank is played."""
        laser = _LASERS.get(str(self.get_property_value("ActivatedBy")))
        if self.all_lit or laser is None:
            return None
        return None if laser.power == _REFERENCE_MW and self._activated is None else laser


def find_storm_camera(core: CMMCorePlus) -> VirtualSTORMCamera | None:
    """Return the virtual camera that `core` uses, to ask it for the truth.

    None if it uses another one.
    """
    return find_virtual_camera(core, VirtualSTORMCamera)
