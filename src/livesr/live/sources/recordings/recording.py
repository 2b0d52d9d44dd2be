"""What a file of camera frames is, whatever its format.

Which format a path holds; what its axes mean.

Owns the record that every reader returns and the meaning of axes. Knows no rig but the number of
its raw frames, and the axes that count them.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import combinations, pairwise
from pathlib import Path
from typing import NamedTuple, TypeAlias

import numpy as np

from livesr.base import contained
from livesr.base.config import RawAxes
from livesr.base.errors import ConfigError
from livesr.base.frames import Pixels
from livesr.live.sources.mda import RAW_AXIS

MRC_SUFFIXES = (".mrc", ".mrcs", ".st", ".dv")

SECTION = "section"
"""An axis of DeltaVision files: planes, or raw frames of SIM."""

AXES = ("t", "p", "c", "z", "raw")
"""Axes with a meaning, in the order in which frames are replayed; a file may name others."""

Place: TypeAlias = tuple[int, ...]
"""Indices of a frame along the axes of its recording."""

_WORDS = {"time": "t", "position": "p", "channel": "c", "slice": "z", "r": "raw", RAW_AXIS: "raw"}


class Plane(NamedTuple):
    """One frame of a file.

    Uint8 or uint16 (y, x) in native byte order, and the camera's clock, None without one.
    """

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
    read : returns the frame at a place of the axes, None if it was never recorded; raises
        DamagedFileError
    channels, positions : names, as many as the axis is long; empty if the file has none
    pixel_um : (y, x) size of a pixel in the sample, if the file says so
    origin_px : (y, x) where the camera's region began on its chip, if the file says so
    mirrored : whether the picture is turned over along (y, x) since the SIM calibration
    interval_s : between two places of the axis t
    started_ns : when it began, since the Unix epoch
    timed : whether frames come with the camera's clock
    damage : what is wrong with the file as a whole, a sentence; None if nothing is known to be
    notes : what is in the file and is not read, is announced and not there, or is taken otherwise
        than written, in sentences
    counted : whether `notes` say how many places have no frame; if not, only reading shows it
    """

    path: Path
    format: str
    axes: tuple[str, ...]
    lengths: tuple[int, ...]
    shape: tuple[int, int]
    dtype: str
    read: Callable[[Place], Plane | None]
    channels: tuple[str, ...] = ()
    positions: tuple[str, ...] = ()
    pixel_um: tuple[float, float] | None = None
    z_step_um: float | None = None
    origin_px: tuple[float, float] | None = None
    mirrored: tuple[bool, bool] = (False, False)
    interval_s: float | None = None
    started_ns: int = 0
    timed: bool = False
    damage: str | None = None
    notes: tuple[str, ...] = ()
    counted: bool = False
    close: Callable[[], None] = field(default=lambda: None)

    @property
    def pixel_size_um(self) -> float | None:
        """Width of a pixel in the sample, if the file says so."""
        return self.pixel_um[1] if self.pixel_um else None

    @property
    def size(self) -> str:
        """Lengths of all axes, for people."""
        named = [
            f"{name}={n}" if name in AXES else str(n)
            for name, n in zip(self.axes, self.lengths, strict=True)
        ]
        return " x ".join([*named, *map(str, self.shape)])

    def place(self, index: Mapping[str, int]) -> Place:
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
    if path.is_dir() and any(
        (path / name).is_file() for name in ("zarr.json", ".zattrs", ".zgroup", ".zarray")
    ):
        from livesr.live.sources.recordings.ome_zarr import open_ome_zarr

        return open_ome_zarr(path)
    if (folder := _ndtiff_folder(path)) is not None:
        from livesr.live.sources.recordings.ndtiff import open_ndtiff

        return open_ndtiff(folder)
    if path.is_dir():
        from livesr.live.sources.recordings.folder import open_folder

        return open_folder(path)
    return open_file(path)


def open_file(path: Path) -> Recording:
    """Open a file of camera frames, with the files of the set that it says it belongs to.

    Raises
    ------
    ConfigError
        If it is none, or one of a kind that livesr does not read.
    """
    if path.suffix.lower() in MRC_SUFFIXES:
        from livesr.live.sources.recordings.mrc import open_mrc

        return open_mrc(path)
    from livesr.live.sources.recordings.tiff import open_tiff

    return open_tiff(path)


def _ndtiff_folder(path: Path) -> Path | None:
    """Return the folder of the NDTiff data set that `path` is or belongs to.

    One with a pyramid keeps its frames one below.
    """
    folder = path if path.is_dir() else path.parent
    for name in ("NDTiff.index", "Full resolution/NDTiff.index"):
        if (folder / name).is_file():
            return contained.beneath(folder, name, error=ConfigError).parent
    return None


def split_tiles(recording: Recording, rows: int, columns: int) -> Recording:
    """Return the recording with its images cut into raw frames, which stand side by side in them.

    Raw frame 0 is the upper left one, 1 that on its right. A recording whose raw frames have an
    axis of their own stays as it is.

    Raises
    ------
    ConfigError
        If the images cannot be cut into equal parts.
    """
    if "raw" in recording.axes:
        return recording
    (height, width), name = recording.shape, recording.path.name
    if height % rows or width % columns:
        raise ConfigError(
            f"{name} has images of {height}x{width} pixels, and the rig says that each holds"
            f" {rows} x {columns} raw frames side by side: they are not equal parts. Give the file"
            " as the microscope wrote it, or leave out the mosaic in rig.yaml."
        )
    y, x = height // rows, width // columns
    last: tuple[Place, Plane | None] = ((), None)

    def read(place: Place) -> Plane | None:
        nonlocal last
        *whole, raw = place
        if last[0] != tuple(whole) or last[1] is None:  # raw frames follow each other
            last = tuple(whole), recording.read(tuple(whole))
        if (image := last[1]) is None:
            return None
        top, left = raw // columns * y, raw % columns * x
        return image._replace(pixels=image.pixels[top : top + y, left : left + x].copy())

    return replace(
        recording,
        axes=(*recording.axes, "raw"),
        lengths=(*recording.lengths, rows * columns),
        shape=(y, x),
        read=read,
    )


def parse_axes(text: str, parts: RawAxes | None = None) -> tuple[str, ...]:
    """Read what a user says of the axes before (y, x).

    "tcyx", or names with commas as in "t,raw,y,x".

    Parameters
    ----------
    parts : axes that may stand instead of raw, all of them

    Raises
    ------
    ConfigError
        If a name is unknown or comes twice, or raw stands beside its parts.
    """
    words = (
        [w.strip().lower() for w in re.split(r"[,\s]+", text.strip())]
        if "," in text
        else list(text.lower())
    )
    names = [_WORDS.get(word, word) for word in words]
    if names[-2:] == ["y", "x"]:
        names = names[:-2]
    more = parts.names if parts else ()
    unknown = [name for name in names if name not in (*AXES, *more)]
    said = [name for name in (*more, "raw") if name in names]
    if unknown or len(set(names)) != len(names) or (said != ["raw"] and said not in ([], [*more])):
        raise ConfigError(
            f"--axes {text!r}: expected each of t, p, c, z and raw at most once, then y, x, as in"
            " 'tcyx' or 't,raw,y,x'."
            + (f" {' and '.join(more).capitalize()} may stand instead of raw." if more else "")
        )
    return tuple(names)


def with_axes(
    recording: Recording, given: str | None, n_raw: int, parts: RawAxes | None = None
) -> Recording:
    """Return the recording with axes of `AXES` only.

    Parameters
    ----------
    given : what the user says of the axes, None to believe the file
    n_raw : exposures of one super-resolution frame; an axis without a name may be their axis
    parts : axes that a user may name instead of raw

    Raises
    ------
    ConfigError
        If the axes cannot be what they are called, or it is not clear what they are.
    """
    named = (
        _understood(recording, n_raw) if given is None else as_given(recording, given, n_raw, parts)
    )
    length = dict(zip(named.axes, named.lengths, strict=True))
    if length.get("raw", n_raw) != n_raw:
        raise ConfigError(
            f"{recording.path.name} is {recording.size}: axis raw has {length['raw']} places, the"
            f" rig has {n_raw} raw frames."
        )
    if n_raw > 1 and "raw" not in length and any(length.get(axis, 1) > 1 for axis in "pcz"):
        raise ConfigError(
            f"{recording.path.name} is {recording.size}: it is not clear which axis counts the"
            f" {n_raw} raw frames. Say it with --axes, as in --axes t,raw,y,x{_or_between(parts)}."
        )
    return named


def _or_between(parts: RawAxes | None) -> str:
    """Say how axes are named where planes stand between the raw frames of one."""
    if parts is None:
        return ""
    first, *others = parts.names
    return f", or {','.join((first, 'z', *others))},y,x if all planes of one {first} come first"


def as_given(
    recording: Recording, given: str, n_raw: int, parts: RawAxes | None = None
) -> Recording:
    """Return the recording with the axes that the user says.

    Names of channels and positions go with their axes.

    Axes with one place need no name. Where the file counts raw frames and something else in one
    axis, as a time axis that counts exposures does, both are named: "t,raw,c,y,x" of (18, 2, y, x)
    is two groups of 9 raw frames. With `parts`, as angle and phase of SIM, "angle,z,phase" of 135
    pages is 9 planes of 3 x 5 raw frames.

    Raises
    ------
    ConfigError
        If the axes cannot be what they are called.
    """
    axes = parse_axes(given, parts)
    known = {"raw": n_raw, **(parts.lengths if parts else {})}
    short = _without(recording, {n: 1 for n in recording.axes})
    for shown in (recording, short, *_split(short, axes, known)):
        if len(shown.axes) == len(axes) and (
            shown is not recording or _fits(recording, axes, known) or len(short.axes) == len(axes)
        ):
            return _joined(_named(shown, recording, axes), parts)
    raise ConfigError(
        f"--axes {given!r} names {len(axes)} axes before y, x; {recording.path.name} is"
        f" {recording.size}."
        + (
            f" No axis of it holds groups of {n_raw} raw frames."
            if "raw" in axes and len(axes) > len(short.axes)
            else ""
        )
    )


def _fits(recording: Recording, axes: tuple[str, ...], known: Mapping[str, int]) -> bool:
    return all(known.get(a, n) == n for a, n in zip(axes, recording.lengths, strict=True))


def _named(shown: Recording, recording: Recording, axes: tuple[str, ...]) -> Recording:
    pairs = zip(shown.axes, axes, strict=True)
    moved = {name for was, now in pairs if was != now for name in (was, now)}
    channels = () if "c" in moved else recording.channels
    positions = () if "p" in moved else recording.positions
    return replace(shown, axes=axes, channels=channels, positions=positions)


def _split(
    recording: Recording, axes: tuple[str, ...], known: Mapping[str, int]
) -> list[Recording]:
    """Return the recording with axes of it taken for several of `axes`, which follow each other.

    Nothing if none can be, or there are several ways.
    """
    found = []
    for cuts in combinations(range(1, len(axes)), len(recording.axes) - 1):
        runs = [axes[i:j] for i, j in pairwise((0, *cuts, len(axes)))]
        inner = [_inner(r, n, known) for r, n in zip(runs, recording.lengths, strict=True)]
        if all(inner):
            found.append(inner)
    return [_in_several(recording, inner) for inner in found] if len(found) == 1 else []


def _inner(names: tuple[str, ...], length: int, known: Mapping[str, int]) -> tuple[int, ...]:
    """Return how long the axes of these names are that together are an axis of `length` places;
    nothing if they cannot be, or it is not known.
    """
    left, rest = divmod(length, math.prod(known.get(name, 1) for name in names))
    unknown = sum(name not in known for name in names)
    if rest or unknown > 1 or (not unknown and left != 1):
        return ()
    return tuple(known.get(name, left) for name in names)


def _in_several(recording: Recording, inner: list[tuple[int, ...]]) -> Recording:
    """Take each axis for as many as it has lengths in `inner`, the last of which counts fastest."""

    def read(place: Place) -> Plane | None:
        left = iter(place)
        return recording.read(
            tuple(int(np.ravel_multi_index([next(left) for _ in n], n)) for n in inner)
        )

    pairs = zip(recording.axes, inner, strict=True)
    axes = tuple(name for axis, n in pairs for name in ([axis] if len(n) == 1 else [""] * len(n)))
    lengths = tuple(n for run in inner for n in run)
    return replace(recording, axes=axes, lengths=lengths, read=read)


def _joined(recording: Recording, parts: RawAxes | None) -> Recording:
    """Return the recording with one axis of raw frames for its parts, if it has them."""
    if parts is None or parts.names[0] not in recording.axes:
        return recording
    length = dict(zip(recording.axes, recording.lengths, strict=True))
    for name, expected in parts.lengths.items():
        if length[name] != expected:
            raise ConfigError(
                f"{recording.path.name} is {recording.size}: axis {name} has {length[name]} places,"
                f" the rig has {expected}."
            )
    others = tuple(axis for axis in recording.axes if axis not in parts.names)

    def read(place: Place) -> Plane | None:
        *outer, raw = place
        index = dict(zip((*others, *parts.names), (*outer, *parts.places[raw]), strict=True))
        return recording.read(tuple(index[axis] for axis in recording.axes))

    lengths = (*(length[axis] for axis in others), len(parts.places))
    return replace(recording, axes=(*others, "raw"), lengths=lengths, read=read)


def with_sections(recording: Recording, n_raw: int, parts: RawAxes | None = None) -> Recording:
    """Return the recording with a meaning for DeltaVision's sections.

    Planes, or the raw frames of one plane.

    Raises
    ------
    ConfigError
        If they may be both.
    """
    if SECTION not in recording.axes:
        return recording
    length = recording.lengths[recording.axes.index(SECTION)]
    if n_raw > 1 and length not in (1, n_raw):
        axes = ",".join("t" if a == SECTION else "z" if a == "t" else a for a in recording.axes)
        raise ConfigError(
            f"{recording.path.name} is {recording.size}, with {length} sections; this rig needs"
            f" {n_raw} raw frames, and the file does not say how they run beside planes. If one"
            f" group follows the other, say so: --axes {axes},y,x{_or_between(parts)}."
        )
    meaning = "raw" if n_raw > 1 and length == n_raw else "z"
    return replace(
        recording, axes=tuple(meaning if axis == SECTION else axis for axis in recording.axes)
    )


def chosen(recording: Recording, axis: str, i: int) -> Recording:
    """Return the recording at place `i` of an axis, without that axis."""
    at = recording.axes.index(axis)

    def read(place: Place) -> Plane | None:
        return recording.read((*place[:at], i, *place[at:]))

    return replace(
        recording,
        axes=(*recording.axes[:at], *recording.axes[at + 1 :]),
        lengths=(*recording.lengths[:at], *recording.lengths[at + 1 :]),
        channels=recording.channels[i : i + 1] if axis == "c" else recording.channels,
        read=read,
    )


def _understood(recording: Recording, n_raw: int) -> Recording:
    """Believe the file.

    An axis without a meaning counts frames, two of them are (t, raw) if the second is as long.
    """
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
        f"{recording.path.name} is {recording.size}; this rig needs n x {n_raw} frames (frame, y,"
        f" x), or (t, {n_raw}, y, x). Say what the axes are with --axes, as in --axes t,raw,y,x."
    )


def _without(recording: Recording, lengths: Mapping[str, int]) -> Recording:
    """Leave out the axes of `lengths` that are as short as it says.

    The rest is read at their first place.
    """
    kept = [
        i
        for i, (a, n) in enumerate(zip(recording.axes, recording.lengths, strict=True))
        if lengths.get(a) != n
    ]

    def read(place: Place) -> Plane | None:
        full = [0] * len(recording.lengths)
        for i, value in zip(kept, place, strict=True):
            full[i] = value
        return recording.read(tuple(full))

    axes = tuple(recording.axes[i] for i in kept)
    return replace(
        recording, axes=axes, lengths=tuple(recording.lengths[i] for i in kept), read=read
    )


def places(lengths: Mapping[str, int]) -> Iterator[dict[str, int]]:
    """Every place of the axes, raw frames fastest and time slowest, as they are acquired."""
    order = [axis for axis in AXES if axis in lengths]
    shape = tuple(lengths[axis] for axis in order)
    for i in range(math.prod(shape)):
        yield dict(zip(order, map(int, np.unravel_index(i, shape)), strict=True)) if shape else {}
