"""Waiting for a thread, with Ctrl-C.

Owns one function and its reason.
"""

from __future__ import annotations

import threading
import time

_LOOK_S = 0.005


def wait_for(thread: threading.Thread) -> None:
    """Return when `thread` has ended; KeyboardInterrupt gets through and leaves the thread what it is, running.

    `Thread.join` does not before Python 3.13: interrupted, it takes the thread for dead, later joins return at once, and the
    process may crash when the thread does end (https://github.com/python/cpython/issues/90882).
    """
    while thread.is_alive():
        time.sleep(_LOOK_S)
