"""Waiting for what has to come: a test fails by what did not, not by what it looks at next."""

from __future__ import annotations

import time
from collections.abc import Callable


def until(true: Callable[[], object], seconds: float = 60, every_s: float = 0.01) -> None:
    """Wait until `true` answers so; the time is for the slowest computer."""
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, f"waited {seconds:g} s in vain"
        time.sleep(every_s)
