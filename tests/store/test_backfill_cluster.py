"""A backfill on a real Dask cluster of this computer, whose workers are killed."""

from __future__ import annotations

import json
import random
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("distributed", reason="--cluster needs Dask's distributed")

from test_backfill import assert_finished, hurried
from test_parts import COMPUTE

from dask_cluster import Cluster
from livesr.base.errors import RunError
from livesr.base.frames import Stream
from livesr.cli import _run
from livesr.live.inference.engine import Engine
from livesr.store.backfill import Todo, backfill
from livesr.store.backfill_cluster import backfill_on, cut
from recorded_runs import lines

# Dask warns of itself: of files that a killed worker leaves open, of ports, of memory.
pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture
def cluster(tmp_path: Path, engine: Engine, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cluster]:
    """Two workers, which find the engine by the environment of `engine`; parts are short."""
    monkeypatch.setattr("livesr.store.backfill_cluster.TIME_POINTS", 16)
    (tmp_path / "cluster").mkdir()
    made = Cluster(tmp_path / "cluster", workers=2)
    yield made
    made.close()


def completed_here(store: Path) -> Path:
    """What a backfill on this computer makes of a copy."""
    here = store.with_name("here.ome.zarr")
    shutil.copytree(store, here)
    backfill(here, compute=COMPUTE)
    return here


def test_a_cluster_completes_a_store_as_this_computer_does(
    tmp_path: Path, cluster: Cluster, capsys: Any
) -> None:
    store = hurried(tmp_path, frames=60, reconstruct=0.02)
    here = completed_here(store)
    before = lines(store, "sr")
    flags = ["--backend", "openvino", "--precision", "f32", "--device", "cpu", "--threads", "1"]
    assert _run(["backfill", str(store), "--cluster", cluster.address, "--json", *flags]) == 0
    report = json.loads(capsys.readouterr().out)
    assert_finished(store, here)
    assert report["predicted"] >= 60 - len(before) > 0
    assert report["left"] == report["impossible"] == 0
    assert not list((store / "livesr").glob("backfill*"))
    again = backfill_on(cluster.address, store, compute=COMPUTE)
    assert (again["predicted"], again["reconstructed"]) == (0, 0)


@pytest.mark.slow
def test_workers_that_are_killed_cost_their_part(tmp_path: Path, cluster: Cluster) -> None:
    store = hurried(tmp_path, frames=128, reconstruct=0.02)
    here = completed_here(store)
    over, killed = threading.Event(), [0]

    def kill() -> None:
        while not over.wait(random.uniform(4, 7)):
            cluster.kill_one()
            killed[0] += 1

    killer = threading.Thread(target=kill)
    killer.start()
    try:
        report = backfill_on(cluster.address, store, compute=COMPUTE)
    finally:
        over.set()
        killer.join()
    assert_finished(store, here)
    assert killed[0] > 0
    assert report["left"] == 0


def test_a_part_that_fails_leaves_the_others_and_is_computed_the_next_time(
    tmp_path: Path, cluster: Cluster
) -> None:
    store = hurried(tmp_path, frames=60, infer=0.05)
    here = completed_here(store)
    shard = store / "raw" / "0" / "c" / "1" / "0" / "0" / "0"
    whole = shard.read_bytes()
    shard.write_bytes(whole[:-4000])
    with pytest.raises(RunError, match="could not be computed"):
        backfill_on(cluster.address, store, compute=COMPUTE)
    late = [t for _, t in lines(store, "sr") if t >= 48]
    assert len(late) == 12  # of the part that was whole
    shard.write_bytes(whole)
    backfill_on(cluster.address, store, compute=COMPUTE)
    assert_finished(store, here)


def test_no_part_begins_behind_a_frame_of_unknown_normalisation() -> None:
    stream = Stream(0, "A", 0)
    there = {(stream, t) for t in range(64)}
    dropped = {(stream, t) for t in (15, 40, 47, 48)}
    read = tuple(sorted(there))
    todo = Todo(0, "A", frozenset(there), frozenset(dropped), read, impossible=3)
    parts = cut(todo, 16, there - dropped)
    assert [min(t for _, t in part.predict) for part in parts] == [0, 32]  # 16 and 48 follow
    assert frozenset().union(*(part.predict for part in parts)) == todo.predict
    assert frozenset().union(*(part.measure for part in parts)) == todo.measure
    assert [t for _, t in parts[1].read] == list(range(31, 64))
    assert [t for _, t in parts[0].read] == list(range(33))
    assert cut(todo, 0, there) == [todo]
