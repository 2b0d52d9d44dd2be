"""Why a time point has no prediction: the `reason` of a line of frames.jsonl.

Owns the words of the reasons that something is counted by, which are text in every store that
there is, and how a sum passes on what is true of one of its channels. All others are for people.
"""

from __future__ import annotations

from typing import Final

RAW_MISSING: Final = "raw frames missing"
"""Of a group that is not complete; nothing can be made of it, by no program."""

PLANES_MISSING: Final = "planes are missing"
"""Of a stack that is measured as a whole; likewise."""

_NONE_YET = "has no frame yet"
_REFUSED = "refused: "


def of_part(channel: str, reason: str) -> str:
    """Return the reason of a sum whose `channel` has one."""
    return f"{_channel(channel)}: {reason}"


def none_yet(channel: str) -> str:
    """Return the reason of a frame whose engine looks at a `channel` that has shown nothing."""
    return f"{_channel(channel)} {_NONE_YET}"


def refused(error: Exception) -> str:
    """Return the reason of a frame that is too doubtful to be measured."""
    return f"{_REFUSED}{error}"


def lacks_raw(reason: str) -> bool:
    """Whether raw frames are missing, of the channel or of one that it is the sum of."""
    return reason in (RAW_MISSING, PLANES_MISSING) or _ends(reason, f": {RAW_MISSING}")


def waits(reason: str) -> bool:
    """Whether it is of `none_yet`, of the channel or of one that it is the sum of."""
    return _ends(reason, f" {_NONE_YET}")


def is_refused(reason: str) -> bool:
    """Whether a measurement was refused; a sum has none of its own that could be."""
    return reason.startswith(_REFUSED)


def _channel(name: str) -> str:
    return f"channel {name}"


def _ends(reason: str, words: str) -> bool:
    return reason.startswith(_channel("")) and reason.endswith(words)
