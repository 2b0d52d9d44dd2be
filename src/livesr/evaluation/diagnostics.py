"""Tests of an engine on scenes of which the answer is known.

Shuffled time, a scene that stands still, the same scene twice.

Owns the scenes and what is measured on them. Blank input and one structure alone are tested in
`engines.py`, on the sequences that are scored there.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from livesr.base.frames import MulticolorFrame
from livesr.evaluation.metrics import bootstrap_interval, flicker
from livesr.evaluation.resolution import decorrelation_resolution, frc_resolution
from livesr.evaluation.summary import finite
from livesr.optics.similarity import pcc
from livesr.simulation.domain import Domain
from livesr.simulation.sequence import EVALUATION, DrawSequence, SimulatedSequence

Image = NDArray[np.float32]
Separate = Callable[[NDArray[np.uint16], SimulatedSequence], list[MulticolorFrame]]

_SHUFFLED = (0, 3, 6, 2, 5, 1, 4)  # no frame beside its neighbour in time
_SHUFFLE_INTERVAL_S = (
    1.0,
    2.0,
)  # slower than this, neighbours out of order would be as good as in order
_STILL_FRAMES = 6
_BRIGHT = 0.1  # of the truth's maximum: where flicker is measured
_OWN_STREAM = 3  # of the seeds: scenes unlike those that are scored


@dataclass(slots=True)
class _Found:
    """One value a scene, by what is measured and of whom."""

    values: dict[str, dict[str, list[float]]] = field(default_factory=dict)

    def add(self, what: str, name: str, value: float) -> None:
        self.values.setdefault(what, {}).setdefault(name, []).append(value)

    def summary(self) -> dict[str, Any]:
        return {
            what: {
                name: bootstrap_interval(values).to_json() | {"values": [*map(finite, values)]}
                for name, values in by_name.items()
            }
            for what, by_name in self.values.items()
        }


class Diagnostics:
    """Runs the tests through the live path.

    Parameters
    ----------
    separate : raw frames of a sequence to predictions, one per time point
    channels, source : light of a prediction (c, y, x) and of the frame that went in (y, x), ADU
        without background, edges cut off
    names : simulated structure of each channel
    conditions : what the scenes are drawn from
    draw : what draws them
    """

    def __init__(
        self,
        separate: Separate,
        channels: Callable[[MulticolorFrame], Image],
        source: Callable[[MulticolorFrame], Image],
        names: Sequence[str],
        conditions: Domain,
        draw: DrawSequence,
    ) -> None:
        self._separate, self._channels, self._source = separate, channels, source
        self._draw = draw
        self._names, self._conditions = tuple(names), conditions.model_copy(update={"absent": 0.0})

    def run(
        self, seeds: Sequence[int], size: int, progress: Callable[[int, int], None] | None = None
    ) -> dict[str, Any]:
        """Return ``{what: {name: interval}}``, each with the `values` of the scenes.

        `shuffled_pcc_loss`: PCC with the frames in order minus PCC with their neighbours out of
        order (0 for an engine that looks at one frame). `flicker` of each structure and of the
        input, in a scene that stands still. `frc_nm` and `decorrelation_nm`: resolution of two
        pictures of one scene with noise of their own, and of one.
        """
        found = _Found()
        for done, seed in enumerate(seeds, start=1):
            self._shuffled(seed, size, found)
            self._still(seed, size, found)
            if progress:
                progress(done, len(seeds))
        return found.summary()

    def _scene(self, seed: int, n_t: int, size: int, **changes: object) -> SimulatedSequence:
        domain = self._conditions.model_copy(update=changes)
        return self._draw((EVALUATION, seed, _OWN_STREAM), n_t, size, domain)

    def _shuffled(self, seed: int, size: int, found: _Found) -> None:
        scene = self._scene(
            seed,
            len(_SHUFFLED),
            size,
            interval_s=_SHUFFLE_INTERVAL_S,
            still=0.0,
            bleaching=(0.0, 0.0),
        )
        raw = scene.raw()
        in_order = {frame.t: frame for frame in self._separate(raw, scene)}
        shuffled = {
            _SHUFFLED[frame.t]: frame for frame in self._separate(raw[list(_SHUFFLED)], scene)
        }
        inner = set(range(1, len(_SHUFFLED) - 1)) & set(_SHUFFLED[1:-1])
        for i, name in enumerate(self._names):
            losses = []
            for t in sorted(inner):
                truth = self._cut(scene.truth(t)[name], in_order[t])
                losses.append(
                    pcc(self._channels(in_order[t])[i], truth)
                    - pcc(self._channels(shuffled[t])[i], truth)
                )
            found.add("shuffled_pcc_loss", name, float(np.mean(losses)))

    def _still(self, seed: int, size: int, found: _Found) -> None:
        scene = self._scene(
            seed, _STILL_FRAMES, size, still=1.0, bleaching=(0.0, 0.0), jitter=(0.0, 0.0)
        )
        frames = self._separate(scene.raw(), scene)[1:-1]
        series = np.stack([self._channels(frame) for frame in frames])
        sources = np.stack([self._source(frame) for frame in frames])
        total = np.zeros(sources.shape[1:], np.float32)
        pixel_nm = scene.pixel_size_um / scene.reconstructor.scale * 1000
        for i, name in enumerate(self._names):
            truth = self._cut(scene.truth(1)[name], frames[0])
            total += truth
            found.add(
                "flicker",
                name,
                flicker(series[:, i], truth > _BRIGHT * max(float(truth.max()), 1e-6)),
            )
            self._resolution(name, series[:, i], pixel_nm, found)
        found.add("flicker", "input", flicker(sources, total > _BRIGHT * float(total.max())))
        self._resolution("input", sources, pixel_nm, found)

    @staticmethod
    def _resolution(name: str, series: Image, pixel_nm: float, found: _Found) -> None:
        """Of the first and the last frame, which share no raw frame even through their
        neighbours.
        """
        lit = bool(series[0].any())
        found.add(
            "frc_nm", name, frc_resolution(series[0], series[-1], pixel_nm) if lit else math.nan
        )
        found.add(
            "decorrelation_nm",
            name,
            decorrelation_resolution(series[0], pixel_nm) if lit else math.nan,
        )

    def _cut(self, image: Image, frame: MulticolorFrame) -> Image:
        """Cut the edges off as they are cut off `frame`'s channels."""
        shape = self._source(frame).shape
        y, x = ((a - b) // 2 for a, b in zip(image.shape, shape, strict=True))
        return image[y : y + shape[0], x : x + shape[1]]
