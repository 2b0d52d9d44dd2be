"""A recipe for one microscope: simulated cells as that rig shows them, and what it begins with.

Owns which channel is meant, and what changes of a recipe. What a rig shows of a cell is its
modality's (`Modality.domain_of`). Simulates and trains nothing.
"""

from __future__ import annotations

import re
from typing import Any

from livesr.base.config import RigConfig
from livesr.base.errors import ConfigError
from livesr.live.inference.engine import engine_folders
from livesr.modalities.registry import modality
from livesr.simulation.domain import Range
from livesr.training.recipes import OwnRig, Recipe, load_recipe, names

DEFAULT_RECIPE = "imcsr-mt-er-lyso-light"
_DATA = {"train": 600, "validation": 24, "recombined": 0.5, "plain": 1.0}
_TUNING = {
    "minutes": 20.0,
    "optimiser": "adamw",
    "lr": 3e-4,
    "warmup_steps": 30,
    "ema_decay": 0.98,
    "validate_every": 100,
    "checkpoint_every": 100,
    "restarts": 0,
    "begin_as": {},
}
_CORRELATION = 0.01  # asked for in the loss; all this where the network knows cells already
_PIXEL = 0.08  # relative, either way: of the pixels that the engine takes as they are


def channel_for(rig: RigConfig, channel: str | None = None) -> str:
    """Return the channel that a network is trained for: the one that is named, the only one, or the
    only one with an engine that separates.

    Raises
    ------
    ConfigError
        If there is no such channel, or several could be meant.
    """
    if channel is not None:
        rig.channel(channel)  # a typo
        return channel
    separated = [name for name, of in rig.channels.items() if of.separate]
    able = separated or list(rig.channels) or [""]
    if len(able) > 1:
        raise ConfigError(
            f"A network is trained for one channel; say with --channel for which:"
            f" {', '.join(able)}."
        )
    return able[0]


def recipe_for(
    rig: RigConfig,
    channel: str,
    recipe: str | None = None,
    photons: Range | None = None,
    **train: Any,
) -> Recipe:
    """Return a recipe for one channel of `rig`.

    Its cells are as rig.yaml says that the rig shows them, and its engine has a name of its own.
    Where livesr has the recipe's engine, training begins with it and takes minutes: cells are
    known, and only the microscope is new.

    Parameters
    ----------
    recipe : a YAML file or a name; without, that of the engine that separates the channel
    photons : photo-electrons of the bright parts of a raw frame, least and most, where that is
        known
    train : takes the place of what is said of the training here and in the recipe

    Raises
    ------
    ConfigError
        If there is no such recipe, its pairs are no simulated ones of the channel's modality,
        rig.yaml does not say enough, or `photons` are no range.
    """
    if photons and not 0 < photons[0] <= photons[1]:
        raise ConfigError(
            f"{photons[0]:g} to {photons[1]:g} photo-electrons: give the least first, more than 0."
        )
    named = recipe or _recipe_of(rig, channel)
    found = load_recipe(named, **train)
    engine = found.engine["id"]
    if start := train.get("start") or (engine if engine in engine_folders() else None):
        loss = {**found.train.loss.model_dump(), "correlation": _CORRELATION}
        found = load_recipe(named, **{**_TUNING, "loss": loss, **train, "start": start})
        found = found.model_copy(update={"data": found.data.model_copy(update=_DATA)})
    return _narrowed(found, rig, channel, photons)


def _recipe_of(rig: RigConfig, channel: str) -> str:
    engine = rig.channel(channel).separate or DEFAULT_RECIPE
    if engine not in names():
        raise ConfigError(
            f"No recipe has the name of the engine that separates the channel, {engine}: say with"
            " --recipe which to train by."
        )
    return engine


def _narrowed(recipe: Recipe, rig: RigConfig, channel: str, photons: Range | None) -> Recipe:
    data, way = recipe.data, modality(rig.modality_of(channel))
    if data.kind != "separate" or data.images is not None:
        what = "learns from own images" if data.images else f"makes pairs of kind {data.kind!r}"
        raise ConfigError(
            f"Recipe {recipe.engine['id']} {what}; cells are simulated for one microscope where"
            " structures are separated: leave out --rig."
        )
    if way.name != data.modality:
        raise ConfigError(
            f"Cells are simulated under {modality(data.modality).title}, and the channel is"
            f" reconstructed as {way.title}: leave out --rig, or give a channel of another kind."
        )
    domain = way.domain_of(rig, channel, data.domain)
    domain = domain.model_copy(update={"photons": photons or domain.photons})
    pixel_nm, (finest, coarsest) = domain.pixel_size_um * 500, domain.resolution_nm
    of = f"{rig.name}, channel {channel}" if channel else rig.name
    engine = {
        **recipe.engine,
        "id": _id(recipe.engine["id"], rig.name, channel),
        "pixel_size_nm": {
            "min": round(pixel_nm * (1 - _PIXEL), 1),
            "max": round(pixel_nm * (1 + _PIXEL), 1),
        },
        "resolution_nm": {"min": finest, "max": coarsest},
    }
    return recipe.model_copy(
        update={
            "description": f"{recipe.description} Trained for one microscope: {of}.",
            "data": data.model_copy(update={"domain": domain}),
            "engine": engine,
            "notes": "",
            "rig": OwnRig(name=rig.name, channel=channel, recipe=recipe.engine["id"]),
        }
    )


def _id(*parts: str) -> str:
    """Return the name of an engine, as manifests allow it."""
    return re.sub("[^a-z0-9._]+", "-", "-".join(filter(None, parts)).lower())[:100].strip("-")
