"""Pattern vectors that drift slowly are followed; noise, light and single groups move nothing."""

from __future__ import annotations

from dataclasses import replace
from itertools import count

import numpy as np
import pytest

from live.reconstruct.test_quality import (
    BEAMS,
    PATTERNS,
    PIXEL_UM,
    SHAPE,
    parameters,
    raw_stack,
)
from livesr.modalities.sim import vector_drift
from livesr.modalities.sim.quality import QualityLimits
from livesr.modalities.sim.reconstructor import SIMReconstructor
from livesr.modalities.sim.vector_drift import VectorDrift

STEP_UM = 1 / (SHAPE[0] * PIXEL_UM)
DIRECTIONS = np.array(
    [[1.0, 0.5], [-0.7, 0.6], [0.2, -1.0]]
)  # of each angle's drift, in frequency steps


@pytest.fixture(autouse=True)
def never_resting(monkeypatch):
    monkeypatch.setattr(vector_drift, "_REST", 0.0)


def sim(patterns=PATTERNS, phases=3):
    return SIMReconstructor(parameters(phases), patterns, QualityLimits(), follow=True)


def watch(method, patterns=PATTERNS, phases=3):
    return VectorDrift(parameters(phases), patterns, method.drift)


def turned(steps, patterns=PATTERNS):
    """The patterns with other periods and angles.

    What they show in the middle of the frame stays.
    """
    middle_um = (SHAPE[0] - 1) / 2 * PIXEL_UM
    drifts = steps * DIRECTIONS * STEP_UM
    moved = [
        replace(p, k_um=tuple(np.add(p.k_um, d))) for p, d in zip(patterns, drifts, strict=True)
    ]
    return [p.stepped(-2 * np.pi * middle_um * d.sum()) for p, d in zip(moved, drifts, strict=True)]


def follow(method, check, group):
    picture = method.reconstruct(group)
    if check:
        check.offer(list(group), method.quality)
        check.look()
    return picture


def in_steps(quality):
    return np.reshape(quality.vector_drift_um, (-1, 2)) / STEP_UM


def test_without_following_quality_falls_and_with_it_it_stays():
    following, plain = sim(), sim()
    check = watch(following)
    for t in range(48):
        patterns = turned(0.02 * t)
        group = raw_stack(patterns=patterns, seed=t)
        followed, left = follow(following, check, group), follow(plain, None, group)
    truth = sim(patterns).reconstruct(group)
    inside = np.s_[24:-24, 24:-24]
    pcc = [np.corrcoef(truth[inside].ravel(), p[inside].ravel())[0, 1] for p in (followed, left)]
    assert following.quality.doubt == ""
    assert following.quality.patterns.modulation > 0.75
    assert in_steps(following.quality) == pytest.approx(0.94 * DIRECTIONS, abs=0.35)
    assert plain.quality.doubt
    assert plain.quality.patterns.modulation < 0.3
    print(pcc)
    assert pcc[0] > 0.98 > 0.95 > pcc[1]  # where nothing is followed, widefield is shown by now


@pytest.mark.parametrize("electrons", [40, 300])
def test_patterns_that_stay_are_left_alone(electrons):
    method = sim()
    check = watch(method)
    for seed in range(24):
        follow(method, check, raw_stack(electrons, seed=seed))
    assert not method.drift.correction.vectors_um.any()


def test_one_strange_group_moves_nothing():
    method = sim()
    check = watch(method)
    for seed in range(16):
        follow(method, check, raw_stack(patterns=turned(0.4 if seed == 4 else 0.0), seed=seed))
    assert not method.drift.correction.vectors_um.any()


@pytest.mark.parametrize(("patterns", "phases"), [(PATTERNS, 3), (BEAMS, 5)])
def test_the_vector_that_is_found_is_the_true_one(patterns, phases):
    method = sim(patterns, phases)
    check = watch(method, patterns, phases)
    true = turned(0.2, patterns)
    for seed in range(9):
        follow(method, check, raw_stack(800, patterns=true, phases=phases, seed=seed))
    assert in_steps(method.quality) == pytest.approx(0.2 * DIRECTIONS, abs=0.03)
    assert method.quality.patterns.modulation > 0.85


def test_recorded_vectors_give_the_same_pictures():
    live = sim()
    check = watch(live)
    groups = [raw_stack(patterns=turned(0.02 * t), seed=t) for t in range(28)]
    made = [(follow(live, check, group), live.quality) for group in groups]
    assert len({quality.vector_drift_um for _, quality in made}) > 2
    again = sim()
    for i in (20, 3, 12):  # as a backfill asks for them
        picture, quality = made[i]
        again.correct_drift(quality.pattern_drift_rad, quality.vector_drift_um)
        np.testing.assert_allclose(again.reconstruct(groups[i]), picture, atol=1e-3 * picture.max())


def test_what_drifts_too_far_is_said(monkeypatch):
    monkeypatch.setattr(vector_drift, "MAX_STEPS", 0.4)
    method = sim()
    check = watch(method)
    for t in count():
        follow(method, check, raw_stack(patterns=turned(0.025 * t), seed=t))
        if check.lost or t == 60:
            break
    assert check.lost
    assert np.hypot(*in_steps(method.quality).T).max() <= vector_drift.MAX_STEPS
