"""An ONNX graph executed by torch, one node after the other.

Owns the list of operators that an engine may use and what each one means. Imports torch and onnx,
so only opening a session of torch imports it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import helper, numpy_helper
from torch.nn import functional as F  # noqa: N812

from livesr.base.errors import EngineError
from livesr.live.inference.fixed_size import held_in_f32

Attributes: TypeAlias = dict[str, Any]
Operator: TypeAlias = Callable[..., Any]
OPERATORS: dict[str, Operator] = {}

_CODES = (torch.int8, torch.uint8)
_TORCH_TYPES = {
    onnx.TensorProto.INT32: torch.int32,
    onnx.TensorProto.INT64: torch.int64,
    onnx.TensorProto.BOOL: torch.bool,
}


def _operator(*names: str) -> Callable[[Operator], Operator]:
    def register(function: Operator) -> Operator:
        OPERATORS.update(dict.fromkeys(names, function))
        return function

    return register


OPERATORS |= {
    "Identity": lambda _, x: x,
    "Add": lambda _, a, b: a + b,
    "Sub": lambda _, a, b: a - b,
    "Mul": lambda _, a, b: a * b,
    "Pow": lambda _, a, b: a**b,
    "Sqrt": lambda _, x: x.sqrt(),
    "Abs": lambda _, x: x.abs(),
    "Neg": lambda _, x: -x,
    "Exp": lambda _, x: x.exp(),
    "Erf": lambda _, x: x.erf(),
    "Tanh": lambda _, x: x.tanh(),
    "Sigmoid": lambda _, x: x.sigmoid(),
    "Relu": lambda _, x: x.relu(),
    "PRelu": lambda _, x, slope: x.clamp(min=0) + slope * x.clamp(max=0),
    "LeakyRelu": lambda a, x: F.leaky_relu(x, a.get("alpha", 0.01)),
    "MatMul": lambda _, a, b: a @ b,
    "Concat": lambda a, *xs: torch.cat(xs, a["axis"]),
    "Transpose": lambda a, x: x.permute(a.get("perm", list(range(x.ndim))[::-1])),
    "Softmax": lambda a, x: x.softmax(a.get("axis", -1)),
    "Shape": lambda a, x: torch.tensor(x.shape[a.get("start", 0) : a.get("end")]),
    "GlobalAveragePool": lambda _, x: x.mean(tuple(range(2, x.ndim)), keepdim=True),
    "SpaceToDepth": lambda a, x: _space_to_depth(x, a["blocksize"]),
}


def _pads(a: Attributes) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return the padding (y, x) before and after."""
    if a.get("auto_pad", b"NOTSET") not in (b"NOTSET", "NOTSET"):
        raise EngineError(
            "The network has a convolution or pooling with auto_pad; export it with explicit"
            " padding."
        )
    before, after = np.split(np.array(a.get("pads", [0, 0, 0, 0])), 2)
    return tuple(before.tolist()), tuple(after.tolist())


@_operator("Conv")
def _conv(a: Attributes, x: Any, weight: Any, bias: Any = None) -> Any:
    padding, after = _pads(a)
    if padding != after:
        x, padding = F.pad(x, (padding[1], after[1], padding[0], after[0])), (0, 0)
    return F.conv2d(
        x, weight, bias, a.get("strides", 1), padding, a.get("dilations", 1), a.get("group", 1)
    )


@_operator("ConvTranspose")
def _conv_transpose(a: Attributes, x: Any, weight: Any, bias: Any = None) -> Any:
    padding, after = _pads(a)
    if padding != after or "output_shape" in a:
        raise EngineError(
            "The network has an uneven transposed convolution; export it with equal padding."
        )
    more = a.get("output_padding", 0)
    return F.conv_transpose2d(
        x,
        weight,
        bias,
        a.get("strides", 1),
        padding,
        more,
        a.get("group", 1),
        a.get("dilations", 1),
    )


@_operator("BatchNormalization")
def _batch_normalisation(a: Attributes, x: Any, *parameters: Any) -> Any:
    scale, shift, mean, variance = (p.float().reshape(-1, 1, 1) for p in parameters)
    gain = scale / (variance + a.get("epsilon", 1e-5)).sqrt()
    return x * gain.to(x.dtype) + (shift - mean * gain).to(x.dtype)


@_operator("MaxPool")
def _max_pool(a: Attributes, x: Any) -> Any:
    (top, left), (bottom, right) = _pads(a)
    x = F.pad(x, (left, right, top, bottom), value=-float("inf"))
    return F.max_pool2d(
        x,
        a["kernel_shape"],
        a.get("strides", 1),
        0,
        a.get("dilations", 1),
        bool(a.get("ceil_mode", 0)),
    )


@_operator("Div")
def _div(_: Attributes, a: Any, b: Any) -> Any:
    return a / b if a.is_floating_point() else torch.div(a, b, rounding_mode="trunc")


@_operator("Max", "Min")
def _extremum(a: Attributes, first: Any, *others: Any) -> Any:
    choose = torch.maximum if a["op_type"] == "Max" else torch.minimum
    for other in others:
        first = choose(first, other)
    return first


@_operator("Clip")
def _clip(_: Attributes, x: Any, low: Any = None, high: Any = None) -> Any:
    return x.clamp(low, high)


@_operator("ReduceMean")
def _reduce_mean(a: Attributes, x: Any, axes: Any = None) -> Any:
    dims = a.get("axes") if axes is None else axes.tolist()
    return x.mean(dims or tuple(range(x.ndim)), keepdim=bool(a.get("keepdims", 1)))


@_operator("ReduceProd")
def _reduce_prod(a: Attributes, x: Any, axes: Any = None) -> Any:
    dims = a.get("axes") if axes is None else axes.tolist()
    for dim in sorted(d % x.ndim for d in dims or range(x.ndim))[::-1]:
        x = x.prod(dim, keepdim=bool(a.get("keepdims", 1)))
    return x


@_operator("ReduceL2")
def _reduce_l2(a: Attributes, x: Any, axes: Any = None) -> Any:
    dims = a.get("axes") if axes is None else axes.tolist()
    return torch.linalg.vector_norm(x, dim=dims, keepdim=bool(a.get("keepdims", 1)))


@_operator("DFT")
def _dft(a: Attributes, x: Any, length: Any = None, axis: Any = None) -> Any:
    along = a.get("axis", 1 if axis is None else int(axis)) % x.ndim
    n = x.shape[along] if length is None else int(length)
    values = torch.view_as_complex(x.contiguous()) if x.shape[-1] == 2 else x[..., 0]
    transform = torch.fft.ifft if a.get("inverse") else torch.fft.fft
    spectrum = transform(values, n, along)
    if a.get("onesided"):
        spectrum = spectrum.narrow(along, 0, n // 2 + 1)
    return torch.view_as_real(spectrum)


@_operator("Slice")
def _slice(
    _: Attributes, x: Any, starts: Any, ends: Any, axes: Any = None, steps: Any = None
) -> Any:
    begins, stops = starts.tolist(), ends.tolist()
    dims = axes.tolist() if axes is not None else range(len(begins))
    strides = steps.tolist() if steps is not None else [1] * len(begins)
    index = [slice(None)] * x.ndim
    for dim, begin, stop, stride in zip(dims, begins, stops, strides, strict=True):
        index[dim] = slice(begin, stop, stride)
    return x[tuple(index)]


@_operator("Split")
def _split(a: Attributes, x: Any, sizes: Any = None) -> Any:
    axis = a.get("axis", 0)
    if sizes is not None:
        return x.split(sizes.tolist(), axis)
    return x.split(-(-x.shape[axis] // a["n_outputs"]), axis)


@_operator("Gather")
def _gather(a: Attributes, x: Any, indices: Any) -> Any:
    axis, flat = a.get("axis", 0), indices.reshape(-1).to(x.device)
    picked = x.index_select(axis, torch.where(flat < 0, flat + x.shape[axis], flat))
    return picked.reshape(*x.shape[:axis], *indices.shape, *x.shape[axis + 1 :])


@_operator("QuantizeLinear")
def _quantise(a: Attributes, x: Any, scale: Any, zero: Any = None) -> Any:
    zero = torch.zeros((), dtype=torch.uint8, device=x.device) if zero is None else zero
    codes = torch.round(x / _along(a, scale, x)) + _along(
        a, zero, x
    )  # half to even, as the operator is defined
    limits = torch.iinfo(zero.dtype)
    return codes.clamp(limits.min, limits.max).to(zero.dtype)


@_operator("DequantizeLinear")
def _dequantise(a: Attributes, x: Any, scale: Any, zero: Any = None) -> Any:
    codes = x.to(scale.dtype)
    return (codes if zero is None else codes - _along(a, zero, x)) * _along(a, scale, x)


def _along(a: Attributes, values: Any, x: Any) -> Any:
    """Shape `values`, one or one for each index along the axis, so that they broadcast over `x`."""
    if values.numel() == 1:
        return values.reshape(())
    shape = [1] * x.ndim
    shape[a.get("axis", 1)] = -1
    return values.reshape(shape)


@_operator("Reshape")
def _reshape(_: Attributes, x: Any, shape: Any) -> Any:
    return x.reshape([x.shape[i] if n == 0 else n for i, n in enumerate(shape.tolist())])


@_operator("Squeeze")
def _squeeze(_: Attributes, x: Any, axes: Any = None) -> Any:
    return x.squeeze() if axes is None else x.squeeze(tuple(axes.tolist()))


@_operator("Unsqueeze")
def _unsqueeze(_: Attributes, x: Any, axes: Any) -> Any:
    for axis in sorted(axes.tolist()):
        x = x.unsqueeze(axis)
    return x


@_operator("DepthToSpace")
def _depth_to_space(a: Attributes, x: Any) -> Any:
    r = a["blocksize"]
    if a.get("mode", b"DCR") == b"CRD":
        return F.pixel_shuffle(x, r)
    n, c, h, w = x.shape
    return (
        x.reshape(n, r, r, c // r**2, h, w)
        .permute(0, 3, 4, 1, 5, 2)
        .reshape(n, c // r**2, h * r, w * r)
    )


def _space_to_depth(x: Any, r: int) -> Any:
    n, c, h, w = x.shape
    return (
        x.reshape(n, c, h // r, r, w // r, r)
        .permute(0, 3, 5, 1, 2, 4)
        .reshape(n, c * r**2, h // r, w // r)
    )


@dataclass(frozen=True, slots=True)
class _Step:
    function: Operator
    attributes: Attributes
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    dtype: Any
    last_use: tuple[str, ...]


class OnnxGraph:
    """A network, read from bytes, ready to run on one device.

    Parameters
    ----------
    model : an ONNX file's contents, from `Engine.read`
    device : "cpu" or "cuda"
    precision : dtype of what `held_in_f32` does not hold in float32

    Raises
    ------
    EngineError
        If it is no ONNX network, or uses an operator that is not in `OPERATORS`.

    Attributes
    ----------
    features : second output of the last frame, float32 (n,) on the device; None without one
    """

    def __init__(self, model: bytes, device: str, precision: Any) -> None:
        graph = _parse(model)
        self._device = device
        self.input_name = graph.input[0].name
        self.output_name = graph.output[0].name
        self._features_name = graph.output[1].name if len(graph.output) > 1 else ""
        self.features: Any = None
        self._constants: dict[str, Any] = {
            i.name: self._tensor(numpy_helper.to_array(i)) for i in graph.initializer
        }
        self._steps = self._fold(_steps(graph, precision))

    @torch.inference_mode()  # type: ignore[untyped-decorator]
    def run(self, frames: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the network's output for `frames` (1, window, y, x), which are only read."""
        output: NDArray[np.float32] = (
            self.execute(torch.from_numpy(frames).to(self._device)).cpu().numpy()
        )
        return output

    @torch.inference_mode()  # type: ignore[untyped-decorator]
    def execute(self, frames: Any) -> Any:
        """Return the float32 output for a tensor (1, window, y, x) on the network's device, which
        is only read.
        """
        values = {self.input_name: frames.contiguous(memory_format=torch.channels_last)}
        for step in self._steps:
            _execute(step, values, self._constants)
            for name in step.last_use:
                values.pop(name, None)
        if self._features_name:
            self.features = values[self._features_name].float().reshape(-1)
        return values[self.output_name].float()

    def _tensor(self, array: NDArray[Any]) -> Any:
        tensor = torch.from_numpy(np.array(array))
        # Indices and shapes stay on the host: they are read as Python numbers. Codes of 8 bits are
        # computed with.
        return (
            tensor.to(self._device)
            if tensor.is_floating_point() or tensor.dtype in _CODES
            else tensor
        )

    def _fold(self, steps: list[_Step]) -> list[_Step]:
        """Compute what depends on constants only (FP16 weights cast to FP32, biases, shapes)
        once.
        """
        left = []
        for step in steps:
            if step.function is _constant:
                self._constants[step.outputs[0]] = self._tensor(step.attributes["array"])
            elif all(not name or name in self._constants for name in step.inputs):
                _execute(step, self._constants, self._constants)
            else:
                left.append(step)
        self._cast_weights(left)
        return left

    def _cast_weights(self, steps: list[_Step]) -> None:
        """Bring each weight to its step's dtype and to channels-last now rather than in every
        frame.
        """
        users: dict[str, set[Any]] = {}
        for step in steps:
            for name in step.inputs:
                users.setdefault(name, set()).add(step.dtype)
        for name, dtypes in users.items():
            value = self._constants.get(name)
            if value is None or not value.is_floating_point():
                continue
            if len(dtypes) == 1:
                value = value.to(dtypes.pop())
            self._constants[name] = (
                value.contiguous(memory_format=torch.channels_last) if value.ndim == 4 else value
            )


def _execute(step: _Step, values: dict[str, Any], constants: dict[str, Any]) -> None:
    arguments = [_argument(name, step.dtype, values, constants) for name in step.inputs]
    result = step.function(step.attributes, *arguments)
    if len(step.outputs) == 1 and isinstance(result, torch.Tensor):
        values[step.outputs[0]] = result
    else:
        values.update(zip(step.outputs, result, strict=True))


def _argument(name: str, dtype: Any, values: dict[str, Any], constants: dict[str, Any]) -> Any:
    if not name:
        return None
    value = values[name] if name in values else constants[name]
    return value.to(dtype) if value.is_floating_point() else value


@_operator("Cast")
def _cast(a: Attributes, x: Any) -> Any:
    # Between float types it is the step's precision that decides, and the argument has it already.
    if a["to"] in _TORCH_TYPES:
        return x.to(_TORCH_TYPES[a["to"]])
    return x if x.is_floating_point() else x.float()


@_operator("Constant")
def _constant(a: Attributes) -> Any:
    raise AssertionError("constants are read when the graph is")


def _parse(model: bytes) -> Any:
    try:
        parsed = onnx.load_model_from_string(model)
    except Exception as e:  # protobuf's own exceptions differ between its implementations
        raise EngineError(f"The engine's network is no ONNX file: {e}") from e
    try:
        onnx.checker.check_model(parsed)
    except onnx.checker.ValidationError as e:
        raise EngineError(f"The engine's network is not valid ONNX: {e}") from e
    graph = parsed.graph
    unknown = sorted({n.op_type for n in graph.node} - set(OPERATORS))
    if unknown or not graph.input or not graph.output:
        raise EngineError(
            f"The torch backend does not know {', '.join(unknown) or 'an empty network'}; use"
            " OpenVINO."
        )
    return graph


def _steps(graph: Any, precision: Any) -> list[_Step]:
    nodes = list(graph.node)
    held = held_in_f32(graph)
    kept = {output.name for output in graph.output}
    last_user = {name: i for i, node in enumerate(nodes) for name in node.input}
    return [
        _Step(
            OPERATORS[node.op_type],
            _attributes(node),
            tuple(node.input),
            tuple(node.output),
            torch.float32 if i in held else precision,
            tuple(n for n in dict.fromkeys(node.input) if last_user[n] == i and n not in kept),
        )
        for i, node in enumerate(nodes)
    ]


def _attributes(node: Any) -> Attributes:
    attributes: Attributes = {a.name: helper.get_attribute_value(a) for a in node.attribute}
    if node.op_type == "Constant":
        value = next(iter(attributes.values()))
        return {
            "array": (
                numpy_helper.to_array(value)
                if isinstance(value, onnx.TensorProto)
                else np.array(value)
            )
        }
    return attributes | {"op_type": node.op_type, "n_outputs": len(node.output)}
