"""A network compiled by TensorRT or TensorRT for RTX.

The part that differs between the libraries and their versions.

Owns the builder, its flags and its messages. Keeps no plan (`plans.py` does) and runs none
(`tensorrt.py` does). The libraries are imported in the functions.

    for RTX       types are the file's; a compute capability is named, no GPU needed
    11 and later  types are what the file says; the flags for precisions are gone
    10            the same, if the network is made "strongly typed"
    8.6           types are a hint: flags allow FP16 and INT8, FP32 is held layer by layer
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from typing import Any

from livesr.base.errors import BackendError
from livesr.live.inference.runtime import Precision

log = logging.getLogger(__name__)

Progress = Callable[[str, int, int], bool]
"""Called with (what is done, step, steps), from threads of TensorRT; False ends the build."""

PRECISIONS: tuple[Precision, ...] = ("f16", "f32", "int8", "f8")
_STRONGLY_TYPED_SINCE = 10
_FIGURES = {
    "frame_bytes": re.compile(r"Total Activation Memory: (\d+) bytes"),
    "weight_bytes": re.compile(r"Total Weights Memory: (\d+) bytes"),
}


@dataclass(frozen=True, slots=True)
class Library:
    """One of the two inference libraries, whose Python is nearly the same.

    Attributes
    ----------
    name : of the backend
    module : to import
    title : in sentences
    oldest : version that livesr can use, (major, minor)
    for_cards : whether it compiles for a compute capability that is named, without a GPU, and
        finishes on the user's card; else it compiles for the GPU that is here
    """

    name: str
    module: str
    title: str
    oldest: tuple[int, int]
    for_cards: bool = False

    def load(self) -> Any:
        """Import it."""
        return import_module(self.module)

    def version(self) -> tuple[int, int]:
        """Return its major and minor version.

        Raises
        ------
        BackendError
            If it is too old.
        """
        came = self.load().__version__
        major, minor = (int(part) for part in came.split(".")[:2])
        if (major, minor) < self.oldest:
            raise BackendError(
                f"{self.title} {came} is too old; livesr needs {self.oldest[0]}.{self.oldest[1]} or"
                " later. Use --backend torch."
            )
        return major, minor

    @property
    def said_version(self) -> str:
        """Name and version in a sentence: "TensorRT for RTX 1.7.1.116"."""
        return f"{self.title} {self.load().__version__}"

    def strongly_typed(self) -> bool:
        """Whether types are what the file says."""
        return self.for_cards or self.version()[0] >= _STRONGLY_TYPED_SINCE


TENSORRT = Library("tensorrt", "tensorrt", "TensorRT", (8, 6))
RTX = Library("tensorrt-rtx", "tensorrt_rtx", "TensorRT for RTX", (1, 2), for_cards=True)


def build(
    model: bytes,
    precision: str,
    shape: tuple[int, ...],
    library: Library = TENSORRT,
    *,
    capability: int | None = None,
    timings: bytes = b"",
    progress: Progress | None = None,
) -> tuple[bytes, bytes]:
    """Compile an engine's ONNX file for frames of `shape` (1, window, y, x).

    Parameters
    ----------
    capability : compute capability to compile for, such as 89, with a library that does so without
        a GPU; None is that of the GPU that is here
    timings : what an earlier build returned; damaged or foreign ones are ignored
    progress : told how far it is, where TensorRT says so (10 and later)

    Returns
    -------
    (plan, timings)

    Raises
    ------
    BackendError
        If there is no usable GPU, the library refuses the network or does not know the card, or
        `progress` ended it.
    """
    from livesr.live.inference.typed_onnx import typed

    trt, strongly, title = library.load(), library.strongly_typed(), library.said_version
    source = typed(model, precision, shape, strongly=strongly)
    messages = logger(library)
    messages.errors.clear()
    messages.figures.clear()
    try:
        builder = trt.Builder(messages)
    except TypeError as e:  # what its Python says when its C++ returns nothing
        raise BackendError(f"{title} finds no GPU that it can use. {messages.said()}") from e
    network = builder.create_network(_network_flags(trt, library))
    parser = trt.OnnxParser(network, messages)
    if not parser.parse(source):
        reasons = " ".join(str(parser.get_error(i)) for i in range(parser.num_errors))
        raise BackendError(f"{title} cannot read the network. {reasons}")
    messages.figures["layers"] = network.num_layers
    config = builder.create_builder_config()
    config.clear_flag(trt.BuilderFlag.TF32)  # 10 bits of mantissa are no f32
    if library.for_cards:
        _aim(trt, config, capability, title)
    else:
        # Neither cuBLAS nor cuDNN, which convolutions do not need and not every computer has.
        config.set_tactic_sources(
            _bits(trt.TacticSource.EDGE_MASK_CONVOLUTIONS, trt.TacticSource.JIT_CONVOLUTIONS)
        )
        _set_timings(config, timings)
    if not strongly:
        _allow(trt, config, network, precision)
    monitor = _watch(trt, config, progress) if progress else None
    plan = builder.build_serialized_network(network, config)
    del monitor  # the builder does not keep it alive
    if plan is None:
        raise BackendError(f"{title} cannot build the network in {precision}. {messages.said()}")
    cache_now = None if library.for_cards else config.get_timing_cache()
    return bytes(plan), bytes(cache_now.serialize()) if cache_now else b""


def figures(library: Library = TENSORRT) -> dict[str, int]:
    """Return what the builder said of the network that it built last.

    `layers` before it fused them, `frame_bytes` of the GPU's memory for what lies between them
    while a frame is computed, `weight_bytes`; those that this version says.
    """
    return dict(logger(library).figures)


def capabilities(library: Library = RTX) -> tuple[int, ...]:
    """Return the compute capabilities that `library` compiles for without a GPU, such as 89."""
    known = getattr(library.load(), "ComputeCapability", None)
    names = known.__members__ if known else ()
    return tuple(sorted(int(name[2:]) for name in names if name.startswith("SM")))


def _aim(trt: Any, config: Any, capability: int | None, title: str) -> None:
    """Let the builder compile for a compute capability, or for the GPU that is here."""
    config.num_compute_capabilities = 1
    if capability is None:
        config.set_compute_capability(trt.ComputeCapability.CURRENT, 0)
        return
    if (known := getattr(trt.ComputeCapability, f"SM{capability}", None)) is None:
        raise BackendError(
            f"{title} does not know compute capability {capability}; it compiles for"
            f" {', '.join(map(str, capabilities()))}."
        )
    config.set_compute_capability(known, 0)


@cache
def logger(library: Library = TENSORRT) -> Any:
    """Return the one logger that `library` writes to.

    Messages go to this module's; errors are kept for a sentence, and figures for `figures`.
    """
    trt = library.load()

    class Messages(trt.ILogger):  # type: ignore[misc, name-defined]
        """Sends the library's messages on."""

        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.errors: list[str] = []
            self.figures: dict[str, int] = {}

        def log(self, severity: Any, message: str) -> None:
            if severity in (trt.ILogger.ERROR, trt.ILogger.INTERNAL_ERROR):
                self.errors.append(message)
            if severity == trt.ILogger.INFO:
                for name, pattern in _FIGURES.items():
                    if match := pattern.search(message):
                        self.figures[name] = int(match[1])
            log.log(
                logging.INFO if severity != trt.ILogger.VERBOSE else logging.DEBUG, "%s", message
            )

        def said(self) -> str:
            """Return the first error since the list was cleared, as the library words it."""
            return (
                f"It says: {self.errors[0]}"
                if self.errors
                else "It does not say why; see LIVESR_LOG=INFO."
            )

    return Messages()


def _network_flags(trt: Any, library: Library) -> int:
    flags, major = trt.NetworkDefinitionCreationFlag, library.version()[0]
    if library.for_cards:  # strongly typed as the newest
        return 0
    if major < _STRONGLY_TYPED_SINCE:
        return _bits(flags.EXPLICIT_BATCH)
    return _bits(flags.STRONGLY_TYPED) if major == _STRONGLY_TYPED_SINCE else 0


def _bits(*flags: Any) -> int:
    return sum(1 << int(flag) for flag in flags)


def _allow(trt: Any, config: Any, network: Any, precision: str) -> None:
    """Weak typing: allow what `precision` names, and hold the last convolution of what is drawn and
    what follows in FP32.
    """
    if precision == "f32":
        return
    config.set_flag(trt.BuilderFlag.FP16)
    if precision == "int8":
        config.set_flag(trt.BuilderFlag.INT8)
    config.set_flag(trt.BuilderFlag.OBEY_PRECISION_CONSTRAINTS)
    layers = [network.get_layer(i) for i in range(network.num_layers)]
    untyped = (trt.LayerType.CONSTANT, trt.LayerType.SHAPE, trt.LayerType.CAST)
    for layer in layers[_last_drawing(trt, network, layers) :]:
        if layer.type not in untyped and layer.get_output(0).dtype in (
            trt.DataType.FLOAT,
            trt.DataType.HALF,
        ):
            layer.precision = trt.DataType.FLOAT
            layer.set_output_type(0, trt.DataType.FLOAT)


def _last_drawing(trt: Any, network: Any, layers: list[Any]) -> int:
    """Return the place of the last convolution from which the first output follows, 0 without."""
    wanted = {network.get_output(0).name}
    for i in reversed(range(len(layers))):
        layer = layers[i]
        if any(layer.get_output(k).name in wanted for k in range(layer.num_outputs)):
            if layer.type == trt.LayerType.CONVOLUTION:
                return i
            inputs = (layer.get_input(k) for k in range(layer.num_inputs))
            wanted.update(tensor.name for tensor in inputs if tensor is not None)
    return 0


def _set_timings(config: Any, timings: bytes) -> None:
    cache_then = config.create_timing_cache(timings)
    if not (cache_then and config.set_timing_cache(cache_then, False)):
        config.set_timing_cache(config.create_timing_cache(b""), False)


def _watch(trt: Any, config: Any, progress: Progress) -> Any:
    """Tell `progress` what TensorRT reports of its outermost phases.

    None where it reports nothing (8.6).
    """
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
