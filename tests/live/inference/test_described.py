"""What computes, in one line."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import pytest

from backend_contract import make_engine, settings, small_network
from livesr.base.errors import BackendError
from livesr.live.inference import runner
from livesr.live.inference.fallback import FallbackSession
from livesr.live.inference.openvino import OpenVINORuntime
from livesr.live.inference.session import Compiled, InferenceSession


class Said(InferenceSession):
    """Says what a session of TensorRT for RTX would on a card."""

    name, version, precision = "tensorrt-rtx", "1.7.1.116", "f16"
    device = "NVIDIA GeForce RTX 4090"

    @property
    def input(self) -> Any:
        return np.zeros((1, 1, 1), np.float32)

    def infer(self) -> Any:
        return self.input

    def close(self) -> None:
        pass


def test_a_plan_its_size_and_its_age() -> None:
    session = Said()
    session.compiled = Compiled(time.time() - 2, 4_700_000)
    assert session.described() == (
        "tensorrt-rtx 1.7 FP16 on NVIDIA GeForce RTX 4090, plan of 4.7 MB, compiled 2 s ago"
    )


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(-5, "0 s ago"), (119, "119 s ago"), (600, "10 min ago"), (10_000, "3 h ago")],
)
def test_ages(seconds: float, words: str) -> None:
    assert Compiled(time.time() - seconds).described() == f"compiled {words}"


def test_an_old_plan_has_a_date() -> None:
    at = time.mktime((2026, 3, 4, 12, 0, 0, 0, 0, -1))
    assert Compiled(at, 1000).described() == "plan of 0.0 MB, compiled on 2026-03-04"


def test_tiles_and_precisions_have_their_names() -> None:
    session = Said()
    session.version, session.precision, session.tile, session.device = "", "bf16", 512, "a CPU"
    assert session.described() == "tensorrt-rtx BF16 on a CPU, in tiles of 512 pixels"


def test_a_session_that_falls_back_says_what_auto_passed_over(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runner, "in_order", lambda: ["torch", "openvino"])
    monkeypatch.setattr(
        "livesr.live.inference.torch.TorchRuntime.unavailable", lambda self: "Torch is away."
    )
    engine = make_engine(tmp_path / "small", small_network())
    with FallbackSession(engine, (16, 16), settings("auto", "f32", 1)) as session:
        assert session.skipped == ("torch: Torch is away.",)
        assert session.described().startswith("openvino 20")
        assert OpenVINORuntime().devices[0] in session.described()
    with pytest.raises(BackendError, match="Torch is away"):
        FallbackSession(engine, (16, 16), settings("torch", "f32", 1))
