"""The periodic component of a picture: what it is by its definition, and what it is for."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from livesr.optics.periodic import periodic_spectrum


def smooth_component(picture: NDArray[np.float64]) -> NDArray[np.complex128]:
    return picture - np.fft.ifft2(periodic_spectrum(picture))


@pytest.mark.parametrize("imaginary", [0, 1j], ids=["real", "complex"])
def test_what_is_left_out_is_as_smooth_as_its_jumps_allow(imaginary: complex) -> None:
    rng = np.random.default_rng(0)
    picture = rng.normal(size=(12, 17)).cumsum(0).cumsum(1) + imaginary * rng.normal(size=(12, 17))
    left_out = smooth_component(picture)
    laplacian = sum(np.roll(left_out, s, a) for a in (0, 1) for s in (1, -1)) - 4 * left_out
    jumps = np.zeros_like(laplacian)
    jumps[0] += picture[-1] - picture[0]
    jumps[-1] -= picture[-1] - picture[0]
    jumps[:, 0] += picture[:, -1] - picture[:, 0]
    jumps[:, -1] -= picture[:, -1] - picture[:, 0]
    np.testing.assert_allclose(laplacian, jumps, atol=1e-4 * np.abs(jumps).max())
    assert abs(left_out.mean()) < 1e-5 * np.abs(picture).max()


def test_bright_light_without_detail_does_not_pass_for_detail() -> None:
    ramp = 1e4 + 50.0 * np.arange(64)[:, None] + 20.0 * np.arange(64)
    fine = np.hypot(*np.meshgrid(np.fft.fftfreq(64), np.fft.fftfreq(64))) > 0.1
    plain, periodic = (np.abs(s)[fine] for s in (np.fft.fft2(ramp), periodic_spectrum(ramp)))
    assert np.sqrt(np.mean(periodic**2)) < 0.1 * np.sqrt(np.mean(plain**2))


def test_pictures_are_taken_one_by_one() -> None:
    stack = np.random.default_rng(2).normal(size=(2, 3, 8, 9)).astype(np.float32)
    together = periodic_spectrum(stack)
    assert together.dtype == np.complex64
    np.testing.assert_allclose(together[1, 2], periodic_spectrum(stack[1, 2]), atol=1e-4)
