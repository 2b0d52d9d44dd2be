"""The window of three.

Every frame is a centre once, with its true neighbours, and no window spans a gap.
"""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from livesr.base.frames import Normalisation, SRFrame, Stream, Window
from livesr.live.window import FrameWindow


def frame(t: int) -> SRFrame:
    return SRFrame(np.zeros((1, 1), np.float32), Stream(), t, t, t, Normalisation(0, 1))


def times(window: Window) -> tuple[int, int, int]:
    return window.before.t, window.centre.t, window.after.t


def test_the_first_and_the_last_frame_repeat_the_edge() -> None:
    window = FrameWindow()
    made = [w for t in range(3) for w in window.push(frame(t))] + window.flush()
    assert [times(w) for w in made] == [(0, 0, 1), (0, 1, 2), (1, 2, 2)]
    assert [w.edge for w in made] == [True, False, True]


def test_a_gap_ends_one_stretch_and_begins_the_next() -> None:
    window = FrameWindow()
    made = [w for t in (0, 1, 3, 4) for w in window.push(frame(t))] + window.flush()
    assert [times(w) for w in made] == [(0, 0, 1), (0, 1, 1), (3, 3, 4), (3, 4, 4)]
    assert [w.true_neighbours for w in made] == [True, False, False, True]


def test_a_single_frame_is_its_own_neighbours() -> None:
    window = FrameWindow()
    assert window.push(frame(0)) == []
    assert [times(w) for w in window.flush()] == [(0, 0, 0)]


def test_a_window_of_one_is_immediate() -> None:
    window = FrameWindow(1)
    assert [times(w) for w in window.push(frame(7))] == [(7, 7, 7)]
    assert window.flush() == []


def test_time_that_does_not_advance_is_refused() -> None:
    window = FrameWindow()
    window.push(frame(3))
    with pytest.raises(ValueError, match="time point 3 came after 3"):
        window.push(frame(3))


@given(st.sets(st.integers(0, 40), min_size=1))
def test_every_frame_is_a_centre_exactly_once_whatever_is_missing(present: set[int]) -> None:
    window = FrameWindow()
    made = [w for t in sorted(present) for w in window.push(frame(t))] + window.flush()
    assert [w.centre.t for w in made] == sorted(present)
    for w in made:
        t = w.centre.t
        assert w.before.t == (t - 1 if t - 1 in present else t)
        assert w.after.t == (t + 1 if t + 1 in present else t)
        has_both = t - 1 in present and t + 1 in present
        outer = t in (min(present), max(present))
        assert not (w.true_neighbours and not w.edge) or has_both
        assert has_both <= w.true_neighbours
        assert not w.edge or outer


def test_a_provisional_window_ends_with_its_centre_and_changes_nothing() -> None:
    window, other = FrameWindow(), FrameWindow()
    assert window.provisional() is None
    for t in (0, 1, 2, 5, 6):
        assert [times(w) for w in window.push(frame(t))] == [times(w) for w in other.push(frame(t))]
        early = window.provisional()
        assert early is not None
        assert early.provisional
        assert times(early) == (t if t in (0, 5) else t - 1, t, t)
        assert (early.edge, early.true_neighbours) == {0: (True, True), 5: (False, False)}.get(
            t, (False, True)
        )
    single = FrameWindow(1)
    single.push(frame(0))
    assert single.provisional() is None
