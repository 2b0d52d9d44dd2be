"""Background and scale of one reconstructed frame.

What x = (X - b) / s is made with, live and in training.

Owns the percentiles and how they follow from frame to frame. Touches no pixel.
"""

from __future__ import annotations

import math

from livesr.live.arrays import HOST, Array, Arrays

BRIGHT_LEVEL = 0.55
"""Where x puts the bright parts of a frame: structures may brighten by almost 2 before x exceeds 1.

Nothing clips.
"""

BACKGROUND_PERCENTILE = 5.0
BRIGHT_PERCENTILE = 99.9
_SMALLEST_SCALE_ADU = 1.0
_FOLLOW = 0.1  # share of a new frame's values in the running ones
_BLOCK_PX = 2
"""Side of the blocks whose means estimate the background, distance of the pixels that estimate the
bright level. Live and training use the same, or b would differ with the noise.
"""

BORDER = 0.06
"""Fraction of each side that live frames leave out: reconstructions may fade to 0 there."""


def background_and_scale(
    image: Array, border: float = 0.0, arrays: Arrays = HOST
) -> tuple[float, float]:
    """Return background b and scale s of one frame, so that x = (X - b) / s.

    Parameters
    ----------
    image : a reconstruction in ADU, float32 (y, x)
    border : fraction of each side that is left out. A reconstruction may fade to 0 at its edges,
        which would otherwise pass for the background
    arrays : what `image` is an array of

    Returns
    -------
    background, scale : float
        ADU. The 99.9th percentile becomes x = 0.55; scale is at least 1 ADU.

    Notes
    -----
    A low percentile of single pixels would follow the noise (mean minus two standard deviations);
    block means keep b at the level of the dark parts, so that empty regions have x near 0 at any
    signal-to-noise ratio.
    """
    y, x = (int(n * border) for n in image.shape)
    inside = image[y : image.shape[0] - y, x : image.shape[1] - x]
    dark_level = arrays.percentile(_block_means(inside, _BLOCK_PX), BACKGROUND_PERCENTILE)
    bright_level = arrays.percentile(inside[::_BLOCK_PX, ::_BLOCK_PX], BRIGHT_PERCENTILE)
    background, bright = (float(level) for level in arrays.numbers([dark_level, bright_level]))
    return background, max((bright - background) / BRIGHT_LEVEL, _SMALLEST_SCALE_ADU)


def _block_means(image: Array, side: int) -> Array:
    y, x = (n // side * side for n in image.shape)
    if not y or not x:
        return image
    # Whole rows first, then whole columns: adding slices is over ten times faster than a mean over
    # two axes.
    rows = sum((image[i:y:side, :x] for i in range(1, side)), start=image[0:y:side, :x])
    return sum((rows[:, i::side] for i in range(1, side)), start=rows[:, 0::side]) / (side * side)


class FollowingNormalisation:
    """Background and scale of one stream, following its frames slowly so that no brightness step
    flickers.

    Causal: the values for a frame depend on that frame and the ones before it, never on later ones,
    and are stored with it, so that an offline run repeats them exactly.

    Forgets half in about seven frames.
    """

    __slots__ = ("_background", "_scale")

    def __init__(self) -> None:
        self._background = self._scale = math.nan

    def resume(self, background: float, scale: float) -> tuple[float, float]:
        """Take over the values stored with the stream's next frame, and return them.

        Later frames follow from there.
        """
        self._background, self._scale = background, scale
        return background, scale

    def update(self, background: float, scale: float) -> tuple[float, float]:
        """Return (background, scale) in ADU for the next frame of the stream, given its own."""
        if math.isnan(self._background):
            self._background, self._scale = background, scale
        else:
            self._background += _FOLLOW * (background - self._background)
            self._scale += _FOLLOW * (scale - self._scale)
        return self._background, self._scale
