"""Waiting for a thread, with Ctrl-C, and saying where one is that does not come back; what must be
done before the interpreter waits for all of them.

Owns three functions and their reasons.
"""

from __future__ import annotations

import atexit
import concurrent.futures.thread  # noqa: F401 - its own ending comes after what is registered later
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

_LOOK_S = 0.005
_OURS, _SIGNALS = str(Path(__file__).parents[1]), "psygnal"


def wait_for(thread: threading.Thread, enough: Callable[[], bool] = lambda: False) -> None:
    """Return when `thread` has ended, or it is `enough`.

    KeyboardInterrupt gets through and leaves the thread running.

    `Thread.join` does not before Python 3.13: interrupted, it takes the thread for dead, later
    joins return at once, and the process may crash when the thread does end
    (https://github.com/python/cpython/issues/90882).
    """
    while thread.is_alive() and not enough():
        time.sleep(_LOOK_S)


def before_threads_end(work: Callable[[], None]) -> None:
    """Have `work` done when the interpreter is about to end, while its threads still run.

    What `atexit` calls comes later: when the interpreter has waited for every thread that is no
    daemon, as an acquisition's, and when pools lend no more threads.
    """
    # how `concurrent.futures` does it; there is no public name
    register: Callable[..., object] = getattr(threading, "_register_atexit", atexit.register)
    register(work)


def called(thread: threading.Thread) -> str:
    """Name what livesr has called in `thread` and what has not returned.

    "react (script.py, line 12)"; "" if nothing.
    """
    frame = sys._current_frames().get(thread.ident or 0)  # noqa: SLF001 - its documented name
    found = ""
    while frame and not (file := frame.f_code.co_filename).startswith(_OURS):
        if _SIGNALS not in Path(file).parts:
            found = f"{frame.f_code.co_qualname} ({Path(file).name}, line {frame.f_lineno})"
        frame = frame.f_back
    return found
