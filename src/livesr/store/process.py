"""An offline run: raw frames from a disk through the pipeline of a live run, into a new store.

Owns what differs from a live run: where the frames come from, that nothing is skipped, and that the
values of the live run are used again where there was one. The way of a frame is in
`livesr.live.pipeline`.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from livesr.base.compute import AUTO, Augmentation, ComputeConfig, Views
from livesr.base.errors import BackendError, ConfigError, DamagedFileError, RunError
from livesr.base.files import not_expected, path_of
from livesr.base.frames import CameraFrame, MulticolorFrame, RawStack, SRFrame, Stream
from livesr.base.progress import Progress, Steps
from livesr.base.run_description import RunDescription
from livesr.base.timing import Histogram
from livesr.formats import layout
from livesr.formats.localisations import read_localisations
from livesr.formats.skips import lacks_raw, waits
from livesr.live.audit import Audits
from livesr.live.beside import check_companions
from livesr.live.honoured import check_honoured
from livesr.live.inference.engine import manifest_files
from livesr.live.inference.runtime import is_remote, why_unavailable
from livesr.live.keeping_up import COMPLETE
from livesr.live.paths import ChannelPath, build_path, build_superposition, close_all
from livesr.live.pipeline import Pipeline
from livesr.live.reconstruct.reconstructor import TellsDrift
from livesr.live.recorded import Recorded
from livesr.live.run_state import Report
from livesr.live.sinks.ome_zarr import OMEZarrSink
from livesr.live.sinks.series import write_json
from livesr.live.sinks.sink import Sink
from livesr.live.sources.replay import feed
from livesr.store.raw_input import RawInput, description


def process(
    raw: RawInput,
    store: Path,
    *,
    compute: ComputeConfig = AUTO,
    record_raw: bool = True,
    record_recon: bool = True,
    refine_drift: bool = False,
    on_progress: Progress = lambda done, total: None,
) -> Report:
    """Compute reconstructions and predictions of `raw`, nothing skipped.

    Return the report of the run.

    The reconstructions equal those of the live run. So do the predictions, within 1 ADU, on the
    same backend and precision; "auto" takes those of the live run where they can be had.

    Parameters
    ----------
    store : OME-Zarr to write; a path that exists gets the next number
    compute : how; where it leaves the choice, as in the live run
    refine_drift : whether running images are drawn with the drift that all localisations of the
        run show together, instead of the one that was followed group by group

    Raises
    ------
    UsageError
        If the rig, the engine, the runtime or the store cannot work.
    RunError
        If the run had to end early.
    """
    if not isinstance(raw, RawInput):
        raise not_expected(
            raw,
            "What process is given",
            "what livesr.raw_input returns, as process(raw_input(path), store)",
        )
    store = path_of(store, "The store")
    refuse_residual_plane(compute)
    paths, notes = build_paths(raw, compute)
    try:
        drifts_nm = refined_drifts_nm(raw, paths) if refine_drift else {}
    except BaseException:
        close_all(paths)
        raise
    started_s = time.monotonic()
    sidecars = {**raw.run.get("sidecars", {}), **manifests(paths)}
    run = description(raw, [p.description for p in paths.values()], sidecars=sidecars)
    sink, watch = OMEZarrSink(store), _Watch(raw.groups, paths, on_progress)
    try:
        report = computed(
            paths,
            replace(run, record_raw=record_raw, record_recon=record_recon),
            [sink, watch],
            Recorded(
                {} if refine_drift else raw.normalisations, raw.pattern_drifts, drifts_nm=drifts_nm
            ),
            raw.frames(),
            lambda: Report(store=str(sink.path), publish=None, offline=True),
            Audits(raw.rig, None, raw.cameras),
        )
    finally:
        close_all(paths)
        raw.close()
    # Latency would be the age of the recording, and frames/s those of the camera.
    elapsed_s = max(time.monotonic() - started_s, 1e-9)
    report["sr_fps"] = round(report["sr_frames"] / elapsed_s, 2)
    report["latency_ms"] = Histogram().summary()
    report["warnings"] = [*raw.notes, *raw.remarks(), *notes, *report["warnings"]]
    write_json(sink.path / layout.REPORT, report)
    if watch.failures:
        raise RunError(
            f"{sum(watch.failures.values())} frames have no prediction:"
            f" {'; '.join(watch.failures)}."
        )
    return report


def computed(
    paths: Mapping[str, ChannelPath],
    run: RunDescription,
    sinks: Sequence[Sink],
    recorded: Recorded,
    frames: Iterable[CameraFrame],
    about: Callable[[], Report],
    audits: Audits | None = None,
) -> Report:
    """Let `frames` take the way of a live run, nothing skipped, into `sinks`; return the report.

    `audits` scores predictions beside true channels that were recorded; None scores none.

    Raises
    ------
    RunError
        If it had to end early; what could be read is in the sinks.
    """
    stopped = threading.Event()
    pipeline = Pipeline(
        paths,
        run,
        [*sinks],
        COMPLETE,
        recorded=recorded,
        audits=audits,
        on_stop=stopped.set,
    )
    pipeline.open()
    try:
        feed(pipeline.hook, frames, stopped)
    except DamagedFileError as e:  # what could be read is computed
        pipeline.stop(e)
    finally:
        pipeline.end()
        report = pipeline.join(about())
    if pipeline.error:
        raise pipeline.error
    report.pop("time_left", None)  # beside the disk's pace, not a camera's
    return report


def refined_drifts_nm(
    raw: RawInput, paths: Mapping[str, ChannelPath]
) -> dict[Stream, NDArray[np.float64]]:
    """Return the drift of every exposure of what was localised, (exposures, axes).

    Raises
    ------
    ConfigError
        If nothing was localised.
    StoreError
        If a table cannot be read.
    """
    drifts = {}
    for stream, table in raw.localised.items():
        found, reconstructor = read_localisations(table), paths[stream.channel].reconstructor
        if len(found) and isinstance(reconstructor, TellsDrift):
            exposures = int(found["frame"].max()) + 1
            drifts[stream] = reconstructor.drift_of(found, exposures)
    if not drifts:
        raise ConfigError(
            f"{raw.path} has no table of localisations, by which drift could be refined: give a"
            " store of a run that localises, or process the recording once without."
        )
    return drifts


def refuse_residual_plane(compute: ComputeConfig) -> None:
    """Refuse what a store has no place for.

    Raises
    ------
    ConfigError
        If the plane is asked for.
    """
    if compute.residual_plane:
        raise ConfigError(
            "residual_plane is for frames that a script receives, and a store does not hold it: use"
            " Replay(..., residual_plane=True), or compute it from what the store holds."
        )


def build_paths(raw: RawInput, compute: ComputeConfig) -> tuple[dict[str, ChannelPath], list[str]]:
    """Build the steps of every channel on the runtime of the live run, or the one asked for.

    Say where they differ.
    """
    paths: dict[str, ChannelPath] = {}
    notes: list[str] = []
    try:
        builders: dict[str, Callable[[ComputeConfig], ChannelPath]] = {
            name: partial(build_path, raw.rig, name, camera) for name, camera in raw.cameras.items()
        }
        if raw.rig.sums:  # last: it is made of the others
            builders[raw.rig.sums[0]] = partial(build_superposition, raw.rig, paths)
        for name, build in builders.items():
            before = raw.runtimes.get(name)
            asked = _completed(compute, raw, name)
            paths[name] = _build(build, _as_before(asked, before), asked)
            now = paths[name].networks.session
            if now and before and (now.name, now.precision) != before:
                notes.append(
                    f"Channel {name!r} was separated live with {' '.join(before)}, now with"
                    f" {now.name} {now.precision}: the predictions agree, but not to the last ADU."
                )
            there = paths[name].device.name
            if there != raw.devices.get(name, there):
                notes.append(
                    f"Channel {name!r} was reconstructed live on {raw.devices[name]}, now on"
                    f" {there}: the reconstructions agree, but not to the last ADU."
                )
        check_companions(paths)
        notes += check_honoured(paths, compute)
    except BaseException:
        close_all(paths)
        raise
    return paths, notes


def _completed(compute: ComputeConfig, raw: RawInput, channel: str) -> ComputeConfig:
    """Return what is asked for, and where nothing is, device, pixels, tiles and views as before.

    A live run on a GPU leaves the choice: this computer may have none.
    """
    on_cpu = raw.devices.get(channel) == "cpu"
    uncertainty, ensemble = raw.uncertainty.get(channel), raw.ensemble.get(channel)
    return compute.model_copy(
        update={
            "device": "cpu" if compute.device == "auto" and on_cpu else compute.device,
            "resample": compute.resample or ("off" if channel in raw.as_they_came else "auto"),
            "tile": raw.tiles.get(channel, "auto") if compute.tile == "auto" else compute.tile,
            "uncertainty": _views(compute, compute.uncertainty, uncertainty),
            "ensemble": _views(compute, compute.ensemble, ensemble),
        }
    )


def _views(
    compute: ComputeConfig, asked: Views | None, before: Augmentation | None
) -> Augmentation | None:
    """Return what is asked for, where nothing is the views of before; the same serve both."""
    if asked == "off":
        return None
    return (compute.views or before) if asked or before else None


def _as_before(asked: ComputeConfig, before: tuple[str, str] | None) -> ComputeConfig:
    """Return the live run's runtime where nothing else is asked for and this computer has it.

    No store decides that frames leave this computer.
    """
    if before is None or asked.backend not in ("auto", before[0]):
        return asked
    if asked.backend == "auto" and is_remote(before[0]):
        return asked
    if why_unavailable(before[0]):
        return asked
    precision = before[1] if asked.precision == "auto" else asked.precision
    return asked.model_copy(update={"backend": before[0], "precision": precision})


def _build(
    build: Callable[[ComputeConfig], ChannelPath], first: ComputeConfig, asked: ComputeConfig
) -> ChannelPath:
    try:
        return build(first)
    except BackendError:
        if first == asked:
            raise
    return build(asked)


def manifests(paths: Mapping[str, ChannelPath]) -> dict[str, Path]:
    """Return the manifests to keep beside a store, by name."""
    return manifest_files(engine for path in paths.values() for engine in path.networks.engines)


class _Watch(Sink):
    """A sink that counts what is done and what failed."""

    name = "progress"
    lossless = essential = True

    def __init__(
        self, groups: int, paths: Mapping[str, ChannelPath], on_progress: Progress
    ) -> None:
        self._groups, self._on_progress = groups, on_progress
        self._separated = {name for name, path in paths.items() if path.networks.engine}
        self._sums = {name for name, path in paths.items() if path.parts}
        self.failures: dict[str, int] = {}

    def open(self, run: RunDescription) -> None:
        """Show that it begins."""
        self._steps = Steps(self._groups, self._on_progress)

    def raw(self, stack: RawStack) -> None:
        """Count a group that nothing can be made of."""
        if not stack.complete:
            self._steps.step()

    def recon(self, frame: SRFrame) -> None:
        """Count a measurement that is the end of its way."""
        if frame.stream.channel not in self._separated | self._sums:
            self._steps.step()

    def separated(self, frame: MulticolorFrame) -> None:
        """Count a prediction; what is made of other channels is no group of its own."""
        if frame.stream.channel not in self._sums:
            self._steps.step()

    def skipped(self, stream: Stream, t: int, reason: str) -> None:
        """Keep the reason, unless what is missing is missing in the input."""
        if waits(reason):
            self._steps.step()
        elif not lacks_raw(reason):
            self.failures[reason] = self.failures.get(reason, 0) + 1
