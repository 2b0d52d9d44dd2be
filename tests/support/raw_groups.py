"""Engines that see raw frames, in numbers that a test can work out."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from backend_contract import make_engine
from livesr.live.inference.engine import Engine

ONE_PHASE = ("angle 0 phase 0", "angle 1 phase 0", "angle 2 phase 0")


def group_engine(folder: Path, weights: Sequence[float] = (0.5, 0.3, 0.2), **fields: Any) -> Engine:
    """Reconstructs: a weighted sum of the raw frames, each pixel 2 x 2; called like its folder."""
    said = {
        "id": folder.name,
        "task": "reconstruct",
        "raw_frames": ONE_PHASE,
        "window": 1,
        "scale": 2,
        "channels": [{"name": "Reconstructed", "color": "FFFFFF"}],
        "multiple_of": 1,
        "halo": 0,
    }
    mixture = np.repeat(np.float32([weights]), 4, axis=0)
    return make_engine(folder, _mixture(mixture, shuffle=True), **(said | fields))


def restoring_engine(folder: Path, mixture: Sequence[Sequence[float]], **fields: Any) -> Engine:
    """Restores: as many frames as it sees, each a weighted sum of them; called like its folder."""
    n = len(mixture)
    said = {
        "id": folder.name,
        "task": "restore",
        "raw_frames": [f"raw {i}" for i in range(n)] if n > 1 else (),
        "window": 1,
        "channels": [{"name": f"frame {i}", "color": "FFFFFF"} for i in range(n)],
        "multiple_of": 1,
        "halo": 0,
    }
    return make_engine(folder, _mixture(np.float32(mixture), shuffle=False), **(said | fields))


def _mixture(weights: np.ndarray, *, shuffle: bool) -> bytes:
    onnx = pytest.importorskip("onnx")
    helper, kind = onnx.helper, onnx.TensorProto.FLOAT
    made, seen = weights.shape
    nodes = [helper.make_node("Conv", ["frames", "weight"], ["mixed"], kernel_shape=[1, 1])]
    last = helper.make_node("Identity", ["mixed"], ["channels"])
    if shuffle:
        last = helper.make_node("DepthToSpace", ["mixed"], ["channels"], blocksize=2, mode="CRD")
    graph = helper.make_graph(
        [*nodes, last],
        "mixture",
        [helper.make_tensor_value_info("frames", kind, [1, seen, "y", "x"])],
        [helper.make_tensor_value_info("channels", kind, [1, 1 if shuffle else made, "Y", "X"])],
        [helper.make_tensor("weight", kind, [made, seen, 1, 1], weights.ravel().tolist())],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return bytes(model.SerializeToString())
