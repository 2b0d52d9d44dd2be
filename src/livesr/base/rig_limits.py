"""What is usual on one rig: beyond which numbers its frames are not like those that its user knows
to be in order.

Owns the limits that `livesr calibrate-limits` writes beside a rig, their file, and the sentences
about them. How they are found is `livesr.evaluation.rig_limits`'s.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import Field

from livesr.base.config import Model
from livesr.base.rig_file import read, write_measured
from livesr.base.taken_with import TakenWith

FILE = "limits.yaml"
DAMAGED = (
    f"{FILE} beside the rig cannot be read: unknown light is held against the engine's own limit,"
    " that of any rig."
)
_Count = Annotated[int, Field(ge=1)]


class ChannelLimits(Model):
    """What is usual in one channel."""

    unknown_light: Annotated[float, Field(gt=0, le=1.01)]
    """Light of no known structure (`MulticolorFrame.unknown_light`)."""
    false_alarms: Annotated[float, Field(gt=0, lt=1)]
    """Share of fields in order that exceed it at some time, at most, on average."""
    fields: _Count
    """Independent fields that it was measured on."""
    frames: _Count
    """Frames of these fields; those of one are alike, and count once."""
    stores: Annotated[list[str], Field(min_length=1)]
    """Names of the recordings."""
    taken_with: TakenWith

    @property
    def sentence(self) -> str:
        """Whose limit it is, to go on a sentence with."""
        first, *others = self.stores
        of = f"{first} and {len(others)} more" if others else first
        return (
            f"more than all but {100 * self.false_alarms:.3g} % of fields in order have on this rig"
            f" (its own recordings: {self.fields} fields, {self.frames} frames, {of})"
        )

    @property
    def rule(self) -> str:
        """What follows from it, for people."""
        return (
            f"A frame with more than {self.unknown_light:.2%} light of no known structure is to be"
            f" checked, {self.sentence}."
        )

    def why_not(self, channel: str, now: TakenWith) -> str:
        """Return why they do not hold for frames of a channel; "" if they do."""
        if not (differs := self.taken_with.differs(now)):
            return ""
        return (
            f"{FILE} was measured with {differs}, in channel {channel!r}, and is not used: an"
            " engine that tells unknown light goes by its own limit, that of any rig, until 'livesr"
            " calibrate-limits' is run again."
        )


class RigLimits(Model):
    """What is usual on a rig."""

    channels: dict[str, ChannelLimits]
    """By acquisition channel; a sum of channels has its own."""

    def save(self, path: Path) -> None:
        """Write the file; raises ConfigError if it cannot be written."""
        head = "What is usual on this rig, measured by 'livesr calibrate-limits'."
        write_measured(path, head, self.model_dump(mode="json"))


def load_rig_limits(path: Path) -> RigLimits:
    """Read the file.

    Raises
    ------
    ConfigError
        If it is none, with the first thing that is wrong.
    """
    return read(RigLimits, path, "calibrate-limits")
