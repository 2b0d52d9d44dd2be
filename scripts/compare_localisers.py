"""Compare livesr's fits with a network that localises, on frames whose emitters are known.

The first stack is simulated here, about one emitter per um^2 on microtubules; each further one is a
TIFF of pixels of 100 nm with a zip of text files, x and y in nm, one a frame, numbered from 1:

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
    stacks = [simulated()] + [recorded(Path(a), Path(b), options.frames) for a, b in options.known]
    print(
        "| frames | emitters/um^2 | localiser | Jaccard | recall | precision | RMSE, nm |", end=""
    )
    print(" frames/s |\n|---|---|---|---|---|---|---|---|")
    for known in stacks:
        shape = known.frames.shape[1:]
        area = np.prod(shape) * (PIXEL_NM / 1e3) ** 2 * len(known.frames)
        density = f"{len(known.frame) / area:.1f}"

        def network(sigma_nm: float, known: Known = known) -> Localiser:
            shape = known.frames.shape[1:]
            return NetworkLocaliser(options.engine, shape, PIXEL_NM, sigma_nm, known.scale)

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
            fits = Localiser(shape, PIXEL_NM, sigma_nm, known.scale, threshold=threshold)
            words = f"sigma {sigma_nm:.0f} nm, threshold {threshold:g}"
            found.append((known.score(fits), words))
    return max(found, key=lambda one: one[0][0].jaccard)


def simulated() -> Known:
    """Return 40 frames of an EMCCD, 150 emitters lit at a time on microtubules."""
    rig = load_rig("virtual_storm")
    bank = BlinkingBank(rig, 128, 40, lit=165)
    rows = np.concatenate([np.insert(bank.truth(k), 0, k, axis=1) for k in range(len(bank.frames))])
    rows = rows[rows[:, 3] > FAINT]
    camera = rig.camera
    scale = PhotonScale.of(
        camera.offset_adu, camera.gain_e_per_adu, camera.em_gain, camera.read_noise_e
    )
    places = rows[:, 1:3] * 1e3 + PIXEL_NM / 2
    return Known("simulated here", bank.frames, rows[:, 0].astype(np.int64), places, scale)


def recorded(tiff: Path, positions: Path, n: int) -> Known:
    """Return the first `n` frames of a stack, in photo-electrons, and its truth."""
    frames = tifffile.imread(tiff)[:n]
    with zipfile.ZipFile(positions) as archive:
        of = {
            int(re.findall(r"\d+", name)[-1]): name
            for name in archive.namelist()
            if name.endswith(".txt")
        }
        tables = [
            np.loadtxt(io.StringIO(archive.read(of[k + 1]).decode()), ndmin=2)
            for k in range(len(frames))
        ]
    frame = np.concatenate([np.full(len(t), k) for k, t in enumerate(tables)])
    places = np.concatenate(tables)[:, ::-1]
    return Known(tiff.stem, frames, frame, places, PhotonScale(0.0))


if __name__ == "__main__":
    main()
