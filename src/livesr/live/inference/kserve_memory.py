"""Memory that a server on the same computer reads frames from, and writes predictions into.

Owns one region of the operating system's shared memory. Asks no server, and knows no protocol.
"""

from __future__ import annotations

import secrets
import sys
from contextlib import suppress
from multiprocessing.shared_memory import SharedMemory
from typing import Any

import numpy as np
from numpy.typing import NDArray


class SharedFrames:
    """A block that is sent and a block that comes back, behind one another in one region.

    Parameters
    ----------
    sent, came : shapes, (1, window, Y, X) and (1, c, Y, X)
    dtype : of both

    Attributes
    ----------
    name : that a server shall know the region by
    key : that the operating system knows it by, until `forget`
    sent, came : the two blocks
    nbytes : of the region

    Raises
    ------
    OSError
        If there is not so much of it.
    """

    def __init__(self, sent: tuple[int, ...], came: tuple[int, ...], dtype: Any) -> None:
        pixel = np.dtype(dtype).itemsize
        sent_bytes, came_bytes = (int(np.prod(shape)) * pixel for shape in (sent, came))
        self._memory = SharedMemory(create=True, size=sent_bytes + came_bytes)
        self._named = True
        self.name = f"livesr-{secrets.token_hex(16)}"
        self.key = f"/{self._memory.name.removeprefix('/')}"
        self.nbytes = sent_bytes + came_bytes
        buffer = self._memory.buf
        self.sent: NDArray[Any] = np.ndarray(sent, dtype, buffer)
        self.came: NDArray[Any] = np.ndarray(came, dtype, buffer, sent_bytes)

    def forget(self) -> None:
        """Take the region's name away: who has it keeps it, and it is gone with the last of them,
        however that ends.
        """
        if self._named:
            self._named = False
            self._memory.unlink()

    def close(self) -> None:
        """Give the memory back."""
        self.sent = self.came = np.empty(0, np.float32)
        self.forget()
        with suppress(BufferError):  # somebody still holds a block; it goes with them
            self._memory.close()


def can_be_shared() -> bool:
    """Whether a server finds a region by its name here, as Triton on Linux does."""
    return sys.platform == "linux"
