"""What a runtime is, and which ones there are.

Owns the protocol and the registry. Imports no runtime: each lives in its own file and is imported
in `open()`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from livesr.base.registry import Registry

if TYPE_CHECKING:
    from livesr.live.inference.engine import Engine

# In the order in which "auto" tries them.
BACKENDS = Registry(
    "backend",
    {
        "tensorrt": "livesr.live.inference.tensorrt:TensorRTBackend",
        "tensorrt-rtx": "livesr.live.inference.tensorrt:TensorRTRTXBackend",
        "openvino": "livesr.live.inference.openvino:OpenVINOBackend",
        "torch": "livesr.live.inference.torch:TorchBackend",
    },
)

Precision = Literal["f32", "bf16", "f16", "int8", "f8"]
PRECISIONS: tuple[Precision, ...] = ("f32", "bf16", "f16", "int8", "f8")


class Backend(Protocol):
    """Executes one engine at one frame size.

    Life: ``is_unavailable`` -> ``open`` -> ``infer`` ... -> ``close``. One thread at a time.

    Attributes
    ----------
    name : as in `BACKENDS`
    precision : what it computes in, one of `PRECISIONS`; the last convolution and what follows stay
        in f32. "int8" takes the engine's file with Q/DQ nodes: what lies between the integers is
        bf16 or f16 where the device has it, else f32
    device : what it runs on, in words
    """

    name: str
    precision: str
    device: str

    @classmethod
    def is_unavailable(cls) -> str | None:
        """Return None if it can run here, else a sentence with the reason and the pip extra to
        install.
        """

    @classmethod
    def free_bytes(cls) -> int:
        """Return the memory that is free where it computes."""

    def open(
        self, engine: Engine, shape: tuple[int, int], *, precision: str = "auto", threads: int = 0
    ) -> None:
        """Load, compile and warm up for frames of `shape` (y, x).

        `threads` 0 leaves the choice to the runtime.

        Raises
        ------
        BackendError
            If the runtime is missing, refuses the engine or has no such precision here.
        EngineError
            If the engine cannot take frames of `shape`, or its network is not what its manifest
            says.
        """

    @property
    def input(self) -> NDArray[np.float32]:
        """The (window, y, x) block that `infer` reads: write the normalised frames into it.

        The same memory for the backend's life. Not contiguous where the frame is padded inside.
        """

    def infer(self) -> NDArray[np.float32]:
        """Return (c, scale y, scale x) for the current `input`.

        The backend's memory, valid until the next call.
        """

    def close(self) -> None:
        """Release everything; may be called twice."""


@runtime_checkable
class ResidentBackend(Backend, Protocol):
    """A backend that a frame can pass through without leaving the device it was reconstructed on.

    What it adds to `Backend`, which it still is in full. Its arrays are whatever has
    ``__cuda_array_interface__`` (CuPy arrays, torch tensors); CuPy and torch see each other's
    without a copy. One thread at a time, and whoever calls orders the streams.
    """

    @property
    def device_input(self) -> Any:
        """The float32 (window, y, x) block on the device that `enqueue` reads.

        The same memory for the backend's life, apart from that of `input`. Not contiguous where the
        frame is padded inside. None where the backend computes on a CPU.
        """

    def enqueue(self, stream: int) -> Any:
        """Enqueue the network on the CUDA stream at address `stream` and return at once, without
        waiting for anything.

        Returns
        -------
        float32 (c, scale y, scale x) on the device, the backend's memory, complete when `stream`
        has come so far; valid until the next call. Pads `device_input` by reflection first, on the
        same stream.
        """
