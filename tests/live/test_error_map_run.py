"""Pictures beside their widefield mean: while a run goes on, offline, stored, published, shown."""

from __future__ import annotations

import shutil
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
import yaozarrs
import zarr

from livesr.base.compute import ComputeConfig
from livesr.base.config import RigConfig, load_rig
from livesr.base.errors import ConfigError
from livesr.base.frames import FrameErrors
from livesr.formats.store import RecordedStore
from livesr.live import error_maps
from livesr.live.sinks.sink import Sink
from livesr.live.sinks.zeromq import ZeroMQSink
from livesr.optics.error_map import error_map
from livesr.simulation.blinking_rig import BlinkingBank
from livesr.store.backfill import backfill
from livesr.store.process import process
from livesr.store.raw_input import store_input
from livesr.viewer.browser.messages import View
from livesr.viewer.browser.pictures import PictureMaker
from livesr.viewer.store_source import StoreSource
from livesr.viewer.subscriber import Subscriber
from recorded_runs import RIGS, Live, array, lines, moving_groups, sim_rig
from waiting import until

N_T = 4
FILM = 8  # groups


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = Live(sim_rig("identity"), tmp_path_factory.mktemp("plain") / "live")
    run.record(moving_groups(N_T))
    return run.sink.path


@pytest.fixture(scope="module")
def compared(live: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    compute = ComputeConfig(threads=1, error_map="planes")
    folder = tmp_path_factory.mktemp("compared")
    report = process(store_input(RecordedStore(live)), folder / "store", compute=compute)
    return Path(report["store"]), dict(report)


def numbers(store: Path) -> dict[int, dict[str, Any]]:
    return {e["t"]: e["compared"] for e in RecordedStore(store).events if e["series"] == "error"}


def test_every_frame_of_a_recording_is_compared(
    live: Path, compared: tuple[Path, dict[str, Any]]
) -> None:
    store, report = compared
    yaozarrs.validate_zarr_store(str(store))
    found = numbers(store)
    assert sorted(found) == list(range(N_T))
    raw, recon = array(live, "raw"), array(store, "recon")
    inside, edge = slice(1, -1), slice(2, -2)
    for t, of in found.items():
        expected = error_map(
            raw[t][:, inside, inside].mean(0), recon[t][edge, edge].astype(float), centred=True
        )
        assert expected is not None
        assert of["reconstruction"]["rsp"] == pytest.approx(expected.rsp, abs=2e-3)
        plane = array(store, "error")[t, 0] * 0.1
        np.testing.assert_allclose(plane[edge, edge], expected.plane, atol=0.02 * raw[t].mean())
        assert not plane[:2].any()
    assert report["error_map"]["488"]["reconstruction"]["frames"] == N_T
    assert report["error_map"]["488"]["prediction"]["rsp"] == pytest.approx(
        np.mean([of["prediction"]["rsp"] for of in found.values()]), abs=1e-3
    )


def test_the_image_says_what_it_is(compared: tuple[Path, dict[str, Any]]) -> None:
    about = zarr.open_group(compared[0] / "error", mode="r").attrs
    assert "neither data nor prediction" in about["ome"]["multiscales"][0]["name"]
    assert (about["livesr"]["prediction"], about["livesr"]["measurement"]) == (False, False)
    assert [c["label"] for c in about["ome"]["omero"]["channels"]] == [
        "error of reconstruction",
        "error of prediction",
    ]


def test_without_being_asked_nothing_is_compared(live: Path) -> None:
    assert not numbers(live)
    assert not (live / "error").exists()


def test_numbers_alone_take_no_image(live: Path, tmp_path: Path) -> None:
    compute = ComputeConfig(threads=1, error_map="numbers")
    report = process(store_input(RecordedStore(live)), tmp_path / "store", compute=compute)
    store = Path(report["store"])
    assert not (store / "error").exists()
    assert sorted(numbers(store)) == list(range(N_T))
    assert not lines(store, "error")


def test_a_backfill_says_where_to_turn(live: Path) -> None:
    with pytest.raises(ConfigError, match="livesr process"):
        backfill(live, compute=ComputeConfig(error_map="numbers"))


def test_a_comparison_that_hangs_holds_nothing_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The network sees every frame while the first comparison does not return."""
    stuck, let_go = threading.Event(), threading.Event()

    def hangs(*arguments: Any, **how: Any) -> None:
        stuck.set()
        assert let_go.wait(60)

    monkeypatch.setattr(error_maps, "error_map", hangs)

    class Counts(Sink):
        name, lossless = "counts", True
        recon_frames = predictions = 0

        def recon(self, frame: Any) -> None:
            self.recon_frames += 1

        def separated(self, frame: Any) -> None:
            self.predictions += 1
            if self.predictions == 5:
                assert stuck.wait(60)
                let_go.set()

    counts = Counts()
    run = Live(sim_rig("identity"), tmp_path / "live", sinks=[counts], error_map="numbers")
    report = run.record(moving_groups(8))
    assert let_go.is_set()
    assert (counts.recon_frames, counts.predictions, report["error"]) == (8, 8, None)
    assert "error_map" not in report


def test_a_comparison_that_fails_is_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*arguments: Any, **how: Any) -> None:
        raise MemoryError("none left")

    monkeypatch.setattr(error_maps, "error_map", fails)
    run = Live(sim_rig("identity"), tmp_path / "live", error_map="planes")
    report = run.record(moving_groups(3))
    assert report["sr_frames"] == 3
    assert any(w.startswith("Comparing with widefield failed") for w in report["warnings"])


def test_it_comes_on_the_wire_after_its_prediction(tmp_path: Path) -> None:
    publisher, kept = ZeroMQSink("tcp://127.0.0.1:*"), []

    class Keeps(Sink):
        name, lossless = "keeps", True

        def errors(self, frame: FrameErrors) -> None:
            kept.append(frame)

    run = Live(
        sim_rig("identity"), tmp_path / "live", sinks=[publisher, Keeps()], error_map="numbers"
    )
    run.pipeline.open()
    try:
        with Subscriber(str(publisher.endpoint)) as subscriber:
            until(lambda: subscriber.heard)
            run.pipeline.open = lambda: None  # type: ignore[method-assign]
            run.record(moving_groups(4), pace_s=lambda t: 0.1)
            until(lambda: subscriber.newest("end") is not None)
            message = subscriber.newest("sr/error")
    finally:
        run.pipeline.end()
    assert message is not None
    sent = next(frame for frame in kept if frame.source.t == message.header.t)
    np.testing.assert_array_equal(message.pixels, sent.planes)
    assert message.header.compared["prediction"]["rsp"] == pytest.approx(
        sent.numbers["prediction"].rsp, rel=1e-3
    )
    assert [c.label for c in message.header.channels] == ["reconstruction", "prediction"]


def test_the_page_paints_it(compared: tuple[Path, dict[str, Any]]) -> None:
    maker = PictureMaker(StoreSource(compared[0]))
    plain, painted = (
        maker.make(View(mode="prediction")),
        maker.make(View(mode="prediction", error=True)),
    )
    assert plain
    assert painted
    assert painted.content["overlay"] == "error"
    assert set(painted.content["error"]["rsp"]) == {"reconstruction", "prediction"}
    assert plain.pictures != painted.pictures


def test_what_waits_for_predictions_is_bounded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(error_maps, "_HELD_BYTES", 1)
    run = Live(sim_rig("identity"), tmp_path / "live", error_map="numbers", slow={"infer": 0.05})
    most = 0
    errors = run.pipeline._run.errors
    measured = errors.measured

    def watched(frame: Any) -> None:
        nonlocal most
        measured(frame)
        most = max(most, len(errors._waiting))

    errors.measured = watched  # type: ignore[method-assign]
    run.record(moving_groups(8))
    assert 0 < most <= 2


# -- pictures that reach back ----------------------------------------------------------------------


def blinking_rig(name: str, folder: Path, **settings: Any) -> RigConfig:
    """Return a virtual rig with other settings, as a store keeps it as well."""
    folder.mkdir()
    asked = yaml.safe_load((RIGS / name / "rig.yaml").read_text(encoding="utf-8"))
    asked["optics"]["pixel_size_nm"] = 65.0  # of `Live`
    asked[asked["modality"]] |= settings
    (folder / "rig.yaml").write_text(yaml.safe_dump(asked), encoding="utf-8")
    shutil.copy(RIGS / name / "rig.cfg", folder)
    return load_rig(folder)


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> np.ndarray:
    rig = blinking_rig("virtual_storm", tmp_path_factory.mktemp("film") / "rig", frames=20)
    return BlinkingBank(rig, 96, 20 * FILM, lit=30).frames.reshape(FILM, 20, 96, 96)


@pytest.mark.parametrize(
    ("name", "group"), [("virtual_storm", "frames"), ("virtual_fluctuation", "every")]
)
def test_no_group_is_left_out_of_the_widefield_picture(
    name: str, group: str, film: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A live run that finds time for few frames says of the last one what a patient one says."""
    let_go = threading.Event()

    def waits(*arguments: Any, **how: Any) -> Any:
        assert let_go.wait(60)
        return error_map(*arguments, **how)

    monkeypatch.setattr(error_maps, "error_map", waits)

    class Last(Sink):
        name, lossless = "last", True

        def recon(self, frame: Any) -> None:
            if frame.t == FILM - 1:
                let_go.set()

    rig = blinking_rig(name, tmp_path / "rig", **{group: 20})
    live = Live(rig, tmp_path / "live", shape=(96, 96), sinks=[Last()], error_map="planes")
    live.record(film)
    hurried = numbers(live.sink.path)
    assert len(hurried) < FILM
    compute = ComputeConfig(threads=1, error_map="planes")
    report = process(
        store_input(RecordedStore(live.sink.path)), tmp_path / "patient", compute=compute
    )
    patient = numbers(Path(report["store"]))
    assert sorted(patient) == list(range(FILM))
    last = {
        name: of[FILM - 1]["reconstruction"]
        for name, of in (("live", hurried), ("patient", patient))
    }
    assert last["live"]["groups"] == FILM
    assert last["live"] == pytest.approx(last["patient"], rel=1e-3)
    assert array(Path(report["store"]), "error")[FILM - 1].any()


def test_a_window_is_compared_with_its_own_groups(film: np.ndarray, tmp_path: Path) -> None:
    """Drift is counted from the first group, and the picture shows two."""
    rig = blinking_rig(
        "virtual_storm", tmp_path / "rig", frames=20, sliding_groups=2, drift_correction=True
    )
    live = Live(rig, tmp_path / "live", shape=(96, 96), error_map="numbers")
    live.record(film)
    groups = {t: of["reconstruction"]["groups"] for t, of in numbers(live.sink.path).items()}
    assert groups
    assert all(n == min(t + 1, 2) for t, n in groups.items())


@pytest.mark.parametrize(
    ("name", "group"), [("virtual_storm", "frames"), ("virtual_fluctuation", "every")]
)
def test_drift_that_was_taken_out_is_no_error(
    name: str, group: str, film: np.ndarray, tmp_path: Path
) -> None:
    rig = blinking_rig(name, tmp_path / "rig", **{group: 20, "drift_correction": True})
    drifted = np.stack([np.roll(frames, t // 2, axis=-1) for t, frames in enumerate(film)])
    rsp = {}
    for how, frames in (("still", film), ("drifted", drifted)):
        live = Live(rig, tmp_path / how, shape=(96, 96))
        live.record(frames)
        compute = ComputeConfig(threads=1, error_map="numbers")
        report = process(
            store_input(RecordedStore(live.sink.path)), tmp_path / f"{how}-2", compute=compute
        )
        rsp[how] = numbers(Path(report["store"]))[FILM - 1]["reconstruction"]["rsp"]
    assert rsp["drifted"] == pytest.approx(rsp["still"], abs=0.03)


def contradicted(rig: RigConfig, groups: np.ndarray, store: Path) -> tuple[list[float], list[str]]:
    """Return the RSP of every frame, and what is warned of."""
    live = Live(rig, store, shape=groups.shape[2:])
    live.record(groups)
    compute = ComputeConfig(threads=1, error_map="numbers")
    report = process(
        store_input(RecordedStore(store)), store.with_suffix(".again"), compute=compute
    )
    found = numbers(Path(report["store"]))
    warned = [w for w in report["warnings"] if "contradict the widefield mean" in w]
    return [found[t]["reconstruction"]["rsp"] for t in sorted(found)], warned


def test_pictures_that_contradict_their_exposures_are_warned_of(
    film: np.ndarray, tmp_path: Path
) -> None:
    """Spots that are fitted three times as wide as they are; as they are, nothing is said."""
    rig = blinking_rig("virtual_storm", tmp_path / "rig", frames=20)
    in_order, said = contradicted(rig, film, tmp_path / "in-order")
    assert in_order[-1] > 0.9, in_order
    assert not said
    wide = blinking_rig("virtual_storm", tmp_path / "wide-rig", frames=20, psf_sigma_nm=190.0)
    wrong, said = contradicted(wide, film, tmp_path / "wide")
    assert wrong[-1] < 0.85, wrong
    assert len(said) == 1
    assert "First at time point 3" in said[0]  # of fewer groups it is only dotted


def test_a_reconstruction_of_noise_is_warned_of(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).poisson(4, (3, 9, 64, 64)).astype(np.uint16) + 100
    rsp, said = contradicted(sim_rig("identity"), noise, tmp_path / "noise")
    assert max(rsp) < 0.85
    assert "First at time point 0" in said[0]
