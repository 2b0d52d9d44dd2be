"""An offline run equals the live run that recorded its raw frames."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import tifffile
import yaozarrs

from livesr.base.compute import ComputeConfig
from livesr.base.config import load_rig
from livesr.base.errors import ConfigError, EngineError, StoreError
from livesr.formats.store import RecordedStore
from livesr.live.inference.engine import Engine
from livesr.store.process import process
from livesr.store.raw_input import recording_input, store_input
from recorded_runs import SIZE, Live, array, assert_equal, lines, moving_groups, sim_rig
from rig_copies import corrected_sim_rig
from upscaling import edsr_engine


def test_a_store_gives_what_the_live_run_gave(tmp_path: Path, engine: Engine) -> None:
    live = Live(sim_rig("mixing"), tmp_path / "live.ome.zarr", origin=(3.0, 7.0))
    live.record(moving_groups(20))
    store = live.sink.path
    shown: list[tuple[int, int]] = []
    report = process(
        store_input(RecordedStore(store)),
        tmp_path / "again.ome.zarr",
        on_progress=lambda *x: shown.append(x),
    )
    again = Path(report["store"])
    assert (report["raw_frames"], report["recon_frames"], report["sr_frames"]) == (180, 20, 20)
    assert (shown[0], shown[-1]) == ((0, 20), (20, 20))
    assert not [w for w in report["warnings"] if "agree" in w]
    yaozarrs.validate_zarr_store(str(again))
    assert_equal(store, again)
    assert array(store, "sr").max() > 100
    for kind in ("raw", "recon", "sr"):
        before, after = lines(store, kind), lines(again, kind)
        assert before.keys() == after.keys()
        for key, line in before.items():
            for name in ("t_acq_ns", "normalisation", "edge", "true_neighbours", "residual"):
                assert line.get(name) == after[key].get(name), (key, name)
    assert (again / "livesr" / "manifest-mixing.yaml").is_file()


def test_the_place_of_the_region_on_the_chip_matters(tmp_path: Path, engine: Engine) -> None:
    groups = moving_groups(1)
    recons = []
    for i, origin in enumerate(((0.0, 0.0), (3.0, 7.0))):
        live = Live(sim_rig("mixing"), tmp_path / f"{i}.ome.zarr", origin=origin)
        live.record(groups)
        recons.append(array(live.sink.path, "recon"))
    assert not np.array_equal(*recons)


def test_groups_that_are_not_complete_stay_so(tmp_path: Path, engine: Engine) -> None:
    live = Live(sim_rig("mixing"), tmp_path / "live.ome.zarr")
    live.record(moving_groups(9), missing=[(4, 2), (4, 8), (8, 0)])
    report = process(store_input(RecordedStore(live.sink.path)), tmp_path / "again.ome.zarr")
    assert report["latency_ms"] == {"p50": None, "p99": None, "mean": None}
    assert (report["groups_incomplete"], report["recon_frames"]) == (2, 7)
    assert_equal(live.sink.path, Path(report["store"]))


def test_positions_and_planes_keep_their_places(tmp_path: Path, engine: Engine) -> None:
    live = Live(sim_rig("mixing"), tmp_path / "live.ome.zarr", positions=("A1", "B2"), z_planes=2)
    live.record(moving_groups(5))
    report = process(store_input(RecordedStore(live.sink.path)), tmp_path / "again.ome.zarr")
    assert report["sr_frames"] == 20
    assert_equal(live.sink.path, Path(report["store"]))


def test_channels_without_an_engine(tmp_path: Path) -> None:
    live = Live(load_rig("demo").with_engine("none"), tmp_path / "live.ome.zarr")
    live.record(moving_groups(5))
    report = process(store_input(RecordedStore(live.sink.path)), tmp_path / "again.ome.zarr")
    assert (report["recon_frames"], report["sr_frames"]) == (10, 0)
    assert_equal(live.sink.path, Path(report["store"]))


@pytest.mark.parametrize("shape", ["frames", "groups", "compressed"])
def test_a_tiff_stack(tmp_path: Path, engine: Engine, shape: str) -> None:
    groups = moving_groups(6)
    live = Live(sim_rig("mixing"), tmp_path / "live.ome.zarr")
    live.record(groups)
    stack = groups if shape == "groups" else groups.reshape(-1, SIZE, SIZE)
    path = tmp_path / "raw.tif"
    tifffile.imwrite(
        path, stack, photometric="minisblack", compression="zlib" if shape == "compressed" else None
    )
    report = process(
        recording_input(path, sim_rig("mixing")),
        tmp_path / "again.ome.zarr",
        compute=ComputeConfig(backend="openvino", precision="f32"),
    )
    assert report["sr_frames"] == 6
    assert_equal(live.sink.path, Path(report["store"]))


def test_a_tiff_that_ends_within_a_group(tmp_path: Path) -> None:
    tifffile.imwrite(
        tmp_path / "raw.tif",
        moving_groups(3).reshape(-1, SIZE, SIZE)[:-2],
        photometric="minisblack",
    )
    report = process(
        recording_input(tmp_path / "raw.tif", sim_rig("none")), tmp_path / "o.ome.zarr"
    )
    assert (report["raw_frames"], report["recon_frames"], report["raw_missing"]) == (25, 2, 2)


@pytest.mark.parametrize(
    ("stack", "words"),
    [
        (np.zeros((2, 5, 32, 32), np.uint16), r"2 x 5 x 32 x 32; this rig needs n x 9 frames"),
        (
            np.full((9, 32, 32), 0.5, np.float32),
            "float32 from 0.5 to 0.5 at its first frame; expected the camera's uint8 or uint16",
        ),
    ],
)
def test_a_tiff_that_does_not_fit_is_refused(tmp_path: Path, stack: np.ndarray, words: str) -> None:
    tifffile.imwrite(tmp_path / "raw.tif", stack, photometric="minisblack")
    with pytest.raises(ConfigError, match=words):
        recording_input(tmp_path / "raw.tif", sim_rig("none"))


def test_what_is_no_tiff_is_refused(tmp_path: Path) -> None:
    (tmp_path / "raw.tif").write_text("hello")
    with pytest.raises(ConfigError, match=r"Cannot read .*raw.tif as TIFF"):
        recording_input(tmp_path / "raw.tif", sim_rig("none"))


def test_an_engine_that_is_not_here_is_named(
    tmp_path: Path, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    live = Live(sim_rig("mixing"), tmp_path / "live.ome.zarr")
    live.record(moving_groups(3))
    monkeypatch.setenv("LIVESR_HOME", str(tmp_path / "elsewhere"))
    with pytest.raises(EngineError, match=r"predicted by engine 'mixing'.*--engine FOLDER"):
        store_input(RecordedStore(live.sink.path))
    raw = store_input(RecordedStore(live.sink.path), engine=str(engine.folder))
    report = process(raw, tmp_path / "again.ome.zarr")
    assert_equal(live.sink.path, Path(report["store"]))


def test_a_store_keeps_the_corrections_and_raw_as_the_camera_gave_it(
    tmp_path: Path, engine: Engine
) -> None:
    rig, groups = corrected_sim_rig(tmp_path).with_engine("mixing"), moving_groups(6)
    live = Live(rig, tmp_path / "live.ome.zarr", origin=(3.0, 7.0))
    live.record(groups)
    shutil.rmtree(rig.folder)  # the store must not need the rig any more
    store = live.sink.path
    np.testing.assert_array_equal(array(store, "raw"), groups)
    yaozarrs.validate_zarr_store(str(store))
    report = process(store_input(RecordedStore(store)), tmp_path / "again.ome.zarr")
    again = Path(report["store"])
    assert_equal(store, again)
    assert {p.name for p in (again / "livesr").glob("*.tif")} == {
        "offset.tif",
        "flat.tif",
        "bad.tif",
    }
    plain = Live(sim_rig("mixing"), tmp_path / "plain.ome.zarr", origin=(3.0, 7.0))
    plain.record(groups)
    assert not np.array_equal(array(plain.sink.path, "recon"), array(store, "recon"))


def test_another_rig_for_a_store_comes_with_its_own_files(tmp_path: Path, engine: Engine) -> None:
    live = Live(sim_rig("mixing"), tmp_path / "live.ome.zarr")
    live.record(moving_groups(3))
    report = process(
        store_input(
            RecordedStore(live.sink.path), corrected_sim_rig(tmp_path).with_engine("mixing")
        ),
        tmp_path / "new.ome.zarr",
    )
    new = Path(report["store"])
    assert_equal(
        new, Path(process(store_input(RecordedStore(new)), tmp_path / "again.ome.zarr")["store"])
    )


def test_what_is_no_store_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="There is no store"):
        RecordedStore(tmp_path / "nothing")
    with pytest.raises(StoreError, match="livesr repair"):
        RecordedStore(tmp_path)


@pytest.mark.parametrize("separate", ["mixing", "none"])
def test_a_store_that_was_upscaled(tmp_path: Path, engine: Engine, separate: str) -> None:
    edsr_engine(engine.folder.parent / "linear-x2")
    rig = sim_rig(separate).with_engine("linear-x2", "upscale")
    live = Live(rig, tmp_path / "live.ome.zarr", positions=("A", "B"))
    live.record(moving_groups(6))
    store = live.sink.path
    report = process(store_input(RecordedStore(store)), tmp_path / "again.ome.zarr")
    assert report["upscale"] == {"488": "linear-x2"}
    assert_equal(store, Path(report["store"]))
    assert (Path(report["store"]) / "livesr" / "manifest-linear-x2.yaml").is_file()
    plain = (
        store_input(RecordedStore(store)).rig.with_engine("none", "upscale").with_engine("mixing")
    )
    report = process(store_input(RecordedStore(store), plain), tmp_path / "plain.ome.zarr")
    assert array(Path(report["store"]), "sr_A_488").shape[2:] == (2 * SIZE, 2 * SIZE)
