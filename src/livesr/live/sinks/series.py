"""One image of a store: an array that grows along t, with its axes, colours, display windows and provenance.

Owns the writer of the array and every zarr.json in its folder. Knows no run, no frame type and no other image.
"""

from __future__ import annotations

import gc
import json
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from livesr.base import contained
from livesr.base.documents import read_json
from livesr.base.errors import DocumentError, FrameShapeError
from livesr.base.frames import Pixels, StagePosition
from livesr.live.sinks.frames_log import to_json

if TYPE_CHECKING:
    from ome_writers import AcquisitionSettings, Dimension, OMEStream

# A shard is one file; what is in an unfinished one is lost when the process is killed. Hence few files, but no shard
# that takes longer than this to fill, and none that is unwieldy to copy.
_SHARD_TIME_POINTS = 16
_SHARD_SECONDS = 10.0
_SHARD_BYTES = 256 << 20
# acquire-zarr queues up to this much per array before an append waits.
_QUEUE_BYTES = 256 << 20
_QUEUE_PLANES = 512

Windows = Sequence[tuple[float, float]]


@dataclass(frozen=True, slots=True)
class SeriesSpec:
    """What an image is; `shape` is (y, x), `labels` and `colors` have one entry per channel.

    Without `has_channel_axis` the image has a single channel and no c axis. `shown_channels` is how many channels a viewer
    starts with, None for all. `exposures` above 1 is a film: so many planes along t belong to each time point.
    """

    name: str
    title: str
    shape: tuple[int, int]
    dtype: str
    z_planes: int
    labels: tuple[str, ...]
    colors: tuple[str, ...]
    pixel_size_um: float
    z_step_um: float = 1.0
    interval_s: float | None = None
    has_channel_axis: bool = True
    shown_channels: int | None = None
    exposures: int = 1
    provenance: Mapping[str, Any] = field(default_factory=dict)

    @property
    def plane_bytes(self) -> int:
        """Bytes of one plane."""
        return self.shape[0] * self.shape[1] * np.dtype(self.dtype).itemsize

    @property
    def group_bytes(self) -> int:
        """Bytes of one (t, z): every channel or exposure of one plane."""
        return self.plane_bytes * self.planes

    @property
    def planes(self) -> int:
        """Planes of one (t, z)."""
        return len(self.labels) * self.exposures

    @property
    def z_planes_per_shard(self) -> int:
        """All planes of a stack, or one where a stack would make an unwieldy file."""
        return self.z_planes if self.group_bytes * self.z_planes <= _SHARD_BYTES else 1

    @property
    def time_points_per_shard(self) -> int:
        """How many time points share a file."""
        fits = _SHARD_BYTES // (self.group_bytes * self.z_planes_per_shard)
        if self.interval_s:
            fits = min(fits, int(_SHARD_SECONDS / self.interval_s))
        return max(1, min(_SHARD_TIME_POINTS, fits))

    @property
    def memory_bytes(self) -> int:
        """At most this much waits to be written."""
        return min(_QUEUE_BYTES, _QUEUE_PLANES * self.plane_bytes) + self.group_bytes * self.z_planes


class Series:
    """Appends the planes of one (t, z) after the other; the array is stored as (t, [c,] [z,] y, x).

    Time points are counted in groups; a film has `SeriesSpec.exposures` planes along t for each, and whole groups in a shard.

    Attributes
    ----------
    next : linear index, t * z_planes + z, of what is appended next
    windows : (low, high) per channel for viewers; `write_metadata` writes them
    windows_written : whether the caller had them written while the image grew
    stage : where the stages were for plane 0 of the first time point; `write_metadata` writes it as the image's translation
    """

    def __init__(self, folder: Path, spec: SeriesSpec) -> None:
        self.spec = spec
        self.next = 0
        self.windows: Windows = ()
        self.windows_written = False
        self.stage = StagePosition()
        self._folder = folder
        self._stream: OMEStream = _create_stream(_settings(folder, spec))
        self._ome = self._stream.get_metadata()["."]["ome"]
        # acquire-zarr describes the array when its first shard is full; without this an empty or early image is no image.
        # Compact on purpose: acquire-zarr later overwrites the file from its start and does not shorten it.
        (folder / "0").mkdir(exist_ok=True)
        (folder / "0" / "zarr.json").write_text(json.dumps(_array_json(spec)), encoding="utf-8")
        self.write_metadata()

    def check(self, planes: Sequence[Pixels | NDArray[np.float32] | None], dtype: str | None = None) -> None:
        """Refuse planes of another number, size or pixel type (`dtype`, if they are still to be converted).

        Raises
        ------
        FrameShapeError
            With what came and what was expected.
        """
        spec, dtype = self.spec, dtype or self.spec.dtype
        if len(planes) != spec.planes:
            raise FrameShapeError(f"{len(planes)} planes came for {spec.name}, expected {spec.planes}.")
        for plane in planes:
            if plane is not None and (plane.shape != spec.shape or plane.dtype != dtype):
                raise FrameShapeError(
                    f"A plane of {plane.shape} {plane.dtype} came for {spec.name}, expected {spec.shape} {dtype}: "
                    "ROI, binning and pixel type must not change while a store is open."
                )

    def append(self, planes: Sequence[Pixels | None]) -> None:
        """Append every channel, or exposure, of the next (t, z); None is a fill plane. The planes are copied."""
        for plane in planes:
            if plane is None:
                self._stream.skip(frames=1)
            else:
                self._stream.append(np.ascontiguousarray(plane))
        self.next += 1

    def fill(self) -> None:
        """Append zeros for the next (t, z)."""
        self._stream.skip(frames=self.spec.planes)
        self.next += 1

    def place(self, stage: StagePosition) -> None:
        """Take note of where the stages were; what is known already stays."""
        self.stage = StagePosition(*(new if old is None else old for old, new in zip(self.stage, stage, strict=True)))

    def close(self, time_points: int, interval_s: float | None = None) -> None:
        """Write what is left, then extend the array to `time_points` without writing pixels.

        Raises
        ------
        RuntimeError, OSError
            If the disk refuses; what was written before is readable up to the last whole shard.
        """
        try:
            with _little_garbage_to_look_for():
                self._stream.close()
        except Exception:
            whole_shards = self.next // self.spec.z_planes // self.spec.time_points_per_shard
            self._set_time_points(whole_shards * self.spec.time_points_per_shard)
            raise
        else:
            # What is not in a shard is the fill value, zero: padding costs nothing, however long.
            self._set_time_points(time_points)
        finally:
            self.write_metadata(interval_s)

    def write_metadata(self, interval_s: float | None = None) -> None:
        """Write axes, scales, windows and provenance; possible at any time."""
        ome = json.loads(json.dumps(self._ome))
        image = ome["multiscales"][0]
        image["name"] = self.spec.title
        for dataset in image["datasets"]:
            group_s = self.spec.interval_s or interval_s or float(self.spec.exposures)
            dataset["coordinateTransformations"][0]["scale"][0] = group_s / self.spec.exposures
            if translation := self._translation([axis["name"] for axis in image["axes"]]):
                dataset["coordinateTransformations"][1:] = [{"type": "translation", "translation": translation}]
        ome["omero"] = {"channels": [self._omero_channel(c) for c in range(len(self.spec.labels))]}
        attributes = {"ome": ome, "livesr": dict(self.spec.provenance)}
        write_json(self._folder / "zarr.json", group_json(attributes))

    def _translation(self, axes: Sequence[str]) -> list[float]:
        """Return the stage's place along every axis in um, 0 along others; [] where it is not known."""
        known = {axis: um for axis, um in zip("xyz", self.stage, strict=True) if axis in axes and um is not None}
        return [float(known.get(axis, 0.0)) for axis in axes] if known else []

    def _omero_channel(self, c: int) -> dict[str, Any]:
        ceiling = float(np.iinfo(self.spec.dtype).max)
        low, high = self.windows[c] if c < len(self.windows) else (0.0, ceiling)
        low = min(max(low, 0.0), ceiling - 1)
        return {
            "label": self.spec.labels[c],
            "color": self.spec.colors[c],
            "active": self.spec.shown_channels is None or c < self.spec.shown_channels,
            "window": {"min": 0.0, "max": ceiling, "start": low, "end": min(max(high, low + 1), ceiling)},
        }

    def _set_time_points(self, time_points: int) -> None:
        path = self._folder / "0" / "zarr.json"
        try:
            array = read_json(path)
        except DocumentError:  # a full disk leaves it empty
            array = _array_json(self.spec)
        array["shape"][0] = time_points * self.spec.exposures
        write_json(path, array)


class DisplayWindow:
    """(low, high) that follows a stream of pictures slowly.

    Looks at a few thousand pixels of a picture every `every_s` seconds, so that it costs nothing.
    """

    _PIXELS_PER_AXIS = 64
    _FOLLOW = 0.1

    __slots__ = ("_due_s", "_every_s", "_low_high")

    def __init__(self, every_s: float) -> None:
        self._every_s = every_s
        self._due_s = 0.0
        self._low_high: NDArray[np.float64] | None = None

    def update(self, plane: Pixels | None) -> tuple[float, float]:
        """Take a picture (y, x) into account and return the window; (0, 1) before there was any."""
        now = time.monotonic()
        if plane is not None and now >= self._due_s:
            self._due_s = now + self._every_s
            step_y, step_x = (max(1, n // self._PIXELS_PER_AXIS) for n in plane.shape)
            seen = np.percentile(plane[::step_y, ::step_x], (0.5, 99.8))
            self._low_high = seen if self._low_high is None else self._low_high + self._FOLLOW * (seen - self._low_high)
        return (0.0, 1.0) if self._low_high is None else (float(self._low_high[0]), float(self._low_high[1]))


def group_json(attributes: Mapping[str, Any]) -> dict[str, Any]:
    """Return a Zarr group with these attributes."""
    return {"zarr_format": 3, "node_type": "group", "attributes": attributes}


def write_json(path: Path, value: object) -> None:
    """Replace `path` at once: a reader sees the old file or the new one, never half of it."""
    contained.replace_text(path.parent, path.name, to_json(value, indent=2))


def _create_stream(settings: AcquisitionSettings) -> OMEStream:
    from ome_writers import create_stream

    with _single_threaded_openmp():
        import acquire_zarr  # noqa: F401
    return create_stream(settings)


@contextmanager
def _little_garbage_to_look_for() -> Iterator[None]:
    # ome-writers collects garbage for every image that it closes. Over all that a program has imported that takes 0.2 s an
    # image, in which no other thread runs: seconds for a run of many positions.
    if gc.get_freeze_count():  # the program did the same, for itself and for longer: it is not ours to undo
        yield
        return
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


@contextmanager
def _single_threaded_openmp() -> Iterator[None]:
    # acquire-zarr opens an OpenMP region per plane whose threads spin at a barrier. Beside anything else that is busy
    # (an inference) a barrier waits for the scheduler: 5 instead of 500 time points a second were measured. Its wheel
    # brings an OpenMP of its own that reads the variable once, when it is loaded.
    before = os.environ.get("OMP_NUM_THREADS")
    os.environ["OMP_NUM_THREADS"] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ["OMP_NUM_THREADS"]
        else:
            os.environ["OMP_NUM_THREADS"] = before


def _settings(folder: Path, spec: SeriesSpec) -> AcquisitionSettings:
    from ome_writers import AcquisitionSettings, OmeZarrFormat

    return AcquisitionSettings(
        root_path=str(folder),
        dimensions=_dimensions(spec),
        dtype=spec.dtype,
        format=OmeZarrFormat(backend="acquire-zarr", suffix=""),
        compression="blosc-lz4",
    )


def _dimensions(spec: SeriesSpec) -> tuple[Dimension, ...]:
    """Axes in the order of appending: all channels of a plane together. Stored as t, c, z, which NGFF demands."""
    from ome_writers import Channel, Dimension

    shards_t, shards_z = spec.time_points_per_shard * spec.exposures, spec.z_planes_per_shard
    t = Dimension(name="t", type="time", unit="second", scale=1.0, chunk_size=1, shard_size_chunks=shards_t)
    z = Dimension(
        name="z",
        count=spec.z_planes,
        type="space",
        unit="micrometer",
        scale=spec.z_step_um,
        chunk_size=1,
        shard_size_chunks=shards_z,
    )
    channels = [Channel(name=label) for label in spec.labels]
    c = Dimension(name="c", type="channel", coords=channels, chunk_size=1, shard_size_chunks=len(channels))
    y, x = (
        Dimension(name=axis, count=n, type="space", unit="micrometer", scale=spec.pixel_size_um, chunk_size=n)
        for axis, n in zip("yx", spec.shape, strict=True)
    )
    return (t, *([z] if spec.z_planes > 1 else []), *([c] if spec.has_channel_axis else []), y, x)


def _array_json(spec: SeriesSpec) -> dict[str, Any]:
    """Return the array as acquire-zarr describes it, without time points."""
    axes: list[tuple[str, int, int]] = [("t", 0, spec.time_points_per_shard * spec.exposures)]
    if spec.has_channel_axis:
        axes.append(("c", len(spec.labels), len(spec.labels)))
    if spec.z_planes > 1:
        axes.append(("z", spec.z_planes, spec.z_planes_per_shard))
    axes += [(name, n, n) for name, n in zip("yx", spec.shape, strict=True)]
    size = np.dtype(spec.dtype).itemsize
    little = {"name": "bytes", "configuration": {"endian": "little"}} if size > 1 else {"name": "bytes"}
    blosc = {"cname": "lz4", "clevel": 5, "shuffle": "shuffle", "typesize": size, "blocksize": 0}
    sharding = {
        "chunk_shape": [1] * (len(axes) - 2) + list(spec.shape),
        "codecs": [little, {"name": "blosc", "configuration": blosc}],
        "index_codecs": [{"name": "bytes", "configuration": {"endian": "little"}}, {"name": "crc32c"}],
        "index_location": "end",
    }
    return {
        "zarr_format": 3,
        "node_type": "array",
        "shape": [n for _, n, _ in axes],
        "data_type": spec.dtype,
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [shard for _, _, shard in axes]}},
        "chunk_key_encoding": {"name": "default", "configuration": {"separator": "/"}},
        "fill_value": 0,
        "codecs": [{"name": "sharding_indexed", "configuration": sharding}],
        "attributes": {},
        "dimension_names": [name for name, _, _ in axes],
        "storage_transformers": [],
    }
