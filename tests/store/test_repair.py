"""Stores whose process was killed at any moment become readable, valid and consistent, and lose
nothing that was on disk."""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaozarrs
import zarr

from contracts import code, describe, multicolor_frame, raw_stack, small_store, sr_frame
from livesr.base.errors import StoreError
from livesr.base.frames import StagePosition, Stream
from livesr.base.run_description import Stack
from livesr.check.store import check_store
from livesr.formats import layout
from livesr.formats.frames_log import read_log
from livesr.formats.ome_xml import FILE as OME_XML
from livesr.formats.store import RecordedStore
from livesr.live.inference.engine import Engine
from livesr.live.sinks.ome_zarr import OMEZarrSink
from livesr.store.backfill import backfill
from livesr.store.process import process
from livesr.store.raw_input import raw_input, store_input
from livesr.store.repair import TORN, repair
from recorded_runs import array, moving_groups

STREAM = Stream(0, "488")
KILLS = int(os.environ.get("LIVESR_KILLS", "10"))
FOREVER = f"""
import sys
from pathlib import Path
import numpy as np
sys.path.insert(0, {str(Path(__file__).parents[1] / "support")!r})
from contracts import *
from livesr.live.sinks.ome_zarr import OMEZarrSink
sink = OMEZarrSink(Path(sys.argv[1]))
planes = int(sys.argv[2])
sink.open(describe(size=64, z_planes=planes))
print("open", flush=True)
rng = np.random.default_rng(0)
for t in range(1_000_000):
    for z in range(planes):
        stream = Stream(0, "488", z)
        stack, frame = raw_stack(t, stream, size=64), sr_frame(t, stream, size=64)
        for plane in stack.frames:
            plane[1:] = rng.integers(0, 60000, plane[1:].shape)
        sink.raw(stack)
        sink.recon(frame)
        if t % 3:
            sink.separated(multicolor_frame(t, stream, size=64))
"""
RUN = f"""
import sys, time
from pathlib import Path
sys.path.insert(0, {str(Path(__file__).parents[1] / "support")!r})
from recorded_runs import *
live = Live(sim_rig("mixing"), Path(sys.argv[1]), policy="latest", slow={{"infer": 0.02}})
print("open", flush=True)
live.record(moving_groups(2000), pace_s=lambda t: 0.005)
"""


CLOSING = f"""
import sys, time
from pathlib import Path
sys.path.insert(0, {str(Path(__file__).parents[1] / "support")!r})
from recorded_runs import *
live = Live(sim_rig("mixing"), Path(sys.argv[1]))
close = live.sink.close
def closing(report):
    print("closing", flush=True)
    close(report)
    print("closed", flush=True)
    time.sleep(60)
live.sink.close = closing
print("open", flush=True)
live.record(moving_groups(90))
"""


def killed(script: str, store: Path, seconds: float, *arguments: object, lines: int = 0) -> Path:
    """Record in a process of its own; kill it some time after frames.jsonl has so many lines."""
    command = [sys.executable, "-c", script, str(store), *map(str, arguments)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "open\n"
    log, deadline = store / layout.FRAMES_LOG, time.monotonic() + 60
    while (
        lines
        and (not log.is_file() or log.read_bytes().count(b"\n") < lines)
        and time.monotonic() < deadline
    ):
        time.sleep(0.02)
    time.sleep(seconds)
    process.kill()
    assert process.wait() == -9
    process.stdout.close()
    return store


def finished(tmp_path: Path, frames: int = 20) -> Path:
    return small_store(tmp_path / "run.ome.zarr", frames)


def state_of(store: Path) -> dict[Path, tuple[int, bytes]]:
    return {
        p: (p.stat().st_mtime_ns, p.read_bytes()) for p in sorted(store.rglob("*")) if p.is_file()
    }


def assert_consistent(store: Path) -> None:
    """Every image reads to its end, all have one length, and pictures are where frames.jsonl says,
    and nowhere else."""
    yaozarrs.validate_zarr_store(str(store))
    images = {
        name: zarr.open_array(store / name / "0", mode="r")[:] for name in ("raw", "recon", "sr")
    }
    assert len({len(a) for a in images.values()}) == 1
    events = read_log(store / layout.FRAMES_LOG).events
    told = {(e["series"], e["t"], e["z"]) for e in events if e["stored"]}
    planes = RecordedStore(store).images["raw", 0, "488"].scale.get("z") is not None
    for name, a in images.items():
        for t in range(len(a)):
            for z in range(a.shape[-3] if planes else 1):
                stream = Stream(0, "488", z)
                index = (t, z) if name == "recon" else (t, slice(None), z)
                pixels = a[index] if planes else a[t]
                corners = np.atleast_1d(pixels[..., 0, 0])
                if (name, t, z) in told:
                    assert list(corners) == [code(stream, t, c) for c in range(len(corners))], (
                        name,
                        t,
                        z,
                    )
                elif name == "raw":
                    assert not pixels.any(), (name, t, z)
    assert not [1 for series, t, _ in told if t >= len(images["raw"])]


@pytest.mark.skipif(sys.platform == "win32", reason="kill -9 is POSIX")
def test_killed_at_any_moment(tmp_path: Path) -> None:
    def record_and_kill(moment: int) -> tuple[float, Path]:
        seconds = random.uniform(0.0, 1.5)
        return seconds, killed(
            FOREVER, tmp_path / f"run-{moment}.ome.zarr", seconds, 1 + 2 * (moment % 2)
        )

    with ThreadPoolExecutor(5) as pool:
        stores = list(pool.map(record_and_kill, range(KILLS)))
    for seconds, store in stores:
        print(f"{store.name} was killed {seconds:.3f} s after it was opened")
        check_repair(store)
        shutil.rmtree(store)


def last_shard(array: Path) -> int:
    """Place along t of the last shard that is left, -1 without one."""
    return max(
        (int(p.relative_to(array / "c").parts[0]) for p in (array / "c").rglob("*") if p.is_file()),
        default=-1,
    )


def check_repair(store: Path) -> None:
    """Repair a store, twice; nothing that is readable is cut off, and no file is lost."""
    chunks = [
        p
        for kind in ("raw", "recon", "sr")
        for p in (store / kind / "0" / "c").rglob("*")
        if p.is_file()
    ]
    on_disk = {p: p.read_bytes() for p in chunks}
    lengths = {
        name: zarr.open_array(store / name / "0", mode="r").shape[0]
        for name in ("raw", "recon", "sr")
    }
    report = repair(store, still_growing_s=0.05)
    assert_consistent(store)
    for name, image in report.images.items():
        # The writer may count a shard before it is on disk: a killed one can promise more than any
        # image holds.
        assert image["before"] == lengths[name]
        assert image["after"] == max(i["readable"] for i in report.images.values())
        assert last_shard(store / name / "0") * 16 < image["after"]
    for file, content in on_disk.items():
        aside = store / TORN / ".".join(file.relative_to(store).parts)
        assert (file if file.is_file() else aside).read_bytes() == content
    before = state_of(store)
    assert not repair(store, still_growing_s=0.05).changed
    assert state_of(store) == before


@pytest.mark.skipif(sys.platform == "win32", reason="kill -9 is POSIX")
@pytest.mark.parametrize(
    "kills", [1, pytest.param(12, marks=[pytest.mark.slow, pytest.mark.timeout(3000)])]
)
def test_a_killed_run_is_repaired_backfilled_and_equals_an_offline_run(
    tmp_path: Path, engine: Engine, kills: int
) -> None:
    """Also where the last prediction saw a frame that the kill took."""
    again = []
    for number in range(kills):
        store = killed(RUN, tmp_path / f"run-{number}.ome.zarr", random.uniform(0, 0.5), lines=300)
        repair(store, still_growing_s=0.05)
        yaozarrs.validate_zarr_store(str(store))
        reference = process(
            store_input(RecordedStore(store)), tmp_path / f"offline-{number}.ome.zarr"
        )
        there = sorted(t for _, t in RecordedStore(store).pictures("raw"))
        before = array(store, "sr")[there].astype(int)
        report = backfill(store)
        assert report["predicted"] > 0
        sr, offline = (array(s, "sr")[there].astype(int) for s in (store, Path(reference["store"])))
        assert np.abs(sr - offline).max() <= 1
        np.testing.assert_array_equal(
            array(store, "recon")[there], array(Path(reference["store"]), "recon")[there]
        )
        assert sr.any(axis=(1, 2, 3)).sum() == reference["sr_frames"] > 10
        again.append(
            int(
                (
                    before.any(axis=(1, 2, 3)) & (np.abs(before - offline).max(axis=(1, 2, 3)) > 1)
                ).sum()
            )
        )
    print(f"{kills} kills; predictions that had seen what was lost, or a gap, by run: {again}")


@pytest.mark.skipif(sys.platform == "win32", reason="kill -9 is POSIX")
@pytest.mark.parametrize(
    "kills", [1, pytest.param(40, marks=[pytest.mark.slow, pytest.mark.timeout(3000)])]
)
def test_killed_while_closing(tmp_path: Path, engine: Engine, kills: int) -> None:
    """Every exposure was taken before it began to close.

    What is on disk is at its place, and computed again.
    """
    taken, lost = moving_groups(90), []
    for number in range(kills):
        store = tmp_path / f"run-{number}.ome.zarr"
        closed = killed_while_closing(store, random.uniform(0, 0.08))
        repair(store, still_growing_s=0.0)
        assert not repair(store, still_growing_s=0.0).changed
        yaozarrs.validate_zarr_store(str(store))
        there = sorted(t for _, t in RecordedStore(store).pictures("raw"))
        np.testing.assert_array_equal(array(store, "raw")[there], taken[there])
        lost.append(len(taken) - len(there))
        assert not (closed and lost[-1])
        if number < 4:
            report = process(raw_input(store), tmp_path / f"again-{number}.ome.zarr")
            assert report["sr_frames"] == len(there)
        shutil.rmtree(store)
    print(f"{kills} kills while closing; time points lost of 90: {sorted(lost)}")


def killed_while_closing(store: Path, seconds: float) -> bool:
    """Kill a run so long after it has begun to close; return whether it had closed."""
    process = subprocess.Popen(
        [sys.executable, "-c", CLOSING, str(store)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    while process.stdout.readline() != "closing\n":
        assert process.poll() is None
    time.sleep(seconds)
    process.kill()
    rest = process.communicate()[0]
    return "closed" in rest


def test_a_store_that_is_fine_is_not_touched(tmp_path: Path) -> None:
    store = finished(tmp_path)
    before = state_of(store)
    report = repair(store)
    assert not report.changed
    assert {name: (i["before"], i["after"]) for name, i in report.images.items()} == dict.fromkeys(
        ("raw", "recon", "sr"), (20, 20)
    )
    assert state_of(store) == before


def test_gaps_and_padding_of_a_store_that_is_fine_are_no_damage(tmp_path: Path) -> None:
    sink = OMEZarrSink(tmp_path / "run.ome.zarr")
    sink.open(describe())
    for t in (0, 1, 40, 41):
        sink.raw(raw_stack(t))
    sink.separated(multicolor_frame(1))
    sink.skipped(STREAM, 99, "far away")
    sink.close({})
    before = state_of(sink.path)
    assert not repair(sink.path).changed
    assert state_of(sink.path) == before


def test_a_torn_last_shard_is_kept_aside_and_its_pictures_are_no_longer_promised(
    tmp_path: Path,
) -> None:
    store = finished(tmp_path, 40)
    shard = store / "raw" / "0" / "c" / "2" / "0" / "0" / "0"
    torn = shard.read_bytes()[:-30]
    shard.write_bytes(torn)
    report = repair(store)
    assert report.images["raw"] == {"before": 40, "readable": 32, "after": 40}
    assert report.lost == {"raw": 8}
    assert [(store / file).read_bytes() for file in report.torn] == [torn]
    assert_consistent(store)
    assert not array(store, "raw")[32:].any()
    assert array(store, "recon")[39].any()
    assert not repair(store).changed


def test_a_full_shard_that_the_length_does_not_count_is_kept(tmp_path: Path) -> None:
    store = finished(tmp_path, 32)
    for name in ("raw", "recon", "sr"):
        path = store / name / "0" / "zarr.json"
        about = json.loads(path.read_text())
        about["shape"][0] = 16
        path.write_text(json.dumps(about))
    log = store / layout.FRAMES_LOG
    told = [
        line
        for line in log.read_text().splitlines()
        if not ('"raw"' in line and '"t": 31,' in line)
    ]
    log.write_text("\n".join(told) + '\n{"series": "sr", "st')
    report = repair(store)
    assert {i["after"] for i in report.images.values()} == {32}
    assert_consistent(store)
    line = [e for e in read_log(log).events if e.get("repaired")]
    assert [(e["series"], e["t"], e["stored"]) for e in line] == [("raw", 31, True)]


def test_a_run_that_was_killed_early_says_when_and_where(tmp_path: Path) -> None:
    """Images are described again after ten time points, which may take a night."""
    sink = OMEZarrSink(tmp_path / "run.ome.zarr")
    left_out = {"488": (), "561": (0,)}
    stacks = {(p, c): Stack(2, 0.25, left_out[c]) for p in (0, 1) for c in left_out}
    about = {"channels": ("488", "561"), "positions": ("A", "B")}
    sink.open(describe(**about, z_planes=2, stacks=stacks))
    begun = {
        file: file.read_bytes() for file in sink.path.rglob("zarr.json") if file.parent.name != "0"
    }
    for t in range(3):
        for p in (0, 1):
            for channel, z, focus_um in (("561", 1, 4), ("488", 0, 7), ("488", 1, 7)):
                stage = StagePosition(100.0 * p, -50.0 * p, focus_um + 0.25 * z)
                stream = Stream(p, channel, z)
                sink.raw(replace(raw_stack(t, stream), stage=stage))
                sink.recon(sr_frame(t, stream))
    sink.close({})
    wanted = described(sink.path)
    for file, content in begun.items():  # as a kill leaves it
        file.write_bytes(content)
    (sink.path / layout.REPORT).unlink()
    before = RecordedStore(sink.path).images["raw", 1, "561"]
    assert (before.scale["t"], before.stage_um) == (1.0, {})
    repair(sink.path)
    assert described(sink.path) == wanted
    assert wanted["raw_B_561"][1] == {"z": 4, "y": -50, "x": 100}
    assert repair(sink.path).metadata == ()


def described(store: Path) -> dict[str, Any]:
    images = RecordedStore(store).images.values()
    return {image.name: (image.scale, image.stage_um) for image in images}


def test_missing_group_metadata_is_written(tmp_path: Path) -> None:
    store = finished(tmp_path)
    for name in ("zarr.json", "OME/zarr.json", "livesr/zarr.json"):
        (store / name).unlink()
    report = repair(store)
    assert sorted(report.metadata) == ["OME/zarr.json", "livesr/zarr.json", "zarr.json"]
    assert_consistent(store)
    assert RecordedStore(store).channels == ("488",)
    assert not repair(store).changed


def test_positions_keep_their_own_lengths(tmp_path: Path) -> None:
    sink = OMEZarrSink(tmp_path / "run.ome.zarr")
    sink.open(describe(positions=("A", "B")))
    for t in range(20):
        sink.recon(sr_frame(t, Stream(0, "488")))
        if t < 10:
            sink.raw(raw_stack(t, Stream(1, "488")))
    sink.close({})
    assert not repair(sink.path).changed


def test_an_image_that_cannot_be_described_is_a_problem_for_nobody_else(tmp_path: Path) -> None:
    store = finished(tmp_path)
    (store / layout.IMAGES).unlink()
    (store / "sr" / "0" / "zarr.json").write_text("")
    report = repair(store)
    assert sorted(report.images) == ["raw", "recon"]
    assert "sr" in report.problems[0]


def test_a_store_that_is_being_recorded_is_left_alone(tmp_path: Path) -> None:
    script = FOREVER.replace("sink.raw(stack)", "time.sleep(0.02); sink.raw(stack)").replace(
        "import sys", "import sys, time"
    )
    store = tmp_path / "run.ome.zarr"
    process = subprocess.Popen(
        [sys.executable, "-c", script, str(store), "1"], stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        process.stdout.readline()
        time.sleep(0.3)
        with pytest.raises(StoreError, match=r"is being recorded by .* Wait until"):
            repair(store)
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def test_what_is_no_store_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="no store of livesr"):
        repair(tmp_path)
    store = finished(tmp_path)
    for name in ("raw", "recon", "sr"):
        shutil.rmtree(store / name)
    with pytest.raises(StoreError, match="holds no image"):
        repair(store)


def test_a_store_without_ome_xml_gets_it(tmp_path: Path) -> None:
    store = finished(tmp_path, 3)
    file = store / OME_XML
    was = file.read_text()
    assert 'SizeT="3"' in was
    assert not repair(store).changed
    for damage in (file.unlink, lambda: file.write_text(was.replace("Image:raw", "Image:0"))):
        damage()
        (note,) = [f for f in check_store(store).findings if f.code == "ome-xml"]
        assert note.level == "note"
        assert repair(store).metadata == (OME_XML,)
        assert file.read_text() == was
        assert not [f for f in check_store(store).findings if f.code == "ome-xml"]
    file.write_text(was.replace('SizeT="3"', 'SizeT="1"'))  # as a killed run leaves it
    assert repair(store).changed
    assert file.read_text() == was
