"""What `livesr check STORE` says of stacks, positions, channels, films and stores that are not
closed."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaozarrs

from contracts import RAW, code, describe, describe_channel, feed, raw_stack
from livesr.base.frames import Stream
from livesr.check.store import StoreState, check_store
from livesr.formats import layout, skips
from livesr.formats.store import RecordedStore
from livesr.live.reconstruct.reconstructor import DoubtfulFrameError
from livesr.live.sinks.ome_zarr import OMEZarrSink
from livesr.store.repair import repair
from recorded_runs import array

FRAMES = 20


def recorded(
    folder: Path, positions: tuple[str, ...], channels: tuple[str, ...], planes: int
) -> Path:
    sink = OMEZarrSink(folder / "run.ome.zarr")
    sink.open(describe(positions=positions, channels=channels, z_planes=planes))
    for t in range(FRAMES):
        for p in range(len(positions)):
            for channel in channels:
                for z in range(planes):
                    feed(sink, t, Stream(p, channel, z))
    sink.close(
        {"raw_frames": FRAMES * len(positions) * len(channels) * planes * RAW, "raw_lost": 0}
    )
    return sink.path


def codes(state: StoreState, level: str = "error") -> set[str]:
    return {f.code for f in state.findings if f.level == level}


def test_what_was_skipped_is_promised_only_where_its_raw_frames_are_there(tmp_path: Path) -> None:
    sink = OMEZarrSink(tmp_path / "run.ome.zarr")
    sink.open(describe(positions=("0",), channels=("488",), z_planes=1))
    for t in range(4):
        feed(sink, t, Stream(0, "488", 0))
    reasons = {
        4: "raw frames missing",  # as in the stores that there are
        5: skips.of_part("561", skips.RAW_MISSING),
        6: skips.PLANES_MISSING,
        7: "busy",
        8: skips.refused(DoubtfulFrameError("dark: raw frames missing")),
    }
    for t, reason in reasons.items():
        sink.skipped(Stream(0, "488", 0), t, reason)
    sink.close({"raw_frames": 4 * RAW, "raw_lost": 0})
    said = {f.says: f.advice for f in check_store(sink.path).findings if f.code == "skipped"}
    assert said == {
        "3 predictions were skipped: raw frames are missing.": "",
        "2 predictions were skipped.": "'livesr backfill' computes them from raw.",
    }


@pytest.mark.parametrize(
    ("positions", "channels", "planes"),
    [
        (("0",), ("488",), 1),
        (("A", "B"), ("488",), 1),
        pytest.param(("0",), ("488", "561"), 3, marks=pytest.mark.slow),
        pytest.param(("A", "B"), ("488", "561"), 2, marks=pytest.mark.slow),
    ],
)
def test_everything_is_there_until_it_is_not(
    tmp_path: Path, positions: tuple[str, ...], channels: tuple[str, ...], planes: int
) -> None:
    store = recorded(tmp_path, positions, channels, planes)
    state = check_store(store)
    assert not codes(state)
    assert all(image.told == image.readable > 0 for image in state.images)
    last = next(
        name
        for name in (i.name for i in state.images)
        if name.startswith("raw") and name.endswith(state.images[-1].name[2:])
    )
    first_shard = min(p for p in (store / last / "0" / "c").rglob("*") if p.is_file())
    first_shard.unlink()
    state = check_store(store)
    assert codes(state) == {"missing", "report"}
    assert [(i.name, i.missing) for i in state.images if i.missing] == [(last, 16 * planes)]
    shutil.rmtree(store / "livesr" / "torn", ignore_errors=True)
    (store / layout.FRAMES_LOG).unlink()
    for file in (f"{last}/zarr.json", f"{last}/0/zarr.json", "zarr.json", "OME/zarr.json"):
        (store / file).write_text("")
    assert {"log", "metadata"} <= codes(check_store(store))
    repair(store, still_growing_s=0.0)
    yaozarrs.validate_zarr_store(str(store))
    assert_placed(store, {last})
    assert not repair(store, still_growing_s=0.0).changed


def assert_placed(store: Path, halved: set[str]) -> None:
    """Every exposure is where its pixels say that it belongs.

    Those of the first shard of `halved` are gone.
    """
    recorded = RecordedStore(store)
    for stream, t in recorded.pictures("raw"):
        image = recorded.images["raw", stream.position, stream.channel]
        pixels = array(store, image.name)
        planes = pixels[t, :, stream.z] if "z" in image.scale else pixels[t]
        assert list(planes[:, 0, 0]) == [code(stream, t, i) for i in range(RAW)]
    counts = {i.name: 0 for i in recorded.images.values() if i.kind == "raw"}
    for stream, _ in recorded.pictures("raw"):
        counts[recorded.images["raw", stream.position, stream.channel].name] += 1
    whole = FRAMES * (max(s.z for s, _ in recorded.pictures("raw")) + 1)
    assert counts == {name: whole * 4 // 20 if name in halved else whole for name in counts}


def test_a_film(tmp_path: Path) -> None:
    sink = OMEZarrSink(tmp_path / "run.ome.zarr")
    sink.open(replace(describe(), channels=(film(),)))
    for t in range(FRAMES):
        sink.raw(raw_stack(t, missing=(3,) if t == 5 else ()))
    sink.close({"raw_frames": FRAMES * RAW - 1})
    store = sink.path
    assert not codes(check_store(store))
    (store / layout.FRAMES_LOG).write_bytes(b"")
    (store / "raw" / "zarr.json").write_text("{}")
    assert {"metadata", "report"} <= codes(check_store(store))
    repair(store, still_growing_s=0.0)
    lines = RecordedStore(store).pictures("raw")
    assert sorted(t for _, t in lines) == list(range(FRAMES))
    assert [line["missing"] for line in lines.values() if line["state"] == "raw_incomplete"] == [
        [3]
    ]
    assert not codes(check_store(store))
    film_ = array(store, "raw")
    assert [int(film_[t * RAW + 1, 0, 0]) for t in range(FRAMES)] == [
        code(Stream(0, "488"), t, 1) for t in range(FRAMES)
    ]


def film():
    return replace(describe_channel(), raw_along_t=True, labels=(), ai={})


def test_an_image_that_is_gone(tmp_path: Path) -> None:
    store = recorded(tmp_path, ("0",), ("488",), 1)
    shutil.rmtree(store / "raw")
    assert codes(check_store(store)) == {"image-missing", "metadata", "report"}
    repair(store, still_growing_s=0.0)
    assert not array(store, "raw").any()
    assert codes(check_store(store)) == {"lost", "report"}
    yaozarrs.validate_zarr_store(str(store))


def test_a_run_without_its_end(tmp_path: Path) -> None:
    store = recorded(tmp_path, ("0",), ("488",), 1)
    (store / layout.REPORT).unlink()
    state = check_store(store)
    assert (codes(state), "report" in codes(state, "warning")) == (set(), True)


def test_the_report_counts_more_than_there_is(tmp_path: Path) -> None:
    sink = OMEZarrSink(tmp_path / "run.ome.zarr")
    sink.open(describe())
    feed(sink, 0)
    sink.raw(raw_stack(0))  # twice: kept as a TIFF
    sink.close({"raw_frames": 2 * RAW})
    assert not codes(check_store(sink.path))
    unplaced = next((sink.path / layout.STRAYS).iterdir())
    unplaced.unlink()
    assert codes(check_store(sink.path)) == {"stray", "report"}


def test_nothing_is_changed(tmp_path: Path) -> None:
    store = recorded(tmp_path, ("0",), ("488",), 1)
    (store / "raw" / "zarr.json").write_text("")
    before = {p: (p.stat().st_mtime_ns, p.read_bytes()) for p in store.rglob("*") if p.is_file()}
    check_store(store)
    assert {
        p: (p.stat().st_mtime_ns, p.read_bytes()) for p in store.rglob("*") if p.is_file()
    } == before
    assert np.all([not p.name.startswith(".") for p in store.rglob("*")])
