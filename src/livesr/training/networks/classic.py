"""Networks for one image that are a page of code each, from SRCNN to RDN.

Here to be trained on one's own pairs and to be compared with; docs/networks.md has them all on one
data set. Owns their topology. Each takes one normalised image, (n, 1, y, x), and gives
(n, 1, scale y, scale x) float32.

The published networks have one luminance channel or three colours; these have one. Means of the
colours, which some subtract first, are those of normalised frames: nothing is subtracted. Networks
that their papers give an enlarged image (SRCNN, VDSR, DRCN, DRRN, MemNet) enlarge it themselves, by
cubic convolution, and restore without enlarging at `scale` 1.

References
----------
SRCNN: Dong et al. 2014, "Learning a deep convolutional network for image super-resolution".
FSRCNN: Dong et al. 2016, "Accelerating the super-resolution convolutional neural network".
ESPCN: Shi et al. 2016, "Real-time single image and video super-resolution using an efficient
sub-pixel convolutional neural network".
VDSR: Kim et al. 2016, "Accurate image super-resolution using very deep convolutional networks".
DRCN: Kim et al. 2016, "Deeply-recursive convolutional network for image super-resolution".
DRRN: Tai et al. 2017, "Image super-resolution via deep recursive residual network".
SRResNet: Ledig et al. 2017, "Photo-realistic single image super-resolution using a generative
adversarial network".
SRDenseNet: Tong et al. 2017, "Image super-resolution using dense skip connections".
MemNet: Tai et al. 2017, "MemNet: a persistent memory network for image restoration".
LapSRN: Lai et al. 2017, "Deep Laplacian pyramid networks for fast and accurate super-resolution".
MDSR: Lim et al. 2017, "Enhanced deep residual networks for single image super-resolution".
RDN: Zhang et al. 2018, "Residual dense network for image super-resolution".
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from livesr.training.networks.edsr import ResidualBlock
from livesr.training.networks.layers import Enlarge, conv3x3, convolution, upsampling

_FACTORS: dict[int, list[int]] = {2: [2], 3: [3], 4: [2, 2]}
_QUIET = 0.1  # gain of a last convolution whose output is added to the image


class _OneImage(nn.Module):  # type: ignore[misc]
    """One image in, one out.

    Raises
    ------
    ValueError
        If `scale` is none of `scales`.
    """

    frames = channels = multiple_of = 1
    scales: tuple[int, ...] = (2, 3, 4)

    def __init__(self, scale: int) -> None:
        super().__init__()
        if scale not in self.scales:
            named = ", ".join(map(str, self.scales[:-1]))
            raise ValueError(f"scale must be {named} or {self.scales[-1]}; got {scale}")
        self.scale = scale


class _Enlarged(_OneImage):
    """One that works on the enlarged image; `radius` is that of its receptive field there."""

    scales = (1, 2, 3, 4)

    def __init__(self, scale: int, radius: int) -> None:
        super().__init__(scale)
        self.enlarge = Enlarge(scale)
        self.halo = -(-radius // scale) + (Enlarge.halo if scale > 1 else 0)


class SRCNN(_Enlarged):
    """Three convolutions; 9-1-5 by default, 9-5-5 is the journal's larger one."""

    def __init__(
        self, scale: int = 2, sides: tuple[int, int, int] = (9, 1, 5), width: int = 64
    ) -> None:
        super().__init__(scale, sum(side // 2 for side in sides))
        first, second, third = sides
        self.layers = nn.Sequential(
            convolution(1, width, first),
            nn.ReLU(),
            convolution(width, width // 2, second),
            nn.ReLU(),
            convolution(width // 2, 1, third),
        )

    def forward(self, image: Tensor) -> Tensor:
        """Return the image, enlarged and sharpened."""
        return self.layers(self.enlarge(image)).float()


class FSRCNN(_OneImage):
    """Shrinking, `mappings` convolutions, expanding, one transposed convolution; PReLU between."""

    def __init__(
        self, scale: int = 2, width: int = 56, shrunk: int = 12, mappings: int = 4
    ) -> None:
        super().__init__(scale)
        self.halo = 2 + mappings + 4 // scale + 1
        mapping = (m for _ in range(mappings) for m in (conv3x3(shrunk, shrunk), nn.PReLU(shrunk)))
        self.layers = nn.Sequential(
            convolution(1, width, 5),
            nn.PReLU(width),
            convolution(width, shrunk, 1),
            nn.PReLU(shrunk),
            *mapping,
            convolution(shrunk, width, 1),
            nn.PReLU(width),
        )
        self.out = nn.ConvTranspose2d(
            width, 1, 9, stride=scale, padding=4, output_padding=scale - 1
        )
        nn.init.normal_(self.out.weight, std=0.001)  # the paper's
        nn.init.zeros_(self.out.bias)

    def forward(self, image: Tensor) -> Tensor:
        """Return the enlarged image."""
        return self.out(self.layers(image)).float()


class ESPCN(_OneImage):
    """5x5, 3x3 and a sub-pixel convolution, tanh between."""

    halo = 4

    def __init__(self, scale: int = 2, widths: tuple[int, int] = (64, 32)) -> None:
        super().__init__(scale)
        self.layers = nn.Sequential(
            convolution(1, widths[0], 5),
            nn.Tanh(),
            conv3x3(widths[0], widths[1]),
            nn.Tanh(),
            conv3x3(widths[1], scale**2),
            nn.PixelShuffle(scale),
        )

    def forward(self, image: Tensor) -> Tensor:
        """Return the enlarged image."""
        return self.layers(image).float()


class VDSR(_Enlarged):
    """20 convolutions of 64 features whose output is added to the enlarged image."""

    def __init__(self, scale: int = 2, width: int = 64, depth: int = 20) -> None:
        super().__init__(scale, depth)
        middle = (m for _ in range(depth - 2) for m in (conv3x3(width, width), nn.ReLU()))
        self.layers = nn.Sequential(
            conv3x3(1, width), nn.ReLU(), *middle, conv3x3(width, 1, _QUIET)
        )

    def forward(self, image: Tensor) -> Tensor:
        """Return the enlarged image with what it lacks."""
        large = self.enlarge(image)
        return (large + self.layers(large)).float()


class DRCN(_Enlarged):
    """One convolution, applied 16 times; every recursion is drawn, and a learnt mean is taken.

    The paper's extra losses on the single drawings are left out: here they are what the mean is of.
    """

    def __init__(self, scale: int = 2, width: int = 256, recursions: int = 16) -> None:
        super().__init__(scale, recursions + 4)
        self.recursions = recursions
        self.embed = nn.Sequential(conv3x3(1, width), nn.ReLU(), conv3x3(width, width), nn.ReLU())
        self.recur = nn.Sequential(conv3x3(width, width), nn.ReLU())
        self.draw = nn.Sequential(conv3x3(width, width), nn.ReLU(), conv3x3(width, 1, _QUIET))
        self.mean = nn.Conv2d(recursions, 1, 1)
        nn.init.constant_(self.mean.weight, 1 / recursions)
        nn.init.zeros_(self.mean.bias)

    def forward(self, image: Tensor) -> Tensor:
        """Return the enlarged image with what it lacks."""
        large = self.enlarge(image)
        features, drawn = self.embed(large), []
        for _ in range(self.recursions):
            features = self.recur(features)
            drawn.append(self.draw(features))
        return (large + self.mean(torch.cat(drawn, 1))).float()


class DRRN(_Enlarged):
    """One residual unit of two convolutions, applied 25 times from the same first features.

    Its batch normalisation is left out: one set of weights sees other statistics at each of its
    applications, and running means that fit all of them do not exist.
    """

    def __init__(self, scale: int = 2, width: int = 128, units: int = 25) -> None:
        super().__init__(scale, 2 * units + 2)
        self.units = units
        self.head = conv3x3(1, width)
        self.unit = nn.Sequential(
            nn.ReLU(), conv3x3(width, width), nn.ReLU(), conv3x3(width, width, 0.5)
        )
        self.out = nn.Sequential(nn.ReLU(), conv3x3(width, 1, _QUIET))

    def forward(self, image: Tensor) -> Tensor:
        """Return the enlarged image with what it lacks."""
        large = self.enlarge(image)
        first = features = self.head(large)
        for _ in range(self.units):
            features = first + self.unit(features)
        return (large + self.out(features)).float()


class SRResNet(_OneImage):
    """16 residual blocks with batch normalisation and PReLU, sub-pixel convolutions.

    The generator of SRGAN: with `loss.kind: adversarial` it is trained as one.
    """

    def __init__(self, scale: int = 4, blocks: int = 16, width: int = 64) -> None:
        super().__init__(scale)
        factors = _FACTORS[scale]
        self.halo = 4 + 2 * blocks + 1 + len(factors) + 4
        self.head = nn.Sequential(convolution(1, width, 9), nn.PReLU())
        self.body = nn.Sequential(
            *(_NormalisedBlock(width) for _ in range(blocks)),
            conv3x3(width, width),
            nn.BatchNorm2d(width),
        )
        self.upsample = nn.Sequential(
            *(
                m
                for r in factors
                for m in (conv3x3(width, width * r * r), nn.PixelShuffle(r), nn.PReLU())
            )
        )
        self.out = convolution(width, 1, 9, 0.5)

    def forward(self, image: Tensor) -> Tensor:
        """Return the enlarged image."""
        features = self.head(image)
        return self.out(self.upsample(features + self.body(features))).float()


class _NormalisedBlock(nn.Module):  # type: ignore[misc]
    """Conv, normalisation, PReLU, conv, normalisation, skip."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.branch = nn.Sequential(
            conv3x3(width, width),
            nn.BatchNorm2d(width),
            nn.PReLU(),
            conv3x3(width, width),
            nn.BatchNorm2d(width),
        )
        nn.init.constant_(self.branch[-1].weight, 0.5)  # quieter than the skip

    def forward(self, x: Tensor) -> Tensor:
        return x + self.branch(x)


class _DenseLayers(nn.Module):  # type: ignore[misc]
    """Convolutions of `growth` features, each of which sees all before it; gives all of them."""

    def __init__(self, width: int, growth: int, layers: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            nn.Sequential(conv3x3(width + i * growth, growth), nn.ReLU()) for i in range(layers)
        )

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = torch.cat([x, layer(x)], 1)
        return x


class SRDenseNet(_OneImage):
    """Dense blocks, all of whose outputs are squeezed together, and transposed convolutions.

    SRDenseNet_All: 8 blocks of 8 layers, growth 16, 69 layers with weights at x4.
    """

    scales = (2, 4)

    def __init__(
        self, scale: int = 4, blocks: int = 8, layers: int = 8, growth: int = 16, width: int = 256
    ) -> None:
        super().__init__(scale)
        self.halo = 1 + blocks * layers + 2 * len(_FACTORS[scale])
        self.head = nn.Sequential(conv3x3(1, growth), nn.ReLU())
        self.blocks = nn.ModuleList(
            _DenseLayers(growth * (1 + i * layers), growth, layers) for i in range(blocks)
        )
        self.bottleneck = nn.Sequential(
            convolution(growth * (1 + blocks * layers), width, 1), nn.ReLU()
        )
        self.upsample = nn.Sequential(
            *(
                m
                for _ in _FACTORS[scale]
                for m in (
                    nn.ConvTranspose2d(width, width, 3, stride=2, padding=1, output_padding=1),
                    nn.ReLU(),
                )
            )
        )
        self.out = conv3x3(width, 1, 0.5)

    def forward(self, image: Tensor) -> Tensor:
        """Return the enlarged image."""
        features = self.head(image)
        for block in self.blocks:
            features = block(features)
        return self.out(self.upsample(self.bottleneck(features))).float()


class MemNet(_Enlarged):
    """Memory blocks: a shared residual unit, applied six times, and a gate over all before it.

    Every block is drawn by one convolution, and a learnt mean of the drawings is taken.
    """

    def __init__(
        self, scale: int = 2, blocks: int = 6, recursions: int = 6, width: int = 64
    ) -> None:
        super().__init__(scale, 2 + 2 * blocks * recursions)
        self.head = _normalised_first(1, width)
        self.blocks = nn.ModuleList(_Memory(width, recursions, i + 1) for i in range(blocks))
        self.draw = _normalised_first(width, 1, _QUIET)
        self.mean = nn.Conv2d(blocks, 1, 1)
        nn.init.constant_(self.mean.weight, 1 / blocks)
        nn.init.zeros_(self.mean.bias)

    def forward(self, image: Tensor) -> Tensor:
        """Return the enlarged image with what it lacks."""
        large = self.enlarge(image)
        long = [self.head(large)]
        for block in self.blocks:
            long.append(block(long))
        drawn = torch.cat([self.draw(features) for features in long[1:]], 1)
        return (large + self.mean(drawn)).float()


class _Memory(nn.Module):  # type: ignore[misc]
    def __init__(self, width: int, recursions: int, before: int) -> None:
        super().__init__()
        self.recursions = recursions
        self.unit = nn.Sequential(
            _normalised_first(width, width), _normalised_first(width, width, 0.5)
        )
        self.gate = nn.Sequential(
            nn.BatchNorm2d(width * (recursions + before)),
            nn.ReLU(),
            convolution(width * (recursions + before), width, 1),
        )

    def forward(self, long: list[Tensor]) -> Tensor:
        features, short = long[-1], []
        for _ in range(self.recursions):
            features = features + self.unit(features)
            short.append(features)
        return self.gate(torch.cat([*short, *long], 1))


def _normalised_first(inputs: int, outputs: int, gain: float = 1.0) -> nn.Sequential:
    return nn.Sequential(nn.BatchNorm2d(inputs), nn.ReLU(), conv3x3(inputs, outputs, gain))


class LapSRN(_OneImage):
    """A pyramid: each level doubles features and image, and adds to the image what it lacks.

    The paper's loss on every level is left out: a pair has one truth. The transposed convolutions
    of features are 3x3, which gives the 812 thousand parameters of the paper.
    """

    scales = (2, 4)

    def __init__(self, scale: int = 4, depth: int = 10, width: int = 64) -> None:
        super().__init__(scale)
        levels = len(_FACTORS[scale])
        self.halo = 3 + sum(-(-(depth + 1) // 2**level) for level in range(levels))
        self.head = nn.Sequential(conv3x3(1, width), nn.LeakyReLU(0.2))
        self.levels = nn.ModuleList(_PyramidLevel(width, depth) for _ in range(levels))

    def forward(self, image: Tensor) -> Tensor:
        """Return the enlarged image."""
        features = self.head(image)
        for level in self.levels:
            features = level.features(features)
            image = level.image(image) + level.lacking(features)
        return image.float()


class _PyramidLevel(nn.Module):  # type: ignore[misc]
    def __init__(self, width: int, depth: int) -> None:
        super().__init__()
        double = nn.ConvTranspose2d(width, width, 3, stride=2, padding=1, output_padding=1)
        layers = (m for _ in range(depth) for m in (conv3x3(width, width), nn.LeakyReLU(0.2)))
        self.features = nn.Sequential(*layers, double, nn.LeakyReLU(0.2))
        self.lacking = conv3x3(width, 1, _QUIET)
        self.image = nn.ConvTranspose2d(1, 1, 4, stride=2, padding=1, bias=False)
        linear = torch.tensor([0.25, 0.75, 0.75, 0.25])
        self.image.weight = nn.Parameter(torch.outer(linear, linear)[None, None])


class MDSR(_OneImage):
    """EDSR for several scales: one body, and before and behind it what is each scale's own.

    `scale` says which of 2, 3 and 4 this network gives; an engine has one. Begin another scale with
    its weights (`start`), and the body goes on learning.
    """

    def __init__(self, scale: int = 2, blocks: int = 80, width: int = 64) -> None:
        super().__init__(scale)
        self.halo = 1 + 8 + 2 * blocks + 1 + 2
        self.head = conv3x3(1, width)
        self.before = nn.ModuleDict(
            {str(s): nn.Sequential(_LargeBlock(width), _LargeBlock(width)) for s in _FACTORS}
        )
        self.body = nn.Sequential(
            *(ResidualBlock(width, 1.0 if blocks < 32 else 0.1) for _ in range(blocks)),
            conv3x3(width, width),
        )
        self.behind = nn.ModuleDict(
            {
                str(s): nn.Sequential(upsampling(width, factors), conv3x3(width, 1, 0.5))
                for s, factors in _FACTORS.items()
            }
        )

    def forward(self, image: Tensor) -> Tensor:
        """Return the enlarged image."""
        features = self.before[str(self.scale)](self.head(image))
        return self.behind[str(self.scale)](features + self.body(features)).float()


class _LargeBlock(nn.Module):  # type: ignore[misc]
    def __init__(self, width: int) -> None:
        super().__init__()
        self.branch = nn.Sequential(
            convolution(width, width, 5), nn.ReLU(), convolution(width, width, 5, 0.5)
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.branch(x)


class RDN(_OneImage):
    """16 residual dense blocks of 8 layers, growth 64, fused and added to the first features."""

    def __init__(
        self, scale: int = 2, blocks: int = 16, layers: int = 8, growth: int = 64, width: int = 64
    ) -> None:
        super().__init__(scale)
        self.halo = 2 + blocks * layers + 1 + 2
        self.head, self.first = conv3x3(1, width), conv3x3(width, width)
        self.blocks = nn.ModuleList(_ResidualDense(width, growth, layers) for _ in range(blocks))
        self.fuse = nn.Sequential(
            convolution(width * blocks, width, 1), conv3x3(width, width, _QUIET)
        )
        self.upsample = upsampling(width, _FACTORS[scale])
        self.out = conv3x3(width, 1, 0.5)

    def forward(self, image: Tensor) -> Tensor:
        """Return the enlarged image."""
        shallow = self.head(image)
        features, kept = self.first(shallow), []
        for block in self.blocks:
            features = block(features)
            kept.append(features)
        return self.out(self.upsample(shallow + self.fuse(torch.cat(kept, 1)))).float()


class _ResidualDense(nn.Module):  # type: ignore[misc]
    def __init__(self, width: int, growth: int, layers: int) -> None:
        super().__init__()
        self.dense = _DenseLayers(width, growth, layers)
        self.fuse = convolution(width + layers * growth, width, 1, _QUIET)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.fuse(self.dense(x))
