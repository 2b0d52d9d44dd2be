"""How much of the light belongs to no structure that the engine knows.

A network that learned from crops with structures of no kind in particular gives their light to none
of its own (`livesr.training.recombine`), and its engine tells how much it was. `livesr limits`
measures how much there is where every structure is known.

Owns the share. What follows from it is `livesr.live.quality`'s.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_NOTHING = 1e-6  # mean light of a frame in x: less is no light to share out


def unknown_share(features: NDArray[np.float32] | None, channels: int) -> float | None:
    """Return the unknown light over all that was predicted, 0 to 1.

    None where the network does not tell, or tells no number.

    Parameters
    ----------
    features : (2 c + 2,) of a network that draws unknown light: the means over the frame of its c
        structures and of the unknown light, and their mean squares
    channels : c
    """
    if features is None or len(features) != 2 * (channels + 1) or not np.isfinite(features).all():
        return None
    light = np.maximum(features[: channels + 1].astype(np.float64), 0)
    return float(light[-1] / light.sum()) if light.sum() > _NOTHING else 0.0
