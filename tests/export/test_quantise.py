"""The int8 file: what is in integers, what is not, and that it shows what the engine shows."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper

from backend_contract import make_engine, session_on
from livesr.base.errors import BackendError, EngineError
from livesr.export.onnx import export_onnx
from livesr.live.inference.engine import Engine, load_engine
from livesr.training.networks import IMCSR
from raw_groups import group_engine
from two_inputs import two_input_engine

pytest.importorskip("nncf")
from livesr.export.quantise import quantise_engine, simulated_pairs

SIDE = 48


@pytest.fixture(scope="module")
def quantised(tmp_path_factory: pytest.TempPathFactory) -> Engine:
    """A random light network, quantised against what it draws itself.

    Every difference to that counts as loss.
    """
    engine = fresh(tmp_path_factory.mktemp("quantised"))
    quantise_engine(engine.folder, *pairs(engine), "moving lines", max_loss=0.02, threads=1)
    return load_engine(engine.folder)


def fresh(folder: Path, *, haze: bool = False) -> Engine:
    torch.manual_seed(3)
    network = IMCSR(
        width=16, groups=1, blocks=2, reduction=4, unshuffle=2, head="restore", haze=haze
    )
    with torch.no_grad():
        network.out.weight.mul_(10)  # a fresh network uses little of the softmax's range
    export_onnx(network, folder / "exported.onnx", 3, multiple_of=network.multiple_of)
    return make_engine(
        folder / "engine",
        (folder / "exported.onnx").read_bytes(),
        architecture="imcsr",
        task="separate",
    )


def lines(n: int) -> np.ndarray:
    """(n, 3, y, x): bright lines on a dark background that move, with noise."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:SIDE, :SIDE].astype(np.float32)
    frames = rng.normal(0, 0.02, (n, 3, SIDE, SIDE))
    for i in range(n):
        for _ in range(5):
            angle, offset = rng.uniform(0, np.pi), rng.uniform(-SIDE, SIDE)
            for t in range(3):
                frames[i, t] += 0.6 * np.exp(
                    -(((x * np.cos(angle) + y * np.sin(angle) - offset - t) / 1.5) ** 2) / 2
                )
    return frames.astype(np.float32)


def infer(engine: Engine, backend: str, precision: str, frames: np.ndarray) -> np.ndarray:
    opened = session_on(engine, (SIDE, SIDE), backend, precision, threads=1)
    opened.input[...] = frames
    output = opened.infer().copy()
    opened.close()
    return output


def pairs(engine: Engine) -> tuple[np.ndarray, tuple[np.ndarray, np.ndarray]]:
    frames = lines(6)
    truths = np.stack([infer(engine, "openvino", "f32", block) for block in frames[3:]])
    return frames[:3], (frames[3:], truths)


def test_large_convolutions_but_the_first_and_the_last_are_in_integers(quantised: Engine) -> None:
    model = onnx.load_model_from_string(quantised.read_int8())
    convolutions, integers = convolutions_of(model)
    attention = {name for name in convolutions if "squeeze" in name or "excite" in name}
    assert integers == set(convolutions[1:-1]) - attention
    assert len(integers) == 5
    assert [(opset.domain, opset.version) for opset in model.opset_import] == [("", 17)]


def convolutions_of(model: onnx.ModelProto) -> tuple[list[str], set[str]]:
    """Names of all convolutions in their order, and of those in integers."""
    made_by = {name: node.op_type for node in model.graph.node for name in node.output}
    found = [node for node in model.graph.node if node.op_type == "Conv"]
    integers = {node.name for node in found if made_by.get(node.input[0]) == "DequantizeLinear"}
    return [node.name for node in found], integers


def test_what_smooths_haze_stays_in_floating_point(quantised: Engine, tmp_path: Path) -> None:
    engine = fresh(tmp_path, haze=True)
    quantise_engine(engine.folder, *pairs(engine), "moving lines", max_loss=0.02, threads=1)
    hazy, usual = (
        convolutions_of(onnx.load_model_from_string(one.read_int8()))
        for one in (load_engine(engine.folder), quantised)
    )
    assert any("haze" in name for name in hazy[0])
    assert hazy[1] == usual[1]


def test_a_network_without_large_kernels_is_no_fault(tmp_path: Path) -> None:
    shutil.copytree(load_engine("identity").folder, tmp_path / "identity")
    engine = load_engine(tmp_path / "identity")
    quantise_engine(engine.folder, *pairs(engine), "moving lines", threads=1)
    assert load_engine(engine.folder).int8_path


def test_codes_are_signed_and_symmetric_as_tensorrt_wants_them(quantised: Engine) -> None:
    model = onnx.load_model_from_string(quantised.read_int8())
    tensors = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
    zeros = [
        tensors[n.input[2]]
        for n in model.graph.node
        if n.op_type in {"QuantizeLinear", "DequantizeLinear"}
    ]
    assert zeros
    assert all(zero.dtype == np.int8 and not zero.any() for zero in zeros)


def test_every_runtime_shows_what_the_engine_shows(quantised: Engine) -> None:
    frames = lines(9)[-1]
    exact = infer(quantised, "torch", "f32", frames)
    by_torch, by_openvino = (
        infer(quantised, name, "int8", frames) for name in ("torch", "openvino")
    )
    for channel, emulated, live in zip(exact, by_torch, by_openvino, strict=True):
        assert np.corrcoef(channel.ravel(), emulated.ravel())[0, 1] > 0.98
        assert np.corrcoef(emulated.ravel(), live.ravel())[0, 1] > 0.999
        assert not np.array_equal(channel, emulated)


def test_openvino_multiplies_integers(quantised: Engine) -> None:
    backend: Any = session_on(quantised, (SIDE, SIDE), "openvino", "int8", 1)
    layers = [
        op.get_rt_info()
        for op in backend._request.get_compiled_model().get_runtime_model().get_ordered_ops()
    ]
    precisions = [
        r["runtimePrecision"].astype(str)
        for r in layers
        if r["layerType"].astype(str) == "Convolution"
    ]
    backend.close()
    assert sum(precision in {"i8", "u8"} for precision in precisions) == 5
    assert precisions[-1] in {"bf16", "f32"}


def test_the_manifest_says_of_what_it_was_made_and_what_it_costs(quantised: Engine) -> None:
    int8 = quantised.manifest.weights.int8
    assert int8 is not None
    assert int8.made_of == quantised.manifest.sha256
    assert int8.calibration == "moving lines"
    assert abs(int8.pcc_loss) <= 0.02


def test_what_loses_too_much_is_not_written(tmp_path: Path) -> None:
    engine = fresh(tmp_path)
    with pytest.raises(EngineError, match="at most 0 may be lost"):
        quantise_engine(engine.folder, *pairs(engine), "moving lines", max_loss=0.0, threads=1)
    assert sorted(path.name for path in engine.folder.iterdir()) == ["manifest.yaml", "model.onnx"]
    assert load_engine(engine.folder).manifest.weights.int8 is None


def test_int8_of_an_engine_without_it_is_refused_with_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(BackendError, match="livesr quantise"):
        session_on(fresh(tmp_path), (SIDE, SIDE), "openvino", "int8", threads=1)


@pytest.mark.parametrize("make", [group_engine, lambda f: two_input_engine(f, (0.5, 0.5))])
def test_what_sees_more_than_reconstructions_is_quantised_on_its_own_pairs(
    make: Callable[[Path], Engine], tmp_path: Path
) -> None:
    with pytest.raises(EngineError, match="a folder of pairs"):
        simulated_pairs(make(tmp_path / "engine"), 2, 1)


def test_int8_of_another_network_is_made_anew(quantised: Engine, tmp_path: Path) -> None:
    folder = shutil.copytree(quantised.folder, tmp_path / "engine")
    manifest = (folder / "manifest.yaml").read_text(encoding="utf-8")
    own = f"made_of: {quantised.manifest.sha256}"
    assert own in manifest
    stale = manifest.replace(own, f"made_of: {'0' * 64}")
    (folder / "manifest.yaml").write_text(stale, encoding="utf-8")
    (note,) = load_engine(folder).notes
    assert f"'livesr quantise {folder}' makes them" in note
    data = pairs(quantised)
    quantise_engine(folder, *data, "moving lines", max_loss=2.0, threads=1)
    again = load_engine(folder)
    assert again.notes == ()
    assert again.manifest.weights.int8 is not None
