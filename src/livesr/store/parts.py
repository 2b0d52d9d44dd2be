"""An offline run that is computed in parts, by as many processes as there are, and put together.

Owns what a part is, how one is computed, and the store that the parts become. Knows no cluster: who
computes which part, and when, is said in `livesr.store.cluster`.

A part is a span of time points that no shard of any image crosses. It is computed as a run of its
own, into a store of its own, with its neighbours in time read as well and kept out of that store.
Its shards are then files of the whole: they are moved, and no file is ever written by two.
"""

from __future__ import annotations

import hashlib
import math
import shutil
import threading
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple, Protocol, cast

from livesr.base import contained
from livesr.base.compute import ComputeConfig
from livesr.base.config import RigConfig, Step
from livesr.base.documents import parse_json, read_json, to_json
from livesr.base.errors import ConfigError, RunError, StoreError
from livesr.base.files import replace_file
from livesr.base.frames import (
    FrameErrors,
    MulticolorFrame,
    Normalisation,
    RawStack,
    SRFrame,
    Stream,
)
from livesr.base.lock import LOCK
from livesr.base.run_description import RunDescription
from livesr.base.timing import Histogram
from livesr.base.version import __version__
from livesr.formats import layout
from livesr.formats.object_store import address_of
from livesr.formats.skips import is_refused, lacks_raw
from livesr.live.audit import Audits
from livesr.live.normalise import FollowingNormalisation
from livesr.live.paths import ChannelPath, close_all
from livesr.live.recorded import Recorded
from livesr.live.run_state import Report
from livesr.live.sinks.ome_zarr import OMEZarrSink, list_images
from livesr.live.sinks.series import write_json
from livesr.store.process import build_paths, computed, manifests
from livesr.store.raw_input import RawInput, ReadAs, description, raw_input

Key = tuple[Stream, int]
Levels = dict[Key, Normalisation]

DONE = f"{layout.SIDECARS}/part.json"
"""In the store of a part: what the whole has to know of it; written last."""

TIME_POINTS = 48
"""Of a part, or more where shards ask for it: of so many, two neighbours are read in vain."""

_COUNTED = (
    "raw_frames",
    "raw_missing",
    "groups",
    "groups_incomplete",
    "recon_frames",
    "recon_doubtful",
    "recon_refused",
    "sr_frames",
)
_INNER, _TRUE = "sr_inner", "sr_true_neighbours"
_OF_A_PART = ("error_map", "score", "audits", "dose", "dose_line", _INNER, _TRUE)
"""In the report of a part, and not in that of the whole: each frame's line says it."""
_OWN = (layout.FRAMES_LOG, layout.REPORT, layout.IMAGES, DONE, f"{layout.SIDECARS}/{LOCK}")


_NO_AUDITS = (
    "What is computed in parts is not scored beside the true channels of audits, which lie in other"
    " parts: 'livesr process' without --cluster scores it."
)


class Part(NamedTuple):
    """Time points from `first` on and before `end`, of one position or of all (None)."""

    first: int
    end: int
    position: int | None = None

    @property
    def name(self) -> str:
        """As its folder is called."""
        where = "" if self.position is None else f"-p{self.position}"
        return f"t{self.first:08d}-{self.end:08d}{where}"

    def __str__(self) -> str:
        where = "" if self.position is None else f" of position {self.position}"
        return f"time points {self.first} to {self.end - 1}{where}"

    def has(self, stream: Stream, t: int) -> bool:
        """Whether a frame is one of its own."""
        return self.first <= t < self.end and self.position in (None, stream.position)


@dataclass(frozen=True, slots=True)
class Job:
    """What every part of one run is computed from and with; it travels to whoever computes.

    Attributes
    ----------
    source : the recording, by a path that is the same for all
    rig, engine, upscale, how, raw, localiser : as of `raw_input`
    compute : how
    record_raw, record_recon : whether raw frames and reconstructions are stored
    folder : where parts are written
    stream_id : of the run
    livesr : version; every process must have this one
    """

    source: Path
    rig: RigConfig | None
    engine: str | None
    upscale: str | None
    how: ReadAs
    compute: ComputeConfig
    record_raw: bool
    record_recon: bool
    folder: Path
    stream_id: str = field(default_factory=lambda: uuid.uuid4().hex)
    livesr: str = __version__
    raw: Mapping[Step, str | None] = field(default_factory=dict)
    localiser: str | None = None

    @property
    def digest(self) -> str:
        """Of all that the pictures depend on; parts of another do not go with these."""
        said = {
            "source": str(self.source),
            "rig": None if self.rig is None else self.rig.model_dump(mode="json"),
            "engines": [
                self.engine,
                self.upscale,
                self.localiser,
                *sorted(f"{k}={v}" for k, v in self.raw.items() if v),
            ],
            "how": asdict(self.how),
            "compute": self.compute.model_dump(mode="json"),
            "kept": [self.record_raw, self.record_recon],
            "livesr": self.livesr,
        }
        return hashlib.sha256(to_json(said).encode()).hexdigest()

    def place(self, part: Part) -> Path:
        """Return the folder of a part that is done."""
        return self.folder / part.name

    def open(self) -> Opened:
        """Open the recording and build the steps of every channel.

        Raises
        ------
        UsageError
            If the recording, the rig, the engine or the runtime cannot work here.
        """
        if address_of(self.source) is None and not self.source.exists():
            raise StoreError(
                f"{self.source} is not there: every worker must see the recording, and the folder"
                " of the result, under the same path."
            )
        raw = raw_input(
            self.source, self.rig, self.engine, self.upscale, self.how, self.raw, self.localiser
        )
        try:
            paths, notes = build_paths(raw, self.compute)
        except BaseException:
            raw.close()
            raise
        return Opened(raw, paths, notes)


@dataclass(frozen=True, slots=True)
class Opened:
    """A job as one process has it open, for one part after the other."""

    raw: RawInput
    paths: Mapping[str, ChannelPath]
    notes: Sequence[str]

    def close(self) -> None:
        """Close its networks and files."""
        close_all(self.paths)
        self.raw.close()

    def run(self, job: Job) -> RunDescription:
        """Describe the whole run."""
        sidecars = {**self.raw.run.get("sidecars", {}), **manifests(self.paths)}
        channels = [path.description for path in self.paths.values()]
        return replace(
            description(self.raw, channels, sidecars=sidecars, stream_id=job.stream_id),
            record_raw=job.record_raw,
            record_recon=job.record_recon,
        )


# -- which parts there are -------------------------------------------------------------------------


def parts_of(opened: Opened, job: Job, time_points: int | None = None) -> list[Part]:
    """Return the parts of a run, in order.

    Whole positions where a picture is made of all groups before it, or seen with earlier ones; the
    whole run where sums of channels follow from frame to frame.
    """
    there, run = opened.raw.there(), opened.run(job)
    if not there:
        return []
    end = max(t for _, t in there) + 1
    if any(
        path.accumulates or path.description.localises or path.networks.beside
        for path in opened.paths.values()
    ):
        return [Part(0, end, p) for p in sorted({s.position for s, _ in there})]
    if run.channels and any(c.parts for c in run.channels) and unmeasured(opened.raw):
        return [Part(0, end)]
    lengths = {
        spec.time_points_per_shard
        for position, channel in run.places
        for spec in layout.series_specs(run, position, channel).values()
    }
    together = math.lcm(*lengths, 1)
    step = together * max(-(-(time_points or TIME_POINTS) // together), 1)
    return [Part(first, min(first + step, end)) for first in range(0, end, step)]


def unmeasured(raw: RawInput) -> set[Key]:
    """Return the groups of which nobody has said what they are normalised with: their levels are
    measured first, and followed through the whole run.
    """
    return {key for key, complete in raw.there().items() if complete} - raw.normalisations.keys()


def followed(raw: RawInput, measured: Levels) -> Levels:
    """Return what every frame is normalised with, of those that were `measured` now: as a run from
    the first frame to the last has it.
    """
    streams: dict[Stream, FollowingNormalisation] = {}
    made: Levels = {}
    for stream, t in sorted(measured.keys() | raw.normalisations.keys(), key=lambda key: key[1]):
        following = streams.setdefault(stream, FollowingNormalisation())
        if recorded := raw.normalisations.get((stream, t)):
            following.resume(*recorded)
        else:
            made[stream, t] = Normalisation(*following.update(*measured[stream, t]))
    return made


# -- one part --------------------------------------------------------------------------------------


def measure(opened: Opened, job: Job, part: Part) -> Levels:
    """Return the levels of the frames of a part; the network sees none, and nothing is stored."""
    found: Levels = {}

    def heard(stream: Stream, t: int, levels: Normalisation) -> None:
        if part.has(stream, t):
            found[stream, t] = levels

    recorded = Recorded({}, opened.raw.pattern_drifts, wanted=lambda stream, t: False, levels=heard)
    run = replace(opened.run(job), record_raw=False, record_recon=False)
    first, end = _with_neighbours(opened.raw, part, 1)
    computed(opened.paths, run, [], recorded, opened.raw.between(first, end), Report)
    return found


def compute(opened: Opened, job: Job, part: Part, normalisations: Levels) -> Report:
    """Compute a part, and put its store in its place; return its report.

    Whatever ends it, half of a part is in no place.

    Raises
    ------
    RunError
        If a frame of it could not be computed.
    """
    if job.place(part).is_dir():  # by another, that was thought to be dead
        return cast("Report", read_json(job.place(part) / DONE)["report"])
    margin = 1
    while True:
        attempt = job.folder / f"try-{part.name}-{uuid.uuid4().hex[:12]}"
        sink = _PartSink(attempt, part)
        first, end = _with_neighbours(opened.raw, part, margin)
        try:
            report = _computed(opened, job, sink, normalisations, first, end)
            if _lacks_neighbour(opened, sink, first, end):  # those that were read show nothing
                margin *= 2
                continue
            about = {"names": sink.names, "part": list(part), "report": dict(report)}
            write_json(attempt / DONE, about)
            _put(attempt, job.place(part))
            return report
        finally:
            shutil.rmtree(attempt, ignore_errors=True)


def _computed(
    opened: Opened, job: Job, sink: _PartSink, normalisations: Levels, first: int, end: int
) -> Report:
    raw = opened.raw
    report = computed(
        opened.paths,
        opened.run(job),
        [sink],
        Recorded({**raw.normalisations, **normalisations}, raw.pattern_drifts, sink.part.has),
        raw.between(first, end),
        lambda: Report(store=str(sink.path), publish=None, offline=True),
    )
    if sink.failures:
        raise RunError(
            f"{sum(sink.failures.values())} frames of {sink.part} have no prediction:"
            f" {'; '.join(sink.failures)}."
        )
    notes = [*raw.notes, *raw.remarks(), *opened.notes, *report["warnings"]]
    if Audits(raw.rig, None, raw.cameras).channels:
        notes.append(_NO_AUDITS)
    return cast("Report", {**report, **sink.own, "warnings": notes})


def _with_neighbours(raw: RawInput, part: Part, margin: int) -> tuple[int, int]:
    """Return the time points to read: of every stream, `margin` complete groups more on a side."""
    before: dict[Stream, list[int]] = {}
    after: dict[Stream, list[int]] = {}
    for (stream, t), complete in raw.there().items():
        if complete and part.position in (None, stream.position):
            if t < part.first:
                before.setdefault(stream, []).append(t)
            elif t >= part.end:
                after.setdefault(stream, []).append(t)
    first = min((sorted(times)[-margin:][0] for times in before.values()), default=part.first)
    last = max((sorted(times)[:margin][-1] for times in after.values()), default=part.end - 1)
    return first, last + 1


def _lacks_neighbour(opened: Opened, sink: _PartSink, first: int, end: int) -> bool:
    """Whether a stream that has groups beyond what was read showed none of those beside the part:
    they were refused, or are not in the file, and the next must be looked at.
    """
    part = sink.part
    beyond: dict[Stream, set[bool]] = {}
    for (stream, t), complete in opened.raw.there().items():
        if complete and part.position in (None, stream.position) and not first <= t < end:
            beyond.setdefault(stream, set()).add(t < first)
    return any(
        (side, stream) not in sink.beside for stream, sides in beyond.items() for side in sides
    )


class _PartSink(OMEZarrSink):
    """Stores the frames of a part as if its first time point was the run's.

    Attributes
    ----------
    own : counts of the frames that are the part's own, as in a report
    beside : streams that had a measurement before (True) or behind (False) the part
    failures : why frames have no prediction, and how many
    """

    def __init__(self, path: Path, part: Part) -> None:
        super().__init__(path)
        self.part = part
        self.own = dict.fromkeys((*_COUNTED, _INNER, _TRUE), 0)
        self.beside: set[tuple[bool, Stream]] = set()
        self.failures: dict[str, int] = {}
        self.names: list[str] = []
        self._neighbours = 0

    def open(self, run: RunDescription) -> None:
        """Create the store; errors as of `OMEZarrSink.open`."""
        self.names = [
            spec.name
            for position, channel in run.places
            for spec in layout.series_specs(run, position, channel).values()
        ]
        super().open(run)

    def raw(self, stack: RawStack) -> None:
        """Store a raw group."""
        came = len(stack.came)
        if not self.part.has(stack.stream, stack.t):
            self._neighbours += came
            return
        self._count(raw_frames=came, raw_missing=len(stack.frames) - came)
        self._count(**{"groups" if stack.complete else "groups_incomplete": 1})
        super().raw(replace(stack, t=stack.t - self.part.first))

    def finish(self) -> None:
        """Finish the images; `raw_kept` counts what was only read beside as kept."""
        super().finish()
        if self.raw_kept is not None:
            self.raw_kept, self._neighbours = self.raw_kept + self._neighbours, 0

    def unplaced(self, stack: RawStack) -> None:
        """Keep raw frames that no image can hold."""
        if self.part.has(stack.stream, stack.t):
            super().unplaced(replace(stack, t=stack.t - self.part.first))

    def recon(self, frame: SRFrame) -> None:
        """Store a measurement."""
        if not self.part.has(frame.stream, frame.t):
            self.beside.add((frame.t < self.part.first, frame.stream))
            return
        self._count(recon_frames=1, recon_doubtful=bool(frame.quality and frame.quality.doubt))
        super().recon(self._moved(frame))

    def updated(self, frame: SRFrame) -> None:
        """Store a measurement of a group under way."""
        if self.part.has(frame.stream, frame.t):
            super().updated(self._moved(frame))

    def separated(self, frame: MulticolorFrame) -> None:
        """Store a prediction."""
        if self.part.has(frame.stream, frame.t):
            self._count(sr_frames=1, sr_inner=not frame.edge)
            self._count(sr_true_neighbours=frame.true_neighbours and not frame.edge)
            super().separated(replace(frame, source=self._moved(frame.source)))

    def errors(self, frame: FrameErrors) -> None:
        """Store a comparison with widefield."""
        if self.part.has(frame.source.stream, frame.source.t):
            super().errors(replace(frame, source=self._moved(frame.source)))

    def skipped(self, stream: Stream, t: int, reason: str) -> None:
        """Note that a time point has no prediction."""
        if not self.part.has(stream, t):
            return
        self._count(recon_refused=is_refused(reason))
        if not lacks_raw(reason):
            self.failures[reason] = self.failures.get(reason, 0) + 1
        super().skipped(stream, t - self.part.first, reason)

    def _moved(self, frame: SRFrame) -> SRFrame:
        return replace(frame, t=frame.t - self.part.first)

    def _count(self, **more: int) -> None:
        for name, n in more.items():
            self.own[name] += n


def _put(attempt: Path, place: Path) -> None:
    """Move a part to its place, unless another was faster."""
    try:
        attempt.rename(place)
    except OSError:
        if not place.is_dir():
            raise


# -- one process, many parts -----------------------------------------------------------------------


class Openable(Protocol):
    """What a worker is sent to compute with: `Job`, or another."""

    @property
    def digest(self) -> str:
        """Tells it from others: what is open for one part is used for the next with the same."""

    @property
    def livesr(self) -> str:
        """Version that every process must have."""

    def open(self) -> Opened:
        """Open the recording and build the steps of every channel."""


_lock = threading.Lock()
_idle: list[tuple[str, Opened]] = []


def on_worker(
    job: Job, part: Part, normalisations: Levels | None
) -> tuple[Levels | None, dict[str, Any]]:
    """Do one part in this process: measure its levels (`normalisations` is None), or compute it.

    Returns
    -------
    levels, None of a part that was computed; and its report
    """
    with kept_open(job) as opened:
        if normalisations is None:
            return measure(opened, job, part), {}
        return None, dict(compute(opened, job, part, normalisations))


@contextmanager
def kept_open(job: Openable) -> Iterator[Opened]:
    """Open a job for one part; it stays open in this process for the next.

    Raises
    ------
    ConfigError
        If this process has another version of livesr.
    """
    refuse_other_version(job.livesr)
    opened = _taken(job)
    try:
        yield opened
    finally:
        with _lock:
            _idle.append((job.digest, opened))


def refuse_other_version(livesr: str) -> None:
    """Raise ConfigError if whoever sent the work has another version of livesr."""
    if livesr != __version__:
        raise ConfigError(
            f"This worker has livesr {__version__}, and the run is of {livesr}: install the"
            " same version on every worker."
        )


def close_idle(but: str = "") -> None:
    """Close what this process has open of jobs, but for the one with the digest `but`."""
    with _lock:
        left = [opened for digest, opened in _idle if digest != but]
        _idle[:] = [one for one in _idle if one[0] == but]
    for opened in left:
        opened.close()


def _taken(job: Openable) -> Opened:
    digest = job.digest
    close_idle(but=digest)
    with _lock:
        if _idle:
            return _idle.pop()[1]
    return job.open()


# -- the whole -------------------------------------------------------------------------------------


def put_together(job: Job, parts: Sequence[Part], whole: Path, report: Mapping[str, Any]) -> None:
    """Make one store of the parts, in `whole`, beside them.

    Files are moved: whatever ends it, calling it again goes on.

    Raises
    ------
    StoreError
        If a part is not what it was when it was done.
    """
    whole.mkdir(exist_ok=True)
    images: dict[str, _Whole] = {}
    order: list[str] = []
    lines: list[str] = []
    for part in parts:
        root = job.place(part)
        order += [n for n in read_json(root / DONE)["names"] if n not in order]
        lines += _moved_lines(root, part)
        _copy_missing(root, whole)
        for name in read_json(root / "OME" / "zarr.json")["attributes"]["ome"]["series"]:
            images.setdefault(name, _Whole(root / name)).add(root / name, part)
        _move_tree(root / layout.STRAYS, whole / layout.STRAYS, f"{part.name}_")
    names = [name for name in order if name in images]
    for name in names:
        images[name].write(whole / name)
    contained.replace_bytes(whole, layout.FRAMES_LOG, "".join(lines).encode())
    list_images(whole, names)
    write_json(whole / layout.REPORT, dict(report))


def merged(reports: Sequence[Mapping[str, Any]], seconds: float) -> Report:
    """Return the report of a run from those of its parts.

    Counts are added; of times, p50 is the middle of the parts' and p99 the largest.
    """
    first = reports[0]
    made: dict[str, Any] = dict(first)
    for name in _COUNTED:
        made[name] = sum(int(report.get(name, 0)) for report in reports)
    made["warnings"] = list(dict.fromkeys(w for report in reports for w in report["warnings"]))
    made["sr_fps"] = round(made["sr_frames"] / max(seconds, 1e-9), 2)
    made["latency_ms"] = Histogram().summary()
    inner, true = (sum(report[name] for report in reports) for name in (_INNER, _TRUE))
    made["tc_complete"] = round(true / inner, 4) if inner else 1.0
    for name in _OF_A_PART:
        made.pop(name, None)
    for name in ("raw_stored", "raw_elsewhere"):
        if name in first:
            made[name] = sum(report[name] for report in reports)
    steps = {step for report in reports for step in report["steps_ms"]}
    made["steps_ms"] = {step: _times(reports, step) for step in sorted(steps)}
    made["parts"] = len(reports)
    return cast("Report", made)


def _times(reports: Sequence[Mapping[str, Any]], step: str) -> dict[str, float]:
    of_parts = [r["steps_ms"][step] for r in reports if step in r["steps_ms"]]
    middle = sorted(times["p50"] for times in of_parts)
    return {
        "p50": middle[len(middle) // 2],
        "p99": max(times["p99"] for times in of_parts),
        "mean": round(sum(times["mean"] for times in of_parts) / len(of_parts), 3),
    }


class _Whole:
    """One image of the whole, from those of its parts."""

    def __init__(self, first: Path) -> None:
        self._group, self._array = read_json(first / "zarr.json"), read_json(first / "0/zarr.json")
        said = self._group["attributes"]["livesr"]
        self._exposures = int(said.get("exposures", 1))
        self._shard = self._array["chunk_grid"]["configuration"]["chunk_shape"][0]
        self._length = 0
        self._moves: list[tuple[Path, int]] = []

    def add(self, image: Path, part: Part) -> None:
        """Append the image of a later part."""
        planes = read_json(image / "0" / "zarr.json")["shape"][0]
        first = part.first * self._exposures
        self._length = max(self._length, first + planes)
        if first % self._shard:
            raise StoreError(f"{image} begins within a shard of the whole.")
        self._moves.append((image / "0" / "c", first // self._shard))
        shown = read_json(image / "zarr.json")["attributes"]["ome"].get("omero")
        if shown:  # the last says how bright pictures are in the end
            self._group["attributes"]["ome"]["omero"] = shown

    def write(self, folder: Path) -> None:
        """Write metadata, and move the shards of every part to their numbers."""
        (folder / "0").mkdir(parents=True, exist_ok=True)
        self._array["shape"][0] = self._length
        write_json(folder / "zarr.json", self._group)
        write_json(folder / "0" / "zarr.json", self._array)
        for chunks, first in self._moves:
            for shard in sorted(chunks.iterdir()) if chunks.is_dir() else ():
                target = folder / "0" / "c" / str(int(shard.name) + first)
                target.parent.mkdir(parents=True, exist_ok=True)
                shard.rename(target)


def _moved_lines(root: Path, part: Part) -> Iterator[str]:
    """Yield the lines of a part's frames.jsonl with the whole's time points."""
    text = contained.read_bytes(root, layout.FRAMES_LOG)
    for line in text.splitlines():
        about = parse_json(line, str(root / layout.FRAMES_LOG))
        about["t"] += part.first
        if file := about.get("file"):
            folder, _, name = str(file).rpartition("/")
            about["file"] = f"{folder}/{part.name}_{name}"
        yield to_json(about) + "\n"


def _copy_missing(root: Path, whole: Path) -> None:
    """Copy what lies beside the images, as far as it is not there."""
    for file in [*(root / layout.SIDECARS).iterdir(), root / "zarr.json"]:
        name = file.relative_to(root).as_posix()
        if file.is_file() and name not in _OWN and not (whole / name).exists():
            (whole / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, whole / name)
    for file in root.glob("localisations*.csv"):
        shutil.copyfile(file, whole / file.name)


def _move_tree(here: Path, there: Path, prefix: str) -> None:
    for file in sorted(here.iterdir()) if here.is_dir() else ():
        there.mkdir(parents=True, exist_ok=True)
        replace_file(file, there / f"{prefix}{file.name}")
