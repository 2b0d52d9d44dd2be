"""Every shipped engine on every runtime that can run here, in every precision that it has.

Each is compared with the same network computed in f32 on the CPU by ONNX Runtime, or by torch.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from livesr.base.errors import LiveSRError
from livesr.bench.gpu.subjects import (
    Images,
    agreement,
    frames,
    opened,
    reference,
    runtimes,
    shipped,
)
from livesr.bench.result import AGREEMENT, LeftOut, Result, Target
from livesr.bench.runner import SuiteUnavailableError
from livesr.live.inference.engine import Engine
from livesr.live.inference.runtime import PRECISIONS, runtime_named

MIN_AGREEMENT = {"f32": 0.9999, "f16": 0.998, "bf16": 0.998, "int8": 0.95, "f8": 0.95}
"""What every channel must reach. Integers are rounded more: what they cost is measured when an
engine is quantised, here is seen that a runtime computes what it should."""


_QUANTISED = ("int8", "f8")


@dataclass(frozen=True, slots=True)
class _Expected:
    """An engine, and what it makes of the frames, (c, y, x), as `by` computes it."""

    engine: Engine
    side: int
    output: Images
    by: str


def measure(quick: bool) -> list[Result | LeftOut]:
    """Return how far the worst channel agrees of each engine, runtime and precision.

    Raises
    ------
    SuiteUnavailableError
        If nothing is installed that says what is right.
    """
    known = reference()
    if known is None:
        raise SuiteUnavailableError(
            "Nothing here says what is right: pip install onnxruntime, or 'livesr[train]'."
        )
    by, infer = known
    side = 64 if quick else 256
    engines, found = shipped(quick)
    able, reasons = runtimes()
    entries: list[Result | LeftOut] = list(found)
    entries += [LeftOut(f"gpu.parity.{name}", reason) for name, reason in reasons.items()]
    for engine in engines:
        expected = _Expected(engine, side, infer(engine, frames(engine.manifest.inputs, side)), by)
        for name in able:
            entries += _on(name, expected)
    return entries


def _on(runtime: str, expected: _Expected) -> Iterator[Result | LeftOut]:
    """Compare one engine on one runtime, precision by precision.

    What the runtime does not compute here, or the engine has no weights for, is left out; every
    other error is a fault.
    """
    able = runtime_named(runtime)
    for precision in PRECISIONS:
        name = f"gpu.parity.{runtime}.{precision}.{expected.engine.manifest.id}"
        if precision not in able.precisions:
            known = ", ".join(able.precisions)
            yield LeftOut(name, f"{able.title} computes in {known} here, not in {precision}.")
        elif precision in _QUANTISED and expected.engine.int8_path is None:
            yield LeftOut(name, f"{expected.engine.manifest.id} has no quantised weights.")
        else:
            try:
                yield _compared(name, runtime, precision, expected)
            except (LiveSRError, RuntimeError, MemoryError, ValueError) as e:
                yield LeftOut(name, f"{type(e).__name__}: {e}", fault=True)


def _compared(name: str, runtime: str, precision: str, expected: _Expected) -> Result:
    with opened(runtime, expected.engine, expected.side, precision) as backend:
        found, where = agreement(backend.infer(), expected.output), backend.device
    return Result(
        name,
        found,
        AGREEMENT,
        targets=(Target(MIN_AGREEMENT[precision], "least"),),
        note=f"worst channel against {expected.by}, {expected.side}^2, on {where}",
    )
