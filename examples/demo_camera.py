"""A plain useq plan with two channels and three planes on Micro-Manager's demo camera."""

import sys

import useq
from pymmcore_plus import CMMCorePlus

from livesr import LiveSR, load_rig

store = sys.argv[1] if len(sys.argv) > 1 else "demo-camera.ome.zarr"

rig = load_rig("demo")
core = CMMCorePlus()
core.loadSystemConfiguration(rig.cfg_path)
core.setExposure(5)

plan = useq.MDASequence(
    time_plan=useq.TIntervalLoops(interval=0, loops=4),
    channels=["488", "561"],
    z_plan=useq.ZRangeAround(range=2, step=1),
    axis_order="tcz",
)
with LiveSR(core, rig=rig, store=store, engine="none") as sr:
    sr.input_ready.connect(
        lambda frame: print(f"{frame.stream} t{frame.t}: mean {frame.image.mean():.0f} ADU")
    )
    core.mda.run(plan)

print(f"{sr.report['raw_frames']} frames in {sr.report['store']}")
