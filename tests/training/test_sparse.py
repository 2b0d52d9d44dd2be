"""Pairs of few localisations with widefield, and what an engine of two inputs is."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from livesr.evaluation.pairs import evaluate_pairs
from livesr.training.recipes import load_recipe, names
from livesr.training.sparse import PLANES, SparsePairs
from two_inputs import two_input_engine

SIZE = 80


def test_all_planes_show_the_same_cell_and_the_target_is_finest() -> None:
    maker = SparsePairs(SIZE, "storm", load_recipe("anna-palm").data.domain)
    for number in range(3):
        planes, dense = maker.make((4, number))
        assert (planes.shape, dense.shape) == maker.shapes == ((2, SIZE, SIZE), (1, SIZE, SIZE))
        few, widefield = planes
        fine = np.abs(np.diff(dense[0], axis=1)).mean() / dense[0].std()
        blurred = widefield.reshape(20, 4, 20, 4).mean((1, 3))
        coarse = dense[0].reshape(20, 4, 20, 4).mean((1, 3))
        assert np.corrcoef(blurred.ravel(), coarse.ravel())[0, 1] > 0.5
        assert (few > few.min()).mean() < 0.9
        assert fine > 0.05


def test_the_same_number_gives_the_same_pair() -> None:
    maker = SparsePairs(SIZE, "storm")
    for a, b in zip(maker.make((1, 2)), maker.make((1, 2)), strict=True):
        np.testing.assert_array_equal(a, b)


def test_an_engine_of_two_inputs_is_scored_on_pairs(tmp_path: Path) -> None:
    engine = two_input_engine(tmp_path / "both", (0.25, 0.75))
    assert engine.manifest.beside == PLANES[1:]
    assert engine.manifest.inputs == 2
    rng = np.random.default_rng(0)
    planes = rng.random((2, 32, 32), np.float32)
    truth = (0.25 * planes[0] + 0.75 * planes[1])[None]
    result = evaluate_pairs(engine.folder, [(planes, truth)], ["Completed"], "both", threads=1)
    (scores,) = result["structures"].values()
    assert scores["network"]["pcc"]["mean"] == pytest.approx(1, abs=1e-3)


def test_every_recipe_says_what_its_data_and_its_network_are() -> None:
    networks = pytest.importorskip("livesr.training.networks")
    for name in names():
        recipe = load_recipe(name)
        shapes = recipe.data.maker("train").shapes if recipe.data.images is None else None
        if recipe.train.parameters.get("width", 0) > 64 or shapes is None:
            continue
        import torch

        with torch.device("meta"):
            network = networks.build(recipe.train.architecture, **recipe.train.parameters)
        (frames, y, _), (channels, sy, _) = shapes
        assert frames >= network.frames, name
        drawn = getattr(network, "structures", network.channels)
        assert (channels, sy // y) == (drawn, network.scale), name
