"""NDTiff data sets of pycro-manager and Micro-Manager: a folder with NDTiff.index and the TIFF files that it points into.

Owns the reading. tifffile reads the index, which says where every frame lies, so the TIFF structures are not needed. (The
format's own package, ndstorage, would bring dask along for the same three numbers.)
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from livesr.base import contained
from livesr.base.documents import parse_json
from livesr.base.errors import ConfigError, DocumentError
from livesr.live.sources.recordings.micromanager import FrameMetadata, frame_metadata, summary_of
from livesr.live.sources.recordings.recording import FrameFiles, Plane, Recording

_NAMES = {"time": "t", "position": "p", "channel": "c", "z": "z", "sim": "raw", "raw": "raw"}
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
    entries, values, shape, dtype = _read_index(folder)
    axes = tuple(_NAMES.get(name, name) for name in values)
    names = {_NAMES.get(name, name): tuple(map(str, v)) for name, v in values.items()}
    files = FrameFiles(shape, dtype, folder)

    def read(place: tuple[int, ...]) -> Plane | None:
        if (entry := entries.get(place)) is None:
            return None
        pixels = files.read(folder / entry.file, entry.offset, f"frame {dict(zip(axes, place, strict=True))}")
        return Plane(pixels, _metadata(folder, entry).t_camera_ms)

    first = next(iter(entries.values()))
    about, summary = _metadata(folder, first), summary_of(folder / first.file)
    return Recording(
        folder,
        "NDTiff",
        axes,
        tuple(len(v) for v in values.values()),
        shape,
        dtype,
        read,
        channels=_texts(names.get("c", ())) or ((about.channel,) if about.channel else ()),
        positions=names.get("p", ()),
        pixel_size_um=about.pixel_size_um,
        z_step_um=summary.z_step_um,
        origin_px=about.origin_px,
        interval_s=summary.interval_s,
        started_ns=summary.started_ns or (folder / "NDTiff.index").stat().st_mtime_ns,
        timed=about.t_camera_ms is not None,
        close=files.close,
    )


def _read_index(
    folder: Path,
) -> tuple[dict[tuple[int, ...], _Entry], dict[str, list[Any]], tuple[int, int], str]:
    """Return frames by place, the values along every axis, and what a frame is."""
    import tifffile

    found: list[tuple[Mapping[str, Any], _Entry]] = []
    kinds: set[tuple[int, int, int]] = set()
    files: set[str] = set()
    for index, file, offset, width, height, pixels, compression, at, length, _ in tifffile.read_ndtiff_index(
        contained.beneath(folder, "NDTiff.index", error=ConfigError)
    ):
        if compression or pixels not in _DTYPES:
            raise ConfigError(f"{folder.name} holds compressed or colour frames; expected the camera's 8 or 16 bit.")
        if file not in files:
            files.add(contained.beneath(folder, file, error=ConfigError).name)
        found.append((index, _Entry(file, offset, at, length)))
        kinds.add((height, width, pixels))
    if not found:
        raise ConfigError(f"{folder / 'NDTiff.index'} names no frame: expected an NDTiff data set.")
    if len(kinds) > 1:
        raise ConfigError(f"{folder.name} holds frames of {len(kinds)} sizes or pixel types; expected one.")
    values = {axis: _sorted({index.get(axis, 0): None for index, _ in found}) for axis in _axes(found)}
    ranks = {axis: {value: i for i, value in enumerate(along)} for axis, along in values.items()}
    places = {tuple(ranks[axis][index.get(axis, 0)] for axis in values): entry for index, entry in found}
    height, width, kind = kinds.pop()
    return places, values, (height, width), _DTYPES[kind]


def _axes(found: list[tuple[Mapping[str, Any], _Entry]]) -> list[str]:
    return list(dict.fromkeys(axis for index, _ in found for axis in index))


def _sorted(values: Mapping[Any, None]) -> list[Any]:
    """Numbers in their order, names in the order in which they were acquired; a number that was left out is a place."""
    if all(isinstance(value, int) for value in values):
        return list(range(min(0, *values), max(values) + 1))
    return list(values)


def _texts(values: tuple[str, ...]) -> tuple[str, ...]:
    """Return channel names, none where channels are only counted."""
    return () if all(value.isdigit() and int(value) == i for i, value in enumerate(values)) else values


def _metadata(folder: Path, entry: _Entry) -> FrameMetadata:
    try:
        with contained.open_to_read(folder, entry.file, error=ConfigError) as file:
            file.seek(entry.metadata_offset)
            return frame_metadata(parse_json(file.read(entry.metadata_bytes), entry.file))
    except (OSError, DocumentError):  # the pixels may still be there, and reading them says what is wrong
        return FrameMetadata()
