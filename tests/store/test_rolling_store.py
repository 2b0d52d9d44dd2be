"""Stores that keep pictures of groups under way: what they hold, and that every tool reads it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import zarr

from livesr import load_rig, process, raw_input
from livesr.base.errors import ConfigError
from livesr.base.frames import SRFrame
from livesr.check.store import check_store
from livesr.formats.store import RecordedStore
from livesr.live.sinks.sink import Sink
from livesr.napari.store_layers import store_layers
from livesr.store.backfill import backfill
from livesr.store.exports.part import Part, choose
from livesr.store.exports.tiff import write_ome_tiff
from livesr.store.levels import build_levels
from livesr.store.repair import repair
from livesr.viewer.frame_pairs import Selection
from livesr.viewer.store_source import StoreSource
from recorded_runs import Live, array, assert_equal, keeping_rig, lines, moving_groups

N_T, PER_GROUP = 5, 3


class Shown(Sink):
    """Keeps every picture, by time point and newest exposure."""

    name, lossless = "shown", True

    def __init__(self) -> None:
        self.frames: dict[tuple[int, int], SRFrame] = {}

    def recon(self, frame: SRFrame) -> None:
        self.frames[frame.t, frame.newest] = frame

    updated = recon


def recorded(folder: Path, **how: Any) -> tuple[Path, Shown, dict[str, Any]]:
    shown, store = Shown(), folder / "run.ome.zarr"
    live = Live(keeping_rig(folder, how.pop("engine", "none")), store, sinks=[shown])
    return store, shown, live.record(moving_groups(N_T), **how)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Shown, dict[str, Any]]:
    return recorded(tmp_path_factory.mktemp("rolling"))


@pytest.fixture
def store(run: tuple[Path, Shown, dict[str, Any]], tmp_path: Path) -> Path:
    return Path(shutil.copytree(run[0], tmp_path / "copy.ome.zarr"))


def test_every_picture_is_kept_with_its_span(run: tuple[Path, Shown, dict[str, Any]]) -> None:
    store, shown, report = run
    assert report["recon_updates"] == 2 * (N_T - 1)
    film, told = array(store, "rolling"), lines(store, "rolling")
    assert film.shape[0] == N_T * PER_GROUP
    about = RecordedStore(store).images["rolling", 0, next(iter(told))[0].channel]
    assert about.attributes["livesr"]["newest"] == [3, 6, 9]
    whole = RecordedStore(store).images["recon", about.position, about.channel]
    assert about.scale["t"] == pytest.approx(whole.scale["t"] / PER_GROUP)
    for (_, t), line in told.items():
        for i, newest in enumerate((3, 6, 0)):
            if t == 0 and newest:
                assert i in line["missing"]
                assert line["pictures"][i] is None
                continue
            frame = shown.frames[t, newest]
            expected = np.clip(np.rint(frame.image + 1000), 0, 65535)
            np.testing.assert_array_equal(film[t * PER_GROUP + i], expected)
            assert line["pictures"][i] == {
                "t_acq_ns": frame.t_acq_ns,
                "span_ms": round(frame.span_ms or 0, 3),
            }
    np.testing.assert_array_equal(film[2::3], array(store, "recon"))
    assert not np.array_equal(film[3], film[5])


def test_a_whole_store_has_nothing_to_find_or_mend(store: Path) -> None:
    state = check_store(store)
    assert not [f for f in state.findings if f.level == "error"], state.findings
    assert {i.name: i.readable for i in state.images}["rolling"] == N_T
    assert not repair(store, still_growing_s=0).changed


def test_a_missing_file_is_found_and_said(store: Path) -> None:
    next(p for p in (store / "rolling/0/c").rglob("*") if p.is_file()).unlink()
    found = [f for f in check_store(store).findings if f.level == "error"]
    assert any("rolling" in f.says and "gone" in f.says for f in found)
    assert any("livesr process" in f.advice for f in found)
    said = repair(store, still_growing_s=0)
    assert said.lost == {"rolling": N_T}
    assert len(array(store, "recon")) * PER_GROUP == len(array(store, "rolling"))
    assert lines(store, "rolling") == {}
    assert len(lines(store, "recon")) == N_T


def test_a_lost_log_and_lost_metadata_come_back(store: Path) -> None:
    before = array(store, "rolling")
    (store / "livesr/frames.jsonl").unlink()
    for lost in ("rolling/zarr.json", "rolling/0/zarr.json", "livesr/images.json"):
        (store / lost).unlink()
    said = repair(store, still_growing_s=0)
    assert not said.problems
    np.testing.assert_array_equal(array(store, "rolling"), before)
    told = lines(store, "rolling")
    assert [line.get("missing", []) for _, line in sorted(told.items())] == [[0, 1], *[[]] * 4]


def test_offline_makes_all_of_them_and_a_live_run_names_those_that_it_gave_up(
    tmp_path: Path, run: tuple[Path, Shown, dict[str, Any]]
) -> None:
    live = Live(
        keeping_rig(tmp_path),
        tmp_path / "busy.ome.zarr",
        policy="latest",
        slow={"reconstruct": 0.05},
    )
    report = live.record(moving_groups(N_T), pace_s=lambda t: 0.06)
    missing = [
        m for line in lines(live.sink.path, "rolling").values() for m in line.get("missing", ())
    ]
    assert len(missing) == PER_GROUP * N_T - N_T - report["recon_updates"]
    process(raw_input(live.sink.path), tmp_path / "again.ome.zarr")
    assert len(lines(tmp_path / "again.ome.zarr", "rolling")) == N_T
    assert all(line["span_ms"] > 0 for line in lines(run[0], "recon").values())
    again = lines(tmp_path / "again.ome.zarr", "recon").values()
    assert not any("span_ms" in line for line in again), "raw keeps one time of a group"
    film = array(tmp_path / "again.ome.zarr", "rolling").astype(int)
    assert np.abs(film - array(run[0], "rolling")).max() <= 1
    assert_equal(live.sink.path, tmp_path / "again.ome.zarr")


def test_a_picture_that_a_doubtful_group_lacks_is_missing(tmp_path: Path) -> None:
    store, _, report = recorded(tmp_path, missing=[(2, 4)])
    assert report["groups_incomplete"] == 1
    told = {t: line.get("missing", []) for (_, t), line in lines(store, "rolling").items()}
    assert told[2] == [1, 2]  # its fifth exposure never came
    assert told[3] == [0, 1]  # and so the next has no group before it
    assert told[4] == []
    assert not [f for f in check_store(store).findings if f.level == "error"]


def test_a_backfill_leaves_them_as_they_are(tmp_path: Path) -> None:
    store, _, _ = recorded(tmp_path, engine="identity")
    before = array(store, "rolling")
    backfill(store)
    np.testing.assert_array_equal(array(store, "rolling"), before)


def test_napari_shows_a_film_at_its_times(run: tuple[Path, Shown, dict[str, Any]]) -> None:
    layers = {about["name"]: (data, about) for data, about, _ in store_layers(run[0])}
    name = next(name for name in layers if name.startswith("rolling"))
    data, about = layers[name]
    held = ~np.isnan(np.asarray(data)).any(axis=(1, 2))
    assert held.tolist() == [False, False, *[True] * (PER_GROUP * N_T - 2)]
    step, shift = about["scale"][0], about["translate"][0]
    _, whole = next(layer for n, layer in layers.items() if "rolling" not in n and "raw" not in n)
    assert 2 * step + shift == pytest.approx(whole["translate"][0])
    assert 5 * step + shift == pytest.approx(whole["scale"][0])
    assert name.endswith("measurement")


def test_the_page_plays_them_between_the_whole_ones(
    run: tuple[Path, Shown, dict[str, Any]],
) -> None:
    source = StoreSource(run[0])
    assert [t for _, t, _ in source.times(Selection())] == [0, *np.repeat(range(1, N_T), 3)]
    taken = [ns for _, _, ns in source.times(Selection())]
    assert taken == sorted(taken)
    film = array(run[0], "rolling")
    for index, place in ((1, 3), (2, 4)):
        pair = source.pair(Selection(), index)
        assert pair is not None
        shown = pair.measurement
        assert shown is not None
        assert (shown.header.t, shown.header.newest_raw) == (1, (3, 6)[index - 1])
        assert shown.header.provisional
        assert shown.header.span_ms
        np.testing.assert_array_equal(shown.pixels, film[place])
    whole = source.pair(Selection(), 3)
    assert whole is not None
    assert whole.measurement is not None
    assert not whole.measurement.header.provisional


def test_a_film_is_exported_as_a_measurement(store: Path, tmp_path: Path) -> None:
    (chosen,) = choose(RecordedStore(store), Part(images=["rolling"], first=1))
    assert chosen.file == "rolling-measurement"
    write_ome_tiff(chosen, tmp_path / "film.tif", lambda: None)
    np.testing.assert_array_equal(
        tifffile.imread(tmp_path / "film.tif"), array(store, "rolling")[PER_GROUP:]
    )


def test_a_large_film_has_smaller_levels(tmp_path: Path) -> None:
    live = Live(keeping_rig(tmp_path), tmp_path / "large.ome.zarr", shape=(160, 160))
    live.record(np.random.default_rng(0).integers(100, 900, (2, 9, 160, 160), np.uint16))
    build_levels(live.sink.path)
    film = array(live.sink.path, "rolling")
    level = zarr.open_array(live.sink.path / "rolling/1", mode="r")[:]
    assert level.shape == (2 * PER_GROUP, 160, 160)
    np.testing.assert_allclose(level, film.reshape(6, 160, 2, 160, 2).mean((2, 4)), atol=1)
    assert not [f for f in check_store(live.sink.path).findings if f.code == "levels"]
    assert not repair(live.sink.path, still_growing_s=0).changed


def test_a_rig_without_updates_cannot_keep_them(tmp_path: Path) -> None:
    keeping_rig(tmp_path)
    file = tmp_path / "rig/rig.yaml"
    file.write_text(file.read_text().replace("update: angle", "update: group"))
    with pytest.raises(ConfigError, match=r"store\.rolling keeps pictures of groups under way"):
        load_rig(file)


def test_a_store_says_what_it_is_in_its_metadata(store: Path) -> None:
    about = json.loads((store / "rolling/zarr.json").read_text())["attributes"]
    assert about["livesr"]["kind"] == "rolling"
    assert about["livesr"]["prediction"] is False
    assert zarr.open_group(store / "rolling")["0"].shape[0] == N_T * PER_GROUP
