"""Arrays in .npy files of any origin.

What the header promises is compared with the file before anything is allocated.

Owns the reading. Objects are never unpickled.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from livesr.base.errors import DocumentError


def open_npy(path: Path, mmap_mode: Literal["r", "r+"] | None = None) -> NDArray[Any]:
    """Return the array of numbers in a .npy file, read into memory, or mapped with `mmap_mode`.

    Raises
    ------
    DocumentError
        If it is no .npy file, holds objects, or is not as long as its shape says.
    """
    try:
        _check(path)
        return np.asarray(np.load(path, mmap_mode=mmap_mode, allow_pickle=False))
    except DocumentError:
        raise
    except Exception as e:  # numpy raises whatever it stumbles over in a header
        raise DocumentError(
            f"{path} cannot be read as .npy: {getattr(e, 'strerror', None) or e}."
        ) from e


def _check(path: Path) -> None:
    with path.open("rb") as file:
        version = np.lib.format.read_magic(file)
        read = (
            np.lib.format.read_array_header_1_0
            if version == (1, 0)
            else np.lib.format.read_array_header_2_0
        )
        shape, _, dtype = read(file)
        begins = file.tell()
    if dtype.hasobject:
        raise DocumentError(f"{path} holds objects, expected numbers: they are never unpickled.")
    came, expected = path.stat().st_size - begins, math.prod(shape) * dtype.itemsize
    if min(shape, default=1) < 0 or came != expected:
        raise DocumentError(
            f"{path} says {dtype} {shape}, which is {expected:,} bytes; {came:,} are there."
        )
