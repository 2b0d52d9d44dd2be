"""Numbers as tables: what became of every picture, and what was localised.

Owns the CSV of the frames, and localisations as ThunderSTORM and Picasso read them.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from livesr.base import contained
from livesr.base.errors import StoreError
from livesr.formats import layout
from livesr.formats.localisations import header, read_localisations, rows
from livesr.formats.picasso import DATASET, locs_of, need_h5py, write_info
from livesr.store.exports.part import Chosen

_COLUMNS = (
    "image",
    "is",
    "position",
    "channel",
    "z",
    "t",
    "state",
    "t_acq_ns",
    "t_camera_ms",
    "exposure_ms",
    "x_um",
    "y_um",
    "z_um",
    "residual",
    "novelty",
    "unknown_light",
    "latency_ms",
    "localisations",
    "doubt",
    "warnings",
)
_ROWS_AT_ONCE = 100_000  # localisations


def write_frames(images: Sequence[Chosen], file: Path) -> None:
    """Write one row per chosen picture: where and when it was taken, and what is known of it.

    Column ``is`` says measurement, prediction, raw exposure or estimate.

    Raises
    ------
    OSError
        If the disk refuses.
    """
    with file.open("x", encoding="utf-8", newline="") as opened:
        table = csv.writer(opened, lineterminator="\n")
        table.writerow(_COLUMNS)
        for image in images:
            table.writerows(_frame_rows(image))


def _frame_rows(image: Chosen) -> Iterator[list[Any]]:
    position = str(image.image.attributes["livesr"].get("position_name", image.image.position))
    for t in image.times:
        for z in range(image.shape.z_planes):
            line = image.stored.get((t, z), {})
            about = [image.image.name, image.said, position, image.image.channel, z, t]
            said = {**line, "warnings": " ".join(line.get("warnings", ()))}
            said["state"] = line.get("state", "missing")
            yield [*about, *(_cell(said.get(name)) for name in _COLUMNS[len(about) :])]


def _cell(value: Any) -> Any:
    """Return what a table holds; a formula of a stranger's name is text to a spreadsheet."""
    text = isinstance(value, str) and value[:1] in {"=", "+", "-", "@"}
    if text or value is None:
        return f"'{value}" if text else ""
    return value + 0.0 if isinstance(value, float) else value  # -0.0 of older stores is 0.0


def localisations_of(image: Chosen) -> NDArray[np.void] | None:
    """Return what was localised in the chosen frames of a raw film and field, None without a table.

    Frames count from 0 at the first chosen one, positions in nm from the chosen field's corner.

    Raises
    ------
    StoreError
        If the table cannot be read.
    """
    store = image.image.folder.parent
    name = layout.localisations_name(image.image.name)
    if image.image.kind != "raw" or not contained.is_file(store, name):
        return None
    found, n = read_localisations(store / name), image.image.exposures
    first, count = image.times.start * n, image.size[0]
    pixel_nm = 1000 * image.pixel_size_um
    found["frame"] -= first
    found["x_nm"] -= image.columns.start * pixel_nm
    found["y_nm"] -= image.rows.start * pixel_nm
    _, _, _, height, width = image.size
    inside = (found["frame"] >= 0) & (found["frame"] < count)
    inside &= (found["x_nm"] >= 0) & (found["x_nm"] < width * pixel_nm)
    inside &= (found["y_nm"] >= 0) & (found["y_nm"] < height * pixel_nm)
    chosen: NDArray[np.void] = found[inside]
    return chosen


def write_thunderstorm(found: NDArray[np.void], file: Path) -> None:
    """Write localisations as ThunderSTORM's CSV, frames counted from 1.

    Raises
    ------
    OSError
        If the disk refuses.
    """
    with file.open("x", encoding="utf-8", newline="") as opened:
        opened.write(header(found.dtype))
        for start in range(0, len(found), _ROWS_AT_ONCE):
            opened.write(rows(found[start : start + _ROWS_AT_ONCE]))


def write_picasso(image: Chosen, found: NDArray[np.void], file: Path) -> None:
    """Write localisations as Picasso's HDF5, with the YAML that it wants beside.

    Parameters
    ----------
    file : NAME.hdf5; NAME.yaml is written as well

    Raises
    ------
    BackendError
        If h5py is missing.
    OSError
        If the disk refuses.
    """
    pixel_nm = 1000 * image.pixel_size_um
    h5py = need_h5py()
    with h5py.File(file, "x") as opened:
        opened.create_dataset(DATASET, data=locs_of(found, pixel_nm))
    frames, _, _, height, width = image.size
    name, dtype = image.image.folder.parent.name, str(image.dtype)
    write_info(file.with_suffix(".yaml"), name, dtype, frames, (height, width), pixel_nm)


def tables_of(images: Sequence[Chosen]) -> list[tuple[Chosen, NDArray[np.void]]]:
    """Return every raw film with what was localised in it.

    Raises
    ------
    StoreError
        If there is none, or one cannot be read.
    """
    found = [(i, table) for i in images if (table := localisations_of(i)) is not None]
    if not found:
        raise StoreError(
            "Nothing was localised in what is chosen: only a run of a localising channel (STORM)"
            " has such a table, with its images of kind raw."
        )
    return found
