"""Engines that see a channel beside their own."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from backend_contract import make_engine
from livesr.live.inference.engine import Engine


def two_input_engine(folder: Path, weights: Sequence[float], **say: Any) -> Engine:
    """The sum of both planes, each times its weight."""
    onnx = pytest.importorskip("onnx")
    helper, kind, tensor = onnx.helper, onnx.TensorProto.FLOAT, onnx.numpy_helper.from_array
    kernel = np.array(weights, np.float32).reshape(1, 2, 1, 1)
    graph = helper.make_graph(
        [helper.make_node("Conv", ["frames", "w"], ["channels"], kernel_shape=[1, 1])],
        "both",
        [helper.make_tensor_value_info("frames", kind, [1, 2, "y", "x"])],
        [helper.make_tensor_value_info("channels", kind, [1, 1, "y", "x"])],
        [tensor(kernel, "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    said = {
        "id": folder.name,
        "task": "upscale",
        "trained": True,
        "window": 1,
        "beside": ["widefield"],
        "channels": [{"name": "Completed", "color": "FFFFFF"}],
        "multiple_of": 1,
        "halo": 0,
    }
    return make_engine(folder, model.SerializeToString(), **(said | say))
