"""What breaks around a run must not break the run.

Each fault of docs/reliability.md that no other test makes.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import useq
import zarr
from pymmcore_plus import CMMCorePlus

from livesr import LiveSR
from livesr.base.compute import ComputeConfig
from livesr.base.config import load_rig
from livesr.base.errors import FrameShapeError, RunError, UsageError
from livesr.base.timing import now_ns
from livesr.formats.store import RecordedStore
from livesr.live.inference.engine import Engine
from livesr.live.inference.openvino import OpenVINOSession
from livesr.live.pipeline import Pipeline
from livesr.live.sinks.ome_zarr import OMEZarrSink
from livesr.live.sinks.sink import Sink
from livesr.live.sources.plan import sim_sequence
from livesr.modalities.sim.raw_order import RawOrderCheck
from livesr.store.process import process
from livesr.store.raw_input import store_input
from recorded_runs import Live, array, lines, mixing_engine, moving_groups, sim_rig
from rigs import core_of, virtual_sim
from waiting import until

MONITOR_S = 1.2  # longer than the monitor sleeps


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Engine:
    return mixing_engine(tmp_path_factory.mktemp("engines") / "mixing")


@pytest.fixture(scope="module")
def demo_core() -> Iterator[CMMCorePlus]:
    with core_of("demo", exposure_ms=2, demo_px=64) as core:
        yield core


class Listener(Sink):
    """Keeps every state of the run; `fails` names the call in which it raises."""

    def __init__(self, name: str = "listener", fails: str = "") -> None:
        self.name, self._fails = name, fails
        self.states: list[Mapping[str, Any]] = []

    def status(self, status: Mapping[str, Any]) -> None:
        if self._fails == "status":
            raise ValueError("no status")
        self.states.append(status)


def failing(*_: Any, **__: Any) -> Any:
    raise RuntimeError("broken on purpose")


# -- the network -----------------------------------------------------------------------------------


def test_a_network_without_memory_goes_on_with_another_runtime(
    engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every frame is separated, raw is complete, and each frame since then says what made it."""
    pytest.importorskip("torch")
    infer, calls = OpenVINOSession.infer, []

    def short(self: OpenVINOSession) -> Any:
        calls.append(1)
        if len(calls) > 3:
            raise MemoryError("std::bad_alloc")
        return infer(self)

    groups = moving_groups(8)
    whole = Live(sim_rig(str(engine.folder)), tmp_path / "whole.ome.zarr")
    whole.record(groups)
    live = Live(sim_rig(str(engine.folder)), tmp_path / "short.ome.zarr", backend="auto")
    monkeypatch.setattr(OpenVINOSession, "infer", short)
    report = live.record(groups)
    assert (
        report["raw_lost"],
        report["recon_frames"],
        report["sr_frames"],
        report["sr_failed"],
    ) == (0, 8, 8, 0)
    assert report["error"] is None
    assert list(report["backend"].values()) == ["torch"]
    assert [line.split()[0] for line in report["computes"].values()] == ["torch"]
    sentence = "runs on torch since openvino failed (MemoryError: std::bad_alloc)"
    assert any(sentence in w for w in report["warnings"])
    said = {
        t: any(sentence in w for w in line["warnings"])
        for (_, t), line in lines(live.sink.path, "sr").items()
    }
    assert said == {t: t >= 3 for t in range(8)}
    np.testing.assert_allclose(
        array(live.sink.path, "sr").astype(int), array(whole.sink.path, "sr").astype(int), atol=1
    )


def test_a_network_that_fails_everywhere_leaves_raw_and_measurement(
    engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    live = Live(sim_rig(str(engine.folder)), tmp_path / "run.ome.zarr")  # openvino by name
    monkeypatch.setattr(OpenVINOSession, "infer", failing)
    groups = moving_groups(5)
    report = live.record(groups)
    assert (report["recon_frames"], report["sr_frames"], report["sr_failed"]) == (5, 0, 5)
    assert any("broken on purpose" in w for w in report["warnings"])
    np.testing.assert_array_equal(array(live.sink.path, "raw"), groups)
    assert not array(live.sink.path, "sr").any()
    events = [
        json.loads(line)
        for line in (live.sink.path / "livesr" / "frames.jsonl").read_text().splitlines()
    ]
    skipped = {e["t"]: e["reason"] for e in events if e["state"] == "skipped"}
    assert skipped.keys() == set(range(5))
    assert all("broken on purpose" in reason for reason in skipped.values())


def test_a_network_that_gives_no_numbers_says_so(
    engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    infer = OpenVINOSession.infer

    def nowhere(self: OpenVINOSession) -> Any:
        output = infer(self).copy()
        output[0] = np.nan
        return output

    live = Live(sim_rig(str(engine.folder)), tmp_path / "run.ome.zarr")
    monkeypatch.setattr(OpenVINOSession, "infer", nowhere)
    report = live.record(moving_groups(4))
    assert (report["sr_frames"], report["error"]) == (4, None)
    assert not array(live.sink.path, "sr")[:, 0].any()
    assert array(live.sink.path, "sr")[:, 1].any()
    assert all(
        any("no numbers" in w for w in line["warnings"])
        for line in lines(live.sink.path, "sr").values()
    )


# -- what watches over the run ---------------------------------------------------------------------


@pytest.mark.parametrize("broken", ["raw order", "state", "free space", "another sink"])
def test_the_state_of_a_run_is_told_whatever_else_fails(
    engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, broken: str
) -> None:
    listener, other = (
        Listener(),
        Listener("other", fails="status" if broken == "another sink" else ""),
    )
    live = Live(sim_rig(str(engine.folder)), tmp_path / "run.ome.zarr", sinks=[other, listener])
    if broken == "raw order":
        monkeypatch.setattr(RawOrderCheck, "look", failing)
    elif broken == "free space":
        unknown = property(failing, lambda self, free: None)
        monkeypatch.setattr(OMEZarrSink, "free_bytes", unknown, raising=False)
    elif broken == "state":
        monkeypatch.setattr(type(live.pipeline.hook), "waiting", property(failing))
        monkeypatch.setattr(Pipeline, "report", lambda self: {"warnings": self._run.state.warnings})
    report = live.record(moving_groups(3), pace_s=lambda t: MONITOR_S if t == 1 else 0.0)
    assert len(listener.states) >= 1
    words = {
        "raw order": "Looking at the raw order failed",
        "another sink": "Sink 'other' failed in status",
    }
    words |= {
        "state": "Taking the state of the run failed",
        "free space": "Looking at the free space failed",
    }
    assert any(words[broken] in w for w in report["warnings"])
    assert array(live.sink.path, "raw").shape[0] == array(live.sink.path, "sr").shape[0] == 3


def test_a_camera_that_cannot_be_stopped_does_not_hold_up_the_end(
    engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    live = Live(sim_rig(str(engine.folder)), tmp_path / "run.ome.zarr", on_stop=failing)
    monkeypatch.setattr(
        live.sink,
        "recon",
        lambda frame: (_ for _ in ()).throw(OSError(30, "Read-only file system")),
    )
    report = live.record(moving_groups(4))
    assert "Read-only file system" in report["error"]
    assert any(
        "Stopping the camera failed: RuntimeError: broken on purpose" in w
        for w in report["warnings"]
    )


def test_an_end_that_fails_is_an_error_and_a_report(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = sim_sequence(2, ["488"])

    def acquire(core: CMMCorePlus) -> None:
        with LiveSR(
            core, rig="virtual_sim", plan=plan, engine="none", store=tmp_path / "r.ome.zarr"
        ) as session:
            sessions.append(session)
            join = session._pipeline.join
            monkeypatch.setattr(session._pipeline, "join", lambda about: (join(about), failing()))
            core.mda.run(plan)

    sessions: list[LiveSR] = []
    with (
        virtual_sim() as core,
        pytest.raises(RunError, match="did not end as it should: RuntimeError: broken on purp"),
    ):
        acquire(core)
    assert "broken on purpose" in sessions[0].report["error"]
    assert sessions[0].report["raw_frames"] == 18


# -- the disk --------------------------------------------------------------------------------------


@pytest.fixture
def read_only(tmp_path: Path) -> Iterator[Path]:
    """A disk that is mounted read-only."""
    place = tmp_path / "disk"
    place.mkdir()
    if not sys.platform.startswith("linux") or os.geteuid() != 0 or not shutil.which("mount"):
        pytest.skip("only root on Linux can mount a disk")
    mount = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "ro", "tmpfs", str(place)], capture_output=True, check=False
    )
    if mount.returncode:
        pytest.skip("mounting is not allowed here")
    yield place
    subprocess.run(["umount", str(place)], check=True)


def test_a_read_only_disk_is_refused_before_anything_starts(
    demo_core: CMMCorePlus, read_only: Path
) -> None:
    plan = useq.MDASequence(time_plan=useq.TIntervalLoops(interval=0, loops=3), channels=["488"])
    session = LiveSR(
        demo_core, rig="demo", plan=plan, engine="none", store=read_only / "r.ome.zarr"
    )
    with pytest.raises(UsageError, match="Read-only file system"), session:
        pytest.fail("the session was opened")


# -- the clock -------------------------------------------------------------------------------------


def test_a_clock_that_jumps_moves_no_time_stamp(
    engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The computer's clock is set back by a day in the middle of a run, and forward by two."""
    began_ns, shift_s = now_ns(), [0.0]
    clocks = {"time": time.time, "time_ns": time.time_ns}
    monkeypatch.setattr(time, "time", lambda: clocks["time"]() + shift_s[0])
    monkeypatch.setattr(time, "time_ns", lambda: clocks["time_ns"]() + int(shift_s[0] * 1e9))

    def pace_s(t: int) -> float:
        shift_s[0] = {1: -86400.0, 3: 172800.0}.get(t, shift_s[0])
        return 0.01

    live = Live(sim_rig(str(engine.folder)), tmp_path / "run.ome.zarr")
    report = live.record(moving_groups(6), pace_s=pace_s)
    times = [line["t_acq_ns"] for _, line in sorted(lines(live.sink.path, "sr").items())]
    assert times == sorted(set(times))
    assert began_ns < times[0] < times[-1] < began_ns + 120e9
    assert 0 < report["latency_ms"]["p99"] < 120e3


# -- the camera ------------------------------------------------------------------------------------


def test_a_camera_whose_buffer_overflows_is_an_error_and_what_came_is_kept(
    demo_core: CMMCorePlus, tmp_path: Path
) -> None:
    """Another listener of the acquisition is too slow; the core's buffer holds 1 MiB."""
    plan = useq.MDASequence(time_plan=useq.TIntervalLoops(interval=0, loops=900), channels=["488"])
    footprint = demo_core.getCircularBufferMemoryFootprint()
    slow = threading.Event()

    def listen(image: Any, event: Any, meta: Any) -> None:
        slow.wait(0.02)

    def acquire() -> None:
        with LiveSR(demo_core, rig="demo", plan=plan, engine="none", store=tmp_path / "o.ome.zarr"):
            demo_core.mda.run(plan)

    demo_core.setCircularBufferMemoryFootprint(1)
    demo_core.mda.events.frameReady.connect(listen)
    try:
        with pytest.raises(
            MemoryError, match="Buffer overflowed"
        ):  # the core's own error, which says most, comes first
            acquire()
    finally:
        demo_core.mda.events.frameReady.disconnect(listen)
        demo_core.setCircularBufferMemoryFootprint(footprint)
    report = json.loads((tmp_path / "o.ome.zarr" / "livesr" / "report.json").read_text())
    stored = zarr.open_group(tmp_path / "o.ome.zarr", mode="r")["raw/0"].shape[0]
    assert 0 < stored == report["raw_frames"] < 900
    assert report["raw_missing"] == 900 - stored
    assert report["latency_ms"] == {"p50": None, "p99": None, "mean": None}  # no frame, no number
    assert report["error"].startswith(f"The camera delivered {stored} of 900 frames")


@pytest.mark.parametrize(
    ("change", "back", "came"),
    [
        (("Binning", "2"), ("Binning", "1"), "32x32 uint16"),
        (("PixelType", "8bit"), ("PixelType", "16bit"), "64x64 uint8"),
    ],
)
def test_another_binning_or_pixel_type_ends_the_run_and_keeps_the_frames(
    demo_core: CMMCorePlus,
    tmp_path: Path,
    change: tuple[str, str],
    back: tuple[str, str],
    came: str,
) -> None:
    def acquire() -> None:
        events = [useq.MDAEvent(index={"t": t}, channel="488") for t in range(6)]
        with LiveSR(demo_core, rig="demo", engine="none", store=tmp_path / "c.ome.zarr"):
            demo_core.mda.run(changing(events))

    def changing(events: list[useq.MDAEvent]) -> Iterator[useq.MDAEvent]:
        for event in events:
            if event.index["t"] == 3:
                demo_core.setProperty("Camera", *change)
            yield event

    demo_core.setProperty("Camera", *back)
    try:
        with pytest.raises(
            FrameShapeError, match=f"A frame of {came} came in a run of 64x64 uint16"
        ):
            acquire()
    finally:
        demo_core.setProperty("Camera", *back)
    report = json.loads((tmp_path / "c.ome.zarr" / "livesr" / "report.json").read_text())
    strays = list((tmp_path / "c.ome.zarr" / "livesr" / "strays").iterdir())
    stored = zarr.open_group(tmp_path / "c.ome.zarr", mode="r")["raw_0_488/0"].shape[0]
    assert report["raw_frames"] == stored + len(strays)
    assert report["raw_unplaced"] == len(strays) >= 1


def test_another_exposure_is_said_and_no_prediction_looks_across(
    demo_core: CMMCorePlus, tmp_path: Path
) -> None:
    rig = load_rig("demo")
    rig = rig.model_copy(update={"channels": {"488": rig.channels["488"]}})
    events = [
        useq.MDAEvent(index={"t": t}, channel="488", exposure=2 if t < 3 else 5) for t in range(6)
    ]
    how: dict[str, Any] = {
        "engine": "identity",
        "threads": 1,
        "policy": "complete",
        "store": tmp_path / "e.ome.zarr",
    }
    with LiveSR(demo_core, rig=rig, **how) as session:
        demo_core.mda.run(events)
    assert session.report["sr_frames"] == 6
    said = [w for w in session.report["warnings"] if "exposure" in w]
    assert len(said) == 1
    assert "from 2 to 5 ms at time point 3" in said[0]
    assert session.store is not None
    raw = lines(session.store, "raw")
    assert {t: line["exposure_ms"] for (_, t), line in raw.items()} == {
        t: 2 if t < 3 else 5 for t in range(6)
    }
    alone = {t: not line["true_neighbours"] for (_, t), line in lines(session.store, "sr").items()}
    assert alone == {t: t in (2, 3) for t in range(6)}
    process(
        store_input(RecordedStore(session.store)),
        tmp_path / "again.ome.zarr",
        compute=ComputeConfig(threads=1),
    )
    again = lines(tmp_path / "again.ome.zarr", "sr")
    assert {t: not line["true_neighbours"] for (_, t), line in again.items()} == alone
    np.testing.assert_array_equal(
        array(session.store, "sr"), array(tmp_path / "again.ome.zarr", "sr")
    )


def test_another_exposure_is_noticed_in_live_mode(demo_core: CMMCorePlus) -> None:
    rig = load_rig("demo")
    rig = rig.model_copy(update={"channels": {"488": rig.channels["488"]}})

    def received(number: int) -> None:
        until(lambda: session.status().get("raw_frames", 0) >= number, every_s=0.005)

    with LiveSR(demo_core, rig=rig, engine="none", live="own") as session:
        demo_core.setExposure(2)
        demo_core.startContinuousSequenceAcquisition()
        received(3)
        demo_core.setExposure(5)
        received(session.status()["raw_frames"] + 3)
        demo_core.stopSequenceAcquisition()
        report = session.wait()
    demo_core.setExposure(2)
    assert any("changed from 2 to 5 ms" in w for w in report["warnings"])


# -- listeners -------------------------------------------------------------------------------------


def test_a_listener_that_hangs_is_named(
    demo_core: CMMCorePlus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of frames, and of the end of the run.

    The run is complete, its report says who does not come back.
    """
    monkeypatch.setattr("livesr.live.session._LISTENER_PATIENCE_S", 0.2)
    monkeypatch.setattr("livesr.live.sinks.thread._PATIENCE_S", 0.2)
    go_on = threading.Event()

    def waits_for_a_frame(frame: object) -> None:
        go_on.wait(600)

    def waits_for_the_end(report: object) -> None:
        go_on.wait(600)

    events = [useq.MDAEvent(index={"t": t}, channel="488") for t in range(3)]
    try:
        with LiveSR(demo_core, rig="demo", engine="none", store=tmp_path / "h.ome.zarr") as session:
            session.input_ready.connect(waits_for_a_frame)
            session.finished.connect(waits_for_the_end)
            demo_core.mda.run(events)
        assert session.store is not None
        stored = json.loads((session.store / "livesr" / "report.json").read_text())
        assert (stored["raw_frames"], stored["raw_lost"], stored["error"]) == (3, 0, None)
        assert any("waits_for_a_frame (test_faults.py" in w for w in stored["warnings"])
        assert any("waits_for_the_end (test_faults.py" in w for w in session.report["warnings"])
        assert session.wait() is session.report  # nor does who asks again wait for it
    finally:
        go_on.set()


# -- two runs --------------------------------------------------------------------------------------


def test_runs_that_start_together_get_a_store_each(tmp_path: Path) -> None:
    from contracts import describe, raw_stack

    def record(_: int) -> Path:
        sink = OMEZarrSink(tmp_path / "same.ome.zarr")
        sink.open(describe())
        sink.raw(raw_stack(0))
        sink.close({})
        return sink.path

    with ThreadPoolExecutor(4) as pool:
        paths = list(pool.map(record, range(4)))
    assert len(set(paths)) == 4
    assert all(array(path, "raw").shape[0] == 1 for path in paths)


# -- scripts ---------------------------------------------------------------------------------------

_NEVER_LEAVES = """
import sys
from livesr import LiveSR
from livesr.live.sources.plan import sim_sequence
from rigs import virtual_sim

with virtual_sim() as core:
    plan = sim_sequence(3, ["488"])
    session = LiveSR(core, rig="virtual_sim", engine="none", store=sys.argv[1], plan=plan)
    session.__enter__()
    core.mda.run(plan)
    raise RuntimeError("in the middle of the script")
"""


def test_a_script_that_never_leaves_its_block_gets_a_whole_store(tmp_path: Path) -> None:
    store = tmp_path / "left.ome.zarr"
    done = subprocess.run(
        [sys.executable, "-c", _NEVER_LEAVES, store],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.stderr.splitlines()[-1] == "RuntimeError: in the middle of the script"
    report = json.loads((store / "livesr" / "report.json").read_text())
    assert (report["raw_frames"], report["raw_stored"], report["raw_lost"], report["error"]) == (
        27,
        27,
        0,
        None,
    )
    assert np.asarray(array(store, "raw")).shape[0] == 3
