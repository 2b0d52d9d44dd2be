"""What the predictions of a rig are taken with, of a run or of a recording.

Owns what counts: of the reconstruction every setting that decides its numbers, and nothing that a
calibration finds anew. How two are compared is `livesr.base.taken_with`'s.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from livesr.base.config import RigConfig
from livesr.base.taken_with import MadeWith, TakenWith, shares
from livesr.live.inference.engine import Engine, load_engine


def made_with(
    rig: RigConfig,
    channels: Sequence[str],
    engines: Sequence[Engine],
    pixel_size_nm: float | None = None,
    told: Mapping[str, Any] | None = None,
) -> MadeWith:
    """Return how a rig makes predictions of a channel, or of several that are added up.

    Parameters
    ----------
    engines : that a frame goes through, in order
    pixel_size_nm : of the predictions; None where nobody knows
    told : what predictions say of themselves (`ChannelDescription.ai`); None before a run

    Raises
    ------
    ConfigError, EngineError
        If the rig does not describe a channel, or an engine that it names is not there.
    """
    return MadeWith(
        engines=list(map(str, engines)),
        pixel_size_nm=pixel_size_nm,
        settings={**_reconstruction(rig, channels), **({} if told is None else _resampled(told))},
    )


def taken_with(
    rig: RigConfig,
    channel: str,
    engines: Sequence[Engine],
    pixel_size_nm: float,
    told: Mapping[str, Any] | None = None,
) -> TakenWith:
    """Return what the predictions of a channel of a rig, or of its sum, have in common; as
    `made_with`.
    """
    summed = rig.superpose if rig.superpose and rig.superpose.name == channel else None
    channels = summed.channels if summed else [channel]
    return TakenWith(
        **dict(made_with(rig, channels, engines, pixel_size_nm, told)),
        resolution_nm=max(map(rig.resolution_nm, channels)),
        mixed=shares(summed.weights or [1.0] * len(summed.channels)) if summed else [],
    )


def _reconstruction(rig: RigConfig, channels: Sequence[str]) -> dict[str, str]:
    """Return the settings that decide the numbers of a picture, by their place in rig.yaml."""
    each = [_of_channel(rig, name) for name in channels]
    found = {key: [of.get(key, "none") for of in each] for key in each[0]}
    return {key: of[0] if len(set(of)) == 1 else " + ".join(of) for key, of in found.items()}


def _of_channel(rig: RigConfig, name: str) -> dict[str, str]:
    channel, way = rig.channel(name), rig.modality_of(name)
    # A map may be measured anew; whether there is one decides.
    corrected = [key for key, value in rig.corrections if _corrects(value, name)]
    common = {
        "reconstruct": way,
        "optics.na": _text(rig.optics.na),
        "corrections": " + ".join(corrected) or "none",
    }
    if learned := channel.learned:  # by which engine is said among the engines
        made_by = "an engine" if learned.engine else "no engine"
        return {**common, "reconstruct": made_by, "frames": _text(list(rig.exposed(name)))}
    settings = rig.section(name).of_pictures()
    own = channel.section.model_dump(mode="json", exclude_none=True)
    settings |= {key: own[key] for key in own.keys() & settings.keys()}
    if localiser := settings.get("localiser"):  # a folder may have moved
        settings["localiser"] = str(load_engine(localiser))
    return {**common, **{f"{way}.{key}": _text(value) for key, value in settings.items()}}


def _corrects(correction: Any, channel: str) -> bool:
    """Return whether a channel is corrected by it; "" stands for all that are not named."""
    if isinstance(correction, Mapping):
        return not correction.keys().isdisjoint((channel, ""))
    return correction not in (None, [])


def _text(value: Any) -> str:
    if value is None:
        return "none"
    return value if isinstance(value, str) else json.dumps(value)


def _resampled(told: Mapping[str, Any]) -> dict[str, str]:
    """Return whether frames were brought to the engine's pixels; stores of 0.1 name no engines."""
    brought = any(one.get("runtime", {}).get("pixel_size_nm") for one in told.get("engines", ()))
    return {"resample": "auto" if brought else "off"}
