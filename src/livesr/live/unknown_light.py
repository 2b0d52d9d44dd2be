"""How much light belongs to no structure that the engine knows.

A network that learned from crops with structures of no kind in particular gives their light to none
of its own (`livesr.training.recombine`), and its engine tells how much it was. `livesr limits`
measures how much there is where every structure is known.

Owns the number, and how much is usual. What follows from it is `livesr.live.quality`'s.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from livesr.live.inference.engine import TOLD, Limits
from livesr.live.out_of_distribution import FEATURES

_MOST_LEFT = 6.0  # times the unknown light that what is left counts for: beyond that it is noise
_NOTHING = 1e-9  # mean t^3, or mean square of details, in x: less is a dark frame


def unknown_light(features: NDArray[np.float32] | None) -> float | None:
    """Return how much light is like no known structure beside all that is predicted, 0 to 1.

    The geometric mean of two shares, sqrt(u d) / t: of the light that the network gives to none of
    its structures, and of what the structures leave of the frame, both as root mean squares of
    details; d counts as at most 6 u, because in dim frames more is left, which is noise. Of an
    engine that tells two numbers, the share of unknown light where the frame is bright,
    sqrt(sum u^2 t / sum t^3). None where the network does not tell, or tells no number.

    Parameters
    ----------
    features : (3,) mean squares of the details of the unknown light u, of all light t that is
        predicted and of what is left, d, in x (`livesr.training.networks.known_light`); or (2,)
        means over blocks of 2 x 2 pixels of u^2 t and of t^3
    """
    if features is None or len(features) not in TOLD or not np.isfinite(features).all():
        return None
    unknown, total, *left = (max(float(number), 0.0) for number in features)
    if total <= _NOTHING:
        return 0.0
    if left:
        unknown = math.sqrt(unknown * min(left[0], _MOST_LEFT**2 * unknown))
    return min(math.sqrt(unknown / total), 1.0)


def usual(limits: Limits, numbers: NDArray[np.float64] | None) -> float | None:
    """Return the unknown light that is unusual for a frame with these numbers.

    None where nobody measured what is usual.

    Parameters
    ----------
    numbers : as `livesr.live.out_of_distribution.FEATURES`; None where the frame is too small for
        them, and the limit is that of any frame
    """
    own = limits.usual_unknown_light
    if own is None or numbers is None:
        return limits.unknown_light
    found = own.offset
    for name, slope in own.slopes.items():
        found += slope * float(numbers[FEATURES.index(name)])
    return float(np.clip(math.exp(min(found, 0.0)), own.least, own.most))
