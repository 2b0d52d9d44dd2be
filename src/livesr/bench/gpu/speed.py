"""The network of a GPU's engine at 512^2 and 1024^2 on every runtime, beside plain torch.

The reference runs the same layers eagerly where torch computes, in f16 on CUDA and f32 on a CPU,
with random weights: layers take as long whatever they hold.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from importlib.util import find_spec

from livesr.base.errors import LiveSRError
from livesr.bench.gpu.subjects import FULL_ENGINE, SMALL_ENGINE, frames, opened, runtimes
from livesr.bench.result import LeftOut, Result, Target, compared
from livesr.bench.timing import Summary, interleave
from livesr.live.inference.engine import Engine, load_engine
from livesr.live.inference.session import InferenceSession

TARGET_MS = {512: 5.0, 1024: 16.0}
"""Of TensorRT, for frames that are on the GPU already."""
_MAX_OF_TORCH = 0.5
_BLOCKS = 6
_BLOCK_S = 0.4

Call = Callable[[], float]
"""Takes a frame and returns the ms that it took."""


def measure(quick: bool) -> list[Result | LeftOut]:
    """Return the time of one inference on each runtime, from host to host and on the GPU alone."""
    engine = load_engine(SMALL_ENGINE if quick else FULL_ENGINE)
    able, reasons = runtimes()
    entries: list[Result | LeftOut] = [
        LeftOut(f"gpu.speed.{name}", reason) for name, reason in reasons.items()
    ]
    for side in (64, 128) if quick else TARGET_MS:
        eager = _Eager.of(engine, side)
        if isinstance(eager, str):
            entries.append(LeftOut(f"gpu.speed.torch-eager.{side}", eager))
        for name in able:
            entries += _on(name, engine, side, None if isinstance(eager, str) else eager)
    return entries


def _on(
    runtime: str, engine: Engine, side: int, eager: _Eager | None
) -> Iterator[Result | LeftOut]:
    name = f"gpu.speed.{runtime}"
    try:
        with opened(runtime, engine, side) as session:
            note = f"{engine.manifest.id}, {side}^2, {session.precision} on {session.device}"
            through = f"{note}; upload and download included"
            yield _timed(f"{name}.{side}", lambda: wall_ms(session.infer), eager, (), through)
            if call := resident_call(session):
                yield _timed(f"{name}-resident.{side}", call, eager, _targets(runtime, side), note)
    except (LiveSRError, RuntimeError, MemoryError) as e:
        yield LeftOut(f"{name}.{side}", f"{type(e).__name__}: {e}", fault=True)


def _targets(runtime: str, side: int) -> tuple[Target, ...]:
    if not runtime.startswith("tensorrt") or side not in TARGET_MS:
        return ()
    return Target(TARGET_MS[side], "most"), Target(_MAX_OF_TORCH, "most", "ratio")


def _timed(
    name: str, call: Call, eager: _Eager | None, targets: tuple[Target, ...], note: str
) -> Result:
    block = _block(call)
    if eager is None:
        samples = Summary.of([ms for _ in range(_BLOCKS) for ms in block()])
        return Result(name, samples.median, "ms", targets=targets, samples=samples, note=note)
    found = interleave(block, _block(eager.call), _BLOCKS, warm_up=False)
    return compared(name, found, "ms", eager.name, targets, note)


def _block(call: Call) -> Callable[[], list[float]]:
    """Return as many calls as fill a block of the comparison, after one that warms up."""
    call()
    n = max(1, min(20, round(1e3 * _BLOCK_S / max(call(), 1e-3))))
    return lambda: [call() for _ in range(n)]


def wall_ms(call: Callable[[], object]) -> float:
    """Call; return the ms that it took."""
    started = time.perf_counter()
    call()
    return 1e3 * (time.perf_counter() - started)


def resident_call(session: InferenceSession) -> Call | None:
    """Return a call that takes frames that are on the GPU, None where it is not on one.

    Timed there, by two events around the network.
    """
    if (resident := session.resident) is None or find_spec("cupy") is None:
        return None
    import cupy

    cupy.asarray(resident.device_input)[...] = cupy.asarray(session.input)
    stream = cupy.cuda.Stream(non_blocking=True)

    def call() -> float:
        start, end = cupy.cuda.Event(), cupy.cuda.Event()
        start.record(stream)
        resident.enqueue(stream.ptr)
        end.record(stream)
        end.synchronize()
        return float(cupy.cuda.get_elapsed_time(start, end))

    return call


class _Eager:
    """The engine's architecture as torch runs it layer by layer."""

    def __init__(self, engine: Engine, side: int) -> None:
        import torch

        from livesr.training.networks import build

        self._cuda = torch.cuda.is_available()
        where, dtype = ("cuda", torch.float16) if self._cuda else ("cpu", torch.float32)
        self.name = f"torch eager {'f16' if self._cuda else 'f32'}"
        torch.backends.cudnn.benchmark = True
        layout = {"device": where, "dtype": dtype, "memory_format": torch.channels_last}
        network = build(engine.manifest.architecture, **engine.manifest.parameters).eval()
        self._network = network.to(**layout)
        given = torch.from_numpy(frames(engine.manifest.window, side))[None]
        self._frames = given.to(**layout)

    @classmethod
    def of(cls, engine: Engine, side: int) -> _Eager | str:
        """Return the reference, or why there is none."""
        if find_spec("torch") is None:
            return "The reference needs torch: pip install 'livesr[train]'."
        try:
            return cls(engine, side)
        except RuntimeError as e:
            return f"torch cannot run {engine.manifest.id}: {e}"

    def call(self) -> float:
        """Predict once; return the ms that it took, on the GPU where it runs there."""
        import torch

        with torch.inference_mode():
            if not self._cuda:
                return wall_ms(lambda: self._network(self._frames))
            start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            start.record()
            self._network(self._frames)
            end.record()
        end.synchronize()
        return float(start.elapsed_time(end))
