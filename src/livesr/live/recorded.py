"""What was recorded of a run that is computed again, and is used instead of being measured anew.

Owns the values and which frames are wanted. Reads no file; the store's readers fill it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from livesr.base.frames import Normalisation, RawStack, Stream

Key: TypeAlias = tuple[Stream, int]
"""Stream and time point."""

PatternDrift: TypeAlias = tuple[Sequence[float], Sequence[float]]
"""What phases (rad) and vectors (cycles/um) were corrected by, as in `FrameQuality`."""


def _every(stream: Stream, t: int) -> bool:
    return True


def _unheard(stream: Stream, t: int, levels: Normalisation) -> None:
    """Tell nobody."""


@dataclass(frozen=True, slots=True)
class Recorded:
    """What an offline run takes from the run before it; without arguments, a live run's: nothing.

    Parameters
    ----------
    normalisations : of frames that were measured before; what is not named follows from those that
        are, as in a live run
    pattern_drifts : what patterns were corrected by; None in a live run, where patterns are watched
        and followed, which what was recorded must not be: it has to give the same again
    wanted : whether the network is to see the frame at (stream, t)
    levels : told of each measured frame's own background and scale, from which its normalisation
        and those of later frames follow
    """

    normalisations: Mapping[Key, Normalisation] = field(default_factory=dict)
    pattern_drifts: Mapping[Key, PatternDrift] | None = None
    wanted: Callable[[Stream, int], bool] = _every
    levels: Callable[[Stream, int, Normalisation], None] = _unheard

    @property
    def offline(self) -> bool:
        """Whether frames are reconstructed as they were before."""
        return self.pattern_drifts is not None

    def normalisation(self, stream: Stream, t: int) -> Normalisation | None:
        """Return what a frame was normalised with, None if that is to be measured."""
        return self.normalisations.get((stream, t))

    def pattern_drift(self, stack: RawStack) -> PatternDrift | None:
        """Return what the patterns of a raw group were corrected by, None if nobody said."""
        return (self.pattern_drifts or {}).get((stack.stream, stack.t))


LIVE = Recorded()
