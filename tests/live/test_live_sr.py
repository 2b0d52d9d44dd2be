"""`LiveSR` on real cores.

What the camera exposed is what the store, the stream and the signals hold.
"""

from __future__ import annotations

import json
import logging
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import useq
import useq.v2 as v2
import zarr
from pymmcore_plus import CMMCorePlus

from livesr import LiveSR
from livesr.base.errors import (
    BacklogError,
    BindError,
    ConfigError,
    EngineError,
    FrameShapeError,
    RecordingError,
    RunError,
)
from livesr.base.frames import MulticolorFrame, SRFrame
from livesr.live.sources.plan import SIMAxis, sim_sequence
from livesr.viewer.subscriber import Subscriber
from rig_copies import rig_with
from rigs import SIZE, core_of, virtual_sim

ENGINE = {"engine": "identity", "threads": 1}


@pytest.fixture(scope="module")
def sim_core() -> Iterator[CMMCorePlus]:
    with virtual_sim() as core:
        yield core


@pytest.fixture(scope="module")
def demo_core() -> Iterator[CMMCorePlus]:
    with core_of("demo", exposure_ms=2, demo_px=64) as core:
        yield core


def run(core: CMMCorePlus, plan: Any, rig: str = "virtual_sim", **settings: Any) -> LiveSR:
    """Acquire `plan` and return the finished session."""
    with LiveSR(core, rig=rig, plan=plan, **settings) as session:
        core.mda.run(plan)
    return session


def store_of(session: LiveSR) -> zarr.Group:
    assert session.store is not None
    return zarr.open_group(session.store, mode="r")


def frames_log(session: LiveSR) -> list[dict[str, Any]]:
    assert session.store is not None
    return [
        json.loads(line)
        for line in (session.store / "livesr" / "frames.jsonl").read_text().splitlines()
    ]


@pytest.mark.parametrize("triggered", [True, False])
def test_every_exposure_lands_at_its_place(
    sim_core: CMMCorePlus, tmp_path: Path, triggered: bool
) -> None:
    sim_core.mda.engine.use_hardware_sequencing = triggered
    sim_core.setProperty("Camera", "TimePoint", 0)
    plan = sim_sequence(5, ["488"])
    session = run(sim_core, plan, store=tmp_path / "run.ome.zarr", policy="complete", **ENGINE)
    sim_core.mda.engine.use_hardware_sequencing = True
    raw = store_of(session)["raw/0"][:]
    stamps = raw[..., 0, 0].astype(int)
    assert stamps.shape == (5, 9)
    np.testing.assert_array_equal(stamps, stamps[0, 0] + np.arange(45).reshape(5, 9))
    assert session.report["raw_frames"] == 45
    assert session.report["sr_frames"] == 5
    assert session.report["tc_complete"] == 1.0
    assert session.report["raw_lost"] == 0


def test_raw_recon_and_sr_are_aligned_and_agree(sim_core: CMMCorePlus, tmp_path: Path) -> None:
    plan = sim_sequence(4, ["488"])
    shown: list[MulticolorFrame] = []
    measured: list[SRFrame] = []
    with LiveSR(
        sim_core,
        rig="virtual_sim",
        plan=plan,
        store=tmp_path / "r.ome.zarr",
        policy="complete",
        **ENGINE,
    ) as session:
        session.frame_ready.connect(shown.append)
        session.input_ready.connect(measured.append)
        sim_core.mda.run(plan)
    store = store_of(session)
    assert store["raw/0"].shape == (4, 9, SIZE, SIZE)
    assert store["recon/0"].shape == (4, 2 * SIZE, 2 * SIZE)
    assert store["sr/0"].shape == (4, 3, 2 * SIZE, 2 * SIZE)
    assert [f.t for f in shown] == [f.t for f in measured] == [0, 1, 2, 3]
    for frame in shown:
        np.testing.assert_array_equal(store["sr/0"][frame.t], frame.channels)
        assert frame.residual < 2e-3  # `identity`, but at the rim
    for frame in measured:
        np.testing.assert_allclose(
            store["recon/0"][frame.t].astype(float) - 1000, frame.image, atol=0.51
        )


def test_positions_z_and_channels_of_a_plain_useq_plan_keep_apart(
    demo_core: CMMCorePlus, tmp_path: Path
) -> None:
    plan = useq.MDASequence(
        time_plan=useq.TIntervalLoops(interval=0, loops=2),
        stage_positions=[(0, 0, 0), (10, 0, 0)],
        z_plan=useq.ZRangeAround(range=2, step=1),
        channels=["488", "561"],
        axis_order="tpcz",
    )
    seen: list[np.ndarray] = []
    demo_core.mda.events.frameReady.connect(
        lambda image, event, meta: seen.append((dict(event.index), image))
    )
    try:
        session = run(demo_core, plan, rig="demo", engine="none", store=tmp_path / "many.ome.zarr")
    finally:
        demo_core.mda.events.frameReady.disconnect()
    store = store_of(session)
    names = json.loads((session.store / "OME" / "zarr.json").read_text())["attributes"]["ome"][
        "series"
    ]
    assert len([n for n in names if n.startswith("raw")]) == 4
    assert len(seen) == 24
    for index, image in seen:
        name = next(n for n in names if n == f"raw_{index['p']}_{['488', '561'][index['c']]}")
        np.testing.assert_array_equal(store[f"{name}/0"][index["t"], 0, index["z"]], image)


def test_a_plan_without_a_raw_axis_counts_raw_frames_along_time(
    sim_core: CMMCorePlus, tmp_path: Path
) -> None:
    plan = useq.MDASequence(time_plan=useq.TIntervalLoops(interval=0, loops=27), channels=["488"])
    session = run(sim_core, plan, store=tmp_path / "t.ome.zarr", **ENGINE)
    assert store_of(session)["raw/0"].shape == (3, 9, SIZE, SIZE)


def test_a_plan_in_another_order_of_axes_is_grouped_by_index(
    sim_core: CMMCorePlus, tmp_path: Path
) -> None:
    plan = v2.MDASequence(
        axes=(SIMAxis(values=list(range(8, -1, -1))), v2.TIntervalLoops(interval=0, loops=2)),
        axis_order=("t", "sim"),
    )
    session = run(sim_core, plan, store=tmp_path / "o.ome.zarr", **ENGINE)
    stamps = store_of(session)["raw/0"][:, :, 0, 0].astype(int)
    np.testing.assert_array_equal(stamps, stamps[0, 8] + np.arange(18).reshape(2, 9)[:, ::-1])


def test_several_acquisitions_in_one_session_make_a_store_each(
    sim_core: CMMCorePlus, tmp_path: Path
) -> None:
    plan = sim_sequence(3, ["488"])
    reports: list[dict[str, Any]] = []
    with LiveSR(
        sim_core, rig="virtual_sim", plan=plan, store=tmp_path / "s.ome.zarr", engine="none"
    ) as session:
        session.finished.connect(reports.append)
        sim_core.mda.run(plan)
        sim_core.mda.run(plan)
    assert [Path(r["store"]).name for r in reports] == ["s.ome.zarr", "s_2.ome.zarr"]
    assert [r["raw_frames"] for r in reports] == [27, 27]


def test_a_slow_network_skips_centres_never_neighbours(
    sim_core: CMMCorePlus, tmp_path: Path, monkeypatch: Any
) -> None:
    plan = sim_sequence(40, ["488"])
    with LiveSR(
        sim_core, rig="virtual_sim", plan=plan, store=tmp_path / "slow.ome.zarr", **ENGINE
    ) as session:
        path = session._paths["488"]
        infer = path.networks.session.infer

        def slow_infer() -> Any:
            time.sleep(0.03)  # a camera period is 9 ms
            return infer()

        monkeypatch.setattr(path.networks.session, "infer", slow_infer)
        sim_core.mda.run(plan)
    report = session.report
    assert report["sr_skipped"] > 5
    assert report["sr_frames"] + report["sr_skipped"] + report["groups_dropped"] == 40
    assert report["raw_lost"] == 0
    lines = [line for line in frames_log(session) if line["series"] == "sr"]
    predicted = [line for line in lines if line["state"] == "separated"]
    assert len(predicted) == report["sr_frames"] > 2
    if not report["groups_dropped"]:
        assert [line["t"] for line in predicted if not line["true_neighbours"]] == []
        assert {line["t"] for line in predicted if line["edge"]} <= {0, 39}
        assert report["tc_complete"] >= 0.99
    sr = store_of(session)["sr/0"]
    assert sr.shape[0] == store_of(session)["raw/0"].shape[0] == 40
    skipped = {line["t"] for line in lines if line["state"] == "skipped"}
    assert len(skipped) == report["sr_skipped"] + report["groups_dropped"]
    assert all(not sr[t].any() for t in skipped)


def test_an_engine_that_raises_ends_the_predictions_not_the_recording(
    sim_core: CMMCorePlus, tmp_path: Path, monkeypatch: Any
) -> None:
    plan = sim_sequence(6, ["488"])
    with LiveSR(
        sim_core,
        rig="virtual_sim",
        plan=plan,
        store=tmp_path / "e.ome.zarr",
        policy="complete",
        **ENGINE,
    ) as session:
        infer = session._paths["488"].networks.session.infer
        calls: list[int] = []

        def failing() -> Any:
            calls.append(1)
            if len(calls) == 3:
                raise RuntimeError("out of memory")
            return infer()

        monkeypatch.setattr(session._paths["488"].networks.session, "infer", failing)
        sim_core.mda.run(plan)
    assert session.report["sr_frames"] == 2
    assert any("out of memory" in w for w in session.report["warnings"])
    assert store_of(session)["raw/0"].shape[0] == store_of(session)["recon/0"].shape[0] == 6


def test_a_roi_that_changes_mid_run_ends_it_cleanly_and_keeps_everything(
    sim_core: CMMCorePlus, tmp_path: Path
) -> None:
    plan = sim_sequence(4, ["488"])
    sim_core.mda.engine.use_hardware_sequencing = False

    def shrink(event: useq.MDAEvent) -> None:
        if event.index["t"] == 2 and event.index["sim"] == 4:
            sim_core.setROI(0, 0, 32, 48)

    sim_core.mda.events.eventStarted.connect(shrink)
    try:
        with pytest.raises(
            FrameShapeError, match="48x32 uint16 came in a run of 64x64 uint16"
        ) as caught:
            run(sim_core, plan, store=tmp_path / "roi.ome.zarr", engine="none")
    finally:
        sim_core.mda.events.eventStarted.disconnect(shrink)
        sim_core.clearROI()
        sim_core.mda.engine.use_hardware_sequencing = True
    assert caught.value.exit_code == 1
    store = tmp_path / "roi.ome.zarr"
    report = json.loads((store / "livesr" / "report.json").read_text())
    assert "48x32" in report["error"]
    raw = zarr.open_group(store, mode="r")["raw/0"]
    kept_aside = list((store / "livesr" / "strays").iterdir())
    assert int(np.count_nonzero(raw[..., 0, 0])) + len(kept_aside) == report["raw_frames"]
    assert kept_aside


def test_raw_frames_are_kept_when_a_disk_is_slow_and_the_camera_can_wait(
    sim_core: CMMCorePlus, tmp_path: Path, monkeypatch: Any
) -> None:
    sim_core.mda.engine.use_hardware_sequencing = False
    plan = sim_sequence(8, ["488"])
    try:
        with LiveSR(
            sim_core,
            rig="virtual_sim",
            plan=plan,
            store=tmp_path / "w.ome.zarr",
            raw_queue_bytes=20 * SIZE * SIZE * 2,
            engine="none",
        ) as session:
            write = session._writer.raw
            monkeypatch.setattr(
                session._writer, "raw", lambda stack: (time.sleep(0.3), write(stack))
            )
            sim_core.mda.run(plan)
    finally:
        sim_core.mda.engine.use_hardware_sequencing = True
    assert session.report["acquisition_waits"] > 0
    assert session.report["raw_frames"] == 72
    assert np.count_nonzero(store_of(session)["raw/0"][..., 0, 0]) == 72


def test_a_triggered_run_that_overruns_its_queue_stops_with_everything_on_disk(
    sim_core: CMMCorePlus, tmp_path: Path, monkeypatch: Any
) -> None:
    plan = sim_sequence(60, ["488"])
    session = LiveSR(
        sim_core,
        rig="virtual_sim",
        plan=plan,
        store=tmp_path / "o.ome.zarr",
        raw_queue_bytes=20 * SIZE * SIZE * 2,
        engine="none",
    )

    def acquire() -> None:
        with session:
            write = session._writer.raw
            monkeypatch.setattr(
                session._writer, "raw", lambda stack: (time.sleep(0.2), write(stack))
            )
            sim_core.mda.run(plan)

    with pytest.raises(BacklogError, match="a triggered camera cannot wait"):
        acquire()
    stored = np.count_nonzero(store_of(session)["raw/0"][..., 0, 0])
    assert stored == session.report["raw_frames"] < 540


def test_a_listener_that_raises_or_hangs_harms_nobody(
    sim_core: CMMCorePlus, tmp_path: Path
) -> None:
    plan = sim_sequence(40, ["488"])
    release = threading.Event()

    def bad(frame: MulticolorFrame) -> None:
        if frame.t == 1:
            raise ValueError("listener")
        release.wait(60)

    with LiveSR(
        sim_core,
        rig="virtual_sim",
        plan=plan,
        store=tmp_path / "l.ome.zarr",
        policy="complete",
        **ENGINE,
    ) as session:
        session.frame_ready.connect(bad)
        sim_core.mda.run(plan)
    release.set()
    assert session.report["sr_frames"] == 40
    assert session.report["sink_dropped"]["signals"] > 0
    assert session.error is None
    assert store_of(session)["sr/0"].shape[0] == 40


def test_the_session_publishes_on_a_real_port(sim_core: CMMCorePlus) -> None:
    plan = sim_sequence(3, ["488"])
    with LiveSR(
        sim_core, rig="virtual_sim", plan=plan, publish="tcp://127.0.0.1:*", engine="none"
    ) as session:
        assert session.endpoint.startswith("tcp://127.0.0.1:")
        sim_core.mda.run(plan)
    assert session.report["publish"] == session.endpoint


def test_the_state_of_a_run_is_published_while_it_runs(sim_core: CMMCorePlus) -> None:
    plan, heard = sim_sequence(30, ["488"], interval_s=0.1), []
    session = LiveSR(sim_core, rig="virtual_sim", plan=plan, publish="tcp://127.0.0.1:*", **ENGINE)
    with session, Subscriber(session.endpoint) as subscriber:
        session.frame_ready.connect(
            lambda frame: heard.append(subscriber.status.get("sr_frames", 0))
        )
        sim_core.mda.run(plan)
    assert 0 < max(heard) < 30


def test_errors_come_before_anything_is_acquired(sim_core: CMMCorePlus, tmp_path: Path) -> None:
    plan = sim_sequence(3, ["488"])
    with (
        pytest.raises(EngineError, match="Did you mean 'identity'"),
        LiveSR(sim_core, rig="virtual_sim", engine="identty"),
    ):
        pass
    with pytest.raises(ConfigError, match="Did you mean 'virtual_sim'"):
        LiveSR(sim_core, rig="virtual_smi")
    with (
        pytest.raises(ConfigError, match="does not describe"),
        LiveSR(sim_core, rig="virtual_sim", plan=sim_sequence(3, ["640"])),
    ):
        pass
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = f"tcp://127.0.0.1:{taken.getsockname()[1]}"
        with (
            pytest.raises(BindError, match=address),
            LiveSR(
                sim_core,
                rig="virtual_sim",
                plan=plan,
                publish=address,
                store=tmp_path / "x.ome.zarr",
                engine="none",
            ),
        ):
            pass


def test_a_session_that_acquires_nothing_ends_cleanly(sim_core: CMMCorePlus) -> None:
    plan = sim_sequence(2, ["488"])
    with LiveSR(sim_core, rig="virtual_sim", plan=plan, engine="none") as session:
        pass
    assert (session.report["raw_frames"], session.report["error"]) == (0, None)


def test_a_plan_with_more_raw_frames_than_the_rig_ends_the_run_and_keeps_them(
    sim_core: CMMCorePlus, tmp_path: Path
) -> None:
    plan = sim_sequence(2, ["488"], raw=12)
    with pytest.raises(ConfigError, match=r"raw frame 9; rig\.yaml describes 9"):
        run(sim_core, plan, store=tmp_path / "refused.ome.zarr", engine="none")
    assert not (tmp_path / "refused.ome.zarr").exists()
    with pytest.raises(
        ConfigError, match=r"raw frame 9; rig\.yaml describes 9"
    ):  # nobody can look into a generator
        run(sim_core, (event for event in plan), store=tmp_path / "n.ome.zarr", engine="none")
    store = tmp_path / "n.ome.zarr"
    report = json.loads((store / "livesr" / "report.json").read_text())
    kept = np.count_nonzero(zarr.open_group(store, mode="r")["raw/0"][..., 0, 0])
    assert kept + len(list((store / "livesr" / "strays").iterdir())) == report["raw_frames"]
    assert report["raw_lost"] == 0


def test_a_disk_that_fails_ends_the_run_and_counts_what_it_cost(
    sim_core: CMMCorePlus, tmp_path: Path, monkeypatch: Any
) -> None:
    plan = sim_sequence(30, ["488"])
    session = LiveSR(
        sim_core, rig="virtual_sim", plan=plan, store=tmp_path / "full.ome.zarr", engine="none"
    )

    def acquire() -> None:
        with session:
            write, taken = session._writer.raw, []

            def failing(stack: Any) -> None:
                taken.append(stack)
                if len(taken) > 3:
                    raise OSError(28, "No space left on device")
                write(stack)

            monkeypatch.setattr(session._writer, "raw", failing)
            sim_core.mda.run(plan)

    with pytest.raises(RecordingError, match="No space left"):
        acquire()
    stored = np.count_nonzero(store_of(session)["raw/0"][..., 0, 0])
    assert stored == 27
    assert session.report["raw_frames"] == stored + session.report["raw_lost"]


def test_a_run_ends_with_its_acquisition_not_with_the_block(
    sim_core: CMMCorePlus, tmp_path: Path
) -> None:
    plan = sim_sequence(3, ["488"])
    ended = threading.Event()
    with LiveSR(
        sim_core, rig="virtual_sim", plan=plan, store=tmp_path / "e.ome.zarr", engine="none"
    ) as session:
        session.finished.connect(lambda report: ended.set())
        sim_core.mda.run(plan)
        assert ended.wait(20)
        assert (tmp_path / "e.ome.zarr" / "livesr" / "report.json").is_file()


def test_a_block_in_which_nothing_was_acquired_says_so(
    sim_core: CMMCorePlus, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """As of a script that starts `core.run_mda` and leaves before its thread begins."""
    with LiveSR(sim_core, rig="virtual_sim", engine="none", store=tmp_path / "run.ome.zarr"):
        pass
    assert "Nothing was acquired" in caplog.text
    assert not (tmp_path / "run.ome.zarr").exists()
    caplog.clear()
    run(sim_core, sim_sequence(1, ["488"]), engine="none")
    assert "Nothing was acquired" not in caplog.text


def test_leaving_the_block_ends_an_acquisition_in_another_thread(
    sim_core: CMMCorePlus, tmp_path: Path
) -> None:
    plan = sim_sequence(1000, ["488"])
    with LiveSR(
        sim_core, rig="virtual_sim", plan=plan, store=tmp_path / "t.ome.zarr", engine="none"
    ) as session:
        thread = sim_core.run_mda(plan)
        while session.status()["raw_frames"] < 30:
            time.sleep(0.001)
    assert sim_core.mda.status.phase == "idle"
    thread.join()
    report = session.report
    assert 30 <= report["raw_frames"] == report["raw_stored"] < 9_000
    assert any(w.startswith("LiveSR was left while") for w in report["warnings"])


def test_a_camera_that_stops_delivering_is_an_error(sim_core: CMMCorePlus, tmp_path: Path) -> None:
    plan = sim_sequence(60, ["488"])
    seen: list[int] = []

    def stop_early(image: Any, event: useq.MDAEvent, meta: dict[str, Any]) -> None:
        seen.append(1)
        if len(seen) == 10:
            sim_core.stopSequenceAcquisition()

    def acquire() -> None:
        with LiveSR(
            sim_core, rig="virtual_sim", plan=plan, store=tmp_path / "c.ome.zarr", engine="none"
        ):
            sim_core.mda.run(plan)

    sim_core.mda.events.frameReady.connect(stop_early)
    try:
        with pytest.raises(RunError, match=r"The camera delivered \d+ of 540 frames"):
            acquire()
    finally:
        sim_core.mda.events.frameReady.disconnect(stop_early)
    report = json.loads((tmp_path / "c.ome.zarr" / "livesr" / "report.json").read_text())
    raw = zarr.open_group(tmp_path / "c.ome.zarr", mode="r")["raw/0"]
    assert np.count_nonzero(raw[..., 0, 0]) == report["raw_frames"] < 540


def test_a_run_broken_off_inside_a_group_does_not_turn_the_next_one(
    sim_core: CMMCorePlus, tmp_path: Path
) -> None:
    sim_core.mda.engine.use_hardware_sequencing = False
    plan = sim_sequence(4, ["488"])
    raw_indices: list[int] = []

    def break_off(event: useq.MDAEvent) -> None:
        if event.index["t"] == 1 and event.index["sim"] == 4:
            sim_core.mda.cancel()

    def note(image: Any, event: useq.MDAEvent, meta: dict[str, Any]) -> None:
        raw_indices.append(int(sim_core.getProperty("Camera", "PatternIndex")))

    try:
        sim_core.mda.events.eventStarted.connect(break_off)
        run(sim_core, plan, engine="none")
        sim_core.mda.events.eventStarted.disconnect(break_off)
        sim_core.mda.events.frameReady.connect(note)
        plan = sim_sequence(1, ["488"])
        with LiveSR(sim_core, rig="virtual_sim", plan=plan, engine="none"):
            sim_core.snapImage()  # nor does a frame snapped after the session was opened
            sim_core.mda.run(plan)
    finally:
        sim_core.mda.events.frameReady.disconnect(note)
        sim_core.mda.engine.use_hardware_sequencing = True
    assert raw_indices == [1, 2, 3, 4, 5, 6, 7, 8, 0]  # what the exposure after each frame will see


def test_positions_without_a_raw_axis_are_refused_for_sim(
    sim_core: CMMCorePlus, tmp_path: Path
) -> None:
    plan = useq.MDASequence(
        time_plan=useq.TIntervalLoops(interval=0, loops=9),
        stage_positions=[(0, 0, 0), (1, 0, 0)],
        channels=["488"],
    )
    with pytest.raises(ConfigError, match="no axis 'sim'"):
        run(sim_core, plan, engine="none", store=tmp_path / "p.ome.zarr")


def test_corrections_are_for_the_chip_and_raw_stays_as_it_is(
    demo_core: CMMCorePlus, tmp_path: Path
) -> None:
    offset = np.arange(64 * 64, dtype=np.float32).reshape(64, 64) / 100
    rig = rig_with(tmp_path, maps={"offset": offset}, offset="offset.tif", flat={})
    demo_core.setROI(16, 8, 32, 24)
    plan = useq.MDASequence(channels=["488"], time_plan={"interval": 0, "loops": 3})
    session = run(demo_core, plan, rig=rig, store=tmp_path / "run.ome.zarr")
    demo_core.clearROI()
    stored = store_of(session)
    expected = stored["raw/0"][:, 0].astype(np.float32) - offset[8:32, 16:48] + 1000
    np.testing.assert_array_equal(stored["recon/0"][:], np.rint(expected))
    demo_core.setProperty("Camera", "Binning", "2")
    with pytest.raises(ConfigError, match="Binning is 2: the corrections of rig"):
        run(demo_core, plan, rig=rig)
    demo_core.setProperty("Camera", "Binning", "1")


def test_a_session_is_entered_once(sim_core: CMMCorePlus) -> None:
    session = LiveSR(sim_core, rig="virtual_sim", engine="none")
    with session, pytest.raises(ConfigError, match="already in use"):
        session.__enter__()


def test_a_repeated_exposure_does_not_harm_a_run_of_single_frames(
    demo_core: CMMCorePlus, tmp_path: Path
) -> None:
    events = [useq.MDAEvent(index={"t": t}, channel="488") for t in (0, 1, 1, 2)]
    with LiveSR(demo_core, rig="demo", store=tmp_path / "d.ome.zarr", engine="none") as session:
        demo_core.mda.run(events)
    assert session.report["raw_repeated"] == 1
    assert store_of(session)["raw_0_488/0"].shape[0] == 3
    assert len(list((session.store / "livesr" / "strays").iterdir())) == 1


def test_logging_is_left_as_it_was(sim_core: CMMCorePlus) -> None:
    log = logging.getLogger("pymmcore-plus")
    log.setLevel(logging.INFO)
    try:
        with LiveSR(sim_core, rig="virtual_sim", engine="none"):
            assert log.level == logging.WARNING
        assert log.level == logging.INFO
        with pytest.raises(EngineError), LiveSR(sim_core, rig="virtual_sim", engine="nowhere"):
            pass
        assert log.level == logging.INFO
    finally:
        log.setLevel(logging.NOTSET)
    code = "import logging, livesr; print(logging.getLogger().level, logging.getLogger().handlers)"
    assert (
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout
        == "30 []\n"
    )
