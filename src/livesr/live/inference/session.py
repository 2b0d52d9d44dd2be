"""An engine that is open at one frame size.

Owns the protocol that the live path speaks with every runtime, with fallback and with tiles. Runs
nothing.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from livesr.base.errors import BackendError

_PRECISIONS = {"f32": "FP32", "bf16": "BF16", "f16": "FP16", "int8": "INT8", "f8": "FP8"}


class Resident(Protocol):
    """The way through a session for frames that are on its GPU already: nothing is copied.

    Its arrays are whatever has ``__cuda_array_interface__`` (CuPy arrays, torch tensors); CuPy and
    torch see each other's without a copy. One thread at a time, and whoever calls orders the
    streams. The same object as long as the session's runtime is.
    """

    @property
    def device_features(self) -> Any:
        """As `InferenceSession.features`, on the device, complete with the output; or None."""

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


@dataclass(frozen=True, slots=True)
class Compiled:
    """When what a session runs was compiled.

    Attributes
    ----------
    at : seconds since 1970
    nbytes : size of the plan, None where none is kept
    """

    at: float
    nbytes: int | None = None

    def described(self) -> str:
        """Return it in words: "plan of 4.7 MB, compiled 2 s ago"."""
        plan = "" if self.nbytes is None else f"plan of {self.nbytes / 1e6:.1f} MB, "
        return f"{plan}compiled {_ago(self.at)}"


class InferenceSession(ABC):
    """One engine, open for frames of one size.

    `Runtime.open` makes it; then ``infer`` ... ``close``. One thread at a time. It is a context
    that closes it.

    Attributes
    ----------
    name : of the runtime that runs it, as in `BACKENDS`
    version : of the library that computes; empty where it does not say
    precision : what it computes in, one of `PRECISIONS`; the last convolution and what follows stay
        in f32, on OpenVINO not the convolution itself where a softmax follows. "int8" takes the
        engine's file with Q/DQ nodes: what lies between the integers is bf16 or f16 where the
        device has it, else f32
    device : what it runs on, in words
    compiled : when what it runs was compiled, None if nothing is
    tile : side of the tiles that it sees a frame in, pixels; None if it takes frames as a whole
    resampled_nm : pixel size to which frames are brought for the network; None if they stay
    replacements : a sentence for every runtime that failed and was replaced
    skipped : why it does not run on those that "auto" would rather take, a sentence each
    shares_memory : whether a server reads and writes its frames in memory that both share
    """

    name: str = ""
    version: str = ""
    precision: str = ""
    device: str = ""
    compiled: Compiled | None = None
    tile: int | None = None
    resampled_nm: float | None = None
    replacements: tuple[str, ...] = ()
    skipped: tuple[str, ...] = ()
    shares_memory: bool = False

    def described(self) -> str:
        """Return in one line what computes: "tensorrt-rtx 1.7 FP16 on RTX 4090, plan of 4.7 MB,
        compiled 2 s ago".
        """
        version = ".".join(self.version.split(".")[:2])
        precision = _PRECISIONS.get(self.precision, self.precision)
        words = [self.name, version, precision, "on", self.device]
        line = " ".join(word for word in words if word)
        tiles = "" if self.tile is None else f", in tiles of {self.tile} pixels"
        if self.resampled_nm is not None:
            tiles += f", on pixels of {self.resampled_nm:.4g} nm"
        return line + tiles + (f", {self.compiled.described()}" if self.compiled else "")

    def like(self, inner: InferenceSession) -> None:
        """Say of itself what `inner` says, which computes for it."""
        self.name, self.version, self.precision = inner.name, inner.version, inner.precision
        self.device, self.compiled, self.skipped = inner.device, inner.compiled, inner.skipped
        self.tile = inner.tile

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

    @property
    def features(self) -> NDArray[np.float32] | None:
        """What the network tells of the frame of the last `infer`, means over it, float32 (n,).

        The session's memory, valid until the next call. None where the engine has no such output
        (`Weights.features`), or the runtime does not hand it out.
        """
        return None

    @property
    def memory_bytes(self) -> int:
        """What is done to frames beside the runtime holds, at most; the runtime's own aside."""
        return 0

    def set_deadline(self, seconds: float) -> None:  # noqa: B027 most runtimes can leave none
        """Have frames fail that take longer than `seconds`, where the runtime can leave one."""

    def served(self) -> tuple[int, float] | None:
        """Return how many requests a server has computed and the seconds that it took, as it counts
        them itself; None where there is none, or it does not say.
        """
        return None

    def verify(self) -> None:  # noqa: B027 what this computer opened stays what it is
        """Ask a server once more whether it has the engine's network.

        Raises
        ------
        EngineError
            If it has another one by now.
        BackendError
            If it does not say.
        """

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


class AroundSession(InferenceSession):
    """A session for which another one computes; closed with it.

    Parameters
    ----------
    inner : the one that computes
    """

    def __init__(self, inner: InferenceSession) -> None:
        self._inner = inner
        self.like(inner)

    @property
    def features(self) -> NDArray[np.float32] | None:
        """Those of the session that computes."""
        return self._inner.features

    @property
    def account(self) -> dict[str, Any] | None:
        """That of the session that computes."""
        return self._inner.account

    @property
    def memory_bytes(self) -> int:
        """What the session that computes holds beside its runtime."""
        return self._inner.memory_bytes

    def set_deadline(self, seconds: float) -> None:
        """Set that of the session that computes, for each of its frames."""
        self._inner.set_deadline(seconds)

    def served(self) -> tuple[int, float] | None:
        """Return what the session that computes says."""
        return self._inner.served()

    def verify(self) -> None:
        """Ask the server of the session that computes."""
        self._inner.verify()

    def like(self, inner: InferenceSession) -> None:
        """Say of itself what `inner` says, and what was replaced in it."""
        super().like(inner)
        self.replacements, self.shares_memory = inner.replacements, inner.shares_memory

    def close(self) -> None:
        """Close the session that computes."""
        self._inner.close()


def _ago(then: float) -> str:
    """Return in words when it was `then`, seconds since 1970."""
    seconds = max(time.time() - then, 0)
    for unit, of, until in (("s", 1, 120), ("min", 60, 7200), ("h", 3600, 172_800)):
        if seconds < until:
            return f"{seconds / of:.0f} {unit} ago"
    return time.strftime("on %Y-%m-%d", time.localtime(then))
