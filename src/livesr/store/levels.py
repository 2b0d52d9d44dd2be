"""Smaller levels of the images of a finished store, for viewers of large pictures.

Owns their making, and that they are never older than what they show: whoever writes into an image
takes its levels away first. Raw has none: an average of patterns is no picture, and nobody but the
run writes there.

A level is an array beside the first, in shards of the same time points. All levels of an image are
written in a folder of their own, and take their places before zarr.json names them: a reader, or a
process that is killed, sees all of them or none.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from copy import deepcopy
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from numpy.typing import NDArray

from livesr.base import contained
from livesr.base.errors import RecordingError, StoreError
from livesr.base.files import sync
from livesr.base.lock import Lock
from livesr.base.progress import Progress, Steps
from livesr.formats import layout
from livesr.formats.store import ArrayShape, Image, RecordedStore, array_shape, read_json
from livesr.formats.zarr_files import open_array
from livesr.live.sinks.series import write_json
from livesr.store.halving import halved, level_sizes

_SCRATCH = "levels"


def build_levels(
    path: Path,
    *,
    stop: Callable[[], bool] = lambda: False,
    on_progress: Progress = lambda done, total: None,
) -> list[str]:
    """Give every image of a finished store the levels that it lacks; return their names.

    Parameters
    ----------
    stop : asked between shards; once it says true, the image under way is left without
    on_progress : called with shards done and in all

    Raises
    ------
    StoreError
        If it is no store, or somebody else is at work in it.
    RecordingError
        If an image cannot be read, or the disk refuses. The images are as they were.
    """
    sidecars = Path(path) / layout.SIDECARS
    store = RecordedStore(path)
    contained.refuse_links(Path(path), writing=True)
    built = []
    try:
        with Lock(sidecars, "backfill"):
            for left in sidecars.glob(f"{_SCRATCH}-*"):  # by one that was killed
                shutil.rmtree(left, ignore_errors=True)
            lacking = [image for image in store.images.values() if lacks_levels(image)]
            steps = Steps(sum(len(list(_shards(_shape(i)))) for i in lacking), on_progress)
            for image in lacking:
                if stop():
                    break
                if _build(image, sidecars, stop, steps.step):
                    built.append(image.name)
    except OSError as e:
        raise RecordingError(
            f"Smaller levels cannot be written: {e.strerror or e}. The images are as they were."
        ) from e
    return built


def lacks_levels(image: Image) -> bool:
    """Whether an image should have levels and has none, or others."""
    if image.kind == "raw":
        return False
    length = _shape(image).length
    wanted = level_sizes(length["y"], length["x"])
    return bool(wanted) and not (len(_levels(image)) == len(wanted) and levels_fit(image))


def levels_fit(image: Image) -> bool:
    """Whether the levels that an image names are there and as long as it is; true without any."""
    length = _shape(image).length
    sizes = level_sizes(length["y"], length["x"])
    if len(levels := _levels(image)) > len(sizes):
        return False
    for name, (y, x) in zip(levels, sizes, strict=False):
        try:
            there = array_shape(contained.beneath(image.folder, name)).length
        except StoreError:
            return False
        if dict(there) != {**length, "y": y, "x": x}:
            return False
    return True


def damaged_levels(image: Image) -> list[str]:
    """Return the levels that cannot be read to their end."""
    bad = []
    for name in _levels(image):
        try:
            level = open_array(contained.beneath(image.folder, name))
            for t in range(level.shape[0]):
                np.asarray(level[t])
        except Exception:  # a damaged chunk raises whatever its codecs raise
            bad.append(name)
    return bad


def drop_levels(image: Image) -> bool:
    """Take an image's levels away before it is written to; return whether it had any.

    Raises
    ------
    OSError
        If the disk refuses.
    """
    place = image.folder / "zarr.json"
    about = read_json(place)
    multiscales = about["attributes"]["ome"]["multiscales"][0]
    names = [level["path"] for level in multiscales["datasets"][1:]]
    if not names:
        return False
    multiscales["datasets"] = multiscales["datasets"][:1]
    write_json(place, about)
    for name in names:
        shutil.rmtree(contained.beneath_to_write(image.folder, name), ignore_errors=True)
    return True


def _levels(image: Image) -> list[str]:
    about = read_json(image.folder / "zarr.json")
    datasets = about["attributes"]["ome"]["multiscales"][0]["datasets"]
    return [str(level["path"]) for level in datasets[1:]]


def _shape(image: Image) -> ArrayShape:
    """Return its shape; along t the planes of a film are counted."""
    return array_shape(image.array)


def _build(
    image: Image, sidecars: Path, stop: Callable[[], bool], step: Callable[[], None]
) -> bool:
    """Make all levels of one image; return whether there was time for it."""
    shape = _shape(image)
    sizes = level_sizes(shape.length["y"], shape.length["x"])
    with TemporaryDirectory(prefix=f"{_SCRATCH}-", dir=sidecars) as folder:
        levels = [Path(folder) / str(n) for n in range(1, len(sizes) + 1)]
        for level, size in zip(levels, sizes, strict=True):
            level.mkdir()
            write_json(level / "zarr.json", _level_json(image, size), durable=False)
        for t_shard, z_shard in _shards(shape):
            if stop():
                return False
            _write_shard(image, shape, levels, (t_shard, z_shard))
            step()
        for file in Path(folder).rglob("*"):
            if file.is_file():
                with file.open("rb+") as opened:
                    sync(opened.fileno())
        _place(image, levels)
    return True


def _level_json(image: Image, size: tuple[int, int]) -> dict[str, Any]:
    """Return the first level's zarr.json with planes of another size."""
    about = deepcopy(read_json(image.array / "zarr.json"))
    try:
        about["shape"][-2:] = size
        about["chunk_grid"]["configuration"]["chunk_shape"][-2:] = size
        about["codecs"][0]["configuration"]["chunk_shape"][-2:] = size
    except (KeyError, IndexError, TypeError) as e:
        raise RecordingError(
            f"{image.name} has no smaller levels: its array is not in shards as livesr writes them."
        ) from e
    return about


def _shards(shape: ArrayShape) -> Iterator[tuple[int, int]]:
    deep = shape.shard.get("z", 1)
    for t in range(-(-shape.length["t"] // shape.shard["t"])):
        for z in range(-(-shape.z_planes // deep)):
            yield t, z


def _write_shard(
    image: Image, shape: ArrayShape, levels: list[Path], place: tuple[int, int]
) -> None:
    """Write one shard of every level; a time point is read at a time."""
    import zarr

    source = open_array(image.array)
    region = shape.region(*place)
    blocks: list[NDArray[Any]] = []
    for level in levels:
        size = array_shape(level).length
        extent = [len(range(*region[axis].indices(n))) for axis, n in size.items()]
        blocks.append(np.zeros(extent, shape.dtype))
    for n, t in enumerate(range(*region["t"].indices(shape.length["t"]))):
        try:
            planes = np.asarray(source[tuple({**region, "t": t}.values())])
        except Exception as e:  # a damaged chunk raises whatever its codecs raise
            raise RecordingError(
                f"{image.name} cannot be read at t={t}: {e}. 'livesr repair' mends the store."
            ) from e
        for block in blocks:
            planes = halved(planes)
            block[n] = planes
    for level, block in zip(levels, blocks, strict=True):
        array: Any = zarr.open_array(level, mode="r+")
        array[tuple(region.values())] = block


def _place(image: Image, levels: list[Path]) -> None:
    """Move levels to where they are read, then name them."""
    drop_levels(image)
    for level in levels:
        target = contained.beneath_to_write(image.folder, level.name)
        if target.exists():  # of one that was killed before it could name them
            shutil.rmtree(target)
        os.replace(level, target)
    place = image.folder / "zarr.json"
    about = read_json(place)
    multiscales = about["attributes"]["ome"]["multiscales"][0]
    first, axes = multiscales["datasets"][0], [axis["name"] for axis in multiscales["axes"]]
    multiscales["datasets"] = [first, *(_dataset(first, axes, level.name) for level in levels)]
    write_json(place, about)


def _dataset(first: Mapping[str, Any], axes: list[str], name: str) -> dict[str, Any]:
    """Return what a level says of itself: the middle of its first pixel lies further inside."""
    scale, *moved = first["coordinateTransformations"]
    factor = 2 ** int(name)
    steps = [
        s * factor if axis in "yx" else s for axis, s in zip(axes, scale["scale"], strict=True)
    ]
    start = [um or 0.0 for um in moved[0]["translation"]] if moved else [0.0] * len(axes)
    inside = [
        at + s * (factor - 1) / 2 if axis in "yx" else at
        for axis, at, s in zip(axes, start, scale["scale"], strict=True)
    ]
    return {
        "path": name,
        "coordinateTransformations": [
            {"type": "scale", "scale": steps},
            {"type": "translation", "translation": inside},
        ],
    }
