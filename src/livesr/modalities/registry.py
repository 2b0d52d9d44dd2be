"""Modalities by name; loaded when a rig names one.

Owns the list. Another package adds a modality by an entry point of the group ``livesr.modalities``,
whose object is a subclass of `Modality`.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from livesr.base.config import ChannelSection, Section
from livesr.base.errors import ConfigError
from livesr.base.registry import Registry

if TYPE_CHECKING:
    from livesr.base.config import RigConfig
    from livesr.modalities.modality import Modality

log = logging.getLogger(__name__)

MODALITIES = Registry(
    "modality",
    {
        "fluctuation": "livesr.modalities.fluctuation.modality:Fluctuation",
        "sim": "livesr.modalities.sim.modality:SIM",
        "storm": "livesr.modalities.storm.modality:STORM",
        "widefield": "livesr.modalities.widefield.modality:Widefield",
    },
    entry_points="livesr.modalities",
)
OLD_NAMES = {"passthrough": "widefield"}
"""Names in old files, and what they are called now."""


def modality(name: str) -> Modality[Any]:
    """Return the modality called `name`; old names are understood.

    Raises
    ------
    ConfigError
        If there is none, or the package that brings it cannot be loaded, or brings no modality.
    """
    from livesr.modalities.modality import Modality

    name = OLD_NAMES.get(name, name)
    found: Modality[Any] = MODALITIES.make(name, Modality)
    if wrong := _wrong(name, found):
        raise ConfigError(
            f"The modality {name!r} of {MODALITIES.package(name)} {wrong}. Update or uninstall that"
            " package."
        )
    return found


def _wrong(name: str, found: Modality[Any]) -> str:
    """Return what a class of another package says of itself that cannot be, "" if nothing is."""
    if getattr(found, "name", "") != name:
        return f"does not call itself {name!r}"
    for what, base in (("Section", Section), ("ChannelSection", ChannelSection)):
        kind = getattr(found, what)
        if not (isinstance(kind, type) and issubclass(kind, base)):
            return f"has a {what} that is no class derived from livesr.{what}"
    return ""


def installed() -> Iterator[Modality[Any]]:
    """Yield every modality; one of another package that cannot be loaded is left out."""
    for name in MODALITIES.names:
        try:
            yield modality(name)
        except ConfigError as e:
            log.warning("%s It is left out.", e)


def modalities_of(rig: RigConfig) -> Iterator[tuple[Modality[Any], Any]]:
    """Yield every modality that a rig uses, or has a section of, with its section."""
    for name in rig.modalities:
        yield modality(name), rig.section_of(name)
