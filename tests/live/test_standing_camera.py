"""A camera that gives the last picture again makes what is made of it doubtful."""

from __future__ import annotations

import numpy as np

from livesr.base.frames import FrameQuality
from livesr.live.stream_state import LastFrame
from livesr.optics.raw_quality import NO_PICTURE, repeated_quality


def test_the_last_frame_of_the_group_before_is_known_again() -> None:
    noise = np.random.default_rng(0).poisson(20, (6, 50, 40)).astype(np.uint16)
    last = LastFrame()
    assert not last.is_first_of(noise[:3])
    assert not last.is_first_of(noise[3:])
    assert last.is_first_of([noise[5], None])
    assert last.is_first_of([None, noise[5].copy()])
    assert not last.is_first_of([None, None])


def test_frames_of_one_value_say_nothing() -> None:
    last, blank = LastFrame(), np.zeros((50, 40), np.uint16)
    assert not last.is_first_of([blank])
    assert not last.is_first_of([blank])


def test_the_doubt_names_the_frame_and_keeps_what_else_is_doubtful() -> None:
    frame = np.zeros((2, 2), np.uint16)
    quality = repeated_quality(FrameQuality(None, "faint"), [None, frame])
    assert quality.doubt.startswith("raw frame 1 repeats the last one of the time point before")
    assert quality.doubt.endswith("faint")
    assert quality.cause == NO_PICTURE
