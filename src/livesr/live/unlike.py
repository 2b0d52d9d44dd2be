"""How unlike what the network knows its own features are.

A linear score of the features that an engine's network returns (`Manifest.features`): what it saw
in the frame, and what it saw where it drew each channel. Fitted on simulated cells against random
textures (outlier exposure, Hendrycks et al. 2019, ICLR): no structure that the engine does not know
is needed. `livesr limits --pairs` fits it.

Owns the score. `livesr.live.out_of_distribution` judges the frame itself, beside it.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from livesr.live.inference.engine import Familiarity, unpacked

FARTHEST = 4.0  # standard deviations: what is farther counts as much
_LITTLE = 1e-4  # of x: a channel with less light shows nothing


def described(features: NDArray[np.float32], channels: int, last: int) -> NDArray[np.float64]:
    """Return what is judged: means over the frame, and means where each channel is drawn.

    Parameters
    ----------
    features : (n,) as the network returns them: the means, then for each channel its own mean and
        the means of its product with the last features
    channels : of the prediction
    last : how many features are multiplied with each

    Returns
    -------
    float64 (n - channels,)
    """
    block = 1 + last
    own = len(features) - channels * block
    parts = [features[:own].astype(np.float64)]
    for c in range(channels):
        light, *products = features[own + c * block : own + (c + 1) * block].astype(np.float64)
        parts.append(np.asarray(products) / max(light, _LITTLE))
    return np.concatenate(parts)


class Unlike:
    """The score of one engine.

    Parameters
    ----------
    known : what was fitted
    channels : of the prediction
    """

    def __init__(self, known: Familiarity, channels: int) -> None:
        self._channels, self._last = channels, known.last
        self._mean, self._scale, self._weights = map(
            unpacked, (known.mean, known.scale, known.weights)
        )
        self._bias = known.bias

    def score(self, features: NDArray[np.float32] | None) -> float | None:
        """Return 0 for what is usual in training, 1 for what 1 in 25 of its frames exceed.

        None without features, or where they are no numbers.
        """
        if features is None or not np.isfinite(features).all():
            return None
        told = described(features, self._channels, self._last)
        far = np.clip((told - self._mean) / self._scale, -FARTHEST, FARTHEST)
        return float(far @ self._weights + self._bias)


def larger(scores: Sequence[float | None]) -> float | None:
    """Return the largest of the scores that are known, None of none."""
    known = [score for score in scores if score is not None]
    return max(known, default=None)
