"""The virtual SIM microscope.

From fluorophores on the super-resolution grid to expected raw frames on the camera.

Owns image formation, the order of the raw frames and the truths that a reconstruction is compared
with. Noise comes from `livesr.optics.noise`, specimens from `livesr.simulation.specimens`. Axes (y,
x), lengths in um, FFT arrays with zero frequency first.

Everything is linear in the object. An exposure under the pattern 1 + m cos(2 pi k.r + phi) is

    raw = D0 + m Re(e^{i phi} D),   D0 = H * O,   D = H * (O e^{2 pi i k.r}),

so D0 and one complex D per wave of every angle (`Components`) are computed once per object, and
phases are mixed without another FFT.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
import scipy.fft
from numpy.typing import NDArray

from livesr.optics.illumination import Pattern
from livesr.optics.otf import apodisation, cutoff_um, otf

Image = NDArray[np.float32]

THREE_PHASES_RAD = (0.0, 2 * np.pi / 3, 4 * np.pi / 3)
_DARKEST_PERCENT = 1.0  # of an image: its background
_SCALE = 2


@dataclass(frozen=True, slots=True)
class Components:
    """What every raw frame of an object is mixed from, per unit of the object's brightness.

    Attributes
    ----------
    widefield : float32 (y, x), the object under even illumination
    waves : complex64 (wave, y, x), the object under e^{2 pi i k.r}, referred to the chip's origin;
        angle by angle, each with its fundamental first
    """

    widefield: Image
    waves: NDArray[np.complex64]

    def peak(self, percentile: float = 99.9) -> float:
        """Brightness of the widefield image's bright parts: what a photon budget is counted at."""
        return float(np.percentile(self.widefield, percentile))

    def towards(self, other: Components, weight: float) -> Components:
        """Return the linear mixture of this (weight 0) and `other` (weight 1)."""
        if weight == 0:
            return self
        w = np.float32(weight)
        return Components(
            self.widefield + w * (other.widefield - self.widefield),
            self.waves + w * (other.waves - self.waves),
        )


@dataclass(frozen=True, slots=True)
class Light:
    """How bright a series is, and how unsteady.

    Attributes
    ----------
    electrons : expected photo-electrons per camera pixel and raw frame where a component is 1
    background_e : even background of every raw frame, photo-electrons
    bleaching : part of the brightness that is lost from one group to the next
    jitter : standard deviation of each raw frame's relative intensity
    phase_error_rad : standard deviation of each raw frame's phase; errors are cut at twice that
    duty : part of the time between two groups during which the camera exposes; what moves meanwhile
        is smeared
    """

    electrons: float = 200.0
    background_e: float = 5.0
    bleaching: float = 0.0
    jitter: float = 0.0
    phase_error_rad: float = 0.0
    duty: float = 1.0

    def remaining(self, t: float) -> float:
        """Return the part of the fluorophores that is not bleached at time `t`, counted in
        groups.
        """
        return float((1.0 - self.bleaching) ** t)


class SIMMicroscope:
    """Raw 2D-SIM frames of an object.

    Parameters
    ----------
    shape : camera frame (y, x)
    pixel_size_um : camera pixel in the sample
    na, wavelength_um : detection; the cutoff 2 NA / wavelength must lie below the camera's Nyquist
        frequency
    patterns : one per angle, phases referred to the chip's pixel (0, 0)
    phase_steps_rad : what each exposure of an angle adds to the pattern's phase
    order : (angle, phase) of every raw index; angle-major if None
    damping : see `livesr.optics.otf.otf`
    margin_px : camera pixels simulated beyond each edge and cut off, so that the object does not
        have to be periodic

    Notes
    -----
    Sample (2 i, 2 j) of the object's grid lies on the centre of camera pixel (i, j). Camera pixels
    sample the image at their centres; their finite area belongs into `damping`.
    """

    scale = _SCALE

    def __init__(
        self,
        shape: tuple[int, int],
        pixel_size_um: float,
        na: float,
        wavelength_um: float,
        patterns: Sequence[Pattern],
        *,
        phase_steps_rad: Sequence[float] = THREE_PHASES_RAD,
        order: Sequence[tuple[int, int]] | None = None,
        damping: float = 1.0,
        margin_px: int = 0,
    ) -> None:
        nyquist = 0.5 / pixel_size_um
        if (cutoff := cutoff_um(na, wavelength_um)) >= nyquist:
            raise ValueError(
                f"the optics pass {cutoff:.2f} cycles/um, but pixels of {pixel_size_um} um sample"
                f" up to {nyquist:.2f}; use smaller pixels"
            )
        self.shape, self.pixel_size_um = shape, pixel_size_um
        self.patterns, self.phase_steps_rad = tuple(patterns), tuple(phase_steps_rad)
        self.order = tuple(
            order or product(range(len(self.patterns)), range(len(self.phase_steps_rad)))
        )
        self._margin = margin_px
        self._grid = (shape[0] + 2 * margin_px, shape[1] + 2 * margin_px)
        self.object_shape = (_SCALE * self._grid[0], _SCALE * self._grid[1])
        self._detection = _Detection(
            self._grid, pixel_size_um, na, wavelength_um, damping, self._patterns_on_grid()
        )
        reach = cutoff + max(float(np.hypot(*w.k_um)) for p in self.patterns for w in p.waves)
        self._passband = apodisation(
            (_SCALE * shape[0], _SCALE * shape[1]), self.object_pixel_um, reach
        )

    @property
    def object_pixel_um(self) -> float:
        """Sample distance of the object's grid and of the reconstruction."""
        return self.pixel_size_um / _SCALE

    def components(self, density: Image, haze: Image | None = None) -> Components:
        """Image an object, noise-free.

        Parameters
        ----------
        density : fluorophores, float32 of `object_shape`, any unit
        haze : light from far out of focus on the same grid and scale. The pattern does not reach it
            with contrast, so it is added to the even part only
        """
        if density.shape != self.object_shape:
            raise ValueError(
                f"the object is {density.shape}, this microscope images {self.object_shape}"
            )
        widefield, waves = self._detection.image(density)
        inside = self._inside(1)
        widefield = widefield[inside]
        if haze is not None:
            widefield += self.unmodulated(haze)
        return Components(widefield, waves[(slice(None), *inside)])

    def unmodulated(self, haze: Image) -> Image:
        """Image light from far out of focus, as `components` takes it, float32 (y, x)."""
        return _bin(haze)[self._inside(1)]

    def within(self, image: Image) -> Image:
        """Return the part that the camera sees of an image of `object_shape`, (2 y, 2 x)."""
        return image[self._inside(_SCALE)]

    def raw(
        self,
        components: Components | tuple[Components, Components, Components],
        light: Light,
        rng: np.random.Generator,
        t: int = 0,
    ) -> Image:
        """Return the expected photo-electrons of one group of raw frames, float32 (n, y, x).

        Parameters
        ----------
        components : the object at the group's middle, or (one group before, at the middle, one
            group after). With three, the group's exposures spread over `light.duty` of the time
            between groups, and each is the linear mixture of the two nearest. This cross-fades what
            really moves: right for displacements below the resolution
        light : brightness and its errors; `t` counts groups for bleaching
        rng : draws intensity and phase errors
        """
        n = len(self.order)
        intensity = light.electrons * (1.0 + light.jitter * rng.standard_normal(n))
        error = light.phase_error_rad * np.clip(rng.standard_normal(n), -2, 2)
        frames = np.empty((n, *self.shape), np.float32)
        for i, (angle, step) in enumerate(self.order):
            when = (i + 0.5) / n - 0.5
            self._expose(
                _at(components, light.duty * when),
                angle,
                self.phase_steps_rad[step] + error[i],
                frames[i],
            )
            frames[i] *= np.float32(intensity[i] * light.remaining(t + 0.5 + when))
            frames[i] += np.float32(light.background_e)
        return frames

    def truth(self, density: Image, brightness: float = 1.0) -> Image:
        """Return the object at the passband of ideal SIM, float32 on the reconstruction's grid.

        The passband reaches the detection cutoff plus the largest pattern frequency,
        cosine-apodised, with every frequency in it restored. A reconstruction weighs the
        frequencies by its Wiener filter instead: use `reconstruction_truth` for what it can reach
        and for what sums to it.

        Parameters
        ----------
        density : one structure, float32 of `object_shape`
        brightness : of one unit of the object; electrons x ADU per electron gives ADU, the
            reconstruction's unit
        """
        return self._filter(density, self._passband, brightness)

    def reconstruction_truth(
        self, density: Image, transfer: Image, brightness: float = 1.0
    ) -> Image:
        """Return the noise-free reconstruction of one structure alone, float32 on the
        reconstruction's grid.

        The truth of the IMC-SR paper. The structures' truths sum to the noise-free reconstruction
        without its haze and background, because every step is linear.

        Parameters
        ----------
        density : one structure, float32 of `object_shape`
        transfer : the reconstructor's effective transfer function for this camera's frames: (2 y, 2
            x), FFT order
        brightness : as in `truth`
        """
        return self._filter(density, transfer, brightness)

    def _filter(self, density: Image, transfer: Image, brightness: float) -> Image:
        # Without the margin, as a reconstruction of the camera's frames sees it.
        seen = self.within(density)
        if transfer.shape != seen.shape:
            raise ValueError(
                f"the transfer function is {transfer.shape}, a reconstruction of these frames is"
                f" {seen.shape}"
            )
        spectrum = scipy.fft.rfft2(seen)
        spectrum *= transfer[:, : seen.shape[1] // 2 + 1] * np.float32(brightness)
        return np.asarray(scipy.fft.irfft2(spectrum, seen.shape, overwrite_x=True), np.float32)

    def _expose(self, components: Components, angle: int, step_rad: float, out: Image) -> None:
        """Fill `out` with D0 + the sum over the angle's waves of m Re(e^{i phi} D)."""
        np.copyto(out, components.widefield)
        first = sum(len(p.waves) for p in self.patterns[:angle])
        for seen, wave in zip(
            components.waves[first:], self.patterns[angle].stepped(step_rad).waves, strict=False
        ):
            out += seen.real * np.float32(wave.modulation * np.cos(wave.phase_rad))
            out -= seen.imag * np.float32(wave.modulation * np.sin(wave.phase_rad))

    def _patterns_on_grid(self) -> list[Pattern]:
        """Waves at phase 0 of the chip's pixel (0, 0), as the grid with its margin sees them."""
        origin = (-float(self._margin), -float(self._margin))
        unphased = [Pattern(w.k_um, 0.0, 1.0) for p in self.patterns for w in p.waves]
        return [p.seen_from(origin, self.pixel_size_um) for p in unphased]

    def _inside(self, scale: int) -> tuple[slice, slice]:
        start = self._margin * scale
        return slice(start, start + self.shape[0] * scale), slice(
            start, start + self.shape[1] * scale
        )


class _Detection:
    """Objective and camera sampling on one grid.

    Filters once, then four small inverse FFTs per object.

    Notes
    -----
    O e^{2 pi i k.r} is not periodic on the grid, unless k is on a grid point. With k = k_grid + d,
    D is e^{2 pi i d.r} times the image of O shifted by k_grid as seen through H(q + d): exact, and
    no FFT on the object's grid per angle.
    """

    def __init__(
        self,
        grid: tuple[int, int],
        pixel_size_um: float,
        na: float,
        wavelength_um: float,
        damping: float,
        patterns: Sequence[Pattern],
    ) -> None:
        self._grid = grid
        fine = (_SCALE * grid[0], _SCALE * grid[1])
        spacing = (1 / (grid[0] * pixel_size_um), 1 / (grid[1] * pixel_size_um))
        rows, columns = (np.fft.fftfreq(n, 1 / n).round().astype(int) for n in grid)
        norm = np.float32(1 / _SCALE**2)
        self._even = otf(grid, pixel_size_um, na, wavelength_um, damping=damping) * norm
        self._even_at = np.ix_(rows % fine[0], columns % fine[1])
        self._bands = []
        for pattern in patterns:
            steps = [round(k / d) for k, d in zip(pattern.k_um, spacing, strict=True)]
            rest = (
                pattern.k_um[0] - steps[0] * spacing[0],
                pattern.k_um[1] - steps[1] * spacing[1],
            )
            seen = (
                otf(grid, pixel_size_um, na, wavelength_um, offset_um=rest, damping=damping) * norm
            )
            at = np.ix_((rows - steps[0]) % fine[0], (columns - steps[1]) % fine[1])
            self._bands.append(
                (at, seen, _plane_wave(grid, pixel_size_um, rest, pattern.phase_rad))
            )

    def image(self, density: Image) -> tuple[Image, NDArray[np.complex64]]:
        """Return D0 and one D per pattern on the camera's grid."""
        spectrum = scipy.fft.fft2(density)
        widefield = scipy.fft.ifft2(spectrum[self._even_at] * self._even, overwrite_x=True).real
        waves = np.empty((len(self._bands), *self._grid), np.complex64)
        for wave, (at, seen, ramp) in zip(waves, self._bands, strict=True):
            np.multiply(scipy.fft.ifft2(spectrum[at] * seen, overwrite_x=True), ramp, out=wave)
        return np.ascontiguousarray(widefield, np.float32), waves


def _plane_wave(
    shape: tuple[int, int], pixel_size_um: float, k_um: tuple[float, float], phase_rad: float
) -> NDArray[np.complex64]:
    y, x = (
        np.exp(2j * np.pi * k * pixel_size_um * np.arange(n))
        for n, k in zip(shape, k_um, strict=True)
    )
    return np.asarray(np.exp(1j * phase_rad) * y[:, None] * x, np.complex64)


def _at(
    components: Components | tuple[Components, Components, Components], when: float
) -> Components:
    """Return the components `when` groups (-0.5 to 0.5) from the middle of the group."""
    if isinstance(components, Components):
        return components
    before, now, after = components
    return now.towards(before if when < 0 else after, abs(when))


def without_background(haze: Image) -> Image:
    """Return haze (y, x) less what it has everywhere, which a normalisation takes for
    background.
    """
    darkest = np.float32(np.percentile(haze, _DARKEST_PERCENT))
    return np.asarray(np.maximum(haze - darkest, 0), np.float32)


def _bin(image: Image) -> Image:
    """Mean of 2 x 2 samples: haze is so smooth that its transfer function does not matter."""
    y, x = image.shape
    return np.asarray(image.reshape(y // 2, 2, x // 2, 2).mean((1, 3)), np.float32)
