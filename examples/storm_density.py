"""STORM without a microscope, the density of lit emitters held by a laser of 405 nm.

`storm.activation` of rig.yaml does it; here it is set in Python. A line a group says how many
emitters were found and what the laser was at.
"""

import sys

from pymmcore_plus.experimental.unicore import UniMMCore

from livesr import LiveSR, SRFrame, load_rig, sim_sequence

STORE = sys.argv[1] if len(sys.argv) > 1 else "density.ome.zarr"
GROUPS = int(sys.argv[2]) if len(sys.argv) > 2 else 12
RIG = sys.argv[3] if len(sys.argv) > 3 else "virtual_storm"

rig = load_rig(RIG)
section = rig.section_of("storm").model_dump()
section["frames"] = 20  # a decision every 20 exposures
section["activation"] = {
    "device": "Activation",
    "property": "Power",
    "density_per_um2": 0.3,
    "low": 0,
    "high": 50,
}
rig = rig.with_section(type(rig.section_of("storm")).model_validate(section))
core = UniMMCore()
core.loadSystemConfiguration(rig.cfg_path)
core.setProperty("Activation", "Power", 1)


def watch(frame: SRFrame) -> None:
    """Show how many emitters there were; a script may react to this number as it likes."""
    print(f"group {frame.t}: {frame.emitters_per_um2:.2f} emitters per um^2")


plan = sim_sequence(GROUPS, channels=["647"], raw=20)
with LiveSR(core, rig=rig, plan=plan, store=STORE, policy="complete") as sr:
    sr.input_ready.connect(watch)
    core.mda.run(plan)

for t, density, power in sr.report["sinks"]["activation"]["course"]:
    print(f"after group {t}: {density:.2f} per um^2, so the laser is set to {power:.1f} mW")
print(f"the laser is left at {core.getProperty('Activation', 'Power')} mW")
