"""Pairs from a user's own images, and pairs for upscaling.

What goes in comes out, and bad files are named.
"""

from __future__ import annotations

import logging
from pathlib import Path

import mrcfile
import numpy as np
import pytest
import tifffile
import zarr
from numpy.typing import NDArray
from pydantic import ValidationError
from scipy.ndimage import gaussian_filter

from livesr.base.errors import ConfigError
from livesr.training.composites import CoarsePairs, CompositePairs
from livesr.training.data import DataConfig
from livesr.training.images import OwnImages, find_images, read_image
from livesr.training.pair_folder import write_pairs
from livesr.training.simulated import UpscalePairs, bilinear_downsampled
from livesr.training.sources import CachedPairs

SIZE = 64


def picture(seed: int, t: int = 1, side: int = 80) -> NDArray[np.float32]:
    rng = np.random.default_rng(seed)
    spots = (rng.random((t, side, side)) < 0.01).astype(np.float32)
    return (100 + 5000 * gaussian_filter(spots, (0, 2, 2))).astype(np.float32)


def write_zarr(path: Path, image: NDArray[np.float32]) -> None:
    group = zarr.open_group(str(path), mode="w")
    group.create_array("0", data=image[:, None, None])
    group.attrs["ome"] = {"version": "0.5", "multiscales": [{"datasets": [{"path": "0"}]}]}


@pytest.fixture
def folders(tmp_path: Path) -> dict[str, str]:
    """Two structures: time lapses in every format, and still TIFFs."""
    lapses, stills = tmp_path / "lapses", tmp_path / "stills"
    (lapses / "Cell_001").mkdir(parents=True)
    stills.mkdir()
    tifffile.imwrite(lapses / "a.tif", picture(1, 4), photometric="minisblack")
    mrcfile.write(lapses / "Cell_001" / "b.mrc", picture(2, 4))
    write_zarr(lapses / "c.zarr", picture(3, 4))
    for i in range(3):
        tifffile.imwrite(stills / f"{i}.tiff", picture(10 + i)[0].astype(np.uint16))
    return {"spots": str(lapses), "blobs": str(stills)}


def images(folders: dict[str, str], **changes: object) -> OwnImages:
    return OwnImages.model_validate({"folders": folders, "pixel_size_nm": 30, **changes})


def test_every_format_gives_the_same_pixels(folders: dict[str, str]) -> None:
    found = {f.path.name: f for f in find_images(folders["spots"], SIZE)}
    assert set(found) == {"a.tif", "b.mrc", "c.zarr"}
    for seed, name in ((1, "a.tif"), (2, "b.mrc"), (3, "c.zarr")):
        np.testing.assert_array_equal(read_image(found[name].path), picture(seed, 4))
        assert found[name].shape == (4, 80, 80)


def test_of_biosr_only_the_sim_images_are_taken(tmp_path: Path) -> None:
    for cell in ("Cell_001", "Cell_002"):
        (tmp_path / cell).mkdir()
        mrcfile.write(tmp_path / cell / "SIM_gt.mrc", picture(1)[0])
        mrcfile.write(tmp_path / cell / "RawSIMData_level_01.mrc", picture(1, 9))
    assert [f.path.name for f in find_images(tmp_path, SIZE)] == ["SIM_gt.mrc"] * 2


def test_of_biosrs_er_a_cell_trains_or_validates(tmp_path: Path) -> None:
    for cell in (f"Cell_{i:03d}" for i in range(1, 8)):
        for kind, t in (("GTSIM", 1), ("RawGTSIMData", 9), ("RawSIMData", 9)):
            (tmp_path / cell / kind).mkdir(parents=True)
            for level in range(1, 4):
                mrcfile.write(
                    tmp_path / cell / kind / f"{kind}_level_{level:02d}.mrc",
                    np.squeeze(picture(level, t)),
                )
    assert {f.path.parent.name for f in find_images(tmp_path, SIZE)} == {"GTSIM"}
    er = images({"er": str(tmp_path)})
    cells = {
        part: [f.path.parents[1].name for f in CompositePairs.find(er, SIZE, part).files["er"]]
        for part in ("train", "validation")
    }
    assert cells["validation"] == ["Cell_006"] * 3 + ["Cell_007"] * 3
    assert len(cells["train"]) == 15
    assert not set(cells["train"]) & set(cells["validation"])


def test_a_bad_file_is_named_and_refused_or_left_out(
    folders: dict[str, str], caplog: pytest.LogCaptureFixture
) -> None:
    (Path(folders["blobs"]) / "9-broken.tif").write_bytes(b"II*\0 this is no TIFF")
    tifffile.imwrite(Path(folders["blobs"]) / "8-small.tif", picture(1, side=32)[0])
    with pytest.raises(ConfigError, match=r"8-small.tif .* 32 x 32"):
        find_images(folders["blobs"], SIZE)
    with caplog.at_level(logging.WARNING):
        assert len(find_images(folders["blobs"], SIZE, "skip")) == 3
    assert [word in caplog.text for word in ("8-small.tif", "9-broken.tif")] == [True, True]


def test_whatever_a_decoder_raises_names_the_file(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    tifffile.imwrite(tmp_path / "good.tif", picture(1)[0])
    tifffile.imwrite(tmp_path / "packed.tif", picture(1)[0], compression="zlib")
    write_zarr(tmp_path / "chunk.zarr", picture(1))
    for damaged in (
        tmp_path / "packed.tif",
        next(p for p in (tmp_path / "chunk.zarr" / "0" / "c").rglob("*") if p.is_file()),
    ):
        content = bytearray(damaged.read_bytes())
        content[len(content) // 2 :] = bytes(len(content) - len(content) // 2)
        damaged.write_bytes(content)
    zarr.open_group(str(tmp_path / "none.zarr"), mode="w").attrs["ome"] = {"multiscales": []}
    with caplog.at_level(logging.WARNING):
        assert [f.path.name for f in find_images(tmp_path, SIZE, "skip")] == ["good.tif"]
    for name in ("packed.tif", "chunk.zarr", "none.zarr"):
        assert f"{name} cannot serve as an image" in caplog.text
        with pytest.raises(ConfigError, match=name):
            find_images(tmp_path / name, SIZE)


def test_pixels_that_are_no_numbers_are_refused(folders: dict[str, str]) -> None:
    image = picture(1)[0]
    image[3, 3] = np.nan
    tifffile.imwrite(Path(folders["blobs"]) / "nan.tif", image)
    with pytest.raises(ConfigError, match=r"nan.tif .* no numbers"):
        find_images(folders["blobs"], SIZE)


def test_a_folder_without_images_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="holds no usable image"):
        find_images(tmp_path, SIZE)


def test_training_and_validation_share_no_file(folders: dict[str, str]) -> None:
    train, validation = (
        CompositePairs.find(images(folders), SIZE, part) for part in ("train", "validation")
    )
    for name in folders:
        assert {f.path for f in train.files[name]}.isdisjoint(
            f.path for f in validation.files[name]
        )
        assert len(train.files[name]) + len(validation.files[name]) == 3
    (Path(folders["blobs"]) / "1.tiff").unlink()
    (Path(folders["blobs"]) / "2.tiff").unlink()
    with pytest.raises(ConfigError, match="blobs needs two"):
        CompositePairs.find(images(folders), SIZE, "train")


def test_the_patches_of_a_pair_sum_to_its_input(folders: dict[str, str]) -> None:
    frames, targets = CompositePairs.find(images(folders), SIZE, "train").make((1, 5))
    assert (frames.shape, targets.shape) == ((3, SIZE, SIZE), (2, SIZE, SIZE))
    difference = targets.sum(0) - frames[1]
    assert np.ptp(difference) < 1e-4, "but for the background"
    assert targets.min() >= 0
    assert np.abs(frames[0] - frames[1]).max() > 0.01, "the time lapse moves"


def test_brightness_varies_within_its_ratio(folders: dict[str, str]) -> None:
    maker = CompositePairs.find(images(folders, brightness_ratio=5), SIZE, "train")
    ratios = [np.divide(*maker.make((2, i))[1].max((1, 2))) for i in range(60)]
    assert 1 / 12 < min(ratios) < 0.7
    assert 1.4 < max(ratios) < 12


def test_a_camera_adds_noise_to_the_input_only(folders: dict[str, str]) -> None:
    def misfit(photons: tuple[float, float] | None) -> float:
        frames, targets = CompositePairs.find(images(folders, photons=photons), SIZE, "train").make(
            (1, 5)
        )
        return float(np.std(frames[1] - targets.sum(0)))

    assert misfit((20, 20.1)) > 2 * misfit((500, 501)) > 4 * misfit(None)


def test_noisy_images_make_the_input_and_clean_ones_the_truth(tmp_path: Path) -> None:
    for kind in ("clean", "noisy"):
        (tmp_path / kind).mkdir()
    rng = np.random.default_rng(0)
    for i in range(2):
        clean = picture(i)[0]
        tifffile.imwrite(tmp_path / "clean" / f"{i}.tif", clean)
        noisy = 7 * clean + 300 + rng.normal(0, 200, clean.shape)
        tifffile.imwrite(tmp_path / "noisy" / f"{i}.tif", noisy.astype(np.float32))
    maker = CompositePairs.find(images({"spots": str(tmp_path)}), SIZE, "train")
    (file,) = maker.files["spots"]
    assert file.noisy_scale == pytest.approx((7, 300), rel=0.05)
    frames, targets = maker.make((3, 1))
    noise = frames[1] - targets[0]
    assert 0 < noise.std() < 0.2
    slope = np.polyfit(targets[0].ravel(), frames[1].ravel(), 1)[0]
    assert slope == pytest.approx(1, abs=0.05), "one unit"


def test_a_noisy_image_of_another_field_is_refused(tmp_path: Path) -> None:
    for kind, seed in (("clean", 1), ("noisy", 2)):
        (tmp_path / kind).mkdir()
        tifffile.imwrite(
            tmp_path / kind / "a.tif", picture(seed)[0] * (1 if kind == "clean" else -1)
        )
    with pytest.raises(ConfigError, match="same field"):
        find_images(tmp_path, SIZE)


def test_own_pairs_are_cached_and_the_same_from_any_worker(
    folders: dict[str, str], tmp_path: Path
) -> None:
    maker = CompositePairs.find(images(folders), SIZE, "train")
    one = write_pairs(tmp_path / "one", maker, 5, seed=3)
    two = write_pairs(tmp_path / "two", maker, 5, seed=3, workers=2)
    for name in ("frames.npy", "targets.npy"):
        np.testing.assert_array_equal(np.load(one / name), np.load(two / name))
    assert CachedPairs(one).meta["channels"] == ["spots", "blobs"]
    with pytest.raises(ValueError, match="differ in images"):
        write_pairs(
            tmp_path / "one",
            CompositePairs.find(images(folders, photons=(9, 90)), SIZE, "train"),
            5,
            seed=3,
        )


# -- upscaling -------------------------------------------------------------------------------------


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_downsampling_is_torchs_bilinear(scale: int) -> None:
    torch = pytest.importorskip("torch")
    image = picture(4, side=48)[0]
    expected = torch.nn.functional.interpolate(
        torch.from_numpy(image)[None, None],
        scale_factor=1 / scale,
        mode="bilinear",
        align_corners=False,
    )
    np.testing.assert_allclose(
        bilinear_downsampled(image, scale), expected[0, 0].numpy(), rtol=1e-5
    )


def test_downsampling_needs_a_multiple() -> None:
    with pytest.raises(ValueError, match="3 times"):
        bilinear_downsampled(np.zeros((8, 9), np.float32), 3)


@pytest.mark.parametrize("modality", ["sim", "storm"])
@pytest.mark.parametrize("scale", [2, 4])
def test_upscaling_pairs_are_one_image_at_two_samplings(modality: str, scale: int) -> None:
    maker = UpscalePairs(SIZE, scale, modality)
    coarse, fine = maker.make((5, 2))  # a cell that is in the field
    assert (
        maker.shapes
        == ((1, SIZE // scale, SIZE // scale), (1, SIZE, SIZE))
        == (coarse.shape, fine.shape)
    )
    np.testing.assert_allclose(bilinear_downsampled(fine[0], scale), coarse[0], atol=1e-5)
    assert np.std(fine) > 0.02


def test_own_images_can_be_upscaled(folders: dict[str, str]) -> None:
    coarse, fine = CoarsePairs.find(images(folders), SIZE, 2, "validation").make((5, 1))
    assert (coarse.shape, fine.shape) == ((1, SIZE // 2, SIZE // 2), (1, SIZE, SIZE))


# -- what a recipe says ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"kind": "upscale"}, "a scale of 2, 3 or 4"),
        ({"scale": 2}, "a scale of 2, 3 or 4"),
        ({"kind": "upscale", "scale": 3, "size": 256}, "multiple"),
        ({"validation_seed": 1}, "same seed"),
        (
            {"kind": "reconstruct", "frames": [0, 3], "domain": {"haze_in_truth": True}},
            "leave it out",
        ),
        (
            {"kind": "sparse", "modality": "storm", "domain": {"haze_in_truth": True}},
            "leave it out",
        ),
    ],
)
def test_a_recipe_that_makes_no_sense_is_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        DataConfig.model_validate(
            {"train": 1, "validation": 1, "seed": 1, "validation_seed": 2, **changes}
        )
