"""IMC-SR: one monochrome image separated into one image per structure.

Owns topology, first weights and the heads. Uses only operations that ONNX opset 17 has, so that one
file serves every backend.

References
----------
Wang et al. 2021, "Instant multicolor super-resolution microscopy with deep convolutional neural
network" (IMC-SR).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from livesr.training.networks.haze import SharedHaze
from livesr.training.networks.layers import (
    Activation,
    ChannelAttention,
    conv3x3,
    he_init,
)
from livesr.training.networks.layers import activation as new_activation

Head = Literal["sigmoid", "partition", "restore"]

# Normalised images are mostly background, around 0.1, with structures up to about 1. The first
# convolution starts as if its input were (x - mean) * gain; written into its weights, so that no
# runtime pays for it and padding is background. A gain of 12 is so loud a start that training
# collapses.
_INPUT_MEAN, _INPUT_GAIN = 0.1, 4.0

# The targets are mostly zero, and the quickest descent at first is to darken everything: all light
# to "none", or the sigmoid into its tail, where the network stays. The last layer starts near that
# answer instead, from where the gradient points to the structures.
_START_BIAS: dict[Head, float] = {"sigmoid": -4.0, "partition": 1.0, "restore": 1.0}

# The image that "restore" predicts is at most _MAX_GAIN times the brightest pixel within
# _REACH_PX, the width of a blurred point. Without this, frames with an even background and dark
# edges, which no training pair has, let the correction run away.
_REACH_PX, _MAX_GAIN = 4, 2.0

CORRECTION, UNKNOWN_LIGHT, NO_STRUCTURE = "correction of the frame", "unknown light", "no structure"
"""What an image of the last convolution is that is no structure."""

# Images that the last convolution gives besides one per structure: "none", and the correction of
# the frame.
_MORE_IMAGES: dict[Head, int] = {"sigmoid": 0, "partition": 1, "restore": 2}


class RCAB(nn.Module):  # type: ignore[misc]
    """Residual channel attention block: conv, GELU, conv, GELU, attention, skip.

    IMC-SR has a GELU after the second convolution too, where RCAN has none.
    """

    def __init__(self, width: int, reduction: int, activation: Activation) -> None:
        super().__init__()
        self.branch = nn.Sequential(
            conv3x3(width, width),
            new_activation(activation),
            conv3x3(
                width, width, gain=0.5
            ),  # the branch starts quieter than the skip: depth does not amplify
            new_activation(activation),
            ChannelAttention(width, reduction),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Return `x` plus what the branch adds."""
        return x + self.branch(x)

    def silence(self) -> None:
        """Let the branch add nothing until it is trained.

        A network with more blocks begins as the one without them.
        """
        nn.init.zeros_(self.branch[2].weight)
        nn.init.zeros_(self.branch[2].bias)


class ResidualGroup(nn.Module):  # type: ignore[misc]
    """RCABs in a row.

    The skip runs from the group's input to the output of the last one, without RCAN's last conv.

    The sum holds its input twice (once through the blocks' own skips). It is halved, or five groups
    would amplify 32 times and make the last layer 32 times more sensitive to the learning rate.
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
    frames : consecutive frames in; the middle one is separated (temporal continuity). 1 is the
        network without it
    channels : structures out
    width, groups, blocks, reduction : features, residual groups, blocks a group, attention's
        reduction. The paper names 5 groups of 10; 64 and 16 are RCAN's. These defaults have 3.76
        million parameters
    unshuffle : work at 1/unshuffle of the resolution, which divides the cost by its square: the
        light networks use 2. The first convolution is the 3x3 one on pixel-unshuffled input,
        written as its equal with a stride. Input sizes must be multiples of it
    head : "sigmoid" is the paper's. "partition" shares out the light of the middle frame: softmax
        over the structures and one more class, "none", times the frame; the channels' sum cannot
        exceed the input, and shares its noise. "restore" shares out an image that the network
        predicts, the frame plus a correction: noise can be removed, and the channels' sum cannot
        exceed that image, nor twice the brightest measured pixel within 4: where nothing was
        measured, nothing is predicted
    unknown : draw one image more, of light that belongs to no structure it learned. It takes part
        in the sharing out, so that such light need not go to a structure. For "partition" and
        "restore"
    haze : share out the light from far out of focus as well, among the structures and what is
        unknown (`SharedHaze`), which are alike at first or have factors. It is smooth, so that
        their sum may exceed what the head says. For "partition" and "restore"
    activation : the paper's GELU, exact ("gelu_erf") or its tanh form; "relu" and "silu" for
        comparison

    Notes
    -----
    Input (n, frames, y, x) is normalised, (x - b) / s, may be slightly negative (a Wiener filter
    rings) and may exceed 1: nothing is clipped. "partition" and "restore" count negative light as
    none. Output (n, channels, y, x) is float32 even under autocast; with `unknown` there is one
    image more, and `channels` counts it.

    Raises
    ------
    ValueError
        If `frames` is even or below 1, there is no such head, `haze` has other factors than one for
        each image, or "sigmoid", which shares out nothing, is to draw unknown light or haze.
    """

    scale = 1

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
        unknown: bool = False,
        haze: bool | Sequence[float] = False,
    ) -> None:
        super().__init__()
        if frames < 1 or frames % 2 == 0:
            raise ValueError(f"frames must be odd, so that there is a middle one; got {frames}")
        if head not in _START_BIAS:
            raise ValueError(f"head {head!r} is not known; choose one of {', '.join(_START_BIAS)}")
        if head == "sigmoid" and (more := "unknown" if unknown else "haze" if haze else ""):
            raise ValueError(
                f"head 'sigmoid' shares out no light, so that none can be left to {more!r}; choose"
                " 'partition' or 'restore'"
            )
        self.frames, self.channels, self.unshuffle, self.head_kind = (
            frames,
            channels + unknown,
            unshuffle,
            head,
        )
        self.structures = channels
        factors = None if isinstance(haze, bool) else haze
        self.haze = SharedHaze(self.channels, factors) if haze else None
        self.multiple_of = math.lcm(unshuffle, SharedHaze.STEP) if haze else unshuffle
        # One feature pixel a convolution: first, tail, last, and two a block.
        self.halo = (3 + 2 * groups * blocks) * unshuffle + (self.haze.halo if self.haze else 0)
        self.head = nn.Sequential(self._first_conv(width), new_activation(activation))
        self.body = nn.Sequential(
            *(ResidualGroup(width, blocks, reduction, activation) for _ in range(groups))
        )
        self.tail = nn.Sequential(conv3x3(width, width), new_activation(activation))
        self.out = self._last_conv(width)
        # Along y, then x: the same numbers as a square's in a fifth of the time.
        side = 2 * _REACH_PX + 1
        self.brightest = nn.Sequential(
            nn.MaxPool2d((side, 1), stride=1, padding=(_REACH_PX, 0)),
            nn.MaxPool2d((1, side), stride=1, padding=(0, _REACH_PX)),
        )

    def images(self, structures: Sequence[str]) -> tuple[str, ...]:
        """Return what each image of the last convolution is, in its order, by the names of the
        `structures`.
        """
        return (
            *[CORRECTION] * (self.head_kind == "restore"),
            *structures,
            *[UNKNOWN_LIGHT] * (self.channels > self.structures),
            *[NO_STRUCTURE] * (self.head_kind != "sigmoid"),
        )

    def _first_conv(self, width: int) -> nn.Conv2d:
        r = self.unshuffle
        conv = nn.Conv2d(self.frames, width, 3 * r, stride=r, padding=r)
        he_init(conv, _INPUT_GAIN)
        with torch.no_grad():
            conv.bias.copy_(-_INPUT_MEAN * conv.weight.sum((1, 2, 3)))
        return conv

    def _last_conv(self, width: int) -> nn.Conv2d:
        r, images = self.unshuffle**2, self.channels + _MORE_IMAGES[self.head_kind]
        conv = nn.Conv2d(width, images * r, 3, padding=1)
        nn.init.normal_(conv.weight, std=0.01)
        nn.init.zeros_(conv.bias)
        biased = (
            conv.bias if self.head_kind == "sigmoid" else conv.bias[-r:]
        )  # the last image is "none"
        nn.init.constant_(biased, _START_BIAS[self.head_kind])
        return conv

    def forward(self, frames: Tensor) -> Tensor:
        """Return one image per structure, (n, channels, y, x) float32, for the middle one of
        `frames`.
        """
        return self.with_haze(frames, self.in_focus(frames))

    def with_haze(self, frames: Tensor, images: Tensor) -> Tensor:
        """Return what `in_focus` returned with each one's haze, if this network shares it out."""
        if self.haze is None:
            return images
        middle = self.frames // 2
        return self.haze(frames[:, middle : middle + 1].float(), images)

    def in_focus(self, frames: Tensor) -> Tensor:
        """Return the images of `forward` without haze."""
        images = self.out(self.tail(self.body(self.head(frames))))
        if self.head_kind == "sigmoid":
            return torch.sigmoid(self._enlarged(images))
        middle = self.frames // 2
        light = frames[:, middle : middle + 1].float()
        if self.head_kind == "restore":
            # Parted before they are enlarged: afterwards runtimes copy every pixel on its own.
            r = self.unshuffle**2
            correction, images = images[:, 0:r], images[:, r : (self.channels + 2) * r]
            measured = F.relu(self.brightest(light)) * _MAX_GAIN
            # The smaller one of measured and light + correction; written so, every runtime has it.
            restored = F.relu(light + self._enlarged(correction))
            light = measured + F.relu(measured + restored * -1.0) * -1.0
        shares = torch.softmax(self._enlarged(images), 1)[:, 0 : self.channels]
        return F.relu(light) * shares

    def _enlarged(self, images: Tensor) -> Tensor:
        """Return images (n, c r^2, y / r, x / r) as (n, c, y, x) float32."""
        return (F.pixel_shuffle(images, self.unshuffle) if self.unshuffle > 1 else images).float()


class IMCSRSingle(nn.Module):  # type: ignore[misc]
    """IMC-SR-Single: one network per structure, side by side, each with parameters of its own.

    Takes the parameters of `IMCSR`, but `unknown` and `haze`. Nothing is shared, so that training
    them together under a loss without summation term is training each alone, and one engine still
    holds them all.

    Raises
    ------
    ValueError
        If `unknown` or `haze`: each network would give to it what is the others'. As of `IMCSR`.
    """

    scale = 1

    def __init__(self, frames: int = 3, channels: int = 3, **parameters: Any) -> None:
        super().__init__()
        if more := next((name for name in ("unknown", "haze") if parameters.get(name)), ""):
            raise ValueError(
                "networks of one structure each share out no light between them, so that none can"
                f" be left to {more!r}; choose 'imcsr'"
            )
        self.frames, self.channels = frames, channels
        self.networks = nn.ModuleList(IMCSR(frames, 1, **parameters) for _ in range(channels))
        self.multiple_of, self.halo = self.networks[0].multiple_of, self.networks[0].halo

    def forward(self, frames: Tensor) -> Tensor:
        """Return one image per structure, (n, channels, y, x) float32, for the middle one of
        `frames`.
        """
        return torch.cat([network(frames) for network in self.networks], 1)
