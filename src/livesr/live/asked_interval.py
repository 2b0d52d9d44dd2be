"""Whether time points come as often as the plan asks.

Owns when the time points of each stream came. A plan that asks for more than exposures, moves and
camera allow is acquired as fast as they do: nothing else says so.
"""

from __future__ import annotations

from collections import deque
from statistics import median

from livesr.base.frames import RawStack, Stream
from livesr.formats.series_spec import KEPT_WITHIN

_ENOUGH, _REMEMBERED = 3, 31  # intervals


class AskedInterval:
    """Looks at raw groups, complete or not; one thread.

    Parameters
    ----------
    asked_s : from time point to time point by the plan, None where it says none
    """

    def __init__(self, asked_s: float | None) -> None:
        self._asked_s = asked_s
        self._last: dict[Stream, tuple[int, int]] = {}
        self._found_s: dict[Stream, deque[float]] = {}

    def late(self, stack: RawStack) -> str:
        """Return a sentence once time points come less often than was asked for, before it ""."""
        if not self._asked_s or stack.stream.z:
            return ""
        before, self._last[stack.stream] = self._last.get(stack.stream), (stack.t, stack.t_acq_ns)
        if before is None or stack.t <= before[0]:
            return ""
        found = self._found_s.setdefault(stack.stream, deque(maxlen=_REMEMBERED))
        found.append((stack.t_acq_ns - before[1]) / (stack.t - before[0]) / 1e9)
        every_s = median(found)
        if len(found) < _ENOUGH or every_s <= (1 + KEPT_WITHIN) * self._asked_s:
            return ""
        asked_s, self._asked_s = self._asked_s, None
        return (
            f"Time points come every {every_s:.3g} s, and the plan asks for one every"
            f" {asked_s:.3g} s: exposures, moves and the camera take longer. The store's time axis"
            " is what was measured; frames.jsonl has the time of each picture."
        )
