#!/usr/bin/env python
"""Where real images of a structure lie among simulated ones.

A percentile for every image and statistic, as Markdown.

    python scripts/compare_cells.py ../shared/data runs/light/pairs-train
    python scripts/compare_cells.py ../shared/data runs/light/pairs-train --plain

The simulated ones are crops of training pairs as training composes them
(`livesr.training.recombine`), or as they were simulated (`--plain`). The statistics are
`livesr.evaluation.texture`'s. A real image is cut into crops of the same size; its percentile is
the median of theirs. At 0 or 100 an image lies outside everything that the networks learn from.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from real_images import Picture, images

from livesr.evaluation.texture import STATISTICS, texture
from livesr.training.recombine import RecombinedPairs
from livesr.training.sources import CachedPairs

REAL = {
    "microtubules": ("organelles/microtubules_1004.tif", "more/organelles/mt_tmpE_1004.tif"),
    "er": ("organelles/er_224x1024.tif", "more/er_nsim/*.tif"),
    "lysosomes": ("organelles/lysosomes_1024.tif", "more/organelles/lamp1_crop_512.png"),
    "mitochondria": (
        "more/organelles/tomm20_crop_360.png",
        "more/mixtures/mt_mito_samecell_1000_rgb.png#0",
    ),
}
PIXEL_NM, SIDE, CROPS = 32.0, 176, 8
EDGE = 2.5  # percent: what lies below it, or above 100 less it, is counted as outside


def main() -> None:
    """Read the arguments, compare, print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("data", type=Path, help="folder of the real data")
    parser.add_argument("pairs", type=Path, help="folder of training pairs of a separation")
    parser.add_argument(
        "--plain", action="store_true", help="as simulated, not as training composes them"
    )
    parser.add_argument("--crops", type=int, default=300, help="simulated crops of each structure")
    given = parser.parse_args()
    pairs = CachedPairs(given.pairs)
    for channel, name in enumerate(pairs.meta["channels"]):
        if name in REAL:
            known = _simulated(pairs, channel, given.crops, given.plain)
            print(f"{table(name, known, given.data)}\n")


def table(name: str, known: NDArray[np.float64], data: Path) -> str:
    """Return the Markdown for one structure.

    A line for each real image, percentiles among `known` (n, statistics).
    """
    lines = [
        f"| {name} | outside | {' | '.join(STATISTICS)} |",
        "|---" * (len(STATISTICS) + 2) + "|",
    ]
    outside = np.zeros(len(STATISTICS), int)
    shown = images(data, REAL[name])
    for stem, image in shown.items():
        found = np.array([list(texture(crop, PIXEL_NM).values()) for crop in _crops(image)])
        rank = 100 * np.median([(known < one).mean(0) for one in found], axis=0)
        beyond = (rank < EDGE) | (rank > 100 - EDGE)
        outside += beyond
        lines.append(
            f"| {stem} | {beyond.sum()} | {' | '.join(f'{value:.0f}' for value in rank)} |"
        )
    lines.append(
        f"| outside, of {len(shown)} | {outside.sum()} | {' | '.join(map(str, outside))} |"
    )
    return "\n".join(lines)


def _simulated(pairs: CachedPairs, channel: int, count: int, plain: bool) -> NDArray[np.float64]:
    """Return the statistics (n, statistics) of `count` crops of one structure that show it."""
    rng = np.random.default_rng(0)
    found: list[list[float]] = []
    source = RecombinedPairs(pairs, 1.0)
    while len(found) < count:
        crop = (
            pairs.batch(rng, 1, SIDE, [channel])[1][0, channel]
            if plain
            else source.structure(rng, SIDE, channel)
        )
        if np.percentile(crop, 99.8) > 0.05:
            found.append(list(texture(crop, PIXEL_NM).values()))
    return np.array(found)


def _crops(image: Picture) -> Iterator[Picture]:
    """Yield at most `CROPS` crops of an image, the brightest ones of a grid.

    Dark corners show nothing.
    """
    rows, columns = (range(0, n - SIDE + 1, SIDE) for n in image.shape)
    crops = [image[y : y + SIDE, x : x + SIDE] for y in rows for x in columns]
    yield from sorted(crops, key=lambda crop: -float(crop.mean()))[:CROPS]


if __name__ == "__main__":
    main()
