"""How much memory this process may still take.

Owns the answer: of the computer, of the container that the process runs in, and of the limits that
a shell or a queue set.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import psutil

# Limit and use of the control group that a container is, in its two versions.
_GROUPS = (
    ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current"),
    ("/sys/fs/cgroup/memory/memory.limit_in_bytes", "/sys/fs/cgroup/memory/memory.usage_in_bytes"),
)


def available_bytes() -> int:
    """Return what can be taken before the computer, the container or a limit of the process
    refuses.
    """
    return max(0, min((psutil.virtual_memory().available, *_of_groups(), *_of_limits())))


def _of_groups() -> Iterator[int]:
    for limit, used in _GROUPS:
        try:
            yield int(Path(limit).read_text(encoding="ascii")) - int(
                Path(used).read_text(encoding="ascii")
            )
        except (OSError, ValueError):  # another system, or "max": no limit
            continue


def _of_limits() -> Iterator[int]:
    if sys.platform == "win32":
        return
    import resource

    used = psutil.Process().memory_info().vms
    for name in ("RLIMIT_AS", "RLIMIT_DATA"):
        most, _ = resource.getrlimit(getattr(resource, name))
        if most != resource.RLIM_INFINITY:
            yield most - used
