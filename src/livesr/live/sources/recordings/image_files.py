"""A folder with a file for every frame, as Micro-Manager (separate image files) and pymmcore-plus
write it.

Owns the names of such files, and what metadata.txt and _useq_MDASequence.json say beside them. A
folder may have one folder for each position.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from livesr.base import contained
from livesr.base.documents import parse_json
from livesr.base.errors import ConfigError, DocumentError
from livesr.live.sources.recordings.micromanager import Summary, place_in, summary
from livesr.live.sources.recordings.pixels import opened
from livesr.live.sources.recordings.placed import Placed, recording_of, spelt
from livesr.live.sources.recordings.recording import Place, Recording
from livesr.live.sources.recordings.tiff_pages import PageAt, TiffPages

_AXES = ("t", "p", "z", "c")
_MM2 = re.compile(r"img((?:_(?:channel|position|time|z)\d+)+)\.tiff?$")
_MM1 = re.compile(r"img_(?P<t>\d+)_(?P<name>.*)_(?P<z>\d+)\.tiff?$")
_USEQ = re.compile(r"(?:^|[-_])((?:\d{5}_|[a-z]\d{2,}_)(?:[a-z]\d{2,}_)*[a-z]\d{2,})\.tiff?$")
_WORDS = {"channel": "c", "position": "p", "time": "t", "z": "z"}
_METADATA, _SEQUENCE = "metadata.txt", "_useq_MDASequence.json"
_MAX_BYTES = 2**27  # of metadata.txt, which has 3 kB a frame


@dataclass(slots=True)
class _Found:
    """One frame's file: its indices, and the name of its channel where the channel has no index."""

    file: Path
    index: dict[str, int]
    channel: str | None = None


@dataclass(slots=True)
class _Folder:
    """Frames of one folder."""

    path: Path
    frames: list[_Found]
    about: Summary = field(default_factory=Summary)
    notes: list[str] = field(default_factory=list)


def holds_image_files(folder: Path) -> bool:
    """Whether the TIFFs of a folder are named as frames are, or metadata.txt lists them."""
    files = [
        f
        for f in folder.iterdir()
        if f.suffix.lower() in (".tif", ".tiff") and not f.name.startswith(".")
    ]
    named = sum(_by_name(f) is not None for f in files)
    return bool(files) and (named == len(files) or (named > 0 and (folder / _METADATA).is_file()))


def open_image_files(folder: Path, folders: Iterable[Path]) -> Recording:
    """Describe a folder of image files.

    Parameters
    ----------
    folder : that is recorded
    folders : that hold the files: itself, or one for each position

    Raises
    ------
    ConfigError
        If it cannot be told where a frame belongs.
    """
    read = [_read(folder, each) for each in sorted(folders, key=lambda f: _natural(f.name))]
    channels = _channels(folder, read)
    at: dict[Place, list[Path]] = {}
    notes = [note for each in read for note in each.notes]
    positions = {p: _label(each, p) for p, each in _positions(folder, read).items()}
    apart = len(read) > 1
    for number, each in _positions(folder, read).items():
        for frame in each.frames:
            c = frame.index.get("c", 0) if frame.channel is None else channels.index(frame.channel)
            p = number if apart else frame.index.get("p", 0)
            at.setdefault((frame.index.get("t", 0), p, frame.index.get("z", 0), c), []).append(
                frame.file
            )
    placed = _once(folder, at)
    about, pages = read[0].about, TiffPages(folder)
    try:
        _check_single(pages, placed)
        return recording_of(
            folder,
            "image files",
            placed,
            pages,
            micromanager=True,
            notes=notes,
            channels=channels[: placed.lengths[3]] if placed.at else (),
            positions=tuple(positions.values()) if apart else about.positions,
            pixel_um=(about.pixel_size_um, about.pixel_size_um) if about.pixel_size_um else None,
            z_step_um=about.z_step_um,
            interval_s=about.interval_s,
            started_ns=about.started_ns or folder.stat().st_mtime_ns,
        )
    except BaseException:
        pages.close()
        raise


def _once(folder: Path, at: Mapping[Place, list[Path]]) -> Placed:
    """Put files at their places.

    As many at every place are exposures that a plan does not count, as raw frames of SIM.

    Raises
    ------
    ConfigError
        If some places have more than others.
    """
    counts = {len(files) for files in at.values()}
    if counts == {1}:
        return Placed(_AXES, {place: PageAt(file) for place, (file,) in at.items()})
    if len(counts) > 1:
        place, files = max(at.items(), key=lambda pair: len(pair[1]))
        raise ConfigError(
            f"{folder.name} holds {len(files)} files for {spelt(_AXES, place)}"
            f" ({_listed([f.name for f in files])}), and fewer for other places: which is which is"
            " not known."
        )
    every = {
        (*place, i): PageAt(file) for place, files in at.items() for i, file in enumerate(files)
    }
    return Placed((*_AXES, "repeat"), every)


def _check_single(pages: TiffPages, placed: Placed) -> None:
    """Refuse stacks that are named as single frames are."""
    for place in {min(placed.at, default=()), max(placed.at, default=())} - {()}:
        file, count = placed.at[place].file, 0
        with suppress(
            Exception
        ):  # whatever tifffile raises of bytes that are no TIFF: reading says so
            count = len(pages.file(file).pages)
        if count > 1:
            raise ConfigError(
                f"{file.name} is named as a single frame is, and holds {count} pages: give one file"
                " at a time."
            )


def _read(root: Path, folder: Path) -> _Folder:
    files = sorted(
        f
        for f in folder.iterdir()
        if f.suffix.lower() in (".tif", ".tiff") and not f.name.startswith(".")
    )
    for file in files:
        contained.beneath(root, file.relative_to(root).as_posix(), error=ConfigError)
    said, about, notes = _metadata(root, folder)
    frames: list[_Found] = []
    unplaced: list[str] = []
    for file in files:
        found = _by_name(file)
        if found is not None and file.name in said:
            found.index |= said[
                file.name
            ]  # a name of 1.4 has the channel's name, metadata.txt its index
            found.channel = None if "c" in said[file.name] else found.channel
        if found is None and file.name in said:
            found = _Found(file, said[file.name])
        if found is None:
            unplaced.append(file.name)
        else:
            frames.append(found)
    if unplaced:
        notes.append(
            f"{folder.name}: {_listed(unplaced)} does not say where it belongs, and is not read."
        )
    if absent := sorted(set(said) - {file.name for file in files}):
        notes.append(
            f"{folder.name}: {_METADATA} lists {len(absent)} frames whose files are not there"
            f" ({_listed(absent)})."
        )
    if said and (unsaid := [f.file.name for f in frames if f.file.name not in said]):
        notes.append(
            f"{folder.name}: {_METADATA} does not list {len(unsaid)} of its files: they are placed"
            " by their names."
        )
    return _Folder(folder, frames, about, notes)


def _by_name(file: Path) -> _Found | None:
    """Return what a file's name says of its place, None if it says nothing that is known."""
    if match := _MM2.match(file.name):
        parts = re.findall(r"_(channel|position|time|z)(\d+)", match[1])
        return _Found(file, {_WORDS[word]: int(digits) for word, digits in parts})
    if match := _MM1.match(file.name):
        return _Found(file, {"t": int(match["t"]), "z": int(match["z"])}, match["name"])
    if match := _USEQ.search(file.name):
        parts = re.findall(r"([a-z])(\d+)", match[1])
        if all(letter in "tpcz" for letter, _ in parts) and len(
            {letter for letter, _ in parts}
        ) == len(parts):
            return _Found(file, {letter: int(digits) for letter, digits in parts})
    return None


def _metadata(root: Path, folder: Path) -> tuple[dict[str, dict[str, int]], Summary, list[str]]:
    """Return the indices of every file that metadata.txt lists, what it says of the acquisition,
    and what is wrong with it.
    """
    file = folder / _METADATA
    if not file.is_file():
        return {}, _sequence(root, folder), []
    try:
        with opened(file, root) as content:
            said = _json(content.read(_MAX_BYTES + 1).decode("utf-8", "replace"))
    except (OSError, ValueError):
        return (
            {},
            Summary(),
            [
                f"{folder.name}: {_METADATA} cannot be read: frames are placed by the names of"
                " their files."
            ],
        )
    files: dict[str, dict[str, int]] = {}
    for key, value in said.items():
        if not isinstance(value, Mapping):
            continue
        if key.startswith("Coords-"):
            files[PurePosixPath(key.removeprefix("Coords-").replace("\\", "/")).name] = place_in(
                value
            )
        elif match := re.match(r"FrameKey-(\d+)-(\d+)-(\d+)$", key):
            name = str(value.get("FileName") or value.get("Filename") or "")
            t, c, z = map(int, match.groups())
            files[name.replace("\\", "/").rpartition("/")[2]] = {
                **place_in(value),
                "t": t,
                "c": c,
                "z": z,
            }
    files.pop("", None)
    about = said.get("Summary")
    return files, summary(about if isinstance(about, Mapping) else {}), []


def _json(text: str) -> Mapping[str, Any]:
    """Read metadata.txt; Micro-Manager may not have closed it."""
    for end in ("", "}", "}}"):
        with suppress(DocumentError):
            said = parse_json(
                text.rstrip().rstrip(",") + end if end else text, _METADATA, _MAX_BYTES
            )
            if said and isinstance(said, Mapping):
                return said
    raise ValueError("no JSON object")


def _sequence(root: Path, folder: Path) -> Summary:
    """Return what the plan of pymmcore-plus says, beside the files that it wrote."""
    with suppress(OSError, ValueError, TypeError, AttributeError, KeyError, DocumentError):
        with opened(folder / _SEQUENCE, root) as content:
            plan = parse_json(content.read(), _SEQUENCE)
        channels = tuple(
            c if isinstance(c, str) else str(c["config"]) for c in plan.get("channels") or ()
        )
        places = plan.get("stage_positions") or ()
        positions = tuple(
            str(p.get("name") or i) if isinstance(p, Mapping) else str(i)
            for i, p in enumerate(places)
        )
        return Summary(channels=channels, positions=positions)
    return Summary()


def _channels(folder: Path, read: list[_Folder]) -> tuple[str, ...]:
    """Return names of channels in the order of their indices.

    Those that only names of files give, as the summary has them.
    """
    said = next((each.about.channels for each in read if each.about.channels), ())
    named = {f.channel for each in read for f in each.frames if f.channel is not None}
    if not named:
        return said
    if any(f.channel is None for each in read for f in each.frames):
        raise ConfigError(
            f"{folder.name}: {_METADATA} gives the channel of some files only: remove it to go by"
            " their names."
        )
    return said if named <= set(said) else tuple(sorted(named))


def _positions(folder: Path, read: list[_Folder]) -> dict[int, _Folder]:
    """Return folders by the position that they hold.

    As their files say, else in the order of their names.
    """
    said = [{frame.index.get("p") for frame in each.frames} for each in read]
    if any(len(one) > 1 for one in said) and len(read) > 1:
        raise ConfigError(
            f"{folder.name} holds folders of several positions each: give one folder at a time."
        )
    numbers = [next(iter(one), None) for one in said]
    if None in numbers or len(set(numbers)) < len(numbers):
        return dict(enumerate(read))
    return {
        int(n or 0): each
        for n, each in sorted(zip(numbers, read, strict=True), key=lambda pair: pair[0] or 0)
    }


def _label(folder: _Folder, position: int) -> str:
    return folder.path.name or str(position)


def _natural(name: str) -> list[Any]:
    return [(int(part), "") if part.isdigit() else (0, part) for part in re.split(r"(\d+)", name)]


def _listed(names: list[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
