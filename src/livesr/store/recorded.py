"""On what a store was acquired: its rig, and the engines that its predictions name.

Owns the way back from a store to what can compute. Writes nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from livesr.base import contained
from livesr.base.config import RigConfig, SuperposeConfig, load_yaml, parse
from livesr.base.errors import EngineError, StoreError
from livesr.formats import layout
from livesr.formats.store import RecordedStore
from livesr.live.inference.engine import Engine, engine_folders, load_engine


def recorded_rig(
    store: RecordedStore, engine: str | None = None, upscale: str | None = None
) -> RigConfig:
    """Return the rig of a store as it was, each channel with the engines that it went through.

    Parameters
    ----------
    store : which says it
    engine, upscale : instead of those that a channel was separated and enlarged with

    Raises
    ------
    StoreError
        If the store holds no copy of rig.yaml.
    EngineError
        If an engine is not on this computer.
    """
    path = contained.beneath(store.path, f"{layout.SIDECARS}/rig.yaml")
    if not path.is_file():
        raise StoreError(
            f"{store.path} holds no copy of rig.yaml: say with --rig on what it was acquired."
        )
    rig = parse(
        RigConfig,
        {**load_yaml(path), "folder": path.parent, "micromanager": "rig.cfg"},
        str(path),
    ).model_copy(update={"endpoint": None})  # no store decides where frames go
    for name in rig.files():  # they go into the store that is made of this one
        contained.beneath(path.parent, name)
    named = {"separate": engine, "upscale": upscale}

    def used(name: str) -> dict[str, str | None]:
        models = store.models(name)
        return {
            task: (instead or str(find_engine(models[task]).folder)) if task in models else None
            for task, instead in named.items()
        }

    channels = {
        name: rig.channel(name).model_copy(update=used(name)) for name in store.camera_channels
    }
    sums = [
        parse(SuperposeConfig, {**about, **used(name)}, str(path))
        for name, about in store.superposed.items()
    ]
    return rig.model_copy(update={"channels": channels, "superpose": next(iter(sums), None)})


def find_engine(model: Mapping[str, Any]) -> Engine:
    """Return the engine with the id and weights that a prediction names.

    Raises
    ------
    EngineError
        If none of the engines here is that one.
    """
    by_name_first = sorted(engine_folders().items(), key=lambda item: item[0] != model["id"])
    for _, folder in by_name_first:
        try:
            engine = load_engine(folder)
        except EngineError:  # a damaged one is not the one that is looked for
            continue
        if (engine.manifest.id, engine.manifest.sha256) == (model["id"], model["sha256"]):
            return engine
    raise EngineError(
        f"The store was predicted by engine {model['id']!r} with weights {model['sha256'][:12]}...,"
        " which is not among the engines here. Put its folder into ./engines, or name it: --engine"
        " FOLDER, or --upscale FOLDER if it enlarges."
    )
