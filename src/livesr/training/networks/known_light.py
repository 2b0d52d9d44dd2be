"""The structures that a network draws, and how much light is like none of them.

What the engine of a network computes that draws unknown light. Owns the numbers that are told; what
follows from them is `livesr.live.unknown_light`'s.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, fx, nn

from livesr.training.networks.imcsr import IMCSR
from livesr.training.networks.layers import block_means, fixed, smoothing, spatial_mean

fx.wrap("spatial_mean")  # one operation in a traced graph, called from here as well

_DETAIL_PX = (2.0, 8.0)  # sigmas between which structures are: below is noise, above is haze
_FINE_PX = 3  # side of the means of what is left, a sigma of 0.8: a single pixel is noise


class KnownLight(nn.Module):  # type: ignore[misc]
    """The structures of a network that draws unknown light, and how much of that there is.

    The unknown light is no channel, only its amount is told, and how much the structures leave of
    the frame: what is like none of them is drawn as some of them, badly.

    Parameters
    ----------
    network : with `unknown`
    """

    BLOCK = 4
    """Pixels along y and x that are one in what is told."""

    def __init__(self, network: IMCSR) -> None:
        super().__init__()
        self.network = network
        side = self.BLOCK
        self.multiple_of = math.lcm(network.multiple_of, side)
        # Of the unknown light, and of all that is predicted, in one operation.
        self.amounts = fixed(nn.Conv2d(network.channels, 2, side, side, bias=False))
        nn.init.constant_(self.amounts.weight, 1 / side**2)
        nn.init.zeros_(self.amounts.weight[0, : network.structures])
        self.frame = block_means(1, _FINE_PX, every=2)
        self.shown = block_means(network.channels, _FINE_PX, every=2)
        nn.init.zeros_(self.shown.weight[:, network.structures :])
        fine, coarse = (smoothing(sigma / side, 2) for sigma in _DETAIL_PX)
        self.fine, self.coarse = nn.Sequential(*fine), nn.Sequential(*coarse)

    def forward(self, frames: Tensor) -> tuple[Tensor, Tensor]:
        """Return the structures (n, c, y, x), and four numbers (n, 4, 1, 1), mean squares: of the
        details of the unknown light, and of all that is predicted in focus; of what the structures
        leave of the middle frame, and of the structures. Details are those between 2 and 8 pixels
        (sigma), of means over blocks of 4 x 4; the last two are of means over 3 x 3.
        """
        images = self.network.in_focus(frames)
        with_haze = self.network.with_haze(frames, images)
        told = self.amounts(images)
        inside = told * 0.0 + 1.0  # beyond the edges there is nothing
        fine = self.fine(told) * self.fine(inside) ** -1.0
        details = fine + self.coarse(told) * self.coarse(inside) ** -1.0 * -1.0
        middle = self.network.frames // 2
        light = self.shown(with_haze)
        left = self.frame(frames[:, middle : middle + 1].float()) + light * -1.0
        drawn = torch.cat([left, light], 1)
        numbers = [spatial_mean(details * details), spatial_mean(drawn * drawn)]
        return with_haze[:, 0 : self.network.structures], torch.cat(numbers, 1)
