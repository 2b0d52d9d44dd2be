"""Several views of a frame: their spread, stored beside the prediction, published, shown, the same
offline, and the prediction as without; their mean, which is another prediction.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaozarrs
import zarr
from numpy.typing import NDArray

from backend_contract import make_engine, small_network
from livesr.base.compute import ComputeConfig
from livesr.base.config import RigConfig, parse
from livesr.base.errors import ConfigError, StoreError
from livesr.base.frames import Normalisation, Stream
from livesr.base.geometry import Geometry
from livesr.evaluation.live_path import separate
from livesr.formats.store import RecordedStore
from livesr.live.inference.engine import Limits, load_engine, write_manifest
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
from waiting import until

SCALE = 3.0
INSIDE = np.s_[:, 20:44, 20:44]  # where no edge is made even


@pytest.fixture
def rig(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RigConfig:
    """An engine that is not alike on all sides, and whose uncertainty was measured."""
    monkeypatch.setenv("LIVESR_HOME", str(tmp_path))
    folder = tmp_path / "engines" / "small"
    manifest = make_engine(folder, small_network()).manifest
    measured = {
        "limits": {"uncertainty": {"augmentation": "flips", "scale": SCALE, "correlation": 0.5}}
    }
    write_manifest(folder, type(manifest).model_validate(manifest.model_dump() | measured))
    return sim_rig(str(load_engine(folder).folder))


def recorded(rig: RigConfig, store: Path, n_t: int = 4, **how: Any) -> tuple[dict[str, Any], Path]:
    live = Live(rig, store, **how)
    report = live.record(moving_groups(n_t))
    return report, live.sink.path


def waited_for(condition: Callable[[], bool]) -> float:
    until(condition)
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


def seen_from(rig: RigConfig, views: int, normalised: Normalisation) -> NDArray[np.float64]:
    """What the rig's engine predicts of `moving_groups(3)` at t = 1 in the mean of its views."""
    compute = ComputeConfig(device="cpu", threads=1, backend="torch")
    path = build_path(rig, "488", Geometry((32, 32), "uint16", 0.065), compute)
    engine, session, _ = path.networks.steps[0]
    turned = [
        (turn, flip) for turn in (False, True) for flip in ((1, 1), (-1, -1), (1, -1), (-1, 1))
    ][:views]
    images = [path.reconstructor.reconstruct(group).copy() for group in moving_groups(3)]
    background, scale = normalised
    total: NDArray[np.float64] = np.zeros(engine.output_shape(images[1].shape))
    for turn, (along_y, along_x) in turned:
        for plane, image in zip(session.input, images, strict=True):
            view = (image - background) / scale
            plane[...] = (view.T if turn else view)[::along_y, ::along_x]
        made = session.infer()[:, ::along_y, ::along_x]
        total += made.swapaxes(1, 2) if turn else made
    path.close()
    return total * scale / views


@pytest.mark.parametrize(("views", "count"), [("half-turn", 2), ("flips", 4), ("d4", 8)])
def test_an_ensemble_predicts_the_mean_of_its_views_and_says_so(
    rig: RigConfig, tmp_path: Path, views: Any, count: int
) -> None:
    _, plain = recorded(rig, tmp_path / "plain", n_t=3)
    live = Live(rig, tmp_path / "with", ensemble=views, backend="torch")
    assert live.paths["488"].networks.computes.endswith(f", mean of {count} views")
    live.record(moving_groups(3))
    store = live.sink.path
    assert_equal(plain, store, ("raw", "recon"))
    assert not (store / "uncertainty").exists()
    offset = RecordedStore(store).provenance("488")["intensity"]["offset"]
    levels = RecordedStore(store).normalisations()[Stream(0, "488", 0), 1]
    expected = np.maximum(seen_from(rig, count, levels), -offset)
    made, single = (
        array(path, "sr")[1].reshape(expected.shape).astype(float) - offset
        for path in (store, plain)
    )
    np.testing.assert_allclose(made[INSIDE], expected[INSIDE], atol=1.01)
    assert np.abs(made - single)[INSIDE].max() > 2
    assert RecordedStore(store).provenance("488")["ensemble"] == views
    assert store_input(RecordedStore(store)).ensemble == {"488": views}
    assert store_input(RecordedStore(plain)).ensemble == {}
    group = store / "sr" / "zarr.json"
    group.write_text(group.read_text().replace(f'"ensemble": "{views}"', '"ensemble": "d5"'))
    with pytest.raises(StoreError, match="views 'd5'"):
        store_input(RecordedStore(store))


def test_an_offline_run_and_a_backfill_of_an_ensemble_give_the_same(
    rig: RigConfig, tmp_path: Path
) -> None:
    how = {"ensemble": "flips", "uncertainty": "flips"}
    report, live = recorded(
        rig, tmp_path / "live", n_t=8, policy="latest", slow={"infer": 0.05}, **how
    )
    assert report["sr_skipped"] > 0
    single = ComputeConfig(threads=1)
    offline = Path(
        process(store_input(RecordedStore(live)), tmp_path / "o", compute=single)["store"]
    )
    with pytest.raises(ConfigError, match=r"Ensemble from d4 is asked for, .* that from flips"):
        backfill(live, compute=ComputeConfig(threads=1, ensemble="d4"))
    backfill(live, compute=single)
    assert_equal(live, offline)
    assert lines(live, "uncertainty").keys() == lines(live, "raw").keys()
    # Other views that are asked for are those of both.
    again = process(
        store_input(RecordedStore(live)),
        tmp_path / "again",
        compute=ComputeConfig(threads=1, ensemble="d4"),
    )
    found = store_input(RecordedStore(Path(again["store"])))
    assert (found.ensemble, found.uncertainty) == ({"488": "d4"}, {"488": "d4"})


def test_off_takes_away_the_views_that_a_store_was_begun_with(
    rig: RigConfig, tmp_path: Path
) -> None:
    how = {"ensemble": "flips", "uncertainty": "flips"}
    _, live = recorded(rig, tmp_path / "live", n_t=3, **how)
    _, plain = recorded(rig, tmp_path / "plain", n_t=3)

    def again(**off: Any) -> Path:
        compute = ComputeConfig(threads=1, **off)
        made = process(store_input(RecordedStore(live)), tmp_path / "again", compute=compute)
        return Path(made["store"])

    single = again(ensemble="off", uncertainty="off")
    assert_equal(plain, single)
    assert "ensemble" not in RecordedStore(single).provenance("488")
    assert not (single / "uncertainty").exists()
    for kept in how:
        (off,) = how.keys() - {kept}
        found = store_input(RecordedStore(again(**{off: "off"})))
        assert (getattr(found, kept), getattr(found, off)) == ({"488": "flips"}, {})
    off = {"ensemble": "off", "uncertainty": "off"}
    with pytest.raises(ConfigError, match=r"No uncertainty is asked for, .* that from flips"):
        backfill(live, compute=ComputeConfig(threads=1, **off))
    backfill(plain, compute=ComputeConfig(threads=1, **off))
    mixed = ComputeConfig(ensemble="off", uncertainty="d4")
    assert (mixed.views, mixed.averaged, mixed.compared) == ("d4", None, "d4")


def test_one_set_of_views_serves_both() -> None:
    with pytest.raises(ValueError, match="ensemble is 'flips' and uncertainty 'd4'"):
        ComputeConfig(ensemble="flips", uncertainty="d4")


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


@pytest.mark.parametrize("said", ["sides", False])
def test_other_views_are_refused_with_those_that_there_are(said: object) -> None:
    for name in ("uncertainty", "ensemble"):
        expected = rf"^asked: {name}: Input should be 'half-turn', 'flips', 'd4' or 'off' \(got"
        with pytest.raises(ConfigError, match=expected):
            parse(ComputeConfig, {name: said}, "asked")


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


@pytest.mark.parametrize("what", ["uncertainty", "ensemble"])
def test_frames_that_cannot_be_turned_are_refused(rig: RigConfig, what: str) -> None:
    with pytest.raises(ConfigError, match="cannot be turned"):
        build_path(
            rig,
            "488",
            Geometry((32, 64), "uint16", 0.065),
            ComputeConfig.model_validate({what: "d4", "device": "cpu"}),
        )
