"""What a core needs before the interpreter goes, whatever became of it.

Owns the end of a core's callback. Unloads no device.
"""

from __future__ import annotations

import atexit
import os
import weakref
from functools import cache

from pymmcore import CMMCore
from pymmcore_plus import CMMCorePlus


def detach_at_exit(core: CMMCorePlus) -> CMMCorePlus:
    """Take the core's callback away before the interpreter goes; return the core.

    A thread of the core tells of what its devices do, also of those of a configuration that was
    refused. Where it still waits for the interpreter when that goes, it is ended inside of C++, and
    the process aborts: "FATAL: exception not rethrown".
    """
    _cores().add(core)
    return core


@cache
def _cores() -> weakref.WeakSet[CMMCorePlus]:
    """Return the cores of this process that are still there when it ends."""
    cores: weakref.WeakSet[CMMCorePlus] = weakref.WeakSet()
    process = os.getpid()

    def detach() -> None:
        if os.getpid() == process:
            for core in list(cores):
                CMMCore.registerCallback(core, None)

    atexit.register(detach)
    return cores
