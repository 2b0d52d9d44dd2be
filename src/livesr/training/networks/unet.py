"""U-Net, as it restores and reconstructs microscope images (Jin et al. 2020); here for comparison.

References
----------
Ronneberger et al. 2015, "U-Net: convolutional networks for biomedical image segmentation".
Jin et al. 2020, Nature Communications 11, 1934 (U-Net for SIM).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from livesr.training.networks.layers import conv3x3


class UNet(nn.Module):  # type: ignore[misc]
    """Four levels down by max pooling and up by 2x2 transposed convolutions, two convolutions a
    level.

    As published but for the padding: convolutions keep the size here, so that nothing is cropped,
    and the output has one linear image per structure instead of class scores. 31.0 million
    parameters at the published 64 features.

    `scale` above 1 draws the output that much more finely, by one sub-pixel convolution at the
    end: raw frames to a super-resolution frame (Jin et al. enlarge the raw frames first, at four
    times the cost).

    Raises
    ------
    ValueError
        If `depth` or `scale` is below 1.
    """

    def __init__(
        self,
        frames: int = 3,
        channels: int = 3,
        width: int = 64,
        depth: int = 4,
        scale: int = 1,
    ) -> None:
        super().__init__()
        if depth < 1 or scale < 1:
            raise ValueError(f"depth and scale must be at least 1; got {depth} and {scale}")
        self.scale = scale
        self.frames, self.channels, self.depth, self.multiple_of = frames, channels, depth, 2**depth
        # Two pixels a level on the way down and up, each 2^level input pixels wide.
        self.halo = 2 * (2 ** (depth + 1) - 1) + 2 * (2**depth - 1)
        widths = [width * 2**level for level in range(depth + 1)]
        self.down = nn.ModuleList(
            _double(a, b) for a, b in zip([frames, *widths], widths, strict=False)
        )
        rising = widths[::-1]
        self.rise = nn.ModuleList(nn.ConvTranspose2d(2 * w, w, 2, stride=2) for w in rising[1:])
        self.up = nn.ModuleList(_double(2 * w, w) for w in rising[1:])
        self.pool = nn.MaxPool2d(2)
        self.out = nn.Conv2d(width, channels * scale**2, 1)
        nn.init.normal_(self.out.weight, std=0.01)
        nn.init.zeros_(self.out.bias)

    def forward(self, frames: Tensor) -> Tensor:
        """Return (n, channels, scale y, scale x) float32.

        y and x must be multiples of 2^depth.
        """
        x, skips = frames, []
        for level, block in enumerate(self.down):
            x = block(x if level == 0 else self.pool(x))
            skips.append(x)
        for rise, block, skip in zip(self.rise, self.up, skips[-2::-1], strict=True):
            x = block(torch.cat([skip, rise(x)], 1))
        x = self.out(x)
        return (F.pixel_shuffle(x, self.scale) if self.scale > 1 else x).float()


def _double(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(conv3x3(inputs, outputs), nn.ReLU(), conv3x3(outputs, outputs), nn.ReLU())
