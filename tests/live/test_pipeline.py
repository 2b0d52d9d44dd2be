"""The pipeline without a core.

Memory over a long run, and real raw frames of a living cell all the way to a store.
"""

from __future__ import annotations

import gc
import threading
import time
import tracemalloc
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import yaozarrs
import zarr
from numpy.typing import NDArray
from threadpoolctl import threadpool_info, threadpool_limits
from useq import MDAEvent

from livesr.base.compute import ComputeConfig
from livesr.base.config import RigConfig, load_rig, parse
from livesr.base.frames import MulticolorFrame
from livesr.base.geometry import Geometry
from livesr.base.run_description import RunDescription
from livesr.evaluation.metrics import pcc
from livesr.formats.frames_log import read_log
from livesr.live.keeping_up import COMPLETE, LATEST
from livesr.live.paths import ChannelPath, build_path
from livesr.live.pipeline import Pipeline
from livesr.live.sinks.ome_zarr import OMEZarrSink
from livesr.live.sinks.sink import Sink
from livesr.modalities.sim.calibration.groups import Optics
from livesr.modalities.sim.calibration.sim import calibrate
from livesr.modalities.sim.config import QualityLimitsConfig, SIMConfig
from livesr.modalities.sim.simulation.rig import RawBank
from livesr.modalities.storm.config import STORMConfig
from memory import held_falls_below


def describe(path: ChannelPath) -> RunDescription:
    return RunDescription(stream_id="test", started_ns=time.time_ns(), channels=(path.description,))


def feed(pipeline: Pipeline, groups: Iterable[NDArray[np.uint16]], channel: str) -> None:
    """Hand over groups as the acquisition thread does; every frame is a fresh array."""
    for t, group in enumerate(groups):
        for raw, frame in enumerate(group):
            event = MDAEvent(index={"t": t, "sim": raw}, channel=channel)
            pipeline.hook.frame_ready(frame.copy(), event, {})


class CountingSink(Sink):
    """Keeps numbers, no frame; says when a given number of predictions has come."""

    name = "counting"
    lossless = essential = True

    def __init__(self) -> None:
        self.predictions = 0
        self.came = threading.Condition()

    def separated(self, frame: MulticolorFrame) -> None:
        with self.came:
            self.predictions += 1
            self.came.notify_all()

    def wait_for(self, count: int) -> None:
        with self.came:
            assert self.came.wait_for(lambda: self.predictions >= count, 60)


def test_the_frame_loop_keeps_nothing() -> None:
    rig = load_rig("virtual_sim").with_engine("identity")
    path = build_path(
        rig, "488", Geometry((64, 64), "uint16", 0.065), ComputeConfig(device="cpu", threads=1)
    )
    sink: Sink = CountingSink()
    pipeline = Pipeline({"488": path}, describe(path), [sink], COMPLETE)
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
        _, peak = tracemalloc.get_traced_memory()
        # The frames alive at the end are other ones than at the start, so that all of them count,
        # once.
        allowed = before + 4 * handed_away
        assert held_falls_below(allowed) < allowed
        tracemalloc.stop()
    finally:
        pipeline.end()
        pipeline.join()
        path.close()
    assert peak - before < 8 * handed_away


def test_a_run_has_one_blas_thread_and_leaves_the_process_what_it_had(tmp_path: Path) -> None:
    def blas_threads() -> list[int]:
        return [pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"]

    path = build_path(
        load_rig("virtual_sim").with_engine("none"), "488", Geometry((64, 64), "uint16", 0.065)
    )
    pipeline = Pipeline({"488": path}, describe(path), [], COMPLETE)
    with threadpool_limits(2, "blas"):
        before = blas_threads()
        pipeline.open()
        during = blas_threads()
        pipeline.end()
        pipeline.join()
        assert during == [1] * len(before)
        assert blas_threads() == before


def test_memory_does_not_grow_with_the_length_of_a_run() -> None:
    rig = load_rig("virtual_sim").with_engine("none")
    path = build_path(rig, "488", Geometry((16, 16), "uint16", 0.065))
    pipeline = Pipeline({"488": path}, describe(path), [], LATEST)
    frame = np.full((16, 16), 500, np.uint16)
    pipeline.open()
    sizes = []
    tracemalloc.start()
    try:
        for t in range(1500):
            for raw in range(9):
                event = MDAEvent(index={"t": t, "sim": raw}, channel="488")
                pipeline.hook.frame_ready(frame, event, {})
            if t in (499, 1499):
                while pipeline.hook.waiting:
                    time.sleep(0.01)
                gc.collect()
                sizes.append(tracemalloc.get_traced_memory()[0])
    finally:
        tracemalloc.stop()
        pipeline.end()
        report = pipeline.join()
    assert report["raw_frames"] == 13500
    assert report["recon_frames"] + report["groups_dropped"] == 1500
    assert sizes[1] - sizes[0] < 100_000


def bank_groups(n_t: int = 2) -> NDArray[np.uint16]:
    bank = RawBank(
        load_rig("virtual_sim"), 128, n_t, seed=0, photons=300.0, bleaching=0.002, interval_s=0.5
    )
    return bank.frames


def run_of(
    tmp_path: Path, groups: NDArray[np.uint16], **quality_limits: Any
) -> tuple[dict[str, Any], list[dict[str, Any]], Path]:
    """Report, lines of frames.jsonl and store of a run without an engine."""
    rig = load_rig("virtual_sim").with_engine("none")
    limits = {"quality_limits": QualityLimitsConfig(**quality_limits)}
    rig = rig.with_section(SIMConfig.of(rig).model_copy(update=limits))
    path = build_path(rig, "488", Geometry(groups.shape[-2:], "uint16", 0.065))
    sink = OMEZarrSink(tmp_path / "run.ome.zarr")
    pipeline = Pipeline({"488": path}, describe(path), [sink], COMPLETE)
    pipeline.open()
    feed(pipeline, groups, "488")
    pipeline.end()
    report = pipeline.join()
    return report, read_log(sink.path / "livesr" / "frames.jsonl").events, sink.path


def test_a_good_frame_says_how_good_it_is(tmp_path: Path) -> None:
    report, lines, _ = run_of(tmp_path, bank_groups())
    assert (report["recon_frames"], report["recon_doubtful"], report["warnings"]) == (2, 0, [])
    recons = [line for line in lines if line["series"] == "recon"]
    assert len(recons) == 2
    assert all(line["resolved"] and "doubt" not in line for line in recons)
    assert all(line["quality"]["contrast_to_noise"] > 10 for line in recons)


def test_widefield_is_shown_where_the_patterns_are_not(tmp_path: Path) -> None:
    groups = np.roll(bank_groups(), 2, axis=1)
    report, lines, store = run_of(tmp_path, groups)
    assert (report["recon_frames"], report["recon_doubtful"]) == (2, 2)
    assert any("shown as widefield" in w for w in report["warnings"])
    recons = [line for line in lines if line["series"] == "recon"]
    assert [line["resolved"] for line in recons] == [False, False]
    assert all(line["doubt"] for line in recons)
    shown = zarr.open_group(store, mode="r")["recon/0"][0].astype(float)
    expected = groups[0].mean(0) - 100
    inner = np.s_[16:-16, 16:-16]
    np.testing.assert_allclose(
        shown[::2, ::2][inner] - 1000, expected[inner], atol=0.1 * expected.max()
    )


def _without(group: NDArray[np.uint16]) -> None:
    group[7] = 0


def _clipped(group: NDArray[np.uint16]) -> None:
    group[4] = np.minimum(100 + 20 * (group[4].astype(int) - 100), 4095)


@pytest.mark.parametrize(
    ("spoil", "doubt", "warning"),
    [
        (_without, "raw frame 7 is blank (every pixel is 0)", "raw frames are blank"),
        (_clipped, "raw frame 4 is saturated", "raw frames are saturated"),
    ],
)
def test_a_raw_frame_that_is_no_picture_is_named_everywhere(
    tmp_path: Path, spoil: Any, doubt: str, warning: str
) -> None:
    groups = bank_groups()
    spoil(groups[1])
    report, lines, _ = run_of(tmp_path, groups)
    assert report["recon_doubtful"] == 1
    (said,) = report["warnings"]
    assert warning in said
    assert "shown as widefield" in said
    assert f"First at time point 1: {doubt}" in said
    good, bad = (line for line in lines if line["series"] == "recon")
    assert (good["resolved"], "doubt" in good) == (True, False)
    assert not bad["resolved"]
    assert bad["doubt"].startswith(doubt)


def test_a_few_saturated_pixels_are_a_warning_and_no_doubt(tmp_path: Path) -> None:
    groups = bank_groups()
    ceiling = int(np.percentile(groups[0], 99.8))  # seen in the frames, known to nobody
    groups[0] = np.minimum(groups[0], ceiling)
    report, lines, _ = run_of(tmp_path, groups)
    assert report["recon_doubtful"] == 0
    (said,) = report["warnings"]
    assert "saturates in a few pixels" in said
    counts = [line.get("saturated") for line in lines if line["series"] == "recon"]
    assert counts == [np.count_nonzero(groups[0] == ceiling), None]


def test_a_background_that_was_cut_off_is_said_of_localisations(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    rig = load_rig("virtual_storm")
    rig = rig.with_section(STORMConfig.of(rig).model_copy(update={"frames": 10}))
    rig = rig.model_copy(update={"camera": rig.camera.model_copy(update={"offset_adu": 0.0})})
    y, x = np.mgrid[:48, :48]
    light = np.stack(
        [300 * np.exp(-((y - c) ** 2 + (x - c) ** 2) / 4.0) + 30 for c in range(10, 30)]
    )
    seen = rng.poisson(light.reshape(2, 10, 48, 48))
    for name, groups in (("as it is", seen), ("cut off", np.maximum(seen - 30, 0))):
        path = build_path(rig, "647", Geometry((48, 48), "uint16", 0.1))
        sink = OMEZarrSink(tmp_path / f"{name}.ome.zarr")
        pipeline = Pipeline({"647": path}, describe(path), [sink], COMPLETE)
        pipeline.open()
        feed(pipeline, groups.astype(np.uint16), "647")
        pipeline.end()
        report = pipeline.join()
        lines = [
            e
            for e in read_log(sink.path / "livesr" / "frames.jsonl").events
            if e["series"] == "recon"
        ]
        doubts = [line.get("doubt", "") for line in lines]
        if name == "as it is":
            assert (doubts, report["warnings"]) == (["", ""], [])
        else:
            assert ["cut off" in doubt for doubt in doubts] == [True, True]
            assert all(line["resolved"] for line in lines)
            assert any("the background is cut off" in w for w in report["warnings"])


def test_frames_without_patterns_are_refused_if_the_rig_says_so(tmp_path: Path) -> None:
    groups = bank_groups(3)
    groups[1] = np.roll(groups[1], 2, axis=0)
    report, lines, store = run_of(tmp_path, groups, when_doubtful="refuse")
    assert (report["recon_frames"], report["recon_refused"], report["recon_failed"]) == (2, 1, 0)
    assert [line["t"] for line in lines if line["series"] == "recon"] == [0, 2]
    assert any(
        line["state"] == "skipped" and "refused" in line["reason"]
        for line in lines
        if line["t"] == 1
    )
    shown = zarr.open_group(store, mode="r")["recon/0"]
    assert shown.shape[0] == 3
    assert not shown[1].any()


def test_a_rotated_order_is_said_though_every_frame_is_refused(tmp_path: Path) -> None:
    report, _, _ = run_of(tmp_path, np.roll(bank_groups(6), -2, axis=1), when_doubtful="refuse")
    assert report["recon_refused"] == 6
    assert any("rotated by 2 of 9" in w for w in report["warnings"])


def test_real_frames_of_a_living_cell_go_the_whole_way(
    microscope_data: Path, tmp_path: Path
) -> None:
    stack = tifffile.imread(microscope_data / "sim_raw" / "er_t3_9x112x512.tif").reshape(
        3, 9, 112, 512
    )
    reference = tifffile.imread(
        microscope_data / "sim_raw" / "er_reference_sim_224x1024.tif"
    ).astype(np.float32)
    found = calibrate(stack, Optics(0.065, 1.49, 0.525))
    patterns = [
        {"k_um": p.k_um, "phase_rad": p.phase_rad, "modulation": p.modulation}
        for p in found.patterns
    ]
    rig = parse(
        RigConfig,
        {
            "name": "TIRF-SIM",
            "modality": "sim",
            "optics": {
                "na": 1.49,
                "emission_nm": 525,
                "pixel_size_nm": 65,
                "damping": found.optics.damping,
            },
            "sim": {"patterns": patterns, "wiener": 0.1, "apodisation": 1.5},
            "channels": {"488": {"separate": "imcsr-mt-er-lyso-light"}},
        },
        "test",
    )
    path = build_path(rig, "488", Geometry((112, 512), "uint16", 0.065))
    sink = OMEZarrSink(tmp_path / "er.ome.zarr")
    pipeline = Pipeline({"488": path}, describe(path), [sink], COMPLETE)
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
    measured = [
        pcc(recon[inner].astype(np.float32), reference[inner]) for recon in store["recon/0"][:]
    ]
    widefield = np.repeat(np.repeat(stack[2].mean(0), 2, 0), 2, 1)
    assert min(measured) > 0.9 > 0.85 > pcc(widefield[inner], reference[inner])
    assert report["recon_doubtful"] == 0
    # The engine never saw a real image: the light must at least stay light, and most of it be found
    # in some channel.
    light = store["sr/0"][:].astype(np.float64).sum((0, 2, 3))
    assert light.sum() > 0
    assert report["steps_ms"]["infer"]["p50"] > 0
