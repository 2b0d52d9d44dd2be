"""The pipeline without a core: memory over a long run, and real raw frames of a living cell all the way to a store."""

from __future__ import annotations

import gc
import threading
import time
import tracemalloc
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
import yaozarrs
import zarr
from numpy.typing import NDArray
from useq import MDAEvent

from livesr.base.config import RigConfig, load_rig, parse
from livesr.base.frames import MulticolorFrame, RawStack, SRFrame, Stream
from livesr.evaluation.metrics import pcc
from livesr.live.paths import ChannelPath, Geometry, build_path
from livesr.live.pipeline import Pipeline
from livesr.live.sinks.ome_zarr import OMEZarrSink
from livesr.live.sinks.sink import RunDescription, Sink


def describe(path: ChannelPath) -> RunDescription:
    return RunDescription(stream_id="test", started_ns=time.time_ns(), channels=(path.description,))


def feed(pipeline: Pipeline, groups: Iterable[NDArray[np.uint16]], channel: str) -> None:
    """Hand over groups as the acquisition thread does; every frame is a fresh array."""
    for t, group in enumerate(groups):
        for raw, frame in enumerate(group):
            event = MDAEvent(index={"t": t, "sim": raw}, channel=channel)
            pipeline.hook.frame_ready(frame.copy(), event, {})


class CountingSink:
    """Keeps numbers, no frame; says when a given number of predictions has come."""

    name = "counting"

    def __init__(self) -> None:
        self.predictions = 0
        self.came = threading.Condition()

    def open(self, run: RunDescription) -> None: ...
    def raw(self, stack: RawStack) -> None: ...
    def aside(self, stack: RawStack) -> None: ...
    def recon(self, frame: SRFrame) -> None: ...
    def skipped(self, stream: Stream, t: int, reason: str) -> None: ...
    def status(self, status: Mapping[str, Any]) -> None: ...
    def close(self, report: Mapping[str, Any]) -> None: ...

    def separated(self, frame: MulticolorFrame) -> None:
        with self.came:
            self.predictions += 1
            self.came.notify_all()

    def wait_for(self, count: int) -> None:
        with self.came:
            assert self.came.wait_for(lambda: self.predictions >= count, 60)


def test_the_frame_loop_keeps_nothing() -> None:
    rig = load_rig("virtual_sim").with_engine("identity")
    path = build_path(rig, "488", Geometry((64, 64), "uint16", 0.065), threads=1)
    sink: Sink = CountingSink()
    pipeline = Pipeline({"488": path}, describe(path), [(sink, True)], policy="complete")
    groups = np.random.default_rng(0).integers(100, 4000, (9, 64, 64), np.uint16)
    events = [MDAEvent(index={"t": 0, "sim": raw}, channel="488") for raw in range(9)]
    handed_away = 3 * 128 * 128 * 2 + 128 * 128 * 4 + 9 * 64 * 64 * 2

    def run_to(first: int, last: int) -> None:
        for t in range(first, last):
            for raw, event in enumerate(events):
                pipeline.hook.frame_ready(
                    groups[raw].copy(), event.model_copy(update={"index": {"t": t, "sim": raw}}), {}
                )
            if t:
                sink.wait_for(t)  # one group at a time: what is alive is what one frame needs

    pipeline.open()
    try:
        run_to(0, 30)
        gc.collect()
        tracemalloc.start()
        before = tracemalloc.get_traced_memory()[0]
        run_to(30, 60)
        gc.collect()
        after, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    finally:
        pipeline.end()
        pipeline.join()
        path.close()
    # The frames alive at the end are other ones than at the start, so that all of them count, once.
    assert after - before < 4 * handed_away
    assert peak - before < 8 * handed_away


def test_memory_does_not_grow_with_the_length_of_a_run() -> None:
    rig = load_rig("virtual_sim").with_engine("none")
    path = build_path(rig, "488", Geometry((16, 16), "uint16", 0.065))
    pipeline = Pipeline({"488": path}, describe(path), [], policy="latest")
    frame = np.full((16, 16), 500, np.uint16)
    pipeline.open()
    sizes = []
    tracemalloc.start()
    try:
        for t in range(3000):
            for raw in range(9):
                event = MDAEvent(index={"t": t, "sim": raw}, channel="488")
                pipeline.hook.frame_ready(frame, event, {})
            if t in (999, 2999):
                while pipeline.hook.waiting:
                    time.sleep(0.01)
                gc.collect()
                sizes.append(tracemalloc.get_traced_memory()[0])
    finally:
        tracemalloc.stop()
        pipeline.end()
        report = pipeline.join()
    assert report["raw_frames"] == 27000
    assert report["recon_frames"] + report["groups_dropped"] == 3000
    assert sizes[1] - sizes[0] < 200_000


# Found offline on this stack (na 1.49, 525 nm, 65 nm a pixel), with the vectors pooled over its three time points.
ER_PATTERNS = [
    {"k_um": [-0.22614, -5.71270], "phase_rad": 0.591, "modulation": 0.613},
    {"k_um": [4.81846, -3.05123], "phase_rad": 2.012, "modulation": 0.621},
    {"k_um": [5.05669, 2.65413], "phase_rad": 2.780, "modulation": 0.642},
]


def test_real_frames_of_a_living_cell_go_the_whole_way(microscope_data: Path, tmp_path: Path) -> None:
    stack = tifffile.imread(microscope_data / "sim_raw" / "er_t3_9x112x512.tif").reshape(3, 9, 112, 512)
    reference = tifffile.imread(microscope_data / "sim_raw" / "er_reference_sim_224x1024.tif").astype(np.float32)
    rig = parse(
        RigConfig,
        {
            "name": "TIRF-SIM",
            "modality": "sim",
            "optics": {"na": 1.49, "emission_nm": 525, "pixel_size_nm": 65},
            "sim": {"patterns": ER_PATTERNS, "wiener": 0.2},
            "channels": {"488": {"separate": "imcsr-mt-er-lyso-light"}},
        },
        "test",
    )
    path = build_path(rig, "488", Geometry((112, 512), "uint16", 0.065))
    sink = OMEZarrSink(tmp_path / "er.ome.zarr")
    pipeline = Pipeline({"488": path}, describe(path), [(sink, True)], policy="complete")
    pipeline.open()
    feed(pipeline, stack, "488")
    pipeline.end()
    report = pipeline.join()
    path.close()
    assert (report["raw_frames"], report["sr_frames"], report["raw_lost"]) == (27, 3, 0)
    yaozarrs.validate_zarr_store(str(sink.path))
    store = zarr.open_group(sink.path, mode="r")
    np.testing.assert_array_equal(store["raw/0"][:], stack)
    inner = np.s_[16:-16, 64:-64]
    measured = [pcc(recon[inner].astype(np.float32), reference[inner]) for recon in store["recon/0"][:]]
    widefield = np.repeat(np.repeat(stack[2].mean(0), 2, 0), 2, 1)
    assert max(measured) > 0.89 > 0.85 > pcc(widefield[inner], reference[inner])
    # The engine never saw a real image: the light must at least stay light, and most of it be found in some channel.
    light = store["sr/0"][:].astype(np.float64).sum((0, 2, 3))
    assert light.sum() > 0
    assert report["steps_ms"]["infer"]["p50"] > 0
