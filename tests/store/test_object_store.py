"""Stores on object storage: an S3 server on this computer."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("s3fs", reason="object storage needs s3fs")
pytest.importorskip("moto.server", reason="these tests need moto's server")

from livesr.base.errors import ConfigError, StoreError
from livesr.cli import _run
from livesr.formats import object_store, series_spec
from livesr.formats.object_store import address_of, local
from livesr.formats.store import RecordedStore
from livesr.formats.zarr_files import open_array
from livesr.live.inference.engine import Engine
from livesr.live.sinks.ome_zarr import OMEZarrSink
from livesr.napari.store_layers import get_reader
from livesr.store.exports.export import export
from livesr.store.process import process
from livesr.store.raw_input import raw_input
from livesr.viewer.frame_pairs import Selection
from livesr.viewer.store_source import StoreSource
from recorded_runs import Live, array, assert_equal, moving_groups, sim_rig

# botocore and moto warn of themselves.
pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(scope="module")
def bucket() -> Iterator[Any]:
    """An empty bucket of a server that runs until the module is over."""
    import s3fs
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    host, port = server.get_host_and_port()
    about = {
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
        "AWS_ACCESS_KEY_ID": "me",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    before = dict(os.environ)
    os.environ.update(about)
    s3fs.S3FileSystem.clear_instance_cache()
    fs = s3fs.S3FileSystem()
    fs.mkdir("archive")
    yield fs
    os.environ.clear()
    os.environ.update(before)
    server.stop()


@pytest.fixture
def recorded(bucket: Any, tmp_path: Path, engine: Engine) -> tuple[Path, str]:
    """A store here and, as it is, there."""
    live = Live(sim_rig("mixing"), tmp_path / "run.ome.zarr")
    live.record(moving_groups(6), missing=[(4, 2)])
    name = tmp_path.name
    bucket.put(str(live.sink.path), f"archive/{name}/run.ome.zarr", recursive=True)
    object_store._folders.clear()
    object_store._mirrors.clear()
    return live.sink.path, f"s3://archive/{name}/run.ome.zarr"


def test_it_is_processed_viewed_and_exported(
    recorded: tuple[Path, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, there = recorded
    report = process(raw_input(Path(there)), tmp_path / "again.ome.zarr")
    assert_equal(here, Path(report["store"]))
    source = StoreSource(there)
    assert source.length == StoreSource(here).length
    pair, expected = (s.pair(Selection(), 2) for s in (source, StoreSource(here)))
    assert pair is not None
    assert expected is not None
    np.testing.assert_array_equal(pair.prediction.pixels, expected.prediction.pixels)
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    one, other = export(there, "tiff"), export(here, "tiff")
    assert one.path.parent == tmp_path / "work"
    import tifffile

    for name in one.files:
        np.testing.assert_array_equal(
            tifffile.imread(one.path / name), tifffile.imread(other.path / name)
        )
    assert _run(["export", there, "--to", "csv", "--json"]) == 0
    assert _run(["process", there, "--store", "cli.ome.zarr", "--json"]) == 0
    assert_equal(here, tmp_path / "work" / "cli.ome.zarr")


def test_pixels_are_fetched_when_they_are_asked_for(recorded: tuple[Path, str]) -> None:
    here, there = recorded
    folder = local(there)
    assert RecordedStore(folder).positions == RecordedStore(here).positions
    assert not list(folder.rglob("c"))
    np.testing.assert_array_equal(open_array(folder / "sr" / "0")[2], array(here, "sr")[2])
    assert not list(folder.rglob("c"))
    assert local(there) == folder


def test_what_is_there_is_asked_once_for_all_frames(
    bucket: Any, tmp_path: Path, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And not once for each: a request takes tens of milliseconds, and a store has thousands."""
    monkeypatch.setattr(series_spec, "_SHARD_TIME_POINTS", 1)  # as of slow time points
    live = Live(sim_rig("mixing"), tmp_path / "run.ome.zarr")
    live.record(moving_groups(8))
    files = [f for f in (live.sink.path / "sr" / "0" / "c").rglob("*") if f.is_file()]
    assert len(files) == 8
    there = f"s3://archive/{tmp_path.name}/run.ome.zarr"
    bucket.put(str(live.sink.path), there, recursive=True)
    local(there)
    asked: Counter[str] = Counter()
    call = type(bucket)._call_s3

    async def counting(self: Any, method: str, *args: Any, **how: Any) -> Any:
        asked[method] += 1
        return await call(self, method, *args, **how)

    monkeypatch.setattr(type(bucket), "_call_s3", counting)
    source, read = StoreSource(there), get_reader(there)
    assert source.length == 8
    assert read is not None
    assert {layer[0].shape[-3] for layer in read(there)} == {8}
    export(there, "tiff", tmp_path / "out")
    assert asked["head_object"] == 0
    assert asked["list_objects_v2"] <= 3 * 3  # three images; an answer is believed for ten seconds


def test_a_shard_that_is_gone_there_is_said(recorded: tuple[Path, str], bucket: Any) -> None:
    _, there = recorded
    bucket.rm(f"{there.removeprefix('s3://')}/raw/0/c", recursive=True)
    bucket.invalidate_cache()
    with pytest.raises(Exception, match="its file is gone"):
        list(raw_input(Path(there)).frames())


@pytest.mark.parametrize("codec", ["pickle", "vlen-utf8"])
def test_codecs_of_strangers_are_not_run_there_either(
    recorded: tuple[Path, str], bucket: Any, codec: str
) -> None:
    _, there = recorded
    place = f"{there.removeprefix('s3://')}/raw/0/zarr.json"
    about = json.loads(bucket.cat_file(place))
    about["codecs"] = [{"name": f"numcodecs.{codec}", "configuration": {}}]
    bucket.pipe_file(place, json.dumps(about).encode())
    with pytest.raises(StoreError, match="does not run on a stranger's file"):
        open_array(local(there) / "raw" / "0")


def test_what_cannot_be_read_is_a_sentence(bucket: Any) -> None:
    with pytest.raises(StoreError, match="cannot be read"):
        local("s3://nobody/run.ome.zarr")
    bucket.pipe_file("archive/empty/readme.txt", b"")
    with pytest.raises(StoreError, match=r"is no zarr: it holds readme\.txt"):
        local("s3://archive/empty")
    assert address_of("s3:/archive/run") == "s3://archive/run"
    assert address_of("run.ome.zarr") is None
    assert address_of("C:/runs/run.ome.zarr") is None


def test_nothing_is_written_there(recorded: tuple[Path, str], tmp_path: Path, capsys: Any) -> None:
    here, _ = recorded
    for place in ("s3://archive/new.ome.zarr", Path("s3://archive/new.ome.zarr")):
        with pytest.raises(ConfigError, match="copy when it is complete"):
            OMEZarrSink(place)  # type: ignore[arg-type]
    flags = ["--store", "s3://archive/new.ome.zarr", "--json"]
    for command in (["process", str(here)], ["run", "virtual_sim", "--frames", "1"]):
        assert _run([*command, *flags]) == 2
        assert "is object storage" in capsys.readouterr().out
    with pytest.raises(ConfigError, match="is object storage"):
        export(here, "tiff", "s3://archive/tiffs")
