"""Metrics against scikit-image and against what can be worked out by hand."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from livesr.evaluation.metrics import (
    bootstrap_interval,
    false_positive_energy,
    flicker,
    linear_fit,
    mean_gradient,
    ms_ssim,
    nrmse,
    pcc,
    percentile_normalised,
    score,
    ssim,
)
from livesr.evaluation.resolution import (
    decorrelation_resolution,
    fourier_ring_correlation,
    frc_resolution,
)


@pytest.fixture
def truth() -> NDArray[np.float32]:
    return gaussian_filter(np.random.default_rng(1).standard_normal((96, 80)), 2).astype(np.float32)


@pytest.fixture
def noise() -> NDArray[np.float32]:
    return np.random.default_rng(2).standard_normal((96, 80)).astype(np.float32)


@pytest.mark.parametrize("data_range", [1.0, 255.0])
@pytest.mark.parametrize("strength", [0.0, 0.1, 3.0])
def test_ssim_is_scikit_images(
    truth: NDArray[np.float32], noise: NDArray[np.float32], strength: float, data_range: float
) -> None:
    a = truth.astype(np.float64) * data_range
    b = a + strength * data_range * noise
    expected = structural_similarity(
        a, b, data_range=data_range, gaussian_weights=True, sigma=1.5, use_sample_covariance=False
    )
    assert ssim(a, b, data_range) == pytest.approx(expected, abs=1e-12)


def test_ssim_of_constants_is_its_luminance_term() -> None:
    a, b = np.full((32, 32), 0.2), np.full((32, 32), 0.6)
    expected = (2 * 0.2 * 0.6 + 1e-4) / (0.2**2 + 0.6**2 + 1e-4)
    assert ssim(a, b, 1.0) == pytest.approx(expected, rel=1e-9)


def test_ssim_needs_room_for_its_window() -> None:
    with pytest.raises(ValueError, match="at least 11"):
        ssim(np.zeros((10, 40)), np.zeros((10, 40)), 1.0)


def test_pcc_is_numpys(truth: NDArray[np.float32], noise: NDArray[np.float32]) -> None:
    other = truth + 0.2 * noise
    assert pcc(truth, other) == pytest.approx(
        np.corrcoef(truth.ravel(), other.ravel())[0, 1], abs=1e-6
    )
    assert pcc(truth, -truth) == pytest.approx(-1)


def test_the_fit_is_least_squares(truth: NDArray[np.float32], noise: NDArray[np.float32]) -> None:
    prediction = 3 * truth + noise - 7
    design = np.stack([prediction.ravel(), np.ones(prediction.size)], axis=1).astype(np.float64)
    a, b = np.linalg.lstsq(design, truth.ravel().astype(np.float64))[0]
    np.testing.assert_allclose(linear_fit(prediction, truth), a * prediction + b, atol=1e-6)


def test_after_the_fit_nrmse_and_pcc_say_the_same(
    truth: NDArray[np.float32], noise: NDArray[np.float32]
) -> None:
    # Closed form: the residual of a linear fit is sqrt(1 - r^2) standard deviations.
    prediction = truth + 0.3 * noise
    reference = percentile_normalised(truth)
    assert reference is not None
    expected = reference.std() * math.sqrt(1 - pcc(prediction, truth) ** 2)
    assert nrmse(linear_fit(prediction, reference), reference) == pytest.approx(expected, rel=1e-9)
    assert score(prediction, truth).nrmse == pytest.approx(expected, rel=1e-9)


def test_percentiles_land_on_0_and_1(truth: NDArray[np.float32]) -> None:
    normalised = percentile_normalised(truth)
    assert normalised is not None
    np.testing.assert_allclose(np.percentile(normalised, (0.1, 99.9)), (0, 1), atol=1e-6)
    assert normalised.min() < 0, "nothing is clipped"


def test_a_perfect_prediction_scores_perfectly_in_any_unit(truth: NDArray[np.float32]) -> None:
    s = score(1000 * truth + 100, truth)
    assert s.pcc == pytest.approx(1)
    assert s.ssim == pytest.approx(1, abs=1e-9)
    assert s.nrmse == pytest.approx(0, abs=1e-6)


def test_a_prediction_upside_down_does_not_pass(truth: NDArray[np.float32]) -> None:
    # The linear transform may turn it over, PCC keeps the sign.
    assert score(-truth, truth).pcc == pytest.approx(-1)


def test_a_collapsed_network_scores_zero_and_does_not_drop_out(truth: NDArray[np.float32]) -> None:
    s = score(np.zeros_like(truth), truth)
    assert s.pcc == 0
    assert math.isfinite(s.ssim)
    assert s.nrmse > 0


@pytest.mark.parametrize("level", [0.1, 1 / 3, 7.7, 1000.3])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_an_even_image_is_even_whatever_its_mean_rounds_to(
    truth: NDArray[np.float32], level: float, dtype: type[np.floating[Any]]
) -> None:
    even = np.full(truth.shape, level, dtype)
    np.testing.assert_allclose(linear_fit(even, truth), truth.mean(dtype=np.float64), rtol=1e-9)
    reference = percentile_normalised(truth)
    assert reference is not None
    assert score(even, truth).nrmse == pytest.approx(reference.std(), rel=1e-9)
    assert pcc(even, truth) == 0
    assert math.isnan(decorrelation_resolution(even, 30.0))
    assert math.isnan(frc_resolution(even, even, 30.0))


def test_a_structure_that_is_absent_has_no_score(noise: NDArray[np.float32]) -> None:
    assert all(math.isnan(v) for v in score(noise, np.zeros_like(noise)))


def test_a_few_bright_pixels_are_a_truth_too(noise: NDArray[np.float32]) -> None:
    sparse = np.zeros_like(noise)
    sparse[40, 40] = 5.0
    s = score(sparse, sparse)
    assert s.pcc == pytest.approx(1)
    assert s.nrmse == pytest.approx(0)


def test_bad_images_are_refused(truth: NDArray[np.float32]) -> None:
    with pytest.raises(ValueError, match="one shape"):
        score(truth[:-1], truth)
    bad = truth.copy()
    bad[0, 0] = np.nan
    with pytest.raises(ValueError, match="prediction has pixels that are not finite"):
        score(bad, truth)


def test_the_interval_of_many_values_is_the_normal_one() -> None:
    values = np.random.default_rng(3).normal(0.9, 0.05, 400)
    interval = bootstrap_interval(list(values))
    half = 1.96 * values.std() / math.sqrt(400)
    assert interval.mean == pytest.approx(values.mean())
    assert interval.low == pytest.approx(values.mean() - half, abs=5e-4)
    assert interval.high == pytest.approx(values.mean() + half, abs=5e-4)


@pytest.mark.parametrize(("n", "share"), [(30, 0.94), (10, 0.90), (4, 0.80), (2, 0.5)])
def test_the_interval_covers_the_true_mean_as_often_as_it_says(n: int, share: float) -> None:
    rng = np.random.default_rng(4)
    hits = 0
    for i in range(400):
        interval = bootstrap_interval(list(rng.normal(0.5, 0.1, n)), seed=i)
        hits += interval.low <= 0.5 <= interval.high
    assert hits / 400 == pytest.approx(share, abs=0.05)


def test_the_interval_is_repeatable_and_leaves_out_what_was_not_there() -> None:
    values = [0.8, 0.9, math.nan, 0.85]
    assert bootstrap_interval(values, seed=5) == bootstrap_interval(values, seed=5)
    assert bootstrap_interval(values).n == 3
    assert bootstrap_interval(values).mean == pytest.approx(0.85)


def test_one_value_has_no_interval() -> None:
    interval = bootstrap_interval([0.7])
    assert interval.to_json() == {"mean": 0.7, "low": None, "high": None, "n": 1}
    assert not interval.above(interval)
    assert bootstrap_interval([]).to_json() == {"mean": None, "low": None, "high": None, "n": 0}


def test_a_wider_level_gives_a_wider_interval() -> None:
    values = list(np.random.default_rng(6).normal(size=25))
    narrow, wide = bootstrap_interval(values, level=0.5), bootstrap_interval(values, level=0.99)
    assert wide.low < narrow.low < narrow.high < wide.high
    with pytest.raises(ValueError, match="level"):
        bootstrap_interval(values, level=95)


# -- more than the papers' three -------------------------------------------------------------------


@pytest.fixture
def large() -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    rng = np.random.default_rng(4)
    a = gaussian_filter(rng.random((192, 200)), 2)
    a = (a - a.min()) / np.ptp(a)
    return a, a + 0.05 * rng.standard_normal(a.shape)


def test_ms_ssim_is_torchmetrics(large: tuple[NDArray[np.float64], NDArray[np.float64]]) -> None:
    torch = pytest.importorskip("torch")
    functional = pytest.importorskip("torchmetrics.functional.image")
    a, b = large
    tensors = [torch.from_numpy(image)[None, None] for image in (a, b)]
    expected = functional.multiscale_structural_similarity_index_measure(*tensors, data_range=1.0)
    assert ms_ssim(a, b) == pytest.approx(float(expected), abs=1e-4)
    assert ms_ssim(a, a) == pytest.approx(1)
    with pytest.raises(ValueError, match="161"):
        ms_ssim(a[:160], b[:160])


def test_ssim_with_the_papers_constants_is_the_formula(
    truth: NDArray[np.float32], noise: NDArray[np.float32]
) -> None:
    a = truth.astype(np.float64)
    b = a + 0.3 * noise
    # scikit-image squares K times the range: with a range of 1, K is the root of the literal
    # constant.
    expected = structural_similarity(
        a,
        b,
        data_range=1.0,
        gaussian_weights=True,
        sigma=1.5,
        use_sample_covariance=False,
        K1=0.1,
        K2=math.sqrt(0.03),
    )
    assert ssim(a, b, constants=(0.01, 0.03)) == pytest.approx(expected, abs=1e-12)
    assert score(b, a).ssim_paper > score(b, a).ssim


def test_a_score_holds_all_that_is_printed(
    large: tuple[NDArray[np.float64], NDArray[np.float64]],
) -> None:
    a, b = large
    s = score(7 * b + 3, a)
    assert all(math.isfinite(value) for value in s)
    reference = percentile_normalised(a)
    assert reference is not None
    expected = peak_signal_noise_ratio(reference, linear_fit(b, reference), data_range=1.0)
    assert s.psnr == pytest.approx(expected, abs=1e-9)


def test_mean_gradient_of_a_ramp_and_of_a_step() -> None:
    ramp = np.add.outer(3.0 * np.arange(10), 4.0 * np.arange(12))
    assert mean_gradient(ramp) == pytest.approx(math.sqrt((9 + 16) / 2))
    assert mean_gradient(np.ones((5, 5))) == 0
    step = np.zeros((5, 5))
    step[:, 3:] = 1
    assert mean_gradient(step) == pytest.approx(math.sqrt(1 / 2) / 4)


def test_false_positives_are_light_where_none_belongs() -> None:
    truth = np.zeros((4, 4))
    truth[0] = 10
    prediction = np.full((4, 4), 2.0)
    prediction[3, 3] = -5
    assert false_positive_energy(prediction, truth) == pytest.approx(11 * 2.0)
    assert false_positive_energy(prediction, 0 * truth) == pytest.approx(15 * 2.0)


def test_flicker_is_the_relative_noise_along_time() -> None:
    rng = np.random.default_rng(0)
    frames = 50 + 5 * rng.standard_normal((40, 16, 16))
    where = np.zeros((16, 16), bool)
    where[4:12] = True
    assert flicker(frames, where) == pytest.approx(0.1, rel=0.05)
    assert flicker(np.full((4, 16, 16), 3.0), where) == 0
    assert math.isnan(flicker(frames, np.zeros((16, 16), bool)))


# -- resolution ------------------------------------------------------------------------------------


def band_limited(cutoff: float, side: int = 256, seed: int = 0) -> NDArray[np.float64]:
    """Random filaments, white up to `cutoff` cycles/pixel and nothing beyond."""
    points = (np.random.default_rng(seed).random((side, side)) < 0.01).astype(float)
    radius = np.hypot(np.fft.fftfreq(side)[:, None], np.fft.fftfreq(side))
    return np.fft.ifft2(np.fft.fft2(points) * (radius < cutoff)).real


@pytest.mark.parametrize("cutoff", [0.1, 0.2, 0.3])
def test_frc_finds_the_cutoff(cutoff: float) -> None:
    rng, image = np.random.default_rng(1), band_limited(cutoff)
    a, b = (image + 2 * image.std() * rng.standard_normal(image.shape) for _ in range(2))
    assert frc_resolution(a, b, 30.0) == pytest.approx(30 / cutoff, rel=0.1)


def test_frc_of_equal_images_reaches_two_pixels_and_of_noise_nothing() -> None:
    rng, image = np.random.default_rng(1), band_limited(0.5)
    assert frc_resolution(image, image, 30.0) == 60
    noise = rng.standard_normal((2, 128, 128))
    assert math.isnan(frc_resolution(*noise, 30.0))
    with pytest.raises(ValueError, match="one shape"):
        frc_resolution(image, image[:-1], 30.0)


def test_the_rings_are_those_of_a_plain_sum() -> None:
    rng = np.random.default_rng(2)
    a, b = rng.standard_normal((2, 32, 32))
    b = a + 0.5 * b
    frequency, correlation = fourier_ring_correlation(a, b)
    edge = 0.5 - 0.5 * np.cos(np.pi * (np.arange(4) + 0.5) / 4)
    fading = np.r_[edge, np.ones(24), edge[::-1]]
    first, second = (
        np.fft.fft2((image - image.mean()) * np.outer(fading, fading)) for image in (a, b)
    )
    for k in (3, 9, 15):
        total = np.zeros(3, complex)
        for y in range(32):
            for x in range(32):
                fy, fx = ((n - 32 if n > 16 else n) for n in (y, x))
                if round(math.hypot(fy, fx)) == k:
                    p, q = first[y, x], second[y, x]
                    total += [p * q.conjugate(), abs(p) ** 2, abs(q) ** 2]
        assert correlation[k] == pytest.approx(
            total[0].real / math.sqrt(total[1].real * total[2].real), abs=1e-9
        )
    assert frequency[8] == pytest.approx(0.25)


@pytest.mark.parametrize("shape", [(186, 186), (187, 200), (250, 198), (32, 33)])
def test_the_last_ring_is_nyquists(shape: tuple[int, int]) -> None:
    image = np.random.default_rng(3).standard_normal(shape)
    frequency, correlation = fourier_ring_correlation(image, image)
    side = min(shape)
    np.testing.assert_allclose(frequency, np.arange(side // 2 + 1) / side)
    assert len(correlation) == len(frequency)
    np.testing.assert_allclose(correlation[1:], 1)


@pytest.mark.parametrize("cutoff", [0.12, 0.2, 0.3])
def test_decorrelation_finds_the_cutoff(cutoff: float) -> None:
    image = band_limited(cutoff)
    noisy = image + 0.1 * image.std() * np.random.default_rng(1).standard_normal(image.shape)
    assert decorrelation_resolution(noisy, 30.0) == pytest.approx(30 / cutoff, rel=0.15)
