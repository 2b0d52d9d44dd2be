"""OME-Zarr 0.4: Zarr format 2, for tools that do not read a store of today.

Owns the metadata of that version. One chunk is one plane, every image has smaller levels.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from livesr.store.exports.part import Chosen
from livesr.store.halving import halved, level_sizes


def write_ome_zarr_04(images: Sequence[Chosen], folder: Path, step: Callable[[], None]) -> None:
    """Write images into one new folder, each under the name that it has in the store.

    Parameters
    ----------
    folder : to make
    step : called after every plane

    Raises
    ------
    StoreError
        If an image cannot be read.
    OSError
        If the disk refuses.
    """
    folder.mkdir()
    _write(folder, ".zgroup", {"zarr_format": 2})
    _write(folder, ".zattrs", {"bioformats2raw.layout": 3})
    (folder / "OME").mkdir()
    _write(folder / "OME", ".zgroup", {"zarr_format": 2})
    _write(folder / "OME", ".zattrs", {"series": [image.image.name for image in images]})
    for image in images:
        _write_image(image, folder / image.image.name, step)


def _write_image(image: Chosen, folder: Path, step: Callable[[], None]) -> None:
    import zarr
    from numcodecs import Blosc

    folder.mkdir()
    _write(folder, ".zgroup", {"zarr_format": 2})
    t, z, c, y, x = image.size
    sizes, levels = [(y, x), *level_sizes(y, x)], []
    for n, size in enumerate(sizes):
        levels.append(
            zarr.create_array(
                str(folder / str(n)),
                shape=_shape(image, (t, z, c, *size)),
                chunks=_shape(image, (1, 1, 1, *size)),
                dtype=image.dtype,
                compressors=Blosc(cname="lz4", clevel=5, shuffle=Blosc.SHUFFLE),
                fill_value=0,
                zarr_format=2,
                chunk_key_encoding={"name": "v2", "separator": "/"},
            )
        )
    _write(folder, ".zattrs", _attributes(image, sizes))
    for frame, _ in image.frames():
        for plane in range(z):
            _put(image, levels, (frame, plane), image.planes(frame, plane))
            for _ in range(c):
                step()


def _put(image: Chosen, levels: Sequence[Any], at: tuple[int, int], planes: NDArray[Any]) -> None:
    place: dict[str, Any] = {"t": at[0], "z": at[1]}
    index = tuple(place.get(axis, slice(None)) for axis in _axes(image))
    for level in levels:
        level[index] = planes if "c" in _axes(image) else planes[0]
        planes = halved(planes)


def _axes(image: Chosen) -> str:
    return "".join(axis for axis in "tczyx" if axis in image.shape.length)


def _shape(image: Chosen, size: tuple[int, int, int, int, int]) -> tuple[int, ...]:
    named = dict(zip("tzcyx", size, strict=True))
    return tuple(named[axis] for axis in _axes(image))


def _attributes(image: Chosen, sizes: Sequence[tuple[int, int]]) -> dict[str, Any]:
    own, about = image.image.attributes, image.image.attributes["ome"]["multiscales"][0]
    channels = own["ome"].get("omero", {}).get("channels", ())
    named = [
        {**channels[c], "label": label.name}
        for c, label in zip(image.channels, image.labels, strict=True)
    ]
    origin = image.origin_px
    first = next((t for t in image.times if image.is_stored(t, 0)), image.times.start)
    return {
        "multiscales": [
            {
                "version": "0.4",
                "name": image.title,
                "axes": about["axes"],
                "datasets": [
                    {"path": str(n), "coordinateTransformations": _transformations(image, n)}
                    for n in range(len(sizes))
                ],
                "type": "mean of 2 x 2 pixels",
            }
        ],
        "omero": {
            "version": "0.4",
            "channels": named,
            "rdefs": {"defaultT": (first - image.times.start) * image.image.exposures},
        },
        "livesr": {**own["livesr"], **({"origin_px": list(origin)} if origin else {})},
    }


def _transformations(image: Chosen, level: int) -> list[Mapping[str, Any]]:
    """Scale, and where the middle of the first pixel is; both in um.

    Along t it is the time from the store's first time point, in s.
    """
    scale, factor, place = image.image.scale, 2**level, image.place_um
    first = {"y": image.rows.start, "x": image.columns.start}
    first["t"] = image.times.start * image.image.exposures
    steps, shifts = [], []
    for axis in _axes(image):
        in_plane = axis in "yx"
        steps.append(scale[axis] * (factor if in_plane else 1))
        inside = first.get(axis, 0) + ((factor - 1) / 2 if in_plane else 0)
        shifts.append(place.get(axis, 0.0) + scale[axis] * inside)
    return [
        {"type": "scale", "scale": steps},
        {"type": "translation", "translation": shifts},
    ]


def _write(folder: Path, name: str, content: Mapping[str, Any]) -> None:
    with (folder / name).open("x", encoding="utf-8") as file:
        json.dump(content, file, indent=2)
