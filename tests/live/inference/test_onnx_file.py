from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from livesr.live.inference.engine import list_engines
from livesr.live.inference.onnx_file import names_other_files

onnx = pytest.importorskip("onnx")
helper = onnx.helper


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


PLACES: list[Callable[[], Any]] = [lambda: graph(initialisers=[external_tensor()]), in_constant, in_branch, in_sparse]


@pytest.mark.parametrize("place", PLACES)
def test_found_wherever_a_tensor_can_be(place: Callable[[], Any]) -> None:
    assert names_other_files(helper.make_model(place()).SerializeToString())


def test_found_in_a_function() -> None:
    constant = helper.make_node("Constant", [], ["c"], value=external_tensor())
    function = helper.make_function("d", "f", [], ["c"], [constant], [helper.make_opsetid("", 17)])
    model = helper.make_model(graph(), functions=[function])
    assert names_other_files(model.SerializeToString())


def test_a_name_alone_is_enough() -> None:
    tensor = onnx.TensorProto(name="w", dims=[1], data_type=1)
    tensor.external_data.add(key="location", value="x")  # a runtime may go by either field
    assert names_other_files(helper.make_model(graph(initialisers=[tensor])).SerializeToString())


def test_shipped_engines_are_whole() -> None:
    engines = list_engines()
    assert engines
    assert not any(names_other_files(engine.onnx_path.read_bytes()) for engine in engines)


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
        names_other_files(field(7, inner))


@given(st.binary(max_size=200))
def test_any_bytes_are_answered_or_refused(data: bytes) -> None:
    try:
        names_other_files(data)
    except ValueError:
        return
