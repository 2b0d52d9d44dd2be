"""Simulate a stack of beads as a 3D STORM rig is calibrated with: 61 planes, 25 nm apart.

    python scripts/bead_stack.py virtual_storm_3d beads.tif
    livesr calibrate virtual_storm_3d --beads beads.tif --z-step 25 --dry-run

On a microscope it is a z stack of 100 nm beads on a coverslip through focus, in steps of 20 to
50 nm, with the cylindrical lens in.
"""

import sys

import tifffile

from livesr import load_rig
from livesr.modalities.storm.simulation.beads import bead_stack
from livesr.optics.vectorial import VectorialSpread
from livesr.simulation.blinking_rig import camera_noise

rig = load_rig(sys.argv[1] if len(sys.argv) > 1 else "virtual_storm_3d")
target = sys.argv[2] if len(sys.argv) > 2 else "beads.tif"

optics = rig.optics.pixel_size_nm / 1e3, rig.optics.na, rig.optics.emission_nm / 1e3
spread = VectorialSpread(*optics, astigmatism=0.06)  # as in the rig's rig.cfg
stack = bead_stack(spread, camera_noise(rig.camera))
tifffile.imwrite(target, stack, metadata={"axes": "ZYX"})
print(f"{target}: {len(stack)} planes of {stack.shape[2]} x {stack.shape[1]} pixels")
