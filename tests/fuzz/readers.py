"""Every reader of what comes from outside, with valid inputs to start from and the errors with
which it may refuse.

Used by fuzz.py (atheris, guided by coverage) and by test_readers.py (Hypothesis, everywhere).
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import yaml

from livesr.base.archives import unpack
from livesr.base.config import load_rig
from livesr.base.documents import parse_json, parse_yaml
from livesr.base.errors import LiveSRError, StoreError
from livesr.base.npy import open_npy
from livesr.check.micromanager import Configuration
from livesr.cli.experiment import Experiment, extent, plan_of, positions_of
from livesr.formats.frames_log import read_log
from livesr.formats.keys import ViewerKeys, make_keys
from livesr.formats.localisations import HEADER as TABLE
from livesr.formats.localisations import read_localisations
from livesr.formats.store import RecordedStore, array_shape
from livesr.formats.wire import FRAME, WireError, decode
from livesr.live.inference.engine import load_engine
from livesr.live.inference.identity import identity_engine
from livesr.live.inference.onnx_file import examine
from livesr.live.plan_summary import summarise
from livesr.live.sources.recordings.recording import open_recording
from livesr.viewer.browser.messages import parse_message
from recordings import write_mrc, write_ndtiff, write_ome_zarr

ROOT = Path(__file__).parents[2]
PIXELS = np.arange(24, dtype="<u2").tobytes()
PLAN = {
    "axis_order": "tpcz",
    "time_plan": {"interval": 0.5, "loops": 4},
    "stage_positions": [{"x": 1.0, "y": 2.0, "z": 3.0, "name": "A"}],
    "channels": [{"config": "488", "exposure": 5.0}],
    "z_plan": {"range": 2.0, "step": 0.5},
}
HEADER = {
    "v": 1,
    "type": "frame",
    "stream": "a",
    "seq": 7,
    "t_pub_ns": 2,
    "t_acq_ns": 1,
    "dtype": "<u2",
    "shape": [2, 3, 4],
    "axes": "cyx",
    "channels": [{"label": "ER", "window": [0, 9]}, {"label": "MT"}],
}
LINE = {
    "series": "raw",
    "state": "raw",
    "t": 1,
    "position": 0,
    "channel": "488",
    "z": 0,
    "stored": True,
    "t_acq_ns": 5,
}
STORE = {
    "version": 1,
    "positions": ["0"],
    "channels": ["488"],
    "stream": "a",
    "sidecars": "livesr",
    "started": "2026-01-01T00:00:00+00:00",
}
ARRAY = {
    "zarr_format": 3,
    "node_type": "array",
    "shape": [16, 9, 64, 64],
    "data_type": "uint16",
    "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [16, 9, 64, 64]}},
    "chunk_key_encoding": {"name": "default", "configuration": {"separator": "/"}},
    "fill_value": 0,
    "codecs": [
        {
            "name": "sharding_indexed",
            "configuration": {"chunk_shape": [1, 1, 64, 64], "codecs": [{"name": "bytes"}]},
        }
    ],
    "dimension_names": ["t", "c", "y", "x"],
}


@dataclass(frozen=True, slots=True)
class Reader:
    """`read` is given bytes and a folder that is its own; `seeds` makes valid bytes there."""

    read: Callable[[bytes, Path], object]
    seeds: Callable[[Path], Sequence[bytes]]
    refusals: tuple[type[Exception], ...] = (LiveSRError,)


def _written(data: bytes, file: Path) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(data)
    return file


def _frames() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 999, (4, 16, 16)).astype(np.uint16)


def _rig(data: bytes, folder: Path) -> object:
    _written(b"", folder / "rig.cfg")
    return load_rig(_written(data, folder / "rig.yaml"))


def _manifest(data: bytes, folder: Path) -> object:
    return load_engine(_written(data, folder / "engine" / "manifest.yaml").parent)


def _plan(data: bytes, folder: Path) -> object:
    file = _written(data, folder / "plan.yaml")
    rig = load_rig("virtual_sim")
    read = plan_of(Experiment(plan=file), rig, exposure_ms=5.0)
    return extent(read, rig, 5.0), summarise(read, rig.raw_frames)


def _positions(data: bytes, folder: Path) -> object:
    return positions_of(str(_written(data, folder / "positions.csv")))


def _header(data: bytes, _folder: Path) -> object:
    message = decode([FRAME, data, PIXELS])
    assert message.pixels is not None
    assert message.pixels.tobytes() == PIXELS
    return message


def _log(data: bytes, folder: Path) -> object:
    found = read_log(_written(data, folder / "frames.jsonl"))
    assert all(
        0 <= event["t"] < 2**31 and isinstance(event["stored"], bool) for event in found.events
    )
    return found


def _package(data: bytes, folder: Path) -> object:
    shutil.rmtree(folder / "unpacked", ignore_errors=True)
    return unpack(_written(data, folder / "package.zip"), folder / "unpacked")


def _zipped(folder: Path) -> Sequence[bytes]:
    _written(b"format_version: 0.5.4\n", folder / "model" / "rdf.yaml")
    _written(bytes(1000), folder / "model" / "weights.onnx")
    return [Path(shutil.make_archive(str(folder / "seed"), "zip", folder / "model")).read_bytes()]


def _array(data: bytes, folder: Path) -> object:
    return open_npy(_written(data, folder / "x.npy"))


def _saved(folder: Path) -> Sequence[bytes]:
    np.save(folder / "seed.npy", _frames())
    return [(folder / "seed.npy").read_bytes()]


def _key(data: bytes, folder: Path) -> object:
    return ViewerKeys.read(_written(data, folder / "keys" / "office" / "viewer.key_secret").parent)


def _keys(folder: Path) -> Sequence[bytes]:
    if not (folder / "keys").exists():
        make_keys(folder / "keys", ["office"])
    return [(folder / "keys" / "office" / "viewer.key_secret").read_bytes()]


def _about_store(data: bytes, folder: Path) -> object:
    _written(b'{"attributes": {"ome": {"series": ["raw"]}}}', folder / "OME" / "zarr.json")
    _written(b"\n", folder / "livesr" / "frames.jsonl")
    store = RecordedStore(_written(data, folder / "zarr.json").parent)
    return store.events, store.problems


def _about_image(data: bytes, folder: Path) -> object:
    """What every reader of an image asks for is there, once a store has been opened."""
    found, refused = [], StoreError("no image")
    for name in ("raw", "rolling", "depth"):
        store = folder / name
        _written(json.dumps({"attributes": {"livesr": STORE}}).encode(), store / "zarr.json")
        series = {"attributes": {"ome": {"series": [name]}}}
        _written(json.dumps(series).encode(), store / "OME" / "zarr.json")
        _written(data, store / name / "zarr.json")
        try:
            (image,) = RecordedStore(store).images.values()
        except StoreError as e:  # another kind, where that is all that is wrong
            refused = e
            continue
        own = image.attributes["livesr"]
        assert image.exposures > 0
        assert image.scale.keys() >= {"y", "x"}
        assert name != "rolling" or len(own["newest"]) == image.exposures
        assert name != "depth" or own["range_nm"][0] < own["range_nm"][1]
        found.append((image.depth_colors, image.stage_um))
    if not found:
        raise refused
    return found


def _images(_folder: Path) -> Sequence[bytes]:
    intensity = {"unit": "ADU", "scale": 1.0, "offset": 1000}
    kinds: list[dict[str, object]] = [
        {"kind": "raw", "exposures": 6},
        {"kind": "rolling", "method": "SIM", "exposures": 3, "newest": [3, 6, 9]},
        {"kind": "depth", "range_nm": [-350.0, 350.0], "colors": ["3C50FF", "FF4030"]},
    ]
    scale = {"type": "scale", "scale": [0.5, 0.1, 0.1]}
    ome = {
        "multiscales": [
            {
                "name": "x",
                "axes": [{"name": axis} for axis in "tyx"],
                "datasets": [{"path": "0", "coordinateTransformations": [scale]}],
            }
        ],
        "omero": {
            "channels": [{"label": "x", "color": "FFFFFF", "window": {"start": 0, "end": 9}}]
        },
    }
    place = {"position": 0, "channel": "488", "intensity": intensity}
    return [
        json.dumps({"attributes": {"livesr": {**place, **kind}, "ome": ome}}).encode()
        for kind in kinds
    ]


def _about_array(data: bytes, folder: Path) -> object:
    found = array_shape(_written(data, folder / "0" / "zarr.json").parent)
    assert all(0 <= n <= 2**31 for n in found.length.values())
    return found.shard_key(0, 0)


def _recording(name: str) -> Callable[[bytes, Path], object]:
    def read(data: bytes, folder: Path) -> object:
        recording = open_recording(_written(data, folder / name))
        try:
            return (
                recording.read(tuple(0 for _ in recording.lengths))
                if all(recording.lengths)
                else None
            )
        finally:
            recording.close()

    return read


def _mrc(folder: Path) -> Sequence[bytes]:
    write_mrc(folder / "seed.mrc", _frames())
    return [(folder / "seed.mrc").read_bytes()]


def _tiff(folder: Path) -> Sequence[bytes]:
    import tifffile

    tifffile.imwrite(folder / "seed.tif", _frames(), ome=False, photometric="minisblack")
    tifffile.imwrite(
        folder / "seed.ome.tif",
        _frames(),
        ome=True,
        photometric="minisblack",
        metadata={"axes": "TYX"},
    )
    return [(folder / "seed.tif").read_bytes(), (folder / "seed.ome.tif").read_bytes()]


def _ndtiff(folder: Path) -> Sequence[bytes]:
    if not (folder / "set").exists():
        write_ndtiff(folder / "set", _frames(), [{"time": t} for t in range(4)])
    return [(folder / "set" / "NDTiff.index").read_bytes()]


def _index(data: bytes, folder: Path) -> object:
    recording = open_recording(_written(data, folder / "set" / "NDTiff.index").parent)
    try:
        return recording.read(tuple(0 for _ in recording.lengths))
    finally:
        recording.close()


def _zarr(data: bytes, folder: Path) -> object:
    recording = open_recording(_written(data, folder / "x.ome.zarr" / "0" / "zarr.json").parents[1])
    return recording.read(tuple(0 for _ in recording.lengths))


def _zarr_seeds(folder: Path) -> Sequence[bytes]:
    if not (folder / "x.ome.zarr").exists():
        write_ome_zarr(folder / "x.ome.zarr", _frames(), "tyx")
    return [(folder / "x.ome.zarr" / "0" / "zarr.json").read_bytes()]


def _files(pattern: str) -> Callable[[Path], Sequence[bytes]]:
    return lambda folder: [file.read_bytes() for file in sorted(ROOT.glob(pattern))]


def _json(value: object) -> Callable[[Path], Sequence[bytes]]:
    return lambda folder: [json.dumps(value).encode()]


READERS: dict[str, Reader] = {
    "yaml": Reader(
        lambda data, _: parse_yaml(data.decode(errors="replace"), "x"),
        lambda _: [yaml.safe_dump(PLAN).encode()],
    ),
    "json": Reader(lambda data, _: parse_json(data, "x"), _json(HEADER)),
    "rig": Reader(_rig, _files("hardware_configs/*/rig.yaml")),
    "cfg": Reader(
        lambda data, folder: Configuration(_written(data, folder / "rig.cfg")),
        _files("hardware_configs/*/rig.cfg"),
    ),
    "manifest": Reader(
        _manifest,
        lambda folder: [(identity_engine(folder / "engine").folder / "manifest.yaml").read_bytes()],
    ),
    "plan": Reader(_plan, lambda _: [yaml.safe_dump(PLAN).encode()]),
    "positions": Reader(_positions, lambda _: [b"1,2\n3,4,5\n6,7,8,name # where\n"]),
    "header": Reader(_header, _json(HEADER), (WireError,)),
    "page": Reader(
        lambda data, _: parse_message(data),
        _json({"type": "view", "view": {"mode": "split", "raw": True}}),
    ),
    "onnx": Reader(
        lambda data, _: examine(data).other_files,
        lambda folder: [(identity_engine(folder / "engine").folder / "model.onnx").read_bytes()],
        (ValueError,),
    ),
    "log": Reader(
        _log, lambda _: [b"".join(json.dumps({**LINE, "t": t}).encode() + b"\n" for t in range(3))]
    ),
    "localisations": Reader(
        lambda data, folder: read_localisations(_written(data, folder / "localisations.csv")),
        lambda _: [(TABLE + "1,1.0,2.0,3.0,4.0,5.0,6.0\n").encode()],
    ),
    "package": Reader(_package, _zipped),
    "npy": Reader(_array, _saved),
    "keys": Reader(_key, _keys),
    "store": Reader(_about_store, _json({"attributes": {"livesr": STORE}})),
    "image": Reader(_about_image, _images),
    "array": Reader(_about_array, _json(ARRAY)),
    "ome-zarr": Reader(_zarr, _zarr_seeds),
    "mrc": Reader(_recording("x.mrc"), _mrc),
    "tiff": Reader(_recording("x.tif"), _tiff),
    "ndtiff": Reader(_index, _ndtiff),
}
