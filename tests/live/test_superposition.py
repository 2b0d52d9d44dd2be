"""True channels on the virtual rig with three dyes.

Added, separated, scored, stored, kept to train on, computed again.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import useq
from pymmcore_plus import CMMCorePlus

from livesr import LiveSR
from livesr.base.compute import ComputeConfig
from livesr.base.config import RigConfig, load_rig
from livesr.base.documents import to_json
from livesr.base.errors import ConfigError
from livesr.base.frames import MulticolorFrame, Stream
from livesr.evaluation.metrics import score
from livesr.formats.store import RecordedStore
from livesr.live.sources.plan import RawFramesPlan, sim_sequence
from livesr.store.backfill import backfill
from livesr.store.process import process
from livesr.store.raw_input import raw_input
from livesr.store.repair import repair
from livesr.viewer.subscriber import Subscriber
from recorded_runs import array
from rigs import core_of
from waiting import until

CHANNELS = ("488", "561", "640")
SUM = "488+561+640"
STRUCTURES = ("Microtubules", "ER", "Lysosomes")
FRAMES = 5


@pytest.fixture(scope="module")
def core() -> Iterator[CMMCorePlus]:
    with core_of("virtual_dyes", exposure_ms=1, SensorSize=96, TimePoints=4) as loaded:
        yield loaded


@pytest.fixture(scope="module")
def rig() -> RigConfig:
    return load_rig("virtual_dyes")


@dataclass
class Run:
    store: RecordedStore
    report: dict[str, Any]
    pairs: Path
    frames: list[MulticolorFrame] = field(default_factory=list)
    header: Any = None

    def plane(self, name: str, t: int) -> np.ndarray:
        return array(self.store.path, name)[t].astype(np.float32)

    def lines(self, series: str) -> dict[int, dict[str, Any]]:
        return {
            e["t"]: e for e in self.store.events if e["series"] == series and e["channel"] == SUM
        }


@pytest.fixture(scope="module")
def run(core: CMMCorePlus, rig: RigConfig, tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder, frames = tmp_path_factory.mktemp("quality_limits"), []
    plan = sim_sequence(FRAMES, CHANNELS)
    session = LiveSR(
        core,
        rig=rig,
        plan=plan,
        store=folder / "run.ome.zarr",
        pairs=folder / "pairs",
        publish="tcp://127.0.0.1:*",
        policy="complete",
        threads=1,
    )
    with session, Subscriber(session.endpoint) as subscriber:
        session.frame_ready.connect(frames.append)
        until(lambda: subscriber.heard)
        core.mda.run(plan)
        session.wait()
        until(lambda: subscriber.newest("end") is not None)
        header = subscriber.newest("sr/frame").header
    return Run(
        RecordedStore(Path(session.report["store"])),
        session.report,
        folder / "pairs",
        frames,
        header,
    )


def test_every_structure_is_scored_against_its_channel(run: Run) -> None:
    assert run.report["sr_frames"] == FRAMES
    assert run.report["recon_frames"] == 3 * FRAMES
    assert tuple(run.report["score"]) == STRUCTURES
    scores = run.report["score"].values()
    assert np.mean([s["pcc"] for s in scores]) > np.mean([s["input_pcc"] for s in scores]) + 0.1
    assert run.report["time_shift_ms"] > 0
    assert tuple(run.header.score) == STRUCTURES
    assert run.header.channel == SUM


def test_the_score_is_what_the_store_says(run: Run) -> None:
    inner = (slice(16, -16),) * 2
    for i, name in enumerate(STRUCTURES):
        predicted = run.plane("sr_0_488-561-640", 2)[i]
        true = run.plane(f"recon_0_{CHANNELS[i]}", 2)
        again = score(predicted[inner], true[inner])
        stored = run.lines("sr")[2]["score"][name]
        assert (again.pcc, again.ssim, again.nrmse) == pytest.approx(
            (stored["pcc"], stored["ssim"], stored["nrmse"]), abs=5e-3
        )


def test_the_sum_and_what_it_is_made_of_lie_side_by_side(run: Run) -> None:
    kinds = {image.name: image.attributes["livesr"] for image in run.store.images.values()}
    assert sorted(kinds) == sorted(
        [
            *(f"{k}_0_{c}" for k in ("raw", "recon") for c in CHANNELS),
            "recon_0_488-561-640",
            "sr_0_488-561-640",
        ]
    )
    assert {name for name, about in kinds.items() if about["prediction"]} == {"sr_0_488-561-640"}
    assert kinds["recon_0_488-561-640"]["superposed"]["channels"] == list(CHANNELS)
    of = {
        (e["channel"], e["t"]): e["normalisation"]
        for e in run.store.events
        if e["series"] == "recon"
    }
    level = np.mean([of[c, 3]["headroom"] for c in CHANNELS])
    expected = sum(
        (run.plane(f"recon_0_{c}", 3) - 1000 - of[c, 3]["background"])
        * level
        / of[c, 3]["headroom"]
        for c in CHANNELS
    )
    np.testing.assert_allclose(run.plane("recon_0_488-561-640", 3) - 1000, expected, atol=4)
    assert run.lines("recon")[3]["time_shift_ms"] > 0


def test_the_sum_lies_where_its_channels_do(run: Run) -> None:
    where = {image.name: image.stage_um for image in run.store.images.values()}
    assert where["raw_0_488"]
    assert set(map(str, where.values())) == {str(where["raw_0_488"])}


def test_an_offline_run_gives_the_same(run: Run, tmp_path: Path) -> None:
    raw = raw_input(run.store.path)
    report = process(raw, tmp_path / "again.ome.zarr", compute=ComputeConfig(threads=1))
    again = Path(report["store"])
    for name in (*(f"recon_0_{c}" for c in CHANNELS), "recon_0_488-561-640"):
        np.testing.assert_array_equal(array(again, name), array(run.store.path, name))
    difference = array(again, "sr_0_488-561-640").astype(int) - array(
        run.store.path, "sr_0_488-561-640"
    )
    assert np.abs(difference).max() <= 1
    assert report["score"] == run.report["score"]
    assert report["sr_frames"] == FRAMES


def test_skipped_sums_are_backfilled(
    run: Run, core: CMMCorePlus, rig: RigConfig, tmp_path: Path
) -> None:
    assert backfill(run.store.path)["predicted"] == 0
    store = shutil.copytree(run.store.path, tmp_path / "gaps.ome.zarr")
    log = store / "livesr" / "frames.jsonl"
    kept = [
        line for line in log.read_text().splitlines() if not _is_prediction(json.loads(line), t=2)
    ]
    log.write_text("\n".join(kept) + "\n")
    done = backfill(store, compute=ComputeConfig(threads=1))
    assert (done["predicted"], done["reconstructed"], done["impossible"]) == (1, 0, 0)
    difference = array(store, "sr_0_488-561-640").astype(int) - array(
        run.store.path, "sr_0_488-561-640"
    )
    assert np.abs(difference).max() <= 1
    (line,) = [e for e in RecordedStore(store).events if _is_prediction(e, t=2)]
    assert line["score"] == run.lines("sr")[2]["score"]


def test_a_sum_is_of_the_moments_that_are_known(run: Run, tmp_path: Path) -> None:
    store = tmp_path / "run.ome.zarr"
    shutil.copytree(run.store.path, store)
    log = store / "livesr" / "frames.jsonl"
    kept = [e for e in run.store.events if (e["series"], e["channel"], e["t"]) != ("raw", "561", 2)]
    log.write_text("".join(to_json(e) + "\n" for e in kept), encoding="utf-8")
    repair(store)
    report = process(
        raw_input(store), tmp_path / "again.ome.zarr", compute=ComputeConfig(threads=1)
    )
    assert 0 < report["time_shift_ms"] <= run.report["time_shift_ms"]
    key = Stream(0, SUM), 2
    line = RecordedStore(Path(report["store"])).pictures("recon")[key]
    before = run.store.pictures("recon")[key]
    assert abs(line["t_acq_ns"] - before["t_acq_ns"]) <= 1e6 * before["time_shift_ms"]


def _is_prediction(event: dict[str, Any], t: int) -> bool:
    return event["series"] == "sr" and event["channel"] == SUM and event["t"] == t


def test_the_pairs_train(run: Run) -> None:
    recipes = pytest.importorskip("livesr.training.recipes", reason="training needs torch")
    recipe = recipes.load_recipe(run.pairs / "recipe.yaml")
    assert recipe.data.images is not None
    assert tuple(recipe.data.images.folders) == STRUCTURES
    for folder in recipe.data.images.folders.values():
        (tiff,) = Path(folder).glob("*.tif")
        for part in (1, 2):  # one cell is no validation: another run's file
            tiff.with_name(f"{part}.tif").write_bytes(tiff.read_bytes())
    frames, targets = recipe.data.maker("train").make((1, 0))
    assert frames.shape == (3, recipe.data.size, recipe.data.size)
    assert targets.shape == (3, recipe.data.size, recipe.data.size)
    np.testing.assert_allclose(targets.sum(0), frames[1], atol=0.3)


def test_a_time_point_that_lacks_a_channel_has_no_sum_until_it_is_complete(
    core: CMMCorePlus, rig: RigConfig, tmp_path: Path
) -> None:
    events = [
        e
        for e in sim_sequence(3, CHANNELS)
        if (e.index["t"], e.index["c"], e.index["sim"]) != (1, 1, 4)
    ]
    with LiveSR(
        core, rig=rig, engine="none", plan=events, store=tmp_path / "gap.ome.zarr"
    ) as session:
        core.mda.run(events)
    store = RecordedStore(Path(session.report["store"]))
    assert sorted(
        e["t"] for e in store.events if e["series"] == "recon" and e["channel"] == SUM
    ) == [0, 2]
    (skipped,) = [e for e in store.events if e["state"] == "skipped" and e["channel"] == SUM]
    assert skipped["reason"] == "channel 561: raw frames missing"
    assert array(store.path, "recon_0_488-561-640").shape[0] == 3


def test_weights_and_words(core: CMMCorePlus, rig: RigConfig, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="does not describe"):
        rig.superposing(["48", "561"])
    with pytest.raises(ConfigError, match="superposed twice"):
        rig.superposing(["488", "488"])
    two = rig.superposing(["488", "640"], [1.0, 0.5])
    with pytest.raises(ConfigError, match="one channel for each structure"), LiveSR(core, rig=two):
        pass
    with (
        pytest.raises(ConfigError, match="does not acquire 640"),
        LiveSR(core, rig=rig, plan=sim_sequence(2, CHANNELS[:2])),
    ):
        pass
    (tmp_path / "others").mkdir()
    (tmp_path / "others" / "recipe.yaml").write_text("data: {images: {folders: {Actin: actin}}}")
    with (
        pytest.raises(ConfigError, match="holds pairs of Actin"),
        LiveSR(
            core, rig=rig, engine="none", plan=sim_sequence(2, CHANNELS), pairs=tmp_path / "others"
        ),
    ):
        pass
    apart = RawFramesPlan(
        useq.MDASequence(
            channels=list(CHANNELS), time_plan={"interval": 0, "loops": 3}, axis_order="ct"
        ),
        rig.raw_frames,
    )
    with (
        pytest.raises(ConfigError, match="channels inside time"),
        LiveSR(core, rig=rig, plan=apart),
    ):
        pass
    film = load_rig("virtual_storm")
    plan = sim_sequence(2, list(film.channels), raw=100)
    with (
        core_of("virtual_storm", 1, SensorSize=64, Frames=2) as other,
        pytest.raises(ConfigError, match="say with --superpose"),
        LiveSR(other, rig=film, plan=plan, pairs=tmp_path / "pairs"),
    ):
        pass
