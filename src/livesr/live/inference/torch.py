"""Torch: the reference that every other runtime is compared with.

Owns the graph and its device. Executes model.onnx itself, so that the reference and the engine
cannot drift apart. `torch` and `onnx` are imported where they are asked or opened.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

import numpy as np
import psutil
from numpy.typing import NDArray

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
from livesr.live.inference.session import InferenceSession, Resident


class TorchRuntime(Runtime):
    """Torch on CUDA if there is a device, else on the CPU.

    Notes
    -----
    "auto" is f32 on a CPU and f16 on CUDA; "int8" rounds as the integers do, in f32. `threads` sets
    torch's threads, and f32 on CUDA switches TF32 convolutions off, for the whole process.
    """

    name = "torch"
    title = "Torch"

    def unavailable(self) -> str | None:
        """Return None if torch and onnx are installed, else what to install."""
        missing = [package for package in ("torch", "onnx") if find_spec(package) is None]
        if missing:
            return f"The torch backend needs {' and '.join(missing)}: pip install 'livesr[train]'"
        return None

    @property
    def precisions(self) -> tuple[Precision, ...]:
        """f16 is for GPUs: a CPU has to convert it."""
        return ("f16", "f32", "bf16", "int8") if self.resident else ("f32", "bf16", "int8")

    @property
    def devices(self) -> tuple[str, ...]:
        """The GPU that it computes on if there is one, and the CPU."""
        import torch

        cpu = f"CPU, {torch.get_num_threads()} threads"
        return (torch.cuda.get_device_name(), cpu) if self.resident else (cpu,)

    @property
    def resident(self) -> bool:
        """Whether it computes on a GPU."""
        if self.unavailable():
            return False
        import torch

        return bool(torch.cuda.is_available())

    def free_bytes(self) -> int:
        """Return the free memory of the CUDA device if there is one, else of this computer."""
        if not self.resident:
            return int(psutil.virtual_memory().available)
        import torch

        return int(torch.cuda.mem_get_info()[0])

    def open(
        self, engine: Engine, shape: tuple[int, int], compute: ComputeConfig
    ) -> InferenceSession:
        """Read the graph for frames of `shape` (y, x) and run once; errors as of
        `Runtime.open`.
        """
        if reason := self.unavailable():
            raise BackendError(reason)
        import torch

        if compute.threads:
            torch.set_num_threads(compute.threads)
        precision = self.choose_precision(compute.precision, engine)
        session: Callable[..., InferenceSession] = (
            TorchCudaSession if self.resident else TorchSession
        )
        try:
            return session(engine, shape, precision, self.devices[0])
        except RuntimeError as e:
            raise BackendError(f"Torch cannot run engine {engine.manifest.id!r}: {e}") from e


class TorchSession(PaddedSession):
    """An engine's graph, run node by node on the CPU.

    Torch allocates its intermediate tensors per frame; only input and output are the session's own.

    Parameters
    ----------
    engine, shape : as of `Runtime.open`
    precision : of the session
    device : in words
    """

    name = TorchRuntime.name

    def __init__(
        self, engine: Engine, shape: tuple[int, int], precision: Precision, device: str
    ) -> None:
        super().__init__(engine, shape)
        self.precision, self.device, self.version = precision, device, _version()
        self._graph: Any = _checked_graph(engine, precision, "cpu", self._opened())

    def close(self) -> None:
        """Release graph and buffers."""
        self._graph = None
        super().close()

    def _run(self, padded: PaddedBlock) -> None:
        self._output[...] = self._graph.run(padded.block)
        if self._features is not None:
            self._features[...] = self._graph.features.numpy()


class TorchCudaSession(PaddedSession):
    """An engine's graph on the GPU: one CUDA graph, channels-last, and nothing is allocated.

    Parameters as of `TorchSession`. The memory of the host is page-locked.
    """

    name = TorchRuntime.name

    def __init__(
        self, engine: Engine, shape: tuple[int, int], precision: Precision, device: str
    ) -> None:
        import torch

        from livesr.live.inference.torch_cuda import ResidentNetwork

        super().__init__(engine, shape, _page_locked)
        self.precision, self.device, self.version = precision, device, _version()
        if precision == "f32":
            torch.backends.cudnn.allow_tf32 = False  # TF32 has 10 bits of mantissa: no reference
        padded = self._opened()
        graph = _checked_graph(engine, precision, "cuda", padded)
        self._pinned = tuple(
            None if array is None else torch.from_numpy(array)
            for array in (padded.block, self._output, self._features)
        )
        self._network: ResidentNetwork | None = ResidentNetwork(graph, engine, shape, "cuda")

    @property
    def resident(self) -> Resident | None:
        """The network on the GPU, None when it is closed."""
        return self._network

    def infer(self) -> NDArray[np.float32]:
        """Return (c, scale y, scale x) for the current `input`; overwritten by the next call."""
        self._run(self._opened())  # the margin is filled on the device
        return self._result

    def close(self) -> None:
        """Release graph and buffers when nothing uses them."""
        if self._network is not None:
            self._network.settle()
        self._network = None
        self._pinned = ()
        super().close()

    def _run(self, padded: PaddedBlock) -> None:
        import torch

        assert self._network is not None
        self._network.infer(*self._pinned)
        done = torch.cuda.Event(blocking=True)  # a thread that spins takes a core from the camera
        done.record()
        done.synchronize()


def _version() -> str:
    import torch

    return str(torch.__version__)


def _page_locked(shape: tuple[int, ...], dtype: Any = np.float32) -> NDArray[np.float32]:
    import torch

    block: NDArray[np.float32] = torch.zeros(shape, pin_memory=True).numpy()
    return block


def _checked_graph(engine: Engine, precision: Precision, where: str, padded: PaddedBlock) -> Any:
    """Return the engine's graph on a device of torch, run once.

    Raises
    ------
    EngineError
        If the network cannot be read, or is not what the manifest says.
    """
    import torch

    from livesr.live.inference.onnx_graph import OnnxGraph

    dtype = {"bf16": torch.bfloat16, "f16": torch.float16}.get(precision, torch.float32)
    model = engine.read_int8() if precision == "int8" else engine.read()
    graph = OnnxGraph(model, where, dtype)
    check_output(engine, graph.run(padded.block).shape, padded.output_shape)
    check_features(engine, None if graph.features is None else len(graph.features))
    return graph
