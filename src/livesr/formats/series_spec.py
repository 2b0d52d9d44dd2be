"""One image of a store, as its zarr.json files describe it.

Owns shape, axes, shards and codecs of an array, and how large a shard is. Writes nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import numpy as np

KEPT_WITHIN = 0.1
"""By which share an interval may exceed the one that was asked for, to be taken for it."""
UNKNOWN_STEPS_S = (0.0, 1.0)
"""What the time axis of an image says of which the interval was not known."""

# A shard is one file, and what is rewritten when a disk fails. Hence few files, but no shard that
# takes longer than this to fill, and none that is unwieldy to copy.
_SHARD_TIME_POINTS = 16
_SHARD_SECONDS = 10.0
_SHARD_BYTES = 256 << 20
# What was appended waits in memory up to so much before it is handed to the operating system.
PENDING_BYTES = 8 << 20


@dataclass(frozen=True, slots=True)
class SeriesSpec:
    """What an image is; `shape` is (y, x), `labels` and `colors` have one entry per channel.

    Without `has_channel_axis` the image has a single channel and no c axis. `shown_channels` is how
    many channels a viewer starts with, None for all. `exposures` above 1 is a film: so many planes
    along t belong to each time point. `first_pixel_um` is how far the middle of pixel (0, 0) is
    from that of the camera's, along y and x: below 0 for smaller pixels whose outer corner is the
    same.
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
    first_pixel_um: float = 0.0
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
    def shard_bytes(self) -> int:
        """Bytes of the planes of one shard."""
        return self.group_bytes * self.z_planes_per_shard * self.time_points_per_shard

    @property
    def chunks_per_shard(self) -> int:
        """Planes of one shard."""
        return self.planes * self.z_planes_per_shard * self.time_points_per_shard

    @property
    def pending_bytes(self) -> int:
        """At most this much waits to be written."""
        return min(PENDING_BYTES, self.shard_bytes) + self.group_bytes


def translation(
    axes: Sequence[str], first_pixel_um: float, stage_um: Mapping[str, float]
) -> list[float]:
    """Return where the middle of an image's first pixel is, in um along every axis.

    Parameters
    ----------
    first_pixel_um : as of `SeriesSpec`
    stage_um : where the stages were, by axis; 0 along others

    Returns
    -------
    list
        Empty where no stage said anything and the pixel is where the camera's is.
    """
    known = {axis: um for axis, um in stage_um.items() if axis in axes}
    if not known and not first_pixel_um:
        return []
    return [
        float(known.get(axis, 0.0)) + (first_pixel_um if axis in ("y", "x") else 0.0)
        for axis in axes
    ]


def ome_image(
    spec: SeriesSpec,
    group_s: float | None = None,
    stage_um: Mapping[str, float] = MappingProxyType({}),
    windows: Sequence[tuple[float, float]] = (),
) -> dict[str, Any]:
    """Return an image as OME-Zarr 0.5 describes one.

    Parameters
    ----------
    group_s : from time point to time point; None where nobody knows
    stage_um : as of `translation`
    windows : (low, high) of each channel for viewers; the whole range of those without
    """
    ceiling = float(np.iinfo(spec.dtype).max)
    t = (
        {"name": "t", "type": "time", "unit": "second"},
        (group_s or spec.exposures) / spec.exposures,
    )
    z, y, x = ({"name": axis, "type": "space", "unit": "micrometer"} for axis in "zyx")
    axes: list[tuple[dict[str, str], float]] = [
        t,
        *([({"name": "c", "type": "channel"}, 1.0)] if spec.has_channel_axis else []),
        *([(z, spec.z_step_um)] if spec.z_planes > 1 else []),
        (y, spec.pixel_size_um),
        (x, spec.pixel_size_um),
    ]
    steps: list[dict[str, Any]] = [{"type": "scale", "scale": [step for _, step in axes]}]
    if moved := translation([axis["name"] for axis, _ in axes], spec.first_pixel_um, stage_um):
        steps.append({"type": "translation", "translation": moved})

    def shown(c: int) -> dict[str, Any]:
        low, high = windows[c] if c < len(windows) else (0.0, ceiling)
        low = min(max(low, 0.0), ceiling - 1)
        window = {"start": low, "end": min(max(high, low + 1), ceiling)}
        return {
            "label": spec.labels[c],
            "color": spec.colors[c],
            "active": spec.shown_channels is None or c < spec.shown_channels,
            "window": {"min": 0.0, "max": ceiling, **window},
        }

    return {
        "version": "0.5",
        "multiscales": [
            {
                "axes": [axis for axis, _ in axes],
                "datasets": [{"path": "0", "coordinateTransformations": steps}],
                "name": spec.title,
            }
        ],
        "omero": {"channels": [shown(c) for c in range(len(spec.labels))]},
    }


def group_json(attributes: Mapping[str, Any]) -> dict[str, Any]:
    """Return a Zarr group with these attributes."""
    return {"zarr_format": 3, "node_type": "group", "attributes": attributes}


def array_json(spec: SeriesSpec) -> dict[str, Any]:
    """Return the array as zarr.json describes it, without time points."""
    axes: list[tuple[str, int, int]] = [("t", 0, spec.time_points_per_shard * spec.exposures)]
    if spec.has_channel_axis:
        axes.append(("c", len(spec.labels), len(spec.labels)))
    if spec.z_planes > 1:
        axes.append(("z", spec.z_planes, spec.z_planes_per_shard))
    axes += [(name, n, n) for name, n in zip("yx", spec.shape, strict=True)]
    sharding_indexed = {
        "chunk_shape": [1] * (len(axes) - 2) + list(spec.shape),
        **codecs(spec.dtype),
        "index_location": "end",
    }
    return {
        "zarr_format": 3,
        "node_type": "array",
        "shape": [n for _, n, _ in axes],
        "data_type": spec.dtype,
        "chunk_grid": {
            "name": "regular",
            "configuration": {"chunk_shape": [shard for _, _, shard in axes]},
        },
        "chunk_key_encoding": {"name": "default", "configuration": {"separator": "/"}},
        "fill_value": 0,
        "codecs": [{"name": "sharding_indexed", "configuration": sharding_indexed}],
        "attributes": {},
        "dimension_names": [name for name, _, _ in axes],
        "storage_transformers": [],
    }


def codecs(dtype: str) -> dict[str, list[dict[str, Any]]]:
    """Return ``codecs`` and ``index_codecs`` of a shard of `dtype`, as zarr.json has them."""
    size = np.dtype(dtype).itemsize
    little = (
        {"name": "bytes", "configuration": {"endian": "little"}} if size > 1 else {"name": "bytes"}
    )
    lz4 = {"cname": "lz4", "clevel": 5, "shuffle": "shuffle", "typesize": size, "blocksize": 0}
    checksum = {"name": "crc32c"}
    return {
        "codecs": [little, {"name": "blosc", "configuration": lz4}, checksum],
        "index_codecs": [{"name": "bytes", "configuration": {"endian": "little"}}, checksum],
    }
