"""An engine's evaluation: sequences are repeatable and unlike training's, and an engine that does
nothing gains nothing."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from livesr.base.errors import EngineError
from livesr.evaluation.engines import card_table, evaluate_engine, run, start_text
from livesr.evaluation.metrics import pcc
from livesr.evaluation.pictures import PictureRow, montage
from livesr.modalities.sim.simulation.sequence import SIMSequence
from livesr.simulation.domain import Domain
from livesr.simulation.sequence import EVALUATION

SIZE = 96
ENGINE = Path(__file__).parents[2] / "engines" / "identity"
STEADY = Domain(photons=(3000.0, 3001.0), haze=(0.0, 0.01), absent=0.0, read_noise_e=(0.9, 1.0))


@pytest.fixture(scope="module")
def sequence() -> SIMSequence:
    return SIMSequence((EVALUATION, 1), 2, SIZE, STEADY)


@pytest.fixture(scope="module")
def result() -> dict[str, Any]:
    return evaluate_engine(
        ENGINE, seeds=[1, 2, 3], n_t=3, size=SIZE, backend="openvino", precision="f32", threads=1
    )


# -- sequences -------------------------------------------------------------------------------------


def test_a_seed_gives_the_same_frames_again(sequence: SIMSequence) -> None:
    again = SIMSequence((EVALUATION, 1), 2, SIZE, STEADY)
    np.testing.assert_array_equal(again.raw(), sequence.raw())
    assert not np.array_equal(SIMSequence((EVALUATION, 2), 2, SIZE, STEADY).raw(), sequence.raw())


def test_the_truths_sum_to_what_the_reconstruction_shows(sequence: SIMSequence) -> None:
    # Little noise, no haze: what is left between them is the calibration's error and the camera's.
    image = sequence.reconstructor.reconstruct(list(sequence.raw()[1]))
    total = np.sum(list(sequence.truth(1).values()), axis=0)
    inside = (slice(12, -12), slice(12, -12))
    assert pcc(image[inside], total[inside]) > 0.9
    background = np.percentile(image[inside], 5)
    assert (image[inside] - background).mean() == pytest.approx(total[inside].mean(), rel=0.5)


def test_haze_is_each_structures_own_where_the_domain_says_so() -> None:
    domain = STEADY.model_copy(
        update={"photons": (5e4, 5e4), "haze": (2.0, 2.0), "still": 1.0}  # next to no noise
    )
    hazy = domain.model_copy(update={"haze_in_truth": True})
    sharp, whole = (SIMSequence((EVALUATION, 1), 1, SIZE, d) for d in (domain, hazy))
    np.testing.assert_array_equal(sharp.raw(), whole.raw())  # the same cell, light and camera
    image = whole.reconstructor.reconstruct(list(whole.raw()[0]))
    inside = (slice(24, -24), slice(24, -24))
    score, more = (
        pcc(image[inside], np.sum(list(s.truth(0).values()), axis=0)[inside])
        for s in (sharp, whole)
    )
    assert more > score + 0.05
    assert more > 0.96
    for name, image in whole.truth(0).items():  # smooth light is added, structure by structure
        added = image - sharp.truth(0)[name]
        assert added[inside].mean() > 0
        assert np.abs(np.diff(added[inside])).max() < 0.1 * image[inside].max()


def test_an_engine_that_draws_haze_is_judged_by_truth_with_haze(tmp_path: Path) -> None:
    """Whatever it is tested on."""
    scores = {}
    for haze in (False, True):
        folder = tmp_path / str(haze)
        shutil.copytree(ENGINE, folder)
        manifest = (folder / "manifest.yaml").read_text(encoding="utf-8")
        text = f"{manifest}\nhaze: {str(haze).lower()}\n"
        (folder / "manifest.yaml").write_text(text, encoding="utf-8")
        conditions = STEADY.model_copy(update={"haze": (2.0, 2.0), "haze_in_truth": not haze})
        found = evaluate_engine(folder, seeds=[1], n_t=3, size=SIZE, conditions=conditions)
        assert found["settings"]["conditions"]["haze_in_truth"] is haze
        scores[haze] = found["mean_pcc"]["network"]["mean"]
    assert scores[True] > scores[False]


def test_structures_alone_add_up(sequence: SIMSequence) -> None:
    level = {
        names: float(sequence.raw(list(names)).mean())
        for names in (
            (),
            ("microtubules",),
            ("er",),
            ("lysosomes",),
            ("microtubules", "er", "lysosomes"),
        )
    }
    alone = sum(level[(name,)] - level[()] for name in ("microtubules", "er", "lysosomes"))
    assert alone == pytest.approx(level["microtubules", "er", "lysosomes"] - level[()], rel=0.05)


# -- evaluation ------------------------------------------------------------------------------------


def test_an_engine_that_does_nothing_gains_nothing(result: dict[str, Any]) -> None:
    assert set(result["structures"]) == {"Structure 1", "Structure 2", "Structure 3"}
    for entry in result["structures"].values():
        assert abs(entry["gain"]["pcc"]["mean"]) < 0.05, (
            "only the zero below which channels are cut differs"
        )
        assert not entry["disjoint"]
    assert result["reached"] == {"gain_pcc": False, "disjoint": False, "mean_pcc": False}
    assert result["residual"]["max"] < 2e-3, (
        "its channels sum to the input, but for the darkest rim, which the network sees mirrored"
    )


def test_an_engine_that_does_nothing_leaks_two_thirds(result: dict[str, Any]) -> None:
    assert len(result["leakage"]) == 3
    for entry in result["leakage"].values():
        assert entry["total"]["mean"] == pytest.approx(2 / 3, abs=0.02)
        assert len(entry["into"]) == 2


def test_the_result_is_json_and_a_card(result: dict[str, Any]) -> None:
    assert json.loads(json.dumps(result, allow_nan=False)) == result
    card = card_table(result)
    assert "| Structure 1 | network |" in card
    assert card.count("| gain |") == 3
    assert result["settings"]["seeds"] == [1, 2, 3]


def test_run_writes_numbers_table_and_picture(tmp_path: Path) -> None:
    done: list[tuple[int, int]] = []
    run(
        ENGINE,
        tmp_path,
        seeds=[4],
        n_t=2,
        size=SIZE,
        backend="openvino",
        threads=1,
        progress=lambda *a: done.append(a),
    )
    assert done == [(1, 1)]
    assert (
        json.loads((tmp_path / "evaluation.json").read_text(encoding="utf-8"))["engine"]["id"]
        == "identity"
    )
    assert "| structure |" in (tmp_path / "evaluation.md").read_text(encoding="utf-8")
    with Image.open(tmp_path / "evaluation.png") as picture:
        assert picture.size[0] > picture.size[1], "one row"


def test_what_cannot_be_simulated_is_refused() -> None:
    with pytest.raises(EngineError, match="separates actin"):
        evaluate_engine(ENGINE, seeds=[1], size=SIZE, structures=["microtubules", "er", "actin"])
    with pytest.raises(EngineError, match="one structure for each"):
        evaluate_engine(ENGINE, seeds=[1], size=SIZE, structures=["microtubules", "er", "er"])


# -- picture ---------------------------------------------------------------------------------------


def test_false_light_shows_in_the_colour_of_its_channel() -> None:
    truth = np.zeros((2, 8, 8), np.float32)
    truth[0] = 10
    prediction = truth[::-1].copy()
    row = PictureRow("", truth.sum(0), prediction, truth, ("a", "b"), ("00FF00", "FF00FF"))
    picture = np.asarray(montage([row]))
    tiles = [picture[-4, 4 + 12 * i] for i in range(5)]
    assert [tuple(int(v) for v in tile) for tile in tiles[1:]] == [
        (0, 0, 0),
        (255, 0, 255),
        (255, 0, 255),
        (0, 255, 0),
    ]
    with pytest.raises(ValueError, match="at least one row"):
        montage([])


@pytest.mark.parametrize(
    ("low", "advised"), [(0.01, False), (-0.01, True), (0.0, True), (None, True)]
)
def test_a_training_that_gained_nothing_is_advised_against(
    low: float | None, advised: bool
) -> None:
    mean = {"mean": 0.8, "low": 0.7, "high": 0.9, "n": 9}
    gain = {"mean": 0.02, "low": low, "high": 0.05, "n": 9 if low is not None else 1}
    told = start_text({"start": {"engine": {"id": "before"}, "mean_pcc": mean, "gain": gain}})
    assert "before, on the same sequences: 0.800 (0.700 to 0.900); gained: 0.020" in told
    assert ("stay with before" in told) == advised
    assert start_text({}) == ""
