"""The exported file: valid, of the agreed operators, and equal to torch."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import openvino
import pytest
import torch
from torch import nn

from livesr.export.onnx import (
    OPSET,
    ExportError,
    export_onnx,
    reference,
    unsupported_ops,
    with_plain_weights,
)
from livesr.live.inference.onnx_graph import OnnxGraph
from livesr.live.inference.typed_onnx import typed
from livesr.training import networks
from livesr.training.networks import DFCAN, EDSR, IMCSR, RCAN, IMCSRSingle, UNet
from livesr.training.networks import dfcan as of_dfcan

FULL = {"INFERENCE_PRECISION_HINT": "f32"}
SMALL = {"width": 8, "groups": 2, "blocks": 1, "unshuffle": 2}


def exported(
    folder: Path, network: nn.Module, window: int = 3, **options: object
) -> onnx.ModelProto:
    path = folder / "model.onnx"
    export_onnx(network, path, window, multiple_of=getattr(network, "unshuffle", 1), **options)
    return onnx.load(path)


@pytest.mark.parametrize("activation", ["gelu_erf", "gelu_tanh", "relu", "silu"])
@pytest.mark.parametrize("head", ["sigmoid", "partition", "restore"])
def test_imcsr_exports_to_the_agreed_operators(tmp_path: Path, head: str, activation: str) -> None:
    model = exported(tmp_path, IMCSR(head=head, activation=activation, **SMALL))
    assert unsupported_ops(model) == set()
    assert "Gelu" not in {node.op_type for node in model.graph.node}  # of a later opset
    assert [(opset.domain, opset.version) for opset in model.opset_import] == [("", OPSET)]


def test_the_interface_has_free_height_and_width(tmp_path: Path) -> None:
    model = exported(tmp_path, IMCSR(channels=2, **SMALL))
    (frames,), (channels,) = model.graph.input, model.graph.output
    dims = [
        [d.dim_param or d.dim_value for d in value.type.tensor_type.shape.dim]
        for value in (frames, channels)
    ]
    assert (frames.name, channels.name) == ("frames", "channels")
    assert dims == [[1, 3, "y", "x"], [1, 2, "y", "x"]]


@pytest.mark.parametrize("shape", [(8, 12), (22, 34)])
@pytest.mark.parametrize("dynamic", [True, False])
def test_openvino_computes_what_torch_does_at_every_size(
    tmp_path: Path, shape: tuple[int, int], dynamic: bool
) -> None:
    network = IMCSR(head="partition", **SMALL).eval()
    exported(tmp_path, network)
    core = openvino.Core()
    model = core.read_model(tmp_path / "model.onnx")
    if not dynamic:
        model.reshape([1, 3, *shape])
    compiled = core.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    frames = np.random.default_rng(0).normal(0.2, 0.3, (1, 3, *shape)).astype(np.float32)
    with torch.inference_mode():
        expected = network(torch.from_numpy(frames)).numpy()
    np.testing.assert_allclose(compiled(frames)[0], expected, atol=2e-3)


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_edsr_exports(tmp_path: Path, scale: int) -> None:
    model = exported(tmp_path, EDSR(scale, blocks=1, width=8, residual_scaling=0.1), window=1)
    frames = np.ones((1, 1, 5, 7), np.float32)
    (channels,) = reference(model).run(None, {"frames": frames})
    assert channels.shape == (1, 1, 5 * scale, 7 * scale)
    assert model.graph.output[0].type.tensor_type.shape.dim[2].dim_param == "sy"


@pytest.mark.parametrize(
    "network",
    [
        IMCSRSingle(3, 2, head="restore", **SMALL),
        RCAN(3, 2, width=8, groups=1, blocks=1, reduction=4, scale=2),
        UNet(3, 2, width=4, depth=2),
    ],
    ids=lambda n: type(n).__name__,
)
def test_comparators_run_in_openvino_as_in_torch(tmp_path: Path, network: nn.Module) -> None:
    path = tmp_path / "model.onnx"
    assert export_onnx(network, path, 3, multiple_of=network.multiple_of) < 1e-2
    assert unsupported_ops(onnx.load(path)) == set()
    compiled = openvino.Core().compile_model(str(path), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    frames = np.random.default_rng(0).normal(0.2, 0.3, (1, 3, 24, 32)).astype(np.float32)
    with torch.inference_mode():
        expected = network.eval()(torch.from_numpy(frames)).numpy()
    np.testing.assert_allclose(compiled(frames)[0], expected, atol=5e-3)


CLASSIC: dict[str, dict[str, object]] = {
    "srcnn": {"width": 8},
    "fsrcnn": {"width": 8, "shrunk": 4, "mappings": 1, "scale": 3},
    "espcn": {"widths": (8, 4)},
    "vdsr": {"width": 8, "depth": 3},
    "drcn": {"width": 8, "recursions": 2},
    "drrn": {"width": 8, "units": 2},
    "srresnet": {"width": 8, "blocks": 1},
    "srdensenet": {"blocks": 1, "layers": 2, "growth": 4, "width": 8, "scale": 4},
    "memnet": {"blocks": 2, "recursions": 2, "width": 8},
    "lapsrn": {"depth": 1, "width": 8, "scale": 4},
    "mdsr": {"blocks": 1, "width": 8, "scale": 3},
    "rdn": {"blocks": 1, "layers": 2, "growth": 8, "width": 8},
}


@pytest.mark.parametrize("architecture", CLASSIC)
def test_a_classic_network_runs_in_every_runtime_as_in_torch(
    architecture: str, tmp_path: Path
) -> None:
    network = networks.build(architecture, **CLASSIC[architecture])
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):  # as after training
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 2)
    path = tmp_path / "model.onnx"
    export_onnx(network, path, 1, fp16_weights=False)
    assert unsupported_ops(onnx.load(path)) == set()
    frames = np.random.default_rng(0).normal(0.2, 0.3, (1, 1, 12, 16)).astype(np.float32)
    with torch.inference_mode():
        expected = network.eval()(torch.from_numpy(frames)).numpy()
    runs = {
        "torch": OnnxGraph(path.read_bytes(), "cpu", torch.float32).run(frames),
        "OpenVINO": openvino.Core().compile_model(str(path), "CPU", FULL)(frames)[0],
    }
    for name, channels in runs.items():
        np.testing.assert_allclose(channels, expected, atol=2e-4, rtol=2e-4, err_msg=name)


def test_a_module_that_is_applied_again_is_stored_once(tmp_path: Path) -> None:
    network = networks.build("drcn", width=8, recursions=5)
    model = exported(tmp_path, network, window=1)
    assert sum(node.op_type == "Conv" for node in model.graph.node) == 2 + 5 * 3 + 1
    assert sum(len(t.dims) == 4 for t in model.graph.initializer) == 2 + 1 + 2 + 1 + 1


class Spectrum(nn.Module):
    """The Fourier transform of DFCAN alone, and a convolution, as every engine has one."""

    def __init__(self) -> None:
        super().__init__()
        self.out = nn.Conv2d(3, 2, 1)

    def forward(self, frames: torch.Tensor) -> torch.Tensor:
        return self.out(of_dfcan.amplitudes(frames))  # by its module, where torch finds it


def dfcan() -> DFCAN:
    """One whose attention decides what comes out: its gates are far from equal."""
    torch.manual_seed(0)
    network = DFCAN(3, 2, width=8, groups=1, blocks=2, reduction=4)
    with torch.no_grad():
        network.out.weight.mul_(30)
        for name, weights in network.named_parameters():
            if name.endswith("excite.weight"):
                weights.mul_(4)
    return network.eval()


@pytest.mark.parametrize("shape", [(64, 96), (33, 27)])  # halves are swapped otherwise if odd
@pytest.mark.parametrize("make", [Spectrum, dfcan])
def test_a_fourier_transform_runs_as_in_torch(
    make: Callable[[], nn.Module], shape: tuple[int, int], tmp_path: Path
) -> None:
    network, path = make().eval(), tmp_path / "model.onnx"
    export_onnx(network, path, 3, fp16_weights=False)
    assert unsupported_ops(onnx.load(path)) == set()
    frames = np.random.default_rng(0).normal(0.2, 0.3, (1, 3, *shape)).astype(np.float32)
    with torch.inference_mode():
        expected = network(torch.from_numpy(frames)).numpy()
    core = openvino.Core()
    free = core.read_model(path)
    fixed = core.read_model(typed(path.read_bytes(), "f32", frames.shape))  # as TensorRT has it
    runs = {
        "ONNX Runtime": onnxruntime.InferenceSession(path).run(None, {"frames": frames})[0],
        "torch": OnnxGraph(path.read_bytes(), "cpu", torch.float32).run(frames),
        "OpenVINO": core.compile_model(free, "CPU", FULL)(frames)[0],
        "products": core.compile_model(fixed, "CPU", FULL)(frames)[0],
    }
    for name, channels in runs.items():
        np.testing.assert_allclose(channels, expected, atol=2e-4, rtol=2e-4, err_msg=name)


def test_kernels_are_stored_once_in_fp16_and_nothing_lies_outside_the_file(tmp_path: Path) -> None:
    network = IMCSR(**SMALL)
    model = exported(tmp_path, network)
    kernels = [t for t in model.graph.initializer if len(t.dims) == 4]
    convolutions = [m for m in network.modules() if isinstance(m, nn.Conv2d)]
    assert len(kernels) == len(convolutions)
    assert {t.data_type for t in kernels} == {onnx.TensorProto.FLOAT16}
    assert not any(t.external_data for t in model.graph.initializer)
    assert [path.name for path in tmp_path.iterdir()] == ["model.onnx"]


def test_fp32_kernels_are_exact_to_rounding_and_fp16_ones_close(tmp_path: Path) -> None:
    network = IMCSR(**SMALL)
    path = tmp_path / "model.onnx"
    assert export_onnx(network, path, 3, multiple_of=2, fp16_weights=False) < 1e-5
    assert 0 < export_onnx(network, path, 3, multiple_of=2) < 1e-2


def test_plain_weights_leave_no_cast_and_the_same_result(tmp_path: Path) -> None:
    model = exported(tmp_path, IMCSR(**SMALL))
    plain = with_plain_weights(model)
    onnx.checker.check_model(plain, full_check=True)
    assert "Cast" not in {node.op_type for node in plain.graph.node}
    frames = np.random.default_rng(0).random((1, 3, 8, 8)).astype(np.float32)
    results = [reference(m).run(None, {"frames": frames})[0] for m in (model, plain)]
    np.testing.assert_allclose(*results, atol=1e-6)


def test_nodes_carry_the_names_of_their_modules(tmp_path: Path) -> None:
    names = {node.name for node in exported(tmp_path, IMCSR(**SMALL)).graph.node}
    assert {"head.0", "body.0.blocks.0.branch.0", "out"} <= names


def test_exporting_changes_neither_network_nor_its_mode(tmp_path: Path) -> None:
    network = IMCSR(**SMALL).train()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    exported(tmp_path, network)
    assert network.training
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())


class CumulativeSum(nn.Module):
    def forward(self, frames: torch.Tensor) -> torch.Tensor:
        return torch.cumsum(frames, 2)


def test_an_operation_without_translation_is_named_and_no_file_is_written(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="cumsum"):
        export_onnx(CumulativeSum(), tmp_path / "model.onnx", 3)
    assert not list(tmp_path.iterdir())
