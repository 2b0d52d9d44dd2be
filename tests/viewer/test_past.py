"""The last seconds of a stream: what is kept of them, and for how long."""

from __future__ import annotations

import numpy as np
import pytest

from livesr.viewer.browser import past
from livesr.viewer.browser.past import Past
from livesr.viewer.frame_pairs import FramePair
from preview_source import measurement, prediction


def pair(t: int, **fields: object) -> FramePair:
    return FramePair(prediction(t, np.zeros((3, 8, 8), np.uint16), **fields), None)


def test_what_is_frozen_stays() -> None:
    kept = Past()
    for t in range(3):
        kept.keep(pair(t))
    assert kept.pair is None
    kept.freeze()
    kept.keep(pair(3))
    assert [p.shown.header.t for p in kept.frozen] == [0, 1, 2]
    assert [p.index for p in kept.frozen] == [0, 1, 2]
    kept.seek(1)
    assert kept.pair is not None
    assert kept.pair.shown.header.t == 1
    kept.seek(99)
    assert kept.pair.shown.header.t == 2
    kept.thaw()
    assert kept.pair is None
    kept.seek(0)  # looks back over what came meanwhile as well
    assert len(kept.frozen) == 4


def test_a_final_picture_takes_the_place_of_its_provisional_one() -> None:
    kept = Past()
    kept.keep(pair(1, provisional=True))
    kept.keep(pair(1))
    kept.freeze()
    assert [p.shown.header.provisional for p in kept.frozen] == [False]


def test_it_is_bounded_in_bytes_and_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(past, "KEPT_BYTES", 3 * 64 * 64 * 2)
    kept = Past()
    for t in range(10):
        kept.keep(FramePair(None, measurement(t, np.zeros((64, 64), np.uint16))))
    kept.freeze()
    assert [p.shown.header.t for p in kept.frozen] == [7, 8, 9]
    monkeypatch.setattr(past, "KEPT_S", -1.0)
    kept.keep(pair(10))
    kept.freeze()
    assert [p.shown.header.t for p in kept.frozen] == [10]
    kept.forget()
    kept.freeze()
    assert kept.pair is None
