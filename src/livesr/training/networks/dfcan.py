"""DFCAN: attention computed from the power spectrum of the features.

Here for comparison. Its attention needs a Fourier transform of every feature map, which most
runtimes have, and TensorRT computes as matrix products: slow where frames are large.

References
----------
Qiao et al. 2021, Nature Methods 18, 194 (DFCAN, DFGAN).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from livesr.training.networks.layers import ChannelAttention, conv3x3

_GAMMA = 0.8
_EPSILON = 1e-8  # keeps the gradient of |spectrum|^0.8 finite at zero


@torch.fx.wrap  # type: ignore[untyped-decorator]
def amplitudes(features: Tensor) -> Tensor:
    """Return the amplitude of every frequency, zero in the middle: one operation in a traced graph.

    Of (n, c, y, x), as (n, c, y, x) float32 (no transform in 16 bits); power is kept.
    """
    spectrum = torch.fft.fft2(features.float(), norm="ortho")
    return torch.fft.fftshift(spectrum, dim=(-2, -1)).abs()


class FourierAttention(ChannelAttention):
    """Channel attention whose gates come from the spectrum.

    |FFT|^0.8, zero frequency in the middle, conv, ReLU, mean.
    """

    def __init__(self, width: int, reduction: int) -> None:
        super().__init__(width, reduction)
        self.spectral = nn.Sequential(conv3x3(width, width), nn.ReLU())

    def forward(self, x: Tensor) -> Tensor:
        """Return `x` (n, c, y, x), each channel times its gate in (0, 1)."""
        return x * self.gate(self.spectral((amplitudes(x) + _EPSILON) ** _GAMMA))


class FCAB(nn.Module):  # type: ignore[misc]
    """Fourier channel attention block: conv, GELU, conv, GELU, attention, skip."""

    def __init__(self, width: int, reduction: int) -> None:
        super().__init__()
        self.branch = nn.Sequential(
            conv3x3(width, width),
            nn.GELU(),
            conv3x3(width, width, gain=0.5),
            nn.GELU(),
            FourierAttention(width, reduction),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Return `x` plus what the branch adds."""
        return x + self.branch(x)


class DFCAN(nn.Module):  # type: ignore[misc]
    """4 groups of 4 blocks of 64 features, sub-pixel upsampling by `scale`, sigmoid, as published.

    The groups' sums are halved, as in IMC-SR here; the published network starts from weights that
    are smaller. The Fourier transform is scaled to keep the power, so that a gate means the same at
    every image size.

    Raises
    ------
    ValueError
        If `scale` is none of 1, 2, 3, 4.
    """

    multiple_of = 1

    def __init__(
        self,
        frames: int = 3,
        channels: int = 3,
        width: int = 64,
        groups: int = 4,
        blocks: int = 4,
        reduction: int = 16,
        scale: int = 1,
    ) -> None:
        super().__init__()
        if scale not in {1, 2, 3, 4}:
            raise ValueError(f"scale must be 1, 2, 3 or 4; got {scale}")
        self.frames, self.channels, self.scale = frames, channels, scale
        self.halo = 3 + 2 * groups * blocks
        self.head = nn.Sequential(conv3x3(frames, width), nn.GELU())
        self.groups = nn.ModuleList(
            nn.Sequential(*(FCAB(width, reduction) for _ in range(blocks))) for _ in range(groups)
        )
        self.tail = nn.Sequential(
            conv3x3(width, width * scale**2), nn.GELU(), nn.PixelShuffle(scale)
        )
        self.out = conv3x3(width, channels, 0.1)
        nn.init.constant_(
            self.out.bias, -2.0
        )  # near the dark background, not in the sigmoid's tail

    def forward(self, frames: Tensor) -> Tensor:
        """Return (n, channels, scale y, scale x) float32 between 0 and 1."""
        features = self.head(frames)
        for group in self.groups:
            features = (features + group(features)) * 0.5
        return torch.sigmoid(self.out(self.tail(features)).float())
