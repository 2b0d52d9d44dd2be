"""A run on a real Dask cluster of this computer, whose workers and clients are killed."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("distributed", reason="--cluster needs Dask's distributed")

from test_parts import COMPUTE, assert_same, job_of, whole_run

from dask_cluster import Cluster
from livesr.base.errors import ConfigError, RunError, StoreError
from livesr.cli import _run
from livesr.live.inference.engine import Engine
from livesr.store.cluster import folder_of, process_on
from livesr.store.parts import Job, Part
from recorded_runs import Live, moving_groups, sim_rig

# Dask warns of itself: of files that a killed worker leaves open, of ports, of memory.
pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture
def cluster(tmp_path: Path, engine: Engine) -> Iterator[Cluster]:
    """Two workers, which find the engine by the environment of `engine`."""
    (tmp_path / "cluster").mkdir()
    made = Cluster(tmp_path / "cluster", workers=2)
    yield made
    made.close()


def recorded(folder: Path, groups: int) -> Path:
    live = Live(sim_rig("mixing"), folder / "live.ome.zarr")
    live.record(moving_groups(groups))
    return live.sink.path


def job_for(source: Path, store: Path) -> Job:
    return job_of(source, folder=folder_of(store))


def test_a_cluster_makes_what_this_computer_makes(
    tmp_path: Path, cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("livesr.store.parts.TIME_POINTS", 16)
    source, store = recorded(tmp_path, 34), tmp_path / "there.ome.zarr"
    shown: list[tuple[int, int]] = []
    said: list[str] = []
    report = process_on(
        cluster.address,
        job_for(source, store),
        store,
        on_progress=lambda *now: shown.append(now),
        say=said.append,
    )
    expected, here = whole_run(job_of(source), tmp_path / "here.ome.zarr")
    assert_same(store, expected)
    assert report["store"] == str(store)
    assert report["sr_frames"] == here["sr_frames"] == 34
    assert (shown[0], shown[-1]) == ((0, 34), (34, 34))
    assert said[0].startswith("Dashboard: http://")
    assert not folder_of(store).exists()


def test_what_cannot_work_is_a_sentence(
    tmp_path: Path, engine: Engine, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.setattr("livesr.store.cluster._CONNECT_S", 0.5)
    source, store = recorded(tmp_path, 3), tmp_path / "there.ome.zarr"
    for address, words in (("tcp://127.0.0.1:1", "No scheduler answers"), ("dask", "no scheduler")):
        with pytest.raises(ConfigError, match=words):
            process_on(address, job_for(source, store), store)
    other = job_of(
        source, folder=folder_of(store), compute=COMPUTE.model_copy(update={"threads": 2})
    )
    with pytest.raises(StoreError, match="holds parts of another run"):
        process_on("tcp://127.0.0.1:1", other, store)
    assert _run(["process", str(source), str(source), "--store", str(store)]) == 2
    capsys.readouterr()


@pytest.mark.slow
def test_workers_that_are_killed_at_random_cost_their_part(
    tmp_path: Path, cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("livesr.store.parts.TIME_POINTS", 16)
    source, store = recorded(tmp_path, 128), tmp_path / "there.ome.zarr"
    over, killed = threading.Event(), [0]

    def kill() -> None:
        while not over.wait(random.uniform(4, 7)):
            cluster.kill_one()
            killed[0] += 1

    killer = threading.Thread(target=kill)
    killer.start()
    try:
        report = process_on(cluster.address, job_for(source, store), store)
    finally:
        over.set()
        killer.join()
    expected, _ = whole_run(job_of(source), tmp_path / "here.ome.zarr")
    assert_same(store, expected)
    assert killed[0] > 0
    assert (report["sr_frames"], report["raw_lost"]) == (128, 0)


_CLIENT = """
import sys
from pathlib import Path
from livesr.store import parts
parts.TIME_POINTS = 16
from livesr.cli import _run
sys.exit(_run(sys.argv[1:]))
"""


@pytest.mark.slow
def test_a_client_that_is_killed_is_started_again_and_goes_on(
    tmp_path: Path, cluster: Cluster
) -> None:
    source, store = recorded(tmp_path, 96), tmp_path / "there.ome.zarr"
    flags = ["process", str(source), "--store", str(store), "--cluster", cluster.address]
    flags += ["--backend", "openvino", "--precision", "f32", "--device", "cpu", "--threads", "1"]
    command = [sys.executable, "-c", _CLIENT, *flags]
    first = subprocess.Popen(command, stdout=subprocess.DEVNULL, start_new_session=True)
    while len(done := list(folder_of(store).glob("t0*"))) < 2:
        assert first.poll() is None
        time.sleep(0.05)
    os.killpg(first.pid, signal.SIGKILL)
    first.wait()
    assert not store.exists()
    when = {part: (part / "livesr" / "part.json").stat().st_mtime_ns for part in done}
    second = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env={**os.environ})
    for part, then in when.items():  # what was done is not done again
        if part.exists():
            assert (part / "livesr" / "part.json").stat().st_mtime_ns == then
    told, _ = second.communicate(timeout=250)
    assert second.returncode == 0
    assert "parts are there: it goes on" in " ".join(told.split())
    expected, _ = whole_run(job_of(source), tmp_path / "here.ome.zarr")
    assert_same(store, expected)


@pytest.mark.slow
def test_a_part_that_fails_ends_the_run_and_leaves_the_others(
    tmp_path: Path, cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("livesr.store.parts.TIME_POINTS", 16)
    source, store = recorded(tmp_path, 48), tmp_path / "there.ome.zarr"
    shard = source / "raw" / "0" / "c" / "1" / "0" / "0" / "0"
    whole = shard.read_bytes()
    shard.write_bytes(whole[:-4000])
    with pytest.raises(RunError, match=r"3 parts|2 parts|1 parts"):
        process_on(cluster.address, job_for(source, store), store)
    assert not store.exists()
    shard.write_bytes(whole)
    process_on(cluster.address, job_for(source, store), store)
    expected, _ = whole_run(job_of(source), tmp_path / "here.ome.zarr")
    assert_same(store, expected)


def test_parts_are_named_apart() -> None:
    assert Part(0, 16).name != Part(0, 16, 0).name
    assert str(Part(0, 16, 1)) == "time points 0 to 15 of position 1"
