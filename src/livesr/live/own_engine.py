"""Whether an engine that was trained for one microscope still stands before that microscope.

Owns how far rig.yaml may move from what the engine saw. What a rig shows of a cell is its
modality's.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from livesr.base.config import RigConfig, parse
from livesr.base.domain import Domain
from livesr.base.errors import ConfigError, EngineError
from livesr.live.inference.engine import Manifest
from livesr.modalities.registry import modality

_TOLERANCE = 0.1  # relative: filters and calibrations that differ by less give frames alike
_SAID_AS = {  # ranges of a domain, as rig.yaml names what they come from
    "na": "optics.na",
    "emission_um": "emission (um)",
    "k_over_cutoff": "k of the patterns (of the cutoff)",
    "modulation": "modulation of the patterns",
    "damping": "damping",
    "gain_adu_per_e": "1 / gain_e_per_adu",
    "read_noise_e": "read_noise_e",
    "wiener": "wiener",
    "attenuation": "attenuation",
    "apodisation": "apodisation",
}


def own_domain(manifest: Manifest) -> Domain | None:
    """Return what an engine that was made for one microscope was trained on; None of others.

    Raises
    ------
    EngineError
        If its manifest does not say it as a domain.
    """
    if (said := manifest.training.get("domain")) is None:
        return None
    try:
        return parse(Domain, said, f"'training: domain' of engine {manifest.id!r}")
    except ConfigError as e:
        raise EngineError(str(e)) from e


def changed_since_training(manifest: Manifest, rig: RigConfig, channel: str) -> list[str]:
    """Return a sentence if a channel of `rig` is not what the engine was trained for, none
    otherwise, and none for engines that are for many microscopes.

    What nobody had measured when it was trained had its whole range then, and is rarely outside.

    Raises
    ------
    EngineError
        If the manifest does not say it as a domain.
    """
    if (trained := own_domain(manifest)) is None:
        return []
    try:
        now = modality(rig.modality_of(channel)).domain_of(rig, channel, trained)
    except ConfigError as e:
        return [f"Engine {manifest.id!r} was trained for one microscope, and this is none: {e}"]

    def changes() -> Iterator[str]:
        for name, said in _SAID_AS.items():
            (low, high), value = getattr(trained, name), math.fsum(getattr(now, name)) / 2
            if not low * (1 - _TOLERANCE) <= value <= high * (1 + _TOLERANCE):
                yield f"{said} {value:.4g} (trained for {_shown(low, high)})"
        for name in ("attenuation_fwhm_um", "sectioning"):
            if getattr(now, name) != getattr(trained, name):
                yield f"{name} {getattr(now, name)} (trained for {getattr(trained, name)})"

    if not (found := list(changes())):
        return []
    of = manifest.training.get("rig")
    name = f" {of['name']}" if isinstance(of, dict) and "name" in of else ""
    return [
        f"Engine {manifest.id!r} was trained for one microscope{name}, and rig.yaml says otherwise"
        f" of it now: {'; '.join(found)}."
    ]


def notes_of(manifest: Manifest, rig: RigConfig, channels: Sequence[str]) -> list[str]:
    """Return what a run says of `changed_since_training`, [] where nothing has.

    Of the sum of several `channels`, which an engine of one of them may separate as well, what is
    said of the first. No run is refused for a manifest that does not say it as a domain: that is
    said.
    """
    try:
        told = [changed_since_training(manifest, rig, name) for name in channels]
    except EngineError as e:
        return [f"{e} Whether rig.yaml is still that of its training is not known."]
    return told[0] if all(told) else []


def _shown(low: float, high: float) -> str:
    return f"{low:.4g}" if low == high else f"{low:.4g} to {high:.4g}"
