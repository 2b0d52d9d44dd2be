"""Means of the scores of a run."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

from livesr.base.frames import ChannelScore
from livesr.live.channel_scores import METRICS, MeanScore

NONE = (math.nan,) * len(METRICS)


def frame(**scores: tuple[float, ...]) -> Any:
    return SimpleNamespace(score=[ChannelScore(name, *values) for name, values in scores.items()])


def test_a_frame_whose_true_channel_is_even_takes_no_mean_away() -> None:
    mean = MeanScore()
    mean.add(frame(ER=(0.8, 0.6, 0.1, 0.5), Lysosomes=NONE))
    mean.add(frame(ER=NONE, Lysosomes=NONE))
    mean.add(frame(ER=(0.6, 0.4, 0.3, 0.3), Lysosomes=NONE))
    found = mean.summary()
    assert found["ER"] == {"pcc": 0.7, "ssim": 0.5, "nrmse": 0.2, "input_pcc": 0.4}
    assert all(math.isnan(found["Lysosomes"][name]) for name in METRICS)
