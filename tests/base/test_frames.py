"""Frames answer to names, and say what they are without their pixels."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from contracts import multicolor_frame, raw_stack, sr_frame
from livesr.base.frames import LOCALISATION, CameraFrame, FrameQuality, Stream

NAMES = ("Microtubules", "ER", "Lysosomes")


def test_a_channel_is_asked_for_by_its_name() -> None:
    frame = multicolor_frame(3, labels=NAMES)
    for i, name in enumerate(NAMES):
        assert np.shares_memory(frame[name], frame.channels[i])
        np.testing.assert_array_equal(frame[name], frame.channels[i])
    assert frame.labels == NAMES


def test_an_unknown_channel_is_refused_with_the_names_that_there_are() -> None:
    with pytest.raises(KeyError, match="no channel 'er', it has 'Microtubules', 'ER', 'Lysosomes'"):
        multicolor_frame(3, labels=NAMES)["er"]
    with pytest.raises(KeyError, match="channels without names"):
        multicolor_frame(3)["ER"]


def test_a_prediction_says_what_it_is() -> None:
    frame = multicolor_frame(3, labels=NAMES, edge=True, provisional=True, warnings=("weak",))
    assert repr(frame) == (
        "<MulticolorFrame p0 488 z0 t=3: 3 x 32 x 32 uint16 (Microtubules, ER, Lysosomes),"
        " provisional prediction, edge of a series, 1 warnings, 32 ms after the camera>"
    )


def test_a_measurement_says_what_it_is() -> None:
    assert repr(sr_frame(2)) == "<SRFrame p0 488 z0 t=2: 32 x 32 float32, measurement>"
    found = np.zeros(5, LOCALISATION)
    doubtful = replace(
        sr_frame(2), localisations=found, quality=FrameQuality(None, "no pattern is seen")
    )
    assert repr(doubtful).endswith("measurement, 5 localisations, doubtful: no pattern is seen>")
    summed = replace(sr_frame(2), parts=(sr_frame(2), sr_frame(2)))
    assert "sum of 2 measurements" in repr(summed)


def test_raw_frames_say_what_they_are() -> None:
    stack = raw_stack(1)
    n, (y, x) = len(stack.frames), stack.frames[0].shape
    assert repr(stack) == f"<RawStack p0 488 z0 t=1: {n} of {n} exposures of {y} x {x} uint16>"
    lost = replace(stack, frames=(None, *stack.frames[1:]), unplaced=True)
    assert f"{n - 1} of {n} exposures" in repr(lost)
    assert "unplaced" in repr(lost)
    assert repr(replace(stack, frames=(None,))).endswith("0 of 1 exposures>")
    frame = CameraFrame(np.zeros((4, 6), np.uint8), Stream(1, "561", 2), 7, 3, 0)
    assert repr(frame) == "<CameraFrame p1 561 z2 t=7 raw=3: 4 x 6 uint8>"


@pytest.mark.parametrize("frame", [multicolor_frame(900), sr_frame(900), raw_stack(900)], ids=repr)
def test_no_pixels_are_printed(frame: object) -> None:
    assert "array" not in repr(frame)
    assert len(repr(frame)) < 200
