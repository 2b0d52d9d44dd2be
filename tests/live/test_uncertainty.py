"""Uncertainty on demand: stored beside the prediction, published, shown, the same offline.

And the prediction as without.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaozarrs
import zarr

from backend_contract import make_engine, small_network
from livesr.base.compute import ComputeConfig
from livesr.base.config import RigConfig
from livesr.base.errors import ConfigError
from livesr.base.geometry import Geometry
from livesr.evaluation.live_path import separate
from livesr.formats.store import RecordedStore
from livesr.live.inference.engine import Limits, Uncertain, load_engine, write_manifest
from livesr.live.paths import build_path
from livesr.live.sinks.zeromq import ZeroMQSink
from livesr.store.backfill import backfill
from livesr.store.process import process
from livesr.store.raw_input import store_input
from livesr.viewer.browser.messages import View
from livesr.viewer.browser.pictures import PictureMaker
from livesr.viewer.frame_pairs import LiveFramePairs, Selection
from livesr.viewer.store_source import StoreSource
from livesr.viewer.subscriber import Subscriber
from recorded_runs import Live, array, assert_equal, lines, moving_groups, sim_rig

SCALE = 3.0


@pytest.fixture
def rig(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RigConfig:
    """An engine that is not alike on all sides, and whose uncertainty was measured."""
    monkeypatch.setenv("LIVESR_HOME", str(tmp_path))
    folder = tmp_path / "engines" / "small"
    manifest = make_engine(folder, small_network()).manifest
    measured = {"limits": {"uncertainty": {"views": "flips", "scale": SCALE, "correlation": 0.5}}}
    write_manifest(folder, type(manifest).model_validate(manifest.model_dump() | measured))
    return sim_rig(str(load_engine(folder).folder))


def recorded(rig: RigConfig, store: Path, n_t: int = 4, **how: Any) -> tuple[dict[str, Any], Path]:
    live = Live(rig, store, **how)
    report = live.record(moving_groups(n_t))
    return report, live.sink.path


def waited_for(condition: Callable[[], bool]) -> float:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return 0.0


def test_it_is_an_image_of_its_own_that_says_what_it_is(rig: RigConfig, tmp_path: Path) -> None:
    _, plain = recorded(rig, tmp_path / "plain")
    _, with_it = recorded(rig, tmp_path / "with", uncertainty="flips")
    assert not (plain / "uncertainty").exists()
    assert_equal(plain, with_it, ("raw", "recon", "sr"))
    yaozarrs.validate_zarr_store(str(with_it))
    about = zarr.open_group(with_it / "uncertainty", mode="r").attrs
    assert "neither data nor prediction" in about["ome"]["multiscales"][0]["name"]
    assert (about["livesr"]["prediction"], about["livesr"]["measurement"]) == (False, False)
    assert about["livesr"]["uncertainty"] == {
        "views": "flips",
        "calibrated": True,
        "scale": SCALE,
        "correlation": 0.5,
    }
    assert lines(with_it, "uncertainty").keys() == lines(with_it, "sr").keys()
    stored = array(with_it, "uncertainty")
    assert stored.shape == array(with_it, "sr").shape
    assert all(stored[t].any() for t in range(4))


def test_an_offline_run_and_a_backfill_give_the_same(rig: RigConfig, tmp_path: Path) -> None:
    report, live = recorded(
        rig, tmp_path / "live", n_t=8, uncertainty="flips", policy="latest", slow={"infer": 0.05}
    )
    assert report["sr_skipped"] > 0
    offline = Path(
        process(
            store_input(RecordedStore(live)), tmp_path / "offline", compute=ComputeConfig(threads=1)
        )["store"]
    )
    backfill(live, compute=ComputeConfig(threads=1))
    assert_equal(live, offline)
    np.testing.assert_allclose(
        array(live, "uncertainty").astype(int), array(offline, "uncertainty").astype(int), atol=1
    )
    assert (
        lines(live, "uncertainty").keys() == lines(live, "sr").keys() == lines(live, "raw").keys()
    )


def test_an_offline_run_can_estimate_what_the_live_run_did_not(
    rig: RigConfig, tmp_path: Path
) -> None:
    _, plain = recorded(rig, tmp_path / "plain")
    raw = store_input(RecordedStore(plain))
    compute = ComputeConfig(threads=1, uncertainty="d4")
    report = process(raw, tmp_path / "offline", compute=compute)
    offline = Path(report["store"])
    assert array(offline, "uncertainty").any()
    assert any("by d4 is worth was not measured" in w for w in report["warnings"])
    # A store keeps the word that it was laid out with.
    about = zarr.open_group(offline / "uncertainty", mode="r").attrs["livesr"]["uncertainty"]
    assert (about["views"], about["calibrated"]) == ("turns", False)
    assert store_input(RecordedStore(offline)).uncertainty == {"488": "d4"}


def test_what_is_measured_of_it_is_the_bare_spread(rig: RigConfig) -> None:
    compute = ComputeConfig(device="cpu", threads=1)
    path = build_path(rig, "488", Geometry((32, 32), "uint16", 0.065), compute)
    measured, session, _ = path.networks.steps[0]
    unmeasured = replace(
        measured, manifest=measured.manifest.model_copy(update={"limits": Limits()})
    )
    found, expected = (
        separate(moving_groups(3), path.reconstructor, 0.065, engine, session, "flips")
        for engine in (measured, unmeasured)
    )
    path.close()
    for one, other in zip(found, expected, strict=True):
        assert one.uncertainty.any()
        np.testing.assert_array_equal(one.uncertainty, other.uncertainty)


def test_the_old_name_of_d4_is_still_read(caplog: pytest.LogCaptureFixture) -> None:
    assert ComputeConfig.model_validate({"uncertainty": "turns"}).uncertainty == "d4"
    assert "'turns' is now called 'd4'" in caplog.text
    assert Uncertain.model_validate({"views": "turns", "scale": 1}).augmentation == "d4"
    with pytest.raises(ValueError, match="'flips' or 'd4'"):
        ComputeConfig.model_validate({"uncertainty": "sides"})


def test_it_is_published_before_its_prediction_and_shown_over_the_measurement(
    rig: RigConfig, tmp_path: Path
) -> None:
    publisher = ZeroMQSink("tcp://127.0.0.1:*")
    live = Live(rig, tmp_path / "live", uncertainty="flips", sinks=[publisher])
    came: list[np.ndarray[Any, Any]] = []
    open_sink = publisher.open

    def listening(run: Any) -> None:
        open_sink(run)
        subscriber.endpoint = publisher.endpoint or ""
        subscriber.open()

    publisher.open = listening  # type: ignore[method-assign]
    subscriber = Subscriber("")

    def until_it_listens(t: int) -> float:
        return waited_for(lambda: subscriber.heard)

    live.record(moving_groups(4), pace_s=until_it_listens)
    try:
        waited_for(lambda: subscriber.newest("end") is not None)
        pair = LiveFramePairs(subscriber).pair(Selection())
        assert pair is not None
        assert pair.prediction is not None
        assert pair.uncertainty is not None
        assert pair.uncertainty.header.t == pair.prediction.header.t
        assert pair.uncertainty.header.ai["prediction"] is False
        assert "flipped" in pair.uncertainty.header.ai["warning"]
        came.append(np.asarray(pair.uncertainty.pixels))
    finally:
        subscriber.close()
    source = StoreSource(live.sink.path)
    stored = source.pair(Selection(), 3)
    assert stored is not None
    np.testing.assert_array_equal(stored.uncertainty.pixels, came[0])  # type: ignore[union-attr]
    drawn = PictureMaker(source).make(View(uncertainty=True), 3)
    assert drawn is not None
    assert (drawn.content["overlay"], drawn.content["uncertainty"]) == ("uncertainty", True)
    plain = PictureMaker(source).make(View(), 3)
    assert plain is not None
    assert drawn.pictures != plain.pictures


def test_frames_that_cannot_be_turned_are_refused(rig: RigConfig) -> None:
    with pytest.raises(ConfigError, match="cannot be turned"):
        build_path(
            rig,
            "488",
            Geometry((32, 64), "uint16", 0.065),
            ComputeConfig(uncertainty="d4", device="cpu"),
        )
