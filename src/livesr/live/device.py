"""Where the pixels of a frame are computed: this computer's processor or a GPU.

Owns streams, page-locked memory and the copies between host and device. Computes nothing; CuPy is
imported in `open_device`.

A device has slots. A slot is what one frame in flight has to itself: on a GPU a CUDA stream, with
the page-locked memory through which its raw frames go up and its results come down, all allocated
with the first frame, a dark one before the run. While one slot waits for its copies the other one
computes.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from threading import Lock
from types import TracebackType
from typing import Any, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from livesr.base.compute import DeviceChoice
from livesr.base.errors import BackendError
from livesr.base.frames import Pixels
from livesr.live.arrays import HOST, Array, Arrays, cupy_arrays
from livesr.live.inference.cuda import why_no_gpu

log = logging.getLogger(__name__)

IN_FLIGHT = 2
"""Frames at once on a GPU: one is copied while the other is computed."""


class Slot(Protocol):
    """What one frame in flight has to itself.

    A context in which its arrays are computed. One thread at a time.

    Attributes
    ----------
    stream : address of its CUDA stream, 0 without one
    """

    stream: int

    def __enter__(self) -> Self: ...
    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None: ...

    def upload(self, frames: Sequence[Pixels]) -> Sequence[Array]:
        """Return raw frames on the device, valid until the slot's next.

        Begins to copy and does not wait.
        """

    def download(self, array: Array) -> NDArray[Any]:
        """Return an array on the host when it is computed; the receiver may keep it."""

    def mark(self) -> Any:
        """Return an event that comes to pass when everything enqueued so far is computed."""

    def wait_for(self, event: Any) -> None:
        """Let what is enqueued from here on wait for an event of another slot; returns at once."""


class Device(Protocol):
    """Where frames are computed.

    Attributes
    ----------
    name : "cpu" or "cuda"
    description : in words
    arrays : what to compute with there
    slots : for as many raw groups in flight; a single one is worked on by the thread that wants its
        result
    network_slots : for as many windows on their way through the network, beside them
    """

    name: str
    description: str
    arrays: Arrays
    slots: Sequence[Slot]
    network_slots: Sequence[Slot]

    def settle(self) -> None:
        """Wait until everything that was prepared outside of the slots is in its place."""


class HostSlot:
    """A slot of this computer's own memory.

    Nothing is copied, everything is computed when it is asked for.
    """

    stream = 0

    def __init__(self, arrays: Arrays = HOST) -> None:
        self._arrays = arrays

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None: ...

    def upload(self, frames: Sequence[Pixels]) -> Sequence[Array]:
        """Return the frames."""
        return frames if self._arrays is HOST else [self._arrays.array(frame) for frame in frames]

    def download(self, array: Array) -> NDArray[Any]:
        """Return the array."""
        return self._arrays.on_host(array)

    def mark(self) -> Any:
        """Return None: everything is computed."""
        return None

    def wait_for(self, event: Any) -> None:
        """Return at once."""


class HostDevice:
    """The processor of this computer.

    Parameters
    ----------
    slots : frames that are worked on at once, each in a thread of its own if there are several
    arrays : what to compute with
    """

    name, description = "cpu", "CPU"

    def __init__(self, slots: int = 1, arrays: Arrays = HOST) -> None:
        self.arrays = arrays
        self.slots: Sequence[Slot] = [HostSlot(arrays) for _ in range(slots)]
        self.network_slots: Sequence[Slot] = [HostSlot(arrays) for _ in range(slots)]

    def settle(self) -> None:
        """Return at once."""


class CudaSlot:
    """A CUDA stream with its page-locked memory.

    Parameters
    ----------
    cupy, empty_pinned : the module, and the function of cupyx
    """

    def __init__(self, cupy: Any, empty_pinned: Any) -> None:
        self._cupy, self._empty_pinned = cupy, empty_pinned
        self._stream = cupy.cuda.Stream(non_blocking=True)
        # Waiting threads sleep: a spinning one takes a core from the camera.
        self._event = cupy.cuda.Event(block=True, disable_timing=True)
        self._computed = cupy.cuda.Event(disable_timing=True)
        self._staging: dict[tuple[str, tuple[int, ...], str], NDArray[Any]] = {}
        self._raw: Array = None
        self.stream = int(self._stream.ptr)

    def __enter__(self) -> Self:
        self._stream.__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stream.__exit__(kind, error, trace)

    def upload(self, frames: Sequence[Pixels]) -> Sequence[Array]:
        """Return raw frames on the device, valid until the slot's next.

        A frame goes up while the next is made ready.
        """
        shape, dtype = (len(frames), *frames[0].shape), frames[0].dtype
        staging = self._pinned("up", shape, dtype)
        if self._raw is None or self._raw.shape != shape or self._raw.dtype != dtype:
            self._raw = self._cupy.empty(shape, dtype)
        raw = [self._raw[i] for i in range(len(frames))]
        for frame, page_locked, there in zip(frames, staging, raw, strict=True):
            np.copyto(page_locked, frame)
            there.set(page_locked, stream=self._stream)
        return raw

    def download(self, array: Array) -> NDArray[Any]:
        """Return an array on the host when it is computed; the receiver may keep it."""
        staging = self._pinned("down", array.shape, array.dtype)
        array.get(stream=self._stream, out=staging, blocking=False)
        self._event.record(self._stream)
        self._event.synchronize()
        return staging.copy()

    def mark(self) -> Any:
        """Return the event that comes to pass when everything enqueued so far is computed."""
        self._computed.record(self._stream)
        return self._computed

    def wait_for(self, event: Any) -> None:
        """Let what is enqueued from here on wait for an event of another slot; returns at once."""
        self._stream.wait_event(event)

    def _pinned(self, way: str, shape: tuple[int, ...], dtype: Any) -> NDArray[Any]:
        """Return page-locked memory that the slot keeps."""
        key = way, shape, str(dtype)
        if key not in self._staging:
            self._staging[key] = self._empty_pinned(shape, dtype)
        return self._staging[key]


class CudaDevice:
    """The current CUDA device, by CuPy.

    Raises
    ------
    BackendError
        If CuPy is missing or finds no device, with the reason.
    """

    name = "cuda"

    def __init__(self) -> None:
        if reason := why_no_gpu():
            raise BackendError(f"Frames cannot be computed on a GPU. {reason}")
        try:
            import cupy
            from cupyx import empty_pinned

            self.arrays: Arrays = cupy_arrays()
        except ImportError as e:
            raise BackendError(
                f"Computing frames on a GPU needs CuPy: pip install 'livesr[gpu]' ({e})."
            ) from e
        try:
            self._device = cupy.cuda.Device()
            self.description: str = cupy.cuda.runtime.getDeviceProperties(self._device.id)[
                "name"
            ].decode()
            self.slots: Sequence[Slot] = [CudaSlot(cupy, empty_pinned) for _ in range(IN_FLIGHT)]
            self.network_slots: Sequence[Slot] = [
                CudaSlot(cupy, empty_pinned) for _ in range(IN_FLIGHT)
            ]
        except Exception as e:  # the driver's errors are RuntimeErrors of CuPy's own kinds
            raise BackendError(f"CuPy finds no CUDA device that it can use: {e}.") from e

    def settle(self) -> None:
        """Wait for the device: slots do not wait for the stream on which constants were copied."""
        self._device.synchronize()


class StreamLock:
    """What several slots use in turn, such as a network.

    The next waits, on its stream, for what the last enqueued.
    """

    def __init__(self) -> None:
        self._lock = Lock()
        self._before: Any = None

    @contextmanager
    def of(self, slot: Slot) -> Iterator[None]:
        """Enqueue on `slot` what uses it."""
        with self._lock:
            if self._before is not None:
                slot.wait_for(self._before)
            try:
                yield
            finally:
                self._before = slot.mark()

    @contextmanager
    def on_host(self) -> Iterator[None]:
        """Let no slot use it until the caller is done, who begins when what slots have enqueued is
        computed.
        """
        with self.alone() as before:
            if before is not None:
                with suppress(Exception):  # a GPU that failed says so again to whoever uses it
                    before.synchronize()
            yield

    @contextmanager
    def alone(self) -> Iterator[Any]:
        """Let no slot use it, nor wait for what slots have enqueued.

        Yields the event of that, None without any.
        """
        with self._lock:
            before, self._before = self._before, None
            yield before


HOST_DEVICE = HostDevice()


def open_device(choice: DeviceChoice = "auto") -> Device:
    """Return the device that is named, or with "auto" a CUDA device if there is one, else the CPU.

    Raises
    ------
    BackendError
        If "cuda" is named and cannot be used, with the reason.
    """
    if choice == "cpu":
        return HOST_DEVICE
    try:
        device = CudaDevice()
    except BackendError as e:
        if choice == "cuda":
            raise BackendError(f"{e} Leave the choice to livesr, or use device 'cpu'.") from e
        log.info("Frames are computed on the CPU: %s", e)
        return HOST_DEVICE
    log.info("Frames are computed on %s", device.description)
    return device
