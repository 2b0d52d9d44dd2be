"""Error bars from predictions whose truth is known, and what they hold for."""

from __future__ import annotations

import json
import shutil
from contextlib import nullcontext
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import zarr
from PIL import Image

from livesr import LiveSR, cli
from livesr.base.compute import ComputeConfig
from livesr.base.config import load_rig
from livesr.base.error_bars import FILE, ErrorBars, load_error_bars
from livesr.base.errors import ConfigError
from livesr.evaluation.error_bars import (
    Known,
    Recordings,
    calibrated,
    from_simulation,
    from_store,
)
from livesr.formats.store import RecordedStore
from livesr.live.inference.engine import Engine, load_engine
from livesr.live.sources.plan import sim_sequence
from livesr.store.process import process
from livesr.store.raw_input import store_input
from livesr.training.true_channels import fields_of
from recorded_runs import RIGS, array
from rigs import core_of

CHANNELS = ("488", "561", "640")
LABELS = ("Microtubules", "ER", "Lysosomes")


@pytest.fixture(scope="module")
def engine() -> Engine:
    return load_engine("imcsr-mt-er-lyso-light")


def cells(n: int, seed: int, frames: int = 1) -> list[Known]:
    """Predictions with errors that differ from cell to cell, and grow with intensity."""
    rng, known = np.random.default_rng(seed), []
    for cell in range(n):
        spread, bias = rng.gamma(4, 0.05), rng.normal(0, 0.02)
        for _ in range(frames):
            predicted = rng.gamma(0.5, 0.2, (3, 48, 48)).astype(np.float32)
            errors = bias + spread * (0.05 + predicted) * rng.standard_normal(predicted.shape)
            known.append(Known(predicted, (predicted + errors).astype(np.float32), cell))
    return known


def covered(bars: ErrorBars, known: list[Known]) -> dict[str, float]:
    """The share of the pixels of each structure that lie within the bounds."""
    shares: dict[str, list[float]] = {label: [] for label in LABELS}
    for one in known:
        for label, predicted, truth in zip(LABELS, one.predicted, one.truth, strict=True):
            table = bars.structures[label]
            bins = np.maximum(np.searchsorted(table.from_, predicted, side="right") - 1, 0)
            low = predicted - np.asarray(table.below)[bins]
            high = predicted + np.asarray(table.above)[bins]
            # In a picture nothing is below 0: a lower bound there holds for every truth.
            inside = (truth <= high) & ((truth >= low) | (low <= 0))
            shares[label].append(float(np.mean(inside)))
    return {label: float(np.mean(of_cells)) for label, of_cells in shares.items()}


@pytest.mark.parametrize("coverage", [0.8, 0.9])
def test_cells_that_were_not_seen_are_covered_at_every_intensity(
    engine: Engine, coverage: float
) -> None:
    """The promise is of the mean over calibrations: several, each with cells of its own."""
    held: dict[str, list[float]] = {label: [] for label in LABELS}
    bright: list[float] = []
    for seed in range(6):
        bars = calibrated(cells(40, seed), LABELS, engine, "pairs", coverage=coverage)
        new = cells(40, seed + 1000)
        for label, share in covered(bars, new).items():
            held[label].append(share)
        table = bars.structures["ER"]
        for one in new:
            chosen = one.predicted[1] > table.from_[-1]
            error = (one.truth - one.predicted)[1][chosen]
            bright.append(float(np.mean((error <= table.above[-1]) & (error >= -table.below[-1]))))
    assert all(np.mean(shares) >= coverage - 0.005 for shares in held.values())
    assert np.mean(bright) >= coverage - 0.01
    assert all(np.mean(shares) < 1 - (1 - coverage) / 4 for shares in held.values())


def test_a_wider_coverage_and_a_confidence_widen_them(engine: Engine) -> None:
    known = cells(80, 1)
    usual, wide, sure = (
        calibrated(known, LABELS, engine, "pairs", **how).structures["ER"].above
        for how in ({"coverage": 0.8}, {"coverage": 0.95}, {"coverage": 0.8, "confidence": 0.9})
    )
    assert max(wide) > max(usual)
    assert max(sure) >= max(usual)


def test_frames_of_one_field_are_said_to_be_that(engine: Engine) -> None:
    bars = calibrated(cells(2, 0, frames=12), LABELS, engine, "pairs")
    assert (bars.of, bars.units) == ("frames", 24)
    assert "of one field" in bars.sentence


def test_too_few_frames_are_refused_with_how_many_it_takes(engine: Engine) -> None:
    with pytest.raises(ConfigError, match="takes at least 15"):
        calibrated(cells(4, 0), LABELS, engine, "pairs")


def record(folder: Path, seed: int, rig: Path) -> Path:
    """One cell of the virtual rig with three dyes, superposed and separated."""
    with core_of("virtual_dyes", exposure_ms=1, SensorSize=64, TimePoints=3, Seed=seed) as core:
        plan = sim_sequence(4, CHANNELS)
        session = LiveSR(
            core,
            rig=load_rig(rig),
            plan=plan,
            store=folder / f"cell{seed}.ome.zarr",
            policy="complete",
            threads=1,
        )
        with session:
            core.mda.run(plan)
    return Path(session.report["store"])


@pytest.fixture
def rig(tmp_path: Path) -> Path:
    folder = tmp_path / "rig"
    shutil.copytree(RIGS / "virtual_dyes", folder)
    return folder


def test_a_store_becomes_error_bars_that_later_frames_have(
    rig: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cell = record(tmp_path, 1, rig)
    report = _command(capsys, "calibrate-errors", str(cell), "--rig", str(rig), "--coverage", "0.5")
    assert (report["of"], set(report["structures"])) == ("frames", set(LABELS))
    bars = load_error_bars(rig / FILE)
    assert bars.source == "pairs"
    made = Path(
        process(
            store_input(RecordedStore(cell), rig=load_rig(rig)),
            tmp_path / "again",
            compute=ComputeConfig(threads=1, error_bars=True),
        )["store"]
    )
    name = "0_488-561-640"
    predicted, limits = array(made, f"sr_{name}")[0], array(made, f"limits_{name}")[0]
    scale = (
        RecordedStore(made).normalisations()[next(iter(RecordedStore(made).pictures("sr")))].scale
    )
    low, high = bars.limits(predicted, LABELS, scale)
    np.testing.assert_array_equal(limits, np.concatenate([low, high]))
    about = zarr.open_group(made / f"limits_{name}", mode="r").attrs["livesr"]
    assert about["warning"] == bars.sentence
    assert (made / "livesr" / FILE).is_file()
    # Its frames count once, also in what was made of them.
    assert cli._run(["calibrate-errors", str(cell), str(made), "--rig", str(rig)]) == 2
    assert "hold frames of one run" in " ".join(capsys.readouterr().err.split())
    began = datetime.fromisoformat(RecordedStore(cell).about["started"]).astimezone(UTC)
    recordings = Recordings()
    recordings.take("cell", RecordedStore(cell), [])
    picture = np.zeros((3, 2, 2), np.float32)
    for later_s, same in ((0, True), (1, False)):
        field = f"{began + timedelta(seconds=later_s):%Y%m%d-%H%M%S}-0a1b2c_p000"
        with pytest.raises(ConfigError, match="one run") if same else nullcontext():
            recordings.take(f"pairs {later_s}", None, [Known(picture, picture, field)] * 2)
    with pytest.raises(ConfigError, match="pairs 1 and copied"):
        recordings.take("copied", None, [Known(picture, picture, field)])
    recordings.take("mine", None, [Known(picture, picture, "cell")])
    recordings.take("others", None, [Known(picture, picture, "cell")])


def test_a_store_that_cannot_be_read_is_refused(
    rig: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A file that is gone is no darkness; a torn one is no traceback."""
    cell = record(tmp_path, 1, rig)
    for name, damage in (
        ("recon_0_561", Path.unlink),
        ("sr_0_488-561-640", lambda file: file.write_bytes(file.read_bytes()[:500])),
    ):
        damaged = tmp_path / f"{name}.ome.zarr"
        shutil.copytree(cell, damaged)
        damage(next(file for file in (damaged / name / "0" / "c").rglob("*") if file.is_file()))
        command = ["calibrate-errors", str(damaged), "--rig", str(rig), "--coverage", "0.5"]
        assert cli._run(command) == 2
        assert f"{name} of {damaged} cannot be read" in " ".join(capsys.readouterr().err.split())


def test_pairs_that_are_left_out_are_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for label in LABELS:
        (tmp_path / label).mkdir()
        for cell in ("a", "b", "c", "d"):
            size = 6 if (label, cell) == ("ER", "b") else 8
            picture = np.zeros((3, size, size), np.uint16)
            tifffile.imwrite(tmp_path / label / f"{cell}.tif", picture, photometric="minisblack")
    (tmp_path / "ER" / "c.tif").write_bytes(b"II*")
    (tmp_path / "ER" / "d.tif").unlink()
    assert [name for name, _ in fields_of(tmp_path, LABELS)] == ["a.tif"]
    assert "3 of 4 recordings are left out" in caplog.text


def test_what_is_no_folder_of_pairs_is_called_what_it_is(
    rig: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    picture = tmp_path / "look.png"
    Image.fromarray(np.zeros((8, 8), np.uint8)).save(picture)
    for source, says in ((picture, "is a PNG picture"), (tmp_path / "none", "There is no")):
        assert cli._run(["calibrate-errors", str(source), "--rig", str(rig)]) == 2
        assert says in " ".join(capsys.readouterr().err.split())


def test_those_of_another_reconstruction_are_refused_and_not_used(
    rig: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cell = record(tmp_path, 1, rig)
    command = ["calibrate-errors", str(cell), "--rig", str(rig), "--coverage", "0.5"]
    _command(capsys, *command)
    change(rig, "wiener: 0.1", "wiener: 0.3")
    assert cli._run(command) == 2
    said = " ".join(capsys.readouterr().err.split())
    assert "are made with sim.wiener 0.1, not 0.3 as rig 'virtual SIM with three dyes'" in said
    made = process(
        store_input(RecordedStore(cell), rig=load_rig(rig)),
        tmp_path / "again",
        compute=ComputeConfig(threads=1, error_bars=True),
    )
    assert any(f"{FILE} was measured with sim.wiener 0.1, not 0.3" in w for w in made["warnings"])
    assert not list(Path(made["store"]).glob("limits*"))
    assert cli._run([*command, made["store"]]) == 2
    _command(capsys, "calibrate-errors", made["store"], *command[2:])
    bars = load_error_bars(rig / FILE)
    assert bars.made_with
    assert bars.made_with.settings
    assert bars.made_with.settings["sim.wiener"] == "0.3"


def test_a_rig_that_shows_all_structures_at_once_needs_none_of_the_true_channels(
    rig: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cell, alone = record(tmp_path, 1, rig), tmp_path / "alone"
    shutil.copytree(RIGS / "virtual_sim", alone)  # channel 488 and no other
    command = ["calibrate-errors", str(cell), "--rig", str(alone), "--coverage", "0.5"]
    report = _command(capsys, *command)
    assert report["made_with"]["settings"]["sim.wiener"] == "0.1"
    change(alone, "wiener: 0.1", "wiener: 0.3")
    assert cli._run(command) == 2
    said = " ".join(capsys.readouterr().err.split())
    assert "are made with sim.wiener 0.1, not 0.3 as rig 'virtual SIM'" in said


def test_predictions_of_pictures_that_no_engine_enlarged_are_not_those_of_a_rig_that_has_one(
    rig: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A run would not use them."""
    cell = record(tmp_path, 1, rig)
    one = "separate: imcsr-mt-er-lyso-light"
    change(rig, one, f"upscale: edsr-x2\n  {one}")
    command = ["calibrate-errors", "--rig", str(rig), "--coverage", "0.5"]
    assert cli._run([*command, str(cell)]) == 2
    said = " ".join(capsys.readouterr().err.split())
    enlarges = f"edsr-x2 {load_engine('edsr-x2').manifest.version}"
    assert f"not {enlarges}" in said
    (tmp_path / "pairs").mkdir()
    assert cli._run([*command, str(tmp_path / "pairs")]) == 2
    said = " ".join(capsys.readouterr().err.split())
    assert f"enlarges them by {enlarges}" in said
    assert not (rig / FILE).exists()


def change(folder: Path, text: str, other: str) -> None:
    file = folder / "rig.yaml"
    before = file.read_text(encoding="utf-8")
    assert text in before
    file.write_text(before.replace(text, other), encoding="utf-8")


def test_without_them_a_run_that_asks_is_refused_and_another_has_none(
    rig: Path, tmp_path: Path
) -> None:
    cell = record(tmp_path, 1, rig)
    raw = store_input(RecordedStore(cell))
    with pytest.raises(ConfigError, match="calibrate-errors"):
        process(raw, tmp_path / "again", compute=ComputeConfig(error_bars=True))
    assert not list(cell.glob("limits*"))


def test_those_of_an_ensemble_hold_for_an_ensemble_alone(
    rig: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cell = record(tmp_path, 1, rig)
    raw = store_input(RecordedStore(cell), rig=load_rig(rig))

    def processed(**settings: Any) -> dict[str, Any]:
        compute = ComputeConfig(threads=1, **settings)
        return dict(process(raw, tmp_path / "made.ome.zarr", compute=compute))

    averaged = processed(ensemble="flips")["store"]
    command = ["calibrate-errors", averaged, "--rig", str(rig), "--coverage", "0.5"]
    assert cli._run(command) == 2
    said = " ".join(capsys.readouterr().err.split())
    assert "the mean of several views (flips)" in said
    assert "that are of single views: give --ensemble flips, or" in said
    report = _command(capsys, *command, "--ensemble", "flips")
    assert report["ensemble"] == load_error_bars(rig / FILE).ensemble == "flips"
    alone = processed(error_bars=True)
    assert any("Take --ensemble flips" in warning for warning in alone["warnings"])
    assert not list(Path(alone["store"]).glob("limits*"))
    with_it = processed(error_bars=True, ensemble="flips")
    assert list(Path(with_it["store"]).glob("limits*"))


def test_they_do_not_depend_on_the_order_in_which_the_disk_took_frames(
    rig: Path, tmp_path: Path
) -> None:
    cell = record(tmp_path, 1, rig)
    before = from_store(RecordedStore(cell))[0]
    log = cell / "livesr" / "frames.jsonl"
    log.write_text("".join(reversed(log.read_text().splitlines(True))), encoding="utf-8")
    after = from_store(RecordedStore(cell))[0]
    assert len(before) == 4
    for one, other in zip(before, after, strict=True):
        np.testing.assert_array_equal(one.predicted, other.predicted)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_cells_of_the_virtual_rig_that_were_never_seen_are_covered(
    rig: Path, tmp_path: Path, engine: Engine
) -> None:
    stores = [record(tmp_path, seed, rig) for seed in range(100, 126)]
    known = [
        [Known(one.predicted, one.truth, seed) for one in from_store(RecordedStore(store))[0]]
        for seed, store in enumerate(stores)
    ]
    bars = calibrated([one for cell in known[:18] for one in cell], LABELS, engine, "pairs")
    assert (bars.of, bars.units) == ("fields", 18)
    found = covered(bars, [one for cell in known[18:] for one in cell])
    assert all(share >= 0.9 for share in found.values())


@pytest.mark.slow
def test_without_pairs_they_come_from_simulation_and_say_so(engine: Engine) -> None:
    known = from_simulation(engine, 30, ComputeConfig(threads=1))
    bars = calibrated(known[:18], LABELS, engine, "simulation")
    assert "not from this microscope" in bars.sentence
    found = covered(bars, known[18:])
    assert all(share >= 0.85 for share in found.values())


def _command(capsys: pytest.CaptureFixture[str], *words: str) -> dict[str, Any]:
    assert cli._run([*words, "--json"]) == 0, capsys.readouterr().err
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found
