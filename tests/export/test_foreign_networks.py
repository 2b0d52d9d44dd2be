"""Networks of other tools, each with a quirk that one runtime or another minds.

Imported right, or refused in a sentence.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from backend_contract import session_on
from export.test_bioimageio import network as blurring
from export.test_bioimageio import package as described
from livesr.base.errors import EngineError
from livesr.export.imported import import_model

onnx = pytest.importorskip("onnx")
helper, numpy_helper = onnx.helper, onnx.numpy_helper

CASES = Path(__file__).parents[3] / "shared" / "cases" / "engines"
Change = Callable[[Any], None]


def package(folder: Path, change: Change, *, proven: bool = True) -> Path:
    """The model that blurs, with its network changed."""
    rdf = described(folder)
    model = blurring(1)
    change(model)
    onnx.save(model, folder / "weights.onnx")
    rdf["weights"]["onnx"].pop("sha256", None)
    if not proven:
        for tensor in (*rdf["inputs"], *rdf["outputs"]):
            tensor.pop("test_tensor")
    (folder / "rdf.yaml").write_text(yaml.safe_dump(rdf))
    return folder


def quantised(size: tuple[int, ...]) -> Change:
    """Scales of one element for the kernel and the input, and none for a zero point."""

    def change(model: Any) -> None:
        graph = model.graph
        kernel = numpy_helper.to_array(graph.initializer[0])
        codes = np.round(kernel * 127 * 9).astype(np.int8)
        del graph.initializer[:]
        graph.initializer.extend(
            [
                numpy_helper.from_array(codes, "codes"),
                numpy_helper.from_array(np.full(size, 1 / (127 * 9), np.float32), "scale"),
                numpy_helper.from_array(np.zeros(size, np.int8), "zero"),
            ]
        )
        graph.node.insert(
            0, helper.make_node("DequantizeLinear", ["codes", "scale", "zero"], ["kernel"], axis=0)
        )

    return change


def biased(model: Any) -> None:
    """A bias in codes: one axis, and a scale of one element."""
    quantised((1,))(model)
    model.graph.initializer.append(numpy_helper.from_array(np.zeros(1, np.int32), "bias codes"))
    model.graph.node.insert(
        0, helper.make_node("DequantizeLinear", ["bias codes", "scale"], ["bias"])
    )
    next(n for n in model.graph.node if n.op_type == "Conv").input.append("bias")


def unsorted_nodes(model: Any) -> None:
    nodes = [
        helper.make_node("Cast", ["input"], ["half"], to=10),
        helper.make_node("Cast", ["half"], ["single"], to=1),
    ]
    next(n for n in model.graph.node if n.op_type == "Conv").input[0] = "single"
    model.graph.node.extend(reversed(nodes))


@pytest.mark.parametrize("backend", ["openvino", "torch"])
@pytest.mark.parametrize(
    "change",
    [quantised(()), quantised((1,)), biased, unsorted_nodes],
    ids=["scalar", "one element", "bias", "unsorted"],
)
def test_imported_right(change: Change, backend: str, tmp_path: Path) -> None:
    found = import_model(package(tmp_path / "package", change), tmp_path / "engine")
    assert found.pcc is not None
    assert found.pcc > 0.98
    image = np.random.default_rng(0).random((1, 48, 48), np.float32)
    plain = import_model(package(tmp_path / "plain", lambda model: None), tmp_path / "plain engine")
    answers = []
    for engine in (found.engine, plain.engine):
        runtime = session_on(engine, (48, 48), backend, "f32")
        runtime.input[:] = image
        answers.append(runtime.infer().copy())
        runtime.close()
    np.testing.assert_allclose(answers[0], answers[1], atol=0.02)


def three_in(model: Any) -> None:
    model.graph.input[0].type.tensor_type.shape.dim[1].dim_value = 3
    model.graph.initializer[0].CopyFrom(
        numpy_helper.from_array(np.zeros((1, 3, 3, 3), np.float32), "kernel")
    )


def three_out(model: Any) -> None:
    model.graph.output[0].type.tensor_type.shape.dim[1].dim_value = 3
    model.graph.initializer[0].CopyFrom(
        numpy_helper.from_array(np.zeros((3, 1, 3, 3), np.float32), "kernel")
    )


def three_out_unsaid(model: Any) -> None:
    three_out(model)
    model.graph.output[0].type.tensor_type.shape.dim[1].dim_param = "c"


def in_a_circle(model: Any) -> None:
    model.graph.node.extend(
        [helper.make_node("Relu", ["b"], ["a"]), helper.make_node("Relu", ["a"], ["b"])]
    )


def from_nothing(model: Any) -> None:
    model.graph.node[0].input[0] = "nothing"


def of_one_axis(model: Any) -> None:
    del model.graph.input[0].type.tensor_type.shape.dim[1:]


def without_outputs(model: Any) -> None:
    del model.graph.output[:]


def twice_the_name(model: Any) -> None:
    model.graph.node.append(helper.make_node("Relu", ["means"], ["output"]))


@pytest.mark.parametrize("proven", [True, False])
@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (three_in, "takes 3 channels, and is described as one that takes 1"),
        (three_out, "gives 3 channels, and is described as one that gives 1"),
        (three_out_unsaid, "returns .*3"),
        (in_a_circle, "depends on itself"),
        (from_nothing, "'nothing', which nothing makes"),
        (of_one_axis, "takes 1 axes"),
        (without_outputs, "1 inputs and 0 outputs"),
        (twice_the_name, "not valid ONNX"),
    ],
)
def test_refused_in_a_sentence(change: Change, sentence: str, proven: bool, tmp_path: Path) -> None:
    with pytest.raises(EngineError, match=sentence):
        import_model(package(tmp_path / "package", change, proven=proven), tmp_path / "engine")
    assert not (tmp_path / "engine").exists()


@pytest.mark.parametrize(
    "shape", [(48, 48), (1, 1, 48), (2, 1, 48, 48), (0, 1, 48, 48), (1, 3, 48, 48), (1, 1, 0, 0)]
)
def test_a_test_image_of_another_kind_is_refused(shape: tuple[int, ...], tmp_path: Path) -> None:
    folder = package(tmp_path / "package", lambda model: None)
    np.save(folder / "in.npy", np.zeros(shape, np.float32))
    with pytest.raises(EngineError, match=r"expected|does not take"):
        import_model(folder, tmp_path / "engine")
    np.save(folder / "in.npy", np.zeros((1, 1, 48, 48), "M8[s]"))
    with pytest.raises(EngineError, match="is no test image"):
        import_model(folder, tmp_path / "engine")
    np.save(folder / "in.npy", np.ones((1, 1, 48, 48), np.float32))
    np.save(folder / "out.npy", np.zeros((1, 1, 24, 24), np.float32))
    with pytest.raises(EngineError, match="answer"):
        import_model(folder, tmp_path / "engine")


@pytest.mark.parametrize(("name", "right"), [("qdq2", True), ("fp16w", True), ("rgb", False)])
def test_what_failed_once(name: str, right: bool, tmp_path: Path) -> None:
    if not (CASES / name).is_dir():
        pytest.skip("the inputs that failed are not on this machine")
    shutil.copytree(CASES / name, tmp_path / name)
    if not right:
        with pytest.raises(EngineError, match="3 channels"):
            import_model(tmp_path / name, tmp_path / "engine")
        return
    found = import_model(tmp_path / name, tmp_path / "engine")
    assert found.pcc is not None
    assert found.pcc > 0.99
    runtime = session_on(found.engine, (64, 64), "torch", "f32")
    assert np.isfinite(runtime.infer()).all()
    runtime.close()
