"""Linear SIM of one plane.

The raw frames of one time point become one picture of twice the resolution and twice the pixels.

Owns the reconstruction with known patterns and the transfer function that it applies to the object.
Does not estimate patterns; whether a frame shows them, `quality.py` decides. Touches no camera,
queue or configuration file.

A frame goes through five steps, each one method of `SIMReconstructor`, in this order::

    raw (n, y, x) --separate--> band 0 (y, x) real, one band per wave (y, x) complex
                  --transform-> their spectra, only inside the OTF's support
                  --assemble--> weighted, moved to where they belong, added up: half a spectrum (2y,
                  x + 1) --invert----> picture (2y, 2x)

Method: Gustafsson 2000, J. Microscopy 198, 82; generalised Wiener weights as in Gustafsson et al.
2008, Biophysical J. 94, 4957; attenuation of the centre as in fairSIM (Mueller et al. 2016, Nature
Communications 7, 10980). A wave is one sinus of the illumination: one per angle in 2D-SIM and
TIRF-SIM, two (k and 2 k) where three beams interfere. What makes it fast: band -1 is the conjugate
of band +1 and never computed; sub-pixel shift, phase, modulation and taper are one precomputed
ramp; moving by whole frequencies is slicing.

The frame loop is written in the words of `livesr.live.arrays`, so that it is the same on a CPU and
on a GPU; what is prepared once is computed with NumPy and then moved.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from livesr.base.errors import ConfigError, FrameShapeError
from livesr.base.frames import FrameQuality, PatternQuality
from livesr.live.arrays import HOST, Array, Arrays
from livesr.live.reconstruct.quality import Doubt
from livesr.live.reconstruct.reconstructor import DoubtfulFrameError, RawFrames
from livesr.modalities.sim.pattern_drift import PatternDrift
from livesr.modalities.sim.quality import (
    BIN,
    PatternCheck,
    QualityLimits,
    motion_px,
    motion_weights,
    spikes_of,
)
from livesr.optics.exposure import Exposures, examine
from livesr.optics.illumination import Pattern, angle_major, equal_steps, unmixing
from livesr.optics.otf import apodisation as apodisation_window
from livesr.optics.otf import cutoff_um, otf, radial_frequency

log = logging.getLogger(__name__)

Float = NDArray[np.float32]
Complex = NDArray[np.complex64]

SCALE = 2
# Rows a power of two apart share cache sets: transforms along y run 1.8 times as fast with this
# many more elements.
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
        """OTF and attenuation of a band that was moved by -k, at the object's frequencies.

        (2y, 2x) each.
        """
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

    Source, scratch and target are views of buffers that live as long as the reconstructor. `weight`
    holds every value twice, for the real and the imaginary part, the latter negative where the
    piece enters as its conjugate.
    """

    source: Array
    weight: Array
    scratch: Array
    target: Array


@dataclass(frozen=True, slots=True)
class _Strip:
    """Some rows of the raw frames, worked on together, and where.

    Views of the reconstructor's buffers.

    `raw` and `planes` have pixels in a row (n, pixels); `frames` are the rows of `raw`, `parts`
    those of `planes`, as (y, x). `mean` and `bands` are what the strip fills, `window` and `ramps`
    what it is multiplied with.
    """

    rows: slice
    frames: list[Array]
    raw: Array
    planes: Array
    parts: Array
    mean: Array
    bands: Array
    window: Array
    ramps: Array


def _phase_steps(
    given: Sequence[float] | Sequence[Sequence[float]] | None, angles: int, phases: int
) -> NDArray[np.float64]:
    """Phase steps in radians, float64 (angles, phases); equal parts of a turn if none are given."""
    steps = equal_steps(phases) if given is None else np.asarray(given, np.float64)
    if steps.shape not in {(phases,), (angles, phases)}:
        raise ConfigError(
            f"phase_steps_rad has shape {steps.shape}, expected ({phases},) or ({angles}, {phases})"
        )
    return np.broadcast_to(steps, (angles, phases))


def _taper(shape: tuple[int, int], fraction: float) -> Float:
    """Window (y, x) that rises as sin^2 from the edges over `fraction` of each side; 1 inside."""
    sides = []
    for n in shape:
        inside = np.minimum(np.arange(n) + 0.5, n - np.arange(n) - 0.5)
        rise = np.minimum(1.0, inside / (fraction * n)) if fraction > 0 else np.ones(n)
        sides.append(np.sin(rise * (np.pi / 2)) ** 2)
    return np.asarray(np.outer(*sides), np.float32)


def _runs(
    support: int, shift: int, size: int, sign: int, positive: bool
) -> Iterator[tuple[slice, slice]]:
    """Split the map frequency f -> sign (f + shift) along one axis into runs that are slices on
    both sides.

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
        Camera pixel in the sample, at most wavelength / (4 NA) or the raw frames alias. Pixel (2i,
        2j) of the result lies on the centre of raw pixel (i, j).
    na, emission_um
        Detection: numerical aperture and emission wavelength.
    patterns
        One per angle, with its phase at the chip's origin, and its overtones if three beams or more
        interfere.
    phase_steps_rad
        What each exposure adds to its pattern's phase: `phases` values for all angles, or one such
        sequence per angle. Equal parts of a turn if None. At least three phases, five with one
        overtone; more are used by least squares.
    order
        (angle, phase) of each raw index; angle-major with three phases if None.
    offset_adu
        Level of a dark camera frame.
    wiener
        Regularisation w in sum |a OTF|^2 + w^2, where a is 1 for band 0 of an angle and m/2 for a
        wave's band: more is smoother and less sharp. 0.1 suits good light, 0.2 dim samples (real
        beads: 106 and 121 nm, widefield 214 nm).
    attenuation, attenuation_fwhm_um
        Strength (0 to < 1) and width in cycles/um with which the centre of every band is
        suppressed, where out-of-focus light and the pattern's residue sit.
    apodisation
        Exponent of the cosine that closes the spectrum at the extended cutoff.
    taper
        Fraction of each side over which the raw frames fade to 0, against the periodicity of the
        Fourier transform. The result fades likewise.
    origin_px
        First pixel (y, x) of the frames on the chip, in pixels of `pixel_size_um`.
    equalise
        Scale every raw frame by one number so that all have the same mean above the offset, which
        takes out bleaching and flicker within a group. Right for live pictures; the method is then
        no longer linear in the frames, so switch it off for tests of linearity and for computing
        training targets.
    damping
        Factor of the OTF at its cutoff, see `livesr.optics.otf.otf`.
    quality_limits
        When a frame is doubtful and what then happens; None reconstructs every frame and measures
        nothing.
    follow
        With `quality_limits`: correct phases that drift, between frames (see `pattern_drift.py`).
        Vectors are corrected by what `drift` says.
    drift
        What the phases are corrected by, if several instances reconstruct the frames of one channel
        in turn; its own if None.
    arrays
        What to compute with. Frames, `out` and the result are arrays of that namespace.

    Attributes
    ----------
    quality : of the last frame, None without `quality_limits`
    drift : what the phases are corrected by

    Raises
    ------
    ConfigError
        If the patterns, phases or order cannot be reconstructed.

    Notes
    -----
    Linear in the frames (unless `equalise`), and the gain at zero frequency is 1: away from the
    tapered edges the mean of the result is the mean of the raw frames above the offset.

    Memory: everything is allocated here. Per frame, scipy.fft has no output argument for real
    transforms, so two arrays are allocated and freed or handed away: the spectrum of band 0 along
    x, and the result itself.
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
        quality_limits: QualityLimits | None = None,
        follow: bool = False,
        drift: PatternDrift | None = None,
        arrays: Arrays = HOST,
    ) -> None:
        order = angle_major(len(patterns), 3) if order is None else [(a, p) for a, p in order]
        phases = _checked_phases(patterns, order)
        self._raw_shape, self._pixels, self._arrays = shape, shape[0] * shape[1], arrays
        self._allocated_bytes = 0
        self._offset_adu, self._equalise = offset_adu, equalise
        self._wiener, self._apodisation = wiener, apodisation
        self._optics = _Optics(
            shape, pixel_size_um, na, emission_um, damping, attenuation, attenuation_fwhm_um
        )
        self._check_sampling()
        steps = _phase_steps(phase_steps_rad, len(patterns), phases)
        # A band that moves towards positive kx lies almost wholly in the stored half of the
        # spectrum: turn the others.
        turn = np.array([-1.0 if p.k_um[1] > 0 else 1.0 for p in patterns])
        here = [p.seen_from(origin_px, pixel_size_um) for p in patterns]
        self._angles, self._order = len(patterns), order
        self._exposures: Exposures | None = None
        self._waves = [
            w for t, p in zip(turn, here, strict=True) for w in (p.reversed() if t < 0 else p).waves
        ]
        self._weights = _separation_weights(steps * turn[:, None], order, len(patterns[0].waves))
        self._quality_limits, self._follow = quality_limits, follow
        self._turned = np.repeat(turn, len(patterns[0].waves))
        self.drift = drift or PatternDrift(len(self._waves), len(patterns))
        self._recorded_drift: tuple[NDArray[np.float64], NDArray[np.float64]] | None = None
        self._drift_rad, self._vectors_um = np.zeros(len(self._waves)), np.zeros((len(patterns), 2))
        self.quality: FrameQuality | None = None
        self._motion = (
            motion_weights(_components(steps, order, len(patterns[0].waves)))
            if quality_limits
            else None
        )
        self._allocate(_taper(shape, taper))
        self._pieces = list(self._plan())
        self._check_of = (
            PatternCheck(shape, list(self._overlaps()), arrays) if quality_limits else None
        )

    @property
    def shape(self) -> tuple[int, int]:
        """Shape (2y, 2x) of the result."""
        return SCALE * self._raw_shape[0], SCALE * self._raw_shape[1]

    @property
    def memory_bytes(self) -> int:
        """Bytes held by the instance plus what one call needs for a moment, the result included."""
        result = 4 * self.shape[0] * self.shape[1]
        return self._allocated_bytes + result + 8 * self._pixels

    @property
    def transfer(self) -> Float:
        """What the reconstruction does to the object.

        Float32 (2y, 2x), FFT order, 1 at zero frequency.

        Away from the tapered edges, the reconstruction of a noise-free raw stack is
        ``ifft2(transfer * fft2(object))``, with the object sampled on the grid of the result.
        Computed on every access.
        """
        gain, power = self._gain()
        return gain * power

    def reconstruct(self, frames: RawFrames | Array, out: Array | None = None) -> Array:
        """Reconstruct one time point.

        Parameters
        ----------
        frames
            Raw frames in raw-index order, uint8, uint16 or corrected float32 (y, x); only read.
        out
            Picture to fill, float32 (2y, 2x). If None a new one is handed away, which is the faster
            way.

        Returns
        -------
        NDArray[np.float32]
            (2y, 2x) in ADU above the offset, per raw pixel; slightly negative beside bright
            structures.

        Raises
        ------
        FrameShapeError
            If the number of frames or the shape of one is not what the constructor was told.
        DoubtfulFrameError
            If `quality_limits` says to refuse doubtful frames and this is one.
        """
        self._check(frames)
        self._take_over_drift()
        exposures = self._seen_exposures(frames)
        empty = self._empty(exposures)
        self._separate(frames, self._frame_weights(frames, empty))
        self._transform()
        if self._quality_limits and (doubt := self._assess(self._quality_limits, exposures)):
            if self._quality_limits.then == "refuse":
                raise DoubtfulFrameError(*doubt)
            if self._quality_limits.then == "widefield":
                return self.widefield(frames, out, without=empty)
        self._assemble()
        return self._invert(out)

    def widefield(
        self, frames: RawFrames | Array, out: Array | None = None, without: Sequence[int] = ()
    ) -> Array:
        """Average the raw frames and upsample them to the grid of the result, without gain in
        resolution.

        The patterns of an angle add up to uniform light. Interpolated in Fourier space, cut at the
        OTF's support; for comparison, and when the pattern cannot be trusted. Parameters and errors
        as in `reconstruct`; the angles of the frames `without`, which hold no picture, are left out
        as long as another is whole.
        """
        self._check(frames)
        arrays, used = self._arrays, self._whole(without)
        self._mean[...] = -self._offset_adu * len(used)
        for i in used:
            arrays.copy(frames[i], self._frame)
            arrays.add(self._mean, self._frame, out=self._mean)
        self._transform_mean()
        y, x = self._optics.support()
        self._sum[...] = 0
        scale = 1 / (len(used) * self._pixels)
        arrays.multiply(self._half[: y + 1, :], scale, out=self._sum[: y + 1, : x + 1])
        arrays.multiply(self._half[-y:, :], scale, out=self._sum[-y:, : x + 1])
        return self._invert(out)

    def look_at(self, exposures: Exposures) -> None:
        """Judge the next frame by what its raw frames were before they were corrected.

        Without, by what is given.
        """
        self._exposures = exposures

    def _seen_exposures(self, frames: RawFrames | Array) -> Exposures | None:
        """Return what is known of the raw frames, None without `quality_limits`."""
        seen, self._exposures = self._exposures, None
        if self._quality_limits is None or seen is not None:
            return seen
        return examine(frames, self._offset_adu, xp=self._arrays.xp, numbers=self._arrays.numbers)

    def _empty(self, exposures: Exposures | None) -> list[int]:
        """Return which raw frames hold no picture."""
        faults = exposures.faults() if exposures else []
        return [fault.raw for fault in faults if fault.kind != "saturated"]

    def _whole(self, without: Sequence[int]) -> list[int]:
        """Return the raw frames of the angles that have all their frames.

        All frames if no angle has.
        """
        incomplete = {self._order[raw][0] for raw in without}
        whole = [raw for raw, (angle, _) in enumerate(self._order) if angle not in incomplete]
        return whole or list(range(len(self._order)))

    def _assess(self, quality_limits: QualityLimits, exposures: Exposures | None) -> Doubt:
        """Measure the frame whose bands were just transformed; return what is doubtful about it."""
        assert self._check_of is not None
        slopes, contrasts = self._check_of.measure(
            self._half, self._bands, spikes_of(self._mean, self._arrays)
        )
        errors, contrast = np.angle(slopes), float(contrasts.min())
        modulation, off = float(np.abs(slopes).min()), float(np.abs(errors).max())
        quality = PatternQuality(contrast, modulation, off, *self._motion_nm())
        doubt = quality_limits.doubt(quality, exposures)
        resolved = not doubt or quality_limits.then == "reconstruct"
        drift = self.pattern_drift_rad, self.vector_drift_um
        self.quality = FrameQuality(quality, doubt.sentence, resolved, *drift, doubt.cause)
        if self._follow and not doubt:
            self.drift.add(self._drift_rad + errors, contrast)
        return doubt

    @property
    def pattern_drift_rad(self) -> tuple[float, ...]:
        """By how much the phase of every wave of the last frame was corrected, angle by angle."""
        return tuple(round(float(d), 6) for d in self._drift_rad * self._turned)

    @property
    def vector_drift_um(self) -> tuple[float, ...]:
        """What was added to the vectors of the last frame in cycles/um.

        Ky and kx of every angle's fundamental, in turn.
        """
        return tuple(float(d) for d in self._vectors_um.ravel())

    def correct_drift(self, drift_rad: Sequence[float], vectors_um: Sequence[float] = ()) -> None:
        """Reconstruct the frames that follow as `pattern_drift_rad` and `vector_drift_um` were for
        them; empty is no drift.
        """
        total = (
            np.asarray(drift_rad, np.float64) * self._turned
            if len(drift_rad)
            else np.zeros(len(self._waves))
        )
        vectors = (
            np.reshape(vectors_um, (-1, 2)) if len(vectors_um) else np.zeros((self._angles, 2))
        )
        self._recorded_drift = (
            total,
            vectors,
        )  # of the next frame; others may use the same `PatternDrift` meanwhile
        self.drift.set(total, vectors)

    def _take_over_drift(self) -> None:
        """Choose what the patterns of the next frame are corrected by."""
        total, vectors = self._recorded_drift or (self.drift.total_rad, self.drift.vectors_um)
        self._recorded_drift = None
        if np.any(total != self._drift_rad):
            log.info("pattern phases are corrected by %s rad", np.round(total * self._turned, 3))
        self._drift_rad = total
        if np.any(vectors != self._vectors_um):
            log.info("pattern vectors are corrected by %s cycles/um", vectors.tolist())
            self._vectors_um = vectors
            self._turn_ramps()

    def _turn_ramps(self) -> None:
        """Move the bands by the corrected vectors.

        The OTF's weights stay: it hardly changes over such distances.
        """
        window = self._arrays.on_host(self._window)
        for i, wave in enumerate(self._waves):
            self._arrays.copy(
                self._arrays.array(self._ramp(wave, window, self._drift_of(i))),
                self._ramps[i, :, :],
            )

    def _drift_of(self, wave: int) -> NDArray[np.float64]:
        """By how much the vector of a wave is corrected, in its own sense, cycles/um."""
        harmonics = len(self._waves) // self._angles
        times = self._turned[wave] * (1 + wave % harmonics)
        return np.asarray(times * self._vectors_um[wave // harmonics], np.float64)

    def _motion_nm(self) -> tuple[float | None, float | None]:
        """Return how far the sample moved, and the standard error."""
        if self._motion is None:
            return None, None
        moved = motion_px(self._coarse[0, :, :], self._coarse[1, :, :], self._arrays)
        binned_nm = 1e3 * BIN * self._optics.pixel_size_um
        return binned_nm * moved.px, binned_nm * moved.error_px

    # -- the frame loop ----------------------------------------------------------------------------

    def _check(self, frames: RawFrames) -> None:
        expected = self._weights.shape[1]
        if len(frames) != expected:
            raise FrameShapeError(
                f"{len(frames)} raw frames came for one time point, the SIM order has {expected}"
            )
        for i in range(expected):
            if frames[i].shape != self._raw_shape:
                raise FrameShapeError(
                    f"raw frame is {frames[i].shape}, this reconstruction expects {self._raw_shape}"
                )

    def _frame_weights(self, frames: RawFrames, empty: Sequence[int] = ()) -> Array:
        """Weights (bands, n + 1) of this time point; the last column subtracts the offset."""
        level = self._arrays.totals(frames) / self._pixels - self._offset_adu
        weights = self._weights
        lit = np.setdiff1d(np.arange(len(level)), empty)
        if self._equalise and lit.size and level[lit].min() > 0:
            weights = weights.copy()
            weights[:, lit] *= level[lit].mean() / level[lit]
        if np.any(self._drift_rad):
            weights = _turned(weights, self._drift_rad)
        with_offset = np.column_stack([weights, -self._offset_adu * weights.sum(axis=1)]).astype(
            np.float32
        )
        return self._arrays.array(with_offset)

    def _separate(self, frames: RawFrames, weights: Array) -> None:
        """Frames -> tapered band 0 and ramped bands +1, strip by strip so that a strip stays in the
        cache.
        """
        arrays, waves = self._arrays, 1 + 2 * len(self._waves)
        for strip in self._strips:
            for i in range(len(frames)):
                arrays.copy(frames[i][strip.rows, :], strip.frames[i])
            arrays.matmul(weights, strip.raw, out=strip.planes)
            arrays.multiply(strip.parts[0, :, :], strip.window, out=strip.mean)
            arrays.fill_complex(
                strip.parts[1:waves:2, :, :], strip.parts[2:waves:2, :, :], out=strip.bands
            )
            arrays.multiply(strip.bands, strip.ramps, out=strip.bands)
            if self._motion is not None:
                self._bin(strip)

    def _bin(self, strip: _Strip) -> None:
        """Sum mean and change of a strip over squares of `BIN` pixels.

        What does not fill a square is left out.
        """
        xp, (n, height, width) = self._arrays.xp, strip.parts.shape
        rows, columns, top = height // BIN, width // BIN, strip.rows.start // BIN
        if rows:
            ends = strip.parts[:: n - 1, : rows * BIN, : columns * BIN]
            along_y = xp.sum(xp.reshape(ends, (2, rows, BIN, columns * BIN)), axis=2)
            squares = xp.sum(xp.reshape(along_y, (2, rows, columns, BIN)), axis=3)
            self._coarse[:, top : top + rows, :] = squares

    def _transform(self) -> None:
        """Bands -> spectra in place; along y only the columns that the OTF passes."""
        self._transform_mean()
        x = self._optics.support()[1]
        self._arrays.fft(self._bands, axis=2)
        for columns in (self._bands[:, :, : x + 1], self._bands[:, :, -x:]):
            self._arrays.fft(columns, axis=1)

    def _transform_mean(self) -> None:
        self._half[...] = self._arrays.rfft(self._mean)[:, : self._half.shape[1]]
        self._arrays.fft(self._half, axis=0)

    def _assemble(self) -> None:
        """Spectra -> weighted sum at the object's frequencies."""
        self._sum[...] = 0
        for piece in self._pieces:
            self._arrays.add_weighted(piece.target, piece.source, piece.weight, piece.scratch)

    def _invert(self, out: Array | None) -> Array:
        """Half spectrum -> picture; along y only the columns that can be filled."""
        self._arrays.ifft(self._sum[:, : self._columns], axis=0)
        picture = self._arrays.irfft(self._sum, self.shape[1])
        if out is None:
            return picture
        self._arrays.copy(picture, out)
        return out

    # -- what is prepared once ---------------------------------------------------------------------

    def _check_sampling(self) -> None:
        optics = self._optics
        if min(optics.support()) < 1:
            raise ConfigError(
                f"raw frames of {self._raw_shape} pixels are too small to reconstruct; use a"
                " larger ROI"
            )
        if optics.pixel_size_um * optics.cutoff_um > 0.5:
            log.warning(
                "pixels of %.1f nm undersample the OTF (cutoff %.2f cycles/um needs %.1f nm):"
                " expect aliasing",
                1e3 * optics.pixel_size_um,
                optics.cutoff_um,
                500 / optics.cutoff_um,
            )

    def _allocate(self, window: Float) -> None:
        """Make every buffer.

        Rows have more elements than are used, which only the views leave out.
        """
        height, width = self._raw_shape
        waves, raws = len(self._waves), self._weights.shape[1]
        rows = (
            min(height, max(1, _STRIP_PX // width // BIN) * BIN) if self._arrays.pieces else height
        )
        if self._motion is not None:
            self._weights = np.vstack([self._weights, self._motion])
        self._coarse = self._zeros((2, height // BIN, width // BIN))
        self._window = self._moved(window)
        self._ramps = self._moved(np.stack([self._ramp(w, window) for w in self._waves]))
        self._raw = self._moved(np.ones((raws + 1, rows * width), np.float32))
        self._planes = self._zeros((len(self._weights), rows * width))
        self._mean = self._zeros(self._raw_shape)
        self._bands = self._zeros((waves, height, width + _PAD), np.complex64)[:, :, :width]
        self._half = self._zeros((height, self._optics.support()[1] + 1 + _PAD), np.complex64)[
            :, :-_PAD
        ]
        self._sum = self._zeros((SCALE * height, width + 1 + _PAD), np.complex64)[:, : width + 1]
        self._scratch = self._zeros((2 * height * width,))
        self._frame = self._arrays.xp.reshape(self._scratch[: height * width], self._raw_shape)
        self._strips = [
            self._strip(slice(top, min(top + rows, height))) for top in range(0, height, rows)
        ]

    def _zeros(self, shape: tuple[int, ...], dtype: type[np.generic] = np.float32) -> Array:
        return self._moved(np.zeros(shape, dtype))

    def _moved(self, host: NDArray[Any]) -> Array:
        """Return what is prepared on the host where it is used."""
        self._allocated_bytes += host.nbytes
        return self._arrays.array(host)

    def _strip(self, rows: slice) -> _Strip:
        """Return the views of the buffers that a strip needs."""
        xp, width = self._arrays.xp, self._raw_shape[1]
        height = rows.stop - rows.start
        raw, planes = self._raw[:, : height * width], self._planes[:, : height * width]
        return _Strip(
            rows,
            [xp.reshape(raw[i, :], (height, width)) for i in range(raw.shape[0] - 1)],
            raw,
            planes,
            xp.reshape(planes, (planes.shape[0], height, width)),
            self._mean[rows, :],
            self._bands[:, rows, :],
            self._window[rows, :],
            self._ramps[:, rows, :],
        )

    def _overlaps(self) -> Iterator[tuple[tuple[int, int], Float, Float]]:
        """Describe every wave to `PatternCheck`.

        The centres of the bands hold haze and are left out.
        """
        optics, near = self._optics, 0.15 * self._optics.cutoff_um
        grid = optics.shape, optics.pixel_size_um
        support = optics.support()
        for wave in self._waves:
            responses = []
            for k in ((0.0, 0.0), wave.k_um):
                response = otf(
                    *grid, optics.na, optics.emission_um, offset_um=k, damping=optics.damping
                )
                responses.append(
                    np.where((response > 0.05) & (radial_frequency(*grid, k) > near), response, 0)
                )
            # What a raw spectrum does not hold is not compared: its rows and columns are only
            # transformed inside the support.
            for axis, (shift, reach) in enumerate(
                zip(self._whole_shift(wave), support, strict=True)
            ):
                index = np.fft.fftfreq(optics.shape[axis], 1 / optics.shape[axis])
                # The faded edges spread the strong low frequencies along the axes through each
                # band's centre.
                held = (
                    (np.abs(index) <= reach)
                    & (np.abs(index - shift) <= reach)
                    & (index != 0)
                    & (index != shift)
                )
                responses[0] *= held[:, None] if axis == 0 else held
            yield self._whole_shift(wave), responses[0], responses[1]

    def _whole_shift(self, wave: Pattern) -> tuple[int, int]:
        """Whole frequencies (y, x) by which a band moves; the rest is in the ramp."""
        (height, width), pixel = self._raw_shape, self._optics.pixel_size_um
        return round(-wave.k_um[0] * pixel * height), round(-wave.k_um[1] * pixel * width)

    def _ramp(
        self,
        wave: Pattern,
        window: Float,
        drift_um: Sequence[float] | NDArray[np.float64] = (0.0, 0.0),
    ) -> Complex:
        """Complex (y, x): rest of the shift, phase, 1/modulation and taper.

        A vector that drifted by `drift_um` turns the pattern about the middle of the frame, where
        its phase stays.
        """
        sides, pixel = [], self._optics.pixel_size_um
        for k, drift, shift, n in zip(
            wave.k_um, drift_um, self._whole_shift(wave), self._raw_shape, strict=True
        ):
            turns = (k * pixel + shift / n) * np.arange(n) + drift * pixel * (
                np.arange(n) - (n - 1) / 2
            )
            sides.append(np.exp(-2j * np.pi * turns))
        factor = 2.0 / wave.modulation * np.exp(-1j * wave.phase_rad)
        return np.asarray(factor * np.outer(*sides) * window, np.complex64)

    def _gain(self) -> tuple[Float, Float]:
        """Return the common factor of all bands and their summed power, (2y, 2x) each.

        Their product is `transfer`.
        """
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
        gain /= self._pixels
        self._columns = 0
        response, keep = self._optics.band((0.0, 0.0))
        yield from self._place(self._half, gain * response * keep * self._angles, (0, 0), 1)
        for i, wave in enumerate(self._waves):
            response, keep = self._optics.band(wave.k_um)
            weight = gain * response * keep * np.float32(_band_weight(wave))
            for sign in (1, -1):
                yield from self._place(self._bands[i, :, :], weight, self._whole_shift(wave), sign)

    def _place(
        self, band: Array, weight: Float, shift: tuple[int, int], sign: int
    ) -> Iterator[_Piece]:
        """Rectangles of one band.

        Sign -1 gives those of its conjugate, which completes the half spectrum.
        """
        support = self._optics.support()
        rows = list(_runs(support[0], shift[0], self._raw_shape[0], sign, positive=False))
        columns = list(_runs(support[1], shift[1], self._raw_shape[1], sign, positive=True))
        for (from_y, to_y), (from_x, to_x) in product(rows, columns):
            target = self._sum[to_y, to_x]
            self._columns = max(
                self._columns, to_x.start + 1, to_x.start + sign * (target.shape[1] - 1) + 1
            )
            # `weight` is on the object's grid; the conjugate takes its values from the mirrored
            # place.
            values = weight[_mirrored(to_y, weight.shape[0], sign), :][
                :, _mirrored(to_x, weight.shape[1], sign)
            ]
            shape = target.shape[0], 2 * target.shape[1]
            yield _Piece(
                source=band[from_y, from_x],
                weight=self._moved(np.stack([values, sign * values], axis=-1).reshape(shape)),
                scratch=self._arrays.xp.reshape(self._scratch[: shape[0] * shape[1]], shape),
                target=target,
            )


def _turned(weights: NDArray[np.float64], by_rad: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the separation weights (bands, n) that give every wave's band with its phase less by
    `by_rad` (waves,).
    """
    turned, waves = weights.copy(), len(by_rad)
    real, imag = weights[1 : 1 + 2 * waves : 2], weights[2 : 2 + 2 * waves : 2]
    c, s = np.cos(by_rad)[:, None], np.sin(by_rad)[:, None]
    turned[1 : 1 + 2 * waves : 2], turned[2 : 2 + 2 * waves : 2] = (
        c * real + s * imag,
        c * imag - s * real,
    )
    return turned


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
