"""What several networks are built from.

Convolutions with their first weights, activations, channel attention.

References
----------
Zhang et al. 2018, "Image super-resolution using very deep residual channel attention networks"
(RCAN).
"""

from __future__ import annotations

import math
from typing import Literal, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

Activation = Literal["gelu_erf", "gelu_tanh", "relu", "silu"]

M = TypeVar("M", bound=nn.Module)


def activation(name: Activation) -> nn.Module:
    """Make an activation by its name; raises ValueError for one that is not known."""
    table: dict[str, nn.Module] = {
        "gelu_erf": nn.GELU(),
        "gelu_tanh": nn.GELU(approximate="tanh"),
        "relu": nn.ReLU(),
        "silu": nn.SiLU(),
    }
    if name not in table:
        raise ValueError(f"activation {name!r} is not known; choose one of {', '.join(table)}")
    return table[name]


def conv3x3(inputs: int, outputs: int, gain: float = 1.0) -> nn.Conv2d:
    """3x3 convolution of equal size, He-initialised.

    The default start collapses under a sigmoid head.
    """
    return convolution(inputs, outputs, 3, gain)


def convolution(inputs: int, outputs: int, side: int, gain: float = 1.0) -> nn.Conv2d:
    """Convolution of equal size with a kernel of `side` x `side` (odd), He-initialised."""
    conv = nn.Conv2d(inputs, outputs, side, padding=side // 2)
    he_init(conv, gain)
    return conv


class Enlarge(nn.Module):  # type: ignore[misc]
    """Each channel sampled `scale` times more finely by cubic convolution, a = -0.5; not trained.

    What networks that work at the size of their output are given (SRCNN, VDSR). One transposed
    convolution, which every runtime has; beyond the edges the image is taken as 0, where normalised
    frames have their background.

    References
    ----------
    Keys 1981, "Cubic convolution interpolation for digital image processing".
    """

    halo = 2

    def __init__(self, scale: int, channels: int = 1) -> None:
        super().__init__()
        side, before = 4 * scale - scale % 2, 3 * scale // 2
        weights = _keys((torch.arange(side) - before + 0.5) / scale - 0.5)
        kernel = torch.outer(weights, weights).expand(channels, 1, -1, -1).clone()
        self.scale, self.channels = scale, channels
        self.enlarge = nn.ConvTranspose2d(
            channels,
            channels,
            side,
            stride=scale,
            padding=before,
            groups=channels,
            bias=False,
        )
        self.enlarge.weight = nn.Parameter(kernel, requires_grad=False)

    def forward(self, image: Tensor) -> Tensor:
        """Return (n, channels, scale y, scale x)."""
        return image if self.scale == 1 else self.enlarge(image)


def _keys(distance: Tensor) -> Tensor:
    """Return the weight of a sample at `distance`, in samples."""
    d = distance.abs()
    near, far = 1.5 * d**3 - 2.5 * d**2 + 1, -0.5 * d**3 + 2.5 * d**2 - 4 * d + 2
    return torch.where(d <= 1, near, torch.where(d < 2, far, torch.zeros_like(d)))


def he_init(conv: nn.Conv2d, gain: float = 1.0) -> None:
    """Draw He-normal weights, times `gain`; biases start at zero."""
    nn.init.kaiming_normal_(conv.weight, nonlinearity="relu")
    with torch.no_grad():
        conv.weight.mul_(gain)
    nn.init.zeros_(conv.bias)


def upsampling(width: int, factors: list[int]) -> nn.Sequential:
    """Sub-pixel convolutions, one step a factor (EDSR, RCAN); nothing without factors."""
    return nn.Sequential(
        *(m for r in factors for m in (conv3x3(width, width * r * r), nn.PixelShuffle(r)))
    )


def fixed(module: M) -> M:
    """Return a module whose weights are not trained."""
    module.requires_grad_(False)
    return module


def block_means(inputs: int, side: int, groups: int = 1, every: int | None = None) -> nn.Conv2d:
    """Make means over blocks of `side` x `side`, not trained.

    Of each channel, with as many `groups`, or of the sum of all; one block begins at `every` so
    many pixels, side by side if None.
    """
    outputs = inputs if groups > 1 else 1
    means = fixed(nn.Conv2d(inputs, outputs, side, every or side, groups=groups, bias=False))
    nn.init.constant_(means.weight, 1 / side**2)
    return means


def smoothing(sigma: float, channels: int = 1) -> tuple[nn.Conv2d, nn.Conv2d]:
    """Make a Gaussian along y and one along x for each channel, 2.5 `sigma` to either side.

    Each sums up to 1; beyond the edges the image is taken as 0. Not trained.
    """
    radius = math.ceil(2.5 * sigma)
    weights = torch.softmax(-((torch.arange(-radius, radius + 1) / sigma) ** 2) / 2, 0)
    along = []
    for shape in ((2 * radius + 1, 1), (1, 2 * radius + 1)):
        padding = (shape[0] // 2, shape[1] // 2)
        conv = nn.Conv2d(channels, channels, shape, padding=padding, groups=channels, bias=False)
        conv.weight.data.copy_(weights.reshape(1, 1, *shape))
        along.append(fixed(conv))
    return along[0], along[1]


@torch.fx.wrap  # type: ignore[untyped-decorator]
def spatial_mean(features: Tensor) -> Tensor:
    """Return the mean of each channel, (n, c, 1, 1): one operation in a traced graph.

    As a sum: the gradient of a pooling is written out in another memory format than the features
    have, and adding the two took 8 % of a training step.
    """
    return features.sum((2, 3), keepdim=True) * (1 / (features.shape[2] * features.shape[3]))


class ChannelAttention(nn.Module):  # type: ignore[misc]
    """Weigh each feature channel by a gate computed from the means of all (RCAN, eq. 9-10).

    The mean runs over the whole image: a tile and the whole are not exactly equal.
    """

    def __init__(self, width: int, reduction: int) -> None:
        super().__init__()
        hidden = max(width // reduction, 1)
        self.squeeze = nn.Conv2d(width, hidden, 1)
        self.excite = nn.Conv2d(hidden, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Return `x` (n, c, y, x), each channel times its gate in (0, 1)."""
        return x * self.gate(x)

    def gate(self, features: Tensor) -> Tensor:
        """Return one gate per channel, (n, c, 1, 1), from the means of `features`."""
        return torch.sigmoid(self.excite(F.relu(self.squeeze(spatial_mean(features)))))
