"""Crops composed anew while training.

What is to be found is what was added, however the frame was treated.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from livesr.live.normalise import BRIGHT_LEVEL
from livesr.training.recombine import RecombinedPairs, degraded, grain, noise_like, sharpened
from livesr.training.sources import CachedPairs
from livesr.training.textures import texture

META = {"seed": 1, "pixel_size_nm": 40.0, "channels": ["a", "b"]}


def spotted(folder: Path, scale: int = 1) -> Path:
    """Two structures, spots in every image, and an even haze of 0.1 in the frames."""
    rng = np.random.default_rng(0)
    spots = (rng.random((6, 2, 64 * scale, 64 * scale)) > 0.98).astype(np.float32)
    targets = (2 * gaussian_filter(spots, (0, 0, 1, 1))).astype(np.float16)
    frames = np.repeat(targets[..., ::scale, ::scale].sum(1, keepdims=True) + np.float16(0.1), 3, 1)
    frames[:, 0] += 0.5  # neighbours differ, so that a still window can be told
    folder.mkdir()
    np.save(folder / "frames.npy", frames)
    np.save(folder / "targets.npy", targets)
    (folder / "meta.json").write_text(json.dumps(META))
    return folder


def composites(
    folder: Path, n: int = 48, brightness_ratio: float = 4.0, absent: float = 0.0
) -> list[tuple[NDArray[np.float32], NDArray[np.float32]]]:
    pairs = RecombinedPairs(CachedPairs(spotted(folder)), 1.0, brightness_ratio, absent, noisy=0)
    frames, targets = pairs.batch(np.random.default_rng(2), n, 32)
    assert frames.dtype == targets.dtype == np.float32
    return list(zip(frames, targets, strict=True))


def test_structures_of_different_cells_make_still_frames_of_what_is_to_be_found(
    tmp_path: Path,
) -> None:
    found = [(frames, parts) for frames, parts in composites(tmp_path / "pairs") if parts.any()]
    assert len(found) > 36
    for window, parts in found:
        np.testing.assert_array_equal(window[0], window[1])
        # Haze, 8 bits and a black level are the frame's alone.
        assert np.corrcoef(window[1].ravel(), parts.sum(0).ravel())[0, 1] > 0.9
        bright = np.percentile(parts[:, ::2, ::2], 99.8, axis=(1, 2))
        assert 0.9 / 4 < bright[0] / bright[1] < 4 * 1.1
        assert parts.min() >= 0
        assert 0.3 * BRIGHT_LEVEL < window.max() < 4 * BRIGHT_LEVEL


def test_haze_is_the_structures_own_where_it_is_theirs_in_the_pairs(tmp_path: Path) -> None:
    folder = spotted(tmp_path / "pairs")
    targets = np.load(folder / "targets.npy")
    np.save(folder / "targets.npy", targets + np.float16(0.3))  # everywhere: background
    pairs = RecombinedPairs(CachedPairs(folder), 1.0, haze=True)
    frames, parts = pairs.batch(np.random.default_rng(2), 48, 32)
    # What is everywhere in an image of one structure is in no target.
    assert np.percentile(parts, 1, axis=(2, 3)).max() < 0.05 * parts.max()
    explained = [
        np.corrcoef(window[1].ravel(), part.sum(0).ravel())[0, 1]
        for window, part in zip(frames, parts, strict=True)
        if part.any()
    ]
    assert np.median(explained) > 0.98


@pytest.mark.parametrize("haze", [False, True])
def test_haze_of_a_composite_is_to_be_found_where_it_is_its_structures(
    haze: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for share, value in (("_HAZY", 1.0), ("_GLOWING", 0.0), ("_CUT", 0.0)):
        monkeypatch.setattr(f"livesr.training.recombine.{share}", value)
    pairs = RecombinedPairs(CachedPairs(spotted(tmp_path / "pairs")), 1.0, plain=0, haze=haze)
    parts = pairs.batch(np.random.default_rng(2), 48, 32)[1]
    dark = [np.percentile(one, 2) / one.max() for one in parts.sum(1) if one.any()]
    assert (np.median(dark) > 0.02) == haze  # between the spots


def test_any_structure_may_be_missing_and_all_of_them(tmp_path: Path) -> None:
    shown = [
        tuple(bool(part.any()) for part in parts)
        for _, parts in composites(tmp_path / "pairs", 80, absent=0.5)
    ]
    assert set(shown) == {(True, True), (True, False), (False, True), (False, False)}


def test_some_of_them_are_noise_in_which_nothing_is_to_be_found(tmp_path: Path) -> None:
    folder = spotted(tmp_path / "pairs")
    frames = np.load(folder / "frames.npy")
    np.save(
        folder / "frames.npy",
        frames + np.random.default_rng(1).normal(0, 0.1, frames.shape).astype(np.float16),
    )
    frames, targets = RecombinedPairs(CachedPairs(folder), 1.0).batch(
        np.random.default_rng(2), 60, 32
    )
    blank = frames[~targets.any((1, 2, 3))]
    assert 0 < len(blank) < 20
    for window in blank:
        assert 0.7 * BRIGHT_LEVEL < window[1].max() < 3 * BRIGHT_LEVEL, (
            "stretched as a live frame would be"
        )
        assert abs(np.corrcoef(window[0].ravel(), window[1].ravel())[0, 1]) < 0.3, (
            "each frame has noise of its own"
        )


def test_the_share_of_composites_is_kept_and_the_rest_is_as_drawn(tmp_path: Path) -> None:
    pairs = CachedPairs(spotted(tmp_path / "pairs"))
    some = RecombinedPairs(pairs, 0.5).batch(np.random.default_rng(3), 64, 16)[0]
    drawn = pairs.batch(np.random.default_rng(3), 64, 16)[0]
    assert 16 < sum(np.array_equal(a, b) for a, b in zip(some, drawn, strict=True)) < 48
    np.testing.assert_array_equal(
        RecombinedPairs(pairs, 0.0).batch(np.random.default_rng(3), 64, 16)[0], drawn
    )


def test_upscaling_cannot_be_composed_anew(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="2 times finer"):
        RecombinedPairs(CachedPairs(spotted(tmp_path / "pairs", scale=2)), 0.5)


def test_structures_are_shown_sharper_softer_and_of_other_sizes(tmp_path: Path) -> None:
    pairs = CachedPairs(spotted(tmp_path / "pairs"))
    recombined, rng = RecombinedPairs(pairs, 1.0), np.random.default_rng(0)
    shown = [recombined.structure(rng, 48, 0) for _ in range(60)]
    assert all(image.shape == (48, 48) and image.min() >= 0 for image in shown)
    plain = pairs.batch(np.random.default_rng(1), 60, 48, [0] * 60)[1][:, 0]

    def spread(images: NDArray[np.float32]) -> float:
        power = np.abs(np.fft.fft2(images - images.mean((1, 2), keepdims=True))) ** 2
        fine = np.hypot(*np.meshgrid(np.fft.fftfreq(48), np.fft.fftfreq(48))) > 0.1
        return float(np.std(np.log(power[:, fine].sum(1) / power.sum((1, 2)))))

    assert spread(np.array(shown)) > 1.5 * spread(plain)


def test_a_frame_is_degraded_and_its_noise_may_be_gone() -> None:
    rng = np.random.default_rng(0)
    image = 300 * gaussian_filter((rng.random((64, 64)) > 0.97).astype(np.float32), 1.5) * 10
    noise = rng.normal(0, 10, image.shape).astype(np.float32)
    frames = [degraded(np.random.default_rng(i), image, noise) for i in range(60)]
    like = [np.corrcoef(frame.ravel(), image.ravel())[0, 1] for frame in frames]
    assert min(like) > 0.9
    assert sum(np.array_equal(frame, image) for frame in frames) >= 3, "some are as they were"
    assert sum(len(np.unique(frame)) <= 256 for frame in frames) >= 3, "some have 8 bits"


def test_some_composites_are_as_noisy_as_images_of_little_light(tmp_path: Path) -> None:
    cached = CachedPairs(spotted(tmp_path / "pairs"))

    def rough(noisy: float) -> NDArray[np.float64]:
        """Return, of each composite, the part of its differences that its structures have not."""
        pairs = RecombinedPairs(cached, 1.0, noisy=noisy)
        frames, targets = pairs.batch(np.random.default_rng(2), 48, 32)
        besides = frames[:, 1] - targets.sum(1)
        return besides.std((1, 2)) / frames[:, 1].std((1, 2))

    assert np.median(rough(0)) < 0.3 < 0.5 < np.median(rough(1))
    assert 0.1 < np.mean(rough(0.25) > 0.5) - np.mean(rough(0) > 0.5) < 0.5


def test_grain_is_finer_than_the_noise_it_is_made_of() -> None:
    rng = np.random.default_rng(4)
    frames = gaussian_filter(rng.standard_normal((3, 96, 96)).astype(np.float32), (0, 1.5, 1.5))
    nothing = np.zeros((2, 96, 96), np.float32)
    noise = noise_like(rng, frames, nothing)
    assert noise.shape == frames.shape
    inner = np.s_[:, 1:-1]  # the outer columns of a real image's spectrum are their own mirror
    spectra = [np.abs(np.fft.rfft2(image))[inner] for image in (noise[0], frames[1])]
    np.testing.assert_allclose(*spectra, rtol=1e-3, atol=1e-2)
    assert abs(np.corrcoef(noise[0].ravel(), noise[1].ravel())[0, 1]) < 0.2, "each its own"

    def fine(image: NDArray[np.float32]) -> float:
        return float(np.diff(image).std() / image.std())

    levels, alike = [], 0
    for _ in range(40):
        made = grain(rng, noise)
        assert made.shape == noise.shape
        assert fine(made[0]) > 1.2 * fine(noise[0])
        levels.append(made[0].std() / 300)
        alike += np.array_equal(made[0], made[1])
    assert 10 < alike < 30, "of one image shown as three, or each its own"
    assert 0.14 < min(levels) < 0.25 < 0.7 < max(levels) < 1.1


def test_grain_of_an_image_without_noise_is_white() -> None:
    made = grain(np.random.default_rng(0), np.zeros((3, 32, 32), np.float32))
    assert np.isfinite(made).all()
    assert made.std() > 0


def test_sharpening_takes_nothing_below_zero() -> None:
    image = gaussian_filter(np.eye(32, dtype=np.float32), 1.0)
    sharp = sharpened(image, 2.0)
    assert sharp.min() == 0
    assert sharp.max() > 1.3 * image.max()


def with_unknown(folder: Path, n: int = 64) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    pairs = RecombinedPairs(CachedPairs(spotted(folder)), 1.0, unknown=0.5, noisy=0)
    frames, targets = pairs.batch(np.random.default_rng(2), n, 32)
    assert targets.shape == (n, 3, 32, 32)
    return frames, targets


def test_some_composites_hold_what_no_structure_is_and_it_is_a_target_of_its_own(
    tmp_path: Path,
) -> None:
    frames, targets = with_unknown(tmp_path / "pairs")
    there = targets[:, 2].any((1, 2))
    assert 0.25 < there.mean() < 0.65
    known = targets[there][:, :2].any((2, 3)).sum(1)
    assert set(known) == {0, 1, 2}  # alone, in the place of one, beside both
    for window, parts in zip(frames[there], targets[there], strict=True):
        assert np.corrcoef(window[1].ravel(), parts.sum(0).ravel())[0, 1] > 0.8
        assert parts.min() >= 0


def test_validation_pairs_are_composed_in_turn_and_always_alike(tmp_path: Path) -> None:
    cached = CachedPairs(spotted(tmp_path / "pairs"))
    pairs = RecombinedPairs(cached, 1.0, unknown=1.0)
    frames, targets = pairs.validation(6)
    np.testing.assert_array_equal(frames[::2], cached.validation(6)[0][::2])
    assert not targets[::2, 2].any()
    assert targets[1::2, 2].any((1, 2)).all()
    np.testing.assert_array_equal(targets, pairs.validation(6)[1])


def test_textures_are_all_different_and_cover_little_or_much() -> None:
    rng = np.random.default_rng(3)
    drawn = [texture(rng, 64) for _ in range(40)]
    assert all(one.shape == (64, 64) and one.dtype == np.float32 for one in drawn)
    assert min(one.min() for one in drawn) >= 0
    shown = [one / one.max() for one in drawn if one.max() > 0]
    assert len(shown) > 36
    means = [float(one.mean()) for one in shown]
    assert min(means) < 0.05
    assert max(means) > 0.2
