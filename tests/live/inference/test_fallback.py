"""A runtime that fails in the middle of a run is replaced, and what it failed on is computed all
the same."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

from backend_contract import (
    SessionContract,
    make_engine,
    session_on,
    settings,
    small_network,
)
from livesr.base.errors import BackendError
from livesr.live.inference.engine import Engine
from livesr.live.inference.fallback import FallbackSession
from livesr.live.inference.identity import identity_engine
from livesr.live.inference.openvino import OpenVINOSession

SIDE = 256


@pytest.fixture
def engine(tmp_path: Path) -> Engine:
    return identity_engine(tmp_path / "identity")


@pytest.fixture
def short_of_memory(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Frames larger than the number held here cannot be inferred by OpenVINO."""
    largest, infer = [SIDE], OpenVINOSession.infer

    def short(self: OpenVINOSession) -> Any:
        if max(self.input.shape) > largest[0]:
            raise RuntimeError("[GPU] CL_OUT_OF_MEMORY")
        return infer(self)

    monkeypatch.setattr(OpenVINOSession, "infer", short)
    return largest


def opened(engine: Engine, backend: str = "auto", tile: str = "auto") -> FallbackSession:
    return FallbackSession(engine, (SIDE, SIDE), settings(backend, "f32", 1, tile))


class TestFallbackSession(SessionContract):
    """What it adds shows only when a runtime fails."""

    name = "openvino"
    needs: ClassVar = ("openvino",)

    def opened(
        self, engine: Engine, shape: tuple[int, int], precision: str = "f32"
    ) -> FallbackSession:
        return FallbackSession(engine, shape, settings(self.name, precision, 1))


def infer(backend: FallbackSession, frames: np.ndarray) -> np.ndarray:
    backend.input[...] = frames
    return backend.infer().copy()


def test_out_of_memory_leads_to_tiles_then_to_the_next_runtime(
    engine: Engine, short_of_memory: list[int]
) -> None:
    pytest.importorskip("torch")
    frames = np.random.default_rng(0).random((3, SIDE, SIDE), np.float32)
    backend = opened(engine)
    expected = infer(backend, frames)
    assert (backend.tile, backend.replacements) == (None, ())
    short_of_memory[0] = 200
    np.testing.assert_allclose(infer(backend, frames), expected, atol=1e-6)
    assert (backend.name, backend.tile) == ("openvino", 192)
    short_of_memory[0] = 0
    np.testing.assert_allclose(infer(backend, frames), expected, atol=1e-6)
    assert (backend.name, backend.tile) == ("torch", None)
    first, *_, last = backend.replacements
    assert (
        "runs on openvino in tiles of 192 pixels since openvino failed (RuntimeError: [GPU]"
        " CL_OUT_OF" in first
    )
    assert "runs on torch since openvino in tiles of" in last
    backend.close()


def test_any_other_failure_leads_to_the_next_runtime_at_once(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("torch")

    def lost(self: OpenVINOSession) -> Any:
        raise OSError("device lost")

    backend = opened(engine)
    monkeypatch.setattr(OpenVINOSession, "infer", lost)
    frames = np.ones((3, SIDE, SIDE), np.float32)
    np.testing.assert_allclose(infer(backend, frames), 1 / 3, atol=1e-6)
    assert (backend.name, backend.tile, len(backend.replacements)) == ("torch", None, 1)
    backend.close()


def test_what_the_user_named_is_not_replaced(engine: Engine, short_of_memory: list[int]) -> None:
    frames = np.ones((3, SIDE, SIDE), np.float32)
    backend = opened(engine, backend="openvino", tile="off")
    short_of_memory[0] = 200
    backend.input[...] = frames
    with pytest.raises(
        BackendError, match=r"openvino failed on engine 'identity': RuntimeError: .*OUT_OF_MEMORY"
    ):
        backend.infer()
    with pytest.raises(BackendError, match="OUT_OF_MEMORY"):  # and says so again to the next run
        backend.input  # noqa: B018
    backend.close()


def test_a_network_in_its_place_sees_the_same_frames(
    tmp_path: Path, short_of_memory: list[int]
) -> None:
    engine = make_engine(tmp_path / "small", small_network())
    frames = np.random.default_rng(1).random((3, SIDE, SIDE), np.float32)
    whole = session_on(engine, (SIDE, SIDE), "openvino", "f32", 1)
    whole.input[...] = frames
    expected = whole.infer().copy()
    whole.close()
    backend = opened(engine, backend="openvino")
    short_of_memory[0] = 200
    correlation = np.corrcoef(infer(backend, frames).ravel(), expected.ravel())[0, 1]
    assert backend.tile == 192
    assert correlation > 0.99
    backend.close()
