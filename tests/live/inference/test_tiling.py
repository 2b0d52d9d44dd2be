"""Tiles: what they cover, how near they come to the whole, and when they are used."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

from backend_contract import (
    SessionContract,
    make_engine,
    random_frames,
    session_on,
    settings,
    small_network,
)
from livesr.base.compute import ComputeConfig
from livesr.base.errors import BackendError, EngineError
from livesr.base.geometry import Geometry
from livesr.evaluation.metrics import pcc
from livesr.live.inference.engine import Engine, load_engine
from livesr.live.inference.identity import identity_engine
from livesr.live.inference.openvino import OpenVINORuntime
from livesr.live.inference.runtime import runtime_named
from livesr.live.inference.session import InferenceSession
from livesr.live.inference.tiling import TiledSession, needed_bytes, smaller_tile, tile_that_fits
from livesr.live.paths import build_path
from recorded_runs import sim_rig
from upscaling import edsr_engine


@pytest.fixture
def engine(tmp_path: Path) -> Engine:
    return make_engine(tmp_path / "small", small_network())


def tiled(engine: Engine, shape: tuple[int, int], tile: int) -> Any:
    return session_on(engine, shape, "openvino", "f32", 1, tile)


class TestTiledSession(SessionContract):
    """Small frames are one tile, larger ones several."""

    name = "openvino"
    needs: ClassVar = ("openvino",)
    in_tiles = True
    max_allocated = 128 * 1024

    def opened(
        self, engine: Engine, shape: tuple[int, int], precision: str = "f32"
    ) -> TiledSession:
        compute = settings(self.name, precision, 1)
        runtime = runtime_named(self.name)
        return TiledSession(engine, shape, 64, partial(runtime.open, engine, compute=compute))


@pytest.mark.parametrize("shape", [(128, 128), (200, 97), (131, 64), (64, 300)])
@pytest.mark.parametrize("tile", [64, 90])
def test_tiles_cover_every_pixel_once(tmp_path: Path, shape: tuple[int, int], tile: int) -> None:
    backend = tiled(identity_engine(tmp_path / "identity"), shape, tile)
    frames = random_frames(shape)
    backend.input[...] = frames
    np.testing.assert_allclose(backend.infer(), np.repeat(frames[1:2] / 3, 3, 0), atol=1e-5)
    backend.close()


@pytest.mark.parametrize("scale", [2, 3])
def test_without_attention_tiles_are_exact(tmp_path: Path, scale: int) -> None:
    """A convolution sees no further than the halo.

    No seam, no shift, also where the network enlarges.
    """
    upscale = edsr_engine(tmp_path / "edsr", scale)
    frames = random_frames((150, 173), window=1)
    whole = session_on(upscale, frames.shape[1:], "openvino", "f32", 1)
    parts = tiled(upscale, frames.shape[1:], 96)
    whole.input[...] = parts.input[...] = frames
    np.testing.assert_allclose(parts.infer(), whole.infer(), atol=1e-5)


def test_tiles_lie_on_the_networks_grid(tmp_path: Path) -> None:
    engine = make_engine(tmp_path / "coarse", small_network(), multiple_of=16)
    backend = tiled(engine, (250, 131), 100)
    assert {(t.y % 16, t.x % 16) for t in backend._tiles} == {(0, 0)}
    assert backend.inner.input.shape == (3, 96, 96)
    assert backend.infer().shape == (3, 250, 131)


def test_tiles_that_are_all_halo_are_refused(engine: Engine) -> None:
    with pytest.raises(
        EngineError, match=r"Tiles of 48 pixels are too small .* share 48: use tiles of 96"
    ):
        tiled(engine, (256, 256), 48)


def test_a_frame_that_is_no_larger_than_a_tile_is_whole(engine: Engine) -> None:
    assert tiled(engine, (128, 100), 128).tile is None
    assert tiled(engine, (128, 300), 128).tile == 128


def test_auto_takes_tiles_where_memory_is_short(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = needed_bytes(engine, (1024, 1024))
    assert tile_that_fits(engine, (1024, 1024), 3 * whole) is None
    assert tile_that_fits(engine, (1024, 1024), whole) == 576
    assert tile_that_fits(engine, (1024, 1024), 0) == smaller_tile(engine, 180) == 134
    assert smaller_tile(engine, 134) is None
    monkeypatch.setattr(
        OpenVINORuntime, "free_bytes", lambda self: needed_bytes(engine, (256, 256))
    )
    assert session_on(engine, (256, 256), "openvino", "f32", 1, "auto").tile == 144
    assert session_on(engine, (256, 256), "openvino", "f32", 1, "off").tile is None


def test_a_backend_that_runs_out_of_memory_is_given_tiles(
    engine: Engine, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    opened, tried = OpenVINORuntime.open, []

    def short(
        self: OpenVINORuntime, engine: Engine, shape: tuple[int, int], compute: ComputeConfig
    ) -> InferenceSession:
        tried.append(shape)
        if shape[0] > 200:
            raise BackendError("OpenVINO refuses engine 'small'") from RuntimeError(
                "std::bad_alloc"
            )
        return opened(self, engine, shape, compute)

    monkeypatch.setattr(OpenVINORuntime, "open", short)
    backend = session_on(engine, (512, 512), "openvino", "f32", 1, "auto")
    assert isinstance(backend, TiledSession)
    assert tried == [(512, 512), (384, 384), (288, 288), (216, 216), (162, 162)]
    assert "trying tiles of 162 pixels" in caplog.text
    with pytest.raises(BackendError, match="refuses"):
        session_on(engine, (512, 512), "openvino", "f32", 1, "off")


def test_a_run_in_tiles_says_so(tmp_path: Path) -> None:
    rig = sim_rig(str(identity_engine(tmp_path / "identity").folder))
    path = build_path(
        rig,
        "488",
        Geometry((64, 64), "uint16", 0.065),
        ComputeConfig(precision="f32", device="cpu", threads=1, tile=96),
    )
    assert path.description.ai["runtime"]["tile"] == 96
    assert "in tiles of 96 pixels" in path.notes[0]
    path.close()


@pytest.mark.slow
def test_the_shipped_engine_in_tiles_is_nearly_the_whole() -> None:
    """Attention is global, so tiles differ.

    What the card promises, on a simulated frame of 1024 x 1024.
    """
    from livesr.simulation.specimens import Cell

    light = load_engine("imcsr-mt-er-lyso-light")
    cell = Cell((1024, 1024), 0.0325, 5)
    frames = np.empty((3, 1024, 1024), np.float32)
    for frame in frames:
        total = np.sum(list(cell.render().values()), axis=0)
        frame[:] = 0.55 * total / np.percentile(total, 99.9)
        cell.advance(0.5)
    whole = session_on(light, (1024, 1024), "openvino", "f32", 2)
    whole.input[...] = frames
    reference = whole.infer().copy()
    whole.close()
    parts = session_on(light, (1024, 1024), "openvino", "f32", 2, 768)
    parts.input[...] = frames
    for one, other in zip(parts.infer(), reference, strict=True):
        assert pcc(one, other) >= 0.999
    parts.close()
