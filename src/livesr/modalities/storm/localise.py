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

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from livesr.base.frames import LOCALISATION, LOCALISATION_3D
from livesr.live.arrays import HOST, Array, Arrays
from livesr.live.reconstruct.reconstructor import RawFrames
from livesr.modalities.storm.config import AstigmatismConfig
from livesr.modalities.storm.fit import BACKGROUND, PHOTONS, Fit, Noise, X, Y, Z, fit_gaussians
from livesr.modalities.storm.spot import AstigmaticSpot, RoundSpot, Spot

Spots = NDArray[np.intp]

_ROUNDS = 10  # before the last, of spots that move, and with them their neighbours' light
_STILL_PX, _STILL_Z_PX = 0.05, 0.15  # half of what the light of a bright emitter tells
_FRAMES = 20  # fitted side by side: what they are made of fits into a core's cache
_BRIGHTEST = 1e9  # photo-electrons of a pixel


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
    arrays : what is computed with
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
        arrays: Arrays = HOST,
    ) -> None:
        self._arrays = arrays
        self._noise = Noise(scale.excess, scale.read_variance)
        self.shape, self.scale, self.threshold = shape, scale, threshold
        self.astigmatism = astigmatism
        self._sigma_nm, self._pixel_size_nm = sigma_nm, pixel_size_nm
        self._spot: Spot = (
            AstigmaticSpot(astigmatism, pixel_size_nm)
            if astigmatism
            else RoundSpot(sigma_nm / pixel_size_nm)
        )
        self._radius = self._spot.radius_px
        side = 2 * self._radius + 1
        if min(shape) < side:
            raise ValueError(
                f"a frame of {shape[0]}x{shape[1]} is smaller than the {side}x{side} pixels of"
                " one fit"
            )
        self._filter = _SpotFilter(shape, self._spot.sigma_px, arrays)

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
        starts = range(0, len(frames), _FRAMES)
        found = [self._localise(frames[i : i + _FRAMES], numbers[i : i + _FRAMES]) for i in starts]
        return np.concatenate([np.empty(0, self.records), *found])

    def _localise(self, frames: RawFrames, numbers: Sequence[int]) -> NDArray[np.void]:
        photons = np.array(frames, np.float32)
        photons -= np.float32(self.scale.offset_adu)
        photons *= np.float32(self.scale.photons_per_adu)
        there = self._arrays.array(photons)
        spots = self._detect(there)
        if not len(spots):
            return np.empty(0, self.records)
        return self._records(spots, self._fit(there, spots), np.asarray(numbers))

    def _detect(self, photons: Array) -> Spots:
        """Return (frame, y, x) of every pixel where a spot seems to be centred."""
        found, width = [np.empty((0, 3), np.intp)], self.shape[1]
        for number in range(photons.shape[0]):
            at = self._arrays.on_host(self._peaks(photons[number, :, :]))
            found.append(np.stack([np.full_like(at, number), at // width, at % width], axis=1))
        return np.concatenate(found)

    def _peaks(self, frame: Array) -> Array:
        """Return the pixels of a frame, counted row by row, that rise above the noise, and above
        their neighbours.
        """
        arrays, xp = self._arrays, self._arrays.xp
        filtered, light = self._filter(frame)
        # `light` becomes the level to exceed: the noise of what is there, as the filter leaves it.
        arrays.clip(light, 0.0, _BRIGHTEST, light)
        level = xp.sqrt(light * self.scale.excess + self.scale.read_variance)
        above = filtered > level * (self.threshold * self._filter.noise)
        r, (height, width) = self._radius, self.shape
        above[:r, :], above[height - r :, :] = False, False
        above[:, :r], above[:, width - r :] = False, False
        flat, at = xp.reshape(filtered, (-1,)), xp.nonzero(xp.reshape(above, (-1,)))[0]
        value = xp.take(flat, at)
        highest = xp.ones_like(at, dtype=xp.bool)
        for dy, dx in ((-1, -1), (-1, 0), (-1, 1), (0, -1), (0, 1), (1, -1), (1, 0), (1, 1)):
            highest &= value >= xp.take(flat, at + (dy * width + dx))
        return at[highest]

    def _fit(self, photons: Array, spots: Spots) -> Fit:
        """Fit every spot; then those that others reach again, beside what these are found to give,
        and those that stand alone, if that helps, with more around them.
        """
        places = self._places(spots, self._radius)
        boxes = self._boxes(photons, places)
        fit = fit_gaussians(boxes, self._spot, self._noise, arrays=self._arrays)
        reached = _reached(spots, self._radius + self._spot.lone_radius_px)
        if _ROUNDS and reached.any():
            self._fit_together(photons, fit, places, boxes, np.flatnonzero(reached))
        if self._spot.lone_radius_px > self._radius:
            self._fit_with_room(photons, fit, spots, ~reached)
        return fit

    def _fit_with_room(
        self, photons: Array, fit: Fit, spots: Spots, alone: NDArray[np.bool_]
    ) -> None:
        """Fit those again that are alone and whose larger box is in the frame."""
        radius = self._spot.lone_radius_px
        inside = (spots[:, 1:] >= radius) & (spots[:, 1:] < np.array(self.shape) - radius)
        some = np.flatnonzero(alone & inside.all(axis=1))
        if not len(some):
            return
        arrays = self._arrays
        where, boxes = arrays.array(some), self._boxes(photons, self._places(spots[some], radius))
        start = arrays.xp.take(fit.theta, where, axis=1)
        again = fit_gaussians(boxes, self._spot, self._noise, start=start, arrays=arrays)
        for kept, refitted in zip(fit, again, strict=True):
            arrays.put(kept, where, refitted)

    def _fit_together(
        self, photons: Array, fit: Fit, places: Array, boxes: Array, crowded: NDArray[np.intp]
    ) -> None:
        """Fit those again that others reach, beside what these are found to give: all of them
        twice, and in between those that still move.
        """
        arrays, xp = self._arrays, self._arrays.xp
        where = arrays.array(crowded)
        theta, places = xp.take(fit.theta, where, axis=1), xp.take(places, where, axis=2)
        boxes, light = xp.take(boxes, where, axis=2), self._light(theta)
        every = moving = np.arange(len(crowded))
        for _ in range(_ROUNDS):
            some = arrays.array(moving)
            before = xp.take(theta, some, axis=1)
            again = self._beside(photons, places, boxes, light, (some, before), variance=False)
            arrays.put(theta, some, again.theta)
            arrays.put(light, some, self._light(again.theta))
            by_px = np.abs(arrays.on_host(again.theta - before))
            moving = moving[(by_px[[Y, X]] > _STILL_PX).any(0) | (by_px[Z:] > _STILL_Z_PX).any(0)]
            if not len(moving):
                break
        last = arrays.array(every), theta
        again = self._beside(photons, places, boxes, light, last, variance=True)
        for kept, refitted in zip(fit, again, strict=True):
            arrays.put(kept, where, refitted)

    def _light(self, theta: Array) -> Array:
        """Return the light of spots in their boxes, (side squared, n)."""
        light = Fit(theta).spots(2 * self._radius + 1, self._spot, self._arrays)
        return self._arrays.xp.reshape(light, (-1, theta.shape[1]))

    def _beside(
        self,
        photons: Array,
        places: Array,
        boxes: Array,
        light: Array,
        starts: tuple[Array, Array],
        *,
        variance: bool,
    ) -> Fit:
        """Fit some spots, given which and from where, beside the light of all."""
        arrays, xp = self._arrays, self._arrays.xp
        some, start = starts
        around = self._model(photons.shape, places, light)
        boxes = xp.take(boxes, some, axis=2)
        others = self._boxes(around, xp.take(places, some, axis=2))
        others = others - xp.reshape(xp.take(light, some, axis=1), boxes.shape)
        return fit_gaussians(
            boxes, self._spot, self._noise, others, start, variance=variance, arrays=arrays
        )

    def _places(self, spots: Spots, radius: int) -> Array:
        """Return the pixels of the box of each spot, through all frames, (side, side, n)."""
        frame, y, x = spots.T
        height, width = self.shape
        around = np.arange(-radius, radius + 1)
        middle = (frame * height + y) * width + x
        return self._arrays.array((around[:, None] * width + around)[:, :, None] + middle)

    def _boxes(self, image: Array, places: Array) -> Array:
        xp = self._arrays.xp
        flat = xp.take(xp.reshape(image, (-1,)), xp.reshape(places, (-1,)))
        return xp.reshape(flat, places.shape)

    def _model(self, shape: tuple[int, ...], places: Array, light: Array) -> Array:
        """Return the light of all spots together, without background."""
        xp = self._arrays.xp
        at, light = xp.reshape(places, (-1,)), xp.reshape(light, (-1,))
        return self._arrays.summed(at, light, math.prod(shape))

    def _records(
        self, spots: Spots, fit: Fit, numbers: NDArray[np.integer[Any]]
    ) -> NDArray[np.void]:
        """Return what is a spot after its fit, ordered by frame."""
        theta, variance = (self._arrays.on_host(part) for part in fit)
        y, x, photons, _, *z = theta
        errors = np.sqrt(variance)
        error_px = np.sqrt((variance[Y] + variance[X]) / 2)
        good = np.hypot(y, x) < self._radius / 2
        good &= (photons > 0) & np.isfinite(error_px)
        good &= photons > self.threshold / 2 * errors[PHOTONS]
        if z:
            low, high = self._spot.z_range_px
            good &= (z[0] > low) & (z[0] < high) & np.isfinite(errors[Z])
        theta, errors = theta[:, good], errors[:, good]
        frame, row, column = spots[good].T
        found = np.empty(len(frame), self.records)
        found["frame"] = numbers[frame]
        # From the centre of a pixel to the corner of the field.
        found["y_nm"] = (theta[Y] + row + 0.5) * self._pixel_size_nm
        found["x_nm"] = (theta[X] + column + 0.5) * self._pixel_size_nm
        found["photons"], found["background"] = theta[PHOTONS], theta[BACKGROUND]
        width_y, width_x = self._spot.widths(theta)
        found["sigma_nm"] = width_x * self._pixel_size_nm
        found["uncertainty_nm"] = error_px[good] * self._pixel_size_nm
        if self.astigmatism:
            found["sigma_y_nm"] = width_y * self._pixel_size_nm
            in_specimen = self._pixel_size_nm * self.astigmatism.z_factor
            found["z_nm"] = theta[Z] * in_specimen
            found["z_uncertainty_nm"] = errors[Z] * in_specimen
        return found


def _reached(spots: Spots, reach: int) -> NDArray[np.bool_]:
    """Return which spots have another one of their frame within `reach` pixels along y and x."""
    apart = spots * np.array([2 * reach + 2, 1, 1])
    # The nearest is each spot itself.
    distance, _ = cKDTree(apart).query(apart, k=2, p=np.inf, distance_upper_bound=reach + 0.5)
    return np.asarray(np.isfinite(np.asarray(distance)[:, 1]))


class _SpotFilter:
    """A difference of Gaussians, sigma and twice that, on one frame after the other.

    A frame and its intermediates fit into a core's cache, where adding shifted rows is several
    times faster than a general convolution of the whole block.

    Attributes
    ----------
    noise : what the filter makes of the standard deviation of white noise
    """

    def __init__(self, shape: tuple[int, int], sigma_px: float, arrays: Arrays) -> None:
        self._arrays, xp = arrays, arrays.xp
        self._narrow, self._wide = _half_gaussian(sigma_px), _half_gaussian(2 * sigma_px)
        self._pad = len(self._wide) - 1
        height, width = (n + 2 * self._pad for n in shape)
        self._padded = xp.empty((height, width), dtype=xp.float32)
        self._along_y, self._scratch = (
            xp.empty((shape[0], width), dtype=xp.float32) for _ in range(2)
        )
        self._scratch_x = xp.empty(shape, dtype=xp.float32).T
        self._filtered, self._blurred = (xp.empty(shape, dtype=xp.float32) for _ in range(2))
        point = np.zeros(shape, np.float32)
        point[shape[0] // 2, shape[1] // 2] = 1
        self.noise = float(np.linalg.norm(arrays.on_host(self(arrays.array(point))[0])))

    def __call__(self, frame: Array) -> tuple[Array, Array]:
        """Return the filtered frame and its wide blur.

        Valid until the next call, and the caller's to change until then.
        """
        p, padded = self._pad, self._padded
        padded[p:-p, p:-p] = frame
        padded[:p, p:-p], padded[-p:, p:-p] = frame[:1, :], frame[-1:, :]
        padded[:, :p], padded[:, -p:] = padded[:, p : p + 1], padded[:, -p - 1 : -p]
        filtered, wide = self._filtered, self._blurred
        for half, out in ((self._narrow, filtered), (self._wide, wide)):
            self._correlate(padded, half, self._along_y, self._scratch)
            self._correlate(self._along_y.T, half, out.T, self._scratch_x)
        self._arrays.subtract(filtered, wide, filtered)
        return filtered, wide

    def _correlate(self, source: Array, half: list[float], out: Array, scratch: Array) -> None:
        """Correlate along the first axis with a symmetric kernel, of which `half` is given from its
        middle on; no copies.
        """
        arrays, n = self._arrays, out.shape[0]
        middle = (source.shape[0] - n) // 2
        arrays.multiply(source[middle : middle + n, :], half[0], out)
        for i, weight in enumerate(half[1:], start=1):
            before, after = (source[middle + s : middle + s + n, :] for s in (-i, i))
            arrays.multiply(arrays.add(before, after, scratch), weight, scratch)
            arrays.add(out, scratch, out)


def _half_gaussian(sigma_px: float) -> list[float]:
    """Return a Gaussian's samples from its middle to three sigma; both halves sum to 1."""
    half = np.exp(-0.5 * (np.arange(int(np.ceil(3 * sigma_px)) + 1) / sigma_px) ** 2)
    return [float(v) for v in half / (2 * half.sum() - half[0])]
