"""A run as an OME-Zarr store: raw, recon and sr side by side, on one time axis.

Owns the store's folder from `open` to `close`: which image a frame belongs to, the order of its time points, the
sidecars in ``livesr/`` and the watch over the disk. What the images are is said in `layout.py`, how one is written in
`series.py`; docs/store-layout.md describes the result.
"""

from __future__ import annotations

import logging
import shutil
import time
from collections import defaultdict, deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from livesr.base import contained
from livesr.base.errors import RecordingError, StoreError
from livesr.base.frames import MulticolorFrame, Pixels, RawStack, SRFrame, StagePosition, Stream
from livesr.base.lock import Lock, held
from livesr.live.sinks import layout
from livesr.live.sinks.frames_log import FramesLog, SeriesName, State, to_json
from livesr.live.sinks.layout import bytes_per_hour, free_bytes, memory_bytes, next_free_path
from livesr.live.sinks.localisations import LocalisationsFile
from livesr.live.sinks.series import DisplayWindow, Series, SeriesSpec, group_json, write_json
from livesr.live.sinks.sink import RunDescription, judgement_facts, score_facts, time_shift_ms, to_uint16

__all__ = ["OMEZarrSink", "bytes_per_hour", "free_bytes", "memory_bytes", "next_free_path"]

log = logging.getLogger(__name__)

RESERVE_BYTES = 256 << 20
_EARLY_TIME_POINTS = 10  # after which the display windows are written for the first time
_DISK_CHECK_S = 1.0
_STACKS_HELD, _HELD_BYTES = 8, 256 << 20  # of planes that wait for one that is late
_WINDOW_UPDATE_S = 0.5
_WRITE_ERRORS = (OSError, RuntimeError, StoreError)


class OMEZarrSink:
    """Writes a run to an OME-Zarr 0.5 store.

    Parameters
    ----------
    path
        Folder to create; if it exists, the next number is taken. `path` says which after `open`.
    reserve_bytes
        Recording ends while this much is still free, so that the store can be finished.

    Attributes
    ----------
    free_bytes : left on the disk when it was last looked at, every second; None before
    """

    name = "ome-zarr"

    def __init__(self, path: Path, *, reserve_bytes: int = RESERVE_BYTES) -> None:
        self.path = Path(path)
        self._reserve_bytes = reserve_bytes
        self._places: dict[tuple[int, str], _Place] = {}
        self._run: RunDescription | None = None
        self._log: FramesLog | None = None
        self._lock: Lock | None = None
        self._plane0_um: dict[int, float | None] = {}
        self._disk_check_due_s = 0.0
        self.free_bytes: int | None = None
        self._counts = {"raw": 0, "recon": 0, "sr": 0, "uncertainty": 0, "fills": 0, "strays": 0, "clipped_pixels": 0}

    @property
    def counts(self) -> Mapping[str, int]:
        """Planes stored per kind, fills, strays, and recon pixels that did not fit into uint16."""
        return dict(self._counts)

    def open(self, run: RunDescription) -> None:
        """Create the store with every image that the run will have.

        Raises
        ------
        StoreError
            If the folder cannot be created or the disk is as good as full; nothing is left behind.
        """
        _refuse_films_of_planes(run)
        wanted = self.path.absolute()
        free = free_bytes(wanted)
        if free < self._reserve_bytes:
            raise StoreError(
                f"Only {free / 1e9:.2f} GB are free for {wanted}, {self._reserve_bytes / 1e9:.2f} GB are kept in "
                "reserve: free some space or choose another disk."
            )
        new_parents = [parent for parent in wanted.parents if not parent.exists()]
        claimed = False
        try:
            self.path = _claim(wanted)
            claimed = True
            self._create(run)
        except (OSError, RuntimeError, ValueError, ImportError) as e:
            self._abandon(claimed, new_parents)
            raise StoreError(f"Cannot create {wanted}: {_reason(e)}. Choose a folder that you can write to.") from e
        self._run = run

    def _create(self, run: RunDescription) -> None:
        sidecars = self.path / layout.SIDECARS
        sidecars.mkdir()
        self._lock = held(sidecars, "run")
        for name, content in run.sidecars.items():
            _write_sidecar(sidecars / Path(name).name, content)
        self._log = FramesLog(self.path / layout.FRAMES_LOG)
        # A group of its own, so that zarr tools that list the root do not stumble over it.
        write_json(sidecars / "zarr.json", group_json({}))
        write_json(self.path / "zarr.json", group_json(layout.root_attributes(run)))
        for position, channel in run.places:
            place = self._places[position, channel.name] = _Place(run.stack(position, channel.name).z_planes)
            for kind, spec in layout.series_specs(run, position, channel).items():
                place.series[kind] = Series(self.path / spec.name, spec)
            place.allocate(channel.recon_shape)
            if channel.raw_along_t:
                name = layout.localisations_name(layout.series_name("raw", run, position, channel.name))
                place.localisations = LocalisationsFile(self.path / name)
        (self.path / "OME").mkdir()
        self._list_images()

    def _list_images(self) -> None:
        names = [series.spec.name for _, _, series in self._all_series()]
        write_json(self.path / "OME" / "zarr.json", group_json({"ome": {"version": "0.5", "series": names}}))
        write_json(self.path / layout.IMAGES, layout.copy_of_metadata(self.path, names))

    def _abandon(self, claimed: bool, new_parents: list[Path]) -> None:
        for _, _, series in self._all_series():
            try:
                series.close(0)
            except (OSError, RuntimeError) as e:
                log.debug("closing %s after a failed start: %s", series.spec.name, e)
        self._close_localisations()
        if self._log:
            self._log.close()
            self._log = None
        self._unlock()
        self._places.clear()
        if claimed:
            shutil.rmtree(self.path, ignore_errors=True)
        for parent in new_parents:  # deepest first; one that another run has meanwhile filled stays
            try:
                parent.rmdir()
            except OSError:
                break

    def raw(self, stack: RawStack) -> None:
        """Store a raw group; exposures that never came are zeros in the array and named in frames.jsonl."""
        missing = tuple(i for i, frame in enumerate(stack.frames) if frame is None)
        place = self._place(stack.stream, stack.t)
        place.note_time(stack.stream, stack.t, stack.t_acq_ns)
        if stack.stream.z == 0:
            self._plane0_um.setdefault(stack.stream.position, stack.stage.z_um)
        # A channel may leave the first planes of its position's stack out.
        place.note_stage(stack.stage._replace(z_um=self._plane0_um.get(stack.stream.position)))
        self._take(
            "raw",
            "raw_incomplete" if missing else "raw",
            stack.stream,
            stack.t,
            stack.frames,
            t_acq_ns=stack.t_acq_ns,
            t_camera_ms=stack.t_camera_ms,
            exposure_ms=stack.exposure_ms,
            missing=missing,
            **stack.stage._asdict(),
        )

    def aside(self, stack: RawStack) -> None:
        """Keep raw frames that no image here can hold, one TIFF each."""
        self._opened()
        self._watch_disk()
        facts = {"t_acq_ns": stack.t_acq_ns, "t_camera_ms": stack.t_camera_ms}
        for pixels in stack.frames:
            if pixels is not None:
                file = self._write_tiff(f"aside_t{stack.t:06d}.tif", pixels, facts)
                self._write_log("raw", "stray", stack.stream, stack.t, file=file, **facts)

    def recon(self, frame: SRFrame) -> None:
        """Store a reconstruction as uint16, shifted by the run's `recon_offset_adu`."""
        place = self._place(frame.stream, frame.t)
        place.note_time(frame.stream, frame.t, frame.t_acq_ns)
        if place.localisations and frame.localisations is not None:
            with self._recording():
                place.localisations.append(frame.localisations)
        planes: tuple[Pixels, ...] = ()
        clipped = 0
        if "recon" in place.series:
            place.series["recon"].check((frame.image,), "float32")
            planes, clipped = (place.convert(frame.image, self._opened().recon_offset_adu),), place.clipped
            self._counts["clipped_pixels"] += clipped
        self._take(
            "recon",
            "recon",
            frame.stream,
            frame.t,
            planes,
            t_acq_ns=frame.t_acq_ns,
            t_camera_ms=frame.t_camera_ms,
            normalisation=frame.normalisation._asdict(),
            saturated=frame.saturated or None,
            **judgement_facts(frame),
            clipped=clipped or None,
            localisations=None if frame.localisations is None else len(frame.localisations),
            drift_nm=frame.drift_nm,
            time_shift_ms=time_shift_ms(frame.parts),
        )

    def separated(self, frame: MulticolorFrame) -> None:
        """Store a prediction; a provisional one is not stored, its final version follows."""
        if frame.provisional:
            return
        place = self._place(frame.stream, frame.t)
        if series := place.series.get("sr"):
            series.windows = frame.display
        self._take(
            "sr",
            "separated",
            frame.stream,
            frame.t,
            tuple(frame.channels),
            t_acq_ns=frame.source.t_acq_ns,
            t_camera_ms=frame.source.t_camera_ms,
            normalisation=frame.source.normalisation._asdict(),
            residual=frame.residual,
            latency_ms=round(frame.latency_ms, 3),
            edge=frame.edge,
            true_neighbours=frame.true_neighbours,
            novelty=None if frame.novelty is None else round(frame.novelty, 4),
            warnings=frame.warnings,
            score=score_facts(frame) or None,
        )
        if frame.uncertainty is not None and "uncertainty" in place.series:
            self._take("uncertainty", "estimated", frame.stream, frame.t, tuple(frame.uncertainty))

    def skipped(self, stream: Stream, t: int, reason: str) -> None:
        """Note that the network did not see time point `t`; a fill frame keeps its place in the array."""
        place = self._place(stream, t)
        place.end = max(place.end, place.index(stream, t) + 1)
        self._write_log("sr", "skipped", stream, t, reason=reason)

    def status(self, status: Mapping[str, Any]) -> None:
        """Look after the disk, also while no frame comes."""
        self._watch_disk()

    def close(self, report: Mapping[str, Any]) -> None:
        """Finish every image, align their time axes, write the report.

        Raises
        ------
        RecordingError
            If an image could not be finished; the others and the report are.
        """
        if self._log is None:
            return
        failures: list[str] = []
        for place, kind, series in self._all_series():
            try:
                while place.held[kind]:
                    self._append_next(place, kind)
                series.close(place.time_points(series.spec.z_planes), place.interval_s)
            except (OSError, RuntimeError) as e:
                failures.append(f"{series.spec.name}: {_reason(e)}")
        try:
            self._leave_out_what_never_came()
            write_json(self.path / layout.REPORT, dict(report))
        except OSError as e:
            failures.append(f"{layout.REPORT}: {_reason(e)}")
        self._log.close()
        self._log = None
        self._close_localisations()
        self._unlock()
        if failures:
            raise RecordingError(
                f"{self.path} could not be finished ({'; '.join(failures)}): it is readable up to the last whole shard; "
                f"'livesr repair {self.path}' recovers what can be."
            )

    def _leave_out_what_never_came(self) -> None:
        """Take images without a time point out of the store, unless there are no others: many readers stumble over them."""
        empty = {key: place for key, place in self._places.items() if not place.end}
        if not empty or len(empty) == len(self._places):
            return
        for key, place in empty.items():
            del self._places[key]
            if place.localisations:
                place.localisations.close()
            for series in place.series.values():
                shutil.rmtree(self.path / series.spec.name, ignore_errors=True)
        self._list_images()

    def _take(
        self, kind: SeriesName, state: State, stream: Stream, t: int, planes: Sequence[Pixels | None], **facts: Any
    ) -> None:
        """Append the planes at (t, z): fill up to it if the writer is behind, set them aside if it is beyond."""
        self._watch_disk()
        place = self._place(stream, t)
        index = place.index(stream, t)
        place.end = max(place.end, index + 1)
        series = place.series.get(kind)
        if series is None:
            self._write_log(kind, state, stream, t, **facts)
            return
        series.check(planes)
        held = place.held[kind]
        if index < series.next or index in held:
            self._set_aside(series, kind, stream, t, planes, **facts)
            return
        # A plane that lost exposures comes after planes whose place is behind it: those wait for it.
        if kind == "recon" and index > series.next:
            planes = tuple(np.array(plane) for plane in planes)  # they were converted in a buffer of this sink
        held[index] = _Held(state, stream, t, planes, facts)
        with self._recording():
            while held and (min(held) == series.next or max(held) - series.next >= _patience(series.spec)):
                self._append_next(place, kind)

    def _append_next(self, place: _Place, kind: SeriesName) -> None:
        """Append what comes next in the array: planes that have come, or zeros for those that have not."""
        series = place.series[kind]
        came = place.held[kind].pop(series.next, None)
        if came is None:
            series.fill()
            self._counts["fills"] += 1
            return
        series.append(came.planes)
        self._counts[kind] += 1
        self._write_log(kind, came.state, came.stream, came.t, stored=True, **came.facts)
        self._show(place, series, kind, came.planes)

    def _set_aside(
        self, series: Series, kind: SeriesName, stream: Stream, t: int, planes: Sequence[Pixels | None], **facts: Any
    ) -> None:
        """Keep what comes twice or too late as a TIFF: the array only grows, and nothing is lost."""
        blank = np.zeros(series.spec.shape, series.spec.dtype)
        block = np.stack([blank if plane is None else plane for plane in planes])
        file = self._write_tiff(f"{series.spec.name}_t{t:06d}_z{stream.z:03d}.tif", block, facts)
        self._write_log(kind, "stray", stream, t, file=file, **facts)

    def _write_tiff(self, name: str, block: Pixels, facts: Mapping[str, Any]) -> str:
        """Write beside the images; return the file's name relative to the sidecars."""
        import tifffile

        folder = self.path / layout.STRAYS
        with self._recording():
            folder.mkdir(exist_ok=True)
            path = next_free_path(folder / name)
            tifffile.imwrite(path, block, photometric="minisblack", description=to_json(facts), metadata=None)
        self._counts["strays"] += 1
        return f"{folder.name}/{path.name}"

    def _show(self, place: _Place, series: Series, kind: SeriesName, planes: Sequence[Pixels | None]) -> None:
        """Follow the brightness of what was stored; write it down once early, so that a running store can be viewed."""
        if kind != "sr":
            series.windows = place.follow(kind, planes) * len(planes)
        if not series.windows_written and series.next >= _EARLY_TIME_POINTS * series.spec.z_planes:
            series.windows_written = True
            series.write_metadata(place.interval_s)

    def _close_localisations(self) -> None:
        for place in self._places.values():
            if place.localisations:
                place.localisations.close()

    def _unlock(self) -> None:
        if self._lock:
            self._lock.release()

    def _opened(self) -> RunDescription:
        if self._run is None or self._log is None:
            raise RecordingError(f"{self.path} is not open: frames can be stored between open() and close().")
        return self._run

    def _all_series(self) -> Iterator[tuple[_Place, SeriesName, Series]]:
        return ((place, kind, series) for place in self._places.values() for kind, series in place.series.items())

    def _place(self, stream: Stream, t: int) -> _Place:
        run = self._opened()
        place = self._places.get((stream.position, stream.channel))
        if place is None or not 0 <= stream.z < place.z_planes or t < 0:
            raise RecordingError(
                f"A frame of {stream} at t={t} came; this store was opened for {len(run.positions)} positions, channels "
                f"{', '.join(c.name or 'default' for c in run.channels)} and {run.z_planes} z planes."
            )
        return place

    def _write_log(self, kind: SeriesName, state: State, stream: Stream, t: int, **facts: Any) -> None:
        if self._log is not None:
            with self._recording():
                self._log.write(kind, state, stream, t, **facts)

    @contextmanager
    def _recording(self) -> Iterator[None]:
        try:
            yield
        except _WRITE_ERRORS as e:
            raise RecordingError(
                f"{self.path} no longer takes frames: {_reason(e)}. Check the disk, its space and your quota."
            ) from e

    def _watch_disk(self) -> None:
        now = time.monotonic()
        if now < self._disk_check_due_s:
            return
        self._disk_check_due_s = now + _DISK_CHECK_S
        with self._recording():
            self.free_bytes = free = free_bytes(self.path)
        if free < self._reserve_bytes:
            raise RecordingError(
                f"Only {free / 1e9:.2f} GB are left on the disk of {self.path}; recording ends here so that the store "
                "can be finished. Free some space or record to another disk."
            )


class _Held(NamedTuple):
    """Planes that are ahead of their array, and what frames.jsonl is to say of them."""

    state: State
    stream: Stream
    t: int
    planes: Sequence[Pixels | None]
    facts: Mapping[str, Any]


@dataclass(slots=True)
class _Place:
    """The images of one position and channel, and what is known about their time axis."""

    z_planes: int
    series: dict[SeriesName, Series] = field(default_factory=dict)
    held: defaultdict[SeriesName, dict[int, _Held]] = field(default_factory=lambda: defaultdict(dict))
    end: int = 0  # linear index behind the last thing heard of
    clipped: int = 0
    localisations: LocalisationsFile | None = None
    _windows: dict[SeriesName, DisplayWindow] = field(default_factory=dict)
    _last_time: tuple[int, int] | None = None
    _intervals_s: deque[float] = field(default_factory=lambda: deque(maxlen=1001))
    # Reused for every reconstruction: the writer copies what is appended.
    _scratch: NDArray[np.float32] | None = None
    _stored: NDArray[np.uint16] | None = None

    def allocate(self, recon_shape: tuple[int, int]) -> None:
        """Prepare for reconstructions of this size."""
        self._windows = {kind: DisplayWindow(_WINDOW_UPDATE_S) for kind in self.series}
        if "recon" in self.series:
            self._scratch, self._stored = np.empty(recon_shape, np.float32), np.empty(recon_shape, np.uint16)

    def convert(self, image: NDArray[np.float32], offset_adu: int) -> NDArray[np.uint16]:
        """Return the reconstruction as it is stored, valid until the next call; `clipped` counts what did not fit."""
        low, high = -offset_adu, np.iinfo(np.uint16).max - offset_adu
        fits = low <= float(image.min()) and float(image.max()) <= high
        self.clipped = 0 if fits else int(np.count_nonzero((image < low) | (image > high)))
        return to_uint16(image, offset_adu, self._stored, self._scratch)

    def follow(self, kind: SeriesName, planes: Sequence[Pixels | None]) -> list[tuple[float, float]]:
        """Return the display window of a kind after these planes; exposures of one group share it."""
        return [self._windows[kind].update(next((p for p in planes if p is not None), None))]

    def index(self, stream: Stream, t: int) -> int:
        """Return the place of a plane along the arrays."""
        return t * self.z_planes + stream.z

    def note_stage(self, stage: StagePosition) -> None:
        """Let the images say where the stages were when the first of their planes was taken; z is that of plane 0."""
        for series in self.series.values():
            series.place(stage)

    def note_time(self, stream: Stream, t: int, t_acq_ns: int) -> None:
        """Measure the interval between time points, at the first plane of a stack."""
        if stream.z != 0 or (self._last_time and t <= self._last_time[0]):
            return
        if self._last_time:
            self._intervals_s.append((t_acq_ns - self._last_time[1]) / (t - self._last_time[0]) / 1e9)
        self._last_time = (t, t_acq_ns)

    @property
    def interval_s(self) -> float | None:
        """Median interval of the last thousand time points."""
        return float(np.median(self._intervals_s)) if self._intervals_s else None

    def time_points(self, z_planes: int) -> int:
        """Length that every image here must have."""
        return -(-self.end // z_planes)


def _patience(spec: SeriesSpec) -> int:
    """Return how many planes may wait for one that is late: a stack, and several where they are small.

    A plane whose stream has a gap is known to be late, or without a neighbour, when the stream goes on: as many time points
    later as the gap is long, and one more.
    """
    most = min(_STACKS_HELD * spec.z_planes, _HELD_BYTES // spec.group_bytes)
    return max(spec.z_planes, most) if spec.z_planes > 1 else 1


def _refuse_films_of_planes(run: RunDescription) -> None:
    films = [c.name for c in run.channels if c.raw_along_t]
    if films and run.z_planes > 1:
        raise StoreError(
            f"Channel {films[0] or 'default'} is a film of exposures and the run has {run.z_planes} planes: a store holds "
            "one or the other. Acquire each plane as a position of its own."
        )


def _write_sidecar(path: Path, content: str | Path) -> None:
    if isinstance(content, Path):
        shutil.copyfile(content, path)  # the rig's own: what a store names was looked at by `RecordedStore.rig`
    else:
        contained.write_text(path.parent, path.name, content)


def _reason(error: BaseException) -> str:
    if isinstance(error, OSError) and error.strerror:
        return error.strerror + (f" ({error.filename})" if error.filename else "")
    return str(error).strip().rstrip(".") or type(error).__name__


def _claim(path: Path) -> Path:
    """Make the folder `path`, or the next number that is free; two runs that start together get one each."""
    while True:
        free = next_free_path(path)
        try:
            free.mkdir(parents=True)
        except FileExistsError:
            if not free.exists():  # a dangling link: no number will ever be free
                raise
        else:
            return free
