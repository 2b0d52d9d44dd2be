"""The score of an engine.

Simulated cells that it never saw, through the live path, each structure against its truth.

Owns which sequences are run, what is scored and how it is summed up. Simulation is
`livesr.simulation`, the run itself `live_path.py`, the formulas `metrics.py`, pictures
`pictures.py`.

Beside every number of the network stands the same number for the input: the frame that went in,
taken as the prediction of each structure. A network is worth what it adds to that.
"""

from __future__ import annotations

import functools
import json
import math
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import EllipsisType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from livesr.base.compute import Augmentation, ComputeConfig
from livesr.base.errors import EngineError
from livesr.base.frames import MulticolorFrame
from livesr.evaluation.diagnostics import Diagnostics
from livesr.evaluation.limits import truth_as_drawn
from livesr.evaluation.live_path import open_views, separate
from livesr.evaluation.metrics import Score, bootstrap_interval, false_positive_energy, score
from livesr.evaluation.pictures import PictureRow, montage
from livesr.evaluation.summary import about, compared, finite, finite_score, interval_text, leaked
from livesr.live.inference.engine import Engine, load_engine
from livesr.live.inference.session import InferenceSession
from livesr.optics.similarity import pcc
from livesr.simulation.domain import Domain
from livesr.simulation.sequence import EVALUATION, SimulatedSequence, sequences_of
from livesr.simulation.specimens import STRUCTURES

Structured = dict[str, float]
Inside = tuple[EllipsisType, slice, slice]

SEEDS = range(1000, 1032)
GAIN_PCC, MEAN_PCC = 0.10, 0.88
"""What the light engine has to reach.

Gain over the input for every structure, and mean over all.
"""

_MARGIN = (
    1 / 16
)  # of each side: there the reconstruction fades out, which is no work of the network
_IN_FIELD = (
    0.01  # of the brightest structure: a truth that stays below shows nothing that could be found
)
_NULL_FRAMES = 3  # of the tests with one structure or none: one frame with both neighbours
_DIM_PHOTONS, _WEAK_BRIGHTNESS = 100.0, 0.5


@dataclass(slots=True)
class _Sequence:
    """What one sequence gave; NaN where a structure was not there."""

    seed: int
    photons: float
    brightness: Structured
    network: dict[str, Score] = field(default_factory=dict)
    input: dict[str, Score] = field(default_factory=dict)
    passband_pcc: Structured = field(default_factory=dict)
    residuals: list[float] = field(default_factory=list)
    leakage: dict[str, Structured] = field(default_factory=dict)
    false_positive: Structured = field(default_factory=dict)
    blank: float = math.nan

    def to_json(self) -> dict[str, Any]:
        return {
            "seed": self.seed,
            "photons": round(self.photons, 1),
            "brightness": {k: round(v, 3) for k, v in self.brightness.items()},
            "network": {k: finite_score(v) for k, v in self.network.items()},
            "input": {k: finite_score(v) for k, v in self.input.items()},
            "false_positive": {k: finite(v) for k, v in self.false_positive.items()},
        }


def run(
    engine: str | os.PathLike[str],
    folder: Path,
    *,
    seeds: Sequence[int] = SEEDS,
    n_t: int = 4,
    size: int = 512,
    backend: str = "auto",
    precision: str = "auto",
    threads: int = 0,
    ensemble: Augmentation | None = None,
    conditions: Domain | None = None,
    structures: Sequence[str] | None = None,
    start: str | None = None,
    stem: str = "evaluation",
    pictures: int = 3,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, Any]:
    """Evaluate `engine` and write `stem`.json, `stem`.md and `stem`.png into `folder`.

    Parameters
    ----------
    start : an engine to compare it with on the same sequences, see `beside`: the one that its
        training began with
    stem : name of the files, without ending
    pictures : sequences shown in the picture, the first ones of `seeds`: none is chosen by its
        looks
    others : as in `evaluate_engine`, whose result is returned
    """
    rows: list[PictureRow] = []
    evaluate = functools.partial(
        evaluate_engine,
        seeds=seeds,
        n_t=n_t,
        size=size,
        backend=backend,
        precision=precision,
        threads=threads,
        ensemble=ensemble,
        conditions=conditions,
        structures=structures,
    )
    engines = 1 if start is None else 2

    def shown(before: int) -> Callable[[int, int], None]:
        return lambda done, n: progress(before * n + done, engines * n) if progress else None

    result = evaluate(
        engine,
        progress=shown(0),
        show=lambda row: rows.append(row) if len(rows) < pictures else None,
    )
    if start is not None:
        result["start"] = beside(result, evaluate(start, progress=shown(1)))
    folder.mkdir(parents=True, exist_ok=True)
    text = json.dumps(result, indent=1, allow_nan=False) + "\n"
    (folder / f"{stem}.json").write_text(text, encoding="utf-8", newline="\n")
    (folder / f"{stem}.md").write_text(card_table(result), encoding="utf-8", newline="\n")
    if rows:
        montage(rows).save(folder / f"{stem}.png", optimize=True)
    return result


def evaluate_engine(
    engine: str | os.PathLike[str],
    *,
    seeds: Sequence[int] = SEEDS,
    sequences: int | None = None,
    n_t: int = 4,
    size: int = 512,
    backend: str = "auto",
    precision: str = "auto",
    threads: int = 0,
    ensemble: Augmentation | None = None,
    conditions: Domain | None = None,
    structures: Sequence[str] | None = None,
    progress: Callable[[int, int], None] | None = None,
    show: Callable[[PictureRow], None] | None = None,
) -> dict[str, Any]:
    """Score an engine on simulated sequences.

    Parameters
    ----------
    engine : a folder or a name, as in `load_engine`
    seeds : one sequence each; no seed of a training run gives any of them
    sequences : instead of `seeds`: so many, from the first of `SEEDS` on
    n_t : time points of each; frames with a true neighbour on both sides are scored
    size : side of the reconstructions, even
    backend, precision, threads, ensemble : as in `ComputeConfig`
    conditions : what the sequences are drawn from; the ranges of training if None. Their truth has
        haze if the engine's channels have
    structures : simulated structure of each output channel; None takes the channels' names, or for
        an untrained engine whose names mean nothing the order
    progress : called with (sequences done, all)
    show : called with a middle frame of each sequence

    Returns
    -------
    dict
        JSON-able: engine, backend, data (a sentence), settings, structures {channel: network,
        input, gain, passband_pcc, disjoint}, mean_pcc, residual {min, max}, residual_percentiles,
        leakage, false_positive, blank, splits, reached, sequences.
        Intervals are {mean, low, high, n} over sequences.

    Raises
    ------
    EngineError
        If it is no engine for separation, or separates what cannot be simulated.
    BackendError
        If no runtime can run it.
    """
    loaded = load_engine(engine)
    conditions = truth_as_drawn(conditions or Domain(), loaded.manifest)
    loaded.check_fits("separate", shape=(size, size))
    names = _structures_of(loaded, structures, conditions)
    drawn = sequences_of(loaded.manifest.modality)
    runtime = open_views(
        loaded,
        (size, size),
        ComputeConfig(
            backend=backend, precision=precision, threads=threads, tile="off", ensemble=ensemble
        ),
        conditions.pixel_size_um * 500,
    )
    if sequences is not None:
        seeds = range(SEEDS.start, SEEDS.start + sequences)
    try:
        evaluated = []
        for done, seed in enumerate(seeds, start=1):
            simulated = drawn.draw((EVALUATION, seed), n_t, size, conditions)
            evaluated.append(_Evaluated(seed, simulated, loaded, runtime, names).result(show))
            if progress:
                progress(done, len(seeds))
        labels = dict(zip(names, loaded.manifest.channel_names, strict=True))
        return {
            **about(loaded, runtime),
            "data": (
                f"{len(seeds)} simulated {drawn.title} sequences (seeds {seeds[0]} to {seeds[-1]},"
                f" none used in training), {n_t} frames of {size} x {size}"
            ),
            "settings": {
                "seeds": list(seeds),
                "n_t": n_t,
                "size": size,
                "margin_px": _margin_px(size),
                "conditions": conditions.model_dump(mode="json"),
            },
            **_summary(evaluated, labels),
            "sequences": [s.to_json() for s in evaluated],
        }
    finally:
        runtime.close()


def diagnose_engine(
    engine: str | os.PathLike[str],
    *,
    seeds: Sequence[int] = SEEDS[:4],
    size: int = 512,
    backend: str = "auto",
    precision: str = "auto",
    threads: int = 0,
    ensemble: Augmentation | None = None,
    conditions: Domain | None = None,
    structures: Sequence[str] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, Any]:
    """Test an engine on scenes of which the answer is known.

    See `Diagnostics.run` for what is returned.

    Parameters and errors are those of `evaluate_engine`.
    """
    loaded = load_engine(engine)
    conditions = truth_as_drawn(conditions or Domain(), loaded.manifest)
    loaded.check_fits("separate", shape=(size, size))
    names = _structures_of(loaded, structures, conditions)
    runtime = open_views(
        loaded,
        (size, size),
        ComputeConfig(
            backend=backend, precision=precision, threads=threads, tile="off", ensemble=ensemble
        ),
        conditions.pixel_size_um * 500,
    )
    inside = _inside(size)

    def run_live(raw: NDArray[np.uint16], scene: SimulatedSequence) -> list[MulticolorFrame]:
        return separate(raw, scene.reconstructor, scene.pixel_size_um, loaded, runtime)

    try:
        tests = Diagnostics(
            run_live,
            lambda f: _channel_light(f, inside),
            lambda f: _input_light(f, inside),
            names,
            conditions,
            sequences_of(loaded.manifest.modality).draw,
        )
        labels = dict(zip(names, loaded.manifest.channel_names, strict=True))
        found = tests.run(seeds, size, progress)
        return {
            what: {labels.get(k, k): value for k, value in by_name.items()}
            for what, by_name in found.items()
        }
    finally:
        runtime.close()


class _Evaluated:
    """One simulated sequence in front of one engine."""

    def __init__(
        self,
        seed: int,
        simulated: SimulatedSequence,
        engine: Engine,
        backend: InferenceSession,
        names: tuple[str, ...],
    ) -> None:
        self._seed, self._simulated = seed, simulated
        self._engine, self._backend, self._names = engine, backend, names
        self._inside = _inside(simulated.reconstructor.shape[0])

    def result(self, show: Callable[[PictureRow], None] | None) -> _Sequence:
        simulated = self._simulated
        result = _Sequence(self._seed, simulated.photons, simulated.brightness)
        frames = self._scored(simulated.raw())
        self._score(frames, result)
        if show:
            show(self._picture(frames[len(frames) // 2]))
        for name in (n for n in self._names if math.isfinite(result.network[n].pcc)):
            result.leakage[name] = self._leakage(name)
        blank = self._scored(simulated.raw([], _NULL_FRAMES))[0]
        result.blank = _ratio(self._light(blank).sum(), float(np.abs(self._input(blank)).sum()))
        return result

    def _scored(self, raw: NDArray[np.uint16]) -> list[MulticolorFrame]:
        """Frames with true neighbours, or all where the series is too short to have any."""
        simulated = self._simulated
        frames = separate(
            raw, simulated.reconstructor, simulated.pixel_size_um, self._engine, self._backend
        )
        return [f for f in frames if f.true_neighbours and not f.edge] or frames

    def _score(self, frames: list[MulticolorFrame], result: _Sequence) -> None:
        network: dict[str, list[Score]] = {name: [] for name in self._names}
        unseparated: dict[str, list[Score]] = {name: [] for name in self._names}
        passband: dict[str, list[float]] = {name: [] for name in self._names}
        false: dict[str, list[float]] = {name: [] for name in self._names}
        for frame in frames:
            truth, ideal = self._truth(frame.t), self._simulated.passband(frame.t)
            light = float(self._light(frame).sum())
            for name, channel in zip(self._names, self._channels(frame), strict=True):
                false[name].append(_ratio(false_positive_energy(channel, truth[name]), light))
                network[name].append(score(channel, truth[name]))
                unseparated[name].append(score(self._input(frame), truth[name]))
                passband[name].append(
                    pcc(channel, ideal[name][self._inside]) if truth[name].any() else math.nan
                )
            result.residuals.append(frame.residual)
        result.network = {name: _mean_score(scores) for name, scores in network.items()}
        result.input = {name: _mean_score(scores) for name, scores in unseparated.items()}
        result.false_positive = {name: float(np.mean(values)) for name, values in false.items()}
        result.passband_pcc = {name: float(np.mean(values)) for name, values in passband.items()}

    def _truth(self, t: int) -> dict[str, NDArray[np.float32]]:
        """Truths inside the margin; all 0 for a structure of which nothing is in the field."""
        truth = {name: image[self._inside] for name, image in self._simulated.truth(t).items()}
        least = _IN_FIELD * max(image.max() for image in truth.values())
        return {
            name: image if image.max() >= least else np.zeros_like(image)
            for name, image in truth.items()
        }

    def _leakage(self, name: str) -> Structured:
        """Share of the light of `name`, alone in the field, that is predicted as each other
        structure.
        """
        light = self._light(self._scored(self._simulated.raw([name], _NULL_FRAMES))[0])
        shares = {
            other: _ratio(amount, light.sum())
            for other, amount in zip(self._names, light, strict=True)
        }
        return {other: share for other, share in shares.items() if other != name}

    def _channels(self, frame: MulticolorFrame) -> NDArray[np.float32]:
        return _channel_light(frame, self._inside)

    def _light(self, frame: MulticolorFrame) -> NDArray[np.float64]:
        """Predicted light of each channel, ADU."""
        light: NDArray[np.float64] = np.maximum(self._channels(frame), 0).sum(
            (1, 2), dtype=np.float64
        )
        return light

    def _input(self, frame: MulticolorFrame) -> NDArray[np.float32]:
        return _input_light(frame, self._inside)

    def _picture(self, frame: MulticolorFrame) -> PictureRow:
        truth = self._truth(frame.t)
        return PictureRow(
            title=f"seed {self._seed}, {self._simulated.photons:.0f} e",
            input=self._input(frame),
            prediction=self._channels(frame),
            truth=np.stack([truth[name] for name in self._names]),
            names=self._names,
            colors=tuple(channel.color for channel in self._engine.manifest.channels),
        )


# -- summing up ------------------------------------------------------------------------------------


def beside(result: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, Any]:
    """Return how another engine did on the sequences of a result: {engine, mean_pcc, gain}.

    `gain` is the interval of what `result` has more of it, sequence by sequence. Both are what
    `evaluate_engine` returned for the same seeds.
    """
    both = (_pcc_by_seed(result), _pcc_by_seed(other))
    gains = [both[0][seed] - both[1][seed] for seed in both[0]]
    return {
        "engine": other["engine"],
        "mean_pcc": other["mean_pcc"]["network"],
        "gain": bootstrap_interval(gains).to_json(),
    }


def _pcc_by_seed(result: Mapping[str, Any]) -> dict[int, float]:
    return {
        seq["seed"]: _nanmean(
            math.nan if score["pcc"] is None else score["pcc"] for score in seq["network"].values()
        )
        for seq in result["sequences"]
    }


def _summary(sequences: list[_Sequence], labels: Mapping[str, str]) -> dict[str, Any]:
    """Sum up; `labels` are the engine's names of the simulated structures."""
    structures = {label: _structure_summary(sequences, name) for name, label in labels.items()}
    mean = {
        who: bootstrap_interval(
            [_nanmean(s.pcc for s in getattr(seq, who).values()) for seq in sequences]
        )
        for who in ("network", "input")
    }
    residuals = np.array([r for seq in sequences for r in seq.residuals])
    percentiles = {"p1": 1, "median": 50, "p99": 99}
    gains = [s["gain"]["pcc"]["mean"] for s in structures.values()]
    return {
        "structures": structures,
        "mean_pcc": {who: interval.to_json() for who, interval in mean.items()},
        "residual": {"min": float(residuals.min()), "max": float(residuals.max())},
        "residual_percentiles": {
            name: float(np.percentile(residuals, q)) for name, q in percentiles.items()
        },
        "leakage": {
            label: leaked([seq.leakage for seq in sequences], name, labels)
            for name, label in labels.items()
        },
        "false_positive": {
            label: bootstrap_interval([seq.false_positive[name] for seq in sequences]).to_json()
            for name, label in labels.items()
        },
        "blank": bootstrap_interval([seq.blank for seq in sequences]).to_json(),
        "splits": {label: _splits(sequences, name) for name, label in labels.items()},
        "reached": {
            "gain_pcc": all(g is not None and g >= GAIN_PCC for g in gains),
            "disjoint": all(s["disjoint"] for s in structures.values()),
            "mean_pcc": mean["network"].mean >= MEAN_PCC,
        },
    }


def _structure_summary(sequences: list[_Sequence], name: str) -> dict[str, Any]:
    summary = compared(
        [seq.network[name] for seq in sequences], [seq.input[name] for seq in sequences]
    )
    summary["passband_pcc"] = bootstrap_interval(
        [seq.passband_pcc[name] for seq in sequences]
    ).to_json()
    return summary


def _splits(sequences: list[_Sequence], name: str) -> dict[str, Any]:
    """PCC of one structure where light or staining is poor and where it is not.

    Says what limits the mean.
    """
    groups: Mapping[str, Callable[[_Sequence], bool]] = {
        f"below {_DIM_PHOTONS:.0f} e": lambda s: s.photons < _DIM_PHOTONS,
        f"from {_DIM_PHOTONS:.0f} e": lambda s: s.photons >= _DIM_PHOTONS,
        f"brightness below {_WEAK_BRIGHTNESS}": lambda s: s.brightness[name] < _WEAK_BRIGHTNESS,
        f"brightness from {_WEAK_BRIGHTNESS}": lambda s: s.brightness[name] >= _WEAK_BRIGHTNESS,
    }
    return {
        title: (
            bootstrap_interval(
                [seq.network[name].pcc for seq in sequences if belongs(seq)]
            ).to_json()
        )
        for title, belongs in groups.items()
    }


def card_table(result: Mapping[str, Any]) -> str:
    """Return the Markdown for the engine's card of what `evaluate_engine` returned."""
    lines = [
        (
            f"{result['data']}, through the live path on {result['backend']['name']}"
            f" {result['backend']['precision']}. Means with bootstrap 95 % intervals over"
            " sequences; *input* is the frame that went in, taken as the prediction of each"
            " structure."
        ),
        "",
        "| structure | | PCC | SSIM | NRMSE |",
        "|---|---|---|---|---|",
    ]
    for name, entry in result["structures"].items():
        for who in ("network", "input", "gain"):
            cells = " | ".join(
                interval_text(entry[who][metric]) for metric in ("pcc", "ssim", "nrmse")
            )
            lines.append(f"| {name if who == 'network' else ''} | {who} | {cells} |")
    reached, given = (interval_text(result["mean_pcc"][who]) for who in ("network", "input"))
    lines += [
        "",
        (
            f"Mean PCC over structures: {reached}, input {given}. PCC intervals of network and"
            f" input are {'disjoint' if result['reached']['disjoint'] else 'not all disjoint'}."
            f" {start_text(result)}".rstrip()
        ),
        "",
        "| one structure alone | light predicted elsewhere | into |",
        "|---|---|---|",
    ]
    for name, entry in result["leakage"].items():
        into = ", ".join(
            f"{other} {interval_text(share)}" for other, share in entry["into"].items()
        )
        lines.append(f"| {name} | {interval_text(entry['total'])} | {into} |")
    residual, blank = result["residual_percentiles"], interval_text(result["blank"])
    lines += [
        "",
        (
            f"Blank input (camera noise and even light only): {blank} of its |x| is predicted as"
            f" structure. Residual: median {residual['median']:.3f}, 1 to 99 % of frames"
            f" {residual['p1']:.3f} to {residual['p99']:.3f}."
        ),
        "",
        "| PCC where | " + " | ".join(result["structures"]) + " |",
        "|---|" + "---|" * len(result["structures"]),
    ]
    for title in next(iter(result["splits"].values())):
        lines.append(
            f"| {title} | "
            + " | ".join(interval_text(split[title]) for split in result["splits"].values())
            + " |"
        )
    return "\n".join(lines) + "\n"


def start_text(result: Mapping[str, Any]) -> str:
    """Return how the engine that it began with did on the same sequences, as sentences; "" where
    none was compared.
    """
    if (start := result.get("start")) is None:
        return ""
    name, gain = start["engine"]["id"], start["gain"]
    shown = gain["low"] is not None and gain["low"] > 0
    return (
        f"The engine that it began with, {name}, on the same sequences:"
        f" {interval_text(start['mean_pcc'])}; gained: {interval_text(gain)}."
        f"{'' if shown else f' No gain is shown: stay with {name}, or train on more pairs.'}"
    )


def _structures_of(
    engine: Engine, given: Sequence[str] | None, conditions: Domain
) -> tuple[str, ...]:
    """Which simulated structure each output channel should show."""
    names = tuple(given or (name.casefold() for name in engine.manifest.channel_names))
    if not engine.manifest.trained and given is None and len(names) <= len(conditions.structures):
        names = conditions.structures[: len(names)]
    if engine.manifest.scale != 1:
        raise EngineError(
            f"Engine {engine.manifest.id!r} enlarges {engine.manifest.scale} times; only 1 is"
            " evaluated."
        )
    if unknown := [name for name in names if name not in conditions.structures]:
        raise EngineError(
            f"Engine {engine.manifest.id!r} separates {', '.join(unknown)}, and these sequences"
            f" show {', '.join(conditions.structures)} (known: {', '.join(STRUCTURES)}). Say with"
            " 'structures' what each channel is."
        )
    if len(names) != len(engine.manifest.channels) or len(set(names)) != len(names):
        raise EngineError(
            f"Engine {engine.manifest.id!r} has {len(engine.manifest.channels)} channels; name one"
            f" structure for each, all different; got {', '.join(names)}."
        )
    return names


def _mean_score(scores: list[Score]) -> Score:
    """Mean over the frames of a sequence; NaN if the structure was not there."""
    return Score(*(float(v) for v in np.mean(scores, axis=0)))


def _nanmean(values: Iterable[float]) -> float:
    found = [v for v in values if not math.isnan(v)]
    return sum(found) / len(found) if found else math.nan


def _ratio(part: float, whole: float) -> float:
    return float(part) / float(whole) if whole > 0 else 0.0


def _channel_light(frame: MulticolorFrame, inside: Inside) -> NDArray[np.float32]:
    return frame.channels[inside].astype(np.float32) - np.float32(frame.offset_adu)


def _input_light(frame: MulticolorFrame, inside: Inside) -> NDArray[np.float32]:
    return frame.source.image[inside] - np.float32(frame.source.normalisation.background)


def _inside(size: int) -> Inside:
    margin = _margin_px(size)
    return ..., slice(margin, -margin), slice(margin, -margin)


def _margin_px(size: int) -> int:
    return max(round(size * _MARGIN), 1)
