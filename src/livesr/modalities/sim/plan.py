"""What a linear SIM reconstruction does to every frame, worked out once.

Owns waves, separation weights, the places and weights of every band, and the transfer function that
the result has. Holds nothing of a frame and no buffer, computes with NumPy on the host, and never
changes: one plan serves any number of workspaces.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
from numpy.typing import NDArray

from livesr.base.errors import ConfigError
from livesr.modalities.sim.parameters import SIMParameters
from livesr.optics.illumination import Pattern, angle_major, unmixing
from livesr.optics.otf import apodisation as apodisation_window
from livesr.optics.otf import otf, radial_frequency

log = logging.getLogger(__name__)

Float = NDArray[np.float32]
Complex = NDArray[np.complex64]
Spectral = tuple[slice, slice]

LINEAR = 2
"""Pixels of the result per camera pixel, along each side, of linear SIM."""

BIN = 4
"""Pixels along each side that are summed before motion is measured.

Patterns average out, noise falls.
"""

# of the linear part; above, the order of the frames does not tell motion from pattern
_MAX_NOISE_GAIN = 2.5
_HAZE = 0.15  # of the cutoff: so near to the centre of a band there is light out of focus
_MIN_OTF = 0.05  # where bands are compared
# of band 0 in sectioned pictures: strength, and width at half of it in parts of the cutoff
_SECTIONING, _SECTIONING_FWHM = 0.999, 0.7


@dataclass(frozen=True, slots=True)
class Piece:
    """A rectangle of a band's spectrum and where it is added in the half spectrum of the result.

    Attributes
    ----------
    wave : whose band it is, None for band 0
    source, target : the rectangle in the band's spectrum and in the result's
    weight : float32 (rows, 2 columns), every value twice, for the real and the imaginary part; the
        latter is negative where the piece enters as its conjugate
    """

    wave: int | None
    source: Spectral
    target: Spectral
    weight: Float


@dataclass(frozen=True, slots=True)
class Overlap:
    """Where the band of a wave and band 0 show the same of the object.

    Attributes
    ----------
    shift : whole frequencies (y, x) by which the band is moved
    zero, band : OTF of band 0 and of the moved band, float32 (y, x) on the grid of a raw frame, 0
        where they are not to be compared
    """

    shift: tuple[int, int]
    zero: Float
    band: Float


@dataclass(frozen=True, slots=True)
class SIMPlan:
    """One reconstruction: which optics, patterns, order and weights.

    A wave is one sinus of the illumination. Large arrays are computed when they are asked for, so
    that the one who uses them holds them alone.

    Attributes
    ----------
    parameters : what it was made of
    order : (angle, phase) of each raw index
    angles : how many
    waves : of every angle in turn, fundamental first, phases referred to pixel (0, 0) of the frames
    signs : (waves,) -1 where a wave is described by -k
    weights : float64 (1 + 2 waves, n), mean band 0, then real and imaginary part of every band;
        one more row gives the change from the first to the last raw frame if `motion`
    motion : whether the order of the frames tells motion from patterns, and that was asked for
    """

    parameters: SIMParameters
    order: tuple[tuple[int, int], ...]
    angles: int
    waves: tuple[Pattern, ...]
    signs: NDArray[np.float64]
    weights: NDArray[np.float64]
    motion: bool

    @classmethod
    def of(
        cls, parameters: SIMParameters, patterns: Sequence[Pattern], *, motion: bool = False
    ) -> SIMPlan:
        """Work out how frames with these patterns, one per angle, are reconstructed.

        Raises
        ------
        ConfigError
            If the patterns, phases or order cannot be reconstructed, or the frames are tiny.
        """
        order, angles = parameters.raw_order(len(patterns)), len(patterns)
        phases = _checked_phases(patterns, order)
        _check_sampling(parameters)
        steps, harmonics = parameters.steps_rad(angles, phases), len(patterns[0].waves)
        # A band that moves towards positive kx lies almost wholly in the stored half of the
        # spectrum: turn the others.
        here = [p.seen_from(parameters.origin_px, parameters.pixel_size_um) for p in patterns]
        waves = [wave for pattern in here for wave in pattern.waves]
        signs = np.array([-1.0 if wave.k_um[1] > 0 else 1.0 for wave in waves])
        weights = _separation_weights(steps, order, harmonics)
        weights[2::2] *= signs[:, None]  # the band of -k is the conjugate of that of k
        change = motion_weights(_components(steps, order, harmonics)) if motion else None
        return cls(
            parameters,
            tuple(order),
            angles,
            tuple(w.reversed() if s < 0 else w for s, w in zip(signs, waves, strict=True)),
            signs,
            weights if change is None else np.vstack([weights, change]),
            change is not None,
        )

    @property
    def shape(self) -> tuple[int, int]:
        """Shape of the result: (2y, 2x), of nonlinear SIM larger."""
        (y, x), scale = self.parameters.shape, self.parameters.scale
        return scale * y, scale * x

    def taper(self) -> Float:
        """Window (y, x) that rises as sin^2 from the edges; 1 inside."""
        return np.asarray(np.outer(*(self._rise(n, 1) for n in self.parameters.shape)), np.float32)

    def fade(self) -> tuple[Float, Float]:
        """How bright rows (2y,) and columns (2x,) of the result are: the taper on its pixels."""
        y, x = (
            self._rise(n, self.parameters.scale).astype(np.float32) for n in self.parameters.shape
        )
        return y, x

    def _rise(self, n: int, scale: int) -> NDArray[np.float64]:
        """Return the window of a side of `n` camera pixels, on pixels `scale` times as fine."""
        at, fraction = np.arange(n * scale) / scale, self.parameters.taper
        inside = np.maximum(np.minimum(at + 0.5, n - at - 0.5), 0.0)
        rise = np.minimum(1.0, inside / (fraction * n)) if fraction > 0 else np.ones(len(at))
        return np.asarray(np.sin(rise * (np.pi / 2)) ** 2)

    def ramp(self, i: int, window: Float, vectors_um: NDArray[np.float64] | None = None) -> Complex:
        """Rest of the shift, phase, 1 / modulation and taper of the band of wave `i`, (y, x).

        Parameters
        ----------
        i : which wave
        window : the taper
        vectors_um : what is added to the vector (ky, kx) of every angle's fundamental, (angles, 2),
            in cycles/um. It turns the pattern about the middle of the frame, where its phase stays
        """
        wave, pixel = self.waves[i], self.parameters.pixel_size_um
        harmonics = len(self.waves) // self.angles
        moved_um = np.zeros(2)
        if vectors_um is not None:
            moved_um = self.signs[i] * (1 + i % harmonics) * vectors_um[i // harmonics]
        sides = []
        for k, moved, shift, n in zip(
            wave.k_um, moved_um, self._shift(wave), self.parameters.shape, strict=True
        ):
            turns = (k * pixel + shift / n) * np.arange(n) + moved * pixel * (
                np.arange(n) - (n - 1) / 2
            )
            sides.append(np.exp(-2j * np.pi * turns))
        factor = 2.0 / wave.modulation * np.exp(-1j * wave.phase_rad)
        return np.asarray(factor * np.outer(*sides) * window, np.complex64)

    def _shift(self, wave: Pattern) -> tuple[int, int]:
        """Whole frequencies (y, x) by which a band moves; the rest is in the ramp."""
        (height, width), pixel = self.parameters.shape, self.parameters.pixel_size_um
        return round(-wave.k_um[0] * pixel * height), round(-wave.k_um[1] * pixel * width)

    def transfer(self) -> Float:
        """Return what is done to the object, (2y, 2x), FFT order; 1 at zero frequency, less in a
        sectioned picture.
        """
        gain, power = self._gain()
        return gain * power

    def _gain(self) -> tuple[Float, Float]:
        """Return the common factor of all bands and their summed power, (2y, 2x) each.

        Their product is the transfer function.
        """
        given = self.parameters
        response, keep = self._band((0.0, 0.0))
        power = self.angles * response * response * keep
        reach = 0.0
        for wave in self.waves:
            reach = max(reach, float(np.hypot(*wave.k_um)))
            for sign in (1, -1):
                response, keep = self._band((sign * wave.k_um[0], sign * wave.k_um[1]))
                power += _band_weight(wave) * response * response * keep
        window = apodisation_window(
            self.shape,
            given.pixel_size_um / given.scale,
            given.cutoff_um + reach,
            given.apodisation,
        )
        w2 = np.float32(given.wiener**2)
        # What band 0 alone carries is missing in a sectioned picture, and is not made up for.
        at_zero = 1.0 if given.sectioning else float(power[0, 0] / (power[0, 0] + w2))
        return window / ((power + w2) * np.float32(at_zero)), power

    def _band(self, k_um: tuple[float, float]) -> tuple[Float, Float]:
        """OTF and attenuation of a band that was moved by -k, at the object's frequencies.

        (2y, 2x) each.
        """
        given = self.parameters
        grid = self.shape, given.pixel_size_um / given.scale
        response = otf(*grid, given.na, given.emission_um, offset_um=k_um, damping=given.damping)
        strength, fwhm_um = given.attenuation, given.attenuation_fwhm_um
        if given.sectioning and not any(k_um):
            strength, fwhm_um = _SECTIONING, _SECTIONING_FWHM * given.cutoff_um
        distance = radial_frequency(*grid, k_um) * (np.sqrt(8 * np.log(2)) / fwhm_um)
        keep = 1.0 - strength * np.exp(-0.5 * distance * distance)
        return response, np.asarray(keep, np.float32)

    def pieces(self) -> Iterator[Piece]:
        """Every rectangle that is added up to the half spectrum of the result."""
        gain, _ = self._gain()
        gain /= self.parameters.shape[0] * self.parameters.shape[1]
        response, keep = self._band((0.0, 0.0))
        yield from self._place(None, gain * response * keep * self.angles, (0, 0), 1)
        for i, wave in enumerate(self.waves):
            response, keep = self._band(wave.k_um)
            weight = gain * response * keep * np.float32(_band_weight(wave))
            for sign in (1, -1):
                yield from self._place(i, weight, self._shift(wave), sign)

    def _place(
        self, wave: int | None, weight: Float, shift: tuple[int, int], sign: int
    ) -> Iterator[Piece]:
        """Rectangles of one band, whose `weight` is on the object's grid.

        Sign -1 gives those of its conjugate, which completes the half spectrum.
        """
        (height, width), support = self.parameters.shape, self.parameters.support
        fine_y, fine_x = self.shape
        rows = list(_runs(support[0], shift[0], (height, fine_y), sign, positive=False))
        columns = list(_runs(support[1], shift[1], (width, fine_x), sign, positive=True))
        for (from_y, to_y), (from_x, to_x) in product(rows, columns):
            # The conjugate takes its values from the mirrored place.
            values = weight[_mirrored(to_y, weight.shape[0], sign), :][
                :, _mirrored(to_x, weight.shape[1], sign)
            ]
            twice = np.stack([values, sign * values], axis=-1).reshape(len(values), -1)
            yield Piece(wave, (from_y, from_x), (to_y, to_x), twice)

    def overlaps(self) -> Iterator[Overlap]:
        """Where every fundamental's band can be compared with band 0, and every overtone's; those
        of nonlinear SIM lie beyond what both show.
        """
        every = 1 if self.parameters.scale == LINEAR else len(self.waves) // self.angles
        for wave in self.waves[::every]:
            shift, zero = self._shift(wave), self._comparable((0.0, 0.0))
            rows, columns = map(_held, shift, self.parameters.support, self.parameters.shape)
            yield Overlap(shift, zero * rows[:, None] * columns, self._comparable(wave.k_um))

    def _comparable(self, k_um: tuple[float, float]) -> Float:
        """OTF of a band that was moved by -k on the grid of a raw frame, (y, x).

        0 where it is small, and near the centre of the band, which holds haze.
        """
        given = self.parameters
        grid = given.shape, given.pixel_size_um
        response = otf(*grid, given.na, given.emission_um, offset_um=k_um, damping=given.damping)
        far = radial_frequency(*grid, k_um) > _HAZE * given.cutoff_um
        return np.where((response > _MIN_OTF) & far, response, np.float32(0))


def _held(shift: int, support: int, size: int) -> NDArray[np.bool_]:
    """Frequencies of an axis that the raw spectra of band 0 and of a moved band hold.

    What a raw spectrum does not hold is not compared: its rows and columns are only transformed
    inside the support. Nor are the axes through each band's centre, along which the faded edges
    spread the strong low frequencies.
    """
    index = np.fft.fftfreq(size, 1 / size)
    inside = (np.abs(index) <= support) & (np.abs(index - shift) <= support)
    return np.asarray(inside & (index != 0) & (index != shift), np.bool_)


def _runs(
    support: int, shift: int, sizes: tuple[int, int], sign: int, positive: bool
) -> Iterator[tuple[slice, slice]]:
    """Split the map frequency f -> sign (f + shift) along one axis into runs that are slices on
    both sides.

    Parameters
    ----------
    support : the map covers -support <= f <= support of a raw spectrum
    shift : whole number of frequencies by which the band moves
    sizes : length of the raw axis and of that of the result. Both are in FFT order
    sign : -1 for the conjugate, which lands point-mirrored
    positive : keep only targets >= 0: the axis of which half a spectrum is stored
    """
    frequency = np.arange(-support, support + 1)
    moved, (size, fine) = sign * (frequency + shift), sizes
    highest = (fine - 1) // 2
    keep = (moved >= (0 if positive else -highest)) & (moved <= highest)
    source, target = frequency[keep] % size, moved[keep] % fine
    if not source.size:
        return
    breaks = np.flatnonzero((np.diff(source) != 1) | (np.diff(target) != sign)) + 1
    for s, t in zip(np.split(source, breaks), np.split(target, breaks), strict=True):
        end = int(t[-1]) + sign
        yield slice(int(s[0]), int(s[-1]) + 1), slice(int(t[0]), end if end >= 0 else None, sign)


def _band_weight(wave: Pattern) -> float:
    """Weight of a band relative to band 0.

    The square of its amplitude m/2, which is its share of the signal's power.

    Gustafsson's generalised Wiener filter: it gains most from the bands that carry most signal over
    the same noise.
    """
    return wave.modulation**2 / 4


def _mirrored(target: slice, size: int, sign: int) -> NDArray[np.intp]:
    """Grid indices of the frequencies that land on `target`."""
    return (sign * np.arange(size)[target]) % size


def _check_sampling(parameters: SIMParameters) -> None:
    if min(parameters.support) < 1:
        raise ConfigError(
            f"raw frames of {parameters.shape} pixels are too small to reconstruct; use a larger"
            " ROI"
        )
    if parameters.pixel_size_um * parameters.cutoff_um > 0.5:
        log.warning(
            "pixels of %.1f nm undersample the OTF (cutoff %.2f cycles/um needs %.1f nm): expect"
            " aliasing",
            1e3 * parameters.pixel_size_um,
            parameters.cutoff_um,
            500 / parameters.cutoff_um,
        )


def _checked_phases(patterns: Sequence[Pattern], order: Sequence[tuple[int, int]]) -> int:
    """Return the number of phases per angle, after checking that patterns and order fit
    together.
    """
    if not patterns or not all(w.modulation > 0 for p in patterns for w in p.waves):
        raise ConfigError(
            "SIM needs at least one pattern, each with a modulation above 0; calibrate the rig"
            " first"
        )
    if len({len(p.waves) for p in patterns}) > 1:
        raise ConfigError(
            "every pattern must have as many waves as the first; calibrate the rig again"
        )
    phases, least = len(order) // len(patterns), 2 * len(patterns[0].waves) + 1
    if sorted(order) != angle_major(len(patterns), phases) or phases < least:
        raise ConfigError(
            f"order has {len(order)} entries {list(order)}; it must name each (angle, phase) of"
            f" {len(patterns)} angles and at least {least} phases once"
        )
    return phases


def _components(
    steps_rad: NDArray[np.float64], order: Sequence[tuple[int, int]], harmonics: int
) -> NDArray[np.float64]:
    """Cosine and sine of every wave in every raw frame, (n, 2 waves)."""
    turns = np.array([[h * steps_rad[a, p] for h in range(1, harmonics + 1)] for a, p in order])
    shown = np.zeros((len(order), len(steps_rad), 2 * harmonics))
    for raw, (angle, _) in enumerate(order):
        shown[raw, angle] = np.concatenate([np.cos(turns[raw]), np.sin(turns[raw])])
    return shown.reshape(len(order), -1)


def motion_weights(waves: NDArray[np.float64]) -> NDArray[np.float64] | None:
    """Weights (n,) that give what changed from the first to the last raw frame, whatever the
    patterns did.

    Parameters
    ----------
    waves : every real component of the patterns in the raw frames, in the order in which they are
        exposed: (n, components)

    Returns
    -------
    NDArray[np.float64] or None
        None where the order does not tell motion from patterns without much noise.
    """
    time = np.linspace(-0.5, 0.5, len(waves))
    model = np.column_stack([time, np.ones(len(waves)), waves])
    weights = np.asarray(np.linalg.pinv(model)[0], np.float64)
    known = abs(weights @ time - 1) < 1e-6 and np.linalg.norm(weights) < _MAX_NOISE_GAIN
    return weights if known else None


def _separation_weights(
    steps_rad: NDArray[np.float64], order: Sequence[tuple[int, int]], harmonics: int
) -> NDArray[np.float64]:
    """Real weights (1 + 2 waves, n).

    Mean band 0, then real and imaginary part of every band, angle by angle.
    """
    angles = len(steps_rad)
    weights = np.zeros((1 + 2 * angles * harmonics, len(order)))
    try:
        unmixed = [unmixing(steps, harmonics) for steps in steps_rad]
    except ValueError as e:
        raise ConfigError(str(e)) from e
    for raw, (angle, phase) in enumerate(order):
        zero, *higher = unmixed[angle][:, phase]
        weights[0, raw] = zero.real / angles
        for h, band in enumerate(higher):
            row = 1 + 2 * (angle * harmonics + h)
            weights[row, raw], weights[row + 1, raw] = band.real, band.imag
    return weights
