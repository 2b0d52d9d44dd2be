"""Simulate a stack of beads as a 3D STORM rig is calibrated with: 61 planes, 25 nm apart.

    python examples/bead_stack.py virtual_storm_3d beads.tif
    livesr calibrate virtual_storm_3d --beads beads.tif --z-step 25 --dry-run

On a microscope it is a z stack of 100 nm beads on a coverslip through focus, in steps of 20 to
50 nm, with the cylindrical lens in.
"""

import sys

import numpy as np
import tifffile

from livesr import load_rig
from livesr.optics.vectorial import VectorialSpread
from livesr.simulation.blinking_rig import camera_noise

rig = load_rig(sys.argv[1] if len(sys.argv) > 1 else "virtual_storm_3d")
target = sys.argv[2] if len(sys.argv) > 2 else "beads.tif"

PLANES, STEP_UM, SIDE, LIGHT, BACKGROUND = 61, 0.025, 192, 20_000.0, 20.0
ASTIGMATISM = 0.06  # wavelengths, root mean square; as in the rig's rig.cfg

rng = np.random.default_rng(0)
pixel_um = rig.optics.pixel_size_nm / 1e3
spread = VectorialSpread(
    pixel_um, rig.optics.na, rig.optics.emission_nm / 1e3, astigmatism=ASTIGMATISM
)
noise = camera_noise(rig.camera)
corners = np.stack(np.meshgrid(*2 * [np.arange(24, SIDE - 16, 36)], indexing="ij"), -1)
beads = corners.reshape(-1, 2) + rng.uniform(-4, 4, (corners.size // 2, 2))
tilt_um = rng.normal(0, 0.02, len(beads))  # a coverslip is never quite flat

stack = np.empty((PLANES, SIDE, SIDE), np.uint16)
for k, plane in enumerate(stack):
    light = np.full((SIDE, SIDE), BACKGROUND, np.float32)
    z_um = (k - (PLANES - 1) / 2) * STEP_UM + tilt_um
    spread.add(light, beads[:, 0], beads[:, 1], np.full(len(beads), LIGHT), z_um)
    noise.expose(light, rng, out=plane)
tifffile.imwrite(target, stack, metadata={"axes": "ZYX"})
print(f"{target}: {len(beads)} beads, {PLANES} planes, {STEP_UM * 1e3:g} nm apart")
