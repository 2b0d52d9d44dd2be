#!/usr/bin/env python
"""At which scales an engine's error on composites of real images lies.

    python scripts/error_scales.py ../shared/data engines/imcsr-mt-er-lyso-light

Composites of `scripts/real_composites.py`, all structures alike. In each predicted channel all that
is coarser than a Gaussian of so many pixels is replaced by the truth's, and what the PCC gains was
lost there: light that is shared out wrongly over whole patches of a cell. Likewise all that is
finer.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from real_composites import SETS, read
from scipy.ndimage import gaussian_filter

from livesr.evaluation.composites import evaluate_composites
from livesr.evaluation.metrics import pcc
from livesr.evaluation.pictures import PictureRow
from livesr.live.inference.engine import load_engine

COARSER, FINER = (16, 8, 4, 2), (1, 2, 4)  # sigma, pixels

Image = NDArray[np.float32]


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("data", type=Path, help="folder of the real data")
    parser.add_argument("engine")
    parser.add_argument("-n", type=int, default=4, help="fields of each set")
    given = parser.parse_args()
    engine = load_engine(given.engine)
    heads = [
        "PCC",
        *(f"coarser than {sigma}" for sigma in COARSER),
        *(f"finer than {sigma}" for sigma in FINER),
    ]
    print(f"| set | structure | {' | '.join(heads)} |\n{'|---' * (len(heads) + 2)}|")
    for label, files in SETS.items():
        if not files.keys() >= set(engine.manifest.channel_names):
            continue
        rows: list[PictureRow] = []
        shown = {name: read(given.data, files[name]) for name in engine.manifest.channel_names}
        evaluate_composites(engine, shown, n=given.n, measures="pcc", show=rows.append)
        for i, name in enumerate(engine.manifest.channel_names):
            found = np.mean([of_channel(row, i) for row in rows], axis=0)
            print(f"| {label} | {name} | {' | '.join(f'{value:.3f}' for value in found)} |")


def of_channel(row: PictureRow, channel: int) -> list[float]:
    """Return the PCC of one channel of a field: as it is, and with each part put right."""
    predicted, truth = row.prediction[channel], row.truth[channel]

    def coarse(image: Image, sigma: int) -> Image:
        return np.asarray(gaussian_filter(image, sigma), np.float32)

    found = [pcc(predicted, truth)]
    found += [pcc(predicted - coarse(predicted - truth, s), truth) for s in COARSER]
    return [*found, *(pcc(coarse(predicted - truth, s) + truth, truth) for s in FINER)]


if __name__ == "__main__":
    main()
