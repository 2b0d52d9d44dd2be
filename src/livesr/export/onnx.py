"""A torch network as ONNX opset 17: the `model.onnx` of an engine.

Owns the translation, the list of operators that an engine may use, and the checks made on each
written file. Writes no manifest, and neither quantises nor compiles.

torch's own exporters do not give this file: the current one writes opset 18 and cannot convert the
attention's mean down to 17, the older one is deprecated. livesr's networks are made of a dozen
operations, so each is translated here, to one node or a short chain, named after its module.
"""

from __future__ import annotations

import copy
import math
import operator
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator
from onnx.reference.op_run import OpRun
from torch import fx, nn
from torch.nn import functional as F  # noqa: N812

from livesr.base.files import replace_file
from livesr.live.inference.engine import FEATURES_OUTPUT
from livesr.training.networks.dfcan import amplitudes
from livesr.training.networks.layers import spatial_mean

OPSET = 17
_IR_VERSION = 8  # the container that belongs to opset 17; a newer one would turn older parsers away

ALLOWED_OPS = frozenset(
    {
        "Add",
        "BatchNormalization",
        "Cast",
        "Concat",
        "Conv",
        "ConvTranspose",
        "DFT",
        "DepthToSpace",
        "Div",
        "Erf",
        "GlobalAveragePool",
        "LeakyRelu",
        "MaxPool",
        "Mul",
        "PRelu",
        "Pow",
        "ReduceL2",
        "ReduceProd",
        "Relu",
        "Shape",
        "Sigmoid",
        "Slice",
        "Softmax",
        "Sqrt",
        "Tanh",
        "Unsqueeze",
    }
)
"""What an engine may use.

TensorRT 8.6 parses all of it at opset 17, once what depends on the frame's size is constant and
DFT a matrix product (`live/inference/fixed_size.py`). Not Gelu, which came with opset 20.
"""

_TRANSLATION_TOLERANCE = 1e-4
_OUTPUTS = ("channels", FEATURES_OUTPUT)


class ExportError(RuntimeError):
    """The network cannot be translated, or the translation does not compute what the network
    does.
    """


def export_onnx(
    network: nn.Module, path: Path, window: int, *, multiple_of: int = 1, fp16_weights: bool = True
) -> float:
    """Write `network` as ONNX and prove the file against it.

    Parameters
    ----------
    network : one of `livesr.training.networks`, or any that is made of the operations translated
        here. It is not changed
    path : the file to write; replaced only when every check has passed
    window : frames in: the input is `frames`, (1, window, y, x) float32 with y and x free; the
        output is `channels`, and `features` (1, n, 1, 1) after it of a network that returns two
    multiple_of : what y and x must be multiples of (the network's `unshuffle`)
    fp16_weights : store the kernels once, as FP16, each followed by a cast: half the size, and the
        graph computes in FP32. Biases stay FP32. `with_plain_weights` undoes it for a parser that
        wants kernels as they are used

    Returns
    -------
    float
        The largest difference to torch in FP32 on a random image, which is what rounding the
        weights costs.

    Raises
    ------
    ExportError
        When an operation has no translation or the written graph differs from torch.
    """
    network = copy.deepcopy(network).cpu().float().eval()
    stored = copy.deepcopy(network).half().float() if fp16_weights else network
    model = _Translation(stored, window, fp16_weights).model(2 * multiple_of)
    onnx.checker.check_model(model, full_check=True)
    if foreign := unsupported_ops(model):
        raise ExportError(
            f"the graph holds {', '.join(sorted(foreign))}, which not every backend has"
        )
    rounding = _compare(model, network, stored, (1, window, 11 * multiple_of, 13 * multiple_of))
    partial = path.with_name(path.name + ".part")
    partial.write_bytes(model.SerializeToString())
    replace_file(partial, path)
    return rounding


class MaxPool(OpRun):  # type: ignore[misc]
    """Of square or oblong kernels: ONNX's own takes the padding of x for that of y."""

    op_domain = ""

    def _run(
        self,
        x: NDArray[Any],
        *,
        kernel_shape: list[int],
        pads: list[int],
        strides: list[int],
        **_others: object,
    ) -> tuple[NDArray[Any]]:
        top, left, bottom, right = pads
        around = ((0, 0), (0, 0), (top, bottom), (left, right))
        padded = np.pad(x, around, constant_values=-np.inf)
        windows = np.lib.stride_tricks.sliding_window_view(padded, kernel_shape, (2, 3))
        return (windows[:, :, :: strides[0], :: strides[1]].max((-2, -1)),)


def reference(model: ModelProto) -> ReferenceEvaluator:
    """Return what computes a model operator by operator, slowly, as the standard says."""
    return ReferenceEvaluator(model, new_ops=[MaxPool])


def unsupported_ops(model: ModelProto) -> set[str]:
    """Return the operators of `model` that are not in `ALLOWED_OPS`."""
    return {node.op_type for node in model.graph.node} - ALLOWED_OPS


def with_plain_weights(model: ModelProto) -> ModelProto:
    """Return a copy whose kernels are initialisers of float32, without casts between them and their
    convolutions.
    """
    plain = ModelProto()
    plain.CopyFrom(model)
    graph = plain.graph
    stored = {tensor.name: tensor for tensor in graph.initializer}
    for node in [node for node in graph.node if node.op_type == "Cast" and node.input[0] in stored]:
        weights = numpy_helper.to_array(stored[node.input[0]]).astype(np.float32)
        graph.initializer.remove(stored[node.input[0]])
        graph.initializer.append(numpy_helper.from_array(weights, node.output[0]))
        graph.node.remove(node)
    return plain


def _compare(
    model: ModelProto, network: nn.Module, stored: nn.Module, shape: tuple[int, ...]
) -> float:
    """Raise ExportError if the graph differs from `stored`.

    Return its largest difference to `network`.
    """
    image = np.random.default_rng(0).normal(0.2, 0.3, shape).astype(np.float32)
    found = reference(model).run(None, {"frames": image})
    exact, rounded = (_outputs(net, torch.from_numpy(image)) for net in (network, stored))
    for ours, torchs in zip(found, rounded, strict=True):
        difference = float(np.abs(ours - torchs).max())
        if not difference <= _TRANSLATION_TOLERANCE * max(1.0, float(np.abs(torchs).max())):
            raise ExportError(
                f"the exported graph differs from torch by {difference:.2g}; expected rounding"
                " errors only"
            )
    return float(np.abs(found[0] - exact[0]).max())


def _outputs(network: nn.Module, frames: torch.Tensor) -> list[NDArray[np.float32]]:
    """Return what a network makes of frames: its channels, and its features if it has some."""
    with torch.inference_mode():
        made = network(frames)
    return [image.numpy() for image in (made if isinstance(made, tuple) else (made,))]


class _Translation:
    """Walks a traced network and collects the nodes and initialisers of its ONNX graph."""

    def __init__(self, network: nn.Module, window: int, fp16_weights: bool) -> None:
        self._network, self._window = network, window
        self._kernel_dtype = np.float16 if fp16_weights else np.float32
        self._nodes: list[NodeProto] = []
        self._tensors: dict[str, TensorProto] = {}
        self._traced = fx.symbolic_trace(network)
        self._names: dict[fx.Node, str] = {}
        self._used: Counter[str] = Counter()
        self._kernels: dict[str, str] = {}

    def model(self, side: int) -> ModelProto:
        """Return the finished model; `side` is one that the network can take."""
        for node in self._traced.graph.nodes:
            self._translate(node)
        made = _outputs(self._network, torch.zeros(1, self._window, side, side))
        axes = ["y", "x"] if made[0].shape[-1] == side else ["sy", "sx"]
        shapes = [[1, made[0].shape[1], *axes], *(list(other.shape) for other in made[1:])]
        graph = helper.make_graph(
            self._nodes,
            "livesr",
            [
                helper.make_tensor_value_info(
                    "frames", TensorProto.FLOAT, [1, self._window, "y", "x"]
                )
            ],
            [
                helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
                for name, shape in zip(_OUTPUTS, shapes, strict=False)
            ],
            list(self._tensors.values()),
        )
        opsets = [helper.make_opsetid("", OPSET)]
        return helper.make_model(
            graph, opset_imports=opsets, ir_version=_IR_VERSION, producer_name="livesr"
        )

    def _translate(self, node: fx.Node) -> None:
        if node.op == "placeholder":
            self._names[node] = "frames"
        elif node.op == "output":
            made = node.args[0] if isinstance(node.args[0], tuple) else node.args
            for result, name in zip(made, _OUTPUTS, strict=False):
                self._rename_output(self._names[result], name)
        elif node.op == "call_method" and node.target == "float":
            self._names[node] = self._names[node.args[0]]  # the graph computes in FP32 throughout
        elif node.op == "call_module":
            module = self._traced.get_submodule(node.target)
            self._names[node] = self._rule(_MODULES, type(module), node)(self, node, module)
        elif node.op == "call_function":
            self._names[node] = self._rule(_FUNCTIONS, node.target, node)(self, node)
        else:
            raise ExportError(f"{node.op} {node.target} of {node.name} has no translation to ONNX")

    @staticmethod
    def _rule(
        rules: dict[Any, Callable[..., str]], key: object, node: fx.Node
    ) -> Callable[..., str]:
        if key not in rules:
            raise ExportError(
                f"{getattr(key, '__name__', key)} of {node.name} has no translation to ONNX"
            )
        return rules[key]

    def _rename_output(self, result: str, name: str) -> None:
        producer = next(node for node in self._nodes if result in node.output)
        producer.output[0] = name

    # -- building blocks ---------------------------------------------------------------------------

    def add(self, op: str, inputs: list[str], name: str, **attributes: Any) -> str:
        """Append a node with one output, both called `name`.

        A module that is applied again (DRCN) gets another name each time.
        """
        self._used[name] += 1
        if self._used[name] > 1:
            name = f"{name}/{self._used[name]}"
        self._nodes.append(helper.make_node(op, inputs, [name], name, **attributes))
        return name

    def tensor(self, name: str, values: NDArray[Any]) -> str:
        """Add an initialiser; the same name twice is the same tensor."""
        self._tensors[name] = numpy_helper.from_array(values, name)
        return name

    def integers(self, *values: int) -> str:
        """Add a list of integers, once for each."""
        name = f"integers_{'_'.join(map(str, values))}"
        return self.tensor(name, np.asarray(values, np.int64))

    def number(self, value: float) -> str:
        """Add a scalar, once for each value."""
        return self.tensor(f"number_{value:.9g}", np.asarray(value, np.float32))

    def operand(self, value: object) -> str:
        """Name of an operand that is another node's result or a Python number."""
        return self._names[value] if isinstance(value, fx.Node) else self.number(float(value))  # type: ignore[arg-type]

    def first(self, node: fx.Node) -> str:
        """Name of the node's first argument."""
        return self._names[node.args[0]]

    def kernel(self, name: str, values: NDArray[np.float32]) -> str:
        """Add a kernel at its stored precision, once, and return its FP32 name."""
        if self._kernel_dtype == np.float32:
            return self.tensor(name, values)
        if name not in self._kernels:
            stored = self.tensor(f"{name}.fp16", values.astype(np.float16))
            self._kernels[name] = self.add("Cast", [stored], name, to=TensorProto.FLOAT)
        return self._kernels[name]


# -- one function for each operation ---------------------------------------------------------------


def _conv(graph: _Translation, node: fx.Node, conv: nn.Conv2d | nn.ConvTranspose2d) -> str:
    inputs = [
        graph.first(node),
        graph.kernel(f"{node.target}.weight", conv.weight.detach().numpy()),
    ]
    if conv.bias is not None:
        inputs.append(graph.tensor(f"{node.target}.bias", conv.bias.detach().numpy()))
    more = {"output_padding": list(conv.output_padding)} if any(conv.output_padding) else {}
    if conv.groups > 1:
        more["group"] = conv.groups
    return graph.add(
        "ConvTranspose" if isinstance(conv, nn.ConvTranspose2d) else "Conv",
        inputs,
        str(node.target),
        kernel_shape=list(conv.kernel_size),
        strides=list(conv.stride),
        pads=[*conv.padding, *conv.padding],
        **more,
    )


def _normalise(graph: _Translation, node: fx.Node, norm: nn.BatchNorm2d) -> str:
    names = ("weight", "bias", "running_mean", "running_var")
    values = [
        graph.tensor(f"{node.target}.{name}", getattr(norm, name).detach().numpy())
        for name in names
    ]
    return graph.add(
        "BatchNormalization", [graph.first(node), *values], str(node.target), epsilon=norm.eps
    )


def _prelu(graph: _Translation, node: fx.Node, module: nn.PReLU) -> str:
    slope = graph.tensor(f"{node.target}.weight", module.weight.detach().numpy().reshape(-1, 1, 1))
    return graph.add("PRelu", [graph.first(node), slope], str(node.target))


def _leaky_relu(graph: _Translation, node: fx.Node, module: nn.LeakyReLU) -> str:
    slope = float(module.negative_slope)
    return graph.add("LeakyRelu", [graph.first(node)], str(node.target), alpha=slope)


def _tanh(graph: _Translation, node: fx.Node, _module: nn.Module) -> str:
    return graph.add("Tanh", [graph.first(node)], str(node.target))


def _gelu(graph: _Translation, node: fx.Node, gelu: nn.GELU) -> str:
    x, name = graph.first(node), str(node.target)
    if gelu.approximate == "tanh":
        cube = graph.add("Mul", [graph.add("Mul", [x, x], f"{name}/square"), x], f"{name}/cube")
        inner = graph.add(
            "Add",
            [x, graph.add("Mul", [cube, graph.number(0.044715)], f"{name}/small")],
            f"{name}/sum",
        )
        scaled = graph.add("Mul", [inner, graph.number(math.sqrt(2 / math.pi))], f"{name}/scaled")
        curve = graph.add("Tanh", [scaled], f"{name}/tanh")
    else:
        # Written as runtimes look for it, with a division: OpenVINO and ONNX Runtime fuse it into
        # the convolution.
        curve = graph.add(
            "Erf",
            [graph.add("Div", [x, graph.number(math.sqrt(2))], f"{name}/scaled")],
            f"{name}/erf",
        )
    gate = graph.add("Add", [curve, graph.number(1.0)], f"{name}/gate")
    gated = graph.add("Mul", [x, gate], f"{name}/gated")
    return graph.add("Mul", [gated, graph.number(0.5)], name)


def _relu(graph: _Translation, node: fx.Node, _module: nn.Module | None = None) -> str:
    return graph.add("Relu", [graph.first(node)], node.name)


def _silu(graph: _Translation, node: fx.Node, _module: nn.Module) -> str:
    x = graph.first(node)
    return graph.add("Mul", [x, graph.add("Sigmoid", [x], f"{node.target}/gate")], str(node.target))


def _shuffle(graph: _Translation, node: fx.Node, factor: int) -> str:
    return graph.add("DepthToSpace", [graph.first(node)], node.name, blocksize=factor, mode="CRD")


def _pixel_shuffle_module(graph: _Translation, node: fx.Node, module: nn.PixelShuffle) -> str:
    return _shuffle(graph, node, module.upscale_factor)


def _pixel_shuffle(graph: _Translation, node: fx.Node) -> str:
    return _shuffle(graph, node, node.args[1])


def _mean(graph: _Translation, node: fx.Node) -> str:
    return graph.add("GlobalAveragePool", [graph.first(node)], node.name)


def _both(value: int | tuple[int, int]) -> list[int]:
    """Return a size along y and along x."""
    return [value, value] if isinstance(value, int) else list(value)


def _max_pool(graph: _Translation, node: fx.Node, pool: nn.MaxPool2d) -> str:
    kernel, strides, pads = (_both(n) for n in (pool.kernel_size, pool.stride, pool.padding))
    sides = {"kernel_shape": kernel, "strides": strides, "pads": [*pads, *pads]}
    return graph.add("MaxPool", [graph.first(node)], node.name, **sides)


def _concatenate(graph: _Translation, node: fx.Node) -> str:
    parts, axis = node.args
    return graph.add("Concat", [graph.operand(part) for part in parts], node.name, axis=axis)


def _sigmoid(graph: _Translation, node: fx.Node) -> str:
    return graph.add("Sigmoid", [graph.first(node)], node.name)


def _softmax(graph: _Translation, node: fx.Node) -> str:
    return graph.add("Softmax", [graph.first(node)], node.name, axis=node.args[1])


def _amplitudes(graph: _Translation, node: fx.Node) -> str:
    """|DFT| along y and x, divided by sqrt(y x), the zero frequency in the middle."""
    x, name = graph.first(node), node.name
    value = graph.add("Unsqueeze", [x, graph.integers(-1)], f"{name}/real")
    for axis in (3, 2):
        value = graph.add("DFT", [value], f"{name}/dft_{axis}", axis=axis)
    value = graph.add("ReduceL2", [value], f"{name}/amplitude", axes=[-1], keepdims=0)
    sides = graph.add("Shape", [x], f"{name}/sides", start=2, end=4)
    pixels = graph.add("ReduceProd", [sides], f"{name}/pixels", keepdims=0)
    floating = graph.add("Cast", [pixels], f"{name}/floating", to=TensorProto.FLOAT)
    root = graph.add("Sqrt", [floating], f"{name}/root")
    value = graph.add("Div", [value, root], f"{name}/scaled")
    for axis in (2, 3):
        value = _halves_swapped(graph, value, axis, f"{name}/shift_{axis}")
    return value


def _halves_swapped(graph: _Translation, x: str, axis: int, name: str) -> str:
    """Roll by half the size, rounded down, as fftshift does."""
    size = graph.add("Shape", [x], f"{name}/size", start=axis, end=axis + 1)
    more = graph.add("Add", [size, graph.integers(1)], f"{name}/more")
    middle = graph.add("Div", [more, graph.integers(2)], f"{name}/middle")
    along, start = graph.integers(axis), graph.integers(0)
    negative = graph.add("Slice", [x, middle, size, along], f"{name}/negative")
    positive = graph.add("Slice", [x, start, middle, along], f"{name}/positive")
    return graph.add("Concat", [negative, positive], name, axis=axis)


def _power(graph: _Translation, node: fx.Node) -> str:
    return graph.add("Pow", [graph.operand(value) for value in node.args], node.name)


def _multiply(graph: _Translation, node: fx.Node) -> str:
    return graph.add("Mul", [graph.operand(value) for value in node.args], node.name)


def _sum(graph: _Translation, node: fx.Node) -> str:
    return graph.add("Add", [graph.operand(value) for value in node.args], node.name)


def _channels(graph: _Translation, node: fx.Node) -> str:
    """`x[:, a:b]`, the one kind of indexing that the networks use."""
    batch, span = node.args[1]
    if batch != slice(None) or span.step not in {None, 1}:
        raise ExportError(f"{node.name} takes {node.args[1]}; only x[:, a:b] has a translation")
    bounds = {"starts": span.start or 0, "ends": span.stop, "axes": 1}
    inputs = [
        graph.tensor(f"{node.name}.{name}", np.asarray([value], np.int64))
        for name, value in bounds.items()
    ]
    return graph.add("Slice", [graph.first(node), *inputs], node.name)


_MODULES: dict[Any, Callable[..., str]] = {
    nn.BatchNorm2d: _normalise,
    nn.Conv2d: _conv,
    nn.ConvTranspose2d: _conv,
    nn.GELU: _gelu,
    nn.LeakyReLU: _leaky_relu,
    nn.MaxPool2d: _max_pool,
    nn.PReLU: _prelu,
    nn.ReLU: _relu,
    nn.SiLU: _silu,
    nn.Tanh: _tanh,
    nn.PixelShuffle: _pixel_shuffle_module,
}
_FUNCTIONS: dict[Any, Callable[..., str]] = {
    F.pixel_shuffle: _pixel_shuffle,
    F.relu: _relu,
    torch.cat: _concatenate,
    torch.sigmoid: _sigmoid,
    torch.softmax: _softmax,
    spatial_mean: _mean,
    amplitudes: _amplitudes,
    operator.mul: _multiply,
    operator.add: _sum,
    operator.pow: _power,
    operator.getitem: _channels,
}
