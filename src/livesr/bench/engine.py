"""One inference of the light engine at 512 x 512 on two cores: OpenVINO beside torch."""

from __future__ import annotations

import numpy as np

from livesr.base.errors import EngineError, UsageError
from livesr.bench.result import Result, compared
from livesr.bench.timing import Summary, calls_ms, interleave
from livesr.live.inference.backend import Backend
from livesr.live.inference.engine import Engine, load_engine
from livesr.live.inference.runner import open_backend

_THREADS = 2
LIGHT_ENGINE, NO_ENGINE = "imcsr-mt-er-lyso-light", "identity"


def bench_engine() -> Engine:
    """Return the light engine, or the identity engine where it is not at hand; the note of a result says which."""
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
        return [Result("engine.infer", found.median, "ms", samples=found, note=f"{note}; no reference: {e}"), *between]
    comparison = interleave(lambda: calls_ms(subject.infer, calls), lambda: calls_ms(reference.infer, calls), blocks)
    subject.close()
    reference.close()
    return [compared("engine.infer", comparison, "ms", f"torch {reference.precision}", note=note), *between]


def _int8_beside_bf16(engine: Engine, side: int, calls: int, blocks: int) -> list[Result]:
    """Return what the integers gain, nothing where engine or CPU have no such thing."""
    try:
        subject, reference = (_opened(engine, side, "openvino", precision) for precision in ("int8", "bf16"))
    except UsageError:
        return []
    comparison = interleave(lambda: calls_ms(subject.infer, calls), lambda: calls_ms(reference.infer, calls), blocks)
    subject.close()
    reference.close()
    return [compared("engine.int8", comparison, "ms", "bf16", note=f"{engine.manifest.id}, {side}^2, openvino")]


def _opened(engine: Engine, side: int, name: str, precision: str = "auto") -> Backend:
    backend = open_backend(engine, (side, side), name, precision, threads=_THREADS)
    backend.input[...] = np.random.default_rng(0).random(backend.input.shape, np.float32)
    return backend
