"""Simulated STORM images: made of localisations, in every form in which such images come."""

from __future__ import annotations

import numpy as np

from livesr.modalities.storm.simulation.images import localisation_image, shifted_histogram
from livesr.simulation.domain import Domain

DOMAIN = Domain(structures=("microtubules", "er"), pixel_size_um=0.04, absent=0.5)


def test_images_repeat_and_differ() -> None:
    one, again, other = (
        localisation_image(np.random.default_rng((3, i)), 64, DOMAIN) for i in (0, 0, 1)
    )
    np.testing.assert_array_equal(one, again)
    assert not np.array_equal(one, other)
    assert one.dtype == np.float32
    assert one.min() >= 0


def test_a_localisation_in_a_shifted_histogram_is_a_pyramid() -> None:
    found = np.zeros((9, 9), np.float32)
    found[4, 4] = 1
    slope = np.array([0, 0, 1, 2, 3, 2, 1, 0, 0]) / 9
    np.testing.assert_allclose(shifted_histogram(found, 3), np.outer(slope, slope), atol=1e-7)


def test_some_images_were_made_to_be_looked_at() -> None:
    levels = [
        len(np.unique(localisation_image(np.random.default_rng((5, i)), 64, DOMAIN)))
        for i in range(12)
    ]
    assert 1 <= sum(n <= 256 for n in levels) < 12
