"""A run as an OME-Zarr store: raw, recon and sr side by side, on one time axis.

Owns the store's folder from `open` to `close`: which image a frame belongs to, the order of its
time points, the sidecars in ``livesr/``, the watch over the disk and the count of what is really
there. What the images are is said in `layout.py`, how one is written in `series.py`;
docs/store-layout.md describes the result.

A disk that fails ends the run (with a spare disk, it does not), but not the sink: what still comes
is kept wherever there is a place for it, raw frames at last as TIFF.
"""

from __future__ import annotations

import io
import logging
import shutil
import time
from collections import defaultdict, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, get_args

import numpy as np
from numpy.typing import NDArray

from livesr.base import contained
from livesr.base.documents import to_json
from livesr.base.errors import RecordingError, StoreError
from livesr.base.files import check_folder, next_free_path, remove, sync, write_all
from livesr.base.frames import (
    FrameErrors,
    MulticolorFrame,
    Pixels,
    RawStack,
    SRFrame,
    StagePosition,
    Stream,
)
from livesr.base.lock import Lock, held
from livesr.base.run_description import RunDescription, Stack
from livesr.base.words import spans
from livesr.formats import layout
from livesr.formats.frames_log import STORED_STATES, SeriesName, State
from livesr.formats.object_store import refuse_to_write
from livesr.formats.ome_xml import write_ome_xml
from livesr.formats.series_spec import SeriesSpec, group_json
from livesr.live.sinks.capacity import free_bytes
from livesr.live.sinks.frames_log import FramesLog
from livesr.live.sinks.group_film import GroupFilm
from livesr.live.sinks.localisations import LocalisationsFile
from livesr.live.sinks.series import Casualty, DisplayWindow, Series, Workers, reason, write_json
from livesr.live.sinks.shard import decode
from livesr.live.sinks.sink import (
    Sink,
    clipped_pixels,
    depth_to_uint16,
    error_facts,
    measured_facts,
    predicted_facts,
    to_uint16,
)
from livesr.live.sinks.stack_heights import StackHeights

log = logging.getLogger(__name__)

RESERVE_BYTES = 256 << 20
_EARLY_TIME_POINTS = 10  # after which the display windows are written for the first time
_DISK_CHECK_S = 1.0
_STACKS_HELD, _HELD_BYTES = 8, 256 << 20  # of planes that wait for one that is late
_WINDOW_UPDATE_S = 0.5
_WRITE_ERRORS = (OSError, RuntimeError, StoreError)
# planes that an image is filled up by at once: more never came by any loss, and would take for ever
_MAX_AHEAD = 100_000


class OMEZarrSink(Sink):
    """Writes a run to an OME-Zarr 0.5 store.

    Parameters
    ----------
    path : folder to create; if it exists, the next number is taken. `path` says which after `open`
    reserve_bytes : recording ends while this much is still free, so that the store can be finished
    spare : folder on another disk, where the store goes on when the disk of `path` is full or fails
    sync_s : write everything through to the disk so often, for what a power cut must not take; None
        leaves when to the operating system, but for shards that are complete

    Attributes
    ----------
    free_bytes : left on the disk when it was last looked at, every second; None before
    raw_kept : raw frames that are in the store, on the spare disk or in a TIFF; None until `finish`
        has counted them, and of a run that records none
    notes : what went wrong and cost nothing, in sentences
    """

    name = "ome-zarr"
    lossless = essential = endures = keeps_raw = True

    def __init__(
        self,
        path: Path,
        *,
        reserve_bytes: int = RESERVE_BYTES,
        spare: Path | None = None,
        sync_s: float | None = None,
    ) -> None:
        for place in (path, spare):
            if place is not None:
                refuse_to_write(place)
        self.path = Path(path)
        self._reserve_bytes = reserve_bytes
        self._spare_folder, self._sync_s = spare, sync_s
        self._spare: Path | None = None  # the store on the spare disk
        self._spare_begun = False
        self._workers: Workers | None = None
        self.notes: list[str] = []
        self.raw_kept: int | None = None
        self._lost: defaultdict[str, list[tuple[int, int]]] = defaultdict(list)
        self._unplaced = 0  # raw frames that became TIFFs
        self._finished = False
        self._disk_said = False
        self._places: dict[tuple[int, str], _Place] = {}
        self._run: RunDescription | None = None
        self._log: FramesLog | None = None
        self._lock: Lock | None = None
        self._heights = StackHeights()
        self._disk_check_due_s = 0.0
        self.free_bytes: int | None = None
        counted = (*get_args(SeriesName), "fills", "strays", "clipped_pixels")
        self._counts: dict[str, int] = dict.fromkeys(counted, 0)

    @property
    def counts(self) -> Mapping[str, int]:
        """Planes stored per kind, fills, strays, and recon pixels that did not fit into uint16."""
        return dict(self._counts)

    @property
    def accounts(self) -> dict[str, Any]:
        """Where the raw frames are, for the report.

        Exposures in the images and elsewhere, places of those that are lost.
        """
        raw = [series for _, kind, series in self._all_series() if kind == "raw"]
        return {
            "raw_stored": sum(series.stored for series in raw),
            "raw_elsewhere": self._unplaced + sum(series.elsewhere for series in raw),
            "lost": {name: _ranges(places) for name, places in self._lost.items()},
        }

    def check(self) -> None:
        """Look whether there is room, and whether its folder and the spare one take files.

        Raises
        ------
        StoreError
            As `open`.
        """
        wanted = self.path.absolute()
        try:
            check_folder(wanted.parent)
        except OSError as e:
            raise _cannot_create(wanted, e) from e
        _refuse_full(wanted, self._reserve_bytes)
        if self._spare_folder is not None:
            try:
                check_folder(self._spare_folder)
            except OSError as e:
                raise _cannot_spare(self._spare_folder, e) from e

    def open(self, run: RunDescription) -> None:
        """Create the store with every image that the run will have.

        Raises
        ------
        StoreError
            If the folder cannot be created or the disk is as good as full; nothing is left behind.
        """
        _refuse_films_of_planes(run)
        wanted = self.path.absolute()
        _refuse_full(wanted, self._reserve_bytes)
        new_parents = [parent for parent in wanted.parents if not parent.exists()]
        claimed = False
        self._spare = _spare_store(self._spare_folder, wanted.name)
        try:
            self.path = _claim(wanted)
            claimed = True
            self._create(run)
        except (OSError, RuntimeError, ValueError, ImportError) as e:
            self._abandon(claimed, new_parents)
            raise _cannot_create(wanted, e) from e
        self._run = run

    def _create(self, run: RunDescription) -> None:
        self._workers = Workers(self._sync_s)
        (self.path / layout.SIDECARS).mkdir()
        self._lock = held(self.path / layout.SIDECARS, "run")
        self._log = FramesLog(self.path / layout.FRAMES_LOG)
        for position, channel in run.places:
            place = self._places[position, channel.name] = _Place(
                run.stack(position, channel.name), run.recorded_interval_s
            )
            for kind, spec in layout.series_specs(run, position, channel).items():
                spare = self._spare / spec.name if self._spare else None
                place.series[kind] = Series(self.path / spec.name, spec, self._workers, spare=spare)
            if channel.depth_range_nm and "depth" in place.series:
                low, high = (layout.DEPTH_OFFSET_NM + z for z in channel.depth_range_nm)
                place.series["depth"].windows = ((low, high),)
            place.allocate(channel.recon_shape)
            if "rolling" in place.series:
                place.film = GroupFilm(channel.kept_updates)
            if channel.localises:
                name = layout.localisations_name(
                    layout.series_name("raw", run, position, channel.name)
                )
                place.localisations = LocalisationsFile(self.path / name)
        self._write_skeleton(run, self.path)

    def _write_skeleton(self, run: RunDescription, root: Path) -> None:
        """Write what makes a store of images: the root, the list of images, the sidecars."""
        sidecars = root / layout.SIDECARS
        sidecars.mkdir(parents=True, exist_ok=True)
        for name, content in run.sidecars.items():
            _write_sidecar(sidecars / Path(name).name, content)
        # A group of its own, so that zarr tools that list the root do not stumble over it.
        write_json(sidecars / "zarr.json", group_json({}))
        write_json(root / "zarr.json", group_json(layout.root_attributes(run)))
        self._list_images(root)

    def _list_images(self, root: Path) -> None:
        names = [series.spec.name for _, _, series in self._all_series()]
        list_images(root, names, whole=root == self.path)

    def _abandon(self, claimed: bool, new_parents: list[Path]) -> None:
        for _, _, series in self._all_series():
            series.abandon()
        self._close_localisations()
        if self._log:
            self._log.close()
            self._log = None
        self._unlock()
        if self._workers:
            self._workers.close()
        self._places.clear()
        if claimed:
            shutil.rmtree(self.path, ignore_errors=True)
        for parent in new_parents:  # deepest first; one that another run has meanwhile filled stays
            try:
                parent.rmdir()
            except OSError:
                break

    def raw(self, stack: RawStack) -> None:
        """Store a raw group.

        Exposures that never came are zeros in the array and named in frames.jsonl.
        """
        missing = tuple(i for i, frame in enumerate(stack.frames) if frame is None)
        place = self._place(stack.stream, stack.t)
        place.note_time(stack.stream, stack.t, stack.t_acq_ns)
        place.note_stage(self._heights.noted(stack.stream, stack.stage))
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

    def unplaced(self, stack: RawStack) -> None:
        """Keep raw frames that no image here can hold, one TIFF each."""
        self._opened()
        facts = {"t_acq_ns": stack.t_acq_ns, "t_camera_ms": stack.t_camera_ms}
        for pixels in stack.frames:
            if pixels is not None:
                file = self._write_tiff(f"aside_t{stack.t:06d}.tif", pixels, facts)
                self._unplaced += 1
                self._write_log("raw", "stray", stack.stream, stack.t, file=file, **facts)
        self._watch_disk()

    def recon(self, frame: SRFrame) -> None:
        """Store a reconstruction as uint16, shifted by the run's `recon_offset_adu`."""
        place = self._place(frame.stream, frame.t)
        place.note_time(frame.stream, frame.t, frame.t_acq_ns)
        if frame.parts:  # a sum has no raw group of its own
            place.note_stage(self._heights.noted(frame.stream, frame.stage))
        if place.localisations and frame.localisations is not None:
            with self._recording():
                place.localisations.append(frame.localisations)
        planes: tuple[Pixels, ...] = ()
        clipped = 0
        if "recon" in place.series:
            place.series["recon"].check((frame.image,), "float32")
            offset_adu = self._opened().recon_offset_adu
            planes = (place.convert(frame.image, offset_adu),)
            clipped = clipped_pixels(frame.image, offset_adu)
            self._counts["clipped_pixels"] += clipped
        self._take(
            "recon",
            "recon",
            frame.stream,
            frame.t,
            planes,
            **measured_facts(frame),
            clipped=clipped or None,
        )
        if frame.depth_nm is not None and "depth" in place.series:
            planes = (depth_to_uint16(frame.depth_nm),)
            self._take("depth", "estimated", frame.stream, frame.t, planes)
        self._roll(frame)

    def updated(self, frame: SRFrame) -> None:
        """Store a measurement of a group under way, where the run keeps them."""
        self._roll(frame)

    def _roll(self, frame: SRFrame) -> None:
        """Add a measurement to those of its group, which are stored together."""
        place = self._place(frame.stream, frame.t)
        if place.film is None:
            return
        place.series["rolling"].check((frame.image,) * len(place.film), "float32")
        plane = place.convert(frame.image, self._opened().recon_offset_adu)
        for made in place.film.add(frame, plane):
            self._take("rolling", "rolling", made.stream, made.t, made.planes, **made.facts)

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
            **predicted_facts(frame),
            latency_ms=round(frame.latency_ms, 3),
        )
        if frame.uncertainty is not None and "uncertainty" in place.series:
            self._take("uncertainty", "estimated", frame.stream, frame.t, tuple(frame.uncertainty))
        if "limits" in place.series and (limits := frame.limits):
            planes = (*limits[0], *limits[1])
            self._take("limits", "estimated", frame.stream, frame.t, planes)

    def errors(self, frame: FrameErrors) -> None:
        """Store what a comparison with widefield says, and its maps where they are asked for."""
        source, place = frame.source, self._place(frame.source.stream, frame.source.t)
        wanted = "error" in place.series
        self._take(
            "error",
            "estimated",
            source.stream,
            source.t,
            tuple(to_uint16(plane / np.float32(layout.ERROR_SCALE), 0) for plane in frame.planes)
            if wanted
            else (),
            t_acq_ns=source.t_acq_ns,
            compared=error_facts(frame),
        )

    def skipped(self, stream: Stream, t: int, reason: str) -> None:
        """Note that the network did not see time point `t`.

        A fill frame keeps its place in the array.
        """
        place = self._place(stream, t)
        place.end = max(place.end, place.index(stream, t) + 1)
        self._write_log("sr", "skipped", stream, t, reason=reason)

    def status(self, status: Mapping[str, Any]) -> None:
        """Look after the disk and what waits for it, also while no frame comes."""
        if self._finished or self._log is None:
            return
        with _all_of_them(self.path) as trying:
            for place, kind, series in self._all_series():
                with trying():
                    series.look()
                    self._settle_accounts(place, kind)
        self._watch_disk()

    def finish(self) -> None:
        """Write what waits, let the disk confirm it, read again what is there.

        `raw_kept` and `accounts` are then true.

        Raises
        ------
        RecordingError
            If something is lost, or is not where it belongs.
        """
        if self._finished or self._log is None:
            return
        self._finished = True
        with _all_of_them(self.path) as trying:
            for film in (place.film for place in self._places.values() if place.film):
                for made in film.flush():
                    with trying():
                        self._take(
                            "rolling", "rolling", made.stream, made.t, made.planes, **made.facts
                        )
            for place, kind, series in self._all_series():
                while place.held[kind]:
                    with trying():
                        self._append_next(place, kind)
                with trying():
                    series.finish()
                    self._settle_accounts(place, kind)
            if self._opened().record_raw:
                accounts = self.accounts
                self.raw_kept = accounts["raw_stored"] + accounts["raw_elsewhere"]

    def close(self, report: Mapping[str, Any]) -> None:
        """Finish every image, align their time axes, write the report.

        Raises
        ------
        RecordingError
            If an image could not be finished; the others and the report are.
        """
        if self._log is None or self._run is None:
            return
        try:
            with _all_of_them(self.path) as trying:
                with trying():
                    self.finish()
                for (position, channel), place in self._places.items():
                    z_um = self._heights.first_plane_um(position, channel)
                    place.note_stage(StagePosition(z_um=z_um))
                for place, _, series in self._all_series():
                    with trying():
                        series.close(place.time_points(series.spec.z_planes), place.interval_s)
                with trying():
                    self._close_localisations()
                with trying():
                    self._leave_out_what_never_came()
                images = [image for _, _, image in self._all_series()]
                _describe(self.path, images)
                if self._spare and self._spare_begun:
                    _describe(self._spare, [each for each in images if each.on_spare])
                with trying():
                    self._log.close()
        except RecordingError as e:
            self._write_report({**report, "error": report.get("error") or str(e)})
            raise
        else:
            self._write_report(report)
        finally:
            self._log = None
            if self._workers:
                self._workers.close()
            self._unlock()

    def _write_report(self, report: Mapping[str, Any]) -> None:
        """Write the report into the store and, with a copy of the log, beside what is on the spare
        disk.
        """
        with _all_of_them(self.path) as trying:
            with trying():
                write_json(self.path / layout.REPORT, dict(report))
            if self._spare and self._spare_begun:
                with trying():
                    write_json(self._spare / layout.REPORT, dict(report))
                    if not (self._spare / layout.FRAMES_LOG).exists():
                        contained.copy_out(
                            self.path, layout.FRAMES_LOG, self._spare, layout.FRAMES_LOG
                        )

    def _leave_out_what_never_came(self) -> None:
        """Take images without a time point out of the store, unless there are no others.

        Many readers stumble over them.
        """
        empty = {key: place for key, place in self._places.items() if not place.end}
        if not empty or len(empty) == len(self._places):
            return
        for key in empty:
            del self._places[key]
        names = [series.spec.name for place in empty.values() for series in place.series.values()]
        for root in [self.path, *([self._spare] if self._spare and self._spare_begun else [])]:
            self._list_images(
                root
            )  # first: a list may leave out what is there, and not name what is gone
            for name in names:
                shutil.rmtree(root / name, ignore_errors=True)

    def _take(
        self,
        kind: SeriesName,
        state: State,
        stream: Stream,
        t: int,
        planes: Sequence[Pixels | None],
        **facts: Any,
    ) -> None:
        """Append the planes at (t, z).

        Fill up to it if the writer is behind, set them aside if it is beyond.
        """
        place = self._place(stream, t)
        index = place.index(stream, t)
        series = place.series.get(kind)
        if (
            series is not None and index - place.end > _MAX_AHEAD
        ):  # a wrong number, or a mistake in a script
            self._set_aside(series, kind, stream, t, planes, **facts)
            self.notes.append(
                f"Pictures of {series.spec.name} jump to time point {t}, and are kept as TIFF"
                f" beside the images: an image is filled up by at most {_MAX_AHEAD} that never"
                " came. Correct the index of the plan's events."
            )
            return
        place.end = max(place.end, index + 1)
        if series is None:
            self._write_log(kind, state, stream, t, **facts)
            self._watch_disk()
            return
        series.check(planes)
        held = place.held[kind]
        if index < series.next or index in held:
            self._set_aside(series, kind, stream, t, planes, **facts)
            return
        # A plane that lost exposures comes after planes whose place is behind it: those wait for
        # it.
        if kind == "recon" and index > series.next:
            planes = tuple(
                np.array(plane) for plane in planes
            )  # they were converted in a buffer of this sink
        held[index] = _Held(state, stream, t, planes, facts)
        with self._recording():
            while held and (
                min(held) == series.next
                or place.never_comes(series.next)
                or max(held) - series.next >= _patience(series.spec)
            ):
                self._append_next(place, kind)
        self._watch_disk()

    def _append_next(self, place: _Place, kind: SeriesName) -> None:
        """Append what comes next in the array.

        Planes that have come, or zeros for those that have not.
        """
        series = place.series[kind]
        came = place.held[kind].pop(series.next, None)
        if came is None:
            series.fill()
            self._counts["fills"] += 1
            return
        series.append(came.planes)
        self._counts[kind] += 1
        place.lines[kind].append((series.next, came._replace(planes=())))
        self._settle_accounts(place, kind)
        self._show(place, series, kind, came.planes)

    def _settle_accounts(self, place: _Place, kind: SeriesName) -> None:
        """Write the lines about pictures that the operating system has.

        Keep what the image could not.

        Raises
        ------
        RecordingError
            If something was lost, or the run should not go on like this.
        """
        series, lines = place.series[kind], place.lines[kind]
        refused: RecordingError | None = None
        while lines and lines[0][0] <= series.committed:
            _, came = lines.popleft()
            try:
                self._write_log(kind, came.state, came.stream, came.t, stored=True, **came.facts)
            except RecordingError as e:  # the log keeps the line
                refused = e
        if series.notes or series.casualties or series.troubles:
            self._answer(place, kind, series)
        if refused:
            raise refused

    def _answer(self, place: _Place, kind: SeriesName, series: Series) -> None:
        """Do what an image asks for whose disk failed."""
        troubles, series.troubles = series.troubles, []
        casualties, series.casualties = series.casualties, []
        self.notes += series.notes
        series.notes.clear()
        with _all_of_them(self.path) as trying:
            if series.on_spare:
                with trying():
                    self._begin_spare()
            for casualty in casualties:
                with trying():
                    self._keep(place, kind, casualty)
            if troubles:
                with trying():
                    self._look_after_log()
            for trouble in troubles:
                with trying():
                    raise RecordingError(trouble)

    def _keep(self, place: _Place, kind: SeriesName, casualty: Casualty) -> None:
        """Keep raw planes that no shard holds as TIFF.

        Say where planes are that are not in their image, or that they are lost.

        Raises
        ------
        RecordingError
            If they are not in the store.
        """
        series, where = place.series[kind], _stream(self._places, place, casualty.z)
        state = STORED_STATES[kind]
        if casualty.elsewhere:
            file = str(casualty.elsewhere)
            self._write_log(kind, state, where, casualty.t, elsewhere=file, reason=casualty.reason)
            return
        self._counts[kind] -= 1
        saved = (
            self._save_as_tiff(series, where, casualty) if kind == "raw" and casualty.chunks else 0
        )
        lost = casualty.planes - saved
        if lost:
            self._lost[series.spec.name].append((casualty.t, casualty.z))
            self._write_log(kind, state, where, casualty.t, lost=True, reason=casualty.reason)
        raise RecordingError(
            f"{self.path} no longer takes frames: {casualty.reason}. "
            + (
                "What came is kept"
                if not lost
                else f"{series.spec.name} loses pictures, which the report names"
            )
            + ". Check the disk, its space and your quota."
        )

    def _save_as_tiff(self, series: Series, where: Stream, casualty: Casualty) -> int:
        """Write planes that no shard takes as one TIFF; return how many, 0 if no disk takes it."""
        spec = series.spec
        block = np.zeros((spec.planes, *spec.shape), spec.dtype)
        for i, chunk in casualty.chunks.items():
            block[i] = decode(chunk, spec.shape, spec.dtype)
        facts = {
            "t": casualty.t,
            "z": casualty.z,
            "planes": sorted(casualty.chunks),
            "reason": casualty.reason,
        }
        try:
            file = self._write_tiff(
                f"{spec.name}_t{casualty.t:06d}_z{casualty.z:03d}.tif", block, facts
            )
        except RecordingError as e:
            log.warning("no TIFF either: %s", e)
            return 0
        self._unplaced += len(casualty.chunks)
        self._write_log("raw", "raw", where, casualty.t, file=file, reason=casualty.reason)
        return len(casualty.chunks)

    def _look_after_log(self) -> None:
        """Make what was removed beside the images again."""
        if self._log is not None and not self._log.path.exists():
            self._write_skeleton(self._opened(), self.path)
            self._log.begin_again(self.path / layout.FRAMES_LOG)

    def _begin_spare(self) -> None:
        """Make what is on the spare disk a store, once."""
        if self._spare is None or self._spare_begun:
            return
        self._spare_begun = True
        self.notes.append(
            f"The disk of {self.path} takes no more: the run goes on in {self._spare}. Copied over"
            " the first, the second store completes it."
        )
        self._write_skeleton(self._opened(), self._spare)

    def _set_aside(
        self,
        series: Series,
        kind: SeriesName,
        stream: Stream,
        t: int,
        planes: Sequence[Pixels | None],
        **facts: Any,
    ) -> None:
        """Keep what comes twice or too late as a TIFF.

        The array only grows, and nothing is lost.
        """
        blank = np.zeros(series.spec.shape, series.spec.dtype)
        block = np.stack([blank if plane is None else plane for plane in planes])
        file = self._write_tiff(f"{series.spec.name}_t{t:06d}_z{stream.z:03d}.tif", block, facts)
        self._unplaced += sum(plane is not None for plane in planes) if kind == "raw" else 0
        self._write_log(kind, "stray", stream, t, file=file, **facts)

    def _write_tiff(self, name: str, block: Pixels, facts: Mapping[str, Any]) -> str:
        """Write beside the images, or on the spare disk.

        Return the file's name relative to the sidecars, or its whole path.
        """
        import tifffile

        made = io.BytesIO()
        tifffile.imwrite(
            made, block, photometric="minisblack", description=to_json(facts), metadata=None
        )
        # A disk that refuses once is asked a second time.
        roots = [self.path, self.path, *([self._spare] if self._spare else [])]
        with self._recording():
            for attempt, root in enumerate(roots, start=1):
                try:
                    path = _write_new(root / layout.STRAYS / name, made.getvalue())
                    break
                except OSError:
                    if attempt == len(roots):
                        raise
        self._counts["strays"] += 1
        return str(path) if root != self.path else f"{path.parent.name}/{path.name}"

    def _show(
        self, place: _Place, series: Series, kind: SeriesName, planes: Sequence[Pixels | None]
    ) -> None:
        """Follow the brightness of what was stored.

        Write it down once early, so that a running store can be viewed.
        """
        if kind not in ("sr", "depth"):  # theirs are given
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
            raise RecordingError(
                f"{self.path} is not open: frames can be stored between open() and close()."
            )
        return self._run

    def _all_series(self) -> Iterator[tuple[_Place, SeriesName, Series]]:
        return (
            (place, kind, series)
            for place in self._places.values()
            for kind, series in place.series.items()
        )

    def _place(self, stream: Stream, t: int) -> _Place:
        run = self._opened()
        place = self._places.get((stream.position, stream.channel))
        if place is None or not 0 <= stream.z < place.stack.z_planes or t < 0:
            raise RecordingError(
                f"A frame of {stream} at t={t} came; this store was opened for {len(run.positions)}"
                f" positions, channels {', '.join(c.name or 'default' for c in run.channels)} and"
                f" {run.z_planes} z planes."
            )
        return place

    def _write_log(
        self, kind: SeriesName, state: State, stream: Stream, t: int, **facts: Any
    ) -> None:
        if self._log is None:
            return
        with self._recording():
            try:
                self._log.write(kind, state, stream, t, **facts)
            except OSError:
                if self._spare is None or self._log.path.is_relative_to(self._spare):
                    raise
                self._begin_spare()
                self._log.begin_again(self._spare / layout.FRAMES_LOG)

    @contextmanager
    def _recording(self) -> Iterator[None]:
        try:
            yield
        except _WRITE_ERRORS as e:
            raise RecordingError(
                f"{self.path} no longer takes frames: {reason(e)}. Check the disk, its space and"
                " your quota."
            ) from e

    def _watch_disk(self) -> None:
        now = time.monotonic()
        if now < self._disk_check_due_s:
            return
        self._disk_check_due_s = now + _DISK_CHECK_S
        with self._recording():
            self.free_bytes = free = free_bytes(
                self.path if not self._spare_begun or not self._spare else self._spare
            )
        if free >= self._reserve_bytes or self._disk_said:
            return
        if self._spare and not self._spare_begun:
            self._begin_spare()
            for _, _, series in self._all_series():
                series.leave(f"only {free / 1e9:.2f} GB were left")
            return
        self._disk_said = True
        raise RecordingError(
            f"Only {free / 1e9:.2f} GB are left on the disk of {self.path}; recording ends here so"
            " that the store can be finished. Free some space or record to another disk."
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

    stack: Stack
    recorded_interval_s: float | None = None
    series: dict[SeriesName, Series] = field(default_factory=dict)
    held: defaultdict[SeriesName, dict[int, _Held]] = field(
        default_factory=lambda: defaultdict(dict)
    )
    # For frames.jsonl, once the image has committed what lies before the index.
    lines: defaultdict[SeriesName, deque[tuple[int, _Held]]] = field(
        default_factory=lambda: defaultdict(deque)
    )
    end: int = 0  # linear index behind the last thing heard of
    localisations: LocalisationsFile | None = None
    film: GroupFilm | None = None
    _windows: dict[SeriesName, DisplayWindow] = field(default_factory=dict)
    _timed_plane: int | None = None
    _last_time: tuple[int, int] | None = None
    _intervals_s: deque[float] = field(default_factory=lambda: deque(maxlen=1001))
    # Reused for every reconstruction: the writer copies what is appended.
    _scratch: NDArray[np.float32] | None = None
    _stored: NDArray[np.uint16] | None = None

    def allocate(self, recon_shape: tuple[int, int]) -> None:
        """Prepare for reconstructions of this size."""
        self._windows = {kind: DisplayWindow(_WINDOW_UPDATE_S) for kind in self.series}
        if "recon" in self.series:
            self._scratch, self._stored = (
                np.empty(recon_shape, np.float32),
                np.empty(recon_shape, np.uint16),
            )

    def convert(self, image: NDArray[np.float32], offset_adu: int) -> NDArray[np.uint16]:
        """Return the reconstruction as it is stored, valid until the next call."""
        return to_uint16(image, offset_adu, self._stored, self._scratch)

    def follow(
        self, kind: SeriesName, planes: Sequence[Pixels | None]
    ) -> list[tuple[float, float]]:
        """Return the display window of a kind after these planes.

        Exposures of one group share it.
        """
        return [self._windows[kind].update(next((p for p in planes if p is not None), None))]

    def index(self, stream: Stream, t: int) -> int:
        """Return the place of a plane along the arrays."""
        return t * self.stack.z_planes + stream.z

    def never_comes(self, index: int) -> bool:
        """Whether the plan leaves a plane out that has a place along the arrays."""
        return self.stack.never_comes(*divmod(index, self.stack.z_planes))

    def note_stage(self, stage: StagePosition) -> None:
        """Let the images say where the stages were when the first of their planes was taken.

        Z is that of plane 0.
        """
        for series in self.series.values():
            series.place(stage)

    def note_time(self, stream: Stream, t: int, t_acq_ns: int) -> None:
        """Measure the interval between time points, at the plane of a stack that came first.

        That is not plane 0 where a channel leaves planes out.
        """
        if self._timed_plane is None:
            self._timed_plane = stream.z
        if stream.z != self._timed_plane or (self._last_time and t <= self._last_time[0]):
            return
        if self._last_time:
            self._intervals_s.append(
                (t_acq_ns - self._last_time[1]) / (t - self._last_time[0]) / 1e9
            )
        self._last_time = (t, t_acq_ns)

    @property
    def interval_s(self) -> float | None:
        """From one time point to the next: of a recording, else the median of the last thousand."""
        if self.recorded_interval_s:
            return self.recorded_interval_s
        return float(np.median(self._intervals_s)) if self._intervals_s else None

    def time_points(self, z_planes: int) -> int:
        """Length that every image here must have."""
        return -(-self.end // z_planes)


def _patience(spec: SeriesSpec) -> int:
    """Return how many planes may wait for one that is late.

    A stack, and several where they are small.

    A plane whose stream has a gap is known to be late, or without a neighbour, when the stream goes
    on: as many time points later as the gap is long, and one more.
    """
    most = min(_STACKS_HELD * spec.z_planes, _HELD_BYTES // spec.group_bytes)
    return max(spec.z_planes, most) if spec.z_planes > 1 else 1


def _refuse_films_of_planes(run: RunDescription) -> None:
    films = [c.name for c in run.channels if c.raw_along_t]
    if films and run.z_planes > 1:
        raise StoreError(
            f"Channel {films[0] or 'default'} is a film of exposures and the run has {run.z_planes}"
            " planes: a store holds one or the other. Acquire each plane as a position of its own."
        )


def _write_sidecar(path: Path, content: str | Path) -> None:
    if isinstance(content, Path):
        shutil.copyfile(
            content, path
        )  # the rig's own: what a store names was looked at by `RecordedStore.rig`
    else:
        contained.write_text(path.parent, path.name, content)


def list_images(root: Path, names: Sequence[str], *, whole: bool = True) -> None:
    """Write which images a store has.

    Of a `whole` one, also what they say of themselves: as OME-XML, and as the copy that a repair
    rebuilds metadata from.
    """
    (root / "OME").mkdir(exist_ok=True)
    about = {"ome": {"version": "0.5", "series": list(names)}}
    write_json(root / "OME" / "zarr.json", group_json(about))
    if whole:
        write_ome_xml(root, names)
        write_json(root / layout.IMAGES, layout.copy_of_metadata(root, names))


def _describe(path: Path, series: Sequence[Series]) -> None:
    """Write images as OME-XML once more, with the lengths of now."""
    try:
        write_ome_xml(path, [each.spec.name for each in series])
    except _WRITE_ERRORS as e:  # it says nothing that is not said elsewhere
        log.warning("the images could not be described as OME-XML: %s", e)


def _stream(places: Mapping[tuple[int, str], _Place], place: _Place, z: int) -> Stream:
    return next(
        Stream(position, channel, z)
        for (position, channel), other in places.items()
        if other is place
    )


def _write_new(path: Path, data: bytes) -> Path:
    """Write a file under the next name that is free, through to the disk; return its path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path = next_free_path(path)
    new = contained.open_to_write(path.parent, path.name, "x", buffering=0)
    try:
        with new as file:
            write_all(file, data)
            sync(file.fileno())
    except OSError:
        remove(path)
        raise
    return path


def _refuse_full(wanted: Path, reserve_bytes: int) -> None:
    free = free_bytes(wanted)
    if free < reserve_bytes:
        raise StoreError(
            f"Only {free / 1e9:.2f} GB are free for {wanted}, {reserve_bytes / 1e9:.2f}"
            " GB are kept in reserve: free some space or choose another disk."
        )


@contextmanager
def _all_of_them(store: Path) -> Iterator[Callable[[], AbstractContextManager[None]]]:
    """Let the block try several things, each in a ``with trying():``.

    Raise afterwards what went wrong with any.
    """
    failures: list[str] = []

    @contextmanager
    def trying() -> Iterator[None]:
        try:
            yield
        except RecordingError as e:
            failures.append(str(e))
        except _WRITE_ERRORS as e:
            failures.append(
                f"{store} could not be finished: {reason(e)}. 'livesr repair {store}'"
                " recovers what can be."
            )

    yield trying
    if failures:
        raise RecordingError(" ".join(dict.fromkeys(failures)))


def _cannot_create(wanted: Path, error: BaseException) -> StoreError:
    return StoreError(
        f"Cannot create {wanted}: {reason(error)}. Choose a folder that you can write to."
    )


def _cannot_spare(folder: Path, error: BaseException) -> StoreError:
    return StoreError(
        f"The spare disk {folder} cannot be written to: {reason(error)}. Choose another folder."
    )


def _spare_store(folder: Path | None, name: str) -> Path | None:
    """Return the store on the spare disk, which must be there and take files before a run needs
    it.
    """
    if folder is None:
        return None
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = _write_new(folder / f".{name}.probe", b"livesr")
        probe.unlink()
    except OSError as e:
        raise _cannot_spare(folder, e) from e
    return next_free_path(folder.absolute() / name)


def _ranges(places: Sequence[tuple[int, int]]) -> list[str]:
    """Return (t, z) as people read them: "t 4-7", "t 12 z 3"."""
    by_z: defaultdict[int, list[int]] = defaultdict(list)
    for t, z in places:
        by_z[z].append(t)
    several = len(by_z) > 1 or any(by_z)
    return [
        f"t {span}{f' z {z}' if several else ''}"
        for z, times in sorted(by_z.items())
        for span in spans(times)
    ]


def _claim(path: Path) -> Path:
    """Make the folder `path`, or the next number that is free.

    Two runs that start together get one each.
    """
    while True:
        free = next_free_path(path)
        try:
            free.mkdir(parents=True)
        except FileExistsError:
            if not free.exists():  # a dangling link: no number will ever be free
                raise
        else:
            return free
