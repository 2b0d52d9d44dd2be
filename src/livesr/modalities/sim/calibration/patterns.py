"""Pattern vector, phase and modulation of every angle, estimated from raw frames.

Owns the estimation and its verdict. The raw order is given; `order.py` finds it. Pure functions.

Per angle: the peak of the whitened correlation of band 0 with the finest band gives the vector,
pooled over time points; the regression of the band on band 0, over the frequencies where the optics
show both, gives phase (argument) and modulation (magnitude) of every wave (Gustafsson 2000;
fairSIM, Mueller et al. 2016, Nature Communications 7, 10980).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import scipy.fft
from numpy.typing import NDArray

from livesr.base.errors import CalibrationError
from livesr.modalities.sim.calibration.correlation import (
    Peak,
    correlate,
    find_peak,
    radial_power,
    refine,
    whitened,
)
from livesr.modalities.sim.calibration.groups import (
    MIN_PX,
    Complex,
    Float,
    Optics,
    conditioned,
    directions,
)
from livesr.optics.illumination import Pattern, equal_steps
from livesr.optics.otf import radial_frequency

MIN_PEAK = 6.0
"""Height of a correlation peak, in standard deviations of noise, below which there is no pattern.

Noise alone reached 5.1 in 24 searches on real frames at very low light, real patterns 10.6 and
more.
"""

MIN_MODULATION = 0.05
SEARCH = (0.5, 1.15)
"""Where the finest wave is looked for, in units of the detection cutoff.

Excitation is shorter than emission, so that under total reflection its period can be shorter than
the finest detail that the objective passes.
"""

_MIN_VISIBLE = 1.05  # of two pixels, that the coarsest period must have
_MIN_PERIODS = 6
_AS_HIGH = 0.75  # of a peak, that makes another one as good; real specimens reach 0.45
_CENTRE = (
    0.15  # of the cutoff: out-of-focus light and what the separation leaves of band 0 sit inside
)
_MIN_OTF = 0.05


class AmbiguousPatternError(CalibrationError):
    """Several patterns explain the frames alike, as where the specimen repeats.

    `height` is that of the best peak.
    """

    def __init__(self, message: str, height: float) -> None:
        super().__init__(message)
        self.height = height


class NoPatternError(CalibrationError):
    """No pattern stands above noise where one is looked for."""


@dataclass(frozen=True, slots=True)
class Wave:
    """What the regression says of one wave.

    Attributes
    ----------
    amplitude : (t,) complex, m e^(i phase) at every time point, referred to pixel (0, 0) of the
        frames
    noise : standard deviation of an amplitude
    """

    amplitude: NDArray[np.complex128]
    noise: float

    @property
    def mean(self) -> complex:
        """Amplitude pooled over the time points."""
        return complex(self.amplitude.mean())

    @property
    def contrast_to_noise(self) -> float:
        """Modulation over its own uncertainty, pooled over the time points."""
        return float(abs(self.mean) * np.sqrt(len(self.amplitude)) / max(self.noise, 1e-12))

    @property
    def phase_spread_rad(self) -> float:
        """Standard deviation of the phase from one time point to the next; 0 for one."""
        return float(np.std(np.angle(self.amplitude * np.conj(self.mean))))


@dataclass(frozen=True, slots=True)
class FoundPattern:
    """One angle's pattern and how sure it is.

    Attributes
    ----------
    pattern : phase at the chip's origin, if the origin of the frames on it was given
    peak : height of the correlation peak of the finest wave, in standard deviations of noise
    contrast_to_noise : of the weakest wave
    phase_spread_rad : of the finest wave between time points; drift or motion
    strongest : largest modulation of a wave as it was measured; light cannot have more than 1
    """

    pattern: Pattern
    peak: float
    contrast_to_noise: float
    phase_spread_rad: float
    strongest: float = 0.0

    @property
    def period_nm(self) -> float:
        """Period of the finest wave in the sample."""
        return float(1e3 / np.hypot(*self.pattern.waves[-1].k_um))

    @property
    def direction_deg(self) -> float:
        """Direction of k, from +x towards +y."""
        ky, kx = self.pattern.k_um
        return float(np.degrees(np.arctan2(ky, kx)))


def estimate(
    raw: NDArray[Any],
    optics: Optics,
    order: Sequence[tuple[int, int]],
    *,
    steps_rad: Sequence[float] | None = None,
    harmonics: int = 1,
    offset_adu: float = 100.0,
    origin_px: tuple[float, float] = (0.0, 0.0),
    near: Sequence[Pattern] | None = None,
    lattice: bool = False,
    nonlinear: bool = False,
) -> list[FoundPattern]:
    """Estimate the pattern of every angle, of a `lattice` the wave of every direction.

    Parameters
    ----------
    raw : uint8 or uint16 (t, n, y, x): time points with unchanged patterns, which are pooled; one
        is enough at good light
    optics : of this channel
    order : (angle, phase) of every raw index
    steps_rad : phase step of every phase; equal parts of a turn if None
    harmonics : waves per angle: 1 for two interfering beams, 2 for three (3D-SIM)
    offset_adu : level of a dark frame
    origin_px : first pixel (y, x) of the frames on the chip, in pixels of `optics.pixel_size_um`
    near : known patterns that may have drifted by a few frequency steps: the search is then
        restricted to their neighbourhood, which finds weaker patterns and is faster

    Raises
    ------
    CalibrationError
        If an angle shows no pattern. Nothing is returned then: half a calibration is none.
    """
    angles = max(a for a, _ in order) + 1
    steps = (
        equal_steps(len(order) // angles)
        if steps_rad is None
        else np.asarray(steps_rad, np.float64)
    )
    frames = conditioned(raw, offset_adu)
    found = []
    check_search(raw.shape[-2:], optics)
    every = directions(frames, order, steps, harmonics, lattice)
    for angle, (zero, higher) in enumerate(every):
        finest = 0 if nonlinear else -1  # of those that band 0 shows something of
        hint = near[angle].waves[finest].k_um if near else None
        seen = _Seen(zero, higher, nonlinear)
        found.append(_estimate_angle(seen, optics, angle, hint, origin_px))
    return found


def check_search(shape: tuple[int, ...], optics: Optics) -> None:
    """Check that frames of `shape` (y, x) can show the patterns that are looked for.

    Raises
    ------
    CalibrationError
        If their pixels are too large, or the field holds too few periods.
    """
    if min(shape) < MIN_PX:  # is refused as such
        return
    low, high = (r * optics.cutoff_um for r in SEARCH)
    said = (
        f"Patterns of {1e3 / high:.0f} to {1e3 / low:.0f} nm are looked for, as NA {optics.na:g} at"
        f" {1e3 * optics.emission_um:.0f} nm suggests"
    )
    check = "Check pixel size, NA and wavelength in rig.yaml"
    if 2 * optics.pixel_size_um * low > 1 / _MIN_VISIBLE:
        raise CalibrationError(
            f"{said}, and pixels of {1e3 * optics.pixel_size_um:.4g} nm show none below "
            f"{2e3 * optics.pixel_size_um:.4g} nm. {check}."
        )
    field_um = min(shape) * optics.pixel_size_um
    if low * field_um < _MIN_PERIODS:
        raise CalibrationError(
            f"{said}, and {min(shape)} pixels of {1e3 * optics.pixel_size_um:.4g} nm hold only"
            f" {low * field_um:.1f} of the coarsest; {_MIN_PERIODS} are needed. {check}, or give a"
            " larger region."
        )


def _check_alone(found: Peak, power: Float, optics: Optics, angle: int) -> None:
    """Refuse a peak beside another that is nearly as high.

    A specimen that repeats shows its patterns several times.

    Raises
    ------
    CalibrationError
        If there is one, in another direction or with another period.
    """
    annulus = SEARCH[0] * optics.cutoff_um, SEARCH[1] * optics.cutoff_um
    second = find_peak(power, optics.pixel_size_um, annulus, exclude=[found.k_um])
    if second.height < max(MIN_PEAK, _AS_HIGH * found.height):
        return
    (d1, p1), (d2, p2) = (
        (float(np.degrees(np.arctan2(*p.k_um))), 1e3 / float(np.hypot(*p.k_um)))
        for p in (found, second)
    )
    raise AmbiguousPatternError(
        f"The pattern of angle {angle} cannot be told from lines of the specimen: {p1:.0f} nm at"
        f" {d1:.0f} degrees and {p2:.0f} nm at {d2:.0f} degrees explain the frames alike (peaks"
        f" {found.height:.0f} and {second.height:.0f}). Turn the specimen, or use one without"
        " regular lines.",
        found.height,
    )


class _Seen(NamedTuple):
    """The bands of one angle; `nonlinear` if only the first overlaps with band 0."""

    zero: Float
    higher: Complex
    nonlinear: bool

    def waves(self, k_um: tuple[float, float], optics: Optics) -> list[Wave]:
        """Return every wave, given the vector of the fundamental.

        The band of an overtone of nonlinear SIM is compared with the band before it, which it
        overlaps with as band 1 does with band 0.
        """
        if not self.nonlinear:
            return [
                regress(self.zero, band, (h * k_um[0], h * k_um[1]), optics)
                for h, band in enumerate(self.higher, start=1)
            ]
        waves = [regress(self.zero, self.higher[0], k_um, optics)]
        for before, band in pairwise(self.higher):
            step, last = regress(before, band, k_um, optics), waves[-1]
            noise = abs(last.mean) * step.noise / 2
            waves.append(Wave(last.amplitude * step.amplitude / 2, noise))
        return waves


def _estimate_angle(
    seen: _Seen,
    optics: Optics,
    angle: int,
    hint: tuple[float, float] | None,
    origin_px: tuple[float, float],
) -> FoundPattern:
    finest = 0 if seen.nonlinear else -1
    fine_um, peak = _vector(seen.zero, seen.higher[finest], optics, hint, angle)
    n = 1 if seen.nonlinear else len(seen.higher)
    waves = seen.waves((fine_um[0] / n, fine_um[1] / n), optics)
    for h, wave in enumerate(waves, start=1):
        if not abs(wave.mean) > MIN_MODULATION:
            raise CalibrationError(
                f"Wave {h} of angle {angle} has a modulation of {abs(wave.mean):.3f};"
                f" {MIN_MODULATION} is the least that can be reconstructed. Check polarisation and"
                " focus, or describe fewer harmonics."
            )
    parts = [(float(np.angle(w.mean)), min(abs(w.mean), 1.0)) for w in waves]
    strongest = max(abs(w.mean) for w in waves)
    (phase, modulation), overtones = parts[0], tuple(parts[1:])
    pattern = Pattern((fine_um[0] / n, fine_um[1] / n), phase, modulation, overtones)
    at_chip = pattern.seen_from((-origin_px[0], -origin_px[1]), optics.pixel_size_um)
    return FoundPattern(
        _wrapped(at_chip),
        peak,
        min(w.contrast_to_noise for w in waves),
        waves[-1].phase_spread_rad,
        strongest,
    )


def correlation_maps(
    raw: NDArray[Any],
    optics: Optics,
    order: Sequence[tuple[int, int]],
    *,
    steps_rad: Sequence[float],
    harmonics: int = 1,
    offset_adu: float = 100.0,
    lattice: bool = False,
    nonlinear: bool = False,
) -> list[Float]:
    """Return what the vector of each angle is looked for in, to be shown.

    Float32 (2y, 2x), zero frequency in the middle.
    """
    frames = conditioned(raw, offset_adu)
    maps = []
    steps = np.asarray(steps_rad, np.float64)
    for zero, higher in directions(frames, order, steps, harmonics, lattice):
        maps.append(
            np.fft.fftshift(
                correlate(*_both_whitened(zero, higher[0 if nonlinear else -1], optics))
            )
        )
    return maps


def _both_whitened(zero: Float, band: Complex, optics: Optics) -> tuple[Complex, Complex]:
    grid = optics.pixel_size_um, optics.cutoff_um
    return whitened(zero, *grid), whitened(band, *grid)


def _vector(
    zero: Float, band: Complex, optics: Optics, hint: tuple[float, float] | None, angle: int
) -> tuple[tuple[float, float], float]:
    """Vector of the finest wave in cycles/um and the height of its peak.

    Raises
    ------
    CalibrationError
        If there is none, or another that is nearly as high.
    """
    a, b = _both_whitened(zero, band, optics)
    power = correlate(a, b)
    annulus = SEARCH[0] * optics.cutoff_um, SEARCH[1] * optics.cutoff_um
    peak = find_peak(power, optics.pixel_size_um, annulus, near=hint)
    if peak.height < MIN_PEAK:
        raise NoPatternError(
            f"No pattern is found in angle {angle}: the best candidate stands {peak.height:.1f}"
            f" standard deviations above noise, {MIN_PEAK:g} are needed. Give more time points or"
            " light, and check the order, phases and optics."
        )
    if hint is None:
        _check_alone(peak, power, optics, angle)
    return refine(a, b, peak.k_um, optics.pixel_size_um), peak.height


def regress(
    zero: Float | Complex, band: Complex, k_um: tuple[float, float], optics: Optics
) -> Wave:
    """Regress `band` (t, y, x) on band 0 (t, y, x), given the wave's vector.

    Where the optics H show both, band(q + k) H(q) = m/2 e^(i phase) zero(q) H(q + k). Every
    frequency is weighted by the inverse of the noise that it brings, and the noise in the power of
    band 0, which would make modulations too small, is subtracted.
    """
    overlap = Overlap.of(zero.shape[1:], k_um, optics)
    spectra = scipy.fft.fft2(zero)
    noise = noise_power(spectra, optics)
    weight = 1 / (overlap.here**2 + overlap.there**2)
    amplitude, variance = [], []
    for spectrum, values in zip(spectra, band, strict=True):
        u = spectrum[overlap.place] * overlap.there
        v = overlap.moved_back(values) * overlap.here
        signal = np.sum(weight * (np.abs(u) ** 2 - noise * overlap.there**2), dtype=np.float64)
        s = np.sum(weight * np.conj(u) * v, dtype=np.complex128) / max(signal, 1e-30)
        rest = np.abs(weight * np.conj(u) * (v - s * u)) ** 2
        amplitude.append(2 * s)
        variance.append(4 * np.sum(rest, dtype=np.float64) / max(signal, 1e-30) ** 2)
    return Wave(np.array(amplitude), float(np.sqrt(np.mean(variance))))


@dataclass(frozen=True, slots=True)
class Overlap:
    """Frequencies that both band 0 and a moved band show well, away from the centres of both.

    Attributes
    ----------
    place : their indices (y, x) on the Fourier grid of a raw frame
    here, there : OTF at q, where band 0 is seen, and at q + k, where the moved band was recorded
    outwards : (|q + k| - |q|) / cutoff
    ramp : exp(-2 pi i k.r), (y, x), which moves the band back
    """

    place: tuple[NDArray[np.intp], ...]
    here: Float
    there: Float
    outwards: NDArray[np.float64]
    ramp: Complex

    @classmethod
    def of(cls, shape: tuple[int, ...], k_um: tuple[float, float], optics: Optics) -> Overlap:
        """Find them for frames of `shape` (y, x)."""
        grid = (shape[0], shape[1])
        here, there = optics.otf(grid), optics.otf(grid, k_um)
        r, moved = (
            radial_frequency(grid, optics.pixel_size_um),
            radial_frequency(grid, optics.pixel_size_um, k_um),
        )
        centre = _CENTRE * optics.cutoff_um
        place = np.nonzero((here > _MIN_OTF) & (there > _MIN_OTF) & (r > centre) & (moved > centre))
        outwards = (moved[place] - r[place]) / optics.cutoff_um
        y, x = (
            np.exp(-2j * np.pi * k * optics.pixel_size_um * np.arange(n))
            for k, n in zip(k_um, grid, strict=True)
        )
        return cls(place, here[place], there[place], outwards, np.outer(y, x).astype(np.complex64))

    def moved_back(self, band: Complex) -> Complex:
        """Spectrum of a band (y, x) at q + k, for every q of the overlap."""
        return np.asarray(scipy.fft.fft2(band * self.ramp)[self.place], np.complex64)


def noise_power(spectra: Complex, optics: Optics) -> float:
    """Power of the noise in spectra (t, y, x), read off at the edge of the optics' support."""
    power = radial_power(spectra, optics.pixel_size_um, optics.cutoff_um)
    return float(power[int(0.92 * len(power)) :].min())


def _wrapped(pattern: Pattern) -> Pattern:
    """Bring the phases to -pi .. pi."""

    def wrap(phase: float) -> float:
        return float(np.angle(np.exp(1j * phase)))

    overtones = tuple((wrap(phase), m) for phase, m in pattern.overtones)
    return Pattern(pattern.k_um, wrap(pattern.phase_rad), pattern.modulation, overtones)
