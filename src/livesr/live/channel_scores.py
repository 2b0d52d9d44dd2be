"""How near the structures that an engine finds in a superposition come to the
channels that it was made of.

Owns the comparison of one frame and the means over a run. Runs in the thread of the network, on a
part of the frame only.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from livesr.base.frames import ChannelScore, Discrepancy, FrameErrors, MulticolorFrame
from livesr.optics.similarity import linear_fit, nrmse, pcc, percentile_normalised, ssim

_BORDER = 1 / 12  # a SIM reconstruction fades towards its edges
_MAX_PX = 384  # of each side, around the middle: about 25 ms a channel, four fifths of it SSIM
METRICS = ("pcc", "ssim", "nrmse", "input_pcc")


def scored(frame: MulticolorFrame, labels: Sequence[str]) -> MulticolorFrame:
    """Return `frame` with the score of each of its channels against the true one that went into its
    measurement.

    Both are prepared as in the IMC-SR paper (`livesr.optics.similarity`). A frame that is no
    superposition, or has another number of channels, stays as it is.
    """
    parts = frame.source.parts
    if len(parts) != len(frame.channels):
        return frame
    summed = _middle(frame.source.image)
    scores = []
    for label, channel, part in zip(labels, frame.channels, parts, strict=True):
        truth = _middle(part.image)
        scores.append(_score(label, _middle(on_grid_of(channel, part.image)), truth, summed))
    return replace(frame, score=tuple(scores))


class MeanScore:
    """The means over the scored frames of a run; a true channel without contrast scores none."""

    def __init__(self) -> None:
        self._values: dict[str, list[tuple[float, ...]]] = {}

    def add(self, frame: MulticolorFrame) -> None:
        """Take a frame."""
        for s in frame.score:
            values = self._values.setdefault(s.label, [])
            if math.isfinite(s.pcc):
                values.append((s.pcc, s.ssim, s.nrmse, s.input_pcc))

    def summary(self) -> dict[str, dict[str, float]]:
        """Return ``{structure: {pcc, ssim, nrmse, input_pcc}}``, NaN of one that never had a score;
        {} where nothing was scored.
        """
        none = [(math.nan,) * len(METRICS)]
        return {
            label: {
                name: round(float(v), 4)
                for name, v in zip(METRICS, np.mean(values or none, axis=0), strict=True)
            }
            for label, values in list(self._values.items())
        }


class MeanErrors:
    """What the comparisons with widefield of a run come to."""

    def __init__(self) -> None:
        self._sums: dict[str, dict[str, _Sums]] = {}

    def add(self, errors: FrameErrors) -> None:
        """Take those of a frame."""
        name = errors.source.stream.channel
        for label, numbers in errors.numbers.items():
            self._sums.setdefault(name, {}).setdefault(label, _Sums()).add(numbers)

    def summary(self) -> dict[str, dict[str, dict[str, float]]]:
        """Return ``{channel: {label: {frames, rsp, rsp_lowest, rsp_last, rse}}}``."""
        return {
            channel: {label: sums.summary() for label, sums in of.items()}
            for channel, of in self._sums.items()
        }


class _Sums:
    def __init__(self) -> None:
        self._n, self._rsp, self._rse, self._lowest, self._last = 0, 0.0, 0.0, 1.0, 1.0

    def add(self, numbers: Discrepancy) -> None:
        self._n += 1
        self._rsp += numbers.rsp
        self._rse += numbers.rse
        self._lowest, self._last = min(self._lowest, numbers.rsp), numbers.rsp

    def summary(self) -> dict[str, float]:
        return {
            "frames": self._n,
            "rsp": round(self._rsp / self._n, 4),
            "rsp_lowest": round(self._lowest, 4),
            "rsp_last": round(self._last, 4),
            "rse": round(self._rse / self._n, 4),
        }


def _score(
    label: str, prediction: NDArray[Any], truth: NDArray[Any], summed: NDArray[Any]
) -> ChannelScore:
    reference = percentile_normalised(truth)
    if reference is None or min(truth.shape) < 16:  # nothing to be like
        return ChannelScore(label, math.nan, math.nan, math.nan, math.nan)
    fitted = linear_fit(prediction, reference)
    return ChannelScore(
        label,
        pcc(prediction, truth),
        ssim(fitted, reference),
        nrmse(fitted, reference),
        pcc(summed, truth),
    )


def on_grid_of(channel: NDArray[Any], part: NDArray[np.float32]) -> NDArray[Any]:
    """Return a channel on the pixels of what was measured.

    Where the network enlarges, the mean of those that cover one.
    """
    factor = channel.shape[0] // part.shape[0]
    if factor == 1:
        return channel
    y, x = part.shape
    averaged: NDArray[Any] = channel.reshape(y, factor, x, factor).mean((1, 3))
    return averaged


def _middle(image: NDArray[Any]) -> NDArray[Any]:
    sides = []
    for n in image.shape:
        kept = min(n - 2 * int(n * _BORDER), _MAX_PX)
        sides.append(slice((n - kept) // 2, (n - kept) // 2 + kept))
    return image[tuple(sides)]
