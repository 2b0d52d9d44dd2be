"""Planes put into an array that is finished.

Owns the replacement of one shard, the unit in which such an array can be written. Knows no frame
and no log.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from livesr.base import contained
from livesr.base.errors import RecordingError
from livesr.base.files import replace_file
from livesr.formats.shard_file import empty_shard, shard_form
from livesr.formats.store import array_shape, read_json


def replace_planes(
    array: Path, planes: Mapping[tuple[int, int], NDArray[Any]], scratch: Path
) -> None:
    """Put planes into one shard of `array`; every other plane of the shard stays as it is.

    The new shard is written beside and takes the old one's place at once: a reader, or a process
    that is killed, sees either, never half of one.

    Parameters
    ----------
    planes : by (t, z), all of one shard; (c, y, x), or (y, x) without a channel axis
    scratch : empty folder on the same disk to write the shard in, of nobody else

    Raises
    ------
    RecordingError
        If the shard cannot be read or the disk refuses.
    """
    import zarr

    from livesr.formats.zarr_files import open_array

    shape = array_shape(array)
    ((t_shard, z_shard),) = {shape.shard_of(t, z) for t, z in planes}
    held = shape.region(t_shard, z_shard)
    region, t0, z0 = tuple(held.values()), held["t"].start, held["z"].start if "z" in held else 0
    key = shape.shard_key(t_shard, z_shard)
    try:
        place = contained.beneath_to_write(array, key)
        block = np.asarray(open_array(array)[region])  # which has looked at the codecs
        contained.copy_out(array, "zarr.json", scratch, "zarr.json")
        for (t, z), plane in planes.items():
            block[shape.index(t - t0, z - z0)] = plane
        zarr.open_array(scratch, mode="r+")[region] = block
        if not (
            scratch / key
        ).is_file():  # where every plane is zero; without a file, pictures seem to be lost
            (scratch / key).parent.mkdir(parents=True, exist_ok=True)
            contained.write_bytes(
                scratch, key, empty_shard(shard_form(read_json(array / "zarr.json")))
            )
        _move(scratch / key, place)
    except Exception as e:  # a torn shard raises whatever its codecs raise
        raise RecordingError(
            f"{array.parent.name} could not be written at t={min(planes)[0]}: {e}."
        ) from e


def _move(new: Path, place: Path) -> None:
    with new.open("rb+") as file:
        os.fsync(file.fileno())
    place.parent.mkdir(parents=True, exist_ok=True)
    replace_file(new, place)
