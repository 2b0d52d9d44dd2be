"""Drift by all localisations of a run at once."""

import numpy as np
import pytest

from livesr.base.frames import LOCALISATION, LOCALISATION_3D
from livesr.modalities.storm.aim import drift_of
from livesr.simulation.blinking import place_on
from livesr.simulation.specimens import Cell

FIELD_NM = (8000.0, 8000.0)
FRAMES, EACH = 1000, 30


@pytest.fixture(scope="module")
def fluorophores():
    density = Cell((400, 400), 0.02, 1, ("microtubules",)).render()["microtubules"]
    return 1e3 * place_on(density, 0.02, 5000, np.random.default_rng(0))


def localised(fluorophores, drift, kind=LOCALISATION, beads=0):
    """Every frame shows other emitters, known to 15 nm, beside beads that are known to 5."""
    rng = np.random.default_rng(1)
    found = np.zeros(len(drift) * (EACH + beads), kind)
    found["frame"] = np.repeat(np.arange(len(drift)), EACH + beads)
    which = rng.integers(0, len(fluorophores), (len(drift), EACH))
    places = np.column_stack([fluorophores, 200 * np.sin(fluorophores[:, 0] / 900)])[which]
    places += rng.normal(0, 15, places.shape)
    fixed = rng.uniform(1000, 7000, (beads, 3)) * [1, 1, 0]
    bright = fixed + rng.normal(0, 5, (len(drift), beads, 3))
    every = np.concatenate([places, bright], axis=1)
    every[:, :, : drift.shape[1]] += drift[:, None]
    names = [name for name in ("y_nm", "x_nm", "z_nm") if name in found.dtype.names]
    for name, values in zip(names, every.reshape(-1, 3).T, strict=False):
        found[name] = values
    return rng.permutation(found)


def slow(axes=2):
    t = np.arange(FRAMES)[:, None]
    return 60 * np.sin(t / np.array([300, 500, 400])[:axes])


def rms(found, true):
    error = found - true
    return np.sqrt(((error - error.mean(axis=0)) ** 2).mean(axis=0))


def test_slow_drift_is_known_in_every_frame(fluorophores):
    drift = drift_of(localised(fluorophores, slow()), FIELD_NM, FRAMES)
    assert drift.shape == (FRAMES, 2)
    assert not drift[0].any()
    assert rms(drift, slow()).max() < 3


@pytest.mark.parametrize("beads", [0, 5])
@pytest.mark.parametrize("jump", [(400, -250), (1500, 0)])
def test_a_jump_is_found_to_the_frame(fluorophores, jump, beads):
    true = slow()
    true[417:] += jump  # within a stretch
    drift = drift_of(localised(fluorophores, true, beads=beads), FIELD_NM, FRAMES)
    assert rms(drift, true).max() < 6
    assert np.abs(drift[410:417] - true[410:417] + true[0]).max() < 30
    np.testing.assert_allclose(drift[425] - drift[400], true[425] - true[400], atol=8)


def test_height_drifts_as_well(fluorophores):
    found = localised(fluorophores, slow(3), LOCALISATION_3D)
    drift = drift_of(found, FIELD_NM, FRAMES)
    assert drift.shape == (FRAMES, 3)
    assert rms(drift, slow(3)).max() < 5


def test_what_shows_no_drift_has_none(fluorophores):
    few = localised(fluorophores, np.zeros((3, 2)))
    assert not drift_of(few, FIELD_NM, 3).any()
    assert not drift_of(few[:0], FIELD_NM, 5).any()
    noise = np.zeros(4000, LOCALISATION)
    rng = np.random.default_rng(2)
    noise["frame"] = np.arange(4000) // 8
    noise["y_nm"], noise["x_nm"] = rng.uniform(0, FIELD_NM[0], (2, 4000))
    assert np.abs(drift_of(noise, FIELD_NM, 500)).max() < 60
