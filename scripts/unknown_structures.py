#!/usr/bin/env python
"""What any engine tells of structures that it does not know, on composites of real images.

    python scripts/unknown_structures.py ../shared/data engines/imcsr-mt-mito

In order are the engine's structures 1:1 and each at half, drawn anew for every seed; an intruder
takes the place of each in turn. The images are not part of the repository, and nothing is fitted to
them. Those in order count by the images that they are drawn of as well: of mitochondria there are
two, one of another microscope.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from trust_table import FILES, Eye, Looked, Picture, area, says_unlike, tiles_of

SCORE = "light of no known structure"
STRUCTURES = FILES | {"Mitochondria": FILES["mitochondria"], "CCPs": FILES["coated pits"]}
INTRUDERS = ("Mitochondria", "ER", "CCPs", "Lysosomes", "actin")
Tiles = Mapping[str, Sequence[Sequence[Picture]]]


def main() -> None:
    """Read the arguments, look, print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("data", type=Path, help="folder of the real data")
    parser.add_argument("engines", nargs="+")
    parser.add_argument("-n", type=int, default=24, help="cells")
    parser.add_argument("--seeds", type=int, nargs="+", default=[3, 11])
    parser.add_argument("--threads", type=int, default=0)
    given = parser.parse_args()
    print("| engine | intruder | area | named | of those in order, by image | at 95 % |")
    print("|---" * 6 + "|")
    for name in given.engines:
        eye = Eye(name, given.threads)
        intruders = [one for one in INTRUDERS if one not in eye.names]
        tiles = {
            one: [tiles_of(given.data, file) for file in STRUCTURES[one]]
            for one in (*eye.names, *intruders)
        }
        for intruder in intruders:
            drawn = [look(eye, tiles, intruder, given.n, seed) for seed in given.seeds]
            cells = (", ".join(column) for column in zip(*map(told, drawn), strict=True))
            print(f"| {eye.engine.manifest.id} | {intruder} | {' | '.join(cells)} |", flush=True)


def look(
    eye: Eye, tiles: Tiles, intruder: str, n: int, seed: int
) -> tuple[list[list[Looked]], list[Looked]]:
    """Return `n` cells in order, by the images that they are of, and with the intruder."""
    rng = np.random.default_rng(seed)
    order: list[list[Looked]] = [[], []]
    intruded: list[Looked] = []
    for i in range(n):
        known = {name: draw(tiles[name], i, rng) for name in eye.names}
        strange = draw(tiles[intruder], i, rng)
        weaker = [{**known, name: known[name] * np.float32(0.5)} for name in eye.names]
        order[i % 2] += [eye.look("in order", parts) for parts in (known, *weaker)]
        for name in eye.names:
            rest = {key: picture for key, picture in known.items() if key != name}
            intruded.append(eye.look(intruder, {**rest, intruder: strange}))
    return order, intruded


def draw(
    images: Sequence[Sequence[Picture]], i: int, rng: np.random.Generator
) -> NDArray[np.float32]:
    """Return a tile; images take turns."""
    image = images[i % len(images)]
    return image[int(rng.integers(len(image)))]


def told(drawn: tuple[list[list[Looked]], list[Looked]]) -> list[str]:
    """Return the cells of a row that one drawing gives."""
    order, intruded = drawn
    scores, known = (
        [row.scores[SCORE] for row in rows] for rows in (intruded, [*order[0], *order[1]])
    )
    at_95 = np.mean(np.array(scores) > np.quantile(known, 0.95))
    by_image = " and ".join(f"{says_unlike(rows):.0%}" for rows in order)
    return [f"{area(scores, known):.2f}", f"{says_unlike(intruded):.0%}", by_image, f"{at_95:.0%}"]


if __name__ == "__main__":
    main()
