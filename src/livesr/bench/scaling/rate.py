"""How frames, latency and memory go with the camera's rate, up to what Micro-Manager's demo camera
can deliver.

Every exposure is one frame, separated by an engine that does nothing: beyond what the computer
composes, `latest` skips predictions, and neither latency nor memory may follow the camera.
"""

from __future__ import annotations

import math
from dataclasses import replace
from datetime import timedelta

import psutil
import useq
from pymmcore_plus import CMMCorePlus

from livesr.base.config import RigConfig
from livesr.bench.engine import NO_ENGINE
from livesr.bench.hook import CHANNEL, demo_core, frames_per_s
from livesr.bench.result import Result, compared
from livesr.bench.timing import interleave
from livesr.live.plugin import LiveSR
from livesr.live.run_state import Report

_RATES = (25, 50, 100, 200, 400, 800, 1600)
_CEILING = 10_000  # frames/s that no camera of this size reaches: what comes is its ceiling


def measure(quick: bool) -> list[Result]:
    """Return, at each rate, frames that came beside those without livesr, latency, memory, share
    that was separated.
    """
    side, seconds, blocks = (64, 0.3, 1) if quick else (512, 2.0, 3)
    core, rig = demo_core(side)
    assert CHANNEL.config
    rig = rig.model_copy(
        update={"channels": {CHANNEL.config: rig.channels[CHANNEL.config]}}
    ).with_engine(NO_ENGINE)
    try:
        results = []
        for rate in (50, _CEILING) if quick else (*_RATES, _CEILING):
            core.setExposure(1e3 / rate)
            results += _at(core, rig, rate, round(min(rate, _RATES[-1]) * seconds), blocks)
    finally:
        core.unloadAllDevices()
    return results


def _at(core: CMMCorePlus, rig: RigConfig, rate: int, frames: int, blocks: int) -> list[Result]:
    time_plan = useq.TIntervalLoops(interval=timedelta(0), loops=frames)
    plan = useq.MDASequence(time_plan=time_plan, channels=[CHANNEL])
    reports: list[Report] = []
    memory_mib: list[float] = []

    def with_livesr() -> list[float]:
        with LiveSR(core, rig=rig, plan=plan) as sr:
            rate_hz = frames_per_s(core, plan)
            memory_mib.append(psutil.Process().memory_info().rss / 2**20)
            reports.append(sr.wait())
        return [rate_hz]

    comparison = interleave(with_livesr, lambda: [frames_per_s(core, plan)], blocks)
    lost = sum(report["raw_lost"] for report in reports)
    note = (
        f"asked for {rate} frames/s of {core.getImageHeight()}^2, {frames} frames a run, {lost}"
        " lost"
    )
    latency = {
        q: sorted(r["latency_ms"][q] or math.nan for r in reports)[len(reports) // 2]
        for q in ("p50", "p99")
    }
    share = sorted(r["sr_frames"] / r["raw_frames"] for r in reports)[len(reports) // 2]
    name = "scaling.rate"
    results = [
        compared(
            f"{name}.frames.{rate}",
            comparison,
            "frames/s",
            "a listener that only counts",
            note=note,
        ),
        *(Result(f"{name}.latency_{q}.{rate}", ms, "ms", note=note) for q, ms in latency.items()),
        Result(
            f"{name}.memory.{rate}",
            max(memory_mib),
            "MiB",
            note=f"{note}; resident, of the whole process",
        ),
        Result(f"{name}.separated.{rate}", share, "of the frames", note=note),
    ]
    return [replace(r, at=comparison.reference.median) for r in results]
