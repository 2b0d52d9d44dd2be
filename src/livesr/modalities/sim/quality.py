"""Whether a time point shows the patterns that it is reconstructed with.

Owns the measures of one frame and the verdict on them. Works on what the reconstruction has
computed anyway; knows neither cameras nor files.

First of all the raw frames must hold pictures (`livesr.optics.exposure`): a blank or saturated one
makes stripes that no measure of the patterns tells from structure.

Measures: every wave's band, which the reconstruction has brought to phase 0 and modulation 1, is
regressed on band 0 where the optics show both. The slope is 1 where the patterns are the calibrated
ones. Its argument is what the phase is off, its magnitude the modulation relative to the calibrated
one, and its uncertainty says whether there is a pattern at all. What moved between the first and
the last raw frame is the part of the frames that is linear in time and orthogonal to all patterns,
compared with the gradient of their mean (Lucas & Kanade 1981).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from livesr.base.frames import PatternQuality
from livesr.live.arrays import HOST, Array, Arrays
from livesr.modalities.sim.plan import BIN, Overlap, SIMPlan
from livesr.modalities.sim.tear import Tear
from livesr.modalities.sim.workspace import Workspace
from livesr.optics.exposure import MAX_SATURATED, Exposures
from livesr.optics.raw_quality import Doubt, exposure_doubt

Complex = NDArray[np.complex64]

# frequencies per wave: enough for a contrast to noise of 3 where a reconstruction is worth looking
# at
_SAMPLES = 4096
_ALIKE = (
    4.0  # by how much the smoothing, which makes neighbours alike, raises the variance of a motion
)
_SURE = 4.0  # standard errors from which on a motion is one
_MAX_SPIKES = 200  # bright pixels that are looked at one by one
_ALONE = 4.0  # a hot pixel over the brightest of its neighbours
_NONE = np.zeros((0, 3))

TORN = (
    "raw frames are torn: rows of two exposures, or exposed while the pattern changed; check"
    " triggers and drivers"
)
MOVED = "the sample moves within a group; expose shorter"
UNSEEN = (
    "no pattern is seen: too little light, out of focus, or raw frames in another order than"
    " rig.yaml's; 'livesr calibrate' tells"
)
OFF_PHASE = (
    "the patterns are at other phases than rig.yaml's: they drifted, or raw frames are not in"
    " order; calibrate again"
)
FAINT = (
    "the patterns are fainter than rig.yaml says; check light, focus, polarisation and order, or"
    " calibrate again"
)


@dataclass(frozen=True, slots=True)
class QualityLimits:
    """From when on a frame is doubtful, and what happens then.

    Attributes
    ----------
    then : "widefield" shows the mean of the raw frames, "refuse" nothing, "reconstruct" the
        reconstruction all the same; the frame says why in each case
    min_contrast_to_noise : of the weakest wave
    max_phase_error_rad : of any wave
    min_modulation : of the weakest wave, relative to the calibrated one
    max_motion_nm : between the first and the last raw frame; what may be noise is no motion
    max_saturated : share of the pixels of any raw frame
    """

    then: Literal["widefield", "refuse", "reconstruct"] = "widefield"
    min_contrast_to_noise: float = 3.0
    max_phase_error_rad: float = 0.8
    min_modulation: float = 0.4
    max_motion_nm: float = 150.0
    max_saturated: float = MAX_SATURATED

    def doubt(
        self,
        quality: PatternQuality,
        exposures: Exposures | None = None,
        tear: Tear | None = None,
    ) -> Doubt:
        """Return what is wrong with a frame, an empty doubt if nothing is.

        What explains the rest comes first.
        """
        if exposures and (seen := exposure_doubt(exposures, self.max_saturated)):
            return seen
        if tear:
            return Doubt(
                f"raw frame {tear.raw} is torn: another pattern stands above than below"
                f" {tear.share:.0%} of its height",
                TORN,
            )
        moved, error = quality.motion_nm or 0.0, quality.motion_error_nm or 0.0
        if moved > max(self.max_motion_nm, _SURE * error):
            return Doubt(
                f"the sample moved {moved:.0f} nm between the first and the last raw frame", MOVED
            )
        if not quality.contrast_to_noise >= self.min_contrast_to_noise:
            return Doubt(
                f"no pattern is seen (contrast {quality.contrast_to_noise:.1f} times its noise, "
                f"{self.min_contrast_to_noise:g} needed): "
                "too little light, out of focus, or the raw frames are not in the order of"
                " rig.yaml",
                UNSEEN,
            )
        if quality.phase_error_rad > self.max_phase_error_rad:
            return Doubt(
                f"the pattern is {quality.phase_error_rad:.1f} rad from where rig.yaml says: it"
                " drifted, or the raw frames are not in order; calibrate again",
                OFF_PHASE,
            )
        if quality.modulation < self.min_modulation:
            return Doubt(
                f"the pattern has {quality.modulation:.0%} of the calibrated modulation: check"
                " light, focus, polarisation and the order of raw frames, or calibrate again",
                FAINT,
            )
        return Doubt()


class _Sampling(NamedTuple):
    """Places of one wave's overlap in band 0's and in its own spectrum, and the OTFs there.

    `places` is `zero` on the host.
    """

    zero: tuple[Array, Array]
    band: tuple[Array, Array]
    here: Array
    there: Array
    weight: Array
    places: NDArray[np.intp]


class QualityMeter:
    """Measures every frame in the buffers in which it is reconstructed; of one thread.

    Parameters
    ----------
    plan : of the reconstruction
    limits : when a frame is doubtful
    arrays : what the buffers are arrays of

    Attributes
    ----------
    limits : as given
    """

    def __init__(self, plan: SIMPlan, limits: QualityLimits, arrays: Arrays = HOST) -> None:
        self.limits, self._arrays, self._shows_motion = limits, arrays, plan.motion
        self._shape = np.array(plan.parameters.shape, np.float64)
        self._binned_nm = 1e3 * BIN * plan.parameters.pixel_size_um
        self._samplings = [_sampling(overlap, arrays) for overlap in plan.overlaps()]
        self._overtones = len(plan.waves) // len(self._samplings)

    def measure(
        self, work: Workspace, moved: tuple[Array, Array] | None = None
    ) -> tuple[PatternQuality, NDArray[np.float64]]:
        """Return the quality of the frame whose bands were just transformed, and by how much the
        phase of every wave is off, (waves,) in radians.

        `moved` is the picture (y, x) in which motion is measured and how it changed, in squares of
        pixels; without, that of the whole group.
        """
        slopes, contrasts = self.slopes(work.zero, work.bands, spikes_of(work.mean, self._arrays))
        errors, contrast = np.angle(slopes), float(contrasts.min())
        modulation, off = float(np.abs(slopes).min()), float(np.abs(errors).max())
        if moved is None and self._shows_motion:
            moved = work.ends[0, :, :], work.ends[1, :, :]
        return PatternQuality(contrast, modulation, off, *self._motion_nm(moved)), errors

    def _motion_nm(self, moved: tuple[Array, Array] | None) -> tuple[float | None, float | None]:
        """Return how far the sample moved, and the standard error; None where nothing tells."""
        if moved is None:
            return None, None
        found = motion_px(*moved, self._arrays)
        return self._binned_nm * found.px, self._binned_nm * found.error_px

    def slopes(
        self, zero: Array, bands: Array, spikes: NDArray[np.float64]
    ) -> tuple[NDArray[np.complex128], NDArray[np.float64]]:
        """Return the slope of every wave, which is 1 for the calibrated pattern, and its contrast
        to noise; (waves,) each.

        Parameters
        ----------
        zero : half spectrum of band 0: (y, columns of kx >= 0)
        bands : spectra of the waves' bands (wave, y, x)
        spikes : hot pixels of band 0 as `spikes_of` gives them; their spectrum is taken off
        """
        xp, found = self._arrays.xp, []
        for i, s in enumerate(self._samplings):
            seen = zero[s.zero]
            if len(spikes):
                seen = seen - self._arrays.array(self._spectrum(spikes, s.places))
            u, v = seen * s.there, bands[i * self._overtones, :, :][s.band] * s.here
            product = xp.conj(u) * v * s.weight
            power = (xp.real(u) ** 2 + xp.imag(u) ** 2) * s.weight
            total = xp.sum(power) + 1e-30
            slope = xp.sum(product) / total
            rest = product - slope * power
            found += [
                xp.real(slope),
                xp.imag(slope),
                xp.sum(xp.real(rest) ** 2 + xp.imag(rest) ** 2),
                total,
            ]
        real, imag, rest2, total = self._arrays.numbers(found).reshape(-1, 4).T
        slopes = real + 1j * imag
        contrasts = np.abs(slopes) / np.maximum(np.sqrt(rest2) / total, 1e-12)
        return self._with_overtones(slopes), np.repeat(contrasts, self._overtones)

    def _with_overtones(self, slopes: NDArray[np.complex128]) -> NDArray[np.complex128]:
        """Return the slope of every wave, given those that could be compared: an overtone turns
        with its fundamental, by as many times the angle.
        """
        turns = np.tile(np.arange(1, self._overtones + 1), len(slopes))
        first = np.repeat(slopes, self._overtones)
        return np.asarray(np.abs(first) * np.exp(1j * turns * np.angle(first)), np.complex128)

    def _spectrum(self, spikes: NDArray[np.float64], places: NDArray[np.intp]) -> Complex:
        """Return what single pixels give at frequencies (2, samples)."""
        turns = spikes[:, :2] / self._shape @ places
        return np.asarray(spikes[:, 2] @ np.exp(-2j * np.pi * turns), np.complex64)


def spikes_of(mean: Array, arrays: Arrays = HOST) -> NDArray[np.float64]:
    """Return the hot pixels of a picture (y, x).

    Rows of y, x and what each has more than its neighbours, (n, 3).

    One pixel that outshines its eight neighbours is none that optics have drawn, where pixels
    sample what they pass.
    """
    xp = arrays.xp
    bright = mean > 0.25 * xp.max(mean)
    if arrays.numbers([xp.count_nonzero(bright)])[0] > _MAX_SPIKES:  # the picture's own
        return _NONE
    host, places = arrays.on_host(mean), np.argwhere(arrays.on_host(bright)[1:-1, 1:-1]) + 1
    found = []
    for y, x in places:
        around = host[y - 1 : y + 2, x - 1 : x + 2].astype(np.float64)
        others = np.delete(around.ravel(), 4)
        if around[1, 1] > _ALONE * others.max():
            found.append((y, x, around[1, 1] - others.mean()))
    return np.array(found, np.float64).reshape(-1, 3)


def _sampling(overlap: Overlap, arrays: Arrays) -> _Sampling:
    """Choose the frequencies that both bands show best, all with kx >= 0."""
    shift, here, there = overlap.shift, overlap.zero, overlap.band
    y, x = here.shape
    both = (here * there)[:, : (x + 1) // 2]
    chosen = np.argsort(both, axis=None)[::-1][: min(_SAMPLES, int(np.count_nonzero(both)))]
    rows, columns = np.unravel_index(np.sort(chosen), both.shape)
    there, here = there[rows, columns], here[rows, columns]
    weight = np.asarray(1 / (here**2 + there**2), np.float32)
    band_rows, band_columns = (rows - shift[0]) % y, (columns - shift[1]) % x
    moved = [arrays.array(a) for a in (rows, columns, band_rows, band_columns, here, there, weight)]
    places, (shown, seen, weights) = np.stack([rows, columns]), moved[4:]
    return _Sampling((moved[0], moved[1]), (moved[2], moved[3]), shown, seen, weights, places)


class Motion(NamedTuple):
    """Distance that a picture moved, and its standard error, in binned pixels."""

    px: float
    error_px: float


def motion_px(mean: Array, change: Array, arrays: Arrays = HOST) -> Motion:
    """Return how far the picture `mean` (y, x) moved, given how it changed meanwhile (y, x).

    A change of brightness is told apart from motion. Good for distances below about one binned
    pixel.
    """
    xp, mean, change = arrays.xp, _smooth(mean), _smooth(change)
    along_y = 0.5 * (mean[2:, 1:-1] - mean[:-2, 1:-1])
    along_x = 0.5 * (mean[1:-1, 2:] - mean[1:-1, :-2])
    seen = [
        xp.reshape(a, (-1,)) for a in (-along_y, -along_x, mean[1:-1, 1:-1], change[1:-1, 1:-1])
    ]
    model = arrays.float64(xp.stack(seen))
    products = arrays.numbers(xp.matmul(model, model.T))
    square, right = products[:3, :3], products[:3, 3]
    try:
        inverse = np.linalg.inv(square + np.diag(1e-9 * np.diag(square) + 1e-12))
    except np.linalg.LinAlgError:
        return Motion(0.0, 0.0)
    moved = inverse @ right
    rest = max(float(products[3, 3] - moved @ right), 0.0) / max(int(seen[0].shape[0]) - 3, 1)
    error = float(np.sqrt(rest * _ALIKE * np.trace(inverse[:2, :2]) / 2))
    return Motion(float(np.hypot(moved[0], moved[1])), error)


def _smooth(picture: Array) -> Array:
    """Binomial filter of five samples along y and x.

    Differences of neighbours are gradients of what is left.
    """
    for _ in range(4):
        picture = picture[1:, :] + picture[:-1, :]
        picture = picture[:, 1:] + picture[:, :-1]
    return picture
