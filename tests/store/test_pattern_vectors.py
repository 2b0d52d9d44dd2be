"""A run whose pattern vectors had drifted follows them in the background, and an offline run of its
raw gives the same."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import yaozarrs

from livesr.base.config import RigConfig, load_rig
from livesr.formats.store import RecordedStore
from livesr.modalities.sim import vector_drift
from livesr.modalities.sim.config import SIMConfig
from livesr.modalities.sim.simulation.rig import RawBank
from livesr.store.process import process
from livesr.store.raw_input import store_input
from recorded_runs import Live, assert_equal, lines

SIDE, STEPS = 128, 0.25


def drifted(rig: RigConfig) -> RigConfig:
    """The rig after its patterns have turned about the middle of the chip."""
    pixel_um = rig.optics.pixel_size_nm / 1e3
    by, middle = STEPS / (SIDE * pixel_um), (SIDE - 1) / 2 * pixel_um
    patterns = [
        p.model_copy(
            update={
                "k_um": (p.k_um[0] + by, p.k_um[1]),
                "phase_rad": p.phase_rad - 2 * np.pi * by * middle,
            }
        )
        for p in SIMConfig.of(rig).patterns
    ]
    return rig.with_section(SIMConfig.of(rig).model_copy(update={"patterns": patterns}))


def test_vectors_are_exchanged_between_frames_and_recorded(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(vector_drift, "GROUPS", 3)  # one is looked at each second
    monkeypatch.setattr(vector_drift, "_REST", 0.0)
    rig = load_rig("virtual_sim").with_engine(None)
    bank = RawBank(drifted(rig), SIDE, 4, seed=0, photons=600.0, bleaching=0.0, interval_s=0.5)
    live = Live(rig, tmp_path / "live.ome.zarr", shape=(SIDE, SIDE))

    def groups():
        """Groups until the vectors were exchanged, and some more."""
        until, t = time.monotonic() + 120, 0
        while not live.pipeline.counts["pattern_vectors_corrected"] and time.monotonic() < until:
            yield bank.frames[t % 4]
            t += 1
            time.sleep(0.1)
        for more in range(4):
            yield bank.frames[more]

    report = live.record(groups())
    assert report["pattern_vectors_corrected"] >= 3
    store = live.sink.path
    yaozarrs.validate_zarr_store(str(store))
    said = [line for _, line in sorted(lines(store, "recon").items())]
    assert "vector_drift_per_um" not in said[0]
    step_um = 1 / (SIDE * rig.optics.pixel_size_nm / 1e3)
    np.testing.assert_allclose(
        np.reshape(said[-1]["vector_drift_per_um"], (-1, 2)) / step_um, [[STEPS, 0]] * 3, atol=0.06
    )
    assert said[-1]["quality"]["modulation"] > said[0]["quality"]["modulation"]
    offline = process(store_input(RecordedStore(store)), tmp_path / "offline.ome.zarr")
    assert_equal(store, Path(offline["store"]))
    assert offline["pattern_vectors_corrected"] == 0  # they are repeated, not found again
