"""Arm, then trigger: the pattern display waits at its first pattern when the camera starts, and
never begins inside a group.

rig.yaml says which digital output lets the display run (`sim.trigger`), and `livesr run` needs
nothing more. In a script, the core gets the engine that drives it. Here the rig's shutter stands
for the output.
"""

import sys

from pymmcore_plus.experimental.unicore import UniMMCore

from livesr import LiveSR, TriggerConfig, TriggeredEngine, load_rig, sim_sequence

store = sys.argv[1] if len(sys.argv) > 1 else "triggered.ome.zarr"

rig = load_rig("virtual_sim")
trigger = TriggerConfig(device="Shutter", property="State", start="1", stop="0", when="before")
patterns = rig.section("488").model_copy(update={"trigger": trigger})
rig = rig.with_section(patterns)  # on your rig: in rig.yaml

core = UniMMCore()
core.loadSystemConfiguration(rig.cfg_path)
core.setExposure(12)
core.mda.set_engine(TriggeredEngine(core, rig))
core.events.devicePropertyChanged("Shutter", "State").connect(
    lambda value: print(f"patterns run: {value}")
)

plan = sim_sequence(4, channels=["488"], interval_s=0.3)
with LiveSR(core, rig=rig, store=store, plan=plan) as sr:
    core.mda.run(plan)
print(f"{sr.report['raw_frames']} exposures, {sr.report['groups']} groups in {sr.report['store']}")
