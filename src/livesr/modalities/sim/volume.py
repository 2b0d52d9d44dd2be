"""Three-beam SIM of a whole stack: resolution doubles along z as well.

Owns the reconstruction of one stack, and what its patterns are measured to be in it. Touches no
file; `livesr.store.volumes` reads and writes.

Method: Gustafsson et al. 2008, Biophysical J. 94, 4957. Three beams make light with three lateral
orders; as the pattern moves with the focus, the stack's bands of order m are

    D_m(q) = c_m O_m(q) S(q - m k),

with S the specimen and O_m the transfer function of detection, for m = 1 that of light which
changes along z: O_0 moved up and down by kz = n / excitation - sqrt((n / excitation)^2 - k^2).
What overlaps between orders gives c_m and k. All orders of all angles are added up by a generalised
Wiener filter in three dimensions,

    S(q) = A(q) sum(conj(c_m O_m(q + m k)) D_m(q + m k)) / (sum(|c_m O_m(q + m k)|^2) + w^2),

A a cosine that closes the spectrum at the ellipsoid that it reaches.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import permutations
from typing import NamedTuple

import numpy as np
import scipy.fft
from numpy.typing import NDArray

from livesr.base.errors import ConfigError, FrameShapeError
from livesr.modalities.sim.calibration.correlation import refine
from livesr.modalities.sim.parameters import SIMParameters
from livesr.optics.illumination import Pattern, unmixing
from livesr.optics.otf_3d import RadialOTF
from livesr.optics.periodic import periodic_spectrum

Float = NDArray[np.float32]
Complex = NDArray[np.complex64]

_FINE = 2  # pixels of the result per camera pixel, along y and x
_FADE_UM = 0.5  # over which the last plane fades into the first, behind it
_OVERLAP = 0.15  # of both transfer functions, where orders are compared
_LOWEST = 0.1  # of the cutoff, likewise: below lies light whose other planes a stack may lack
_SHIFTS = 12  # of the pattern along z that are tried
_ROUNDS = 2  # of measuring k
_FEWEST = 5
_CLEAR, _BETTER = 0.7, 0.2  # likeness at which no other order of the frames is tried; by how much
_LOOKED_AT = 256  # pixels of each side in the middle, where other orders are tried
_UNLIKE = 0.4  # below, an order does not show what band 0 does; noise alone gives 0.1 at most


class Axial(NamedTuple):
    """What is known of the axis: step from plane to plane, refractive index of the immersion, and
    wavelength of the light that makes the pattern; um.
    """

    z_step_um: float
    immersion: float
    excitation_um: float


@dataclass(frozen=True, slots=True)
class Order:
    """One lateral order of one angle, as the stack shows it.

    Attributes
    ----------
    k_um : (ky, kx) by which it is moved, cycles/um
    strength : c_m relative to band 0
    shift_um : of the light along z against the focus; 0 but in the first order
    likeness : correlation with band 0 where both show the same, 0 to 1
    """

    k_um: tuple[float, float]
    strength: complex
    shift_um: float
    likeness: float


class ThreeBeamVolume:
    """3D-SIM of stacks of one size.

    Parameters
    ----------
    parameters : camera, optics, order of the phases and filter; attenuation is left out
    patterns : of each angle, with one overtone; refined in every stack
    axial : along z
    planes : of a stack

    Attributes
    ----------
    orders : of each angle in the last stack, first and second order
    shape : of the result, (z, 2y, 2x)

    Raises
    ------
    ConfigError
        If the patterns are not those of three beams, or too fine for the excitation, or the planes
        are too few or too far apart.
    """

    def __init__(
        self,
        parameters: SIMParameters,
        patterns: Sequence[Pattern],
        axial: Axial,
        planes: int,
    ) -> None:
        if planes < _FEWEST:
            raise ConfigError(
                f"a stack of {planes} planes is too flat for a transfer function in three"
                f" dimensions, which needs {_FEWEST}: reconstruct it plane by plane, without"
                " --volume"
            )
        if not patterns or any(len(p.waves) != 2 or p.directions_um for p in patterns):
            raise ConfigError(
                "a volume is reconstructed of three-beam patterns, with harmonics: 2; these have"
                f" {len(patterns[0].waves) if patterns else 0} waves"
            )
        self._given, self._axial, self._planes = parameters, axial, planes
        self._patterns = patterns
        here = [p.seen_from(parameters.origin_px, parameters.pixel_size_um) for p in patterns]
        self._k_um = [p.k_um for p in here]
        _, highest = self._reach()
        if axial.z_step_um > 0.5 / highest:
            raise ConfigError(
                f"planes {1e3 * axial.z_step_um:.0f} nm apart do not sample what a stack resolves:"
                f" {500 / highest:.0f} nm at most. If they are nearer, say so: --z-step, in nm"
            )
        self._order = parameters.raw_order(len(patterns))
        phases = len(self._order) // len(patterns)
        steps = parameters.steps_rad(len(patterns), phases)
        self._unmixed = [unmixing(s, 2) for s in steps]
        self._depth = scipy.fft.next_fast_len(planes + round(_FADE_UM / axial.z_step_um))
        detection = parameters.na, parameters.emission_um, axial.immersion
        self._otf = RadialOTF.of(self._depth, axial.z_step_um, *detection, parameters.damping)
        self._window = _taper(parameters)
        self.orders: list[tuple[Order, Order]] = []
        self._in_order = False
        height, width = parameters.shape
        self.shape = planes, _FINE * height, _FINE * width

    @property
    def scale(self) -> float:
        """Pixels of the result per camera pixel, along y and x."""
        return float(_FINE)

    @property
    def found(self) -> list[dict[str, float]]:
        """What the orders are in the last stack, for a report."""
        return [
            {
                "angle": angle,
                "order": m,
                "period_nm": round(1e3 / float(np.hypot(*order.k_um)), 2),
                "direction_deg": round(float(np.degrees(np.arctan2(*order.k_um))), 3),
                "modulation": round(2 * abs(order.strength), 4),
                "phase_rad": round(float(np.angle(order.strength)), 4),
                "z_shift_nm": round(1e3 * order.shift_um, 1),
                "likeness": round(order.likeness, 4),
            }
            for angle, both in enumerate(self.orders)
            for m, order in enumerate(both, start=1)
        ]

    @property
    def doubt(self) -> str:
        """What is wrong with the last stack, "" if nothing is."""
        if self._worst >= _UNLIKE:
            return ""
        return (
            f"an order of the patterns has a likeness of {self._worst:.2f} with band 0 where both"
            f" show the same ({_UNLIKE} needed): frames are not in the order of rig.yaml, its"
            " patterns are those of another calibration, or there is too little light"
        )

    @property
    def _worst(self) -> float:
        """Least likeness of an order in the last stack."""
        return min((o.likeness for both in self.orders for o in both), default=1.0)

    @property
    def memory_bytes(self) -> int:
        """Most that is held while a stack is reconstructed, the raw stack and the result included.

        Sum and power on the fine grid, three orders of one angle and what they are compared by.
        """
        height, width = self._given.shape
        coarse, fine = self._depth * height * width, self._depth * _FINE**2 * height * width
        raw = (4 + 2) * self._planes * len(self._order) * height * width
        return raw + (8 + 4 + 8) * fine + 9 * 8 * coarse

    def reconstruct(self, stack: NDArray[np.generic]) -> Float:
        """Return the specimen (z, 2y, 2x) in ADU above the offset, per raw pixel.

        Parameters
        ----------
        stack : raw frames (z, n, y, x), n by raw index

        Raises
        ------
        FrameShapeError
            If its shape is another.
        ConfigError
            If it is the first, and its frames show the patterns in another order only.
        """
        expected = (self._planes, len(self._order), *self._given.shape)
        if stack.shape != expected:
            raise FrameShapeError(f"a raw stack of {stack.shape} came, expected {expected}")
        fine = (self._depth, *self.shape[1:])
        total, power = np.zeros(fine, np.complex64), np.zeros(fine, np.float32)
        self.orders = []
        level = stack.mean(dtype=np.float64) - self._given.offset_adu
        for angle in range(len(self._k_um)):
            bands = self._bands([stack[:, raw] for raw in self._raws(angle)], angle, level)
            orders = self._measured(bands, self._k_um[angle])
            self.orders.append(orders)
            self._add(bands[0], None, total, power)
            for m, order in enumerate(orders, start=1):
                self._add(bands[m], (m, order), total, power)
        if not self._in_order:
            self._check_order(stack, level)
            self._in_order = True
        return self._finished(total, power)

    # -- bands -------------------------------------------------------------------------------------

    def _raws(self, angle: int) -> list[int]:
        """Return the raw indices of an angle, by phase."""
        raws = [i for i, (a, _) in enumerate(self._order) if a == angle]
        return sorted(raws, key=lambda i: self._order[i][1])

    def _bands(
        self, phases: Sequence[NDArray[np.generic]], angle: int, level: float
    ) -> list[Complex]:
        """Return bands 0, 1, 2 of an angle in space, (z padded, y, x), from its phases."""
        given = self._given
        made = [np.zeros((self._planes, *given.shape), np.complex64) for _ in range(3)]
        for phase, taken in enumerate(phases):
            frames = taken.astype(np.float32) - np.float32(given.offset_adu)
            if given.equalise and (mean := float(frames.mean())) > 0:
                frames *= np.float32(level / mean)
            for band, weight in zip(made, self._unmixed[angle][:, phase], strict=True):
                band += frames * np.complex64(weight)
        return [self._faded(band) for band in made]

    def _faded(self, band: Complex) -> Complex:
        """Let the last plane fade into the first, which lies beside it in a Fourier transform."""
        behind = self._depth - self._planes
        part = 0.5 - 0.5 * np.cos(np.pi * np.arange(1, behind + 1) / (behind + 1))
        first, last = band[:1], band[-1:]
        between = last + (first - last) * part.astype(np.float32)[:, None, None]
        return np.concatenate([band, between])

    # -- patterns ----------------------------------------------------------------------------------

    def _measured(self, bands: list[Complex], k_um: tuple[float, float]) -> tuple[Order, Order]:
        """Return what the orders of an angle are in this stack.

        The second order, which is the finer, says where both are.
        """
        zero = self._moved(bands, 0, k_um)
        for _ in range(_ROUNDS):
            left = self._left(*self._shared(zero, self._moved(bands, 2, k_um), 2, k_um))
            k_um = (k_um[0] + left[0] / 2, k_um[1] + left[1] / 2)
        second = _likeness(*self._shared(zero, self._moved(bands, 2, k_um), 2, k_um))
        shifts = (np.arange(_SHIFTS) / _SHIFTS - 0.5) / (2 * self._kz(k_um))
        first = self._moved(bands, 1, k_um)
        tried = [_likeness(*self._shared(zero, first, 1, k_um, float(s))) for s in shifts]
        best = int(np.argmax([likeness for _, likeness in tried]))
        twice = (2 * k_um[0], 2 * k_um[1])
        return Order(k_um, tried[best][0], float(shifts[best]), tried[best][1]), Order(
            twice, second[0], 0.0, second[1]
        )

    def _check_order(self, stack: NDArray[np.generic], level: float) -> None:
        """Refuse a stack that was read in another order than it has."""
        if self._worst >= _CLEAR:
            return
        likeness = [min(order.likeness for order in both) for both in self.orders]
        angle, frames, found = int(np.argmin(likeness)), _middle(stack), []
        given = replace(self._given, shape=frames.shape[1:])
        part = ThreeBeamVolume(given, self._patterns, self._axial, self._planes)
        for axes, index in _other_orders(self._planes, self._order):
            phases = [frames[index[:, raw]] for raw in self._raws(angle)]
            both = part._measured(part._bands(phases, angle, level), self._k_um[angle])
            found.append((min(order.likeness for order in both), axes))
        best, axes = max(found)
        if best >= max(self._worst + _BETTER, _UNLIKE):
            raise ConfigError(
                f"The frames of the stack are not in the order in which they were read: as {axes}"
                f" the orders of the patterns have a likeness of {best:.2f} with band 0, and now"
                f" one has {self._worst:.2f}. Say so: --axes {axes},y,x"
            )

    def _left(self, a: Complex, b: Complex) -> tuple[float, float]:
        """Return what is left of a pattern between two bands that show the same, cycles/um."""
        summed = np.einsum("zyx,zyx->yx", a.conj(), b)[None]
        return refine(np.ones_like(summed), summed, (0.0, 0.0), self._given.pixel_size_um)

    def _kz(self, k_um: tuple[float, float]) -> float:
        """Axial frequency of the first order's light, cycles/um."""
        whole = self._axial.immersion / self._axial.excitation_um
        lateral = float(np.hypot(*k_um))
        if lateral >= whole:
            raise ConfigError(
                f"a pattern of {lateral:.2f} cycles/um needs light of a wavelength below"
                f" {1e3 * self._axial.immersion / lateral:.0f} nm, and the excitation is"
                f" {1e3 * self._axial.excitation_um:.0f} nm"
            )
        return whole - float(np.sqrt(whole**2 - lateral**2))

    def _otf_of(self, m: int, k_um: tuple[float, float], shift_um: float) -> RadialOTF:
        if m != 1:
            return self._otf
        return self._otf.modulated(self._axial.z_step_um, self._kz(k_um), shift_um)

    def _moved(self, bands: list[Complex], m: int, k_um: tuple[float, float]) -> Complex:
        """Return the spectrum of order m where it belongs."""
        band = bands[m] * self._wave((m * k_um[0], m * k_um[1]))
        spectrum = periodic_spectrum(band)
        return np.asarray(scipy.fft.fft(spectrum, axis=0, overwrite_x=True), np.complex64)

    def _shared(
        self, zero: Complex, moved: Complex, m: int, k_um: tuple[float, float], shift_um: float = 0
    ) -> tuple[Complex, Complex]:
        """Return band 0 and an order, each through the transfer function of the other, in space:
        the same, but for a factor.

        Weights as those of cudasirecon. The window comes last: before a transfer function
        that falls from one side to the other, it would turn the phase along the field.
        """
        a, b = zero.copy(), moved.copy()
        own, still = self._otf_of(m, k_um, shift_um), self._distance((0.0, 0.0))
        at = self._distance((m * k_um[0], m * k_um[1]))
        fine = np.minimum(still, at) > _LOWEST * self._given.cutoff_um
        for z in range(self._depth):
            of_zero, of_band = self._otf.at(z, still), own.at(z, at)
            size = np.abs(of_zero), np.abs(of_band)
            both = fine & (size[0] > _OVERLAP) & (size[1] > _OVERLAP / 2)
            weight = both / np.maximum(np.hypot(*size), _OVERLAP)
            a[z] *= of_band * weight
            b[z] *= of_zero * weight
        return _inside(a), _inside(b)

    # -- adding up ---------------------------------------------------------------------------------

    def _add(
        self, band: Complex, order: tuple[int, Order] | None, total: Complex, power: Float
    ) -> None:
        """Add an order to the sum, and what both of its bands weigh to the power."""
        m, about = order or (0, Order((0.0, 0.0), 1.0, 0.0, 1.0))
        base = (about.k_um[0] / max(m, 1), about.k_um[1] / max(m, 1))
        own, rest = self._otf_of(m, base, about.shift_um), list(self._rest(about.k_um))
        spectrum = scipy.fft.fftn(band * (self._wave(rest) * self._window), overwrite_x=True)
        radius, c = self._distance(rest), np.complex64(about.strength)
        ways = 1 if m == 0 else 2
        rows, columns = self._places(about.k_um)
        for z in range(self._depth):
            transfer = c * own.at(z, radius)
            total[z][np.ix_(rows, columns)] += ways * transfer.conj() * spectrum[z]
            weight = np.abs(transfer) ** 2
            power[z][np.ix_(rows, columns)] += weight
            if m:  # the band of the opposite order is its mirror
                power[-z][np.ix_(-rows, -columns)] += weight

    def _finished(self, total: Complex, power: Float) -> Float:
        given = self._given
        w2 = np.float32(given.wiener**2)
        at_zero = power[0, 0, 0] / (power[0, 0, 0] + w2)
        fine = [n * _FINE for n in given.shape]
        ky, kx = (scipy.fft.fftfreq(n, given.pixel_size_um / _FINE) for n in fine)
        kz = scipy.fft.fftfreq(self._depth, self._axial.z_step_um)
        reach, axial = self._reach()
        lateral = (ky[:, None] ** 2 + kx**2) / reach**2
        for z in range(self._depth):
            v = np.sqrt(lateral + (kz[z] / axial) ** 2)
            window = np.cos(np.minimum(v, 1.0) * (np.pi / 2)) ** given.apodisation * (v < 1)
            total[z] *= (window / ((power[z] + w2) * at_zero)).astype(np.float32)
        made = scipy.fft.ifftn(total, overwrite_x=True).real
        return np.asarray(made[: self._planes] * np.float32(_FINE**2), np.float32)

    def _reach(self) -> tuple[float, float]:
        """Highest frequency of the result, lateral and axial."""
        given, axial = self._given, self._axial
        whole = axial.immersion / given.emission_um
        detected = whole - np.sqrt(max(whole**2 - (given.na / given.emission_um) ** 2, 0.0))
        k_um = max(self._k_um, key=lambda k: np.hypot(*k))
        lateral = given.cutoff_um + 2 * float(np.hypot(*k_um))
        return lateral, float(detected) + self._kz(k_um)

    # -- the grid ----------------------------------------------------------------------------------

    def _whole(self, k_um: tuple[float, float]) -> tuple[int, int]:
        pixel = self._given.pixel_size_um
        y, x = (round(k * pixel * n) for k, n in zip(k_um, self._given.shape, strict=True))
        return y, x

    def _rest(self, k_um: tuple[float, float]) -> Iterator[float]:
        """Yield what whole frequencies leave of a vector, along y and x, cycles/um."""
        pixel = self._given.pixel_size_um
        for k, n, s in zip(k_um, self._given.shape, self._whole(k_um), strict=True):
            yield k - s / (n * pixel)

    def _wave(self, k_um: Sequence[float]) -> Complex:
        """Wave (y, x) that moves a band by -k."""
        y, x = (
            np.exp(-2j * np.pi * k * self._given.pixel_size_um * np.arange(n))
            for k, n in zip(k_um, self._given.shape, strict=True)
        )
        return np.asarray(y[:, None] * x, np.complex64)

    def _distance(self, k_um: Sequence[float]) -> NDArray[np.float64]:
        """Return the length of the lateral frequency + k, (y, x)."""
        y, x = (
            scipy.fft.fftfreq(n, self._given.pixel_size_um) + k
            for n, k in zip(self._given.shape, k_um, strict=True)
        )
        return np.asarray(np.hypot(y[:, None], x))

    def _places(self, k_um: tuple[float, float]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return the rows and columns of the fine grid at which a band's belong."""
        y, x = (
            (np.rint(scipy.fft.fftfreq(n, 1 / n)).astype(np.int64) - s) % (_FINE * n)
            for n, s in zip(self._given.shape, self._whole(k_um), strict=True)
        )
        return y, x


def _middle(stack: NDArray[np.generic]) -> NDArray[np.generic]:
    """Return the frames (z n, y, x) of a stack, or the middle of large ones."""
    y, x = (slice(max(0, n - _LOOKED_AT) // 2, None) for n in stack.shape[2:])
    part = stack[..., y, x][..., :_LOOKED_AT, :_LOOKED_AT]
    return part.reshape(-1, *part.shape[2:])


def _other_orders(
    planes: int, order: Sequence[tuple[int, int]]
) -> Iterator[tuple[str, NDArray[np.intp]]]:
    """Yield in which other orders planes, angles and phases may follow each other in a recording,
    each with the frames of every plane (z, raw), counted in the order in which they were read.

    Either they were read as z,raw and have another order, or the other way round.
    """
    length = {"z": planes, "angle": 1 + max(a for a, _ in order), "phase": 0}
    length["phase"] = len(order) // length["angle"]
    angles, phases = np.transpose(order)
    as_read = np.arange(planes * len(order)).reshape(planes, len(order))
    usual = np.empty((planes, length["angle"], length["phase"]), np.intp)
    usual[:, angles, phases] = as_read
    for axes in permutations(length):
        there = [axes.index(name) for name in length]
        counted = as_read.reshape([length[name] for name in axes]).transpose(there)
        yield ",".join(axes), counted[:, angles, phases]
        back = [[*length].index(name) for name in axes]
        yield "z,raw", usual.transpose(back).reshape(as_read.shape)


def _inside(spectrum: Complex) -> Complex:
    """Return what a spectrum is in space, the less the nearer to an edge."""
    y, x = (np.sin(np.pi * (np.arange(n) + 0.5) / n) for n in spectrum.shape[1:])
    made = np.asarray(scipy.fft.ifftn(spectrum, overwrite_x=True), np.complex64)
    made *= np.outer(y, x).astype(np.float32)
    return made


def _likeness(a: Complex, b: Complex) -> tuple[complex, float]:
    """Return b's amplitude in terms of a, and their correlation, 0 to 1."""
    dot, in_a, in_b = complex(np.vdot(a, b)), float(np.vdot(a, a).real), float(np.vdot(b, b).real)
    return dot / max(in_a, 1e-30), abs(dot) / max(in_a * in_b, 1e-30) ** 0.5


def _taper(given: SIMParameters) -> Float:
    """Window (y, x) that rises as sin^2 from the edges."""
    sides = []
    for n in given.shape:
        inside = np.minimum(np.arange(n) + 0.5, n - np.arange(n) - 0.5)
        rise = np.minimum(1.0, inside / max(given.taper * n, 1e-9))
        sides.append(np.sin(rise * np.pi / 2) ** 2)
    return np.asarray(np.outer(*sides), np.float32)
