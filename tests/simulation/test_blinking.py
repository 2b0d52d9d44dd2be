"""Photoswitching follows its rates."""

import numpy as np
import pytest

from livesr.simulation.blinking import Photoswitching, blink, place_on

RNG = np.random.default_rng


def test_so_many_are_lit_at_a_time_from_the_first_frame_on():
    switching = Photoswitching.with_density(
        5000, 40.0, on_frames=2.0, photons=100.0, photons_spread=0.0
    )
    blinks = blink(5000, 400, switching, RNG(1))
    light = (
        np.bincount(blinks.frame, blinks.photons, minlength=400) / 100
    )  # one per fluorophore that is on all frame
    assert light.mean() == pytest.approx(40, rel=0.03)
    assert light[:20].mean() == pytest.approx(40, rel=0.2)
    assert light[-20:].mean() == pytest.approx(40, rel=0.2)


def test_blinks_last_as_long_as_they_should_and_share_their_light_among_frames():
    switching = Photoswitching(on_frames=3.0, off_frames=2000.0, photons=500.0, photons_spread=0.0)
    blinks = blink(2000, 500, switching, RNG(2))
    assert np.all(np.diff(blinks.frame) >= 0)
    assert blinks.photons.max() <= 500 * (1 + 1e-9)
    assert blinks.photons.min() >= 0
    here = blinks.of_frame(7)
    assert np.all(blinks.frame[here] == 7)
    assert np.count_nonzero(blinks.frame == 7) == here.stop - here.start
    starts = np.lexsort((blinks.frame, blinks.fluorophore))
    f, who, light = blinks.frame[starts], blinks.fluorophore[starts], blinks.photons[starts]
    new = np.r_[True, (np.diff(f) > 1) | (np.diff(who) > 0)]
    length = np.add.reduceat(light, np.flatnonzero(new)) / 500
    assert length.mean() == pytest.approx(3.0, rel=0.1)
    assert length.std() == pytest.approx(3.0, rel=0.2)  # exponential


def test_bleaching_empties_the_field():
    switching = Photoswitching.with_density(3000, 60.0, bleached_share=0.5)
    blinks = blink(3000, 600, switching, RNG(3))
    per_frame = np.bincount(blinks.frame, minlength=600)
    assert per_frame[-60:].sum() < 0.2 * per_frame[:60].sum()
    everyone = blink(3000, 600, Photoswitching.with_density(3000, 60.0), RNG(3))
    assert np.bincount(everyone.frame, minlength=600)[-60:].sum() > 0.8 * per_frame[:60].sum()


def test_fluorophores_sit_where_the_density_is():
    density = np.zeros((20, 30), np.float32)
    density[4, 7], density[15, 22] = 3.0, 1.0
    places = place_on(density, 0.05, 4000, RNG(4))
    pixel = np.rint(places / 0.05).astype(int)
    bright = np.all(pixel == (4, 7), axis=1)
    assert np.all(bright | np.all(pixel == (15, 22), axis=1))
    assert bright.mean() == pytest.approx(0.75, abs=0.03)
    offset = places[bright] / 0.05 - (4, 7)
    assert np.abs(offset).max() <= 0.5
    assert offset.std() == pytest.approx(1 / np.sqrt(12), rel=0.05)


def test_impossible_kinetics_are_refused():
    with pytest.raises(ValueError, match="give more fluorophores"):
        Photoswitching.with_density(10, 10.0)
    with pytest.raises(ValueError, match="on_frames is 0"):
        Photoswitching(on_frames=0)
    with pytest.raises(ValueError, match="bleached_share is 2"):
        Photoswitching(bleached_share=2)
