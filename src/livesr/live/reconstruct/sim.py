"""Linear SIM of one plane: the raw frames of one time point become one picture of twice the resolution and twice the pixels.

Owns the reconstruction with known patterns and the transfer function that it applies to the object. Does not estimate
patterns; whether a frame shows them, `quality.py` decides. Touches no camera, queue or configuration file.

A frame goes through five steps, each one method of `SIMReconstructor`, in this order::

    raw (n, y, x) --separate--> band 0 (y, x) real, one band per wave (y, x) complex
                  --transform-> their spectra, only inside the OTF's support
                  --assemble--> weighted, moved to where they belong, added up: half a spectrum (2y, x + 1)
                  --invert----> picture (2y, 2x)

Method: Gustafsson 2000, J. Microscopy 198, 82; generalised Wiener weights as in Gustafsson et al. 2008, Biophysical J.
94, 4957; attenuation of the centre as in fairSIM (Mueller et al. 2016, Nature Communications 7, 10980).
A wave is one sinus of the illumination: one per angle in 2D-SIM and TIRF-SIM, two (k and 2 k) where three beams interfere.
What makes it fast: band -1 is the conjugate of band +1 and never computed; sub-pixel shift, phase, modulation and taper
are one precomputed ramp; moving by whole frequencies is slicing.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
import scipy.fft
from numpy.typing import NDArray

from livesr.base.errors import ConfigError, FrameShapeError
from livesr.base.frames import FrameQuality, Judgement
from livesr.live.reconstruct.pattern_drift import PatternDrift
from livesr.live.reconstruct.quality import BIN, PatternCheck, Trust, motion_px, motion_weights
from livesr.live.reconstruct.reconstructor import DoubtfulFrameError, RawFrames
from livesr.optics.illumination import Pattern, angle_major, equal_steps, unmixing
from livesr.optics.otf import apodisation as apodisation_window
from livesr.optics.otf import cutoff_um, otf, radial_frequency

log = logging.getLogger(__name__)

Float = NDArray[np.float32]
Complex = NDArray[np.complex64]

SCALE = 2
# Rows a power of two apart share cache sets: transforms along y run 1.8 times as fast with this many more elements.
_PAD = 8
# Small enough for the L2 cache, and below the size at which BLAS starts threads of its own.
_STRIP_PX = 8192


@dataclass(frozen=True, slots=True)
class _Optics:
    """Detection and weighting, evaluated on the grid of the result."""

    shape: tuple[int, int]
    pixel_size_um: float
    na: float
    emission_um: float
    damping: float
    attenuation: float
    attenuation_fwhm_um: float

    @property
    def cutoff_um(self) -> float:
        return cutoff_um(self.na, self.emission_um)

    def band(self, k_um: tuple[float, float]) -> tuple[Float, Float]:
        """OTF and attenuation of a band that was moved by -k, at the object's frequencies; (2y, 2x) each."""
        grid = (SCALE * self.shape[0], SCALE * self.shape[1]), self.pixel_size_um / SCALE
        response = otf(*grid, self.na, self.emission_um, offset_um=k_um, damping=self.damping)
        sigma = self.attenuation_fwhm_um / np.sqrt(8 * np.log(2))
        distance = radial_frequency(*grid, k_um) / sigma
        keep = 1.0 - self.attenuation * np.exp(-0.5 * distance * distance)
        return response, keep.astype(np.float32)

    def support(self) -> tuple[int, int]:
        """Largest frequency index (y, x) of a raw frame at which the OTF is not 0."""
        y, x = (min(int(self.cutoff_um * n * self.pixel_size_um), (n - 1) // 2) for n in self.shape)
        return y, x


@dataclass(frozen=True, slots=True)
class _Piece:
    """A rectangle of a band's spectrum and where it is added in the half spectrum of the result.

    Source, scratch and target are views of buffers that live as long as the reconstructor; `addend` is scratch seen as
    complex numbers. `weight` holds every value twice, for the real and the imaginary part, the latter negative where the
    piece enters as its conjugate: a float32 product is several times as fast as complex times real.
    """

    source: Float
    weight: Float
    scratch: Float
    addend: Complex
    target: Complex

    def add(self) -> None:
        np.multiply(self.source, self.weight, out=self.scratch)
        np.add(self.target, self.addend, out=self.target)


def _phase_steps(
    given: Sequence[float] | Sequence[Sequence[float]] | None, angles: int, phases: int
) -> NDArray[np.float64]:
    """Phase steps in radians, float64 (angles, phases); equal parts of a turn if none are given."""
    steps = equal_steps(phases) if given is None else np.asarray(given, np.float64)
    if steps.shape not in {(phases,), (angles, phases)}:
        raise ConfigError(f"phase_steps_rad has shape {steps.shape}, expected ({phases},) or ({angles}, {phases})")
    return np.broadcast_to(steps, (angles, phases))


def _taper(shape: tuple[int, int], fraction: float) -> Float:
    """Window (y, x) that rises as sin^2 from the edges over `fraction` of each side; 1 inside."""
    sides = []
    for n in shape:
        inside = np.minimum(np.arange(n) + 0.5, n - np.arange(n) - 0.5)
        rise = np.minimum(1.0, inside / (fraction * n)) if fraction > 0 else np.ones(n)
        sides.append(np.sin(rise * (np.pi / 2)) ** 2)
    return np.asarray(np.outer(*sides), np.float32)


def _runs(support: int, shift: int, size: int, sign: int, positive: bool) -> Iterator[tuple[slice, slice]]:
    """Split the map frequency f -> sign (f + shift) along one axis into runs that are slices on both sides.

    Parameters
    ----------
    support
        The map covers -support <= f <= support of a raw spectrum.
    shift
        Whole number of frequencies by which the band moves.
    size
        Length of the raw axis; the result has twice as many. Both are in FFT order.
    sign
        -1 for the conjugate, which lands point-mirrored.
    positive
        Keep only targets >= 0: the axis of which half a spectrum is stored.
    """
    frequency = np.arange(-support, support + 1)
    moved = sign * (frequency + shift)
    keep = (moved >= (0 if positive else 1 - size)) & (moved <= size - 1)
    source, target = frequency[keep] % size, moved[keep] % (SCALE * size)
    if not source.size:
        return
    breaks = np.flatnonzero((np.diff(source) != 1) | (np.diff(target) != sign)) + 1
    for s, t in zip(np.split(source, breaks), np.split(target, breaks), strict=True):
        end = int(t[-1]) + sign
        yield slice(int(s[0]), int(s[-1]) + 1), slice(int(t[0]), end if end >= 0 else None, sign)


class SIMReconstructor:
    """Linear SIM with known patterns; one instance per stream and thread.

    Parameters
    ----------
    shape
        Raw frame (y, x).
    pixel_size_um
        Camera pixel in the sample, at most wavelength / (4 NA) or the raw frames alias. Pixel (2i, 2j) of the result
        lies on the centre of raw pixel (i, j).
    na, emission_um
        Detection: numerical aperture and emission wavelength.
    patterns
        One per angle, with its phase at the chip's origin, and its overtones if three beams or more interfere.
    phase_steps_rad
        What each exposure adds to its pattern's phase: `phases` values for all angles, or one such sequence per angle.
        Equal parts of a turn if None. At least three phases, five with one overtone; more are used by least squares.
    order
        (angle, phase) of each raw index; angle-major with three phases if None.
    offset_adu
        Level of a dark camera frame.
    wiener
        Regularisation w in sum |a OTF|^2 + w^2, where a is 1 for band 0 of an angle and m/2 for a wave's band: more is
        smoother and less sharp. 0.1 suits good light, 0.2 dim samples (real beads: 106 and 121 nm, widefield 214 nm).
    attenuation, attenuation_fwhm_um
        Strength (0 to < 1) and width in cycles/um with which the centre of every band is suppressed, where
        out-of-focus light and the pattern's residue sit.
    apodisation
        Exponent of the cosine that closes the spectrum at the extended cutoff.
    taper
        Fraction of each side over which the raw frames fade to 0, against the periodicity of the Fourier transform.
        The result fades likewise.
    origin_px
        First pixel (y, x) of the frames on the chip, in pixels of `pixel_size_um`.
    equalise
        Scale every raw frame by one number so that all have the same mean above the offset, which takes out bleaching
        and flicker within a group. Right for live pictures; the method is then no longer linear in the frames, so
        switch it off for tests of linearity and for computing training targets.
    damping
        Factor of the OTF at its cutoff, see `livesr.optics.otf.otf`.
    trust
        When a frame is doubtful and what then happens; None reconstructs every frame and measures nothing.
    follow
        With `trust`: correct phases that drift, between frames (see `pattern_drift.py`).

    Attributes
    ----------
    judgement : of the last frame, None without `trust`

    Raises
    ------
    ConfigError
        If the patterns, phases or order cannot be reconstructed.

    Notes
    -----
    Linear in the frames (unless `equalise`), and the gain at zero frequency is 1: away from the tapered edges the mean
    of the result is the mean of the raw frames above the offset.

    Memory: everything is allocated here. Per frame, scipy.fft has no output argument for real transforms, so two arrays
    are allocated and freed or handed away: the spectrum of band 0 along x, and the result itself.
    """

    scale = SCALE

    def __init__(
        self,
        shape: tuple[int, int],
        pixel_size_um: float,
        na: float,
        emission_um: float,
        patterns: Sequence[Pattern],
        *,
        phase_steps_rad: Sequence[float] | Sequence[Sequence[float]] | None = None,
        order: Sequence[tuple[int, int]] | None = None,
        offset_adu: float = 100.0,
        wiener: float = 0.1,
        attenuation: float = 0.9,
        attenuation_fwhm_um: float = 1.2,
        apodisation: float = 1.0,
        taper: float = 0.06,
        origin_px: tuple[float, float] = (0.0, 0.0),
        equalise: bool = True,
        damping: float = 1.0,
        trust: Trust | None = None,
        follow: bool = False,
    ) -> None:
        order = angle_major(len(patterns), 3) if order is None else [(a, p) for a, p in order]
        phases = _checked_phases(patterns, order)
        self._raw_shape = shape
        self._offset_adu, self._equalise = offset_adu, equalise
        self._wiener, self._apodisation = wiener, apodisation
        self._optics = _Optics(shape, pixel_size_um, na, emission_um, damping, attenuation, attenuation_fwhm_um)
        self._check_sampling()
        steps = _phase_steps(phase_steps_rad, len(patterns), phases)
        # A band that moves towards positive kx lies almost wholly in the stored half of the spectrum: turn the others.
        turn = np.array([-1.0 if p.k_um[1] > 0 else 1.0 for p in patterns])
        here = [p.seen_from(origin_px, pixel_size_um) for p in patterns]
        self._angles = len(patterns)
        self._waves = [w for t, p in zip(turn, here, strict=True) for w in (p.reversed() if t < 0 else p).waves]
        self._weights = _separation_weights(steps * turn[:, None], order, len(patterns[0].waves))
        self._trust, self._follow = trust, follow
        self._turned = np.repeat(turn, len(patterns[0].waves))
        self._drift = PatternDrift(len(self._waves))
        self._drifted_to: NDArray[np.float64] | None = None
        self.judgement: Judgement | None = None
        self._motion = motion_weights(_components(steps, order, len(patterns[0].waves))) if trust else None
        self._allocate(_taper(shape, taper))
        self._pieces = list(self._plan())
        self._check_of = PatternCheck(shape, list(self._overlaps())) if trust else None

    @property
    def shape(self) -> tuple[int, int]:
        """Shape (2y, 2x) of the result."""
        return SCALE * self._raw_shape[0], SCALE * self._raw_shape[1]

    @property
    def memory_bytes(self) -> int:
        """Bytes held by the instance plus what one call needs for a moment, the result included."""
        owned = (self._window, self._ramps, self._raw, self._planes, self._mean, self._bands, self._half, self._sum)
        weights = sum(piece.weight.nbytes for piece in self._pieces)
        result = 4 * self.shape[0] * self.shape[1]
        return sum(_base_bytes(a) for a in owned) + weights + self._scratch.nbytes + result + 2 * self._mean.nbytes

    @property
    def transfer(self) -> Float:
        """What the reconstruction does to the object: float32 (2y, 2x), FFT order, 1 at zero frequency.

        Away from the tapered edges, the reconstruction of a noise-free raw stack is ``ifft2(transfer * fft2(object))``,
        with the object sampled on the grid of the result. Computed on every access.
        """
        gain, power = self._gain()
        return gain * power

    def reconstruct(self, frames: RawFrames, out: Float | None = None) -> Float:
        """Reconstruct one time point.

        Parameters
        ----------
        frames
            Raw frames in raw-index order, uint8, uint16 or corrected float32 (y, x); only read.
        out
            Picture to fill, float32 (2y, 2x). If None a new one is handed away, which is the faster way.

        Returns
        -------
        NDArray[np.float32]
            (2y, 2x) in ADU above the offset, per raw pixel; slightly negative beside bright structures.

        Raises
        ------
        FrameShapeError
            If the number of frames or the shape of one is not what the constructor was told.
        DoubtfulFrameError
            If `trust` says to refuse doubtful frames and this is one.
        """
        self._check(frames)
        if self._drifted_to is not None:
            log.info("pattern phases are corrected by %s rad", np.round(self._drifted_to * self._turned, 3))
            self.correct_drift(self._drifted_to * self._turned)
        self._separate(frames, self._frame_weights(frames))
        self._transform()
        if self._trust and (doubt := self._judge(self._trust)):
            if self._trust.then == "refuse":
                raise DoubtfulFrameError(doubt)
            if self._trust.then == "widefield":
                return self.widefield(frames, out)
        self._assemble()
        return self._invert(out)

    def widefield(self, frames: RawFrames, out: Float | None = None) -> Float:
        """Average the raw frames and upsample them to the grid of the result, without gain in resolution.

        The patterns of an angle add up to uniform light. Interpolated in Fourier space, cut at the OTF's support; for
        comparison, and when the pattern cannot be trusted. Parameters and errors as in `reconstruct`.
        """
        self._check(frames)
        self._mean.fill(-self._offset_adu * len(frames))
        for frame in frames:
            np.add(self._mean, frame, out=self._mean)
        self._transform_mean()
        y, x = self._optics.support()
        self._sum.fill(0)
        scale = np.float32(1 / (len(frames) * self._mean.size))
        np.multiply(self._half[: y + 1], scale, out=self._sum[: y + 1, : x + 1])
        np.multiply(self._half[-y:], scale, out=self._sum[-y:, : x + 1])
        return self._invert(out)

    def _judge(self, trust: Trust) -> str:
        """Measure the frame whose bands were just transformed; return what is doubtful about it."""
        assert self._check_of is not None
        slopes, contrasts = self._check_of.measure(self._half, self._bands)
        errors, contrast = np.angle(slopes), float(contrasts.min())
        quality = FrameQuality(contrast, float(np.abs(slopes).min()), float(np.abs(errors).max()), self._motion_nm())
        doubt = trust.doubt(quality)
        self.judgement = Judgement(quality, doubt, not doubt or trust.then == "reconstruct", self.pattern_drift_rad)
        if self._follow and not doubt and (total := self._drift.add(errors, contrast)) is not None:
            self._drifted_to = total
        return doubt

    @property
    def pattern_drift_rad(self) -> tuple[float, ...]:
        """By how much the phase of every wave is corrected now, angle by angle."""
        return tuple(round(float(d), 6) for d in self._drift.total_rad * self._turned)

    def correct_drift(self, drift_rad: Sequence[float]) -> None:
        """Reconstruct the frames that follow with phases corrected by `drift_rad`, as `pattern_drift_rad` was for them."""
        total = np.asarray(drift_rad, np.float64) * self._turned if len(drift_rad) else np.zeros(len(self._waves))
        step = total - self._drift.total_rad
        if np.any(step):
            self._ramps *= np.exp(-1j * step).astype(np.complex64)[:, None, None]
        self._drift.set(total)
        self._drifted_to = None

    def _motion_nm(self) -> float | None:
        if self._motion is None:
            return None
        return 1e3 * BIN * self._optics.pixel_size_um * motion_px(*self._coarse)

    # -- the frame loop ---------------------------------------------------------------------------------------------

    def _check(self, frames: RawFrames) -> None:
        expected = self._weights.shape[1]
        if len(frames) != expected:
            raise FrameShapeError(f"{len(frames)} raw frames came for one time point, the SIM order has {expected}")
        for frame in frames:
            if frame.shape != self._raw_shape:
                raise FrameShapeError(f"raw frame is {frame.shape}, this reconstruction expects {self._raw_shape}")

    def _frame_weights(self, frames: RawFrames) -> Float:
        """Weights (bands, n + 1) of this time point; the last column subtracts the offset."""
        level = np.array([_total(frame) for frame in frames]) / self._mean.size - self._offset_adu
        weights = self._weights
        if self._equalise and level.min() > 0:
            weights = weights * (level.mean() / level)
        return np.column_stack([weights, -self._offset_adu * weights.sum(axis=1)]).astype(np.float32)

    def _separate(self, frames: RawFrames, weights: Float) -> None:
        """Frames -> tapered band 0 and ramped bands +1, strip by strip so that a strip stays in the cache."""
        height, width = self._raw_shape
        rows = self._raw.shape[1] // width
        waves = 1 + 2 * len(self._waves)
        for top in range(0, height, rows):
            strip = slice(top, min(top + rows, height))
            n = (strip.stop - top) * width
            for row, frame in zip(self._raw, frames, strict=False):
                np.copyto(row[:n], frame[strip].reshape(-1))
            planes = np.matmul(weights, self._raw[:, :n], out=self._planes[:, :n])
            planes = planes.reshape(len(weights), -1, width)
            np.multiply(planes[0], self._window[strip], out=self._mean[strip])
            bands = self._bands[:, strip]
            bands.real, bands.imag = planes[1:waves:2], planes[2:waves:2]
            np.multiply(bands, self._ramps[:, strip], out=bands)
            if self._motion is not None:
                self._bin(planes, top // BIN)

    def _bin(self, planes: Float, top: int) -> None:
        """Sum mean and change of a strip over squares of `BIN` pixels; what does not fill a square is left out."""
        rows, columns = planes.shape[1] // BIN, planes.shape[2] // BIN
        if rows:
            ends = planes[:: len(planes) - 1, : rows * BIN, : columns * BIN]
            along_y = ends.reshape(2, rows, BIN, -1).sum(axis=2)
            self._coarse[:, top : top + rows] = along_y.reshape(2, rows, columns, BIN).sum(axis=3)

    def _transform(self) -> None:
        """Bands -> spectra in place; along y only the columns that the OTF passes."""
        self._transform_mean()
        x = self._optics.support()[1]
        scipy.fft.fft(self._bands, axis=2, overwrite_x=True)
        for columns in (self._bands[:, :, : x + 1], self._bands[:, :, -x:]):
            scipy.fft.fft(columns, axis=1, overwrite_x=True)

    def _transform_mean(self) -> None:
        self._half[:] = scipy.fft.rfft(self._mean, axis=1)[:, : self._half.shape[1]]
        scipy.fft.fft(self._half, axis=0, overwrite_x=True)

    def _assemble(self) -> None:
        """Spectra -> weighted sum at the object's frequencies."""
        self._sum.fill(0)
        for piece in self._pieces:
            piece.add()

    def _invert(self, out: Float | None) -> Float:
        """Half spectrum -> picture; along y only the columns that can be filled."""
        scipy.fft.ifft(self._sum[:, : self._columns], axis=0, norm="forward", overwrite_x=True)
        picture: Float = scipy.fft.irfft(self._sum, n=self.shape[1], axis=1, norm="forward", overwrite_x=True)
        if out is None:
            return picture
        np.copyto(out, picture)
        return out

    # -- what is prepared once --------------------------------------------------------------------------------------

    def _check_sampling(self) -> None:
        optics = self._optics
        if min(optics.support()) < 1:
            raise ConfigError(f"raw frames of {self._raw_shape} pixels are too small to reconstruct; use a larger ROI")
        if optics.pixel_size_um * optics.cutoff_um > 0.5:
            log.warning(
                "pixels of %.1f nm undersample the OTF (cutoff %.2f cycles/um needs %.1f nm): expect aliasing",
                1e3 * optics.pixel_size_um,
                optics.cutoff_um,
                500 / optics.cutoff_um,
            )

    def _allocate(self, window: Float) -> None:
        height, width = self._raw_shape
        waves, raws = len(self._waves), self._weights.shape[1]
        rows = min(height, max(1, _STRIP_PX // width // BIN) * BIN)
        if self._motion is not None:
            self._weights = np.vstack([self._weights, self._motion])
            self._coarse = np.zeros((2, height // BIN, width // BIN), np.float32)
        self._window = window
        self._ramps = np.stack([self._ramp(w) for w in self._waves])
        self._raw = np.ones((raws + 1, rows * width), np.float32)
        self._planes = np.empty((len(self._weights), rows * width), np.float32)
        self._mean = np.empty(self._raw_shape, np.float32)
        self._bands = np.empty((waves, height, width + _PAD), np.complex64)[:, :, :width]
        self._half = np.empty((height, self._optics.support()[1] + 1 + _PAD), np.complex64)[:, :-_PAD]
        self._sum = np.zeros((SCALE * height, width + 1 + _PAD), np.complex64)[:, : width + 1]
        self._scratch = np.empty(2 * height * width, np.float32)

    def _overlaps(self) -> Iterator[tuple[tuple[int, int], Float, Float]]:
        """Describe every wave to `PatternCheck`; the centres of the bands hold haze and are left out."""
        optics, near = self._optics, 0.15 * self._optics.cutoff_um
        grid = optics.shape, optics.pixel_size_um
        support = optics.support()
        for wave in self._waves:
            responses = []
            for k in ((0.0, 0.0), wave.k_um):
                response = otf(*grid, optics.na, optics.emission_um, offset_um=k, damping=optics.damping)
                responses.append(np.where((response > 0.05) & (radial_frequency(*grid, k) > near), response, 0))
            # What a raw spectrum does not hold is not compared: its rows and columns are only transformed inside the support.
            for axis, (shift, reach) in enumerate(zip(self._whole_shift(wave), support, strict=True)):
                index = np.fft.fftfreq(optics.shape[axis], 1 / optics.shape[axis])
                # The faded edges spread the strong low frequencies along the axes through each band's centre.
                held = (np.abs(index) <= reach) & (np.abs(index - shift) <= reach) & (index != 0) & (index != shift)
                responses[0] *= held[:, None] if axis == 0 else held
            yield self._whole_shift(wave), responses[0], responses[1]

    def _whole_shift(self, wave: Pattern) -> tuple[int, int]:
        """Whole frequencies (y, x) by which a band moves; the rest is in the ramp."""
        (height, width), pixel = self._raw_shape, self._optics.pixel_size_um
        return round(-wave.k_um[0] * pixel * height), round(-wave.k_um[1] * pixel * width)

    def _ramp(self, wave: Pattern) -> Complex:
        """Complex (y, x): rest of the shift, phase, 1/modulation and taper."""
        sides = []
        for k, shift, n in zip(wave.k_um, self._whole_shift(wave), self._raw_shape, strict=True):
            rest = k * self._optics.pixel_size_um + shift / n
            sides.append(np.exp(-2j * np.pi * rest * np.arange(n)))
        factor = 2.0 / wave.modulation * np.exp(-1j * wave.phase_rad)
        return np.asarray(factor * np.outer(*sides) * self._window, np.complex64)

    def _gain(self) -> tuple[Float, Float]:
        """Return the common factor of all bands and their summed power, (2y, 2x) each; their product is `transfer`."""
        optics = self._optics
        response, keep = optics.band((0.0, 0.0))
        power = self._angles * response * response * keep
        reach = 0.0
        for wave in self._waves:
            reach = max(reach, float(np.hypot(*wave.k_um)))
            for sign in (1, -1):
                response, keep = optics.band((sign * wave.k_um[0], sign * wave.k_um[1]))
                power += _band_weight(wave) * response * response * keep
        window = apodisation_window(
            self.shape, optics.pixel_size_um / SCALE, optics.cutoff_um + reach, self._apodisation
        )
        w2 = np.float32(self._wiener**2)
        at_zero = power[0, 0] / (power[0, 0] + w2)
        return window / ((power + w2) * at_zero), power

    def _plan(self) -> Iterator[_Piece]:
        """Every rectangle that `_assemble` adds."""
        gain, _ = self._gain()
        gain /= self._mean.size
        self._columns = 0
        response, keep = self._optics.band((0.0, 0.0))
        yield from self._place(self._half, gain * response * keep * self._angles, (0, 0), 1)
        for band, wave in zip(self._bands, self._waves, strict=True):
            response, keep = self._optics.band(wave.k_um)
            weight = gain * response * keep * np.float32(_band_weight(wave))
            for sign in (1, -1):
                yield from self._place(band, weight, self._whole_shift(wave), sign)

    def _place(self, band: Complex, weight: Float, shift: tuple[int, int], sign: int) -> Iterator[_Piece]:
        """Rectangles of one band; sign -1 gives those of its conjugate, which completes the half spectrum."""
        support = self._optics.support()
        rows = list(_runs(support[0], shift[0], self._raw_shape[0], sign, positive=False))
        columns = list(_runs(support[1], shift[1], self._raw_shape[1], sign, positive=True))
        for (from_y, to_y), (from_x, to_x) in product(rows, columns):
            target = self._sum[to_y, to_x]
            self._columns = max(self._columns, to_x.start + 1, to_x.start + sign * (target.shape[1] - 1) + 1)
            # `weight` is on the object's grid; the conjugate takes its values from the mirrored place.
            values = weight[_mirrored(to_y, weight.shape[0], sign), :][:, _mirrored(to_x, weight.shape[1], sign)]
            scratch = self._scratch[: 2 * target.size].reshape(target.shape[0], -1)
            yield _Piece(
                source=band[from_y, from_x].view(np.float32),
                weight=np.stack([values, sign * values], axis=-1).reshape(scratch.shape),
                scratch=scratch,
                addend=scratch.view(np.complex64),
                target=target,
            )


def _total(frame: NDArray[Any]) -> float:
    """Sum of a frame; of whole numbers row by row in 32 bit, which is several times as fast."""
    if frame.dtype.kind == "f":
        return float(frame.sum(dtype=np.float64))
    return float(frame.sum(axis=1, dtype=np.uint32).sum(dtype=np.uint64))


def _band_weight(wave: Pattern) -> float:
    """Weight of a band relative to band 0: the square of its amplitude m/2, which is its share of the signal's power.

    Gustafsson's generalised Wiener filter: it gains most from the bands that carry most signal over the same noise.
    """
    return wave.modulation**2 / 4


def _mirrored(target: slice, size: int, sign: int) -> NDArray[np.intp]:
    """Grid indices of the frequencies that land on `target`."""
    return (sign * np.arange(size)[target]) % size


def _base_bytes(array: NDArray[np.generic]) -> int:
    return array.nbytes if array.base is None else array.base.nbytes


def _checked_phases(patterns: Sequence[Pattern], order: Sequence[tuple[int, int]]) -> int:
    """Return the number of phases per angle, after checking that patterns and order fit together."""
    if not patterns or not all(w.modulation > 0 for p in patterns for w in p.waves):
        raise ConfigError("SIM needs at least one pattern, each with a modulation above 0; calibrate the rig first")
    if len({len(p.waves) for p in patterns}) > 1:
        raise ConfigError("every pattern must have as many waves as the first; calibrate the rig again")
    phases, least = len(order) // len(patterns), 2 * len(patterns[0].waves) + 1
    if sorted(order) != angle_major(len(patterns), phases) or phases < least:
        raise ConfigError(
            f"order has {len(order)} entries {list(order)}; it must name each (angle, phase) of {len(patterns)} angles "
            f"and at least {least} phases once"
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


def _separation_weights(
    steps_rad: NDArray[np.float64], order: Sequence[tuple[int, int]], harmonics: int
) -> NDArray[np.float64]:
    """Real weights (1 + 2 waves, n): mean band 0, then real and imaginary part of every band, angle by angle."""
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
