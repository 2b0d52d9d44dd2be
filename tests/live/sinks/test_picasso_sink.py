"""Localisations go to Picasso's HDF5 group by group."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from livesr import LiveSR
from livesr.base.config import load_rig
from livesr.base.errors import ConfigError
from livesr.formats.localisations import read_localisations
from livesr.live.sinks.picasso import PicassoSink
from livesr.live.sources.plan import sim_sequence
from livesr.modalities.storm.config import STORMConfig
from rigs import core_of

h5py = pytest.importorskip("h5py", reason="h5py is not installed: pip install 'livesr[export]'")
N = 10


def test_file_and_table_say_the_same(tmp_path: Path) -> None:
    whole = load_rig("virtual_storm")
    rig = whole.with_section(STORMConfig.of(whole).model_copy(update={"frames": N}))
    with core_of("virtual_storm", 1.0, SensorSize=64, Frames=30, Lit=10) as core:
        plan, sink = sim_sequence(3, ["647"], raw=N), PicassoSink(tmp_path / "locs")
        store = tmp_path / "run.ome.zarr"
        with LiveSR(core, rig=rig, store=store, plan=plan, sinks=[sink], policy="complete") as sr:
            core.mda.run(plan)
    assert sr.report["error"] is None
    table = read_localisations(store / "localisations.csv")
    with h5py.File(tmp_path / "locs" / "localisations.hdf5") as opened:
        locs = opened["locs"][:]
    assert len(locs) == len(table) > 20
    np.testing.assert_array_equal(locs["frame"], table["frame"])
    np.testing.assert_allclose((locs["x"] + 0.5) * 107, table["x_nm"], atol=0.01)
    np.testing.assert_allclose(locs["lpy"] * 107, table["uncertainty_nm"], atol=0.01)
    about = (tmp_path / "locs" / "localisations.yaml").read_text(encoding="utf-8")
    assert f"Frames: {3 * N}" in about


def test_a_run_without_localisations_is_refused(tmp_path: Path) -> None:
    with core_of("virtual_sim", SensorSize=64) as core:
        plan, sink = sim_sequence(1), PicassoSink(tmp_path / "locs")
        with (
            pytest.raises(ConfigError, match="no channel of this run localises"),
            LiveSR(core, rig="virtual_sim", engine="none", plan=plan, sinks=[sink]),
        ):
            core.mda.run(plan)
    assert not (tmp_path / "locs").exists()
