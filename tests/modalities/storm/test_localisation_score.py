"""Localisations are paired with emitters as the SMLM challenge does it."""

import numpy as np
import pytest

from livesr.modalities.storm.score import score_localisations


def score(found, true, **how):
    (ff, fp), (tf, tp) = (
        [np.array([r[0] for r in rows], int), np.array([r[1:] for r in rows], float).reshape(-1, 2)]
        for rows in (found, true)
    )
    return score_localisations(ff, fp, tf, tp, **how)


def test_pairs_are_of_one_frame_within_reach_and_each_used_once():
    true = [(0, 0, 0), (0, 1000, 0), (1, 0, 0)]
    found = [(0, 30, 40), (0, 10, 0), (0, 1300, 0), (2, 0, 0)]
    s = score(found, true)
    assert (s.found, s.true, s.paired) == (4, 3, 1)
    assert s.rmse_nm == pytest.approx(10)  # the nearer of the two
    assert s.bias_nm == pytest.approx((10, 0))
    assert (s.recall, s.precision, s.jaccard) == pytest.approx((1 / 3, 1 / 4, 1 / 6))
    assert score(found, true, radius_nm=400).paired == 2


def test_as_many_pairs_as_there_can_be():
    # Greedy would give 0 its nearest, and leave 200 without.
    s = score([(0, 0, 0), (0, 200, 0)], [(0, 90, 0), (0, -240, 0)])
    assert s.paired == 2


def test_nothing_found_is_no_error():
    s = score([], [(0, 1, 1)])
    assert (s.jaccard, s.recall, s.precision) == (0, 0, 0)
    assert np.isnan(s.rmse_nm)


def test_perfect():
    rows = [(k, 300.0 * i, 50.0 * k) for k in range(3) for i in range(4)]
    s = score(rows, rows)
    assert (s.jaccard, s.rmse_nm) == (1, 0)
