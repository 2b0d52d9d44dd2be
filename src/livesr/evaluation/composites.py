"""The score of an engine on composites.

Images of single structures, of any cells, added as bright as one likes.

Owns how images become fields of one size, which mixtures of them are made, and what is measured.
The truth of a real mixture is not known; that of a composite is. Every field is mixed in every
condition: all alike, each structure at half and at a quarter of its brightness, each missing, each
alone. Images are still: the same frame stands for all that an engine takes.

An image's smooth background is light from far out of focus, of which nobody can tell whose it is
once images are added. A PCC therefore stands beside two others: that with the image less its
background, and that of the image less its background with itself, which is what an engine that
gives such light to no structure can reach at most.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter, minimum_filter

from livesr.base.compute import Augmentation, ComputeConfig
from livesr.base.errors import ConfigError, EngineError
from livesr.evaluation.live_path import open_views
from livesr.evaluation.metrics import MS_SSIM_SMALLEST_PX, ms_ssim
from livesr.evaluation.pictures import PictureRow
from livesr.evaluation.summary import about
from livesr.live.inference.engine import Engine, load_engine
from livesr.live.inference.session import InferenceSession
from livesr.live.normalise import background_and_scale
from livesr.optics.similarity import linear_fit, nrmse, pcc, percentile_normalised

Image = NDArray[np.float32]
Measures = Literal["pcc", "equal", "all"]

FAINTEST = 0.25
"""Brightness of the weakest structure in any mixture, relative to the others."""

SMALLEST_PX = 64
"""Sides that every image must have."""

_PERCENTILES = (1.0, 99.8)
_ADU = np.float32(1000)  # of the bright parts: what normalisation takes for a camera's
_STEP = 8  # sides of fields are multiples of it, which every engine takes
_LARGEST = (512, 1024)
_REACH_PX = 25  # of the background that is taken away: 0.8 um, wider than any structure


class Tile(NamedTuple):
    """One structure in one field.

    What is added, and what is to be found, (y, x), bright parts about 1.
    """

    given: Image
    truth: Image


@dataclass(frozen=True)
class StructureImages:
    """Images of one structure.

    Attributes
    ----------
    clean : (y, x) each, any unit
    noisy : the same fields with noise, as many and in the same order; None where what is given is
        the truth
    """

    clean: Sequence[Image]
    noisy: Sequence[Image] | None = None


def mixtures(names: Sequence[str]) -> dict[str, Image]:
    """Return the brightness of each structure (c,), by the mixture's name."""
    count = len(names)
    found = {":".join("1" * count): np.ones(count, np.float32)}
    for word, brightness in (("at half", 0.5), ("at a quarter", FAINTEST), ("missing", 0.0)):
        for i, name in enumerate(names):
            found[f"{name} {word}"] = np.where(
                np.arange(count) == i, np.float32(brightness), np.float32(1)
            )
    for i, name in enumerate(names):
        found[f"{name} alone"] = np.eye(count, dtype=np.float32)[i]
    return found


def evaluate_composites(
    engine: str | os.PathLike[str] | Engine,
    images: Mapping[str, StructureImages],
    *,
    n: int = 24,
    measures: Measures = "all",
    backend: str = "auto",
    precision: str = "auto",
    threads: int = 0,
    ensemble: Augmentation | None = None,
    progress: Callable[[int, int], None] | None = None,
    show: Callable[[PictureRow], None] | None = None,
) -> dict[str, Any]:
    """Score an engine on composites of `images`.

    Parameters
    ----------
    images : of every structure that the engine separates, by its name (case does not matter)
    n : fields at most. There are as many as the structure with the most tiles has; the others take
        turns
    measures : "all" adds PSNR and MS-SSIM after the papers' preparation and, where the package
        `microssim` is installed, microSSIM; "equal" does so where all structures are alike; "pcc"
        takes a tenth of the time
    progress : called with (fields done, all)
    show : called with a picture of each field, all alike

    Returns
    -------
    dict
        JSON-able: engine, backend, fields, shape, mixtures {name: {structure: {pcc,
        pcc_less_background, pcc_input, pcc_without_background, psnr, ms_ssim, microssim} or, where
        the structure is not there, {invented}}}. All are means over fields; `invented` is the share
        of all predicted light that went to the absent structure.

    Raises
    ------
    EngineError
        If it is no engine for separation.
    ConfigError
        If a structure has no image, or an image has no contrast.
    """
    loaded = engine if isinstance(engine, Engine) else load_engine(engine)
    names = loaded.manifest.channel_names
    if loaded.manifest.task != "separate" or len(names) < 2:
        raise EngineError(
            f"Engine {loaded.manifest.id!r} separates no structures, and composites are for engines"
            " that do."
        )
    fields = list(fields_of(_in_order(images, names), n))
    shape = fields[0][0].truth.shape
    loaded.check_fits("separate", shape=shape)
    runtime = open_views(
        loaded,
        shape,
        ComputeConfig(
            backend=backend, precision=precision, threads=threads, tile="off", ensemble=ensemble
        ),
    )
    found: dict[str, list[list[dict[str, float]]]] = {label: [] for label in mixtures(names)}
    try:
        for done, field in enumerate(fields, start=1):
            for label, weight in mixtures(names).items():
                row = _measure(runtime, loaded, field, weight, measures, found[label])
                if show and weight.all() and len(set(weight.tolist())) == 1:
                    show(replace(row, title=f"field {done}"))
            if progress:
                progress(done, len(fields))
        result = about(loaded, runtime)
    finally:
        runtime.close()
    means = {
        label: dict(zip(names, map(_mean, zip(*rows, strict=True)), strict=True))
        for label, rows in found.items()
    }
    return {**result, "fields": len(fields), "shape": list(shape), "mixtures": means}


def fields_of(images: Sequence[StructureImages], n: int) -> Iterator[tuple[Tile, ...]]:
    """Yield at most `n` fields: one tile of each structure, all of one shape, tiles in their order.

    The shape is the largest, up to 512 x 1024, that lies in every image. Each tile is scaled to its
    1st and 99.8th percentile.

    Raises
    ------
    ConfigError
        If an image is too small.
    """
    sides = [image.shape for one in images for image in one.clean]
    shape = tuple(
        min(_LARGEST[axis], min(s[axis] for s in sides)) // _STEP * _STEP for axis in range(2)
    )
    if min(shape) < SMALLEST_PX:
        raise ConfigError(
            f"The smallest image leaves fields of {shape[0]} x {shape[1]}, and {SMALLEST_PX} x"
            f" {SMALLEST_PX} are needed."
        )
    tiles = [list(_tiles(one, (shape[0], shape[1]))) for one in images]
    for i in range(min(n, max(map(len, tiles)))):
        yield tuple(several[i % len(several)] for several in tiles)


def _tiles(images: StructureImages, shape: tuple[int, int]) -> Iterator[Tile]:
    noisy = images.noisy if images.noisy is not None else images.clean
    for clean, given in zip(images.clean, noisy, strict=True):
        slope, offset = (1.0, 0.0) if given is clean else _line(clean, given)
        for y in range(0, clean.shape[0] - shape[0] + 1, shape[0]):
            for x in range(0, clean.shape[1] - shape[1] + 1, shape[1]):
                truth = np.asarray(clean[y : y + shape[0], x : x + shape[1]], np.float32)
                like = (
                    np.asarray(given[y : y + shape[0], x : x + shape[1]], np.float32) - offset
                ) / slope
                low, high = np.percentile(truth, _PERCENTILES)
                if not high > low:
                    raise ConfigError(
                        f"A part of an image, {shape[0]} x {shape[1]} from ({y}, {x}), has no"
                        " contrast."
                    )
                scale = np.float32(high - low)
                yield Tile(
                    np.asarray((like - low) / scale, np.float32), (truth - np.float32(low)) / scale
                )


def _line(clean: Image, noisy: Image) -> tuple[float, float]:
    """Return slope and offset of the noisy image over the clean one."""
    slope, offset = np.polyfit(clean.ravel()[::7], noisy.ravel()[::7], 1)
    if slope <= 0:
        raise ConfigError("A noisy image does not show the field of its clean one.")
    return float(slope), float(offset)


def _in_order(images: Mapping[str, StructureImages], names: Sequence[str]) -> list[StructureImages]:
    known = {name.casefold(): several for name, several in images.items()}
    if missing := [
        name for name in names if not known.get(name.casefold()) or not known[name.casefold()].clean
    ]:
        raise ConfigError(
            f"There are no images of {', '.join(missing)}; the engine separates {', '.join(names)}."
        )
    return [known[name.casefold()] for name in names]


def _measure(
    runtime: InferenceSession,
    engine: Engine,
    field: Sequence[Tile],
    weight: Image,
    measures: Measures,
    found: list[list[dict[str, float]]],
) -> PictureRow:
    """Separate one mixture of one field and append what was measured, structure by structure."""
    scale = weight[:, None, None] * _ADU
    truth = np.stack([tile.truth for tile in field]) * scale
    given = np.stack([tile.given for tile in field]) * scale
    composite = np.asarray(given.sum(0), np.float32)
    predicted = _separated(runtime, composite, engine.manifest.window)
    light = np.maximum(predicted, 0).sum((1, 2), dtype=np.float64)
    row = []
    for i, brightness in enumerate(weight):
        if brightness:
            more = measures == "all" or (measures == "equal" and len(set(weight.tolist())) == 1)
            row.append(
                _scores(predicted[i], truth[i], composite)
                | (_more_scores(predicted[i], truth[i]) if more else {})
            )
        else:
            row.append({"invented": float(light[i] / max(light.sum(), 1e-9))})
    found.append(row)
    colors = tuple(channel.color for channel in engine.manifest.channels)
    return PictureRow("", composite, predicted, truth, engine.manifest.channel_names, colors)


def _separated(backend: InferenceSession, composite: Image, window: int) -> Image:
    """Return the channels (c, y, x) of the still composite, in its units."""
    background, scale = background_and_scale(composite)
    backend.input[:] = np.repeat(((composite - background) / scale)[None], window, 0)
    return np.asarray(backend.infer() * scale, np.float32)


def _scores(predicted: Image, truth: Image, composite: Image) -> dict[str, float]:
    sharp = less_background(truth)
    return {
        "pcc": pcc(predicted, truth),
        "pcc_less_background": pcc(predicted, sharp),
        "pcc_input": pcc(composite, truth),
        "pcc_without_background": pcc(sharp, truth),
    }


def _more_scores(predicted: Image, truth: Image) -> dict[str, float]:
    """Return PSNR, MS-SSIM (of images that are large enough) and microSSIM (where it is
    installed).
    """
    reference = percentile_normalised(truth)
    if reference is None:
        return {}
    fitted = linear_fit(predicted, reference)
    found = {"psnr": -20 * math.log10(max(nrmse(fitted, reference), 1e-9))}
    if min(truth.shape) >= MS_SSIM_SMALLEST_PX:
        found["ms_ssim"] = ms_ssim(fitted, reference)
    if (value := microssim(predicted, truth)) is not None:
        found["microssim"] = value
    return found


def less_background(image: Image) -> Image:
    """Subtract the smoothed lower envelope within `_REACH_PX` of (y, x).

    What falls below 0 is cut off.
    """
    lower = minimum_filter(gaussian_filter(image, 2), _REACH_PX)
    return np.maximum(image - gaussian_filter(lower, _REACH_PX / 1.5), 0)


def microssim(predicted: Image, truth: Image) -> float | None:
    """Return microSSIM (Ashesh et al. 2024), or None where its package is not installed."""
    try:
        from microssim import MicroSSIM
    except ImportError:
        return None
    fitted = linear_fit(predicted, truth)
    measure = MicroSSIM()
    measure.fit(truth, fitted)
    return float(measure.score(truth, fitted))


def _mean(rows: Sequence[dict[str, float]]) -> dict[str, float]:
    return {key: float(np.mean([row[key] for row in rows])) for key in rows[0]}


def composites_table(result: Mapping[str, Any]) -> str:
    """Return the Markdown of what `evaluate_composites` returned.

    One line a mixture and structure.
    """
    extra = [
        k
        for k in ("psnr", "ms_ssim", "microssim")
        if k in next(iter(next(iter(result["mixtures"].values())).values()))
    ]
    heads = {"psnr": "PSNR, dB", "ms_ssim": "MS-SSIM", "microssim": "microSSIM"}
    columns = [
        "mixture",
        "structure",
        "PCC",
        "less background",
        "input",
        "best without haze",
        *(heads[k] for k in extra),
    ]
    lines = [f"| {' | '.join(columns)} |", "|---" * len(columns) + "|"]
    kinds = ("pcc", "pcc_less_background", "pcc_input", "pcc_without_background", *extra)
    for label, by_name in result["mixtures"].items():
        for name, found in by_name.items():
            if "invented" in found:
                cells = [f"{found['invented']:.1%} of the light invented", *[""] * (len(kinds) - 1)]
            else:
                cells = [f"{found[kind]:.3f}" if kind in found else "" for kind in kinds]
            lines.append(f"| {label} | {name} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def summary(result: Mapping[str, Any]) -> dict[str, float]:
    """Return what to decide by.

    Returns
    -------
    dict
        Mean PCC of all mixtures and structures (`mean`), of four kinds of mixture (`equal`, `half`
        and `quarter` of the weak structure, `alone`), the worst PCC and the largest share of light
        that went to a missing structure (`invented`).
    """
    rows = [
        (label, name, f)
        for label, by_name in result["mixtures"].items()
        for name, f in by_name.items()
    ]
    pccs = {(label, name): f["pcc"] for label, name, f in rows if "pcc" in f}
    kinds = {
        "equal": [v for (label, _), v in pccs.items() if ":" in label],
        "half": [v for (label, name), v in pccs.items() if label == f"{name} at half"],
        "quarter": [v for (label, name), v in pccs.items() if label == f"{name} at a quarter"],
        "alone": [v for (label, name), v in pccs.items() if label == f"{name} alone"],
    }
    found = {kind: float(np.mean(values)) for kind, values in kinds.items()}
    invented = [
        f["invented"] for label, _, f in rows if "invented" in f and label.endswith("missing")
    ]
    return {
        "mean": float(np.mean(list(pccs.values()))),
        **found,
        "invented": max(invented),
        "worst": min(pccs.values()),
    }
