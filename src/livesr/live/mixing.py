"""How bright each structure is beside the others, frame by frame and over a stream.

The brightness of a structure is the level that 1 in 200 pixels of its channel exceed, so that it
does not depend on how much of the field it covers; its ratio is that to the brightest other one.
What a network draws of a faint structure is too faint or, where others leak into it, too bright:
`livesr limits` measures by how much on simulated cells, and the manifest says it.

Owns the estimate and its interval. Draws no conclusion: that is `livesr.live.quality`'s.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from livesr.base.frames import MixingRatio

if TYPE_CHECKING:
    from livesr.live.inference.engine import ChannelMixing

BRIGHT_PERCENTILE = 99.5
_FOLLOW = 0.1  # share of a new frame: forgets half in about seven
_FRAMES = 2 / _FOLLOW - 1  # independent frames that such a mean is worth
_SIGMAS = 1.645  # 90 % of a normal distribution
_LEAST = 1e-3  # of the brightest other one: less is nothing


def ratios(brightness: Sequence[float] | NDArray[np.float64]) -> NDArray[np.float64]:
    """Return each brightness over the largest of the others (c,), at least 0.001; NaN without two.

    Parameters
    ----------
    brightness : (c,) in any unit
    """
    bright = np.maximum(np.asarray(brightness, np.float64), 0)
    others = [np.delete(bright, i).max(initial=0) for i in range(len(bright))]
    with np.errstate(divide="ignore", invalid="ignore"):
        found = bright / np.asarray(others)
    return np.where(np.isfinite(found), np.clip(found, _LEAST, 1 / _LEAST), np.nan)


def brightness(channels: NDArray[Any]) -> NDArray[np.float64]:
    """Return the brightness of each channel (c, y, x), in its unit: of every fourth pixel."""
    sample = channels[:, ::4, ::4].reshape(len(channels), -1)
    return np.asarray(np.percentile(sample, BRIGHT_PERCENTILE, axis=1), np.float64)


class Mixing:
    """Follows the ratio of one structure through one stream.

    Parameters
    ----------
    label : of the channel
    known : what the engine's manifest says of it
    """

    __slots__ = ("_known", "_mean", "_n", "_variance", "label")

    def __init__(self, label: str, known: ChannelMixing) -> None:
        self.label, self._known = label, known
        self._mean, self._variance, self._n = math.nan, 0.0, 0

    @property
    def found(self) -> float:
        """Mean ratio in the prediction over the last frames, geometric; NaN before the first."""
        return math.exp(self._mean)

    @property
    def known(self) -> bool:
        """Whether a frame has told anything."""
        return self._n > 0

    def update(self, ratio: float) -> None:
        """Take in the ratio of the next frame; NaN tells nothing."""
        if math.isnan(ratio):
            return
        value = math.log(ratio)
        if self._n == 0:
            self._mean = value
        self._n += 1
        follow = max(_FOLLOW, 1 / self._n)
        difference = value - self._mean
        self._mean += follow * difference
        self._variance = (1 - follow) * (self._variance + follow * difference**2)

    def ratio(self) -> MixingRatio:
        """Return the structure's true ratio as far as it can be told, with its 90 % interval.

        What frames differ by is averaged over the stream; what one cell differs from another by,
        as measured on simulation, is not.
        """
        known = self._known
        centre = known.offset + known.slope * self._mean
        between = known.slope**2 * self._variance / min(max(self._n, 1), _FRAMES)
        reach = _SIGMAS * math.sqrt(known.sd**2 + between)
        return MixingRatio(
            self.label, *(math.exp(v) for v in (centre, centre - reach, centre + reach))
        )


def mixings(known: Mapping[str, ChannelMixing], names: Sequence[str]) -> list[Mixing]:
    """Return what follows each channel; [] where the manifest does not say all of them."""
    return [Mixing(name, known[name]) for name in names] if set(names) <= set(known) else []
