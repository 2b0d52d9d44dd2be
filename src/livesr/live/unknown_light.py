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

from livesr.live.inference.engine import MOMENTS

_NOTHING = 1e-9  # mean t^3 in x: less is a dark frame


def unknown_light(features: NDArray[np.float32] | None) -> float | None:
    """Return the share of unknown light where the frame is bright, sqrt(sum u^2 t / sum t^3).

    Squares of u, and t as a weight, let a bright structure count more than the little that every
    place gives away. None where the network does not tell, or tells no number.

    Parameters
    ----------
    features : (2,) means over blocks of 2 x 2 pixels of u^2 t and of t^3, u the unknown light of a
        block and t all that is predicted there, in x
    """
    if features is None or len(features) != MOMENTS or not np.isfinite(features).all():
        return None
    unknown, total = (max(float(number), 0.0) for number in features)
    return math.sqrt(min(unknown / total, 1.0)) if total > _NOTHING else 0.0
