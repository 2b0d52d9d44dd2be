"""Training losses: IMC-SR's combination loss, EDSR's L1, and either against a discriminator.

Owns the loss terms and a differentiable SSIM. Reports each term by name. Only `AdversarialLoss`
learns, and so has a state that a checkpoint keeps.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from livesr.evaluation.metrics import PAPER_CONSTANTS
from livesr.training.networks.discriminator import Discriminator

_WINDOW, _SIGMA = 11, 1.5
_NO_ENERGY, _MAX_GAIN = (
    1e-6,
    4.0,
)  # mean square of a channel that shows nothing; largest gain of a dim one
_NO_VARIANCE, _VARIANCE_FLOOR = 1e-5, 1e-6  # of a channel without a structure; added to either's
_NO_LIGHT, _LEAST_LIGHT = (
    1e-4,
    0.01,
)  # mean of a channel without a structure; of a patch that counts
STANDARD_CONSTANTS = (0.01**2, 0.03**2)
"""SSIM's C1 and C2 for a data range of 1 (Wang et al. 2004)."""


class LossTerms(NamedTuple):
    """The loss to minimise and its unweighted parts, by name."""

    total: Tensor
    parts: dict[str, Tensor]


@lru_cache(maxsize=16)
def _blur_matrix(size: int, stride: int, device: torch.device) -> Tensor:
    """Matrix of `size` columns whose rows hold the Gaussian window that starts at 0, stride, 2
    stride, ...
    """
    if size < _WINDOW:
        raise ValueError(f"SSIM needs images of at least {_WINDOW} pixels a side; got {size}")
    offsets = np.arange(_WINDOW) - _WINDOW // 2
    window = np.exp(-0.5 * (offsets / _SIGMA) ** 2)
    starts = range(0, size - _WINDOW + 1, stride)
    matrix = np.zeros((len(starts), size), np.float32)
    for row, start in enumerate(starts):
        matrix[row, start : start + _WINDOW] = window / window.sum()
    return torch.from_numpy(matrix).to(device)


def _blur(images: Tensor, stride: int) -> Tensor:
    # Two dense products with a banded matrix: at patch sizes several times faster than a depthwise
    # convolution.
    rows = _blur_matrix(images.shape[-2], stride, images.device)
    columns = _blur_matrix(images.shape[-1], stride, images.device)
    return rows @ images @ columns.T


def ssim(
    prediction: Tensor,
    target: Tensor,
    stride: int = 1,
    constants: tuple[float, float] = STANDARD_CONSTANTS,
) -> Tensor:
    """Mean structural similarity of two (n, c, y, x) float32 tensors with a data range of 1.

    Gaussian window of 11 x 11 pixels, sigma 1.5, population covariances, windows wholly inside the
    image: the value of Wang et al. 2004, and of skimage with `gaussian_weights=True,
    use_sample_covariance=False`. A `stride` of 2 takes every second window: next to the same mean,
    as neighbouring windows are nearly one, in a third of the time.
    """
    with torch.autocast(prediction.device.type, enabled=False):
        a, b = prediction.float(), target.float()
        mean_a, mean_b, aa, bb, ab = _blur(
            torch.stack([a, b, a * a, b * b, a * b]), stride
        ).unbind()
        var_a, var_b, cov = aa - mean_a**2, bb - mean_b**2, ab - mean_a * mean_b
        c1, c2 = constants
        similarity = (2 * mean_a * mean_b + c1) * (2 * cov + c2)
        return (similarity / ((mean_a**2 + mean_b**2 + c1) * (var_a + var_b + c2))).mean()


def _uncorrelated(prediction: Tensor, target: Tensor) -> Tensor:
    """Return the mean of 1 - PCC of the channels (n, c, y, x) that show a structure; 0 of none."""
    a = prediction.float() - prediction.float().mean((2, 3), keepdim=True)
    b = target.float() - target.float().mean((2, 3), keepdim=True)
    var_a, var_b = a.square().mean((2, 3)), b.square().mean((2, 3))
    pcc = (a * b).mean((2, 3)) / ((var_a + _VARIANCE_FLOOR) * (var_b + _VARIANCE_FLOOR)).sqrt()
    there = (var_b > _NO_VARIANCE).float()
    return ((1 - pcc) * there).sum() / there.sum().clamp(min=1)


def _invented(prediction: Tensor, target: Tensor) -> Tensor:
    """Return the light of channels (n, c, y, x) whose targets hold none, each at most 1, as a share
    of all light of the patch; the mean of the patches.
    """
    shown, there = (images.float().clamp(min=0).mean((2, 3)) for images in (prediction, target))
    all_light = there.sum(1, keepdim=True).clamp(min=_LEAST_LIGHT)
    share = (shown / all_light).clamp(max=1) * (there < _NO_LIGHT)
    return share.sum(1).mean()


class CombinationLoss(nn.Module):  # type: ignore[misc]
    """IMC-SR's loss: l MSE + m (1 - SSIM) of the channels, plus a times the same of their sum.

    Parameters
    ----------
    mse, structure, summation : the paper's lambda, mu and alpha
    constants : SSIM's C1 and C2
    summation_with : what the sum of the predictions is compared with: "structures", the sum of the
        targets, or "input", the frame that the network saw (IMC-SR's equation 2)
    balance : 0 counts light alike in all channels; 1 counts every structure alike in every patch,
        however dim it is beside the brightest one. Each channel and its target are multiplied by
        (energy of the brightest / its own) ^ (balance / 2), at most 4; absent structures stay as
        they are
    correlation : weight of 1 - PCC, Pearson's correlation of each structure that is there with its
        target over the patch, however bright; 0, as the paper has it, leaves it out
    invented : weight of the light that structures are given that are not there, as a share of all
        light of the patch; 0 leaves it out. The correlation alone pays for finding a structure
        everywhere

    Notes
    -----
    The summation term lowers false positives: what one channel wrongly gains, another must lose.
    The sum of the predictions is compared with the sum of the targets, which is the input without
    its noise. Comparing it with the noisy input, as the paper writes it, teaches the channels to
    share out the noise: "input" is for making the paper's results again.
    """

    _STRIDE = 2  # of SSIM's windows

    def __init__(
        self,
        mse: float = 1.0,
        structure: float = 0.1,
        summation: float = 0.02,
        constants: tuple[float, float] = PAPER_CONSTANTS,
        balance: float = 0.0,
        summation_with: Literal["structures", "input"] = "structures",
        correlation: float = 0.0,
        invented: float = 0.0,
    ) -> None:
        super().__init__()
        self.sees_input = summation_with == "input"
        self.mse, self.structure, self.summation, self.constants = (
            mse,
            structure,
            summation,
            constants,
        )
        self.balance, self.correlation, self.invented = balance, correlation, invented

    def forward(
        self, prediction: Tensor, target: Tensor, frames: Tensor | None = None
    ) -> LossTerms:
        """Compare (n, c, y, x) predictions with their targets.

        `frames` (n, f, y, x) is what the network saw, for a summation term that compares with it.
        Parts `mse`, `structure`, `summation`, and `correlation` and `invented` where they have a
        weight.

        Raises
        ------
        ValueError
            If the frames are needed and missing, or of another size than the targets.
        """
        gain = self._gain(target) if self.balance else 1.0
        mse, structure = self._pair(prediction * gain, target * gain)
        sum_mse, sum_structure = self._pair(
            prediction.sum(1, keepdim=True), self._sum(target, frames)
        )
        summation = self.mse * sum_mse + self.structure * sum_structure
        total = self.mse * mse + self.structure * structure + self.summation * summation
        parts = {"mse": mse, "structure": structure, "summation": summation}
        if self.correlation:
            parts["correlation"] = _uncorrelated(prediction, target)
            total = total + self.correlation * parts["correlation"]
        if self.invented:
            parts["invented"] = _invented(prediction, target)
            total = total + self.invented * parts["invented"]
        return LossTerms(total, parts)

    def _sum(self, target: Tensor, frames: Tensor | None) -> Tensor:
        """Return what the channels should sum to, (n, 1, y, x)."""
        if not self.sees_input:
            return target.sum(1, keepdim=True)
        if frames is None or frames.shape[-2:] != target.shape[-2:]:
            raise ValueError(
                "the summation term compares with the input, which is missing or of another size;"
                " take summation_with: structures"
            )
        middle = frames.shape[1] // 2
        return frames[:, middle : middle + 1]

    def _gain(self, target: Tensor) -> Tensor:
        """Return what each channel of each patch is multiplied by, (n, c, 1, 1)."""
        energy = target.float().square().mean((2, 3), keepdim=True)
        gain = (energy.amax(1, keepdim=True) / energy.clamp(min=_NO_ENERGY)) ** (self.balance / 2)
        return torch.where(energy > _NO_ENERGY, gain.clamp(max=_MAX_GAIN), torch.ones_like(gain))

    def _pair(self, prediction: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        mse = nn.functional.mse_loss(prediction, target)
        if not self.structure:
            return mse, mse.new_zeros(())
        return mse, 1 - ssim(prediction, target, self._STRIDE, self.constants)


class L1Loss(nn.Module):  # type: ignore[misc]
    """EDSR's loss: the mean absolute difference."""

    sees_input = False

    def forward(self, prediction: Tensor, target: Tensor) -> LossTerms:
        """Compare predictions with their targets; part `l1`."""
        l1 = nn.functional.l1_loss(prediction, target)
        return LossTerms(l1, {"l1": l1})


class AdversarialLoss(nn.Module):  # type: ignore[misc]
    """A loss of pixels, plus how surely a discriminator tells the prediction from a true image.

    Sharper, less true: what the pixels leave open is drawn as true images usually look, which no
    measure of this very image asks for (Ledig et al. 2017, SRGAN; Qiao et al. 2021, DFGAN). The
    discriminator learns in the same call, one step on the same batch.

    Parameters
    ----------
    content : the loss of pixels
    weight : of the discriminator's term
    channels : of the images
    width, lr : of the discriminator: features of its first convolutions, Adam's rate
    """

    def __init__(
        self, content: nn.Module, weight: float, channels: int, width: int = 32, lr: float = 1e-4
    ) -> None:
        super().__init__()
        self.content, self.weight, self.sees_input = content, weight, content.sees_input
        self.discriminator = Discriminator(channels, width)
        self._optimiser = torch.optim.Adam(self.discriminator.parameters(), lr=lr)

    def forward(self, prediction: Tensor, target: Tensor, *given: Tensor) -> LossTerms:
        """Let the discriminator learn, then ask it; parts of `content`, and both sides' own."""
        truth = self._learn(prediction.detach(), target)
        content = self.content(prediction, target, *given)
        self.discriminator.requires_grad_(False)
        fooled = nn.functional.softplus(-self.discriminator(prediction)).mean()
        self.discriminator.requires_grad_(True)
        parts = {**content.parts, "adversarial": fooled, "discriminator": truth}
        return LossTerms(content.total + self.weight * fooled, parts)

    def _learn(self, prediction: Tensor, target: Tensor) -> Tensor:
        true, false = self.discriminator(target), self.discriminator(prediction)
        loss = nn.functional.softplus(-true).mean() + nn.functional.softplus(false).mean()
        self._optimiser.zero_grad()
        loss.backward()
        self._optimiser.step()
        return loss.detach()

    def get_extra_state(self) -> dict[str, Any]:
        """Return the state of the discriminator's optimiser."""
        state: dict[str, Any] = self._optimiser.state_dict()
        return state

    def set_extra_state(self, state: dict[str, Any]) -> None:
        """Take up what `get_extra_state` returned."""
        self._optimiser.load_state_dict(state)


class Distillation(nn.Module):  # type: ignore[misc]
    """Learn from a teacher as well.

    (1 - share) of `loss` against the truth, `share` of it against the teacher's output.

    The teacher has settled what a small network cannot decide for itself: which of the structures a
    pixel of mixed light belongs to (Hinton et al. 2015, in its form for regression). The mean of
    several views of a frame settles more than one view does, so that a network can learn even from
    itself. Of unknown light a teacher knows no more than its pupil, and only the truth is asked.

    Parameters
    ----------
    loss : compares with either
    teacher : its parameters stay as they are
    share : of the teacher
    structures : channels that the teacher is asked of; those after them are compared with the truth
    views : of each batch, of the square's eight symmetries and drawn anew for every one, whose mean
        is what the teacher says; 1 is the batch as it comes
    seed : of what is drawn
    """

    sees_input = True

    def __init__(
        self,
        loss: nn.Module,
        teacher: nn.Module,
        share: float,
        structures: int,
        *,
        views: int = 1,
        seed: int = 0,
    ) -> None:
        super().__init__()
        # In a list: the teacher's weights are no state of the loss.
        self.loss, self.share, self._structures, self._views = loss, share, structures, views
        self._teacher = [teacher.eval().requires_grad_(False)]
        self._rng = np.random.default_rng(seed)

    def forward(self, prediction: Tensor, target: Tensor, frames: Tensor) -> LossTerms:
        """Compare with both; the parts are those of `loss` against the truth, and `teacher`."""
        given = (frames,) if self.loss.sees_input else ()
        truth = self.loss(prediction, target, *given)
        taught = torch.cat(
            [self._taught(frames)[:, : self._structures], target[:, self._structures :]], 1
        )
        teacher = self.loss(prediction, taught, *given)
        total = (1 - self.share) * truth.total + self.share * teacher.total
        return LossTerms(total, {**truth.parts, "teacher": teacher.total})

    def _taught(self, frames: Tensor) -> Tensor:
        """Return what the teacher says of frames (n, f, y, x): the mean over views."""
        symmetries = self._rng.permutation(8)[: self._views] if self._views > 1 else (0,)
        taught: Tensor | None = None
        with torch.no_grad():
            for symmetry in symmetries:
                turns, flip = int(symmetry) % 4, [-1] * (int(symmetry) // 4)
                seen = torch.rot90(frames.flip(flip), turns, (-2, -1))
                told = torch.rot90(self._teacher[0](seen), -turns, (-2, -1)).flip(flip)
                # A sum of several in bfloat16 would lose what their mean gains.
                taught = told.float() if taught is None else taught + told
            assert taught is not None
            return taught / len(symmetries)

    def get_extra_state(self) -> dict[str, Any]:
        """Return the state of what is drawn."""
        return dict(self._rng.bit_generator.state)

    def set_extra_state(self, state: dict[str, Any]) -> None:
        """Take up what `get_extra_state` returned."""
        self._rng.bit_generator.state = state
