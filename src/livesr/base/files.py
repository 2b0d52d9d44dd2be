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
