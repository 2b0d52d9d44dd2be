"""Recipes: everything that makes an engine, in one YAML file each.

Owns their model and how they are found. Trains nothing.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from livesr.base.config import load_yaml, parse
from livesr.base.errors import ConfigError, suggestion
from livesr.simulation.domain import Domain
from livesr.training.data import DataConfig
from livesr.training.settings import TrainConfig

FOLDER = Path(__file__).parent


class OwnRig(BaseModel):
    """The microscope that an engine is trained for.

    Attributes
    ----------
    name : as its rig.yaml has it
    channel : of the rig; "" where it has none
    recipe : that was made one for this microscope
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    channel: str = ""
    recipe: str


class Recipe(BaseModel):
    """One YAML file: data, training, and what the engine's manifest says."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    description: str
    data: DataConfig
    train: TrainConfig
    engine: dict[str, Any]
    notes: str = ""
    """What the card says about this engine's limits, beyond the method's own."""
    rig: OwnRig | None = None
    """The one microscope that it is for; None: for all of its domain."""


def names() -> list[str]:
    """Recipes that come with livesr."""
    return sorted(p.stem for p in FOLDER.glob("*.yaml"))


def load_recipe(recipe: str | os.PathLike[str], **train: Any) -> Recipe:
    """Read a recipe: a YAML file, or the name of one that comes with livesr.

    `train` takes the place of what the recipe says there, before both are looked at together.

    Raises
    ------
    ConfigError
        If there is none, or it does not parse.
    """
    path = Path(recipe)
    if not path.is_file():
        path = FOLDER / f"{recipe}.yaml"
    if not path.is_file():
        raise ConfigError(
            f"No recipe {str(recipe)!r}: neither a file nor a known"
            f" name.{suggestion(str(recipe), names())}"
        )
    said = load_yaml(path)
    if train and isinstance(own := said.get("train"), Mapping):
        said = {**said, "train": {**own, **train}}
    return parse(Recipe, said, str(path))


def domain_of_engine(
    engine: str, channels: Sequence[str], recipe: str | None = None
) -> Domain | None:
    """Return what an engine with these channels was trained on: the domain of a recipe, or of the
    one of its name. None without either.

    Raises
    ------
    ConfigError
        If the recipe that is given makes other channels.
    """
    known = recipe or (engine if engine in names() else None)
    if known is None:
        return None
    found = load_recipe(known)
    made = [channel["name"] for channel in found.engine.get("channels", ())]
    if made == list(channels):
        return found.data.domain
    if recipe is None:
        return None
    raise ConfigError(
        f"Recipe {recipe!r} makes {', '.join(made)}, and engine {engine!r} {', '.join(channels)}:"
        " give the recipe that it was trained with."
    )
