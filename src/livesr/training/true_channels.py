"""The true channels that `--pairs` keeps, put side by side again.

Owns which files show the same moments. What they are read for is the caller's.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from livesr.base.errors import ConfigError
from livesr.base.other_files import STORE, no_folder
from livesr.formats.layout import folder_names
from livesr.training.images import read_image

log = logging.getLogger(__name__)

_OF_FIELD = re.compile(r"(.+_p\d+)_z\d+_t\d+\.tif$")


def fields_of(folder: Path, labels: Sequence[str]) -> list[tuple[str, list[NDArray[np.float32]]]]:
    """Return every recording of a field: its name, and each structure's float32 (t, y, x), ADU.

    Raises
    ------
    ConfigError
        If the folder is none of `livesr run --pairs`, or holds no moment of all structures.
    """
    if not folder.is_dir():
        expected = f"{STORE} or a folder that 'livesr run --superpose --pairs' made"
        raise ConfigError(no_folder(folder, expected) or f"There is no {folder}: give {expected}.")
    folders = [folder / name for name in folder_names(tuple(labels))]
    if missing := [of.name for of in folders if not of.is_dir()]:
        raise ConfigError(
            f"{folder} is neither a store nor a folder of pairs of this engine: it lacks"
            f" {', '.join(missing)}. 'livesr run --superpose --pairs FOLDER' makes one."
        )
    each = [{p.name for p in of.glob("*.tif")} for of in folders]
    names = sorted(set.intersection(*each))
    left_out = sorted(set.union(*each) - set(names))
    found = []
    for name in names:
        images = [_readable(of / name) for of in folders]
        length = min(map(len, images))
        if length and len({image.shape[1:] for image in images}) == 1:
            match = _OF_FIELD.match(name)
            found.append((match[1] if match else name, [image[:length] for image in images]))
        else:
            left_out.append(name)
    if left_out:
        log.warning(
            "%s: %d of %d recordings are left out, for the file of a structure is missing, damaged"
            " or of another size; the first is %s.",
            *(folder, len(left_out), len(left_out) + len(found), left_out[0]),
        )
    if not found:
        raise ConfigError(f"{folder} holds no moment of which every structure is there.")
    return found


def _readable(path: Path) -> NDArray[np.float32]:
    try:
        return read_image(path)
    except Exception:  # the last file of a killed run; decoders raise whatever they like
        return np.empty((0, 0, 0), np.float32)
