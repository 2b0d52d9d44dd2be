"""A store that a run with policy latest left becomes the store that an offline run of the same raw
makes."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import yaozarrs

from livesr.base.config import RigConfig, load_rig
from livesr.base.error_bars import FILE, load_error_bars
from livesr.base.errors import EngineError, RunError, StoreError
from livesr.base.frames import Stream
from livesr.evaluation.error_bars import Known, calibrated
from livesr.formats import layout
from livesr.formats.frames_log import read_log
from livesr.formats.store import RecordedStore
from livesr.live.inference.engine import Engine
from livesr.live.inference.identity import identity_engine
from livesr.store import backfill as backfill_module
from livesr.store.backfill import backfill
from livesr.store.process import process
from livesr.store.raw_input import store_input
from livesr.store.repair import repair
from livesr.store.shards import replace_planes
from recorded_runs import Live, array, assert_equal, lines, moving_groups, sim_rig
from rig_copies import corrected_sim_rig
from upscaling import edsr_engine


def hurried(
    tmp_path: Path,
    *,
    frames: int = 40,
    infer: float = 0.03,
    reconstruct: float = 0.0,
    rig: RigConfig | None = None,
    **changes,
) -> Path:
    """A run whose network, or reconstruction, is slower than its camera."""
    live = Live(
        rig or sim_rig("mixing"),
        tmp_path / "live.ome.zarr",
        policy="latest",
        slow={"infer": infer, "reconstruct": reconstruct},
        **changes,
    )
    report = live.record(moving_groups(frames), pace_s=lambda t: 0.01)
    assert report["sr_skipped"] > 0
    assert report["groups_dropped"] > 0 or not reconstruct
    return live.sink.path


def offline(store: Path) -> Path:
    """An offline run of a copy of the store, so that it knows no more than the run did."""
    raw = store_input(RecordedStore(store))
    return Path(process(raw, store.with_name("offline.ome.zarr"))["store"])


def assert_finished(store: Path, reference: Path) -> None:
    yaozarrs.validate_zarr_store(str(store))
    assert_equal(store, reference)
    for kind in ("recon", "sr"):
        here, there = lines(store, kind), lines(reference, kind)
        assert here.keys() == there.keys()
        for key, line in here.items():
            for name in ("t_acq_ns", "normalisation", "true_neighbours", "edge"):
                assert line.get(name) == there[key].get(name), (kind, key, name)


def test_skipped_predictions(tmp_path: Path, engine: Engine) -> None:
    store = hurried(tmp_path)
    reference = offline(store)
    raw, recon, before = array(store, "raw"), array(store, "recon"), lines(store, "sr")
    measured = [t for _, t in RecordedStore(store).measured()]
    shown: list[tuple[int, int]] = []
    report = backfill(store, on_progress=lambda *x: shown.append(x))
    total = report["predicted"] + report["reconstructed"]
    assert report["predicted"] >= 40 - len(before) > 0
    assert (report["reconstructed"], report["impossible"]) == (40 - len(measured), 0)
    assert (shown[0], shown[-1]) == ((0, total), (total, total))
    assert_finished(store, reference)
    np.testing.assert_array_equal(array(store, "raw"), raw)
    np.testing.assert_array_equal(array(store, "recon")[measured], recon[measured])
    after = lines(store, "sr")
    assert {
        key for key, line in after.items() if line.get("backfilled")
    } >= after.keys() - before.keys()
    assert not (store / "livesr" / "backfill").exists()


def test_what_was_skipped_is_corrected_as_the_live_run_was(tmp_path: Path, engine: Engine) -> None:
    rig = corrected_sim_rig(tmp_path).with_engine("mixing")
    store = hurried(tmp_path, frames=25, infer=0.01, reconstruct=0.03, rig=rig)
    shutil.rmtree(rig.folder)  # the store must not need the rig any more
    reference = offline(store)
    assert backfill(store)["reconstructed"] > 0
    assert_finished(store, reference)


def test_groups_that_were_dropped_and_both_neighbours_of_a_gap(
    tmp_path: Path, engine: Engine
) -> None:
    store = hurried(tmp_path, reconstruct=0.06)
    measured = RecordedStore(store).measured()
    assert len(measured) < 40
    reference = offline(store)
    report = backfill(store)
    assert report["reconstructed"] == 40 - len(measured)
    assert_finished(store, reference)


def test_what_is_said_of_a_measurement_is_said_of_one_that_is_made_later(
    tmp_path: Path, engine: Engine
) -> None:
    store = hurried(tmp_path, reconstruct=0.06)
    reference = offline(store)
    assert backfill(store)["reconstructed"] > 0
    here, there = lines(store, "recon"), lines(reference, "recon")
    added = [key for key, line in here.items() if line.get("backfilled")]
    for key in added:
        assert "quality" in here[key]
        for name in ("quality", "resolved", "doubt", "saturated", "clipped"):
            assert here[key].get(name) == there[key].get(name), (key, name)


def test_a_neighbour_of_a_gap_is_computed_again(tmp_path: Path, engine: Engine) -> None:
    """Predictions made beside a gap that raw can close.

    The run lost a group, and predicted on both sides of it.
    """
    live = Live(sim_rig("mixing"), tmp_path / "live.ome.zarr")
    live.record(moving_groups(12))
    store = live.sink.path
    log = store / layout.FRAMES_LOG
    events = [
        e
        for e in read_log(log).events
        if not (e["t"] == 5 and e["state"] in ("recon", "separated"))
    ]
    log.write_text("".join(json.dumps(e) + "\n" for e in events))
    todo = backfill_module.plan(RecordedStore(store), {"488": 3})[0]
    stream = Stream(0, "488")
    assert todo.measure == {(stream, 5)}
    assert todo.predict == {(stream, 4), (stream, 5), (stream, 6)}
    assert [t for _, t in todo.read] == [3, 4, 5, 6, 7]
    sr = array(store, "sr")
    backfill(store)
    np.testing.assert_array_equal(array(store, "sr"), sr)


def test_positions_and_planes(tmp_path: Path, engine: Engine) -> None:
    store = hurried(tmp_path, frames=20, positions=("A", "B"), z_planes=2)
    reference = offline(store)
    backfill(store)
    assert_finished(store, reference)


def test_incomplete_groups_stay_unpredicted(tmp_path: Path, engine: Engine) -> None:
    live = Live(
        sim_rig("mixing"), tmp_path / "live.ome.zarr", policy="latest", slow={"infer": 0.05}
    )
    live.record(moving_groups(20), missing=[(7, 3), (8, 3), (12, 0)], pace_s=lambda t: 0.01)
    reference = offline(live.sink.path)
    assert backfill(live.sink.path)["impossible"] == 3
    assert_finished(live.sink.path, reference)


def test_nothing_to_do_changes_nothing(tmp_path: Path, engine: Engine) -> None:
    live = Live(sim_rig("mixing"), tmp_path / "live.ome.zarr")
    live.record(moving_groups(9), missing=[(4, 2)])
    before = {p: p.stat().st_mtime_ns for p in live.sink.path.rglob("*") if p.is_file()}
    report = backfill(live.sink.path)
    assert (report["predicted"], report["reconstructed"], report["impossible"]) == (0, 0, 1)
    assert {p: p.stat().st_mtime_ns for p in live.sink.path.rglob("*") if p.is_file()} == before


@pytest.mark.skipif(sys.platform == "win32", reason="kill -9 is POSIX")
def test_a_killed_backfill_is_resumed(tmp_path: Path, engine: Engine) -> None:
    store = hurried(tmp_path, frames=70, reconstruct=0.03)
    reference = offline(store)
    raw, live_recon = array(store, "raw"), RecordedStore(store).measured()
    recon = array(store, "recon")
    killed_early = 0
    for delay_s in (0.0, 0.1):
        script = (
            "import sys, time\nfrom pathlib import Path\nfrom livesr.store.backfill import"
            " backfill\ndef slow(done, total):\n    print('step', done, total, flush=True)\n   "
            " time.sleep(0.01)\nbackfill(Path(sys.argv[1]), on_progress=slow)\n"
        )
        process = subprocess.Popen(
            [sys.executable, "-c", script, str(store)], stdout=subprocess.PIPE, text=True
        )
        assert process.stdout is not None
        process.stdout.readline()
        process.stdout.readline()  # the first picture is written down
        time.sleep(delay_s)
        process.kill()
        killed_early += process.wait() == -9
        process.stdout.close()
        np.testing.assert_array_equal(array(store, "raw"), raw)
        for _, t in live_recon:
            np.testing.assert_array_equal(array(store, "recon")[t], recon[t])
    assert killed_early
    with (store / layout.FRAMES_LOG).open("a") as log:
        log.write('{"series": "sr", "st')  # what a kill in the middle of a line leaves
    backfill(store)
    assert_finished(store, reference)
    assert backfill(store)["predicted"] == 0


def test_an_interruption_keeps_what_is_done(
    tmp_path: Path, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = hurried(tmp_path)
    reference = offline(store)
    read = backfill_module.read_stacks

    def interrupted(*arguments):
        for i, stack in enumerate(read(*arguments)):
            if i == 10:
                raise KeyboardInterrupt
            yield stack

    monkeypatch.setattr(backfill_module, "read_stacks", interrupted)
    with pytest.raises(KeyboardInterrupt):
        backfill(store)
    assert any(line.get("backfilled") for line in lines(store, "sr").values())
    monkeypatch.undo()
    monkeypatch.setenv("LIVESR_HOME", str(engine.folder.parents[1]))
    backfill(store)
    assert_finished(store, reference)


def test_a_run_without_raw_cannot_be_completed(tmp_path: Path, engine: Engine) -> None:
    store = hurried(tmp_path)
    shutil.rmtree(store / "raw")
    with pytest.raises(StoreError, match="holds no raw frames"):
        backfill(store)


def test_another_engine_is_refused(tmp_path: Path, engine: Engine) -> None:
    store = hurried(tmp_path)
    other = identity_engine(tmp_path / "other")
    with pytest.raises(EngineError, match="one store, one engine"):
        backfill(store, engine=str(other.folder))
    assert backfill(store, engine=str(engine.folder))["predicted"]


def test_a_network_that_fails_is_an_error(
    tmp_path: Path, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = hurried(tmp_path)

    def refuse(self: object) -> None:
        raise RuntimeError("out of memory")

    monkeypatch.setattr("livesr.live.inference.openvino.OpenVINOSession.infer", refuse)
    with pytest.raises((RunError, RuntimeError), match="out of memory"):
        backfill(store)


def test_black_pictures_are_no_lost_ones(tmp_path: Path, engine: Engine) -> None:
    live = Live(sim_rig("mixing"), tmp_path / "live.ome.zarr")
    live.record(moving_groups(20))
    folder = live.sink.path / "sr" / "0"
    black = {
        (t, 0): np.zeros((3, *array(live.sink.path, "sr").shape[2:]), np.uint16) for t in range(16)
    }
    for file in (folder / "c" / "0").rglob("0"):
        if file.is_file():
            file.unlink()
    (tmp_path / "scratch").mkdir()
    replace_planes(folder, black, tmp_path / "scratch")
    assert not array(live.sink.path, "sr")[:16].any()
    assert array(live.sink.path, "sr")[16:].any()
    assert not repair(live.sink.path).changed


def test_a_run_that_upscaled(tmp_path: Path, engine: Engine) -> None:
    upscaling = edsr_engine(engine.folder.parent / "linear-x2")
    store = hurried(tmp_path, frames=20, rig=sim_rig("mixing").with_engine("linear-x2", "upscale"))
    reference = offline(store)
    with pytest.raises(EngineError, match="one store, one engine"):
        backfill(store, upscale=str(edsr_engine(tmp_path / "other", 3).folder))
    backfill(store, upscale=str(upscaling.folder))
    assert_finished(store, reference)


def test_what_is_estimated_of_a_prediction_comes_with_it(tmp_path: Path, engine: Engine) -> None:
    rig = with_error_bars(sim_rig("mixing"), engine, tmp_path)
    store = hurried(tmp_path, frames=12, rig=rig, error_bars=True, uncertainty="flips")
    skipped = lines(store, "raw").keys() - lines(store, "sr").keys()
    assert skipped
    backfill(store)
    assert (
        lines(store, "limits").keys()
        == lines(store, "uncertainty").keys()
        == lines(store, "sr").keys()
        == lines(store, "raw").keys()
    )
    bars, normalisations = load_error_bars(rig.folder / FILE), RecordedStore(store).normalisations()
    for stream, t in skipped:
        scale = normalisations[stream, t].scale
        low, high = bars.limits(array(store, "sr")[t], engine.manifest.channel_names, scale)
        np.testing.assert_array_equal(array(store, "limits")[t], np.concatenate([low, high]))


def test_damaged_error_bars_cost_no_prediction_and_come_when_they_are_mended(
    tmp_path: Path, engine: Engine
) -> None:
    rig = with_error_bars(sim_rig("mixing"), engine, tmp_path)
    store = hurried(tmp_path, frames=12, rig=rig, error_bars=True)
    copy, live = store / "livesr" / FILE, lines(store, "limits").keys()
    whole = copy.read_bytes()
    copy.write_bytes(whole[: len(whole) // 2] + b"{")
    assert any(str(copy) in note for note in backfill(store)["warnings"])
    assert lines(store, "sr").keys() == lines(store, "raw").keys()
    assert lines(store, "limits").keys() == live
    copy.write_bytes(whole)
    assert backfill(store)["warnings"] == []
    assert lines(store, "limits").keys() == lines(store, "raw").keys()


def with_error_bars(rig: RigConfig, engine: Engine, folder: Path) -> RigConfig:
    """A copy of a rig with error bars beside it."""
    copy = Path(shutil.copytree(rig.folder, folder / "rig"))
    rng, labels = np.random.default_rng(2), engine.manifest.channel_names
    known = [
        Known(p := rng.random((len(labels), 32, 32), np.float32), p + np.float32(0.1 * (i % 3)), i)
        for i in range(30)
    ]
    calibrated(known, labels, engine, "pairs").save(copy / FILE)
    return load_rig(copy).with_engine(rig.channels["488"].separate)
