"""Between which bounds the true light of each structure lies, pixel by pixel.

Owns the table that `livesr calibrate-errors` writes beside a rig, its file, and what follows from
it for a prediction. How the table is found is `livesr.evaluation.error_bars`'s.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from livesr.base.compute import Augmentation
from livesr.base.config import Model
from livesr.base.rig_file import read, write_measured
from livesr.base.taken_with import MadeWith

FILE = "error_bars.yaml"
DAMAGED = f"{FILE} beside the rig cannot be read: predictions have no error bars."
_Share = Annotated[float, Field(gt=0, lt=1)]
_Widths = Annotated[list[Annotated[float, Field(ge=0, le=1e9)]], Field(min_length=1, max_length=64)]


class StructureBars(Model):
    """The bounds of one structure, in shares of the frame's normalisation scale."""

    from_: Annotated[list[float], Field(alias="from", min_length=1, max_length=64)]
    """Predicted intensity from which on each width holds, rising; the first holds below it too."""
    below: _Widths
    """How far the truth may lie below the prediction."""
    above: _Widths
    """How far above."""
    miss: Annotated[list[Annotated[float, Field(ge=0, le=1)]], Field(max_length=64)] = Field(
        default_factory=list
    )
    """Share of the pixels outside, in the frames that it was calibrated with."""

    @model_validator(mode="after")
    def _consistent(self) -> StructureBars:
        if not len(self.from_) == len(self.below) == len(self.above):
            raise ValueError("from, below and above need as many numbers each")
        if sorted(self.from_) != self.from_:
            raise ValueError(f"from must rise, got {self.from_}")
        return self


class ErrorBars(Model):
    """Bounds that hold for a share of the pixels of each structure, at each intensity."""

    engine: str
    """Id of the engine that they were calibrated with."""
    sha256: str = ""
    """Of its weights: another network has other errors."""
    coverage: _Share
    """Share of the pixels within the bounds, at least, on average over fields like those."""
    confidence: _Share | None = None
    """Probability that the calibration is such that the coverage holds, for each structure and
    intensity by itself; None promises the mean.
    """
    source: Literal["pairs", "simulation"]
    """True channels that were acquired, or the engine's simulation."""
    units: Annotated[int, Field(ge=1)]
    """Independent fields, or frames of one, that they were calibrated with."""
    of: Literal["fields", "frames"] = "fields"
    """What the units are."""
    ensemble: Augmentation | None = None
    """Views of which the predictions were the mean; None of single ones, which err no less."""
    cut: bool = False
    """Whether pictures without their faded edges were among them."""
    made_with: MadeWith | None = None
    """How the predictions were made; None of simulated cells, and in files of earlier versions."""
    structures: dict[str, StructureBars]
    """By the name of the channel."""

    @property
    def sentence(self) -> str:
        """What the bounds are worth, for stores and people."""
        held = f"the true light is within them in {self.coverage:.0%} of the pixels"
        if self.source == "simulation":
            return (
                f"Error bars from simulated cells, not from this microscope: {held} of cells like"
                " those. 'livesr calibrate-errors' takes true channels instead."
            )
        like = (
            f"of fields like the {self.units} that were taken"
            if self.of == "fields"
            else f"of frames like the {self.units} of one field; cells of others may differ"
        )
        cut = (
            " Some were cut at their edges: whole frames are covered less. Calibrate with stores."
            if self.cut
            else ""
        )
        return f"Error bars from true channels of this microscope: {held} {like}.{cut}"

    def why_not(self, channel: str, now: MadeWith) -> str:
        """Return why they do not hold for predictions of a channel that their engine makes; "" if
        they do.
        """
        if not (self.made_with and (differs := self.made_with.differs(now))):
            return ""
        return (
            f"{FILE} was measured with {differs}, in channel {channel!r}, and is not used:"
            " predictions have no error bars until 'livesr calibrate-errors' is run again."
        )

    def times(
        self, label: str, predicted: NDArray[np.floating[Any]], truth: NDArray[np.floating[Any]]
    ) -> NDArray[np.float64]:
        """Return how many times as wide the bounds must be for the truth to lie within them.

        Both in shares of the normalisation's scale; of one shape. At a bound of 0 a truth below it
        is within.
        """
        bars = self.structures[label]
        bins = np.maximum(np.searchsorted(bars.from_, predicted, side="right") - 1, 0)
        below, above = (np.asarray(side)[bins] + 1e-9 for side in (bars.below, bars.above))
        error = np.asarray(np.maximum(truth, 0) - np.maximum(predicted, 0), np.float64)
        times: NDArray[np.float64] = np.maximum(error / above, -error / below)
        return times

    def widened(self, factors: Mapping[str, float]) -> ErrorBars:
        """Return error bars with the bounds of each structure multiplied."""
        wider = {
            label: bars.model_copy(
                update={
                    "below": [factors.get(label, 1.0) * width for width in bars.below],
                    "above": [factors.get(label, 1.0) * width for width in bars.above],
                }
            )
            for label, bars in self.structures.items()
        }
        return self.model_copy(update={"structures": wider})

    def limits(
        self, channels: NDArray[np.uint16], labels: Sequence[str], scale: float, offset_adu: int = 0
    ) -> tuple[NDArray[np.uint16], NDArray[np.uint16]]:
        """Return lower and upper images of a prediction, uint16 (c, y, x), in its own unit.

        A channel that was not calibrated gets all that there can be: from 0 to 65535.

        Parameters
        ----------
        channels : uint16 (c, y, x), ADU plus `offset_adu`
        labels : of the channels
        scale : that the frame was normalised with, ADU
        """
        low, high = np.empty_like(channels), np.empty_like(channels)
        values = np.arange(1 << 16)
        for i, label in enumerate(labels):
            tables = self._tables(label, values, scale, offset_adu)
            low[i], high[i] = (table[channels[i]] for table in tables)
        return low, high

    def _tables(
        self, label: str, values: NDArray[Any], scale: float, offset_adu: int
    ) -> tuple[NDArray[np.uint16], NDArray[np.uint16]]:
        """Return the bounds of every value that a pixel can have."""
        if (bars := self.structures.get(label)) is None:
            return np.full(1 << 16, offset_adu, np.uint16), np.full(1 << 16, 65535, np.uint16)
        bins = np.searchsorted(bars.from_, (values - offset_adu) / scale, side="right") - 1
        bins = np.maximum(bins, 0)
        low = np.floor(values - scale * np.asarray(bars.below)[bins])
        high = np.ceil(values + scale * np.asarray(bars.above)[bins])
        clipped = np.clip(low, offset_adu, 65535), np.clip(high, 0, 65535)
        return clipped[0].astype(np.uint16), clipped[1].astype(np.uint16)

    def save(self, path: Path) -> None:
        """Write the file; raises ConfigError if it cannot be written."""
        said = self.model_dump(mode="json", by_alias=True, exclude_none=True)
        write_measured(path, self.sentence, said)


def load_error_bars(path: Path) -> ErrorBars:
    """Read the file.

    Raises
    ------
    ConfigError
        If it is none, with the first thing that is wrong.
    """
    return read(ErrorBars, path, "calibrate-errors")
