#!/usr/bin/env python
"""What a limit of the rig's own recordings names, on composites of real images: the table of
docs/reliability.md.

    python scripts/own_limits.py imcsr-mt-er-lyso-light ../shared/data

The limit is measured on composites of the three known structures, alike or one at half, and tried
on others: of other tiles of the same images, or of other images (of the ER there is one, whose
tiles are parted). Intruders take a structure's place, or come beside them. A composite counts as a
field. The images are not part of the repository, and nothing is fitted to the intruders.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
from trust_table import FILES, INTRUDERS, Eye, Picture, area, tiles_of

from livesr.evaluation.conformal import width

NAMES = ("Microtubules", "ER", "Lysosomes")
SCORE = "light of no known structure"
FALSE_ALARMS, FEWEST = 0.05, 19
Parts = tuple[Mapping[str, Sequence[Picture]], Mapping[str, Sequence[Picture]]]


def parted(tiles: Mapping[str, Sequence[Sequence[Picture]]]) -> dict[str, Parts]:
    """Return, by title, the tiles of each structure for the limit and for what is tried."""
    every_other = (
        {k: [tile for image in tiles[k] for tile in image[i::2]] for k in NAMES} for i in range(2)
    )
    images = [{k: tiles[k][i] for k in ("Microtubules", "Lysosomes")} for i in range(2)]
    er = tiles["ER"][0]
    one, two = {**images[0], "ER": er[:2]}, {**images[1], "ER": er[2:]}
    first, second = every_other
    return {
        "other tiles of the same images": (first, second),
        "other images": (one, two),
        "other images, changed over": (two, one),
    }


def in_order(rng: np.random.Generator, tiles: Mapping[str, Sequence[Picture]]) -> Iterator[dict]:
    """Yield one cell with its structures alike, and with each at half."""
    known = {k: tiles[k][rng.integers(len(tiles[k]))] for k in NAMES}
    yield known
    for name in NAMES:
        yield {**known, name: known[name] * np.float32(0.5)}


def with_intruder(known: dict[str, Picture], title: str, other: Picture) -> Iterator[tuple]:
    """Yield a cell with an intruder in each structure's place, and beside them."""
    for name in NAMES:
        yield f"{title} in place", {**{k: v for k, v in known.items() if k != name}, title: other}
    yield f"{title} beside", {**known, title: other}


def main() -> None:
    """Read the arguments, look, print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("engine")
    parser.add_argument("data", type=Path, help="folder of the real data")
    parser.add_argument("-n", type=int, default=24, help="cells of each kind")
    parser.add_argument("--seeds", type=int, nargs="+", default=[3, 5, 11])
    parser.add_argument("--threads", type=int, default=0)
    given = parser.parse_args()
    eye = Eye(given.engine, given.threads)

    def share(parts: Mapping[str, Picture]) -> float:
        return eye.look("", parts).scores[SCORE]

    tiles = {k: [tiles_of(given.data, file) for file in files] for k, files in FILES.items()}
    titles = [f"{one} {how}" for how in ("in place", "beside") for one in INTRUDERS]
    heads = ["tried on", "fields", "limit", "in order", *titles]
    print(f"| {' | '.join(heads)} |\n{'|---' * len(heads)}|")
    for title, (own, tried) in parted(tiles).items():
        rows: dict[int, list[list[float]]] = {FEWEST: [], 4 * given.n: []}
        for seed in given.seeds:
            rng = np.random.default_rng(seed)
            usual = [share(p) for _ in range(given.n) for p in in_order(rng, own)]
            order: list[float] = []
            found: dict[str, list[float]] = {name: [] for name in titles}
            for _ in range(given.n):
                cells = list(in_order(rng, tried))
                order += map(share, cells)
                for intruder in INTRUDERS:
                    pictures = [tile for image in tiles[intruder] for tile in image]
                    other = pictures[rng.integers(len(pictures))]
                    for name, parts in with_intruder(cells[0], intruder, other):
                        found[name].append(share(parts))
            areas = " | ".join(f"{area(values, order):.2f}" for values in found.values())
            print(f"| {title}, seed {seed}, area | | | | {areas} |")
            rng.shuffle(usual)
            for fields, row in rows.items():
                limit = width([np.array([v]) for v in usual[:fields]], FALSE_ALARMS)
                named = [np.mean(np.array(v) > limit) for v in (order, *found.values())]
                row.append([limit, *map(float, named)])
        for fields, row in rows.items():
            limits = "-".join(f"{f(one[0] for one in row):.3f}" for f in (min, max))
            named = [", ".join(f"{one[i]:.0%}" for one in row) for i in range(1, len(row[0]))]
            print(f"| {title} | {fields} | {limits} | {' | '.join(named)} |")


if __name__ == "__main__":
    main()
