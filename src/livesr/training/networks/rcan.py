"""RCAN: the deep residual network with channel attention that IMC-SR was made from.

Here for comparison.

References
----------
Zhang et al. 2018, "Image super-resolution using very deep residual channel attention networks".
"""

from __future__ import annotations

from torch import Tensor, nn

from livesr.training.networks.layers import ChannelAttention, conv3x3, upsampling


class RCABlock(nn.Module):  # type: ignore[misc]
    """Conv, ReLU, conv, attention, skip (RCAN, eq. 12)."""

    def __init__(self, width: int, reduction: int) -> None:
        super().__init__()
        self.branch = nn.Sequential(
            conv3x3(width, width),
            nn.ReLU(),
            conv3x3(width, width, gain=0.5),
            ChannelAttention(width, reduction),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Return `x` plus what the branch adds."""
        return x + self.branch(x)


class RCAGroup(nn.Module):  # type: ignore[misc]
    """Blocks in a row and a convolution; the skip runs around all (RCAN, eq. 5)."""

    def __init__(self, width: int, blocks: int, reduction: int) -> None:
        super().__init__()
        # The last convolution starts quiet, so that ten groups add up to about their input.
        self.branch = nn.Sequential(
            *(RCABlock(width, reduction) for _ in range(blocks)), conv3x3(width, width, 0.1)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Return `x` plus what the branch adds."""
        return x + self.branch(x)


class RCAN(nn.Module):  # type: ignore[misc]
    """Residual in residual with channel attention.

    10 groups of 20 blocks of 64 features by default.

    `scale` 1 separates or restores at the input's size; 2, 3 and 4 upscale. The published network
    shifts colours by their mean first, which normalised microscope frames do not need. No
    activation follows the last convolution.

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
        groups: int = 10,
        blocks: int = 20,
        reduction: int = 16,
        scale: int = 1,
    ) -> None:
        super().__init__()
        factors: dict[int, list[int]] = {1: [], 2: [2], 3: [3], 4: [2, 2]}
        if scale not in factors:
            raise ValueError(f"scale must be 1, 2, 3 or 4; got {scale}")
        self.frames, self.channels, self.scale = frames, channels, scale
        self.halo = 3 + groups * (2 * blocks + 1) + len(factors[scale])
        self.head = conv3x3(frames, width)
        self.body = nn.Sequential(
            *(RCAGroup(width, blocks, reduction) for _ in range(groups)), conv3x3(width, width)
        )
        self.upsample = upsampling(width, factors[scale])
        self.out = conv3x3(width, channels, 0.1)

    def forward(self, frames: Tensor) -> Tensor:
        """Return (n, channels, scale y, scale x) float32."""
        features = self.head(frames)
        return self.out(self.upsample(features + self.body(features))).float()
