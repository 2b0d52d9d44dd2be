"""Light from far out of focus, shared out among the structures in focus.

Owns how smooth it is taken to be, and whose. Finds no structure.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F  # noqa: N812

from livesr.training.networks.layers import block_means, fixed, smoothing, spatial_mean

fx.wrap("spatial_mean")  # one operation in a traced graph, called from here as well

_SIGMA_PX = 6.0  # smoother than any structure, and than noise
_MOST = 4.0  # haze beside the light in focus: of as much, half is given, and of more hardly any
_LEAST = 1e-4  # mean light: a frame without any has no haze; 1 / it is a number of FP16


class SharedHaze(nn.Module):  # type: ignore[misc]
    """Give every structure its share of the smooth light that none of them explains.

    Where haze lies hardly tells whose it is, and how bright a structure is in focus does: the rest
    of the frame, smoothed, goes to the structures in proportion to all of their light in focus,
    each times a factor that is trained. A trace of a structure explains no even light and no
    noise: of far more than is in focus nothing is given.

    Parameters
    ----------
    images : structures, and unknown light if it is drawn
    factors : of each at first, how hazy it is beside the others; None if nobody knows

    Raises
    ------
    ValueError
        If `factors` are not one positive, finite number for each image.
    """

    STEP = 4
    """Pixels along y and x that are one in everything that is smooth; sides are multiples of it."""

    def __init__(self, images: int, factors: Sequence[float] | None = None) -> None:
        super().__init__()
        factors = [1.0] * images if factors is None else list(factors)
        if len(factors) != images or not all(0 < factor < math.inf for factor in factors):
            raise ValueError(
                f"haze has factors {factors}; expected a positive number for each of the {images}"
                " images, that of unknown light last if it is drawn"
            )
        step = self.STEP
        along_y, along_x = smoothing(_SIGMA_PX / step)
        self.halo = (along_y.weight.shape[2] // 2 + 1) * step
        self.coarse = block_means(images, step, groups=images)
        self.frame = block_means(1, step)
        self.explained = block_means(images, 1)
        enlarge = nn.ConvTranspose2d(1, 1, 2 * step, step, padding=step // 2, bias=False)
        rising = (torch.arange(2 * step) + 0.5) / step
        rising = torch.minimum(rising, 2 - rising)
        enlarge.weight.data.copy_(torch.outer(rising, rising)[None, None])
        self.spread = fixed(nn.Sequential(along_y, along_x, enlarge))
        self.factors = nn.Conv2d(images, images, 1, groups=images, bias=False)
        self.factors.weight.data.copy_(torch.tensor(factors).reshape(-1, 1, 1, 1))

    def forward(self, light: Tensor, images: Tensor) -> Tensor:
        """Return `images` (n, c, y, x) with their shares of what is left of the frame `light` (n,
        1, y, x).
        """
        coarse = self.coarse(images)
        rest = self.frame(light) + self.explained(coarse) * -1.0
        inside = self.spread(rest * 0.0 + 1.0)  # beyond the edges there is no frame
        smooth = F.relu(self.spread(rest) * inside**-1.0)
        bright = F.relu(self.factors(spatial_mean(coarse)))
        per_light = (self.explained(bright) + _LEAST) ** -1.0
        beyond = spatial_mean(F.relu(rest)) * per_light * (1 / _MOST)
        squared = beyond * beyond
        shares = bright * per_light * (1.0 + squared * squared) ** -1.0
        return images + smooth * shares
