"""Composites of single structures.

What is mixed is what was asked for, and what is measured is the separation alone.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter
from typer.testing import CliRunner

from livesr.base.errors import ConfigError, EngineError
from livesr.cli import app
from livesr.evaluation.composites import (
    StructureImages,
    composites_table,
    evaluate_composites,
    fields_of,
    less_background,
    mixtures,
    summary,
)

ENGINES = Path(__file__).parents[2] / "engines"
NAMES = ("Structure 1", "Structure 2", "Structure 3")


def texture(
    seed: int, shape: tuple[int, int] = (96, 128), grain: float = 1.5
) -> NDArray[np.float32]:
    """A picture of sparse spots, in a unit and with an offset of its own."""
    rng = np.random.default_rng(seed)
    return 400 + 5000 * gaussian_filter((rng.random(shape) > 0.98).astype(np.float32), grain)


def pictures() -> dict[str, StructureImages]:
    return {name: StructureImages([texture(i)]) for i, name in enumerate(NAMES)}


def test_every_structure_is_weak_missing_and_alone_in_turn() -> None:
    found = mixtures(("A", "B"))
    assert next(iter(found)) == "1:1"
    assert {label: weight.tolist() for label, weight in found.items() if label.startswith("B")} == {
        "B at half": [1, 0.5],
        "B at a quarter": [1, 0.25],
        "B missing": [1, 0],
        "B alone": [0, 1],
    }


def test_fields_have_one_size_and_structures_take_turns() -> None:
    wide, small = (
        StructureImages([texture(0, (200, 300))]),
        StructureImages([texture(1), texture(2)]),
    )
    fields = list(fields_of([wide, small], 10))
    assert len(fields) == 4, "2 x 2 tiles of 96 x 128 lie in the larger one"
    assert {tile.truth.shape for field in fields for tile in field} == {(96, 128)}
    np.testing.assert_array_equal(fields[0][1].truth, fields[2][1].truth)
    assert not np.array_equal(fields[0][0].truth, fields[1][0].truth)
    for tile in fields[0]:
        assert np.percentile(tile.truth, 99.8) == pytest.approx(1, abs=1e-3)
    assert len(list(fields_of([wide, small], 3))) == 3


def test_a_noisy_image_is_added_in_the_unit_of_its_clean_one() -> None:
    clean = texture(0)
    noisy = 3 * clean - 70 + np.random.default_rng(1).normal(0, 30, clean.shape).astype(np.float32)
    ((tile,),) = fields_of([StructureImages([clean], [noisy])], 1)
    assert not np.array_equal(tile.given, tile.truth)
    assert np.polyfit(tile.truth.ravel(), tile.given.ravel(), 1) == pytest.approx((1, 0), abs=0.05)


def test_an_engine_that_shares_out_evenly_scores_what_its_input_does_and_invents_a_third() -> None:
    result = evaluate_composites(
        ENGINES / "identity", pictures(), backend="openvino", precision="f32", threads=1
    )
    assert (result["fields"], result["shape"]) == (1, [96, 128])
    equal = result["mixtures"]["1:1:1"]
    for name in NAMES:
        assert equal[name]["pcc"] == pytest.approx(equal[name]["pcc_input"], abs=1e-3)
        assert result["mixtures"][f"{name} missing"][name]["invented"] == pytest.approx(
            1 / 3, abs=0.01
        )
        assert result["mixtures"][f"{name} alone"][name]["pcc"] == pytest.approx(1, abs=1e-3)
        assert result["mixtures"][f"{name} at a quarter"][name]["pcc"] < equal[name]["pcc"]
    means = summary(result)
    assert means["invented"] == pytest.approx(1 / 3, abs=0.01)
    assert means["alone"] > means["equal"] > means["half"] > means["quarter"] >= means["worst"]
    assert composites_table(result).count("\n") == 2 + 3 * 13
    json.dumps(result, allow_nan=False)


def test_pcc_alone_measures_nothing_else() -> None:
    result = evaluate_composites(
        ENGINES / "identity",
        pictures(),
        measures="pcc",
        backend="openvino",
        precision="f32",
        threads=1,
    )
    assert "psnr" not in result["mixtures"]["1:1:1"]["Structure 1"]


def test_the_background_is_taken_away_and_the_structure_stays() -> None:
    spots = texture(0) - 400
    haze = np.linspace(500, 900, spots.shape[1], dtype=np.float32)[None]
    np.testing.assert_allclose(less_background(spots + haze).mean(), spots.mean(), rtol=0.3)


def test_what_cannot_be_composed_is_said() -> None:
    two = {name: images for name, images in pictures().items() if name != "Structure 2"}
    with pytest.raises(ConfigError, match="no images of Structure 2"):
        evaluate_composites(ENGINES / "identity", two)
    with pytest.raises(EngineError, match="separates no structures"):
        evaluate_composites(ENGINES / "edsr-x2", pictures())
    with pytest.raises(ConfigError, match="64 x 64 are needed"):
        list(fields_of([StructureImages([texture(0, (40, 90))])], 1))
    with pytest.raises(ConfigError, match="no contrast"):
        list(fields_of([StructureImages([np.ones((64, 64), np.float32)])], 1))
    with pytest.raises(ConfigError, match="does not show"):
        list(fields_of([StructureImages([texture(0)], [-texture(0)])], 1))


def test_an_ensemble_is_measured_as_such() -> None:
    single, averaged = (
        evaluate_composites(
            ENGINES / "imcsr-mt-er-lyso-light",
            dict(zip(("Microtubules", "ER", "Lysosomes"), pictures().values(), strict=True)),
            measures="pcc",
            threads=1,
            ensemble=views,
        )
        for views in (None, "flips")
    )
    assert averaged["ensemble"] == "flips"
    assert "ensemble" not in single
    assert averaged["mixtures"] != single["mixtures"]


def test_the_command_mixes_the_images_of_a_folder(tmp_path: Path) -> None:
    for i, name in enumerate(NAMES):
        (tmp_path / "data" / name.lower()).mkdir(parents=True)
        tifffile.imwrite(tmp_path / "data" / name.lower() / "one.tif", texture(i))
    command = [
        "evaluate",
        "identity",
        "--data",
        str(tmp_path / "data"),
        "--out",
        str(tmp_path / "out"),
        "--json",
    ]
    outcome = json.loads(CliRunner().invoke(app, command, catch_exceptions=False).stdout)
    assert outcome["summary"]["invented"] == pytest.approx(1 / 3, abs=0.01)
    assert "Structure 3 at a quarter" in (tmp_path / "out" / "report.md").read_text()
