"""Light from far out of focus, which a network shares out among its structures."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter

from livesr.base.compute import ComputeConfig
from livesr.evaluation.limits import domain_of
from livesr.export.card import card
from livesr.export.engine import export_engine
from livesr.live.inference.engine import Engine, load_engine
from livesr.live.inference.runner import open_session
from livesr.training import networks
from livesr.training.networks.haze import SharedHaze
from livesr.training.optimisers import make_optimiser
from livesr.training.recipes import load_recipe

SIDE = 64
TINY = {
    "width": 16,
    "groups": 1,
    "blocks": 2,
    "reduction": 4,
    "unshuffle": 4,
    "head": "restore",
    "unknown": True,
}


def network(*, haze: bool) -> torch.nn.Module:
    """The same weights, and haze shared out or not."""
    torch.manual_seed(0)
    made = networks.build("imcsr", **TINY).eval()
    torch.nn.init.normal_(made.out.weight, std=0.1)
    if not haze:
        return made
    hazy = networks.build("imcsr", **TINY, haze=True).eval()
    hazy.load_state_dict(made.state_dict(), strict=False)
    return hazy


def frames() -> np.ndarray:
    return np.random.default_rng(0).random((3, SIDE, SIDE), np.float32) * np.float32(0.5)


def structures() -> torch.Tensor:
    """Spots of two structures, three times as many of the first; (1, 2, y, x)."""
    rng = np.random.default_rng(1)
    spots = [rng.random((SIDE, SIDE)) > share for share in (0.91, 0.97)]
    return torch.from_numpy(np.stack(spots)[None].astype(np.float32))


@torch.no_grad()
def test_even_light_goes_to_the_structures_as_bright_as_they_are_in_focus() -> None:
    images = structures()
    light = images.sum(1, keepdim=True) + 0.3
    found = SharedHaze(2)(light, images) - images
    total = found.sum(1, keepdim=True)
    assert float(total.mean()) == pytest.approx(0.3 / (1 + (0.3 / 4 / 0.12) ** 4), rel=0.02)
    torch.testing.assert_close(  # also in the corners, where a blur alone would be darker
        total, torch.full_like(light, float(total.mean())), rtol=0.01, atol=0
    )
    many, few = images.mean((0, 2, 3)).tolist()
    assert float(found[:, 0].mean() / found[:, 1].mean()) == pytest.approx(many / few, rel=0.01)


@torch.no_grad()
def test_a_factor_says_how_hazy_a_structure_is_beside_the_others() -> None:
    haze, images = SharedHaze(2, [1, 3]), structures()
    found = haze(images.sum(1, keepdim=True) + 0.3, images) - images
    many, few = images.mean((0, 2, 3)).tolist()
    assert float(found[:, 0].mean() / found[:, 1].mean()) == pytest.approx(
        many / (3 * few), rel=0.01
    )


@pytest.mark.parametrize(
    "factors", [[1.0], [1.0, 0.0], [1.0, math.nan], [1.0, math.inf], [1.0, 1.0, 1.0]]
)
def test_factors_are_one_positive_number_for_each_image(factors: list[float]) -> None:
    with pytest.raises(ValueError, match="a positive number for each of the 2 images"):
        SharedHaze(2, factors)


@torch.no_grad()
def test_noise_and_detail_are_no_haze_and_nothing_is_taken_away() -> None:
    images = structures()
    noise = torch.randn(1, 1, SIDE, SIDE, generator=torch.manual_seed(2))
    smooth = torch.from_numpy(gaussian_filter(np.random.default_rng(3).random((SIDE, SIDE)), 12))
    smooth = (smooth - smooth.min()).float()[None, None]
    light = images.sum(1, keepdim=True) + smooth + 0.1 * noise
    added = SharedHaze(2)(light, images) - images
    assert float(added.min()) >= 0
    assert float((added.sum(1, keepdim=True) - smooth).std()) < 0.02
    darker = SharedHaze(2)(light - 1, images)  # the frame explains less than was predicted
    torch.testing.assert_close(darker, images)


@torch.no_grad()
def test_a_trace_of_a_structure_does_not_explain_a_bright_field() -> None:
    trace = structures() * 0.002
    added = SharedHaze(2)(torch.ones(1, 1, SIDE, SIDE), trace) - trace
    assert float(added.sum(1).mean()) < 1e-3
    noise = torch.randn(1, 1, SIDE, SIDE, generator=torch.manual_seed(2)) * 0.4
    assert float((SharedHaze(2)(noise, trace) - trace).sum(1).mean()) < 1e-3


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_a_frame_without_structures_gives_numbers(dtype: torch.dtype) -> None:
    haze, nothing = SharedHaze(2).to(dtype), torch.zeros(1, 2, SIDE, SIDE, dtype=dtype)
    assert torch.equal(haze(torch.ones(1, 1, SIDE, SIDE, dtype=dtype), nothing), nothing)


def test_only_its_factors_are_trained() -> None:
    made = network(haze=True).train()
    before = {name: weight.clone() for name, weight in made.haze.named_parameters()}
    optimiser = make_optimiser("muon", made, 0.01, 0.01)
    made(torch.from_numpy(frames())[None]).square().mean().backward()
    optimiser.step()
    moved = {
        name
        for name, weight in made.haze.named_parameters()
        if not torch.equal(weight, before[name])
    }
    assert moved == {"factors.weight"}


def test_an_engine_draws_it_and_says_so_and_tells_as_much_light_that_no_structure_has(
    tmp_path: Path,
) -> None:
    recipe = load_recipe("imcsr-mt-er-lyso-light")
    drawn, told, engines = {}, {}, {}
    for name, haze in (("without", False), ("with", True)):
        parameters = {**TINY, "haze": haze}
        networks.save(tmp_path / f"{name}.pt", network(haze=haze), "imcsr", parameters)
        train = recipe.train.model_copy(update={"parameters": parameters})
        export_engine(
            recipe.model_copy(update={"train": train}), tmp_path / f"{name}.pt", tmp_path / name
        )
        engines[name] = load_engine(tmp_path / name)
        drawn[name], told[name] = run(engines[name])
    with torch.inference_mode():
        expected = network(haze=True)(torch.from_numpy(frames())[None])[0, :3].numpy()
    np.testing.assert_allclose(drawn["with"], expected, atol=2e-3)  # weights are stored as FP16
    assert (drawn["with"] - drawn["without"]).mean() > 0.002
    np.testing.assert_allclose(told["with"][:2], told["without"][:2], rtol=1e-3)
    assert told["with"][2] < 0.95 * told["without"][2]  # less of the frame is left
    assert engines["with"].manifest.haze
    assert domain_of(engines["with"].manifest).haze_in_truth  # what it is judged by


@pytest.mark.parametrize("haze", [False, True])
def test_the_card_promises_no_bound_that_haze_may_exceed(tmp_path: Path, haze: bool) -> None:
    recipe, parameters = load_recipe("imcsr-mt-er-lyso-light"), {**TINY, "head": "partition"}
    parameters = {**parameters, "haze": haze}
    made = networks.build("imcsr", **parameters)
    networks.save(tmp_path / "best.pt", made, "imcsr", parameters)
    train = recipe.train.model_copy(update={"parameters": parameters})
    recipe = recipe.model_copy(update={"train": train})
    export_engine(recipe, tmp_path / "best.pt", tmp_path / "engine")
    (tmp_path / "log.csv").write_text("step,minutes\n1,1\n", encoding="utf-8")
    card(recipe, tmp_path / "engine", None, tmp_path / "log.csv")
    text = (tmp_path / "engine" / "README.md").read_text(encoding="utf-8")
    assert "x is shared out" in text
    assert ("their sum cannot exceed it" in text) is not haze


def run(engine: Engine) -> tuple[np.ndarray, np.ndarray]:
    settings = ComputeConfig(backend="openvino", precision="f32", tile="off")
    with open_session(engine, (SIDE, SIDE), settings) as session:
        session.input[...] = frames()
        drawn = session.infer().copy()
        assert session.features is not None
        return drawn, session.features.copy()


def test_networks_of_one_structure_each_share_out_nothing() -> None:
    with pytest.raises(ValueError, match="left to 'haze'"):
        networks.build("imcsr-single", head="restore", haze=True)
