"""Two loads too long for the suite: figures for docs/reliability.md, and for whoever doubts them.

``python tests/support/load.py ceiling --seconds 60`` lets the virtual SIM camera expose as fast as
the core takes it, all recorded, and looks for every number in the store.
``python tests/support/load.py long --frames 100000`` records so many time points, kills the
process, and measures what `livesr repair`, opening and reading take. Each prints one JSON object.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import zarr
from useq import MDAEvent

from livesr import LiveSR
from livesr.base.compute import ComputeConfig
from livesr.base.config import load_rig
from livesr.base.errors import LiveSRError
from livesr.base.geometry import Geometry
from livesr.base.run_description import RunDescription
from livesr.live.keeping_up import COMPLETE
from livesr.live.paths import build_path
from livesr.live.pipeline import Pipeline
from livesr.live.sinks.ome_zarr import OMEZarrSink
from livesr.live.sources.plan import sim_sequence
from livesr.viewer.frame_pairs import Selection
from livesr.viewer.store_source import StoreSource
from rigs import virtual_sim


def peak_mb() -> float:
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3, 1)


def size_of(store: Path) -> tuple[int, float]:
    """Number of files and their bytes in GB."""
    files = [file.stat().st_size for file in store.rglob("*") if file.is_file()]
    return len(files), round(sum(files) / 1e9, 3)


# -- the ceiling of the virtual camera -------------------------------------------------------------


RATES_HZ = (4000, 3000, 2000, 1500, 1000, 700, 500, 350, 250, 175, 125, 90, 60)


def acquired(core: Any, rate_hz: float, seconds: float, store: Path) -> dict[str, Any]:
    """Acquire a triggered sequence at this rate; return the report, with what it took."""
    core.setExposure(1e3 / rate_hz)
    plan = sim_sequence(max(round(rate_hz * seconds / 9), 1), ["488"])
    with LiveSR(
        core, rig="virtual_sim", plan=plan, engine="identity", threads=1, store=store
    ) as session:
        start_s = time.perf_counter()
        core.mda.run(plan)
        took_s = time.perf_counter() - start_s
    return {**session.report, "seconds": took_s}


def ceiling(seconds: float, size: int, folder: Path) -> dict[str, Any]:
    """Find the highest rate at which three seconds do not overflow the core's buffer.

    Record at it, look for every number.
    """
    with virtual_sim(exposure_ms=1.0, time_points=1, size=size) as core:
        core.mda.engine.use_hardware_sequencing = True
        refused = []
        for rate_hz in RATES_HZ:
            try:
                acquired(core, rate_hz, 3.0, folder / f"trial-{rate_hz}.ome.zarr")
                report = acquired(core, rate_hz, seconds, folder / f"load-{rate_hz}.ome.zarr")
                break
            except (
                MemoryError,
                LiveSRError,
            ) as e:  # the core's buffer, or the run's queue, was full
                refused.append(f"{rate_hz} frames/s: {e}")
    raw = zarr.open_array(Path(report["store"]) / "raw" / "0", mode="r")
    numbers = np.concatenate([np.asarray(raw[t, :, 0, 0]) for t in range(raw.shape[0])]).astype(
        np.int64
    )
    steps = np.diff(np.unwrap(numbers, period=65536))
    files, gigabytes = size_of(Path(report["store"]))
    rate_hz = len(numbers) / report["seconds"]
    return {
        "frames": len(numbers),
        "frames_per_s": round(rate_hz, 1),
        "mb_per_s": round(rate_hz * size * size * 2 / 1e6, 1),
        "seconds": round(report["seconds"], 1),
        "numbers_missing": int(np.count_nonzero(steps != 1)),
        **{
            k: report[k]
            for k in (
                "raw_frames",
                "raw_lost",
                "raw_missing",
                "recon_frames",
                "groups_dropped",
                "sr_frames",
            )
        },
        "refused": refused,
        "files": files,
        "gb": gigabytes,
        "peak_mb": peak_mb(),
    }


# -- very many time points -------------------------------------------------------------------------


def record_and_die(frames: int, size: int, store: Path) -> None:
    """Record so many time points of one channel, raw, measurement and prediction.

    End as kill -9 does.
    """
    rig = load_rig("demo")
    rig = rig.model_copy(update={"channels": {"488": rig.channels["488"]}}).with_engine("identity")
    path = build_path(
        rig, "488", Geometry((size, size), "uint16", 0.065), ComputeConfig(device="cpu", threads=1)
    )
    run = RunDescription(stream_id="long", started_ns=time.time_ns(), channels=(path.description,))
    pipeline = Pipeline({"488": path}, run, [OMEZarrSink(store)], COMPLETE)
    pixels, process, resident = (
        np.random.default_rng(0).integers(100, 4000, (64, size, size), np.uint16),
        psutil.Process(),
        [],
    )
    pipeline.open()
    start_s = time.perf_counter()
    for t in range(frames):
        frame = pixels[t % 64].copy()
        frame[0, :2] = t % 65536, t // 65536
        pipeline.hook.frame_ready(frame, MDAEvent(index={"t": t}, channel="488"), {})
        while (
            t % 64 == 63 and pipeline.counts["sr_frames"] < t - 64
        ):  # what waits is not what grows
            time.sleep(0.001)
        if (t + 1) % (frames // 10) == 0:
            resident.append(round(process.memory_info().rss / 1e6, 1))
    while pipeline.counts["sr_frames"] < frames - 1:
        time.sleep(0.01)
    print(
        json.dumps(
            {"recording_s": round(time.perf_counter() - start_s, 1), "recording_mb": resident}
        ),
        flush=True,
    )
    os._exit(9)


def timed(found: dict[str, Any], name: str, work: Callable[[], Any]) -> Any:
    start_s = time.perf_counter()
    result = work()
    found[name] = round(time.perf_counter() - start_s, 3)
    return result


def long(frames: int, size: int, folder: Path) -> dict[str, Any]:
    """Record in a process of its own that dies; repair, open, read."""
    store = folder / "long.ome.zarr"
    command = [
        sys.executable,
        __file__,
        "record",
        "--frames",
        str(frames),
        "--size",
        str(size),
        "--out",
        str(folder),
    ]
    found: dict[str, Any] = json.loads(
        subprocess.run(command, stdout=subprocess.PIPE, check=False).stdout
    )
    found["files"], found["gb"] = size_of(store)
    time.sleep(12)  # a store that may still grow is not repaired
    repaired = timed(
        found,
        "repair_s",
        lambda: subprocess.run(
            [sys.executable, "-m", "livesr", "repair", str(store), "--json"], stdout=subprocess.PIPE
        ),
    )
    found["repair_exit"] = repaired.returncode
    found["images"] = json.loads(repaired.stdout).get("images")
    raw = zarr.open_array(store / "raw" / "0", mode="r")
    source = timed(found, "open_s", lambda: StoreSource(store))
    moments = np.random.default_rng(0).integers(0, raw.shape[0], 100)
    timed(found, "first_scene_s", lambda: source.scene(Selection(), 0))
    timed(found, "100_scenes_s", lambda: [source.scene(Selection(), int(t)) for t in moments])
    numbers = timed(
        found,
        "read_raw_s",
        lambda: np.concatenate(
            [
                np.asarray(raw[t : t + 512]).reshape(-1, size, size)[:, 0, :2]
                for t in range(0, raw.shape[0], 512)
            ]
        ),
    )
    places = numbers[:, 0].astype(np.int64) + 65536 * numbers[:, 1].astype(np.int64)
    return {
        **found,
        "time_points": len(places),
        "misplaced": int((places != np.arange(len(places))).sum()),
        "reading_peak_mb": peak_mb(),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("load", choices=("ceiling", "long", "record"))
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--frames", type=int, default=100_000)
    parser.add_argument("--size", type=int, help="Pixels of a frame's side; 256, of a long run 32.")
    parser.add_argument("--out", type=Path, help="Folder for the store; a passing one without.")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as passing:
        folder = args.out or Path(passing)
        if args.load == "record":
            record_and_die(args.frames, args.size, folder / "long.ome.zarr")
        found = (
            ceiling(args.seconds, args.size or 256, folder)
            if args.load == "ceiling"
            else long(args.frames, args.size or 32, folder)
        )
    print(json.dumps(found), flush=True)


if __name__ == "__main__":
    main()
