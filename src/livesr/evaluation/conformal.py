"""How wide bounds must be so that what was not seen lies within them as often as was asked.

Owns the two bounds on a risk and the search for the width. Knows no picture.

A unit (a field, a cell) has many pixels that err together, so the units are counted and not the
pixels: the risk of a unit is the share of its pixels that lie outside. Of exchangeable units the
mean risk of the next one is at most `alpha` (conformal risk control, Angelopoulos et al. 2024,
ICLR), or, where a confidence is asked for, at most `alpha` but for unlucky calibrations (RCPS with
the bound of Hoeffding and Bentkus, Bates et al. 2021, J. ACM 68, 43; Angelopoulos et al. 2022,
Im2Im-UQ).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binom

Doubles = NDArray[np.float64]


def fewest_units(alpha: float, confidence: float | None = None) -> int:
    """Return how many units it takes before anything can be promised."""
    n = 1
    while not promises(np.zeros(n), alpha, confidence):
        n += 1
    return n


def promises(risks: Doubles, alpha: float, confidence: float | None = None) -> bool:
    """Whether units with these risks, each from 0 to 1, promise one of `alpha` for the next.

    Parameters
    ----------
    risks : (n,) of the units that were seen
    confidence : probability that a calibration keeps its promise; None for the mean over
        calibrations
    """
    n, risk = len(risks), float(np.mean(risks))
    if confidence is None:
        # (n risk + 1) / (n + 1): the next unit may lie outside altogether
        return n * risk + 1 <= alpha * (n + 1) * (1 + 1e-12)
    return risk < alpha and _p_value(risk, n, alpha) <= 1 - confidence


def width(scores: Sequence[Doubles], alpha: float, confidence: float | None = None) -> float:
    """Return the least width at which no more than `alpha` of the next unit lies outside.

    Parameters
    ----------
    scores : of each unit, at which width each of its pixels begins to lie within

    Raises
    ------
    ValueError
        If there are too few units to promise anything.
    """
    if not promises(np.zeros(len(scores)), alpha, confidence):
        raise ValueError(f"{len(scores)} came, expected at least {fewest_units(alpha, confidence)}")
    ordered = [np.sort(of) for of in scores]
    candidates = np.unique(np.concatenate(ordered))
    low, high = -1, len(candidates) - 1  # at the largest of all nothing lies outside
    while high - low > 1:
        middle = (low + high) // 2
        if promises(_risks(ordered, candidates[middle]), alpha, confidence):
            high = middle
        else:
            low = middle
    return float(candidates[high])


def _risks(ordered: Sequence[Doubles], at: float) -> Doubles:
    """Return the share of each unit that lies outside."""
    return np.array([1 - np.searchsorted(of, at, side="right") / len(of) for of in ordered])


def _p_value(risk: float, n: int, alpha: float) -> float:
    """Bound the probability of so small a risk by chance where the true one is above `alpha`."""
    hoeffding = math.exp(-n * _divergence(min(risk, alpha), alpha))
    bentkus = math.e * float(binom.cdf(math.ceil(n * risk), n, alpha))
    return min(hoeffding, bentkus, 1.0)


def _divergence(a: float, b: float) -> float:
    first = a * math.log(a / b) if a > 0 else 0.0
    return first + ((1 - a) * math.log((1 - a) / (1 - b)) if a < 1 else 0.0)
