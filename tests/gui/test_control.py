"""What a window does with livesr, without a window: threads, states and sentences."""

from __future__ import annotations

import shutil
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from pymmcore_plus import CMMCorePlus
from typer.testing import CliRunner
from useq import MDASequence, TIntervalLoops

from livesr.base.config import load_rig
from livesr.base.errors import ConfigError
from livesr.cli import app
from livesr.gui.control import Choice, Control
from rig_copies import RIGS
from rigs import core_of

SIZE = 64


@pytest.fixture(scope="module")
def core() -> Iterator[CMMCorePlus]:
    with core_of("demo", exposure_ms=5, demo_px=SIZE) as core:
        core.setConfig("Channel", "488")
        yield core


def until(true: Callable[[], bool], control: Control) -> None:
    deadline = time.monotonic() + 60
    while not true():
        assert time.monotonic() < deadline, (control.state, control.problem)
        time.sleep(0.01)


def test_start_acquire_and_stop(core: CMMCorePlus, tmp_path: Path) -> None:
    control = Control(core)
    assert (control.state, control.takes_frames) == ("idle", False)
    control.start(Choice("demo", engine="none", store=tmp_path / "run.ome.zarr"))
    until(lambda: control.state == "ready", control)
    assert control.takes_frames  # the live view is livesr's from here on
    control.acquire(load_rig("demo"), 5)
    until(lambda: bool(control.reports), control)
    control.close()
    assert control.state == "idle"
    assert control.problem == ""
    report = control.reports[0]
    assert (report["raw_frames"], report["raw_missing"]) == (10, 0)  # two channels
    assert {name: f.t for name, f in control.newest.measurements.items()} == {"488": 4, "561": 4}


def test_true_channels_are_taken_at_audits(tmp_path: Path) -> None:
    shutil.copytree(RIGS / "virtual_audit", tmp_path / "rig")
    for name, was, now in (
        ("rig.yaml", "interval_ms: 1000", "interval_ms: 50"),
        ("rig.cfg", "Camera,Rig,virtual_audit", f"Camera,Rig,{tmp_path / 'rig'}"),
    ):
        file = tmp_path / "rig" / name
        text = file.read_text(encoding="utf-8")
        assert was in text
        file.write_text(text.replace(was, now), encoding="utf-8")
    with core_of(tmp_path / "rig", exposure_ms=1, SensorSize=SIZE, TimePoints=2) as core:
        control = Control(core)
        control.start(Choice(str(tmp_path / "rig"), policy="complete"))
        until(lambda: control.state == "ready", control)
        for run in (1, 2):
            control.acquire(load_rig(tmp_path / "rig"), 4)
            until(lambda n=run: len(control.reports) == n, control)  # type: ignore[misc]
        control.close()
    assert control.problem == ""
    for report in control.reports:
        assert report["raw_frames"] == 9 * (4 + 3)
        assert [(audit["t"], audit["reason"]) for audit in report["audits"]] == [(0, "first")]


def test_stopping_cancels_what_is_acquired(core: CMMCorePlus) -> None:
    control = Control(core)
    control.start(Choice("demo", engine="none"))
    until(lambda: control.state == "ready", control)
    control.acquire(load_rig("demo"), 100_000)
    until(lambda: control.status.get("raw_frames", 0) > 4, control)
    assert control.camera_pixels is not None
    with pytest.raises(ConfigError, match="camera is in use"):
        control.acquire(load_rig("demo"), 1)
    control.close()
    assert (control.state, core.mda.is_running()) == ("idle", False)
    assert control.reports[0]["raw_frames"] < 200_000


def test_stopping_while_it_opens_leaves_nothing_open(core: CMMCorePlus) -> None:
    control = Control(core)
    control.start(Choice("demo", engine="none"))
    control.close()
    assert (control.state, control.problem) == ("idle", "")
    control.close()  # again is nothing


def test_what_cannot_be_opened_is_a_sentence(core: CMMCorePlus) -> None:
    control = Control(core)
    for rig, live, said in (("nowhere", "own", "No rig"), ("virtual_sim", "peek", "live='own'")):
        control.start(Choice(rig, live=live))
        control.wait()
        assert said in control.problem
        assert control.state == "idle"


def test_a_store_that_cannot_be_made_is_told_when_it_is_opened(
    core: CMMCorePlus, tmp_path: Path
) -> None:
    control = Control(core)
    (tmp_path / "folder").write_text("in the way")
    control.start(Choice("demo", engine="none", store=tmp_path / "folder" / "run.ome.zarr"))
    control.wait()
    assert "Choose a folder that you can write to" in control.problem
    assert control.state == "idle"


def test_every_live_view_that_cannot_be_recorded_is_told_and_the_next_run_forgets_it(
    core: CMMCorePlus, tmp_path: Path
) -> None:
    control = Control(core)
    (tmp_path / "folder").mkdir()
    control.start(Choice("demo", engine="none", store=tmp_path / "folder" / "run.ome.zarr"))
    until(lambda: control.state == "ready", control)
    (tmp_path / "folder").rmdir()
    (tmp_path / "folder").write_text("in the way")
    for _ in range(2):
        control.problem = ""  # as the buttons of the widget do
        control.toggle_live()
        control.look()
        assert "folder" in control.problem
        assert (control.state, control.overlooks) == ("ready", "live view")
        control.toggle_live()
        assert control.overlooks == ""
    (tmp_path / "folder").unlink()
    control.toggle_live()
    until(lambda: control.status.get("raw_frames", 0) > 1, control)
    control.look()
    assert (control.problem, control.overlooks) == ("", "")
    control.toggle_live()
    until(lambda: bool(control.reports), control)
    control.close()
    assert control.problem == ""  # what was told of the first run is not told again


def test_an_acquisition_that_began_before_is_not_called_recorded(core: CMMCorePlus) -> None:
    control, begun = Control(core), threading.Event()
    core.mda.events.frameReady.connect(begun.set)  # it is running before it tells that it began
    thread = core.run_mda(MDASequence(time_plan=TIntervalLoops(interval=0.02, loops=2000)))
    until(begun.is_set, control)
    control.start(Choice("demo", engine="none"))
    until(lambda: control.state == "ready", control)
    assert control.overlooks == "acquisition"
    core.mda.cancel()
    thread.join(timeout=60)
    control.look()
    assert control.overlooks == ""
    control.acquire(load_rig("demo"), 100_000)
    until(lambda: control.status.get("raw_frames", 0) > 1, control)
    assert control.overlooks == ""
    control.close()


def test_without_qt_the_command_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [m for m in sys.modules if m.startswith(("livesr.gui.", "qtpy", "pymmcore_gui"))]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "qtpy", None)
    result = CliRunner().invoke(app, ["gui", "--rig", "demo"])
    assert isinstance(result.exception, ConfigError)
    assert "pip install 'livesr[gui]'" in str(result.exception)
