"""OpenVINO: the default on CPUs.

Owns the compiled network and its tensors. `openvino` is imported where it is asked or opened.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Mapping
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import numpy as np
import psutil

from livesr.base.compute import ComputeConfig
from livesr.base.errors import BackendError
from livesr.live.inference.engine import Engine
from livesr.live.inference.padding import (
    PaddedBlock,
    PaddedSession,
    check_features,
    check_output,
)
from livesr.live.inference.runtime import Precision, Runtime
from livesr.live.inference.session import Compiled, InferenceSession

# How a layer says that its precision must not be lowered: up to 2025, and since 2026 (openvino pull
# request 34311).
_F32_MARKS = (
    {"name": "precise", "version": "0"},
    {"name": "DisablePrecisionConversion", "version": "0", "value": "dynamic:bf16,f16"},
)
_CAPABILITY: dict[Precision, str] = {"f32": "FP32", "bf16": "BF16", "f16": "FP16", "int8": "INT8"}


class OpenVINORuntime(Runtime):
    """OpenVINO on this computer's processor.

    Notes
    -----
    "auto" computes in bf16 where the CPU multiplies it in hardware (AVX512-BF16 or AMX; AMD too),
    there in int8 if the engine has a file for it, and else in f32.
    """

    name = "openvino"
    title = "OpenVINO"

    def unavailable(self) -> str | None:
        """Return None if OpenVINO is installed, else what to install."""
        if find_spec("openvino") is None:
            return "OpenVINO is not installed, although livesr asks for it: pip install openvino"
        return None

    @property
    def precisions(self) -> tuple[Precision, ...]:
        """What this CPU computes in."""
        return tuple(name for name, known in _CAPABILITY.items() if known in _cpu()[1])

    @property
    def devices(self) -> tuple[str, ...]:
        """The processor's name."""
        return (_cpu()[0],)

    def preferred(self, engine: Engine | None) -> Precision:
        """Return bf16 or int8 where the CPU is fast in them, else f32."""
        if "bf16" not in self.precisions:
            return "f32"
        # OpenVINO claims int8 everywhere; a CPU that multiplies bf16 also multiplies int8, twice as
        # fast.
        return "int8" if engine and engine.int8_path else "bf16"

    def free_bytes(self) -> int:
        """Return the free memory of this computer."""
        return int(psutil.virtual_memory().available)

    def open(
        self, engine: Engine, shape: tuple[int, int], compute: ComputeConfig
    ) -> InferenceSession:
        """Compile for frames of `shape` (y, x) and run once; errors as of `Runtime.open`."""
        if reason := self.unavailable():
            raise BackendError(reason)
        precision = self.choose_precision(compute.precision, engine)
        between = self.preferred(None) if precision == "int8" else precision
        return OpenVINOSession(
            engine, shape, precision, _hints(between, compute.threads), self.devices[0]
        )


class OpenVINOSession(PaddedSession):
    """An engine compiled for this CPU and one frame size.

    Parameters
    ----------
    engine, shape : as of `Runtime.open`
    precision : of the session
    hints : what OpenVINO is told of precision and threads
    device : in words

    Notes
    -----
    In bf16 activations and weights are rounded to 8 bits of mantissa and summed in f32. In int8 the
    convolutions named in the file multiply integers, and what lies between them is bf16 or f32, as
    the CPU has it. What follows the last convolution stays in f32, and so does that itself, unless
    a softmax makes shares of what it gives. It reads the input block and fills the output in place:
    nothing is copied or allocated per frame. Nothing is cached on disk: compiling the light network
    takes half a second.
    """

    name = OpenVINORuntime.name

    def __init__(
        self,
        engine: Engine,
        shape: tuple[int, int],
        precision: Precision,
        hints: Mapping[str, Any],
        device: str,
    ) -> None:
        import openvino

        super().__init__(engine, shape)
        self.precision, self.device = precision, device
        self.version = openvino.__version__
        core, padded = openvino.Core(), self._opened()
        model = engine.read_int8() if precision == "int8" else engine.read()
        try:
            request = _compile(core, engine, core.read_model(model), padded, hints)
        except RuntimeError as e:
            raise BackendError(
                f"OpenVINO refuses engine {engine.manifest.id!r}: {_first_line(e)}"
            ) from e
        self.compiled = Compiled(time.time())
        request.set_input_tensor(openvino.Tensor(padded.block, shared_memory=True))
        request.set_output_tensor(0, openvino.Tensor(self._output, shared_memory=True))
        if self._features is not None:
            features = self._features.reshape(1, -1, 1, 1)
            request.set_output_tensor(1, openvino.Tensor(features, shared_memory=True))
        self._request: Any = request
        self.infer()

    def close(self) -> None:
        """Release the compiled network and the buffers."""
        self._request = None
        super().close()

    def _run(self, padded: PaddedBlock) -> None:
        self._request.infer(share_outputs=True)  # else it copies what is in `_output` already


@cache
def _cpu() -> tuple[str, frozenset[str]]:
    """Return name and capabilities of the processor, in OpenVINO's words."""
    import openvino

    core = openvino.Core()
    name = str(core.get_property("CPU", "FULL_DEVICE_NAME")).strip()
    return name, frozenset(core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"))


def _hints(precision: Precision, threads: int) -> dict[str, Any]:
    hints: dict[str, Any] = {
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_PRECISION_HINT": precision,
        # Pinned, the first thread of every process is on the first core: two runs would share it.
        "ENABLE_CPU_PINNING": False,
    }
    return hints | ({"INFERENCE_NUM_THREADS": threads} if threads else {})


def _compile(
    core: Any, engine: Engine, model: Any, padded: PaddedBlock, hints: Mapping[str, Any]
) -> Any:
    model.reshape(list(padded.block.shape))
    found, *more = (tuple(o.get_partial_shape().get_min_shape()) for o in model.outputs)
    check_output(engine, found, padded.output_shape)
    check_features(engine, more[0][1] if more else None)
    if hints["INFERENCE_PRECISION_HINT"] != "f32":
        model = _keep_last_convolution_f32(core, model)
    return core.compile_model(model, "CPU", dict(hints)).create_infer_request()


def _keep_last_convolution_f32(core: Any, model: Any) -> Any:
    """Mark the last convolution so that the precision hint passes it by.

    OpenVINO leaves what follows the last convolution in f32 on its own. The mark for the
    convolution itself is a run-time attribute that Python can set only in the serialised network.

    One whose result a softmax turns into shares of the light needs none: in f32 it took 9 % of an
    int8 inference of the light engine, and its mean PCC on 520 composites of real images is the
    same to four digits.
    """
    import openvino

    drawn = openvino.Model([model.output(0).get_node()], model.get_parameters(), "drawn")
    steps = [(op.get_type_name(), op.get_friendly_name()) for op in drawn.get_ordered_ops()]
    last = max((i for i, (kind, _) in enumerate(steps) if kind == "Convolution"), default=None)
    if last is None or "Softmax" in {kind for kind, _ in steps[last:]}:
        return model
    with tempfile.TemporaryDirectory() as folder:
        xml, weights = Path(folder, "model.xml"), Path(folder, "model.bin")
        openvino.serialize(model, xml, weights)
        marked = _with_mark(xml.read_text(encoding="utf-8"), steps[last][1])
        return core.read_model(marked, openvino.Tensor(np.fromfile(weights, np.uint8)))


def _with_mark(xml: str, layer_name: str) -> bytes:
    root = ET.fromstring(xml)  # noqa: S314 - OpenVINO wrote it a moment ago
    for layer in root.iter("layer"):
        if layer.get("name") == layer_name:
            info = layer.find("rt_info")
            if info is None:
                info = ET.Element("rt_info")
                layer.insert(1 if layer.find("data") is not None else 0, info)
            for mark in _F32_MARKS:
                ET.SubElement(info, "attribute", mark)
    return ET.tostring(root)


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__
