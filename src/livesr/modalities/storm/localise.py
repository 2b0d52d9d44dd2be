"""Emitters in camera frames.

Detection, and the maximum-likelihood fit of a Gaussian to all of them at once.

Owns the arithmetic of localisation. Pure: remembers nothing from call to call, and knows no stream,
store or configuration.

A spot is looked for with a difference of Gaussians, the matched filter of a spot on a slowly
varying background, and fitted by Fisher scoring of the Poisson likelihood, thousands of spots side
by side in one array.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import erf

from livesr.base.frames import LOCALISATION
from livesr.live.reconstruct.reconstructor import RawFrames

Floats = NDArray[np.float32]
Spots = NDArray[np.intp]

_ITERATIONS, _ITERATIONS_AGAIN = 6, 2
_ROUNDS = 2
_LARGEST_STEP_PX = 0.5
_SMALLEST_BACKGROUND = 0.05


@dataclass(frozen=True, slots=True)
class PhotonScale:
    """What makes photo-electrons of a camera's numbers.

    Attributes
    ----------
    offset_adu : level of a dark frame
    photons_per_adu : photo-electrons per ADU; an EMCCD's gain is divided out
    excess : variance of the shot noise over that of the photons: 2 for an EMCCD at high gain, else
        1
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
    shape : frame (y, x)
    pixel_size_nm : camera pixel in the sample
    sigma_nm : standard deviation of a single emitter's image; kept fixed in the fit, which is then
        steadier where spots overlap
    scale : of the camera
    threshold : how far a spot must rise above the filtered frame's noise, in standard deviations
    """

    def __init__(
        self,
        shape: tuple[int, int],
        pixel_size_nm: float,
        sigma_nm: float,
        scale: PhotonScale,
        *,
        threshold: float = 5.0,
    ) -> None:
        self.shape, self.scale, self.threshold = shape, scale, threshold
        self._pixel_size_nm, self._sigma_px = pixel_size_nm, sigma_nm / pixel_size_nm
        self._radius = max(int(np.ceil(2.7 * self._sigma_px)), 2)
        side = 2 * self._radius + 1
        if min(shape) < side:
            raise ValueError(
                f"a frame of {shape[0]}x{shape[1]} is smaller than the {side}x{side} pixels of"
                " one fit"
            )
        self._filter = _SpotFilter(shape, self._sigma_px)

    def localise(self, frames: RawFrames, numbers: Sequence[int]) -> NDArray[np.void]:
        """Return the emitters of `frames` as records of `LOCALISATION`, ordered by frame.

        Parameters
        ----------
        frames : uint8 or uint16 (y, x), ADU
        numbers : what each frame is called in the records
        """
        photons = np.array(frames, np.float32)
        photons -= np.float32(self.scale.offset_adu)
        photons *= np.float32(self.scale.photons_per_adu)
        spots = self._detect(photons)
        if not len(spots):
            return np.empty(0, LOCALISATION)
        return self._records(spots, self._fit(photons, spots), np.asarray(numbers))

    def _detect(self, photons: Floats) -> Spots:
        """Return (frame, y, x) of every pixel where a spot seems to be centred."""
        found = [np.empty((0, 3), np.intp)]
        for number, frame in enumerate(photons):
            y, x = self._peaks(frame)
            found.append(np.stack([np.full_like(y, number), y, x], axis=1))
        return np.concatenate(found)

    def _peaks(self, frame: Floats) -> tuple[Spots, Spots]:
        filtered, light = self._filter(frame)
        # `light` becomes the level to exceed: the noise of what is there, as the filter leaves it.
        np.maximum(light, 0, out=light)
        light *= np.float32(self.scale.excess)
        light += np.float32(self.scale.read_variance)
        np.sqrt(light, out=light)
        light *= np.float32(self.threshold * self._filter.noise)
        r = self._radius
        inner = (slice(r, -r), slice(r, -r))
        y, x = np.nonzero(filtered[inner] > light[inner])
        y, x = y + r, x + r
        value = filtered[y, x]
        highest = np.ones(len(value), bool)
        for dy, dx in ((-1, -1), (-1, 0), (-1, 1), (0, -1), (0, 1), (1, -1), (1, 0), (1, 1)):
            highest &= value >= filtered[y + dy, x + dx]
        return y[highest], x[highest]

    def _fit(self, photons: Floats, spots: Spots) -> Fit:
        """Fit every spot, then again beside what the others are found to give."""
        boxes = self._boxes(photons, spots)
        fit = fit_gaussians(boxes, self._sigma_px, self.scale)
        for _ in range(_ROUNDS):
            others = self._boxes(self._model(photons.shape, spots, fit), spots)
            others -= fit.spots(boxes.shape[1], self._sigma_px)
            fit = fit_gaussians(boxes, self._sigma_px, self.scale, others, fit)
        return fit

    def _boxes(self, image: Floats, spots: Spots) -> Floats:
        frame, y, x = spots.T
        around = np.arange(-self._radius, self._radius + 1)
        boxes: Floats = image[
            frame[:, None, None],
            (y[:, None] + around)[:, :, None],
            (x[:, None] + around)[:, None, :],
        ]
        return boxes

    def _model(self, shape: tuple[int, ...], spots: Spots, fit: Fit) -> Floats:
        """Return the light of all spots together, without background."""
        frame, y, x = spots.T
        around = np.arange(-self._radius, self._radius + 1)
        rows = (frame * shape[1] + y)[:, None] + around
        flat = rows[:, :, None] * shape[2] + (x[:, None] + around)[:, None, :]
        light = fit.spots(2 * self._radius + 1, self._sigma_px)
        return (
            np.bincount(flat.ravel(), light.ravel(), int(np.prod(shape)))
            .astype(np.float32)
            .reshape(shape)
        )

    def _records(
        self, spots: Spots, fit: Fit, numbers: NDArray[np.integer[Any]]
    ) -> NDArray[np.void]:
        """Return what is a spot after its fit, ordered by frame."""
        good = np.hypot(fit.y, fit.x) < self._radius / 2
        good &= (fit.photons > 0) & np.isfinite(fit.error_px)
        good &= fit.photons > self.threshold / 2 * fit.photons_error
        frame, y, x = spots[good].T
        found = np.empty(len(frame), LOCALISATION)
        found["frame"] = numbers[frame]
        # From the centre of a pixel to the corner of the field.
        found["y_nm"] = (fit.y[good] + y + 0.5) * self._pixel_size_nm
        found["x_nm"] = (fit.x[good] + x + 0.5) * self._pixel_size_nm
        found["photons"], found["background"] = fit.photons[good], fit.background[good]
        found["sigma_nm"] = self._sigma_px * self._pixel_size_nm
        found["uncertainty_nm"] = fit.error_px[good] * self._pixel_size_nm
        return found


@dataclass(frozen=True, slots=True)
class Fit:
    """Fitted spots, one value each.

    `y` and `x` in pixels from the middle of the box, errors from the Fisher matrix.
    """

    y: Floats
    x: Floats
    photons: Floats
    background: Floats
    error_px: Floats
    photons_error: Floats

    def spots(self, side: int, sigma_px: float) -> Floats:
        """Return the light of each in its box, without background, (n, side, side)."""
        in_y, in_x = (_profile(side, centre, sigma_px)[0] for centre in (self.y, self.x))
        return (self.photons[:, None] * in_y)[:, :, None] * in_x[:, None, :]


def fit_gaussians(
    boxes: Floats,
    sigma_px: float,
    scale: PhotonScale,
    others: Floats | None = None,
    start: Fit | None = None,
) -> Fit:
    """Fit position, photons and background of one Gaussian, integrated over pixels, to each box.

    Parameters
    ----------
    boxes : photo-electrons, float32 (n, side, side)
    sigma_px : width of the spot
    scale : for the noise
    others : what other spots are known to give in each box
    start : where to start from; the middle of each box without

    Notes
    -----
    Maximises the Poisson likelihood by Fisher scoring: Smith et al. 2010, Nature Methods 7, 373.
    Read noise enters as a Poisson of the same variance: Huang et al. 2013, Nature Methods 10, 653.
    The excess noise of an EMCCD scales every variance alike, so it leaves the estimate alone and
    widens its error.
    """
    side = boxes.shape[1]
    known = np.full_like(boxes, scale.read_variance / scale.excess)
    data = np.maximum(boxes + known, np.float32(1e-3))
    if others is not None:
        known += np.maximum(others, 0)
    theta = (
        _start(boxes)
        if start is None
        else np.stack([start.y, start.x, start.photons, start.background], axis=1)
    )
    for _ in range(_ITERATIONS if start is None else _ITERATIONS_AGAIN):
        fisher, slope = _score(data, theta, sigma_px, known)
        step = np.linalg.solve(fisher, slope[..., None])[..., 0].astype(np.float32)
        step[:, :2] = np.clip(step[:, :2], -_LARGEST_STEP_PX, _LARGEST_STEP_PX)
        theta += step
        theta[:, :2] = np.clip(theta[:, :2], -side / 2, side / 2)
        theta[:, 2] = np.maximum(theta[:, 2], 1)
        theta[:, 3] = np.maximum(theta[:, 3], _SMALLEST_BACKGROUND)
    fisher, _ = _score(data, theta, sigma_px, known)
    variance = np.maximum(np.linalg.inv(fisher), 0) * np.float32(scale.excess)
    error = np.sqrt((variance[:, 0, 0] + variance[:, 1, 1]) / 2)
    return Fit(
        theta[:, 0], theta[:, 1], theta[:, 2], theta[:, 3], error, np.sqrt(variance[:, 2, 2])
    )


def _start(boxes: Floats) -> Floats:
    """Return (y, x, photons, background) to begin with: the middle, and what exceeds the border."""
    border = np.concatenate(
        [boxes[:, 0], boxes[:, -1], boxes[:, 1:-1, 0], boxes[:, 1:-1, -1]], axis=1
    )
    background = np.maximum(np.median(border, axis=1), _SMALLEST_BACKGROUND)
    light = np.maximum(boxes.sum((1, 2)) - background * boxes.shape[1] ** 2, 1)
    return np.stack([np.zeros_like(light), np.zeros_like(light), light, background], axis=1).astype(
        np.float32
    )


def _score(data: Floats, theta: Floats, sigma_px: float, known: Floats) -> tuple[Floats, Floats]:
    """Return Fisher matrix (n, 4, 4) and slope of the log-likelihood (n, 4) for (y, x, photons,
    background).
    """
    (in_y, dy), (in_x, dx) = (_profile(data.shape[1], theta[:, i], sigma_px) for i in (0, 1))
    photons = theta[:, 2, None, None]
    shape = in_y[:, :, None] * in_x[:, None, :]
    expected = photons * shape
    expected += theta[:, 3, None, None]
    expected += known
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
    """Return the share of a Gaussian that each pixel of a row collects, and its derivative by the
    centre; (n, side).
    """
    edges = np.arange(side + 1, dtype=np.float32) - np.float32(side / 2) - centre[:, None]
    edges *= np.float32(1 / (np.sqrt(2) * sigma_px))
    density = np.exp(-(edges**2)) * np.float32(1 / (np.sqrt(2 * np.pi) * sigma_px))
    return np.asarray(0.5 * np.diff(erf(edges)), np.float32), np.asarray(
        -np.diff(density), np.float32
    )


class _SpotFilter:
    """A difference of Gaussians, sigma and twice that, on one frame after the other.

    A frame and its intermediates fit into a core's cache, where adding shifted rows is several
    times faster than a general convolution of the whole block.

    Attributes
    ----------
    noise : what the filter makes of the standard deviation of white noise
    """

    def __init__(self, shape: tuple[int, int], sigma_px: float) -> None:
        self._narrow, self._wide = _half_gaussian(sigma_px), _half_gaussian(2 * sigma_px)
        self._pad = len(self._wide) - 1
        height, width = (n + 2 * self._pad for n in shape)
        self._padded = np.empty((height, width), np.float32)
        self._along_y, self._scratch = np.empty((2, shape[0], width), np.float32)
        self._scratch_x = np.empty(shape, np.float32).T
        self._blurred = np.empty((2, *shape), np.float32)
        point = np.zeros(shape, np.float32)
        point[shape[0] // 2, shape[1] // 2] = 1
        self.noise = float(np.linalg.norm(self(point)[0]))

    def __call__(self, frame: Floats) -> tuple[Floats, Floats]:
        """Return the filtered frame and its wide blur.

        Valid until the next call, and the caller's to change until then.
        """
        p, padded = self._pad, self._padded
        padded[p:-p, p:-p] = frame
        padded[:p, p:-p], padded[-p:, p:-p] = frame[0], frame[-1]
        padded[:, :p], padded[:, -p:] = padded[:, p, None], padded[:, -p - 1, None]
        filtered, wide = self._blurred
        for half, out in ((self._narrow, filtered), (self._wide, wide)):
            _correlate(padded, half, self._along_y, self._scratch)
            _correlate(self._along_y.T, half, out.T, self._scratch_x)
        filtered -= wide
        return filtered, wide


def _correlate(source: Floats, half: Floats, out: Floats, scratch: Floats) -> None:
    """Correlate along the first axis with a symmetric kernel, of which `half` is given from its
    middle on; no copies.
    """
    n = len(out)
    middle = (len(source) - n) // 2
    np.multiply(source[middle : middle + n], half[0], out=out)
    for i, weight in enumerate(half[1:], start=1):
        np.add(
            source[middle - i : middle - i + n], source[middle + i : middle + i + n], out=scratch
        )
        scratch *= weight
        out += scratch


def _half_gaussian(sigma_px: float) -> Floats:
    """Return a Gaussian's samples from its middle to three sigma; both halves sum to 1."""
    half = np.exp(-0.5 * (np.arange(int(np.ceil(3 * sigma_px)) + 1) / sigma_px) ** 2)
    return np.asarray(half / (2 * half.sum() - half[0]), np.float32)
