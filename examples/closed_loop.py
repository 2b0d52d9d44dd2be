"""Closed loop: the interval of a time lapse follows what the separated frames show.

Lysosomes at rest: one SIM frame a second, which saves light. Lysosomes that move: as fast as the
camera goes. pymmcore-plus asks for the next exposure while it acquires, so the plan can be a
generator that decides as late as possible.
"""

import sys
from collections.abc import Iterator

import numpy as np
from pymmcore_plus.experimental.unicore import UniMMCore
from useq import MDAEvent

from livesr import RAW_AXIS, LiveSR, MulticolorFrame, load_rig

FRAMES = int(sys.argv[1]) if len(sys.argv) > 1 else 30
MOVING = (
    float(sys.argv[2]) if len(sys.argv) > 2 else 0.9
)  # correlation below which lysosomes have moved
SLOW_S, FAST_S = 1.0, 0.0
BLOCK = 8

rig = load_rig("virtual_sim")
core = UniMMCore()
core.loadSystemConfiguration(rig.cfg_path)
core.setExposure(12)
interval_s = SLOW_S
before: np.ndarray | None = None


def watch(frame: MulticolorFrame) -> None:
    """Compare with the frame before; runs in a thread of its own."""
    global before, interval_s
    plane = frame["Lysosomes"].astype(np.float32)
    now = plane.reshape(plane.shape[0] // BLOCK, BLOCK, -1, BLOCK).mean(
        (1, 3)
    )  # what moves by less than a block rests
    if before is not None:
        likeness = np.corrcoef(now.ravel(), before.ravel())[0, 1]
        interval_s = FAST_S if likeness < MOVING else SLOW_S
        print(f"t{frame.t}: lysosomes {likeness:.2f} like before, next in {interval_s:.0f} s")
    before = now


def exposures() -> Iterator[MDAEvent]:
    """Yield the raw frames of one SIM frame after the other."""
    start_s = 0.0
    for t in range(FRAMES):
        for raw in range(rig.max_raw_frames):
            yield MDAEvent(index={"t": t, RAW_AXIS: raw}, channel="488", min_start_time=start_s)
        start_s = max(start_s + interval_s, core.mda.seconds_elapsed())


with LiveSR(core, rig=rig) as sr:
    sr.frame_ready.connect(watch)
    core.mda.run(exposures())

print(f"{sr.report['groups']} super-resolution frames, {sr.report['groups_incomplete']} incomplete")
