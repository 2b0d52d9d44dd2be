"""A network compiled by TensorRT: the part that differs from version to version.

Owns the builder, its flags and its messages. Keeps no plan (`plans.py` does) and runs none (`tensorrt.py` does). `tensorrt`
is imported in the functions.

    11 and later  types are what the file says; the flags for precisions are gone
    10            the same, if the network is made "strongly typed"
    8.6           types are a wish: flags allow FP16 and INT8, and what must stay FP32 is held there layer by layer
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import cache
from typing import Any

from livesr.base.errors import BackendError
from livesr.live.inference.typed_onnx import typed

log = logging.getLogger(__name__)

Progress = Callable[[str, int, int], bool]
"""Called with (what is done, step, steps), from threads of TensorRT; False ends the build."""

PRECISIONS = ("f32", "f16", "int8", "f8")
_STRONGLY_TYPED_SINCE = 10
_OLDEST = (8, 6)


def version() -> tuple[int, int]:
    """Return major and minor version of TensorRT.

    Raises
    ------
    BackendError
        If it is older than 8.6.
    """
    import tensorrt

    major, minor = (int(part) for part in tensorrt.__version__.split(".")[:2])
    if (major, minor) < _OLDEST:
        raise BackendError(
            f"TensorRT {tensorrt.__version__} is too old; livesr needs 8.6 or later. Use --backend torch."
        )
    return major, minor


def build(
    model: bytes, precision: str, shape: tuple[int, ...], *, timings: bytes = b"", progress: Progress | None = None
) -> tuple[bytes, bytes]:
    """Compile an engine's ONNX file for frames of `shape` (1, window, y, x) on the GPU that is here.

    Parameters
    ----------
    timings : what an earlier build returned; damaged or foreign ones are ignored
    progress : told how far it is, where TensorRT says so (10 and later)

    Returns
    -------
    (plan, timings)

    Raises
    ------
    BackendError
        If there is no usable GPU, TensorRT refuses the network, or `progress` ended it.
    """
    import tensorrt as trt

    major, _ = version()
    strongly = major >= _STRONGLY_TYPED_SINCE
    source = typed(model, precision, shape, strongly=strongly)
    messages = logger()
    messages.errors.clear()
    try:
        builder = trt.Builder(messages)
    except TypeError as e:  # what its Python says when its C++ returns nothing
        raise BackendError(f"TensorRT {trt.__version__} finds no GPU that it can use. {messages.said()}") from e
    network = builder.create_network(_network_flags(trt, major))
    parser = trt.OnnxParser(network, messages)
    if not parser.parse(source):
        reasons = " ".join(str(parser.get_error(i)) for i in range(parser.num_errors))
        raise BackendError(f"TensorRT {trt.__version__} cannot read the network. {reasons}")
    config = builder.create_builder_config()
    # Neither cuBLAS nor cuDNN, which convolutions do not need and not every computer has.
    config.set_tactic_sources(_bits(trt.TacticSource.EDGE_MASK_CONVOLUTIONS, trt.TacticSource.JIT_CONVOLUTIONS))
    config.clear_flag(trt.BuilderFlag.TF32)  # 10 bits of mantissa are no f32
    if not strongly:
        _allow(trt, config, network, precision)
    monitor = _watch(trt, config, progress) if progress else None
    _set_timings(config, timings)
    plan = builder.build_serialized_network(network, config)
    del monitor  # TensorRT does not keep it alive
    if plan is None:
        raise BackendError(f"TensorRT {trt.__version__} cannot build the network in {precision}. {messages.said()}")
    cache_now = config.get_timing_cache()
    return bytes(plan), bytes(cache_now.serialize()) if cache_now else b""


@cache
def logger() -> Any:
    """Return the one logger that TensorRT writes to: messages go to this module's, and errors are kept for a sentence."""
    import tensorrt as trt

    class Messages(trt.ILogger):  # type: ignore[misc]
        """Sends TensorRT's messages on."""

        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.errors: list[str] = []

        def log(self, severity: Any, message: str) -> None:
            if severity in (trt.ILogger.ERROR, trt.ILogger.INTERNAL_ERROR):
                self.errors.append(message)
            log.log(logging.INFO if severity != trt.ILogger.VERBOSE else logging.DEBUG, "%s", message)

        def said(self) -> str:
            """Return the first error since the list was cleared, as TensorRT words it."""
            return f"It says: {self.errors[0]}" if self.errors else "It does not say why; see LIVESR_LOG=INFO."

    return Messages()


def _network_flags(trt: Any, major: int) -> int:
    flags = trt.NetworkDefinitionCreationFlag
    if major < _STRONGLY_TYPED_SINCE:
        return _bits(flags.EXPLICIT_BATCH)
    return _bits(flags.STRONGLY_TYPED) if major == _STRONGLY_TYPED_SINCE else 0


def _bits(*flags: Any) -> int:
    return sum(1 << int(flag) for flag in flags)


def _allow(trt: Any, config: Any, network: Any, precision: str) -> None:
    """Weak typing: allow what `precision` names, and hold the last convolution and what follows in FP32."""
    if precision == "f32":
        return
    config.set_flag(trt.BuilderFlag.FP16)
    if precision == "int8":
        config.set_flag(trt.BuilderFlag.INT8)
    config.set_flag(trt.BuilderFlag.OBEY_PRECISION_CONSTRAINTS)
    layers = [network.get_layer(i) for i in range(network.num_layers)]
    last = max((i for i, layer in enumerate(layers) if layer.type == trt.LayerType.CONVOLUTION), default=0)
    untyped = (trt.LayerType.CONSTANT, trt.LayerType.SHAPE, trt.LayerType.CAST)
    for layer in layers[last:]:
        if layer.type not in untyped and layer.get_output(0).dtype in (trt.DataType.FLOAT, trt.DataType.HALF):
            layer.precision = trt.DataType.FLOAT
            layer.set_output_type(0, trt.DataType.FLOAT)


def _set_timings(config: Any, timings: bytes) -> None:
    cache_then = config.create_timing_cache(timings)
    if not (cache_then and config.set_timing_cache(cache_then, False)):
        config.set_timing_cache(config.create_timing_cache(b""), False)


def _watch(trt: Any, config: Any, progress: Progress) -> Any:
    """Tell `progress` what TensorRT reports of its outermost phases; None where it reports nothing (8.6)."""
    if not hasattr(trt, "IProgressMonitor"):
        return None

    class Monitor(trt.IProgressMonitor):  # type: ignore[misc]
        """Called from TensorRT's own threads."""

        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)
            self.steps: dict[str, int] = {}
            self.go_on = True

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            if parent_phase is None:
                self.steps[phase_name] = num_steps

        def step_complete(self, phase_name: str, step: int) -> bool:
            if phase_name in self.steps:
                self.go_on = progress(phase_name, step + 1, self.steps[phase_name]) and self.go_on
            return self.go_on

        def phase_finish(self, phase_name: str) -> None:
            self.steps.pop(phase_name, None)

    config.progress_monitor = monitor = Monitor()
    return monitor
