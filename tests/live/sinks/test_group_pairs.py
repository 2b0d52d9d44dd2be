"""What `--pairs` keeps of a rig that makes a picture of several exposures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import zarr
from numpy.typing import NDArray

from livesr import LiveSR
from livesr.bench.pipeline import virtual_rig
from livesr.live.sources.plan import sim_sequence
from livesr.training.paired import PairedPairs
from livesr.training.recipes import load_recipe

SIDE, TIMES = 128, 3
KINDS = ("clean", "noisy", "raw")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pairs")
    with virtual_rig("virtual_sim", SensorSize=SIDE) as (core, rig):
        plan = sim_sequence(TIMES, list(rig.channels))
        with LiveSR(
            core,
            rig=rig,
            engine="none",
            store=folder / "run.ome.zarr",
            pairs=folder / "pairs",
            plan=plan,
        ):
            core.mda.run(plan)
    return folder


def files(run: Path) -> dict[str, NDArray[Any]]:
    (channel,) = (run / "pairs").iterdir()
    names = {kind: [p.name for p in (channel / kind).iterdir()] for kind in KINDS}
    assert names["clean"] == names["noisy"] == names["raw"]
    return {kind: tifffile.imread(channel / kind / names[kind][0]) for kind in KINDS}


def test_a_picture_its_exposures_and_their_mean_are_kept(run: Path) -> None:
    kept = files(run)
    inner = SIDE - 2 * int(0.06 * SIDE)
    assert kept["clean"].shape == (TIMES, 2 * inner, 2 * inner)
    assert kept["noisy"].shape == (TIMES, inner, inner)
    raw = kept["raw"].reshape(TIMES, 9, inner, inner)
    np.testing.assert_allclose(raw.mean(1), kept["noisy"], rtol=1e-5)
    stored = stored_raw(run)
    edge = (SIDE - inner) // 2
    np.testing.assert_array_equal(raw, stored[..., edge:-edge, edge:-edge])


def stored_raw(run: Path) -> NDArray[Any]:
    """Return the raw frames of the store, (t, n, y, x)."""
    (series,) = (p for p in (run / "run.ome.zarr").iterdir() if p.name.startswith("raw"))
    return np.asarray(zarr.open_array(str(series / "0"), mode="r")[:]).reshape(TIMES, 9, SIDE, SIDE)


def test_both_recipes_make_pairs_of_them(run: Path) -> None:
    (channel,) = (run / "pairs").iterdir()
    for name, shape in (("recipe.yaml", (1, 32, 32)), ("recipe-raw.yaml", (3, 32, 32))):
        recipe = load_recipe(channel / name)
        maker = PairedPairs.find(recipe.data.images, 64, recipe.data.frames, "all")
        frames, clean = maker.make((1, 1))
        assert (frames.shape, clean.shape) == (shape, (1, 64, 64))
        mean = np.repeat(np.repeat(frames.mean(0), 2, 0), 2, 1)
        assert np.corrcoef(mean.ravel(), clean[0].ravel())[0, 1] > 0.5
