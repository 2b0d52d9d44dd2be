"""A store whose process was killed, or whose disk failed, becomes one that every tool reads.

Owns the order of the work: metadata, then arrays, then the lines of frames.jsonl about pictures
that are gone or that no line is about. Computes no picture and deletes none: files that cannot be
read, or not in full, are kept aside.

What a killed process leaves: the array's length may count whole shards, the last shard is
unfinished or absent, its metadata half written, and each image has come a little less or more far
than the others.
"""

from __future__ import annotations

import logging
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from livesr.base import contained
from livesr.base.errors import StoreError
from livesr.base.files import next_free_path
from livesr.base.lock import Lock
from livesr.base.rig_file import write
from livesr.formats import layout
from livesr.formats.frames_log import STORED_STATES, Event
from livesr.formats.ome_xml import FILE as OME_XML
from livesr.formats.ome_xml import names_images, write_ome_xml
from livesr.formats.shard_file import copy_without, whole_length
from livesr.formats.store import read_image, read_json, why_no_store
from livesr.live.sinks.series import write_json
from livesr.store.levels import damaged_levels, drop_levels, levels_fit
from livesr.store.mended_log import MendedLog, drop_unfinished_line
from livesr.store.metadata import image_names, is_described, rebuild_images, rebuild_root
from livesr.store.rig_copy import cut_off
from livesr.store.shard_inspection import ImageInspection, Where

log = logging.getLogger(__name__)

TORN = f"{layout.SIDECARS}/torn"
_STILL_GROWING_S = 2.0


@dataclass(frozen=True, slots=True)
class RepairReport:
    """What was found and done.

    Attributes
    ----------
    images : by name: time points ``before`` and ``after``, and the last that this image can be read
        to (``readable``)
    lost : pictures that frames.jsonl had counted as stored and that cannot be read, by image; found
        by this repair
    lacking : pictures that the run had stored and that are gone by now, in whole or in part, by
        image
    found : pictures that no line of frames.jsonl was about, by image
    torn : files that were unreadable or not readable in full, now in livesr/torn
    metadata : metadata that was missing or damaged and is written
    damage : what is gone, in sentences, whether this repair found it or one before
    holes : time points that are gone from the middle of an image, by image: a kill takes the end
        only
    problems : what could not be repaired, in sentences
    """

    store: Path
    images: Mapping[str, Mapping[str, int]]
    lost: Mapping[str, int] = field(default_factory=dict)
    lacking: Mapping[str, int] = field(default_factory=dict)
    found: Mapping[str, int] = field(default_factory=dict)
    torn: tuple[str, ...] = ()
    metadata: tuple[str, ...] = ()
    damage: tuple[str, ...] = ()
    holes: Mapping[str, Sequence[int]] = field(default_factory=dict)
    problems: tuple[str, ...] = ()
    changed: bool = False

    def as_json(self) -> dict[str, Any]:
        """Return the report as ``--json`` prints it."""
        return {name: getattr(self, name) for name in self.__slots__}


def repair(
    path: Path, *, still_growing_s: float = _STILL_GROWING_S, decode: bool = True
) -> RepairReport:
    """Make the store at `path` readable, consistent and valid.

    One that is so already is not touched.

    Every shard of every image is looked at. The images of one position and channel get the length
    of the longest: nothing that can be read is cut off, and what a shorter one lacks reads as
    zeros, as skipped frames do. Lines of frames.jsonl about pictures that are gone say
    ``"stored": false, "lost": true``; pictures without a line get one.

    Parameters
    ----------
    still_growing_s : how long frames.jsonl is watched if it has just been written to, by a run that
        holds no lock
    decode : whether every chunk is decoded; else only the indexes of the shards are looked at,
        which is quick

    Raises
    ------
    StoreError
        If there is no store of livesr, or it is being recorded, repaired or completed.
    """
    path = Path(path).absolute()
    if not (path / layout.SIDECARS).is_dir():
        raise StoreError(why_no_store(path))
    contained.refuse_links(
        path, writing=True
    )  # before the lock, which is written into a folder that may be one
    try:
        with Lock(path / layout.SIDECARS, "repair"):
            _refuse_growing(path, still_growing_s)
            return _Repair(path, decode).report()
    except OSError as e:
        raise StoreError(
            f"{path} cannot be repaired: {e.strerror or e}. Look after the disk, or repair a copy"
            " on another one."
        ) from e


class _Repair:
    """One repair of one store, step by step."""

    def __init__(self, path: Path, decode: bool) -> None:
        if not any((path / name).is_dir() for name in image_names(path)):
            raise StoreError(
                f"{path} holds no image: its process ended before there was anything to keep."
            )
        self._path, self._torn, self._decode = path, list[str](), decode
        self._log = MendedLog(path / layout.FRAMES_LOG)
        rig = self._mend_rig()  # first: metadata without a copy are made of it
        rebuilt = rebuild_images(path, self._log.events)
        self._problems, self._metadata = rebuilt.problems, (*rig, *rebuilt.files)
        self._write(rebuilt.files)
        described = [name for name in image_names(path) if is_described(path / name)]
        images = [image for name in described if (image := read_image(path / name))]
        self._images = [
            ImageInspection(image, self._log.stored(image), decode=decode) for image in images
        ]
        for inspected in self._images:
            self._cut_torn(inspected)
        self._lengths = _common_lengths(self._images, closed=(path / layout.REPORT).is_file())

    def report(self) -> RepairReport:
        """Repair, and say what was done."""
        if not self._images:
            raise StoreError(
                f"{self._path} holds no image that can be described: {' '.join(self._problems)}"
            )
        lost = {image.image.name: self._mark_lost(image) for image in self._images}
        found = {image.image.name: self._tell(image) for image in self._images}
        # First what says so, then what takes it away: a repair that is killed is repeated, and
        # finds the same.
        if self._log.changed and self._log.loses:
            self._torn.append(_copy_aside(self._path, self._path / layout.FRAMES_LOG))
        rewritten = self._log.rewrite()
        for image in self._images:
            self._mend_shards(image)
        longer = [i for i in self._images if i.shape.length["t"] != self._lengths[i.image.name]]
        for image in longer:
            _set_length(image, self._lengths[image.image.name])
        self._drop_levels()
        tables = [table for table in self._tables() if drop_unfinished_line(table)]
        root = rebuild_root(self._path, [image.image for image in self._images], self._log.events)
        self._write(root)
        self._metadata += tuple(root)
        described = self._describe()
        return RepairReport(
            store=self._path,
            images={i.image.name: self._summary(i) for i in self._images},
            lost={name: count for name, count in lost.items() if count},
            lacking={
                i.image.name: n for i in self._images if (n := len(self._log.lacking(i.image)))
            },
            found={name: count for name, count in found.items() if count},
            torn=tuple(self._torn),
            metadata=self._metadata,
            damage=tuple(
                sentence for image in self._images for sentence in self._log.damage(image)
            ),
            holes={i.image.name: t for i in self._images if (t := self._log.holes(i))},
            problems=tuple(self._problems),
            changed=bool(
                self._torn or longer or rewritten or self._metadata or tables or described
            ),
        )

    def _mend_rig(self) -> tuple[str, ...]:
        """Write the store's rig.yaml again if it ends early; return what was written."""
        if (cut := cut_off(self._path)) is None:
            return ()
        file = self._path / layout.RIG
        if file.is_file() and file.stat().st_size:
            self._torn.append(_copy_aside(self._path, file))
        write(file, cut.whole)
        return (layout.RIG,)

    def _drop_levels(self) -> None:
        """Take smaller levels away that do not show what is there; the rest of the store is more
        than they are.
        """
        for image in self._images:
            of = image.image
            mended = any(f"{of.name}.0." in name for name in self._torn)
            bad = mended or not levels_fit(of) or (self._decode and bool(damaged_levels(of)))
            if bad and drop_levels(of):
                self._metadata += (f"{of.name}/zarr.json",)

    def _write(self, files: Mapping[str, Mapping[str, Any]]) -> None:
        for name, content in files.items():
            place = self._path / name
            if place.is_file() and place.stat().st_size:
                self._torn.append(_copy_aside(self._path, place))
            place.parent.mkdir(parents=True, exist_ok=True)
            write_json(place, content)

    def _describe(self) -> bool:
        """Write the images as OME-XML, with the lengths of now; return whether that changed it."""
        # in the order of the list, which is whole by now
        about = read_json(self._path / "OME" / "zarr.json")
        names = about["attributes"]["ome"]["series"]
        is_told = names_images(self._path, names)
        try:
            is_written = write_ome_xml(self._path, names)
        except OSError as e:  # other software has described an image in its own way
            self._problems.append(f"{OME_XML} cannot be written: {e}.")
            return False
        if not is_told:
            self._metadata += (OME_XML,)
        return is_written

    def _tables(self) -> list[Path]:
        return [file for file in sorted(self._path.glob("localisations*.csv")) if file.is_file()]

    def _cut_torn(self, image: ImageInspection) -> None:
        """Cut shards that end in the middle back to their last index."""
        for place, _ in list(image.in_state("torn")):
            file = image.file(place)
            if length := whole_length(file, image.form):
                self._torn.append(_copy_aside(self._path, file))
                with contained.open_to_write(file.parent, file.name, "r+") as opened:
                    opened.truncate(length)
                image.look_again(place)

    def _mark_lost(self, image: ImageInspection) -> int:
        """Correct the lines about pictures that are gone, in whole or in part; return how many."""
        count = 0
        for line in image.lines:
            planes = image.lost_planes(line)
            missing = sorted({*line.get("missing", ()), *planes})
            if not planes:
                continue
            if image.lacks_planes and len(missing) < image.planes(line["t"], line["z"]).size:
                facts = {"state": image.incomplete, "missing": missing, "damaged": list(planes)}
                self._log.correct(image.image, line, **facts)
            else:
                self._log.correct(image.image, line, stored=False, lost=True)
            count += 1
        return count

    def _tell(self, image: ImageInspection) -> int:
        """Add lines about pictures that are on disk and that no line is about; return how many.

        Raw that is in a torn shard and has no line gets one that says that it is lost: otherwise
        nobody would know.
        """
        kind, count, told = image.image.kind, 0, self._log.told(image.image)
        for t, z, missing, damaged in image.unlogged():
            if len(missing) == image.planes(t, z).size:
                if (t, z) not in told:
                    self._say_lost(image, t, z)
                continue
            facts = (
                {"state": image.incomplete, "missing": list(missing)}
                if missing
                else {"state": STORED_STATES[kind]}
            )
            hurt = {"damaged": list(damaged)} if damaged else {}
            self._log.add(
                {**_where(image, t, z), "stored": True, "repaired": True, **facts, **hurt}
            )
            count += 1
        for t, z in self._torn_places(image) if kind == "raw" else ():
            self._say_lost(image, t, z)
        return count

    def _say_lost(self, image: ImageInspection, t: int, z: int) -> None:
        line = {**_where(image, t, z), "state": STORED_STATES[image.image.kind]}
        self._log.add({**line, "stored": False, "lost": True, "repaired": True})

    def _torn_places(self, image: ImageInspection) -> Iterator[Where]:
        """Yield (t, z) in torn shards that no line is about, as far as the time axis goes."""
        told = self._log.told(image.image)
        for (t_shard, z_shard), _ in image.in_state("torn"):
            depth, deep = image.shape.shard["t"], image.shape.shard.get("z", 1)
            for t in range(
                t_shard * depth, min((t_shard + 1) * depth, self._lengths[image.image.name])
            ):
                for z in range(z_shard * deep, min((z_shard + 1) * deep, image.shape.z_planes)):
                    if (t, z) not in told:
                        yield t, z

    def _mend_shards(self, image: ImageInspection) -> None:
        """Take shards away that cannot be read, and what cannot be decoded out of the others."""
        self._torn += [
            _keep_aside(self._path, image.file(place)) for place, _ in image.in_state("torn")
        ]
        for place, shard in image.in_state("damaged"):
            file, drop = image.file(place), shard.damaged.copy()
            if image.image.kind != "raw":  # a picture that lacks a plane is none
                drop[:] = drop.any(axis=1, keepdims=True)
            self._torn.append(_copy_aside(self._path, file))
            copy_without(file, image.form, image.flat(drop), file)

    def _summary(self, image: ImageInspection) -> dict[str, int]:
        name = image.image.name
        return {
            "before": image.shape.length["t"],
            "readable": image.readable_length,
            "after": self._lengths[name],
        }


def _refuse_growing(path: Path, seconds: float) -> None:
    """Refuse a store that is recorded without a lock.

    By an older version, or where it could not be written.
    """
    file = path / layout.FRAMES_LOG
    if (path / layout.REPORT).is_file() or not file.is_file():
        return
    size, age_s = file.stat().st_size, time.time() - file.stat().st_mtime
    if 0 <= age_s < seconds:
        time.sleep(seconds)
        if file.stat().st_size != size:
            raise StoreError(f"{path} is still being recorded. Repair it after the run has ended.")


def _common_lengths(images: Sequence[ImageInspection], *, closed: bool) -> dict[str, int]:
    """Return the length that each image must have: that of the longest of its position and channel.

    What an image was padded to by a run that was closed, or lost nothing, stays; what a killed one
    had only announced does not.
    """
    places: dict[tuple[int, str], list[ImageInspection]] = defaultdict(list)
    for image in images:
        places[image.image.position, image.image.channel].append(image)
    longest = {}
    for place, those in places.items():
        whole = not any(i.lost_planes(line) for i in those for line in i.lines) and not _torn(those)
        announced = [i.shape.length["t"] for i in those] if closed or whole else []
        longest[place] = max([*announced, *(i.readable_length for i in those)])
    return {i.image.name: longest[i.image.position, i.image.channel] for i in images}


def _torn(images: Sequence[ImageInspection]) -> bool:
    return any(True for image in images for _ in image.in_state("torn"))


def _where(image: ImageInspection, t: int, z: int) -> Event:
    of = image.image
    return {"series": of.kind, "t": t, "position": of.position, "channel": of.channel, "z": z}


def _set_length(image: ImageInspection, length: int) -> None:
    path = image.image.array / "zarr.json"
    about = read_json(path)
    about["shape"][0] = length * image.shape.exposures
    write_json(path, about)


def _unplaced(path: Path, file: Path) -> Path:
    """Return where no reader looks for a file."""
    folder = path / TORN
    folder.mkdir(parents=True, exist_ok=True)
    return next_free_path(folder / ".".join(file.relative_to(path).parts))


def _keep_aside(path: Path, file: Path) -> str:
    """Move a file that cannot be read; return its new name inside the store."""
    target = _unplaced(path, file)
    file.replace(target)
    return target.relative_to(path).as_posix()


def _copy_aside(path: Path, file: Path) -> str:
    """Keep a file as it was before it is mended; return the copy's name inside the store."""
    target = _unplaced(path, file)
    contained.copy_out(file.parent, file.name, target.parent, target.name)
    return target.relative_to(path).as_posix()
