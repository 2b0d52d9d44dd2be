"""How often the warnings are right and what the uncertainty is worth.

The tables and pictures of docs/reliability.md.

    livesr limits imcsr-mt-er-lyso-light
    python scripts/warnings_roc.py imcsr-mt-er-lyso-light ../shared/data

Simulated sequences are none that training or `livesr limits` saw; what is real is tried where the
folder of microscope data is given. The text between the markers of docs/reliability.md is replaced.
"""

from __future__ import annotations

import argparse
import re
import zlib
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from matplotlib.figure import Figure
from numpy.typing import NDArray

from livesr.base.compute import ComputeConfig
from livesr.base.frames import Normalisation, SRFrame, Stream, Window
from livesr.base.timing import now_ns
from livesr.evaluation.limits import (
    N_T,
    SIZE,
    Observer,
    Seen,
    distance,
    domain_of,
    is_in_order,
    is_lost,
    rank_correlation,
    seen,
)
from livesr.live.arrays import HOST
from livesr.live.compose import Composer
from livesr.live.inference.engine import Engine, Manifest, load_engine
from livesr.live.inference.resampling import own_pixel_nm
from livesr.live.inference.runner import open_session
from livesr.live.normalise import background_and_scale
from livesr.modalities.sim.simulation.sequence import SIMSequence
from livesr.simulation.domain import Domain, calibrated_like
from livesr.simulation.sequence import EVALUATION

Image = NDArray[np.float32]
DOCS = Path(__file__).parents[1] / "docs"
_SEEDS_FROM = 20_000
_REAL = {"Microtubules": "microtubules_1004", "ER": "er_224x1024", "Lysosomes": "lysosomes_1024"}
_REAL_PX = 224
_BINS = 20
_EVERY = 4  # pixel along y and x, for statistics of pixels


@dataclass(frozen=True)
class Case:
    """Scenes of one kind; `usual` ones should not warn of their input."""

    name: str
    domain: Domain
    usual: bool = False
    blank: bool = False
    maps: bool = False


def cases(domain: Domain) -> list[Case]:
    """Return what the warnings are tried on.

    Rigs and cells as in training, and what training had nothing of.
    """
    first, second, third = domain.structures
    calibrated = calibrated_like(domain)

    def but(base: Domain = domain, **changes: Any) -> Domain:
        return base.model_copy(update=changes)

    all_cases = [
        Case("a rig in good order", calibrated, usual=True, maps=True),
        Case("the whole range of training", domain, usual=True, maps=True),
        Case("structures up to 1:40", but(brightness_ratio=40.0, absent=0.0)),
        Case("2 to 6 photo-electrons", but(photons=(2.0, 6.0))),
        Case("blank", domain, blank=True),
        Case("haze 4 to 8 times", but(haze=(4.0, 8.0))),
        Case("pixels of 40 nm", but(pixel_size_um=0.08)),
        Case("pixels of 22 nm", but(pixel_size_um=0.045)),
        Case("NA 1.2, 640 nm", but(na=(1.15, 1.25), emission_um=(0.6, 0.68))),
        Case(
            "phases off by up to 60 degrees", but(phase_offset_error_deg=60.0, modulation_error=0.5)
        ),
        Case(
            "a fourth structure (mitochondria)",
            but(calibrated, structures=(*domain.structures, "mitochondria")),
        ),
        Case(f"actin for {first}", but(calibrated, structures=("actin", second, third))),
        Case(
            f"mitochondria for {second}", but(calibrated, structures=(first, "mitochondria", third))
        ),
        Case(f"coated pits for {third}", but(calibrated, structures=(first, second, "ccps"))),
    ]
    return [
        case
        for case in all_cases
        if len(set(case.domain.structures)) == len(case.domain.structures)
    ]


@cache
def _engine(folder: str) -> tuple[Engine, Any]:
    engine = load_engine(folder)
    return engine, open_session(engine, (SIZE, SIZE), ComputeConfig(threads=1, tile="off"))


def observe(folder: str, case: Case, number: int) -> Seen:
    """Look at one scene of a case."""
    entropy = (EVALUATION, _SEEDS_FROM + number, zlib.crc32(case.name.encode()))
    sequence = SIMSequence(entropy, N_T, SIZE, case.domain)
    known = _engine(folder)[0].manifest.limits.uncertainty
    augmentation = (known.augmentation if known else "flips") if case.maps else None
    names = domain_of(_engine(folder)[0].manifest).structures
    return Observer(*_engine(folder)).look(
        sequence,
        [] if case.blank else None,
        channels=names if case.domain.structures == names else sequence.structures[: len(names)],
        uncertainty=augmentation,  # type: ignore[arg-type]
    )


# -- real images -----------------------------------------------------------------------------------


def real(engine: Engine, data: Path) -> dict[str, list[Seen]]:
    """Look at composites of real SIM images of one structure each, and at some alone.

    The same still frame three times.
    """
    if set(engine.manifest.channel_names) != set(_REAL):
        return {}
    one = {name: _scaled(data / f"organelles/{file}.tif") for name, file in _REAL.items()}
    noisy = {**one, "Microtubules": _scaled(data / "organelles/microtubules_noisy_1004.tif")}
    other = {
        name: _scaled(data / f"organelles/{name}.tif") for name in ("actin_512x1024", "ccps_1004")
    }
    mixtures: dict[str, Mapping[str, Image]] = {
        "microtubules, ER and lysosomes 1:1:1": one,
        "... with microtubules before denoising": noisy,
        **{f"... with {name} at half": {**one, name: one[name] * np.float32(0.5)} for name in one},
        **{
            f"... with {name} at a tenth": {**one, name: one[name] * np.float32(0.1)}
            for name in one
        },
        "microtubules alone": {"Microtubules": one["Microtubules"]},
        "actin alone": {"": other["actin_512x1024"]},
        "coated pits alone": {"": other["ccps_1004"]},
    }
    compute = ComputeConfig(threads=1, tile="off")
    with open_session(engine, (_REAL_PX, _REAL_PX), compute) as session:
        return {
            name: [
                _separated(engine, session, mixture, left)
                for left in range(0, 1004 - _REAL_PX, _REAL_PX)
            ]
            for name, mixture in mixtures.items()
        }


def _scaled(path: Path) -> Image:
    image = tifffile.imread(path).astype(np.float32)
    low, high = np.percentile(image, (1, 99.8))
    return np.asarray((image - low) * (1000 / (high - low)), np.float32)


def _separated(engine: Engine, session: Any, mixture: Mapping[str, Image], left: int) -> Seen:
    cut = (slice(0, _REAL_PX), slice(left, left + _REAL_PX))
    parts = {name: image[cut] for name, image in mixture.items()}
    image = np.asarray(sum(parts.values()), np.float32)
    frame = SRFrame(
        image, Stream(), 0, now_ns(), now_ns(), Normalisation(*background_and_scale(image))
    )
    background, scale = frame.normalisation
    session.input[...] = (image - np.float32(background)) / np.float32(scale)
    names = engine.manifest.channel_names
    composer = Composer(engine.manifest, engine.output_shape(image.shape)[1:])
    output = session.infer()
    pixels = composer.arithmetic(HOST).compose(
        output, image, frame.normalisation, features=session.features
    )
    made = composer.frame(pixels, Window(frame, frame, frame))
    truth = np.stack([np.maximum(parts.get(name, np.zeros_like(image)), 0) for name in names])
    return seen(made, truth)


# -- what the warnings are worth -------------------------------------------------------------------


@dataclass(frozen=True)
class Curve:
    """A receiver operating characteristic, and where the engine's limit lies on it."""

    name: str
    false: NDArray[np.float64]
    true: NDArray[np.float64]
    area: float
    at_limit: tuple[float, float]


def curve(name: str, should: Iterable[float], should_not: Iterable[float], limit: float) -> Curve:
    """Compare numbers of frames that should warn with those of frames that should not.

    Large ones warn.
    """
    positive, negative = np.array(list(should)), np.array(list(should_not))
    levels = np.concatenate([[np.inf], np.sort(np.unique([*positive, *negative]))[::-1]])
    true = np.array([np.mean(positive >= level) for level in levels])
    false = np.array([np.mean(negative >= level) for level in levels])
    area = float(np.trapezoid(true, false))
    return Curve(
        name,
        false,
        true,
        area,
        (float(np.mean(negative > limit)), float(np.mean(positive > limit))),
    )


def beyond(residual: float, manifest: Manifest) -> float:
    """How far a residual is in the validated range; above 1 it is beyond."""
    limits = manifest.metrics.residual
    assert limits is not None
    return residual / limits.max


def fired(frames: Sequence[Seen], word: str) -> float:
    """Share of frames with a warning that says `word`; of all with a warning if it is empty."""
    return float(np.mean([any(word in sentence for sentence in f.warnings) for f in frames]))


def warning_curves(
    found: Mapping[str, list[Seen]], all_cases: Sequence[Case], manifest: Manifest
) -> list[Curve]:
    """Return the curves that are drawn."""
    training_distribution = manifest.limits.training_distribution
    assert training_distribution is not None
    usual = [f for case in all_cases if case.usual for f in found[case.name]]
    curves = []
    for name in (
        "2 to 6 photo-electrons",
        "blank",
        "haze 4 to 8 times",
        "a fourth structure (mitochondria)",
    ):
        score = [distance(training_distribution, f.features) for f in found[name]]
        curves.append(
            curve(
                f"input: {name}",
                score,
                [distance(training_distribution, f.features) for f in usual],
                1.0,
            )
        )
    simulated = [*usual, *found["structures up to 1:40"]]
    poor = np.array([np.nanmean(f.pcc) < 0.7 for f in simulated])
    outside = np.array([beyond(f.residual, manifest) for f in simulated])
    curves.append(curve("residual: mean PCC below 0.7", outside[poor], outside[~poor], 1.0))
    for c, name in enumerate(manifest.channel_names):
        shares = -np.array([f.shares[c] for f in simulated])
        lost, in_order = is_lost(simulated, c), is_in_order(simulated, c)
        curves.append(
            curve(
                f"weak: {name}",
                shares[lost],
                shares[in_order],
                -manifest.limits.weak.get(name, 0.04) - 1e-12,
            )
        )
    return curves


def draw_curves(curves: Sequence[Curve], path: Path) -> None:
    """Draw the curves; a dot is where the engine's limit lies."""
    figure = Figure(figsize=(10, 4.4), layout="constrained")
    groups = [
        [c for c in curves if not c.name.startswith("weak")],
        [c for c in curves if c.name.startswith("weak")],
    ]
    for axes, group, title in zip(
        figure.subplots(1, 2), groups, ("Input and residual", "Weak structures"), strict=True
    ):
        for one in group:
            (line,) = axes.plot(one.false, one.true, label=f"{one.name} ({one.area:.2f})")
            axes.plot(*one.at_limit, "o", color=line.get_color())
        axes.plot((0, 1), (0, 1), ":", color="grey")
        axes.set(
            xlabel="warns when it should not",
            ylabel="warns when it should",
            title=title,
            xlim=(0, 1),
            ylim=(0, 1.01),
        )
        axes.legend(fontsize=8, loc="lower right")
    figure.savefig(path, dpi=80)


def case_table(
    found: Mapping[str, list[Seen]], manifest: Manifest, usual: Sequence[Seen]
) -> list[str]:
    """Markdown: how often each warning comes, by what is in front of the camera."""
    training_distribution = manifest.limits.training_distribution
    assert training_distribution is not None
    common = [distance(training_distribution, f.features) for f in usual]
    lines = [
        (
            "| in front of the camera | frames | mean PCC | input unlike (area) | residual | any"
            " structure weak | any of these |"
        ),
        "|---|---|---|---|---|---|---|",
    ]
    for name, frames in found.items():
        scores = [f.pcc for f in frames]
        mean = float(np.nanmean(scores)) if np.isfinite(scores).any() else np.nan
        area = curve(
            name, [distance(training_distribution, f.features) for f in frames], common, 1.0
        ).area
        said = [fired(frames, word) for word in ("unlike", "residual", "too weak", "")]
        shares = [f"{share:.0%}" for share in said]
        shares[0] += f" ({area:.2f})"
        lines.append(
            f"| {name} | {len(frames)} | {'' if np.isnan(mean) else f'{mean:.2f}'} |"
            f" {' | '.join(shares)} |"
        )
    return lines


def weak_table(curves: Sequence[Curve], manifest: Manifest) -> list[str]:
    """Markdown: what the warning of weak structures misses and what it says too often."""
    lines = [
        "| structure | weak below | lost ones that are said | others that are said | area |",
        "|---|---|---|---|---|",
    ]
    for one in curves:
        if one.name.startswith("weak: "):
            name = one.name.removeprefix("weak: ")
            lines.append(
                f"| {name} | {manifest.limits.weak.get(name, 0.04):.1%} of the light |"
                f" {one.at_limit[1]:.0%} | {one.at_limit[0]:.0%} | {one.area:.2f} |"
            )
    return lines


def confusion_table(manifest: Manifest) -> list[str]:
    """Markdown: how much of a structure's light, alone in the field, is shown as each other one."""
    names = manifest.channel_names
    lines = [
        f"| alone | {' | '.join(f'as {name}' for name in names)} |",
        "|---" * (len(names) + 1) + "|",
    ]
    for name, others in manifest.limits.confusion.items():
        cells = ["" if other == name else f"{others.get(other, 0):.1%}" for other in names]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return lines


# -- what the uncertainty is worth -----------------------------------------------------------------


def reliability(
    frames: Sequence[Seen], scale: float
) -> tuple[list[list[tuple[float, float]]], list[float]]:
    """Bin pixels of each channel by their uncertainty.

    (mean uncertainty, RMS error) of equally many, and rank correlation.
    """
    maps = [
        (f.errors[:, ::_EVERY, ::_EVERY], f.spread[:, ::_EVERY, ::_EVERY] * np.float32(scale))
        for f in frames
        if f.errors is not None and f.spread is not None
    ]
    points, ranks = [], []
    for c in range(len(maps[0][0])):
        error = np.concatenate([e[c].ravel() for e, _ in maps])
        told = np.concatenate([s[c].ravel() for _, s in maps])
        parts = np.array_split(np.argsort(told), _BINS)
        points.append(
            [
                (float(np.sqrt((told[p] ** 2).mean())), float(np.sqrt((error[p] ** 2).mean())))
                for p in parts
            ]
        )
        ranks.append(rank_correlation([(np.abs(error), told)]))
    return points, ranks


def draw_reliability(
    sets: Mapping[str, Sequence[Seen]], manifest: Manifest, path: Path
) -> dict[str, list[float]]:
    """Draw RMS error against uncertainty; return the rank correlations by set."""
    known = manifest.limits.uncertainty
    assert known is not None
    figure = Figure(figsize=(10, 4.4), layout="constrained")
    ranks: dict[str, list[float]] = {}
    for axes, (title, frames) in zip(figure.subplots(1, len(sets)), sets.items(), strict=True):
        points, ranks[title] = reliability(frames, known.scale)
        for line, name in zip(points, manifest.channel_names, strict=True):
            axes.plot(*zip(*line, strict=True), "o-", markersize=3, label=name)
        most = max(max(p) for line in points for p in line)
        axes.plot((0, most), (0, most), ":", color="grey", label="as promised")
        axes.set(
            xlabel="uncertainty (share of full scale)", ylabel="root mean square error", title=title
        )
        axes.legend(fontsize=8)
    figure.savefig(path, dpi=80)
    return ranks


# -- the page --------------------------------------------------------------------------------------


def optics_table(engine: Engine) -> list[str]:
    """Markdown: what the manifest says of some rigs."""
    rigs = {
        "32.5 nm, NA 1.49, 525 nm": (32.5, 525 / 2.98, "sim"),
        "32.5 nm, NA 1.4, 560 nm": (32.5, 560 / 2.8, "sim"),
        "40 nm, NA 1.49, 525 nm": (40.0, 525 / 2.98, "sim"),
        "32.5 nm, NA 1.2, 640 nm": (32.5, 640 / 2.4, "sim"),
        "65 nm, NA 1.49, 525 nm, widefield": (65.0, 525 / 2.98, "passthrough"),
    }
    lines = ["| frames | warnings |", "|---|---|"]
    for name, (pixel, resolution, modality) in rigs.items():
        own = own_pixel_nm(engine, pixel)
        told = engine.check_fits(
            "separate", pixel_size_nm=own or pixel, resolution_nm=resolution, modality=modality
        )
        if own:
            told.append(f"(brought to {own:.4g} nm)")
        lines.append(f"| {name} | {' '.join(told) or 'none'} |")
    return lines


def page(
    engine: Engine,
    found: Mapping[str, list[Seen]],
    real_found: Mapping[str, list[Seen]],
    images: Path,
) -> str:
    """Draw the pictures and return the text."""
    manifest = engine.manifest
    known = manifest.limits.uncertainty
    assert known is not None
    all_cases = cases(domain_of(manifest))
    usual = [f for case in all_cases if case.usual for f in found[case.name]]
    curves = warning_curves(found, all_cases, manifest)
    draw_curves(curves, images / "warnings-roc.png")
    sets = {case.name: found[case.name] for case in all_cases if case.maps}
    ranks = draw_reliability(sets, manifest, images / "uncertainty-reliability.png")
    rank_lines = [
        f"| {title} | {' | '.join(f'{r:.2f}' for r in values)} |" for title, values in ranks.items()
    ]
    simulated = f"{sum(map(len, found.values()))} simulated sequences that nothing was fitted to"
    lines = [
        (
            f"Engine {manifest.id} {manifest.version}; {simulated}, the middle frame of three,"
            f" {SIZE} x {SIZE}."
        ),
        f"Written by `python scripts/warnings_roc.py {engine.folder.name} ../shared/data`.",
        "",
        "### By what is in front of the camera",
        "",
        *case_table(found, manifest, usual),
        "",
        (
            "In brackets the area under the curve against the first two rows: 0.5 tells nothing"
            " apart, 1 everything."
        ),
        "",
        *(
            [
                (
                    "Real SIM images of one structure each, scaled to equal percentiles and added"
                    " (not part of this repository):"
                ),
                "",
                *case_table(real_found, manifest, usual),
                "",
            ]
            if real_found
            else []
        ),
        (
            "![Receiver operating characteristics; dots are the engine's"
            " limits](images/warnings-roc.png)"
        ),
        "",
        "### Weak structures",
        "",
        (
            "Lost is a structure with less than 15 % of the light and a PCC with the truth below"
            " 0.5; others have one from 0.5 on."
        ),
        "",
        *weak_table(curves, manifest),
        "",
        "### Structures that are confused",
        "",
        "Measured once for an engine: 20 % or more warn in every frame of every run.",
        "",
        *confusion_table(manifest),
        "",
        "### Optics",
        "",
        *optics_table(engine),
        "",
        "## Uncertainty: what it is worth",
        "",
        (
            f"Standard deviation over {known.augmentation}, times {known.scale:.2f}, against the"
            " true error; a point is as many pixels. Rank correlation with the error of single"
            " pixels:"
        ),
        "",
        f"| | {' | '.join(manifest.channel_names)} |",
        "|---" * (len(manifest.channels) + 1) + "|",
        *rank_lines,
        "",
        "![Root mean square error against uncertainty](images/uncertainty-reliability.png)",
        "",
    ]
    return "\n".join(lines)


def insert(text: str, path: Path) -> None:
    """Put `text` between the markers of a page."""
    begin, end = "<!-- warnings_roc.py begins -->", "<!-- warnings_roc.py ends -->"
    old = path.read_text(encoding="utf-8")
    new = re.sub(f"{begin}.*{end}", lambda _: f"{begin}\n\n{text}\n{end}", old, flags=re.DOTALL)
    path.write_text(new, encoding="utf-8", newline="\n")


def main() -> None:
    """Measure, draw and write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("engine", help="engine with measured limits: a name or a folder")
    parser.add_argument("data", nargs="?", type=Path, help="folder with real microscope data")
    parser.add_argument(
        "-n", type=int, default=48, help="sequences of each case; twice as many of usual ones"
    )
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--docs", type=Path, default=DOCS)
    args = parser.parse_args()
    engine = load_engine(args.engine)
    if (
        engine.manifest.limits.training_distribution is None
        or engine.manifest.metrics.residual is None
    ):
        parser.error(f"the limits of {args.engine} were not measured: livesr limits {args.engine}")
    real_found = real(engine, args.data) if args.data else {}
    jobs = [
        (case, i)
        for case in cases(domain_of(engine.manifest))
        for i in range(args.n * (1 + case.usual))
    ]
    found: dict[str, list[Seen]] = {}
    with ProcessPoolExecutor(args.processes) as pool:
        looked = pool.map(
            observe,
            [str(engine.folder)] * len(jobs),
            *map(list, zip(*jobs, strict=True)),
            chunksize=4,
        )
        for (case, _), one in zip(jobs, looked, strict=True):
            found.setdefault(case.name, []).append(one)
    text = page(engine, found, real_found, args.docs / "images")
    insert(text, args.docs / "reliability.md")
    print(text)


if __name__ == "__main__":
    main()
