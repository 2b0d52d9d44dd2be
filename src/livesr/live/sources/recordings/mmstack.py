"""Micro-Manager's image file stacks (MMStack).

One acquisition in one or several files, each with an index of its frames.

Owns the reading of indices, and of files that Micro-Manager did not finish, by what every frame
says. https://micro-manager.org/Micro-Manager_File_Formats
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from livesr.base.errors import ConfigError
from livesr.live.sources.recordings.micromanager import head_of, place_of, summary
from livesr.live.sources.recordings.pixels import opened
from livesr.live.sources.recordings.placed import MICROMANAGER_TAG, Placed, recording_of
from livesr.live.sources.recordings.recording import Place, Recording
from livesr.live.sources.recordings.tiff_pages import PageAt, TiffPages

_AXES = ("t", "p", "z", "c")
_ANNOUNCED = ("Frames", "Positions", "Slices", "Channels")
_INDEX = 54773648


def is_mmstack(path: Path, folder: Path | None = None) -> bool:
    """Whether a file begins as an image file stack does; `folder` as of `opened`."""
    try:
        with opened(path, folder) as file:
            head = file.read(12)
    except OSError:
        return False
    order = {b"II": "<", b"MM": ">"}.get(head[:2])
    return (
        order is not None and len(head) == 12 and struct.unpack(f"{order}I", head[8:])[0] == _INDEX
    )


def files_beside(path: Path) -> list[Path]:
    """Return the files of the acquisition that `path` belongs to, by their names.

    Raises
    ------
    ConfigError
        If one of them is a link that leads elsewhere.
    """
    prefix, parted, _ = path.name.partition("_MMStack")
    if not parted:
        return [path]
    named = [
        f
        for f in path.parent.glob("*.tif*")
        if f.name.startswith(f"{prefix}_MMStack") and f.is_file()
    ]
    return sorted({path, *(f for f in named if f != path and is_mmstack(f, path.parent))})


def open_mmstack(path: Path) -> Recording:
    """Describe the acquisition that a file belongs to.

    Raises
    ------
    ConfigError
        If it holds no frame.
    """
    pages, placed = TiffPages(path), Placed(_AXES)
    try:
        about = _summary(path, None)
        notes: list[str] = []
        unfinished: list[str] = []
        for file in files_beside(path):
            folder = None if file == path else path.parent
            if _acquisition(_summary(file, folder)) != _acquisition(about):
                notes.append(
                    f"{file.name} is of another acquisition, by what it says, and is not read."
                )
                continue
            if not _put(placed, file, folder, pages):
                unfinished.append(file.name)
        run = summary(about)
        placed.announced = tuple(
            max(_count(about, key), n) for key, n in zip(_ANNOUNCED, _lengths(placed), strict=True)
        )
        damage = None
        if unfinished:
            names = ", ".join(unfinished)
            damage = (
                f"{names} is damaged (Micro-Manager did not finish it): {len(placed.at)} frames"
                " were found."
            )
        recording = recording_of(
            path,
            "Micro-Manager TIFF",
            placed,
            pages,
            micromanager=True,
            notes=notes,
            damage=damage,
            channels=run.channels[: _lengths(placed)[3]],
            positions=run.positions,
            pixel_um=(run.pixel_size_um, run.pixel_size_um) if run.pixel_size_um else None,
            z_step_um=run.z_step_um,
            interval_s=run.interval_s,
            started_ns=run.started_ns or path.stat().st_mtime_ns,
        )
    except BaseException:
        pages.close()
        raise
    return recording


def _put(placed: Placed, file: Path, folder: Path | None, pages: TiffPages) -> bool:
    """Put the frames of a file at their places; return whether Micro-Manager finished it."""
    if index := _index(file, folder):
        size = file.stat().st_size
        for place, directory in index:
            placed.put(
                place, PageAt(file, len(placed.at), directory if 0 < directory < size else size)
            )
        return True
    unplaced = 0
    for number, said in _said_by_frames(file, pages):
        if said is None:  # the last one may have been cut off behind its pixels
            unplaced += 1
        else:
            placed.put(said, PageAt(file, number))
    if unplaced > 1 and not placed.at:
        raise ConfigError(f"{file.name} has no index, and its frames do not say where they belong.")
    return False


def _index(file: Path, folder: Path | None) -> list[tuple[Place, int]]:
    """Return (time, position, slice, channel) and directory of every frame in a file's index.

    Nothing without one.
    """
    table = head_of(file, folder, "IndexMap").get("IndexMap")
    return (
        []
        if table is None
        else [((t, p, z, c), directory) for c, z, t, p, directory in table.tolist()]
    )


def _said_by_frames(file: Path, pages: TiffPages) -> Iterator[tuple[int, Place | None]]:
    number = 0
    with suppress(Exception):  # the end of a chain that leads nowhere
        while True:
            page = pages.page(PageAt(file, number))
            yield number, place_of(page.tags.valueof(MICROMANAGER_TAG) or {})
            number += 1


def _summary(file: Path, folder: Path | None) -> Mapping[str, Any]:
    return head_of(file, folder, "Summary").get("Summary") or {}


def _acquisition(about: Mapping[str, Any]) -> Any:
    return about.get("UUID") or about.get("Prefix")


def _lengths(placed: Placed) -> tuple[int, ...]:
    return placed.lengths if placed.at else (0,) * len(_AXES)


def _count(about: Mapping[str, Any], key: str) -> int:
    try:
        return int(about.get(key, 1))
    except (TypeError, ValueError, OverflowError):
        return 1
