"""A network for frames of one size.

What follows from sizes alone becomes constant, and a discrete Fourier transform a product with a
real matrix, which every runtime has.

Owns the rewriting of an ONNX graph, and which of its nodes need FP32. Imports onnx, so only what
opens or compiles a network imports it.

References
----------
ONNX, operator DFT (opset 17 and 20).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from livesr.base.errors import BackendError

MADE_CONSTANT = frozenset({"Constant", "ReduceProd", "Shape"})
"""Operators that are gone once the size is known, where what they take is constant."""

_Array: TypeAlias = NDArray[Any]
# None of them makes more of its inputs than they hold, broadcasting aside.
_COMPUTED = MADE_CONSTANT | {
    "Add",
    "Cast",
    "Concat",
    "Div",
    "Floor",
    "Gather",
    "Mul",
    "Neg",
    "Slice",
    "Sqrt",
    "Squeeze",
    "Sub",
    "Unsqueeze",
}
_MATRIX = "livesr/dft_"  # how names of transforms' matrices begin
_QUANTISERS = ("QuantizeLinear", "DequantizeLinear")
_AXIS_IS_AN_INPUT_SINCE = 20  # of DFT


def fix_size(network: ModelProto, shape: Sequence[int]) -> None:
    """Rewrite `network` in place for an input of `shape`, (1, window, y, x).

    Raises
    ------
    BackendError
        If it has a Fourier transform whose length does not follow from the size.
    """
    graph = network.graph
    for dim, n in zip(graph.input[0].type.tensor_type.shape.dim, shape, strict=True):
        dim.dim_value = n
    if not any(node.op_type in MADE_CONSTANT | {"DFT"} for node in graph.node):
        return  # the parser infers all other sizes from that of the input
    opset = next(o.version for o in network.opset_import if o.domain in ("", "ai.onnx"))
    while _fold(network, opset):
        pass
    if any(node.op_type == "DFT" for node in graph.node):
        _Transforms(network, opset).to_products()


def drawing_convolutions(graph: Any) -> list[int]:
    """Return the places of the convolutions from which the first output of a graph follows.

    The others only tell something of it, such as how much of its light is unknown.
    """
    wanted, found = {graph.output[0].name}, []
    for i, node in reversed(list(enumerate(graph.node))):
        if not wanted.isdisjoint(node.output):
            wanted.update(node.input)
            if node.op_type == "Conv":
                found.append(i)
    return found[::-1]


def held_in_f32(graph: Any) -> set[int]:
    """Return which nodes of a graph, by their places, need FP32 whatever the network computes in.

    From a Fourier transform to the next convolution: its zero frequency is the sum of an image.
    Before the first convolution: a frame is normalised there, by squares of its dim pixels. The
    last convolution of what is drawn, and what follows: the intensities that are shown. Behind a
    softmax, those without a bias only weigh what it shared out, as the haze among structures.
    """
    convolutions, nodes = drawing_convolutions(graph), graph.node
    shared = next((i for i, node in enumerate(nodes) if node.op_type == "Softmax"), len(nodes))
    drawing = [i for i in convolutions if i < shared or len(nodes[i].input) > 2] or convolutions
    first, last = (drawing[0], drawing[-1]) if drawing else (0, 0)
    held: set[int] = set()
    spectra: set[str] = set()
    for i, node in enumerate(graph.node):
        transform = node.op_type == "DFT" or any(n.startswith(_MATRIX) for n in node.input)
        spectral = transform or not spectra.isdisjoint(node.input)
        if spectral and node.op_type not in {"Conv", *_QUANTISERS}:
            spectra.update(node.output)
            held.add(i)
        elif i >= last or (i < first and node.op_type not in _QUANTISERS):
            held.add(i)
    return held


def _fold(network: ModelProto, opset: int) -> bool:
    """Turn nodes into constants where what they take is known; return whether there was one."""
    graph, shapes = network.graph, _shapes(network)
    known = {tensor.name: tensor for tensor in graph.initializer}
    left = []
    for node in graph.node:
        if node.op_type == "Shape" and node.input[0] in shapes:
            attributes = _attributes(node)
            span = slice(attributes.get("start", 0), attributes.get("end"))
            values = [np.asarray(shapes[node.input[0]][span], np.int64)]
        elif node.op_type in _COMPUTED and all(n in known for n in node.input if n):
            values = _computed(node, known, opset)
        else:
            left.append(node)
            continue
        for name, value in zip(node.output, values, strict=True):
            known[name] = numpy_helper.from_array(np.asarray(value), name)
    if found := len(left) < len(graph.node):
        used = {name for node in left for name in node.input} | {o.name for o in graph.output}
        del graph.node[:], graph.initializer[:], graph.value_info[:]
        graph.node.extend(left)
        graph.initializer.extend(tensor for name, tensor in known.items() if name in used)
    return found


def _shapes(network: ModelProto) -> dict[str, tuple[int, ...]]:
    """Return the shapes that onnx infers, those that are known."""
    graph = onnx.shape_inference.infer_shapes(network, data_prop=True).graph
    shapes = {tensor.name: tuple(tensor.dims) for tensor in graph.initializer}
    for value in (*graph.value_info, *graph.input):
        dims = value.type.tensor_type.shape.dim
        if value.type.tensor_type.HasField("shape") and all(d.HasField("dim_value") for d in dims):
            shapes[value.name] = tuple(d.dim_value for d in dims)
    return shapes


def _computed(node: NodeProto, known: dict[str, Any], opset: int) -> list[_Array]:
    graph = helper.make_graph(
        [node],
        "constants",
        [],
        [onnx.ValueInfoProto(name=name) for name in node.output],
        [known[name] for name in dict.fromkeys(node.input) if name],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)])
    values: list[_Array] = ReferenceEvaluator(model).run(None, {})
    return values


class _Transforms:
    """Turns every DFT of a graph into a matrix product, in place."""

    def __init__(self, network: ModelProto, opset: int) -> None:
        self._graph, self._opset, self._shapes = network.graph, opset, _shapes(network)
        self._arrays = {t.name: numpy_helper.to_array(t) for t in network.graph.initializer}
        self._made: dict[str, Any] = {}

    def to_products(self) -> None:
        """Rewrite the nodes."""
        nodes = []
        for node in self._graph.node:
            nodes += self._product(node) if node.op_type == "DFT" else [node]
        del self._graph.node[:], self._graph.value_info[:]
        self._graph.node.extend(nodes)
        self._graph.initializer.extend(self._made.values())

    def _product(self, node: NodeProto) -> list[NodeProto]:
        """Return Reshape, MatMul, Reshape in the place of one transform of (..., n, ..., 1 or 2).

        Its axis is brought beside the last one, which holds real and imaginary part.
        """
        shape, axis, inverse, onesided = self._described(node)
        name, last = node.name or node.output[0], len(shape) - 2
        order = list(range(len(shape)))
        order[axis], order[last] = last, axis
        moved = [shape[i] for i in order]
        matrix = self._matrix(moved[-2], moved[-1], inverse, onesided)
        frequencies = self._made[matrix].dims[1] // 2
        steps: list[tuple[str, list[str], dict[str, Any]]] = [
            ("Reshape", [self._sizes([*moved[:-2], moved[-2] * moved[-1]])], {}),
            ("MatMul", [matrix], {}),
            ("Reshape", [self._sizes([*moved[:-2], frequencies, 2])], {}),
        ]
        if axis != last:
            steps = [("Transpose", [], {"perm": order}), *steps, ("Transpose", [], {"perm": order})]
        nodes, value = [], node.input[0]
        for i, (op, others, attributes) in enumerate(steps):
            output = node.output[0] if i == len(steps) - 1 else f"{name}/{op}_{i}"
            nodes.append(helper.make_node(op, [value, *others], [output], output, **attributes))
            value = output
        return nodes

    def _described(self, node: NodeProto) -> tuple[tuple[int, ...], int, bool, bool]:
        """Return shape, axis, whether it is the inverse, and whether it leaves half out."""
        attributes, (given, length, axis) = _attributes(node), (*node.input, "", "")[:3]
        shape = self._shapes.get(given)
        by_input = self._opset >= _AXIS_IS_AN_INPUT_SINCE
        along = self._number(axis, -2) if by_input else attributes.get("axis", 1)
        if shape is None or along is None or shape[-1] not in (1, 2):
            raise BackendError(
                f"The sizes of the Fourier transform {node.name!r} do not follow from those of a"
                " frame; use OpenVINO."
            )
        along %= len(shape)
        if self._number(length, shape[along]) != shape[along]:
            raise BackendError(
                f"The Fourier transform {node.name!r} pads or cuts its {shape[along]} values, which"
                " livesr does not compile; use OpenVINO."
            )
        return shape, along, bool(attributes.get("inverse")), bool(attributes.get("onesided"))

    def _number(self, name: str, default: int) -> int | None:
        """Return the constant `name`, `default` where none is given, None if it is computed."""
        if not name:
            return default
        return int(self._arrays[name].reshape(())) if name in self._arrays else None

    def _matrix(self, n: int, parts: int, inverse: bool, onesided: bool) -> str:
        """Name the (n parts, 2 frequencies) matrix, made once."""
        name = f"{_MATRIX}{n}_{parts}{'_inverse' * inverse}{'_onesided' * onesided}"
        if name not in self._made:
            values = transform_matrix(n, parts, inverse=inverse, onesided=onesided)
            self._made[name] = numpy_helper.from_array(values, name)
        return name

    def _sizes(self, sizes: list[int]) -> str:
        name = f"livesr/sizes_{'_'.join(map(str, sizes))}"
        self._made.setdefault(name, numpy_helper.from_array(np.asarray(sizes, np.int64), name))
        return name


def transform_matrix(
    n: int, parts: int = 2, *, inverse: bool = False, onesided: bool = False
) -> NDArray[np.float32]:
    """Return the discrete Fourier transform of `n` values as a real matrix to multiply with.

    Parameters
    ----------
    parts : 1 for real values, 2 for (real, imaginary) beside each other
    inverse : with the other sign, divided by `n`
    onesided : without the frequencies that follow from the others if the values are real

    Returns
    -------
    float32 (n parts, 2 frequencies), rounded once from float64
    """
    frequencies = np.arange(n // 2 + 1 if onesided else n)
    angle = 2 * np.pi / n * (np.arange(n)[:, None] * frequencies % n)
    cos, sin = np.cos(angle), np.sin(angle) * (-1 if inverse else 1)
    of_real, of_imaginary = np.stack([cos, -sin], -1), np.stack([sin, cos], -1)
    matrix = np.stack([of_real, of_imaginary][:parts], 1) / (n if inverse else 1)
    return matrix.reshape(n * parts, -1).astype(np.float32)


def _attributes(node: NodeProto) -> dict[str, Any]:
    return {a.name: helper.get_attribute_value(a) for a in node.attribute}
