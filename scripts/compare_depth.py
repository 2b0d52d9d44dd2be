"""Compare z of livesr with Picasso's on astigmatic frames whose emitters are known.

    python scripts/compare_depth.py FRAMES.tif POSITIONS.csv

POSITIONS.csv has a line for every emitter, with its frame (from 1), x, y, z in nm: columns Frame,
"x (nm)", "y (nm)", "z (nm)". Widths over z are measured on emitters that stand alone in the first
half of the frames, where z is known; both programs are given the same widths, and localise the
other half. Needs `pip install picassosr`; without it livesr is alone.
"""

from __future__ import annotations

import argparse
import csv
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from livesr.modalities.storm.config import AstigmatismConfig
from livesr.modalities.storm.localise import Localiser, PhotonScale
from livesr.modalities.storm.score import score_localisations
from livesr.modalities.storm.spot_shape import fit_widths

Rows = NDArray[np.float64]

THRESHOLDS, PICASSO_THRESHOLDS = (2.0, 3.0, 4.0, 5.0), (50, 100, 200, 400)
BOX, BIN_NM, APART_NM, PAIRED_NM = 11, 50.0, 900.0, 250.0
EDGE_NM, BEYOND = 900.0, 2


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("frames", type=Path)
    parser.add_argument("positions", type=Path)
    parser.add_argument("--pixel-nm", type=float, default=100.0)
    parser.add_argument("--offset", type=float, default=500.0, help="level of a dark frame")
    parser.add_argument("--read-noise", type=float, default=17.0, help="electrons")
    options = parser.parse_args()
    frames, truth = tifffile.imread(options.frames), positions(options.positions)
    scale = PhotonScale.of(options.offset, 1.0, None, options.read_noise)
    half = len(frames) // 2
    first, rest = truth[truth[:, 0] < half], truth[truth[:, 0] >= half]
    lens = widths(frames, first, scale, options.pixel_nm)
    print("| localiser | Jaccard | lateral RMSE, nm | axial RMSE, nm | of lone emitters |")
    print("|---|---|---|---|---|")
    made = {
        "livesr": [livesr(frames, half, lens, scale, options.pixel_nm, t) for t in THRESHOLDS],
        "Picasso": [
            rows
            for t in PICASSO_THRESHOLDS
            if (rows := picasso(frames, half, lens, scale, options.pixel_nm, t)) is not None
        ],
    }
    for name, tables in made.items():
        if tables:
            field_nm = np.array(frames.shape[1:]) * options.pixel_nm
            scored = [score(rows, rest, field_nm) for rows in tables]
            jaccard, lateral, axial, alone = max(scored)
            print(f"| {name} | {jaccard:.3f} | {lateral:.1f} | {axial:.1f} | {alone:.1f} |")


def positions(file: Path) -> Rows:
    """Return (frame from 0, y, x, z) of every emitter, nm."""
    with file.open(encoding="utf-8-sig", newline="") as lines:
        rows = list(csv.DictReader(lines))
    names = ("Frame", "y (nm)", "x (nm)", "z (nm)")
    found = np.array([[float(row[name]) for name in names] for row in rows])
    found[:, 0] -= 1
    return found


def lone(truth: Rows) -> NDArray[np.bool_]:
    """Return which emitters have no other near them in their frame."""
    tree = cKDTree(truth[:, :3] * [1e6, 1, 1])
    return np.asarray(tree.query(truth[:, :3] * [1e6, 1, 1], k=2)[0][:, 1] > APART_NM)


def widths(
    frames: NDArray[np.uint16], truth: Rows, scale: PhotonScale, pixel_nm: float
) -> AstigmatismConfig:
    """Return the widths over z of emitters that stand alone: medians of every 50 nm."""
    single = truth[lone(truth)]
    at = np.floor(single[:, 1:3] / pixel_nm).astype(int)
    radius = BOX // 2
    inside = ((at >= radius) & (at < np.array(frames.shape[1:]) - radius)).all(axis=1)
    inside &= frames[single[:, 0].astype(int)].any(axis=(1, 2))  # some frames are dark
    single, at = single[inside], at[inside]
    around = np.arange(-radius, radius + 1)
    boxes = frames[
        single[:, 0].astype(int)[:, None, None],
        (at[:, 0, None] + around)[:, :, None],
        (at[:, 1, None] + around)[:, None, :],
    ]
    photons = (boxes - scale.offset_adu) * scale.photons_per_adu + scale.read_variance
    found = fit_widths(photons.astype(float), 1.7)
    good = found.error < 0.5
    z, measured = single[good, 3], found.widths_px[good] * pixel_nm
    bins = np.round(z / BIN_NM)
    steps = [b for b in np.unique(bins) if (bins == b).sum() >= 5]
    table = np.array([np.median(measured[bins == b], axis=0) for b in steps])
    # A stack of beads goes beyond what is localised; here the curves are carried on.
    further = np.arange(steps[0] - BEYOND, steps[-1] + BEYOND + 1)
    smooth = [np.polyval(np.polyfit(steps, column, 4), further) for column in table.T]
    y, x = (tuple(np.round(column, 1).tolist()) for column in smooth)
    return AstigmatismConfig(z_nm=tuple((further * BIN_NM).tolist()), width_y_nm=y, width_x_nm=x)


def livesr(
    frames: NDArray[np.uint16],
    first: int,
    lens: AstigmatismConfig,
    scale: PhotonScale,
    pixel_nm: float,
    threshold: float,
) -> Rows:
    """Return what livesr finds from frame `first` on, as (frame, y, x, z)."""
    localiser = Localiser(
        frames.shape[1:], pixel_nm, 170.0, scale, threshold=threshold, astigmatism=lens
    )
    found = localiser.localise(frames[first:], range(first, len(frames)))
    return np.stack([found[n] for n in ("frame", "y_nm", "x_nm", "z_nm")], axis=1).astype(float)


def picasso(
    frames: NDArray[np.uint16],
    first: int,
    lens: AstigmatismConfig,
    scale: PhotonScale,
    pixel_nm: float,
    threshold: int,
) -> Rows | None:
    """Return the same of Picasso, None where it is not installed or finds nothing."""
    try:
        from picasso import io, localize, zfit
    except ImportError:
        return None
    step_nm = 1.0
    curves = [
        np.polyfit(lens.z_nm, np.array(w) / pixel_nm, min(6, len(w) - 1))
        for w in (lens.width_x_nm, lens.width_y_nm)
    ]
    x, y = ([0.0] * (7 - len(c)) + [float(v) for v in c] for c in curves)
    known: dict[str, Any] = {"X Coefficients": x, "Y Coefficients": y, "Step size in nm": step_nm}
    known |= {"Number of frames": len(lens.z_nm), "Magnification factor": 1.0}
    camera = {"Baseline": scale.offset_adu, "Sensitivity": 1.0, "Gain": 1, "Pixelsize": pixel_nm}
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        film = Path(folder, "film.ome.tif")
        about = {"axes": "TYX"}
        tifffile.imwrite(film, frames[first:], photometric="minisblack", ome=True, metadata=about)
        movie, info = io.load_movie(str(film))
        spots = localize.identify(movie, threshold, BOX, threaded=False, return_info=False)
        table, _ = localize.fit(
            movie,
            camera_info=camera,
            identifications=spots,
            box=BOX,
            fitting_method="gausslq",
            multiprocess=False,
        )
    table, _ = zfit.zfit(
        table, info, calibration=known, pixelsize=pixel_nm, fitting_method="gausslq", filter=0
    )
    rows = np.stack([table[n] for n in ("frame", "y", "x", "z")], axis=1).astype(float)
    rows = rows[np.isfinite(rows).all(axis=1)]
    rows[:, 0] += first
    rows[:, 1:3] = (rows[:, 1:3] + 0.5) * pixel_nm
    return rows if len(rows) else None


def score(found: Rows, truth: Rows, field_nm: Rows) -> tuple[float, float, float, float]:
    """Return Jaccard index, and root mean square errors of an axis in nm: lateral, axial, and axial
    of emitters that stand alone. What lies near the edge, where neither fits, is left out.
    """
    alone = lone(truth)
    inside, there = (
        ((rows[:, 1:3] > EDGE_NM) & (rows[:, 1:3] < field_nm - EDGE_NM)).all(axis=1)
        for rows in (found, truth)
    )
    found, truth, alone = found[inside], truth[there], alone[there]
    frame = found[:, 0].astype(int), truth[:, 0].astype(int)
    whole = score_localisations(frame[0], found[:, 1:3], frame[1], truth[:, 1:3], PAIRED_NM)
    tree = cKDTree(truth[:, :3] * [1e6, 1, 1])
    distance, i = tree.query(found[:, :3] * [1e6, 1, 1])
    near = distance < PAIRED_NM
    off = found[near, 3] - truth[i[near], 3]
    axial = (float(np.sqrt((part**2).mean())) for part in (off, off[alone[i[near]]]))
    return whole.jaccard, whole.rmse_nm / 2**0.5, *axial  # type: ignore[return-value]


if __name__ == "__main__":
    main()
