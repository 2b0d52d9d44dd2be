"""Whether this computer has an NVIDIA GPU that answers.

Owns the question, put to the driver itself: it needs no package, and takes a millisecond where
there is none. TensorRT cannot be asked: without a driver, 8.6 crashes the process when its runtime
is made.
"""

from __future__ import annotations

import ctypes
import sys
from functools import cache

_LIBRARY = "nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1"


@cache
def why_no_gpu() -> str | None:
    """Return None if a GPU answers, else a sentence that says what is missing."""
    try:
        driver = ctypes.CDLL(_LIBRARY)
    except OSError:
        return f"This computer has no NVIDIA driver ({_LIBRARY} was not found)."
    if code := driver.cuInit(0):
        return (
            f"The NVIDIA driver does not start (cuInit: error {code}): is a GPU here, and does"
            " nvidia-smi list it?"
        )
    count = ctypes.c_int(0)
    if driver.cuDeviceGetCount(ctypes.byref(count)) or not count.value:
        return (
            "The NVIDIA driver sees no GPU: does nvidia-smi list one, and is CUDA_VISIBLE_DEVICES"
            " unset?"
        )
    return None
