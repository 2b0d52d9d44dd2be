"""Where an engine's predictions stop being those of its validation.

What a live run compares every frame with.

Owns the sequences that are looked at, what is measured on them and how limits follow from it. The
warnings themselves are `livesr.live.compose`'s, how well they separate what should warn from what
should not is measured by `scripts/warnings_roc.py`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import spearmanr

from livesr.base.compute import Augmentation, ComputeConfig
from livesr.base.errors import EngineError
from livesr.base.frames import MulticolorFrame, Normalisation, SRFrame, Stream, Window
from livesr.base.quality import UNJUDGED, Judgement
from livesr.evaluation.live_path import separate
from livesr.live.arrays import HOST
from livesr.live.compose import Composer, noise_threshold
from livesr.live.inference.engine import (
    ChannelMixing,
    Engine,
    Limits,
    Manifest,
    Range,
    TrainingDistribution,
    Uncertain,
    UsualUnknownLight,
    load_engine,
    write_manifest,
)
from livesr.live.inference.runner import open_session
from livesr.live.inference.session import InferenceSession
from livesr.live.mixing import brightness, ratios
from livesr.live.out_of_distribution import FEATURES, features
from livesr.live.own_engine import own_domain
from livesr.optics.similarity import pcc
from livesr.simulation.domain import Domain, calibrated_like, usual_like
from livesr.simulation.sequence import (
    EVALUATION,
    DrawSequence,
    SimulatedSequence,
    sequences_of,
)
from livesr.simulation.specimens import STRUCTURES

Image = NDArray[np.float32]

SIZE, N_T = 256, 3
FIRST_SEED = 9000
UNUSABLE_PCC, LITTLE_LIGHT = 0.5, 0.15
"""A structure is lost because it is weak.

A PCC with the truth below the one, where its share of the true light is below the other. The
warning has to tell such channels from those whose PCC is not below.
"""

_OWN_STREAM = 4  # of the seeds: scenes unlike those that are scored or diagnosed
_WEAK_RATIO = 40.0  # between structures, instead of 5: so that some are lost
_USUAL = 0.975  # of the frames of training lie within a limit
_USUAL_RESIDUALS = (1, 99)  # percentiles, as of `livesr.export.engine.write_metrics`
_MIN_FRAMES = 4 * len(FEATURES)  # for a covariance, and for a limit that goes by the frame
_ALONE, _ALONE_PX = (
    8,
    512,
)  # in small frames the network sees less around, and confuses more than in those of a camera
_MARGIN = 16
_PAIR_ADU = np.float32(1000)  # what x = 1 of a pair is taken for
# True ratios of brightness: of structures that are alike, at a quarter, and too faint to fit.
_ALIKE, _QUARTER, _FAINTEST = (0.7, 1.4), (0.15, 0.35), 0.06
_WEAK = (0.4, 0.55)  # ratios found from which and up to which a structure can be called weak
_CAUGHT = 0.95
_LACKING = 4  # one scene in so many is shown without each of its structures in turn
_SCORED = 4  # times as many scenes tell what unknown light is usual
_LEAST_UNKNOWN = 0.001  # unknown light: less is none
_FEW = 8  # frames that a quantile needs
_UNKNOWN_GOES_BY = ("detail 8", "noise")
_QUIETEST = 0.25  # of the frames: no limit is below theirs, where few frames say how it goes on
_FALSE_ALARMS = (
    0.1  # of channels that are in order, where some are forty times brighter than others
)


@dataclass(frozen=True, slots=True)
class Seen:
    """What a live run knows of one frame, and what only a simulation knows.

    Attributes
    ----------
    features : as `livesr.live.out_of_distribution.FEATURES`
    residual, warnings, judgement, unknown_light, unknown_share : as in `MulticolorFrame`
    shares, true_shares : of the predicted and of the true light, by channel
    pcc : with the truth, by channel; NaN where there is nothing to be found
    found, true : how bright each structure is beside the others, `livesr.live.mixing.ratios`, in
        the prediction and in truth; NaN in truth where it is not there
    errors, spread : prediction minus truth, and standard deviation over its views, in x; float32
        (c, y, x)
    """

    features: NDArray[np.float64]
    residual: float
    warnings: tuple[str, ...]
    shares: NDArray[np.float64]
    true_shares: NDArray[np.float64]
    pcc: NDArray[np.float64]
    errors: Image | None = None
    spread: Image | None = None
    found: NDArray[np.float64] | None = None
    true: NDArray[np.float64] | None = None
    judgement: Judgement = UNJUDGED
    unknown_light: float | None = None
    unknown_share: float | None = None


class Observer:
    """One engine in front of simulated sequences."""

    def __init__(self, engine: Engine, backend: InferenceSession) -> None:
        self._engine, self._backend = engine, backend

    def look(
        self,
        sequence: SimulatedSequence,
        visible: Sequence[str] | None = None,
        *,
        channels: Sequence[str] | None = None,
        uncertainty: Augmentation | None = None,
    ) -> Seen:
        """Run a sequence through the live path and look at its middle frame.

        Parameters
        ----------
        visible : structures that are there; None all
        channels : structure that each channel should show; None the sequence's, in order
        uncertainty : augmentation to estimate that of the prediction by
        """
        raw = sequence.raw(visible)
        reconstructor, pixel_size_um = sequence.reconstructor, sequence.pixel_size_um
        frames = separate(
            raw, reconstructor, pixel_size_um, self._engine, self._backend, uncertainty
        )
        frame = frames[len(frames) // 2]
        known = sequence.truth(frame.t)
        shown = known if visible is None else {name: known[name] for name in visible}
        names = channels or tuple(known)
        truth = np.stack(
            [shown.get(name, np.zeros(frame.source.image.shape, np.float32)) for name in names]
        )
        return seen(frame, truth, with_maps=uncertainty is not None)

    def lacking(self, sequence: SimulatedSequence) -> list[Seen]:
        """Look at a sequence once without each of its structures."""
        every = sequence.structures
        return [
            self.look(sequence, [other for other in every if other != name], channels=every)
            for name in every
        ]


def seen(frame: MulticolorFrame, truth: Image | None = None, *, with_maps: bool = False) -> Seen:
    """Return what is known of `frame`; of its errors, if there is a `truth` (c, y, x) in ADU."""
    channels = frame.channels.astype(np.float32) - np.float32(frame.offset_adu)
    background, scale = frame.source.normalisation
    noise = noise_threshold(frame.source.image)
    above = np.maximum(frame.source.image - np.float32(background), channels.sum(0)) > noise
    light = channels[:, above].sum(1, dtype=np.float64)
    scores = true = bright = np.full(len(channels), np.nan)
    if truth is not None:
        true = truth.sum((1, 2), dtype=np.float64)
        bright = ratios(brightness(truth))
        bright[brightness(truth) <= 0] = np.nan
        scores = np.array([_pcc(c, t) for c, t in zip(channels, truth, strict=True)])
    keep = with_maps and truth is not None and frame.uncertainty is not None
    inner = (slice(None), *_inside(channels.shape[1:]))
    return Seen(
        features=features(frame.source, noise),
        residual=frame.residual,
        warnings=frame.warnings,
        shares=light / max(float(light.sum()), 1e-9),
        true_shares=true / max(float(true.sum()), 1e-9),
        pcc=scores,
        found=ratios(brightness(channels)),
        true=bright,
        errors=(
            (channels - truth)[inner] / np.float32(scale) if keep and truth is not None else None
        ),
        spread=(
            frame.uncertainty[inner].astype(np.float32) / np.float32(scale)
            if keep and frame.uncertainty is not None
            else None
        ),
        judgement=frame.judgement,
        unknown_light=frame.unknown_light,
        unknown_share=frame.unknown_share,
    )


def measure_limits(
    engine: str | os.PathLike[str],
    *,
    sequences: int = 96,
    threads: int = 0,
    backend: str = "auto",
    domain: Domain | None = None,
    views: Augmentation = "flips",
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, Any]:
    """Measure the limits of an engine that separates simulated structures.

    Parameters
    ----------
    engine : a folder or a name
    sequences : of the whole range of training, and as many with structures that are too weak; four
        times as many of the rigs that engines are scored on tell what unknown light is usual; what
        is confused is measured on a few of a rig in good order
    domain : what training drew from; None is `Domain()` with the engine's structures. Its truth has
        haze if the engine's channels have
    progress : called with (sequences done, all)

    Returns
    -------
    dict
        Fields of `Manifest` to update: limits, resolution_nm.

    Raises
    ------
    EngineError
        If it separates what cannot be simulated.
    """
    loaded = load_engine(engine)
    if domain is None or loaded.manifest.task != "separate":
        domain = domain_of(loaded.manifest)
    domain = truth_as_drawn(domain, loaded.manifest)
    _name, title, draw = sequences_of(loaded.manifest.modality)
    runtime = open_session(
        loaded, (SIZE, SIZE), ComputeConfig(backend=backend, threads=threads, tile="off")
    )
    try:
        observer = Observer(loaded, runtime)
        weak_domain = domain.model_copy(update={"brightness_ratio": _WEAK_RATIO, "absent": 0.0})
        # Training draws microscopes worse than anybody's: beside these no unknown light is unusual.
        scored_domain = usual_like(domain)
        usual, weak, scored = [], [], []
        few, lacking = min(sequences, _ALONE), max(sequences // _LACKING, 1)
        known = 2 * sequences + few + lacking
        total = known + _SCORED * sequences
        for i in range(sequences):
            usual.append(observer.look(scene_of(draw, domain, i), uncertainty=views))
            _tell(progress, i + 1, total)
        for i in range(sequences):
            weak.append(observer.look(scene_of(draw, weak_domain, sequences + i)))
            _tell(progress, sequences + i + 1, total)
        missing = []
        for i in range(lacking):
            missing += observer.lacking(scene_of(draw, domain, known + i))
            _tell(progress, 2 * sequences + i + 1, total)
        for i in range(_SCORED * sequences):
            scored.append(observer.look(scene_of(draw, scored_domain, known + lacking + i)))
            _tell(progress, 2 * sequences + lacking + i + 1, total)
    finally:
        runtime.close()
    alone = []
    for shares in _alone(loaded, backend, threads, domain, range(2 * sequences, known - lacking)):
        alone.append(shares)
        _tell(progress, total - few + len(alone), total)
    names = loaded.manifest.channel_names
    limits = Limits(
        data=f"{total} simulated {title} sequences, {SIZE} x {SIZE}, none used in training",
        training_distribution=(
            fit_training_distribution([s.features for s in usual])
            if sequences >= _MIN_FRAMES
            else None
        ),
        unknown_light=usual_unknown_light(scored),
        usual_unknown_light=usual_by_frame(scored),
        weak={name: round(weak_share(usual + weak, c), 4) for c, name in enumerate(names)},
        mixing=mixing_of([*usual, *weak, *missing], names),
        confusion=_confusion(alone, domain.structures, names),
        uncertainty=fit_uncertainty(usual, views),
    )
    finest, coarsest = domain.resolution_nm
    return {"limits": limits, "resolution_nm": Range(min=finest, max=coarsest)}


def measure_on_pairs(
    engine: str | os.PathLike[str],
    pairs: Iterable[tuple[Image, Image]],
    *,
    threads: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, Any]:
    """Measure how bright structures are in predictions, on pairs instead of sequences; residual and
    unknown light of an engine for which none was measured.

    Parameters
    ----------
    engine : a folder or a name
    pairs : normalised frames (window, y, x) and targets (c, y, x) in the order of the channels,
        all of one size, as training has them

    Returns
    -------
    dict
        Fields of `Manifest` to update: limits and metrics.
    """
    loaded, looked = load_engine(engine), []
    known = list(pairs)
    compute = ComputeConfig(threads=threads, tile="off")
    with open_session(loaded, known[0][0].shape[1:], compute) as session:
        composer = Composer(loaded.manifest, loaded.output_shape(known[0][0].shape[1:])[1:])
        arithmetic = composer.arithmetic(HOST)
        for done, (frames, truth) in enumerate(known, start=1):
            session.input[...] = frames
            image = np.asarray(frames[len(frames) // 2], np.float32) * _PAIR_ADU
            frame = SRFrame(image, Stream(), 0, 0, 0, Normalisation(0.0, float(_PAIR_ADU)))
            output = session.infer()
            made = arithmetic.compose(output, image, frame.normalisation, features=session.features)
            separated = composer.frame(made, Window(frame, frame, frame))
            looked.append(seen(separated, np.asarray(truth, np.float32) * _PAIR_ADU))
            _tell(progress, done, len(known))
    names = loaded.manifest.channel_names
    measured: dict[str, Any] = {"mixing": mixing_of(looked, names)}
    if loaded.manifest.limits.unknown_light is None:
        measured["unknown_light"] = usual_unknown_light(looked)
    limits = loaded.manifest.limits.model_copy(update=measured)
    metrics = loaded.manifest.metrics
    if metrics.residual is None:
        least, most = np.percentile([frame.residual for frame in looked], _USUAL_RESIDUALS)
        found = Range(min=round(float(least), 4), max=round(float(most), 4))
        metrics = metrics.model_copy(update={"residual": found})
    return {"limits": limits, "metrics": metrics}


def write_limits(folder: Path, measured: Mapping[str, Any]) -> Manifest:
    """Put what `measure_limits` or `measure_on_pairs` returned into the manifest, with the hash of
    the network.
    """
    manifest = load_engine(folder).manifest.model_copy(update=dict(measured))
    own = {"measured_with": manifest.sha256}
    limits, metrics = manifest.limits.model_copy(update=own), manifest.metrics
    if not metrics.channels:  # scores of before stay as sure as they were
        metrics = metrics.model_copy(update=own)
    manifest = manifest.model_copy(update={"limits": limits, "metrics": metrics})
    write_manifest(folder, manifest)
    return manifest


def mixing_of(frames: Sequence[Seen], names: Sequence[str]) -> dict[str, ChannelMixing]:
    """Return `Limits.mixing`: of every channel, or of none where too few frames tell."""
    fitted = {name: fit_mixing(frames, c) for c, name in enumerate(names)}
    found = {name: one for name, one in fitted.items() if one is not None}
    return found if len(found) == len(names) > 1 else {}


def domain_of(manifest: Manifest) -> Domain:
    """Return the range of training with the structures of an engine, of one that was made for a
    microscope that microscope's.

    Raises
    ------
    EngineError
        If they cannot be simulated.
    """
    names = tuple(name.casefold() for name in manifest.channel_names)
    if manifest.task != "separate" or not set(names) <= STRUCTURES.keys():
        raise EngineError(
            f"Engine {manifest.id!r} makes {', '.join(manifest.channel_names)}; limits are measured"
            f" on simulated cells, and of these there are {', '.join(STRUCTURES)}."
        )
    return truth_as_drawn(own_domain(manifest) or Domain(structures=names), manifest)


def truth_as_drawn(domain: Domain, manifest: Manifest) -> Domain:
    """Return a domain whose truth has haze if the channels of an engine have."""
    return domain.model_copy(update={"haze_in_truth": manifest.haze})


def scene_of(
    draw: DrawSequence, domain: Domain, number: int, size: int = SIZE
) -> SimulatedSequence:
    """Return a sequence that nobody trained on."""
    return draw((EVALUATION, FIRST_SEED + number, _OWN_STREAM), N_T, size, domain)


def fit_training_distribution(known: Sequence[NDArray[np.float64]]) -> TrainingDistribution:
    """Fit mean and covariance to the features of frames, and the limit to distances of frames left
    out of the fit.
    """
    points = np.asarray(known)
    mean, whitening = _whitened(points)
    left_out = []
    for i, point in enumerate(points):
        others_mean, others_whitening = _whitened(np.delete(points, i, 0))
        left_out.append(np.linalg.norm(others_whitening @ (point - others_mean)))
    return TrainingDistribution(
        features=FEATURES,
        mean=tuple(round(float(v), 5) for v in mean),
        whitening=tuple(tuple(round(float(v), 5) for v in row) for row in whitening),
        limit=round(float(np.quantile(left_out, _USUAL)), 4),
    )


def distance(training_distribution: TrainingDistribution, found: NDArray[np.float64]) -> float:
    """Return the ood_score of features, as `livesr.live.out_of_distribution.OutOfDistribution` does
    of a frame.
    """
    return float(
        np.linalg.norm(
            np.array(training_distribution.whitening)
            @ (found - np.array(training_distribution.mean))
        )
        / training_distribution.limit
    )


def usual_unknown_light(known: Sequence[Seen]) -> float | None:
    """Return the share of unknown light that 1 in 40 frames exceed.

    None where the engine tells none, or too few frames do.
    """
    told = [frame.unknown_share for frame in known if frame.unknown_share is not None]
    if len(told) < _FEW:
        return None
    return round(max(float(np.quantile(told, _USUAL)), _LEAST_UNKNOWN), 5)


def usual_by_frame(known: Sequence[Seen]) -> UsualUnknownLight | None:
    """Fit the share of unknown light that 1 in 40 frames exceed, to what each frame is like.

    Least squares of its logarithm on two of the frame's numbers, and the quantile of what is left.
    None where the engine tells none, or too few frames do.
    """
    told = [(f.features, f.unknown_share) for f in known if f.unknown_share is not None]
    if len(told) < _MIN_FRAMES:
        return None
    columns = [FEATURES.index(name) for name in _UNKNOWN_GOES_BY]
    numbers = np.array([features[columns] for features, _ in told])
    light = np.log(np.maximum([light for _, light in told], _LEAST_UNKNOWN))
    slopes, *_ = np.linalg.lstsq(numbers - numbers.mean(0), light - light.mean(), rcond=None)
    offset = float(np.quantile(light - numbers @ slopes, _USUAL))
    limits = np.clip(np.exp(offset + numbers @ slopes), _LEAST_UNKNOWN, 1)
    return UsualUnknownLight(
        offset=round(offset, 5),
        slopes={n: round(float(s), 5) for n, s in zip(_UNKNOWN_GOES_BY, slopes, strict=True)},
        least=round(float(np.quantile(limits, _QUIETEST)), 5),
        most=round(float(limits.max()), 5),
    )


def weak_share(frames: Sequence[Seen], channel: int) -> float:
    """Return the share of light below which most structures that are lost lie, and at most 1 in 10
    of those in order.
    """
    lost, shares = is_lost(frames, channel), np.array([f.shares[channel] for f in frames])
    in_order = is_in_order(frames, channel)
    if not lost.any() or not in_order.any():
        return 0.0
    most = np.quantile(shares[in_order], _FALSE_ALARMS)
    return float(min(most, shares[lost].max() * 1.01))


def fit_mixing(frames: Sequence[Seen], channel: int) -> ChannelMixing | None:
    """Fit what the brightness of a structure in the prediction says of its true one.

    None where too few frames tell.
    """
    told = [f for f in frames if f.found is not None and f.true is not None]
    found = np.array([f.found[channel] for f in told if f.found is not None])
    true = np.array([f.true[channel] for f in told if f.true is not None])
    drawn = np.isfinite(found)  # else nothing was, where all that is there is noise or haze
    usable = drawn & (true > _FAINTEST) & (true < 1 / _QUARTER[0])
    alike = found[drawn & (true > _ALIKE[0]) & (true < _ALIKE[1])]
    quarter = found[drawn & (true > _QUARTER[0]) & (true < _QUARTER[1])]
    missing = found[drawn & np.isnan(true)]
    if min(usable.sum(), len(alike), len(quarter), len(missing)) < _FEW:
        return None
    x, y = np.log(found[usable]), np.log(true[usable])
    slope, offset = np.polyfit(x, y, 1)
    absent = min(np.quantile(missing, _CAUGHT), np.quantile(quarter, 1 - _CAUGHT))
    return ChannelMixing(
        slope=round(max(float(slope), 1e-3), 4),
        offset=round(float(offset), 4),
        sd=round(max(float(np.std(y - slope * x - offset)), 1e-3), 4),
        weak=round(float(np.clip(np.quantile(alike, 1 - _CAUGHT), *_WEAK)), 4),
        absent=round(float(absent), 4),
    )


def is_lost(frames: Sequence[Seen], channel: int) -> NDArray[np.bool_]:
    """Whether a structure is missing or too weak to be found, for each frame."""
    little: NDArray[np.bool_] = np.array([f.true_shares[channel] for f in frames]) < LITTLE_LIGHT
    return little & ~is_in_order(frames, channel)


def is_in_order(frames: Sequence[Seen], channel: int) -> NDArray[np.bool_]:
    """Whether a structure is found, for each frame."""
    found: NDArray[np.bool_] = np.nan_to_num([f.pcc[channel] for f in frames]) >= UNUSABLE_PCC
    return found


def fit_uncertainty(frames: Sequence[Seen], views: Augmentation) -> Uncertain | None:
    """Fit the one number that turns the spread of views into the root mean square error.

    None where there is no spread.
    """
    pairs = [(f.errors, f.spread) for f in frames if f.errors is not None and f.spread is not None]
    squares = sum(float((e * e).sum(dtype=np.float64)) for e, _ in pairs)
    spreads = sum(float((s * s).sum(dtype=np.float64)) for _, s in pairs)
    if spreads == 0:  # a network that sees every pixel by itself is alike in all views
        return None
    return Uncertain(
        augmentation=views,
        scale=round(max(float(np.sqrt(squares / spreads)), 1e-4), 4),
        correlation=round(
            rank_correlation([(abs(e[:, ::4, ::4]), s[:, ::4, ::4]) for e, s in pairs]), 4
        ),
    )


def rank_correlation(pairs: Sequence[tuple[NDArray[Any], NDArray[Any]]]) -> float:
    """Return Spearman's correlation of absolute error and spread over all pixels of all pairs."""
    errors = np.concatenate([e.ravel() for e, _ in pairs])
    spreads = np.concatenate([s.ravel() for _, s in pairs])
    return float(spearmanr(errors, spreads).statistic)


def _whitened(points: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the mean, and W with W^T W the inverse of the covariance.

    A little is added so that it always has one.
    """
    mean = points.mean(0)
    covariance = np.cov(points.T) + 1e-4 * np.eye(points.shape[1])
    return mean, np.linalg.inv(np.linalg.cholesky(covariance))


def _alone(
    engine: Engine, backend: str, threads: int, domain: Domain, numbers: Iterable[int]
) -> Iterator[dict[str, NDArray[np.float64]]]:
    """Yield the shares of light of each structure alone, under a rig in good order."""
    in_order = calibrated_like(domain)
    draw = sequences_of(engine.manifest.modality).draw
    runtime = open_session(
        engine, (_ALONE_PX, _ALONE_PX), ComputeConfig(backend=backend, threads=threads, tile="off")
    )
    try:
        for number in numbers:
            scene = scene_of(draw, in_order, number, _ALONE_PX)
            yield {
                name: Observer(engine, runtime).look(scene, [name]).shares for name in scene.present
            }
    finally:
        runtime.close()


def _confusion(
    alone: Sequence[Mapping[str, NDArray[np.float64]]],
    structures: Sequence[str],
    names: Sequence[str],
) -> dict[str, dict[str, float]]:
    confusion = {}
    for structure, name in zip(structures, names, strict=True):
        shares = [found[structure] for found in alone if structure in found]
        if shares:
            usual = np.median(
                shares, axis=0
            )  # where next to nothing is in the field, all of it may be anything
            confusion[name] = {
                o: round(float(s), 4) for o, s in zip(names, usual, strict=True) if o != name
            }
    return confusion


def _pcc(channel: Image, truth: Image) -> float:
    inside = _inside(channel.shape)
    return pcc(channel[inside], truth[inside]) if truth[inside].any() else np.nan


def _inside(shape: Sequence[int]) -> tuple[slice, slice]:
    """Without the rim where a reconstruction fades out."""
    return slice(_MARGIN, shape[0] - _MARGIN), slice(_MARGIN, shape[1] - _MARGIN)


def _tell(progress: Callable[[int, int], None] | None, done: int, total: int) -> None:
    if progress:
        progress(done, total)
