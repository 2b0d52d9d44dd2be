"""What changes the weights: Adam, AdamW, or Muon for the kernels and AdamW for the rest.

Owns which weights are whose, and the state of both in one dictionary.

References
----------
Jordan et al. 2024, "Muon: an optimizer for hidden layers in neural networks",
kellerjordan.github.io/posts/muon; Liu et al. 2025, "Muon is scalable for LLM training",
arXiv:2502.16982 (updates as long as Adam's).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, Protocol

import torch
from torch import Tensor, nn

Name = Literal["adam", "adamw", "muon"]


class Optimiser(Protocol):
    """What a trainer needs of one."""

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        """Whose `lr` may be set."""

    def zero_grad(self) -> None:
        """Forget the gradients."""

    def step(self) -> Any:
        """Change the weights."""

    def state_dict(self) -> dict[str, Any]:
        """Return what a checkpoint keeps."""

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take up what `state_dict` returned."""


def make_optimiser(name: Name, network: nn.Module, lr: float, weight_decay: float) -> Optimiser:
    """Return the optimiser of a network; Adam has no weight decay."""
    if name == "muon":
        return MuonAndAdamW(network, lr, weight_decay)
    kind = torch.optim.AdamW if name == "adamw" else torch.optim.Adam
    decay = weight_decay if name == "adamw" else 0.0
    made: Optimiser = kind(network.parameters(), lr=lr, weight_decay=decay, fused=True)
    return made


def is_kernel(weight: Tensor) -> bool:
    """Whether a weight leads from features to as many features, by more than single pixels.

    First and last layers, attention, biases and norms are none: Muon is for the inside.
    """
    return weight.ndim == 4 and bool(weight.shape[0] == weight.shape[1] and weight.shape[2] > 1)


class MuonAndAdamW:
    """Muon for the kernels of a network, AdamW for its other weights.

    Muon makes the momentum of a matrix orthogonal, so that every direction moves alike. A kernel
    (o, i, h, w) is the matrix of `o` rows. Updates are as long as Adam's, so that one rate serves
    both.

    Parameters
    ----------
    network : on its device and in its memory format; weights are changed in place
    lr, weight_decay : of both

    Raises
    ------
    ValueError
        If the network has no kernel, or this torch no Muon (2.9 has).
    """

    def __init__(self, network: nn.Module, lr: float, weight_decay: float) -> None:
        weights = [weight for weight in network.parameters() if weight.requires_grad]
        self._kernels = [weight for weight in weights if is_kernel(weight)]
        if not self._kernels:
            raise ValueError(
                "optimiser 'muon' is for convolutions between as many features, and the network"
                " has none: choose 'adamw'"
            )
        if not hasattr(torch.optim, "Muon"):
            raise ValueError(f"optimiser 'muon' needs torch 2.9; this is {torch.__version__}")
        # The same memory as matrices, which is all that Muon takes.
        self._matrices = [
            nn.Parameter(_matrix(kernel.detach(), like=kernel)) for kernel in self._kernels
        ]
        muon = torch.optim.Muon(
            self._matrices, lr=lr, weight_decay=weight_decay, adjust_lr_fn="match_rms_adamw"
        )
        others = [weight for weight in weights if not is_kernel(weight)]
        adamw = torch.optim.AdamW(others, lr=lr, weight_decay=weight_decay, fused=True)
        self._network, self._optimisers = network, {"muon": muon, "adamw": adamw}

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        """Of both."""
        return [group for one in self._optimisers.values() for group in one.param_groups]

    def zero_grad(self) -> None:
        """Forget the gradients."""
        self._network.zero_grad()

    def step(self) -> None:
        """Change all weights that have a gradient."""
        for matrix, kernel in zip(self._matrices, self._kernels, strict=True):
            matrix.grad = None if kernel.grad is None else _matrix(kernel.grad, like=kernel)
        for one in self._optimisers.values():
            one.step()

    def state_dict(self) -> dict[str, Any]:
        """Return the state of both, by name."""
        return {name: one.state_dict() for name, one in self._optimisers.items()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take up what `state_dict` returned."""
        for name, one in self._optimisers.items():
            one.load_state_dict(state[name])


def _matrix(tensor: Tensor, like: Tensor) -> Tensor:
    """Return (o, i, h, w) as (o, i h w), or as (o, h w i) where `like` has channels last: a view of
    it.
    """
    return (tensor if like.is_contiguous() else tensor.permute(0, 2, 3, 1)).flatten(1)
