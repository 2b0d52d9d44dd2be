"""`RigLimits` from a rig's own recordings of specimens that are known to be in order.

Owns what is read from the recordings, and how a limit follows. Computes no prediction: stores hold
what a live run told of each. The bound itself is `livesr.evaluation.conformal`'s.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from livesr.base.config import RigConfig
from livesr.base.errors import ConfigError, StoreError
from livesr.base.rig_limits import ChannelLimits
from livesr.base.taken_with import TakenWith
from livesr.evaluation.conformal import fewest_units, width
from livesr.formats.store import RecordedStore
from livesr.live.compose import highest
from livesr.live.networks import engines_of
from livesr.live.taken_with import taken_with
from livesr.store.recorded import recorded_rig

FALSE_ALARMS = 0.05
_DIGIT = 1e-4  # of the numbers that a store keeps


class Field(NamedTuple):
    """One position of one recording, whose frames are alike.

    Attributes
    ----------
    started : when its run began; "" where the recording does not say
    unknown_light : the highest that a live run compares with a limit
    """

    store: str
    started: str
    position: int
    channel: str
    taken_with: TakenWith
    frames: int
    unknown_light: float


def fields_of(store: RecordedStore) -> list[Field]:
    """Return what the predictions of a store told, by position and channel.

    Raises
    ------
    StoreError
        If it holds no prediction of an engine that tells unknown light, or no copy of its rig.
    EngineError
        If its engine is not on this computer.
    """
    pixels_nm = {
        image.channel: image.scale["x"] * 1e3
        for image in store.images.values()
        if image.kind == "sr"
    }
    told: dict[tuple[int, str], dict[int, list[float]]] = {}
    for (stream, _), line in sorted(store.pictures("sr").items()):
        unknown = line.get("unknown_light")
        if unknown is not None and stream.channel in pixels_nm:
            planes = told.setdefault((stream.position, stream.channel), {})
            planes.setdefault(stream.z, []).append(unknown)
    if not told:
        raise StoreError(
            f"No prediction in {store.path} tells light of no known structure: record it, or"
            " 'livesr process' it, with an engine that does, as imcsr-mt-er-lyso-light."
        )
    rig = recorded_rig(store)
    taken = {
        name: taken_with(rig, name, engines_of(rig, name), pixels_nm[name], store.provenance(name))
        for _, name in told
    }
    return [
        Field(
            store.path.name,
            str(store.about.get("started", "")),
            position,
            channel,
            taken[channel],
            sum(map(len, planes.values())),
            max(map(highest, planes.values())),
        )
        for (position, channel), planes in told.items()
    ]


def rig_limits(
    fields: Sequence[Field], rig: RigConfig, false_alarms: float = FALSE_ALARMS
) -> dict[str, ChannelLimits]:
    """Return the limits of every channel that fields are of.

    A field exceeds one if it does at any time. Of exchangeable fields the next one does with a
    probability of `false_alarms` at most, on average over calibrations (conformal prediction).

    Raises
    ------
    ConfigError
        If there are too few fields, if one comes twice, or if they or the rig differ in what they
        are taken with.
    """
    seen: dict[tuple[str, int, str], str] = {}
    for field in fields:
        key = field.started, field.position, field.channel
        if field.started and key in seen:
            raise ConfigError(
                f"{seen[key]} and {field.store} are of one run, whose fields count once: leave one"
                " out."
            )
        seen[key] = field.store
    channels = dict.fromkeys(field.channel for field in fields)
    return {
        name: _of_channel([field for field in fields if field.channel == name], rig, false_alarms)
        for name in channels
    }


def _of_channel(fields: Sequence[Field], rig: RigConfig, false_alarms: float) -> ChannelLimits:
    name, first = fields[0].channel, fields[0]
    ours = taken_with(rig, name, engines_of(rig, name), first.taken_with.pixel_size_nm)
    for field in fields:
        for whose, other in ((f"rig {rig.name!r}", ours), (first.store, first.taken_with)):
            if differs := field.taken_with.differs(other):
                raise ConfigError(
                    f"{field.store} was taken with {differs} as {whose}, in channel {name!r}:"
                    " a limit is of one rig as it is. Leave it out, or 'livesr process' it with"
                    " --rig."
                )
    if len(fields) < (needed := fewest_units(false_alarms)):
        raise ConfigError(
            f"{len(fields)} of {needed} fields came of channel {name!r}, with"
            f" {sum(f.frames for f in fields)} frames in all: a limit that"
            f" {100 * false_alarms:.3g} % of fields in order exceed takes {needed}. Frames of one"
            " field are alike, so fields are counted: a position of a recording is one. Record"
            " more, or allow more with --false-alarms"
            f" {math.ceil(100 / (len(fields) + 1)) / 100:.2f}."
        )
    found = width([np.array([field.unknown_light]) for field in fields], false_alarms)
    return ChannelLimits(
        unknown_light=round(found + _DIGIT, 4),
        false_alarms=false_alarms,
        fields=len(fields),
        frames=sum(field.frames for field in fields),
        stores=list(dict.fromkeys(field.store for field in fields)),
        taken_with=first.taken_with,
    )
