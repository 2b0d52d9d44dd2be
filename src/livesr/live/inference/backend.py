"""What a runtime is, and which ones there are.

Owns the protocol and the registry. Imports no runtime: each lives in its own file and is imported in `open()`.
A TensorRT backend is not part of this version.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from livesr.base.registry import Registry

if TYPE_CHECKING:
    from livesr.live.inference.engine import Engine

# In the order in which "auto" tries them.
BACKENDS = Registry(
    "backend",
    {
        "openvino": "livesr.live.inference.openvino:OpenVINOBackend",
        "torch": "livesr.live.inference.torch:TorchBackend",
    },
)

Precision = Literal["f32", "bf16", "f16"]
PRECISIONS: tuple[Precision, ...] = ("f32", "bf16", "f16")


class Backend(Protocol):
    """Executes one engine at one frame size.

    Life: ``is_unavailable`` -> ``open`` -> ``infer`` ... -> ``close``. One thread at a time.

    Attributes
    ----------
    name : as in `BACKENDS`
    precision : what it computes in, one of `PRECISIONS`; the last convolution and what follows stay in f32
    device : what it runs on, in words
    """

    name: str
    precision: str
    device: str

    @classmethod
    def is_unavailable(cls) -> str | None:
        """Return None if it can run here, else a sentence with the reason and the pip extra to install."""

    @classmethod
    def free_bytes(cls) -> int:
        """Return the memory that is free where it computes."""

    def open(self, engine: Engine, shape: tuple[int, int], *, precision: str = "auto", threads: int = 0) -> None:
        """Load, compile and warm up for frames of `shape` (y, x); `threads` 0 leaves the choice to the runtime.

        Raises
        ------
        BackendError
            If the runtime is missing, refuses the engine or has no such precision here.
        EngineError
            If the engine cannot take frames of `shape`, or its network is not what its manifest says.
        """

    @property
    def input(self) -> NDArray[np.float32]:
        """The (window, y, x) block that `infer` reads: write the normalised frames into it.

        The same memory for the backend's life. Not contiguous where the frame is padded inside.
        """

    def infer(self) -> NDArray[np.float32]:
        """Return (c, scale y, scale x) for the current `input`; the backend's memory, valid until the next call."""

    def close(self) -> None:
        """Release everything; may be called twice."""
