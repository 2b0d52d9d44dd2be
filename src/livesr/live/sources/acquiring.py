"""Whether a core's MDA runner is at work, whatever it says of itself.

Owns the look at the stacks of all threads. Starts, ends and waits for nothing.

The status of a runner of pymmcore-plus (0.18.1) stays "acquiring" for good when Ctrl-C, or anything
else that is no `Exception`, tears it out of its loop: it never says that it has finished. And
``core.mda.run`` begins a second acquisition inside of the first, from a listener or another thread,
where ``core.run_mda`` refuses to.
"""

from __future__ import annotations

import sys
import threading
from types import FrameType

from pymmcore_plus import CMMCorePlus


def acquiring_threads(core: CMMCorePlus) -> list[int]:
    """Return the identifiers of the threads in which ``core.mda.run`` has not returned yet.

    One that is in it twice is named twice.
    """
    runner = core.mda
    code = type(runner).run.__code__
    found: list[int] = []
    for thread, top in sys._current_frames().items():  # noqa: SLF001 - its documented name
        frame: FrameType | None = top
        while frame is not None:
            if frame.f_code is code and frame.f_locals.get("self") is runner:
                found.append(thread)
            frame = frame.f_back
    return found


def acquires(core: CMMCorePlus) -> bool:
    """Whether the core's runner is at work, and not only says so."""
    return core.mda.is_running() and bool(acquiring_threads(core))


def acquires_elsewhere(core: CMMCorePlus) -> bool:
    """Whether another thread than this one acquires."""
    return any(thread != threading.get_ident() for thread in acquiring_threads(core))
