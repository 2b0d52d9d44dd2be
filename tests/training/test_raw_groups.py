"""Pairs of raw groups: what goes in, what should come out, and that the two lie on each other."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from livesr.base.errors import ConfigError
from livesr.simulation.domain import CALIBRATED, Domain
from livesr.training.data import DataConfig
from livesr.training.raw_groups import LIGHTS, RawGroupPairs, covering
from livesr.training.recipes import load_recipe

CELLS = CALIBRATED.model_copy(update={"structures": ("microtubules", "er")})


def maker(frames: tuple[int, ...] = (0, 3, 6), domain: Domain = CELLS) -> RawGroupPairs:
    return RawGroupPairs(96, frames, "sim", domain)


@pytest.fixture(scope="module")
def pair() -> tuple[Any, Any]:
    return maker().make((5, 0))


def test_shapes_and_levels(pair: tuple[Any, Any]) -> None:
    frames, target = pair
    assert (frames.shape, target.shape) == ((3, 48, 48), (1, 96, 96)) == maker().shapes
    assert frames.dtype == target.dtype == np.float32
    assert target.min() >= 0
    assert 0.2 < np.percentile(frames.mean(0), 99.9) < 1


def test_the_raw_frames_are_those_that_are_named(pair: tuple[Any, Any]) -> None:
    other, _ = maker((6, 3, 0)).make((5, 0))
    # Each pair has levels of its own: compare what each frame shows, not how bright.
    alike = np.corrcoef([f.ravel() for f in (*pair[0], *other)])[:3, 3:]
    assert np.argmax(alike, axis=1).tolist() == [2, 1, 0]


def test_the_same_numbers_give_the_same_pair(pair: tuple[Any, Any]) -> None:
    for one, again in zip(pair, maker().make((5, 0)), strict=True):
        np.testing.assert_array_equal(one, again)


def test_pairs_of_one_cell_differ_in_light(pair: tuple[Any, Any]) -> None:
    _, target = maker().make((5, 1))
    assert not np.array_equal(target, pair[1])
    assert np.corrcoef(target.ravel(), pair[1].ravel())[0, 1] > 0.8
    _, other = maker().make((5, LIGHTS))
    assert np.corrcoef(other.ravel(), pair[1].ravel())[0, 1] < 0.6


def test_a_pair_stays_one_when_it_is_flipped() -> None:
    """Each camera pixel is covered by four of the target: the two lie on each other.

    A target whose first pixel is centred on the camera's would be off by a quarter of a pixel.
    """
    bright = CELLS.model_copy(update={"photons": (5000.0, 6000.0), "haze": (0.0, 0.0)})
    frames, target = RawGroupPairs(192, tuple(range(9)), "sim", bright).make((5, 0))
    small = gaussian_filter(target[0], 2.6).reshape(96, 2, 96, 2).mean((1, 3))
    assert np.abs(_shift_px(frames.mean(0), small)).max() < 0.06


def _shift_px(one: Any, other: Any) -> Any:
    """How far two pictures are apart, by the peak of their correlation."""
    n = len(one) // 2
    window = np.hanning(2 * n)[:, None] * np.hanning(2 * n)
    a, b = (np.fft.fft2((image - image.mean()) * window) for image in (one, other))
    peak = np.fft.fftshift(np.fft.ifft2(a * np.conj(b)).real)
    y, x = np.unravel_index(peak.argmax(), peak.shape)

    def between(low: float, top: float, high: float) -> float:
        return (low - high) / (2 * (low - 2 * top + high))

    along_y = between(peak[y - 1, x], peak[y, x], peak[y + 1, x])
    along_x = between(peak[y, x - 1], peak[y, x], peak[y, x + 1])
    return np.array([y - n + along_y, x - n + along_x])


def test_covering_moves_by_half_a_pixel() -> None:
    y, x = np.mgrid[:32, :32]
    wave = np.cos(2 * np.pi * (2 * y + 3 * x) / 32).astype(np.float32)
    moved = np.cos(2 * np.pi * (2 * (y - 0.5) + 3 * (x - 0.5)) / 32)
    np.testing.assert_allclose(covering(wave), moved, atol=1e-5)


@pytest.mark.parametrize("name", ["unet-sim-3", "sim-lowlight-9"])
def test_the_recipes_fit_their_engines(name: str) -> None:
    recipe = load_recipe(name)
    assert len(recipe.engine["raw_frames"]) == len(recipe.data.frames)
    assert recipe.train.parameters["frames"] == len(recipe.data.frames)
    assert recipe.data.maker("train").shapes[0][0] == len(recipe.data.frames)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"frames": ()}, "names the raw frames"),
        ({"kind": "separate"}, "no other kind"),
    ],
)
def test_what_does_not_go_together(change: dict[str, Any], sentence: str) -> None:
    said = load_recipe("unet-sim-3").data.model_dump()
    with pytest.raises(ValueError, match=sentence):
        DataConfig.model_validate(said | change)


def test_a_modality_without_raw_frames_is_refused() -> None:
    with pytest.raises(ConfigError, match="cannot be simulated"):
        RawGroupPairs(96, (0,), "widefield", CELLS).make((1, 0))


def test_a_network_that_keeps_its_size_is_refused_for_finer_pairs(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    from livesr.training.pair_folder import write_pairs
    from livesr.training.settings import TrainConfig
    from livesr.training.sources import CachedPairs
    from livesr.training.trainer import Trainer

    pairs = CachedPairs(write_pairs(tmp_path / "pairs", maker(), 1, seed=1))
    plain = {"frames": 3, "channels": 1, "width": 4, "depth": 1}
    config = TrainConfig(steps=1, architecture="unet", parameters=plain)
    with pytest.raises(ValueError, match="unet keeps the size of its input"):
        Trainer(config, pairs, pairs, tmp_path / "run")
    config = config.model_copy(
        update={"architecture": "raw-unet", "parameters": {"frames": 9, "width": 4}}
    )
    with pytest.raises(ValueError, match="frames 3 of the pairs, 9 of the network"):
        Trainer(config, pairs, pairs, tmp_path / "run")


@pytest.mark.parametrize(("depth", "fold"), [(1, 2), (2, 1), (2, 2)])
def test_the_halo_of_its_network_is_what_a_pixel_sees(depth: int, fold: int) -> None:
    torch = pytest.importorskip("torch")
    from livesr.training.networks import RawUNet

    torch.manual_seed(0)
    network = RawUNet(width=4, depth=depth, fold=fold).eval()
    torch.nn.init.normal_(network.out.weight, std=0.3)
    frames = torch.randn(1, 3, 128, 128, requires_grad=True)
    for place in range(64, 64 + network.multiple_of):
        network(frames)[0, 0, 2 * place, 2 * place].backward()
    seen = frames.grad[0].abs().sum(0).nonzero()
    reach = max(64 - int(seen.min()), int(seen.max()) - (64 + network.multiple_of - 1))
    assert network.halo - 6 <= reach <= network.halo
