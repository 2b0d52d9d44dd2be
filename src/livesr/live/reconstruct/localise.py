"""Emitters in camera frames: detection, and the maximum-likelihood fit of a Gaussian to all of them at once.

Owns the arithmetic of localisation. Pure: remembers nothing from call to call, and knows no stream, store or configuration.

A spot is looked for with a difference of Gaussians, the matched filter of a spot on a slowly varying background, and
fitted by Fisher scoring of the Poisson likelihood, thousands of spots side by side in one array.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter1d
from scipy.special import erf

from livesr.base.frames import LOCALISATION
from livesr.live.reconstruct.reconstructor import RawFrames

Floats = NDArray[np.float32]

_ITERATIONS = 8
_LARGEST_STEP_PX = 0.5
_SMALLEST_BACKGROUND = 0.05


@dataclass(frozen=True, slots=True)
class PhotonScale:
    """What makes photo-electrons of a camera's numbers.

    Attributes
    ----------
    offset_adu : level of a dark frame
    photons_per_adu : photo-electrons per ADU; an EMCCD's gain is divided out
    excess : variance of the shot noise over that of the photons: 2 for an EMCCD at high gain, else 1
    read_variance : of one pixel, in photo-electrons squared
    """

    offset_adu: float = 100.0
    photons_per_adu: float = 1.0
    excess: float = 1.0
    read_variance: float = 0.0

    @classmethod
    def of(
        cls,
        offset_adu: float,
        gain_e_per_adu: float | None,
        em_gain: float | None = None,
        read_noise_e: float | None = None,
    ) -> PhotonScale:
        """Return the scale of a camera as rig.yaml describes it; gain 1 where it says nothing."""
        multiplied = em_gain or 1.0
        return cls(
            offset_adu,
            (gain_e_per_adu or 1.0) / multiplied,
            1.0 if em_gain is None else 2.0 - 1.0 / multiplied,
            ((read_noise_e or 0.0) / multiplied) ** 2,
        )


class Localiser:
    """Finds the emitters of camera frames.

    Parameters
    ----------
    shape
        Frame (y, x).
    pixel_size_nm
        Camera pixel in the sample.
    sigma_nm
        Standard deviation of a single emitter's image; kept fixed in the fit, which is then steadier where spots overlap.
    scale
        Of the camera.
    threshold
        How far a spot must rise above the filtered frame's noise, in standard deviations.
    """

    def __init__(
        self,
        shape: tuple[int, int],
        pixel_size_nm: float,
        sigma_nm: float,
        scale: PhotonScale,
        *,
        threshold: float = 4.5,
    ) -> None:
        self.shape, self.scale, self.threshold = shape, scale, threshold
        self._pixel_size_nm, self._sigma_px = pixel_size_nm, sigma_nm / pixel_size_nm
        self._radius = max(int(np.ceil(2.7 * self._sigma_px)), 2)
        side = 2 * self._radius + 1
        if min(shape) < side:
            raise ValueError(f"a frame of {shape[0]}x{shape[1]} is smaller than the {side}x{side} pixels of one fit")

    def localise(self, frames: RawFrames, numbers: Sequence[int]) -> NDArray[np.void]:
        """Return the emitters of `frames` as records of `LOCALISATION`, ordered by frame.

        Parameters
        ----------
        frames
            uint8 or uint16 (y, x), ADU.
        numbers
            What each frame is called in the records.
        """
        photons = np.array(frames, np.float32)
        photons -= np.float32(self.scale.offset_adu)
        photons *= np.float32(self.scale.photons_per_adu)
        spots = self._detect(photons)
        if not len(spots):
            return np.empty(0, LOCALISATION)
        return self._fit(photons, spots, np.asarray(numbers))

    def _detect(self, photons: Floats) -> NDArray[np.intp]:
        """Return (frame, y, x) of every pixel where a spot seems to be centred."""
        filtered = _blurred(photons, self._sigma_px)
        filtered -= _blurred(photons, 2 * self._sigma_px)
        r = self._radius
        inner = filtered[:, r:-r, r:-r]
        level = self.threshold * 1.4826 * float(np.median(np.abs(inner[:, ::3, ::3])))
        frame, y, x = np.nonzero(inner > level)
        value, y, x = inner[frame, y, x], y + r, x + r
        highest = np.ones(len(value), bool)
        for dy, dx in ((-1, -1), (-1, 0), (-1, 1), (0, -1), (0, 1), (1, -1), (1, 0), (1, 1)):
            highest &= value >= filtered[frame, y + dy, x + dx]
        return np.stack([frame, y, x], axis=1)[highest]

    def _fit(self, photons: Floats, spots: NDArray[np.intp], numbers: NDArray[np.integer[Any]]) -> NDArray[np.void]:
        r, around = self._radius, np.arange(-self._radius, self._radius + 1)
        frame, y, x = spots.T
        boxes = photons[frame[:, None, None], (y[:, None] + around)[:, :, None], (x[:, None] + around)[:, None, :]]
        fit = fit_gaussians(boxes, self._sigma_px, self.scale)
        inside = (np.abs(fit.y) < r / 2) & (np.abs(fit.x) < r / 2) & (fit.photons > 0) & np.isfinite(fit.error_px)
        found = np.empty(int(inside.sum()), LOCALISATION)
        found["frame"] = numbers[frame[inside]]
        # From the centre of a pixel to the corner of the field.
        found["y_nm"] = (fit.y[inside] + y[inside] + 0.5) * self._pixel_size_nm
        found["x_nm"] = (fit.x[inside] + x[inside] + 0.5) * self._pixel_size_nm
        found["photons"], found["background"] = fit.photons[inside], fit.background[inside]
        found["sigma_nm"] = self._sigma_px * self._pixel_size_nm
        found["uncertainty_nm"] = fit.error_px[inside] * self._pixel_size_nm
        return found


@dataclass(frozen=True, slots=True)
class Fit:
    """Fitted spots, one value each; `y` and `x` in pixels from the middle of the box, `error_px` from the Fisher matrix."""

    y: Floats
    x: Floats
    photons: Floats
    background: Floats
    error_px: Floats


def fit_gaussians(boxes: Floats, sigma_px: float, scale: PhotonScale) -> Fit:
    """Fit position, photons and background of one Gaussian, integrated over pixels, to each box.

    Parameters
    ----------
    boxes
        Photo-electrons, float32 (n, side, side).
    sigma_px
        Width of the spot.
    scale
        For the noise.

    Notes
    -----
    Maximises the Poisson likelihood by Fisher scoring: Smith et al. 2010, Nature Methods 7, 373. Read noise enters as a
    Poisson of the same variance: Huang et al. 2013, Nature Methods 10, 653. The excess noise of an EMCCD scales every
    variance alike, so it leaves the estimate alone and widens its error.
    """
    side = boxes.shape[1]
    read = np.float32(scale.read_variance / scale.excess)
    data = np.maximum(boxes + read, np.float32(1e-3))
    border = np.concatenate([boxes[:, 0], boxes[:, -1], boxes[:, 1:-1, 0], boxes[:, 1:-1, -1]], axis=1)
    background = np.maximum(np.median(border, axis=1), _SMALLEST_BACKGROUND).astype(np.float32)
    light = np.maximum(boxes.sum((1, 2)) - background * side**2, 1).astype(np.float32)
    theta = np.stack([np.zeros_like(light), np.zeros_like(light), light, background], axis=1)
    for _ in range(_ITERATIONS):
        fisher, slope = _score(data, theta, sigma_px, read)
        step = np.linalg.solve(fisher, slope[..., None])[..., 0].astype(np.float32)
        step[:, :2] = np.clip(step[:, :2], -_LARGEST_STEP_PX, _LARGEST_STEP_PX)
        theta += step
        theta[:, :2] = np.clip(theta[:, :2], -side / 2, side / 2)
        theta[:, 2] = np.maximum(theta[:, 2], 1)
        theta[:, 3] = np.maximum(theta[:, 3], _SMALLEST_BACKGROUND)
    fisher, _ = _score(data, theta, sigma_px, read)
    variance = np.linalg.inv(fisher)
    error = np.sqrt(scale.excess * (variance[:, 0, 0] + variance[:, 1, 1]) / 2).astype(np.float32)
    return Fit(theta[:, 0], theta[:, 1], theta[:, 2], theta[:, 3], error)


def _score(data: Floats, theta: Floats, sigma_px: float, read: np.float32) -> tuple[Floats, Floats]:
    """Return Fisher matrix (n, 4, 4) and slope of the log-likelihood (n, 4) for (y, x, photons, background)."""
    (in_y, dy), (in_x, dx) = (_profile(data.shape[1], theta[:, i], sigma_px) for i in (0, 1))
    photons = theta[:, 2, None, None]
    shape = in_y[:, :, None] * in_x[:, None, :]
    expected = photons * shape
    expected += theta[:, 3, None, None] + read
    weight = 1 / expected
    jacobian = np.empty((len(data), 4, data.shape[1] ** 2), np.float32)
    pixels = (len(data), -1)
    jacobian[:, 0] = (photons * dy[:, :, None] * in_x[:, None, :]).reshape(pixels)
    jacobian[:, 1] = (photons * in_y[:, :, None] * dx[:, None, :]).reshape(pixels)
    jacobian[:, 2] = shape.reshape(pixels)
    jacobian[:, 3] = 1
    weighted = jacobian * weight.reshape(len(data), 1, -1)
    fisher = np.asarray(weighted @ jacobian.transpose(0, 2, 1), np.float32)
    residual = (data - expected).reshape(len(data), -1, 1)
    # A spot that fades to nothing must not make the matrix singular.
    fisher += np.float32(1e-6) * np.eye(4, dtype=np.float32)
    return fisher, np.asarray((weighted @ residual)[..., 0], np.float32)


def _profile(side: int, centre: Floats, sigma_px: float) -> tuple[Floats, Floats]:
    """Return the share of a Gaussian that each pixel of a row collects, and its derivative by the centre; (n, side)."""
    edges = np.arange(side + 1, dtype=np.float32) - np.float32(side / 2) - centre[:, None]
    edges *= np.float32(1 / (np.sqrt(2) * sigma_px))
    density = np.exp(-(edges**2)) * np.float32(1 / (np.sqrt(2 * np.pi) * sigma_px))
    return np.asarray(0.5 * np.diff(erf(edges)), np.float32), np.asarray(-np.diff(density), np.float32)


def _blurred(photons: Floats, sigma_px: float) -> Floats:
    along_y = gaussian_filter1d(photons, sigma_px, axis=1, truncate=3)
    return np.asarray(gaussian_filter1d(along_y, sigma_px, axis=2, truncate=3), np.float32)
