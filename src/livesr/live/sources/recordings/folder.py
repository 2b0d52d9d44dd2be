"""What a folder of camera frames holds: one recording, or nothing that can be told.

Owns the choice. Files that describe themselves are read by that; plain stacks whose names count up
follow one another; everything else is refused, because frames in a wrong order are invented groups.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from livesr.base import contained
from livesr.base.errors import ConfigError
from livesr.live.sources.recordings.image_files import holds_image_files, open_image_files
from livesr.live.sources.recordings.mmstack import files_beside, is_mmstack
from livesr.live.sources.recordings.ome_tiff import description_in, files_of, open_companion
from livesr.live.sources.recordings.recording import (
    MRC_SUFFIXES,
    Place,
    Plane,
    Recording,
    open_file,
)
from livesr.live.sources.recordings.tiff_pages import TiffPages, reason

_TIFF = (".tif", ".tiff")
_COMPANION = (".companion.ome", ".companion.ome.xml", ".ome.xml")


def open_folder(folder: Path) -> Recording:
    """Describe the recording in a folder.

    Raises
    ------
    ConfigError
        If it holds none, several, or files of which nothing says how they belong together.
    """
    files = sorted(f for f in folder.iterdir() if f.is_file() and not f.name.startswith("."))
    for file in files:
        if file.name.lower().endswith((*_TIFF, *MRC_SUFFIXES, *_COMPANION)):
            contained.beneath(folder, file.name, error=ConfigError)
    tiffs = [f for f in files if f.suffix.lower() in _TIFF]
    others = [f for f in files if f.suffix.lower() in MRC_SUFFIXES]
    if not tiffs and not others:
        return _below(folder)
    if others:
        return replace(_only(folder, [*tiffs, *others]), path=folder)
    if holds_image_files(folder):
        return open_image_files(folder, [folder])
    recording = _described(folder, tiffs, [f for f in files if f.name.lower().endswith(_COMPANION)])
    return replace(recording, path=folder)


def _below(folder: Path) -> Recording:
    """Describe a folder that has one folder of image files for each position."""
    below = [
        f
        for f in folder.iterdir()
        if f.is_dir() and not f.name.startswith(".") and holds_image_files(f)
    ]
    if not below:
        raise ConfigError(
            f"{folder} holds no recording: expected TIFF or MRC files, NDTiff.index or an OME-Zarr"
            " image."
        )
    return open_image_files(folder, below)


def _only(folder: Path, files: Sequence[Path]) -> Recording:
    if len(files) > 1:
        raise ConfigError(
            f"{folder.name} holds {len(files)} recordings ({_listed(files)}), and nothing says how"
            " they belong together: give one file at a time."
        )
    return open_file(files[0])


def _described(folder: Path, tiffs: list[Path], companions: list[Path]) -> Recording:
    """Describe the one set that describes itself; plain stacks if there is none."""
    sets = _sets(tiffs, companions)
    if not sets:
        return _in_a_row(folder, tiffs)
    if len(sets) > 1:
        raise ConfigError(
            f"{folder.name} holds {len(sets)} recordings that describe themselves, beginning with"
            f" {_listed(list(sets))}: give one file at a time."
        )
    ((first, names),) = sets.items()
    recording = open_companion(first) if first in companions else open_file(first)
    if not (left := [f for f in tiffs if f.name not in names]):
        return recording
    note = f"{folder.name}: {_listed(left)} is not described by {first.name}, and is not read."
    return replace(recording, notes=(*recording.notes, note))


def _sets(tiffs: list[Path], companions: list[Path]) -> dict[Path, set[str]]:
    """Return the sets in a folder.

    One file that describes each, and the names of all files that it describes.
    """
    sets: dict[Path, set[str]] = {}
    for file in [*companions, *tiffs]:
        if any(file.name in names for names in sets.values()):
            continue
        names = _names(file, companion=file in companions)
        if names is None:
            continue
        # A file that knows of itself alone may come before the one that knows of all.
        for other in [first for first, theirs in sets.items() if theirs & names]:
            names |= sets.pop(other)
        sets[file] = names
    return sets


def _names(file: Path, *, companion: bool) -> set[str] | None:
    """Return the names of the files that a file describes, None if it describes nothing."""
    if companion:
        return files_of(
            file,
            contained.read_bytes(file.parent, file.name, error=ConfigError).decode(
                "utf-8", "replace"
            ),
        )
    if is_mmstack(file):
        return {f.name for f in files_beside(file)}
    pages = TiffPages(file)
    try:
        xml = description_in(file, pages)
    except Exception as e:  # whatever tifffile raises of bytes that are no TIFF
        raise ConfigError(
            f"Cannot read {file} as TIFF: {reason(e)}. Put it elsewhere, or give one file at a"
            " time."
        ) from e
    finally:
        pages.close()
    return files_of(file, xml) if xml else None


def _in_a_row(folder: Path, files: list[Path]) -> Recording:
    """Describe plain stacks whose names count up; one is open at a time."""
    files = _counted(folder, files)
    stacks = _until_damage([_closed(file) for file in files])
    first = stacks[0]
    for stack in stacks:
        if (stack.shape, stack.dtype, stack.lengths[1:]) != (
            first.shape,
            first.dtype,
            first.lengths[1:],
        ):
            raise ConfigError(
                f"{stack.path.name} is {stack.size} {stack.dtype}, {first.path.name} is"
                f" {first.size} {first.dtype}."
            )
    if len(files) == 1:
        return open_file(files[0])
    if any(axis in ("p", "c", "z") for axis in first.axes):
        raise ConfigError(
            f"{folder.name} holds {len(files)} files of {first.size}, and nothing says how they"
            " belong together: give one file at a time."
        )
    lengths = [stack.lengths[0] if stack.lengths else 1 for stack in stacks]
    starts = [0, *map(int, np.cumsum(lengths))]
    opened = _LastOpened()

    def read(place: Place) -> Plane | None:
        number = bisect_right(starts, place[0]) - 1
        stack = opened.stack(stacks[number].path)
        return stack.read((place[0] - starts[number], *place[1:]) if stack.lengths else ())

    return replace(
        first,
        axes=first.axes or ("frame",),
        lengths=(starts[-1], *first.lengths[1:]),
        read=read,
        damage=stacks[-1].damage,
        notes=tuple(dict.fromkeys(note for stack in stacks for note in stack.notes)),
        close=opened.close,
        timed=False,
    )


def _counted(folder: Path, files: list[Path]) -> list[Path]:
    """Return files in the order in which their names count, one by one.

    Raises
    ------
    ConfigError
        If they do not.
    """
    if len(files) == 1:
        return files
    parts = [re.split(r"(\d+)", f.name) for f in files]
    varying = [
        i for i in range(len(parts[0])) if len({part[i] for part in parts if i < len(part)}) > 1
    ]
    alike = len({len(part) for part in parts}) == 1 and len(varying) == 1 and varying[0] % 2 == 1
    numbers = (
        {int(part[varying[0]]): f for part, f in zip(parts, files, strict=True)} if alike else {}
    )
    if len(numbers) < len(files):
        raise ConfigError(
            f"{folder.name} holds {len(files)} TIFFs ({_listed(files)}), and nothing says how they"
            " belong together: give one file at a time, or name those of one stack so that they"
            " count: raw_1.tif, raw_2.tif."
        )
    first, last = min(numbers), max(numbers)
    if last - first + 1 != len(files):
        absent = next(n for n in range(first, last) if n not in numbers)
        raise ConfigError(
            f"{folder.name} holds {numbers[first].name} to {numbers[last].name}, and number"
            f" {absent} of them is not there: where the frames behind it belong is not known. Put"
            " it there, or give one file at a time."
        )
    return [numbers[n] for n in sorted(numbers)]


def _until_damage(stacks: list[Recording]) -> list[Recording]:
    """Return stacks up to the first that was cut off: behind it no frame is where it was."""
    for i, stack in enumerate(stacks):
        if stack.damage:
            left = (
                f" The {len(stacks) - i - 1} files behind it are not read."
                if i + 1 < len(stacks)
                else ""
            )
            return [*stacks[:i], replace(stack, damage=f"{stack.damage}{left}")]
    return stacks


def _closed(file: Path) -> Recording:
    stack = open_file(file)
    stack.close()
    return stack


class _LastOpened:
    """Keeps the stack of the last frame open."""

    def __init__(self) -> None:
        self._stack: Recording | None = None

    def stack(self, file: Path) -> Recording:
        """Return the stack in `file`."""
        if self._stack is None or self._stack.path != file:
            self.close()
            self._stack = open_file(file)
        return self._stack

    def close(self) -> None:
        """Close what is open."""
        if self._stack:
            self._stack.close()
            self._stack = None


def _listed(files: Sequence[Path]) -> str:
    return ", ".join(f.name for f in files[:3]) + (
        f" and {len(files) - 3} more" if len(files) > 3 else ""
    )
