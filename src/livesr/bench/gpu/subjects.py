"""What is checked and with what: engines, frames, runtimes, and what says what is right.

Owns the choice of them. Judges nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from livesr.base.compute import ComputeConfig
from livesr.base.config import data_folders
from livesr.base.errors import BackendError, LiveSRError
from livesr.bench.result import LeftOut
from livesr.live.inference.engine import (
    Engine,
    Limits,
    Metrics,
    OnnxWeights,
    Weights,
    load_engine,
    sha256_of,
    write_manifest,
)
from livesr.live.inference.runner import open_on
from livesr.live.inference.runtime import BACKENDS, is_remote, why_unavailable
from livesr.live.inference.session import InferenceSession

FULL_ENGINE, SMALL_ENGINE = "imcsr-mt-er-lyso", "imcsr-mt-er-lyso-light"
Images = NDArray[np.float32]
_CODES_SIDE = 64


def shipped(quick: bool) -> tuple[list[Engine], list[LeftOut]]:
    """Return every engine that is found by name, only the light one for `quick`."""
    found = {p.parent.name for f in data_folders("engines") for p in f.glob("*/manifest.yaml")}
    engines, left_out = [], []
    for name in [SMALL_ENGINE] if quick else sorted(found):
        try:
            engines.append(load_engine(name))
        except LiveSRError as e:
            left_out.append(LeftOut(f"gpu.parity.{name}", str(e), fault=True))
    return engines, left_out


def runtimes() -> tuple[list[str], dict[str, str]]:
    """Return the runtimes that can run here, and why the others cannot, as {name: sentence}."""
    reasons = {name: why_unavailable(name) for name in BACKENDS.names if not is_remote(name)}
    able = [name for name, reason in reasons.items() if reason is None]
    return able, {name: reason for name, reason in reasons.items() if reason}


def full_engine(folder: Path, **parameters: Any) -> Engine:
    """Make the full IMC-SR with random weights, and its 8 bits: layers take as long whatever they
    hold.

    Parameters
    ----------
    folder : an empty one, to write the engine into
    parameters : of the architecture, where another size is wanted

    Raises
    ------
    BackendError
        If what makes it is not installed.
    """
    try:
        from livesr.export.onnx import export_onnx
        from livesr.export.quantise import quantise_engine
        from livesr.training.networks import build
    except ImportError as e:
        raise BackendError(f"The full network needs {e.name}: pip install 'livesr[train]'.") from e
    network = build("imcsr", **parameters)
    path = folder / "model.onnx"
    export_onnx(network, path, network.frames, multiple_of=network.multiple_of)
    manifest = load_engine(FULL_ENGINE).manifest.model_copy(
        update={
            "id": "imcsr-full",
            "trained": False,
            "parameters": parameters,
            "multiple_of": network.multiple_of,
            "halo": network.halo,
            "limits": Limits(),  # of another network
            "metrics": Metrics(),
            "weights": Weights(onnx=OnnxWeights(sha256=sha256_of(path))),
        }
    )
    write_manifest(folder, manifest)
    given = np.stack([frames(manifest.inputs, side) for side in (_CODES_SIDE, _CODES_SIDE)])
    truths = np.stack([given[:, 1]] * network.channels, 1)
    try:
        quantise_engine(folder, given[:1], (given[1:], truths[1:]), "drawn lines", max_loss=2.0)
    except ImportError as e:
        raise BackendError(f"The full network needs {e.name}: pip install 'livesr[train]'.") from e
    return load_engine(folder)


@contextmanager
def opened(
    name: str, engine: Engine, side: int, precision: str = "auto"
) -> Iterator[InferenceSession]:
    """Open `engine` on runtime `name` for frames of `side`^2, with frames in its input.

    Raises
    ------
    BackendError
        If the runtime has no such precision here, or refuses the engine.
    """
    session = open_on(name, engine, (side, side), ComputeConfig(precision=precision, tile="off"))
    try:
        session.input[...] = frames(engine.manifest.inputs, side)
        yield session
    finally:
        session.close()


def frames(window: int, side: int) -> Images:
    """Return normalised frames (window, side, side): bright lines that move, in noise.

    The same in every process.
    """
    rng = np.random.default_rng(side)
    y, x = np.mgrid[:side, :side].astype(np.float32)
    drawn = rng.normal(0.05, 0.03, (window, side, side)).astype(np.float32)
    for _ in range(12):
        angle, offset, drift = rng.uniform(0, np.pi), rng.uniform(0, side), rng.uniform(-1, 1)
        for t in range(window):
            distance = x * np.cos(angle) + y * np.sin(angle) - offset - drift * t
            drawn[t] += 0.5 * np.exp(-0.5 * (distance / 1.5) ** 2)
    return drawn


def agreement(ours: NDArray[Any], expected: NDArray[Any]) -> float:
    """Return the coefficient of determination R² of two images, or of the worst channel (c, y, x).

    1 if they are the same; unlike a correlation, it falls with a gain or an offset between them.
    """
    if ours.shape != expected.shape:
        return -np.inf
    planes = [np.reshape(a, (-1, *a.shape[-2:])).astype(np.float64) for a in (ours, expected)]
    return min(
        1 - float(np.square(a - b).sum() / max(np.square(b - b.mean()).sum(), 1e-30))
        for a, b in zip(*planes, strict=True)
    )


def reference() -> tuple[str, Callable[[Engine, Images], Images]] | None:
    """Return what computes an engine in f32 on the CPU, and its name.

    ONNX Runtime, which shares no code with the runtimes that are checked, else torch; None where
    neither is installed.
    """
    if find_spec("onnxruntime"):
        return "ONNX Runtime f32 on the CPU", _onnx_runtime
    if find_spec("torch") and find_spec("onnx"):
        return "torch f32 on the CPU", _torch
    return None


def _onnx_runtime(engine: Engine, given: Images) -> Images:
    import onnxruntime

    session = onnxruntime.InferenceSession(engine.read(), providers=["CPUExecutionProvider"])
    (entry,) = session.get_inputs()
    dtype = np.float16 if "float16" in entry.type else np.float32
    found = session.run(None, {entry.name: given[None].astype(dtype)})[0]  # features may follow
    return np.asarray(found[0], np.float32)


def _torch(engine: Engine, given: Images) -> Images:
    import torch

    from livesr.live.inference.onnx_graph import OnnxGraph

    graph = OnnxGraph(engine.read(), "cpu", torch.float32)
    return np.asarray(graph.run(given[None])[0], np.float32)
