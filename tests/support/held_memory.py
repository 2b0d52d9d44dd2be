"""What is held beside a runtime: a session of its own that allocates nothing, and the peak of a
call.
"""

from __future__ import annotations

import gc
import tracemalloc
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from livesr.live.inference.session import InferenceSession


class Still:
    """A network that allocates nothing: its prediction is what it is given."""

    name, version, precision, device, compiled, skipped, tile = "still", "", "", "", None, (), None
    replacements, shares_memory, features, account, memory_bytes = (), False, None, None, 0

    def __init__(self, planes: int, shape: tuple[int, int]) -> None:
        self.input = np.zeros((planes, *shape), np.float32)

    def infer(self) -> NDArray[np.float32]:
        return self.input


def peak_of(opened: Callable[[], InferenceSession], picture: Any = 0.0) -> tuple[int, int]:
    """Return the bytes that a session has at most, its opening included, and what it says."""
    tracemalloc.start()
    try:
        session = opened()
        session.input[...] = picture
        gc.collect()
        tracemalloc.reset_peak()
        session.infer()
        return tracemalloc.get_traced_memory()[1], session.memory_bytes
    finally:
        tracemalloc.stop()
