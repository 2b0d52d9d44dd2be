from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from backend_contract import session_on
from livesr.base.errors import EngineError
from livesr.live.inference.engine import (
    MODEL_NAME,
    OnnxWeights,
    Weights,
    engine_folders,
    load_engine,
    sha256_of,
    write_manifest,
)
from livesr.live.inference.identity import identity_engine
from livesr.live.inference.onnx_file import MAX_NODES, OPERATORS, examine, why_refused

onnx = pytest.importorskip("onnx")
onnx_graph = pytest.importorskip("livesr.live.inference.onnx_graph")
helper, numpy_helper = onnx.helper, onnx.numpy_helper


def external_tensor() -> Any:
    tensor = onnx.TensorProto(name="w", dims=[1], data_type=onnx.TensorProto.FLOAT, data_location=1)
    tensor.external_data.add(key="location", value="../elsewhere.bin")
    return tensor


def graph(nodes: list[Any] = (), initialisers: list[Any] = ()) -> Any:
    return helper.make_graph(list(nodes), "g", [], [], list(initialisers))


def in_constant() -> Any:
    return graph([helper.make_node("Constant", [], ["c"], value=external_tensor())])


def in_branch() -> Any:
    inner = graph(initialisers=[external_tensor()])
    return graph([helper.make_node("If", ["c"], ["y"], then_branch=inner, else_branch=graph())])


def in_sparse() -> Any:
    outer = graph()
    outer.sparse_initializer.add().values.CopyFrom(external_tensor())
    return outer


PLACES: list[Callable[[], Any]] = [
    lambda: graph(initialisers=[external_tensor()]),
    in_constant,
    in_branch,
    in_sparse,
]


@pytest.mark.parametrize("place", PLACES)
def test_found_wherever_a_tensor_can_be(place: Callable[[], Any]) -> None:
    assert examine(helper.make_model(place()).SerializeToString()).other_files


def test_found_in_a_function() -> None:
    constant = helper.make_node("Constant", [], ["c"], value=external_tensor())
    function = helper.make_function("d", "f", [], ["c"], [constant], [helper.make_opsetid("", 17)])
    model = helper.make_model(graph(), functions=[function])
    assert examine(model.SerializeToString()).other_files


def test_a_name_alone_is_enough() -> None:
    tensor = onnx.TensorProto(name="w", dims=[1], data_type=1)
    tensor.external_data.add(key="location", value="x")  # a runtime may go by either field
    assert examine(helper.make_model(graph(initialisers=[tensor])).SerializeToString()).other_files


def test_shipped_engines_are_whole() -> None:
    folders = engine_folders()
    assert folders
    for folder in folders.values():
        assert not examine(load_engine(folder).onnx_path.read_bytes()).other_files


def field(number: int, content: bytes) -> bytes:
    length, size = len(content), b""
    while length > 127:
        length, size = length >> 7, size + bytes([length & 127 | 128])
    return bytes([number << 3 | 2]) + size + bytes([length]) + content


def test_endless_nesting() -> None:
    inner = b""
    for _ in range(400):  # a graph in an attribute in a node in a graph ...
        inner = field(1, field(5, field(6, inner)))
    with pytest.raises(ValueError, match="nested"):
        examine(field(7, inner))


@given(st.binary(max_size=200))
def test_any_bytes_are_answered_or_refused(data: bytes) -> None:
    try:
        examine(data)
    except ValueError:
        return


def sentence(*nodes: Any, initialisers: Any = (), **more: Any) -> str | None:
    return why_refused(
        helper.make_model(graph(list(nodes), list(initialisers)), **more).SerializeToString()
    )


def branching() -> Any:
    inner = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "inner", [], [])
    return helper.make_node("If", ["c"], ["y"], then_branch=inner, else_branch=inner)


@pytest.mark.parametrize(
    ("node", "said"),
    [
        (branching(), r"branches or loops \(If\)"),
        (helper.make_node("Loop", ["n", "c"], ["y"], body=graph()), "Loop"),
        (helper.make_node("Scan", ["x"], ["y"], body=graph(), num_scan_inputs=1), "Scan"),
        (helper.make_node("Gelu", ["x"], ["y"], domain="com.microsoft"), "com.microsoft.Gelu"),
        (helper.make_node("Anything", ["x"], ["y"], domain="evil"), "evil.Anything"),
        (helper.make_node("LSTM", ["x"], ["y"]), "LSTM"),
        (helper.make_node("StringNormalizer", ["x"], ["y"]), "StringNormalizer"),
        (helper.make_node("SequenceMap", ["x"], ["y"], body=graph()), "SequenceMap"),
        (helper.make_node("RandomNormal", [], ["y"], shape=[1]), "RandomNormal"),
    ],
    ids=lambda value: value if isinstance(value, str) else value.op_type,
)
def test_only_operators_of_the_list(node: Any, said: str) -> None:
    assert re.search(said, sentence(node) or "")
    hidden = helper.make_node(
        "Constant", [], ["c"], value=numpy_helper.from_array(np.zeros(1, np.float32))
    )
    hidden.attribute.add(name="body", type=onnx.AttributeProto.GRAPH).g.CopyFrom(graph([node]))
    assert re.search(said, sentence(hidden) or "")


def test_an_operator_that_is_named_twice_counts_twice() -> None:
    """Of a field that comes twice readers take the last.

    The first must not be what is looked at.
    """
    plain = helper.make_node("Relu", ["x"], ["y"]).SerializeToString()
    looping = onnx.NodeProto(op_type="Loop").SerializeToString()
    for node in (plain + looping, looping + plain):
        inner = b"\x0a" + bytes([len(node)]) + node
        assert "Loop" in (why_refused(b"\x3a" + bytes([len(inner)]) + inner) or "")


def test_functions_of_a_files_own_are_refused() -> None:
    relu = helper.make_node("Relu", ["x"], ["y"])
    function = helper.make_function("", "Conv", ["x"], ["y"], [relu], [helper.make_opsetid("", 17)])
    assert "functions" in (sentence(relu, functions=[function]) or "")


def test_too_many_nodes_are_refused() -> None:
    nodes = [helper.make_node("Relu", [f"x{i}"], [f"x{i + 1}"]) for i in range(MAX_NODES + 1)]
    assert f"{MAX_NODES + 1} nodes" in (sentence(*nodes) or "")
    assert sentence(*nodes[:-1]) is None


@pytest.mark.parametrize("dims", [[200_000, 200_000], [2**62, 2**62], [-1], [1 << 40]])
def test_a_constant_that_the_file_does_not_hold_is_refused(dims: list[int]) -> None:
    tensor = onnx.TensorProto(name="w", dims=dims, data_type=1, raw_data=b"\0" * 64)
    assert "does not hold" in (sentence(initialisers=[tensor]) or "")
    node = helper.make_node("Constant", [], ["c"], value=tensor)
    assert "does not hold" in (sentence(node) or "")


def test_text_and_sparse_tensors_are_refused() -> None:
    text = helper.make_tensor("t", onnx.TensorProto.STRING, [1], [b"x"])
    assert "text" in (sentence(initialisers=[text]) or "")
    outer = graph()
    outer.sparse_initializer.add().dims.append(10**9)
    assert "sparse" in (why_refused(helper.make_model(outer).SerializeToString()) or "")


@pytest.mark.parametrize(
    "array",
    [np.zeros((3, 3), t) for t in ("f4", "f2", "f8", "i1", "u1", "i4", "i8", "?")]
    + [np.zeros((0, 5), "f4"), np.float32(1)],
    ids=lambda a: f"{a.dtype}{a.shape}",
)
def test_constants_that_a_file_holds_pass(array: Any) -> None:
    raw = numpy_helper.from_array(np.asarray(array), "w")
    listed = helper.make_tensor(
        "v", raw.data_type, np.shape(array), np.asarray(array).ravel().tolist()
    )
    assert sentence(helper.make_node("Relu", ["w"], ["y"]), initialisers=[raw, listed]) is None


def test_every_shipped_network_passes_and_torch_knows_no_other_operator() -> None:
    for engine in map(load_engine, engine_folders().values()):
        assert why_refused(engine.onnx_path.read_bytes()) is None
        assert engine.read()
    assert set(onnx_graph.OPERATORS) <= OPERATORS


def test_a_refused_network_is_parsed_by_no_runtime(tmp_path: Path) -> None:
    plain = identity_engine(tmp_path / "looping")
    model = helper.make_model(graph([branching()]), opset_imports=[helper.make_opsetid("", 17)])
    (tmp_path / "looping" / MODEL_NAME).write_bytes(model.SerializeToString())
    weights = Weights(onnx=OnnxWeights(sha256=sha256_of(tmp_path / "looping" / MODEL_NAME)))
    write_manifest(tmp_path / "looping", plain.manifest.model_copy(update={"weights": weights}))
    for backend in ("openvino", "torch", "auto"):
        with pytest.raises(EngineError, match="branches or loops"):
            session_on(load_engine(tmp_path / "looping"), (32, 32), backend)
