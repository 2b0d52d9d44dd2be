"""From a training run to an engine's folder: network and manifest.

Owns what the manifest says. Trains and evaluates nothing; the model card is `card.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from livesr.base.documents import read_json
from livesr.export.onnx import export_onnx
from livesr.live.inference.engine import (
    MODEL_NAME,
    TOLD,
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
from livesr.training.networks.known_light import KnownLight
from livesr.training.recipes import Recipe
from livesr.training.start import START_NAME

_CITATIONS = {
    "reconstruct": (
        "Jin et al. (2020), Deep learning enables structured illumination microscopy with low light"
        " levels and enhanced speed, Nature Communications 11, 1934"
    ),
    "separate": (
        "Wang et al. (2021), Instant multicolor super-resolution microscopy with deep convolutional"
        " neural network, Biophysics Reports"
    ),
    "upscale": (
        "Hu et al. (2020), Acta Optica Sinica; Lim et al. (2017), Enhanced deep residual networks"
        " for single image super-resolution"
    ),
    "sparse": (
        "Ouyang et al. (2018), Deep learning massively accelerates super-resolution localization"
        " microscopy, Nature Biotechnology 36, 460"
    ),
}


def export_engine(recipe: Recipe, weights: Path, folder: Path) -> tuple[Manifest, float]:
    """Write model.onnx and manifest.yaml into `folder`.

    Return the manifest and the largest difference from torch.
    """
    folder.mkdir(parents=True, exist_ok=True)
    network = networks.load(weights)
    structures = int(getattr(network, "structures", network.channels))
    tells_unknown = network.channels > structures
    whole = KnownLight(network) if tells_unknown else network
    error = export_onnx(whole, folder / MODEL_NAME, network.frames, multiple_of=whole.multiple_of)
    manifest = Manifest(
        **recipe.engine,
        description=recipe.description,
        trained=True,
        scale=network.scale,
        multiple_of=whole.multiple_of,
        halo=network.halo,
        haze=recipe.data.haze_in_truth,
        architecture=recipe.train.architecture,
        parameters=dict(recipe.train.parameters),
        training={
            **recipe.data.settings(),
            "seed": recipe.train.seed,
            "loss": recipe.train.loss.model_dump(),
            "recipe": recipe.rig.recipe if recipe.rig else recipe.engine["id"],
            **_own_rig(recipe),
            "patches": networks.patches_seen(weights),
            **_start(weights.parent),
        },
        weights=Weights(
            onnx=OnnxWeights(sha256=sha256_of(folder / MODEL_NAME)),
            features=TOLD[0] if tells_unknown else 0,
        ),
        license="BSD-3-Clause",
        authors=("the livesr developers",),
        cite=tuple(
            Citation(text=text)
            for of, text in _CITATIONS.items()
            if of == (recipe.data.kind if recipe.data.kind in _CITATIONS else recipe.engine["task"])
        ),
    )
    write_manifest(folder, manifest)
    return manifest, error


def _own_rig(recipe: Recipe) -> dict[str, Any]:
    """Return which microscope it is for, and what cells were simulated under, if for one."""
    if recipe.rig is None:
        return {}
    rig = recipe.rig.model_dump(mode="json", exclude={"recipe"}, exclude_defaults=True)
    return {"rig": rig, "domain": recipe.data.domain.model_dump(mode="json")}


def _start(run: Path) -> dict[str, Any]:
    """Return what the run began with, if not with chance."""
    path = run / START_NAME
    return {"start": read_json(path)} if path.is_file() else {}


def write_metrics(folder: Path, results: Mapping[str, Any]) -> Manifest:
    """Put metrics into the manifest.

    The scores of the first result, the residual's range in the last one.

    For simulated data these are a calibrated rig and all that training draws from; pairs have no
    residual.
    """
    manifest = load_engine(folder).manifest
    first, last = next(iter(results.values())), list(results.values())[-1]
    channels = {
        name: {
            metric: float(value["mean"])
            for metric, value in structure["network"].items()
            if value["n"]
        }
        for name, structure in first["structures"].items()
    }
    # One frame in a hundred may lie beyond: a warning that never comes is none.
    spread = last.get("residual_percentiles")
    metrics = Metrics(
        measured_with=manifest.sha256,
        data=first["data"],
        residual=Range(min=spread["p1"], max=spread["p99"]) if spread else None,
        channels=channels,
        other={
            f"mean_pcc_{name}": float(result["mean_pcc"]["network"]["mean"])
            for name, result in results.items()
        },
    )
    manifest = manifest.model_copy(update={"metrics": metrics})
    write_manifest(folder, manifest)
    return manifest
