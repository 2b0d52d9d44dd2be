"""Whether a store holds everything that its run took, and whether it can be read.

Owns the comparison of images, frames.jsonl and report.json, and the sentences about it. Changes
nothing; what can be mended, `livesr.store.repair` mends.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from livesr.base import contained, error_bars, rig_limits
from livesr.base.errors import ConfigError, LiveSRError, StoreError
from livesr.base.words import counted, spans
from livesr.check.finding import Finding
from livesr.formats import layout
from livesr.formats.frames_log import stream_of
from livesr.formats.ome_xml import FILE as OME_XML
from livesr.formats.ome_xml import names_images
from livesr.formats.skips import lacks_raw
from livesr.formats.store import read_image, read_json, refuse_in_use, why_no_store
from livesr.live.sources.recordings.recording import open_recording
from livesr.store.levels import damaged_levels, levels_fit
from livesr.store.mended_log import MendedLog
from livesr.store.metadata import image_names, is_described, rebuild_root
from livesr.store.rig_copy import cut_off
from livesr.store.shard_inspection import ImageInspection

_REPAIR, _BACKFILL, _PROCESS = (
    "'livesr repair' makes the rest consistent.",
    "'livesr backfill' computes them from raw.",
    "'livesr process' computes them from raw, into another store.",
)


@dataclass(frozen=True, slots=True)
class ImageState:
    """One image, in pictures: (t, z), with all their channels or exposures.

    Attributes
    ----------
    told : that frames.jsonl says are stored
    readable : of those, that can be read in full
    damaged : that are there and cannot be read, in whole or in part
    missing : whose file is gone
    lost : that were known to be gone before
    unlogged : on disk without a line
    checksums : whether every chunk has one; without, a flipped bit may go unnoticed
    """

    name: str
    time_points: int
    told: int
    readable: int
    damaged: int
    missing: int
    lost: int
    unlogged: int
    checksums: bool


@dataclass(frozen=True, slots=True)
class StoreState:
    """What `check_store` found."""

    store: Path
    images: tuple[ImageState, ...]
    findings: tuple[Finding, ...]

    def as_json(self) -> dict[str, Any]:
        """Return it as ``--json`` prints it."""
        listed = [{**asdict(f), "file": str(f.file), "place": f.place} for f in self.findings]
        return {
            "store": str(self.store),
            "images": [asdict(image) for image in self.images],
            "findings": listed,
        }


def check_store(path: Path) -> StoreState:
    """Read everything in the store at `path`, and say what is not there or not right.

    Raises
    ------
    StoreError
        If it is no store of livesr, or a run or a repair is changing it.
    """
    path = Path(path).absolute()
    if not (path / layout.SIDECARS).is_dir():
        raise StoreError(why_no_store(path))
    contained.refuse_links(path)
    refuse_in_use(path)
    return _Check(path).state()


class _Check:
    """One look at one store."""

    def __init__(self, path: Path) -> None:
        self._path, self._log = path, MendedLog(path / layout.FRAMES_LOG)
        self._names = image_names(path)
        described = [name for name in self._names if is_described(path / name)]
        images = [image for name in described if (image := read_image(path / name))]
        self._images = [ImageInspection(image, self._log.stored(image)) for image in images]

    def state(self) -> StoreState:
        """Say what was found."""
        findings = [
            *self._metadata(),
            *self._log_file(),
            *self._lengths(),
            *self._report(),
            *self._others(),
        ]
        states = []
        for image in self._images:
            state, said = self._image(image)
            states.append(state)
            findings += said
        order = ["error", "warning", "note"]
        return StoreState(
            self._path, tuple(states), tuple(sorted(findings, key=lambda f: order.index(f.level)))
        )

    def _image(self, image: ImageInspection) -> tuple[ImageState, list[Finding]]:
        gone: dict[str, list[int]] = {"damaged": [], "missing": [], "torn": []}
        for line in image.lines:
            if image.lost_planes(line):
                shard = image.shards[image.shape.shard_of(line["t"], line["z"])].state
                gone[shard if shard in gone else "damaged"].append(line["t"])
        lost = [t for t, _ in self._log.lacking(image.image)]
        unlogged = [picture.t for picture in image.unlogged()]
        bad = sum(map(len, gone.values()))
        state = ImageState(
            name=image.image.name,
            time_points=image.shape.length["t"],
            told=len(image.lines),
            readable=len(image.lines) - bad,
            damaged=len(gone["damaged"]) + len(gone["torn"]),
            missing=len(gone["missing"]),
            lost=len(lost),
            unlogged=len(unlogged),
            checksums=image.form.has_checksums,
        )
        return state, list(self._said(image, gone, lost, unlogged))

    def _said(
        self,
        image: ImageInspection,
        gone: Mapping[str, Sequence[int]],
        lost: Sequence[int],
        unlogged: Sequence[int],
    ) -> Iterator[Finding]:
        name, folder = image.image.name, image.image.folder
        again = {"raw": "", "rolling": _PROCESS}.get(image.image.kind, _BACKFILL)
        advice = f"{_REPAIR} {again}".rstrip()
        words = {
            "damaged": "cannot be read, or do not have their checksum",
            "torn": "are in files that end in the middle",
            "missing": "are gone: their files are not there",
        }
        for state, times in gone.items():
            if times:
                yield Finding(
                    "error", state, f"{_pictures(times)} of {name} {words[state]}.", advice, folder
                )
        told = {image.shape.shard_of(e["t"], e["z"]) for e in image.lines}
        extra = [place for place, _ in image.in_state("torn") if place not in told]
        if extra:
            yield Finding(
                "error", "torn", f"{len(extra)} files of {name} end in the middle.", advice, folder
            )
        if lost:
            says = f"{_pictures(lost)} of {name} are known to be lost, in whole or in part."
            yield Finding("error", "lost", says, again or "They cannot be had again.", folder)
        if unlogged:
            yield Finding(
                "warning",
                "unlogged",
                f"No line is about {_pictures(unlogged)} of {name}.",
                _REPAIR,
                folder,
            )
        if not image.form.has_checksums:
            says = (
                f"{name} has no checksums (livesr wrote none then): a flipped bit may go unnoticed."
            )
            yield Finding(
                "note", "no-checksums", says, "Keep a second copy of what matters.", folder
            )

    def _metadata(self) -> Iterator[Finding]:
        for name in self._names:
            if not (self._path / name).is_dir():
                yield Finding(
                    "error",
                    "image-missing",
                    f"The image {name} is gone.",
                    _REPAIR,
                    self._path / name,
                )
            elif not is_described(self._path / name):
                says = (
                    f"{name} is not described any more: one of its zarr.json is missing, empty or"
                    " not livesr's."
                )
                yield Finding("error", "metadata", says, _REPAIR, self._path / name)
        if not self._images:
            yield Finding("error", "no-image", "No image can be read.", "", self._path)
            return
        wrong = rebuild_root(self._path, [image.image for image in self._images], self._log.events)
        for name in wrong:
            says = f"{name} is missing, or does not name the images that are there."
            yield Finding("error", "metadata", says, _REPAIR, self._path / name)
        if not names_images(self._path, [image.image.name for image in self._images]):
            says = (
                f"{OME_XML} is missing (older versions of livesr wrote none), or not about the"
                " images that are there: napari does not open the store as a whole."
            )
            yield Finding("note", "ome-xml", says, "'livesr repair' writes it.", self._path)
        for image in self._images:
            of = image.image
            if not levels_fit(of) or damaged_levels(of):
                yield Finding(
                    "warning",
                    "levels",
                    f"The smaller levels of {of.name} do not show what it holds.",
                    f"{_REPAIR} It takes them away, and 'livesr backfill' makes them again.",
                    of.folder,
                )
        if not wrong and (invalid := _invalid(self._path)):
            yield Finding(
                "error",
                "metadata",
                f"The store is no valid OME-Zarr: {invalid}",
                _REPAIR,
                self._path,
            )

    def _log_file(self) -> Iterator[Finding]:
        file = self._path / layout.FRAMES_LOG
        if not file.is_file():
            yield Finding(
                "error",
                "log",
                "frames.jsonl is gone: what the run took is not known.",
                _REPAIR,
                file,
            )
        elif self._log.problem:
            yield Finding(
                "error" if self._log.is_damaged else "note", "log", self._log.problem, _REPAIR, file
            )
        elsewhere = {
            e["elsewhere"] for e in self._log.events if isinstance(e.get("elsewhere"), str)
        }
        for place in sorted(elsewhere):
            there = place.startswith(("\\\\", "//")) or os.path.isfile(
                place
            )  # no other computer is asked
            says = (
                "Pictures were written elsewhere:"
                f" {place}{'' if there else ', which is not there now'}."
            )
            yield Finding(
                "warning" if there else "error", "elsewhere", says, "Copy it over the store.", file
            )
        for event in self._log.events:
            name = event.get("file")
            if event["state"] == "stray" and isinstance(name, str) and not self._stray(name):
                says = f"A frame was kept as {name}, which is gone."
                yield Finding("error", "stray", says, "", self._path / layout.SIDECARS)

    def _stray(self, name: str) -> bool:
        try:
            return contained.is_file(self._path, f"{layout.STRAYS}/{Path(name).name}")
        except StoreError:  # no name of a file in there
            return False

    def _lengths(self) -> Iterator[Finding]:
        places: dict[tuple[int, str], set[int]] = {}
        for image in self._images:
            places.setdefault((image.image.position, image.image.channel), set()).add(
                image.shape.length["t"]
            )
        for (position, channel), lengths in places.items():
            if len(lengths) > 1:
                says = (
                    f"The images of position {position}, channel {channel!r} differ in length:"
                    f" {sorted(lengths)}."
                )
                yield Finding("error", "lengths", says, _REPAIR, self._path)
        for image in self._images:
            if image.readable_length > image.shape.length["t"]:
                says = (
                    f"{image.image.name} has pictures behind its end, at {image.shape.length['t']}"
                    " time points."
                )
                yield Finding("error", "lengths", says, _REPAIR, image.image.folder)

    def _report(self) -> Iterator[Finding]:
        file = self._path / layout.REPORT
        if not file.is_file():
            yield Finding(
                "warning",
                "report",
                "There is no report: the run was killed, or its disk failed.",
                "",
                file,
            )
            return
        try:
            report = read_json(file)
        except StoreError:
            yield Finding("warning", "report", "report.json cannot be read.", "", file)
            return
        taken = (
            _number(report, "raw_frames")
            - _number(report, "raw_lost")
            - _number(report, "raw_elsewhere")
        )
        has_raw = any(name.startswith("raw") for name in self._names)
        if has_raw and taken > (there := self._exposures()):
            says = f"The report counts {taken} raw frames in the store, and {there} can be read."
            yield Finding("error", "report", says, "", file)
        if lost := _number(report, "raw_lost"):
            yield Finding("error", "lost", f"The run itself lost {lost} raw frames.", "", file)

    def _exposures(self) -> int:
        """Return how many raw frames can be read, in the images and beside them."""
        count = 0
        for image in self._images:
            if image.image.kind == "raw":
                for line in image.lines:
                    gone = {*line.get("missing", ()), *image.lost_planes(line)}
                    count += image.planes(line["t"], line["z"]).size - len(gone)
        strays = [e for e in self._log.events if e["state"] == "stray" and e["series"] == "raw"]
        return count + sum(self._frames_in(str(e.get("file"))) for e in strays)

    def _frames_in(self, name: str) -> int:
        """Return the frames of a TIFF beside the images; planes that never came are zeros."""
        if not self._stray(name):
            return 0
        try:
            found = open_recording(self._path / layout.STRAYS / Path(name).name)
        except LiveSRError:
            return 0
        found.close()
        # At most: a frame that was black cannot be told from one that never came.
        return 0 if found.damage else math.prod(found.lengths)

    def _others(self) -> Iterator[Finding]:
        if cut := cut_off(self._path):
            yield Finding("error", "rig", cut.says, _REPAIR, self._path / layout.RIG)
        elif not (self._path / layout.RIG).is_file():
            says = "The copy of rig.yaml is gone: 'livesr process' needs --rig."
            yield Finding("warning", "rig", says, "", self._path / layout.SIDECARS)
        yield from self._copies()
        events = [e for e in self._log.events if e["series"] == "sr"]
        made = {(stream_of(e), e["t"]) for e in events if e["stored"]}
        skipped = {(stream_of(e), e["t"]): e for e in events if e["state"] == "skipped"}
        left = [str(e.get("reason", "")) for place, e in skipped.items() if place not in made]
        lacking = sum(map(lacks_raw, left))
        for n, why, advice in (
            (len(left) - lacking, "", _BACKFILL),
            (lacking, ": raw frames are missing", ""),
        ):
            if n:
                says = f"{_predictions(n)} skipped{why}."
                yield Finding("note", "skipped", says, advice, self._path)

    def _copies(self) -> Iterator[Finding]:
        """Look at what lay beside the rig, and is read again by what computes from the store."""
        copies: tuple[tuple[str, Callable[[Path], object]], ...] = (
            (rig_limits.FILE, rig_limits.load_rig_limits),
            (error_bars.FILE, error_bars.load_error_bars),
        )
        for name, load in copies:
            file = contained.beneath(self._path, f"{layout.SIDECARS}/{name}")
            if not file.is_file():
                continue
            try:
                load(file)
            except ConfigError as e:
                advice = "What is computed from this store goes on without it."
                yield Finding("warning", "copy", str(e), advice, file)


def _predictions(n: int) -> str:
    return "1 prediction was" if n == 1 else f"{n} predictions were"


def _pictures(times: Sequence[int]) -> str:
    return f"{counted(len(times), 'picture')} (t = {', '.join(spans(times))})"


def _number(report: Mapping[str, Any], name: str) -> int:
    value = report.get(name, 0)
    return value if type(value) is int and value > 0 else 0


def _invalid(path: Path) -> str:
    """Return the first thing that a validator of OME-Zarr has to say, "" if nothing."""
    import yaozarrs

    try:
        yaozarrs.validate_zarr_store(str(path))
    except Exception as e:  # whatever its models and the files raise
        return str(e).strip().splitlines()[0]
    return ""
