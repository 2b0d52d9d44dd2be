"""A run while it lasts, then what it left: one source for the viewers after the other.

Owns which of them is shown. A viewer does not notice more than that there is something newer.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from livesr.viewer.frame_pairs import FramePair, FramePairSource, Selection
from livesr.viewer.subscriber import StreamName


class SuccessiveSource:
    """Gives what its source of the moment gives.

    Parameters
    ----------
    first : shown until `follow_with` names another
    """

    def __init__(self, first: FramePairSource) -> None:
        self._now: FramePairSource = first
        self._versions = 0  # of those before
        self._listening: dict[Callable[[], None], Callable[[], None]] = {}

    def follow_with(self, source: FramePairSource) -> None:
        """Show `source` from now on; in any thread."""
        self._versions += self._now.version + 1
        self._now = source
        for call, end in list(self._listening.items()):
            end()
            self._listening[call] = source.listen(call)
            call()

    @property
    def endpoint(self) -> str:
        """The address it listens to, or the path of a store."""
        return self._now.endpoint

    @property
    def version(self) -> int:
        """Grows when there may be a newer pair."""
        return self._versions + self._now.version

    @property
    def length(self) -> int | None:
        """Pairs of a store; None for a running stream."""
        return self._now.length

    @property
    def state(self) -> str:
        """One of waiting, starting, live, silent, ended, recorded."""
        return self._now.state

    @property
    def status(self) -> Mapping[str, Any]:
        """What the run last said of itself."""
        return self._now.status

    @property
    def problem(self) -> str:
        """A sentence about what could not be understood."""
        return self._now.problem

    def streams(self) -> tuple[StreamName, ...]:
        """Return what can be selected."""
        return self._now.streams()

    def listen(self, call: Callable[[], None]) -> Callable[[], None]:
        """Listen to the source of the moment, and to those that follow."""
        self._listening[call] = self._now.listen(call)
        return lambda: self._listening.pop(call, _nothing)()

    def pair(
        self,
        selection: Selection,
        index: int = 0,
        *,
        measured: bool = False,
        widefield: bool = False,
    ) -> FramePair | None:
        """Return a pair of the source of the moment."""
        return self._now.pair(selection, index, measured=measured, widefield=widefield)


def _nothing() -> None:
    """Do nothing."""
