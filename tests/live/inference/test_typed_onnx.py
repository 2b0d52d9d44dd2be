"""Networks as TensorRT gets them.

Types in the file, constant kernels, operators that every version has. No GPU needed.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("onnx")
import onnx
from onnx import numpy_helper

from backend_contract import model_of, random_frames, small_network
from classic_networks import CLASSIC
from livesr.base.errors import BackendError, EngineError
from livesr.export.onnx import reference
from livesr.live.inference.fixed_size import MADE_CONSTANT, held_in_f32
from livesr.live.inference.typed_onnx import TENSORRT_OPS, typed, unsupported_ops
from quantised import quantised

SHIPPED = sorted((Path(__file__).parents[3] / "engines").glob("*/model.onnx"))
SHAPE = (1, 3, 12, 20)
FRAMES = random_frames(SHAPE[2:])
SMALL = {"width": 4, "groups": 1, "blocks": 1, "reduction": 2}
NETWORKS = {
    "imcsr": ({**SMALL, "unshuffle": 2, "head": "restore", "haze": True}, 3),
    "imcsr-single": ({"channels": 2, **SMALL, "unshuffle": 2}, 3),
    "edsr": ({"scale": 3, "blocks": 1, "width": 4}, 1),
    "rcan": ({"frames": 3, "channels": 2, **SMALL, "scale": 2}, 3),
    "unet": ({"frames": 3, "channels": 2, "width": 2, "depth": 1}, 3),
    "dfcan": ({"frames": 3, "channels": 2, **SMALL}, 3),
    "raw-unet": ({"frames": 3, "width": 8, "depth": 1}, 3),
    **{name: (parameters, window) for name, (_, parameters, window) in CLASSIC.items()},
}


def run(model: bytes, frames: np.ndarray = FRAMES) -> np.ndarray:
    evaluator = reference(onnx.load_model_from_string(model))
    with np.errstate(over="ignore"):  # its sigmoid throws away an exp(-x) that f16 has not
        return evaluator.run(None, {"frames": frames[None]})[0]


def graph_of(model: bytes) -> onnx.GraphProto:
    """The graph, with every tensor's type and size inferred and checked."""
    network = onnx.load_model_from_string(model)
    return onnx.shape_inference.infer_shapes(
        network, check_type=True, strict_mode=True, data_prop=True
    ).graph


def types_of(graph: onnx.GraphProto) -> dict[str, int]:
    values = [*graph.value_info, *graph.input, *graph.output]
    return {t.name: t.data_type for t in graph.initializer} | {
        v.name: v.type.tensor_type.elem_type for v in values
    }


def correlation(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.corrcoef(a.ravel(), b.ravel())[0, 1])


@pytest.mark.parametrize("path", SHIPPED, ids=lambda p: p.parent.name)
@pytest.mark.parametrize("precision", ["f32", "f16"])
def test_shipped_engines_can_be_typed(path: Path, precision: str) -> None:
    model = path.read_bytes()
    assert unsupported_ops(onnx.load_model_from_string(model)) == set()
    shape = (1, graph_of(model).input[0].type.tensor_type.shape.dim[1].dim_value, 8, 16)
    frames = random_frames(shape[2:], window=shape[1])
    rewritten = typed(model, precision, shape)
    assert correlation(run(rewritten, frames), run(model, frames)) >= 0.9999
    check_types(
        graph_of(rewritten),
        onnx.TensorProto.FLOAT16 if precision == "f16" else onnx.TensorProto.FLOAT,
    )


def check_types(graph: onnx.GraphProto, before: int) -> None:
    """Kernels are constants; all is `before` that is not held in FP32.

    No node mixes types.
    """
    types, constants = types_of(graph), {t.name for t in graph.initializer}
    held = held_in_f32(graph)
    for i, node in enumerate(graph.node):
        if node.op_type == "Conv":
            assert node.input[1] in constants
        if node.op_type not in {"Cast", "Slice"}:
            assert {types[name] for name in node.input} - {onnx.TensorProto.INT64} == {
                onnx.TensorProto.FLOAT if i in held else before
            }
    assert types[graph.output[0].name] == onnx.TensorProto.FLOAT
    assert types[graph.input[0].name] == onnx.TensorProto.FLOAT


@pytest.mark.slow
def test_every_network_that_is_exported_keeps_to_the_list(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    from livesr.export.onnx import ALLOWED_OPS, export_onnx
    from livesr.training.networks import NETWORKS as REGISTERED
    from livesr.training.networks import build

    torch.set_num_threads(1)
    assert TENSORRT_OPS | MADE_CONSTANT | {"DFT"} >= ALLOWED_OPS
    assert set(REGISTERED) == set(NETWORKS)
    for name, (parameters, window) in NETWORKS.items():
        network = build(name, **parameters)
        export_onnx(network, tmp_path / name, window, multiple_of=network.multiple_of)
        model = (tmp_path / name).read_bytes()
        check_types(
            graph_of(typed(model, "f16", (1, window, *SHAPE[2:]))), onnx.TensorProto.FLOAT16
        )


def test_the_size_is_written_into_the_file() -> None:
    graph = graph_of(typed(small_network(), "f16", SHAPE))
    sizes = [
        [d.dim_value for d in v.type.tensor_type.shape.dim] for v in (*graph.input, *graph.output)
    ]
    assert sizes[0] == list(SHAPE)


def test_f32_changes_nothing_that_is_computed() -> None:
    model = small_network()
    np.testing.assert_array_equal(run(typed(model, "f32", SHAPE)), run(model))


@pytest.mark.parametrize("stored_codes", [False, True])
@pytest.mark.parametrize(
    ("precision", "codes"), [("int8", onnx.TensorProto.INT8), ("f8", onnx.TensorProto.FLOAT8E4M3FN)]
)
def test_codes_of_eight_bits(precision: str, codes: int, stored_codes: bool) -> None:
    model = small_network()
    rewritten = typed(quantised(model, FRAMES, stored_codes=stored_codes), precision, SHAPE)
    network = onnx.load_model_from_string(rewritten)
    types = {t.name: t.data_type for t in network.graph.initializer}
    quantisers = [n for n in network.graph.node if n.op_type == "QuantizeLinear"]
    convolutions = [n for n in network.graph.node if n.op_type == "Conv"]
    made_by = {name: node for node in network.graph.node for name in node.output}
    assert network.opset_import[0].version >= 19
    assert {types[n.input[2]] for n in quantisers} == {codes}
    assert {types[n.input[1]] for n in quantisers} == {onnx.TensorProto.FLOAT16}
    # TensorRT fuses a convolution with the codes that feed it directly: no cast may lie between.
    for node in convolutions[:-1]:
        assert [made_by[name].op_type for name in node.input[:2]] == ["DequantizeLinear"] * 2
    assert correlation(run(rewritten), run(model)) >= 0.995


def test_weakly_typed_codes_stay_as_opset_17_has_them() -> None:
    model = quantised(small_network(), FRAMES)
    network = onnx.load_model_from_string(typed(model, "int8", SHAPE, strongly=False))
    assert network.opset_import[0].version == 17
    assert "Cast" not in {node.op_type for node in network.graph.node}
    np.testing.assert_allclose(
        run_in_openvino(network.SerializeToString()), run_in_openvino(model), atol=1e-6
    )


def run_in_openvino(model: bytes) -> np.ndarray:
    """The reference implementation has no DequantizeLinear at opset 17."""
    import openvino

    core = openvino.Core()
    network = core.read_model(model)
    network.reshape(list(SHAPE))
    options = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1}
    return core.compile_model(network, "CPU", options)(FRAMES[None])[0]


def test_a_scale_never_becomes_zero() -> None:
    network = onnx.load_model_from_string(quantised(small_network(), FRAMES))
    scale = next(t for t in network.graph.initializer if t.name.endswith(".ws"))
    scale.CopyFrom(numpy_helper.from_array(np.full(scale.dims, 1e-9, np.float32), scale.name))
    graph = onnx.load_model_from_string(typed(network.SerializeToString(), "int8", SHAPE)).graph
    scales = {node.input[1] for node in graph.node if node.op_type == "QuantizeLinear"}
    assert min(numpy_helper.to_array(t).min() for t in graph.initializer if t.name in scales) > 0


def test_axes_are_written_as_the_later_opset_has_them() -> None:
    nodes = [
        onnx.helper.make_node("Conv", ["frames", "k"], ["c1"]),
        onnx.helper.make_node("ReduceMean", ["c1"], ["mean"], axes=[2, 3]),
        onnx.helper.make_node("Add", ["c1", "mean"], ["sum"]),
        onnx.helper.make_node("Conv", ["sum", "k"], ["channels"]),
    ]
    kernel = np.random.default_rng(0).normal(size=(3, 3, 1, 1)).astype(np.float32)
    model = model_of(nodes, [numpy_helper.from_array(kernel, "k")])
    rewritten = typed(quantised(model, FRAMES), "int8", SHAPE)
    assert correlation(run(rewritten), run(model)) >= 0.995


@pytest.mark.parametrize("precision", ["int8", "f8"])
def test_eight_bits_need_a_quantised_network(precision: str) -> None:
    with pytest.raises(BackendError, match="no quantisation"):
        typed(small_network(), precision, SHAPE)


def test_codes_that_tensorrt_does_not_take_are_said() -> None:
    network = onnx.load_model_from_string(quantised(small_network(), FRAMES))
    zero = next(t for t in network.graph.initializer if t.name.endswith(".z"))
    zero.CopyFrom(numpy_helper.from_array(np.int8(3), zero.name))
    with pytest.raises(BackendError, match="symmetric"):
        typed(network.SerializeToString(), "int8", SHAPE)


def test_tensorrt_8_has_no_fp8() -> None:
    with pytest.raises(BackendError, match="TensorRT 10"):
        typed(quantised(small_network(), FRAMES), "f8", SHAPE, strongly=False)


def test_other_operators_are_named_so_that_another_runtime_is_tried() -> None:
    nodes = [onnx.helper.make_node("LRN", ["frames"], ["channels"], size=3)]
    with pytest.raises(BackendError, match="LRN"):
        typed(model_of(nodes, []), "f16", SHAPE)


def test_what_is_no_network_is_an_engine_error() -> None:
    with pytest.raises(EngineError, match="no valid ONNX"):
        typed(b"no network at all", "f16", SHAPE)
