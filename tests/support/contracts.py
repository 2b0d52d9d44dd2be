"""What every sink must do, and small runs to try it with.

A sink's test derives from `SinkContract` and says how to make the sink, whole and broken. The
coordinates of a frame are written into its pixel (0, 0), so that where it ends up proves how it was
routed.
"""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import pytest

from livesr.base.errors import LiveSRError, UsageError
from livesr.base.frames import MulticolorFrame, Normalisation, RawStack, SRFrame, Stream
from livesr.base.run_description import ChannelDescription, RunDescription
from livesr.live.sinks.ome_zarr import OMEZarrSink
from livesr.live.sinks.sink import Sink
from livesr.live.sinks.thread import SinkThreads

RAW = 9
LABELS = ("Microtubules", "ER", "Lysosomes")
START_NS = 1_700_000_000_000_000_000
INTERVAL_NS = 40_000_000
OFFSET_ADU = 1000
DISPLAY = ((10.0, 200.0), (20.0, 300.0), (30.0, 400.0))


def describe(
    *,
    channels: tuple[str, ...] = ("488",),
    positions: tuple[str, ...] = ("0",),
    z_planes: int = 1,
    size: int = 16,
    **changes: object,
) -> RunDescription:
    """A run with `channels`, all separated, raw frames of `size`, everything else twice that."""
    return RunDescription(
        **{
            "stream_id": "a-stream",
            "started_ns": START_NS,
            "channels": tuple(describe_channel(name, size) for name in channels),
            "positions": positions,
            "z_planes": z_planes,
            "z_step_um": 0.25,
            "recon_offset_adu": OFFSET_ADU,
            **changes,
        }
    )


def describe_channel(name: str = "488", size: int = 16) -> ChannelDescription:
    return ChannelDescription(
        name=name,
        raw_labels=tuple(f"angle {i // 3} phase {i % 3}" for i in range(RAW)),
        raw_shape=(size, size),
        raw_dtype="uint16",
        raw_pixel_size_um=0.065,
        recon_shape=(2 * size, 2 * size),
        recon_pixel_size_um=0.0325,
        recon_method="wiener",
        centred=True,
        labels=LABELS,
        colors=("00FF00", "FF00FF", "FFFF00"),
        sr_shape=(2 * size, 2 * size),
        sr_pixel_size_um=0.0325,
        ai={
            "model": {"id": "imcsr-test", "version": "1", "sha256": "ab" * 32},
            "runtime": {"backend": "openvino", "precision": "bf16"},
        },
    )


def code(stream: Stream, t: int, c: int = 0) -> int:
    """Coordinates as one number that fits a pixel."""
    channel = int(stream.channel or 0) % 7
    return 1 + (c + 10 * (stream.z + 5 * (stream.position + 3 * (channel + 7 * t)))) % 60_000


def raw_stack(
    t: int, stream: Stream = Stream(0, "488"), *, size: int = 16, missing: tuple[int, ...] = ()
) -> RawStack:
    frames = []
    for i in range(RAW):
        pixels = np.full((size, size), 100 + i, np.uint16)
        pixels[0, 0] = code(stream, t, i)
        frames.append(None if i in missing else pixels)
    t_acq_ns = START_NS + t * INTERVAL_NS
    return RawStack(
        tuple(frames), stream, t, t_acq_ns, t_acq_ns + INTERVAL_NS // 2, t_camera_ms=40.0 * t
    )


def sr_frame(t: int, stream: Stream = Stream(0, "488"), *, size: int = 16) -> SRFrame:
    image = np.full((2 * size, 2 * size), 50.0, np.float32)
    image[0, 0] = code(stream, t) - OFFSET_ADU
    t_acq_ns = START_NS + t * INTERVAL_NS
    return SRFrame(
        image,
        stream,
        t,
        t_acq_ns,
        t_acq_ns + INTERVAL_NS // 2,
        Normalisation(12.5, 800.0),
        t_camera_ms=40.0 * t,
    )


def multicolor_frame(
    t: int,
    stream: Stream = Stream(0, "488"),
    *,
    size: int = 16,
    **changes: object,
) -> MulticolorFrame:
    channels = np.full((3, 2 * size, 2 * size), 70, np.uint16)
    channels[:, 0, 0] = [code(stream, t, c) for c in range(3)]
    return MulticolorFrame(
        **{
            "channels": channels,
            "source": sr_frame(t, stream, size=size),
            "residual": 0.0625,
            "display": DISPLAY,
            "latency_ms": 31.5,
            "edge": t == 0,
            **changes,
        }
    )


def feed(sink: Sink, t: int, stream: Stream = Stream(0, "488")) -> None:
    """One time point as the pipeline gives it.

    Raw, the measurement, and the prediction of the one before.
    """
    sink.raw(raw_stack(t, stream))
    sink.recon(sr_frame(t, stream))
    if t:
        sink.separated(multicolor_frame(t - 1, stream))


def small_store(folder: Path, time_points: int, **changes: object) -> Path:
    """Write a store of a run that ended well; return `folder`."""
    sink = OMEZarrSink(folder)
    sink.open(describe(**changes))
    for t in range(time_points):
        feed(sink, t)
    sink.close({})
    return folder


class SinkContract:
    """Derive, give `sink` and `broken`, and collect."""

    def sink(self, tmp_path: Path) -> Sink:
        """A sink that can be opened."""
        raise NotImplementedError

    def broken(self, tmp_path: Path) -> Sink:
        """A sink whose `open` must fail because of what the user gave."""
        raise NotImplementedError

    @pytest.fixture
    def opened(self, tmp_path: Path):
        sink = self.sink(tmp_path)
        sink.open(describe())
        yield sink
        sink.close({})

    def test_it_is_a_sink_that_says_what_it_needs(self, tmp_path: Path) -> None:
        sink = self.sink(tmp_path)
        assert isinstance(sink, Sink)
        assert sink.name not in ("", Sink.name)
        assert {type(sink.lossless), type(sink.essential), type(sink.keeps_raw)} == {bool}
        assert sink.lossless or not sink.keeps_raw

    def test_it_passes_for_one_of_a_run(self, tmp_path: Path) -> None:
        errors: list[LiveSRError] = []
        runs = SinkThreads([self.sink(tmp_path)], lambda _, e: errors.append(e), 1 << 30)
        runs.open(describe())
        for t in range(5):
            runs.raw(raw_stack(t))
            runs.recon(sr_frame(t))
            runs.separated(multicolor_frame(t))
            runs.status({"sr_fps": 25.0})
        runs.drain()
        runs.close(dict)
        assert errors == []
        assert runs.raw_lost == 0

    def test_it_takes_a_whole_run(self, tmp_path: Path) -> None:
        sink = self.sink(tmp_path)
        sink.open(describe())
        for t in range(5):
            feed(sink, t)
            sink.status({"sr_fps": 25.0})
        sink.skipped(Stream(0, "488"), 4, "the network is slower than the camera")
        sink.close({"sr_frames": 4, "latency_ms": {"p50": float("nan")}})

    def test_it_takes_incomplete_groups_and_provisional_frames(self, opened: Sink) -> None:
        opened.raw(raw_stack(0, missing=(3, 8)))
        opened.separated(multicolor_frame(0, provisional=True))
        opened.separated(multicolor_frame(0))

    def test_it_takes_frames_that_belong_nowhere(self, opened: Sink) -> None:
        opened.unplaced(RawStack((np.ones((7, 5), np.uint8),), Stream(), 3, START_NS, START_NS))

    def test_it_takes_a_residual_that_is_no_number(self, opened: Sink) -> None:
        opened.separated(multicolor_frame(0, residual=float("nan")))

    def test_it_writes_into_no_array(self, opened: Sink) -> None:
        stack, measured, predicted = raw_stack(0), sr_frame(0), multicolor_frame(0)
        arrays = [*stack.frames, measured.image, predicted.channels, predicted.source.image]
        before = [array.copy() for array in arrays]
        for array in arrays:
            array.flags.writeable = False  # who writes raises
        opened.raw(stack)
        opened.recon(measured)
        opened.separated(predicted)
        for array, was in zip(arrays, before, strict=True):
            np.testing.assert_array_equal(array, was)

    def test_it_can_be_closed_without_a_frame(self, tmp_path: Path) -> None:
        sink = self.sink(tmp_path)
        sink.open(describe())
        sink.close({})

    def test_it_can_be_closed_twice(self, tmp_path: Path) -> None:
        sink = self.sink(tmp_path)
        sink.open(describe())
        sink.close({})
        sink.close({})

    def test_a_failed_open_is_a_usage_error_and_can_be_closed(self, tmp_path: Path) -> None:
        def start() -> None:
            sink = self.broken(tmp_path)
            try:
                sink.open(describe())
            finally:
                sink.close({})

        with pytest.raises(UsageError) as raised:
            start()
        assert str(raised.value).endswith(".")
        assert "Errno" not in str(raised.value)

    def test_a_look_before_leaves_nothing_and_takes_nothing(self, tmp_path: Path) -> None:
        sink = self.sink(tmp_path)
        sink.check()
        sink.check()
        assert not list(tmp_path.iterdir())
        sink.open(describe())
        sink.close({})

    def test_it_leaves_no_thread(self, tmp_path: Path) -> None:
        self.test_it_takes_a_whole_run(tmp_path)
        assert not [t for t in threading.enumerate() if t.name.startswith("livesr")]
