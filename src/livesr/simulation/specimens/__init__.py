"""Moving cells as fluorophore density, seen before any microscope.

`Cell` builds `STRUCTURES` on one pixel grid from one seed; `advance` moves them, `render` draws
what is in focus and `render_haze` the rest. Lengths in um, times in s, images float32 (y, x).
"""

from livesr.simulation.specimens.actin import Actin, ActinParameters
from livesr.simulation.specimens.cell import DEFAULT_STRUCTURES, STRUCTURES, Cell, simulated
from livesr.simulation.specimens.lysosomes import LysosomeParameters, Lysosomes
from livesr.simulation.specimens.microtubules import MicrotubuleParameters, Microtubules
from livesr.simulation.specimens.mitochondria import Mitochondria, MitochondriaParameters
from livesr.simulation.specimens.outline import CellOutline
from livesr.simulation.specimens.pits import CoatedPits, PitParameters
from livesr.simulation.specimens.reticulum import EndoplasmicReticulum, ReticulumParameters
from livesr.simulation.specimens.structure import Structure, StructureParameters

__all__ = [
    "DEFAULT_STRUCTURES",
    "STRUCTURES",
    "Actin",
    "ActinParameters",
    "Cell",
    "CellOutline",
    "CoatedPits",
    "EndoplasmicReticulum",
    "LysosomeParameters",
    "Lysosomes",
    "MicrotubuleParameters",
    "Microtubules",
    "Mitochondria",
    "MitochondriaParameters",
    "PitParameters",
    "ReticulumParameters",
    "Structure",
    "StructureParameters",
    "simulated",
]
