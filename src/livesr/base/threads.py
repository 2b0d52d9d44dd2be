"""Waiting for a thread, with Ctrl-C, and saying where one is that does not come back; what must be
done before the interpreter waits for all of them; keeping NumPy's own threads out of ours.

Owns four functions and their reasons.
"""

from __future__ import annotations

import atexit
import concurrent.futures.thread  # noqa: F401 - its own ending comes after what is registered later
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

_LOOK_S = 0.005
_OURS, _SIGNALS = str(Path(__file__).parents[1]), "psygnal"
_blas_lock = threading.Lock()
_blas_users = 0
_blas_limits: Any = None  # what restores them, while somebody wants one thread


@contextmanager
def one_blas_thread() -> Iterator[None]:
    """Have the matrix products of this process computed by one thread each.

    May be entered by several threads at a time, and again inside of itself, which costs nothing:
    the first limits, the last to leave restores.

    Products of small matrices gain nothing from more, and the threads of BLAS turn in place while
    they wait for each other: where several threads ask for products at a time and the cores have
    other work, each product then takes as long as a turn of the scheduler.
    """
    global _blas_users, _blas_limits
    from threadpoolctl import threadpool_limits

    with _blas_lock:
        if not _blas_users:
            _blas_limits = threadpool_limits(1, "blas")
        _blas_users += 1
    try:
        yield
    finally:
        with _blas_lock:
            _blas_users -= 1
            if not _blas_users and _blas_limits is not None:
                _blas_limits.restore_original_limits()
                _blas_limits = None


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
