"""A sink: the mean intensity of every separated structure over time, as a table.

Give it to a run with ``livesr run RIG --sink intensity-table``, or in Python with
``LiveSR(..., sinks=[IntensityTable("night.csv")])``.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from livesr import ConfigError, MulticolorFrame, RunDescription, Sink


class IntensityTable(Sink):
    """Writes a row for each structure of every final prediction: where, when, and its mean in ADU.

    Parameters
    ----------
    path : table to write; a table of a former run is replaced
    """

    name = "intensity-table"
    lossless = True  # a table with gaps would mislead

    def __init__(self, path: str | Path = "intensity.csv") -> None:
        self.path = Path(path)

    def open(self, run: RunDescription) -> None:
        """Begin the table."""
        self._labels = {channel.name: channel.labels for channel in run.channels}
        try:
            self._file = self.path.open("w", newline="", encoding="utf-8")
        except OSError as e:  # the run does not start, and the user knows why
            raise ConfigError(f"Cannot write {self.path}: {e.strerror}.") from e
        self._rows = csv.writer(self._file)
        self._rows.writerow(("position", "channel", "z", "t", "structure", "mean_adu"))

    def separated(self, frame: MulticolorFrame) -> None:
        """Write the means of a frame; `frame.channels` is (structure, y, x)."""
        means = frame.channels.mean(axis=(1, 2)) - frame.offset_adu
        for label, mean in zip(self._labels[frame.stream.channel], means, strict=True):
            self._rows.writerow((*frame.stream, frame.t, label, round(float(mean), 3)))

    def close(self, report: Mapping[str, Any]) -> None:
        """End the table."""
        if hasattr(self, "_file"):
            self._file.close()
