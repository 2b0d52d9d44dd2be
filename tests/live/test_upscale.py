"""Upscale, then separate: what is enlarged, how often, what comes of it and what it says of
itself."""

from __future__ import annotations

import json
import threading
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import useq
import yaozarrs
import zarr

from backend_contract import session_on
from livesr import LiveSR
from livesr.base.compute import ComputeConfig
from livesr.base.config import RigConfig, load_rig
from livesr.base.errors import ConfigError, EngineError
from livesr.base.frames import MulticolorFrame, Normalisation, SRFrame, Stream, Window
from livesr.base.geometry import Geometry
from livesr.live.paths import ChannelPath, build_path
from livesr.live.upscale import Upscaler, memory_bytes
from plain_residual import summation_residual
from recorded_runs import SIZE, Live, array, lines, mixing_engine, moving_groups
from rigs import core_of
from upscaling import edsr_engine, enlarged

MIXTURE = np.float32([[0.2, 0.3, 0.1], [0.0, 0.2, 0.3], [0.4, 0.1, 0.05]])
CAMERA = Geometry((SIZE, SIZE), "uint16", 0.065)


@pytest.fixture(autouse=True)
def engines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Engines "linear-x2" and "mixing", found by name."""
    monkeypatch.setenv("LIVESR_HOME", str(tmp_path / "home"))
    folder = tmp_path / "home" / "engines"
    edsr_engine(folder / "linear-x2")
    mixing_engine(folder / "mixing")
    return folder


def rig(*, upscale: str = "none", separate: str = "none") -> RigConfig:
    return load_rig("virtual_sim").with_engine(separate).with_engine(upscale, "upscale")


def path_of(rig: RigConfig) -> ChannelPath:
    return build_path(rig, "488", CAMERA, ComputeConfig(precision="f32", device="cpu", threads=1))


def frame(t: int, stream: Stream = Stream(), size: int = 8) -> SRFrame:
    image = (
        np.random.default_rng([t, stream.position, stream.z])
        .normal(500, 90, (size, size))
        .astype(np.float32)
    )
    return SRFrame(image, stream, t, t, t, Normalisation(400.0 + t, 300.0 - t))


@pytest.fixture
def counted(engines: Path) -> Any:
    """An upscaler for three streams, and the list of its inferences."""

    def make(streams: int = 1) -> tuple[Upscaler, list[int]]:
        from livesr.live.inference.engine import load_engine

        backend = session_on(load_engine("linear-x2"), (8, 8), precision="f32", threads=1)
        calls: list[int] = []
        infer = backend.infer

        def counting() -> Any:
            calls.append(1)
            return infer()

        backend.infer = counting  # type: ignore[method-assign]
        return Upscaler(backend, (16, 16), streams), calls

    return make


class TestUpscaler:
    def test_every_frame_is_enlarged_once(self, counted: Any) -> None:
        upscaler, calls = counted()
        for t in range(1, 6):
            window = upscaler.enlarge(Window(frame(t - 1), frame(t), frame(t + 1)))
            for seen, measured in zip(
                (window.before, window.centre, window.after), range(t - 1, t + 2), strict=True
            ):
                assert (seen.t, seen.normalisation) == (measured, frame(measured).normalisation)
                b = frame(measured).normalisation.background
                np.testing.assert_allclose(
                    seen.image, enlarged(frame(measured).image - b) + b, atol=0.01
                )
        assert len(calls) == 7

    def test_streams_that_take_turns_do_not_forget_each_other(self, counted: Any) -> None:
        upscaler, calls = counted(streams=3)
        streams = [Stream(p, "488", z) for p, z in ((0, 0), (0, 1), (1, 0))]
        for t in range(1, 4):
            for s in streams:
                window = upscaler.enlarge(Window(frame(t - 1, s), frame(t, s), frame(t + 1, s)))
                b = frame(t, s).normalisation.background
                np.testing.assert_allclose(
                    window.centre.image, enlarged(frame(t, s).image - b) + b, atol=0.01
                )
        assert len(calls) == 3 * 5

    def test_where_all_do_not_fit_frames_are_enlarged_again(
        self, counted: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("livesr.live.upscale._MAX_BYTES", 0)
        upscaler, calls = counted(streams=2)
        assert memory_bytes((16, 16), 2) == 3 * 16 * 16 * 4
        for t in range(1, 4):
            for s in (Stream(0), Stream(1)):
                window = upscaler.enlarge(Window(frame(t - 1, s), frame(t, s), frame(t + 1, s)))
                assert len({id(f.image) for f in (window.before, window.centre, window.after)}) == 3
        assert len(calls) == 3 * 2 * 3

    def test_edges_and_single_frames(self, counted: Any) -> None:
        upscaler, calls = counted()
        window = upscaler.enlarge(Window(frame(0), frame(0), frame(1), edge=True))
        assert window.before.image is window.centre.image
        assert window.edge
        assert len(calls) == 2
        alone = upscaler.enlarge_centre(Window(frame(4), frame(5), frame(6)))
        assert alone.before.image is alone.centre.image is alone.after.image
        assert len(calls) == 3

    def test_allocates_no_frame(self, counted: Any) -> None:
        from livesr.live.inference.engine import load_engine

        upscaler = Upscaler(
            session_on(load_engine("linear-x2"), (128, 128), precision="f32", threads=1),
            (256, 256),
            1,
        )
        frames = [frame(t, size=128) for t in range(8)]
        upscaler.enlarge(Window(*frames[:3]))
        tracemalloc.start()
        try:
            before, _ = tracemalloc.get_traced_memory()
            for t in range(2, 7):
                upscaler.enlarge(Window(frames[t - 1], frames[t], frames[t + 1]))
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert peak - before < 32 * 1024  # a frame has 256 KiB


class TestPath:
    def test_neither(self) -> None:
        path = path_of(rig())
        assert (path.networks.engines, path.description.labels, path.composer()) == ((), (), None)

    def test_upscale_only(self) -> None:
        path = path_of(rig(upscale="linear-x2"))
        about = path.description
        assert (about.recon_shape, about.sr_shape) == ((64, 64), (128, 128))
        assert (about.labels, about.window, about.sr_pixel_size_um) == (("upscaled",), 1, 0.065 / 4)
        assert (path.networks.window, path.networks.upscaler(1)) == (1, None)
        assert [e.manifest.id for e in path.networks.engines] == ["linear-x2"]
        assert [e["task"] for e in about.ai["engines"]] == ["upscale"]
        path.close()

    def test_upscale_then_separate(self, engines: Path) -> None:
        path = path_of(rig(upscale="linear-x2", separate="mixing"))
        about = path.description
        assert (about.sr_shape, about.window, len(about.labels)) == ((128, 128), 3, 3)
        assert [(e["task"], e["model"]["id"]) for e in about.ai["engines"]] == [
            ("upscale", "linear-x2"),
            ("separate", "mixing"),
        ]
        assert about.ai["model"]["id"] == "mixing"
        assert all(
            len(e["model"]["sha256"]) == 64 and e["runtime"]["backend"] for e in about.ai["engines"]
        )
        assert path.memory_bytes(2) - path.memory_bytes(1) == 3 * 128 * 128 * 4
        path.close()

    def test_an_engine_under_the_wrong_name_is_refused(self) -> None:
        with pytest.raises(
            EngineError, match="does 'separate', and the run needs one that does 'upscale'"
        ):
            path_of(rig(upscale="mixing"))
        with pytest.raises(
            EngineError, match="does 'upscale', and the run needs one that does 'separate'"
        ):
            path_of(rig(separate="linear-x2"))

    def test_four_times_is_warned_of(self, tmp_path: Path) -> None:
        assert not edsr_engine(tmp_path / "edsr-x3", 3, trained=True).check_fits("upscale")
        four = edsr_engine(tmp_path / "edsr-x4", 4, trained=True)
        assert "thin structures break" in four.check_fits("upscale")[0]
        backend = session_on(four, (9, 11), precision="f32", threads=1)
        assert backend.infer().shape == (1, 36, 44)
        backend.close()

    def test_the_flag_finds_its_channel(self) -> None:
        two = load_rig("demo")
        with pytest.raises(
            ConfigError, match=r"--upscale 'linear-x2' does not say which of the channels 488, 561"
        ):
            two.with_engine("linear-x2", "upscale")
        named = two.model_copy(
            update={
                "channels": {
                    **two.channels,
                    "561": two.channels["561"].model_copy(update={"upscale": "a"}),
                }
            }
        )
        assert named.with_engine("linear-x2", "upscale").channels["561"].upscale == "linear-x2"
        assert named.with_engine("none", "upscale").channels["561"].upscale is None


def expected_sr(
    recon: np.ndarray, normalisations: list[Normalisation], t: int, mixture: np.ndarray | None
) -> Any:
    """The prediction of time point t worked out by hand from the measurements."""
    up = [
        enlarged(image - n.background) + n.background
        for image, n in zip(recon, normalisations, strict=True)
    ]
    b, s = normalisations[t]
    if mixture is None:
        return (up[t] - b)[None]
    neighbours = [up[max(t - 1, 0)], up[t], up[min(t + 1, len(up) - 1)]]
    return np.einsum("cw,wyx->cyx", mixture, np.stack([(u - b) / s for u in neighbours])) * s


@pytest.mark.parametrize("separate", ["mixing", "none"])
def test_what_is_stored(tmp_path: Path, separate: str) -> None:
    live = Live(rig(upscale="linear-x2", separate=separate), tmp_path / "run.ome.zarr")
    measured: list[SRFrame] = []
    collect(live, measured.append)
    report = live.record(moving_groups(5))
    store = live.sink.path
    yaozarrs.validate_zarr_store(str(store))
    sr = array(store, "sr")
    assert array(store, "recon").shape == (5, 64, 64)
    assert sr.shape == (5, 3 if separate == "mixing" else 1, 128, 128)
    assert report["upscale"] == {"488": "linear-x2"}
    recon, normalisations = (
        np.stack([f.image for f in measured]),
        [f.normalisation for f in measured],
    )
    for t in range(5):
        expected = expected_sr(recon, normalisations, t, MIXTURE if separate == "mixing" else None)
        assert np.abs(sr[t] - np.clip(expected, 0, 65535)).max() < 1.5
    about = zarr.open_group(store / "sr", mode="r").attrs["livesr"]
    assert about["prediction"] is True
    assert [e["task"] for e in about["engines"]] == (
        ["upscale", "separate"] if separate == "mixing" else ["upscale"]
    )
    assert about["input"]["frames"] == ("t-1, t, t+1" if separate == "mixing" else "t")
    assert about["upscaling"] == 2
    for line in lines(store, "sr").values():
        edge = separate == "mixing" and line["t"] in (0, 4)
        assert (line["edge"], line["true_neighbours"]) == (edge, True)


def test_the_residual_of_an_upscaling_compares_its_averages_with_the_input(tmp_path: Path) -> None:
    live = Live(rig(upscale="linear-x2"), tmp_path / "run.ome.zarr")
    measured: list[SRFrame] = []
    collect(live, measured.append)
    live.record(moving_groups(4))
    assert len(measured) == 4
    for frame, line in zip(measured, lines(live.sink.path, "sr").values(), strict=True):
        x = frame.image - np.float32(frame.normalisation.background)
        averaged = enlarged(x).reshape(64, 2, 64, 2).mean((1, 3))
        assert line["residual"] == pytest.approx(summation_residual(averaged[None], x), rel=1e-3)
        assert 0 < line["residual"] < 0.5


def test_the_residual_of_a_separation_is_taken_on_what_it_saw(tmp_path: Path) -> None:
    from livesr.live.inference.identity import identity_engine

    identity_engine(tmp_path / "identity3")
    live = Live(
        rig(upscale="linear-x2", separate=str(tmp_path / "identity3")), tmp_path / "run.ome.zarr"
    )
    live.record(moving_groups(4))
    residuals = [line["residual"] for line in lines(live.sink.path, "sr").values()]
    assert len(residuals) == 4
    assert max(residuals) < 1e-3


def test_a_skipped_centre_costs_no_upscaling(tmp_path: Path) -> None:
    live = Live(
        rig(upscale="linear-x2", separate="mixing"),
        tmp_path / "run.ome.zarr",
        policy="latest",
        slow={"infer": 0.1},
    )
    upscale = live.paths["488"].networks.steps[0].session
    calls: list[int] = []
    infer = upscale.infer
    upscale.infer = lambda: (calls.append(1), infer())[1]  # type: ignore[method-assign]
    seen: list[tuple[int, bool]] = []
    collect(live, lambda frame: None, lambda frame: seen.append((frame.t, frame.true_neighbours)))
    report = live.record(moving_groups(30), pace_s=lambda t: 0.01)
    assert report["sr_skipped"]
    assert report["groups_dropped"] or all(true for _, true in seen)
    needed = {n for t, _ in seen for n in (t - 1, t, t + 1)} & set(range(30))
    assert len(calls) == len(needed)
    assert report["steps_ms"]["upscale"]["p50"] > 0


def collect(
    live: Live,
    measured: Callable[[SRFrame], None],
    predicted: Callable[[MulticolorFrame], None] = lambda frame: None,
) -> None:
    """Listen in on what the store is given."""
    recon, separated, lock = live.sink.recon, live.sink.separated, threading.Lock()

    def on_recon(frame: SRFrame) -> None:
        with lock:
            measured(frame)
        recon(frame)

    def on_separated(frame: MulticolorFrame) -> None:
        with lock:
            predicted(frame)
        separated(frame)

    live.sink.recon, live.sink.separated = on_recon, on_separated  # type: ignore[method-assign]


def test_a_session_with_both(tmp_path: Path) -> None:
    one = load_rig("demo")
    one = one.model_copy(update={"channels": {"488": one.channels["488"]}})
    shown: list[MulticolorFrame] = []
    with core_of("demo", exposure_ms=2, demo_px=64) as core:
        plan = useq.MDASequence(
            time_plan=useq.TIntervalLoops(interval=0, loops=4), channels=["488"]
        )
        with LiveSR(
            core,
            rig=one,
            plan=plan,
            engine="mixing",
            upscale="linear-x2",
            store=tmp_path / "r.ome.zarr",
            threads=1,
            policy="complete",
            precision="f32",
        ) as session:
            session.frame_ready.connect(shown.append)
            assert any("buffers" in line for line in session.promises())
            core.mda.run(plan)
    assert session.report["upscale"] == {"488": "linear-x2"}
    assert session.store is not None
    assert {p.name for p in (session.store / "livesr").glob("manifest-*.yaml")} == {
        "manifest-linear-x2.yaml",
        "manifest-mixing.yaml",
    }
    assert [(f.t, f.channels.shape, f.source.image.shape) for f in shown] == [
        (t, (3, 128, 128), (64, 64)) for t in range(4)
    ]
    assert json.loads((session.store / "livesr" / "report.json").read_text())["sr_frames"] == 4
