"""What the shape of a light network costs.

One inference at 512 x 512 with random weights, in bf16 (or f32) and in int8.

The reference of every shape is the shape of the shipped light engine, measured turn by turn with
it. What a shape is worth takes a training: `scripts/light_shapes.py`.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from livesr.base.compute import ComputeConfig
from livesr.bench.result import Result, compared
from livesr.bench.runner import SuiteUnavailableError
from livesr.bench.timing import interleave
from livesr.live.inference.engine import (
    Manifest,
    OnnxWeights,
    Weights,
    load_engine,
    sha256_of,
    write_manifest,
)
from livesr.live.inference.runner import open_session
from livesr.live.inference.session import InferenceSession

SHIPPED: dict[str, Any] = {
    "width": 64,
    "groups": 2,
    "blocks": 4,
    "unshuffle": 4,
    "activation": "gelu_erf",
}
SHAPES: tuple[dict[str, Any], ...] = (
    {},
    {"width": 48},
    {"width": 96},
    {"blocks": 8},
    {"groups": 1, "blocks": 8},
    {"width": 32, "unshuffle": 2},
    {"activation": "relu"},
    {"width": 96, "activation": "relu"},
)
"""How each differs from `SHIPPED`."""


def name_of(shape: dict[str, Any]) -> str:
    """Return a shape in short: 64-2x4-u4-gelu_erf."""
    full = SHIPPED | shape
    return "{width}-{groups}x{blocks}-u{unshuffle}-{activation}".format(**full)


def measure(quick: bool) -> list[Result]:
    """Return the CPU time of one inference on one core, for each shape and precision.

    Raises
    ------
    SuiteUnavailableError
        If a package that trains or exports is missing.
    """
    if missing := [package for package in ("torch", "onnx", "nncf") if find_spec(package) is None]:
        raise SuiteUnavailableError(
            f"The shapes need {', '.join(missing)}: pip install 'livesr[train]'."
        )
    side, shapes = (64, SHAPES[:1]) if quick else (512, SHAPES)
    results = []
    with tempfile.TemporaryDirectory() as folder:
        engines = [_engine(Path(folder, name_of(shape)), shape, int8=not quick) for shape in shapes]
        for precision in ("auto",) if quick else ("bf16", "int8"):
            reference = _opened(engines[0], side, precision)
            for shape, engine in zip(shapes, engines, strict=True):
                subject = _opened(engine, side, precision)
                comparison = interleave(_cpu_ms(subject), _cpu_ms(reference), 1 if quick else 6)
                name, note = (
                    f"shapes.{name_of(shape)}.{precision}",
                    f"{side}^2, CPU time on one core, random weights",
                )
                results.append(compared(name, comparison, "ms", name_of({}), note=note))
                subject.close()
            reference.close()
    return results


def _cpu_ms(session: InferenceSession) -> Callable[[], list[float]]:
    def block() -> list[float]:
        samples = []
        for _ in range(3):
            start = (
                time.process_time()
            )  # not the clock: a busy machine lengthens that by what others do
            session.infer()
            samples.append((time.process_time() - start) * 1e3)
        return samples

    return block


def _opened(engine: Path, side: int, precision: str) -> InferenceSession:
    compute = ComputeConfig(backend="openvino", precision=precision, threads=1, tile="off")
    session = open_session(load_engine(engine), (side, side), compute)
    session.input[...] = np.random.default_rng(0).random(session.input.shape, np.float32)
    return session


def _engine(folder: Path, shape: dict[str, Any], *, int8: bool) -> Path:
    """Write an engine of this shape with random weights.

    Quantised on noise, which changes nothing in its speed.
    """
    import torch

    from livesr.export.onnx import export_onnx
    from livesr.export.quantise import quantise_engine
    from livesr.training.networks import build

    folder.mkdir()
    torch.manual_seed(0)
    parameters = {
        "frames": 3,
        "channels": 3,
        "reduction": 16,
        "head": "restore",
        **SHIPPED,
        **shape,
    }
    network = build("imcsr", **parameters)
    export_onnx(network, folder / "model.onnx", 3, multiple_of=network.multiple_of)
    manifest = {
        "id": "shape",
        "version": "0",
        "description": "random weights",
        "task": "separate",
        "trained": False,
        "channels": [{"name": name, "color": "FFFFFF"} for name in "abc"],
        "multiple_of": network.multiple_of,
        "halo": network.halo,
        "architecture": "imcsr",
        "weights": Weights(onnx=OnnxWeights(sha256=sha256_of(folder / "model.onnx"))),
        "license": "BSD-3-Clause",
    }
    write_manifest(folder, Manifest.model_validate(manifest))
    if int8:
        noise = np.random.default_rng(0).normal(0.2, 0.2, (4, 3, 64, 64)).astype(np.float32)
        quantise_engine(folder, noise[:2], (noise[2:], noise[2:]), "noise", max_loss=1.0, threads=1)
    return folder
