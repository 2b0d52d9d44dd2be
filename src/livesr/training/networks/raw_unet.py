"""U-Net that makes a super-resolution frame of the raw frames of a group, light enough for two
cores.

References
----------
Jin et al. 2020, Nature Communications 11, 1934: U-Net for SIM with 15 or 3 raw frames.
Shi et al. 2016, CVPR: sub-pixel convolution; here also its inverse, at the input.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from livesr.training.networks.layers import conv3x3


class RawUNet(nn.Module):  # type: ignore[misc]
    """A U-Net on blocks of pixels: nothing is lost, and a convolution costs a quarter.

    The published network takes frames that were enlarged before. This one folds blocks of
    `fold` x `fold` camera pixels into features, works there, and unfolds to `scale` times the
    camera's sampling. The mean of the frames, interpolated linearly, is added to its output, so
    that it learns what the mean lacks. Folding and interpolation are convolutions that begin so.

    Parameters
    ----------
    frames : raw frames of a group
    width, depth : features of the first level, doubled on each of the `depth` levels below
    fold : side of the blocks
    scale : output pixels per camera pixel

    Raises
    ------
    ValueError
        If `depth` or `fold` is below 1.
    """

    channels = 1

    def __init__(
        self, frames: int = 3, width: int = 48, depth: int = 2, fold: int = 2, scale: int = 2
    ) -> None:
        super().__init__()
        if depth < 1 or fold < 1:
            raise ValueError(f"depth and fold must be at least 1; got {depth} and {fold}")
        self.frames, self.scale, self._unfold = frames, scale, fold * scale
        self.multiple_of = fold * 2**depth
        self.halo = fold * (2 * (2 ** (depth + 1) - 1) + 2 * (2**depth - 1)) + 1
        self.fold = nn.Conv2d(frames, frames * fold**2, fold, stride=fold)
        self.mean = nn.Conv2d(frames, scale**2, 3, padding=1)
        self._begin()
        widths = [width * 2**level for level in range(depth + 1)]
        self.down = nn.ModuleList(
            _double(a, b) for a, b in zip([frames * fold**2, *widths], widths, strict=False)
        )
        rising = widths[::-1]
        self.rise = nn.ModuleList(nn.ConvTranspose2d(2 * w, w, 2, stride=2) for w in rising[1:])
        self.up = nn.ModuleList(_double(2 * w, w) for w in rising[1:])
        self.pool = nn.MaxPool2d(2)
        self.out = conv3x3(width, (fold * scale) ** 2, gain=0.1)

    def forward(self, frames: Tensor) -> Tensor:
        """Return (n, 1, scale y, scale x) float32; y and x must be multiples of `multiple_of`."""
        x, skips = self.fold(frames), []
        for level, block in enumerate(self.down):
            x = block(x if level == 0 else self.pool(x))
            skips.append(x)
        for rise, block, skip in zip(self.rise, self.up, skips[-2::-1], strict=True):
            x = block(torch.cat([skip, rise(x)], 1))
        mean = F.pixel_shuffle(self.mean(frames), self.scale)
        return (F.pixel_shuffle(self.out(x), self._unfold) + mean).float()

    def _begin(self) -> None:
        """Fold every pixel of a block into a feature, and interpolate the mean linearly."""
        side, scale = self.fold.kernel_size[0], self.scale
        with torch.no_grad():
            self.fold.weight.zero_()
            self.fold.bias.zero_()
            self.mean.bias.zero_()
            for feature in range(self.fold.out_channels):
                frame, pixel = divmod(feature, side**2)
                self.fold.weight[feature, frame, pixel // side, pixel % side] = 1
            for i, kernel in enumerate(_linear_kernels(scale)):
                self.mean.weight[i] = kernel / self.frames


def _linear_kernels(scale: int) -> Tensor:
    """Return (scale^2, 3, 3): what each finer pixel takes of its pixel and the neighbours."""
    place = (torch.arange(scale) + 0.5) / scale - 0.5
    line = torch.stack([(-place).clamp(min=0), 1 - place.abs(), place.clamp(min=0)], 1)
    return (line[:, None, :, None] * line[None, :, None, :]).reshape(-1, 3, 3)


def _double(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(conv3x3(inputs, outputs), nn.ReLU(), conv3x3(outputs, outputs), nn.ReLU())
