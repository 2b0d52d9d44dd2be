"""What a live run skipped, computed afterwards from raw, in place.

Owns the choice of what is to be computed and its way into arrays that are finished. What is
computed takes the way of a live run, in `livesr.live.pipeline`.

A prediction is computed if there is none, or if it was made while a frame before or after it was
missing that raw has, or with one that raw has lost since: the finished store equals an offline run
of its raw. A reconstruction is computed if the run dropped its raw group, or a group that it looks
back to, as the running image of STORM does. frames.jsonl is the journal: a line is written when the
shard that holds the picture has taken its place, so a backfill that is killed is resumed by
starting it again, and what was under way is computed once more. Raw is only read.
"""

from __future__ import annotations

import math
import shutil
import threading
from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from numpy.typing import NDArray

from livesr.base import contained
from livesr.base.compute import AUTO, ComputeConfig
from livesr.base.config import FLAGS, Step
from livesr.base.errors import ConfigError, EngineError, RunError, StoreError
from livesr.base.files import path_of
from livesr.base.frames import MulticolorFrame, SRFrame, Stream
from livesr.base.lock import Lock
from livesr.base.progress import Progress, Stop
from livesr.base.run_description import RunDescription
from livesr.formats import layout
from livesr.formats.frames_log import Event, SeriesName, State
from livesr.formats.store import Image, RecordedStore, array_shape
from livesr.live.inference.engine import load_engine
from livesr.live.keeping_up import COMPLETE
from livesr.live.paths import ChannelPath, close_all
from livesr.live.pipeline import Pipeline
from livesr.live.recorded import Recorded
from livesr.live.sinks.frames_log import FramesLog
from livesr.live.sinks.localisations import replace_frames
from livesr.live.sinks.sink import (
    Sink,
    clipped_pixels,
    depth_to_uint16,
    measured_facts,
    predicted_facts,
    to_uint16,
)
from livesr.live.sources.replay import feed
from livesr.store.levels import drop_levels
from livesr.store.mended_log import drop_unfinished_line
from livesr.store.process import build_paths, refuse_residual_plane
from livesr.store.raw_input import RawInput, description, frames_of, read_stacks, store_input
from livesr.store.shards import replace_planes

Key = tuple[Stream, int]
SCRATCH = "backfill"
ESTIMATES: tuple[SeriesName, ...] = ("uncertainty", "limits")  # of a prediction, made with it
_GROUPS_ON_THEIR_WAY = 8


@dataclass(frozen=True, slots=True)
class Todo:
    """What is to be computed for one position and channel.

    Attributes
    ----------
    predict : time points for the network
    measure : time points whose reconstruction the run did not make or keep
    read : raw groups that are needed for it, in the order of reading
    impossible : time points without a prediction whose exposures are not complete
    """

    position: int
    channel: str
    predict: frozenset[Key]
    measure: frozenset[Key]
    read: tuple[Key, ...]
    impossible: int


def plan(
    store: RecordedStore, window: Mapping[str, int], looks_back: Mapping[str, float] | None = None
) -> list[Todo]:
    """Return what is to be computed, for every position and channel with something to do or
    something impossible.

    Parameters
    ----------
    window : frames that the engine of each separated channel looks at
    looks_back : groups before its own that a picture of each accumulating channel is made of
    """
    todos = [
        _todo(store, position, channel, window.get(channel, 0), (looks_back or {}).get(channel))
        for position in range(len(store.positions))
        for channel in store.channels
    ]
    return [todo for todo in todos if todo.read or todo.impossible]


def backfill(
    path: Path,
    *,
    engine: str | None = None,
    upscale: str | None = None,
    compute: ComputeConfig = AUTO,
    stopped: threading.Event | None = None,
    on_progress: Progress = lambda done, total: None,
) -> dict[str, Any]:
    """Complete the store at `path`; return what was done.

    Smaller levels of an image that is written to are taken away before: `livesr.store.levels`
    makes them again.

    Parameters
    ----------
    engine, upscale : folders of the engines that the store was separated and enlarged with, if not
        found by name
    stopped : ends it early once it is set; what was computed until then is kept, and the report
        says how much is ``left``
    on_progress : called with predictions and reconstructions done and in all

    Raises
    ------
    StoreError
        If the store has no raw frames, needs a repair first, or is being recorded, repaired or
        completed.
    EngineError
        If the engine is not the one that made the other predictions.
    RunError
        If a frame could not be computed or written; what was done until then is kept.
    """
    path = path_of(path, "The store")
    with locked(path):
        return _backfill(
            RecordedStore(path),
            {"separate": engine, "upscale": upscale},
            compute,
            on_progress,
            stopped or threading.Event(),
        )


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Keep a store for whoever completes it; errors as of `backfill`."""
    sidecars = Path(path) / layout.SIDECARS
    if not sidecars.is_dir():
        RecordedStore(path)  # says what is wrong with it
    contained.refuse_links(
        Path(path), writing=True
    )  # before the lock, which is written into a folder that may be one
    try:
        with Lock(sidecars, "backfill"):
            if not contained.beneath(Path(path), layout.FRAMES_LOG).is_file():
                raise StoreError(
                    f"{path} has no {layout.FRAMES_LOG}, so what its run skipped is not known:"
                    f" 'livesr repair {path}' writes one of the pictures that are there."
                )
            remove_scratch(path)  # of one that was killed
            yield
    except OSError as e:
        raise RunError(
            f"{path} cannot be completed: {e.strerror or e}. Look after the disk and start again."
        ) from e


def remove_scratch(path: Path) -> None:
    """Remove what was being written in a store that is locked."""
    for left in (Path(path) / layout.SIDECARS).glob(f"{SCRATCH}*"):
        shutil.rmtree(left, ignore_errors=True)


def _backfill(
    store: RecordedStore,
    engines: Mapping[Step, str | None],
    compute: ComputeConfig,
    on_progress: Progress,
    stopped: threading.Event,
) -> dict[str, Any]:
    """Complete a store that is locked."""
    raw, paths, notes = opened(store, engines, compute)
    try:
        todos = todos_of(store, paths)
        progress = Counted(todos, on_progress)
        failures: Counter[str] = Counter()
        for todo in todos:
            if todo.read and not stopped.is_set():
                fill(store, raw, paths, todo, progress.step, failures, stopped)
    finally:
        close_all(paths)
    refuse_failures(failures)
    return report_of(
        store, todos, progress, [*notes, *(n for p in paths.values() for n in p.notes)]
    )


def opened(
    store: RecordedStore, engines: Mapping[Step, str | None], compute: ComputeConfig
) -> tuple[RawInput, dict[str, ChannelPath], list[str]]:
    """Return the raw frames of a store that is locked, the steps of its channels, and remarks.

    Raises
    ------
    UsageError
        If something else is asked for than the store was made with, or cannot work.
    """
    refuse_residual_plane(compute)
    _refuse_error_map(compute)
    _check_lengths(store)
    raw = read_input(store, engines)
    _check_views(store, raw, compute)
    drop_unfinished_line(store.path / layout.FRAMES_LOG)
    paths, notes = build_paths(raw, compute)
    try:
        _check_pixels(store, paths)
    except ConfigError:
        close_all(paths)
        raise
    return raw, paths, notes


def todos_of(store: RecordedStore, paths: Mapping[str, ChannelPath]) -> list[Todo]:
    """Return what is to be computed with these steps.

    Raises
    ------
    ConfigError
        If a step needs frames of other channels.
    """
    _refuse_companions(paths)
    return plan(
        store,
        {name: p.networks.window for name, p in paths.items() if p.networks.engine},
        {name: p.history for name, p in paths.items() if p.accumulates},
    )


def refuse_failures(failures: Mapping[str, int]) -> None:
    """Raise RunError if there is a reason why frames could not be computed."""
    if failures:
        raise RunError(
            f"{sum(failures.values())} frames could not be computed: {'; '.join(failures)}."
        )


def report_of(
    store: RecordedStore, todos: Sequence[Todo], done: Counted, warnings: Sequence[str]
) -> dict[str, Any]:
    """Return what `backfill` returns."""
    return {
        "store": str(store.path),
        "predicted": done.made["sr"],
        "reconstructed": done.made["recon"],
        "left": done.left,
        "impossible": sum(t.impossible for t in todos),
        "warnings": list(warnings),
    }


def read_input(store: RecordedStore, folders: Mapping[Step, str | None]) -> RawInput:
    """Describe the store's raw.

    With other folders for its engines, by task, which must be the same engines.
    """
    for task, folder in folders.items():
        for channel in store.channels if folder else ():
            _check_same(store, store.models(channel).get(task), str(folder), task)
    return store_input(store, engine=folders["separate"], upscale=folders["upscale"])


def _refuse_error_map(compute: ComputeConfig) -> None:
    if compute.error_map:
        raise ConfigError(
            f"error_map is {compute.error_map!r}, and a backfill adds what is missing of the frames"
            " that the run skipped: 'livesr process STORE --error-map"
            f" {compute.error_map}' compares every frame, in a store of its own."
        )


def _refuse_companions(paths: Mapping[str, ChannelPath]) -> None:
    for path in paths.values():
        if other := path.networks.beside:
            raise ConfigError(
                f"Predictions of channel {path.name!r} are made with the frames of {other!r} that"
                " came before, which a backfill does not read: 'livesr process STORE' computes"
                " every frame, in a store of its own."
            )


def _check_views(store: RecordedStore, raw: RawInput, compute: ComputeConfig) -> None:
    """Refuse views of the frames other than those that the store was predicted from."""
    separated = {channel for kind, _, channel in store.images if kind == "sr"}
    for what, asked, views in (
        ("uncertainty", compute.uncertainty, raw.uncertainty),
        ("ensemble", compute.ensemble, raw.ensemble),
    ):
        for channel in sorted(separated) if asked else ():
            if (there := views.get(channel, "off")) != asked:
                has = "has none" if there == "off" else f"has that from {there}"
                wanted = f"No {what}" if asked == "off" else f"{what.capitalize()} from {asked}"
                raise ConfigError(
                    f"{wanted} is asked for, and {store.path} {has}: one"
                    f" store, one way. 'livesr process {store.path} --{what} {asked}' makes a store"
                    " of its own."
                )


def _check_pixels(store: RecordedStore, paths: Mapping[str, ChannelPath]) -> None:
    """Refuse to predict on other pixels than those that the store was predicted on."""
    for channel, path in paths.items():
        before = store.provenance(channel).get("runtime", {}).get("pixel_size_nm")
        now = path.networks.session.resampled_nm if path.networks.session else None
        if before == now or (before and now and math.isclose(before, now, rel_tol=1e-6)):
            continue
        been, are = (f"brought to {nm:.4g} nm" if nm else "as they came" for nm in (before, now))
        raise ConfigError(
            f"{store.path} was predicted from frames {been}, and those of channel {channel!r} would"
            f" be seen {are}: one store, one way. Leave out --resample, or let 'livesr process"
            f" {store.path}' make a store of its own."
        )


def _check_same(
    store: RecordedStore, model: Mapping[str, Any] | None, folder: str, task: Step
) -> None:
    sha256 = load_engine(folder).manifest.sha256
    if model and model["sha256"] != sha256:
        flag = FLAGS[task]
        raise EngineError(
            f"The store was predicted by {model['id']!r} with weights {model['sha256'][:12]}...,"
            f" and {folder} has {sha256[:12]}...: one store, one engine. 'livesr process"
            f" {store.path} {flag} {folder}' makes a store of its own."
        )


def _todo(
    store: RecordedStore, position: int, channel: str, window: int, looks_back: float | None
) -> Todo:
    def here(keys: Mapping[Key, Any]) -> dict[Key, Any]:
        return {
            k: v for k, v in keys.items() if (k[0].position, k[0].channel) == (position, channel)
        }

    def made(keys: Mapping[Key, Event]) -> dict[Key, Event]:
        """Leave out what a repair found without a line: nothing is known of how it was made."""
        return {k: v for k, v in here(keys).items() if not v.get("repaired")}

    parts = tuple(store.superposed.get(channel, {}).get("channels", ()))
    stored, measured = (
        here(_summed(store, channel, parts) if parts else store.pictures("raw")),
        here(store.measured()),
    )
    usable = ("raw",) if looks_back is None else ("raw", "raw_incomplete")
    there = {key for key, line in stored.items() if line["state"] in usable}
    live = set(here(store.measured(live=True)))
    kept = (
        made(store.pictures("recon")) if ("recon", position, channel) in store.images else measured
    )
    outdated = _within(there - live, there, 1, looks_back or 0)
    measure = there - kept.keys()
    if ("recon", position, channel) in store.images:
        measure |= {key for key in outdated & live if not measured[key].get("backfilled")}
    separated = made(store.pictures("sr"))
    estimated = [
        made(store.pictures(kind))
        for kind in ESTIMATES
        if (kind, position, channel) in store.images
    ]
    predict: set[Key] = set()
    if window and ("sr", position, channel) in store.images:
        predict = {
            key
            for key in there
            if key not in separated
            or any(key not in pictures for pictures in estimated)
            or _saw_what_is_lost(separated[key], key, there, window)
            or not (
                separated[key].get("backfilled")
                or _neighbours(key, window) & there | {key} <= live - outdated
            )
        }
    read = (
        measure | predict | beside(measure, there, after=False) | beside(predict, there, after=True)
    )
    read |= _within(read, there, -(looks_back or 0), -1)
    impossible = {
        k
        for k in stored.keys() | measured.keys()
        if window and k not in there and k not in separated
    }
    if parts:
        read = {(stream._replace(channel=part), t) for stream, t in read for part in parts}
    ordered = tuple(sorted(read, key=lambda key: (key[1], key[0])))
    return Todo(position, channel, frozenset(predict), frozenset(measure), ordered, len(impossible))


def _summed(store: RecordedStore, name: str, parts: Sequence[str]) -> dict[Key, Event]:
    """Return a line about every time point whose true channels are all there.

    The worst of theirs.
    """
    lines: dict[Key, list[Event]] = {}
    for (stream, t), line in store.pictures("raw").items():
        if stream.channel in parts:
            lines.setdefault((stream._replace(channel=name), t), []).append(line)
    worst = {
        key: max(found, key=lambda line: line["state"] != "raw") for key, found in lines.items()
    }
    return {key: line for key, line in worst.items() if len(lines[key]) == len(parts)}


def _neighbours(key: Key, window: int) -> set[Key]:
    stream, t = key
    return {(stream, t - 1), (stream, t + 1)} if window == 3 else set()


def _saw_what_is_lost(line: Event, key: Key, there: Set[Key], window: int) -> bool:
    """Whether a prediction was made with a neighbour in time that raw does not have any more, after
    a kill or damage.
    """
    saw_both = line.get("true_neighbours", False) and not line.get("edge", False)
    return saw_both and not _neighbours(key, window) <= there


def _within(keys: Set[Key], there: Set[Key], first: float, last: float) -> set[Key]:
    """Return those of `there` that lie `first` to `last` time points behind one of `keys`."""
    if first > last:
        return set()
    of: defaultdict[Stream, list[int]] = defaultdict(list)
    for stream, t in sorted(keys, key=lambda key: key[1]):
        of[stream].append(t)

    def near(stream: Stream, t: int) -> bool:
        """Whether a key of the stream lies so far before `t`, or behind it."""
        at = bisect_left(of[stream], t - last)
        return at < len(of[stream]) and of[stream][at] <= t - first

    return {(stream, t) for stream, t in there if near(stream, t)}


def beside(keys: Set[Key], there: Set[Key], *, after: bool) -> set[Key]:
    """Return the frame before each key, from whose normalisation its own follows, and the one
    `after` it.

    However far away: the pipeline tells a gap from the end of a series by the frame beyond it.
    """
    found: set[Key] = set()
    ordered = sorted(there)
    for earlier, later in pairwise(ordered):
        if earlier[0] == later[0]:
            found |= {earlier} if later in keys else set()
            found |= {later} if after and earlier in keys else set()
    return found


def fill(
    store: RecordedStore,
    raw: RawInput,
    paths: Mapping[str, ChannelPath],
    todo: Todo,
    step: Callable[[SeriesName], None],
    failures: Counter[str],
    ended: threading.Event,
    log: Path | None = None,
) -> None:
    """Compute what one position and channel lacks, until it is `ended`.

    Parameters
    ----------
    raw, paths : of the store
    step : told of every picture that is done
    failures : why pictures could not be computed; counted up
    log : file that lines are appended to, instead of the store's frames.jsonl
    """
    journal = log or store.path / layout.FRAMES_LOG
    sink, stopped = _FillSink(store, todo, step, failures, ended, journal), Stop(ended)
    paths = {name: paths[name] for name in (*paths[todo.channel].parts, todo.channel)}
    wanted = todo.predict
    pipeline = Pipeline(
        paths,
        description(raw, [path.description for path in paths.values()]),
        [sink],
        replace(COMPLETE, raw_queue_bytes=_queue_bytes(store, todo)),
        recorded=Recorded(
            raw.normalisations,
            raw.pattern_drifts,
            # Where feeding ends early the last frame is no end of a series, and must not be
            # predicted as one.
            wanted=lambda stream, t: (stream, t) in wanted and not stopped.is_set(),
        ),
        on_stop=stopped.set,
    )
    pipeline.open()
    try:
        feed(pipeline.hook, frames_of(read_stacks(store, todo.read)), stopped)
    except BaseException:
        stopped.set()
        raise
    finally:
        pipeline.end()
        pipeline.join()
    if pipeline.error:
        raise pipeline.error


def _queue_bytes(store: RecordedStore, todo: Todo) -> int:
    """Return the memory of a few groups: what is on its way when it is to end is computed still."""
    largest = 0
    for channel in {stream.channel for stream, _ in todo.read}:
        image = store.images["raw", todo.position, channel]
        length = array_shape(image.array, image.exposures).length
        planes = length.get("c", 1) * image.exposures
        pixel = np.dtype(array_shape(image.array).dtype).itemsize
        largest = max(largest, planes * length["y"] * length["x"] * pixel)
    return min(_GROUPS_ON_THEIR_WAY * largest, COMPLETE.raw_queue_bytes)


@dataclass(slots=True)
class _Shard:
    """Pictures of one shard that wait until it is complete."""

    waiting: set[tuple[int, int]]
    planes: dict[tuple[int, int], NDArray[Any]] = field(default_factory=dict)
    lines: list[tuple[SeriesName, State, Stream, int, dict[str, Any]]] = field(default_factory=list)


class _FillSink(Sink):
    """Puts what is missing into the arrays, shard by shard, and then says so in frames.jsonl."""

    name = "backfill"
    lossless = essential = True

    def __init__(
        self,
        store: RecordedStore,
        todo: Todo,
        step: Callable[[SeriesName], None],
        failures: Counter[str],
        ended: threading.Event,
        journal: Path,
    ) -> None:
        self._journal = journal
        self._store, self._todo, self._step, self._failures = store, todo, step, failures
        self._ended = ended
        self._log: FramesLog | None = None
        self._measured_live = store.measured(live=True)
        place = todo.position, todo.channel
        self._images: dict[SeriesName, Image | None] = {
            "recon": store.images.get(("recon", *place)),
            "depth": store.images.get(("depth", *place)),
            "sr": store.images.get(("sr", *place)),
            **{kind: store.images.get((kind, *place)) for kind in ESTIMATES},
        }
        self._shapes = {
            kind: array_shape(image.array) for kind, image in self._images.items() if image
        }
        self._shards: dict[tuple[SeriesName, tuple[int, int]], _Shard] = {}
        wanted: dict[SeriesName, frozenset[Key]] = {
            "recon": todo.measure,
            "depth": todo.measure,
            "sr": todo.predict,
            **dict.fromkeys(ESTIMATES, todo.predict),
        }
        for kind, keys in wanted.items():
            for stream, t in keys if kind in self._shapes else ():
                shard = self._shapes[kind].shard_of(t, stream.z)
                self._shards.setdefault((kind, shard), _Shard(set())).waiting.add((t, stream.z))

    def open(self, run: RunDescription) -> None:
        """Open the journal."""
        self._log = FramesLog(self._journal)

    def recon(self, frame: SRFrame) -> None:
        """Take a measurement that the run dropped; the others are only neighbours."""
        if (frame.stream, frame.t) not in self._todo.measure:
            return
        self._keep_localisations(frame)
        image = self._images["recon"]
        offset = int(image.attributes["livesr"]["intensity"]["offset"]) if image else 0
        facts, stored = measured_facts(frame), None
        if image:
            stored = to_uint16(frame.image, offset)
            facts["clipped"] = clipped_pixels(frame.image, offset) or None
        self._put("recon", "recon", frame, stored, facts)
        if self._images["depth"] and frame.depth_nm is not None:
            self._put("depth", "estimated", frame, depth_to_uint16(frame.depth_nm), {})

    def _keep_localisations(self, frame: SRFrame) -> None:
        """Put what was localised among the others; before the journal says that it is done."""
        raw = self._store.images["raw", frame.stream.position, frame.stream.channel]
        if frame.localisations is None or (frame.stream, frame.t) in self._measured_live:
            return  # the run wrote them; only its picture lacks what came before
        first = frame.t * raw.exposures
        path = self._store.path / layout.localisations_name(raw.name)
        replace_frames(path, frame.localisations, range(first, first + raw.exposures))

    def separated(self, frame: MulticolorFrame) -> None:
        """Take a prediction."""
        self._put("sr", "separated", frame.source, frame.channels, predicted_facts(frame))
        if frame.uncertainty is not None and self._images["uncertainty"]:
            self._put("uncertainty", "estimated", frame.source, frame.uncertainty, {})
        if self._images["limits"] and (limits := frame.limits):
            self._put("limits", "estimated", frame.source, np.concatenate(limits), {})

    def skipped(self, stream: Stream, t: int, reason: str) -> None:
        """Keep the reason why a frame could not be computed.

        A group in the middle of which it ended is not among them: it is left for the next time.
        """
        if self._ended.is_set():
            return
        self._failures[reason] += 1

    def close(self, report: Mapping[str, Any]) -> None:
        """Write what there is of shards that an interruption left incomplete; close the journal."""
        try:
            for key in list(self._shards):
                self._write(key)
        finally:
            if self._log:
                self._log.close()

    def _put(
        self,
        kind: SeriesName,
        state: State,
        frame: SRFrame,
        planes: NDArray[Any] | None,
        facts: dict[str, Any],
    ) -> None:
        line = (kind, state, frame.stream, frame.t, facts)
        if planes is None:
            self._say(line, stored=False)
            return
        where = frame.t, frame.stream.z
        key = kind, self._shapes[kind].shard_of(*where)
        shard = self._shards[key]
        shard.waiting.discard(where)
        shard.planes[where] = planes
        shard.lines.append(line)
        if not shard.waiting:
            self._write(key)

    def _write(self, key: tuple[SeriesName, tuple[int, int]]) -> None:
        shard, image = self._shards.pop(key), self._images[key[0]]
        if image and shard.planes:
            drop_levels(image)
            with TemporaryDirectory(
                prefix=f"{SCRATCH}-", dir=self._store.path / layout.SIDECARS
            ) as scratch:
                replace_planes(image.array, shard.planes, Path(scratch))
            for line in shard.lines:
                self._say(line, stored=True)

    def _say(
        self, line: tuple[SeriesName, State, Stream, int, dict[str, Any]], *, stored: bool
    ) -> None:
        assert self._log is not None
        kind, state, stream, t, facts = line
        self._log.write(kind, state, stream, t, stored=stored, backfilled=True, **facts)
        self._step(kind)


class Counted:
    """Adds up what is done of `todos`."""

    def __init__(self, todos: Sequence[Todo], on_progress: Progress) -> None:
        self.made: Counter[str] = Counter()
        self._total = sum(len(todo.predict) + len(todo.measure) for todo in todos)
        self._on_progress = on_progress
        on_progress(0, self._total)

    @property
    def left(self) -> int:
        """What is still to be computed."""
        return self._total - self.made["sr"] - self.made["recon"]

    def step(self, kind: SeriesName) -> None:
        """Count and show; what is estimated comes with its prediction."""
        self.made[kind] += 1
        if kind not in ESTIMATES:
            self._on_progress(self._total - self.left, self._total)


def _check_lengths(store: RecordedStore) -> None:
    lengths: dict[tuple[int, str], set[int]] = {}
    for (_, position, channel), image in store.images.items():
        lengths.setdefault((position, channel), set()).add(
            array_shape(image.array, image.exposures).length["t"]
        )
    if any(len(found) > 1 for found in lengths.values()):
        raise StoreError(
            f"The images of {store.path} differ in length: run 'livesr repair {store.path}' first."
        )
