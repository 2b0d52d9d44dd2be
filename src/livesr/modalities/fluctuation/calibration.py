"""eSRRF's radius and sensitivity from raw frames: every pair of them is tried and scored.

Owns the sweep, its scores and its picture. Writes rig.yaml through `livesr.base.rig_file`.

Of Laine et al. 2023, Nature Methods 20, 1949. Two numbers pull apart: how fine an image is (FRC of
the images of every other frame, Nieuwenhuizen et al. 2013, Nature Methods 10, 557), and how well it
explains what the camera saw once it is blurred again (RSP: Culley et al. 2018, Nature Methods 15,
263). QnR is their harmonic mean; here the FRC is brought to 0 to 1 between the coarsest and the
finest image of the sweep.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from livesr.base.config import RigConfig
from livesr.base.errors import CalibrationError
from livesr.base.frames import CameraFrame
from livesr.base.geometry import Geometry
from livesr.base.rig_file import write_values
from livesr.evaluation.contact_sheet import save, sheet, tile
from livesr.evaluation.resolution import frc_resolution
from livesr.modalities.calibrator import CalibrationSettings, CalibrationTable
from livesr.modalities.fluctuation.config import FluctuationConfig
from livesr.modalities.fluctuation.modality import sigma_px
from livesr.modalities.fluctuation.reconstructor import FluctuationReconstructor
from livesr.optics.similarity import pcc

RADII = (1.0, 1.5, 2.0, 2.5, 3.0)
SENSITIVITIES = (1, 2, 3, 4)
_MOST_PX, _MOST_FRAMES = 128, 200  # of the middle; what is beyond adds little but time
_FEWEST_FRAMES, _FEWEST_PX = 20, 32
_MARGIN_PX = 4


class Trial(NamedTuple):
    """One pair, and what it gives.

    Attributes
    ----------
    frc_nm : how fine; NaN if nothing is common to both halves
    rsp : how well the camera's mean frame is explained, -1 to 1
    qnr : both in one, 0 to 1
    """

    radius: float
    sensitivity: int
    frc_nm: float
    rsp: float
    qnr: float = 0.0


@dataclass(frozen=True, slots=True)
class Sweep:
    """What was measured of a channel."""

    channel: str
    time_points: int
    trials: tuple[Trial, ...]
    images: tuple[NDArray[np.float32], ...]
    mean: NDArray[np.float32]

    @property
    def best(self) -> Trial:
        """The pair of the largest QnR."""
        return max(self.trials, key=lambda trial: trial.qnr)

    def report(self) -> dict[str, Any]:
        """Return the numbers for ``--json``."""
        return {
            "channel": self.channel,
            "time_points": self.time_points,
            "radius": self.best.radius,
            "sensitivity": self.best.sensitivity,
            "trials": [trial._asdict() for trial in self.trials],
            "warnings": list(self._warnings()),
        }

    def _warnings(self) -> Iterable[str]:
        if self.best.radius in (RADII[0], RADII[-1]):
            yield (
                f"The best radius, {self.best.radius:g} camera pixels, is at the end of what was"
                " tried: are pixel size and emission right?"
            )

    def table(self) -> CalibrationTable:
        """Return the numbers for a terminal."""
        rows = [
            (f"{t.radius:g}", str(t.sensitivity), f"{t.frc_nm:.0f}", f"{t.rsp:.3f}", f"{t.qnr:.3f}")
            for t in self.trials
        ]
        columns = ("radius", "sensitivity", "FRC, nm", "RSP", "QnR")
        best = self.best
        summary = f"Best: radius {best.radius:g}, sensitivity {best.sensitivity}."
        return CalibrationTable(columns, rows, summary)

    def save(self, rig_file: Path) -> None:
        """Write radius and sensitivity into rig.yaml; its comments stay.

        Raises
        ------
        ConfigError
            If it cannot be changed; it stays as it was.
        """
        values = {"radius": self.best.radius, "sensitivity": self.best.sensitivity}
        write_values(rig_file, {f"fluctuation.{name}": v for name, v in values.items()})

    def draw(self, path: Path) -> None:
        """Write the mean frame and the images, one row for each radius.

        Raises
        ------
        ConfigError
            If it cannot be written.
        """
        shown = [
            (
                f"radius {t.radius:g}, sensitivity {t.sensitivity}: FRC {t.frc_nm:.0f} nm,"
                f" RSP {t.rsp:.2f}, QnR {t.qnr:.2f}{' BEST' if t == self.best else ''}",
                tile(image),
            )
            for t, image in zip(self.trials, self.images, strict=True)
        ]
        n, finer = len(SENSITIVITIES), self.images[0].shape[0] // self.mean.shape[0]
        mean = tile(np.kron(self.mean, np.ones((finer, finer), np.float32)))
        rows = [shown[i : i + n] for i in range(0, len(shown), n)]
        save(sheet([[("mean frame", mean)], *rows]), path)


class SweepCalibrator:
    """Tries radii and sensitivities of one rig's eSRRF."""

    needs_stack = False

    def __init__(self, rig: RigConfig) -> None:
        self._rig = rig

    def uncalibrated(self) -> RigConfig:
        """Return the rig: radius and sensitivity hold for any orientation of the camera."""
        return self._rig

    def plane_in_focus(
        self, frames: Iterable[CameraFrame], channel: str, camera: Geometry, planes: int
    ) -> int:
        """Return the plane whose frames change most, relative to their brightness."""
        changes = np.zeros(planes)
        last: dict[int, NDArray[np.float64]] = {}
        for frame in frames:
            if frame.stream.channel == channel:
                now, z = frame.pixels.astype(np.float64), frame.stream.z
                if z in last:
                    changes[z] += np.abs(now - last[z]).mean() / max(now.mean(), 1.0)
                last[z] = now
        return int(changes.argmax())

    def calibrate(
        self, channel: str, camera: Geometry, raw: NDArray[Any], settings: CalibrationSettings
    ) -> Sweep:
        """Try every pair on the middle of raw groups (t, n, y, x).

        Raises
        ------
        CalibrationError
            If there are too few frames or pixels, or no image shows the same twice.
        """
        frames = _middle(raw)
        tried = [
            self._try(channel, camera, frames, *pair) for pair in product(RADII, SENSITIVITIES)
        ]
        trials = _scored([trial for trial, _ in tried])
        mean = np.asarray(frames.mean(axis=0), np.float32)
        images = tuple(image for _, image in tried)
        return Sweep(channel, len(raw), trials, images, mean)

    def _try(
        self, channel: str, camera: Geometry, frames: NDArray[Any], radius: float, sensitivity: int
    ) -> tuple[Trial, NDArray[np.float32]]:
        given = FluctuationConfig.of(self._rig)
        asked = given.model_copy(update={"radius": radius, "sensitivity": sensitivity})
        pixel_nm = camera.pixel_size_um * 1e3
        sigma = sigma_px(self._rig, channel, pixel_nm)
        shape = (frames.shape[1], frames.shape[2])
        made = FluctuationReconstructor(shape, asked, sigma, pixel_nm, self._rig.camera.offset_adu)
        halves = [made.reconstruct(frames[first::2]) for first in (0, 1)]
        image = np.asarray((halves[0] + halves[1]) / 2, np.float32)
        scale = asked.scale
        inside = (slice(_MARGIN_PX * scale, -_MARGIN_PX * scale),) * 2
        frc_nm = frc_resolution(halves[0][inside], halves[1][inside], pixel_nm / scale)
        rsp = _explained(image, frames.mean(axis=0), sigma, scale)
        return Trial(radius, sensitivity, frc_nm, rsp), image


def _middle(raw: NDArray[Any]) -> NDArray[Any]:
    """Return frames (n, y, x) of the middle of raw groups."""
    frames = raw.reshape(-1, *raw.shape[2:])[:_MOST_FRAMES]
    y, x = (max(n - _MOST_PX, 0) // 2 for n in frames.shape[1:])
    frames = frames[:, y : y + _MOST_PX, x : x + _MOST_PX]
    if len(frames) < _FEWEST_FRAMES or min(frames.shape[1:]) < _FEWEST_PX:
        raise CalibrationError(
            f"{len(frames)} frames of {frames.shape[2]} x {frames.shape[1]} pixels came; at least"
            f" {_FEWEST_FRAMES} of {_FEWEST_PX} x {_FEWEST_PX} are needed."
        )
    return frames


def _explained(image: NDArray[np.float32], mean: NDArray[Any], sigma: float, scale: int) -> float:
    """Return the correlation of the mean frame with the image, blurred and binned like it."""
    blurred = gaussian_filter(image, sigma * scale)
    height, width = mean.shape
    binned = blurred.reshape(height, scale, width, scale).mean(axis=(1, 3))
    inside = (slice(_MARGIN_PX, -_MARGIN_PX),) * 2
    return pcc(binned[inside], np.asarray(mean, np.float64)[inside])


def _scored(trials: Sequence[Trial]) -> tuple[Trial, ...]:
    """Return the trials with their QnR."""
    fine = np.array([1 / t.frc_nm if np.isfinite(t.frc_nm) else 0.0 for t in trials])
    if not fine.any():
        raise CalibrationError(
            "The images of every other frame have nothing in common: no radius can be judged. Take"
            " more frames, or more light."
        )
    span = fine.max() - fine.min()
    normed = (fine - fine.min()) / span if span else np.ones_like(fine)
    rsp = np.clip([t.rsp for t in trials], 0, 1)
    qnr = 2 * normed * rsp / np.maximum(normed + rsp, 1e-9)
    return tuple(t._replace(qnr=float(q)) for t, q in zip(trials, qnr, strict=True))
