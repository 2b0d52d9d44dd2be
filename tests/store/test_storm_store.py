"""A STORM run's store.

A film, a running image and a table, which process, backfill and repair treat as they do SIM's.
"""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaozarrs
import zarr

from livesr.base.config import RigConfig, load_rig
from livesr.base.errors import ConfigError, StoreError
from livesr.formats.localisations import read_localisations
from livesr.formats.store import RecordedStore
from livesr.live.inference.engine import Engine
from livesr.live.sinks.ome_zarr import OMEZarrSink
from livesr.modalities.storm.config import STORMConfig
from livesr.simulation.blinking_rig import BlinkingBank
from livesr.store.backfill import backfill
from livesr.store.process import process
from livesr.store.raw_input import recording_input, store_input
from livesr.store.repair import repair
from recorded_runs import RIGS, SIZE, Live, array, assert_equal, lines
from waiting import until

N = 6
TABLE = "localisations.csv"
SLIDING = "  sliding_groups: 3\n"
FOREVER = f"""
import sys
from pathlib import Path
sys.path[:0] = [{str(Path(__file__).parent)!r}, {str(Path(__file__).parents[1] / "support")!r}]
from test_storm_store import *
live = Live(load_rig(sys.argv[2]), Path(sys.argv[1]))
print("open", flush=True)
live.record(film(2000, load_rig(sys.argv[2])), pace_s=lambda t: 0.002)
"""


@pytest.fixture
def rig(tmp_path: Path) -> RigConfig:
    """virtual_storm with groups of six."""
    return small_rig(tmp_path)


def small_rig(tmp_path: Path, more: str = "") -> RigConfig:
    folder = shutil.copytree(RIGS / "virtual_storm", tmp_path / "rig", dirs_exist_ok=True)
    text = (folder / "rig.yaml").read_text(encoding="utf-8")
    if more:  # then the drift is not corrected: that would look back to the first group
        text = text.replace("drift_correction: true", "drift_correction: false")
    (folder / "rig.yaml").write_text(
        text.replace("frames: 100\n", f"frames: {N}\n{more}"), encoding="utf-8"
    )
    return load_rig(folder)


def film(groups: int, rig: RigConfig) -> np.ndarray:
    """(group, frame, y, x).

    A few frames of blinking, over and over, each marked so that none equals another.
    """
    bank = BlinkingBank(rig, SIZE, 10 * N, fluorophores=200, lit=4)
    frames = bank.frames[np.arange(groups * N) % (10 * N)].reshape(groups, N, SIZE, SIZE)
    frames[:, :, 0, 0] = np.arange(groups * N).reshape(groups, N) % 60_000
    return frames


def recorded(tmp_path: Path, rig: RigConfig, groups: int = 8, **how) -> Path:
    live = Live(rig, tmp_path / "live.ome.zarr", policy=how.pop("policy", "complete"))
    live.record(film(groups, rig), **how)
    return live.sink.path


def offline(store: Path) -> Path:
    return Path(
        process(store_input(RecordedStore(store)), store.with_name("offline.ome.zarr"))["store"]
    )


def assert_same(store: Path, reference: Path) -> None:
    yaozarrs.validate_zarr_store(str(store))
    assert_equal(store, reference)
    np.testing.assert_array_equal(
        read_localisations(store / TABLE), read_localisations(reference / TABLE)
    )


def test_raw_is_a_film_and_recon_counts_localisations(tmp_path: Path, rig: RigConfig) -> None:
    store = recorded(tmp_path, rig)
    yaozarrs.validate_zarr_store(str(store))
    np.testing.assert_array_equal(array(store, "raw"), film(8, rig).reshape(-1, SIZE, SIZE))
    raw, recon = (zarr.open_group(store / name, mode="r").attrs for name in ("raw", "recon"))
    assert [axis["name"] for axis in raw["ome"]["multiscales"][0]["axes"]] == ["t", "y", "x"]
    assert len(raw["ome"]["omero"]["channels"]) == 1
    assert raw["livesr"]["exposures"] == N
    seconds = [
        a["ome"]["multiscales"][0]["datasets"][0]["coordinateTransformations"][0]["scale"][0]
        for a in (raw, recon)
    ]
    assert seconds[0] * N == pytest.approx(seconds[1])
    about = recon["livesr"]["intensity"]
    assert (about["unit"], about["scale"]) == ("localisation", 0.01)
    found = read_localisations(store / TABLE)
    assert len(found) > 50
    assert found["frame"].max() < 8 * N
    image = (array(store, "recon")[-1].astype(float) - about["offset"]) * about["scale"]
    drawn = found["uncertainty_nm"] <= STORMConfig.of(rig).max_uncertainty_nm
    assert image.sum() == pytest.approx(drawn.sum(), rel=0.05)
    counted = [line["localisations"] for _, line in sorted(lines(store, "recon").items())]
    assert counted == np.bincount(found["frame"] // N, minlength=8).tolist()


@pytest.mark.parametrize("more", ["", SLIDING])
def test_process_repeats_the_run(tmp_path: Path, more: str) -> None:
    rig = small_rig(tmp_path, more)
    store = recorded(tmp_path, rig, missing=[(2, 3), (5, 0), (5, 1)])
    assert lines(store, "raw").keys() == lines(store, "recon").keys()
    assert_same(store, offline(store))


@pytest.mark.parametrize("more", ["", SLIDING])
def test_backfill_puts_dropped_groups_into_every_image_that_lacks_them(
    tmp_path: Path, more: str, monkeypatch
) -> None:
    rig = small_rig(tmp_path, more)
    with monkeypatch.context() as patched:
        give_up(patched, {2, 3})
        store = recorded(tmp_path, rig, policy="latest", pace_s=lambda t: 0.02)
    assert {t for _, t in lines(store, "recon")} == set(range(8)) - {2, 3}
    before = array(store, "recon")
    reference = offline(store)
    done = backfill(store)
    # Groups 2 and 3, and everything that looks back to them: to the end, or two groups on.
    assert done["reconstructed"] == (4 if more else 6)
    assert_same(store, reference)
    assert not np.array_equal(before[4], array(store, "recon")[4])
    assert backfill(store)["reconstructed"] == 0


@pytest.mark.parametrize("more", ["", SLIDING])
def test_predictions_follow_the_images_that_backfill_corrects(
    tmp_path: Path, more: str, monkeypatch, engine: Engine
) -> None:
    with monkeypatch.context() as patched:
        give_up(patched, {3})
        store = recorded(
            tmp_path,
            small_rig(tmp_path, more).with_engine("mixing"),
            policy="latest",
            pace_s=lambda t: 0.1,
        )
    reference = offline(store)
    backfill(store)
    assert_same(store, reference)
    assert backfill(store)["predicted"] == 0


def give_up(monkeypatch: pytest.MonkeyPatch, dropped: set[int]) -> None:
    """Let a run give up these groups, as it does when reconstruction cannot keep up."""
    from livesr.base.buffers import BoundedQueue

    put = BoundedQueue.put

    def lossy(self, item, *arguments):
        if getattr(item, "t", None) in dropped and hasattr(item, "frames"):
            return [item]
        return put(self, item, *arguments)

    monkeypatch.setattr(BoundedQueue, "put", lossy)


def test_a_film_from_a_tiff_may_end_within_a_group(tmp_path: Path, rig: RigConfig) -> None:
    import tifffile

    frames = film(4, rig).reshape(-1, SIZE, SIZE)[:-2]
    tifffile.imwrite(tmp_path / "film.tif", frames)
    store = Path(
        process(recording_input(tmp_path / "film.tif", rig), tmp_path / "film.ome.zarr")["store"]
    )
    assert len(array(store, "recon")) == 4
    np.testing.assert_array_equal(array(store, "raw")[: len(frames)], frames)
    assert not array(store, "raw")[len(frames) :].any()
    assert lines(store, "raw")[next(iter(lines(store, "raw")))[0], 3]["missing"] == [4, 5]
    assert read_localisations(store / TABLE)["frame"].max() < len(frames)


def test_a_killed_run_is_repaired_and_keeps_its_table(tmp_path: Path, rig: RigConfig) -> None:
    store = tmp_path / "killed.ome.zarr"
    command = [sys.executable, "-c", FOREVER, str(store), str(rig.folder)]
    process_ = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process_.stdout is not None
    assert process_.stdout.readline() == "open\n"
    until((store / "raw" / "0" / "c" / "2").exists, every_s=0.005)
    process_.kill()
    assert process_.wait() == -signal.SIGKILL
    process_.stdout.close()
    with (store / TABLE).open("a") as table:
        table.write("7,12.")
    assert repair(store, still_growing_s=0.0).changed
    assert (store / TABLE).read_text().endswith("\n")
    yaozarrs.validate_zarr_store(str(store))
    here = lines(store, "raw")
    raw = array(store, "raw").reshape(-1, N, SIZE, SIZE)
    assert len(here) >= 32
    for _, t in here:
        assert list(raw[t, :, 0, 0]) == [k % 60_000 for k in range(t * N, t * N + N)]
    found = read_localisations(store / TABLE)
    measured = RecordedStore(store).measured()
    for (_, t), line in measured.items():
        assert np.count_nonzero(found["frame"] // N == t) == line["localisations"]
    assert not repair(store).changed


def test_a_film_of_planes_is_refused(tmp_path: Path, rig: RigConfig) -> None:
    live = Live(rig, tmp_path / "z.ome.zarr", z_planes=2)
    with pytest.raises(StoreError, match="Acquire each plane as a position"):
        OMEZarrSink(tmp_path / "z.ome.zarr").open(live.run)
    assert not (tmp_path / "z.ome.zarr").exists()


def test_positions_and_thousands_of_frames(tmp_path: Path) -> None:
    """Each position has its film, its image and its table.

    A group of two thousand frames is one shard.
    """
    rig = small_rig(tmp_path)
    live = Live(rig, tmp_path / "two.ome.zarr", positions=("a", "b"))
    live.record(film(3, rig))
    names = sorted(image.name for image in RecordedStore(live.sink.path).images.values())
    assert names == ["raw_a_647", "raw_b_647", "recon_a_647", "recon_b_647"]
    tables = [read_localisations(live.sink.path / f"localisations_{p}_647.csv") for p in "ab"]
    assert all(len(table) > 10 for table in tables)
    assert len(array(live.sink.path, "raw_b_647")) == 3 * N

    folder = rig.folder
    text = (
        (folder / "rig.yaml")
        .read_text(encoding="utf-8")
        .replace(f"frames: {N}\n", "frames: 2000\n")
    )
    (folder / "rig.yaml").write_text(text, encoding="utf-8")
    long = Live(load_rig(folder), tmp_path / "long.ome.zarr")
    frames = np.tile(film(10, rig).reshape(1, -1, SIZE, SIZE), (1, 40, 1, 1))[:, :2000]
    long.record(np.concatenate([frames, frames]))
    assert len(array(long.sink.path, "recon")) == 2
    raw = zarr.open_array(long.sink.path / "raw" / "0", mode="r")
    assert raw.shape[0] == 4000
    assert raw.shards[0] % 2000 == 0
    np.testing.assert_array_equal(
        raw[1990:2010], np.concatenate([frames[0, 1990:], frames[0, :10]])
    )


def test_drift_is_refined_by_all_localisations_at_once(tmp_path: Path, rig: RigConfig) -> None:
    """Drift within a group, which no live run can take out, is gone from the image."""
    bank = BlinkingBank(rig, SIZE, 300, fluorophores=100, lit=12)
    frames = bank.frames.reshape(50, N, SIZE, SIZE).copy()
    frames[25:] = np.roll(frames[25:], 3, axis=2)
    live = Live(rig, tmp_path / "live.ome.zarr")
    live.record(frames)
    raw = store_input(RecordedStore(live.sink.path))
    store = Path(process(raw, tmp_path / "again.ome.zarr", refine_drift=True)["store"])
    np.testing.assert_array_equal(
        read_localisations(store / TABLE), read_localisations(live.sink.path / TABLE)
    )
    drift = np.array([line["drift_nm"] for _, line in sorted(lines(store, "recon").items())])
    pixel_nm = 65  # of `Live`
    np.testing.assert_allclose(drift[30:] - drift[:20], [[3 * pixel_nm, 0]] * 20, atol=30)
    assert np.abs(drift[:22]).max() < 30


def test_drift_is_refined_where_something_was_localised(tmp_path: Path) -> None:
    live = Live(load_rig(RIGS / "virtual_sim"), tmp_path / "live.ome.zarr")
    live.record(np.ones((2, 9, SIZE, SIZE), np.uint16))
    with pytest.raises(ConfigError, match="has no table of localisations"):
        process(
            store_input(RecordedStore(live.sink.path)),
            tmp_path / "again.ome.zarr",
            refine_drift=True,
        )
