"""Localisation behind a cylindrical lens at four photon levels, beside the Cramer-Rao bound and
Picasso.

Owns the two measurements. Both programs are calibrated with the same stack of beads and localise
the same frames: emitters that stand alone, an sCMOS, a vectorial pupil with astigmatism, which is
neither program's model.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from livesr.base.config import load_rig
from livesr.base.geometry import Geometry
from livesr.bench.result import Result
from livesr.modalities.calibrator import CalibrationSettings
from livesr.modalities.storm.beads import BeadCalibrator
from livesr.modalities.storm.localise import Localiser, PhotonScale
from livesr.modalities.storm.modality import sigma_nm
from livesr.modalities.storm.simulation.beads import bead_stack, cramer_rao_nm, emitters
from livesr.optics.noise import SCMOSNoise
from livesr.optics.vectorial import VectorialSpread

_PHOTONS = (500, 1000, 2500, 5000)
_PIXEL_NM, _ASTIGMATISM, _STEP_NM, _BACKGROUND = 107.0, 0.06, 25.0, 10.0
_GAIN, _READ_E = 0.5, 1.6
_BOX, _THRESHOLDS = 13, (250, 500, 1000, 2000)
_PAIRED_NM, _APART_NM = 250.0, 1e5

Rows = NDArray[np.float64]


class Accuracy(NamedTuple):
    """Root mean square errors in nm, one axis, and the share of emitters that were found."""

    lateral_nm: float
    axial_nm: float
    recall: float


def measure(quick: bool) -> list[Result]:
    """Return lateral and axial error at each level."""
    rig = load_rig("virtual_storm_3d")
    optics = _PIXEL_NM / 1e3, rig.optics.na, rig.optics.emission_nm / 1e3
    spread = VectorialSpread(*optics, astigmatism=_ASTIGMATISM)
    noise = SCMOSNoise(gain_adu_per_e=1 / _GAIN, read_noise_e=_READ_E)
    beads = bead_stack(spread, noise, step_nm=_STEP_NM)
    scale = PhotonScale.of(noise.offset_adu, _GAIN, None, _READ_E)
    camera = rig.camera.model_copy(
        update={"gain_e_per_adu": _GAIN, "em_gain": None, "read_noise_e": _READ_E}
    )
    rig = rig.model_copy(update={"camera": camera})
    geometry = Geometry((beads.shape[1], beads.shape[2]), "uint16", _PIXEL_NM / 1e3)
    settings = CalibrationSettings(z_step_nm=_STEP_NM)
    lens = BeadCalibrator(rig).calibrate("647", geometry, beads[:, None], settings).fitted
    results = []
    for photons in _PHOTONS[1:2] if quick else _PHOTONS:
        frames, truth = emitters(
            spread, noise, photons, 10 if quick else 80, background=_BACKGROUND
        )
        shape = frames.shape[1], frames.shape[2]
        localiser = Localiser(shape, _PIXEL_NM, sigma_nm(rig, "647"), scale, astigmatism=lens)
        found = localiser.localise(frames, range(len(frames)))
        ours = _accuracy(np.stack([found[n] for n in ("frame", "y_nm", "x_nm", "z_nm")], 1), truth)
        theirs = _picasso(beads, frames, truth)
        bounds = [
            cramer_rao_nm(spread, _PIXEL_NM, photons, _BACKGROUND, scale.read_variance, z)
            for z in (np.arange(9) - 4) * 560 / 9  # the middles of nine equal parts
        ]
        best = np.sqrt((np.array(bounds) ** 2).mean(axis=0))
        results += _results(photons, ours, theirs, (float(best[0]), float(best[1])))
    return results


def _results(
    photons: int, ours: Accuracy, theirs: Accuracy | None, bound: tuple[float, float]
) -> list[Result]:
    note = f"{photons} photo-electrons, {ours.recall:.3f} of the emitters found"
    if theirs:
        note += (
            f"; Picasso {theirs.lateral_nm:.1f} nm lateral, {theirs.axial_nm:.1f} nm axial,"
            f" {theirs.recall:.3f} found"
        )
    rows = (("lateral", ours.lateral_nm, bound[0]), ("axial", ours.axial_nm, bound[1]))
    return [
        Result(f"storm.{axis}_{photons}", rmse, "nm", least, "Cramer-Rao bound", note=note)
        for axis, rmse, least in rows
    ]


def _accuracy(found: Rows, truth: Rows) -> Accuracy:
    """Pair (frame, y, x, z), nm, with the truth, whose y and x are in pixels."""
    true = truth.copy()
    true[:, 1:3] = (true[:, 1:3] + 0.5) * _PIXEL_NM
    far = np.array([_APART_NM, 1, 1])
    nearest = cKDTree(true[:, :3] * far).query(found[:, :3] * far)
    distance, i = (np.asarray(part) for part in nearest)
    near = distance < _PAIRED_NM
    off = found[near, 1:] - true[i[near], 1:]
    lateral, axial = (float(np.sqrt((off[:, part] ** 2).mean())) for part in (slice(0, 2), 2))
    return Accuracy(lateral, axial, len(np.unique(i[near])) / len(true))


def _picasso(beads: NDArray[np.uint16], frames: NDArray[np.uint16], truth: Rows) -> Accuracy | None:
    """Return the best that Picasso reaches, None where it is not installed."""
    try:
        from picasso import zfit
    except ImportError:
        return None
    made = []
    for method in ("gausslq", "gaussmle"):
        table, info = _picasso_2d(beads, method, 5000)
        lens = zfit.calibrate_z(table, info, _STEP_NM, 1.0)
        for threshold in _THRESHOLDS:
            table, info = _picasso_2d(frames, method, threshold)
            if not len(table):
                continue
            table, _ = zfit.zfit(
                table, info, calibration=lens, pixelsize=_PIXEL_NM, fitting_method=method, filter=0
            )
            # It counts z against the stage.
            rows = np.stack([table["frame"], table["y"], table["x"], -table["z"]], axis=1)
            rows = rows[np.isfinite(rows).all(axis=1)].astype(np.float64)
            rows[:, 1:3] = (rows[:, 1:3] + 0.5) * _PIXEL_NM
            rows[:, 3] -= np.median(rows[:, 3])  # and from another plane
            made.append(_accuracy(rows, truth))
    enough = [each for each in made if each.recall > 0.9] or made
    return min(enough, key=lambda each: each.axial_nm)


def _picasso_2d(frames: NDArray[np.uint16], method: str, threshold: int):  # type: ignore[no-untyped-def]
    """Return Picasso's table of a film, and what it says of it."""
    import tifffile
    from picasso import io, localize

    camera = {"Baseline": 100, "Sensitivity": _GAIN, "Gain": 1, "Pixelsize": _PIXEL_NM}
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        path = Path(folder, "film.ome.tif")
        tifffile.imwrite(path, frames, photometric="minisblack", ome=True, metadata={"axes": "TYX"})
        movie, info = io.load_movie(str(path))
        spots = localize.identify(movie, threshold, _BOX, threaded=False, return_info=False)
        table, _ = localize.fit(
            movie,
            camera_info=camera,
            identifications=spots,
            box=_BOX,
            fitting_method=method,
            multiprocess=False,
        )
    return table, info
