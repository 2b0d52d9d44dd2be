"""The model card of an engine: README.md, and the log of its training beside it.

Owns the words. Every number in it comes from the training log or from an evaluation.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from livesr.evaluation.engines import card_table
from livesr.evaluation.pairs import pairs_table, upscale_table
from livesr.live.inference.engine import load_engine
from livesr.simulation.domain import calibrated_like
from livesr.training.journal import read_log
from livesr.training.recipes import Recipe
from livesr.training.start import outputs_in_words

_ORIGINS = {
    "imcsr": "IMC-SR-All (Wang et al. 2021)",
    "imcsr-single": "IMC-SR-Single, one network per structure (Wang et al. 2021)",
    "edsr": "EDSR (Lim et al. 2017; for STORM Hu et al. 2020)",
    "rcan": "RCAN (Zhang et al. 2018)",
    "unet": "U-Net (Ronneberger et al. 2015; for raw SIM frames Jin et al. 2020)",
    "dfcan": "DFCAN (Qiao et al. 2021)",
    "srcnn": "SRCNN (Dong et al. 2014)",
    "fsrcnn": "FSRCNN (Dong et al. 2016)",
    "espcn": "ESPCN (Shi et al. 2016)",
    "vdsr": "VDSR (Kim et al. 2016)",
    "drcn": "DRCN (Kim et al. 2016)",
    "drrn": "DRRN (Tai et al. 2017)",
    "srresnet": "SRResNet (Ledig et al. 2017)",
    "srdensenet": "SRDenseNet (Tong et al. 2017)",
    "memnet": "MemNet (Tai et al. 2017)",
    "mdsr": "MDSR (Lim et al. 2017)",
    "rdn": "RDN (Zhang et al. 2018)",
    "raw-unet": "U-Net on raw frames (Jin et al. 2020), on blocks of pixels",
}
_LIMITS = {
    "separate": (
        """The authors of the method name them, and they hold here: structures that look alike are confused, a structure
much weaker than the others is lost, and an engine is valid for its combination of structures only."""
    ),
    "upscale": (
        """Detail finer than the input is drawn from what such images usually show. Beyond x3 lines break and specks
appear (Hu et al. 2020)."""
    ),
    "reconstruct": (
        """Few raw frames do not hold what many do, and noise hides what little light shows: the network draws what
such specimens usually look like. Structures that it did not learn from, other optics and other patterns are drawn wrong without
a sign of it."""
    ),
}
_LIMITS |= dict.fromkeys(
    ("paired", "sparse"),
    """It draws what its training pairs usually showed: structures, optics or light that they did not have are drawn as if
they had been there.""",
)
_LIMITS[
    "localise"
] = """Where emitters lie closer than about the width of a camera pixel it draws what such spots usually were. It
was trained on round spots in focus: others are drawn as several emitters, or none."""
_SHARPER = """**Sharper, less true.** A discriminator took part in the training: what the measurement leaves open is drawn as
such images usually look, and looks measured. Do not count or measure fine detail in it."""
_BREAK = "\n\n"
_SIMULATED = "The images that it learned from are simulated: expect less on real ones."


def card(recipe: Recipe, folder: Path, results: Mapping[str, Any] | None, log: Path) -> None:
    """Write README.md, the model card, and copy the training log beside it."""
    (folder / "training-log.csv").write_text(log.read_text(encoding="utf-8"), encoding="utf-8")
    last, train = read_log(log)[-1], recipe.train
    name, minutes, simulated = (
        recipe.engine["id"],
        float(last["minutes"]),
        recipe.data.images is None,
    )
    parameters = ", ".join(f"{k} {v}" for k, v in train.parameters.items())
    unreal = "No real image was used. " if simulated else ""
    budget = "steps of one machine" if train.steps else "minutes of the clock"
    text = f"""# {name}

{recipe.description}

- Architecture: {train.architecture} ({parameters}); {_ORIGINS.get(train.architecture, train.architecture)}.
- {_interface(recipe)}
{_for_one(recipe)}- Training: {int(last["step"])} steps of {train.batch} patches of {train.patch} x {train.patch} in {minutes:.0f} minutes, on
  {recipe.data.describe()} (seed {recipe.data.seed}). {_began(folder)}{unreal}The log is `training-log.csv`.
- Make it again: `livesr train {_again(recipe)} --out runs/{name} && livesr export runs/{name} --out engines/{name}`.
  The training budget is {budget}: the weights will be alike, not equal.

{_scores(recipe, results) if results else "It was not evaluated."}

## Limits

{f"{_SHARPER}{_BREAK}" if train.loss.kind == "adversarial" else ""}{_LIMITS[recipe.data.kind]} What it shows is a
prediction: compare it with the measurement, which is stored beside it. {_SIMULATED if simulated else ""}

{recipe.notes}"""
    (folder / "README.md").write_text(text, encoding="utf-8")


def _again(recipe: Recipe) -> str:
    """Return what names the recipe on the command line."""
    rig = recipe.rig
    if rig is None:
        return f"--recipe {recipe.engine['id']}"
    told = {
        "--channel": [rig.channel] if rig.channel else [],
        "--recipe": [rig.recipe],
        "--photons": [f"{n:g}" for n in rig.photons or ()],
        "--start": [recipe.train.start] if recipe.train.start else [],
    }
    return " ".join(["--rig RIG", *(f"{o} {shlex.join(said)}" for o, said in told.items() if said)])


def _interface(recipe: Recipe) -> str:
    if recipe.data.kind == "reconstruct":
        return (
            f"Input: {len(recipe.data.frames)} raw frames of one time point"
            f" ({', '.join(recipe.engine['raw_frames'])}), x = (X - background) / scale of\n  their"
            " mean. Output: one image on half the pixel size."
        )
    if recipe.data.kind == "upscale":
        return (
            "Input: one image, x = (X - background) / scale. Output: it, sampled"
            f" {recipe.data.scale} times more finely."
        )
    if recipe.data.kind == "sparse":
        return (
            "Input: a picture of few localisations and one of widefield on its pixels, each x = (X"
            " - background) /\n  scale. Output: the picture of many localisations."
        )
    if recipe.data.kind == "localise":
        return (
            "Input: one camera frame, x = (X - background) / scale. Output: the density of"
            " emitters, a Gaussian of one\n  pixel and peak 1 for each."
        )
    if recipe.data.kind == "paired":
        return "Input: one image, x = (X - background) / scale. Output: its partner, in its unit."
    frames = (
        "three consecutive super-resolution frames"
        if recipe.engine["window"] == 3
        else "one super-resolution frame"
    )
    middle = " of the middle frame" if recipe.engine["window"] == 3 else ""
    haze = ", with its light from far out of focus" if recipe.data.haze_in_truth else ""
    return (
        f"Input: {frames} of one fluorophore, x = (X - background) / scale. Output: one image"
        f" per\n  structure{middle}{haze}{_sum_rule(recipe.train.parameters)}."
    )


def _for_one(recipe: Recipe) -> str:
    """Say what the one microscope is that it was trained for, if it was."""
    if recipe.rig is None:
        return ""
    domain, (finest, coarsest) = recipe.data.domain, recipe.data.domain.resolution_nm
    channel = f", channel {recipe.rig.channel}" if recipe.rig.channel else ""
    missing = ", ".join(recipe.rig.unmeasured)
    told = f" Its rig.yaml did not say {missing}: any usual." if missing else ""
    return (
        f"- For one microscope: {recipe.rig.name}{channel}: resolution {finest:g} to"
        f" {coarsest:g} nm (wavelength / 2 NA), camera pixels of"
        f" {1e3 * domain.pixel_size_um:g} nm,\n  Wiener parameter {domain.wiener[0]:g}. On another"
        f" take {recipe.rig.recipe}.{told}\n"
    )


def _began(folder: Path) -> str:
    start = load_engine(folder).manifest.training.get("start")
    if not start:
        return ""
    return (
        f"It began with {start['tensors']} of {start['of']} tensors of {start['name']} (SHA-256"
        f" {start['sha256'][:12]}){outputs_in_words(start.get('outputs', {}))}. "
    )


def _sum_rule(parameters: Mapping[str, Any]) -> str:
    left_out = "; light that looks like none of them goes to no channel, and how much is told"
    return _shared_out(parameters) + (left_out if parameters.get("unknown") else "")


def _shared_out(parameters: Mapping[str, Any]) -> str:
    if parameters.get("head") == "partition":
        limit = "" if parameters.get("haze") else ", so that their sum cannot exceed it"
        return f"; x is shared out{limit}"
    if parameters.get("head") == "restore":
        return "; an image of x without noise is predicted and shared out"
    return "; training draws their sum towards x, nothing enforces it"


def _pairs_scores(results: Mapping[str, Any], kind: str) -> str:
    if any("mean_gradient" not in result for result in results.values()):
        return (
            f"## On pairs that it never learned from\n\n{pairs_table(next(iter(results.values())))}"
        )
    words = "; ".join(f"*{label}*: {result['data']}" for label, result in results.items())
    if kind == "reconstruct":
        return f"""## Beside the mean of its raw frames

{words}. Means with 95 % intervals; the truth is the specimen at the passband of ideal SIM.

{upscale_table(results, "mean of the raw frames", "network")}"""
    return f"""## Beside the cubic spline

{words}. Means with 95 % intervals. A mean gradient alone misleads: an aliased image may exceed the original.

{upscale_table(results)}"""


def _scores(recipe: Recipe, results: Mapping[str, Any]) -> str:
    if recipe.data.kind == "localise":
        return (
            "## Beside fits\n\nWhat it finds of known emitters, at several densities, beside"
            " livesr's own fits: [networks]"
            "(../../docs/networks.md#localisation-fits-or-a-network)."
        )
    if "calibrated" not in results:
        return _pairs_scores(results, recipe.data.kind)
    domain = recipe.data.domain
    good = calibrated_like(domain)
    return f"""## On simulated sequences that it never saw: a calibrated rig

Patterns as calibrated, {good.photons[0]:g} to {good.photons[1]:g} photo-electrons in bright parts of a raw frame, structures within 1:{good.brightness_ratio:g} of each other.

{card_table(results["calibrated"])}
![Input, channels, composite and truth of three sequences, not chosen](evaluation-calibrated.png)

## The whole range that it was trained for

From {domain.photons[0]:g} photo-electrons, calibrations that are wrong, fast motion, haze, structures within
1:{domain.brightness_ratio:g} of each other or missing.

{card_table(results["full_range"])}"""
