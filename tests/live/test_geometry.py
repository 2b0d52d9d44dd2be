"""What stands between a calibration and a run: region, binning, flips, objective.

Corrected, or refused in one sentence.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from livesr import LiveSR
from livesr.base.config import RigConfig, load_rig
from livesr.base.errors import ConfigError
from livesr.base.geometry import Geometry
from livesr.live.camera import camera_geometry
from livesr.live.optical_state import optical_state
from livesr.live.sources.plan import sim_sequence
from livesr.modalities.sim.config import SIMConfig
from livesr.modalities.sim.modality import SIM
from livesr.modalities.sim.simulation.rig import RawBank
from livesr.optics.similarity import pcc
from livesr.store.process import process
from livesr.store.raw_input import raw_input
from recorded_runs import array
from rigs import core_of


def sim_rig(pixel_size_nm: float, **sim: Any) -> RigConfig:
    rig = load_rig("virtual_sim").with_engine("none")
    optics = rig.optics.model_copy(update={"pixel_size_nm": pixel_size_nm})
    return rig.with_section(SIMConfig.of(rig).model_copy(update=sim)).model_copy(
        update={"optics": optics}
    )


def recorded(core: Any, rig: RigConfig, store: Path) -> tuple[np.ndarray, dict[str, Any]]:
    """The reconstruction of the bank's first time point."""
    core.setProperty("Camera", "TimePoint", 0)
    with LiveSR(core, rig=rig, plan=(plan := sim_sequence(1, ["488"])), store=store) as session:
        core.mda.run(plan)
    return array(Path(session.report["store"]), "recon")[0].astype(float), session.report


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
    binned = np.rint(whole.reshape(9, 128, 2, 128, 2).mean((2, 4))).astype(np.uint16)[:, 12:, 20:]
    # The binned pixel's own response is part of the OTF: binning by 2 dims fine detail a little.
    half = 0.25
    right = Geometry((116, 108), "uint16", 0.065, (12 + half, 20 + half))
    wrong = Geometry((116, 108), "uint16", 0.065, (12, 20))
    method, off = (SIM().build(fine, "488", g) for g in (right, wrong))
    method.reconstruct(binned)
    off.reconstruct(binned)
    assert method.quality.doubt == ""
    assert method.quality.patterns.phase_error_rad < 0.1
    assert off.quality.patterns.phase_error_rad > 0.3


def test_a_mirrored_region_is_reconstructed_as_the_picture_that_it_shows(tmp_path: Path) -> None:
    region = (30, 10, 84, 96)  # x, y, width, height: nothing is symmetrical
    with core_of("virtual_sim", 1, SensorSize=128, TimePoints=1, Bleaching=0) as core:
        state = [*optical_state(core)]
        assert ("Camera", "TransposeMirrorX", "0") in state
        rig = sim_rig(65, calibrated_with=state)
        core.setROI(*region)
        plain, report = recorded(core, rig, tmp_path / "plain.ome.zarr")
        assert report["recon_doubtful"] == 0
        for mirrors, turned in ((("X",), plain[:, ::-1]), (("X", "Y"), plain[::-1, ::-1])):
            for axis in "XY":
                core.setProperty("Camera", f"TransposeMirror{axis}", int(axis in mirrors))
            picture, report = recorded(core, rig, tmp_path / f"{mirrors}.ome.zarr")
            assert report["recon_doubtful"] == 0
            # A reconstruction's pixel (2i, 2j) lies on the centre of raw pixel (i, j): turned over,
            # it moves by one.
            shift = [1 if axis in mirrors else 0 for axis in "YX"]
            inner = (slice(16, -16),) * 2
            assert pcc(np.roll(picture, shift, (0, 1))[inner], turned[inner]) > 0.995
        again = Path(
            process(raw_input(Path(report["store"])), tmp_path / "again.ome.zarr")["store"]
        )
        np.testing.assert_array_equal(array(again, "recon"), array(Path(report["store"]), "recon"))
        _, report = recorded(core, sim_rig(65), tmp_path / "wrong.ome.zarr")
        assert report["recon_doubtful"] == 1


def test_another_objective_or_a_flip_that_is_unknown_is_refused() -> None:
    with core_of("demo") as core:
        state = optical_state(core)
        assert ("Objective", "Label", "100x") in state
        assert ("Camera", "TransposeMirrorX", "0") in state
        rig = sim_rig(65, calibrated_with=state)
        camera_geometry(core, rig)
        core.setProperty("Camera", "TransposeMirrorX", "1")
        assert camera_geometry(core, rig).mirrored == (False, True)
        core.setProperty("Camera", "TransposeMirrorX", "0")
        core.setProperty("Camera", "TransposeXY", "1")
        with pytest.raises(ConfigError, match="TransposeXY is '1'"):
            camera_geometry(core, rig)
        core.setProperty("Camera", "TransposeXY", "0")
        core.setState("Objective", 2)
        with pytest.raises(ConfigError, match="calibrated with '100x'"):
            camera_geometry(core, rig)
        gone = sim_rig(65, calibrated_with=[("Nosepiece", "Label", "60x")])
        with pytest.raises(ConfigError, match="no longer has"):
            camera_geometry(core, gone)
