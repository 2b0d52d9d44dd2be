"""A store whose process was killed becomes one that every tool reads.

Owns the lengths of the arrays, the lines of frames.jsonl about pictures that are gone, and the group metadata that a kill
while the store was created leaves out. Writes no pixel and deletes none: files that cannot be read are kept aside.

What a killed process leaves: the array's length counts whole shards, the last shard is unfinished (its index is missing,
every read of it raises) or absent, and each image has come a little less or more far than the others.
"""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np

from livesr.base import contained, documents
from livesr.base.errors import DocumentError, StoreError
from livesr.live.sinks import layout
from livesr.live.sinks.frames_log import LogContents, read_log, to_json
from livesr.live.sinks.series import group_json, write_json
from livesr.store.recorded import KINDS, ArrayShape, Event, Image, array_shape, read_image, read_json, stream_of

TORN = f"{layout.SIDECARS}/torn"
_STILL_GROWING_S = 2.0

ShardState = Literal["whole", "empty", "absent", "torn"]


@dataclass(frozen=True, slots=True)
class RepairReport:
    """What was found and done.

    Attributes
    ----------
    images : by name: time points ``before`` and ``after``, and the last that this image can be read to (``readable``)
    lost : pictures that frames.jsonl had counted as stored and that the kill took, by image
    torn : unreadable files, now in livesr/torn
    metadata : group metadata that was missing and is written
    problems : what could not be repaired, in sentences
    """

    store: Path
    images: Mapping[str, Mapping[str, int]]
    lost: Mapping[str, int] = field(default_factory=dict)
    torn: tuple[str, ...] = ()
    metadata: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()
    changed: bool = False

    def as_json(self) -> dict[str, Any]:
        """Return the report as ``--json`` prints it."""
        return {name: getattr(self, name) for name in self.__slots__}


def repair(path: Path, *, still_growing_s: float = _STILL_GROWING_S) -> RepairReport:
    """Make the store at `path` readable, consistent and valid; one that is so already is not touched.

    Every image is walked back from its end to the last time point that can be read. The images of one position and channel
    then get the length of the longest: nothing that can be read is cut off, and what a shorter one lacks reads as zeros,
    as skipped frames do. Lines of frames.jsonl about pictures that are gone say ``"stored": false, "lost": true``.

    Parameters
    ----------
    still_growing_s : how long frames.jsonl is watched if it has just been written to

    Raises
    ------
    StoreError
        If there is no store of livesr, or it is still being recorded.
    """
    path = Path(path).absolute()
    if not (path / layout.SIDECARS).is_dir():
        raise StoreError(f"{path} is no store of livesr: it has no folder '{layout.SIDECARS}'.")
    contained.refuse_links(path, writing=True)
    _refuse_growing(path, still_growing_s)
    images, problems = _images(path)
    log = _Log(path / layout.FRAMES_LOG)
    found = [_Found(image, log.stored(image)) for image in images]
    lengths = _common_lengths(found)
    torn = [file for image in found for file in image.torn_files()]
    lost = {image.image.name: image.mark_lost(lengths[image.image.name]) for image in found}
    unlogged = [line for image in found for line in image.unlogged_raw()]
    longer = [image for image in found if image.shape.length["t"] != lengths[image.image.name]]
    metadata = _missing_metadata(path, [image.image for image in found])
    # First what makes the arrays readable, then what says so: a repair that is killed is repeated.
    kept = tuple(_keep_aside(path, file) for file in torn)
    for image in longer:
        image.set_length(lengths[image.image.name])
    rewritten = log.rewrite(unlogged, changed=any(lost.values()))
    tables = [table for table in sorted(path.glob("localisations*.csv")) if table.is_file() and _cut_torn_row(table)]
    for name, content in metadata.items():
        (path / name).parent.mkdir(exist_ok=True)
        write_json(path / name, content)
    return RepairReport(
        store=path,
        images={i.image.name: i.summary(lengths[i.image.name]) for i in found},
        lost={name: count for name, count in lost.items() if count},
        torn=kept,
        metadata=tuple(metadata),
        problems=tuple(problems),
        changed=bool(kept or longer or rewritten or metadata or tables),
    )


class _Found:
    """One image as it lies on disk, shard by shard."""

    def __init__(self, image: Image, lines: Sequence[Event]) -> None:
        self.image, self._lines = image, lines
        self.shape: ArrayShape = array_shape(image.array, image.exposures)
        self._told = {self.shape.shard_of(e["t"], e["z"]) for e in lines}
        self._states: dict[tuple[int, int], ShardState] = {}

    @cached_property
    def length(self) -> int:
        """Time points up to the last that can be read."""
        shard, length = self.shape.shard["t"], self.shape.length["t"]
        for t_shard in reversed(range(max(-(-length // shard), self._shards_on_disk))):
            states = [self.state(t_shard, z) for z in range(self._z_shards)]
            if "whole" in states or ("empty" in states and t_shard * shard < length):
                # The end of a run lies inside its last shard; a shard behind the recorded length was finished by a process
                # that had no time to say so, and is full.
                return length if t_shard * shard < length <= (t_shard + 1) * shard else (t_shard + 1) * shard
        return 0

    @property
    def _z_shards(self) -> int:
        return -(-self.shape.z_planes // self.shape.shard.get("z", 1))

    @cached_property
    def _shards_on_disk(self) -> int:
        numbers = [int(p.name) for p in (self.image.array / "c").glob("*") if p.name.isdigit()]
        return max(numbers, default=-1) + 1

    def state(self, t_shard: int, z_shard: int) -> ShardState:
        """Whether a shard can be read: "empty" has no file and needs none, "absent" has none and should."""
        key = t_shard, z_shard
        if key not in self._states:
            self._states[key] = self._look(t_shard, z_shard)
        return self._states[key]

    def _look(self, t_shard: int, z_shard: int) -> ShardState:
        file = self.image.array / self.shape.shard_key(t_shard, z_shard)
        if not file.is_file():
            return "absent" if (t_shard, z_shard) in self._told else "empty"
        try:
            with self._readable(t_shard, file) as array:
                self._read(array, t_shard, z_shard)
        except StoreError:  # not the shard: it must stay where it is
            raise
        except Exception:  # a torn shard raises whatever its codecs raise
            return "torn"
        return "whole"

    def _read(self, folder: Path, t_shard: int, z_shard: int) -> Any:
        from livesr.live.sources.zarr_files import open_array

        array = open_array(folder)
        t = min((t_shard + 1) * self.shape.shard["t"], array.shape[0] // self.shape.exposures) - 1
        return array[self.shape.index(t, z_shard * self.shape.shard.get("z", 1))]

    def _readable(self, t_shard: int, file: Path) -> _ArrayToRead:
        inside = t_shard * self.shape.shard["t"] < self.shape.length["t"]
        length = (t_shard + 1) * self.shape.shard["t"] * self.shape.exposures
        return _ArrayToRead(self.image.array, None if inside else file, length)

    def torn_files(self) -> Iterator[Path]:
        """Files from the last readable time point on that cannot be read."""
        self.length  # noqa: B018 - walks back, which finds them
        for t_shard, z_shard in list(self._walked()):
            if self.state(t_shard, z_shard) == "torn":
                yield self.image.array / self.shape.shard_key(t_shard, z_shard)

    def _walked(self) -> Iterator[tuple[int, int]]:
        """Yield every shard from the one that holds the last readable time point on."""
        first = max(self.length - 1, 0) // self.shape.shard["t"]
        for t_shard in range(first, max(self._shards_on_disk, -(-self.shape.length["t"] // self.shape.shard["t"]))):
            for z_shard in range(self._z_shards):
                yield t_shard, z_shard

    def mark_lost(self, length: int) -> int:
        """Mark the lines about pictures that are gone; return how many."""
        walked = set(self._walked())
        count = 0
        for line in self._lines:
            shard = self.shape.shard_of(line["t"], line["z"])
            gone = self.state(*shard) != "whole" if shard in walked else shard[0] >= self._shards_on_disk
            if gone or line["t"] >= length:
                line.update(stored=False, lost=True)
                count += 1
        return count

    def unlogged_raw(self) -> Iterator[Event]:
        """Yield lines for exposures that reached the disk while the line about them did not."""
        if self.image.kind != "raw":
            return
        shard, told = self.shape.shard["t"], {(e["t"], e["z"]) for e in self._lines}
        last = max((t for t, _ in told), default=-1)
        for t_shard, z_shard in self._walked():
            begins = max(t_shard * shard, last)
            if self.state(t_shard, z_shard) != "whole" or begins >= self.length:
                continue
            file = self.image.array / self.shape.shard_key(t_shard, z_shard)
            depth = self.shape.shard.get("z", 1)
            planes = range(z_shard * depth, min((z_shard + 1) * depth, self.shape.z_planes))
            with self._readable(t_shard, file) as array:
                for t in range(begins, min((t_shard + 1) * shard, self.length)):
                    for z in planes:
                        if (t, z) not in told and (line := self._line_of(array, t, z)):
                            yield line

    def _line_of(self, folder: Path, t: int, z: int) -> Event | None:
        from livesr.live.sources.zarr_files import open_array

        planes = np.asarray(open_array(folder)[self.shape.index(t, z)])
        missing = [i for i, plane in enumerate(planes) if not plane.any()]
        if len(missing) == len(planes):
            return None
        where = {"t": t, "position": self.image.position, "channel": self.image.channel, "z": z}
        facts = {"state": "raw_incomplete", "missing": missing} if missing else {"state": "raw"}
        return {"series": "raw", **where, "stored": True, "repaired": True, **facts}

    def set_length(self, length: int) -> None:
        """Write the array's length."""
        path = self.image.array / "zarr.json"
        about = read_json(path)
        about["shape"][0] = length * self.shape.exposures
        write_json(path, about)

    def summary(self, after: int) -> dict[str, int]:
        """Return the lengths before and after, and how far this image can be read."""
        return {"before": self.shape.length["t"], "readable": self.length, "after": after}


class _ArrayToRead:
    """The array's folder; for a shard behind the array's length, a copy that is long enough."""

    def __init__(self, array: Path, behind: Path | None, length: int) -> None:
        self._array, self._behind, self._length = array, behind, length
        self._folder: tempfile.TemporaryDirectory[str] | None = None

    def __enter__(self) -> Path:
        if self._behind is None:
            return self._array
        self._folder = tempfile.TemporaryDirectory(prefix="livesr-")
        copy = Path(self._folder.name)
        about = read_json(self._array / "zarr.json")
        about["shape"][0] = self._length
        write_json(copy / "zarr.json", about)
        target = copy / self._behind.relative_to(self._array)
        target.parent.mkdir(parents=True)
        shutil.copyfile(self._behind, target)
        return copy

    def __exit__(self, *_: object) -> None:
        if self._folder:
            self._folder.cleanup()


class _Log:
    """frames.jsonl with the lines that are to be corrected."""

    def __init__(self, path: Path) -> None:
        self._path = path
        found = read_log(path) if path.is_file() else LogContents([])
        self._events = found.events
        self._unknown = b"".join(line.text + b"\n" for line in found.unknown if not line.keys)

    def stored(self, image: Image) -> list[Event]:
        """Return the lines about pictures of an image, for the caller to correct."""
        place = image.kind, image.position, image.channel
        return [
            e
            for e in self._events
            if e["stored"] and (e["series"], stream_of(e).position, stream_of(e).channel) == place
        ]

    def rewrite(self, more: Sequence[Event], *, changed: bool) -> bool:
        """Replace the file if a line was changed, is to be added, or ends in the middle; return whether it was."""
        text = contained.read_bytes(self._path.parent, self._path.name) if self._path.is_file() else b""
        if not (changed or more or (text and not text.endswith(b"\n"))):
            return False
        # What is not understood is kept, first: it may mean something to somebody, and livesr passes over it again.
        known = "".join(to_json(e) + "\n" for e in (*self._events, *more)).encode()
        contained.replace_bytes(self._path.parent, self._path.name, self._unknown + known)
        return True


def _refuse_growing(path: Path, seconds: float) -> None:
    log = path / layout.FRAMES_LOG
    if (path / layout.REPORT).is_file() or not log.is_file():
        return
    size, age_s = log.stat().st_size, time.time() - log.stat().st_mtime
    if 0 <= age_s < seconds:
        time.sleep(seconds)
        if log.stat().st_size != size:
            raise StoreError(f"{path} is still being recorded. Repair it after the run has ended.")


def _images(path: Path) -> tuple[list[Image], list[str]]:
    """Return the images whose arrays can be described, and a sentence about each that cannot."""
    images, problems = [], []
    for folder in sorted(p for p in path.iterdir() if p.is_dir()):
        if (image := read_image(folder)) is None:
            if folder.name.partition("_")[0] in KINDS.values():
                problems.append(f"{folder.name} has no metadata: the process ended before it had any picture.")
            continue
        try:
            array_shape(image.array)
        except StoreError as e:
            problems.append(str(e))
        else:
            images.append(image)
    if not images:
        raise StoreError(f"{path} holds no image: its process ended before there was anything to keep.")
    return images, problems


def _common_lengths(found: Sequence[_Found]) -> dict[str, int]:
    """Return the length that each image must have: that of the longest of its position and channel."""
    longest: dict[tuple[int, str], int] = {}
    for image in found:
        place = image.image.position, image.image.channel
        longest[place] = max(longest.get(place, 0), image.length)
    return {i.image.name: longest[i.image.position, i.image.channel] for i in found}


def _keep_aside(path: Path, file: Path) -> str:
    """Move a file that cannot be read to where no reader looks for it; return its new name inside the store."""
    folder = path / TORN
    folder.mkdir(parents=True, exist_ok=True)
    target = layout.next_free_path(folder / ".".join(file.relative_to(path).parts))
    file.replace(target)
    return str(target.relative_to(path).as_posix())


def _cut_torn_row(table: Path) -> bool:
    """Cut off a last row that a killed process left unfinished; return whether there was one."""
    with contained.open_to_write(table.parent, table.name, "r+") as file:
        content: bytes = file.read()
        whole = content.rfind(b"\n") + 1
        file.truncate(whole)
    return whole < len(content)


def _missing_metadata(path: Path, images: Sequence[Image]) -> dict[str, Mapping[str, Any]]:
    """Return the group metadata that the store lacks, by file name."""
    wanted: dict[str, Mapping[str, Any]] = {
        "zarr.json": group_json({"ome": {"version": "0.5", "bioformats2raw.layout": 3}, "livesr": _about(images)}),
        f"{layout.SIDECARS}/zarr.json": group_json({}),
        "OME/zarr.json": group_json({"ome": {"version": "0.5", "series": [image.name for image in images]}}),
    }
    return {name: content for name, content in wanted.items() if not _is_json(path / name)}


def _about(images: Sequence[Image]) -> dict[str, Any]:
    own = [image.attributes["livesr"] for image in images]
    positions = {o["position"]: o["position_name"] for o in own}
    return {
        "version": layout.LAYOUT_VERSION,
        "stream": own[0]["stream"],
        "positions": [positions.get(p, str(p)) for p in range(max(positions) + 1)],
        "channels": list(dict.fromkeys(o["channel"] for o in own)),
        "sidecars": layout.SIDECARS,
    }


def _is_json(path: Path) -> bool:
    try:
        documents.read_json(contained.beneath(path.parent, path.name))
    except DocumentError:
        return False
    return True
