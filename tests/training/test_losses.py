"""The loss terms against their definitions, and SSIM against skimage."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter
from skimage.metrics import structural_similarity

from livesr.training.losses import CombinationLoss, Distillation, L1Loss, ssim
from livesr.training.settings import TrainConfig


def pair(shape: tuple[int, ...] = (2, 3, 40, 52)) -> tuple[torch.Tensor, torch.Tensor]:
    rng = np.random.default_rng(0)
    target = gaussian_filter(rng.random(shape), (0, 0, 2, 2))
    prediction = target + rng.normal(0, 0.02, shape)
    return torch.from_numpy(prediction.astype(np.float32)), torch.from_numpy(
        target.astype(np.float32)
    )


def test_ssim_is_that_of_skimage() -> None:
    prediction, target = pair()
    options = {
        "gaussian_weights": True,
        "sigma": 1.5,
        "use_sample_covariance": False,
        "data_range": 1.0,
    }
    images = zip(prediction.flatten(0, 1).numpy(), target.flatten(0, 1).numpy(), strict=True)
    expected = np.mean(
        [structural_similarity(p.astype(float), t.astype(float), **options) for p, t in images]
    )
    assert float(ssim(prediction, target)) == pytest.approx(expected, abs=1e-4)


def test_ssim_with_the_papers_constants_forgives_a_faint_background() -> None:
    dark, faint = (
        torch.zeros(1, 1, 32, 32),
        torch.full((1, 1, 32, 32), 0.018),
    )  # what a sigmoid starts with
    assert float(ssim(faint, dark)) < 0.3
    assert float(ssim(faint, dark, constants=(0.01, 0.03))) > 0.95


def test_every_second_window_gives_nearly_the_same_mean() -> None:
    prediction, target = pair((2, 3, 128, 128))
    assert float(ssim(prediction, target, stride=2)) == pytest.approx(
        float(ssim(prediction, target)), abs=2e-3
    )


def test_ssim_of_an_image_with_itself_is_one() -> None:
    _, target = pair()
    assert float(ssim(target, target)) == pytest.approx(1)


def test_ssim_refuses_images_smaller_than_its_window() -> None:
    with pytest.raises(ValueError, match="at least 11"):
        ssim(torch.zeros(1, 1, 8, 8), torch.zeros(1, 1, 8, 8))


def test_combination_loss_is_the_papers_formula() -> None:
    prediction, target = pair()
    sums = prediction.sum(1, keepdim=True), target.sum(1, keepdim=True)
    mse = torch.mean((prediction - target) ** 2) + 0.02 * torch.mean((sums[0] - sums[1]) ** 2)
    constants = (0.01, 0.03)
    structure = (1 - ssim(prediction, target, 2, constants)) + 0.02 * (
        1 - ssim(*sums, 2, constants)
    )
    terms = CombinationLoss()(prediction, target)
    torch.testing.assert_close(terms.total, mse + 0.1 * structure)
    assert list(terms.parts) == ["mse", "structure", "summation"]


def test_descending_the_combination_loss_recovers_the_target() -> None:
    prediction, target = pair()
    prediction.requires_grad_()
    optimiser = torch.optim.Adam([prediction], lr=5e-3)
    totals = []
    for _ in range(40):
        optimiser.zero_grad()
        total = CombinationLoss()(prediction, target).total
        total.backward()
        optimiser.step()
        totals.append(total.item())
    assert totals[-1] < 0.3 * totals[0]


def test_l1_is_the_mean_absolute_difference() -> None:
    prediction, target = pair()
    terms = L1Loss()(prediction, target)
    torch.testing.assert_close(terms.total, (prediction - target).abs().mean())
    assert list(terms.parts) == ["l1"]


def test_a_dim_structure_counts_more_in_a_balanced_loss_and_an_absent_one_as_before() -> None:
    _, target = pair((1, 3, 64, 64))
    target[:, 1] *= 0.25
    target[:, 2] = 0

    def loss(wrong: int, balance: float) -> float:
        prediction = target.clone()
        prediction[:, wrong] = prediction[:, wrong] * 0.5 + 0.05
        return float(
            CombinationLoss(structure=0, summation=0, balance=balance)(prediction, target).total
        )

    assert loss(1, 0.5) == pytest.approx(4 * loss(1, 0), rel=0.03), (
        "(4 ^ 2) ^ (0.5 / 2) = 2, and it is squared"
    )
    assert loss(1, 1.0) == pytest.approx(16 * loss(1, 0), rel=0.03)
    assert loss(0, 0.5) == pytest.approx(loss(0, 0), rel=0.03)
    assert loss(2, 0.5) == pytest.approx(loss(2, 0))


def test_the_correlation_term_asks_of_every_structure_that_is_there_whatever_its_light() -> None:
    prediction, target = pair((2, 3, 64, 64))
    target[0, 1] *= 0.3
    target[1, 2] = 0
    shown = [(n, c) for n in range(2) for c in range(3) if (n, c) != (1, 2)]
    pcc = [np.corrcoef(prediction[i].ravel(), target[i].ravel())[0, 1] for i in shown]
    terms = CombinationLoss(correlation=0.5)(prediction, target)
    assert float(terms.parts["correlation"]) == pytest.approx(1 - np.mean(pcc), abs=2e-3)
    without = CombinationLoss()(prediction, target)
    assert float(terms.total - without.total) == pytest.approx(
        0.5 * float(terms.parts["correlation"]), rel=1e-4
    )
    assert "correlation" not in without.parts


def test_light_for_structures_that_are_not_there_is_counted_as_a_share_of_all() -> None:
    _, target = pair((2, 3, 64, 64))
    target[0, 1], target[1, 2] = 0, 0
    prediction = target.clone()
    prediction[0, 1] = 0.25 * target[0].mean((1, 2)).sum()
    prediction[1, 0] *= 2  # that is there: another term's concern
    terms = CombinationLoss(invented=0.5)(prediction, target)
    assert float(terms.parts["invented"]) == pytest.approx(0.25 / 2, rel=1e-5), "of two patches"
    without = CombinationLoss()(prediction, target)
    assert float(terms.total - without.total) == pytest.approx(0.5 * 0.25 / 2, rel=1e-4)
    assert "invented" not in without.parts


def test_light_invented_in_the_dark_counts_little_and_has_a_gradient() -> None:
    prediction = torch.full((1, 3, 64, 64), 1e-3, requires_grad=True)
    terms = CombinationLoss(invented=1.0)(prediction, torch.zeros(1, 3, 64, 64))
    assert terms.parts["invented"].item() == pytest.approx(3 * 1e-3 / 0.01)
    terms.total.backward()
    assert prediction.grad is not None
    assert bool((prediction.grad > 0).all())


@pytest.mark.parametrize("term", ["correlation", "invented"])
def test_a_checkpoint_from_before_a_term_was_there_is_resumed(term: str) -> None:
    without = TrainConfig.model_validate({"steps": 1})
    with_it = TrainConfig.model_validate({"steps": 1, "loss": {term: 0.01}})
    assert term not in without.identity()
    assert term in with_it.identity()


def test_the_correlation_term_of_a_patch_without_structures_is_zero_and_has_a_gradient() -> None:
    prediction = torch.full((1, 2, 64, 64), 0.1, requires_grad=True)
    terms = CombinationLoss(correlation=1.0)(prediction, torch.zeros(1, 2, 64, 64))
    assert terms.parts["correlation"].item() == 0
    terms.total.backward()
    assert prediction.grad is not None
    assert bool(prediction.grad.isfinite().all())


def test_the_sum_is_compared_with_the_structures_or_with_the_frame_as_it_came() -> None:
    prediction, target = pair()
    frames = torch.randn(2, 3, 40, 52)
    settings = {"structure": 0.0, "summation": 1.0}
    to_truth = CombinationLoss(**settings)(prediction, target, frames)  # type: ignore[arg-type]
    to_input = CombinationLoss(**settings, summation_with="input")  # type: ignore[arg-type]
    wanted = torch.mean((prediction.sum(1) - frames[:, 1]) ** 2)
    assert float(to_input(prediction, target, frames).parts["summation"]) == pytest.approx(
        float(wanted), rel=1e-5
    )
    assert float(to_truth.parts["summation"]) == pytest.approx(
        float(torch.mean((prediction.sum(1) - target.sum(1)) ** 2)), rel=1e-5
    )
    with pytest.raises(ValueError, match="summation_with: structures"):
        to_input(prediction, target)
    with pytest.raises(ValueError, match="of another size"):
        to_input(prediction, target, frames[..., ::2])


class _Slanted(torch.nn.Module):
    """Sees what lies to the right: another thing from every side."""

    def forward(self, frames: torch.Tensor) -> torch.Tensor:
        return frames + torch.roll(frames, -1, -1)


def test_a_teacher_says_the_mean_of_what_it_sees_from_all_sides() -> None:
    frames, _ = pair((2, 1, 24, 24))
    neighbours = [torch.roll(frames, step, axis) for step in (-1, 1) for axis in (-2, -1)]
    mean = frames + sum(neighbours) / 4
    alone = frames + torch.roll(frames, -1, -1)
    truth = torch.zeros_like(frames)

    def far_from(loss: Distillation, prediction: torch.Tensor) -> float:
        return float(loss(prediction, truth, frames).total.item())

    for views, taught, other in ((8, mean, alone), (1, alone, mean)):
        loss = Distillation(L1Loss(), _Slanted(), share=1.0, structures=1, views=views)
        assert far_from(loss, taught) == pytest.approx(0, abs=1e-6)
        assert far_from(loss, other) > 0.01
    few = Distillation(L1Loss(), _Slanted(), share=1.0, structures=1, views=2, seed=1)
    drawn = {round(far_from(few, mean), 6) for _ in range(8)}
    assert len(drawn) > 1, "drawn anew for every batch"


class _Two(torch.nn.Module):
    """Says the frame, of a structure and of unknown light."""

    def forward(self, frames: torch.Tensor) -> torch.Tensor:
        return torch.cat([frames, frames], 1)


def test_of_unknown_light_only_the_truth_is_asked() -> None:
    frames, _ = pair((2, 1, 24, 24))
    truth = torch.stack([torch.zeros_like(frames)[:, 0], torch.full_like(frames, 0.25)[:, 0]], 1)
    loss = Distillation(L1Loss(), _Two(), share=1.0, structures=1)
    right = torch.cat([frames, truth[:, 1:]], 1)
    assert float(loss(right, truth, frames).total) == pytest.approx(0, abs=1e-6)
    assert float(loss(torch.cat([frames, frames], 1), truth, frames).total) > 0.01


class _Rounded(torch.nn.Module):
    """Says what lies to the right in bfloat16, as a teacher does under mixed precision."""

    def forward(self, frames: torch.Tensor) -> torch.Tensor:
        return torch.roll(frames, -1, -1).bfloat16()


def test_the_mean_of_views_is_not_rounded_again() -> None:
    # bfloat16 holds whole numbers up to 256, and no quarters of large ones.
    frames = torch.from_numpy(np.random.default_rng(3).integers(0, 256, (1, 1, 16, 16))).float()
    mean = sum(torch.roll(frames, step, axis) for step in (-1, 1) for axis in (-2, -1)) / 4
    loss = Distillation(L1Loss(), _Rounded(), share=1.0, structures=1, views=8)
    assert float(loss(mean, torch.zeros_like(mean), frames).total) == pytest.approx(0, abs=1e-4)
