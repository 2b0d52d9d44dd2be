"""The last seconds of a running stream, as a page was shown them: for a look back.

Owns references to pairs, bounded in time and in bytes, and which of them is looked at. Draws
nothing.
"""

from __future__ import annotations

import time
from collections import deque
from dataclasses import replace

from livesr.viewer.frame_pairs import FramePair

KEPT_S = 10.0
KEPT_BYTES = 256 << 20


class Past:
    """What was shown lately; frozen, it stays as it is.

    Attributes
    ----------
    frozen : the pairs to look back over, oldest first, each with its place as `index`; () while the
        picture is live
    index : which of them is looked at
    """

    def __init__(self) -> None:
        self._shown: deque[tuple[float, FramePair]] = deque()
        self.frozen: tuple[FramePair, ...] = ()
        self.index = 0

    @property
    def pair(self) -> FramePair | None:
        """What is looked at; None while the picture is live."""
        return self.frozen[self.index] if self.frozen else None

    def keep(self, pair: FramePair) -> None:
        """Remember what is shown now; the final picture takes the place of a provisional one."""
        if self._shown and _moment(self._shown[-1][1]) == _moment(pair):
            self._shown.pop()
        now = time.monotonic()
        self._shown.append((now, pair))
        while len(self._shown) > 1 and (
            self._bytes() > KEPT_BYTES or self._shown[0][0] < now - KEPT_S
        ):
            self._shown.popleft()

    def freeze(self) -> None:
        """Stop at the newest."""
        self.frozen = tuple(replace(pair, index=n) for n, (_, pair) in enumerate(self._shown))
        self.index = max(len(self.frozen) - 1, 0)

    def seek(self, index: int) -> None:
        """Look at another one; freezes a live picture."""
        if not self.frozen:
            self.freeze()
        self.index = min(index, max(len(self.frozen) - 1, 0))

    def thaw(self) -> None:
        """Follow the stream again."""
        self.frozen = ()

    def forget(self) -> None:
        """Begin anew, for another stream."""
        self.frozen = ()
        self._shown.clear()

    def _bytes(self) -> int:
        """Bytes of all pictures; a measurement that two pairs share counts twice."""
        return sum(
            message.pixels.nbytes
            for _, pair in self._shown
            for message in pair.messages
            if message.pixels is not None
        )


def _moment(pair: FramePair) -> tuple[object, ...]:
    header = pair.shown.header
    return header.stream, header.channel, header.position, header.z, header.t
