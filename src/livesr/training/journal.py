"""What a run writes down of itself: `log.csv`, `curves.png`, `validation.png`.

Owns the running means, the table and the pictures. Computes no score.
"""

from __future__ import annotations

import csv
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray
from torch import Tensor

from livesr.base.files import replace_file
from livesr.evaluation.pictures import PictureRow, montage

_NO_LOSS = {"attempt", "step", "lr", "patches", "patches_per_s", "waiting", "minutes"}
_COLORS = ("00FF00", "FF00FF", "FFFF00", "00FFFF", "FF8000", "8080FF")
_ROWS = 4


@dataclass(frozen=True, slots=True)
class Progress:
    """What a run reports every `log_every` steps and after every validation."""

    step: int
    fraction: float
    losses: dict[str, float]
    """Means since the last report: `loss` and its parts."""
    lr: float
    patches_per_s: float
    waiting: float
    """Share of the time in which the training waited for batches."""
    minutes: float
    validation: dict[str, float] = field(default_factory=dict)
    """`nrmse`, `pcc_0`, `pcc_1`, ... and their mean `pcc`, of the averaged weights.

    Empty between validations.
    """
    patches: int = 0
    """Seen so far, those of the runs that this one began with included."""

    @property
    def minutes_left(self) -> float:
        """Until the budget is used up, at the pace so far."""
        return self.minutes / max(self.fraction, 1e-6) * (1 - self.fraction)


class Meter:
    """Sums of loss terms since the last report, and the clock.

    Parameters
    ----------
    elapsed_s : of the run before this process
    state : of the meter whose run is resumed: the next report is then that of a run that was never
        interrupted
    """

    def __init__(self, elapsed_s: float, state: dict[str, Any] | None = None) -> None:
        self._origin = time.monotonic() - elapsed_s
        self._since, self._here, self._waited_s = time.monotonic(), 0, 0.0
        self._steps: int = state["steps"] if state else 0
        self._sums: dict[str, Tensor] = state["sums"] if state else {}

    def elapsed_s(self) -> float:
        """Return the seconds of the whole run."""
        return time.monotonic() - self._origin

    def state(self) -> dict[str, Any]:
        """Return what a checkpoint keeps."""
        return {"steps": self._steps, "sums": self._sums}

    def add(self, terms: dict[str, Tensor]) -> None:
        """Add the loss terms of one step; they stay on their device."""
        self._steps += 1
        self._here += 1
        for name, value in terms.items():
            self._sums[name] = self._sums[name] + value if name in self._sums else value

    def flush(self, batch: int, waited_s: float) -> tuple[dict[str, float], float, float]:
        """Return the means of the terms, and patches a second and share of waiting since the last
        call.
        """
        means = {name: float(value) / self._steps for name, value in self._sums.items()}
        passed_s = max(time.monotonic() - self._since, 1e-9)
        rate, waiting = batch * self._here / passed_s, (waited_s - self._waited_s) / passed_s
        self._since, self._here, self._waited_s = time.monotonic(), 0, waited_s
        self._steps, self._sums = 0, {}
        return means, rate, min(waiting, 1.0)


class Table:
    """`log.csv`: one row a report; validation columns are empty in between.

    Rows written after the checkpoint that a run resumes from, of `attempt` and `step`, are dropped:
    they come again.
    """

    def __init__(self, path: Path, attempt: int, step: int) -> None:
        self._path = path
        here = (attempt, step)
        self._rows = [
            row for row in read_log(path) if (int(row["attempt"]), int(row["step"])) <= here
        ]

    def add(self, progress: Progress, attempt: int) -> None:
        """Append a row and write the file; one of the same step, from before, gives way."""
        numbers = {
            "lr": progress.lr,
            "patches_per_s": progress.patches_per_s,
            "waiting": progress.waiting,
            "minutes": progress.minutes,
        }
        floats = {
            **progress.losses,
            **numbers,
            **{f"val_{k}": v for k, v in progress.validation.items()},
        }
        row = {
            "attempt": str(attempt),
            "step": str(progress.step),
            "patches": str(progress.patches),
            **{k: f"{v:.6g}" for k, v in floats.items()},
        }
        if not progress.step:  # what a run begins with: nothing was learned yet
            row |= dict.fromkeys(("lr", "patches_per_s", "waiting"), "")
        here = (row["attempt"], row["step"])
        self._rows = [old for old in self._rows if (old["attempt"], old["step"]) != here] + [row]
        columns = list(dict.fromkeys(name for row in self._rows for name in row))
        partial = self._path.with_name(f"{self._path.name}.part")
        with partial.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, columns)
            writer.writeheader()
            writer.writerows(self._rows)
        replace_file(partial, self._path)  # a run that is killed here keeps its rows


def read_log(path: Path) -> list[dict[str, str]]:
    """Return the rows of a `log.csv`; none if there is no file."""
    if not path.exists():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def draw_curves(log: Path, path: Path, names: Sequence[str] = ()) -> None:
    """Draw losses, validation and learning rate of the last attempt in `log` against the steps, as
    PNG.

    `names` are those of the output channels.
    """
    rows = read_log(log)
    rows = [row for row in rows if row["attempt"] == rows[-1]["attempt"]]
    there = list(rows[0]) if rows else []
    left = [n for n in there if n not in _NO_LOSS and not n.startswith("val_")]
    panels = {
        "losses": left,
        "validation NRMSE": ["val_nrmse"],
        "validation PCC": [n for n in there if n.startswith("val_pcc")],
        "learning rate": ["lr"],
    }
    labels = {"val_pcc": "mean", **{f"val_pcc_{i}": name for i, name in enumerate(names)}}
    figure = Figure(figsize=(11, 6), layout="constrained")
    for axes, (title, columns) in zip(figure.subplots(2, 2).flat, panels.items(), strict=True):
        for name in columns:
            points = [(int(row["step"]), float(row[name])) for row in rows if row.get(name)]
            if points:
                axes.plot(
                    *zip(*points, strict=True),
                    label=labels.get(name, name),
                    linewidth=1,
                    marker=".",
                )
        axes.set_title(title, fontsize=10)
        axes.set_xlabel("step")
        if title in {"losses", "learning rate"}:
            axes.set_yscale("log")
        if len(columns) > 1:
            axes.legend(fontsize=8)
    figure.savefig(path, dpi=100)


def draw_validation(
    frames: NDArray[np.float32],
    predictions: NDArray[np.float32],
    targets: NDArray[np.float32],
    names: Sequence[str],
    path: Path,
) -> None:
    """Draw the first validation pairs as PNG: input, prediction, truth and error, one row a pair.

    `frames` (n, f, y, x) are shown by their middle one, enlarged to the size of the (n, c, y, x)
    predictions.
    """
    c, scale = predictions.shape[1], predictions.shape[-1] // frames.shape[-1]
    labels = tuple(names) if len(names) == c else tuple(f"channel {i}" for i in range(c))
    rows = []
    for i, (frame, prediction, target) in enumerate(
        list(zip(frames, predictions, targets, strict=True))[:_ROWS]
    ):
        middle = frame[len(frame) // 2].repeat(scale, 0).repeat(scale, 1)
        colors = ("FFFFFF",) if c == 1 else tuple(_COLORS[k % len(_COLORS)] for k in range(c))
        rows.append(PictureRow(f"pair {i}", middle, prediction, target, labels, colors))
    montage(rows).save(path)
