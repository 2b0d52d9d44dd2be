"""Every runtime against torch in f32, on the network that is shipped and on random ones."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from backend_contract import make_engine, random_frames, session_on
from livesr.base.errors import BackendError
from livesr.live.inference.engine import Engine, load_engine
from livesr.live.inference.runtime import BACKENDS, PRECISIONS, is_remote

torch = pytest.importorskip("torch")
pytest.importorskip("onnx")

SHIPPED = Path(__file__).parents[3] / "engines"
SHAPE = (66, 94)  # a multiple of 2, but not of 4
LIGHT = {"width": 32, "groups": 2, "blocks": 4, "unshuffle": 2}
NETWORKS = {
    "imcsr-sigmoid": ("imcsr", {**LIGHT, "head": "sigmoid"}),
    "imcsr-partition": ("imcsr", {**LIGHT, "head": "partition"}),
    "unet": ("unet", {"width": 8, "depth": 1}),
}
RUNS = [
    (name, precision)
    for name in BACKENDS.names
    for precision in PRECISIONS
    if (name, precision) != ("torch", "f32") and not is_remote(name)
]


OFTEN = {"imcsr-mt-er-lyso-light", "edsr-x2"}
"""Engines that are tried in every run of the tests, the others once a night."""


def structures(seed: int) -> np.ndarray:
    """Three normalised frames of bright lines on a dark background that move, with noise."""
    y, x = np.mgrid[: SHAPE[0], : SHAPE[1]].astype(np.float32)
    rng = np.random.default_rng(seed)
    frames = random_frames(SHAPE, seed=seed) * 0.1
    for _ in range(12):
        angle, offset, drift = rng.uniform(0, np.pi), rng.uniform(0, 150), rng.uniform(-1, 1)
        for t in range(3):
            distance = x * np.cos(angle) + y * np.sin(angle) - offset - drift * t
            frames[t] += 0.5 * np.exp(-0.5 * (distance / 1.5) ** 2).astype(np.float32)
    return frames


@pytest.fixture(scope="module", params=NETWORKS)
def exported(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Engine:
    """A random network, exported as a trained one is."""
    from livesr.export.onnx import export_onnx
    from livesr.training.networks import build

    torch.manual_seed(0)
    architecture, parameters = NETWORKS[request.param]
    folder = tmp_path_factory.mktemp(request.param)
    network = build(architecture, **parameters)
    with torch.no_grad():
        network.out.weight.mul_(
            20
        )  # trained networks use the sigmoid's whole range, a fresh one only its middle
    export_onnx(network, folder / "exported.onnx", 3, multiple_of=2)
    model = (folder / "exported.onnx").read_bytes()
    return make_engine(folder / "engine", model, architecture=architecture, parameters=parameters)


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Iterator[None]:
    # On a busy machine several threads wait for each other longer than these networks take.
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def infer(engine: Engine, frames: np.ndarray, backend: str, precision: str) -> np.ndarray:
    try:
        opened = session_on(engine, frames.shape[1:], backend, precision, threads=1)
    except BackendError as e:
        pytest.skip(str(e))
    opened.input[...] = frames[: engine.manifest.inputs]
    output = opened.infer().copy()
    opened.close()
    return output


def check_parity(output: np.ndarray, reference: np.ndarray, precision: str) -> None:
    if precision == "f32":
        np.testing.assert_allclose(output, reference, atol=1e-4)
    # Eight bits are judged on frames like those that they were calibrated on; these lines are none
    # of them.
    least = 0.95 if precision == "int8" else 0.999
    for channel, expected in zip(output, reference, strict=True):
        assert np.corrcoef(channel.ravel(), expected.ravel())[0, 1] >= least


@pytest.mark.parametrize(("backend", "precision"), RUNS)
def test_random_network(exported: Engine, backend: str, precision: str) -> None:
    frames = structures(seed=2)
    output = infer(exported, frames, backend, precision)
    reference = infer(exported, frames, "torch", "f32")
    assert reference.std() > 0.01
    check_parity(output, reference, precision)


@pytest.mark.parametrize(("backend", "precision"), RUNS)
@pytest.mark.parametrize(
    "folder",
    [
        pytest.param(p.parent, marks=() if p.parent.name in OFTEN else pytest.mark.slow)
        for p in sorted(SHIPPED.glob("*/manifest.yaml"))
    ],
    ids=lambda p: p.name,
)
def test_shipped_engine(folder: Path, backend: str, precision: str) -> None:
    engine = load_engine(folder)
    frames = structures(seed=3)
    output = infer(engine, frames, backend, precision)
    check_parity(output, infer(engine, frames, "torch", "f32"), precision)


def test_the_interpreter_is_what_was_trained(exported: Engine) -> None:
    from livesr.training.networks import build

    torch.manual_seed(0)
    network: Any = build(exported.manifest.architecture, **exported.manifest.parameters).eval()
    with torch.no_grad():
        network.out.weight.mul_(20)
        frames = structures(seed=4)
        expected = network(torch.from_numpy(frames[None])).numpy()[0]
    # The engine's weights are stored in FP16.
    np.testing.assert_allclose(infer(exported, frames, "torch", "f32"), expected, atol=5e-3)


def test_every_exported_operator_is_known() -> None:
    from livesr.export.onnx import ALLOWED_OPS
    from livesr.live.inference.onnx_graph import OPERATORS

    assert set(OPERATORS) >= ALLOWED_OPS
