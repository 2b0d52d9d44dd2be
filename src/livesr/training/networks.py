"""The two networks: IMC-SR separates structures, EDSR upscales.

Owns topology, initial weights and the registry of architectures. Knows nothing of losses, data or runtimes.
Both networks use only operations that ONNX opset 17 has, so that one file serves every backend.

References
----------
Wang et al. 2021, "Instant multicolor super-resolution microscopy with deep convolutional neural network" (IMC-SR).
Zhang et al. 2018, "Image super-resolution using very deep residual channel attention networks" (RCAN).
Lim et al. 2017, "Enhanced deep residual networks for single image super-resolution" (EDSR).
Hu et al. 2020, Acta Optica Sinica (EDSR for STORM).
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

Head = Literal["sigmoid", "partition"]
Activation = Literal["gelu_erf", "gelu_tanh", "relu", "silu"]

# Normalised images are mostly background, around 0.1, with structures up to about 1. The first convolution starts as
# if its input were (x - mean) * gain; written into its weights, so that no runtime pays for it and padding is
# background. A gain of 12 is so loud a start that training collapses.
_INPUT_MEAN, _INPUT_GAIN = 0.1, 4.0

# The targets are mostly zero, and the quickest descent at first is to darken everything: all light to "none", or the
# sigmoid into its tail, where the network stays. The last layer starts near that answer instead, from where the
# gradient points to the structures.
_START_BIAS = {"sigmoid": -4.0, "partition": 1.0}


def _activation(name: Activation) -> nn.Module:
    table: dict[str, nn.Module] = {
        "gelu_erf": nn.GELU(),
        "gelu_tanh": nn.GELU(approximate="tanh"),
        "relu": nn.ReLU(),
        "silu": nn.SiLU(),
    }
    if name not in table:
        raise ValueError(f"activation {name!r} is not known; choose one of {', '.join(table)}")
    return table[name]


def _conv(inputs: int, outputs: int, gain: float = 1.0) -> nn.Conv2d:
    """3x3 convolution of equal size, He-initialised: the default start collapses under a sigmoid head."""
    conv = nn.Conv2d(inputs, outputs, 3, padding=1)
    _he_init(conv, gain)
    return conv


def _he_init(conv: nn.Conv2d, gain: float = 1.0) -> None:
    nn.init.kaiming_normal_(conv.weight, nonlinearity="relu")
    with torch.no_grad():
        conv.weight.mul_(gain)
    nn.init.zeros_(conv.bias)


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
        means = F.adaptive_avg_pool2d(x, 1)
        return x * torch.sigmoid(self.excite(F.relu(self.squeeze(means))))


class RCAB(nn.Module):  # type: ignore[misc]
    """Residual channel attention block: conv, GELU, conv, GELU, attention, skip.

    IMC-SR has a GELU after the second convolution too, where RCAN has none.
    """

    def __init__(self, width: int, reduction: int, activation: Activation) -> None:
        super().__init__()
        self.branch = nn.Sequential(
            _conv(width, width),
            _activation(activation),
            _conv(width, width, gain=0.5),  # the branch starts quieter than the skip: depth does not amplify
            _activation(activation),
            ChannelAttention(width, reduction),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Return `x` plus what the branch adds."""
        return x + self.branch(x)


class ResidualGroup(nn.Module):  # type: ignore[misc]
    """RCABs in a row; the skip runs from the group's input to the output of the last one, without RCAN's last conv.

    The sum holds its input twice (once through the blocks' own skips). It is halved, or five groups would amplify
    32 times and make the last layer 32 times more sensitive to the learning rate.
    """

    def __init__(self, width: int, blocks: int, reduction: int, activation: Activation) -> None:
        super().__init__()
        self.blocks = nn.Sequential(*(RCAB(width, reduction, activation) for _ in range(blocks)))

    def forward(self, x: Tensor) -> Tensor:
        """Return the mean of the group's input and its last block's output."""
        return (x + self.blocks(x)) * 0.5


class IMCSR(nn.Module):  # type: ignore[misc]
    """Separate one monochrome image into one image per structure (IMC-SR-All).

    Parameters
    ----------
    frames
        Consecutive frames in; the middle one is separated (temporal continuity). 1 is the network without it.
    channels
        Structures out.
    width, groups, blocks, reduction
        Features, residual groups, blocks a group, attention's reduction. The paper names 5 groups of 10; 64 and 16 are
        RCAN's. These defaults have 3.76 million parameters.
    unshuffle
        Work at 1/unshuffle of the resolution, which divides the cost by its square: the light networks use 2.
        The first convolution is the 3x3 one on pixel-unshuffled input, written as its equal with a stride.
        Input sizes must be multiples of it.
    head
        "sigmoid" is the paper's. "partition" shares out the light of the middle frame: softmax over the structures and
        one more class, "none", times the frame; the channels' sum cannot exceed the input.
    activation
        The paper's GELU, exact ("gelu_erf") or its tanh form; "relu" and "silu" for comparison.

    Notes
    -----
    Input (n, frames, y, x) is normalised, (x - b) / s, may be slightly negative (a Wiener filter rings) and may exceed
    1: nothing is clipped. "partition" counts negative light as none. Output (n, channels, y, x) is float32 even under
    autocast.
    """

    def __init__(
        self,
        frames: int = 3,
        channels: int = 3,
        width: int = 64,
        groups: int = 5,
        blocks: int = 10,
        reduction: int = 16,
        unshuffle: int = 1,
        head: Head = "sigmoid",
        activation: Activation = "gelu_erf",
    ) -> None:
        super().__init__()
        if frames < 1 or frames % 2 == 0:
            raise ValueError(f"frames must be odd, so that there is a middle one; got {frames}")
        if head not in {"sigmoid", "partition"}:
            raise ValueError(f"head {head!r} is not known; choose sigmoid or partition")
        self.frames, self.channels, self.unshuffle, self.head_kind = frames, channels, unshuffle, head
        self.head = nn.Sequential(self._first_conv(width), _activation(activation))
        self.body = nn.Sequential(*(ResidualGroup(width, blocks, reduction, activation) for _ in range(groups)))
        self.tail = nn.Sequential(_conv(width, width), _activation(activation))
        self.out = self._last_conv(width)

    def _first_conv(self, width: int) -> nn.Conv2d:
        r = self.unshuffle
        conv = nn.Conv2d(self.frames, width, 3 * r, stride=r, padding=r)
        _he_init(conv, _INPUT_GAIN)
        with torch.no_grad():
            conv.bias.copy_(-_INPUT_MEAN * conv.weight.sum((1, 2, 3)))
        return conv

    def _last_conv(self, width: int) -> nn.Conv2d:
        r, none = self.unshuffle**2, int(self.head_kind == "partition")
        conv = nn.Conv2d(width, (self.channels + none) * r, 3, padding=1)
        nn.init.normal_(conv.weight, std=0.01)
        nn.init.zeros_(conv.bias)
        nn.init.constant_(conv.bias[-r:] if none else conv.bias, _START_BIAS[self.head_kind])
        return conv

    def forward(self, frames: Tensor) -> Tensor:
        """Return one image per structure, (n, channels, y, x) float32, for the middle one of `frames`."""
        logits = self.out(self.tail(self.body(self.head(frames))))
        if self.unshuffle > 1:
            logits = F.pixel_shuffle(logits, self.unshuffle)
        logits = logits.float()
        if self.head_kind == "sigmoid":
            return torch.sigmoid(logits)
        middle = self.frames // 2
        light = F.relu(frames[:, middle : middle + 1].float())
        return light * torch.softmax(logits, 1)[:, : self.channels]


class ResidualBlock(nn.Module):  # type: ignore[misc]
    """SRResNet's block without batch normalisation: conv, ReLU, conv, scaled, skip."""

    def __init__(self, width: int, scaling: float) -> None:
        super().__init__()
        self.branch = nn.Sequential(_conv(width, width), nn.ReLU(), _conv(width, width, gain=0.5))
        self.scaling = scaling

    def forward(self, x: Tensor) -> Tensor:
        """Return `x` plus the scaled branch."""
        branch = self.branch(x)
        return x + (branch if self.scaling == 1 else branch * self.scaling)


class EDSR(nn.Module):  # type: ignore[misc]
    """Upscale one image (n, 1, y, x) by 2, 3 (one step) or 4 (two steps of 2), by sub-pixel convolution.

    The published network has 32 blocks of 256 channels and, in EDSR's own code, residual scaling 0.1.
    `frames` and `channels` are 1: it is a restoration of one image, not a separation.
    """

    frames = 1
    channels = 1

    def __init__(self, scale: int = 2, blocks: int = 16, width: int = 64, residual_scaling: float = 1.0) -> None:
        super().__init__()
        if scale not in {2, 3, 4}:
            raise ValueError(f"scale must be 2, 3 or 4; got {scale}")
        self.scale = scale
        self.head = _conv(1, width)
        self.body = nn.Sequential(*(ResidualBlock(width, residual_scaling) for _ in range(blocks)), _conv(width, width))
        factors = {2: [2], 3: [3], 4: [2, 2]}[scale]
        self.upsample = nn.Sequential(*(m for r in factors for m in (_conv(width, width * r * r), nn.PixelShuffle(r))))
        self.out = _conv(width, 1, gain=math.sqrt(0.5))

    def forward(self, image: Tensor) -> Tensor:
        """Return the upscaled image, (n, 1, scale y, scale x) float32."""
        features = self.head(image)
        return self.out(self.upsample(features + self.body(features))).float()


NETWORKS: dict[str, type[nn.Module]] = {"imcsr": IMCSR, "edsr": EDSR}


def build(architecture: str, **parameters: Any) -> nn.Module:
    """Make a freshly initialised network by its registered name; raises ValueError for a name not in `NETWORKS`."""
    if architecture not in NETWORKS:
        raise ValueError(f"architecture {architecture!r} is not known; choose one of {', '.join(NETWORKS)}")
    return NETWORKS[architecture](**parameters)


def save(path: Path, network: nn.Module, architecture: str, parameters: dict[str, Any]) -> None:
    """Write weights together with what `build` needs to make the network again."""
    state = {name: value.detach().cpu() for name, value in network.state_dict().items()}
    torch.save({"architecture": architecture, "parameters": parameters, "state": state}, path)


def load(path: Path) -> nn.Module:
    """Read a network written by `save`, on the CPU and ready for inference."""
    stored = torch.load(path, map_location="cpu", weights_only=True)
    network = build(stored["architecture"], **stored["parameters"])
    network.load_state_dict(stored["state"])
    return network.eval()
