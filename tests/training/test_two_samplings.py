"""Pairs of images that are sampled differently, raw groups beside their pictures, PSSR's noise."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray
from pydantic import ValidationError
from scipy.ndimage import gaussian_filter

from livesr.base.errors import ConfigError
from livesr.training.data import DataConfig
from livesr.training.degradation import Degradation
from livesr.training.images import OwnImages
from livesr.training.paired import PairedPairs
from livesr.training.simulated import UpscalePairs

SIZE, SIDE = 64, 48


def field(seed: int, n: int, scale: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return `n` blurred coarse images, in another unit, and the sharp fine ones."""
    rng = np.random.default_rng(seed)
    spots = (rng.random((n, scale * SIDE, scale * SIDE)) < 0.01).astype(np.float32)
    fine = gaussian_filter(1000 * spots, (0, 1, 1))
    blurred = gaussian_filter(fine, (0, 1.5 * scale, 1.5 * scale))
    coarse = blurred.reshape(n, SIDE, scale, SIDE, scale).mean((2, 4))
    return 7 * coarse + 300, fine


def folder(path: Path, scale: int, kind: str = "noisy", group: int = 1, files: int = 3) -> Path:
    for name in ("clean", kind):
        (path / name).mkdir(parents=True)
    for i in range(files):
        coarse, fine = field(i, 2, scale)
        given = np.repeat(coarse, group, axis=0)
        given += np.tile(np.arange(group), 2)[:, None, None]  # which exposure it is
        tifffile.imwrite(path / kind / f"{i}.tif", given)
        tifffile.imwrite(path / "clean" / f"{i}.tif", fine)
    return path


def images(path: Path, **changes: object) -> OwnImages:
    return OwnImages.model_validate(
        {"folders": {"spots": str(path)}, "pixel_size_nm": 60, "modality": "widefield", **changes}
    )


@pytest.mark.parametrize("scale", [1, 2, 4])
def test_how_much_finer_the_clean_image_is_follows_from_the_sizes(
    tmp_path: Path, scale: int
) -> None:
    maker = PairedPairs.find(images(folder(tmp_path, scale)), SIZE // 2 * min(scale, 2), (), "all")
    given, clean = maker.make((1, 2))
    assert maker.scale == scale
    assert (given.shape, clean.shape) == maker.shapes
    assert clean.shape[-1] == scale * given.shape[-1]


def test_both_show_the_same_place_in_the_same_unit(tmp_path: Path) -> None:
    maker = PairedPairs.find(images(folder(tmp_path, 2)), SIZE, (), "all")
    assert maker.files[0].slope == pytest.approx(7, rel=0.1)
    for number in range(4):
        given, clean = maker.make((1, number))
        coarse = gaussian_filter(clean[0], 3).reshape(SIZE // 2, 2, SIZE // 2, 2).mean((1, 3))
        inside = (slice(4, -4),) * 2
        assert np.corrcoef(coarse[inside].ravel(), given[0][inside].ravel())[0, 1] > 0.95
        assert coarse[inside].mean() == pytest.approx(given[0][inside].mean(), rel=0.3, abs=0.02)


def test_the_network_sees_the_exposures_that_it_asks_for(tmp_path: Path) -> None:
    own = images(folder(tmp_path, 2, "raw", group=9))
    maker = PairedPairs.find(own, SIZE, (0, 3, 6), "train")
    given, _ = maker.make((5, 1))
    steps = np.diff(given.mean((1, 2)))
    assert given.shape == (3, SIZE // 2, SIZE // 2)
    assert steps == pytest.approx([steps[0]] * 2, rel=1e-3)
    with pytest.raises(ConfigError, match="a group has 9 exposures, and number 9 is asked for"):
        PairedPairs.find(own, SIZE, (9,), "train")


def test_training_and_validation_share_no_file(tmp_path: Path) -> None:
    own = images(folder(tmp_path, 2))
    train, validation = (PairedPairs.find(own, SIZE, (), p) for p in ("train", "validation"))
    assert [len(train.files), len(validation.files)] == [2, 1]
    assert not {f.clean for f in train.files} & {f.clean for f in validation.files}


@pytest.mark.parametrize(
    ("given", "clean", "message"),
    [
        ((1, 40, 48), (1, 96, 96), "not 1 to 8 times as large"),
        ((1, 48, 48), (1, 120, 120), "not 1 to 8 times as large"),
        ((3, 48, 48), (2, 96, 96), "3 images for 2 clean ones"),
        ((1, 24, 24), (1, 48, 48), "crops of 64 x 64"),
    ],
)
def test_what_cannot_be_paired_is_named(
    tmp_path: Path, given: tuple[int, ...], clean: tuple[int, ...], message: str
) -> None:
    rng = np.random.default_rng(0)
    for kind, shape in (("noisy", given), ("clean", clean)):
        (tmp_path / kind).mkdir()
        picture = rng.random(shape, np.float32)
        tifffile.imwrite(tmp_path / kind / "a.tif", picture, photometric="minisblack")
    with pytest.raises(ConfigError, match=message):
        PairedPairs.find(images(tmp_path), SIZE, (), "all")


def test_folders_that_are_not_there_are_named(tmp_path: Path) -> None:
    (tmp_path / "clean").mkdir()
    with pytest.raises(ConfigError, match="no folder 'noisy'"):
        PairedPairs.find(images(tmp_path), SIZE, (), "all")


def test_two_scales_make_no_set_of_pairs(tmp_path: Path) -> None:
    both = {"a": str(folder(tmp_path / "a", 2)), "b": str(folder(tmp_path / "b", 4))}
    own = OwnImages(folders=both, pixel_size_nm=60)
    with pytest.raises(ConfigError, match="2 and 4 times"):
        PairedPairs.find(own, SIZE, (), "all")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"kind": "paired"}, "name their folders"),
        ({"degradation": {}}, "'upscale' has"),
    ],
)
def test_a_recipe_that_makes_no_sense_is_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        DataConfig.model_validate(
            {"train": 1, "validation": 1, "seed": 1, "validation_seed": 2, **changes}
        )


def test_a_recipe_of_pairs_makes_them(tmp_path: Path) -> None:
    folder(tmp_path, 2)
    data = DataConfig.model_validate(
        {
            "kind": "paired",
            "train": 2,
            "validation": 1,
            "seed": 1,
            "validation_seed": 2,
            "size": SIZE,
            "images": images(tmp_path).model_dump(),
        }
    )
    assert isinstance(data.maker("train"), PairedPairs)
    assert "clean partners" in data.describe()


def test_pssrs_noise_is_on_the_coarse_image_only() -> None:
    plain = UpscalePairs(SIZE, 2, "storm")
    noisy = UpscalePairs(SIZE, 2, "storm", degradation=Degradation())
    (a, _), (b, fine) = plain.make((5, 2)), noisy.make((5, 2))
    assert "degradation" in noisy.meta()
    assert "degradation" not in plain.meta(), "pairs of before still match"
    assert np.std(b) > 1.2 * np.std(a)
    assert fine.shape == (1, SIZE, SIZE)


def test_noise_follows_the_local_brightness_and_some_pixels_are_salt_or_pepper() -> None:
    image = np.zeros((96, 96), np.float32)
    image[:, 48:] = 100
    rng = np.random.default_rng(0)
    bad = Degradation(local_variance=0.1, salt_and_pepper=0)(image, rng) - image
    dark, bright = bad[:, :32].std(), bad[:, 64:].std()
    assert dark < 0.05 * bright
    assert bright == pytest.approx(100 * np.sqrt(0.1), rel=0.1)
    spiced = Degradation(local_variance=0, salt_and_pepper=0.1)(image, rng)
    assert np.mean(spiced[:, :48] == 100) == pytest.approx(0.1, abs=0.02)
    assert np.mean(spiced[:, 48:] == 0) == pytest.approx(0.1, abs=0.02)
