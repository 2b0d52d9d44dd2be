"""OpenVINO: the default on CPUs.

Owns the compiled network and its tensors. `openvino` is imported in `open()`.
"""

from __future__ import annotations

import tempfile
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import numpy as np
import psutil
from numpy.typing import NDArray

from livesr.base.errors import BackendError, EngineError
from livesr.live.inference.engine import Engine
from livesr.live.inference.padding import PaddedBlock

# How a layer says that its precision must not be lowered: up to 2025, and since 2026 (openvino pull
# request 34311).
_F32_MARKS = (
    {"name": "precise", "version": "0"},
    {"name": "DisablePrecisionConversion", "version": "0", "value": "dynamic:bf16,f16"},
)
_CAPABILITY = {"f32": "FP32", "bf16": "BF16", "f16": "FP16", "int8": "INT8"}


class OpenVINOBackend:
    """An engine compiled for this CPU and one frame size.

    Notes
    -----
    "auto" computes in bf16 where the CPU multiplies it in hardware (AVX512-BF16 or AMX; AMD too),
    there in int8 if the engine has a file for it, and else in f32. In bf16 activations and weights
    are rounded to 8 bits of mantissa and summed in f32. In int8 the convolutions named in the file
    multiply integers, and what lies between them is bf16 or f32, as the CPU has it. The last
    convolution and what follows it stay in f32. It reads the input block and fills the output in
    place: nothing is copied or allocated per frame. Nothing is cached on disk: compiling the light
    network takes half a second.
    """

    name = "openvino"

    def __init__(self) -> None:
        self.precision = ""
        self.device = ""
        self._padded: PaddedBlock | None = None
        self._request: Any = None
        self._output = self._result = np.empty(0, np.float32)

    @classmethod
    def is_unavailable(cls) -> str | None:
        """Return None if OpenVINO is installed, else what to install."""
        if find_spec("openvino") is None:
            return "OpenVINO is not installed, although livesr asks for it: pip install openvino"
        return None

    @classmethod
    def free_bytes(cls) -> int:
        """Return the free memory of this computer."""
        return int(psutil.virtual_memory().available)

    def open(
        self, engine: Engine, shape: tuple[int, int], *, precision: str = "auto", threads: int = 0
    ) -> None:
        """Compile for frames of `shape` (y, x) and run once.

        Raises
        ------
        BackendError
            If OpenVINO is missing, refuses the network or has no such precision on this CPU.
        EngineError
            If the network is not what the manifest says.
        """
        if reason := self.is_unavailable():
            raise BackendError(reason)
        import openvino

        core = openvino.Core()
        self.device = str(core.get_property("CPU", "FULL_DEVICE_NAME")).strip()
        capabilities = core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
        self.precision = _choose_precision(precision, capabilities, engine)
        between = (
            _choose_precision("auto", capabilities) if self.precision == "int8" else self.precision
        )
        padded = PaddedBlock(engine, shape)
        model = engine.read_int8() if self.precision == "int8" else engine.read()
        try:
            request = _compile(core, engine, core.read_model(model), padded, between, threads)
        except RuntimeError as e:
            raise BackendError(
                f"OpenVINO refuses engine {engine.manifest.id!r}: {_first_line(e)}"
            ) from e
        self._output = np.zeros(padded.output_shape, np.float32)
        request.set_input_tensor(openvino.Tensor(padded.block, shared_memory=True))
        request.set_output_tensor(openvino.Tensor(self._output, shared_memory=True))
        self._padded, self._request, self._result = padded, request, padded.crop(self._output)
        self.infer()

    @property
    def input(self) -> NDArray[np.float32]:
        """The (window, y, x) block that `infer` reads."""
        return self._opened().frames

    def infer(self) -> NDArray[np.float32]:
        """Return (c, scale y, scale x) for the current `input`; overwritten by the next call."""
        self._opened().reflect()
        self._request.infer(share_outputs=True)  # else it copies what is in `_output` already
        return self._result

    def close(self) -> None:
        """Release the compiled network and the buffers."""
        self._request = self._padded = None
        self._output = self._result = np.empty(0, np.float32)

    def _opened(self) -> PaddedBlock:
        if self._padded is None:
            raise BackendError("The OpenVINO backend is not open; call open() first.")
        return self._padded


def _choose_precision(asked: str, capabilities: list[str], engine: Engine | None = None) -> str:
    if asked == "auto":
        if _CAPABILITY["bf16"] not in capabilities:
            return "f32"
        # OpenVINO claims int8 everywhere; a CPU that multiplies bf16 also multiplies int8, twice as
        # fast.
        return "int8" if engine and engine.int8_path else "bf16"
    if _CAPABILITY.get(asked) not in capabilities:
        can = ", ".join(
            name for name, capability in _CAPABILITY.items() if capability in capabilities
        )
        raise BackendError(
            f"This CPU does not compute in {asked!r} with OpenVINO. It has: {can}. Use --precision"
            " auto."
        )
    return asked


def _compile(
    core: Any, engine: Engine, model: Any, padded: PaddedBlock, precision: str, threads: int
) -> Any:
    model.reshape(list(padded.block.shape))
    _check_output(
        engine, tuple(model.output().get_partial_shape().get_min_shape()), padded.output_shape
    )
    if precision != "f32":
        model = _keep_last_convolution_f32(core, model)
    hints: dict[str, Any] = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": precision}
    if threads:
        hints["INFERENCE_NUM_THREADS"] = threads
    return core.compile_model(model, "CPU", hints).create_infer_request()


def _check_output(engine: Engine, found: tuple[int, ...], expected: tuple[int, ...]) -> None:
    if found != expected:
        raise EngineError(
            f"The network of engine {engine.manifest.id!r} returns {found}, and its manifest says"
            f" {expected} (1, channels, y, x). Correct channels, scale or multiple_of in the"
            " manifest, or export it anew."
        )


def _keep_last_convolution_f32(core: Any, model: Any) -> Any:
    """Mark the last convolution so that the precision hint passes it by.

    OpenVINO leaves what follows the last convolution in f32 on its own. The mark for the
    convolution itself is a run-time attribute that Python can set only in the serialised network.
    """
    import openvino

    convolutions = [op for op in model.get_ordered_ops() if op.get_type_name() == "Convolution"]
    if not convolutions:
        return model
    with tempfile.TemporaryDirectory() as folder:
        xml, weights = Path(folder, "model.xml"), Path(folder, "model.bin")
        openvino.serialize(model, xml, weights)
        marked = _with_mark(xml.read_text(encoding="utf-8"), convolutions[-1].get_friendly_name())
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
