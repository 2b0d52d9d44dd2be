"""The density of lit emitters, held by the virtual rig's activation laser."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from livesr import LiveSR
from livesr.base.config import RigConfig, load_rig
from livesr.base.errors import ConfigError
from livesr.base.frames import Normalisation, SRFrame, Stream
from livesr.live.sources.plan import sim_sequence
from livesr.modalities.storm.activation import Activation
from livesr.modalities.storm.config import ActivationConfig, STORMConfig
from livesr.modalities.storm.simulation.rig import find_storm_camera
from recorded_runs import lines
from rigs import core_of

SIZE, N, GOAL = 64, 20, 0.3


def rig(**how: Any) -> RigConfig:
    whole = load_rig("virtual_storm")
    section = STORMConfig.of(whole)
    asked = {"device": "Activation", "property": "Power", "density_per_um2": GOAL, "high": 50}
    config = ActivationConfig.model_validate({**asked, **how})
    return whole.with_section(section.model_copy(update={"frames": N, "activation": config}))


@pytest.fixture
def core():
    with core_of(
        "virtual_storm", 1.0, SensorSize=SIZE, Frames=1, Fluorophores=4000, Lit=20
    ) as core:
        yield core


def held(core, groups: int, store: Path | None = None, **how: Any) -> dict[str, Any]:
    plan = sim_sequence(groups, ["647"], raw=N)
    with LiveSR(core, rig=rig(**how), store=store, plan=plan, policy="complete") as sr:
        core.mda.run(plan)
        sr.wait()
    return sr.report


@pytest.mark.parametrize("start_mw", [0.3, 45.0])
def test_density_comes_to_its_goal_from_both_sides(core, tmp_path, start_mw) -> None:
    core.setProperty("Activation", "Power", start_mw)
    store = tmp_path / "run.ome.zarr"
    report = held(core, 60, store)  # a busy computer decides of a few only
    said = report["sinks"]["activation"]
    assert said["controlled"], report["warnings"]
    course = np.array(said["course"])
    first, last = course[0, 1], course[-3:, 1].mean()
    assert abs(np.log(first / GOAL)) > 0.5
    assert last == pytest.approx(GOAL, rel=0.25)
    assert 0 <= course[:, 2].min() <= course[:, 2].max() <= 50
    density = {t: line["emitters_per_um2"] for (_, t), line in lines(store, "recon").items()}
    assert all(density[t] == d for t, d, _ in said["course"])
    assert float(core.getProperty("Activation", "Power")) == 0  # where it is safe
    assert len(find_storm_camera(core).lit) > 0


def test_limits_hold_and_are_said(core) -> None:
    core.setProperty("Activation", "Power", 4)
    report = held(core, 16, density_per_um2=5.0, low=1, high=2, after=1.5)
    assert {power for *_, power in report["sinks"]["activation"]["course"]} == {2}
    assert any("is at its highest, 2" in warning for warning in report["warnings"])
    assert float(core.getProperty("Activation", "Power")) == 1.5


def test_without_the_section_nothing_is_set(core) -> None:
    core.setProperty("Activation", "Power", 7)
    plan = sim_sequence(2, ["647"], raw=N)
    whole = rig()
    off = whole.with_section(STORMConfig.of(whole).model_copy(update={"activation": None}))
    with LiveSR(core, rig=off, plan=plan) as sr:
        core.mda.run(plan)
    assert "sinks" not in sr.report
    assert float(core.getProperty("Activation", "Power")) == 7


def test_a_device_that_fails_ends_control_and_not_the_run(core, tmp_path) -> None:
    # 3 mW is within the section's range; what comes after exceeds what the device takes.
    core.setProperty("Activation", "Power", 90)
    store = tmp_path / "run.ome.zarr"
    report = held(core, 8, store, density_per_um2=9.0, high=1000)
    assert report["error"] is None
    assert report["recon_frames"] == 8
    assert not report["sinks"]["activation"]["controlled"]
    assert any(
        "could not be controlled" in w and "the run goes on" in w for w in report["warnings"]
    )
    assert float(core.getProperty("Activation", "Power")) == 0


@pytest.mark.parametrize(
    ("how", "says"),
    [
        ({"device": "Laser405"}, "names device 'Laser405'"),
        ({"property": "Watt"}, "which has .*Power"),
    ],
)
def test_what_is_not_there_is_said_before_the_run(core, how, says) -> None:
    plan = sim_sequence(1, ["647"], raw=N)
    with pytest.raises(ConfigError, match=says), LiveSR(core, rig=rig(**how), plan=plan):
        pass


@pytest.mark.parametrize(
    ("how", "says"), [({"low": 60}, "expected above low"), ({"after": 51}, "within 0 to 50")]
)
def test_a_range_is_a_range(how, says) -> None:
    with pytest.raises(ValueError, match=says):
        rig(**how)


def test_groups_exposed_before_a_change_do_not_count(core) -> None:
    control = Activation(core, rig().section_of("storm").activation, frozenset({"647"}))
    core.setProperty("Activation", "Power", 10)
    control.open(None)  # type: ignore[arg-type]  # what it consists of does not matter here
    old = SRFrame(
        np.zeros((2, 2), np.float32),
        Stream(0, "647"),
        t=0,
        t_acq_ns=5,
        t_last_ns=6,
        normalisation=Normalisation(0, 1),
        emitters_per_um2=0.01,
    )
    control.recon(old)
    assert float(core.getProperty("Activation", "Power")) == 10
    control.close({})
