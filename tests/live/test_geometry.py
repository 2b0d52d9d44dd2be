"""What stands between a calibration and a run: region, binning, flips, objective. Corrected, or refused in one sentence."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from livesr.base.config import RigConfig, load_rig
from livesr.base.errors import ConfigError
from livesr.live.optical_state import optical_state
from livesr.live.paths import Geometry, sim_reconstructor
from livesr.live.plugin import camera_geometry
from livesr.simulation.rig import RawBank
from rigs import core_of


def sim_rig(pixel_size_nm: float, **sim: Any) -> RigConfig:
    rig = load_rig("virtual_sim").with_engine("none")
    optics = rig.optics.model_copy(update={"pixel_size_nm": pixel_size_nm})
    return rig.model_copy(update={"optics": optics, "sim": rig.sim.model_copy(update=sim)})


def test_binning_is_corrected_where_the_optics_stay_sampled_and_refused_elsewhere() -> None:
    with core_of("demo") as core:
        core.setProperty("Camera", "Binning", "2")
        core.setROI(10, 20, 100, 80)
        geometry = camera_geometry(core, sim_rig(32.5))
        assert geometry.pixel_size_um == pytest.approx(0.065)
        assert geometry.shape == (80, 100)
        assert geometry.origin_px == (20.25, 10.25)
        with pytest.raises(ConfigError, match="130 nm remove"):
            camera_geometry(core, sim_rig(65))


def test_region_and_binning_leave_the_picture_where_it_was() -> None:
    fine = sim_rig(32.5)
    bank = RawBank(fine, 256, 1, seed=0, photons=1000, bleaching=0.0, interval_s=0.5)
    whole = bank.frames[0].astype(float)
    channel = fine.channel("488")
    binned = np.rint(whole.reshape(9, 128, 2, 128, 2).mean((2, 4))).astype(np.uint16)[:, 12:, 20:]
    # The binned pixel's own response is part of the OTF: binning by 2 dims fine detail a little.
    half = 0.25
    right = Geometry((116, 108), "uint16", 0.065, (12 + half, 20 + half))
    wrong = Geometry((116, 108), "uint16", 0.065, (12, 20))
    method, off = (sim_reconstructor(fine, channel, g) for g in (right, wrong))
    method.reconstruct(binned)
    off.reconstruct(binned)
    assert method.judgement.doubt == ""
    assert method.judgement.quality.phase_error_rad < 0.1
    assert off.judgement.quality.phase_error_rad > 0.3


def test_another_objective_or_a_flip_is_refused() -> None:
    with core_of("demo") as core:
        state = optical_state(core)
        assert ("Objective", "Label", "100x") in state
        assert ("Camera", "TransposeMirrorX", "0") in state
        rig = sim_rig(65, calibrated_with=state)
        camera_geometry(core, rig)
        core.setProperty("Camera", "TransposeMirrorX", "1")
        with pytest.raises(ConfigError, match="TransposeMirrorX is '1'"):
            camera_geometry(core, rig)
        core.setProperty("Camera", "TransposeMirrorX", "0")
        core.setState("Objective", 2)
        with pytest.raises(ConfigError, match="calibrated with '100x'"):
            camera_geometry(core, rig)
        gone = sim_rig(65, calibrated_with=[("Nosepiece", "Label", "60x")])
        with pytest.raises(ConfigError, match="no longer has"):
            camera_geometry(core, gone)
