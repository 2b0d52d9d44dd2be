"""Sequence acquisition outside an MDA, on real cores.

Every exposure of the camera is at the place of its number.
"""

from __future__ import annotations

import io
import json
import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from hypothesis import given
from hypothesis import strategies as st
from pymmcore_plus import CMMCorePlus
from rich.console import Console

from livesr import LiveSR
from livesr.base.config import load_rig
from livesr.base.errors import BacklogError, ConfigError, RunError
from livesr.cli.output import run_table
from livesr.live.sources.continuous import (
    FULL_BEFORE,
    OVERFLOWED,
    Numbering,
    camera_runs,
    prepare_buffer,
)
from livesr.live.sources.delivery import DRAINED
from livesr.live.sources.plan import sim_sequence
from livesr.modalities.sim.config import SIMConfig
from rigs import SIZE, core_of, virtual_sim
from waiting import until

ENGINE = {"engine": "identity", "threads": 1, "policy": "complete"}


@pytest.fixture(scope="module")
def sim_core() -> Iterator[CMMCorePlus]:
    with virtual_sim() as core:
        yield core


@pytest.fixture(scope="module")
def demo_core() -> Iterator[CMMCorePlus]:
    with core_of("demo", exposure_ms=2, demo_px=SIZE) as core:
        yield core


@pytest.fixture(autouse=True)
def camera_is_off(request: pytest.FixtureRequest) -> Iterator[None]:
    """No test inherits a running camera from one that failed."""
    yield
    for name in {"sim_core", "demo_core"} & set(request.fixturenames):
        request.getfixturevalue(name).stopSequenceAcquisition()


@contextmanager
def released(disk: threading.Event) -> Iterator[None]:
    """A disk that goes on in the end, also of a test that failed."""
    try:
        yield
    finally:
        disk.set()


@contextmanager
def live(core: CMMCorePlus) -> Iterator[None]:
    """The camera runs, as while a GUI's live button is pressed."""
    core.startContinuousSequenceAcquisition()
    yield
    core.stopSequenceAcquisition()


def frames(session: LiveSR, number: int) -> None:
    """Wait until a run has received `number` frames."""
    until(lambda: session.status().get("raw_frames", 0) >= number)


def raw_of(report: dict[str, Any]) -> np.ndarray:
    return zarr.open_group(report["store"], mode="r")["raw/0"][:]


def stamps_of(report: dict[str, Any]) -> np.ndarray:
    """Number of the exposure at each (t, raw); 0 where none is."""
    return raw_of(report)[..., 0, 0].astype(int)


def next_stamp(core: CMMCorePlus) -> int:
    """The number that the camera's next exposure will bear."""
    core.snapImage()
    return int(core.getImage()[0, 0]) + 1


def assert_in_place(stamps: np.ndarray, first: int) -> None:
    """Each exposure lies where its ImageNumber says, whatever is missing."""
    places = first + np.arange(stamps.size).reshape(stamps.shape)
    np.testing.assert_array_equal(stamps[stamps > 0], places[stamps > 0])


def test_every_exposure_of_live_mode_is_in_the_store(sim_core: CMMCorePlus, tmp_path: Path) -> None:
    first = next_stamp(sim_core)
    with LiveSR(
        sim_core, rig="virtual_sim", live="own", store=tmp_path / "l.ome.zarr", **ENGINE
    ) as session:
        with live(sim_core):
            frames(session, 60)
        report = session.wait()
        assert (
            Path(report["store"]) / "livesr" / "report.json"
        ).is_file()  # finished while the session goes on
    stamps = stamps_of(report)
    exposed = next_stamp(sim_core) - 1 - first
    assert report["raw_frames"] == np.count_nonzero(stamps) == exposed
    np.testing.assert_array_equal(stamps.ravel()[:exposed], first + np.arange(exposed))
    assert report["groups"] == exposed // 9
    assert report["sr_frames"] == exposed // 9
    assert report["groups_incomplete"] == (exposed % 9 > 0)
    assert report["raw_missing"] == report["raw_lost"] == 0


def test_a_finite_sequence_is_a_run_that_ends_by_itself(
    sim_core: CMMCorePlus, tmp_path: Path
) -> None:
    first = next_stamp(sim_core)
    with LiveSR(
        sim_core, rig="virtual_sim", live="own", store=tmp_path / "n.ome.zarr", **ENGINE
    ) as session:
        sim_core.startSequenceAcquisition(27, 0, True)
        until(lambda: not sim_core.isSequenceRunning())
        report = session.wait()
        assert report["raw_frames"] == 27
        assert report["sr_frames"] == 3
        assert session.status() == {}
    np.testing.assert_array_equal(stamps_of(report), first + np.arange(27).reshape(3, 9))


@pytest.mark.parametrize("finite", [True, False])
def test_own_records_the_demo_camera_without_a_gap(
    demo_core: CMMCorePlus, tmp_path: Path, finite: bool
) -> None:
    demo_core.setCircularBufferMemoryFootprint(1)
    with LiveSR(
        demo_core, rig="demo", engine="none", live="own", store=tmp_path / "d.ome.zarr"
    ) as session:
        if finite:
            demo_core.startSequenceAcquisition(50, 0, True)
            until(lambda: not demo_core.isSequenceRunning())
        else:
            with live(demo_core):
                frames(session, 50)
        report = session.wait()
    assert demo_core.getCircularBufferMemoryFootprint() == 8  # two seconds of 500 frames of 8 KiB
    assert demo_core.getRemainingImageCount() == 0
    assert report["raw_frames"] == len(raw_of(report)) >= 50
    assert not finite or report["raw_frames"] == 50
    assert report["raw_missing"] == 0
    assert list(report["channels"]) == ["488"]


def test_frames_of_an_earlier_sequence_are_not_part_of_the_run(
    demo_core: CMMCorePlus, tmp_path: Path
) -> None:
    for n in (5, 20):
        live_setting = "off" if n == 5 else "own"
        with LiveSR(
            demo_core, rig="demo", engine="none", live=live_setting, store=tmp_path / "e.ome.zarr"
        ) as session:
            demo_core.startSequenceAcquisition(n, 0, True)
            until(lambda: not demo_core.isSequenceRunning())
    assert session.report["raw_frames"] == len(raw_of(session.report)) == 20


def test_peek_leaves_the_frames_to_others(demo_core: CMMCorePlus, tmp_path: Path) -> None:
    with LiveSR(
        demo_core, rig="demo", engine="none", live="peek", store=tmp_path / "p.ome.zarr"
    ) as session:
        with live(demo_core):
            frames(session, 50)
        report = session.wait()
    exposed = [demo_core.popNextImage() for _ in range(demo_core.getRemainingImageCount())]
    lines = (Path(report["store"]) / "livesr" / "frames.jsonl").read_text().splitlines()
    stored = [line["t"] for line in map(json.loads, lines) if line["series"] == "raw"]
    assert stored == sorted(set(stored))  # no frame twice
    assert report["raw_frames"] == len(stored)
    assert report["raw_frames"] + report["raw_missing"] == stored[-1] + 1
    assert stored[-1] == len(exposed) - 1  # the last frame is looked at when the camera has stopped
    assert report["raw_frames"] > len(exposed) / 2
    raw = raw_of(report)
    for t in stored:
        np.testing.assert_array_equal(raw[t, 0], exposed[t])


def test_peek_is_refused_where_the_order_of_frames_matters(sim_core: CMMCorePlus) -> None:
    with (
        pytest.raises(ConfigError, match="needs 9 in their order: use live='own'"),
        LiveSR(sim_core, rig="virtual_sim", live="peek", engine="none"),
    ):
        pass
    with live(sim_core):
        pass  # nothing listens any more


def test_frames_that_a_gui_steals_are_counted_and_shift_no_phase(
    sim_core: CMMCorePlus, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    first, stolen = next_stamp(sim_core), []

    def steal(n: int) -> None:
        for _ in range(n):
            until(lambda: sim_core.getRemainingImageCount() > 0)
            try:
                stolen.append(int(sim_core.popNextImage()[0, 0]))
            except IndexError:  # livesr was faster
                time.sleep(0)

    with LiveSR(
        sim_core, rig="virtual_sim", live="own", store=tmp_path / "g.ome.zarr", **ENGINE
    ) as session:
        with live(sim_core):
            frames(session, 30)
            gui = threading.Thread(target=steal, args=(400,))
            gui.start()
            gui.join()
            frames(session, session.status()["raw_frames"] + 30)
        report = session.wait()
    stamps = stamps_of(report)
    assert stolen
    assert report["raw_missing"] == len(stolen)
    assert not set(stolen) & set(stamps.ravel())
    assert_in_place(stamps, first)
    exposed = next_stamp(sim_core) - 1 - first
    assert np.count_nonzero(stamps) == report["raw_frames"] == exposed - len(stolen)
    assert report["groups"] == report["sr_frames"] == np.count_nonzero((stamps > 0).all(axis=1))
    assert "another program takes frames" in caplog.text
    assert DRAINED in report["warnings"]
    assert any(w.startswith(f"{len(stolen)} exposures never came") for w in report["warnings"])
    out = Console(file=io.StringIO(), width=120)
    out.print(run_table(report))
    assert f"{len(stolen)} never came, " in out.file.getvalue().partition("raw missing")[2]


def test_a_camera_started_anew_unnoticed_begins_a_new_stretch(
    sim_core: CMMCorePlus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, pop, popped = next_stamp(sim_core), sim_core.popNextImageAndMD, 0

    def pop_and_start_anew() -> Any:
        nonlocal popped
        popped += 1
        if popped == 32:
            # Below pymmcore-plus, so that no event tells of it. In the thread that takes frames:
            # UniMMCore's buffer, emptied while a frame is taken out of it, mixes up the next two
            # (docs/upstream/pymmcore-plus-sequence-buffer.md).
            sim_core._do_stop_sequence_acquisition("Camera")
            sim_core._do_start_continuous_sequence_acquisition(0)
        return pop()

    monkeypatch.setattr(sim_core, "popNextImageAndMD", pop_and_start_anew)
    with LiveSR(
        sim_core, rig="virtual_sim", live="own", store=tmp_path / "a.ome.zarr", **ENGINE
    ) as session:
        with live(sim_core):
            frames(session, 62)
        report = session.wait()
    stamps = stamps_of(report)
    (gap,) = np.flatnonzero(~stamps.any(axis=1))
    assert np.count_nonzero(stamps[:gap]) == 31
    assert_in_place(stamps[:gap], first)
    assert_in_place(stamps[gap + 1 :], stamps[gap + 1, 0])
    assert stamps[gap + 1, 0] > stamps[:gap].max()
    assert report["tc_complete"] < 1  # no window spans the break
    assert report["raw_missing"] == 0


def test_an_mda_ends_live_mode_and_gets_its_own_run(sim_core: CMMCorePlus, tmp_path: Path) -> None:
    plan, reports = sim_sequence(3, ["488"]), []
    first = next_stamp(sim_core)
    with LiveSR(
        sim_core, rig="virtual_sim", live="own", plan=plan, store=tmp_path / "m.ome.zarr", **ENGINE
    ) as session:
        session.finished.connect(reports.append)
        sim_core.startContinuousSequenceAcquisition()
        frames(session, 40)
        sim_core.mda.run(plan)
        sim_core.mda.engine.use_hardware_sequencing = False
        sim_core.mda.run(plan)
        sim_core.mda.engine.use_hardware_sequencing = True
        with live(sim_core):
            frames(session, 20)
    names = [Path(r["store"]).name for r in reports]
    assert names == ["m.ome.zarr", "m_2.ome.zarr", "m_3.ome.zarr", "m_4.ome.zarr"]
    assert [r["raw_frames"] for r in reports[1:3]] == [27, 27]
    place = first
    for report in reports:  # every exposure of the session is in one of the stores, in order
        stamps = stamps_of(report)
        assert_in_place(stamps, place)
        assert np.count_nonzero(stamps) == report["raw_frames"]
        place += report["raw_frames"]


def test_stop_and_start_make_a_store_each_also_with_a_new_region(
    sim_core: CMMCorePlus, tmp_path: Path
) -> None:
    reports: list[dict[str, Any]] = []
    with LiveSR(
        sim_core, rig="virtual_sim", live="own", store=tmp_path / "s.ome.zarr", **ENGINE
    ) as session:
        session.finished.connect(reports.append)
        for roi in ((0, 0, SIZE, SIZE), (0, 0, SIZE, SIZE), (0, 0, 48, 48)):
            sim_core.setROI(*roi)
            with live(sim_core):
                frames(session, 20)
        sim_core.clearROI()
    assert [Path(r["store"]).name for r in reports] == [
        "s.ome.zarr",
        "s_2.ome.zarr",
        "s_3.ome.zarr",
    ]
    assert [raw_of(r).shape[2:] for r in reports] == [(SIZE, SIZE), (SIZE, SIZE), (48, 48)]
    for report in reports:
        stamps = stamps_of(report)
        assert stamps[0, 0] > 0
        assert_in_place(stamps, stamps[0, 0])
        assert np.count_nonzero(stamps) == report["raw_frames"]


@pytest.mark.parametrize("core_name", ["sim_core", "demo_core"])
def test_a_session_joins_and_leaves_a_running_camera(
    request: pytest.FixtureRequest, tmp_path: Path, core_name: str
) -> None:
    core, sim = request.getfixturevalue(core_name), core_name == "sim_core"
    rig, settings = ("virtual_sim", ENGINE) if sim else ("demo", {"engine": "none"})
    first = next_stamp(core) if sim else 0
    with live(core):
        until(lambda: core.getRemainingImageCount() > 50)
        with LiveSR(
            core, rig=rig, live="own", store=tmp_path / "j.ome.zarr", **settings
        ) as session:
            frames(session, 40)
        assert core.isSequenceRunning()
        left = core.getRemainingImageCount()
        until(lambda: core.getRemainingImageCount() > left + 5)  # the frames are the user's again
    report = session.report
    assert report["raw_missing"] == 0
    assert report["raw_frames"] >= 40
    if sim:
        stamps = stamps_of(report)
        came = stamps[stamps > 0]
        np.testing.assert_array_equal(came, came[0] + np.arange(len(came)))
        assert came[0] > first + 50
        assert_in_place(stamps, stamps[1, 0] - 9)
        assert (
            stamps[1, 0] - first
        ) % 9 == 0  # the phase is the camera's, not the order of arrival


@pytest.fixture
def small_buffer_core(request: pytest.FixtureRequest) -> Iterator[CMMCorePlus]:
    """A rig whose camera waits for a slow disk for little more than two seconds at 1 ms, the
    default."""
    with virtual_sim(getattr(request, "param", 1.0)) as core:
        core.setCircularBufferMemoryFootprint(1)
        yield core


def short_queue(core: CMMCorePlus, folder: Path) -> LiveSR:
    """A session of live mode that lets 20 frames wait for the disk."""
    queue = 20 * SIZE * SIZE * 2
    store = folder / "run.ome.zarr"
    return LiveSR(
        core, rig="virtual_sim", live="own", store=store, raw_queue_bytes=queue, engine="none"
    )


@pytest.mark.parametrize("small_buffer_core", [5.0], indirect=True, ids=["5 ms"])
def test_a_slow_disk_is_waited_for_while_the_buffer_of_the_core_has_room(
    small_buffer_core: CMMCorePlus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    core, disk = small_buffer_core, threading.Event()
    first = next_stamp(core)
    with short_queue(core, tmp_path) as session:
        with (
            released(disk),
            live(core),
        ):  # the camera stops first: whoever stops it does not wait for the disk
            write = session._writer.raw
            monkeypatch.setattr(session._writer, "raw", lambda stack: (disk.wait(), write(stack)))
            until(lambda: core.getRemainingImageCount() > 100)
            disk.set()
            until(lambda: core.getRemainingImageCount() < 20)
            disk.clear()
            until(lambda: core.getRemainingImageCount() > 100)
        report = session.wait()
    stamps = stamps_of(report)
    assert report["acquisition_waits"] > 0
    assert report["raw_missing"] == 0
    assert_in_place(stamps, first)
    assert np.count_nonzero(stamps) == report["raw_frames"] == next_stamp(core) - 1 - first


def test_a_disk_that_stays_too_slow_ends_the_run_with_everything_received_on_it(
    small_buffer_core: CMMCorePlus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    core, disk = small_buffer_core, threading.Event()
    first = next_stamp(core)
    session = short_queue(core, tmp_path)

    def acquire() -> None:
        with session, released(disk):
            core.startContinuousSequenceAcquisition()
            write = session._writer.raw
            monkeypatch.setattr(session._writer, "raw", lambda stack: (disk.wait(), write(stack)))
            until(lambda: not core.isSequenceRunning())

    with pytest.raises(BacklogError, match="nor can a continuous one"):
        acquire()
    stamps = stamps_of(session.report)
    exposed = next_stamp(core) - 1 - first
    assert session.report["raw_missing"] == 0
    assert_in_place(stamps, first)
    assert np.count_nonzero(stamps) == session.report["raw_frames"] == exposed > 1000


def slow_poller(
    core: CMMCorePlus, monkeypatch: pytest.MonkeyPatch, waiting: int, pop_s: float
) -> None:
    """A computer that stands still until `waiting` frames wait.

    Then it takes each in `pop_s`, as long as the camera runs.
    """
    ask, pop, stood_still = core.getRemainingImageCount, core.popNextImageAndMD, threading.Event()

    def asked_late() -> int:
        if threading.current_thread().name == "livesr-live" and not stood_still.is_set():
            until(lambda: ask() >= waiting)
            stood_still.set()
        return ask()

    def popped_slowly() -> Any:
        if camera_runs(core):
            time.sleep(pop_s)
        return pop()

    monkeypatch.setattr(core, "getRemainingImageCount", asked_late)
    monkeypatch.setattr(core, "popNextImageAndMD", popped_slowly)


def test_the_camera_is_stopped_before_what_waits_is_taken(
    small_buffer_core: CMMCorePlus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The poller found a thousand frames at once, and pops more slowly than the camera exposes: the
    rest of the buffer would fill while it takes them."""
    core, disk = small_buffer_core, threading.Event()
    first = next_stamp(core)
    session = short_queue(core, tmp_path)
    slow_poller(core, monkeypatch, waiting=1000, pop_s=0.003)

    def acquire() -> None:
        with session, released(disk):
            core.startContinuousSequenceAcquisition()
            write = session._writer.raw
            monkeypatch.setattr(session._writer, "raw", lambda stack: (disk.wait(), write(stack)))
            until(lambda: not camera_runs(core))

    with pytest.raises(BacklogError, match="nor can a continuous one"):
        acquire()
    stamps = stamps_of(session.report)
    assert session.report["raw_missing"] == 0
    assert_in_place(stamps, first)
    assert np.count_nonzero(stamps) == session.report["raw_frames"] == next_stamp(core) - 1 - first


@pytest.mark.parametrize("stop_on_overflow", [False, True])
def test_a_buffer_that_overflows_is_said_and_no_other_program_is_blamed(
    demo_core: CMMCorePlus,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    stop_on_overflow: bool,
) -> None:
    demo_core.setCircularBufferMemoryFootprint(8)  # 1024 frames
    with LiveSR(
        demo_core, rig="demo", engine="none", live="own", store=tmp_path / "o.ome.zarr"
    ) as session:
        monkeypatch.setattr("livesr.live.sources.continuous._POLL_S", 60.0)  # a poller that sleeps
        demo_core.startSequenceAcquisition(1300, 0, stop_on_overflow)
        until(lambda: not demo_core.isSequenceRunning())
        report = session.wait()
    assert OVERFLOWED in report["warnings"]
    assert DRAINED not in report["warnings"]
    exposed = report["raw_frames"] + report["raw_missing"]
    if stop_on_overflow:  # the camera made no more than fit
        assert report["raw_missing"] == 0
        assert 1024 <= exposed < 1300
    else:
        assert report["raw_missing"] >= 1024
        assert exposed == 1300


def test_what_a_camera_that_stopped_has_left_does_not_wait_for_the_disk(
    small_buffer_core: CMMCorePlus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A new region empties the core's buffer: what still waited there would be lost, uncounted."""
    core, disk = small_buffer_core, threading.Event()
    first = next_stamp(core)
    with short_queue(core, tmp_path) as session:
        with released(disk):
            core.startSequenceAcquisition(900, 0, True)
            write = session._writer.raw
            monkeypatch.setattr(session._writer, "raw", lambda stack: (disk.wait(), write(stack)))
            until(lambda: core.getRemainingImageCount() > 700)
            until(lambda: not camera_runs(core))
            until(lambda: core.getRemainingImageCount() == 0)  # the disk still stands
            core.clearROI()
        report = session.wait()
    assert report["acquisition_waits"] > 0
    assert report["raw_missing"] == 0
    np.testing.assert_array_equal(stamps_of(report), first + np.arange(900).reshape(100, 9))


@pytest.mark.parametrize("fails", ["popNextImageAndMD", "getExposure", "isSequenceRunning"])
def test_a_camera_that_fails_costs_no_frame_that_waits_in_the_buffer(
    demo_core: CMMCorePlus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fails: str
) -> None:
    call, failures = getattr(demo_core, fails), []

    def failing(*args: Any) -> Any:
        in_poller = threading.current_thread().name == "livesr-live"
        # One pop fails; a camera that is gone never answers again.
        if in_poller and session.status()["raw_frames"] > 20 and not (failures and "pop" in fails):
            failures.append(demo_core.getRemainingImageCount())
            raise RuntimeError("the cable is out")
        return call(*args)

    def acquire() -> None:
        with session:
            demo_core.startSequenceAcquisition(200, 0, True)
            until(lambda: len(failures) > 0 and not demo_core.isSequenceRunning())
            until(lambda: demo_core.getRemainingImageCount() == 0)

    session = LiveSR(
        demo_core, rig="demo", engine="none", live="own", store=tmp_path / "f.ome.zarr"
    )
    monkeypatch.setattr(demo_core, fails, failing)
    if fails == "getExposure":
        acquire()
        assert any("the cable is out" in w for w in session.report["warnings"])
        assert session.report["raw_frames"] == 200
    else:
        with pytest.raises(RunError, match="the cable is out"):
            acquire()
    assert session.report["raw_missing"] == 0
    assert session.report["raw_frames"] == len(raw_of(session.report)) > 20
    assert demo_core.getRemainingImageCount() == 0


def test_what_a_buffer_of_unimmcore_throws_away_is_counted_and_said(
    small_buffer_core: CMMCorePlus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It throws away what waits at its end, full or not: docs/upstream."""
    core = small_buffer_core
    core.setROI(0, 0, 48, 48)
    slow_poller(core, monkeypatch, waiting=200, pop_s=0.003)
    with LiveSR(
        core, rig="virtual_sim", live="own", store=tmp_path / "u.ome.zarr", engine="none"
    ) as session:
        monkeypatch.setattr(
            "livesr.live.sources.continuous.prepare_buffer",
            lambda core, mode: core.setCircularBufferMemoryFootprint(1),  # 227 frames
        )
        first = next_stamp(core)
        core.startSequenceAcquisition(400, 0, False)
        until(lambda: not camera_runs(core))
        report = session.wait()
    assert report["raw_missing"] > 0
    assert report["raw_frames"] + report["raw_missing"] == 400
    assert_in_place(stamps_of(report), first)
    assert OVERFLOWED in report["warnings"]
    assert DRAINED not in report["warnings"]


@pytest.mark.parametrize(("told_ms", "frame_ms"), [(10.0, 10.0), (1.0, 1.0), (0.0, 512 * 0.005)])
def test_the_buffer_holds_two_seconds_also_of_a_camera_that_tells_no_exposure(
    demo_core: CMMCorePlus, told_ms: float, frame_ms: float
) -> None:
    demo_core.setProperty("Camera", "OnCameraCCDXSize", 512)
    demo_core.setProperty("Camera", "OnCameraCCDYSize", 512)
    demo_core.setExposure(told_ms)
    assert demo_core.getExposure() == told_ms
    demo_core.setCircularBufferMemoryFootprint(1)
    prepare_buffer(demo_core, "own")
    frame_mib = 512 * 512 * demo_core.getBytesPerPixel() / 2**20
    wanted = frame_mib * 2000 / frame_ms
    assert wanted <= demo_core.getCircularBufferMemoryFootprint() < wanted + 2


def test_that_the_buffer_was_full_before_a_run_says_nothing_of_the_run(
    small_buffer_core: CMMCorePlus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """UniMMCore remembers until the camera is started anew, and a run may join it before."""
    core = small_buffer_core

    def fill() -> None:
        core.setCircularBufferMemoryFootprint(8)  # 1024 frames, a second
        core.startContinuousSequenceAcquisition()
        until(core.isBufferOverflowed)

    def joined(name: str, until_then: Callable[[Any], bool]) -> Any:
        with LiveSR(
            core, rig="virtual_sim", live="own", store=tmp_path / name, engine="none"
        ) as session:
            until(lambda: until_then(session.status()))
            core.stopSequenceAcquisition()
            return session.wait()

    fill()
    report = joined("kept.ome.zarr", lambda status: status["raw_frames"] > 50)
    assert report["raw_missing"] == 0
    assert not {OVERFLOWED, DRAINED, FULL_BEFORE} & set(report["warnings"])

    fill()
    slow_poller(core, monkeypatch, waiting=0, pop_s=0.004)
    report = joined("lost.ome.zarr", lambda status: status["raw_missing"] > 0)
    monkeypatch.undo()
    assert FULL_BEFORE in report["warnings"]
    assert not {OVERFLOWED, DRAINED} & set(report["warnings"])

    fill()
    core.stopSequenceAcquisition()
    assert core.isBufferOverflowed()
    with LiveSR(
        core, rig="virtual_sim", live="own", store=tmp_path / "anew.ome.zarr", engine="none"
    ) as session:
        core.startSequenceAcquisition(90, 0, False)
        until(lambda: not camera_runs(core))
        report = session.wait()
    assert (report["raw_frames"], report["raw_missing"]) == (90, 0)
    assert not {OVERFLOWED, DRAINED, FULL_BEFORE} & set(report["warnings"])


def test_a_start_that_cannot_become_a_run_leaves_the_camera_alone(demo_core: CMMCorePlus) -> None:
    session = LiveSR(demo_core, rig="demo", engine="none", live="own")

    def acquire() -> None:
        with session:
            demo_core.setProperty("Emission", "State", 5)  # no channel of the rig
            with live(demo_core):
                assert demo_core.isSequenceRunning()
                assert session.status() == {}

    try:
        with pytest.raises(ConfigError, match="set one of them before the camera starts"):
            acquire()
    finally:
        demo_core.setConfig("Channel", "488")


def test_another_objective_while_the_camera_runs_is_said(demo_core: CMMCorePlus) -> None:
    """A region or a binning needs a camera that stands; a turret turns whenever it is told to."""
    labels = demo_core.getStateLabels("Objective")
    try:
        with LiveSR(demo_core, rig="demo", live="own", engine="none") as session, live(demo_core):
            frames(session, 5)
            demo_core.setStateLabel("Objective", labels[2])
            until(lambda: any("pixel size was" in w for w in session.status()["warnings"]))
        (said,) = (w for w in session.report["warnings"] if "pixel size was" in w)
        assert said.startswith("Micro-Manager's pixel size was 65 nm, and is unknown from")
        assert "stop the camera and start it again" in said
    finally:
        demo_core.setStateLabel("Objective", labels[0])


@pytest.mark.parametrize("described", [("488", "561"), ("488",)])
def test_light_of_another_channel_than_the_run_is_called_is_said(
    described: tuple[str, ...], demo_core: CMMCorePlus
) -> None:
    rig = load_rig("demo")
    rig = rig.model_copy(update={"channels": {name: rig.channels[name] for name in described}})
    demo_core.setConfig("Channel", "488")
    with LiveSR(demo_core, rig=rig, live="own", engine="none") as session:
        with live(demo_core):
            frames(session, 5)
            demo_core.setConfig("Channel", "488")  # is set already
            assert not preset_warnings(session.status())
            demo_core.setConfig("Channel", "561")
            demo_core.setConfig("Channel", "488")
        first, again = preset_warnings(session.wait())
        assert first.startswith("Preset 561 is set from time point ")
        assert "called 488" in first
        assert " on, again." in again
        demo_core.setConfig("Channel", "561")
        with live(demo_core):
            frames(session, 5)
        said = preset_warnings(session.wait())
        if described == ("488",):  # the only channel, whatever is set
            assert [s for s in said if s.startswith("Preset 561 is set from time point 0 on.")]
        else:
            assert not said  # the run is called 561
    demo_core.setConfig("Channel", "488")


def test_two_sessions_do_not_share_the_frames_of_a_live_view(demo_core: CMMCorePlus) -> None:
    with LiveSR(demo_core, rig="demo", live="own", engine="none"):
        other = LiveSR(demo_core, rig="demo", live="own", engine="none")
        with pytest.raises(ConfigError, match="Another LiveSR takes every frame"):
            other.__enter__()
        with LiveSR(demo_core, rig="demo", engine="none"):  # MDAs are for both
            pass
    with other:
        pass


def preset_warnings(told: Any) -> list[str]:
    return [w for w in told["warnings"] if w.startswith("Preset")]


def test_without_live_mode_a_running_camera_is_left_alone_and_that_is_said(
    demo_core: CMMCorePlus, caplog: pytest.LogCaptureFixture
) -> None:
    with LiveSR(demo_core, rig="demo", engine="none") as session:
        for _ in range(2):
            with live(demo_core):
                until(lambda: demo_core.getRemainingImageCount() > 5)
    assert session.report == {}
    said = [
        r
        for r in caplog.records
        if r.levelno == logging.WARNING and "live mode is off" in r.message
    ]
    assert len(said) == 1


@given(st.integers(1, 12), st.lists(st.integers(0, 400), min_size=1, max_size=30), st.booleans())
def test_the_phase_is_the_number_whatever_is_missing(
    n_raw: int, numbers: list[int], joined: bool
) -> None:
    numbering = Numbering(n_raw, joined=joined)
    places = [numbering.place(number) for number in numbers]
    assert [place % n_raw for place in places] == [number % n_raw for number in numbers]
    assert all(a < b for a, b in pairwise(places))
    assert numbering.restarts == sum(b <= a for a, b in pairwise(numbers))
    assert places[0] < n_raw if joined else places[0] == numbers[0]


def test_a_display_that_began_elsewhere_is_said(sim_core: CMMCorePlus, tmp_path: Path) -> None:
    rig = load_rig("virtual_sim")
    order = SIMConfig.of(rig).raw_order()
    wrong = rig.with_section(SIMConfig.of(rig).model_copy(update={"order": order[2:] + order[:2]}))
    for expected, described in (
        (None, rig),
        ("rotated by 7 of 9: raw frame 0 shows pattern 7", wrong),
    ):
        said: list[tuple[str, ...]] = []
        with LiveSR(sim_core, rig=described, live="own", **ENGINE) as session:
            session.frame_ready.connect(lambda frame, said=said: said.append(frame.warnings))
            with live(sim_core):
                if expected:
                    until(
                        lambda: any(
                            "rotated" in warning for warning in session.status().get("warnings", ())
                        )
                    )
                    until(
                        lambda said=said: any("rotated" in w for warnings in said for w in warnings)
                    )
                else:
                    frames(session, 90)
            report = session.wait()
        sentences = [w for w in report["warnings"] if "rotated" in w]
        assert [expected in w for w in sentences] == ([True] if expected else [])
