"""Superposition: true channels, acquired one after the other, become one picture whose structures
are known.

Owns which frames are added up and with what weights. Acquires nothing and separates nothing.

Of a sample with several dyes, each channel's reconstruction is the truth about one structure. Their
sum is what a single dye would have shown, so an engine that separates it can be compared with the
truth, live (Wang et al. 2021, IMC-SR).

Time: the channels are taken one after the other, so the sum of a living sample shows each structure
at its own moment. The score compares with the very frames that were added, and does not suffer;
what an engine knows of structures that move together does.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from livesr.base.frames import SRFrame
from livesr.live.reconstruct.reconstructor import Fade, RawFrames


class Superposition:
    """Adds up reconstructions of one shape.

    Its "raw frames" are those, in the order of the channels.

    Parameters
    ----------
    shape : of each (y, x)
    weights : brightness of each channel in the sum
    fade : of each, as `Fades`; None if they are as bright at their edges as inside
    """

    scale = 1.0

    def __init__(
        self, shape: tuple[int, int], weights: Sequence[float], fade: Fade | None = None
    ) -> None:
        self._shape, self._weights = shape, tuple(weights)
        self.fade = fade or (np.ones(shape[0], np.float32), np.ones(shape[1], np.float32))

    @property
    def shape(self) -> tuple[int, int]:
        """Shape (y, x) of the sum."""
        return self._shape

    @property
    def memory_bytes(self) -> int:
        """Bytes of one call: the sum, and its addends twice."""
        return (1 + 2 * len(self._weights)) * 4 * self._shape[0] * self._shape[1]

    def reconstruct(self, frames: RawFrames) -> NDArray[np.float32]:
        """Return the weighted sum of `frames`, float32 (y, x) each."""
        total = np.zeros(self._shape, np.float32)
        for weight, frame in zip(self._weights, frames, strict=True):
            total += np.float32(weight) * frame
        return total

    def add_up(self, parts: Sequence[SRFrame]) -> NDArray[np.float32]:
        """Return the sum of the channels' frames, each less its background and scaled to the same
        brightness.

        In ADU: the bright parts of a channel of weight 1 are as bright as the channels' are on
        average. Every channel's own normalisation is followed and stored, so that an offline run
        adds up the same.
        """
        addends = np.stack([part.image for part in parts])
        for addend, part, factor in zip(addends, parts, _factors(parts), strict=True):
            addend -= np.float32(part.normalisation.background)
            addend *= np.float32(factor)
        return self.reconstruct(addends)

    def subtracted(self, parts: Sequence[SRFrame]) -> float:
        """Return the background, ADU of the sum, that `add_up` leaves out."""
        return sum(
            weight * factor * part.normalisation.background
            for weight, factor, part in zip(self._weights, _factors(parts), parts, strict=True)
        )


def _factors(parts: Sequence[SRFrame]) -> list[float]:
    """Return what makes the channels equally bright."""
    level = sum(part.normalisation.scale for part in parts) / len(parts)
    return [level / part.normalisation.scale for part in parts]


class Gathering:
    """Waits for the frames of all channels of a time point, for one run.

    Parameters
    ----------
    channels : in the order in which they are to be returned
    """

    def __init__(self, channels: Sequence[str]) -> None:
        self._channels = tuple(channels)
        self._waiting: dict[tuple[int, int], dict[str, SRFrame]] = {}

    def add(self, frame: SRFrame) -> tuple[SRFrame, ...]:
        """Take the frame of one channel.

        Return all of its time point when it is the last of them, else none.

        A frame of another time point ends the wait: what is missing then will not come.
        """
        place = frame.stream.position, frame.stream.z
        parts = self._waiting.setdefault(place, {})
        if any(part.t != frame.t for part in parts.values()):
            parts.clear()
        parts[frame.stream.channel] = frame
        if len(parts) < len(self._channels):
            return ()
        del self._waiting[place]
        return tuple(parts[channel] for channel in self._channels)
