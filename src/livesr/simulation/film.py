"""Frames that are simulated in order, each when it is first asked for.

Owns the memory of the frames, and which of them are there. What is on them, the bank that made the
film knows.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray


class Film:
    """What a virtual camera plays, exposed as far as somebody looked; safe from any thread.

    Frames follow from those before them, as noise does that is drawn from one source. Asking for
    one therefore exposes all before it, and what a frame shows depends on nobody's order of asking.

    Parameters
    ----------
    shape : of all frames, the first axis their number; what is not exposed yet takes no memory on
        systems that give memory when it is written
    expose : fills the uint16 array of that shape along its first axis and yields after each; starts
        anew, to the same pixels, when called again
    """

    def __init__(
        self, shape: tuple[int, ...], expose: Callable[[NDArray[np.uint16]], Iterator[None]]
    ) -> None:
        self.shape = shape
        self._frames = np.empty(shape, np.uint16)
        self._expose = expose
        self._exposing: Iterator[None] | None = None
        self._exposed = 0
        self._lock = threading.Lock()

    def __len__(self) -> int:
        """Return how many frames there are, exposed or not."""
        return self.shape[0]

    @property
    def exposed(self) -> int:
        """How many are exposed, from the first."""
        return self._exposed

    def first(self, n: int) -> NDArray[np.uint16]:
        """Return the first `n` frames, at most all, of the film's own memory: do not write to it.

        What the simulation raises is passed on; the next call begins it anew.
        """
        n = min(n, len(self))
        if self._exposed < n:
            with self._lock:
                self._continue_to(n)
        return self._frames[:n]

    def frame(self, i: int) -> NDArray[np.uint16]:
        """Return frame `i`, 0 or above, as `first` does.

        Raises
        ------
        IndexError
            If there is none.
        """
        return np.asarray(self.first(i + 1)[i])

    def _continue_to(self, n: int) -> None:
        try:
            while self._exposed < n:
                if self._exposing is None:
                    self._exposing = self._expose(self._frames)
                    self._exposed = 0
                next(self._exposing)
                self._exposed += 1
        except BaseException:
            # A generator that raised is at its end, an interrupted one amid a frame.
            self._exposing, self._exposed = None, 0
            raise
