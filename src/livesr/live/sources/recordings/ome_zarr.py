"""OME-Zarr images, 0.4 and 0.5, of any writer.

One image, or the images of a `bioformats2raw.layout` as positions.

Owns the reading. A store that livesr wrote knows more (frames.jsonl): `livesr.store.recorded` reads
that; here it is an image whose channels are raw frames.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from livesr.base.array_limits import FEW_PLANES, check_array, check_planes
from livesr.base.errors import ConfigError, DamagedFileError, StoreError
from livesr.live.sources.recordings.pixels import camera_pixels, check_count, check_frame
from livesr.live.sources.recordings.recording import Place, Plane, Recording
from livesr.live.sources.recordings.units import s_per, um_per

Array: TypeAlias = Any  # zarr.Array, without importing zarr
_BLOCKS = 4  # decoded chunks that are kept where a chunk holds several frames


def open_ome_zarr(path: Path) -> Recording:
    """Describe an OME-Zarr image.

    Raises
    ------
    ConfigError
        If there is no image, several that differ, or pixels that are not a camera's.
    """
    from livesr.formats.zarr_files import open_group

    try:
        root = open_group(path)
        folders = _images(path, root)
        metadata = [_ome(root[name] if name else root) for name in folders]
        arrays = [_array(root, name, about) for name, about in zip(folders, metadata, strict=True)]
    except (OSError, KeyError, ValueError, TypeError, IndexError, AttributeError) as e:
        raise ConfigError(f"Cannot read {path} as OME-Zarr: {type(e).__name__}: {e}.") from e
    for array, name in zip(arrays, folders, strict=True):
        _check_numbers(array, f"{path.name}/{name}" if name else path.name)
    about = metadata[0]
    names = [str(axis["name"]) for axis in about["multiscales"][0]["axes"]]
    ragged = (
        names.index("t") if "t" in names else None
    )  # positions may have ended at different times
    if len({(a.dtype, *(n for i, n in enumerate(a.shape) if i != ragged)) for a in arrays}) > 1:
        raise ConfigError(
            f"{path.name} holds images of several sizes: name the folder of one, {folders[0]!r} or"
            " another."
        )
    if names[-2:] != ["y", "x"]:
        raise ConfigError(f"{path.name} has axes {names}; expected y and x last.")
    return _recording(path, folders, arrays, about, names)


def _recording(
    path: Path, folders: list[str], arrays: list[Array], about: Mapping[str, Any], names: list[str]
) -> Recording:
    first, several = arrays[0], len(arrays) > 1
    ours = (
        about.get("livesr", {}).get("kind") == "raw"
    )  # the channels of livesr's raw images are raw frames
    axes = ["raw" if ours and name == "c" else name for name in names[:-2]]
    lengths = tuple(max(a.shape[i] for a in arrays) for i in range(first.ndim - 2))
    shape = int(first.shape[-2]), int(first.shape[-1])
    pixels = camera_pixels(path, first.dtype)
    check_count(path, (len(arrays), *lengths))
    check_frame(path, shape, first.dtype, math.prod(shape) * first.dtype.itemsize)
    scale, units = _scale(about, names)
    senseless = _senseless(path, scale)
    reader = _Reader(path, arrays)
    y_um, x_um = (scale[axis] * (um_per(units[axis]) or 0) for axis in "yx")

    def read(place: Place) -> Plane | None:
        image, inside = (place[0], place[1:]) if several else (0, place)
        block = reader.frame(image, inside)
        return None if block is None else Plane(pixels.taken(block, f"frame {inside}"))

    return Recording(
        path,
        "OME-Zarr",
        ("p", *axes) if several else tuple(axes),
        (len(arrays), *lengths) if several else lengths,
        shape,
        pixels.name,
        read,
        channels=(
            ()
            if ours
            else tuple(str(c.get("label", "")) for c in about.get("omero", {}).get("channels", ()))
        ),
        positions=tuple(folders) if several else (),
        pixel_um=(y_um or x_um, x_um or y_um) if x_um or y_um else None,
        z_step_um=scale.get("z", 0.0) * (um_per(units.get("z", "")) or 0.0) or None,
        interval_s=scale.get("t", 0.0) * (s_per(units.get("t", "")) or 0.0) or None,
        notes=(*pixels.notes, *senseless),
        origin_px=_pair(about.get("livesr", {}).get("origin_px")),
        mirrored=_mirrored(about.get("livesr", {}).get("mirrored")),
        started_ns=path.stat().st_mtime_ns,
    )


def _check_numbers(array: Array, name: str) -> None:
    """Refuse an array whose numbers would take memory or time without end."""
    shards = getattr(array, "shards", None)
    try:
        check_array(name, array.shape, array.chunks, shards, array.dtype.itemsize)
        if (planes := math.prod(array.shape[:-2])) > FEW_PLANES:
            file = shards or array.chunks
            # Shards of several files a plane count too often, which is on the safe side.
            check_planes(name, planes, math.prod(file[:-2]), _files(array))
    except StoreError as e:
        raise ConfigError(str(e)) from e


def _files(array: Array) -> int:
    """Return how many files an array on a disk has."""
    folder = Path(str(array.store_path.store).removeprefix("file://")) / array.store_path.path
    return sum(len(files) for _, _, files in os.walk(folder))


class _Reader:
    """Reads frames; keeps the chunks that were decoded last where a chunk holds several frames."""

    def __init__(self, path: Path, arrays: list[Array]) -> None:
        self._path, self._arrays = path, arrays
        self._block = lru_cache(_BLOCKS)(self._decode)

    def frame(self, image: int, place: Place) -> NDArray[Any] | None:
        """Return a frame as it is stored, None if it was never written."""
        array = self._arrays[image]
        if any(i >= n for i, n in zip(place, array.shape, strict=False)):
            return None
        corner = tuple(i - i % n for i, n in zip(place, array.chunks, strict=False))
        frame = self._block(image, corner)[tuple(i - c for i, c in zip(place, corner, strict=True))]
        # What was never written reads as zeros. Black frames are left out by some writers, too:
        # whoever counts says both.
        return frame if frame.any() or self._is_written(array, place) else None

    def _is_written(self, array: Array, place: Place) -> bool:
        """Whether a frame of zeros lies in a file of its own.

        Within a shard, nothing tells it from one that was left out.
        """
        if array.shards is not None:
            return False
        y, x = array.shape[-2:]
        parts = (-(-y // array.chunks[-2]), -(-x // array.chunks[-1]))
        first = tuple(i // n for i, n in zip(place, array.chunks, strict=False))
        keys = (array.metadata.encode_chunk_key((*first, *part)) for part in np.ndindex(parts))
        return any((self._path / array.path / key).is_file() for key in keys)

    def _decode(self, image: int, corner: Place) -> NDArray[Any]:
        array = self._arrays[image]
        region = tuple(slice(c, c + n) for c, n in zip(corner, array.chunks, strict=False))
        try:
            return np.asarray(array[region])
        except Exception as e:  # a torn chunk raises whatever its codecs raise
            raise DamagedFileError(
                f"{self._path.name} cannot be read at {corner}: {type(e).__name__}: {e}."
            ) from e


def _images(path: Path, root: Array) -> list[str]:
    """Return the folders of the images, "" for the root itself."""
    about = _ome(root)
    if "multiscales" in about:
        return [""]
    if "bioformats2raw.layout" in about:
        series = _ome(root["OME"]).get("series") if "OME" in root else None
        return (
            list(series)
            if series
            else sorted((n for n in root.group_keys() if n.isdigit()), key=int)
        )
    raise ConfigError(
        f"{path} is no OME-Zarr image: expected multiscales metadata. Name the folder of an image"
        " in it."
    )


def _ome(group: Array) -> dict[str, Any]:
    """Return the metadata of 0.5 (under "ome") or 0.4, with what livesr says beside them."""
    attributes = dict(group.attrs)
    return {**attributes, **attributes.get("ome", {})}


def _array(root: Array, name: str, about: Mapping[str, Any]) -> Array:
    image = root[name] if name else root
    return image[about["multiscales"][0]["datasets"][0]["path"]]


def _scale(about: Mapping[str, Any], names: list[str]) -> tuple[dict[str, float], dict[str, str]]:
    image = about["multiscales"][0]
    factors = [1.0] * len(names)
    for transformations in (
        image["datasets"][0].get("coordinateTransformations"),
        image.get("coordinateTransformations"),
    ):
        for one in transformations or ():
            if one.get("type") == "scale":
                factors = [math.prod(pair) for pair in zip(factors, one["scale"], strict=True)]
    units = {str(axis["name"]): str(axis.get("unit", "")) for axis in image["axes"]}
    return dict(zip(names, factors, strict=True)), units


def _senseless(path: Path, scale: dict[str, float]) -> list[str]:
    """Take out what cannot be a distance, and say so."""
    notes = []
    for axis, size in scale.items():
        if not 0 < size < math.inf:
            notes.append(f"{path.name} gives a scale of {size:g} along {axis}: it is not used.")
            scale[axis] = 0.0
    return notes


def _pair(value: Any) -> tuple[float, float] | None:
    return (float(value[0]), float(value[1])) if value else None


def _mirrored(value: Any) -> tuple[bool, bool]:
    return (bool(value[0]), bool(value[1])) if value else (False, False)
