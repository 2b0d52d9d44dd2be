"""The graph of a foreign model between livesr's x and livesr's y.

The model's normalisation goes in front, its inverse behind.

Owns the nodes. x = (X - b) / s differs from camera counts by a shift and a factor, which
normalisation by the image itself takes out again: the network sees what it would see of the counts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from graphlib import CycleError, TopologicalSorter
from typing import Any, NamedTuple

import numpy as np
import onnx
from onnx import ModelProto, NodeProto, TensorProto, compose, helper, numpy_helper

from livesr.base.errors import EngineError
from livesr.live.normalise import BRIGHT_LEVEL

_PREFIX = "model/"


class Step(NamedTuple):
    """One step of a description: its id and its numbers."""

    id: str
    kwargs: Mapping[str, Any]


def adapted(
    network: bytes, before: Sequence[Step], after: Sequence[Step], channels: int = 1
) -> bytes:
    """Return `network` with input `frames` and output `channels`, both in units of x.

    Parameters
    ----------
    network : ONNX, one float32 image (1, 1, y, x) in and one out
    before : `scale_range` (x is brought to it by a factor), `zero_mean_unit_variance`,
        `scale_linear` or `clip`, in their order
    after : `clip`
    channels : that it is described as giving

    Raises
    ------
    EngineError
        If the graph has other inputs or outputs than described, sides that are fixed, or is not
        valid.
    """
    model = onnx.load_model_from_string(network)
    check_ports(model)
    _check_channels(model, channels)
    model = compose.add_prefix(model, _PREFIX)
    graph = model.graph
    (given,), (answer,) = _inputs(model), graph.output
    nodes = _Nodes()
    nodes.value = "frames"
    undo = [nodes.step(step) for step in before]
    first = [*nodes.made, helper.make_node("Identity", [nodes.value], [given.name])]
    nodes.made, nodes.value = [], answer.name
    for step in after:
        nodes.step(step)
    for inverse in reversed(undo):
        inverse()
    last = [*nodes.made, helper.make_node("Identity", [nodes.value], ["channels"])]
    inner = _in_order(
        list(graph.node), {given.name, "", *(tensor.name for tensor in graph.initializer)}
    )
    graph.initializer.extend(nodes.numbers.values())
    return _with_ends(model, [*first, *inner, *last], given, (1, channels))


def _with_ends(
    model: ModelProto, nodes: Sequence[NodeProto], given: Any, planes: tuple[int, int]
) -> bytes:
    """Return a model with these nodes between `frames` and `channels`, if it is valid."""
    graph, (seen, channels) = model.graph, planes
    del graph.node[:]
    graph.node.extend(nodes)
    graph.input.remove(given)
    graph.input.append(
        helper.make_tensor_value_info("frames", TensorProto.FLOAT, [1, seen, "y", "x"])
    )
    del graph.output[:]
    graph.output.append(
        helper.make_tensor_value_info("channels", TensorProto.FLOAT, [1, channels, "sy", "sx"])
    )
    try:
        onnx.checker.check_model(model)
    except onnx.checker.ValidationError as e:
        raise EngineError(
            f"The network is not valid ONNX: {str(e).strip().splitlines()[0]}. Export it anew."
        ) from e
    return bytes(model.SerializeToString())


def _in_order(nodes: list[NodeProto], known: set[str]) -> list[NodeProto]:
    """Return the nodes so that each comes behind those whose values it takes, as ONNX demands and
    not every tool heeds.

    Raises
    ------
    EngineError
        If a node takes what nothing makes, or what is made of its own result.
    """
    made = {name: i for i, node in enumerate(nodes) for name in node.output if name}
    for node in nodes:
        for name in node.input:
            if name not in known and name not in made:
                raise EngineError(
                    f"The network is not valid ONNX: {node.op_type} takes"
                    f" {name.removeprefix(_PREFIX)!r}, which nothing makes. Export it anew."
                )
    takes = {i: {made[n] for n in node.input if n not in known} for i, node in enumerate(nodes)}
    if all(before < i for i, befores in takes.items() for before in befores):
        return nodes
    try:
        return [nodes[i] for i in TopologicalSorter(takes).static_order()]
    except CycleError as e:
        raise EngineError(
            "The network is not valid ONNX: a value depends on itself. Export it anew."
        ) from e


class _Nodes:
    """Nodes in a chain; `value` is the name of its end."""

    def __init__(self) -> None:
        self.made: list[NodeProto] = []
        self.numbers: dict[str, TensorProto] = {}
        self.value = ""
        self._n = 0

    def step(self, step: Step) -> Any:
        """Append a step and return what appends its inverse."""
        numbers = step.kwargs
        if step.id == "clip":
            self._add("Clip", self._number(numbers.get("min")), self._number(numbers.get("max")))
            return lambda: None
        if step.id == "zero_mean_unit_variance":
            return self._standardise(float(numbers.get("eps", 1e-6)))
        gain, offset = float(numbers.get("gain", 1.0)), float(numbers.get("offset", 0.0))
        if step.id == "scale_range":
            gain, offset = 1 / BRIGHT_LEVEL, 0.0
        self._add("Mul", self._number(gain))
        self._add("Add", self._number(offset))

        def undo() -> None:
            self._add("Sub", self._number(offset))
            self._add("Div", self._number(gain))

        return undo

    def _standardise(self, epsilon: float) -> Any:
        x = self.value
        mean = self._add("GlobalAveragePool")
        self.value = x
        centred = self._add("Sub", mean)
        self._add("Mul", centred)
        self._add("GlobalAveragePool")
        self._add("Sqrt")
        deviation = self._add("Add", self._number(epsilon))
        self.value = centred
        self._add("Div", deviation)

        def undo() -> None:
            self._add("Mul", deviation)
            self._add("Add", mean)

        return undo

    def _add(self, op: str, *others: str) -> str:
        self._n += 1
        name = f"livesr/{op}_{self._n}"
        self.made.append(helper.make_node(op, [self.value, *others], [name], name))
        self.value = name
        return name

    def _number(self, value: float | None) -> str:
        if value is None:
            return ""
        name = f"livesr/number_{float(value):.9g}"
        self.numbers[name] = numpy_helper.from_array(np.asarray(value, np.float32), name)
        return name


def _inputs(model: ModelProto) -> list[Any]:
    """Return the inputs that are no initialisers: old files list both."""
    stored = {tensor.name for tensor in model.graph.initializer}
    return [value for value in model.graph.input if value.name not in stored]


def renamed(network: bytes, planes: int, channels: int) -> bytes:
    """Return `network` with input `frames` and output `channels`, its nodes in order.

    Raises
    ------
    EngineError
        As `adapted`.
    """
    model = compose.add_prefix(onnx.load_model_from_string(network), _PREFIX)
    graph = model.graph
    given, answer = ports(model)
    first = helper.make_node("Identity", ["frames"], [given.name])
    last = helper.make_node("Identity", [answer.name], ["channels"])
    inner = _in_order(
        list(graph.node), {given.name, "", *(tensor.name for tensor in graph.initializer)}
    )
    return _with_ends(model, [first, *inner, last], given, (planes, channels))


def ports(model: ModelProto) -> tuple[Any, Any]:
    """Return the one input and the one output of a network that `check_ports` has passed."""
    (given,) = _inputs(model)
    (answer,) = model.graph.output
    return given, answer


def check_ports(model: ModelProto) -> None:
    """Refuse a network that does not take one image of free sides and give one.

    Raises
    ------
    EngineError
        With what it takes or gives instead.
    """
    inputs, outputs = _inputs(model), list(model.graph.output)
    if len(inputs) != 1 or len(outputs) != 1:
        raise EngineError(
            f"The network has {len(inputs)} inputs and {len(outputs)} outputs; livesr takes one of"
            " each."
        )
    for port in (*inputs, *outputs):
        if port.type.tensor_type.elem_type != TensorProto.FLOAT:
            raise EngineError("The network does not take and give float32. Export it so.")
    for what, port in (("takes", inputs[0]), ("gives", outputs[0])):
        rank = len(port.type.tensor_type.shape.dim)
        if rank != 4:
            raise EngineError(
                f"The network {what} {rank} axes; livesr gives and takes batch, channel, y, x."
            )
    sides = inputs[0].type.tensor_type.shape.dim[2:]
    if any(side.HasField("dim_value") for side in sides):
        fixed = " x ".join(str(side.dim_value) for side in sides)
        raise EngineError(
            f"The network takes images of {fixed} only. Export it with free sides (dynamic axes)."
        )


def _check_channels(model: ModelProto, channels: int) -> None:
    given, answer = ports(model)
    for what, port, said in (("takes", given, 1), ("gives", answer, channels)):
        if (found := port.type.tensor_type.shape.dim[1].dim_value or said) != said:
            raise EngineError(
                f"The network {what} {found} channels, and is described as one that {what} {said}."
                " Correct its description."
            )
