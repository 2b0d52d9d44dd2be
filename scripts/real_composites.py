#!/usr/bin/env python
"""Measures separation engines on composites of real SIM images, and writes the table into their model cards.

    python scripts/real_composites.py ../shared/data engines/imcsr-mt-er-lyso-light

A composite is one real image of each structure, of different cells, each scaled to its 1st and 99.8th percentile and added,
then once more with each structure at half brightness; the same still frame three times, through the runtime of a live run. The
images are not part of the repository and no engine learns from them. `--picture FOLDER` draws what was found; the images'
licences keep such pictures out of the repository.

Each PCC stands beside two others: that of the composite itself, taken as the prediction of each structure, and that of the
true image without its smooth background. Engines give haze to no structure, and real images of microtubules hold much of it:
what an engine without haze can reach against such an image is less than 1.
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter, minimum_filter

from livesr.evaluation.metrics import pcc
from livesr.evaluation.pictures import PictureRow, montage
from livesr.live.inference.backend import Backend
from livesr.live.inference.engine import Engine, load_engine
from livesr.live.inference.runner import open_backend
from livesr.live.normalise import background_and_headroom

FILES = {
    "Microtubules": "microtubules_1004.tif",
    "ER": "er_224x1024.tif",
    "Lysosomes": "lysosomes_1024.tif",
    "CCPs": "ccps_1004.tif",
}
HEIGHT, WIDTH, STRIPS = 224, 1000, 4  # the image of the ER is one strip; of the others there are four
HEADING = "## On composites of real images"
Picture = NDArray[np.float32]


def main() -> None:
    """Read the arguments, measure, write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("data", type=Path, help="folder of the real data")
    parser.add_argument("engines", type=Path, nargs="+", help="engine folders")
    parser.add_argument("--picture", type=Path, help="folder for pictures")
    parser.add_argument("--dry-run", action="store_true", help="print, change no card")
    given = parser.parse_args()
    for folder in given.engines:
        engine = load_engine(folder)
        rows: list[PictureRow] = []
        found = measure(engine, given.data, rows)
        print(f"{engine.manifest.id}\n\n{table(found)}")
        if given.picture:
            given.picture.mkdir(parents=True, exist_ok=True)
            montage(rows, HEIGHT).save(given.picture / f"{engine.manifest.id}.png")
        if not given.dry_run:
            text = json.dumps(found, indent=1) + "\n"
            (folder / "real-composites.json").write_text(text, encoding="utf-8", newline="\n")
            _into_card(folder / "README.md", table(found))


def measure(engine: Engine, data: Path, rows: list[PictureRow]) -> dict[str, Any]:
    """Return mean PCCs over the strips: by brightness, structure and what was compared."""
    names = engine.manifest.channel_names
    backend = open_backend(engine, (HEIGHT, WIDTH))
    weights = {"1:1:1": np.ones(len(names), np.float32)}
    for i, name in enumerate(names):
        weights[f"{name} at half"] = np.where(np.arange(len(names)) == i, 0.5, 1).astype(np.float32)
    result: dict[str, Any] = {"runtime": f"{backend.name} {backend.precision}", "pcc": {}}
    try:
        for label, weight in weights.items():
            scores = []
            for strip, parts in enumerate(_strips(data, names)):
                truth = parts * weight[:, None, None] * np.float32(1000)
                predicted = _separated(backend, truth.sum(0), engine.manifest.window)
                scores.append(_scores(predicted, truth))
                if label == "1:1:1":
                    colors = tuple(channel.color for channel in engine.manifest.channels)
                    rows.append(PictureRow(f"strip {strip}", truth.sum(0), predicted, truth, tuple(names), colors))
            mean = np.mean(scores, 0).round(3).tolist()
            kinds = ("network", "network_less_background", "input", "without_background")
            result["pcc"][label] = {n: dict(zip(kinds, m, strict=True)) for n, m in zip(names, mean, strict=True)}
    finally:
        backend.close()
    return result


def _strips(data: Path, names: tuple[str, ...]) -> Iterator[Picture]:
    images = [tifffile.imread(data / "organelles" / FILES[name]).astype(np.float32) for name in names]
    for strip in range(STRIPS):
        parts = [_scaled(image[_rows(image, strip), :WIDTH]) for image in images]
        yield np.stack(parts)


def _rows(image: Picture, strip: int) -> slice:
    top = strip * HEIGHT if image.shape[0] >= STRIPS * HEIGHT else 0
    return slice(top, top + HEIGHT)


def _scaled(image: Picture) -> Picture:
    low, high = np.percentile(image, (1, 99.8))
    return np.asarray((image - low) / (high - low), np.float32)


def _separated(backend: Backend, composite: Picture, window: int) -> Picture:
    """Return the channels (c, y, x) of the still composite, in its units."""
    background, headroom = background_and_headroom(composite)
    backend.input[:] = np.repeat(((composite - background) / headroom)[None], window, 0)
    return np.asarray(backend.infer() * headroom, np.float32)


def _scores(predicted: Picture, truth: Picture) -> list[list[float]]:
    composite = truth.sum(0)
    sharp = [_less_background(image) for image in truth]
    return [
        [pcc(p, t), pcc(p, s), pcc(composite, t), pcc(s, t)] for p, t, s in zip(predicted, truth, sharp, strict=True)
    ]


def _less_background(image: Picture, reach: int = 25) -> Picture:
    """Subtract the smoothed lower envelope within `reach` pixels (0.8 um): wider than any structure."""
    lower = minimum_filter(gaussian_filter(image, 2), reach)
    return np.maximum(image - gaussian_filter(lower, reach / 1.5), 0)


def table(found: dict[str, Any]) -> str:
    """Return the Markdown table of one engine."""
    lines = [
        "| brightness | structure | PCC | less background | input | best without haze |",
        "|---|---|---|---|---|---|",
    ]
    for label, by_name in found["pcc"].items():
        lines += [
            f"| {label} | {name} | {p['network']:.3f} | {p['network_less_background']:.3f} | {p['input']:.3f} "
            f"| {p['without_background']:.3f} |"
            for name, p in by_name.items()
        ]
    return "\n".join(lines) + "\n"


def _into_card(path: Path, rows: str) -> None:
    card = path.read_text(encoding="utf-8")
    section = f"""{HEADING}

One real SIM image of each structure, of different cells, scaled to equal percentiles and added; four strips of
{HEIGHT} x {WIDTH} pixels, the same still frame three times (`scripts/real_composites.py`). The images are not part of this
repository, and no engine learned from them. *Input* is the composite itself, taken as the prediction. Engines give haze to no
structure and real images hold it: *less background* compares with the true image less its smooth background, and *best without
haze* is what that image itself scores against the true one.

{rows}
"""
    card = re.sub(rf"{HEADING}\n.*?(?=^## )", "", card, flags=re.DOTALL | re.MULTILINE)
    path.write_text(card.replace("## Limits\n", f"{section}## Limits\n", 1), encoding="utf-8", newline="\n")


if __name__ == "__main__":
    main()
