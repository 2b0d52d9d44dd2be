"""From a training run to an engine's folder: network, manifest, model card.

Owns what the manifest and the card say. Trains and evaluates nothing.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from livesr.export.onnx import export_onnx
from livesr.live.inference.engine import (
    MODEL_NAME,
    Citation,
    Manifest,
    Metrics,
    OnnxWeights,
    Range,
    Weights,
    load_engine,
    sha256_of,
    write_manifest,
)
from livesr.training import networks
from livesr.training.recipes import Recipe

IMC_SR = Citation(
    text="Wang et al. (2021), Instant multicolor super-resolution microscopy with deep convolutional neural network, "
    "Biophysics Reports",
)


def export_engine(recipe: Recipe, weights: Path, folder: Path) -> tuple[Manifest, float]:
    """Write model.onnx and manifest.yaml into `folder`; return the manifest and the largest difference from torch."""
    folder.mkdir(parents=True, exist_ok=True)
    network = networks.load(weights)
    error = export_onnx(network, folder / MODEL_NAME, network.frames, multiple_of=network.multiple_of)
    manifest = Manifest(
        **recipe.engine,
        description=recipe.description,
        trained=True,
        scale=network.scale,
        multiple_of=network.multiple_of,
        halo=network.halo,
        architecture=recipe.train.architecture,
        parameters=dict(recipe.train.parameters),
        training={
            **recipe.data.settings(),
            "seed": recipe.train.seed,
            "loss": recipe.train.loss.model_dump(),
            "recipe": recipe.engine["id"],
        },
        weights=Weights(onnx=OnnxWeights(sha256=sha256_of(folder / MODEL_NAME))),
        license="BSD-3-Clause",
        authors=("the livesr developers",),
        cite=(IMC_SR,),
    )
    write_manifest(folder, manifest)
    return manifest, error


def write_metrics(folder: Path, results: Mapping[str, Any]) -> Manifest:
    """Put metrics into the manifest: scores of a calibrated rig, the residual's range over all that training draws."""
    manifest = load_engine(folder).manifest
    calibrated, full = results["calibrated"], results["full_range"]
    channels = {
        name: {metric: float(value["mean"]) for metric, value in structure["network"].items() if value["n"]}
        for name, structure in calibrated["structures"].items()
    }
    spread = full["residual_percentiles"]  # one frame in a hundred may lie beyond: a warning that never comes is none
    metrics = Metrics(
        data=calibrated["data"],
        residual=Range(min=spread["p1"], max=spread["p99"]),
        channels=channels,
        other={f"mean_pcc_{name}": float(result["mean_pcc"]["network"]["mean"]) for name, result in results.items()},
    )
    manifest = manifest.model_copy(update={"metrics": metrics})
    write_manifest(folder, manifest)
    return manifest


def card(recipe: Recipe, folder: Path, results: Mapping[str, Any] | None, log: Path) -> None:
    """Write README.md, the model card, and copy the training log beside it."""
    rows = _read_log(log)
    (folder / "training-log.csv").write_text(log.read_text(encoding="utf-8"), encoding="utf-8")
    last = rows[-1]
    name = recipe.engine["id"]
    parameters = ", ".join(f"{k} {v}" for k, v in recipe.train.parameters.items())
    text = f"""# {name}

{recipe.description}

- Architecture: {recipe.train.architecture} ({parameters}); IMC-SR-All with three-frame input (Wang et al. 2021).
- Input: three consecutive super-resolution frames of one fluorophore, x = (X - background) / headroom. Output: one image per
  structure of the middle frame{_sum_rule(recipe.train.parameters)}.
- Training: {int(last["step"])} steps of {recipe.train.batch} patches of {recipe.train.patch} x {recipe.train.patch},
  {float(last["minutes"]):.0f} minutes on a CPU, on {recipe.data.train} simulated sequences of three
  frames (seed {recipe.data.seed}); no real image was used. The log is `training-log.csv`.
- Make it again: `livesr train --recipe {name} --out runs/light && livesr export runs/light --out engines/{name}`.
  The training budget is minutes of the clock, so the weights will be alike, not equal.

{_scores(results) if results else "It was not evaluated."}

## Limits

The authors of the method name them, and they hold here: structures that look alike are confused, a structure much weaker than
the others is lost, and an engine is valid for its combination of structures only. What it shows is a prediction. The images
that it learned from are simulated: expect less on real ones, and compare with the measurement, which is stored beside it.

{recipe.notes}"""
    (folder / "README.md").write_text(text, encoding="utf-8")


def _scores(results: Mapping[str, Any]) -> str:
    from livesr.evaluation.engines import card_table

    return f"""## On simulated sequences that it never saw: a calibrated rig

Patterns as calibrated, 100 to 1000 photo-electrons in bright parts of a raw frame, structures within 1:2.5 of each other.

{card_table(results["calibrated"])}
![Input, channels, composite and truth of three sequences, not chosen](evaluation-calibrated.png)

## The whole range that it was trained for

From 15 photo-electrons, calibrations that are wrong, fast motion, haze, structures within 1:5 of each other or missing.

{card_table(results["full_range"])}"""


def _read_log(log: Path) -> list[dict[str, str]]:
    with log.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def _sum_rule(parameters: Mapping[str, Any]) -> str:
    if parameters.get("head") == "partition":
        return "; x is shared out, so that their sum cannot exceed it"
    if parameters.get("head") == "restore":
        return "; an image of x without noise is predicted and shared out"
    return "; training draws their sum towards x, nothing enforces it"
