"""Phases that drift slowly are followed; sudden changes are not."""

from __future__ import annotations

import numpy as np
import pytest

from live.reconstruct.test_quality import PATTERNS, parameters, raw_stack
from livesr.modalities.sim.pattern_drift import FRAMES
from livesr.modalities.sim.quality import QualityLimits
from livesr.modalities.sim.reconstructor import SIMReconstructor


def sim(follow=True):
    return SIMReconstructor(parameters(), PATTERNS, QualityLimits(), follow=follow)


def drifting(n, per_frame=0.03):
    """Groups whose angles drift differently, and the drift of each."""
    rates = np.array([1.0, -0.6, 0.3]) * per_frame
    for t in range(n):
        turned = [p.stepped(rate * t) for p, rate in zip(PATTERNS, rates, strict=True)]
        yield raw_stack(patterns=turned, seed=t), rates * t


def test_slow_drift_is_followed_and_said():
    following, plain = sim(), sim(follow=False)
    groups = list(drifting(40))
    for group, _ in groups:
        following.reconstruct(group)
        plain.reconstruct(group)
    assert following.quality.doubt == ""
    assert following.quality.pattern_drift_rad == pytest.approx(
        groups[-1][1], abs=1.5 * FRAMES * 0.03
    )
    assert np.abs(following.quality.pattern_drift_rad).max() > 0.7
    assert "drifted" in plain.quality.doubt
    assert plain.quality.pattern_drift_rad == (0, 0, 0)


def test_recorded_drift_gives_the_same_pictures():
    live = sim()
    groups, pictures, drifts = [], [], []
    for group, _ in drifting(28):
        groups.append(group)
        pictures.append(live.reconstruct(group))
        drifts.append(live.quality.pattern_drift_rad)
    assert len(set(drifts)) > 2
    again = sim()
    for i in (20, 3, 12):  # as a backfill asks for them
        again.correct_drift(drifts[i])
        np.testing.assert_allclose(
            again.reconstruct(groups[i]), pictures[i], atol=1e-3 * pictures[i].max()
        )


def test_a_jump_is_not_followed():
    method = sim()
    for seed in range(3 * FRAMES):
        method.reconstruct(raw_stack(patterns=[p.stepped(1.5) for p in PATTERNS], seed=seed))
    assert method.quality.pattern_drift_rad == (0, 0, 0)
    assert method.quality.doubt
