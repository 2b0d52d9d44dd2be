"""One thing that was found in a rig's files, and where.

Owns the record and the search for lines. Judges nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import yaml

from livesr.base.documents import compose_yaml, read_text
from livesr.base.errors import DocumentError

Level = Literal["error", "warning", "note"]


@dataclass(frozen=True, slots=True)
class Finding:
    """What was found.

    Attributes
    ----------
    level : "error": a run cannot work or means nothing; "warning": it will probably disappoint;
        "note": worth knowing
    code : a name for it that stays
    says : what is there and what was expected
    advice : what to do
    file, line : where; line 0 is the file as a whole
    """

    level: Level
    code: str
    says: str
    advice: str
    file: Path
    line: int = 0

    @property
    def place(self) -> str:
        """File and line as editors take them."""
        return f"{self.file.name}:{self.line}" if self.line else self.file.name


Found = Callable[[Level, str, str, str, str], Finding]
"""(level, code, place in rig.yaml, what is there, what to do) to a finding with its line."""


class Lines:
    """Where the values of a YAML file stand."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._root = compose_yaml(read_text(path), path.name)
        except DocumentError:
            self._root = None

    def of(self, place: Sequence[str | int] | str) -> int:
        """Return the line of a value, such as "optics.na", or of the nearest thing around it that
        is there.
        """
        node, line = self._root, 0
        for part in place.split(".") if isinstance(place, str) else place:
            if isinstance(node, yaml.MappingNode):
                entry = next(((k, v) for k, v in node.value if k.value == str(part)), None)
                if entry is None:
                    break
                node, line = entry[1], entry[0].start_mark.line + 1
            elif (
                isinstance(node, yaml.SequenceNode)
                and str(part).isdigit()
                and int(part) < len(node.value)
            ):
                node = node.value[int(part)]
                line = node.start_mark.line + 1
            else:
                break
        return line
