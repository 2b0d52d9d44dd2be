"""A second output for a network: means of its own features over the frame.

Owns what is added to an ONNX graph, for the network itself and for its int8 copy; weights stay as
they are. What the numbers say is `livesr.live.unlike`'s.

The output `features` is (1, n, 1, 1): means over the frame of what flows through the network at
five places; then, for every channel of the prediction, the mean of the channel and the means of its
product with the features before the last two convolutions: what the network saw where it drew that
channel. Sums over a frame, so that those of tiles add up.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import onnx
from onnx import ModelProto, NodeProto, helper, numpy_helper

from livesr.base import contained
from livesr.base.errors import EngineError
from livesr.live.inference.engine import (
    FEATURES_OUTPUT,
    INT8_NAME,
    Manifest,
    load_engine,
    sha256_of,
    write_manifest,
)

_EARLY = (0.0, 0.25, 0.5)  # places in the residual stream
_TRIAL_PX = 64


def add_features(folder: Path) -> Manifest:
    """Add the output to an engine's networks, unless they have it, and name it in the manifest.

    Raises
    ------
    EngineError
        If the network has no residual stream, so that nobody knows where to look.
    """
    engine = load_engine(folder)
    if engine.manifest.weights.features:
        return engine.manifest
    names, places = engine.manifest.channel_names, list[str]()
    plain = onnx.load_model_from_string(engine.read())
    places = feature_places(plain)
    n, drawn = extend(plain, places, len(names), engine.manifest.inputs)
    contained.replace_bytes(folder, engine.onnx_path.name, plain.SerializeToString())
    weights = engine.manifest.weights
    onnx_weights = weights.onnx.model_copy(update={"sha256": sha256_of(engine.onnx_path)})
    int8 = weights.int8
    if int8 is not None:
        quantised = onnx.load_model_from_string(engine.read_int8())
        extend(quantised, places, len(names), engine.manifest.inputs)
        contained.replace_bytes(folder, INT8_NAME, quantised.SerializeToString())
        int8 = int8.model_copy(
            update={
                "sha256": sha256_of(folder / INT8_NAME),
                "made_of": onnx_weights.sha256,
            }
        )
    manifest = engine.manifest.model_copy(
        update={
            "weights": weights.model_copy(
                update={
                    "onnx": onnx_weights,
                    "int8": int8,
                    "features": n,
                    "features_drawn": drawn,
                }
            )
        }
    )
    write_manifest(folder, manifest)
    return manifest


def feature_places(model: ModelProto) -> list[str]:
    """Return the tensors that are looked at: three of the residual stream, and what goes into the
    last two convolutions.

    Raises
    ------
    EngineError
        If there is no such stream.
    """
    convolutions = [node.input[0] for node in model.graph.node if node.op_type == "Conv"]
    uses = Counter(name for node in model.graph.node for name in node.input)
    stream = list(dict.fromkeys(name for name in convolutions[1:-2] if uses[name] > 1))
    stream = [name for name in stream if _adds(model, name)]
    if len(stream) < len(_EARLY):
        raise EngineError(
            "The network has no residual stream, in which its features are looked for: its input is"
            " judged without them."
        )
    early = [stream[int(len(stream) * share)] for share in _EARLY]
    return [*early, convolutions[-2], convolutions[-1]]


def _adds(model: ModelProto, name: str) -> bool:
    return any(node.op_type == "Add" and name in node.input for node in model.graph.node)


def extend(model: ModelProto, places: list[str], channels: int, window: int) -> tuple[int, int]:
    """Add the output to `model`, in place.

    Return how many numbers it has, and how many are multiplied with each channel.
    """
    sizes = _sizes(model, window)
    drawn = model.graph.output[0].name
    step = sizes[drawn][2] // sizes[places[-1]][2]
    nodes: list[NodeProto] = []

    def add(op: str, inputs: list[str], name: str, **attributes: object) -> str:
        name = f"features/{name}"
        nodes.append(helper.make_node(op, inputs, [name], name, **attributes))
        return name

    def constant(name: str, values: list[int]) -> str:
        model.graph.initializer.append(
            numpy_helper.from_array(np.array(values, np.int64), f"features/{name}")
        )
        return f"features/{name}"

    pooled = [add("GlobalAveragePool", [place], f"mean_{i}") for i, place in enumerate(places)]
    n = sum(sizes[place][1] for place in places)
    coarse = drawn
    if step > 1:
        coarse = add("MaxPool", [drawn], "drawn", kernel_shape=[step, step], strides=[step, step])
    axes = constant("axis", [1])
    for c in range(channels):
        ends = constant(f"from_{c}", [c]), constant(f"to_{c}", [c + 1])
        one = add("Slice", [coarse, *ends, axes], f"channel_{c}")
        pooled.append(add("GlobalAveragePool", [one], f"drawn_{c}"))
        n += 1
        for i, place in enumerate(places[-2:]):
            product = add("Mul", [place, one], f"product_{c}_{i}")
            pooled.append(add("GlobalAveragePool", [product], f"drawn_{c}_{i}"))
            n += sizes[place][1]
    nodes.append(helper.make_node("Concat", pooled, [FEATURES_OUTPUT], FEATURES_OUTPUT, axis=1))
    model.graph.node.extend(nodes)
    model.graph.output.append(
        helper.make_tensor_value_info(FEATURES_OUTPUT, onnx.TensorProto.FLOAT, [1, n, 1, 1])
    )
    onnx.checker.check_model(model, full_check=True)
    return n, sum(sizes[place][1] for place in places[-2:])


def _sizes(model: ModelProto, window: int) -> dict[str, tuple[int, ...]]:
    fixed = ModelProto()
    fixed.CopyFrom(model)
    dims = fixed.graph.input[0].type.tensor_type.shape.dim
    for dim, n in zip(dims, (1, window, _TRIAL_PX, _TRIAL_PX), strict=True):
        dim.dim_value = n
    for output in fixed.graph.output:
        output.type.tensor_type.ClearField("shape")
    inferred = onnx.shape_inference.infer_shapes(fixed, data_prop=True).graph
    return {
        value.name: tuple(d.dim_value for d in value.type.tensor_type.shape.dim)
        for value in (*inferred.value_info, *inferred.output)
    }
