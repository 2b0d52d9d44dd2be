"""TensorRT for RTX compiles without a GPU.

Every engine that ships or can be made goes through the real parser and builder.

A network whose operators do not compile fails here, not in front of a microscope. That what is
compiled also computes is shown on a card (marked `gpu`).
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import openvino
import pytest
import yaml

from backend_contract import SessionContract, make_engine, random_frames, session_on, small_network
from classic_networks import CLASSIC
from export.test_bioimageio import package as described
from livesr.base.errors import BackendError, UsageError
from livesr.cli import _run
from livesr.export.imported import import_model
from livesr.live.inference import tensorrt
from livesr.live.inference.cards import GENERATIONS, capability_of
from livesr.live.inference.cuda import why_no_gpu
from livesr.live.inference.engine import Engine, load_engine
from livesr.live.inference.plans import PlanCache
from livesr.live.inference.runner import out_of_memory
from livesr.live.inference.runtime import BACKENDS
from livesr.live.inference.tensorrt import (
    Card,
    TensorRTRTXRuntime,
    TensorRTRTXSession,
    build_plan,
    plan_key,
)
from livesr.live.inference.tensorrt_build import RTX, build, capabilities, logger
from livesr.live.inference.typed_onnx import typed
from own_process import livesr
from quantised import quantised

trt = pytest.importorskip(
    "tensorrt_rtx", reason="TensorRT for RTX is not installed here", exc_type=ImportError
)
onnx = pytest.importorskip("onnx")

SHIPPED = Path(__file__).parents[3] / "engines"
SIDE = 64  # the operators are the same at every size
ADA, AMPERE = 89, 86
USED = {
    "IBuilderConfig": {
        "num_compute_capabilities",
        "set_compute_capability",
        "clear_flag",
        "progress_monitor",
    },
    "ComputeCapability": {"CURRENT"},
    "ICudaEngine": {
        "create_execution_context",
        "create_runtime_config",
        "num_io_tensors",
        "get_tensor_shape",
    },
    "IRuntimeConfig": {"create_runtime_cache", "set_runtime_cache"},
    "IRuntimeCache": {"deserialize", "serialize"},
    "IExecutionContext": {"engine", "set_tensor_address", "execute_async_v3"},
    "Runtime": {"deserialize_cuda_engine"},
}


def test_the_names_that_are_used_are_in_the_package() -> None:
    for owner, names in USED.items():
        assert names - set(dir(getattr(trt, owner))) == set(), owner


def shipped() -> list[Path]:
    return sorted(path.parent for path in SHIPPED.glob("*/model.onnx"))


@pytest.mark.parametrize("capability", [pytest.param(AMPERE, marks=pytest.mark.slow), ADA])
@pytest.mark.parametrize("folder", shipped(), ids=lambda p: p.name)
def test_every_shipped_engine_compiles(folder: Path, capability: int) -> None:
    engine = load_engine(folder)
    shape = (1, engine.manifest.inputs, SIDE, SIDE)
    plan, _ = build(engine.read(), "f16", shape, RTX, capability=capability)
    assert len(plan) > len(engine.read()) // 2  # it holds the weights
    if engine.int8_path:
        assert build(engine.read_int8(), "int8", shape, RTX, capability=capability)[0]


@pytest.mark.parametrize(
    "folder", [p for p in shipped() if load_engine(p).int8_path], ids=lambda p: p.name
)
def test_fp8_compiles_for_cards_that_have_it_and_is_refused_for_others(folder: Path) -> None:
    engine = load_engine(folder)
    shape = (1, engine.manifest.inputs, SIDE, SIDE)
    assert build(engine.read_int8(), "f8", shape, RTX, capability=ADA)[0]
    with pytest.raises(BackendError, match="cannot build the network in f8"):
        build(engine.read_int8(), "f8", shape, RTX, capability=AMPERE)


NETWORKS: dict[str, tuple[str, dict[str, Any], int]] = {
    "imcsr single": ("imcsr-single", {"groups": 1, "blocks": 2, "width": 16}, 3),
    "imcsr partition": ("imcsr", {"groups": 1, "blocks": 2, "width": 16, "head": "partition"}, 3),
    "imcsr with haze": (
        "imcsr",
        {"groups": 1, "blocks": 2, "width": 16, "head": "restore", "unshuffle": 4, "haze": True},
        3,
    ),
    "edsr": ("edsr", {"scale": 3, "blocks": 4, "width": 32, "residual_scaling": 1.0}, 1),
    "rcan": ("rcan", {"groups": 2, "blocks": 2, "width": 16}, 3),
    "unet": ("unet", {"width": 8, "depth": 2}, 3),
    "dfcan": ("dfcan", {"groups": 1, "blocks": 2, "width": 16}, 3),
    "raw-unet": ("raw-unet", {"frames": 3, "width": 16}, 3),
    "unet of 9 raw frames": (
        "unet",
        {"frames": 9, "channels": 1, "width": 8, "depth": 2, "scale": 2},
        9,
    ),
}


LARGE: dict[str, tuple[str, dict[str, Any], int]] = {
    "imcsr 5x10x64": ("imcsr", {}, 3),
    "edsr 32x256": ("edsr", {"scale": 2, "blocks": 32, "width": 256, "residual_scaling": 0.1}, 1),
    "rcan 10x20": ("rcan", {}, 3),
}


@pytest.mark.parametrize("capability", [pytest.param(AMPERE, marks=pytest.mark.slow), ADA])
@pytest.mark.parametrize(
    "name",
    [
        *(name for name in NETWORKS if name != "dfcan"),
        *(pytest.param(name, marks=pytest.mark.slow) for name in CLASSIC),
    ],
)
def test_every_network_that_can_be_trained_compiles(
    name: str, capability: int, tmp_path: Path
) -> None:
    architecture, parameters, window = (NETWORKS | CLASSIC)[name]
    model, shape = exported(architecture, parameters, window, tmp_path), (1, window, SIDE, SIDE)
    assert build(model, "f16", shape, RTX, capability=capability)[0]
    codes = codes_of(model, window)
    assert build(codes, "int8", shape, RTX, capability=capability)[0]
    if capability >= ADA:
        assert build(codes, "f8", shape, RTX, capability=capability)[0]


@pytest.mark.parametrize("capability", [pytest.param(AMPERE, marks=pytest.mark.slow), ADA])
def test_dfcan_compiles_with_its_fourier_transforms(capability: int, tmp_path: Path) -> None:
    architecture, parameters, window = NETWORKS["dfcan"]
    model, shape = exported(architecture, parameters, window, tmp_path), (1, window, 60, 63)
    for precision in ("f16", "f32"):
        assert build(model, precision, shape, RTX, capability=capability)[0]
    assert build(codes_of(model, window), "int8", shape, RTX, capability=capability)[0]


def test_every_network_that_can_be_trained_is_among_them() -> None:
    networks = pytest.importorskip("livesr.training.networks")
    assert {architecture for architecture, _, _ in (NETWORKS | CLASSIC).values()} == set(
        networks.NETWORKS
    )


@pytest.mark.parametrize("capability", [AMPERE, ADA])
@pytest.mark.parametrize("step", ["zero_mean_unit_variance", "scale_range"])
def test_what_an_import_makes_compiles(step: str, capability: int, tmp_path: Path) -> None:
    folder = tmp_path / "package"
    rdf = described(folder)
    rdf["inputs"][0]["preprocessing"] = [
        {"id": step},
        {"id": "scale_linear", "kwargs": {"gain": 2.0, "offset": 0.1}},
        {"id": "clip", "kwargs": {"min": -5.0, "max": 5.0}},
    ]
    for tensor in (*rdf["inputs"], *rdf["outputs"]):
        tensor.pop("test_tensor")  # the answer of the model without these steps
    rdf["weights"]["onnx"].pop("sha256", None)
    onnx.save(of_a_stranger(), folder / "weights.onnx")
    (folder / "rdf.yaml").write_text(yaml.safe_dump(rdf))
    engine = import_model(folder, tmp_path / "engine").engine
    shape = (1, engine.manifest.inputs, SIDE, SIDE)
    assert build(engine.read(), "f16", shape, RTX, capability=capability)[0]
    codes = quantised(engine.read(), random_frames((SIDE, SIDE), engine.manifest.inputs))
    assert build(codes, "int8", shape, RTX, capability=capability)[0]
    frames = random_frames((SIDE, SIDE), 1)[None]
    core = openvino.Core()
    as_it_is, rewritten = (
        core.compile_model(core.read_model(m), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})(frames)[
            0
        ]
        for m in (engine.read(), typed(engine.read(), "f16", shape))
    )
    assert np.corrcoef(as_it_is.ravel(), rewritten.ravel())[0, 1] > 0.9999


def of_a_stranger() -> Any:
    """A network of the layers that others use and livesr does not, as torch writes them."""
    helper, rng = onnx.helper, np.random.default_rng(0)
    make, tensor = helper.make_node, onnx.numpy_helper.from_array
    kernels = {"k1": (8, 1, 3, 3), "k2": (8, 8, 3, 3), "k3": (1, 16, 3, 3)}
    constants = {
        name: (rng.standard_normal(shape) / 9).astype(np.float32) for name, shape in kernels.items()
    } | {
        "ones": np.ones(8, np.float32),
        "zeros": np.zeros(8, np.float32),
        "slopes": np.full((8, 1, 1), 0.1, np.float32),
        "twice": np.array([1, 1, 2, 2], np.float32),
        "margin": np.array([0, 0, 1, 1, 0, 0, 1, 1], np.int64),
    }
    nodes = [
        make("Pad", ["input", "margin"], ["padded"], mode="reflect"),
        make("Conv", ["padded", "k1"], ["c1"], kernel_shape=[3, 3]),
        make("BatchNormalization", ["c1", "ones", "zeros", "zeros", "ones"], ["normal"]),
        make("LeakyRelu", ["normal"], ["wide"], alpha=0.1),
        make("AveragePool", ["wide"], ["pooled"], kernel_shape=[2, 2], strides=[2, 2]),
        make("Conv", ["pooled", "k2"], ["c2"], kernel_shape=[3, 3], pads=[1] * 4),
        make("InstanceNormalization", ["c2", "ones", "zeros"], ["even"]),
        make("PRelu", ["even", "slopes"], ["bent"]),
        make("Elu", ["bent"], ["smooth"]),
        make("Resize", ["smooth", "", "twice"], ["large"], mode="linear"),
        make("Concat", ["large", "wide"], ["both"], axis=1),
        make("Constant", [], ["half"], value=tensor(np.float32(0.5))),
        make("Mul", ["both", "half"], ["halved"]),
        make("Conv", ["halved", "k3"], ["output"], kernel_shape=[3, 3], pads=[1] * 4),
    ]
    graph = helper.make_graph(
        nodes,
        "foreign",
        [helper.make_tensor_value_info("input", 1, ["n", 1, "h", "w"])],
        [helper.make_tensor_value_info("output", 1, ["n", 1, "H", "W"])],
        [tensor(value, name) for name, value in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("name", list(LARGE))
def test_the_published_sizes_compile(name: str, tmp_path: Path) -> None:
    architecture, parameters, window = LARGE[name]
    model, shape = exported(architecture, parameters, window, tmp_path), (1, window, SIDE, SIDE)
    codes = codes_of(model, window)
    for capability in (AMPERE, ADA):
        assert build(model, "f16", shape, RTX, capability=capability)[0]
        assert build(codes, "int8", shape, RTX, capability=capability)[0]
    assert build(codes, "f8", shape, RTX, capability=ADA)[0]


def exported(architecture: str, parameters: dict[str, Any], window: int, folder: Path) -> bytes:
    networks = pytest.importorskip("livesr.training.networks")
    from livesr.export.onnx import export_onnx

    network = networks.build(architecture, **parameters)
    export_onnx(network, folder / "model.onnx", window, multiple_of=network.multiple_of)
    return (folder / "model.onnx").read_bytes()


def codes_of(model: bytes, window: int) -> bytes:
    from livesr.export.onnx import with_plain_weights

    plain = with_plain_weights(onnx.load_model_from_string(model)).SerializeToString()
    return quantised(plain, random_frames((SIDE // 2, SIDE // 2), window))


def test_a_network_that_does_not_compile_is_said() -> None:
    with pytest.raises(
        BackendError, match=r"does not know compute capability 90; it compiles for 75, 80, 86, 89"
    ):
        build(small_network(), "f16", (1, 3, SIDE, SIDE), RTX, capability=90)


@pytest.mark.skipif(why_no_gpu() is None, reason="a GPU is here")
def test_for_the_card_that_is_here_a_card_is_needed() -> None:
    with pytest.raises(BackendError, match=f"TensorRT for RTX {trt.__version__} cannot build"):
        build(small_network(), "f16", (1, 3, SIDE, SIDE), RTX)


def test_a_plan_is_kept_by_capability_and_serves_every_card_that_has_it(tmp_path: Path) -> None:
    engine, cache = make_engine(tmp_path / "small", small_network()), PlanCache(tmp_path / "plans")
    keys = [
        plan_key(engine, (60, 64), "f16", RTX, card)
        for card in (Card("RTX 4090", 89), Card("RTX 4060 Laptop", 89), Card("RTX 3080", 86))
    ]
    assert keys[0] == keys[1] != keys[2]
    plan = build_plan(engine, keys[0], cache, RTX, 89)
    assert cache.load(keys[1]) == plan
    assert cache.load(keys[2]) is None
    assert keys[0].runtime == f"tensorrt-rtx {trt.__version__}"


def test_a_plan_that_cannot_be_kept_is_used_all_the_same(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    engine, card = make_engine(tmp_path / "small", small_network()), Card("RTX 4090", 89)
    (tmp_path / "file").write_text("in the way")
    cache, key = PlanCache(tmp_path / "file"), plan_key(engine, (64, 64), "f16", RTX, card)
    assert tensorrt._built_here(RTX, engine, key, card, cache)
    assert "cannot be kept" in caplog.text


def test_a_context_that_was_not_made_is_said() -> None:
    session = TensorRTRTXSession.__new__(TensorRTRTXSession)
    logger(RTX).errors[:] = ["CUDA out of memory"]
    with pytest.raises(BackendError, match="out of memory") as caught:
        session._checked(None)
    assert out_of_memory(caught.value)


def test_what_a_card_compiled_is_kept_for_that_card(tmp_path: Path) -> None:
    engine, cache = make_engine(tmp_path / "small", small_network()), PlanCache(tmp_path / "plans")
    key = plan_key(engine, (64, 64), "f16", RTX, Card("RTX 4090", 89))
    assert cache.kernels(key, "RTX 4090") == b""
    cache.store_kernels(key, "RTX 4090", b"kernels")
    assert (cache.kernels(key, "RTX 4090"), cache.kernels(key, "RTX 4080")) == (b"kernels", b"")


@pytest.mark.parametrize(
    ("name", "capability"),
    [
        ("RTX 4090", 89),
        ("NVIDIA GeForce RTX 4070 Laptop GPU", 89),
        ("rtx4060", 89),
        ("4090", 89),
        ("RTX 6000 Ada", 89),
        ("NVIDIA RTX 6000 Ada Generation", 89),
        ("L40S", 89),
        ("ada", 89),
        ("8.9", 89),
        ("sm_89", 89),
        ("89", 89),
        ("RTX 5090", 120),
        ("RTX PRO 6000 Blackwell", 120),
        ("RTX PRO 4500", 120),
        ("blackwell", 120),
        ("12.0", 120),
        ("NVIDIA GB10", 121),
        ("RTX 3080 Ti", 86),
        ("RTX A4000", 86),
        ("NVIDIA RTX A6000", 86),
        ("A10", 86),
        ("ampere", 86),
        ("A100", 80),
        ("NVIDIA A100-SXM4-80GB", 80),
        ("RTX 2080 Ti", 75),
        ("Quadro RTX 6000", 75),
        ("Tesla T4", 75),
        ("GTX 1660 Ti", 75),
        ("turing", 75),
        ("H100", 90),
        ("NVIDIA H200", 90),
    ],
)
def test_cards_are_known_by_the_names_that_people_use(name: str, capability: int) -> None:
    assert capability_of(name) == capability


@pytest.mark.parametrize("name", ["", "GTX 1080", "Radeon", "RTX", "hopperr"])
def test_a_card_that_is_not_known_is_refused(name: str) -> None:
    with pytest.raises(UsageError, match="compute capability"):
        capability_of(name)


def test_the_generations_are_among_what_it_compiles_for() -> None:
    assert set(GENERATIONS.values()) <= set(capabilities())


class TestCommand:
    """`livesr build --for`: a plan for a card that is not here."""

    def test_plans_are_made_here_and_found_there(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        code, out, err = livesr(
            "build",
            "identity",
            "--shape",
            "64x96",
            "--for",
            "RTX 4090, RTX 4080, blackwell",
            "--to",
            "plans",
            "--json",
            "--progress",
            cwd=tmp_path,
        )
        assert code == 0, err
        lines = [json.loads(line) for line in err.splitlines() if line.startswith("{")]
        assert {line["device"] for line in lines} == {"sm_89", "sm_120"}
        made = json.loads(out)["plans"]
        assert [plan["device"] for plan in made] == ["sm_89", "sm_120"]
        for plan in made:
            assert set(plan["figures"]) == {"layers", "frame_bytes", "weight_bytes"}
            assert plan["figures"]["layers"] > 0
        there = tmp_path / "there"
        shutil.copytree(tmp_path / "plans", there / "plans")  # as carried to the rig
        monkeypatch.setenv("LIVESR_CACHE", str(there))
        key = plan_key(
            load_engine("identity"), (64, 96), "f16", RTX, Card("NVIDIA GeForce RTX 4070", 89)
        )
        assert PlanCache().load(key)

    @pytest.mark.parametrize(
        ("cards", "said"),
        [
            ("H100", "compiles for 7.5, 8.0, 8.6, 8.9"),
            ("RTX 9999", "No card 'RTX 9999' is known"),
            (",", "No card"),
            ("ada,RTX 3080|--precision|f8", "RTX 3080 computes no FP8"),
        ],
    )
    def test_what_cannot_be_compiled_for_is_said(
        self, cards: str, said: str, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert _run(["build", "identity", "--for", *cards.split("|")]) == 2
        assert said in " ".join(capsys.readouterr().err.split())


@pytest.mark.gpu
class TestTensorRTRTX(SessionContract):
    name = "tensorrt-rtx"
    needs: ClassVar = ("tensorrt_rtx", "cupy", "onnx")

    def test_the_second_start_finds_plan_and_kernels(
        self, engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("LIVESR_CACHE", str(tmp_path))
        outputs = []
        for _ in range(2):
            backend = session_on(engine, (64, 64), "tensorrt-rtx")
            backend.input[:] = random_frames((64, 64))
            outputs.append(backend.infer().copy())
            backend.close()
        assert np.array_equal(*outputs)
        assert list((tmp_path / "plans").glob("*.kernels"))


def test_it_is_among_the_backends() -> None:
    assert BACKENDS.load("tensorrt-rtx") is TensorRTRTXRuntime
    if why_no_gpu():
        assert "TensorRT for RTX needs an NVIDIA GPU" in (TensorRTRTXRuntime().unavailable() or "")
