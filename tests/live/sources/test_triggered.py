"""The pattern display runs for whole groups only, and is at its first pattern when each begins."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pymmcore_plus.mda import MDAEngine

from gated_display import GatedSIMCamera, gated_core, gated_rig
from livesr import LiveSR
from livesr.base.config import TriggerConfig, load_rig, parse
from livesr.base.errors import ConfigError, RunError
from livesr.base.run_config import RunConfig
from livesr.cli.experiment import Experiment
from livesr.cli.output import console
from livesr.cli.session import Request, acquire
from livesr.live.sources.plan import sim_sequence
from livesr.live.sources.triggered import TriggeredEngine
from livesr.modalities.sim.config import SIMConfig

N = 9


@pytest.fixture(scope="module")
def rig(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return gated_rig(tmp_path_factory.mktemp("gated"))


@pytest.fixture(scope="module")
def loaded(rig: Path) -> Iterator[tuple[Any, GatedSIMCamera]]:
    with gated_core(rig) as (core, camera):
        yield core, camera


@pytest.fixture
def gated(loaded: tuple[Any, GatedSIMCamera], rig: Path) -> tuple[Any, GatedSIMCamera]:
    core, camera = loaded
    core.mda.set_engine(TriggeredEngine(core, load_rig(rig)))
    camera.edges = camera.dark = 0
    return core, camera


@contextmanager
def noted(core: Any) -> Iterator[list[int]]:
    """Which pattern each exposure saw, as the camera says."""
    seen: list[int] = []

    def note(image: Any, event: Any, metadata: Any) -> None:
        seen.append(int(metadata["camera_metadata"]["SIM-Index"]))

    core.mda.events.frameReady.connect(note)
    yield seen
    core.mda.events.frameReady.disconnect(note)


def indices(core: Any, plan: Any) -> list[int]:
    """Which pattern each exposure of a plan saw."""
    with noted(core) as seen:
        core.mda.run(plan)
    return seen


@pytest.mark.parametrize("interval_s", [0.0, 0.05])
def test_every_group_begins_with_the_first_pattern(
    gated: tuple[Any, GatedSIMCamera], interval_s: float
) -> None:
    core, camera = gated
    assert (
        indices(core, sim_sequence(4, channels=["488"], interval_s=interval_s)) == [*range(N)] * 4
    )
    assert camera.edges == (4 if interval_s else 1)
    assert camera.dark == 0
    assert core.getProperty("Gate", "State") == "0"


def test_without_the_engine_the_patterns_do_not_run(
    gated: tuple[Any, GatedSIMCamera], rig: Path
) -> None:
    core, camera = gated
    core.mda.set_engine(MDAEngine(core))
    with LiveSR(
        core, rig=rig, engine="none", plan=(plan := sim_sequence(1, channels=["488"]))
    ) as session:
        core.mda.run(plan)
    assert camera.dark == N
    assert any("sim.trigger" in sentence for sentence in session.report["warnings"])


def test_live_mode_refuses_a_display_that_needs_the_trigger(
    gated: tuple[Any, GatedSIMCamera], rig: Path
) -> None:
    core, _ = gated
    with (
        pytest.raises(ConfigError, match="Live mode does not raise"),
        LiveSR(core, rig=rig, engine="none", live="own"),
    ):
        pass


def test_livesr_run_after_a_run_that_was_broken_off(
    gated: tuple[Any, GatedSIMCamera], rig: Path
) -> None:
    core, camera = gated

    def cancel(*_: Any) -> None:
        if camera._playback.raw == 5:
            core.mda.cancel()

    core.mda.engine.use_hardware_sequencing = False
    core.mda.events.frameReady.connect(cancel)
    core.mda.run(sim_sequence(2, channels=["488"]))
    core.mda.events.frameReady.disconnect(cancel)
    assert camera._playback.raw == 0  # lowered
    assert not camera.gate
    core.setProperty("Gate", "State", "1")
    core.snapImage()  # as somebody who looks at the sample: the display moves on
    assert camera._playback.raw == 1

    core.mda.engine.use_hardware_sequencing = True
    with noted(core) as seen:
        report = acquire(
            Request(load_rig(rig), Experiment(frames=6), engine="none"), core, console(quiet=True)
        )
    assert seen == [*range(N)] * 6
    assert report["groups"] == 6
    assert not any("sim.trigger" in sentence for sentence in report["warnings"])
    assert not camera.gate


def test_without_the_engine_such_a_run_is_out_of_order(gated: tuple[Any, GatedSIMCamera]) -> None:
    core, _ = gated
    core.mda.set_engine(MDAEngine(core))
    core.setProperty("Gate", "State", "1")
    core.snapImage()
    assert indices(core, sim_sequence(1, channels=["488"])) == [*range(1, N), 0]
    core.setProperty("Gate", "State", "0")


def test_exposures_one_by_one(gated: tuple[Any, GatedSIMCamera]) -> None:
    core, camera = gated
    core.mda.engine.use_hardware_sequencing = False
    core.mda.run(sim_sequence(2, channels=["488"]))
    assert (camera.edges, camera.dark, camera._playback.raw) == (2, 0, 0)


def test_a_plan_that_counts_raw_frames_along_time(gated: tuple[Any, GatedSIMCamera]) -> None:
    import useq

    core, camera = gated
    plan = useq.MDASequence(
        time_plan=useq.TIntervalLoops(interval=0, loops=2 * N), channels=["488"]
    )
    assert indices(core, plan) == [*range(N)] * 2
    assert camera.dark == 0


def test_a_group_that_is_split_is_refused(gated: tuple[Any, GatedSIMCamera]) -> None:
    core, _ = gated
    events = list(sim_sequence(1, channels=["488"]))
    with pytest.raises(RunError, match="raw frame 4 of 9"):
        core.mda.run(events[4:])
    assert core.getProperty("Gate", "State") == "0"


def test_the_display_leads(tmp_path: Path) -> None:
    rig = gated_rig(tmp_path, when="armed")
    with gated_core(rig) as (core, camera):
        camera.leads = True
        assert indices(core, sim_sequence(3, channels=["488"], interval_s=0.05)) == [*range(N)] * 3
        assert (camera.edges, camera.dark) == (3, 0)
        camera.leads = False  # a snap of a camera that waits for triggers would never return
        core.mda.engine.use_hardware_sequencing = False
        with pytest.raises(RunError, match="by itself"):
            core.mda.run(sim_sequence(1, channels=["488"]))


def test_what_rig_yaml_may_say(gated: tuple[Any, GatedSIMCamera], rig: Path) -> None:
    core, _ = gated
    config = load_rig(rig)
    section = SIMConfig.of(config)
    assert section.trigger == TriggerConfig(device="Gate", property="State", start="1", stop="0")
    for change, words in (
        ({"device": "Gat"}, "Did you mean 'Gate'"),
        ({"property": "Stat"}, "Did you mean 'State'"),
    ):
        trigger = section.trigger.model_copy(update=change)
        other = config.with_section(section.model_copy(update={"trigger": trigger}))
        with pytest.raises(ConfigError, match=words):
            TriggeredEngine(core, other)
    with pytest.raises(ConfigError, match="nothing of a trigger"):
        TriggeredEngine(core, load_rig("demo"))
    with pytest.raises(ConfigError, match="quote it"):
        parse(TriggerConfig, {"device": "D", "property": "P", "start": True}, "rig.yaml")


def test_raw_frames_are_those_of_the_display(
    gated: tuple[Any, GatedSIMCamera], rig: Path, tmp_path: Path
) -> None:
    import zarr

    core, camera = gated
    request = Request(
        load_rig(rig), Experiment(frames=2), RunConfig(store=tmp_path / "run.ome.zarr"), "none"
    )
    report = acquire(request, core, console(quiet=True))
    raw = zarr.open_group(report["store"], mode="r")["raw/0"][:]
    first = camera.shown[-2]
    np.testing.assert_array_equal(raw[0], camera.bank.frames[first])


def test_a_flat_field_is_taken_with_the_patterns_running(
    gated: tuple[Any, GatedSIMCamera], rig: Path
) -> None:
    from livesr.evaluation.camera_frames import CameraFrames

    core, camera = gated
    stack = CameraFrames(core, load_rig(rig)).light(10, "488")
    assert (len(stack), camera.edges, camera.dark, camera._playback.raw) == (18, 1, 0, 0)
    assert not camera.gate
