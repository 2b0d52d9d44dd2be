"""Acquisitions that are torn out of their loop, or begun inside of another: leaving waits for
nothing that is over, runs are not mixed, and no frame that came is lost."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import useq
import zarr
from pymmcore_plus import CMMCorePlus
from pymmcore_plus.mda import MDAEngine, SkipEvent

from livesr import LiveSR, Replay, Sink
from livesr.base.errors import FrameShapeError, RunError
from rigs import core_of


@pytest.fixture(scope="module")
def core() -> Iterator[CMMCorePlus]:
    with core_of("demo", exposure_ms=2, demo_px=32) as core:
        yield core


@pytest.fixture
def given(core: CMMCorePlus) -> Iterator[list[np.ndarray]]:
    """What the camera gave, as another listener saw it."""
    frames: list[np.ndarray] = []

    def take(image: np.ndarray, event: useq.MDAEvent, meta: dict[str, Any]) -> None:
        frames.append(image.copy())

    core.mda.events.frameReady.connect(take)
    yield frames
    core.mda.events.frameReady.disconnect(take)


def live(core: CMMCorePlus, store: Path | None = None, **settings: Any) -> LiveSR:
    return LiveSR(core, rig="demo", engine="none", store=store, **settings)


def events(n: int, torn: bool = False) -> Iterator[useq.MDAEvent]:
    for t in range(n):
        yield useq.MDAEvent(index={"t": t}, channel="488")
    if torn:
        raise KeyboardInterrupt


def lapse(n: int, interval_s: float = 0.0) -> useq.MDASequence:
    return useq.MDASequence(
        time_plan=useq.TIntervalLoops(interval=interval_s, loops=n), channels=["488"]
    )


def raw(report: dict[str, Any]) -> np.ndarray:
    group = zarr.open_group(report["store"], mode="r")
    (name,) = [name for name in group if name.startswith("raw")]
    return group[f"{name}/0"][:, 0]


@pytest.mark.parametrize("plan_given", [True, False])
def test_who_catches_ctrl_c_inside_the_block_leaves_it(
    core: CMMCorePlus, tmp_path: Path, given: list[np.ndarray], plan_given: bool
) -> None:
    settings = {"plan": lapse(3)} if plan_given else {}
    with live(core, tmp_path / "r.ome.zarr", **settings) as session:
        with pytest.raises(KeyboardInterrupt):
            core.mda.run(events(3, torn=True))
        assert core.mda.is_running()  # so it says, for good
    report = session.report
    assert report["raw_frames"] == report["raw_stored"] == 3
    assert np.array_equal(raw(report), given)
    assert any(w.startswith("The acquisition was broken off") for w in report["warnings"])


def test_the_run_after_one_that_was_broken_off_has_its_own_store(
    core: CMMCorePlus, tmp_path: Path, given: list[np.ndarray]
) -> None:
    reports: list[dict[str, Any]] = []
    with live(core, tmp_path / "r.ome.zarr") as session:
        session.finished.connect(reports.append)
        with pytest.raises(KeyboardInterrupt):
            core.mda.run(events(3, torn=True))
        core.mda.run(lapse(5))
    assert [r["raw_repeated"] for r in reports] == [0, 0]
    assert len({r["store"] for r in reports}) == 2
    first, second = map(raw, reports)
    assert np.array_equal(np.concatenate([first, second])[: len(given)], given)


def test_a_block_after_an_acquisition_that_was_broken_off_is_left(core: CMMCorePlus) -> None:
    with pytest.raises(KeyboardInterrupt):
        core.mda.run(events(1, torn=True))
    with live(core) as session:
        assert core.mda.status.phase != "idle"
    assert session.report == {}


def test_what_waits_in_the_buffer_of_a_sequence_that_was_broken_off_is_taken(
    core: CMMCorePlus, tmp_path: Path
) -> None:
    def tear(image: np.ndarray, event: useq.MDAEvent, meta: dict[str, Any]) -> None:
        while core.isSequenceRunning():
            time.sleep(0.001)
        raise KeyboardInterrupt

    with live(core, tmp_path / "r.ome.zarr") as session:
        core.mda.events.frameReady.connect(tear)
        try:
            with pytest.raises(KeyboardInterrupt):
                core.mda.run(lapse(6))
        finally:
            core.mda.events.frameReady.disconnect(tear)
    assert session.report["raw_frames"] == session.report["raw_stored"] == 6
    assert len({image.tobytes() for image in raw(session.report)}) == 6


@pytest.mark.parametrize("another_thread", [True, False])
def test_a_run_begun_inside_of_another_is_refused_and_the_first_is_whole(
    core: CMMCorePlus, tmp_path: Path, given: list[np.ndarray], another_thread: bool
) -> None:
    begun: list[int] = []

    def begin(image: np.ndarray, event: useq.MDAEvent, meta: dict[str, Any]) -> None:
        if begun:
            return
        begun.append(1)
        if another_thread:
            thread = threading.Thread(target=core.mda.run, args=(lapse(4),))
            thread.start()
            thread.join()
        else:
            core.mda.run(lapse(4))

    def acquire() -> None:
        with live(core, tmp_path / "r.ome.zarr") as session:
            sessions.append(session)
            core.mda.run(lapse(10, 0.001))

    sessions: list[LiveSR] = []
    core.mda.events.frameReady.connect(begin)
    try:
        with pytest.raises(RunError, match="while another one on the same core was under way"):
            acquire()
    finally:
        core.mda.events.frameReady.disconnect(begin)
    report = sessions[0].report
    assert report["raw_frames"] == report["raw_stored"] == len(given) == 10
    assert np.array_equal(raw(report), given)
    assert any("was refused" in w for w in report["warnings"])


def test_leaving_from_inside_of_the_acquisition_waits_for_nothing(core: CMMCorePlus) -> None:
    def leave(image: np.ndarray, event: useq.MDAEvent, meta: dict[str, Any]) -> None:
        session.__exit__(None, None, None)
        core.mda.events.frameReady.disconnect(leave)

    session = live(core)
    with session:
        core.mda.events.frameReady.connect(leave)
        core.mda.run(lapse(50, 0.005))
    assert 1 <= session.report["raw_frames"] < 50


class Interrupting(Sink):
    """As if Ctrl-C were pressed while a run opens; each time that it is opened while it may."""

    name = "interrupting"

    def __init__(self) -> None:
        self.may = True

    def open(self, run: Any) -> None:
        if self.may:
            signal.raise_signal(signal.SIGINT)
            time.sleep(0.05)


@pytest.fixture
def answered() -> Iterator[None]:
    """Python's own answer to Ctrl-C, which a program in the background of a shell has not."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize("when", ["entered", "started", "replayed"])
def test_ctrl_c_while_a_run_opens_leaves_nothing_open(
    core: CMMCorePlus, tmp_path: Path, when: str, answered: None
) -> None:
    with live(core, tmp_path / "recorded.ome.zarr") as recorded:
        core.mda.run(lapse(3))
    store, sink = tmp_path / "r.ome.zarr", Interrupting()
    settings: dict[str, Any] = {"store": store, "sinks": [sink]}

    def go() -> None:
        if when == "replayed":
            with Replay(recorded.store, rate="max", **settings):
                pass
        elif when == "entered":
            with live(core, plan=lapse(3), **settings):
                pass
        else:
            with live(core, **settings):
                core.mda.run(lapse(3))

    with pytest.raises(KeyboardInterrupt):
        go()
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert (store / "livesr" / "report.json").exists()
    sink.may = False
    with live(core, **settings) as session:
        core.mda.run(lapse(3))
    assert session.report["raw_stored"] == 3


class Skips(MDAEngine):
    """Leaves out time point 2, as an engine that waits for something may."""

    def setup_event(self, event: Any) -> None:
        if event.index.get("t") == 2:
            raise SkipEvent(num_frames=1)
        super().setup_event(event)


class Fails(MDAEngine):
    """Sets up, and then has no picture of time point 2, as with a camera that fails."""

    def setup_event(self, event: Any) -> None:
        super().setup_event(event)

    def exec_event(self, event: Any) -> Any:
        if event.index.get("t") != 2:
            yield from super().exec_event(event)


@pytest.fixture
def engine(core: CMMCorePlus) -> Iterator[Callable[[type[MDAEngine]], None]]:
    own = core.mda.engine
    yield lambda kind: core.mda.set_engine(kind(core))
    core.mda.set_engine(own)


def test_what_an_engine_skips_is_no_failure(
    core: CMMCorePlus, tmp_path: Path, engine: Callable[[type[MDAEngine]], None]
) -> None:
    engine(Skips)
    with live(core, tmp_path / "r.ome.zarr") as session:
        core.mda.run(lapse(6, 0.001))
    report = session.report
    assert (report["error"], report["raw_stored"], report["raw_missing"]) == (None, 5, 1)
    assert any("engine skipped 1 exposure (" in w for w in report["warnings"])
    assert [bool(image.any()) for image in raw(report)] == [True, True, False, True, True, True]


def test_what_a_camera_of_an_own_engine_does_not_deliver_is_a_failure(
    core: CMMCorePlus, tmp_path: Path, engine: Callable[[type[MDAEngine]], None]
) -> None:
    engine(Fails)
    with (
        pytest.raises(RunError, match="The camera delivered 5 of 6 frames"),
        live(core, tmp_path / "r.ome.zarr"),
    ):
        core.mda.run(lapse(6, 0.001))


def test_a_plan_that_raises_is_in_the_report_and_raised_as_it_is(
    core: CMMCorePlus, tmp_path: Path
) -> None:
    def plan() -> Iterator[useq.MDAEvent]:
        yield from events(3)
        raise ValueError("mine")

    session = live(core, tmp_path / "r.ome.zarr")
    with pytest.raises(ValueError, match="mine"), session:
        core.mda.run(plan())
    assert session.report["raw_stored"] == 3
    assert session.report["error"].startswith(
        "The acquisition broke off with an error after frame 3"
    )


def test_live_mode_behind_an_acquisition_that_was_broken_off_is_a_run(
    core: CMMCorePlus, tmp_path: Path, given: list[np.ndarray]
) -> None:
    reports: list[dict[str, Any]] = []
    with live(core, tmp_path / "r.ome.zarr", live="own") as session:
        session.finished.connect(reports.append)
        with pytest.raises(KeyboardInterrupt):
            core.mda.run(events(3, torn=True))
        core.startContinuousSequenceAcquisition()
        while core.isSequenceRunning() and session.status().get("raw_frames", 0) < 5:
            time.sleep(0.01)
        core.stopSequenceAcquisition()
        session.wait()
    assert np.array_equal(raw(reports[0]), given)
    assert len(given) == 3
    assert reports[1]["raw_frames"] == reports[1]["raw_stored"] >= 5


@pytest.mark.parametrize("mode", ["own", "off"])
def test_ctrl_c_in_live_mode_stops_the_camera(core: CMMCorePlus, mode: str) -> None:
    session = live(core, live=mode)

    def watch() -> None:
        core.startContinuousSequenceAcquisition()
        while mode == "own" and not session.status().get("raw_frames"):
            time.sleep(0.01)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), session:
        watch()
    assert not core.isSequenceRunning()
    assert bool(session.report) is (mode == "own")


def test_each_block_has_its_own_error(core: CMMCorePlus, caplog: pytest.LogCaptureFixture) -> None:
    session = live(core)
    with pytest.raises(FrameShapeError), session:
        core.mda.run([useq.MDAEvent()])
    assert isinstance(session.error, FrameShapeError)
    with session:
        core.mda.run(lapse(2))
    assert (session.error, session.report["raw_frames"]) == (None, 2)
    with session:
        pass
    assert "Nothing was acquired" in caplog.text


def test_the_plan_of_another_run_does_not_describe_the_next(
    core: CMMCorePlus, tmp_path: Path
) -> None:
    reports: list[dict[str, Any]] = []
    stack = useq.MDASequence(channels=["561"], z_plan=useq.ZRangeAround(range=2, step=1))
    with live(core, tmp_path / "r.ome.zarr", plan=lapse(3)) as session:
        session.finished.connect(reports.append)
        core.mda.run(lapse(3))
        core.mda.run(stack)
        core.mda.run(lapse(2))
    assert [r["raw_stored"] for r in reports] == [3, 3, 2]
    assert raw(reports[1]).shape == (1, 3, 32, 32)
