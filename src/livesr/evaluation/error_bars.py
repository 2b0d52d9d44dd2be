"""`ErrorBars` from predictions whose truth is known.

Owns where true channels come from (a store, a folder of pairs, the engine's simulation) and how the
bounds follow from them: per structure and per predicted intensity. The bound itself is
`livesr.evaluation.conformal`'s.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from livesr.base.compute import Augmentation, ComputeConfig
from livesr.base.error_bars import ErrorBars, StructureBars
from livesr.base.errors import ConfigError, StoreError
from livesr.base.frames import Normalisation, Stream
from livesr.base.taken_with import MadeWith
from livesr.evaluation.conformal import fewest_units, width
from livesr.evaluation.limits import N_T, SIZE, domain_of, scene_of
from livesr.evaluation.live_path import open_views, separate
from livesr.formats.store import RecordedStore, array_shape
from livesr.formats.zarr_files import open_array
from livesr.live.channel_scores import on_grid_of
from livesr.live.inference.engine import Engine
from livesr.live.inference.session import InferenceSession
from livesr.live.networks import engines_of
from livesr.live.normalise import BORDER, background_and_scale
from livesr.live.reconstruct.reconstructor import RawFrames
from livesr.live.taken_with import made_with
from livesr.simulation.sequence import sequences_of
from livesr.store.recorded import recorded_rig

Image = NDArray[np.float32]

COVERAGE = 0.9
_LEVELS = (0.0, 0.5, 0.75, 0.9, 0.95, 0.98, 0.995)  # quantiles of the prediction, of the bins
_PIXELS = 20_000  # of a unit, of each structure
_SHAPE = 3  # one unit in so many says how errors are spread
_LEAST_WIDTH = 1e-6  # of the normalisation's scale: numbers are written down
_OFFSET_ADU = 1000
_OWN_SCENES = 50_000  # of the simulation: neither trained, scored nor measured limits on


@dataclass(frozen=True, slots=True)
class Known:
    """A prediction and its truth, both float32 (c, y, x) in shares of the normalisation's scale.

    `field` is what it is one of several frames of.
    """

    predicted: Image
    truth: Image
    field: Any


def calibrated(
    known: Sequence[Known],
    labels: Sequence[str],
    engine: Engine,
    source: Literal["pairs", "simulation"],
    *,
    coverage: float = COVERAGE,
    confidence: float | None = None,
    cut: bool = False,
    ensemble: Augmentation | None = None,
    made: MadeWith | None = None,
) -> ErrorBars:
    """Return the bounds that follow from frames whose truth is known.

    The units are fields, or frames where there are too few fields. Every third unit says how the
    errors are spread, the others how much further the bounds must reach (conformalised quantiles,
    Romano et al. 2019, NeurIPS).

    Raises
    ------
    ConfigError
        If there are too few frames to promise anything.
    """
    of, units = _units(known, coverage, confidence)
    structures = {
        label: _structure(
            [_sampled(unit, c, i) for i, unit in enumerate(units)], coverage, confidence
        )
        for c, label in enumerate(labels)
    }
    return ErrorBars(
        engine=engine.manifest.id,
        sha256=engine.manifest.sha256,
        coverage=coverage,
        confidence=confidence,
        source=source,
        units=len(units),
        of=of,
        cut=cut,
        ensemble=ensemble,
        made_with=made,
        structures=structures,
    )


def _units(
    known: Sequence[Known], coverage: float, confidence: float | None
) -> tuple[Literal["fields", "frames"], list[list[Known]]]:
    needed = math.ceil(fewest_units(1 - coverage, confidence) * _SHAPE / (_SHAPE - 1)) + 1
    fields: dict[Any, list[Known]] = {}
    for one in known:
        fields.setdefault(one.field, []).append(one)
    if len(fields) >= needed:
        return "fields", list(fields.values())
    if len(known) >= needed:
        return "frames", [[one] for one in known]
    raise ConfigError(
        f"{len(fields)} field{'s' if len(fields) > 1 else ''} with {len(known)} frames in all came,"
        f" and {coverage:.0%} coverage takes at least {needed}: record more with 'livesr run"
        " --superpose', best of as many cells, or ask for less coverage."
    )


class _Pixels(NamedTuple):
    predicted: NDArray[np.float64]
    error: NDArray[np.float64]  # truth less prediction


def _sampled(unit: Sequence[Known], channel: int, number: int) -> _Pixels:
    """Return pixels of a unit, some where there are many."""
    predicted = np.concatenate([one.predicted[channel].ravel() for one in unit])
    truth = np.concatenate([one.truth[channel].ravel() for one in unit])
    if len(predicted) > _PIXELS:
        chosen = np.random.default_rng(number).choice(len(predicted), _PIXELS, replace=False)
        predicted, truth = predicted[chosen], truth[chosen]
    values = predicted.astype(np.float64)
    return _Pixels(values, truth - values)


def _structure(
    units: Sequence[_Pixels], coverage: float, confidence: float | None
) -> StructureBars:
    alpha = 1 - coverage
    shape, held = units[::_SHAPE], [unit for i, unit in enumerate(units) if i % _SHAPE]
    pooled = _Pixels(*map(np.concatenate, zip(*shape, strict=True)))
    starts = _starts(pooled, held, fewest_units(alpha, confidence))
    below, above, misses = [], [], []
    for start, end in zip([-math.inf, *starts[1:]], [*starts[1:], math.inf], strict=True):
        errors = _between(pooled, start, end)
        low, high = (float(q) for q in np.quantile(errors, (alpha / 2, 1 - alpha / 2)))
        inside = [found for unit in held if len(found := _between(unit, start, end))]
        scores = [np.maximum(found - high, low - found) for found in inside]
        more = width(scores, alpha, confidence)
        # The prediction stays within its own bounds.
        below.append(max(more - low, 0.0) + _LEAST_WIDTH)
        above.append(max(more + high, 0.0) + _LEAST_WIDTH)
        misses.append(round(float(np.mean([np.mean(of > more) for of in scores])), 4))
    return StructureBars(**{"from": starts}, below=below, above=above, miss=misses)


def _starts(pooled: _Pixels, held: Sequence[_Pixels], fewest: int) -> list[float]:
    """Return where bins of predicted intensity begin, each with pixels of enough units."""

    def enough(start: float, end: float) -> bool:
        units = sum(len(_between(unit, start, end)) > 0 for unit in held)
        return units >= fewest and len(_between(pooled, start, end)) > 0

    edges = [float(edge) for edge in np.unique(np.quantile(pooled.predicted, _LEVELS))]
    starts = edges[:1]
    for edge in edges[1:]:
        last = starts[-1] if len(starts) > 1 else -math.inf
        if enough(last, edge) and enough(edge, math.inf):
            starts.append(edge)
    return starts


def _between(unit: _Pixels, start: float, end: float) -> NDArray[np.float64]:
    """Return the errors of the pixels that are predicted from `start` up to below `end`."""
    return unit.error[(unit.predicted >= start) & (unit.predicted < end)]


# -- where the truth is known ----------------------------------------------------------------------

_OF_RUN = re.compile(r"\d{8}-\d{6}-[0-9a-f]{6}_p\d+")  # a field of pairs
_TO_THE_SECOND = len("20261130-080655")


class Recordings:
    """Knows which recordings came already: the frames of one count once."""

    def __init__(self) -> None:
        self._seen: list[tuple[str, str]] = []

    def take(self, source: str, store: RecordedStore | None, known: Sequence[Known]) -> None:
        """Take note of a store, or of a folder of pairs with what is `known` by it.

        Raises
        ------
        ConfigError
            If one of its recordings came with another source.
        """
        said = {_begun(store)} if store else {one.field for one in known}
        names = [name for name in said if name and (store or _OF_RUN.match(name))]
        for name in names:
            for other, whose in self._seen:
                if _of_one_run(name, other):
                    raise ConfigError(
                        f"{whose} and {source} hold frames of one run, which count once: leave one"
                        " out."
                    )
        self._seen += [(name, source) for name in names]


def _begun(store: RecordedStore) -> str:
    """Return when a store's run began, as pairs say it, to the microsecond; "" if nobody knows."""
    with suppress(ValueError):
        began = datetime.fromisoformat(str(store.about.get("started")))
        return f"{began.astimezone(UTC):%Y%m%d-%H%M%S.%f}"
    return ""


def _of_one_run(name: str, other: str) -> bool:
    """Whether two recordings are of one run: a store and pairs know the second alone."""
    kinds_differ = ("." in name) != ("." in other)
    return name == other or (kinds_differ and name[:_TO_THE_SECOND] == other[:_TO_THE_SECOND])


def from_store(
    store: RecordedStore,
) -> tuple[list[Known], tuple[str, ...], Augmentation | None, MadeWith]:
    """Return every prediction of a superposition beside its true channels.

    Returns
    -------
    What is known, the names of the channels, the views of which a prediction is the mean, and how
    it was made.

    Raises
    ------
    StoreError
        If the store holds no superposition with predictions and reconstructions, or no copy of its
        rig.
    EngineError
        If its engine is not on this computer.
    """
    if not store.superposed:
        raise StoreError(
            f"{store.path} holds no superposition: record one with 'livesr run --superpose', or"
            " give a folder of pairs."
        )
    name, about = next(iter(store.superposed.items()))
    weights = np.asarray(about["weights"], np.float32)
    levels, known = store.normalisations(), []
    for stream, t in sorted(store.pictures("sr")):
        parts = [Stream(stream.position, part, stream.z) for part in about["channels"]]
        if stream.channel != name or any((part, t) not in levels for part in parts):
            continue
        planes = [_plane(store, "recon", part, t)[0] for part in parts]
        truth = _addends(planes, [levels[part, t] for part in parts], weights)
        predicted = _plane(store, "sr", stream, t)
        scale = levels[stream, t].scale
        known.append(_known(predicted, truth, scale, stream.position))
    if not known:
        raise StoreError(
            f"{store.path} holds no prediction of {name} beside reconstructions of its channels:"
            " record both, with an engine."
        )
    image = next(i for (kind, _, of), i in store.images.items() if (kind, of) == ("sr", name))
    labels = image.attributes["ome"]["omero"]["channels"]
    named = tuple(channel["label"].removeprefix("SR ") for channel in labels)
    told, rig = store.provenance(name), recorded_rig(store)
    engines, pixel_nm = engines_of(rig, name), image.scale["x"] * 1e3
    made = made_with(rig, about["channels"], engines, pixel_nm, told)
    return known, named, told.get("ensemble"), made


def _plane(store: RecordedStore, kind: Any, stream: Stream, t: int) -> Image:
    """Return a picture as float32 (c, y, x), ADU, its offset taken off.

    Raises
    ------
    StoreError
        If it cannot be read.
    """
    image = store.images[kind, stream.position, stream.channel]
    shape = array_shape(image.array)
    try:
        if not shape.is_there(image.array, t, stream.z):
            raise FileNotFoundError("its file is gone")
        pixels = np.asarray(open_array(image.array)[shape.index(t, stream.z)])
    except Exception as e:  # a damaged chunk raises whatever its codecs raise
        raise StoreError(
            f"{image.name} of {store.path} cannot be read at t={t}: {e}. 'livesr check"
            f" {store.path}' says what is damaged; leave the store out, or make it again with"
            " 'livesr process'."
        ) from e
    offset = image.attributes["livesr"]["intensity"]["offset"]
    plane: Image = pixels.reshape((-1, *pixels.shape[-2:])).astype(np.float32) - np.float32(offset)
    return plane


def from_pairs(
    fields: Sequence[tuple[str, Sequence[Image]]], engine: Engine, compute: ComputeConfig
) -> list[Known]:
    """Return what an engine makes of the sum of true channels, beside them.

    Parameters
    ----------
    fields : name of a field, and each structure's reconstructions, float32 (t, y, x), ADU
    """
    known = []
    sessions: dict[tuple[int, int], InferenceSession] = {}
    try:
        for name, structures in fields:
            y, x = shape = structures[0].shape[1], structures[0].shape[2]
            if shape not in sessions:
                sessions[y, x] = open_views(engine, shape, compute)
            parts = [
                [Normalisation(*background_and_scale(image)) for image in images]
                for images in structures
            ]
            truth = [
                _addends(images, levels, np.ones(len(structures), np.float32))
                for images, levels in zip(
                    zip(*structures, strict=True), zip(*parts, strict=True), strict=True
                )
            ]
            summed = np.stack([addends.sum(0) for addends in truth])
            raw = np.clip(np.rint(summed + _OFFSET_ADU), 0, 65535).astype(np.uint16)
            frames = separate(raw[:, None], _AsItIs(shape), 1.0, engine, sessions[shape])
            for frame, addends in zip(frames, truth, strict=True):
                predicted = frame.channels.astype(np.float32) - np.float32(frame.offset_adu)
                known.append(
                    _known(predicted, addends, frame.source.normalisation.scale, name, 0.0)
                )
    finally:
        for session in sessions.values():
            session.close()
    return known


class _AsItIs:
    """Takes a picture for its own reconstruction."""

    scale, memory_bytes = 1.0, 0

    def __init__(self, shape: tuple[int, int]) -> None:
        self.shape = shape

    def reconstruct(self, frames: RawFrames) -> Image:
        return np.asarray(frames[0], np.float32) - np.float32(_OFFSET_ADU)


def from_simulation(
    engine: Engine,
    scenes: int,
    compute: ComputeConfig,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> list[Known]:
    """Return what an engine makes of simulated cells that nobody trained on, beside their truth.

    Raises
    ------
    EngineError
        If it separates what cannot be simulated.
    """
    domain = domain_of(engine.manifest)
    _name, _title, draw = sequences_of(engine.manifest.modality)
    session, known = open_views(engine, (SIZE, SIZE), compute), []
    try:
        for number in range(scenes):
            scene = scene_of(draw, domain, _OWN_SCENES + number)
            frames = separate(
                scene.raw(), scene.reconstructor, scene.pixel_size_um, engine, session
            )
            frame = frames[N_T // 2]
            truth = np.stack(list(scene.truth(frame.t).values()))
            predicted = frame.channels.astype(np.float32) - np.float32(frame.offset_adu)
            known.append(_known(predicted, truth, frame.source.normalisation.scale, number))
            progress(number + 1, scenes)
    finally:
        session.close()
    return known


def _addends(
    images: Sequence[Image], levels: Sequence[Normalisation], weights: NDArray[np.float32]
) -> Image:
    """Return what each true channel adds to their sum, float32 (c, y, x), ADU."""
    level = sum(one.scale for one in levels) / len(levels)
    addends = [
        np.float32(weight * level / one.scale) * (image - np.float32(one.background))
        for image, one, weight in zip(images, levels, weights, strict=True)
    ]
    return np.stack(addends)


def _known(
    predicted: Image, truth: Image, scale: float, field: Any, border: float = BORDER
) -> Known:
    """Return both on the pixels of the truth, without the edges, where reconstructions fade."""
    same = np.stack([on_grid_of(p, t) for p, t in zip(predicted, truth, strict=True)])
    y, x = (int(n * border) for n in truth.shape[1:])
    inside = (slice(None), slice(y, truth.shape[1] - y), slice(x, truth.shape[2] - x))
    share = np.float32(1 / scale)
    return Known(same[inside] * share, truth[inside] * share, field)
