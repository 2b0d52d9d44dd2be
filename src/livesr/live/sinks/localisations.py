"""Localisations while their run goes on, and when they are made again.

Owns the file. Every group of rows is handed to the operating system at once, so that it outlives a
killed process. What the columns are is said in `livesr.formats.localisations`.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from livesr.base import contained
from livesr.base.errors import StoreError
from livesr.base.files import write_all
from livesr.formats.localisations import HEADER, header, read_localisations, rows


class LocalisationsFile:
    """Appends localisations; what the first of them are says which columns the file has.

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
        """Append records of `LOCALISATION` or `LOCALISATION_3D`.

        A disk that refuses once is asked a second time.
        """
        if not len(localisations):
            return
        encoded = rows(localisations).encode()
        if self._end == len(HEADER):  # nothing came so far that would say what the columns are
            self._end, encoded = 0, header(localisations.dtype).encode() + encoded
        try:
            self._write(encoded)
        except OSError:
            self._write(encoded)

    def _write(self, encoded: bytes) -> None:
        self._file.seek(self._end)  # over what a disk took of rows that it then refused
        write_all(self._file, encoded)
        self._end += len(encoded)

    def close(self) -> None:
        """Close the file; may be called twice."""
        self._file.close()


def replace_frames(path: Path, localisations: NDArray[np.void], frames: range) -> None:
    """Put `localisations` in the place of all that the file has of `frames`, in order of frames.

    At once or not at all.
    """
    there = read_localisations(path) if path.is_file() else localisations[:0]
    if not len(there):  # its columns say nothing
        there = localisations[:0]
    elif there.dtype != localisations.dtype:
        raise StoreError(
            f"{path} has {' and '.join(there.dtype.names or ())}, the new localisations"
            f" {' and '.join(localisations.dtype.names or ())}: was the rig calibrated in between?"
        )
    others = there[(there["frame"] < frames.start) | (there["frame"] >= frames.stop)]
    every = np.concatenate([others, localisations])
    table = header(every.dtype) + rows(every[np.argsort(every["frame"], kind="stable")])
    contained.replace_text(path.parent, path.name, table)
