"""Localisations as a table that ThunderSTORM, Picasso (csv2hdf) and every spreadsheet read.

Owns the columns and the reader. At most the last row of a file is torn, where its process was
killed; the reader passes over that.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from livesr.base import contained
from livesr.base.errors import StoreError
from livesr.base.frames import LOCALISATION

_COLUMNS = {
    "frame": "frame",
    "x_nm": "x [nm]",
    "y_nm": "y [nm]",
    "sigma_nm": "sigma [nm]",
    "photons": "intensity [photon]",
    "background": "offset [photon]",
    "uncertainty_nm": "uncertainty_xy [nm]",
}
HEADER = ",".join(f'"{name}"' for name in _COLUMNS.values()) + "\n"
_FORMAT = "%d,%.2f,%.2f,%.1f,%.1f,%.2f,%.2f\n"


def read_localisations(path: Path) -> NDArray[np.void]:
    """Read a file as records of `LOCALISATION`, frames counted from 0; a torn last row is left out.

    Raises
    ------
    StoreError
        If the file cannot be read or is no such table.
    """
    try:
        whole, _, _ = contained.read_text(path.parent, path.name).rpartition("\n")
        header, *rows = whole.split("\n")
        if header + "\n" != HEADER:
            raise ValueError(f"its first line is {header!r}")
        values = np.loadtxt(rows, delimiter=",", ndmin=2) if rows else np.empty((0, len(_COLUMNS)))
        if values.shape[1] != len(_COLUMNS) or not np.isfinite(values).all():
            raise ValueError(
                f"rows have {values.shape[1]} numbers, expected {len(_COLUMNS)}, all of them finite"
            )
    except (OSError, ValueError) as e:
        raise StoreError(f"{path} cannot be read as localisations: {e}.") from e
    found = np.empty(len(values), LOCALISATION)
    for name, column in zip(_COLUMNS, values.T, strict=True):
        found[name] = column
    found["frame"] -= 1
    return found


def rows(localisations: NDArray[np.void]) -> str:
    """Return records of `LOCALISATION`, frames counted from 0, as lines of the file."""
    numbers = localisations.copy()
    numbers["frame"] += 1
    return "".join(
        _FORMAT % row for row in zip(*(numbers[name].tolist() for name in _COLUMNS), strict=True)
    )
