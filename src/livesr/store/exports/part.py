"""What of a store is exported: which images, time points and field, and what each is called.

Owns the choice, and the reading of planes as they are chosen. Writes nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from livesr.base.errors import StoreError
from livesr.base.frames import Stream
from livesr.formats.frames_log import Event, SeriesName
from livesr.formats.store import ArrayShape, Image, RecordedStore, array_shape
from livesr.formats.zarr_files import open_array
from livesr.store.places import place_um

SAID: Mapping[SeriesName, str] = {
    "raw": "raw exposure",
    "recon": "measurement",
    "rolling": "measurement",
    "depth": "measurement",
    "sr": "prediction",
    "uncertainty": "estimate",
    "limits": "error bars",
    "error": "estimate",
}
"""What kind of picture an image has."""


class Region(NamedTuple):
    """A part of the field, in um from its upper left corner: the same place in every image."""

    x: float
    y: float
    width: float
    height: float


@dataclass(frozen=True, slots=True)
class Part:
    """What is wanted of a store; None takes all there is.

    Attributes
    ----------
    images : kinds of images: raw, recon, depth, sr, uncertainty
    channels : names of acquisition channels, or of structures
    positions : names of positions
    first, last : time points, both taken
    region : part of the field
    """

    images: Sequence[SeriesName] | None = None
    channels: Sequence[str] | None = None
    positions: Sequence[str] | None = None
    first: int = 0
    last: int | None = None
    region: Region | None = None


EVERYTHING = Part()


@dataclass(frozen=True, slots=True)
class Label:
    """One channel of an exported image.

    Attributes
    ----------
    name : with what kind of picture it is, as "SR ER (prediction)"
    color : "RRGGBB"
    window : (low, high) that a viewer starts with, in stored numbers
    """

    name: str
    color: str
    window: tuple[float, float]


@dataclass(frozen=True)
class Chosen:
    """What is taken of one image.

    Attributes
    ----------
    channels : indices along c; (0,) without such an axis
    times : time points of the store
    rows, columns : of its pixels
    stored : last line of frames.jsonl about every picture, by (t, z)
    place_um : where the middle of the image's pixel (0, 0) is, by axis
    """

    image: Image
    channels: tuple[int, ...]
    times: range
    rows: slice
    columns: slice
    stored: Mapping[tuple[int, int], Event] = field(repr=False)
    place_um: Mapping[str, float]

    @cached_property
    def array(self) -> Any:
        """The pixels, open for reading."""
        return open_array(self.image.array)

    @cached_property
    def shape(self) -> ArrayShape:
        """Length of every axis."""
        return array_shape(self.image.array, self.image.exposures)

    @property
    def said(self) -> str:
        """What kind of picture it is: "measurement", "prediction"."""
        return SAID[self.image.kind]

    @property
    def title(self) -> str:
        """What the image is called in the store."""
        return str(self.image.attributes["ome"]["multiscales"][0]["name"])

    @property
    def file(self) -> str:
        """Name for a file of it, which says what it is."""
        return self.image.name if self.image.kind == "raw" else f"{self.image.name}-{self.said}"

    @property
    def warning(self) -> str:
        """What it must not be taken for, "" for a measurement."""
        return str(self.image.attributes["livesr"].get("warning", ""))

    @property
    def pixel_size_um(self) -> float:
        """Size of a pixel."""
        return self.image.scale["x"]

    @property
    def z_step_um(self) -> float:
        """From plane to plane; 1 without a stack."""
        return self.image.scale.get("z", 1.0)

    @property
    def interval_s(self) -> float:
        """From plane to plane along t."""
        return self.image.scale["t"]

    @property
    def size(self) -> tuple[int, int, int, int, int]:
        """(t, z, c, y, x) as exported; along t a film has every exposure."""
        y, x = (
            len(range(*self.rows.indices(self.shape.length["y"]))),
            len(range(*self.columns.indices(self.shape.length["x"]))),
        )
        frames = len(self.times) * self.image.exposures
        return frames, self.shape.z_planes, len(self.channels), y, x

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of the pixels."""
        return np.dtype(self.shape.dtype)

    @property
    def labels(self) -> tuple[Label, ...]:
        """Its channels."""
        every = self.image.attributes["ome"].get("omero", {}).get("channels", ())
        return tuple(_label(every[c], self.said) for c in self.channels)

    @property
    def origin_px(self) -> tuple[float, float] | None:
        """First pixel (y, x) of the chosen field on the camera's chip; None but of raw frames.

        Pixel u of a mirrored picture of n pixels lies n - 1 - u pixels behind its first.
        """
        own = self.image.attributes["livesr"]
        if (origin := own.get("origin_px")) is None:
            return None
        y, x = (
            float(first) + (self.shape.length[axis] - part.stop if mirrored else part.start)
            for first, axis, part, mirrored in zip(
                origin,
                "yx",
                (self.rows, self.columns),
                own.get("mirrored", (False, False)),
                strict=True,
            )
        )
        return y, x

    def frames(self) -> Iterator[tuple[int, int]]:
        """Yield (frame along t as exported, time point of the store), in order."""
        n = self.image.exposures
        for i, t in enumerate(self.times):
            for exposure in range(n):
                yield i * n + exposure, t

    def planes(self, frame: int, z: int) -> NDArray[Any]:
        """Read the channels of one frame and plane, (c, y, x); newly allocated.

        A picture that was never made reads as zeros.

        Raises
        ------
        StoreError
            If they cannot be read.
        """
        place = {"t": self.times.start * self.image.exposures + frame, "z": z}
        place |= {"y": self.rows, "x": self.columns}  # type: ignore[dict-item]
        index = tuple(place.get(axis, slice(None)) for axis in self.shape.length)
        t = self.times.start + frame // self.image.exposures
        try:
            if self.is_stored(t, z) and not self.shape.is_there(self.image.array, t, z):
                raise FileNotFoundError("its file is gone")
            read = np.asarray(self.array[index])
        except Exception as e:  # a damaged chunk raises whatever its codecs raise
            raise StoreError(
                f"{self.image.name} cannot be read at t={place['t']}: {e}. 'livesr check"
                f" {self.image.folder.parent}' says what is damaged."
            ) from e
        return read[list(self.channels)] if "c" in self.shape.length else read[None]

    def is_stored(self, t: int, z: int) -> bool:
        """Whether there is a picture at a time point of the store."""
        return (t, z) in self.stored


def choose(store: RecordedStore, part: Part) -> list[Chosen]:
    """Return what `part` takes of a store, in the order of its list of images.

    Raises
    ------
    StoreError
        If that is nothing, or something is asked for that the store has not.
    """
    _check_names(store, part)
    region = part.region and _on_grid(part.region, store)
    lines: dict[SeriesName, Mapping[tuple[Stream, int], Event]] = {}
    chosen = []
    for (kind, position, channel), image in store.images.items():
        if part.images is not None and kind not in part.images:
            continue
        if part.positions is not None and store.positions[position] not in part.positions:
            continue
        if not (channels := _channels(image, part.channels)):
            continue
        every = lines.setdefault(kind, store.pictures(kind))
        here = {(t, s.z): e for (s, t), e in every.items() if s[:2] == (position, channel)}
        place = place_um(store, image)
        if found := _chosen(image, channels, here, place, replace(part, region=region)):
            chosen.append(found)
    if not chosen:
        raise StoreError(
            f"Nothing of {store.path} is chosen: it has the images"
            f" {', '.join(i.name for i in store.images.values())} of {_extent(store)} time points."
        )
    return chosen


def _check_names(store: RecordedStore, part: Part) -> None:
    structures = {name for image in store.images.values() for name in _structures(image)}
    kinds = dict.fromkeys(kind for kind, _, _ in store.images)
    for what, wanted, there in (
        ("image", part.images, tuple(kinds)),
        ("position", part.positions, store.positions),
        ("channel", part.channels, (*store.channels, *sorted(structures))),
    ):
        for name in wanted or ():
            if name not in there:
                raise StoreError(
                    f"{store.path} has no {what} {name!r}; it has {', '.join(there) or 'none'}."
                )


def _structures(image: Image) -> list[str]:
    """Names of the structures of a prediction or its uncertainty, by index along c."""
    if image.kind not in {"sr", "uncertainty"}:
        return []
    omero = image.attributes["ome"].get("omero", {})
    return [_structure(c["label"]) for c in omero.get("channels", ())]


def _structure(label: str) -> str:
    return label.removeprefix("SR ").removeprefix("uncertainty of ")


def _channels(image: Image, wanted: Sequence[str] | None) -> tuple[int, ...]:
    """Which indices along c are taken: all of a channel that is named, else those structures."""
    count = array_shape(image.array, image.exposures).length.get("c", 1)
    if wanted is None or image.channel in wanted:
        return tuple(range(count))
    return tuple(c for c, name in enumerate(_structures(image)) if name in wanted)


def _chosen(
    image: Image,
    channels: tuple[int, ...],
    stored: Mapping[tuple[int, int], Event],
    place: Mapping[str, float],
    part: Part,
) -> Chosen | None:
    length = array_shape(image.array, image.exposures).length
    end = length["t"] if part.last is None else min(part.last + 1, length["t"])
    if part.first >= end:
        return None
    rows, columns = _field(image, length, part.region)
    return Chosen(image, channels, range(part.first, end), rows, columns, stored, place)


def _on_grid(region: Region, store: RecordedStore) -> Region:
    """Return the region with its edges between the largest pixels of a store.

    Each image rounding for itself would leave raw frames and what was made of them apart by half a
    pixel of the camera. One that is smaller than such a pixel stays as it is.
    """
    largest = max(image.scale["x"] for image in store.images.values())

    def ends(start: float, extent: float) -> tuple[float, float]:
        first, end = (round(um / largest) * largest for um in (start, start + extent))
        return (first, end - first) if end > first else (start, extent)

    (x, width), (y, height) = ends(region.x, region.width), ends(region.y, region.height)
    return Region(x, y, width, height)


def _field(image: Image, length: Mapping[str, int], region: Region | None) -> tuple[slice, slice]:
    if region is None:
        return slice(0, length["y"]), slice(0, length["x"])
    size = image.scale["x"]
    found = []
    for start, extent, axis in ((region.y, region.height, "y"), (region.x, region.width, "x")):
        first, end = round(start / size), round((start + extent) / size)
        if first < 0 or end > length[axis] or end <= first:
            raise StoreError(
                f"The region has {axis} {start:g} to {start + extent:g} um, and {image.name} 0 to"
                f" {length[axis] * size:g} um: choose one inside it, of a pixel at least."
            )
        found.append(slice(first, end))
    return found[0], found[1]


def _label(about: Mapping[str, Any], said: str) -> Label:
    window = about.get("window", {})
    return Label(
        name=f"{about['label']} ({said})",
        color=str(about.get("color", "FFFFFF")),
        window=(float(window.get("start", 0)), float(window.get("end", 65535))),
    )


def _extent(store: RecordedStore) -> int:
    shapes = [array_shape(i.array, i.exposures) for i in store.images.values()]
    return max((shape.length["t"] for shape in shapes), default=0)


def name_of(store: Path) -> str:
    """Name of a store without its endings: "run" of run.ome.zarr."""
    return store.name.partition(".")[0] or "store"
