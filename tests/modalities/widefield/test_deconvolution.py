"""Deconvolution of plain widefield: nearer to what is there, of the same light, off by default."""

import array_api_strict
import numpy as np
import pytest
from pydantic import ValidationError
from scipy.ndimage import gaussian_filter

from livesr.base.config import load_rig
from livesr.base.errors import FrameShapeError
from livesr.base.frames import RawStack, Stream
from livesr.base.geometry import Geometry
from livesr.live.arrays import HOST, Arrays
from livesr.modalities.widefield.config import WidefieldConfig
from livesr.modalities.widefield.deconvolved import Deconvolved
from livesr.modalities.widefield.modality import Widefield
from livesr.modalities.widefield.reconstructor import Passthrough
from livesr.optics.richardson_lucy import GaussianBlur, Reweighting, richardson_lucy

SHAPE, SIGMA_PX = (40, 36), 1.6


def scene() -> tuple[np.ndarray, np.ndarray]:
    """What is there, and noisy frames of it."""
    rng = np.random.default_rng(0)
    there = np.zeros(SHAPE)
    there[rng.integers(6, 34, 25), rng.integers(6, 30, 25)] = 20_000
    frames = rng.poisson(gaussian_filter(there, SIGMA_PX) + 100, (6, *SHAPE)).astype(np.uint16)
    return gaussian_filter(there, 0.6), frames


def test_it_is_nearer_to_what_is_there_and_keeps_its_light() -> None:
    there, frames = scene()
    sharp = Deconvolved(SHAPE, 100, SIGMA_PX, 20, 1)
    blurred = Passthrough(SHAPE, 100).reconstruct(frames[:1])
    found = sharp.reconstruct(frames[:1])
    assert (
        np.corrcoef(found.ravel(), there.ravel())[0, 1]
        > 0.1 + (np.corrcoef(blurred.ravel(), there.ravel())[0, 1])
    )
    assert found.min() >= 0
    assert found.sum() == pytest.approx(np.maximum(blurred, 0).sum(), rel=0.02)


def test_reweighting_shows_what_an_image_half_as_blurred_would_and_is_linear() -> None:
    y, x = np.mgrid[:40, :36]
    d2 = (y - 20) ** 2 + (x - 17) ** 2

    def spot(blur: float) -> np.ndarray:
        """A Gaussian structure of 2 pixels, seen through a blur."""
        wide2 = 2.0**2 + blur**2
        return (100 / wide2 * np.exp(-d2 / (2 * wide2))).astype(np.float32)

    without_noise = Reweighting(SHAPE, SIGMA_PX, 1e-3, HOST)
    found = without_noise.apply(spot(SIGMA_PX))
    np.testing.assert_allclose(found, spot(SIGMA_PX / 2), atol=0.01 * spot(SIGMA_PX / 2).max())
    np.testing.assert_allclose(without_noise.apply(3 * spot(SIGMA_PX)), 3 * found, atol=1e-3)


def test_reweighted_frames_are_nearer_to_what_is_there() -> None:
    there, frames = scene()
    blurred = Passthrough(SHAPE, 100).reconstruct(frames[:1])
    sharp = Deconvolved(SHAPE, 100, SIGMA_PX, 0, 1, reweighting=0.1).reconstruct(frames[:1])
    before, after = (np.corrcoef(v.ravel(), there.ravel())[0, 1] for v in (blurred, sharp))
    assert after > before + 0.05
    assert sharp.sum() == pytest.approx(blurred.sum(), rel=0.02)


def test_the_blur_is_a_gaussian_and_moves() -> None:
    picture = scene()[0].astype(np.float32)
    found = GaussianBlur(SHAPE, 1.3, HOST).apply(picture)
    expected = gaussian_filter(picture, 1.3, mode="nearest", truncate=6)
    np.testing.assert_allclose(found, expected, atol=0.002 * expected.max())
    moved = GaussianBlur(SHAPE, 1.3, HOST, move_px=2.0).apply(picture)
    np.testing.assert_allclose(moved[6:-6, 6:-6], expected[4:-8, 4:-8], atol=0.005 * expected.max())


def test_the_array_api_standard_is_enough() -> None:
    picture, strict = scene()[1][0].astype(np.float32), Arrays(array_api_strict)
    expected = richardson_lucy(picture, GaussianBlur(SHAPE, SIGMA_PX, HOST), 3, HOST)
    other = GaussianBlur(SHAPE, SIGMA_PX, strict)
    found = np.asarray(richardson_lucy(strict.array(picture), other, 3, strict))
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-2)


def test_the_mean_of_the_last_frames_is_deconvolved() -> None:
    _, frames = scene()
    this = Deconvolved(SHAPE, 100, SIGMA_PX, 5, 3)
    running = this.running()
    for t, frame in enumerate(frames):
        found = running.add(RawStack((frame,), Stream(), t, 0, 0))
    np.testing.assert_allclose(found, this.reconstruct(frames[3:]), rtol=1e-4, atol=1e-2)
    after = running.add(RawStack((None,), Stream(), 6, 0, 0))
    np.testing.assert_allclose(after, this.reconstruct(frames[4:]), rtol=1e-4, atol=1e-2)
    with pytest.raises(FrameShapeError, match="none of the frames"):
        running.add(RawStack((None,), Stream(), 20, 0, 0))


def test_it_is_off_unless_the_rig_says_so() -> None:
    rig = load_rig("demo")
    camera = Geometry(SHAPE, "uint16", 0.1)
    channel = next(iter(rig.channels))
    plain = rig.with_section(WidefieldConfig())
    assert isinstance(Widefield().build(plain, channel, camera), Passthrough)
    sharp = rig.with_section(WidefieldConfig(deconvolution=5, mean_of=4))
    made = Widefield().build(sharp, channel, camera)
    assert isinstance(made, Deconvolved)
    assert (made.rounds, made.mean_of, made.history) == (5, 4, 3)
    reweighted = Widefield().build(
        rig.with_section(WidefieldConfig(reweighting=0.1)), channel, camera
    )
    assert isinstance(reweighted, Deconvolved)
    assert reweighted.reweighting == 0.1
    with pytest.raises(ValidationError, match="set one of them"):
        WidefieldConfig(deconvolution=5, reweighting=0.1)
