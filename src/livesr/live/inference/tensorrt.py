"""TensorRT and TensorRT for RTX: the fastest runtimes on NVIDIA GPUs.

Owns the execution context, the pinned and the device memory, and the graph of one step. The library
and `cupy` are imported where they are asked or opened. Compiling is `tensorrt_build.py`'s, keeping
what was compiled `plans.py`'s.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any, ClassVar

import numpy as np

from livesr.base.compute import ComputeConfig
from livesr.base.errors import BackendError, LiveSRError
from livesr.live.inference.cuda import why_no_gpu
from livesr.live.inference.engine import FEATURES_OUTPUT, Engine
from livesr.live.inference.padding import (
    PaddedBlock,
    PaddedSession,
    check_features,
    check_output,
    padded_shape,
)
from livesr.live.inference.plans import PlanCache, PlanKey
from livesr.live.inference.runtime import Precision, Runtime
from livesr.live.inference.session import Compiled, InferenceSession, Resident
from livesr.live.inference.tensorrt_build import (
    PRECISIONS,
    RTX,
    TENSORRT,
    Library,
    Progress,
    build,
    capabilities,
    figures,
    logger,
)

log = logging.getLogger(__name__)

_INSTALL = {
    "tensorrt-rtx": "pip install 'livesr[gpu]', or 'livesr[gpu-cu12]' for a CUDA 12 driver",
    "tensorrt": "pip install 'livesr[gpu]', and TensorRT itself from NVIDIA",
}


class TensorRTRuntime(Runtime):
    """TensorRT on the GPU that is here.

    Notes
    -----
    "auto" is f16. `threads` is of no use here. The first `open` for a size compiles, for minutes;
    `livesr build` does so beforehand.
    """

    name = "tensorrt"
    title = TENSORRT.title
    inference_library: ClassVar[Library] = TENSORRT

    def unavailable(self) -> str | None:
        """Return None if a GPU answers and the library, CuPy and onnx are installed, else what is
        missing.
        """
        if reason := why_no_gpu():
            return f"{self.title} needs an NVIDIA GPU. {reason}"
        packages = (self.inference_library.module, "cupy", "onnx")
        if missing := [package for package in packages if find_spec(package) is None]:
            return f"The {self.title} backend needs {' and '.join(missing)}: {_INSTALL[self.name]}"
        return None

    @property
    def precisions(self) -> tuple[Precision, ...]:
        """What the library can build; a card may lack f8."""
        return PRECISIONS

    @property
    def devices(self) -> tuple[str, ...]:
        """The GPU; raises BackendError if CuPy cannot use it."""
        return (Card.here().name,)

    @property
    def resident(self) -> bool:
        """Always."""
        return True

    def free_bytes(self) -> int:
        """Return the free memory of the GPU; raises BackendError if CuPy cannot use it."""
        return int(_cuda_runtime().memGetInfo()[0])

    def open(
        self, engine: Engine, shape: tuple[int, int], compute: ComputeConfig
    ) -> InferenceSession:
        """Load the plan for frames of `shape` (y, x), or build it, and run once; errors as of
        `Runtime.open`.
        """
        if reason := self.unavailable():
            raise BackendError(reason)
        precision = self.choose_precision(compute.precision, engine)
        try:
            return self._session(engine, shape, precision)
        except LiveSRError:
            raise
        except Exception as e:  # libraries that do not load, memory, whatever the driver says
            raise BackendError(
                f"{self.title} does not start with engine {engine.manifest.id!r}: {e}"
            ) from e

    def _session(self, engine: Engine, shape: tuple[int, int], precision: str) -> InferenceSession:
        return TensorRTSession(engine, shape, precision)


class TensorRTRTXRuntime(TensorRTRuntime):
    """TensorRT for RTX: for GeForce and RTX workstation cards from Turing on.

    Its plan serves every card of a compute capability and is compiled in seconds, on any computer.
    """

    name = "tensorrt-rtx"
    title = RTX.title
    inference_library = RTX

    def _session(self, engine: Engine, shape: tuple[int, int], precision: str) -> InferenceSession:
        return TensorRTRTXSession(engine, shape, precision)


class TensorRTSession(PaddedSession):
    """An engine compiled for this GPU and one frame size; a `Resident` as well.

    Two ways in. `input` and `infer`, as every session has them, take frames from pinned memory:
    upload, network and download are one CUDA graph, launched once a frame and waited for by one
    event. `device_input` and `enqueue` are for a caller whose frames are on the GPU already:
    nothing is copied, and nobody waits.

    Parameters
    ----------
    engine, shape : as of `Runtime.open`
    precision : of the session

    Notes
    -----
    The last convolution and what follows stay in f32. Nothing is allocated once it is open.
    """

    name = TensorRTRuntime.name
    inference_library: ClassVar[Library] = TENSORRT

    _on_device: Any = None  # a PaddedBlock of CuPy arrays
    _output_on_device: Any = None
    _features_on_device: Any = None
    _context: Any = None
    _kernels: Any = None  # what the context was made with, which it may use as long as it is
    _stream: Any = None
    _wait: Any = None  # for the whole device: callers of `enqueue` have streams of their own
    _event: Any = None
    _network: Any = None
    _step: Any = None

    def __init__(self, engine: Engine, shape: tuple[int, int], precision: str) -> None:
        import cupy
        import cupyx

        super().__init__(engine, shape, cupyx.zeros_pinned)
        self.precision = precision
        self._on_device = PaddedBlock(engine, shape, zeros=cupy.zeros)
        try:
            self._open(engine, shape)
        except BaseException:
            self.close()
            raise

    @property
    def resident(self) -> Resident | None:
        """Itself, None when it is closed."""
        return None if self._network is None else self

    def _run(self, padded: PaddedBlock) -> None:
        self._step.launch(self._stream)
        self._event.record(self._stream)
        self._event.synchronize()

    @property
    def device_input(self) -> Any:
        """CuPy array (window, y, x), float32, that `enqueue` reads.

        The same memory for the session's life.
        """
        return self._block_on_device().frames

    @property
    def device_features(self) -> Any:
        """CuPy array (n,), float32, None where the engine has none; complete with the output."""
        return self._features_on_device

    def enqueue(self, stream: int) -> Any:
        """Put the network behind what is on the CUDA stream at address `stream`, and return at
        once.

        Within a capture the network becomes part of the caller's graph; not for frames that are
        padded, whose margin passes through memory that CuPy gives to others afterwards.

        Returns
        -------
        CuPy array (c, scale y, scale x), float32; the same memory every time, complete when the
        stream has come so far
        """
        import cupy

        with (queue := cupy.cuda.Stream.from_external(_StreamAt(stream))):
            (block := self._block_on_device()).reflect()
        if queue.is_capturing():
            self._execute(queue)
        else:
            self._network.launch(queue)
        return block.crop(self._output_on_device)

    def close(self) -> None:
        """Release context, graphs and memory; may be called twice, and never raises."""
        if self._stream is not None:
            # A GPU that failed answers every call with its error, and the next runtime must start.
            with suppress(Exception):
                self._wait()
        self._step = self._network = self._event = self._stream = None
        self._context = self._kernels = None  # in this order: the context uses them
        self._on_device = self._output_on_device = self._features_on_device = None
        super().close()

    def _open(self, engine: Engine, shape: tuple[int, int]) -> None:
        import cupy

        expected = self._opened().output_shape
        card = Card.here()
        key = plan_key(engine, shape, self.precision, self.inference_library, card)
        self.device, self.version = card.name, key.runtime.partition(" ")[2]
        plan, self.compiled = _load_or_build(self.inference_library, engine, key, card)
        keep_kernels = self._make_context(plan, key, card)
        self._output_on_device = cupy.zeros(expected, np.float32)
        self._bind(engine, expected)
        self._stream = cupy.cuda.Stream(non_blocking=True)
        self._event = cupy.cuda.Event(block=True, disable_timing=True)
        self._wait = cupy.cuda.runtime.deviceSynchronize
        self._wait()  # for what was zeroed on the default stream
        self._execute(self._stream)  # what TensorRT does once must not become part of the graphs
        self._stream.synchronize()
        keep_kernels()
        # A frame that fails later must not be explained by a cache that was refused.
        logger(self.inference_library).errors.clear()
        self._network = self._captured(self._execute)
        self._step = self._captured(self._copy_and_execute)
        self.infer()

    def _make_context(self, plan: Any, key: PlanKey, card: Card) -> Callable[[], None]:
        """Make what executes the plan; return what is to be called after the first frame."""
        self._context = self._checked(plan.create_execution_context())
        return lambda: None

    def _checked(self, context: Any) -> Any:
        """Return a context; raise BackendError for None, as when its memory was not to be had."""
        if context is None:
            raise BackendError(
                f"{self.inference_library.title} cannot make ready what it has compiled."
                f" {logger(self.inference_library).said()}"
            )
        return context

    def _bind(self, engine: Engine, expected: tuple[int, ...]) -> None:
        """Give the context its memory, by the tensors' names."""
        import cupy

        trt = self.inference_library.load()
        plan = self._context.engine
        for name in (plan.get_tensor_name(i) for i in range(plan.num_io_tensors)):
            shape = tuple(plan.get_tensor_shape(name))
            if plan.get_tensor_mode(name) == trt.TensorIOMode.INPUT:
                array = self._block_on_device().block
            elif name == FEATURES_OUTPUT:
                check_features(engine, math.prod(shape))
                # A plan wants memory for every output, asked for or not.
                array = self._features_on_device = cupy.zeros(shape, np.float32).reshape(-1)
            else:
                check_output(engine, shape, expected)
                array = self._output_on_device
            self._context.set_tensor_address(name, array.data.ptr)
        if self._features is not None and self._features_on_device is None:
            check_features(engine, None)

    def _execute(self, stream: Any) -> None:
        if not self._context.execute_async_v3(stream.ptr):
            raise BackendError(
                f"{self.inference_library.title} failed on a frame."
                f" {logger(self.inference_library).said()}"
            )

    def _copy_and_execute(self, stream: Any) -> None:
        from cupy.cuda import runtime

        block, output = self._opened().block, self._output
        on_device = self._block_on_device().block
        to_device, to_host = runtime.memcpyHostToDevice, runtime.memcpyDeviceToHost
        runtime.memcpyAsync(
            on_device.data.ptr, block.ctypes.data, block.nbytes, to_device, stream.ptr
        )
        self._execute(stream)
        runtime.memcpyAsync(
            output.ctypes.data, self._output_on_device.data.ptr, output.nbytes, to_host, stream.ptr
        )
        if (features := self._features) is not None:
            on_device = self._features_on_device
            runtime.memcpyAsync(
                features.ctypes.data, on_device.data.ptr, features.nbytes, to_host, stream.ptr
            )

    def _captured(self, work: Any) -> Any:
        """Return the graph of what `work` puts on the stream."""
        with self._stream:
            self._stream.begin_capture()
            try:
                work(self._stream)
            finally:
                graph = self._stream.end_capture()
        return graph

    def _block_on_device(self) -> Any:
        if self._on_device is None:
            raise BackendError(f"The {self.name} session is closed.")
        return self._on_device


class TensorRTRTXSession(TensorRTSession):
    """An engine compiled by TensorRT for RTX.

    What is left to compile for the card that is here, when the plan is loaded first, is kept beside
    it.
    """

    name = TensorRTRTXRuntime.name
    inference_library = RTX

    def _make_context(self, plan: Any, key: PlanKey, card: Card) -> Callable[[], None]:
        cache, config = PlanCache(), plan.create_runtime_config()
        kernels = config.create_runtime_cache()
        if (kept := cache.kernels(key, card.name)) and not kernels.deserialize(kept):
            log.info(
                "what was compiled of plan %s was for another driver or version: it is compiled"
                " anew",
                key.name,
            )
        config.set_runtime_cache(kernels)
        self._kernels = config, kernels

        def keep() -> None:
            # A cache that cannot be written costs a start of seconds, no frame.
            with suppress(OSError):
                now = kernels.serialize()
                if now is not None and bytes(now) != kept:
                    cache.store_kernels(key, card.name, bytes(now))

        self._context = self._checked(plan.create_execution_context(config))
        return keep


@dataclass(frozen=True, slots=True)
class Card:
    """A GPU: its name, and its compute capability as in "sm_89"."""

    name: str
    capability: int

    @classmethod
    def here(cls) -> Card:
        """Return the one that computes here; raises BackendError if there is none."""
        cuda = _cuda_runtime()
        about = cuda.getDeviceProperties(cuda.getDevice())
        return cls(about["name"].decode(), 10 * about["major"] + about["minor"])


class _StreamAt:
    """A CUDA stream of somebody else's, by the CUDA stream protocol."""

    def __init__(self, address: int) -> None:
        self._address = address

    def __cuda_stream__(self) -> tuple[int, int]:
        return 0, self._address


def _cuda_runtime() -> Any:
    """Return CuPy's CUDA runtime, proven to see the GPU; raises BackendError if it does not."""
    try:
        from cupy.cuda import runtime

        runtime.memGetInfo()
    except (
        Exception
    ) as e:  # libraries of another CUDA than the driver's, a GPU that fell off the bus
        raise BackendError(
            f"CuPy cannot use the GPU: {e}. Does the package suit the driver (cupy-cuda13x, -12x)?"
        ) from e
    return runtime


def _has_codes(engine: Engine, precision: str) -> bool:
    """Whether the engine's file with Q/DQ nodes is the one to build from."""
    return precision in {"int8", "f8"} and engine.int8_path is not None


def _model(engine: Engine, precision: str) -> bytes:
    return engine.read_int8() if _has_codes(engine, precision) else engine.read()


def plan_key(
    engine: Engine,
    shape: tuple[int, int],
    precision: str,
    library: Library = TENSORRT,
    card: Card | None = None,
) -> PlanKey:
    """Return the key of the plan for frames of `shape` (y, x) on `card`, by default the one that is
    here.

    Raises
    ------
    BackendError
        If there is none.
    """
    card = card or Card.here()
    device = f"sm_{card.capability}" if library.for_cards else f"{card.name}, sm_{card.capability}"
    runtime, size = f"{library.name} {library.load().__version__}", padded_shape(engine, shape)
    weights = engine.manifest.weights
    file = weights.int8 if _has_codes(engine, precision) and weights.int8 else weights.onnx
    return PlanKey(engine.manifest.id, file.sha256, runtime, device, size, precision)


def build_plan(
    engine: Engine,
    key: PlanKey,
    cache: PlanCache,
    library: Library = TENSORRT,
    capability: int | None = None,
    progress: Progress | None = None,
) -> bytes:
    """Compile for `key`, and keep the plan and what the builder measured.

    The rest is as of `tensorrt_build.build`.

    Raises
    ------
    OSError
        If the plan cannot be kept.
    """
    plan, timings = _built(engine, key, cache, library, capability, progress)
    _keep(cache, key, plan, timings, library)
    return plan


def _built(
    engine: Engine,
    key: PlanKey,
    cache: PlanCache,
    library: Library,
    capability: int | None,
    progress: Progress | None = None,
) -> tuple[bytes, bytes]:
    """Return plan and timings of `tensorrt_build.build`."""
    shape = (1, engine.manifest.inputs, *key.shape)
    return build(
        _model(engine, key.precision),
        key.precision,
        shape,
        library,
        capability=capability,
        timings=cache.timings(key),
        progress=progress,
    )


def _keep(cache: PlanCache, key: PlanKey, plan: bytes, timings: bytes, library: Library) -> None:
    """Store what was built a moment ago, with what the builder said of it."""
    cache.store(key, plan, {"figures": figures(library)})
    if timings:
        cache.store_timings(key, timings)


def _load_or_build(
    library: Library, engine: Engine, key: PlanKey, card: Card
) -> tuple[Any, Compiled]:
    """Return the library's engine for `key`, and when it was compiled.

    A plan that it refuses is built anew.
    """
    library.version()
    # The weights' hash is compared at every start, also where their plan is there.
    _model(engine, key.precision)
    runtime, cache, messages = library.load().Runtime(logger(library)), PlanCache(), logger(library)
    messages.errors.clear()
    kept = cache.load(key)
    if kept is not None and (loaded := runtime.deserialize_cuda_engine(kept)):
        return loaded, Compiled(cache.compiled(key) or time.time(), len(kept))
    if kept is not None:
        log.warning(
            "%s refuses the plan %s: it is built anew. %s",
            library.title,
            cache.path(key),
            messages.said(),
        )
        with suppress(OSError):  # it is replaced, or refused once more
            cache.forget(key)
    plan = _built_here(library, engine, key, card, cache)
    if (loaded := runtime.deserialize_cuda_engine(plan)) is None:
        raise BackendError(
            f"{library.title} refuses the plan that it has just built. {messages.said()}"
        )
    return loaded, Compiled(time.time(), len(plan))


def _built_here(
    library: Library, engine: Engine, key: PlanKey, card: Card, cache: PlanCache
) -> bytes:
    """Compile for the card that is here, and keep the plan if that is possible."""
    log.warning(
        "Engine %s is being compiled for %s, once; this takes %s.",
        engine.manifest.id,
        card.name,
        "seconds" if library.for_cards else "minutes",
    )
    named = library.for_cards and card.capability in capabilities(library)
    plan, timings = _built(engine, key, cache, library, card.capability if named else None)
    try:
        _keep(cache, key, plan, timings, library)
    except OSError as e:  # the next start compiles again, and this one goes on
        log.warning("The plan cannot be kept in %s: %s.", cache.folder, e)
    return plan
