"""How much light belongs to no structure that the engine knows.

A network that learned from crops with structures of no kind in particular gives their light to none
of its own (`livesr.training.recombine`), and its engine tells how much it was. `livesr limits`
measures how much there is where every structure is known.

Owns the number. What follows from it is `livesr.live.quality`'s.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from livesr.live.normalise import BRIGHT_LEVEL


def unknown_light(features: NDArray[np.float32] | None, channels: int) -> float | None:
    """Return the root mean square of the unknown light over the level of the frame's bright parts.

    None where the network does not tell, or tells no number.

    Parameters
    ----------
    features : (c + 1,) of a network that draws unknown light: the mean squares over the frame of
        its c structures and of the unknown light, in x
    channels : c
    """
    if features is None or len(features) != channels + 1 or not np.isfinite(features).all():
        return None
    return math.sqrt(max(float(features[-1]), 0.0)) / BRIGHT_LEVEL
