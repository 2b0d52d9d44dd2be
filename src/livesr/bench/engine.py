"""One inference of the light engine at 512 x 512 on two cores.

OpenVINO beside torch, torch.compile and ONNX Runtime.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from typing import Any

import numpy as np

from livesr.base.compute import ComputeConfig
from livesr.base.errors import EngineError, UsageError
from livesr.bench.result import Result, compared
from livesr.bench.timing import Summary, calls_ms, interleave
from livesr.live.inference.engine import Engine, load_engine
from livesr.live.inference.runner import open_session
from livesr.live.inference.session import InferenceSession

_THREADS = 2
LIGHT_ENGINE, NO_ENGINE = "imcsr-mt-er-lyso-light", "identity"


def bench_engine() -> Engine:
    """Return the light engine, or the identity engine where it is not at hand.

    The note of a result says which.
    """
    try:
        return load_engine(LIGHT_ENGINE)
    except EngineError:
        return load_engine(NO_ENGINE)


def measure(quick: bool) -> list[Result]:
    """Return the time of one inference."""
    side, calls, blocks = (128, 2, 2) if quick else (512, 5, 8)
    engine = bench_engine()
    subject = _opened(engine, side, "openvino")
    note = f"{engine.manifest.id}, {side}^2, {subject.name} {subject.precision}"
    between = _int8_beside_bf16(engine, side, calls, blocks)
    try:
        reference = _opened(engine, side, "torch")
    except UsageError as e:
        subject.infer()
        found = Summary.of(calls_ms(subject.infer, calls * blocks))
        return [
            Result(
                "engine.infer", found.median, "ms", samples=found, note=f"{note}; no reference: {e}"
            ),
            *between,
        ]
    others: dict[str, tuple[str, Callable[[], Any] | None]] = {
        "infer": (f"torch {reference.precision}", reference.infer)
    }
    others["onnxruntime"] = ("ONNX Runtime f32", _onnx_runtime(engine, subject))
    if not quick:  # it compiles for half a minute
        others["compiled"] = ("torch.compile f32, random weights", _compiled(engine, subject))
    results: list[Result] = []
    for name, (what, other) in others.items():
        if other is not None:
            comparison = interleave(
                partial(calls_ms, subject.infer, calls), partial(calls_ms, other, calls), blocks
            )
            results.append(compared(f"engine.{name}", comparison, "ms", what, note=note))
    subject.close()
    reference.close()
    return [*results, *between]


def _onnx_runtime(engine: Engine, subject: InferenceSession) -> Callable[[], Any] | None:
    """Return one inference of the same file by ONNX Runtime, None where it is not installed."""
    if find_spec("onnxruntime") is None:
        return None
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = _THREADS
    session = onnxruntime.InferenceSession(
        engine.read(), options, providers=["CPUExecutionProvider"]
    )
    (given,) = session.get_inputs()
    frames = np.array(subject.input, np.float16 if "float16" in given.type else np.float32)[None]
    session.run(None, {given.name: frames})
    return lambda: session.run(None, {given.name: frames})


def _compiled(engine: Engine, subject: InferenceSession) -> Callable[[], Any] | None:
    """Return one inference of the same architecture by torch.compile, None for an engine without
    one or without a compiler.
    """
    import torch

    from livesr.training.networks import build

    if engine.manifest.architecture is None:
        return None
    network = build(engine.manifest.architecture, **engine.manifest.parameters).eval()
    network = network.to(memory_format=torch.channels_last)
    frames = torch.from_numpy(np.array(subject.input, np.float32)[None]).to(
        memory_format=torch.channels_last
    )
    compiled = torch.compile(network)

    def infer() -> Any:
        with torch.inference_mode():
            return compiled(frames)

    try:
        infer()
    except RuntimeError:  # no C++ compiler
        return None
    return infer


def _int8_beside_bf16(engine: Engine, side: int, calls: int, blocks: int) -> list[Result]:
    """Return what the integers gain, nothing where engine or CPU have no such thing."""
    try:
        subject, reference = (
            _opened(engine, side, "openvino", precision) for precision in ("int8", "bf16")
        )
    except UsageError:
        return []
    comparison = interleave(
        lambda: calls_ms(subject.infer, calls), lambda: calls_ms(reference.infer, calls), blocks
    )
    subject.close()
    reference.close()
    return [
        compared(
            "engine.int8",
            comparison,
            "ms",
            "bf16",
            note=f"{engine.manifest.id}, {side}^2, openvino",
        )
    ]


def _opened(engine: Engine, side: int, name: str, precision: str = "auto") -> InferenceSession:
    compute = ComputeConfig(backend=name, precision=precision, threads=_THREADS, tile="off")
    session = open_session(engine, (side, side), compute)
    session.input[...] = np.random.default_rng(0).random(session.input.shape, np.float32)
    return session
