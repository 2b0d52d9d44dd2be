"""Live mode: the camera runs as after a click on a GUI's live button, and every frame is separated
and stored.

The number that the core gives each exposure says which raw frame of a group it is, so a lost one
shifts nothing.
"""

import sys
import time

from pymmcore_plus.experimental.unicore import UniMMCore

from livesr import LiveSR, load_rig

store = sys.argv[1] if len(sys.argv) > 1 else "live-mode.ome.zarr"
seconds = float(sys.argv[2]) if len(sys.argv) > 2 else 5

rig = load_rig("virtual_sim")
core = UniMMCore()
core.loadSystemConfiguration(rig.cfg_path)
core.setExposure(12)

# "own": livesr takes all frames out of Micro-Manager's buffer. Where previews need them and one
# exposure is one frame: "peek".
with LiveSR(core, rig=rig, store=store, live="own") as sr:
    sr.frame_ready.connect(lambda frame: print(f"t{frame.t}: residual {frame.residual:.2f}"))
    core.startContinuousSequenceAcquisition()
    time.sleep(seconds)
    core.stopSequenceAcquisition()
    report = sr.wait()  # each stop is the end of a run; the next start writes the next store

raw = f"{report['raw_frames']} exposures, {report['raw_missing']} missing"
print(f"{raw}, {report['groups']} groups in {report['store']}")
