"""Compare livesr's fits with a network that localises, on frames whose emitters are known.

The first stacks are simulated here, emitters on microtubules. Each further one is a TIFF of pixels
of 100 nm with a zip of text files, x and y in nm, one a frame, numbered from 1:

    python scripts/compare_localisers.py engines/deep-storm --known MD_Frame.tif MD_xy.zip

The fits are given the spot width and threshold of those listed here that suit each stack best; the
network is what it is.
"""

from __future__ import annotations

import argparse
import io
import re
import time
import zipfile
from pathlib import Path
from typing import NamedTuple

import numpy as np
import tifffile
from numpy.typing import NDArray

from livesr.base.config import load_rig
from livesr.modalities.storm.localise import Localiser, PhotonScale
from livesr.modalities.storm.network import NetworkLocaliser
from livesr.modalities.storm.score import LocalisationScore, score_localisations
from livesr.simulation.blinking_rig import BlinkingBank

PIXEL_NM = 100.0
LIT = (20.0, 115.0)
"""Emitters on at a time, which makes about 0.2 and 1 in a square micrometre and frame."""
SIGMAS_NM = (80.0, 100.0, 120.0, 140.0)
THRESHOLDS = (1.5, 2.0, 3.0, 5.0)
FAINT = 100  # photo-electrons: what gives less in a frame need not be found


class Known(NamedTuple):
    """Frames and their emitters: frame of each, and (y, x) in nm from the first pixel's corner."""

    name: str
    frames: NDArray[np.uint16]
    frame: NDArray[np.int64]
    places_nm: NDArray[np.float64]
    scale: PhotonScale
    pixel_nm: float = PIXEL_NM

    def score(self, localiser: Localiser) -> tuple[LocalisationScore, float]:
        """Return the score, and frames/s of CPU time."""
        start = time.process_time()
        found = localiser.localise(list(self.frames), range(len(self.frames)))
        rate = len(self.frames) / (time.process_time() - start)
        places = np.stack([found["y_nm"], found["x_nm"]], axis=1)
        return score_localisations(found["frame"], places, self.frame, self.places_nm), rate


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("engine", help="an engine of task localise")
    parser.add_argument("--known", nargs=2, action="append", default=[], metavar=("TIFF", "ZIP"))
    parser.add_argument("--frames", type=int, default=200, help="of each stack")
    options = parser.parse_args()
    stacks = [simulated(lit) for lit in LIT] + [
        recorded(Path(a), Path(b), options.frames) for a, b in options.known
    ]
    print(
        "| frames | emitters/um^2 | localiser | Jaccard | recall | precision | RMSE, nm |", end=""
    )
    print(" frames/s |\n|---|---|---|---|---|---|---|---|")
    for known in stacks:
        shape = known.frames.shape[1:]
        area = np.prod(shape) * (known.pixel_nm / 1e3) ** 2 * len(known.frames)
        density = f"{len(known.frame) / area:.1f}"

        def network(sigma_nm: float, known: Known = known) -> Localiser:
            shape = known.frames.shape[1:]
            return NetworkLocaliser(options.engine, shape, known.pixel_nm, sigma_nm, known.scale)

        fitted, words = best(known)
        for label, result in ((f"fits, {words}", fitted), ("network", known.score(network(130)))):
            score, rate = result
            print(
                f"| {known.name} | {density} | {label} | {score.jaccard:.3f} | {score.recall:.3f} |"
                f" {score.precision:.3f} | {score.rmse_nm:.0f} | {rate:.0f} |",
                flush=True,
            )


def best(known: Known) -> tuple[tuple[LocalisationScore, float], str]:
    """Return the fits' best score of all widths and thresholds, and which these are."""
    found = []
    for sigma_nm in SIGMAS_NM:
        for threshold in THRESHOLDS:
            shape = known.frames.shape[1:]
            fits = Localiser(shape, known.pixel_nm, sigma_nm, known.scale, threshold=threshold)
            words = f"sigma {sigma_nm:.0f} nm, threshold {threshold:g}"
            found.append((known.score(fits), words))
    return max(found, key=lambda one: one[0][0].jaccard)


def simulated(lit: float) -> Known:
    """Return 40 frames of an EMCCD, so many emitters lit at a time on microtubules."""
    rig = load_rig("virtual_storm")
    bank = BlinkingBank(rig, 128, 40, lit=lit)
    rows = np.concatenate([np.insert(bank.truth(k), 0, k, axis=1) for k in range(bank.shape[0])])
    rows = rows[rows[:, 3] > FAINT]
    camera = rig.camera
    scale = PhotonScale.of(
        camera.offset_adu, camera.gain_e_per_adu, camera.em_gain, camera.read_noise_e
    )
    pixel_nm = bank.pixel_size_um * 1e3
    places = rows[:, 1:3] * 1e3 + pixel_nm / 2
    frame = rows[:, 0].astype(np.int64)
    return Known("simulated here", bank.frames, frame, places, scale, pixel_nm)


def recorded(tiff: Path, positions: Path, n: int) -> Known:
    """Return `n` frames of a stack, evenly spread, in photo-electrons, and their truth."""
    stack = tifffile.imread(tiff)
    chosen = np.linspace(0, len(stack) - 1, min(n, len(stack))).round().astype(int)
    frames = stack[chosen]
    with zipfile.ZipFile(positions) as archive:
        of = {
            int(re.findall(r"\d+", name)[-1]): name
            for name in archive.namelist()
            if name.endswith(".txt")
        }
        tables = [
            np.loadtxt(io.StringIO(archive.read(of[k + 1]).decode()), ndmin=2) for k in chosen
        ]
    frame = np.concatenate([np.full(len(t), k) for k, t in enumerate(tables)])
    places = np.concatenate(tables)[:, ::-1]
    return Known(tiff.stem, frames, frame, places, PhotonScale(0.0))


if __name__ == "__main__":
    main()
