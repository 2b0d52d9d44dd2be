"""The promise of the bounds, on any units that are exchangeable."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from livesr.evaluation.conformal import fewest_units, promises, width

scores = npst.arrays(
    np.float64,
    st.tuples(st.integers(11, 16), st.integers(1, 6)),
    elements=st.floats(0, 100) | st.sampled_from([0.0, 1.0, 2.0]),
)


@given(scores, st.sampled_from([0.1, 0.2, 0.5]))
@settings(deadline=None, max_examples=40)
def test_the_next_unit_keeps_the_promise_whatever_the_units_are(
    units: np.ndarray, alpha: float
) -> None:
    """Of n + 1 exchangeable units any may be the one that was not seen.

    The mean over which it is must be at most alpha: not about, and for every distribution.
    """
    outside = [
        np.mean(units[i] > width([*units[:i], *units[i + 1 :]], alpha)) for i in range(len(units))
    ]
    assert np.mean(outside) <= alpha + 1e-9


@given(scores, st.floats(0, 1), st.sampled_from([None, 0.9]))
@settings(deadline=None, max_examples=40)
def test_what_promises_goes_on_promising_with_less_risk(
    units: np.ndarray, share: float, confidence: float | None
) -> None:
    risks = (units > 1).mean(1)
    if promises(risks, 0.2, confidence):
        assert promises(risks * share, 0.2, confidence)


@given(scores)
@settings(deadline=None, max_examples=40)
def test_no_smaller_width_keeps_the_promise(units: np.ndarray) -> None:
    found = width(list(units), 0.2)
    assert promises((units > found).mean(1), 0.2)
    if (smaller := units[units < found]).size:
        assert not promises((units > smaller.max()).mean(1), 0.2)


def test_with_a_confidence_few_calibrations_break_the_promise() -> None:
    rng, broken, alpha = np.random.default_rng(0), 0, 0.2
    for _ in range(100):
        spreads = rng.gamma(2, size=40)
        found = width([rng.exponential(s, 50) for s in spreads], alpha, 0.9)
        risk = np.mean(np.exp(-found / rng.gamma(2, size=20_000)))
        broken += risk > alpha
    assert broken <= 0.1 * 100


@pytest.mark.parametrize(("alpha", "confidence", "n"), [(0.1, None, 9), (0.1, 0.9, 22)])
def test_too_few_units_promise_nothing(alpha: float, confidence: float | None, n: int) -> None:
    assert fewest_units(alpha, confidence) == n
    with pytest.raises(ValueError, match=f"expected at least {n}"):
        width([np.zeros(3)] * (n - 1), alpha, confidence)
