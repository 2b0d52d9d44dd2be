"""An acquisition waits for long exposures, and ends with a sentence where no frame comes."""

from __future__ import annotations

from pathlib import Path

import pytest
from pymmcore_plus.mda import MDAEngine
from useq import MDASequence

from livesr.cli import _run
from livesr.live.sources.patience import ended_by_itself, wait_for_exposures
from rigs import core_of
from standing_camera import StandingCamera, standing_rig


def test_a_sequence_waits_for_exposures_that_only_the_core_knows() -> None:
    with core_of("virtual_sim", SensorSize=64, TimePoints=1) as core:
        engine = core.mda.engine
        assert isinstance(engine, MDAEngine)
        core.setExposure(400)
        frames = MDASequence(time_plan={"interval": 0, "loops": 3})
        came: list[object] = []
        core.mda.events.frameReady.connect(lambda *args: came.append(args))
        engine.timeout_base = engine.timeout_first_frame = 0.1
        with pytest.raises(TimeoutError):  # of pymmcore-plus: else this test tests nothing
            core.mda.run(frames)
        came.clear()
        wait_for_exposures(core, core.getExposure())
        core.mda.run(frames)
        assert len(came) == 3
        wait_for_exposures(core, 1.0)
        assert engine.timeout_base == 2.0  # what was allowed stays allowed


@pytest.mark.parametrize("exposure_ms", [6000.0, 30_000.0])
def test_a_run_waits_for_its_exposures(exposure_ms: float) -> None:
    with core_of("virtual_sim", exposure_ms, SensorSize=64, TimePoints=1) as core:
        engine = core.mda.engine
        assert isinstance(engine, MDAEngine)
        for limit_s in (engine.timeout_base, engine.timeout_first_frame):
            assert limit_s is not None
            assert limit_s > 2 * exposure_ms / 1e3


@pytest.mark.parametrize("command", [["calibrate", "--dry-run"], ["check", "--hardware"]])
def test_a_camera_that_stands_is_named(
    command: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rig = standing_rig(tmp_path)
    try:
        assert _run([command[0], str(rig), *command[1:]]) == 1
    finally:
        StandingCamera.let_go.set()
    said = " ".join((capsys.readouterr().err).split())
    assert "does it wait for triggers that do not come?" in said
    StandingCamera.let_go.clear()


def test_what_a_driver_raises_is_quoted_once() -> None:
    said = str(ended_by_itself(RuntimeError("Error in device Camera:\n  no link. ")))
    assert said.endswith("camera or core: Error in device Camera: no link.")
    assert str(ended_by_itself(RuntimeError())).endswith("core: RuntimeError.")
