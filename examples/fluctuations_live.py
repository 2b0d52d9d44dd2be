"""Super-resolution from fluctuations, without a microscope.

Dim fluorophores that blink, too dense to be localised, become an eSRRF image that a script gets
live, while the window slides on.

The virtual camera knows the truth, so every line says how near the image is to the structure.
"""

import sys

import numpy as np
from pymmcore_plus.experimental.unicore import UniMMCore

from livesr import LiveSR, SRFrame, find_blinking_camera, load_rig, sim_sequence

STORE = sys.argv[1] if len(sys.argv) > 1 else "fluctuation.ome.zarr"
GROUPS = int(sys.argv[2]) if len(sys.argv) > 2 else 10
RIG = sys.argv[3] if len(sys.argv) > 3 else "virtual_fluctuation"

rig = load_rig(RIG)
core = UniMMCore()
core.loadSystemConfiguration(rig.cfg_path)
bank = find_blinking_camera(core).bank
images = []


def watch(frame: SRFrame) -> None:
    """Compare the image of the window so far, tenths of an ADU, with the fluorophores."""
    images.append(frame.image)
    scale = frame.image.shape[0] // bank.shape[1]
    edges = np.arange(frame.image.shape[0] + 1) / scale - 0.5
    places = bank.positions_um / bank.pixel_size_um
    true, _, _ = np.histogram2d(places[:, 0], places[:, 1], bins=(edges, edges))
    agreement = np.corrcoef(frame.image.ravel(), true.ravel())[0, 1]
    print(f"image {frame.t}: correlation with single fluorophores {agreement:.2f}")


plan = sim_sequence(GROUPS, channels=["647"], raw=rig.raw_frames("647"))
with LiveSR(core, rig=rig, plan=plan, store=STORE, policy="complete") as sr:
    sr.input_ready.connect(watch)
    core.mda.run(plan)

print(f"{len(images)} images in {sr.store}")
