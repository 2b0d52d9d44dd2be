"""How far a long piece of work has come, and whether it is to end.

Owns the count and the flag. Knows no work.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

Progress = Callable[[int, int], None]
"""Called with what is done, and how much there is in all."""


class Steps:
    """Counts what is done of `total`, and shows it.

    Attributes
    ----------
    done : steps so far
    """

    def __init__(self, total: int, on_progress: Progress) -> None:
        self.done, self._total, self._on_progress = 0, total, on_progress
        on_progress(0, total)

    def step(self) -> None:
        """Count one and show it."""
        self.done += 1
        self._on_progress(self.done, self._total)


class Stop(threading.Event):
    """Set by whoever ends this part of the work, because all of it is to end, or by the clock.

    Parameters
    ----------
    whole : is set when all of the work is to end
    deadline_s : on the clock of `time.monotonic`; None waits for ever
    """

    def __init__(self, whole: threading.Event | None, deadline_s: float | None = None) -> None:
        super().__init__()
        self._whole, self._deadline_s = whole, deadline_s

    def is_set(self) -> bool:
        """Whether to go no further."""
        if super().is_set() or (self._whole is not None and self._whole.is_set()):
            return True
        return self._deadline_s is not None and time.monotonic() > self._deadline_s
