"""A recipe for one microscope: simulated cells as that rig shows them, and what it begins with.

Owns which channel is meant, and what changes of a recipe. What a rig shows of a cell is its
modality's (`Modality.domain_of`). Simulates and trains nothing.
"""

from __future__ import annotations

import re
import unicodedata
from typing import Any

from livesr.base.config import RigConfig
from livesr.base.errors import ConfigError, EngineError
from livesr.live.inference.engine import engine_folders, load_engine
from livesr.modalities.registry import modality
from livesr.simulation.domain import Range
from livesr.training.recipes import OwnRig, Recipe, load_recipe, names

DEFAULT_RECIPE = "imcsr-mt-er-lyso-light"
_DATA = {"recombined": 0.5, "plain": 1.0}
_PAIRS = {"train": 600, "validation": 24}  # at most
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
_MEASURED = {
    "k_over_cutoff": "patterns",
    "damping": "damping",
    "gain_adu_per_e": "gain_e_per_adu",
    "read_noise_e": "read_noise_e",
}  # what narrows a range of a domain is found by measuring
_NAME = 50  # characters of a name's half
_PIXEL = 0.08  # relative, either way: of the pixels that the engine takes as they are


def channel_for(rig: RigConfig, channel: str | None = None) -> str:
    """Return the channel that a network is trained for: the one that is named, the only one, or the
    only one with an engine that separates.

    Raises
    ------
    ConfigError
        If there is no such channel, or several could be meant.
    """
    if channel:
        rig.channel(channel)  # a typo
        return channel
    separated = [name for name in rig.channels if rig.channel(name).separate]
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
        If there is no such recipe, its pairs are no simulated ones of the channel's modality, it is
        for one microscope already, rig.yaml does not say enough, or `photons` are no range.
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
        fewer = {name: min(n, getattr(found.data, name)) for name, n in _PAIRS.items()}
        data = found.data.model_copy(update={**_DATA, **fewer})
        found = found.model_copy(update={"data": data})
    return _narrowed(found, rig, channel, photons)


def _recipe_of(rig: RigConfig, channel: str) -> str:
    """Return the recipe of the engine that separates the channel, or the sum that it is part of;
    of one that was made for a microscope, the recipe that it was made by.
    """
    of_sum = rig.superposed.separate if rig.superpose else None
    engine = rig.channel(channel).separate or of_sum or DEFAULT_RECIPE
    if engine in names():
        return engine
    try:
        recipe = load_engine(engine).manifest.training.get("recipe")
    except EngineError:
        recipe = None
    if recipe not in names():
        raise ConfigError(
            f"No recipe has the name of the engine that separates the channel, {engine}: say with"
            " --recipe which to train by."
        )
    return str(recipe)


def _narrowed(recipe: Recipe, rig: RigConfig, channel: str, photons: Range | None) -> Recipe:
    data, way = recipe.data, modality(rig.modality_of(channel))
    if data.kind != "separate" or data.images is not None:
        what = "learns from own images" if data.images else f"makes pairs of kind {data.kind!r}"
        raise ConfigError(
            f"Recipe {recipe.engine['id']} {what}; cells are simulated for one microscope where"
            " structures are separated: leave out --rig."
        )
    if recipe.rig is not None:
        raise ConfigError(
            f"Recipe {recipe.engine['id']} is for one microscope already, {recipe.rig.name}: give"
            f" the one that it was made of, {recipe.rig.recipe}, or leave out --rig."
        )
    if way.name != data.modality:
        raise ConfigError(
            f"Cells are simulated under {modality(data.modality).title}, and the channel is"
            f" reconstructed as {way.title}: leave out --rig, or give a channel of another kind."
        )
    domain = way.domain_of(rig, channel, data.domain)
    same = (name for name in _MEASURED if getattr(domain, name) == getattr(data.domain, name))
    unmeasured = tuple(_MEASURED[name] for name in same)
    most = domain.photons[1]
    if photons and most < min(photons[1], data.domain.photons[1]):  # what the camera holds
        raise ConfigError(
            f"{photons[1]:g} photo-electrons saturate this camera, which holds {most:.0f} in bright"
            " parts (bit_depth, gain_e_per_adu): give fewer, or correct rig.yaml."
        )
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
            "rig": OwnRig(
                name=rig.name,
                channel=channel,
                recipe=recipe.engine["id"],
                photons=photons,
                unmeasured=unmeasured,
            ),
        }
    )


def _id(recipe: str, rig: str, channel: str) -> str:
    """Return the name of an engine, as manifests allow it, that is none of its recipe's."""
    own = "-".join(filter(None, [_plain(rig) or "own-rig", _plain(channel)]))[:_NAME].strip("-")
    return f"{_plain(recipe)[: _NAME - 1]}-{own}"


def _plain(name: str) -> str:
    latin = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode()
    return re.sub("[^a-z0-9._]+", "-", latin.lower()).strip("-._")
