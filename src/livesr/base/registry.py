"""Names to classes, imported on use: asking what exists loads nothing.

Owns `Registry`. A new modality, runtime or sink is one file and one line in the registry of its
kind.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import Any

from livesr.base.errors import ConfigError, suggestion


class Registry:
    """``{"name": "module:Class"}`` with a kind, for messages that can be understood."""

    def __init__(self, kind: str, entries: Mapping[str, str]) -> None:
        self.kind = kind
        self._entries = dict(entries)

    @property
    def names(self) -> list[str]:
        """Known names, in order of preference."""
        return list(self._entries)

    def load(self, name: str) -> Any:
        """Import and return the class called `name`.

        Raises
        ------
        ConfigError
            If no such name is registered.
        """
        try:
            module, _, attribute = self._entries[name].partition(":")
        except KeyError:
            raise ConfigError(
                f"Unknown {self.kind} {name!r}.{suggestion(name, self.names)}"
            ) from None
        return getattr(import_module(module), attribute)
