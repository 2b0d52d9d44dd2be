"""The newest pictures of a run in this program: found, converted, and only when asked for."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from contracts import (
    DISPLAY,
    OFFSET_ADU,
    code,
    describe,
    describe_channel,
    multicolor_frame,
    sr_frame,
)
from livesr.base.frames import Stream
from livesr.gui.newest import Newest
from livesr.napari import run_pairs
from livesr.napari.run_pairs import RunPairs
from livesr.viewer.frame_pairs import Selection, intensity


@pytest.fixture
def newest() -> Newest:
    kept = Newest()
    kept.open(describe(channels=("488", "561")))
    return kept


def test_the_newest_of_each_channel_is_what_is_shown(newest: Newest) -> None:
    pairs = RunPairs(newest, lambda: {"raw_frames": 1})
    assert (pairs.state, pairs.streams(), pairs.pair(Selection())) == ("starting", (), None)
    for t in range(3):
        newest.recon(sr_frame(t))
        newest.recon(sr_frame(t, Stream(0, "561")))
    newest.separated(multicolor_frame(1))
    assert pairs.state == "live"
    assert [stream.channel for stream in pairs.streams()] == ["488", "561"]
    pair = pairs.pair(Selection("488"))
    assert pair is not None
    assert pair.matches
    assert pair.prediction is not None
    assert pair.prediction.header.ai["prediction"] is True
    assert [c.window for c in pair.prediction.header.channels] == list(DISPLAY)
    assert pair.measurement is not None
    assert float(intensity(pair.measurement)[0, 0]) == code(Stream(0, "488"), 1) - OFFSET_ADU
    other = pairs.pair(Selection("561"))
    assert other is not None
    assert other.prediction is None
    assert other.shown.header.t == 2


def test_depth_goes_with_the_measurement_that_has_one() -> None:
    kept, plain = Newest(), describe_channel("488")
    deep = replace(describe_channel("561"), depth_range_nm=(-400.0, 400.0))
    kept.open(replace(describe(), channels=(plain, deep)))
    nm = np.full(sr_frame(0).image.shape, 120, np.float32)
    kept.recon(sr_frame(0))
    kept.recon(replace(sr_frame(0, Stream(0, "561")), depth_nm=nm))
    pairs = RunPairs(kept, dict)
    without, with_depth = (pairs.pair(Selection(name)) for name in ("488", "561"))
    assert without is not None
    assert without.depth is None
    assert with_depth is not None
    assert with_depth.depth is not None
    assert with_depth.depth.header.channels[0].window == (-400, 400)
    np.testing.assert_array_equal(with_depth.depth.pixels, nm)


def test_a_frame_that_nobody_looks_at_is_not_converted(
    newest: Newest, monkeypatch: pytest.MonkeyPatch
) -> None:
    copies: list[int] = []
    real = run_pairs.to_uint16

    def counted(image: np.ndarray, offset: int) -> np.ndarray:
        copies.append(offset)
        return real(image, offset)

    monkeypatch.setattr(run_pairs, "to_uint16", counted)
    pairs = RunPairs(newest, dict)
    for t in range(50):
        newest.recon(sr_frame(t))
    assert not copies
    first, again = pairs.pair(Selection("488")), pairs.pair(Selection("488"))
    assert first is not None
    assert again is not None
    assert first.measurement is again.measurement
    assert len(copies) == 1


def test_the_next_run_is_another(newest: Newest) -> None:
    pairs = RunPairs(newest, dict)
    newest.separated(multicolor_frame(1))
    assert pairs.pair(Selection()) is not None
    newest.open(describe(channels=("640",)))
    assert pairs.streams() == ()
    uncertain = np.full((3, 32, 32), 4, np.uint16)
    frame = multicolor_frame(0, Stream(0, "640"))
    newest.separated(replace(frame, uncertainty=uncertain))
    pair = pairs.pair(Selection())
    assert pair is not None
    assert pair.uncertainty is not None
    assert pair.uncertainty.header.ai["measurement"] is False
