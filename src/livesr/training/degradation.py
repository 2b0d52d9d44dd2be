"""PSSR's degradation: noise that is put on good images before they are sampled more coarsely.

Owns the noise. Images of low dose need not be acquired then: the network learns from good ones
alone, to remove noise as well as to enlarge.

References
----------
Fang et al. 2021, Nature Methods 18, 406 (PSSR), whose fluorescence images got salt and pepper and
Gaussian noise of a variance that follows the local brightness.
"""

from __future__ import annotations

from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from scipy.ndimage import gaussian_filter

from livesr.base.config import Model

Image = NDArray[np.float32]

_LOCAL_PX = 5.0
_BRIGHT_PERCENTILE = 99.9


class Degradation(Model):
    """How good images become bad ones; the defaults are PSSR's for fluorescence."""

    local_variance: Annotated[float, Field(ge=0, le=100)] = 0.5
    """Variance of the Gaussian noise over the local brightness, where bright parts are 1."""
    salt_and_pepper: Annotated[float, Field(ge=0, le=0.5)] = 0.005
    """Share of the pixels that become bright, and as many that become dark."""

    def __call__(self, image: Image, rng: np.random.Generator) -> Image:
        """Return `image` (y, x) with noise, in its own unit."""
        low = float(image.min())
        span = max(float(np.percentile(image, _BRIGHT_PERCENTILE)) - low, 1e-6)
        bad = (image - np.float32(low)) / np.float32(span)
        chance = rng.random(image.shape, np.float32)
        bad[chance < self.salt_and_pepper] = 1.0
        bad[chance > 1 - self.salt_and_pepper] = 0.0
        variance = self.local_variance * np.maximum(gaussian_filter(bad, _LOCAL_PX), 0)
        bad += np.sqrt(variance) * rng.standard_normal(image.shape, np.float32)
        return np.asarray(bad * np.float32(span) + np.float32(low), np.float32)
