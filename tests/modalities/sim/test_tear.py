"""A raw frame that shows two patterns one above the other is named, and no other is."""

from __future__ import annotations

import numpy as np
import pytest

from livesr.base.config import load_rig
from livesr.base.geometry import Geometry
from livesr.modalities.sim.modality import SIM
from livesr.modalities.sim.quality import TORN
from livesr.modalities.sim.reconstructor import SIMReconstructor
from livesr.modalities.sim.simulation.rig import RawBank
from livesr.optics.raw_quality import NO_PICTURE


@pytest.fixture(scope="module")
def exposed() -> tuple[np.ndarray, np.ndarray]:
    """Two exposures (n, y, x) of one group: the same pictures, noise of its own each."""
    rig = load_rig("virtual_sim")
    bank = RawBank(rig, 128, 1, seed=3, photons=2000.0, bleaching=0.0, interval_s=0.0)
    again = np.random.default_rng(0).poisson(np.maximum(bank.frames[0] - 100.0, 0)) + 100
    return bank.frames[0], again.astype(np.uint16)


def reconstructor() -> SIMReconstructor:
    return SIM().build(load_rig("virtual_sim"), "488", Geometry((128, 128), "uint16", 0.065))


def test_whole_frames_are_not_torn(exposed) -> None:
    sim = reconstructor()
    for frames in exposed:
        sim.reconstruct(frames)
        assert sim.quality is not None
        assert sim.quality.doubt == ""


@pytest.mark.parametrize(("raw", "other"), [(1, 0), (4, 3), (4, 5), (6, 5), (8, 7)])
def test_a_frame_with_another_pattern_above_is_torn(exposed, raw, other) -> None:
    frames = exposed[0].copy()
    frames[raw, :64] = exposed[1][other, :64]
    sim = reconstructor()
    sim.reconstruct(frames)
    assert sim.quality is not None
    assert not sim.quality.resolved
    assert sim.quality.cause == TORN
    assert f"raw frame {raw} is torn" in sim.quality.doubt


def test_rows_of_a_frame_that_was_delivered_are_told_by_their_pixels(exposed) -> None:
    frames = exposed[0].copy()
    frames[4, 100:] = frames[3, 100:]
    sim = reconstructor()
    sim.reconstruct(frames)
    assert sim.quality is not None
    assert sim.quality.cause == NO_PICTURE
    assert "raw frame 4 is torn" in sim.quality.doubt
