"""On what a store was acquired: its rig, and the engines that its predictions name.

Owns the way back from a store to what can compute. Writes nothing.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from types import MappingProxyType
from typing import Any

from livesr.base import contained
from livesr.base.config import ChannelConfig, RigConfig, Step, SuperposeConfig, load_yaml, parse
from livesr.base.errors import ConfigError, EngineError, LiveSRError, StoreError
from livesr.formats import layout
from livesr.formats.store import RecordedStore
from livesr.live.inference.engine import Engine, engine_folders, load_engine
from livesr.modalities.registry import modality
from livesr.store.rig_copy import cut_off

_PREDICTED = re.compile(r"predicted by (\S+) .* \(([0-9a-f]{12})\)$")


def recorded_rig(
    store: RecordedStore,
    engine: str | None = None,
    upscale: str | None = None,
    raw: Mapping[Step, str | None] = MappingProxyType({}),
    localiser: str | None = None,
) -> RigConfig:
    """Return the rig of a store as it was, each channel with the engines that it went through.

    Parameters
    ----------
    store : which says it
    engine, upscale : instead of those that a channel was separated and enlarged with
    raw : instead of those that saw its raw frames, by step
    localiser : instead of what found its emitters, "none" for fits

    Raises
    ------
    StoreError
        If the store holds no copy of rig.yaml.
    EngineError
        If an engine is not on this computer.
    """
    rig = _copy_of_rig(store)
    path = rig.folder / "rig.yaml"
    for name in rig.files():  # they go into the store that is made of this one
        contained.beneath(path.parent, name)
    behind: dict[Step, str | None] = {"separate": engine, "upscale": upscale}
    before: dict[Step, str | None] = {"restore": None, "reconstruct": None, **raw}

    def used(name: str, named: Mapping[Step, str | None]) -> dict[Step, str | None]:
        models = store.models(name)
        return {
            task: (instead or str(find_engine(models[task]).folder)) if task in models else None
            for task, instead in named.items()
        }

    if found := localiser or _localised_by(store):
        rig = rig.with_localiser(found)
    channels = {name: rig.channel(name) for name in store.camera_channels}
    for name in channels:
        for step, folder in used(name, {**before, **behind}).items():
            channels[name] = channels[name].with_step(step, folder)
        channels[name] = _exposing(channels[name], _labels(store, name), rig)
    sums = [
        parse(
            SuperposeConfig,
            {**about, **{str(k): v for k, v in used(name, behind).items()}},
            str(path),
        )
        for name, about in store.superposed.items()
    ]
    scoring = rig.superpose if rig.audit and not sums else None
    if scoring and set(scoring.channels) < set(channels):  # true channels of audits were recorded
        return rig.model_copy(update={"channels": channels})
    # What was recorded is added up, or it is not.
    return rig.model_copy(
        update={"channels": channels, "superpose": next(iter(sums), None), "audit": None}
    )


def _copy_of_rig(store: RecordedStore) -> RigConfig:
    """Return what a store's copy of rig.yaml says.

    Raises
    ------
    StoreError, ConfigError
        If there is none, or it is none, or ends before that of the run did.
    """
    path = contained.beneath(store.path, layout.RIG)
    if cut := cut_off(store.path):
        raise StoreError(
            f"{cut.says} 'livesr repair {store.path}' writes it again; 'livesr process' goes by"
            " another with --rig."
        )
    if not path.is_file():
        raise StoreError(
            f"{store.path} holds no copy of rig.yaml: put that of the rig there, as {path}, or let"
            " 'livesr process' know with --rig on what it was acquired."
        )
    try:
        said = {**load_yaml(path), "folder": path.parent, "micromanager": "rig.cfg"}
        rig = parse(RigConfig, said, str(path))
    except ConfigError as e:
        raise ConfigError(
            f"{e} If this copy is damaged, put the rig's own in its place, or let 'livesr process'"
            " know with --rig on what it was acquired."
        ) from e
    return rig.model_copy(update={"endpoint": None})  # no store decides where frames go


def true_channels(store: RecordedStore) -> frozenset[str]:
    """Return the channels that predictions of others are scored with: parts of a sum, and those of
    audits.
    """
    parts = {name for about in store.superposed.values() for name in about["channels"]}
    with suppress(LiveSRError):  # pictures are shown without
        rig = _copy_of_rig(store)
        parts.update(rig.superpose.channels if rig.audit and rig.superpose else ())
    return frozenset(parts)


def _localised_by(store: RecordedStore) -> str | None:
    """Return the engine that found the emitters of a store, None where none did.

    A run may have used another than its rig.yaml says.
    """
    for image in store.images.values():
        method = str(image.attributes["livesr"].get("method", ""))
        if image.kind == "recon" and (named := _PREDICTED.search(method)):
            return str(find_engine({"id": named[1], "sha256": named[2]}).folder)
    return None


def _exposing(channel: ChannelConfig, labels: Sequence[str], rig: RigConfig) -> ChannelConfig:
    """Return a channel whose network sees raw frames with the exposures that were stored.

    A run may have exposed others than its rig.yaml says.
    """
    learned = channel.learned
    if learned is None or not labels:
        return channel
    name = learned.modality or rig.modality
    known = modality(name).raw_labels(rig.section_of(name))
    places = [known.index(label) for label in labels if label in known]
    frames: int | list[int] | None = places if len(places) == len(labels) else len(labels)
    if frames == list(range(len(known))):
        frames = None
    return channel.model_copy(
        update={"reconstruct": learned.model_copy(update={"frames": frames, "modality": name})}
    )


def _labels(store: RecordedStore, channel: str) -> list[str]:
    """Return what each stored exposure of a group is; [] where none is stored."""
    raw = next((i for i in store.images.values() if (i.kind, i.channel) == ("raw", channel)), None)
    if raw is None:
        return []
    if raw.exposures > 1:  # a film
        return [f"raw {i}" for i in range(raw.exposures)]
    shown = raw.attributes["ome"].get("omero", {}).get("channels", ())
    return [str(one.get("label")) for one in shown]


def find_engine(model: Mapping[str, Any]) -> Engine:
    """Return the engine with the id and weights that a prediction names; of their hash, the first
    digits do.

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
        known = engine.manifest
        if known.id == model["id"] and known.sha256.startswith(model["sha256"]):
            return engine
    raise EngineError(
        f"The store was predicted by engine {model['id']!r} with weights {model['sha256'][:12]}...,"
        " which is not among the engines here. Put its folder into ./engines, or name it: --engine"
        " FOLDER, or --upscale, --reconstruct, --restore or --localiser if it does that. With the"
        " engines of a rig as it is now: 'livesr process STORE --rig RIG'."
    )
