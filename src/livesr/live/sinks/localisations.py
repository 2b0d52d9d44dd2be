"""Localisations as a table that ThunderSTORM, Picasso (csv2hdf) and every spreadsheet read.

Owns the file and its columns. Every group of rows is handed to the operating system at once, so
that it outlives a killed process; at most its last row is torn, and readers here pass over that.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from livesr.base import contained
from livesr.base.errors import StoreError
from livesr.base.files import write_all
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


class LocalisationsFile:
    """Appends localisations; the file is made with the first of them, or by `open`.

    Frames are counted from 1, as ThunderSTORM does; positions are in nm from the outer corner of
    the picture's first pixel.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        # Unbuffered: what is written is with the operating system.
        self._file = contained.open_to_write(
            path.parent, path.name, "r+" if path.exists() else "w", buffering=0
        )
        self._end = self._file.seek(0, os.SEEK_END)
        if self._end == 0:
            self._write(HEADER.encode())

    def append(self, localisations: NDArray[np.void]) -> None:
        """Append records of `LOCALISATION`; a disk that refuses once is asked a second time."""
        if not len(localisations):
            return
        rows = _rows(localisations).encode()
        try:
            self._write(rows)
        except OSError:
            self._write(rows)

    def _write(self, rows: bytes) -> None:
        self._file.seek(self._end)  # over what a disk took of rows that it then refused
        write_all(self._file, rows)
        self._end += len(rows)

    def close(self) -> None:
        """Close the file; may be called twice."""
        self._file.close()


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


def replace_frames(path: Path, localisations: NDArray[np.void], frames: range) -> None:
    """Put `localisations` in the place of all that the file has of `frames`, in order of frames.

    At once or not at all.
    """
    there = read_localisations(path) if path.is_file() else np.empty(0, LOCALISATION)
    others = there[(there["frame"] < frames.start) | (there["frame"] >= frames.stop)]
    every = np.concatenate([others, localisations])
    rows = HEADER + _rows(every[np.argsort(every["frame"], kind="stable")])
    contained.replace_text(path.parent, path.name, rows)


def _rows(localisations: NDArray[np.void]) -> str:
    numbers = localisations.copy()
    numbers["frame"] += 1
    return "".join(
        _FORMAT % row for row in zip(*(numbers[name].tolist() for name in _COLUMNS), strict=True)
    )
