"""Recipes: everything that makes an engine, in one YAML file each.

Owns their model and how they are found. Trains nothing.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

from livesr.base.config import load_yaml, parse
from livesr.base.errors import ConfigError, suggestion
from livesr.live.inference.engine import Manifest, OnnxWeights, Weights
from livesr.simulation.domain import Domain, Range
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
    photons : of the bright parts of a raw frame, least and most, where somebody said so
    unmeasured : what its rig.yaml does not say, so that cells are simulated over all of its range
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    channel: str = ""
    recipe: str
    photons: Range | None = None
    unmeasured: tuple[str, ...] = ()


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

    @model_validator(mode="after")
    def _engine_can_be_written(self) -> Self:
        """Refuse what the manifest will not take before a network is trained for it."""
        if "window" not in self.engine:
            raise ValueError("engine.window: how many frames the network sees, 1 or 3")
        if said := self.engine.keys() & _LATER:
            raise ValueError(f"engine: {', '.join(sorted(said))} is said by 'livesr export'")
        try:
            Manifest.model_validate({**self.engine, **_PLACEHOLDERS})
        except ValidationError as e:
            problem = e.errors(include_url=False)[0]
            where = ".".join(map(str, ("engine", *problem["loc"])))
            raise ValueError(f"{where}: {problem['msg']}") from None
        return self


_LATER = {
    *("description", "trained", "scale", "multiple_of", "halo", "haze", "architecture"),
    *("parameters", "training", "metrics", "limits", "weights", "license", "authors", "cite"),
}
"""What a manifest says of an engine, and the recipe does not."""

_PLACEHOLDERS: dict[str, Any] = {
    "description": "",
    "trained": True,
    "architecture": "",
    "license": "",
    "weights": Weights(onnx=OnnxWeights(sha256="0" * 64)),
}


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
