"""STORM runs on the virtual rig's real core.

What is localised is what was lit, in an MDA and outside.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import useq
import zarr
from pymmcore_plus import CMMCorePlus

from livesr import LiveSR
from livesr.base.config import RigConfig, load_rig
from livesr.formats.localisations import read_localisations
from livesr.live.sources.plan import sim_sequence
from livesr.modalities.storm.config import STORMConfig
from livesr.modalities.storm.score import LocalisationScore, score_localisations
from livesr.modalities.storm.simulation.rig import VirtualSTORMCamera, find_storm_camera
from livesr.simulation.blinking_rig import BlinkingBank
from recorded_runs import Live, lines
from rigs import core_of
from waiting import until

N, SIZE = 10, 64


@pytest.fixture(scope="module")
def core() -> Iterator[CMMCorePlus]:
    with core_of(
        "virtual_storm", 2.0, SensorSize=SIZE, Frames=45, Fluorophores=2000, Lit=5, Photons=1500
    ) as core:
        yield core


@pytest.fixture
def camera(core: CMMCorePlus) -> VirtualSTORMCamera:
    core.clearROI()
    core.setProperty("Camera", "Frame", 0)
    camera = find_storm_camera(core)
    assert camera is not None
    return camera


def rig() -> RigConfig:
    whole = load_rig("virtual_storm")
    return whole.with_section(STORMConfig.of(whole).model_copy(update={"frames": N}))


def score(
    store: Path, camera: VirtualSTORMCamera, frames: int, origin_px: tuple[int, int] = (0, 0)
) -> LocalisationScore:
    """Compare a store's table with what was lit in the exposures of the run."""
    found = read_localisations(store / "localisations.csv")
    lit = [
        np.insert(camera.bank.truth(k), 0, i, axis=1)
        for i, k in enumerate(list(camera.shown)[:frames])
    ]
    true = np.concatenate(lit)
    pixel_nm = camera.bank.pixel_size_um * 1e3
    places = true[:, 1:3] * 1e3 + pixel_nm / 2 - np.array(origin_px) * pixel_nm
    shape = zarr.open_array(store / "raw" / "0", mode="r").shape[1:]
    seen = (true[:, 3] > 200) & np.all(
        (places > 4 * pixel_nm) & (places < (np.array(shape) - 4) * pixel_nm), axis=1
    )
    here = np.stack([found["y_nm"], found["x_nm"]], axis=1)
    inside = np.all((here > 4 * pixel_nm) & (here < (np.array(shape) - 4) * pixel_nm), axis=1)
    return score_localisations(
        found["frame"][inside], here[inside], true[seen, 0].astype(int), places[seen]
    )


def test_an_mda_is_localised(core: CMMCorePlus, camera: VirtualSTORMCamera, tmp_path: Path) -> None:
    plan = sim_sequence(6, channels=["647"], raw=N)
    with LiveSR(
        core, rig=rig(), store=tmp_path / "run.ome.zarr", plan=plan, policy="complete"
    ) as sr:
        core.mda.run(plan)
    assert (sr.report["raw_frames"], sr.report["recon_frames"], sr.report["raw_lost"]) == (60, 6, 0)
    found = score(sr.store, camera, 60)
    assert found.recall > 0.8
    assert found.rmse_nm < 40
    assert np.hypot(*found.bias_nm) < 5


def test_a_last_group_that_lacks_exposures_is_reconstructed_and_said_to_be(
    core: CMMCorePlus, camera: VirtualSTORMCamera, tmp_path: Path
) -> None:
    plan = useq.MDASequence(
        channels=["647"], time_plan=useq.TIntervalLoops(interval=0, loops=2 * N + N // 2)
    )
    with LiveSR(core, rig=rig(), store=tmp_path / "run.ome.zarr", policy="complete") as sr:
        core.mda.run(plan)
    assert (sr.report["recon_frames"], sr.report["groups_incomplete"]) == (3, 1)
    (said,) = (w for w in sr.report["warnings"] if "never came" in w)
    assert said.startswith("5 exposures never came: running images are made of those that did")


def test_a_region_has_its_own_corner(
    core: CMMCorePlus, camera: VirtualSTORMCamera, tmp_path: Path
) -> None:
    core.setROI(12, 6, 40, 48)
    plan = sim_sequence(4, channels=["647"], raw=N)
    with LiveSR(
        core, rig=rig(), store=tmp_path / "run.ome.zarr", plan=plan, policy="complete"
    ) as sr:
        core.mda.run(plan)
    found = score(sr.store, camera, 40, origin_px=(6, 12))
    assert found.recall > 0.75
    assert np.hypot(*found.bias_nm) < 8


def test_live_mode_groups_by_the_number_of_the_frame(
    core: CMMCorePlus, camera: VirtualSTORMCamera, tmp_path: Path
) -> None:
    with LiveSR(
        core, rig=rig(), store=tmp_path / "run.ome.zarr", live="own", policy="complete"
    ) as sr:
        core.startContinuousSequenceAcquisition()
        until(lambda: sr.status().get("recon_frames", 0) >= 4)
        core.stopSequenceAcquisition()
        sr.wait()
    raw = zarr.open_array(sr.store / "raw" / "0", mode="r")
    received = sr.report["raw_frames"]
    assert received >= 4 * N
    assert (
        raw.shape[0] == -(-received // N) * N
    )  # the last group may have ended early, and is localised all the same
    assert sr.report["recon_frames"] == -(-received // N)
    for k in range(received):
        np.testing.assert_array_equal(raw[k], camera.bank.frames[camera.shown[k]])
    assert score(sr.store, camera, received).recall > 0.8


def test_a_jump_of_the_specimen_is_undone_written_down_and_said(tmp_path: Path) -> None:
    """Half-way through the run everything is 9 pixels further down and 6 to the left."""
    whole = load_rig("virtual_storm")
    optics = whole.optics.model_copy(update={"pixel_size_nm": 65.0})  # of `Live`
    rig = whole.model_copy(update={"optics": optics})
    rig = rig.with_section(STORMConfig.of(rig).model_copy(update={"frames": 20}))
    film = BlinkingBank(rig, 96, 160, lit=30).frames.reshape(8, 20, 96, 96)
    film[4:] = np.roll(film[4:], (9, -6), axis=(2, 3))
    live = Live(rig, tmp_path / "run.ome.zarr", shape=(96, 96))
    report = live.record(film)
    assert any("jumped" in warning for warning in report["warnings"])
    recon = lines(tmp_path / "run.ome.zarr", "recon")
    jumps = {t: line["drift_jump_nm"] for (_, t), line in recon.items() if "drift_jump_nm" in line}
    assert list(jumps) == [4]
    np.testing.assert_allclose(jumps[4], (9 * 65, -6 * 65), atol=20)
    drifts = [line["drift_nm"] for line in recon.values()]
    np.testing.assert_allclose(drifts[-1], (9 * 65, -6 * 65), atol=20)
