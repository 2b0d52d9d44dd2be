"""What `livesr check --hardware` says of the fluctuations that a raw group shows.

Owns what is plausible of them. Takes no frame.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from livesr.base.frames import RawStack
from livesr.check.hardware import Looked, Measured

_LEAST_SHARED = 0.05


def fluctuations(looked: Looked) -> Measured:
    """Return how much of the last group's variance neighbouring pixels share.

    Light that blinks falls on several pixels at once; noise is each pixel's own.
    """
    share = shared_variance(looked.stacks[-1])
    blinks = share >= _LEAST_SHARED
    advice = (
        ""
        if blinks
        else "Nothing fluctuates but noise: more laser power, a dye or buffer that blinks, shorter"
        " exposures."
    )
    return Measured(
        "fluctuations",
        f"{share:.0%} of the variance is shared by neighbouring pixels",
        "ok" if blinks else "warning",
        advice,
    )


def shared_variance(stack: RawStack) -> float:
    """Return the covariance of pixels side by side, by their variance, in the brighter half.

    Light that changes as a whole, as a lamp's, is taken out first.
    """
    frames: NDArray[np.float32] = np.stack(stack.came).astype(np.float32)
    mean = frames.mean(axis=0)
    beyond = frames - mean
    beyond -= beyond.mean(axis=(1, 2), keepdims=True)
    bright = (mean >= np.median(mean))[:, :-1]
    shared = (beyond[:, :, :-1] * beyond[:, :, 1:]).mean(axis=0)[bright].sum()
    variance = (beyond[:, :, :-1] ** 2).mean(axis=0)[bright].sum()
    return float(shared / variance) if variance > 0 else 0.0
