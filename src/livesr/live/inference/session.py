"""An engine that is open at one frame size.

Owns the protocol that the live path speaks with every runtime, with fallback and with tiles. Runs
nothing.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from types import TracebackType
from typing import Any, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from livesr.base.errors import BackendError


class Resident(Protocol):
    """The way through a session for frames that are on its GPU already: nothing is copied.

    Its arrays are whatever has ``__cuda_array_interface__`` (CuPy arrays, torch tensors); CuPy and
    torch see each other's without a copy. One thread at a time, and whoever calls orders the
    streams. The same object as long as the session's runtime is.
    """

    @property
    def device_input(self) -> Any:
        """The float32 (window, y, x) block on the device that `enqueue` reads.

        The same memory for the session's life, apart from that of `InferenceSession.input`. Not
        contiguous where the frame is padded inside.
        """

    def enqueue(self, stream: int) -> Any:
        """Enqueue the network on the CUDA stream at address `stream` and return at once, without
        waiting for anything.

        Returns
        -------
        float32 (c, scale y, scale x) on the device, the session's memory, complete when `stream`
        has come so far; valid until the next call. Pads `device_input` by reflection first, on the
        same stream.
        """


class InferenceSession(ABC):
    """One engine, open for frames of one size.

    `Runtime.open` makes it; then ``infer`` ... ``close``. One thread at a time. It is a context
    that closes it.

    Attributes
    ----------
    name : of the runtime that runs it, as in `BACKENDS`
    precision : what it computes in, one of `PRECISIONS`; the last convolution and what follows stay
        in f32. "int8" takes the engine's file with Q/DQ nodes: what lies between the integers is
        bf16 or f16 where the device has it, else f32
    device : what it runs on, in words
    tile : side of the tiles that it sees a frame in, pixels; None if it takes frames as a whole
    replacements : a sentence for every runtime that failed and was replaced
    """

    name: str = ""
    precision: str = ""
    device: str = ""
    tile: int | None = None
    replacements: tuple[str, ...] = ()

    @property
    @abstractmethod
    def input(self) -> NDArray[np.float32]:
        """The (window, y, x) block that `infer` reads: write the normalised frames into it.

        The same memory until `infer` has to replace the runtime. Not contiguous where the frame is
        padded inside.

        Raises
        ------
        BackendError
            If the session is closed, or has failed for good.
        """

    @abstractmethod
    def infer(self) -> NDArray[np.float32]:
        """Return float32 (c, scale y, scale x) for the current `input`.

        The session's memory, valid until the next call.

        Raises
        ------
        BackendError
            If the session is closed. A runtime that fails raises whatever its driver raises.
        """

    @abstractmethod
    def close(self) -> None:
        """Release everything; may be called twice, and never raises."""

    @property
    def resident(self) -> Resident | None:
        """The way in for frames that are on the GPU, None where every frame comes from the host."""
        return None

    @property
    def lanes(self) -> tuple[InferenceSession, ...]:
        """Sessions of the same network that may infer at the same time, each in one thread."""
        return (self,)

    def set_deadline(self, seconds: float) -> None:  # noqa: B027 most runtimes can leave none
        """Have frames fail that take longer than `seconds`, where the runtime can leave one."""

    def served(self) -> tuple[int, float] | None:
        """Return how many requests a server has computed and the seconds that it took, as it counts
        them itself; None where there is none, or it does not say.
        """
        return None

    @property
    def account(self) -> dict[str, Any] | None:
        """What the report of a run says of the way to a server; None where there is none."""
        return None

    def give_up(self, resident: Resident, error: Exception) -> None:
        """Replace the runtime, which failed on frames that went through `resident`.

        Does nothing if it was replaced meanwhile. Whoever used it infers the frame anew.

        Raises
        ------
        BackendError
            If nothing can take its place.
        """
        raise BackendError(f"{self.name} failed: {type(error).__name__}: {error}") from error

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
