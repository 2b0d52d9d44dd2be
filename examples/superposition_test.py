"""How near an engine comes to the structures of a sample that was stained once for each.

Three true channels are taken one after the other, their sum is separated live and compared with
them; the channels are kept as `livesr train` reads them. On your microscope, name its channels in
the order of the engine's structures.
"""

import sys

from pymmcore_plus.experimental.unicore import UniMMCore

from livesr import LiveSR, load_rig, sim_sequence

store = sys.argv[1] if len(sys.argv) > 1 else "quality_limits.ome.zarr"
frames = int(sys.argv[2]) if len(sys.argv) > 2 else 10

rig = load_rig(
    "virtual_dyes"
)  # its superpose: is 488, 561, 640; rig.superposing([...]) does the same for another rig
core = UniMMCore()
core.loadSystemConfiguration(rig.cfg_path)

plan = sim_sequence(frames, channels=rig.superpose.channels)
with LiveSR(core, rig=rig, store=store, pairs="pairs", plan=plan) as sr:
    core.mda.run(plan)

print(f"channels up to {sr.report['time_shift_ms']:.0f} ms apart")
for structure, score in sr.report["score"].items():
    print(
        f"{structure}: PCC {score['pcc']:.3f} with its true channel, the sum itself"
        f" {score['input_pcc']:.3f}"
    )
print(
    f"measured, summed and predicted: {sr.report['store']}; to train on: livesr train --recipe"
    " pairs/recipe.yaml"
)
