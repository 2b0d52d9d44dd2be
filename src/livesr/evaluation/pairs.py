"""The score of an engine on pairs.

Normalised frames and what they should become, from a folder or a user's own images.

Owns how pairs go through a backend and what they are compared with. The live path has no part in
it: pairs are reconstructed and normalised already. Engines that upscale are compared with the cubic
spline of their input.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import zoom

from livesr.base.compute import Augmentation, ComputeConfig
from livesr.base.errors import EngineError
from livesr.evaluation.live_path import open_views
from livesr.evaluation.metrics import (
    Score,
    bootstrap_interval,
    false_positive_energy,
    mean_gradient,
    score,
)
from livesr.evaluation.pictures import PictureRow
from livesr.evaluation.resolution import decorrelation_resolution
from livesr.evaluation.summary import about, compared, finite, finite_score, interval_text, leaked
from livesr.live.inference.engine import Manifest, load_engine
from livesr.live.inference.session import InferenceSession

Image = NDArray[np.float32]
Pair = tuple[Image, Image]

_RESOLVED = 4  # pairs whose decorrelation is analysed: half a second a picture
_ROUNDING = 2e-3  # of pairs kept in 16 bits


class _Nulls(NamedTuple):
    """Of one pair: the share of each structure's light, alone, that is predicted as each other.

    And a blank frame's.
    """

    leakage: dict[str, dict[str, float]]
    blank: float


def evaluate_pairs(
    engine: str | os.PathLike[str],
    pairs: Iterable[Pair],
    names: Sequence[str],
    data: str,
    *,
    backend: str = "auto",
    precision: str = "auto",
    threads: int = 0,
    ensemble: Augmentation | None = None,
    progress: Callable[[int], None] | None = None,
    show: Callable[[PictureRow], None] | None = None,
) -> dict[str, Any]:
    """Score an engine on pairs of one size.

    Parameters
    ----------
    engine : a folder or a name, as in `load_engine`
    pairs : frames (f, y, x) and targets (c, s y, s x), normalised; one frame is given three times
        to an engine that takes three. Raw frames are compared by their mean
    names : of the targets; they are matched with the engine's channels by name, or by order if no
        name fits
    data : what the pairs are, in words
    progress : called with the number of pairs done
    show : called with a picture of each

    Returns
    -------
    dict
        JSON-able, like that of `evaluate_engine` where it has the same keys, intervals over pairs
        as if each were of a cell of its own; blank is what a frame holds besides its structures.
        `decorrelation_px`, of input, truth and each prediction, is that of the first pairs. For
        engines that upscale `mean_gradient`, in thousandths (`mosaic` is the input at full size,
        every pixel a square, as Hu et al. show it), and `frc_px`, down to which distance in fine
        pixels the truth is met.

    Raises
    ------
    EngineError
        If channels or sizes do not fit.
    """
    loaded = load_engine(engine)
    manifest, runtime = loaded.manifest, None
    order = targets_in_order(manifest, tuple(names))
    sequences: list[dict[str, dict[str, Score]]] = []
    false: list[list[float]] = []
    gradients: list[dict[str, float]] = []
    resolutions: list[dict[str, dict[str, float]]] = []
    nulls: list[_Nulls] = []
    try:
        for done, (frames, targets) in enumerate(pairs, start=1):
            if runtime is None:
                shape = (int(frames.shape[1]), int(frames.shape[2]))
                loaded.check_fits(manifest.task, shape=shape)
                runtime = open_views(
                    loaded,
                    shape,
                    ComputeConfig(
                        backend=backend,
                        precision=precision,
                        threads=threads,
                        tile="off",
                        ensemble=ensemble,
                    ),
                )
            truth = targets[order]
            predicted = _predict(runtime, frames, manifest.inputs)
            shown = frames.mean(0, keepdims=True) if manifest.raw_frames else frames
            given = _enlarged(shown, manifest.scale)
            if predicted.shape != truth.shape:
                raise EngineError(
                    f"Engine {manifest.id!r} gives {predicted.shape}, and the targets are"
                    f" {truth.shape}."
                )
            sequences.append(_scores(manifest.channel_names, predicted, given, truth))
            light = max(float(np.maximum(predicted, 0).sum()), 1e-9)
            false.append(
                [false_positive_energy(p, t) / light for p, t in zip(predicted, truth, strict=True)]
            )
            gradients.append(_gradients(shown, given, predicted, truth))
            if done <= _RESOLVED:
                resolutions.append(_resolutions(manifest.channel_names, predicted, given, truth))
            if manifest.task == "separate":
                nulls.append(_null_tests(runtime, frames, truth, manifest))
            if show:
                colors = tuple(channel.color for channel in manifest.channels)
                show(
                    PictureRow(
                        f"pair {done}",
                        given,
                        predicted.copy(),
                        truth,
                        manifest.channel_names,
                        colors,
                    )
                )
            if progress:
                progress(done)
        if runtime is None:
            raise EngineError("There is no pair to evaluate on.")
        result = {**about(loaded, runtime), "data": f"{len(sequences)} pairs: {data}"}
    finally:
        if runtime:
            runtime.close()
    result |= _summary(manifest, sequences, false)
    result["decorrelation_px"] = {
        name: {
            who: bootstrap_interval([found[name][who] for found in resolutions]).to_json()
            for who in whose
        }
        for name, whose in resolutions[0].items()
    }
    if nulls:
        labels = {name: name for name in manifest.channel_names}
        result["leakage"] = {
            name: leaked([test.leakage for test in nulls], name, labels) for name in labels
        }
        result["blank"] = bootstrap_interval([test.blank for test in nulls]).to_json()
    if manifest.scale > 1:
        (entry,) = result["structures"].values()
        result["mean_gradient"] = {
            who: bootstrap_interval([found[who] for found in gradients]).to_json()
            for who in gradients[0]
        }
        result["frc_px"] = {who: entry[who]["frc_px"] for who in ("input", "network")}
    return result


def pairs_table(result: Mapping[str, Any]) -> str:
    """Return the Markdown for the engine's card of what `evaluate_pairs` returned."""
    given = "its cubic spline" if "mean_gradient" in result else "the frame that went in"
    lines = [
        (
            f"{result['data']}, on {result['backend']['name']} {result['backend']['precision']}."
            f" Means over pairs; *input* is {given}."
        ),
        "",
        "| | | PCC | SSIM | NRMSE | PSNR, dB |",
        "|---|---|---|---|---|---|",
    ]
    for name, entry in result["structures"].items():
        for who in ("network", "input"):
            means = [entry[who][metric]["mean"] for metric in ("pcc", "ssim", "nrmse", "psnr")]
            cells = " | ".join("none" if mean is None else f"{mean:.3f}" for mean in means)
            lines.append(f"| {name if who == 'network' else ''} | {who} | {cells} |")
    return "\n".join(lines) + "\n"


def upscale_table(
    found: Mapping[str, Mapping[str, Any]], given: str = "down-sampled", network: str = "EDSR"
) -> str:
    """Return the Markdown of engines that upscale beside the cubic spline, as in Hu et al.'s table
    and with what it lacks.

    `found` is what `evaluate_pairs` returned, by the words of the first column; `given` is what the
    network enlarges, `network` what it is called. Means with 95 % intervals over pairs.
    """
    head = (
        "| | | mean gradient, thousandths | PSNR, dB | SSIM | PCC | FRC with the truth, fine"
        " pixels |"
    )
    lines = [head, "|---" * 7 + "|"]
    for label, result in found.items():
        (entry,) = result["structures"].values()
        gradient, frc = result["mean_gradient"], result["frc_px"]
        lines.append(f"| {label} | {given} | {interval_text(gradient['input'], 1)} | | | | |")
        lines.append(f"| | its mosaic | {interval_text(gradient['mosaic'], 1)} | | | | |")
        for who, key, drawn in (
            ("cubic spline", "input", "spline"),
            (network, "network", "network"),
        ):
            scores = [
                interval_text(entry[key][m], digits)
                for m, digits in (("psnr", 1), ("ssim", 3), ("pcc", 3))
            ]
            lines.append(
                f"| | {who} | {interval_text(gradient[drawn], 1)} | {' | '.join(scores)} |"
                f" {interval_text(frc[key], 2)} |"
            )
        lines.append(f"| | original | {interval_text(gradient['truth'], 1)} | | | | |")
    return "\n".join(lines) + "\n"


def targets_in_order(manifest: Manifest, names: tuple[str, ...]) -> list[int]:
    """Return the index of each channel's target; raises EngineError if names do not fit."""
    wanted = [name.casefold() for name in manifest.channel_names]
    known = {name.casefold(): i for i, name in enumerate(names)}
    if set(wanted) <= known.keys():
        return [known[name] for name in wanted]
    if len(names) == len(wanted) and not set(wanted) & known.keys():
        return list(range(len(names)))
    raise EngineError(
        f"Engine {manifest.id!r} gives {', '.join(manifest.channel_names)}, and the pairs show"
        f" {', '.join(names)}. Name the structures alike."
    )


def _predict(backend: InferenceSession, frames: Image, window: int) -> Image:
    middle = len(frames) // 2
    first = middle - window // 2
    # Where there are fewer frames than the engine takes, the middle one stands in for all.
    chosen = (
        frames[first : first + window]
        if first >= 0
        else np.repeat(frames[middle : middle + 1], window, 0)
    )
    backend.input[:] = chosen
    return backend.infer().copy()


def _enlarged(frames: Image, scale: int) -> Image:
    """Return the middle frame at the size of the targets, by cubic spline, with pixel areas kept in
    place.
    """
    middle: Image = frames[len(frames) // 2]
    if scale == 1:
        return middle
    return np.asarray(zoom(middle, scale, order=3, mode="reflect", grid_mode=True), np.float32)


def _scores(
    names: Sequence[str], predicted: Image, given: Image, truth: Image
) -> dict[str, dict[str, Score]]:
    return {
        "network": {name: score(p, t) for name, p, t in zip(names, predicted, truth, strict=True)},
        "input": {name: score(given, t) for name, t in zip(names, truth, strict=True)},
    }


def _resolutions(
    names: Sequence[str], predicted: Image, given: Image, truth: Image
) -> dict[str, dict[str, float]]:
    """Decorrelation resolution in pixels of the truth, by structure and by whose picture it is.

    NaN for an even one.
    """
    return {
        name: {
            who: decorrelation_resolution(image, 1.0) if np.ptp(image) > 0 else math.nan
            for who, image in (("network", p), ("input", given), ("truth", t))
        }
        for name, p, t in zip(names, predicted, truth, strict=True)
    }


def _null_tests(
    backend: InferenceSession, frames: Image, truth: Image, manifest: Manifest
) -> _Nulls:
    """Give the engine each structure alone, without noise, and then what the frame holds besides
    all of them.
    """

    def light(image: Image) -> NDArray[np.float64]:
        predicted = _predict(backend, image[None], manifest.inputs)
        return np.asarray(np.maximum(predicted, 0).sum((1, 2), dtype=np.float64))

    names, leakage = manifest.channel_names, {}
    for name, alone in zip(names, truth, strict=True):
        if alone.any() and len(names) > 1:
            found = light(alone)
            leakage[name] = {
                o: float(v / max(found.sum(), 1e-9))
                for o, v in zip(names, found, strict=True)
                if o != name
            }
    besides = frames[len(frames) // 2] - truth.sum(0)
    amount = float(np.abs(besides).sum())
    # A sum of clean images holds nothing else; what is left there is rounding.
    least = _ROUNDING * float(np.abs(frames[len(frames) // 2]).sum())
    return _Nulls(leakage, float(light(besides).sum()) / amount if amount > least else math.nan)


def _gradients(frames: Image, given: Image, predicted: Image, truth: Image) -> dict[str, float]:
    """Mean gradients in thousandths of the normalised range, by the columns of Hu et al.'s
    table.
    """
    middle = frames[len(frames) // 2]
    fine = truth.shape[-1] // middle.shape[-1]
    images = {
        "input": middle,
        "mosaic": middle.repeat(fine, 0).repeat(fine, 1),
        "spline": given,
        "network": predicted[0],
        "truth": truth[0],
    }
    return {who: 1000 * mean_gradient(image) for who, image in images.items()}


def _summary(
    manifest: Manifest, sequences: list[dict[str, dict[str, Score]]], false: list[list[float]]
) -> dict[str, Any]:
    names = manifest.channel_names
    structures = {
        name: compared(
            [s["network"][name] for s in sequences], [s["input"][name] for s in sequences]
        )
        for name in names
    }
    mean = {
        who: bootstrap_interval([_mean_pcc(s[who]) for s in sequences]).to_json()
        for who in ("network", "input")
    }
    return {
        "structures": structures,
        "mean_pcc": mean,
        "false_positive": {
            name: bootstrap_interval([values[i] for values in false]).to_json()
            for i, name in enumerate(names)
        },
        "sequences": [
            {
                who: {name: finite_score(value) for name, value in by.items()}
                for who, by in s.items()
            }
            | {"false_positive": dict(zip(names, map(finite, light), strict=True))}
            for s, light in zip(sequences, false, strict=True)
        ],
    }


def _mean_pcc(scores: dict[str, Score]) -> float:
    values = [s.pcc for s in scores.values() if not math.isnan(s.pcc)]
    return sum(values) / len(values) if values else math.nan
