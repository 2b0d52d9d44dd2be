"""Modalities by name; loaded when a rig names one.

Owns the list. Another package adds a modality by an entry point of the group ``livesr.modalities``,
whose object is a subclass of `Modality`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from livesr.base.registry import Registry

if TYPE_CHECKING:
    from livesr.base.config import RigConfig
    from livesr.modalities.modality import Modality

MODALITIES = Registry(
    "modality",
    {
        "sim": "livesr.modalities.sim.modality:SIM",
        "storm": "livesr.modalities.storm.modality:STORM",
        "widefield": "livesr.modalities.widefield.modality:Widefield",
    },
    entry_points="livesr.modalities",
)
OLD_NAMES = {"passthrough": "widefield"}
"""Names in old files, and what they are called now."""


def modalities_of(rig: RigConfig) -> list[Modality[Any]]:
    """Return the modalities that reconstruct a channel of `rig` or have a section in it."""
    used = [rig.modality_of(name) for name in rig.channels or [""]]
    return [modality(name) for name in dict.fromkeys([*used, *rig.sections])]


def modality(name: str) -> Modality[Any]:
    """Return the modality called `name`; old names are understood.

    Raises
    ------
    ConfigError
        If there is none, or the package that brings it cannot be loaded.
    """
    found: Modality[Any] = MODALITIES.load(OLD_NAMES.get(name, name))()
    return found
