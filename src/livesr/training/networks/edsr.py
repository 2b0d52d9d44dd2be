"""EDSR: one image, upscaled.

References
----------
Lim et al. 2017, "Enhanced deep residual networks for single image super-resolution" (EDSR).
Hu et al. 2020, Acta Optica Sinica (EDSR for STORM).
"""

from __future__ import annotations

import math

from torch import Tensor, nn

from livesr.training.networks.layers import conv3x3, upsampling


class ResidualBlock(nn.Module):  # type: ignore[misc]
    """SRResNet's block without batch normalisation: conv, ReLU, conv, scaled, skip."""

    def __init__(self, width: int, scaling: float) -> None:
        super().__init__()
        self.branch = nn.Sequential(
            conv3x3(width, width), nn.ReLU(), conv3x3(width, width, gain=0.5)
        )
        self.scaling = scaling

    def forward(self, x: Tensor) -> Tensor:
        """Return `x` plus the scaled branch."""
        branch = self.branch(x)
        return x + (branch if self.scaling == 1 else branch * self.scaling)


class EDSR(nn.Module):  # type: ignore[misc]
    """Upscale one image (n, 1, y, x) by 2, 3 (one step) or 4 (two steps of 2), by sub-pixel
    convolution.

    The defaults are EDSR's baseline, 16 blocks of 64. The published network has 32 blocks of 256
    and, in EDSR's own code, residual scaling 0.1. `frames` and `channels` are 1: it is a
    restoration of one image, not a separation.

    Raises
    ------
    ValueError
        If `scale` is none of 2, 3, 4.
    """

    frames = 1
    channels = 1
    multiple_of = 1

    def __init__(
        self, scale: int = 2, blocks: int = 16, width: int = 64, residual_scaling: float = 1.0
    ) -> None:
        super().__init__()
        if scale not in {2, 3, 4}:
            raise ValueError(f"scale must be 2, 3 or 4; got {scale}")
        self.scale = scale
        self.halo = (
            2 * blocks + 5
        )  # one pixel a convolution: first, body with its last, upsampling, output
        self.head = conv3x3(1, width)
        self.body = nn.Sequential(
            *(ResidualBlock(width, residual_scaling) for _ in range(blocks)), conv3x3(width, width)
        )
        self.upsample = upsampling(width, {2: [2], 3: [3], 4: [2, 2]}[scale])
        self.out = conv3x3(width, 1, gain=math.sqrt(0.5))

    def forward(self, image: Tensor) -> Tensor:
        """Return the upscaled image, (n, 1, scale y, scale x) float32."""
        features = self.head(image)
        return self.out(self.upsample(features + self.body(features))).float()
