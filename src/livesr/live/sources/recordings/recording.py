"""What a file of camera frames is, whatever its format; which format a path holds; what its axes mean.

Owns the record that every reader returns and the meaning of axes. Knows no rig but the number of its raw frames.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
from numpy.typing import DTypeLike, NDArray

from livesr.base import contained
from livesr.base.errors import ConfigError, DamagedFileError
from livesr.base.frames import Pixels

AXES = ("t", "p", "c", "z", "raw")
"""Axes with a meaning, in the order in which frames are replayed; a file may name others."""

_WORDS = {"time": "t", "position": "p", "channel": "c", "slice": "z", "r": "raw", "sim": "raw"}


class Plane(NamedTuple):
    """One frame of a file: uint8 or uint16 (y, x) in native byte order, and the camera's clock, None without one."""

    pixels: Pixels
    t_camera_ms: float | None = None


@dataclass(frozen=True, slots=True)
class Recording:
    """Camera frames in a file. Nothing is read before `read`, which one thread at a time may call.

    Attributes
    ----------
    path : file or folder
    format : for people
    axes : axes before (y, x), outermost first: names of `AXES`, or what else the file calls them
    lengths : of `axes`
    shape, dtype : of a frame
    read : returns the frame at a place of the axes, None if it was never recorded; raises DamagedFileError
    channels, positions : names, as many as the axis is long; empty if the file has none
    origin_px : (y, x) where the camera's region began on its chip, if the file says so
    interval_s : between two places of the axis t
    started_ns : when it began, since the Unix epoch
    timed : whether frames come with the camera's clock
    damage : what is wrong with the file as a whole, a sentence; None if nothing is known to be
    """

    path: Path
    format: str
    axes: tuple[str, ...]
    lengths: tuple[int, ...]
    shape: tuple[int, int]
    dtype: str
    read: Callable[[tuple[int, ...]], Plane | None]
    channels: tuple[str, ...] = ()
    positions: tuple[str, ...] = ()
    pixel_size_um: float | None = None
    z_step_um: float | None = None
    origin_px: tuple[float, float] | None = None
    interval_s: float | None = None
    started_ns: int = 0
    timed: bool = False
    damage: str | None = None
    close: Callable[[], None] = field(default=lambda: None)

    @property
    def size(self) -> str:
        """Lengths of all axes, for people."""
        named = [f"{name}={n}" if name in AXES else str(n) for name, n in zip(self.axes, self.lengths, strict=True)]
        return " x ".join([*named, *map(str, self.shape)])

    def place(self, index: Mapping[str, int]) -> tuple[int, ...]:
        """Return the place of `index`; axes that it leaves out are at 0."""
        return tuple(index.get(axis, 0) for axis in self.axes)


def open_recording(path: Path) -> Recording:
    """Open a file or folder of camera frames, by what it is.

    Raises
    ------
    ConfigError
        If it is no such file, or one of a kind that livesr does not read.
    """
    # Here, not above: zarr takes half a second to import, and each format has its own library.
    if not path.exists():
        raise ConfigError(f"There is no {path}: expected a recording of camera frames.")
    if path.is_dir() and any((path / name).is_file() for name in ("zarr.json", ".zattrs", ".zgroup", ".zarray")):
        from livesr.live.sources.recordings.ome_zarr import open_ome_zarr

        return open_ome_zarr(path)
    folder = path if path.is_dir() else path.parent
    if (folder / "NDTiff.index").is_file():
        from livesr.live.sources.recordings.ndtiff import open_ndtiff

        return open_ndtiff(folder)
    if path.suffix.lower() in (".mrc", ".dv"):
        from livesr.live.sources.recordings.mrc import open_mrc

        return open_mrc(path)
    from livesr.live.sources.recordings.tiff import open_tiff, open_tiff_folder

    return open_tiff_folder(path) if path.is_dir() else open_tiff(path)


def parse_axes(text: str) -> tuple[str, ...]:
    """Read what a user says of the axes before (y, x): "tcyx", or names with commas as in "t,raw,y,x".

    Raises
    ------
    ConfigError
        If a name is unknown or comes twice.
    """
    words = [w.strip().lower() for w in re.split(r"[,\s]+", text.strip())] if "," in text else list(text.lower())
    names = [_WORDS.get(word, word) for word in words]
    if names[-2:] == ["y", "x"]:
        names = names[:-2]
    unknown = [name for name in names if name not in AXES]
    if unknown or len(set(names)) != len(names):
        raise ConfigError(
            f"--axes {text!r}: expected each of t, p, c, z and raw at most once, then y, x, as in 'tcyx' or 't,raw,y,x'."
        )
    return tuple(names)


def with_axes(recording: Recording, given: str | None, n_raw: int) -> Recording:
    """Return the recording with axes of `AXES` only.

    Parameters
    ----------
    given : what the user says of the axes, None to believe the file
    n_raw : exposures of one super-resolution frame; an axis without a name may be their axis

    Raises
    ------
    ConfigError
        If the axes cannot be what they are called, or it is not clear what they are.
    """
    named = _understood(recording, n_raw) if given is None else _as_given(recording, given)
    length = dict(zip(named.axes, named.lengths, strict=True))
    if length.get("raw", n_raw) != n_raw:
        raise ConfigError(
            f"{recording.path.name} is {recording.size}: axis raw has {length['raw']} places, the rig has {n_raw} raw frames."
        )
    if n_raw > 1 and "raw" not in length and any(length.get(axis, 1) > 1 for axis in "pcz"):
        raise ConfigError(
            f"{recording.path.name} is {recording.size}: it is not clear which axis counts the {n_raw} raw frames. Say it "
            "with --axes, as in --axes t,raw,y,x."
        )
    return named


def _as_given(recording: Recording, given: str) -> Recording:
    axes = parse_axes(given)
    shown = recording if len(axes) == len(recording.axes) else _without(recording, {n: 1 for n in recording.axes})
    if len(axes) != len(shown.axes):
        raise ConfigError(
            f"--axes {given!r} names {len(axes)} axes before y, x; {recording.path.name} is {recording.size}."
        )
    return replace(shown, axes=axes)


def _understood(recording: Recording, n_raw: int) -> Recording:
    """Believe the file; an axis without a meaning counts frames, two of them are (t, raw) if the second is as long."""
    shown = _without(recording, {n: 1 for n in recording.axes if n not in AXES})
    strange = [n for a, n in zip(shown.axes, shown.lengths, strict=True) if a not in AXES]
    if not strange:
        return shown
    shown = _without(shown, {n: 1 for n in shown.axes})
    if len(shown.axes) == 1:
        return replace(shown, axes=("t",))
    if len(shown.axes) == 2 and shown.lengths[1] == n_raw and shown.axes[0] not in ("p", "c", "z"):
        return replace(shown, axes=("t", "raw"))
    raise ConfigError(
        f"{recording.path.name} is {recording.size}; this rig needs n x {n_raw} frames (frame, y, x), or "
        f"(t, {n_raw}, y, x). Say what the axes are with --axes, as in --axes t,raw,y,x."
    )


def _without(recording: Recording, lengths: Mapping[str, int]) -> Recording:
    """Leave out the axes of `lengths` that are as short as it says; the rest is read at their first place."""
    kept = [i for i, (a, n) in enumerate(zip(recording.axes, recording.lengths, strict=True)) if lengths.get(a) != n]

    def read(place: tuple[int, ...]) -> Plane | None:
        full = [0] * len(recording.lengths)
        for i, value in zip(kept, place, strict=True):
            full[i] = value
        return recording.read(tuple(full))

    axes = tuple(recording.axes[i] for i in kept)
    return replace(recording, axes=axes, lengths=tuple(recording.lengths[i] for i in kept), read=read)


def places(lengths: Mapping[str, int]) -> Iterator[dict[str, int]]:
    """Every place of the axes, raw frames fastest and time slowest, as they are acquired."""
    order = [axis for axis in AXES if axis in lengths]
    shape = tuple(lengths[axis] for axis in order)
    for i in range(math.prod(shape)):
        yield dict(zip(order, map(int, np.unravel_index(i, shape)), strict=True)) if shape else {}


def check_pixels(path: Path, dtype: DTypeLike) -> str:
    """Return the name of a camera's pixel type.

    Raises
    ------
    ConfigError
        If it is another one.
    """
    name = np.dtype(dtype).name
    if name not in ("uint8", "uint16"):
        raise ConfigError(f"{path.name} holds {name}; expected the camera's uint8 or uint16.")
    return name


class FrameFiles:
    """Reads frames that lie uncompressed in files; the file of the last frame stays open.

    Parameters
    ----------
    shape, dtype : of a frame, in the file's byte order
    folder : that all files must lie beneath, because a file names them; None where the user named them
    """

    def __init__(self, shape: tuple[int, int], dtype: DTypeLike, folder: Path | None = None) -> None:
        self._shape, self._dtype, self._folder = shape, np.dtype(dtype), folder
        self._open: tuple[Path, BinaryIO] | None = None

    def read(self, path: Path, offset: int, which: str) -> NDArray[np.unsignedinteger[Any]]:
        """Return the frame at a byte of a file, in native byte order; the caller owns it.

        Raises
        ------
        DamagedFileError
            If the file cannot be read, or ends before; `which` names the frame.
        """
        count = math.prod(self._shape)
        try:
            file = self._file(path)
            file.seek(offset)
            values = np.frombuffer(file.read(count * self._dtype.itemsize), self._dtype)
        except (OSError, ValueError) as e:
            raise DamagedFileError(f"{path.name} cannot be read at {which}: {e}.") from e
        if values.size != count:
            raise DamagedFileError(f"{path.name} ends within {which}: it was cut off, or is still being written.")
        return values.reshape(self._shape).astype(self._dtype.newbyteorder("="), copy=True)

    def close(self) -> None:
        """Close what is open."""
        if self._open:
            self._open[1].close()
            self._open = None

    def _file(self, path: Path) -> BinaryIO:
        if self._open is None or self._open[0] != path:
            self.close()
            self._open = path, self._opened(path)
        return self._open[1]

    def _opened(self, path: Path) -> BinaryIO:
        if self._folder is None:
            return path.open("rb")
        return contained.open_to_read(self._folder, path.relative_to(self._folder).as_posix(), error=ConfigError)
