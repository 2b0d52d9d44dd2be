"""What pymmcore-plus leaves in the core's buffer is fetched, and stands where it belongs."""

from __future__ import annotations

import io
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import useq
import zarr
from pymmcore_plus import CMMCorePlus
from rich.console import Console

from livesr import LiveSR
from livesr.cli.output import run_table
from livesr.live.sources.plan import sim_sequence
from rigs import core_of, virtual_sim


@pytest.fixture
def core() -> Iterator[CMMCorePlus]:
    with core_of("demo", exposure_ms=2, demo_px=64) as core:
        yield core


def forget_the_tail(core: CMMCorePlus, monkeypatch: pytest.MonkeyPatch, taken: int = 0) -> None:
    """Let the race of pymmcore-plus happen in every burst after `taken` images.

    The rest comes between its two questions.
    """
    start, ask, pop = (
        core.startSequenceAcquisition,
        core.getRemainingImageCount,
        core.popNextImageAndMD,
    )
    popped, asked_late = [0], [False]

    def begin(*args: Any) -> None:
        popped[0], asked_late[0] = 0, False
        start(*args)

    def count() -> int:
        if popped[0] < taken or asked_late[0]:
            return ask()
        while core.isSequenceRunning():
            pass
        asked_late[0] = True
        return 0  # what was true when it was asked

    def pop_and_count(*args: Any) -> Any:
        popped[0] += 1
        return pop(*args)

    monkeypatch.setattr(core, "startSequenceAcquisition", begin)
    monkeypatch.setattr(core, "getRemainingImageCount", count)
    monkeypatch.setattr(core, "popNextImageAndMD", pop_and_count)


def delivered(core: CMMCorePlus, plan: Any, store: Path, rig: str = "demo") -> dict[str, Any]:
    with LiveSR(core, rig=rig, plan=plan, store=store, engine="none") as session:
        core.mda.run(plan)
    return session.report


def test_the_tail_of_a_burst_is_fetched(
    core: CMMCorePlus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = useq.MDASequence(time_plan=useq.TIntervalLoops(interval=0, loops=6), channels=["488"])
    frames: list[int] = []
    core.mda.events.frameReady.connect(lambda image, event, meta: frames.append(event.index["t"]))
    forget_the_tail(core, monkeypatch, taken=0)
    report = delivered(core, plan, tmp_path / "r.ome.zarr")
    assert frames == []  # pymmcore-plus had none
    assert (report["raw_frames"], report["raw_fetched"], report["raw_missing"]) == (6, 6, 0)
    assert report["error"] is None
    raw = zarr.open_array(f"{report['store']}/raw/0", mode="r")
    assert raw.shape[0] == 6
    assert all(raw[t].any() for t in range(6))


def test_each_burst_of_a_run_keeps_its_own_tail(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with virtual_sim() as core:
        core.setProperty("Camera", "TimePoint", 0)
        plan = sim_sequence(3, ["488"], interval_s=0.05)  # a burst of nine for each time point
        forget_the_tail(core, monkeypatch, taken=4)
        report = delivered(core, plan, tmp_path / "r.ome.zarr", "virtual_sim")
    assert (report["raw_frames"], report["raw_fetched"], report["raw_missing"]) == (27, 15, 0)
    stamps = zarr.open_array(f"{report['store']}/raw/0", mode="r")[..., 0, 0].astype(int)
    np.testing.assert_array_equal(stamps, stamps[0, 0] + np.arange(27).reshape(3, 9))


def test_a_run_that_lost_nothing_fetches_nothing(core: CMMCorePlus, tmp_path: Path) -> None:
    plan = useq.MDASequence(time_plan=useq.TIntervalLoops(interval=0.01, loops=3), channels=["488"])
    report = delivered(core, plan, tmp_path / "r.ome.zarr")
    assert (report["raw_frames"], report["raw_fetched"]) == (3, 0)


def test_an_exposure_that_never_came_is_counted_and_said(
    core: CMMCorePlus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    snap, asked = core.snapImage, [0]

    def snap_all_but_one() -> None:
        asked[0] += 1
        if asked[0] == 7:
            raise RuntimeError("the camera did not answer")
        snap()

    monkeypatch.setattr(core, "snapImage", snap_all_but_one)
    monkeypatch.setattr(core.mda.engine, "use_hardware_sequencing", False)
    plan = useq.MDASequence(time_plan=useq.TIntervalLoops(interval=0, loops=120), channels=["488"])
    report = delivered(core, plan, tmp_path / "r.ome.zarr")
    assert (report["raw_frames"], report["raw_missing"], report["error"]) == (119, 1, None)
    assert [w for w in report["warnings"] if w.startswith("1 exposure never came")]
    out = Console(file=io.StringIO(), width=120)
    out.print(run_table(report))
    assert "119 received, 0 lost, 1 never came" in out.file.getvalue()
    raw = zarr.open_array(f"{report['store']}/raw/0", mode="r")
    assert [t for t in range(120) if not raw[t].any()] == [6]


def test_what_a_cancelled_burst_left_is_kept(core: CMMCorePlus, tmp_path: Path) -> None:
    """Every exposure that the camera made is stored, also those that nobody had asked for when the
    run was cancelled."""
    plan = useq.MDASequence(time_plan=useq.TIntervalLoops(interval=0, loops=500), channels=["488"])
    taken: list[int] = []

    def stop(image: Any, event: useq.MDAEvent, metadata: Any) -> None:
        taken.append(event.index["t"])
        if len(taken) == 3:
            time.sleep(0.1)  # the camera goes on
            core.mda.cancel()

    core.mda.events.frameReady.connect(stop)
    report = delivered(core, plan, tmp_path / "r.ome.zarr")
    core.mda.events.frameReady.disconnect(stop)
    assert report["raw_fetched"] > 0
    assert report["raw_frames"] == len(taken) + report["raw_fetched"]
    assert (report["raw_missing"], report["error"]) == (0, None)
    raw = zarr.open_array(f"{report['store']}/raw/0", mode="r")
    assert raw.shape[0] == report["raw_frames"]
    assert all(raw[t].any() for t in range(raw.shape[0]))
