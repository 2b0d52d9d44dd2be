"""What a frame and its channels are worth to whoever looks at them: one word each, and why.

Owns the words and the records that carry them. Which word follows from what is the table of
`livesr.live.quality`.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Any, NamedTuple, Self

import numpy as np


class Quality(StrEnum):
    """One word for the user; `worst` of several holds."""

    GOOD = "good"
    CHECK = "check"
    DO_NOT_USE = "do not use"

    @property
    def rank(self) -> int:
        """0 for the best of the words."""
        return list(Quality).index(self)


def worst(words: Any) -> Quality:
    """Return the worst of an iterable of words, GOOD of none."""
    return max(words, key=lambda word: word.rank, default=Quality.GOOD)


class Verdict(NamedTuple):
    """A word and its reasons, a sentence each; those of `Quality.GOOD` are empty."""

    word: Quality = Quality.GOOD
    reasons: tuple[str, ...] = ()


class Judgement(NamedTuple):
    """What a frame is worth, and each of its channels.

    Attributes
    ----------
    word : of the frame
    reasons : of the frame and of its channels, the worst first
    channels : by label; a channel is never better than what is said of the whole frame
    """

    word: Quality = Quality.GOOD
    reasons: tuple[str, ...] = ()
    channels: Mapping[str, Verdict] = {}

    def written(self) -> dict[str, Any]:
        """Return what frames.jsonl and the stream say of it; reasons only where there are some."""
        channels = {label: _written(*verdict) for label, verdict in self.channels.items()}
        return {**_written(self.word, self.reasons), "channels": channels}

    @classmethod
    def read(cls, written: Mapping[str, Any]) -> Self:
        """Return what `written` was made of; a word of a later version is `Quality.CHECK`."""
        return cls(
            _word(written.get("word")),
            tuple(written.get("reasons", ())),
            {
                label: Verdict(_word(one.get("word")), tuple(one.get("reasons", ())))
                for label, one in written.get("channels", {}).items()
            },
        )


UNJUDGED = Judgement()
"""Of a frame that nobody judged, or that nothing speaks against."""


class ChannelPixels(np.ndarray[tuple[int, ...], np.dtype[np.uint16]]):
    """One channel of a prediction, uint16 (y, x) in ADU, that says what it is worth.

    An array like any other. What is computed from it, or cut out of it, says nothing any more.

    Attributes
    ----------
    quality : None where nobody judged
    reasons : why, a sentence each
    """

    quality: Quality | None = None
    reasons: tuple[str, ...] = ()


def _written(word: Quality, reasons: tuple[str, ...]) -> dict[str, Any]:
    return {"word": str(word), **({"reasons": list(reasons)} if reasons else {})}


def _word(word: object) -> Quality:
    try:
        return Quality(str(word))
    except ValueError:
        return Quality.CHECK
