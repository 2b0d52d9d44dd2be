"""From a recipe to an engine that runs live: train, resume, export, demo."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from livesr.live.inference.engine import load_engine
from livesr.training.recipes import load_recipe, names

RECIPE = {
    "description": "A network of almost no size, for this test.",
    "data": {"train": 8, "validation": 4, "size": 64, "seed": 5, "validation_seed": 6},
    "train": {
        "parameters": {"width": 8, "groups": 1, "blocks": 1, "reduction": 4, "unshuffle": 2, "head": "partition"},
        "steps": 6,
        "patch": 48,
        "batch": 2,
        "precision": "fp32",
        "log_every": 3,
        "validate_every": 3,
        "checkpoint_every": 3,
        "validation_pairs": 2,
        "threads": 1,
    },
    "engine": {
        "id": "tiny",
        "version": "0",
        "task": "separate",
        "channels": [
            {"name": n, "color": c} for n, c in (("Microtubules", "00FF00"), ("ER", "FF00FF"), ("Lysosomes", "FFFF00"))
        ],
        "window": 3,
        "modality": ["sim"],
    },
}


def livesr(*arguments: str, cwd: Path) -> dict[str, Any]:
    command = [sys.executable, "-m", "livesr", *arguments, "--json"]
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_a_recipe_becomes_an_engine_that_runs(tmp_path: Path) -> None:
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(RECIPE))
    livesr("train", "--recipe", "tiny.yaml", "--out", "run", "--workers", "1", cwd=tmp_path)
    assert {p.name for p in (tmp_path / "run").glob("*.png")} == {"curves.png", "validation.png"}
    rows = (tmp_path / "run" / "log.csv").read_text().splitlines()
    livesr("train", "--recipe", "tiny.yaml", "--out", "run", "--workers", "1", "--steps", "9", cwd=tmp_path)
    assert (tmp_path / "run" / "log.csv").read_text().splitlines()[
        : len(rows)
    ] == rows  # it went on, it did not begin anew
    result = livesr(
        "export", "run", "--out", "tiny", "--weights", "final", "--sequences", "2", "--time-points", "3", cwd=tmp_path
    )
    engine = load_engine(tmp_path / "tiny")
    assert engine.manifest.sha256 == result["sha256"]
    assert engine.manifest.trained
    assert set(engine.manifest.metrics.channels) == {"Microtubules", "ER", "Lysosomes"}
    assert engine.manifest.metrics.residual is not None
    card = (tmp_path / "tiny" / "README.md").read_text(encoding="utf-8")
    assert "9 steps of 2 patches of 48 x 48" in " ".join(card.split())
    report = livesr("demo", "--engine", "tiny", "--size", "64", "--frames", "4", "--policy", "complete", cwd=tmp_path)
    assert report["sr_frames"] == 4
    assert set(report["score"]) == {"Microtubules", "ER", "Lysosomes"}


def test_a_training_in_slices_comes_to_its_end_and_shares_its_pairs(tmp_path: Path) -> None:
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(RECIPE))
    shared = ("--recipe", "tiny.yaml", "--data", "pairs", "--workers", "1")
    first = livesr("train", *shared, "--out", "run", "--slice", "0.01", cwd=tmp_path)
    assert not first["finished"], "importing torch alone takes longer"
    assert livesr("train", *shared, "--out", "run", "--slice", "9", cwd=tmp_path)["finished"]
    made = (tmp_path / "pairs" / "pairs-train" / "frames.npy").stat().st_mtime_ns
    result = livesr("train", *shared, "--out", "student", "--teacher", "run", "--steps", "2", cwd=tmp_path)
    assert result["finished"]
    assert (tmp_path / "pairs" / "pairs-train" / "frames.npy").stat().st_mtime_ns == made


@pytest.mark.parametrize("name", names())
def test_every_shipped_recipe_parses(name: str) -> None:
    recipe = load_recipe(name)
    assert recipe.engine["id"] == name
    assert recipe.data.seed != recipe.data.validation_seed
