"""Frames that the score of the network's features is fitted on, and the fit."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from livesr.evaluation.unlike import Pictures, fit_unlike
from livesr.live.inference.engine import Familiarity, unpacked
from livesr.live.unlike import Unlike, described, larger

SIDE, CHANNELS, LAST = 64, 2, 3


@pytest.fixture(scope="module")
def pairs() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    targets = np.stack(
        [
            [gaussian_filter(rng.random((SIDE, SIDE)) ** 20, sigma) for sigma in (1, 3)]
            for _ in range(6)
        ]
    ).astype(np.float32)
    targets /= targets.max((2, 3), keepdims=True) * 2
    return np.repeat(targets.sum(1, keepdims=True), 3, 1), targets


def test_what_is_drawn_follows_from_the_seed_alone(pairs: tuple[np.ndarray, np.ndarray]) -> None:
    first, again = (list(Pictures(pairs, np.random.default_rng(1)).unknown(4)) for _ in range(2))
    np.testing.assert_array_equal(first, again)
    assert first[0].shape == (3, SIDE, SIDE)
    assert all(np.isfinite(one).all() for one in first)


def test_frames_in_order_are_pairs_and_composites_in_turn(
    pairs: tuple[np.ndarray, np.ndarray],
) -> None:
    drawn = list(Pictures(pairs, np.random.default_rng(1)).known(4))
    assert any((drawn[0] == frames).all() for frames in pairs[0])
    assert not any((drawn[1] == frames).all() for frames in pairs[0])
    assert np.quantile(drawn[1][1], 0.999) == pytest.approx(0.55, abs=0.2)  # normalised as live


def test_the_score_is_0_in_the_middle_and_1_at_the_limit_of_what_is_known() -> None:
    rng = np.random.default_rng(0)
    n = CHANNELS * (1 + LAST) + 4
    known = rng.normal(size=(600, n)).astype(np.float32)
    known[:, [4, 8]] = 1  # light of each channel
    unknown = known + np.float32(3) * (np.arange(n) == 1)
    told = [np.stack([described(f, CHANNELS, LAST) for f in one]) for one in (known, unknown)]
    found = fit_unlike(*told)
    assert found["area"] > 0.95
    familiarity = Familiarity(
        last=LAST, **{k: found[k] for k in ("mean", "scale", "weights", "bias", "area")}
    )
    score = Unlike(familiarity, CHANNELS).score
    assert 0 < np.mean([score(f) > 1 for f in known]) < 0.05  # type: ignore[operator]
    assert np.median([score(f) for f in known]) == pytest.approx(0, abs=0.15)
    assert np.mean([score(f) > 1 for f in unknown]) > 0.7  # type: ignore[operator]
    assert Familiarity.model_validate(familiarity.model_dump(mode="json")) == familiarity


def test_what_is_no_number_is_not_judged() -> None:
    one = Familiarity(
        last=1, mean=np.zeros(2), scale=np.ones(2), weights=np.ones(2), bias=0, area=1
    )
    unlike = Unlike(one, 1)
    assert unlike.score(np.array([np.nan, 1, 1], np.float32)) is None
    assert unlike.score(None) is None
    assert unlike.score(np.array([2, 1, 1], np.float32)) == 3
    assert larger([None, 2.0, 1.0]) == 2
    assert larger([None]) is None


@pytest.mark.parametrize("text", ["!", "AAA="])
def test_numbers_that_are_none_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"base64|buffer"):
        unpacked(text)
    with pytest.raises(ValueError, match="base64"):
        Familiarity(last=1, mean=text, scale=text, weights=text, bias=0, area=1)
