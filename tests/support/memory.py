"""What Python holds, once threads have let go of what they just handed over."""

import gc
import time
import tracemalloc

PATIENCE_S = 20.0


def held() -> int:
    """Bytes that tracemalloc counts after a collection."""
    gc.collect()
    return tracemalloc.get_traced_memory()[0]


def held_falls_below(limit: float) -> int:
    """Wait until less is held; return what is, less than `limit` or what did not fall in time."""
    over = time.monotonic() + PATIENCE_S
    while (now := held()) >= limit and time.monotonic() < over:
        time.sleep(0.05)
    return now
