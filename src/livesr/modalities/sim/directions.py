"""Whether the raw frames of a rig with one angle show that direction alone.

Owns when they are looked at, and the doubt. Frames of hexagonal or lattice SIM, which show many
directions at once, can be described as one angle; its pattern is then seen clearly, and all that
the others do to the picture passes for structure.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import numpy as np

from livesr.base.errors import CalibrationError
from livesr.live.arrays import Arrays
from livesr.modalities.sim.parameters import SIMParameters
from livesr.optics.illumination import Pattern
from livesr.optics.raw_quality import Doubt

log = logging.getLogger(__name__)

SEVERAL = (
    "raw frames show several directions at once; hexagonal and lattice SIM need waves: lattice in"
    " the section sim, all others one direction in each frame"
)


class OneDirection:
    """Looks at the first group with light, and judges all by it; of one thread.

    Parameters
    ----------
    parameters : as the frames are reconstructed
    pattern : the only one
    """

    def __init__(self, parameters: SIMParameters, pattern: Pattern) -> None:
        self._parameters, self._pattern = parameters, pattern
        self._doubt: Doubt | None = None

    def doubt(self, frames: Sequence[Any] | Any, arrays: Arrays) -> Doubt:
        """Return what is doubtful about every frame of the run, an empty doubt if nothing is."""
        if self._doubt is None:
            seen = np.stack([arrays.on_host(frames[i]) for i in range(len(frames))])
            try:
                self._doubt = self._look(seen)
            except CalibrationError as e:  # no light yet
                log.debug("directions cannot be told: %s", e)
        return self._doubt or Doubt()

    def _look(self, frames: Any) -> Doubt:
        from livesr.modalities.sim.calibration.groups import Optics
        from livesr.modalities.sim.calibration.reasons import other_directions

        given = self._parameters
        optics = Optics(given.pixel_size_um, given.na, given.emission_um, given.damping)
        direction_deg = float(np.degrees(np.arctan2(*self._pattern.k_um)))
        said = other_directions(direction_deg, frames[None], optics, given.offset_adu)
        return Doubt(f"the raw frames show {said}", SEVERAL) if said else Doubt()
