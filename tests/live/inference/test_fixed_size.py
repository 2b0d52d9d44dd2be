"""Networks of one size: no node is left that only asks for it, and a transform is a product."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

pytest.importorskip("onnx")
import onnx
from onnx import helper, numpy_helper

from backend_contract import model_of
from livesr.base.errors import BackendError
from livesr.export.onnx import reference
from livesr.live.inference.fixed_size import fix_size, held_in_f32, transform_matrix

SHAPE = (1, 3, 12, 15)


def test_real_values_are_transformed_by_a_product() -> None:
    values = np.random.default_rng(0).normal(size=(4, 15))
    spectrum = (values @ transform_matrix(15, 1)).reshape(4, 15, 2)
    np.testing.assert_allclose(
        spectrum[..., 0] + 1j * spectrum[..., 1], np.fft.fft(values), atol=1e-5
    )


def test_the_inverse_undoes_it() -> None:
    values = np.random.default_rng(0).normal(size=(4, 2 * 8))
    both = values @ transform_matrix(8) @ transform_matrix(8, inverse=True)
    np.testing.assert_allclose(both, values, atol=1e-6)


def test_a_onesided_one_leaves_out_what_follows_from_the_rest() -> None:
    np.testing.assert_array_equal(
        transform_matrix(9, 1, onesided=True), transform_matrix(9, 1)[:, :10]
    )


def transforming(opset: int, *, axes: tuple[int, ...] = (2, 3), **attributes: Any) -> Any:
    """Spectra of three frames, (1, 3, y, x, 2) shown as channels, y, 2 x."""
    nodes, value = [helper.make_node("Unsqueeze", ["frames", "last"], ["real"])], "real"
    tensors = [numpy_helper.from_array(np.array([-1], np.int64), "last")]
    for axis in axes:
        name, along = f"dft{axis}", {"axis": axis}
        inputs = [value]
        if opset >= 20:
            tensors.append(numpy_helper.from_array(np.int64(axis), f"axis{axis}"))
            inputs, along = [value, "", f"axis{axis}"], {}
        nodes.append(helper.make_node("DFT", inputs, [name], **along, **attributes))
        value = name
    tensors.append(numpy_helper.from_array(np.array([0, 0, 0, -1], np.int64), "plane"))
    nodes.append(helper.make_node("Reshape", [value, "plane"], ["channels"]))
    model = onnx.load_model_from_string(model_of(nodes, tensors))
    model.opset_import[0].version, model.ir_version = opset, 9
    return model


@pytest.mark.parametrize("opset", [17, 20])
@pytest.mark.parametrize("inverse", [0, 1])
@pytest.mark.parametrize("axes", [(2, 3), (3, 2), (2,), (-2,)])
def test_a_transform_becomes_products_and_computes_the_same(
    axes: tuple[int, ...], inverse: int, opset: int
) -> None:
    model = transforming(opset, axes=axes, inverse=inverse)
    frames = np.random.default_rng(0).normal(size=SHAPE).astype(np.float32)
    (expected,) = reference(model).run(None, {"frames": frames})
    fix_size(model, SHAPE)
    onnx.checker.check_model(model, full_check=True)
    assert "DFT" not in {node.op_type for node in model.graph.node}
    (channels,) = reference(model).run(None, {"frames": frames})
    np.testing.assert_allclose(channels, expected, atol=2e-5)


def test_what_depends_on_the_size_alone_is_gone() -> None:
    nodes = [
        helper.make_node("Shape", ["frames"], ["sides"], start=2, end=3),
        helper.make_node("Div", ["sides", "two"], ["middle"]),
        helper.make_node("Slice", ["frames", "zero", "middle", "two"], ["upper"]),
        helper.make_node("Shape", ["upper"], ["sides then"]),  # known once `upper` is
        helper.make_node("ReduceProd", ["sides then"], ["values"], keepdims=0),
        helper.make_node("Cast", ["values"], ["number"], to=1),
        helper.make_node("Div", ["upper", "number"], ["channels"]),
    ]
    tensors = [numpy_helper.from_array(np.array([n], np.int64), k) for k, n in VALUES.items()]
    model = onnx.load_model_from_string(model_of(nodes, tensors))
    fix_size(model, SHAPE)
    assert [node.op_type for node in model.graph.node] == ["Slice", "Div"]
    (channels,) = reference(model).run(None, {"frames": np.ones(SHAPE, np.float32)})
    np.testing.assert_allclose(channels, np.full((1, 3, 6, 15), 1 / 270), rtol=1e-6)


VALUES = {"zero": 0, "two": 2}


def test_a_length_that_is_not_the_frames_is_refused() -> None:
    model = transforming(17, axes=(2,))
    next(n for n in model.graph.node if n.op_type == "DFT").input.append("length")
    model.graph.initializer.append(numpy_helper.from_array(np.int64(16), "length"))
    with pytest.raises(BackendError, match="pads or cuts its 12 values"):
        fix_size(model, SHAPE)


def test_a_length_that_is_computed_of_pixels_is_refused() -> None:
    model = transforming(20, axes=(2,))
    node = next(n for n in model.graph.node if n.op_type == "DFT")
    node.input[2] = "axis of pixels"
    for new in (
        helper.make_node("ReduceMax", ["frames"], ["most"], keepdims=0),
        helper.make_node("Cast", ["most"], ["axis of pixels"], to=7),
    ):
        model.graph.node.insert(len(model.graph.node) - 2, new)
    with pytest.raises(BackendError, match="do not follow from those of a frame"):
        fix_size(model, SHAPE)


def test_spectra_the_first_steps_and_the_last_are_held() -> None:
    """A line for each node: whether it is held."""
    nodes = [
        (True, helper.make_node("Sub", ["frames", "mean"], ["x"])),
        (False, helper.make_node("QuantizeLinear", ["k", "s", "z"], ["q"])),
        (False, helper.make_node("Conv", ["x", "q"], ["c1"])),
        (False, helper.make_node("Relu", ["c1"], ["r"])),
        (False, helper.make_node("Unsqueeze", ["r", "last"], ["u"])),
        (True, helper.make_node("DFT", ["u"], ["d"])),
        (True, helper.make_node("ReduceL2", ["d"], ["a"])),
        (True, helper.make_node("Pow", ["a", "gamma"], ["p"])),
        (False, helper.make_node("Conv", ["p", "k"], ["gate"])),
        (False, helper.make_node("Mul", ["r", "gate"], ["gated"])),
        (True, helper.make_node("Conv", ["gated", "k"], ["c2"])),
        (True, helper.make_node("Sigmoid", ["c2"], ["channels"])),
        (True, helper.make_node("Conv", ["channels", "k"], ["amounts"])),  # draws nothing
    ]
    graph = helper.make_graph([], "held", [], [helper.make_empty_tensor_value_info("channels")])
    graph.node.extend(node for _, node in nodes)
    held = held_in_f32(graph)
    assert [i in held for i in range(len(nodes))] == [expected for expected, _ in nodes]


def test_what_weighs_intensities_is_not_the_last_convolution_that_draws() -> None:
    """As haze is shared out: by convolutions without a bias, behind a softmax."""
    nodes = [
        (False, helper.make_node("Conv", ["frames", "k", "b"], ["c1"])),
        (True, helper.make_node("Conv", ["c1", "k"], ["c2"])),
        (True, helper.make_node("Softmax", ["c2"], ["shares"])),
        (True, helper.make_node("Conv", ["shares", "k"], ["smooth"])),
        (True, helper.make_node("Add", ["shares", "smooth"], ["channels"])),
    ]
    graph = helper.make_graph([], "held", [], [helper.make_empty_tensor_value_info("channels")])
    graph.node.extend(node for _, node in nodes)
    held = held_in_f32(graph)
    assert [i in held for i in range(len(nodes))] == [expected for expected, _ in nodes]
