"""MRC stacks (.mrc, .dv): frames in one file, without names for their axes. BioSR's raw SIM data comes so.

Owns the reading. The extended header is skipped: every microscope writes its own.
"""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np

from livesr.base.errors import ConfigError
from livesr.live.sources.recordings.recording import FrameFiles, Plane, Recording, check_pixels


def open_mrc(path: Path) -> Recording:
    """Describe an MRC file; its pixel size is not believed, because writers disagree on the unit.

    Raises
    ------
    ConfigError
        If it is none, or its pixels are not those of a camera.
    """
    import mrcfile

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # cameras' files lack the stamps of electron microscopy
            with mrcfile.open(path, permissive=True, header_only=True) as file:
                header = file.header
                dtype = np.dtype(mrcfile.utils.data_dtype_from_header(header))
    except (OSError, ValueError) as e:
        raise ConfigError(f"Cannot read {path} as MRC: {e}.") from e
    frames, shape = int(header.nz), (int(header.ny), int(header.nx))
    if min(frames, *shape) < 1:
        raise ConfigError(f"{path.name} is {frames} x {shape[0]} x {shape[1]}; expected frames of an MRC stack.")
    pixels = check_pixels(path, dtype)
    start, files = header.nbytes + int(header.nsymbt), FrameFiles(shape, dtype)

    def read(place: tuple[int, ...]) -> Plane:
        offset = start + place[0] * shape[0] * shape[1] * dtype.itemsize
        return Plane(files.read(path, offset, f"frame {place[0] + 1} of {frames}"))

    started_ns = path.stat().st_mtime_ns
    return Recording(path, "MRC", ("frame",), (frames,), shape, pixels, read, started_ns=started_ns, close=files.close)
