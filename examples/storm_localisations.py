"""STORM without a microscope.

Blinking fluorophores are localised live, and every group's positions are handed to a script.

The virtual camera knows the truth, so the last lines say how much of it was found.
"""

import sys

import numpy as np
from pymmcore_plus.experimental.unicore import UniMMCore

from livesr import LiveSR, SRFrame, find_storm_camera, load_rig, score_localisations, sim_sequence

STORE = sys.argv[1] if len(sys.argv) > 1 else "storm.ome.zarr"
GROUPS = int(sys.argv[2]) if len(sys.argv) > 2 else 5
RIG = sys.argv[3] if len(sys.argv) > 3 else "virtual_storm"

rig = load_rig(RIG)
core = UniMMCore()
core.loadSystemConfiguration(rig.cfg_path)
found = []


def watch(frame: SRFrame) -> None:
    """Show what a group added.

    `frame.image` is the running image, in hundredths of a localisation.
    """
    new = frame.localisations
    found.append(new)
    print(
        f"group {frame.t}: {len(new)} localisations, {np.median(new['uncertainty_nm']):.0f} nm"
        " uncertain"
    )


plan = sim_sequence(GROUPS, channels=["647"], raw=rig.raw_frames("647"))
with LiveSR(core, rig=rig, plan=plan, store=STORE, policy="complete") as sr:
    sr.input_ready.connect(watch)
    core.mda.run(plan)

camera = find_storm_camera(core)
true = np.concatenate(
    [np.insert(camera.bank.truth(k), 0, i, axis=1) for i, k in enumerate(camera.shown)]
)
true = true[true[:, 3] > 100]  # photons: what gives less in a frame need not be found
corner_nm = rig.optics.pixel_size_nm / 2
every = np.concatenate(found)
score = score_localisations(
    every["frame"],
    np.stack([every["y_nm"], every["x_nm"]], axis=1),
    true[:, 0].astype(int),
    true[:, 1:3] * 1e3 + corner_nm,
)
print(
    f"{score.recall:.0%} of the emitters found, {score.rmse_nm:.0f} nm off (rms);"
    f" {score.precision:.0%} of it is true"
)
print(f"{sr.store}/localisations.csv opens in ThunderSTORM")
