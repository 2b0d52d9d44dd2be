"""Emitters in camera frames.

Detection, and the maximum-likelihood fit of a Gaussian to all of them at once, round or, behind a
cylindrical lens, with the two widths that its z gives.

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

from livesr.base.frames import LOCALISATION, LOCALISATION_3D
from livesr.live.reconstruct.reconstructor import RawFrames
from livesr.modalities.storm.config import AstigmatismConfig
from livesr.modalities.storm.spot import (
    SMALLEST_BACKGROUND,
    AnyFloats,
    AstigmaticSpot,
    Part,
    RoundSpot,
    Spot,
    light_of,
    profile,
    profile_and_slopes,
)

Floats = NDArray[np.float32]
Spots = NDArray[np.intp]

_ITERATIONS, _ITERATIONS_AGAIN = 6, 2
_ITERATIONS_3D = 10
_MOVED = (0, 1, 4)  # y, x and z among what is fitted
_ROUNDS = 2
_LARGEST_STEP_PX, _LARGEST_STEP_Z_PX = 0.5, 1.5


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
    astigmatism : widths that a cylindrical lens gives, from which z is fitted; without, spots are
        `sigma_nm` wide and z is not known
    """

    def __init__(
        self,
        shape: tuple[int, int],
        pixel_size_nm: float,
        sigma_nm: float,
        scale: PhotonScale,
        *,
        threshold: float = 5.0,
        astigmatism: AstigmatismConfig | None = None,
    ) -> None:
        self.shape, self.scale, self.threshold = shape, scale, threshold
        self.astigmatism = astigmatism
        self._sigma_nm, self._pixel_size_nm = sigma_nm, pixel_size_nm
        self._spot: Spot = (
            AstigmaticSpot(astigmatism, pixel_size_nm)
            if astigmatism
            else RoundSpot(sigma_nm / pixel_size_nm)
        )
        self._radius = max(int(np.ceil(2.7 * self._spot.widest_px)), 2)
        side = 2 * self._radius + 1
        if min(shape) < side:
            raise ValueError(
                f"a frame of {shape[0]}x{shape[1]} is smaller than the {side}x{side} pixels of"
                " one fit"
            )
        self._filter = _SpotFilter(shape, self._spot.sigma_px)

    @property
    def sigma_px(self) -> float:
        """Width of a single emitter's image in focus, pixels."""
        return self._sigma_nm / self._pixel_size_nm

    @property
    def records(self) -> np.dtype[np.void]:
        """Of what it finds: `LOCALISATION`, or with z `LOCALISATION_3D`."""
        return LOCALISATION_3D if self.astigmatism else LOCALISATION

    @property
    def pixel_size_nm(self) -> float:
        """Camera pixel in the sample."""
        return self._pixel_size_nm

    def of_shape(self, shape: tuple[int, int]) -> Localiser:
        """Return one for frames of another shape (y, x), from the same camera."""
        return Localiser(
            shape,
            self._pixel_size_nm,
            self._sigma_nm,
            self.scale,
            threshold=self.threshold,
            astigmatism=self.astigmatism,
        )

    def localise(self, frames: RawFrames, numbers: Sequence[int]) -> NDArray[np.void]:
        """Return the emitters of `frames` as records of `records`, ordered by frame.

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
            return np.empty(0, self.records)
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
        fit = fit_gaussians(boxes, self._spot, self.scale)
        for _ in range(_ROUNDS):
            others = self._boxes(self._model(photons.shape, spots, fit), spots)
            others -= fit.spots(boxes.shape[1], self._spot)
            fit = fit_gaussians(boxes, self._spot, self.scale, others, fit)
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
        light = fit.spots(2 * self._radius + 1, self._spot)
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
        if isinstance(self._spot, AstigmaticSpot):
            low, high = self._spot.z_range_px
            good &= (fit.z > low) & (fit.z < high) & np.isfinite(fit.z_error)
        fit = fit.of(good)
        frame, y, x = spots[good].T
        found = np.empty(len(frame), self.records)
        found["frame"] = numbers[frame]
        # From the centre of a pixel to the corner of the field.
        found["y_nm"] = (fit.y + y + 0.5) * self._pixel_size_nm
        found["x_nm"] = (fit.x + x + 0.5) * self._pixel_size_nm
        found["photons"], found["background"] = fit.photons, fit.background
        core = self._spot.parts(fit.theta)[0]
        found["sigma_nm"] = np.ravel(core.x) * self._pixel_size_nm
        found["uncertainty_nm"] = fit.error_px * self._pixel_size_nm
        if self.astigmatism:
            found["sigma_y_nm"] = np.ravel(core.y) * self._pixel_size_nm
            in_specimen = self._pixel_size_nm * self.astigmatism.z_factor
            found["z_nm"] = fit.z * in_specimen
            found["z_uncertainty_nm"] = fit.z_error * in_specimen
        return found


@dataclass(frozen=True, slots=True)
class Fit:
    """Fitted spots.

    Attributes
    ----------
    theta : (n, 4 or 5): y and x in pixels from the middle of the box, photo-electrons, background
        per pixel, and z in camera pixels
    variance : of each, from the Fisher matrix
    """

    theta: Floats
    variance: Floats

    @property
    def y(self) -> Floats:
        """Pixels from the middle of the box."""
        return self.theta[:, 0]

    @property
    def x(self) -> Floats:
        """Pixels from the middle of the box."""
        return self.theta[:, 1]

    @property
    def photons(self) -> Floats:
        """Photo-electrons of the spot."""
        return self.theta[:, 2]

    @property
    def background(self) -> Floats:
        """Photo-electrons per pixel."""
        return self.theta[:, 3]

    @property
    def z(self) -> Floats:
        """Camera pixels; of astigmatic spots only."""
        return self.theta[:, 4]

    @property
    def error_px(self) -> Floats:
        """Lateral standard deviation, the mean of both axes'."""
        return np.sqrt((self.variance[:, 0] + self.variance[:, 1]) / 2)

    @property
    def photons_error(self) -> Floats:
        """Standard deviation of `photons`."""
        return np.sqrt(self.variance[:, 2])

    @property
    def z_error(self) -> Floats:
        """Standard deviation of `z`."""
        return np.sqrt(self.variance[:, 4])

    def of(self, which: NDArray[np.bool_]) -> Fit:
        """Return some of them."""
        return Fit(self.theta[which], self.variance[which])

    def spots(self, side: int, spot: Spot) -> Floats:
        """Return the light of each in its box, without background, (n, side, side)."""
        return self.photons[:, None, None] * light_of(spot, self.theta, side)


def fit_gaussians(
    boxes: Floats,
    spot: Spot,
    scale: PhotonScale,
    others: Floats | None = None,
    start: Fit | None = None,
) -> Fit:
    """Fit one Gaussian, integrated over pixels, to each box: position, photons, background, and of
    an astigmatic one z.

    Parameters
    ----------
    boxes : photo-electrons, float32 (n, side, side)
    spot : what is fitted
    scale : for the noise
    others : what other spots are known to give in each box
    start : where to start from; `spot` says without

    Notes
    -----
    Maximises the Poisson likelihood by Fisher scoring: Smith et al. 2010, Nature Methods 7, 373;
    with z as in their supplement 6. Read noise enters as a Poisson of the same variance: Huang et
    al. 2013, Nature Methods 10, 653. The excess noise of an EMCCD scales every variance alike, so
    it leaves the estimate alone and widens its error.
    """
    known = np.full_like(boxes, scale.read_variance / scale.excess)
    data = np.maximum(boxes + known, np.float32(1e-3))
    if others is not None:
        known += np.maximum(others, 0)
    theta = spot.start(boxes) if start is None else start.theta.copy()
    for _ in range(_iterations(spot) if start is None else _ITERATIONS_AGAIN):
        fisher, slope = _score(data, theta, spot, known)
        _step(theta, np.linalg.solve(fisher, slope[..., None])[..., 0], boxes.shape[1], spot)
    fisher, _ = _score(data, theta, spot, known)
    variance = np.maximum(np.linalg.inv(fisher), 0) * np.float32(scale.excess)
    return Fit(theta, np.asarray(variance.diagonal(axis1=1, axis2=2), np.float32))


def _iterations(spot: Spot) -> int:
    return _ITERATIONS if spot.parameters == 4 else _ITERATIONS_3D


def _step(theta: Floats, step: Floats, side: int, spot: Spot) -> None:
    """Go one step, short enough in position, and stay where a spot can be."""
    np.clip(step[:, :2], -_LARGEST_STEP_PX, _LARGEST_STEP_PX, out=step[:, :2])
    np.clip(step[:, 4:], -_LARGEST_STEP_Z_PX, _LARGEST_STEP_Z_PX, out=step[:, 4:])
    theta += step.astype(np.float32)
    np.clip(theta[:, :2], -side / 2, side / 2, out=theta[:, :2])
    np.maximum(theta[:, 2], 1, out=theta[:, 2])
    np.maximum(theta[:, 3], SMALLEST_BACKGROUND, out=theta[:, 3])
    spot.bound(theta)


def _score(data: Floats, theta: Floats, spot: Spot, known: Floats) -> tuple[Floats, Floats]:
    """Return Fisher matrix (n, p, p) and slope of the log-likelihood (n, p) for the parameters of
    `spot`.
    """
    shape, *slopes = _slopes(theta, spot, data.shape[1])
    photons = theta[:, 2, None, None]
    expected = photons * shape
    expected += theta[:, 3, None, None]
    expected += known
    weight = 1 / expected
    jacobian = np.empty((len(data), spot.parameters, data.shape[1] ** 2), np.float32)
    for i, slope in zip(_MOVED, slopes, strict=False):
        jacobian[:, i] = (photons * slope).reshape(len(data), -1)
    jacobian[:, 2] = shape.reshape(len(data), -1)
    jacobian[:, 3] = 1
    weighted = jacobian * weight.reshape(len(data), 1, -1)
    fisher = np.asarray(weighted @ jacobian.transpose(0, 2, 1), np.float32)
    residual = (data - expected).reshape(len(data), -1, 1)
    # A spot that fades to nothing must not make the matrix singular.
    fisher += np.float32(1e-6) * np.eye(spot.parameters, dtype=np.float32)
    return fisher, np.asarray((weighted @ residual)[..., 0], np.float32)


def _slopes(theta: Floats, spot: Spot, side: int) -> list[Floats]:
    """Return spots of one photo-electron, (n, side, side), and their derivatives by y, x and, if it
    is fitted, z.
    """
    one = _with_depth if spot.parameters == 5 else _flat
    found = [one(theta, part, side) for part in spot.parts(theta)]
    return [np.asarray(sum(terms[1:], terms[0]), np.float32) for terms in zip(*found, strict=True)]


def _flat(theta: Floats, part: Part, side: int) -> list[Floats]:
    in_y, dy = profile(side, theta[:, 0], part.y)
    in_x, dx = profile(side, theta[:, 1], part.x)
    return [_outer(a, b) for a, b in ((in_y, in_x), (dy, in_x), (in_y, dx))]


def _with_depth(theta: Floats, part: Part, side: int) -> list[Floats]:
    in_y, dy, wy = profile_and_slopes(side, theta[:, 0], part.y)
    in_x, dx, wx = profile_and_slopes(side, theta[:, 1], part.x)
    in_y, dy, wy = (np.float32(part.share) * values for values in (in_y, dy, wy))
    by_z = _outer(wy * part.y_slope, in_x) + _outer(in_y, wx * part.x_slope)
    return [*(_outer(a, b) for a, b in ((in_y, in_x), (dy, in_x), (in_y, dx))), by_z]


def _outer(rows: AnyFloats, columns: AnyFloats) -> Floats:
    return np.asarray(rows[:, :, None] * columns[:, None, :], np.float32)


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
