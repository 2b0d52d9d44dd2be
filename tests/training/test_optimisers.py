"""Whose weights an optimiser changes, how, and that a checkpoint holds its state."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from torch import nn

from livesr.training import networks
from livesr.training.optimisers import MuonAndAdamW, is_kernel, make_optimiser

WIDTH = 8


def network() -> nn.Module:
    torch.manual_seed(3)
    return networks.build(
        "imcsr", frames=3, channels=2, width=WIDTH, groups=1, blocks=2, reduction=4, head="restore"
    )


def learn(net: nn.Module, optimiser: MuonAndAdamW, seed: int) -> None:
    frames = torch.rand((1, 3, 16, 16), generator=torch.Generator().manual_seed(seed))
    optimiser.zero_grad()
    net(frames).square().mean().backward()
    optimiser.step()


@pytest.mark.parametrize("memory", [torch.contiguous_format, torch.channels_last])
def test_every_direction_of_a_kernel_moves_alike(memory: torch.memory_format) -> None:
    net = network().to(memory_format=memory)
    before = copy.deepcopy(net)
    learn(net, MuonAndAdamW(net, lr=1e-2, weight_decay=0.0), seed=1)
    kernels = 0
    for (name, new), old in zip(net.named_parameters(), before.parameters(), strict=True):
        moved = (new - old).detach()
        assert moved.any(), name
        if not is_kernel(new):
            # Adam's first step is the rate itself, wherever there is a gradient.
            assert float(moved.abs().max()) == pytest.approx(1e-2, rel=0.01), name
            continue
        kernels += 1
        # as long as Adam's: 0.2 in the mean square of a kernel of full rank
        found = torch.linalg.svdvals(moved.flatten(1)) / (1e-2 * 0.2 * (9 * WIDTH) ** 0.5)
        assert float(found.min()) > 0.6, name
        assert float(found.max()) < 1.3, name
    assert kernels == 2 * 2 + 1, "two of each block, and the tail"


def test_both_memory_formats_learn_the_same() -> None:
    nets = [network().to(memory_format=f) for f in (torch.contiguous_format, torch.channels_last)]
    for net in nets:
        optimiser = MuonAndAdamW(net, lr=1e-3, weight_decay=1e-2)
        for seed in range(3):
            learn(net, optimiser, seed)
    for one, other in zip(*(net.parameters() for net in nets), strict=True):
        torch.testing.assert_close(one, other, atol=2e-4, rtol=0)


def test_the_rate_of_both_is_set() -> None:
    net = network()
    optimiser = MuonAndAdamW(net, lr=1e-2, weight_decay=0.0)
    before = copy.deepcopy(net)
    for group in optimiser.param_groups:
        group["lr"] = 0.0
    learn(net, optimiser, seed=1)
    for new, old in zip(net.parameters(), before.parameters(), strict=True):
        assert torch.equal(new, old)


def test_it_goes_on_from_a_checkpoint(tmp_path: Path) -> None:
    straight = network()
    optimiser = MuonAndAdamW(straight, lr=1e-3, weight_decay=0.0)
    for seed in range(2):
        learn(straight, optimiser, seed)
    file = tmp_path / "checkpoint.pt"
    torch.save({"network": straight.state_dict(), "optimiser": optimiser.state_dict()}, file)
    learn(straight, optimiser, 2)
    stored = torch.load(file, weights_only=True)
    resumed = network()
    anew = MuonAndAdamW(resumed, lr=1e-3, weight_decay=0.0)
    resumed.load_state_dict(stored["network"])
    anew.load_state_dict(stored["optimiser"])
    learn(resumed, anew, 2)
    for one, other in zip(straight.parameters(), resumed.parameters(), strict=True):
        assert torch.equal(one, other)


def test_a_network_without_kernels_is_refused() -> None:
    with pytest.raises(ValueError, match="choose 'adamw'"):
        make_optimiser("muon", nn.Conv2d(3, 4, 3), 1e-3, 0.0)


def test_without_a_torch_that_has_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(torch.optim, "Muon")
    with pytest.raises(ValueError, match=r"needs torch 2\.9"):
        make_optimiser("muon", network(), 1e-3, 0.0)
