"""The folder of cached pairs: format, crops and their content."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from livesr.base.errors import ConfigError
from livesr.training.sources import CachedPairs, named_pairs

META = {"seed": 1, "pixel_size_nm": 40.0, "channels": ["a", "b"]}


def write(folder: Path, scale: int = 1, meta: dict[str, object] = META) -> Path:
    """Frames hold 64 x image + y / 2 in every pixel; structure `b` is one corner spot."""
    y = np.mgrid[:64, :64][0]
    frames = np.stack([np.stack([i * 64 + y / 2] * 3) for i in range(4)])
    targets = np.ones((4, 2, 64 * scale, 64 * scale))
    targets[:, 1] = 0
    targets[:, 1, -24 * scale :, -24 * scale :] = 1
    folder.mkdir()
    np.save(folder / "frames.npy", frames.astype(np.float16))
    np.save(folder / "targets.npy", targets.astype(np.float16))
    (folder / "meta.json").write_text(json.dumps(meta))
    return folder


@pytest.mark.parametrize("scale", [1, 2])
def test_crops_are_float32_and_determined_by_the_generator(tmp_path: Path, scale: int) -> None:
    source = CachedPairs(write(tmp_path / "pairs", scale))
    frames, targets = source.batch(np.random.default_rng(5), 6, 16)
    assert frames.shape == (6, 3, 16, 16)
    assert targets.shape == (6, 2, 16 * scale, 16 * scale)
    assert frames.dtype == targets.dtype == np.float32
    again = CachedPairs(tmp_path / "pairs").batch(np.random.default_rng(5), 6, 16)
    np.testing.assert_array_equal(frames, again[0])
    np.testing.assert_array_equal(targets, again[1])


def test_a_sparse_structure_is_in_more_crops_than_chance_puts_it(tmp_path: Path) -> None:
    write(tmp_path / "pairs")

    def share(tries: int) -> float:
        _, targets = CachedPairs(tmp_path / "pairs", tries=tries).batch(
            np.random.default_rng(0), 300, 16
        )
        return float(np.mean(targets[:, 1].max((1, 2)) > 0))

    assert share(8) > 1.3 * share(1)


def test_validation_pairs_are_whole_and_the_same_each_time(tmp_path: Path) -> None:
    source = CachedPairs(write(tmp_path / "pairs"))
    frames, targets = source.validation(2)
    assert frames.shape == (2, 3, 64, 64)
    assert [int(f[0, 0, 0]) for f in frames] == [0, 192]
    np.testing.assert_array_equal(targets, source.validation(2)[1])
    assert len(source.validation(9)[0]) == len(source) == 4


def test_what_is_not_a_folder_of_pairs_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"meta\.json"):
        CachedPairs(tmp_path)
    with pytest.raises(ValueError, match="seed"):
        CachedPairs(write(tmp_path / "lacking", meta={"pixel_size_nm": 40.0, "channels": []}))
    folder = write(tmp_path / "unequal")
    np.save(folder / "targets.npy", np.zeros((3, 2, 64, 64), np.float16))
    with pytest.raises(ValueError, match="expected"):
        CachedPairs(folder)


@pytest.mark.parametrize("told", [{}, {"haze_in_truth": False}, {"haze_in_truth": True}])
def test_pairs_whose_truth_is_another_than_an_engine_draws_are_refused(
    told: dict[str, bool], tmp_path: Path
) -> None:
    folder, haze = write(tmp_path / "pairs", meta={**META, "domain": told}), any(told.values())
    assert len(named_pairs(folder, haze=haze)) == len(named_pairs(folder)) == 4
    with pytest.raises(ConfigError, match="give pairs like those that it was trained on"):
        named_pairs(folder, haze=not haze)
    own = write(tmp_path / "own")  # whose truth is as it is
    assert len(named_pairs(own, haze=True)) == len(named_pairs(own, haze=False)) == 4


def test_a_patch_larger_than_the_images_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="smaller patch"):
        CachedPairs(write(tmp_path / "pairs")).batch(np.random.default_rng(0), 1, 128)


def test_a_network_of_one_frame_is_given_the_middle_one(tmp_path: Path) -> None:
    folder = write(tmp_path / "pairs")
    three, one = CachedPairs(folder), CachedPairs(folder, window=1)
    for all_frames, middle in (
        (
            three.batch(np.random.default_rng(1), 3, 16)[0],
            one.batch(np.random.default_rng(1), 3, 16)[0],
        ),
        (three.validation(2)[0], one.validation(2)[0]),
    ):
        np.testing.assert_array_equal(middle, all_frames[:, all_frames.shape[1] // 2][:, None])
    with pytest.raises(ValueError, match="middle ones"):
        CachedPairs(folder, window=2)
