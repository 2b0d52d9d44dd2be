"""Files that are replaced at once: whoever reads sees the old one or the new one, never half of it.

Owns the wait for readers on Windows. Knows no format.
"""

from __future__ import annotations

import time
from pathlib import Path

_PATIENCE_S = 2.0
_PAUSE_S = 0.02


def replace_file(new: Path, place: Path) -> None:
    """Move `new` to `place`, over what is there.

    Windows refuses while another process has `place` open: a viewer that reads a running store, a virus scanner that has
    just seen it change. Such readers are waited for, two seconds at most.

    Raises
    ------
    OSError
        If it stays impossible.
    """
    deadline = time.monotonic() + _PATIENCE_S
    while True:
        try:
            new.replace(place)
        except PermissionError:
            if time.monotonic() > deadline or not place.is_file():
                raise
            time.sleep(_PAUSE_S)
        else:
            return


_ENOUGH_FILES = 8192


def open_files_limit() -> int:
    """Return how many files and connections this process may have open; asks for more first, where the system lets it.

    Many systems begin with 1024 or 256, whoever needs more may take it; a store, a publisher with viewers and a microscope's
    drivers together do. Windows has no such limit for what livesr opens.
    """
    try:
        import resource
    except ImportError:
        return _ENOUGH_FILES
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    infinite = resource.RLIM_INFINITY
    wanted = _ENOUGH_FILES if hard == infinite else min(hard, _ENOUGH_FILES)
    if soft == infinite or soft >= wanted:
        return _ENOUGH_FILES if soft == infinite else soft
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    except (OSError, ValueError):  # some systems have a lower limit of their own
        return soft
    return wanted
