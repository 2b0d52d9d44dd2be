"""A backfill on a Dask cluster: each worker fills shards of its own, and one process keeps the
journal.

Owns what a part of a backfill is, and what travels to and from a worker. What is to be computed,
and how it comes into the arrays, is said in `livesr.store.backfill`; who computes which part, and
what if it dies, in `livesr.store.cluster`.

A worker puts shards into their place, and its lines come back. They are written into frames.jsonl
when all of its part is there: whatever ends it before, the part is computed again, to the same.
"""

from __future__ import annotations

import math
import threading
import uuid
from collections import Counter
from collections.abc import Mapping, Set
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import groupby
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

from livesr.base import contained
from livesr.base.compute import AUTO, ComputeConfig
from livesr.base.config import Step
from livesr.base.documents import parse_json
from livesr.base.errors import StoreError
from livesr.base.files import write_all
from livesr.base.progress import Progress
from livesr.base.version import __version__
from livesr.formats import layout
from livesr.formats.frames_log import SeriesName
from livesr.formats.store import RecordedStore, array_shape
from livesr.live.paths import ChannelPath, close_all
from livesr.store.backfill import (
    ESTIMATES,
    SCRATCH,
    Counted,
    Key,
    Todo,
    beside,
    fill,
    locked,
    opened,
    read_input,
    refuse_failures,
    remove_scratch,
    report_of,
    todos_of,
)
from livesr.store.cluster import Say, computed_on, connected
from livesr.store.levels import drop_levels
from livesr.store.parts import TIME_POINTS, Opened, kept_open
from livesr.store.process import build_paths

_MADE: tuple[SeriesName, ...] = ("recon", "sr", *ESTIMATES)


def backfill_on(
    address: str,
    path: Path,
    *,
    engine: str | None = None,
    upscale: str | None = None,
    compute: ComputeConfig = AUTO,
    on_progress: Progress = lambda done, total: None,
    say: Say = lambda sentence: None,
) -> dict[str, Any]:
    """Complete a store as `livesr.store.backfill.backfill` does, on the workers of a cluster.

    Every worker must see the store under the same path, on one file system. Whatever ends it, the
    same call goes on with what is missing.

    Parameters
    ----------
    address : of the scheduler, "tcp://HOST:8786" or "tls://HOST:8786"
    say : told where the dashboard is, and which parts failed

    Raises
    ------
    LiveSRError
        As of `backfill`; UsageError if the cluster cannot be reached, RunError if a part could not
        be computed. The others are done.
    """
    engines: dict[Step, str | None] = {"separate": engine, "upscale": upscale}
    with locked(path):
        store = RecordedStore(path)
        raw, paths, notes = opened(store, engines, compute)
        try:
            todos = todos_of(store, paths)
            notes += [note for channel in paths.values() for note in channel.notes]
            parts = [
                part
                for todo in todos
                if todo.read
                for part in cut(todo, _step(store, todo, paths), raw.normalisations.keys())
            ]
        finally:
            close_all(paths)
        done = Counted(todos, on_progress)
        if parts:
            for image in store.images.values():
                drop_levels(image)  # here, and not by many at once
            job = FillJob(path.absolute(), engines, compute)
            work = {FillPart(part): partial(filled_on_worker, job, part) for part in parts}
            failures: Counter[str] = Counter()
            with connected(address, say) as client:
                for _, filled in computed_on(client, work, "backfill", say):
                    _append(store, filled.lines)
                    failures.update(filled.failures)
                    for line in filled.lines.splitlines():
                        done.step(parse_json(line, layout.FRAMES_LOG)["series"])
            remove_scratch(store.path)  # of workers that died
            refuse_failures(failures)
    return report_of(store, todos, done, notes)


@dataclass(frozen=True, slots=True)
class FillJob:
    """What every part of one backfill is computed with; it travels to whoever computes.

    Attributes
    ----------
    store : by a path that is the same for all
    engines, compute : as of `backfill`
    digest : of this call; another begins with other lines in the journal
    livesr : version; every process must have this one
    """

    store: Path
    engines: Mapping[Step, str | None]
    compute: ComputeConfig
    digest: str = field(default_factory=lambda: uuid.uuid4().hex)
    livesr: str = __version__

    def open(self) -> Opened:
        """Open the store's raw frames and build the steps of every channel; errors as of `Job`."""
        if not self.store.exists():
            raise StoreError(
                f"{self.store} is not there: every worker must see the store under the same path."
            )
        raw = read_input(RecordedStore(self.store), self.engines)
        return Opened(raw, *build_paths(raw, self.compute))


@dataclass(frozen=True, slots=True, eq=False)
class FillPart:
    """What one worker fills."""

    todo: Todo

    @property
    def name(self) -> str:
        """Tells it from the others."""
        first = min(t for _, t in self.todo.predict | self.todo.measure)
        return f"p{self.todo.position}-{self.todo.channel}-t{first:08d}"

    def __str__(self) -> str:
        times = [t for _, t in self.todo.predict | self.todo.measure]
        return (
            f"time points {min(times)} to {max(times)} of channel {self.todo.channel!r}, position"
            f" {self.todo.position}"
        )


class Filled(NamedTuple):
    """What comes back: lines of frames.jsonl, and why pictures could not be computed."""

    lines: bytes
    failures: Counter[str]


def filled_on_worker(job: FillJob, todo: Todo) -> Filled:
    """Compute `todo` in this process and put its shards into their place; errors as of `fill`."""
    failures: Counter[str] = Counter()
    with (
        kept_open(job) as there,
        TemporaryDirectory(prefix=f"{SCRATCH}-", dir=job.store / layout.SIDECARS) as scratch,
    ):
        log = Path(scratch) / "lines"
        fill(
            RecordedStore(job.store),
            there.raw,
            there.paths,
            todo,
            lambda series: None,
            failures,
            threading.Event(),
            log,
        )
        return Filled(contained.read_bytes(log.parent, log.name), failures)


def cut(todo: Todo, step: int, recorded: Set[Key]) -> list[Todo]:
    """Return a todo in parts that begin at multiples of `step` time points; 0 leaves it whole.

    What a frame is normalised with follows from the one before it. So no part begins behind a
    frame of which that is not `recorded`: it is one with the part that computes it.
    """
    if not step:
        return [todo]
    read = frozenset(todo.read)
    parts: list[frozenset[Key]] = []
    keys = sorted(todo.predict | todo.measure, key=lambda key: key[1])
    for _, found in groupby(keys, key=lambda key: key[1] // step):
        part = frozenset(found)
        follows = {t for _, t in beside(part, read, after=False) - part - recorded}
        while parts and follows and max(t for _, t in parts[-1]) >= min(follows):
            part |= parts.pop()
        parts.append(part)
    return [_cut_out(todo, part, read) for part in parts]


def _cut_out(todo: Todo, part: frozenset[Key], read: frozenset[Key]) -> Todo:
    predict, measure = todo.predict & part, todo.measure & part
    needed = part | beside(measure, read, after=False) | beside(predict, read, after=True)
    ordered = tuple(key for key in todo.read if key in needed)
    return replace(todo, predict=predict, measure=measure, read=ordered, impossible=0)


def _step(store: RecordedStore, todo: Todo, paths: Mapping[str, ChannelPath]) -> int:
    """Return time points that fill whole shards of all that is written; 0 where pictures are made
    of all before them, or a table or a sum belongs to the whole.
    """
    path = paths[todo.channel]
    if path.accumulates or path.description.localises or path.parts:
        return 0
    images = [store.images.get((kind, todo.position, todo.channel)) for kind in _MADE]
    together = math.lcm(*(array_shape(image.array).shard["t"] for image in images if image))
    return together * max(-(-TIME_POINTS // together), 1)


def _append(store: RecordedStore, lines: bytes) -> None:
    with contained.open_to_write(store.path, layout.FRAMES_LOG, "a", buffering=0) as file:
        write_all(file, lines)
