"""NDTiff data sets of pycro-manager and Micro-Manager.

A folder with NDTiff.index and the TIFF files that it points into.

Owns the reading. The index says where every frame lies, so the TIFF structures are not needed. (The
format's own package, ndstorage, would bring dask along for the same three numbers.)
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator, Mapping
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from livesr.base import contained
from livesr.base.documents import parse_json
from livesr.base.errors import ConfigError, DocumentError
from livesr.live.sources.mda import RAW_AXIS
from livesr.live.sources.recordings.micromanager import FrameMetadata, frame_metadata, summary_of
from livesr.live.sources.recordings.pixels import FrameFiles, check_count, check_frame
from livesr.live.sources.recordings.placed import missing_note, spelt
from livesr.live.sources.recordings.recording import Place, Plane, Recording

_NAMES = {"time": "t", "position": "p", "channel": "c", "z": "z", RAW_AXIS: "raw", "raw": "raw"}
# offset, width, height, pixel type, compression, and of the metadata: offset, length, compression
_NUMBERS = "<IiiiiIii"
_MAX_METADATA = 2**24  # bytes that one frame has
_DTYPES = {0: "uint8", 1: "uint16", 3: "uint16", 4: "uint16", 5: "uint16", 6: "uint16"}


class _Entry(NamedTuple):
    file: str
    offset: int
    metadata_offset: int
    metadata_bytes: int


def open_ndtiff(folder: Path) -> Recording:
    """Describe an NDTiff data set.

    Raises
    ------
    ConfigError
        If its index names no frame, compressed or colour frames, or frames of several sizes.
    """
    entries, values, shape, dtype, twice = _read_index(folder)
    lengths = tuple(len(v) for v in values.values())
    axes = tuple(_NAMES.get(name, name) for name in values)
    names = {_NAMES.get(name, name): tuple(map(str, v)) for name, v in values.items()}
    files = FrameFiles(shape, dtype, folder)

    def read(place: Place) -> Plane | None:
        if (entry := entries.get(place)) is None:
            return None
        pixels = files.read(
            folder / entry.file, entry.offset, f"frame {dict(zip(axes, place, strict=True))}"
        )
        return Plane(np.array(pixels), _metadata(folder, entry).t_camera_ms)

    first = next(iter(entries.values()))
    about, summary = _metadata(folder, first), summary_of(folder / first.file, folder)
    return Recording(
        folder,
        "NDTiff",
        axes,
        lengths,
        shape,
        dtype,
        read,
        channels=_texts(names.get("c", ())) or ((about.channel,) if about.channel else ()),
        positions=names.get("p", ()),
        pixel_um=(about.pixel_size_um, about.pixel_size_um) if about.pixel_size_um else None,
        z_step_um=summary.z_step_um,
        origin_px=about.origin_px,
        interval_s=summary.interval_s,
        started_ns=summary.started_ns or (folder / "NDTiff.index").stat().st_mtime_ns,
        timed=about.t_camera_ms is not None,
        notes=_left_out(folder, entries, axes, lengths, twice),
        counted=True,
        close=files.close,
    )


def _left_out(
    folder: Path, entries: Mapping[Place, _Entry], axes: tuple[str, ...], lengths: Place, twice: int
) -> tuple[str, ...]:
    """Say which places of the axes have no frame, and which were written twice."""
    notes, grid = [], math.prod(lengths)
    if twice:
        notes.append(
            f"{folder.name}: {twice} frames were written again at a place that had one; the last is"
            " read."
        )
    if (missing := grid - len(entries)) > 0:
        first = next(place for place in product(*map(range, lengths)) if place not in entries)
        notes.append(missing_note(folder, missing, grid, f"the first is {spelt(axes, first)}"))
    return tuple(notes)


def _read_index(
    folder: Path,
) -> tuple[dict[Place, _Entry], dict[str, list[Any]], tuple[int, int], str, int]:
    """Return frames by place, the values along every axis, what a frame is, and how many had
    another at their place.
    """
    found: list[tuple[Mapping[str, Any], _Entry]] = []
    kinds: set[tuple[int, int, int]] = set()
    files: set[str] = set()
    for index, file, (offset, width, height, pixels, compression, at, length, _) in index_entries(
        folder
    ):
        if compression or pixels not in _DTYPES:
            raise ConfigError(
                f"{folder.name} holds compressed or colour frames; expected the camera's 8 or 16"
                " bit."
            )
        if file not in files:
            files.add(contained.beneath(folder, file, error=ConfigError).name)
        found.append((index, _Entry(file, offset, at, length)))
        kinds.add((height, width, pixels))
    if not found:
        raise ConfigError(f"{folder / 'NDTiff.index'} names no frame: expected an NDTiff data set.")
    if len(kinds) > 1:
        raise ConfigError(
            f"{folder.name} holds frames of {len(kinds)} sizes or pixel types; expected one."
        )
    height, width, kind = kinds.pop()
    data = [folder / name for name in {entry.file for _, entry in found}]
    check_frame(
        folder, (height, width), _DTYPES[kind], sum(f.stat().st_size for f in data if f.is_file())
    )
    values = {
        axis: _sorted(folder, {index.get(axis, 0): None for index, _ in found})
        for axis in _axes(found)
    }
    check_count(folder, tuple(len(along) for along in values.values()))
    ranks = {axis: {value: i for i, value in enumerate(along)} for axis, along in values.items()}
    places = {
        tuple(ranks[axis][index.get(axis, 0)] for axis in values): entry for index, entry in found
    }
    return places, values, (height, width), _DTYPES[kind], len(found) - len(places)


def index_entries(folder: Path) -> Iterator[tuple[Mapping[str, int | str], str, tuple[int, ...]]]:
    """Give the axes, the file and the numbers of every frame in NDTiff.index, up to where it is
    damaged.

    tifffile reads it, too, and allocates whatever a damaged number asks for.

    Raises
    ------
    ConfigError
        If it is not of this folder, or gives a frame something else than axes.
    """
    data = memoryview(contained.read_bytes(folder, "NDTiff.index", error=ConfigError))
    at = 0
    while at < len(data):
        try:
            parts = []
            for _ in range(2):
                (length,) = struct.unpack_from("<I", data, at)
                parts.append(bytes(data[at + 4 : at + 4 + length]))
                at += 4 + length
            numbers = struct.unpack_from(_NUMBERS, data, at)
            at += struct.calcsize(_NUMBERS)
            axes, name = parse_json(parts[0], "NDTiff.index"), parts[1].decode()
        except (
            struct.error,
            ValueError,
            DocumentError,
        ):  # it was cut off, or is still being written
            return
        if not isinstance(axes, dict) or not all(
            isinstance(value, int | str) for value in axes.values()
        ):
            raise ConfigError(
                f"{folder / 'NDTiff.index'} gives a frame the axes {str(axes)[:80]}; expected names"
                " with a number or a text each."
            )
        yield axes, name, numbers


def _axes(found: list[tuple[Mapping[str, Any], _Entry]]) -> list[str]:
    return list(dict.fromkeys(axis for index, _ in found for axis in index))


def _sorted(folder: Path, values: Mapping[Any, None]) -> list[Any]:
    """Numbers in their order, names in the order in which they were acquired.

    A number that was left out is a place.
    """
    if all(isinstance(value, int) for value in values):
        first, last = min(0, *values), max(values)
        check_count(folder, (last - first + 1,))
        return list(range(first, last + 1))
    return list(values)


def _texts(values: tuple[str, ...]) -> tuple[str, ...]:
    """Return channel names, none where channels are only counted."""
    return (
        () if all(value.isdigit() and int(value) == i for i, value in enumerate(values)) else values
    )


def _metadata(folder: Path, entry: _Entry) -> FrameMetadata:
    try:
        with contained.open_to_read(folder, entry.file, error=ConfigError) as file:
            file.seek(entry.metadata_offset)
            text = file.read(min(max(entry.metadata_bytes, 0), _MAX_METADATA))
            return frame_metadata(parse_json(text, entry.file))
    except (OSError, ValueError, AttributeError, DocumentError):
        # The pixels may still be there, and reading them says what is wrong.
        return FrameMetadata()
