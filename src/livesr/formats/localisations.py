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
from livesr.base.frames import LOCALISATION, LOCALISATION_3D

_COLUMNS = {
    "frame": ("frame", "%d"),
    "x_nm": ("x [nm]", "%.2f"),
    "y_nm": ("y [nm]", "%.2f"),
    "sigma_nm": ("sigma [nm]", "%.1f"),
    "photons": ("intensity [photon]", "%.1f"),
    "background": ("offset [photon]", "%.2f"),
    "uncertainty_nm": ("uncertainty_xy [nm]", "%.2f"),
}
_COLUMNS_3D = {
    **{name: _COLUMNS[name] for name in ("frame", "x_nm", "y_nm")},
    "z_nm": ("z [nm]", "%.2f"),
    "sigma_nm": ("sigma1 [nm]", "%.1f"),
    "sigma_y_nm": ("sigma2 [nm]", "%.1f"),
    **{name: _COLUMNS[name] for name in ("photons", "background", "uncertainty_nm")},
    "z_uncertainty_nm": ("uncertainty_z [nm]", "%.2f"),
}
_TABLES = {LOCALISATION: _COLUMNS, LOCALISATION_3D: _COLUMNS_3D}


def header(records: np.dtype[np.void]) -> str:
    """Return the first line of a table of `LOCALISATION` or `LOCALISATION_3D`."""
    return ",".join(f'"{title}"' for title, _ in _TABLES[records].values()) + "\n"


HEADER = header(LOCALISATION)


def read_localisations(path: Path) -> NDArray[np.void]:
    """Read a file as records of `LOCALISATION`, or of `LOCALISATION_3D` if it has z.

    Frames are counted from 0; a torn last row is left out.

    Raises
    ------
    StoreError
        If the file cannot be read or is no such table.
    """
    try:
        whole, _, _ = contained.read_text(path.parent, path.name).rpartition("\n")
        first, *rows = whole.split("\n")
        records = next((each for each in _TABLES if header(each) == first + "\n"), None)
        if records is None:
            raise ValueError(f"its first line is {first!r}")
        columns = _TABLES[records]
        values = np.loadtxt(rows, delimiter=",", ndmin=2) if rows else np.empty((0, len(columns)))
        if values.shape[1] != len(columns) or not np.isfinite(values).all():
            raise ValueError(
                f"rows have {values.shape[1]} numbers, expected {len(columns)}, all of them finite"
            )
    except (OSError, ValueError) as e:
        raise StoreError(f"{path} cannot be read as localisations: {e}.") from e
    found = np.empty(len(values), records)
    for name, column in zip(columns, values.T, strict=True):
        found[name] = column
    found["frame"] -= 1
    return found


def rows(localisations: NDArray[np.void]) -> str:
    """Return records of `LOCALISATION` or `LOCALISATION_3D`, frames counted from 0, as lines of the
    file.
    """
    columns = _TABLES[localisations.dtype]
    numbers = localisations.copy()
    numbers["frame"] += 1
    line = ",".join(form for _, form in columns.values()) + "\n"
    return "".join(
        line % row for row in zip(*(numbers[name].tolist() for name in columns), strict=True)
    )
