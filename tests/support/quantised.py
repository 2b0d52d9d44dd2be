"""A network with QuantizeLinear and DequantizeLinear before its convolutions, as quantisation of
trained ones writes it."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnxruntime
from onnx import helper, numpy_helper

_MAX = 127


def quantised(model: bytes, frames: np.ndarray, *, stored_codes: bool = False) -> bytes:
    """Return `model` with int8 Q/DQ, symmetric, at every convolution but the last.

    Kernels by output channel.

    Parameters
    ----------
    frames : (window, y, x) to calibrate with
    stored_codes : write kernels as codes with a DequantizeLinear, rather than as numbers with both
    """
    network = onnx.load_model_from_string(model)
    graph = network.graph
    kernels = {t.name: numpy_helper.to_array(t) for t in graph.initializer}
    convolutions = [node for node in graph.node if node.op_type == "Conv"]
    seen = _values(network, [node.input[0] for node in convolutions], frames)
    nodes, tensors = [], []

    def add(name: str, value: Any) -> str:
        tensors.append(numpy_helper.from_array(value, name))
        return name

    for node in graph.node:
        if node.op_type == "Conv" and node is not convolutions[-1]:
            x, w = node.input[0], node.input[1]
            key, kernel = node.output[0], kernels[w]
            scale = add(f"{key}.s", np.float32(max(np.abs(seen[x]).max(), 1e-3) / _MAX))
            zero = add(f"{key}.z", np.int8(0))
            each = np.abs(kernel).max((1, 2, 3)) / _MAX
            scales, zeros = (
                add(f"{key}.ws", each.astype(np.float32)),
                add(f"{key}.wz", np.zeros(len(each), np.int8)),
            )
            nodes += [
                helper.make_node("QuantizeLinear", [x, scale, zero], [f"{key}.q"]),
                helper.make_node("DequantizeLinear", [f"{key}.q", scale, zero], [f"{key}.x"]),
            ]
            if stored_codes:
                codes = np.rint(kernel / each[:, None, None, None]).astype(np.int8)
                nodes.append(
                    helper.make_node(
                        "DequantizeLinear",
                        [add(f"{key}.codes", codes), scales, zeros],
                        [f"{key}.w"],
                        axis=0,
                    )
                )
            else:
                nodes += [
                    helper.make_node("QuantizeLinear", [w, scales, zeros], [f"{key}.wq"], axis=0),
                    helper.make_node(
                        "DequantizeLinear", [f"{key}.wq", scales, zeros], [f"{key}.w"], axis=0
                    ),
                ]
            node.input[0], node.input[1] = f"{key}.x", f"{key}.w"
        nodes.append(node)
    kept = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
    del graph.node[:]
    graph.node.extend(kept)
    graph.initializer.extend(tensors)
    onnx.checker.check_model(network)
    return bytes(network.SerializeToString())


def _values(network: Any, names: list[str], frames: np.ndarray) -> dict[str, np.ndarray]:
    """Return what tensors hold for `frames`."""
    probe = onnx.ModelProto()
    probe.CopyFrom(network)
    inside = [name for name in dict.fromkeys(names) if name != "frames"]
    probe.graph.output.extend(
        helper.make_tensor_value_info(n, onnx.TensorProto.FLOAT, None) for n in inside
    )
    runtime = onnxruntime.InferenceSession(
        probe.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    values = runtime.run(None, {"frames": frames[None].astype(np.float32)})[1:]
    return {"frames": frames, **dict(zip(inside, values, strict=True))}
