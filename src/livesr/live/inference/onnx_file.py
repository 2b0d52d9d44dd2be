"""What can be said of an ONNX file before any runtime parses it.

Owns the walk through the file and the rules for a stranger's network: weights in no other file,
operators of a list, no branches and loops, no constants larger than the file. Needs no ONNX
library: it walks the protocol buffer. A runtime looks other files up from the folder in which the
process happens to be, and nobody has verified them; a hundred thousand nodes keep a compiler busy;
operators of other domains are programs of their own.

References
----------
onnx.proto3 (ONNX 1.16): the numbers below are its field numbers. Protocol buffers' encoding.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5

# message -> field -> message that it holds, for all ways from a model to a tensor
_WAYS = {
    "model": {7: "graph", 20: "training", 25: "function"},
    "training": {1: "graph", 2: "graph"},
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "function": {7: "node", 11: "attribute"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 10: "tensor", 6: "graph", 11: "graph", 22: "sparse", 23: "sparse"},
    "sparse": {1: "tensor", 2: "tensor"},
    "tensor": {},
}
_OP_TYPE, _DOMAIN = 4, 7  # of a node
_DIMS, _DATA_TYPE, _DATA, _EXTERNAL_DATA, _DATA_LOCATION = (
    1,
    2,
    (4, 5, 7, 9, 10, 11),
    13,
    14,
)  # of a tensor
_STRINGS = 8
_DEEPEST = 64
_MAX_FIELDS = 2_000_000
_VALUES_PER_BYTE = 4  # the smallest numbers that ONNX has take 2 bits

MAX_NODES = 20_000
"""Nodes of a network; the largest that were published for images have a few thousand."""

OPERATORS = frozenset(
    [
        "Abs",
        "Add",
        "And",
        "ArgMax",
        "ArgMin",
        "AveragePool",
        "BatchNormalization",
        "Cast",
        "CastLike",
        "Ceil",
        "Clip",
        "Concat",
        "Constant",
        "ConstantOfShape",
        "Conv",
        "ConvTranspose",
        "Cos",
        "DFT",
        "DepthToSpace",
        "DequantizeLinear",
        "Div",
        "Dropout",
        "Einsum",
        "Elu",
        "Equal",
        "Erf",
        "Exp",
        "Expand",
        "Flatten",
        "Floor",
        "Gather",
        "GatherElements",
        "Gelu",
        "Gemm",
        "GlobalAveragePool",
        "GlobalMaxPool",
        "Greater",
        "GreaterOrEqual",
        "GroupNormalization",
        "HardSigmoid",
        "HardSwish",
        "Identity",
        "InstanceNormalization",
        "LRN",
        "LayerNormalization",
        "LeakyRelu",
        "Less",
        "LessOrEqual",
        "Log",
        "LogSoftmax",
        "LpNormalization",
        "MatMul",
        "Max",
        "MaxPool",
        "Mean",
        "MeanVarianceNormalization",
        "Min",
        "Mish",
        "Mod",
        "Mul",
        "Neg",
        "Not",
        "Or",
        "PRelu",
        "Pad",
        "Pow",
        "QuantizeLinear",
        "Range",
        "Reciprocal",
        "ReduceL1",
        "ReduceL2",
        "ReduceMax",
        "ReduceMean",
        "ReduceMin",
        "ReduceProd",
        "ReduceSum",
        "ReduceSumSquare",
        "Relu",
        "Reshape",
        "Resize",
        "Round",
        "Selu",
        "Shape",
        "Sigmoid",
        "Sign",
        "Sin",
        "Size",
        "Slice",
        "Softmax",
        "Softplus",
        "Softsign",
        "SpaceToDepth",
        "Split",
        "Sqrt",
        "Squeeze",
        "Sub",
        "Sum",
        "Swish",
        "Tanh",
        "ThresholdedRelu",
        "Tile",
        "Transpose",
        "Unsqueeze",
        "Upsample",
        "Where",
        "Xor",
    ]
)
"""ONNX operators that an engine may have: those of networks for images.

None branches, loops, or reads text.
"""

_CONTROL = frozenset(("If", "Loop", "Scan", "SequenceMap"))


@dataclass(slots=True)
class OnnxFacts:
    """What a file holds.

    Attributes
    ----------
    nodes : in all of its graphs
    operators : "Name", or "domain.Name" outside of ONNX
    other_files : whether values are kept in other files
    functions : whether operators are defined in the file
    sparse, strings : whether there are such tensors
    hollow : values that a tensor announces, where the file does not hold as many; 0 if none does
    """

    nodes: int = 0
    operators: set[str] = field(default_factory=set)
    other_files: bool = False
    functions: bool = False
    sparse: bool = False
    strings: bool = False
    hollow: int = 0


def examine(model: bytes) -> OnnxFacts:
    """Walk through an ONNX file.

    Raises
    ------
    ValueError
        If `model` is no protocol buffer, or nested deeper or in more pieces than any network.
    """
    facts = OnnxFacts()
    _Walk(facts).message(memoryview(model), "model", 0)
    return facts


def why_refused(model: bytes) -> str | None:
    """Return in a sentence why no runtime shall parse a file, None if one may.

    Raises
    ------
    ValueError
        As `examine`.
    """
    facts = examine(model)
    unknown = sorted(facts.operators - OPERATORS)
    if facts.other_files:
        return "It keeps weights in other files, which nobody has verified: export it as one file."
    if facts.nodes > MAX_NODES:
        return (
            f"It has {facts.nodes} nodes; the largest networks for images have some thousand, and"
            f" {MAX_NODES} are taken."
        )
    if control := sorted(_CONTROL & facts.operators):
        return (
            f"It branches or loops ({', '.join(control)}): export it for fixed behaviour, or"
            " simplify it with onnxsim."
        )
    if unknown or facts.functions:
        named = ", ".join(name[:60] for name in unknown[:5]) or "functions of its own"
        return (
            f"It uses {named}, which livesr does not run: it takes ONNX's own operators for images."
            " Export it without."
        )
    if facts.sparse or facts.strings:
        return (
            f"It holds {'sparse tensors' if facts.sparse else 'text'}, which no network for images"
            " needs."
        )
    if facts.hollow:
        return (
            f"It announces a constant of {facts.hollow:.3g} values that it does not hold: it is"
            " damaged, or made to harm."
        )
    return None


class _Walk:
    """Goes through messages; counts fields over all of them."""

    def __init__(self, facts: OnnxFacts) -> None:
        self._facts, self._fields = facts, 0

    def message(self, message: memoryview, kind: str, depth: int) -> None:
        if depth > _DEEPEST:
            raise ValueError("nested too deeply")
        if kind == "tensor":
            self._tensor(message)
            return
        facts = self._facts
        facts.nodes += kind == "node"
        facts.functions |= kind == "function"
        facts.sparse |= kind == "sparse"
        names, domains = [], [""]
        for number, value in self._counted(message):
            if not isinstance(value, memoryview):
                continue
            if kind == "node" and number == _OP_TYPE:
                names.append(bytes(value).decode("utf-8", "replace"))
            elif kind == "node" and number == _DOMAIN:
                domains.append(bytes(value).decode("utf-8", "replace"))
            elif inner := _WAYS[kind].get(number):
                self.message(value, inner, depth + 1)
        own = domains[-1] in ("", "ai.onnx")  # of a field that comes twice the last one counts
        facts.operators.update(name if own else f"{domains[-1]}.{name}" for name in names)

    def _tensor(self, message: memoryview) -> None:
        facts, dims, held = self._facts, [], 0
        for number, value in self._counted(message):
            if number == _EXTERNAL_DATA or (number == _DATA_LOCATION and value != 0):
                facts.other_files = True
            elif number == _DIMS:
                dims += list(_varints(value)) if isinstance(value, memoryview) else [value]
            elif number == _DATA_TYPE:
                facts.strings |= value == _STRINGS
            elif number in _DATA:
                held += len(value) if isinstance(value, memoryview) else 8
        values = math.prod(dims)
        if len(dims) > _DEEPEST or values > _VALUES_PER_BYTE * held:
            facts.hollow = max(facts.hollow, min(values, 1 << 1000))

    def _counted(self, message: memoryview) -> Iterator[tuple[int, int | memoryview]]:
        for one in _fields(message):
            self._fields += 1
            if self._fields > _MAX_FIELDS:
                raise ValueError("in more pieces than any network")
            yield one


def _varints(packed: memoryview) -> Iterator[int]:
    at = 0
    while at < len(packed):
        value, at = _varint(packed, at)
        yield value


def _fields(message: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    at = 0
    while at < len(message):
        key, at = _varint(message, at)
        number, wire = key >> 3, key & 7
        if wire == _VARINT:
            value, at = _varint(message, at)
            yield number, value
            continue
        if wire == _BYTES:
            length, at = _varint(message, at)
        elif wire in {_FIXED32, _FIXED64}:
            length = 4 if wire == _FIXED32 else 8
        else:
            raise ValueError(f"unknown wire type {wire}")
        if at + length > len(message):
            raise ValueError("cut short")
        yield number, message[at : at + length]
        at += length


def _varint(message: memoryview, at: int) -> tuple[int, int]:
    value = 0
    for i in range(10):
        if at + i >= len(message):
            raise ValueError("cut short")
        byte = message[at + i]
        value |= (byte & 0x7F) << (7 * i)
        if not byte & 0x80:
            return value, at + i + 1
    raise ValueError("a number longer than 64 bits")
