"""Smart microscopy: stop the acquisition once enough of the light is in lysosomes for long enough.

`frame_ready` is emitted in a thread of its own: a slow reaction delays no frame and loses none of
the raw data.
"""

import sys

from pymmcore_plus.experimental.unicore import UniMMCore

from livesr import LiveSR, MulticolorFrame, load_rig, sim_sequence

SHARE = float(sys.argv[1]) if len(sys.argv) > 1 else 0.15
FRAMES = 3

rig = load_rig("virtual_sim")
core = UniMMCore()
core.loadSystemConfiguration(rig.cfg_path)
core.setExposure(12)
in_a_row = 0


def watch(frame: MulticolorFrame) -> None:
    """Count frames whose lysosomes are bright.

    A prediction with a large residual does not count.
    """
    global in_a_row
    microtubules, er, lysosomes = (float(channel.sum(dtype=float)) for channel in frame.channels)
    share = lysosomes / max(microtubules + er + lysosomes, 1.0)
    in_a_row = in_a_row + 1 if share > SHARE and frame.residual < 0.5 else 0
    print(f"t{frame.t}: {share:.0%} of the light in lysosomes, residual {frame.residual:.2f}")
    if in_a_row == FRAMES:
        core.mda.cancel()


plan = sim_sequence(60, channels=["488"], interval_s=0.2)
with LiveSR(core, rig=rig, plan=plan) as sr:
    sr.frame_ready.connect(watch)
    core.mda.run(plan)

print(f"ended after {sr.report['groups']} super-resolution frames")
