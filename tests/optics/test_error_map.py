"""The error map finds the blur, the scale and what is wrong, as NanoPyx does."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import gaussian_filter

from livesr.optics import error_map as module
from livesr.optics.error_map import error_map

_NANOPYX = os.environ.get("LIVESR_NANOPYX_PYTHON") or (
    sys.executable if find_spec("nanopyx") else ""
)


def sparse(size: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    points = np.zeros((size, size), np.float32)
    points[tuple(rng.integers(0, size, (2, size)))] = rng.uniform(200, 2000, size)
    return gaussian_filter(points, 1.2)


def binned(image: np.ndarray, factor: int) -> np.ndarray:
    y, x = (n // factor for n in image.shape)
    return image.reshape(y, factor, x, factor).mean((1, 3))


@given(
    sigma=st.floats(1.2, 3.0),
    scale=st.floats(0.1, 50),
    offset=st.floats(-100, 1000),
    factor=st.sampled_from([1, 2, 4]),
)
@settings(max_examples=15, deadline=None)
def test_what_was_blurred_is_found_again(
    sigma: float, scale: float, offset: float, factor: int
) -> None:
    picture = sparse(96)
    blurred = gaussian_filter(picture.astype(float), sigma * factor, truncate=8)
    widefield = binned(scale * blurred + offset, factor)
    found = error_map(widefield, picture)
    assert found is not None
    # a camera pixel is as wide as 1 / sqrt(12) of a Gaussian
    width = np.hypot(sigma * factor, np.sqrt((factor**2 - 1) / 12))
    assert found.sigma_px == pytest.approx(width, rel=0.03)
    assert found.scale == pytest.approx(scale, rel=0.03)
    assert found.rsp > 0.999
    assert found.rse < 0.02 * widefield.std()


def test_an_artefact_is_where_it_is() -> None:
    picture = sparse(128)
    widefield = gaussian_filter(picture, 2.5)
    wrong = picture.copy()
    wrong[60:70, 60:70] += 100
    clean, found = error_map(widefield, picture), error_map(widefield, wrong)
    assert clean
    assert found
    assert found.rsp < clean.rsp - 0.02
    assert found.rse > 5 * clean.rse
    assert np.hypot(*(np.argwhere(found.plane == found.plane.max())[0] - 65)) < 6


def test_numbers_are_those_of_the_map() -> None:
    picture, rng = sparse(96), np.random.default_rng(1)
    widefield = rng.poisson(gaussian_filter(picture, 2.0) + 50)
    found = error_map(widefield.astype(float), picture)
    assert found is not None
    assert found.rse == pytest.approx(float(np.sqrt(np.mean(found.plane**2))), rel=1e-3)
    fitted = gaussian_filter(picture, found.sigma_px, truncate=8)
    assert found.rsp == pytest.approx(
        np.corrcoef(fitted.ravel(), widefield.ravel())[0, 1], abs=1e-4
    )


def test_where_the_camera_is_centred_the_picture_is_not_half_a_pixel_off() -> None:
    fine = gaussian_filter(sparse(128), 3.0)
    at_centres = fine[::2, ::2]
    as_it_is, shifted = error_map(at_centres, fine, centred=True), error_map(at_centres, fine)
    assert as_it_is
    assert shifted
    assert as_it_is.rsp > 0.9999 > shifted.rsp


@pytest.mark.parametrize("blank", [0, 1])
@pytest.mark.parametrize("side", [40, 64])
@pytest.mark.parametrize("finer", [1, 2])
@pytest.mark.parametrize("level", [7.0, 1000.3])
def test_without_contrast_there_is_nothing_to_compare(
    blank: int, side: int, finer: int, level: float
) -> None:
    pair = [sparse(side), sparse(finer * side)]
    pair[blank] = np.full_like(pair[blank], level)
    assert error_map(*pair) is None


_REFERENCE = """
import sys, numpy as np
from nanopyx.core.transform.error_map import ErrorMap
given, found = np.load(sys.argv[1]), {}
for name in given["names"]:
    e = ErrorMap()
    e.optimise(given["w" + name], given["s" + name])
    found["m" + name] = np.asarray(e.imRSE)
    found["n" + name] = np.array([e.getRSP(), e.getRSE(), e.get_sigma()])
np.savez(sys.argv[2], **found)
"""


@pytest.mark.slow
@pytest.mark.skipif(not _NANOPYX, reason="nanopyx is not there; see docs/reliability.md")
def test_it_is_what_nanopyx_computes(tmp_path: Path) -> None:
    """On the picture's pixels: the enlarged widefield picture is given, because NanoPyx 2.1.5 lays
    its own half a pixel off.
    """
    rng, cases = np.random.default_rng(2), {}
    for name, factor, noise in (("a", 1, 30.0), ("b", 2, 10.0), ("c", 4, 3.0)):
        picture = sparse(192, seed=factor)
        light = binned(gaussian_filter(picture, 2.0 * factor), factor)
        widefield = rng.poisson(noise * light + 100).astype(np.float32)
        picture += rng.normal(0, 0.5, picture.shape)
        picture[80:100, 40:60] *= 0.2
        cases["raw" + name] = widefield
        cases["w" + name] = module._enlarged(widefield, picture.shape, centred=False)
        cases["s" + name] = picture.astype(np.float32)
    given_, found = tmp_path / "given.npz", tmp_path / "found.npz"
    np.savez(given_, names=["a", "b", "c"], **cases)
    subprocess.run(
        [_NANOPYX, "-W", "ignore", "-c", _REFERENCE, str(given_), str(found)],
        check=True,
        capture_output=True,
        timeout=250,
    )
    reference = np.load(found)
    for name in "abc":
        ours = error_map(cases["raw" + name], cases["s" + name])
        assert ours is not None
        rsp, rse, sigma = reference["n" + name]
        assert ours.rsp == pytest.approx(rsp, abs=5e-5)
        assert ours.rse == pytest.approx(rse, rel=5e-5)
        assert ours.sigma_px == pytest.approx(sigma, abs=5e-3)
        difference = np.abs(ours.plane - reference["m" + name])
        assert difference.max() < 0.01 * rse
