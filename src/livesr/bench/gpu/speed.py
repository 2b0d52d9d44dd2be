"""The full network at 512^2 and 1024^2 on every runtime, beside plain torch.

The reference runs the same layers eagerly where torch computes, in f16 on CUDA and f32 on a CPU,
with random weights: layers take as long whatever they hold. Without a GPU, where the full network
takes minutes, a smaller one that ships is timed.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from copy import copy
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory

from livesr.base.errors import LiveSRError
from livesr.bench.gpu.subjects import (
    FULL_ENGINE,
    SMALL_ENGINE,
    frames,
    full_engine,
    opened,
    runtimes,
)
from livesr.bench.result import LeftOut, Result, Target, compared
from livesr.bench.timing import Summary, interleave
from livesr.live.inference.cuda import why_no_gpu
from livesr.live.inference.engine import Engine, load_engine
from livesr.live.inference.runtime import runtime_named
from livesr.live.inference.session import InferenceSession

TARGET_MS = {512: 5.0, 1024: 16.0}
"""Of TensorRT in FP16, for frames that are on the GPU already."""
TARGET_F8_MS = {1024: 10.0}
_MAX_OF_TORCH = 0.5
_BLOCKS = 6
_BLOCK_S = 0.4

Call = Callable[[], float]
"""Takes a frame and returns the ms that it took."""


def measure(quick: bool) -> list[Result | LeftOut]:
    """Return the time of one inference on each runtime, from host to host and on the GPU alone."""
    able, reasons = runtimes()
    entries: list[Result | LeftOut] = [
        LeftOut(f"gpu.speed.{name}", reason) for name, reason in reasons.items()
    ]
    with TemporaryDirectory() as folder:
        engine = _chosen(quick, Path(folder), entries)
        for side in (64, 128) if quick else TARGET_MS:
            eager = _Eager.of(engine, side)
            if isinstance(eager, str):
                entries.append(LeftOut(f"gpu.speed.torch-eager.{side}", eager))
            else:
                entries += _compiled(eager, side)
            for name in able:
                for precision in _precisions(name, engine):
                    reference = None if isinstance(eager, str) else eager
                    entries += _on(name, precision, engine, side, reference)
    return entries


def _chosen(quick: bool, folder: Path, entries: list[Result | LeftOut]) -> Engine:
    """Return the full network where a GPU is here; why it is another one goes to `entries`."""
    if not quick and why_no_gpu() is None:
        try:
            return full_engine(folder)
        except LiveSRError as e:
            entries.append(LeftOut("gpu.speed.full", f"{e} Timed instead: {FULL_ENGINE}."))
    return load_engine(SMALL_ENGINE if quick else FULL_ENGINE)


def _precisions(runtime: str, engine: Engine) -> list[str]:
    """Return what `engine` is timed in: what the runtime would choose, on a GPU 8 bits as well."""
    able = runtime_named(runtime)
    if not able.resident or engine.int8_path is None:
        return ["auto"]
    chosen = able.preferred(engine)
    return ["auto", *(p for p in ("int8", "f8") if p in able.precisions and p != chosen)]


def _compiled(eager: _Eager, side: int) -> Iterator[Result | LeftOut]:
    """Time torch.compile where torch has a GPU, beside the eager network."""
    if not eager.on_gpu:
        return
    name = f"gpu.speed.torch-compiled.{side}"
    try:
        yield _timed(name, eager.compiled().call, eager, (), "torch.compile of the same layers")
    except Exception as e:  # what its compilers say
        said = (str(e).splitlines() or [""])[0]
        yield LeftOut(name, f"torch.compile does not work here: {type(e).__name__}: {said}")


def _on(
    runtime: str, precision: str, engine: Engine, side: int, eager: _Eager | None
) -> Iterator[Result | LeftOut]:
    name = f"gpu.speed.{runtime}" if precision == "auto" else f"gpu.speed.{runtime}-{precision}"
    try:
        with opened(runtime, engine, side, precision) as session:
            note = f"{engine.manifest.id}, {side}^2, {session.precision} on {session.device}"
            through = f"{note}; upload and download included"
            yield _timed(f"{name}.{side}", lambda: wall_ms(session.infer), eager, (), through)
            if call := resident_call(session):
                targets = _targets(runtime, session.precision, side)
                yield _timed(f"{name}-resident.{side}", call, eager, targets, note)
    except (LiveSRError, RuntimeError, MemoryError) as e:
        yield LeftOut(f"{name}.{side}", f"{type(e).__name__}: {e}", fault=True)


def _targets(runtime: str, precision: str, side: int) -> tuple[Target, ...]:
    wanted = {"f16": TARGET_MS, "f8": TARGET_F8_MS}.get(precision, {})
    if not runtime.startswith("tensorrt") or side not in wanted:
        return ()
    return Target(wanted[side], "most"), Target(_MAX_OF_TORCH, "most", "ratio")


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

        self.on_gpu = torch.cuda.is_available()
        where, dtype = ("cuda", torch.float16) if self.on_gpu else ("cpu", torch.float32)
        self.name = f"torch eager {'f16' if self.on_gpu else 'f32'}"
        torch.backends.cudnn.benchmark = True
        layout = {"device": where, "dtype": dtype, "memory_format": torch.channels_last}
        network = build(engine.manifest.architecture, **engine.manifest.parameters).eval()
        self._network = network.to(**layout)
        given = torch.from_numpy(frames(engine.manifest.inputs, side))[None]
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

    def compiled(self) -> _Eager:
        """Return the same, compiled by torch.compile when it is called first."""
        import torch

        other = copy(self)
        other._network = torch.compile(self._network)  # noqa: SLF001 - a copy of this one
        return other

    def call(self) -> float:
        """Predict once; return the ms that it took, on the GPU where it runs there."""
        import torch

        with torch.inference_mode():
            if not self.on_gpu:
                return wall_ms(lambda: self._network(self._frames))
            start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            start.record()
            self._network(self._frames)
            end.record()
        end.synchronize()
        return float(start.elapsed_time(end))
