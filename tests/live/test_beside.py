"""Engines of two inputs: which frame of another channel goes with which, and that it is said."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
import zarr
from pymmcore_plus import CMMCorePlus

from livesr import LiveSR
from livesr.base.config import ChannelConfig, RigConfig, load_rig
from livesr.base.documents import to_json
from livesr.base.errors import ConfigError
from livesr.base.geometry import Geometry
from livesr.formats.store import RecordedStore
from livesr.live.beside import check_companions, on_pixels
from livesr.live.paths import build_path
from livesr.live.sources.plan import sim_sequence
from livesr.modalities.storm.config import STORMConfig
from livesr.store.backfill import backfill
from livesr.store.process import process
from livesr.store.raw_input import raw_input
from livesr.store.repair import repair
from recorded_runs import array, lines
from rigs import core_of
from two_inputs import two_input_engine

N, SIZE = 5, 32


@pytest.fixture(autouse=True)
def engines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """ "other" draws what is beside the picture, "itself" the picture."""
    monkeypatch.setenv("LIVESR_HOME", str(tmp_path / "home"))
    folder = tmp_path / "home" / "engines"
    two_input_engine(folder / "other", (0.0, 1.0))
    two_input_engine(folder / "itself", (1.0, 0.0))
    return folder


@pytest.fixture(scope="module")
def core() -> Iterator[CMMCorePlus]:
    with core_of("virtual_storm", 2.0, SensorSize=SIZE, Frames=45, Lit=5, Photons=3000) as core:
        core.defineConfig("Channel", "561", "Camera", "AllLit", "20")
        core.defineConfig("Channel", "647", "Camera", "AllLit", "0")
        yield core


def rig(engine: str | None = "other", **more: Any) -> RigConfig:
    whole = load_rig("virtual_storm")
    section = STORMConfig.of(whole)
    changes = {"frames": N, "drift_correction": False}
    channels = {
        "561": ChannelConfig(reconstruct="widefield"),
        "647": ChannelConfig(reconstruct="storm", upscale=engine, **more),
    }
    found = whole.model_copy(update={"channels": channels})
    return found.with_section(section.model_copy(update=changes))


def plan(channels: list[str], n_t: int = 3) -> Any:
    return sim_sequence(n_t, channels, raw={"561": 1, "647": N})


def run(core: CMMCorePlus, rig: RigConfig, store: Path, channels: list[str]) -> dict[str, Any]:
    """Record a run, whose store keeps the rig's file."""
    said = rig.model_dump(mode="json", exclude={"folder"})
    (store.parent / "rig.yaml").write_text(yaml.safe_dump(said), encoding="utf-8")
    rig, acquired = load_rig(store.parent), plan(channels)
    how: dict[str, Any] = {"precision": "f32", "policy": "complete"}
    with LiveSR(core, rig=rig, plan=acquired, store=store, **how) as session:
        core.mda.run(acquired)
    return session.report


def seen_beside(store: Path) -> dict[int, Any]:
    """Which frame each prediction saw, by time point."""
    return {t: line["beside"] for (_, t), line in lines(store, "sr").items()}


def widefield(store: Path, t: int) -> np.ndarray:
    """The other channel's picture, normalised, on the pixels of the running image."""
    (level,) = (
        line["normalisation"]
        for (stream, at), line in lines(store, "recon").items()
        if (stream.channel, at) == ("561", t)
    )
    image = array(store, "recon_0_561")[t].astype(np.float32) - 1000
    fitted = on_pixels(image, array(store, "sr_0_647").shape[-2:], 107 / 20)
    return (fitted - level["background"]) / level["headroom"]


def drawn(store: Path, t: int) -> np.ndarray:
    (level,) = (line["normalisation"] for (_, at), line in lines(store, "sr").items() if at == t)
    return array(store, "sr_0_647")[t, 0] / level["headroom"]


def test_an_image_keeps_its_place_on_other_pixels() -> None:
    image = np.add.outer(np.arange(8.0), np.zeros(8)).astype(np.float32)
    finer = on_pixels(image, (40, 40), 5)
    np.testing.assert_allclose(finer[2:-2, 0].reshape(-1), (np.arange(40)[2:-2] + 0.5) / 5 - 0.5)
    moved = on_pixels(image, (40, 40), 5, (5.0, 0.0))
    np.testing.assert_allclose(moved[2:-12], finer[7:-7], atol=1e-5)


def test_the_newest_frame_of_the_other_channel_is_seen_on_the_pixels_of_this_one(
    core: CMMCorePlus, tmp_path: Path
) -> None:
    store = tmp_path / "run.ome.zarr"
    report = run(core, rig(), store, ["561", "647"])
    assert (report["sr_frames"], report["sr_skipped"]) == (3, 0)
    assert seen_beside(store) == {t: {"channel": "561", "t": t} for t in range(3)}
    for t in range(3):
        expected = np.maximum(widefield(store, t), 0)
        assert expected.max() > 0.4
        assert np.abs(drawn(store, t) - expected).max() < 0.03  # whole ADU are stored
    about = zarr.open_group(store / "sr_0_647", mode="r").attrs["livesr"]
    assert (about["prediction"], about["engines"][0]["beside"]) == (True, "561")
    measured = zarr.open_group(store / "recon_0_647", mode="r").attrs["livesr"]
    assert (measured["prediction"], measured["method"]) == (False, "storm")


def test_what_comes_later_is_not_waited_for(core: CMMCorePlus, tmp_path: Path) -> None:
    store = tmp_path / "run.ome.zarr"
    report = run(core, rig(), store, ["647", "561"])
    assert (report["sr_frames"], report["sr_skipped"]) == (2, 1)
    assert seen_beside(store) == {t: {"channel": "561", "t": t - 1} for t in (1, 2)}
    skipped = [e for e in RecordedStore(store).events if e["state"] == "skipped"]
    assert [(e["t"], e["reason"]) for e in skipped] == [(0, "channel 561 has no frame yet")]
    log = store / "livesr" / "frames.jsonl"
    written = log.read_bytes().splitlines(keepends=True)
    by_channel = sorted(written, key=lambda line: b'"channel": "647"' in line)
    assert by_channel != written  # as if the disk took the frames of one channel first
    log.write_bytes(b"".join(by_channel))
    again = process(raw_input(store), tmp_path / "again.ome.zarr")["store"]
    assert seen_beside(Path(again)) == seen_beside(store)
    assert np.array_equal(array(Path(again), "sr_0_647"), array(store, "sr_0_647"))
    with pytest.raises(ConfigError, match="a backfill does not read"):
        backfill(store)


def test_what_a_repair_found_comes_when_its_channel_does(core: CMMCorePlus, tmp_path: Path) -> None:
    store = tmp_path / "run.ome.zarr"
    run(core, rig(), store, ["561", "647"])
    log = store / "livesr" / "frames.jsonl"
    kept = [e for e in RecordedStore(store).events if (e["channel"], e["t"]) != ("647", 1)]
    log.write_text("".join(to_json(e) + "\n" for e in kept), encoding="utf-8")
    repair(store)
    (found,) = (e for (s, t), e in lines(store, "raw").items() if (s.channel, t) == ("647", 1))
    assert (found["repaired"], found.get("t_acq_ns")) == (True, None)
    again = process(raw_input(store), tmp_path / "again.ome.zarr")["store"]
    assert seen_beside(Path(again)) == {t: {"channel": "561", "t": t} for t in range(3)}


def test_its_own_picture_is_the_first_input(core: CMMCorePlus, tmp_path: Path) -> None:
    store = tmp_path / "run.ome.zarr"
    run(core, rig("itself"), store, ["561", "647"])
    for t in range(3):
        (line,) = (e for (_, at), e in lines(store, "sr").items() if at == t)
        expected = array(store, "recon_0_647")[t] - 1000.0 - line["normalisation"]["background"]
        assert np.abs(array(store, "sr_0_647")[t, 0] - np.maximum(expected, 0)).max() <= 1


def test_which_channel_is_seen() -> None:
    assert rig().beside("647", "widefield") == "561"
    several = rig().model_copy(
        update={"channels": {**rig().channels, "488": ChannelConfig(reconstruct="widefield")}}
    )
    with pytest.raises(ConfigError, match=r"beside is not set, and rig .* has 561, 488"):
        several.beside("647", "widefield")
    named = several.channels["647"].model_copy(update={"beside": "488"})
    several = several.model_copy(update={"channels": {**several.channels, "647": named}})
    assert several.beside("647", "widefield") == "488"
    with pytest.raises(ConfigError, match=r"beside is '640', and rig .* has 561"):
        rig(beside="640").beside("647", "widefield")
    with pytest.raises(ConfigError, match="has none"):
        rig().beside("561", "sim")


def test_what_does_not_go_together_is_refused(
    core: CMMCorePlus, tmp_path: Path, engines: Path
) -> None:
    with pytest.raises(ConfigError, match="the run does not acquire that"):
        run(core, rig(), tmp_path / "run.ome.zarr", ["647"])
    here, there = (Geometry((SIZE, n), "uint16", 0.107) for n in (SIZE, SIZE + 8))
    paths = {
        name: build_path(rig(), name, camera)
        for name, camera in {"561": here, "647": there}.items()
    }
    with pytest.raises(ConfigError, match="do not show the same field"):
        check_companions(paths)
    with pytest.raises(ValueError, match="goes with task upscale"):
        two_input_engine(engines / "raw", (0.5, 0.5), task="restore")
