"""A run as an OME-Zarr store: raw, recon and sr side by side, on one time axis.

Owns the store's folder from `open` to `close`: which image a frame belongs to, the order of its time points, the
sidecars in ``livesr/`` and the watch over the disk. How one image is written is `series.py`; docs/store-layout.md
describes the result.
"""

from __future__ import annotations

import logging
import re
import shutil
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from livesr.base.errors import RecordingError, StoreError
from livesr.base.frames import MulticolorFrame, Pixels, RawStack, SRFrame, Stream
from livesr.live.sinks.frames_log import FRAMES_LOG_VERSION, FramesLog, SeriesName, State, to_json
from livesr.live.sinks.series import DisplayWindow, Series, SeriesSpec, group_json, write_json
from livesr.live.sinks.sink import ChannelDescription, RunDescription, to_uint16

log = logging.getLogger(__name__)

SIDECARS = "livesr"
SR_TITLE = "SR prediction (AI) - not raw data"
SR_WARNING = (
    "Predicted by a neural network from one fluorescence channel. Not a measurement: structures may be missing, "
    "invented or assigned to the wrong channel. Verify against recon and raw before drawing conclusions."
)
RESERVE_BYTES = 256 << 20
_EARLY = 10  # time points after which the display windows are written for the first time
_DISK_CHECK_S = 1.0
_WINDOW_UPDATE_S = 0.5


@dataclass(slots=True)
class _Place:
    """The images of one position and channel; None where nothing is recorded."""

    channel: ChannelDescription
    series: dict[SeriesName, Series]
    windows: dict[SeriesName, DisplayWindow] = field(default_factory=dict)
    window_due_s: dict[SeriesName, float] = field(default_factory=dict)
    skipped: set[int] = field(default_factory=set)
    last_seen: tuple[int, int] | None = None
    intervals_s: deque[float] = field(default_factory=lambda: deque(maxlen=1001))
    end: int = 0  # linear index behind the last thing heard of
    # Reused for every reconstruction: the writer copies what is appended.
    recon: NDArray[np.uint16] | None = None


class OMEZarrSink:
    """Writes a run to an OME-Zarr 0.5 store.

    Parameters
    ----------
    path
        Folder to create; if it exists, the next free number is taken (see `path` after `open`).
    reserve_bytes
        Recording stops while this much is still free, so that the store can be finished.
    """

    name = "ome-zarr"

    def __init__(self, path: Path, *, reserve_bytes: int = RESERVE_BYTES) -> None:
        self.path = Path(path)
        self._reserve_bytes = reserve_bytes
        self._places: dict[tuple[int, str], _Place] = {}
        self._run: RunDescription | None = None
        self._log: FramesLog | None = None
        self._disk_check_due_s = 0.0
        self._counts = {"raw": 0, "recon": 0, "sr": 0, "fills": 0, "strays": 0, "clipped_pixels": 0}

    @property
    def counts(self) -> Mapping[str, int]:
        """Time points stored per kind, fills, strays, and recon pixels that did not fit into uint16."""
        return dict(self._counts)

    # ------------------------------------------------------------------ open

    def open(self, run: RunDescription) -> None:
        """Create the store with every image that the run will have.

        Raises
        ------
        StoreError
            If the folder cannot be created or the disk is already full; nothing is left behind.
        """
        self.path = next_free_path(self.path)
        free = free_bytes(self.path)
        if free < self._reserve_bytes:
            raise StoreError(
                f"Only {free / 1e9:.2f} GB are free for {self.path}, recording keeps {self._reserve_bytes / 1e9:.2f} GB "
                "in reserve: free some space or choose another disk."
            )
        made = _first_missing(self.path)
        try:
            self._create(run)
        except Exception as e:
            self._abandon(made)
            raise StoreError(f"Cannot create the store {self.path}: {_reason(e)}. Choose a folder you can write to.") from e
        self._run = run

    def _create(self, run: RunDescription) -> None:
        sidecars = self.path / SIDECARS
        sidecars.mkdir(parents=True)
        write_json(self.path / "zarr.json", group_json(_root_attributes(run)))
        write_json(sidecars / "zarr.json", group_json({"livesr": {"frames_log_version": FRAMES_LOG_VERSION}}))
        for name, content in run.sidecars.items():
            _write_sidecar(sidecars / Path(name).name, content)
        self._log = FramesLog(sidecars / "frames.jsonl")
        names: list[str] = []
        for position, position_name in enumerate(run.positions):
            for channel in run.channels:
                place = self._places[position, channel.name] = _Place(channel, {})
                for kind, spec in _specs(run, position_name, channel):
                    place.series[kind] = Series(self.path / spec.name, spec)
                    place.windows[kind] = DisplayWindow()
                    names.append(spec.name)
                if "recon" in place.series:
                    place.recon = np.empty(channel.recon_shape, np.uint16)
        (self.path / "OME").mkdir()
        write_json(self.path / "OME" / "zarr.json", group_json({"ome": {"version": "0.5", "series": names}}))

    def _abandon(self, made: Path) -> None:
        for series in self._all_series():
            try:
                series.close(0)
            except (OSError, RuntimeError) as e:
                log.debug("closing %s after a failed start: %s", series.spec.name, e)
        if self._log:
            self._log.close()
            self._log = None
        self._places.clear()
        shutil.rmtree(made, ignore_errors=True)

    # ---------------------------------------------------------------- frames

    def raw(self, stack: RawStack) -> None:
        """Store a raw group; exposures that never came are zeros in the array and listed in frames.jsonl."""
        self._watch_disk()
        missing = tuple(i for i, f in enumerate(stack.frames) if f is None)
        self._note_time(stack.stream, stack.t, stack.t_acq_ns)
        self._take(
            "raw",
            "raw_incomplete" if missing else "raw",
            stack.stream,
            stack.t,
            stack.frames,
            t_acq_ns=stack.t_acq_ns,
            t_camera_ms=stack.t_camera_ms,
            missing=missing,
        )

    def recon(self, frame: SRFrame) -> None:
        """Store a reconstruction as uint16, shifted by the run's `recon_offset_adu`."""
        self._watch_disk()
        place = self._place(frame.stream, frame.t)
        self._note_time(frame.stream, frame.t, frame.t_acq_ns)
        planes: tuple[Pixels, ...] = ()
        clipped = 0
        if place.recon is not None:
            if frame.image.shape != place.recon.shape:
                place.series["recon"].check((frame.image.astype(np.uint16),))
            offset = self._opened().recon_offset_adu
            planes = (to_uint16(frame.image, offset, out=place.recon),)
            clipped = int(np.count_nonzero(frame.image < -offset) + np.count_nonzero(frame.image > 65535 - offset))
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
            clipped=clipped or None,
        )

    def separated(self, frame: MulticolorFrame) -> None:
        """Store a prediction; a provisional one is not stored, its final version follows."""
        if frame.provisional:
            return
        self._watch_disk()
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
            offset_adu=frame.offset_adu or None,
            edge=frame.edge,
            gap_beside=not frame.true_neighbours,
            warnings=frame.warnings,
        )

    def skipped(self, stream: Stream, t: int, reason: str) -> None:
        """Note that the network did not see time point `t`; a fill frame keeps its place."""
        place = self._place(stream, t)
        index = self._index(stream, t)
        place.end = max(place.end, index + 1)
        place.skipped.add(index)
        self._write_log("sr", "skipped", stream, t, reason=reason)

    def status(self, status: Mapping[str, Any]) -> None:
        """Look after the disk, also while no frame comes."""
        self._watch_disk()

    def _take(
        self, kind: SeriesName, state: State, stream: Stream, t: int, planes: Sequence[Pixels | None], **facts: Any
    ) -> None:
        """Append the planes at (t, z): fill up to it if the writer is behind, set them aside if it is beyond."""
        place, index = self._place(stream, t), self._index(stream, t)
        place.end = max(place.end, index + 1)
        series = place.series.get(kind)
        if series is None:
            self._write_log(kind, state, stream, t, stored=0, **facts)
            return
        series.check(planes)
        if index < series.next:
            self._set_aside(series, kind, stream, t, planes, **facts)
            return
        with self._recording():
            while series.next < index:
                self._fill(place, series, kind, stream)
            series.append(planes)
        self._counts[kind] += 1
        self._write_log(kind, state, stream, t, stored=1, **facts)
        self._update_window(place, series, kind, planes)

    def _fill(self, place: _Place, series: Series, kind: SeriesName, stream: Stream) -> None:
        index = series.next
        series.fill()
        self._counts["fills"] += 1
        if kind == "sr" and index in place.skipped:
            place.skipped.discard(index)  # frames.jsonl says so already, and why
        else:
            t, z = divmod(index, series.spec.z_planes)
            self._write_log(kind, "fill", stream._replace(z=z), t)

    def _set_aside(
        self, series: Series, kind: SeriesName, stream: Stream, t: int, planes: Sequence[Pixels | None], **facts: Any
    ) -> None:
        """Keep what comes too late or twice as a TIFF: the array only grows, and nothing is lost."""
        import tifffile

        folder = self.path / SIDECARS / "strays"
        blank = np.zeros(series.spec.shape, series.spec.dtype)
        with self._recording():
            folder.mkdir(exist_ok=True)
            path = next_free_path(folder / f"{series.spec.name}_t{t:06d}_z{stream.z:03d}.tif")
            block = np.stack([blank if p is None else p for p in planes])
            tifffile.imwrite(path, block, photometric="minisblack", description=to_json(facts), metadata=None)
        self._counts["strays"] += 1
        self._write_log(kind, "stray", stream, t, file=f"strays/{path.name}", **facts)

    def _update_window(self, place: _Place, series: Series, kind: SeriesName, planes: Sequence[Pixels | None]) -> None:
        now = time.monotonic()
        first = next((p for p in planes if p is not None), None)
        if kind != "sr" and first is not None and now >= place.window_due_s.get(kind, 0.0):
            place.window_due_s[kind] = now + _WINDOW_UPDATE_S
            series.windows = [place.windows[kind].update(first)] * len(planes)
        if series.next == _EARLY * series.spec.z_planes:
            series.write_metadata(place.intervals_s and float(np.median(place.intervals_s)) or None)

    # ----------------------------------------------------------------- close

    def close(self, report: Mapping[str, Any]) -> None:
        """Finish every image, align their time axes, write the report.

        Raises
        ------
        RecordingError
            If an image could not be finished; the others and the report are.
        """
        if self._log is None:
            return
        failures = [
            f"{series.spec.name}: {failure}"
            for place in self._places.values()
            for series in place.series.values()
            if (failure := self._finish(place, series))
        ]
        try:
            write_json(self.path / SIDECARS / "report.json", dict(report))
        except OSError as e:
            failures.append(f"report.json: {_reason(e)}")
        self._log.close()
        self._log = None
        if failures:
            raise RecordingError(
                f"The store {self.path} could not be finished ({'; '.join(failures)}): it is readable up to the last "
                f"whole shard; run 'livesr repair {self.path}'."
            )

    def _finish(self, place: _Place, series: Series) -> str | None:
        time_points = -(-place.end // series.spec.z_planes)
        measured_s = float(np.median(place.intervals_s)) if place.intervals_s else None
        try:
            series.close(time_points, measured_s)
        except (OSError, RuntimeError) as e:
            return _reason(e)
        return None

    # --------------------------------------------------------------- helpers

    def _opened(self) -> RunDescription:
        if self._run is None:
            raise RecordingError(f"The store {self.path} is not open.")
        return self._run

    def _all_series(self) -> Iterator[Series]:
        return (series for place in self._places.values() for series in place.series.values())

    def _place(self, stream: Stream, t: int) -> _Place:
        run = self._opened()
        place = self._places.get((stream.position, stream.channel))
        if place is None or not 0 <= stream.z < run.z_planes or t < 0:
            raise RecordingError(
                f"A frame of {stream}, t={t} came; this store was opened for {len(run.positions)} positions, channels "
                f"{[c.name for c in run.channels]} and {run.z_planes} z planes."
            )
        return place

    def _index(self, stream: Stream, t: int) -> int:
        return t * self._opened().z_planes + stream.z

    def _note_time(self, stream: Stream, t: int, t_acq_ns: int) -> None:
        place = self._place(stream, t)
        if stream.z != 0:
            return
        if place.last_seen and t > place.last_seen[0]:
            place.intervals_s.append((t_acq_ns - place.last_seen[1]) / (t - place.last_seen[0]) / 1e9)
        if place.last_seen is None or t > place.last_seen[0]:
            place.last_seen = (t, t_acq_ns)

    def _write_log(self, kind: SeriesName, state: State, stream: Stream, t: int, **facts: Any) -> None:
        self._opened()
        if self._log:
            with self._recording():
                self._log.write(kind, state, stream, t, **facts)

    @contextmanager
    def _recording(self) -> Iterator[None]:
        try:
            yield
        except (OSError, RuntimeError) as e:
            raise RecordingError(
                f"The store {self.path} no longer takes frames: {_reason(e)}. Check the disk, its space and quota."
            ) from e

    def _watch_disk(self) -> None:
        now = time.monotonic()
        if now < self._disk_check_due_s:
            return
        self._disk_check_due_s = now + _DISK_CHECK_S
        free = free_bytes(self.path)
        if free < self._reserve_bytes:
            raise RecordingError(
                f"Only {free / 1e9:.2f} GB are left on the disk of {self.path}; recording ends here so that the store "
                "can be finished. Free some space or record to another disk."
            )


def next_free_path(path: Path) -> Path:
    """Return `path`, or where it exists the next number that is free: run.ome.zarr, run_2.ome.zarr, run_3.ome.zarr."""
    stem, dot, suffixes = path.name.partition(".")
    number = 1
    while path.exists():
        number += 1
        path = path.with_name(f"{stem}_{number}{dot}{suffixes}")
    return path


def free_bytes(path: Path) -> int:
    """Space left on the disk that `path` is or will be on.

    Raises
    ------
    StoreError
        If that disk does not answer.
    """
    try:
        return shutil.disk_usage(_first_missing(path.absolute()).parent).free
    except OSError as e:
        raise StoreError(f"Cannot reach the disk of {path}: {_reason(e)}.") from e


def bytes_per_hour(run: RunDescription, frames_per_s: float) -> int:
    """Upper bound of what `frames_per_s` super-resolution frames, over all streams, take in an hour; uncompressed."""
    channels = [sum(spec.group_bytes for _, spec in _specs(run, "0", channel)) for channel in run.channels]
    return int(sum(channels) / max(len(channels), 1) * frames_per_s * 3600)


def memory_bytes(run: RunDescription) -> int:
    """Upper bound of what waits in memory to be written."""
    return sum(
        spec.memory_bytes for position in run.positions for c in run.channels for _, spec in _specs(run, position, c)
    )


def series_name(kind: SeriesName, run: RunDescription, position: str, channel: str) -> str:
    """Return the image's folder: `raw`, or `raw_<position>_<channel>` as soon as there are several of either."""
    if len(run.positions) == 1 and len(run.channels) == 1:
        return kind
    return f"{kind}_{_safe(position)}_{_safe(channel or 'default')}"


def _safe(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9.-]+", "-", name)


def _specs(run: RunDescription, position: str, channel: ChannelDescription) -> Iterator[tuple[SeriesName, SeriesSpec]]:
    """Describe the images of one position and channel."""
    common: dict[str, Any] = {"z_planes": run.z_planes, "z_step_um": run.z_step_um, "interval_s": run.interval_s}
    about = {"version": 1, "stream": run.stream_id, "position": position, "channel": channel.name}
    if run.record_raw:
        yield "raw", SeriesSpec(
            name=series_name("raw", run, position, channel.name),
            title="raw exposures",
            shape=channel.raw_shape,
            dtype=channel.raw_dtype,
            labels=channel.raw_labels,
            colors=("FFFFFF",) * len(channel.raw_labels),
            pixel_size_um=channel.raw_pixel_size_um,
            provenance={**about, "kind": "raw", "prediction": False},
            **common,
        )
    if run.record_recon:
        yield "recon", SeriesSpec(
            name=series_name("recon", run, position, channel.name),
            title=f"reconstruction ({channel.recon_method})",
            shape=channel.recon_shape,
            dtype="uint16",
            labels=(channel.name or "recon",),
            colors=("FFFFFF",),
            pixel_size_um=channel.recon_pixel_size_um,
            has_channel_axis=False,
            provenance={**about, **_recon_provenance(run, channel)},
            **common,
        )
    if channel.labels:
        yield "sr", SeriesSpec(
            name=series_name("sr", run, position, channel.name),
            title=SR_TITLE,
            shape=channel.sr_shape,
            dtype="uint16",
            labels=tuple(f"SR {label}" for label in channel.labels),
            colors=channel.colors,
            pixel_size_um=channel.sr_pixel_size_um,
            provenance={**about, **_sr_provenance(channel)},
            **common,
        )


def _recon_provenance(run: RunDescription, channel: ChannelDescription) -> dict[str, Any]:
    return {
        "kind": "reconstruction",
        "prediction": False,
        "method": channel.recon_method,
        "intensity": {"unit": "ADU", "scale": 1.0, "offset": run.recon_offset_adu},
    }


def _sr_provenance(channel: ChannelDescription) -> dict[str, Any]:
    return {
        "kind": "prediction",
        "prediction": True,
        "warning": SR_WARNING,
        "input": {"series": "recon", "method": channel.recon_method},
        "upscaling": round(channel.recon_pixel_size_um / channel.sr_pixel_size_um, 6),
        "intensity": {"unit": "ADU", "scale": 1.0, "offset": 0},
        **channel.ai,
    }


def _root_attributes(run: RunDescription) -> dict[str, Any]:
    return {
        "ome": {"version": "0.5", "bioformats2raw.layout": 3},
        "livesr": {
            "version": 1,
            "software": f"livesr {version('livesr')}",
            "stream": run.stream_id,
            "started": datetime.fromtimestamp(run.started_ns / 1e9, UTC).isoformat(),
            "positions": list(run.positions),
            "channels": [c.name for c in run.channels],
            "sidecars": SIDECARS,
        },
    }


def _write_sidecar(path: Path, content: str | Path) -> None:
    if isinstance(content, Path):
        shutil.copyfile(content, path)
    else:
        path.write_text(content, encoding="utf-8")


def _first_missing(path: Path) -> Path:
    """Return the topmost folder that would have to be created for `path`, or `path` if all exist."""
    for folder in (path, *path.parents):
        if folder.parent.exists():
            return folder
    return path


def _reason(error: BaseException) -> str:
    strerror = getattr(error, "strerror", None)
    return str(strerror or error).strip().rstrip(".") or type(error).__name__
