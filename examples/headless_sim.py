"""A SIM time lapse on the virtual rig: separated live, stored, reported.

On your microscope, load its .cfg into a `CMMCorePlus` and give its folder in hardware_configs as
`rig`.
"""

import sys

from pymmcore_plus.experimental.unicore import UniMMCore

from livesr import LiveSR, load_rig, sim_sequence

store = sys.argv[1] if len(sys.argv) > 1 else "headless.ome.zarr"
frames = int(sys.argv[2]) if len(sys.argv) > 2 else 20

rig = load_rig("virtual_sim")
core = UniMMCore()
core.loadSystemConfiguration(rig.cfg_path)
core.setExposure(12)

plan = sim_sequence(frames, channels=["488"])
with LiveSR(core, rig=rig, store=store, plan=plan) as sr:
    core.mda.run(plan)

report = sr.report
print(
    f"{report['sr_frames']} frames separated, {report['sr_skipped']} skipped, {report['raw_lost']}"
    " raw frames lost"
)
print(f"residual, times and every frame's fate: {report['store']}/livesr/frames.jsonl")
