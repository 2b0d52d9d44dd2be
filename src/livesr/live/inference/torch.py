"""Torch: the reference that every other runtime is compared with.

Owns the graph and its device. Executes model.onnx itself, so that the reference and the engine
cannot drift apart. `torch` and `onnx` are imported in `open()`.
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
    "auto" is f32 on a CPU and f16 on CUDA; "int8" rounds as the integers do, in f32. On a CPU,
    torch allocates its intermediate tensors per frame; only input and output are this backend's
    own. On CUDA everything is one graph, channels-last, and nothing is allocated (`torch_cuda.py`).
    `threads` sets torch's threads, and f32 on CUDA switches TF32 convolutions off, for the whole
    process.
    """

    name = "torch"

    def __init__(self) -> None:
        self.precision = ""
        self.device = ""
        self._padded: PaddedBlock | None = None
        self._graph: Any = None
        self._resident: Any = (
            None  # a ResidentNetwork on CUDA, with the pinned memory that `infer` copies through
        )
        self._pinned: tuple[Any, Any] = (None, None)
        self._output = self._result = np.empty(0, np.float32)

    @classmethod
    def is_unavailable(cls) -> str | None:
        """Return None if torch and onnx are installed, else what to install."""
        missing = [package for package in ("torch", "onnx") if find_spec(package) is None]
        if missing:
            return f"The torch backend needs {' and '.join(missing)}: pip install 'livesr[train]'"
        return None

    @classmethod
    def on_gpu(cls) -> bool:
        """Return whether it would compute on a GPU."""
        if cls.is_unavailable():
            return False
        import torch

        return bool(torch.cuda.is_available())

    @classmethod
    def free_bytes(cls) -> int:
        """Return the free memory of the CUDA device if there is one, else of this computer."""
        import torch

        if torch.cuda.is_available():
            return int(torch.cuda.mem_get_info()[0])
        return int(psutil.virtual_memory().available)

    def open(
        self, engine: Engine, shape: tuple[int, int], *, precision: str = "auto", threads: int = 0
    ) -> None:
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
        self.device = (
            torch.cuda.get_device_name() if cuda else f"CPU, {torch.get_num_threads()} threads"
        )
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
        if cuda:
            self._place_on_gpu(engine, shape)

    def _place_on_gpu(self, engine: Engine, shape: tuple[int, int]) -> None:
        """Make block, graph and output on the GPU, and page-locked memory to reach them through."""
        import torch

        from livesr.live.inference.torch_cuda import ResidentNetwork

        def page_locked(shape: tuple[int, ...], dtype: Any = np.float32) -> NDArray[np.float32]:
            block: NDArray[np.float32] = torch.zeros(shape, pin_memory=True).numpy()
            return block

        self._padded = PaddedBlock(engine, shape, page_locked)
        self._output = page_locked(self._padded.output_shape)
        self._result = self._padded.crop(self._output)
        self._pinned = torch.from_numpy(self._padded.block), torch.from_numpy(self._output)
        try:
            self._resident = ResidentNetwork(self._graph, engine, shape, "cuda")
        except RuntimeError as e:
            raise BackendError(f"Torch cannot run engine {engine.manifest.id!r}: {e}") from e

    @property
    def device_input(self) -> Any:
        """Tensor (window, y, x) on the GPU that `enqueue` reads; None on a CPU."""
        return None if self._resident is None else self._resident.frames

    def enqueue(self, stream: int) -> Any:
        """Enqueue the network on the CUDA stream at address `stream`, for the current
        `device_input`; see `ResidentBackend`.
        """
        if self._resident is None:
            raise BackendError("The torch backend is not open on a GPU.")
        return self._resident.enqueue(stream)

    @property
    def input(self) -> NDArray[np.float32]:
        """The (window, y, x) block that `infer` reads."""
        return self._opened().frames

    def infer(self) -> NDArray[np.float32]:
        """Return (c, scale y, scale x) for the current `input`; overwritten by the next call."""
        padded = self._opened()
        if self._resident is None:
            padded.reflect()
            self._output[...] = self._run()
        else:
            self._infer_on_gpu()
        return self._result

    def _infer_on_gpu(self) -> None:
        import torch

        self._resident.infer(*self._pinned)
        done = torch.cuda.Event(blocking=True)  # a thread that spins takes a core from the camera
        done.record()
        done.synchronize()

    def close(self) -> None:
        """Release graph and buffers."""
        if self._resident is not None:
            self._resident.settle()
        self._graph = self._padded = self._resident = None
        self._pinned = None, None
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
                f"The network of engine {engine.manifest.id!r} returns {found}, and its manifest"
                f" says {self._output.shape} (1, channels, y, x). Correct the manifest, or export"
                " it anew."
            )

    def _opened(self) -> PaddedBlock:
        if self._padded is None:
            raise BackendError("The torch backend is not open; call open() first.")
        return self._padded


def _choose_precision(asked: str, where: str) -> str:
    if asked == "auto":
        return "f16" if where == "cuda" else "f32"
    if asked == "f8":
        raise BackendError(
            "Torch computes in f32, bf16, f16 or int8, not in 'f8'. Use --precision auto."
        )
    if asked == "f16" and where == "cpu":
        raise BackendError(
            "Torch computes in f32 or bf16 on a CPU, not in 'f16'. Use --precision auto."
        )
    return asked
