"""Arm, then trigger: the camera waits armed before the pattern display starts its running order, so that no pattern is missed.

The virtual rig needs no trigger. On a real one replace `start_patterns` by the line that starts your display: a digital output
(NIDAQ, TriggerScope, Arduino) set to 1.
"""

import sys

from pymmcore_plus.experimental.unicore import UniMMCore
from pymmcore_plus.mda import MDAEngine
from useq import MDAEvent

from livesr import LiveSR
from livesr.base.config import load_rig
from livesr.live.sources.plan import sim_sequence

store = sys.argv[1] if len(sys.argv) > 1 else "triggered.ome.zarr"


class ArmThenTrigger(MDAEngine):
    """Starts the patterns when the camera is armed, and stops them when its exposures are over."""

    def post_sequence_started(self, event: MDAEvent) -> None:
        """Called by pymmcore-plus after `startSequenceAcquisition` has returned, before the first frame is read."""
        print(f"armed for {len(event.events)} exposures: patterns on")
        start_patterns(self.mmcore, on=True)

    def teardown_event(self, event: MDAEvent) -> None:
        """Called after the last frame of the event."""
        start_patterns(self.mmcore, on=False)
        super().teardown_event(event)


def start_patterns(core: UniMMCore, *, on: bool) -> None:
    """Gate the pattern display; here the shutter stands for the digital output."""
    core.setShutterOpen(on)


rig = load_rig("virtual_sim")
core = UniMMCore()
core.loadSystemConfiguration(rig.cfg_path)
core.setExposure(12)
core.mda.set_engine(ArmThenTrigger(core))

plan = sim_sequence(4, channels=["488"], interval_s=0.3)
with LiveSR(core, rig=rig, store=store, plan=plan) as sr:
    core.mda.run(plan)
print(f"{sr.report['raw_frames']} exposures, {sr.report['groups']} groups in {sr.report['store']}")
