"""How much light belongs to no structure that the engine knows.

A network that learned from crops with structures of no kind in particular gives their light to none
of its own (`livesr.training.recombine`), and its engine tells how much it was. `livesr limits`
measures how much there is where every structure is known.

Owns the number, and how much is usual. What follows from it is `livesr.live.quality`'s.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from livesr.live.inference.engine import TOLD, Limits
from livesr.live.out_of_distribution import FEATURES

_MOST_LEFT = 6.0  # of three numbers: times the unknown light that what is left counts for
_NOTHING = 1e-9  # mean t^3, or mean square of details, in x: less is a dark frame


class UnknownLight(NamedTuple):
    """How much light of a frame is like no known structure, 0 to 1 beside all that is predicted.

    Attributes
    ----------
    told : tells unknown structures best where microscope and mixture are alike, as on one rig
    share : of the light that the network gives to none of its structures alone: what they leave of
        a frame differs from rig to rig, and this does not go by it
    """

    told: float
    share: float


def unknown_light(features: NDArray[np.float32] | None) -> UnknownLight | None:
    """Return how much light is like no known structure.

    Told is the geometric mean of two shares, sqrt(u / t * d / s), as root mean squares: of the
    light that the network gives to none of its structures in all that is predicted, of details; and
    of what the structures leave of the frame beside them, for what a network does not know it draws
    as what it knows, badly. Engines of before tell three numbers, of which it is sqrt(u d) / t, d
    at most 6 u, or two, sqrt(sum u^2 t / sum t^3). None where the network does not tell, or tells
    no number.

    Parameters
    ----------
    features : (4,) mean squares of the details of the unknown light u and of all light t that is
        predicted, of what is left, d, and of the structures, s, in x
        (`livesr.training.networks.known_light`); (3,) of the details of u, t and d; or (2,) means
        over blocks of 2 x 2 pixels of u^2 t and of t^3
    """
    if features is None or len(features) not in TOLD or not np.isfinite(features).all():
        return None
    unknown, total, *beside = (max(float(number), 0.0) for number in features)
    if total <= _NOTHING:
        return UnknownLight(0.0, 0.0)
    if len(beside) == 1:
        unknown = math.sqrt(unknown * min(beside[0], _MOST_LEFT**2 * unknown))
    share = min(math.sqrt(unknown / total), 1.0)
    if len(beside) < 2:
        return UnknownLight(share, share)
    left, shown = beside
    left_share = math.sqrt(left / shown) if shown > _NOTHING else 1.0
    return UnknownLight(min(math.sqrt(share * left_share), 1.0), share)


def usual(limits: Limits, numbers: NDArray[np.float64] | None) -> float | None:
    """Return the share of unknown light that is unusual for a frame with these numbers.

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
