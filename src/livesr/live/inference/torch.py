"""Torch: the reference that every other runtime is compared with.

Owns the graph and its device. Executes model.onnx itself, so that the reference and the engine cannot drift apart.
`torch` and `onnx` are imported in `open()`.
"""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

import numpy as np
import psutil
from numpy.typing import NDArray

from livesr.base.errors import BackendError, EngineError
from livesr.live.inference.engine import Engine
from livesr.live.inference.padding import PaddedBlock


class TorchBackend:
    """An engine's graph, run node by node on CUDA if there is a device, else on the CPU.

    Notes
    -----
    "auto" is f32 on a CPU and f16 on CUDA; "int8" rounds as the integers do, in f32. Torch allocates its intermediate tensors
    per frame; only input and output are this backend's own. `threads` sets torch's threads, and f32 on CUDA switches TF32
    convolutions off, for the whole process.
    """

    name = "torch"

    def __init__(self) -> None:
        self.precision = ""
        self.device = ""
        self._padded: PaddedBlock | None = None
        self._graph: Any = None
        self._output = self._result = np.empty(0, np.float32)

    @classmethod
    def is_unavailable(cls) -> str | None:
        """Return None if torch and onnx are installed, else what to install."""
        missing = [package for package in ("torch", "onnx") if find_spec(package) is None]
        if missing:
            return f"The torch backend needs {' and '.join(missing)}: pip install 'livesr[train]'"
        return None

    @classmethod
    def free_bytes(cls) -> int:
        """Return the free memory of the CUDA device if there is one, else of this computer."""
        import torch

        if torch.cuda.is_available():
            return int(torch.cuda.mem_get_info()[0])
        return int(psutil.virtual_memory().available)

    def open(self, engine: Engine, shape: tuple[int, int], *, precision: str = "auto", threads: int = 0) -> None:
        """Read the graph for frames of `shape` (y, x) and run once.

        Raises
        ------
        BackendError
            If torch or onnx is missing, or the device has no such precision.
        EngineError
            If the network cannot be read, or is not what the manifest says.
        """
        if reason := self.is_unavailable():
            raise BackendError(reason)
        import torch

        from livesr.live.inference.onnx_graph import OnnxGraph

        if threads:
            torch.set_num_threads(threads)
        cuda = torch.cuda.is_available()
        where = "cuda" if cuda else "cpu"
        self.device = torch.cuda.get_device_name() if cuda else f"CPU, {torch.get_num_threads()} threads"
        self.precision = _choose_precision(precision, where)
        if cuda and self.precision == "f32":
            torch.backends.cudnn.allow_tf32 = False  # TF32 has 10 bits of mantissa: no reference
        dtype = {"bf16": torch.bfloat16, "f16": torch.float16}.get(self.precision, torch.float32)
        model = engine.read_int8() if self.precision == "int8" else engine.read()
        self._graph = OnnxGraph(model, where, dtype)
        self._padded = PaddedBlock(engine, shape)
        self._output = np.zeros(self._padded.output_shape, np.float32)
        self._result = self._padded.crop(self._output)
        self._warm_up(engine)

    @property
    def input(self) -> NDArray[np.float32]:
        """The (window, y, x) block that `infer` reads."""
        return self._opened().frames

    def infer(self) -> NDArray[np.float32]:
        """Return (c, scale y, scale x) for the current `input`; overwritten by the next call."""
        self._opened().reflect()
        self._output[...] = self._run()
        return self._result

    def close(self) -> None:
        """Release graph and buffers."""
        self._graph = self._padded = None
        self._output = self._result = np.empty(0, np.float32)

    def _run(self) -> NDArray[np.float32]:
        output: NDArray[np.float32] = self._graph.run(self._opened().block)
        return output

    def _warm_up(self, engine: Engine) -> None:
        try:
            found = self._run().shape
        except RuntimeError as e:
            raise BackendError(f"Torch cannot run engine {engine.manifest.id!r}: {e}") from e
        if found != self._output.shape:
            raise EngineError(
                f"The network of engine {engine.manifest.id!r} returns {found}, and its manifest says "
                f"{self._output.shape} (1, channels, y, x). Correct the manifest, or export it anew."
            )

    def _opened(self) -> PaddedBlock:
        if self._padded is None:
            raise BackendError("The torch backend is not open; call open() first.")
        return self._padded


def _choose_precision(asked: str, where: str) -> str:
    if asked == "auto":
        return "f16" if where == "cuda" else "f32"
    if asked == "f8":
        raise BackendError("Torch computes in f32, bf16, f16 or int8, not in 'f8'. Use --precision auto.")
    if asked == "f16" and where == "cpu":
        raise BackendError("Torch computes in f32 or bf16 on a CPU, not in 'f16'. Use --precision auto.")
    return asked
