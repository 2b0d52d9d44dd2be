"""What is told of a run: its state while it goes on, its report at the end.

Owns where each number comes from. The types are those of `livesr.live.run_state`.
"""

from __future__ import annotations

from collections import Counter
from typing import Any, cast

from livesr.live.dose import said
from livesr.live.inference.test_time_augmentation import most_within
from livesr.live.networks import Networks
from livesr.live.run import Run
from livesr.live.run_state import Report, RunState, Status
from livesr.live.sources.mda import MDAHook


def raw_missing(state: RunState, hook: MDAHook) -> int:
    """Return the exposures that were announced, numbered or begun as a group, and never came."""
    return state.counts["raw_missing"] if hook.missing is None else hook.missing


def status_of(run: Run, hook: MDAHook) -> Status:
    """Return the state of the run, for people who look at it."""
    state, paths = run.state, [channel.path for channel in run.channels.values()]
    counts, free = state.counts, None
    with state.survived("Looking at the free space"):
        free = run.sinks.free_bytes
    status = Status(
        raw_frames=hook.received,
        raw_missing=raw_missing(state, hook),
        recon_frames=counts["recon_frames"],
        recon_updates=counts["recon_updates"],
        sr_frames=counts["sr_frames"],
        sr_skipped=counts["sr_skipped"],
        sr_provisional=counts["sr_provisional"],
        groups_dropped=counts["groups_dropped"],
        sr_fps=state.sr_fps,
        latency_ms=state.latency.summary(),
        latency_provisional_ms=state.latency_provisional.summary(),
        raw_queue=run.queues.filled(hook.waiting),
        disk_free_bytes=free,
        warnings=state.warnings,
        engine={p.name: engine.manifest.id for p in paths if (engine := p.networks.engine)},
        networks={p.name: [str(e) for e in found] for p in paths if (found := p.networks.engines)},
        upscale={
            path.name: engine.manifest.id
            for path in paths
            for engine in path.networks.engines
            if engine.manifest.task == "upscale"
        },
        backend={p.name: session.name for p in paths if (session := p.networks.session)},
        computes={p.name: line for p in paths if (line := p.networks.computes)},
    )
    if any(path.parts for path in paths):
        status |= state.superposition
    if dose := run.dose.report():
        status["dose"] = dose
        status["dose_line"] = said(dose)
    if audits := run.audits.report:
        status["audits"] = audits
    if missed := run.audits.missed:
        status["audits_missed"] = missed
    if errors := state.error_map:
        status["error_map"] = errors
    if remote := {p.name: accounts for p in paths if (accounts := p.networks.accounts)}:
        status["remote"] = remote
    return status


def report_of(run: Run, hook: MDAHook) -> Report:
    """Return everything that is known about the run, for the table, `--json` and report.json."""
    state, counts = run.state, run.state.counts
    told = cast("Report", status_of(run, hook))
    told["raw_lost"] = hook.received - counts["raw_frames"] + run.sinks.raw_lost
    told |= cast("Report", run.sinks.accounts)
    told |= Report(
        raw_fetched=hook.fetched,
        tc_complete=state.tc_complete,
        device={name: channel.measurement.device for name, channel in run.channels.items()},
        steps_ms=state.steps.summary(),
        acquisition_waits=hook.waits,
        channels={
            c.name: {
                "labels": c.labels,
                "colors": c.colors,
                "pixel_size_um": c.sr_pixel_size_um or c.recon_pixel_size_um,
            }
            for c in run.description.channels
        },
        sink_dropped=run.sinks.dropped,
        error=str(state.error) if state.error else None,
    )
    if left := _time_left(run, told):
        told["time_left"] = left
    return told | _counted(counts)


_ENOUGH = 20


def _time_left(run: Run, told: Report) -> dict[str, Any]:
    """Say which views of every frame the networks would have had time for; {} for none.

    Nine measurements of ten came at least the interval apart: the bursts of a time lapse count, its
    pauses do not. On a GPU that keeps frames a step's time is not the network's: nothing is said,
    nor of other engines than those that separate, of which alone it is known what views are worth.
    """
    state = run.state
    used = [n for n in (c.path.networks for c in run.channels.values()) if n.steps]
    lacking = told["sr_skipped"] or told["groups_dropped"] or told["sr_frames"] < _ENOUGH
    if lacking or not all(map(_gains_by_views, used)):
        return {}
    interval_ms, network_ms = state.interval.percentile(10), state.steps["infer"].percentile(90)
    square = all(y == x for y, x in (n.steps[-1].shape for n in used))
    views = most_within(interval_ms, network_ms, square=square)
    if views is None:
        return {}
    return {
        "interval_ms": round(interval_ms, 3),
        "network_ms": round(network_ms, 3),
        "ensemble": views,
    }


def _gains_by_views(networks: Networks) -> bool:
    manifest = networks.steps[-1].engine.manifest
    alone = networks.views is None and networks.resident is None
    return alone and manifest.trained and manifest.task == "separate"


def _counted(counts: Counter[str]) -> Report:
    return Report(
        raw_repeated=counts["raw_repeated"],
        raw_unplaced=counts["raw_unplaced"],
        groups=counts["groups"],
        groups_incomplete=counts["groups_incomplete"],
        recon_failed=counts["recon_failed"],
        recon_doubtful=counts["recon_doubtful"],
        recon_refused=counts["recon_refused"],
        updates_refused=counts["updates_refused"],
        pattern_vectors_corrected=counts["pattern_vectors_corrected"],
        sr_failed=counts["sr_failed"],
    )
