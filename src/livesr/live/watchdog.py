"""Notices a network that does not answer, so that nothing that counts has to wait for it.

Owns the times at which calls began. Ends no call: a runtime that hangs inside its driver cannot be
stopped from outside, only left behind.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

PATIENCE_S = 60.0
"""A network on a slow computer may take half a minute for a large frame.

One that is silent for longer is not waited for; where it sees a frame in several views, in each.
"""

_TIMES_SLOWEST = 5.0  # a call may take so many times the slowest one before it
_AFTER_CTRL_C_S = 3.0


class Watchdog:
    """Measures how long calls have been under way; any thread may ask.

    Parameters
    ----------
    patience_s : seconds after which a call is overdue, or five times the slowest call so far if
        that is longer
    """

    def __init__(self, patience_s: float = PATIENCE_S) -> None:
        self._patience_s, self._slowest_s, self._in_a_hurry = patience_s, 0.0, False
        self._begun: dict[int, float] = {}

    @contextmanager
    def call(self) -> Iterator[None]:
        """Watch over one call of this thread."""
        key, begun = threading.get_ident(), time.monotonic()
        self._begun[key] = begun
        try:
            yield
        finally:
            del self._begun[key]
            self._slowest_s = max(self._slowest_s, time.monotonic() - begun)

    def hurry(self) -> None:
        """Have little patience from here on: somebody wants the run to end."""
        self._in_a_hurry = True

    @property
    def patience_s(self) -> float:
        """Seconds that a call may take."""
        usual = max(self._patience_s, _TIMES_SLOWEST * self._slowest_s)
        return min(usual, _AFTER_CTRL_C_S) if self._in_a_hurry else usual

    @property
    def overdue(self) -> bool:
        """Whether a call has been under way for longer than that."""
        return (
            time.monotonic() - min(list(self._begun.values()), default=time.monotonic())
            > self.patience_s
        )
