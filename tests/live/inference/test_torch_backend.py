from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

from backend_contract import (
    RuntimeContract,
    SessionContract,
    make_engine,
    model_of,
    random_frames,
    session_on,
    small_network,
)
from livesr.base.errors import BackendError, EngineError

torch = pytest.importorskip("torch")
onnx = pytest.importorskip("onnx")
node, array = onnx.helper.make_node, onnx.numpy_helper.from_array

ON_CPU = not torch.cuda.is_available()


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


class TestTorch(SessionContract):
    name = "torch"
    needs: ClassVar = ("torch", "onnx")


class TestTorchRuntime(RuntimeContract):
    name = "torch"
    needs: ClassVar = ("torch", "onnx")


def run(
    folder: Path, nodes: list[Any], constants: dict[str, np.ndarray]
) -> tuple[np.ndarray, np.ndarray]:
    """Frames and output of a network of three channels in and out."""
    initialisers = [array(np.asarray(value), name) for name, value in constants.items()]
    engine = make_engine(folder / "ops", model_of(nodes, initialisers), multiple_of=1)
    backend = session_on(engine, (6, 8), "torch")
    backend.input[...] = frames = random_frames((6, 8))
    return frames, backend.infer()


def test_precision_is_f32_on_a_cpu_unless_asked(tmp_path: Path) -> None:
    if not ON_CPU:
        pytest.skip("a CUDA device is preferred here")
    engine = make_engine(tmp_path / "small", small_network())
    for asked, got in (("auto", "f32"), ("bf16", "bf16")):
        assert session_on(engine, (32, 32), "torch", asked).precision == got
    with pytest.raises(BackendError, match="Torch computes in f32, bf16, int8 here, not in 'f16'"):
        session_on(engine, (32, 32), "torch", "f16")


def test_the_last_convolution_and_what_follows_are_f32(tmp_path: Path) -> None:
    from livesr.live.inference.onnx_graph import OnnxGraph

    graph = OnnxGraph(small_network(), "cpu", torch.bfloat16)
    names = {step.outputs[0]: step.dtype for step in graph._steps}
    assert names["features"] == torch.bfloat16
    assert {names["c4"], names["shuffled"], names["channels"]} == {torch.float32}


def test_unknown_operators_are_named(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match="LRN"):
        run(tmp_path, [node("LRN", ["frames"], ["channels"], size=3)], {})


def test_half_precision_weights_are_read_exactly(tmp_path: Path) -> None:
    weights = np.linspace(-1, 1, 9, dtype=np.float16).reshape(3, 3, 1, 1)
    nodes = [node("Cast", ["w16"], ["w"], to=1), node("Conv", ["frames", "w"], ["channels"])]
    frames, output = run(tmp_path, nodes, {"w16": weights})
    expected = np.einsum("oc,cyx->oyx", weights[:, :, 0, 0].astype(np.float32), frames)
    np.testing.assert_allclose(output, expected, atol=1e-6)


def test_slice_reverses_and_clip_holds(tmp_path: Path) -> None:
    nodes = [
        node("Slice", ["frames", "start", "end", "axis"], ["middle"]),
        node("Concat", ["middle", "middle", "middle"], ["three"], axis=1),
        node("Clip", ["three", "low", "high"], ["channels"]),
    ]
    one = np.ones(1, np.int64)
    constants = {
        "start": one,
        "end": one * 2,
        "axis": one,
        "low": np.float32(0),
        "high": np.float32(0.5),
    }
    frames, output = run(tmp_path, nodes, constants)
    np.testing.assert_array_equal(output, np.repeat(frames[1:2], 3, 0).clip(0, 0.5))


@pytest.mark.parametrize("mode", ["CRD", "DCR"])
def test_depth_to_space_undoes_itself(tmp_path: Path, mode: str) -> None:
    nodes = [
        node("Slice", ["frames", "start", "end", "axis", "step"], ["even"]),
        node("Concat", ["even"] * 4, ["deep"], axis=1),
        node("DepthToSpace", ["deep"], ["channels"], blocksize=2, mode=mode),
    ]
    start, end, step = np.zeros(2, np.int64), np.full(2, 99), np.full(2, 2)
    frames, output = run(
        tmp_path, nodes, {"start": start, "end": end, "axis": np.array([2, 3]), "step": step}
    )
    even = frames[:, ::2, ::2]
    deep = np.concatenate([even] * 4)
    order = (3, 2, 2, 3, 4) if mode == "CRD" else (2, 2, 3, 3, 4)
    axes = (0, 3, 1, 4, 2) if mode == "CRD" else (2, 3, 0, 4, 1)
    np.testing.assert_array_equal(output, deep.reshape(order).transpose(axes).reshape(3, 6, 8))


def test_arithmetic_and_shapes(tmp_path: Path) -> None:
    nodes = [
        node("Split", ["frames", "sizes"], ["first", "rest"], axis=1),
        node("Gather", ["rest", "index"], ["last"], axis=1),
        node("Max", ["first", "last"], ["larger"]),
        node("Min", ["first", "last"], ["smaller"]),
        node("Sub", ["larger", "smaller"], ["range"]),
        node("ReduceMean", ["range"], ["mean"], axes=[2, 3]),
        node("Div", ["range", "mean"], ["relative"]),
        node("Tanh", ["relative"], ["tanh"]),
        node("Concat", ["tanh", "first", "last"], ["all"], axis=1),
        node("Shape", ["all"], ["shape"]),
        node("Softmax", ["all"], ["soft"], axis=1),
        node("Transpose", ["soft"], ["swapped"], perm=[0, 1, 3, 2]),
        node("Transpose", ["swapped"], ["back"], perm=[0, 1, 3, 2]),
        node("Reshape", ["back", "shape"], ["channels"]),
    ]
    frames, output = run(tmp_path, nodes, {"sizes": np.array([1, 2]), "index": np.array([-1])})
    first, last = frames[:1], frames[2:]
    spread = np.maximum(first, last) - np.minimum(first, last)
    together = np.concatenate([np.tanh(spread / spread.mean()), first, last])
    expected = np.exp(together) / np.exp(together).sum(0)
    np.testing.assert_allclose(output, expected, rtol=1e-5)
