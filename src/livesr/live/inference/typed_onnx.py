"""An engine's network as TensorRT takes it.

One size, constant kernels, and every tensor's type written in the file.

Owns the types, and the list of operators that every TensorRT from 8.6 on has. Imports onnx, so
only opening a session of TensorRT and `livesr build` import it; needs neither TensorRT nor a GPU.

TensorRT 11 takes the types as they are written ("strongly typed"); 8.6 takes them as a hint, to
which its builder's flags are added. Kernels must be constants: the parsers of 8.x turn a kernel
behind a cast away.

References
----------
TensorRT, "Migrating from TensorRT 10.x to 11.x" and "Explicit quantization"; onnx-tensorrt,
docs/operators.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from livesr.base.errors import BackendError, EngineError
from livesr.live.inference.fixed_size import fix_size, held_in_f32

TENSORRT_OPS = frozenset(
    {
        "Add",
        "AveragePool",
        "BatchNormalization",
        "Cast",
        "Clip",
        "Concat",
        "Conv",
        "ConvTranspose",
        "DepthToSpace",
        "DequantizeLinear",
        "Div",
        "Elu",
        "Erf",
        "Exp",
        "GlobalAveragePool",
        "Identity",
        "InstanceNormalization",
        "LeakyRelu",
        "MatMul",
        "Max",
        "MaxPool",
        "Min",
        "Mul",
        "Pad",
        "Pow",
        "PRelu",
        "QuantizeLinear",
        "ReduceL2",
        "ReduceMean",
        "Relu",
        "Reshape",
        "Resize",
        "Sigmoid",
        "Slice",
        "Softmax",
        "Sqrt",
        "Squeeze",
        "Sub",
        "Tanh",
        "Transpose",
        "Unsqueeze",
    }
)
"""What a network may use, its size fixed, to be built.

All of it is in the support matrix of onnx-tensorrt for 8.6 at opset 17.
"""

_Array: TypeAlias = NDArray[Any]
_QUANTISERS = ("QuantizeLinear", "DequantizeLinear")
_OPSET_QUANTISING_HALVES = 19  # the first in which Q/DQ take FP16 values and FP8 codes
_OPSET_REDUCING_ALONG_AN_INPUT = 18  # the first in which axes are no attribute
_INT8_MAX, _FP8_MAX = 127.0, 448.0  # the largest codes: int8 symmetric, E4M3
_MIN_SCALE = float(2.0**-24)  # FP16's smallest number: a scale of 0 would divide by it
_ONNX_TYPES: dict[Any, int] = {np.float32: TensorProto.FLOAT, np.float16: TensorProto.FLOAT16}


def typed(model: bytes, precision: str, shape: Sequence[int], *, strongly: bool = True) -> bytes:
    """Return `model` for frames of one size, with the types that `precision` means.

    Parameters
    ----------
    model : an engine's ONNX file; with Q/DQ nodes for "int8" and "f8"
    precision : "f32"; "f16", where everything is FP16 that `held_in_f32` does not hold; "int8" and
        "f8", where convolutions before the last take codes of 8 bits besides
    shape : (1, window, y, x)
    strongly : whether the builder takes the types as written. Else Q/DQ stay in FP32, as opset 17
        has them, and "f8" is refused

    Raises
    ------
    EngineError
        If it is no ONNX network.
    BackendError
        If it has an operator that is not in `TENSORRT_OPS`, or lacks the Q/DQ nodes that
        `precision` needs.
    """
    network = _parse(model, shape)
    quantised = any(node.op_type in _QUANTISERS for node in network.graph.node)
    if precision in {"int8", "f8"} and not quantised:
        raise BackendError(
            f"This network has no quantisation, which precision {precision!r} needs. Use"
            " --precision f16."
        )
    if precision == "f8" and not strongly:
        raise BackendError("TensorRT 8 has no FP8. Use --precision f16, or TensorRT 10 or later.")
    _check_codes(network.graph)
    halves = precision != "f32" and (strongly or not quantised)
    typing = _Typing(network.graph, np.float16 if halves else np.float32)
    if precision == "f8":
        typing.int8_to_fp8()
    typing.assign()
    if quantised and strongly:
        _raise_opset(network)
    onnx.checker.check_model(network)
    data: bytes = network.SerializeToString()
    return data


def unsupported_ops(network: ModelProto) -> set[str]:
    """Return the operators of `network` that are not in `TENSORRT_OPS`."""
    return {node.op_type for node in network.graph.node} - TENSORRT_OPS


class _Typing:
    """Gives every node the type that it computes in, and puts casts where types meet.

    Parameters
    ----------
    graph : rewritten in place
    dtype : type of what `held_in_f32` does not hold
    """

    def __init__(self, graph: Any, dtype: type[np.floating[Any]]) -> None:
        self._graph, self._dtype = graph, dtype
        self._arrays: dict[str, _Array] = {
            t.name: numpy_helper.to_array(t) for t in graph.initializer
        }
        self._tensors: dict[str, TensorProto] = {}
        self._types: dict[str, Any] = {graph.input[0].name: np.float32}
        self._cast: dict[tuple[str, Any], str] = {}
        self._nodes: list[NodeProto] = []
        self._drop_casts()

    def assign(self) -> None:
        """Rewrite the nodes in order."""
        nodes = list(self._graph.node)
        held = held_in_f32(self._graph)
        for i, node in enumerate(nodes):
            self._assign(node, np.float32 if i in held else self._dtype)
        del self._graph.node[:], self._graph.initializer[:], self._graph.value_info[:]
        self._graph.node.extend(self._nodes)
        self._graph.initializer.extend(self._tensors.values())

    def int8_to_fp8(self) -> None:
        """Turn codes of eight bits from integers into E4M3, for the same largest values."""
        ratio, codes = (
            np.float32(_INT8_MAX / _FP8_MAX),
            helper.tensor_dtype_to_np_dtype(TensorProto.FLOAT8E4M3FN),
        )
        scaled: set[str] = set()
        for node in self._graph.node:
            if node.op_type not in _QUANTISERS:
                continue
            name, scale, zero = node.input
            if (
                name in self._arrays and self._arrays[name].dtype == np.int8
            ):  # a kernel that is stored as codes
                self._arrays[name] = (self._arrays[name] / ratio).astype(codes)
            if scale not in scaled:
                self._arrays[scale] = self._arrays[scale] * ratio
                scaled.add(scale)
            self._arrays[zero] = np.zeros(self._arrays[zero].shape, codes)

    def _drop_casts(self) -> None:
        """Read kernels through their casts, and let no other cast stand.

        The types are given anew.
        """
        nodes = [node for node in self._graph.node if node.op_type != "Cast"]
        source = {
            node.output[0]: node.input[0] for node in self._graph.node if node.op_type == "Cast"
        }
        for node in nodes:
            for i, name in enumerate(node.input):
                while name in source:
                    name = source[name]
                node.input[i] = name
        del self._graph.node[:]
        self._graph.node.extend(nodes)

    def _assign(self, node: NodeProto, dtype: Any) -> None:
        for i, name in enumerate(node.input):
            factors = node.op_type == "Resize" and i > 0  # FP32 whatever is resized
            node.input[i] = self._typed(name, np.float32 if factors else dtype)
        for name in node.output:
            self._types[name] = None if node.op_type == "QuantizeLinear" else dtype
        self._nodes.append(node)

    def _typed(self, name: str, dtype: Any) -> str:
        """Return the name of `name` in `dtype`; integers, and codes, stay what they are."""
        if name in self._arrays:
            return self._constant(name, dtype)
        if not name or self._types[name] is None or self._types[name] == dtype:
            return name
        if (name, dtype) not in self._cast:
            cast = f"{name}/{np.dtype(dtype).name}"
            self._nodes.append(
                helper.make_node("Cast", [name], [cast], name=cast, to=_ONNX_TYPES[dtype])
            )
            self._cast[name, dtype] = cast
        return self._cast[name, dtype]

    def _constant(self, name: str, dtype: Any) -> str:
        array = self._arrays[name]
        if array.dtype not in (np.float16, np.float32):
            self._tensors.setdefault(name, numpy_helper.from_array(array, name))
            return name
        typed_name = f"{name}/{np.dtype(dtype).name}"
        self._tensors.setdefault(
            typed_name, numpy_helper.from_array(_narrowed(array, dtype), typed_name)
        )
        return typed_name


def _narrowed(array: _Array, dtype: Any) -> _Array:
    """Return `array` in `dtype`; what is positive stays so, because scales are divided by."""
    narrow = array.astype(dtype)
    return np.where((array > 0) & (narrow == 0), np.asarray(_MIN_SCALE, dtype), narrow)


def _parse(model: bytes, shape: Sequence[int]) -> ModelProto:
    try:
        network = onnx.load_model_from_string(model)
        onnx.checker.check_model(network)
    except Exception as e:  # protobuf's own exceptions differ between its implementations
        raise EngineError(f"The engine's network is no valid ONNX file: {e}") from e
    fix_size(network, shape)
    if foreign := sorted(unsupported_ops(network)):
        raise BackendError(
            f"The network has {', '.join(foreign)}, which not every TensorRT takes; use OpenVINO."
        )
    return network


def _raise_opset(network: ModelProto) -> None:
    """Write `network` as of the opset that has Q/DQ of halves, if it is of an older one."""
    opset = network.opset_import[0]
    if opset.version < _OPSET_REDUCING_ALONG_AN_INPUT:
        for node in network.graph.node:
            axes = next((a for a in node.attribute if a.name == "axes"), None)
            if node.op_type.startswith("Reduce") and axes is not None:
                name = f"{node.output[0]}/axes"
                values = np.array(axes.ints, np.int64)
                network.graph.initializer.append(numpy_helper.from_array(values, name))
                node.input.append(name)
                node.attribute.remove(axes)
    opset.version = max(opset.version, _OPSET_QUANTISING_HALVES)
    network.ir_version = max(network.ir_version, 9)  # of the container that has FP8


def _check_codes(graph: Any) -> None:
    """Raise BackendError for codes that are not symmetric int8, the only ones that every TensorRT
    takes.
    """
    zeros = {
        node.input[2] for node in graph.node if node.op_type in _QUANTISERS and len(node.input) > 2
    }
    arrays = [numpy_helper.to_array(t) for t in graph.initializer if t.name in zeros]
    nodes = sum(node.op_type in _QUANTISERS for node in graph.node)
    if nodes and (not arrays or any(a.dtype != np.int8 or a.any() for a in arrays)):
        raise BackendError(
            "The network is quantised to codes that are not symmetric int8 (zero point 0), and"
            " TensorRT takes no others. Quantise it anew, or use OpenVINO."
        )
