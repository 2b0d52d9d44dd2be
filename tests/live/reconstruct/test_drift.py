"""Drift is found from localisations alone."""

import numpy as np
import pytest

from livesr.modalities.storm.drift import DriftTracker
from livesr.simulation.blinking import place_on
from livesr.simulation.specimens import Cell

FIELD_NM = 10_000.0


@pytest.fixture(scope="module")
def fluorophores():
    density = Cell((500, 500), 0.02, 1, ("microtubules",)).render()["microtubules"]
    return 1e3 * place_on(density, 0.02, 8000, np.random.default_rng(0))


def groups(fluorophores, drifts, each=1500, seed=1):
    """Every group shows other emitters, each known to 15 nm, and one in twenty is noise."""
    rng = np.random.default_rng(seed)
    for drift in drifts:
        places = (
            fluorophores[rng.integers(0, len(fluorophores), each)]
            + rng.normal(0, 15, (each, 2))
            + drift
        )
        noise = rng.uniform(0, FIELD_NM, (each // 20, 2))
        yield np.concatenate([places, noise]).astype(np.float32)


def followed(fluorophores, drifts, **how):
    tracker = DriftTracker((FIELD_NM, FIELD_NM))
    return np.array([tracker.update(g[:, 0], g[:, 1]) for g in groups(fluorophores, drifts, **how)])


@pytest.mark.parametrize("per_group", [(0.0, 0.0), (4.0, -2.0), (25.0, 10.0)])
def test_a_steady_drift_is_followed_to_a_few_nanometres(fluorophores, per_group):
    drifts = np.arange(20)[:, None] * np.array(per_group)
    error = followed(fluorophores, drifts) - drifts
    assert np.sqrt((error**2).mean()) < 5
    assert np.abs(error[-1]).max() < 12  # errors do not add up


def test_a_jump_is_followed_and_the_first_group_is_the_origin(fluorophores):
    drifts = np.array([[0, 0]] * 3 + [[120, -80]] * 3, float)
    found = followed(fluorophores, drifts)
    assert tuple(found[0]) == (0, 0)
    np.testing.assert_allclose(found, drifts, atol=10)


def test_too_little_to_see_keeps_the_last_drift(fluorophores):
    tracker = DriftTracker((FIELD_NM, FIELD_NM))
    many, few = (list(groups(fluorophores, [[0, 0], [40, 0]], each=each)) for each in (1500, 50))
    tracker.update(*many[0].T)
    last = tracker.update(*many[1].T)
    assert last[0] == pytest.approx(40, abs=12)
    assert tracker.update(*few[0].T) == last
    empty = np.empty(0, np.float32)
    assert tracker.update(empty, empty) == last


@pytest.mark.parametrize("seed", range(6))
def test_noise_moves_no_group(seed):
    rng = np.random.default_rng(seed)
    tracker = DriftTracker((FIELD_NM, FIELD_NM))
    noise = rng.uniform(0, FIELD_NM, (12, 2, 1000)).astype(np.float32)
    assert {tracker.update(y, x) for y, x in noise} == {(0.0, 0.0)}
    assert tracker.jump_nm is None


def test_another_specimen_is_no_jump(fluorophores):
    density = Cell((500, 500), 0.02, 7, ("microtubules",)).render()["microtubules"]
    others = 1e3 * place_on(density, 0.02, 8000, np.random.default_rng(3))
    tracker = DriftTracker((FIELD_NM, FIELD_NM))
    for group in groups(fluorophores, [[0, 0]] * 3):
        tracker.update(*group.T)
    for group in groups(others, [[0, 0]] * 3):
        tracker.update(*group.T)
        assert tracker.jump_nm is None


@pytest.mark.parametrize("jump", [(400, -250), (-1500, 900), (300, 0), (0, 4000)])
def test_a_jump_anywhere_in_the_field_is_found_and_said(fluorophores, jump):
    drifts = np.array([[0, 0]] * 5 + [jump] * 5, float) + np.arange(10)[:, None] * [3, -2]
    tracker, found, jumps = DriftTracker((FIELD_NM, FIELD_NM)), [], []
    for group in groups(fluorophores, drifts):
        found.append(tracker.update(*group.T))
        jumps.append(tracker.jump_nm)
    assert [i for i, said in enumerate(jumps) if said] == [5]
    np.testing.assert_allclose(jumps[5], jump, atol=15)
    assert np.sqrt(((np.array(found) - drifts) ** 2).mean()) < 6


def test_there_and_back_are_two_jumps(fluorophores):
    drifts = np.array([[0, 0], [30, 10], [600, 10], [30, 10]], float)
    np.testing.assert_allclose(followed(fluorophores, drifts), drifts, atol=12)


def test_a_specimen_seen_faintly_is_followed_by_groups_together(fluorophores):
    """What shows in no single group shows in several, and a group in between is not misplaced."""
    drifts = np.arange(40)[:, None] * np.array([2.0, -1.0])
    found = followed(fluorophores, drifts, each=220)
    assert np.abs(found - drifts).max() < 60
    assert np.abs(found[-1] - drifts[-1]).max() < 20
