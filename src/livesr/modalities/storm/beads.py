"""The widths of a single emitter's image from a stack of beads behind a cylindrical lens.

Owns the search for beads, the curves, their report and picture. Writes rig.yaml through
`livesr.base.rig_file`.

Huang et al. 2008, Science 319, 810: beads on a coverslip are seen at known steps of the stage, and
their widths along y and x are measured at each. A second, wider Gaussian, the same for all, takes
the light of the objective's rings, so that the widths tell z. What is fitted to emitters later has
more of the spot's shape: `spot_parts.py`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from scipy.interpolate import BSpline, CubicSpline, make_lsq_spline
from scipy.ndimage import gaussian_filter, maximum_filter
from scipy.optimize import minimize

from livesr.base.config import RigConfig
from livesr.base.errors import CalibrationError
from livesr.base.frames import CameraFrame
from livesr.base.geometry import Geometry
from livesr.base.rig_file import write_values
from livesr.evaluation.contact_sheet import TILE_PX, save, sheet, tile
from livesr.modalities.calibrator import CalibrationSettings, CalibrationTable
from livesr.modalities.storm.config import AstigmaticPart, AstigmatismConfig, STORMConfig
from livesr.modalities.storm.localise import PhotonScale
from livesr.modalities.storm.modality import sigma_nm
from livesr.modalities.storm.spot_parts import Parts, fit_parts
from livesr.modalities.storm.spot_shape import fit_widths

Floats = NDArray[np.floating[Any]]

_MAX_BEADS, _FEWEST_PLANES = 100, 9
_ROOM = 6.0  # half of a box, in widths in focus
_ABOVE_NOISE = 8.0
_MAX_ERROR = 0.1  # of the logarithm of one width over the other
_MAX_WIDENING = 3.0  # beyond, a spot is too dim to be localised
_LEAST_RANGE_NM, _LEAST_STRETCH = 200.0, 0.5  # of the logarithm of one width over the other
_KNOT_NM, _ROW_NM, _HALO_BOXES = 100.0, 50.0, 80
_NO_LENS = (
    "The widths along y and x hardly tell z: is the cylindrical lens in, does the stack go through"
    " focus, and are --z-step and optics.pixel_size_nm right?"
)
_ALIGNED_AGAIN, _SHIFT_NM = 3, 60.0


@dataclass(frozen=True, slots=True)
class BeadStack:
    """What was measured of a channel.

    Attributes
    ----------
    channel : its name
    time_points : planes of the stack
    beads : how many were used
    z_nm, widths_nm : of every bead and plane that was used, (n,) and (n, 2) along y and x
    fitted : the table of widths
    error_nm : robust standard deviation of z as the curves give it from the widths, less the
        stage's
    middle : the sharpest plane, float64 (y, x)
    """

    channel: str
    time_points: int
    beads: int
    z_nm: Floats
    widths_nm: Floats
    fitted: AstigmatismConfig
    error_nm: float
    middle: Floats

    def report(self) -> dict[str, Any]:
        """Return the numbers for ``--json``."""
        return {
            "channel": self.channel,
            "time_points": self.time_points,
            "beads": self.beads,
            "astigmatism": self.fitted.model_dump(mode="json"),
            "error_nm": self.error_nm,
            "warnings": list(self._warnings()),
        }

    def _warnings(self) -> Iterator[str]:
        low, high = self.fitted.z_nm[0], self.fitted.z_nm[-1]
        if high - low < 2 * _LEAST_RANGE_NM:
            yield (
                f"z is known over {high - low:.0f} nm only: a stronger cylindrical lens, or more"
                " planes above and below, give more."
            )
        if self.beads < 5:
            yield f"{self.beads} bead(s) were used; ten and more tell the lens from its noise."

    def table(self) -> CalibrationTable:
        """Return the numbers for a terminal."""
        found = self.fitted
        rows = [
            tuple(f"{v:.0f}" for v in row)
            for row in zip(found.z_nm, found.width_y_nm, found.width_x_nm, strict=True)
        ]
        summary = (
            f"{self.beads} beads: z from {found.z_nm[0]:.0f} to {found.z_nm[-1]:.0f} nm, within"
            f" {self.error_nm:.0f} nm of the stage (robust standard deviation)."
        )
        return CalibrationTable(("z, nm", "width y, nm", "width x, nm"), rows, summary)

    def save(self, rig_file: Path) -> None:
        """Write the curves into rig.yaml; its comments stay.

        Raises
        ------
        ConfigError
            If it cannot be changed; it stays as it was.
        """
        values = {
            f"storm.astigmatism.{name}": value
            for name, value in self.fitted.model_dump(mode="json").items()
            if name != "z_factor"  # of the specimen, not of the lens
        }
        write_values(rig_file, values)

    def draw(self, path: Path) -> None:
        """Write the widths with their curves, and the sharpest plane.

        Raises
        ------
        ConfigError
            If it cannot be written.
        """
        title = "width in nm over z in nm: y blue, x orange"
        picture = sheet([[(title, self._curves()), ("sharpest plane", tile(self.middle))]])
        save(picture, path)

    def _curves(self) -> Image.Image:
        canvas = Image.new("RGB", (TILE_PX, TILE_PX), "#101010")
        pen, inset = ImageDraw.Draw(canvas), 36
        left, right = float(self.z_nm.min()), float(self.z_nm.max())
        top = float(self.widths_nm.max()) * 1.05

        def at(z: float, width: float) -> tuple[float, float]:
            x = inset + (z - left) / (right - left) * (TILE_PX - inset - 8)
            return x, TILE_PX - inset - width / top * (TILE_PX - inset - 8)

        for tick in np.linspace(left, right, 5):
            pen.text((at(tick, 0)[0] - 10, TILE_PX - 26), f"{tick:.0f}", fill="#a0a0a0")
        for tick in np.linspace(0, top, 5):
            pen.text((4, at(left, tick)[1] - 6), f"{tick:.0f}", fill="#a0a0a0")
        found = self.fitted
        lines = ((found.width_y_nm, "#56b4e9"), (found.width_x_nm, "#e69f00"))
        for i, (line, color) in enumerate(lines):
            for height, width in zip(self.z_nm, self.widths_nm[:, i], strict=True):
                x, y = at(height, width)
                pen.ellipse([x - 1, y - 1, x + 1, y + 1], outline=color)
            pen.line([at(*point) for point in zip(found.z_nm, line, strict=True)], "white", 2)
        return canvas


class BeadCalibrator:
    """Measures the cylindrical lens of one rig from a stack of beads."""

    needs_stack = True

    def __init__(self, rig: RigConfig) -> None:
        self._rig = rig

    def uncalibrated(self) -> RigConfig:
        """Return the rig, every plane of a stack a group of its own."""
        section = STORMConfig.of(self._rig).model_copy(update={"frames": 1})
        return self._rig.with_section(section)

    def plane_in_focus(
        self, frames: Iterable[CameraFrame], channel: str, camera: Geometry, planes: int
    ) -> int:
        """Return 0: all planes are used."""
        return 0

    def calibrate(
        self, channel: str, camera: Geometry, raw: NDArray[Any], settings: CalibrationSettings
    ) -> BeadStack:
        """Fit the widths of the beads of a stack, (t, n, y, x), planes in order of z.

        Raises
        ------
        CalibrationError
            If the step is not known, there are too few planes, or no bead stands alone.
        """
        step_nm = settings.z_step_nm
        if step_nm is None:
            raise CalibrationError(
                "A STORM rig is calibrated with a stack of beads: livesr calibrate RIG --beads"
                " STACK.tif --z-step 25 (nm between its planes)."
            )
        planes = raw.reshape(-1, *raw.shape[2:])
        if len(planes) < _FEWEST_PLANES:
            raise CalibrationError(
                f"{len(planes)} planes came, at least {_FEWEST_PLANES} are needed."
            )
        levels, pixel_nm = self._rig.camera, camera.pixel_size_um * 1e3
        scale = PhotonScale.of(
            levels.offset_adu, levels.gain_e_per_adu, levels.em_gain, levels.read_noise_e
        )
        photons = (planes.astype(np.float64) - scale.offset_adu) * scale.photons_per_adu
        sigma_px = sigma_nm(self._rig, channel) / pixel_nm
        boxes = _beads(photons, sigma_px)
        return _measured(channel, photons, boxes, sigma_px, pixel_nm, step_nm, scale.excess)


def _beads(photons: Floats, sigma_px: float) -> Floats:
    """Return the stacks of beads that stand alone, (bead, plane, side, side)."""
    radius = max(int(np.ceil(_ROOM * sigma_px)), 4)
    brightest = gaussian_filter(photons, (0, sigma_px, sigma_px)).max(axis=0)
    level = np.median(brightest)
    noise = 1.4826 * np.median(np.abs(brightest - level))
    summit = brightest == maximum_filter(brightest, 2 * max(round(sigma_px), 1) + 1)
    y, x = np.nonzero(summit & (brightest > level + _ABOVE_NOISE * max(noise, 1e-9)))
    height, width = brightest.shape
    alone = (y >= radius) & (y < height - radius) & (x >= radius) & (x < width - radius)
    alone &= _no_neighbour(y, x, brightest[y, x] - level, radius)
    y, x = y[alone], x[alone]
    order = np.argsort(-brightest[y, x])[:_MAX_BEADS]
    if not len(order):
        raise CalibrationError(
            "No bead stands out of the background: take a stack of bright beads on a coverslip,"
            " thin enough that they do not touch."
        )
    around = np.arange(-radius, radius + 1)
    return np.asarray(
        photons[
            :,
            (y[order, None] + around)[:, :, None],
            (x[order, None] + around)[:, None, :],
        ].swapaxes(0, 1)
    )


def _no_neighbour(
    y: NDArray[np.intp], x: NDArray[np.intp], light: Floats, radius: int
) -> NDArray[np.bool_]:
    """Return which spots have no other in their box that is a tenth as bright."""
    near = np.maximum(np.abs(y[:, None] - y), np.abs(x[:, None] - x)) <= 1.5 * radius
    np.fill_diagonal(near, False)
    return np.asarray(~(near & (light > light[:, None] / 10)).any(axis=1))


def _measured(
    channel: str,
    photons: Floats,
    boxes: Floats,
    sigma_px: float,
    pixel_nm: float,
    step_nm: float,
    excess: float,
) -> BeadStack:
    n, planes = boxes.shape[:2]
    every = boxes.reshape(n * planes, *boxes.shape[2:])
    fitted = fit_widths(every, sigma_px, excess, _halo(every, sigma_px, excess))
    widths = (fitted.widths_px * pixel_nm).reshape(n, planes, 2)
    known = (fitted.error < _MAX_ERROR).reshape(n, planes)
    stage_nm = (np.arange(planes) - (planes - 1) / 2) * step_nm
    z_nm, good = _aligned(stage_nm, widths, known)
    curves = _curves(z_nm[good], widths[good])
    for _ in range(_ALIGNED_AGAIN):
        z_nm += _beside(curves, z_nm, widths, good)[:, None]
        curves = _curves(z_nm[good], widths[good])
    table = _table(curves, z_nm[good])
    used = good & (z_nm >= table.z_nm[0] - _ROW_NM) & (z_nm <= table.z_nm[-1] + _ROW_NM)
    its = used.ravel()
    beads_there = every[its], fitted.places_px[its], z_nm[used], fitted.widths_px[its]
    table = _with_parts(table, fit_parts(*beads_there, np.array(table.z_nm), excess), pixel_nm)
    sharpest = int(np.argmin(np.abs(np.median(z_nm[good.any(axis=1)], axis=0))))
    beads = int(good.any(axis=1).sum())
    off_nm = _off(table, z_nm[good], widths[good])
    shown = z_nm[good], widths[good]
    return BeadStack(channel, planes, beads, *shown, table, off_nm, photons[sharpest])


def _halo(boxes: Floats, sigma_px: float, excess: float) -> tuple[float, float]:
    """Return share and factor of the second Gaussian that explains the spots best."""
    some = boxes[:: max(len(boxes) // _HALO_BOXES, 1)]
    alone = fit_widths(some, sigma_px, excess)
    some, alone_misfit = some[alone.error < _MAX_ERROR], alone.misfit[alone.error < _MAX_ERROR]
    if not len(some):
        return 0.0, 2.5

    def misfit(halo: Floats) -> float:
        share, factor = np.clip(halo, (0, 1.5), (0.7, 5))
        return float(fit_widths(some, sigma_px, excess, (share, factor)).misfit.mean())

    found = minimize(misfit, (0.3, 2.5), method="Nelder-Mead", options={"maxfev": 40})
    share, factor = (float(v) for v in np.clip(found.x, (0, 1.5), (0.7, 5)))
    if found.fun > 0.98 * alone_misfit.mean():
        return 0.0, 2.5
    return round(share, 3), round(factor, 3)


def _aligned(
    stage_nm: Floats, widths: Floats, known: NDArray[np.bool_]
) -> tuple[Floats, NDArray[np.bool_]]:
    """Return z of each bead's planes, (bead, plane), from where its two widths are equal.

    Beads do not lie equally high; one whose widths do not cross once is left out.
    """
    z_nm, good = np.zeros(known.shape), known.copy()
    ratio = np.log(widths[..., 0] / widths[..., 1])
    for i, here in enumerate(known):
        at, z = ratio[i][here], stage_nm[here]
        crossing = np.flatnonzero(at[:-1] * at[1:] <= 0)
        if here.sum() < _FEWEST_PLANES or len(crossing) != 1:
            good[i] = False
            continue
        k = int(crossing[0])
        share = at[k] / (at[k] - at[k + 1]) if at[k] != at[k + 1] else 0.5
        z_nm[i] = stage_nm - (z[k] + share * (z[k + 1] - z[k]))
    if not good.any():
        raise CalibrationError(
            f"Of {len(known)} bead(s) none is stretched along y on one side of focus and along x on"
            " the other: is the cylindrical lens in, does the stack go through focus, and do beads"
            " stand alone?"
        )
    return z_nm, good


def _curves(z_nm: Floats, widths_nm: Floats) -> BSpline:
    """Return the logarithms of both widths over z, smooth; outliers count little."""
    order = np.argsort(z_nm)
    z, values = z_nm[order], np.log(widths_nm[order])
    low, high = np.quantile(z, (0.02, 0.98))
    inside = (z >= low) & (z <= high)
    z, values = z[inside], values[inside]
    knots = np.linspace(z[0], z[-1], max(int((z[-1] - z[0]) / _KNOT_NM), 2) + 1)
    knots = np.concatenate([[z[0]] * 3, knots, [z[-1]] * 3])
    weight = np.ones(len(z))
    try:
        for _ in range(5):
            curve = make_lsq_spline(z, values, knots, w=weight)
            off = np.abs(curve(z) - values).max(axis=1)
            weight = 1 / np.maximum(1, off / (2 * max(float(np.median(off)), 1e-6)))
    except (ValueError, np.linalg.LinAlgError) as e:
        raise CalibrationError(
            f"{len(z)} widths of beads leave gaps along z: take finer steps, or more beads."
        ) from e
    return curve


def _beside(curves: BSpline, z_nm: Floats, widths: Floats, good: NDArray[np.bool_]) -> Floats:
    """Return how much higher each bead lies than `z_nm` says, nm, (bead,)."""
    shifts = np.arange(-_SHIFT_NM, _SHIFT_NM + 1, 2.0)
    cost = np.empty((len(shifts), len(z_nm)))
    for row, shift in zip(cost, shifts, strict=True):
        off = np.abs(curves(z_nm + shift) - np.log(widths)).sum(axis=2)
        row[:] = np.where(good, off, 0).sum(axis=1)
    found = shifts[cost.argmin(axis=0)]
    return np.asarray(found - np.median(found[good.any(axis=1)]))


def _table(curves: BSpline, z_nm: Floats) -> AstigmatismConfig:
    """Return the widths between which z both tell z one way and are not too large."""
    low, high = np.quantile(z_nm, (0.02, 0.98))
    z = np.arange(np.ceil(low / _ROW_NM), np.floor(high / _ROW_NM) + 1) * _ROW_NM
    if len(z) < 3:
        raise CalibrationError(_NO_LENS)
    widths = np.exp(curves(z))
    slope = np.gradient(np.log(widths[:, 0] / widths[:, 1]))
    middle = int(np.argmin(np.abs(z)))
    good = np.sign(slope) == np.sign(slope[middle])
    good &= widths.max(axis=1) < _MAX_WIDENING * widths.min()
    bad = np.flatnonzero(~good)
    first = int(max(bad[bad < middle], default=-1)) + 1
    last = int(min(bad[bad > middle], default=len(z))) - 1
    stretch = np.ptp(np.log(widths[first : last + 1, 0] / widths[first : last + 1, 1]))
    if not good[middle] or z[last] - z[first] < _LEAST_RANGE_NM or stretch < _LEAST_STRETCH:
        raise CalibrationError(_NO_LENS)
    kept = slice(first, last + 1)
    y, x = (tuple(np.round(column, 1).tolist()) for column in widths[kept].T)
    return AstigmatismConfig(z_nm=tuple(z[kept].tolist()), width_y_nm=y, width_x_nm=x)


def _with_parts(table: AstigmatismConfig, parts: Parts, pixel_nm: float) -> AstigmatismConfig:
    """Return the table with the Gaussians that are fitted."""
    named = tuple(
        AstigmaticPart(
            share=tuple(np.round(share, 4).tolist()),
            width_y_nm=tuple(np.round(y * pixel_nm, 1).tolist()),
            width_x_nm=tuple(np.round(x * pixel_nm, 1).tolist()),
        )
        for (y, x), share in zip(parts.widths_px, parts.shares, strict=True)
    )
    return table.model_copy(update={"parts": named})


def _off(table: AstigmatismConfig, z_nm: Floats, widths_nm: Floats) -> float:
    """Return how far the z of the nearest pair of widths in the table is from the stage's."""
    given = np.array(table.z_nm)
    inside = (z_nm >= given[0]) & (z_nm <= given[-1])
    grid = np.arange(given[0], given[-1], 2.0)
    curve = np.log(CubicSpline(given, np.array([table.width_y_nm, table.width_x_nm]).T)(grid))
    distance = np.log(widths_nm[inside])[:, None] - curve[None]
    found = grid[(distance**2).sum(axis=2).argmin(axis=1)]
    return float(1.4826 * np.median(np.abs(found - z_nm[inside])))
