"""What is done behind a run: skipped frames, smaller levels, where a viewer begins."""

from __future__ import annotations

import _thread
import json
import shutil
import signal
import textwrap
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import yaozarrs
import zarr

from contracts import describe, multicolor_frame, raw_stack, sr_frame
from failing_disk import preloaded
from livesr.base.frames import Stream
from livesr.check.store import check_store
from livesr.formats.store import RecordedStore
from livesr.live.inference.engine import Engine
from livesr.live.sinks.ome_zarr import OMEZarrSink
from livesr.store.backfill import backfill
from livesr.store.completion import (
    complete,
    complete_behind,
    may_lack_pictures,
    tell_where_pictures_are,
)
from livesr.store.halving import halved, level_sizes
from livesr.store.levels import build_levels, drop_levels
from livesr.store.process import process
from livesr.store.raw_input import store_input
from livesr.store.repair import repair
from recorded_runs import Live, array, assert_equal, moving_groups, sim_rig

SUPPORT = [str(Path(__file__).parents[1] / "support"), str(Path(__file__).parents[1])]


def recorded(folder: Path, size: int = 150, count: int = 3, **how: object) -> Path:
    """A store of pictures of twice `size`; the network skipped the first."""
    sink = OMEZarrSink(folder / "run.ome.zarr")
    sink.open(describe(size=size, **how))
    for t in range(count):
        for z in range(int(str(how.get("z_planes", 1)))):
            stream = Stream(0, "488", z)
            sink.raw(raw_stack(t, stream, size=size))
            sink.recon(sr_frame(t, stream, size=size))
            if t:
                sink.separated(multicolor_frame(t, stream, size=size))
            else:
                sink.skipped(stream, t, "the network was busy")
    sink.close({})
    return sink.path


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return recorded(tmp_path)


def datasets(store: Path, name: str) -> list[dict]:
    about = json.loads((store / name / "zarr.json").read_text())
    return about["attributes"]["ome"]["multiscales"][0]["datasets"]


def contents(store: Path) -> dict[str, bytes]:
    return {
        str(f.relative_to(store)): f.read_bytes() for f in sorted(store.rglob("*")) if f.is_file()
    }


def test_sizes_and_means() -> None:
    assert level_sizes(256, 256) == []
    assert level_sizes(1030, 300) == [(515, 150), (258, 75), (129, 38)]
    planes = np.arange(15, dtype=np.uint16).reshape(1, 3, 5)
    np.testing.assert_array_equal(halved(planes)[0], [[3, 5, 7], [11, 13, 14]])
    assert halved(np.full((2, 2), 65535, np.uint16)) == 65535


def test_levels_are_valid_and_show_what_the_image_holds(store: Path) -> None:
    raw = array(store, "raw")
    shown: list[tuple[int, int]] = []
    assert build_levels(store, on_progress=lambda *at: shown.append(at)) == ["recon", "sr"]
    assert shown[0][0] == 0
    assert shown[-1][0] == shown[-1][1] > 0
    yaozarrs.validate_zarr_store(str(store))
    for name in ("recon", "sr"):
        whole = array(store, name)
        small = np.asarray(zarr.open_array(store / name / "1", mode="r"))
        np.testing.assert_array_equal(small, halved(whole))
        first, second = (d["coordinateTransformations"] for d in datasets(store, name))
        assert second[0]["scale"][-2:] == [2 * s for s in first[0]["scale"][-2:]]
        assert second[1]["translation"][-1] == pytest.approx(first[0]["scale"][-1] / 2)
    assert len(datasets(store, "raw")) == 1
    np.testing.assert_array_equal(array(store, "raw"), raw)
    before = contents(store)
    assert build_levels(store) == []
    assert contents(store) == before
    assert not repair(store).changed
    assert contents(store) == before
    assert "levels" not in {f.code for f in check_store(store).findings}


def test_other_readers_see_the_levels(tmp_path: Path) -> None:
    reader = pytest.importorskip("ome_zarr.reader", reason="ome-zarr is not installed")
    from ome_zarr.io import parse_url

    store = recorded(tmp_path, z_planes=2)
    build_levels(store)
    (node,) = reader.Reader(parse_url(str(store / "sr")))()
    assert [level.shape[-2:] for level in node.data] == [(300, 300), (150, 150)]
    assert [level.shape[2] for level in node.data] == [2, 2]
    np.testing.assert_array_equal(node.data[1][1].compute(), halved(array(store, "sr")[1]))


def test_a_stop_leaves_an_image_without(store: Path) -> None:
    before = contents(store)
    assert build_levels(store, stop=lambda: True) == []
    assert contents(store) == before


def test_a_level_that_was_left_by_a_kill_is_replaced(store: Path) -> None:
    shutil.copytree(store / "recon" / "0", store / "recon" / "1")
    (store / "livesr" / "levels-killed").mkdir()
    assert "recon" in build_levels(store)
    assert zarr.open_array(store / "recon" / "1", mode="r").shape == (3, 150, 150)
    assert not list((store / "livesr").glob("levels-*"))


def test_a_store_with_levels_is_repaired(store: Path) -> None:
    build_levels(store)
    shard = next(f for f in (store / "sr" / "1" / "c").rglob("*") if f.is_file())
    damaged = bytearray(shard.read_bytes())
    damaged[20] ^= 255
    shard.write_bytes(damaged)
    assert "levels" in {f.code for f in check_store(store).findings}
    assert repair(store).changed
    assert [len(datasets(store, name)) for name in ("recon", "sr")] == [2, 1]
    assert not (store / "sr" / "1").exists()
    yaozarrs.validate_zarr_store(str(store))
    assert build_levels(store) == ["sr"]
    assert not repair(store).changed
    (store / "recon" / "1" / "zarr.json").unlink()
    assert "levels" in {f.code for f in check_store(store).findings}
    repair(store)
    assert len(datasets(store, "recon")) == 1


def test_levels_go_before_their_image_is_written(store: Path) -> None:
    build_levels(store)
    image = RecordedStore(store).images["recon", 0, "488"]
    assert drop_levels(image)
    assert not drop_levels(image)
    assert not (store / "recon" / "1").exists()


def test_viewers_begin_where_there_is_a_picture(store: Path) -> None:
    tell_where_pictures_are(store)
    about = json.loads((store / "sr" / "zarr.json").read_text())["attributes"]["ome"]["omero"]
    assert about["rdefs"] == {"defaultT": 1}
    recon = json.loads((store / "recon" / "zarr.json").read_text())["attributes"]["ome"]["omero"]
    assert "rdefs" not in recon
    yaozarrs.validate_zarr_store(str(store))
    assert not repair(store).changed


def hurried(tmp_path: Path, count: int = 20) -> Path:
    live = Live(
        sim_rig("mixing"), tmp_path / "live.ome.zarr", policy="latest", slow={"infer": 0.04}
    )
    report = live.record(moving_groups(count), pace_s=lambda t: 0.01)
    assert report["sr_skipped"] > 0
    return live.sink.path


def test_skipped_frames_are_computed_as_offline(tmp_path: Path, engine: Engine) -> None:
    store = hurried(tmp_path)
    reference = process(store_input(RecordedStore(store)), tmp_path / "offline.ome.zarr")
    done = complete_behind(store)
    assert done.predicted > 0
    assert (done.left, done.problems) == (0, ())
    assert_equal(store, Path(reference["store"]))


def test_only_what_time_allows(tmp_path: Path, engine: Engine) -> None:
    store = hurried(tmp_path, 60)
    before = len(RecordedStore(store).pictures("sr"))
    none = complete(store, within_s=1e-9)
    assert none.predicted == 0
    assert none.left > 0
    assert none.problems == ()
    stopped = threading.Event()
    some = complete(
        store, stopped=stopped, on_progress=lambda done, _: stopped.set() if done >= 3 else None
    )
    there = len(RecordedStore(store).pictures("sr"))
    assert 3 <= some.predicted + some.reconstructed < none.left
    assert there >= before
    assert not repair(store).changed
    rest = backfill(store)
    assert rest["left"] == 0
    assert rest["predicted"] + rest["reconstructed"] == some.left


def test_ctrl_c_ends_it_and_what_is_done_stays(tmp_path: Path, engine: Engine) -> None:
    store = hurried(tmp_path, 60)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # in the background: ignored

    def interrupted(done: int, _: int) -> None:
        if done == 3:
            _thread.interrupt_main()
        if done >= 3:  # time for the other thread to hear of it
            time.sleep(0.1)

    try:
        some = complete_behind(store, on_progress=interrupted)
    finally:
        signal.signal(signal.SIGINT, before)
    assert some.predicted + some.reconstructed >= 3
    assert some.left > 0
    assert not repair(store).changed
    assert backfill(store)["predicted"] + some.predicted + some.reconstructed > some.left


def test_nothing_is_done_where_nothing_is_lacking(tmp_path: Path, engine: Engine) -> None:
    live = Live(sim_rig("mixing"), tmp_path / "live.ome.zarr")
    live.record(moving_groups(5))
    without = OMEZarrSink(tmp_path / "no-raw.ome.zarr")
    without.open(describe(record_raw=False))
    without.recon(sr_frame(0))
    without.close({})
    for store in (live.sink.path, without.path):
        assert not may_lack_pictures(RecordedStore(store))
        before = contents(store)
        assert complete(store).problems == ()
        assert contents(store) == before


def test_what_cannot_be_completed_is_a_sentence(store: Path, tmp_path: Path) -> None:
    done = complete(store)  # without the copy of a rig
    assert len(done.problems) == 1
    assert done.levels == ("recon", "sr")
    gone = complete(tmp_path / "nothing.ome.zarr")
    assert "There is no store" in gone.problems[0]


FAILING = """
import sys, json
sys.path[:0] = {support!r}
from pathlib import Path
from failing_disk import calls, failing, failures
from livesr.store.completion import complete
store, call, part, first = Path(sys.argv[1]), sys.argv[2], sys.argv[3], int(sys.argv[4])
with failing(call, part, first, for_good=True, number=28):
    done = complete(store)
    failed = failures()
print(json.dumps([failed, list(done.problems), list(done.levels)]))
"""


@pytest.mark.parametrize(
    ("call", "first"),
    [
        ("write", 4),
        *(pytest.param(*how, marks=pytest.mark.slow) for how in (("write", 1), ("fsync", 1))),
    ],
)
def test_a_full_disk_harms_nothing(store: Path, tmp_path: Path, call: str, first: int) -> None:
    before = contents(store)
    script = tmp_path / "failing.py"
    script.write_text(textwrap.dedent(FAILING.format(support=SUPPORT)))
    ran = preloaded(tmp_path, [str(script), str(store), call, "levels-", str(first)])
    assert ran.returncode == 0, ran.stderr
    failed, problems, levels = json.loads(ran.stdout.splitlines()[-1])
    assert failed > 0, "the disk never failed"
    assert levels == []
    assert any("Smaller levels cannot be written" in sentence for sentence in problems)
    after = contents(store)
    told = {
        "recon/zarr.json",
        "sr/zarr.json",
    }  # of the levels that were whole, of the first picture
    assert {name: after[name] for name in before if name not in told} == {
        name: before[name] for name in before if name not in told
    }
    assert not list((store / "livesr").glob("levels-*"))
    yaozarrs.validate_zarr_store(str(store))
    assert not repair(store).changed
    assert build_levels(store)[-1] == "sr"
