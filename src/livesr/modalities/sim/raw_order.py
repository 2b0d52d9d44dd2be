"""Which pattern the first raw frame shows, seen in the images.

Whether the raw order of a run is rotated.

Owns the measurement and the verdict. Touches no thread, knows no camera: `monitors.py` says when to
look.

A pattern display that was not at its first pattern when the camera started shifts every raw index
by the same number, and no event or number of the camera tells. The frames do. With g_i the raw
frames filtered by the OTF and m their mean over the group, the sum over all pixels of m (g_i - m)
exp(-2 pi i k_a r) is the amplitude A_ia with which frame i shows the pattern of angle a: the
correlation of band 0 with band +1 of a single frame (after Wicker et al. 2013, Optics Express 21,
2032, who correlate a frame with itself; the mean is less noisy and leaves out what the specimen
contributes to every frame). A rotation by s predicts that A_ia has the phase of (angle, phase)
number i + s of the order where that is of angle a, and is 0 elsewhere. The share of sum |A_ia|^2
that a rotation explains is near 1 for the true one and near 0 for all others.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Any

import numpy as np
import scipy.fft
from numpy.typing import NDArray

from livesr.live.reconstruct.reconstructor import RawFrames
from livesr.modalities.sim.parameters import SIMParameters
from livesr.optics.illumination import Pattern
from livesr.optics.otf import otf

Amplitudes = NDArray[np.complex128]

_MAX_PX = 256  # of each side that are looked at: bounds the cost
_FEWEST_GROUPS, _MAX_GROUPS = 4, 16
# noise alone explains up to 0.3; where all phases have drifted by a step, a rotation by one about
# 0.5
_SHARE = 0.6
_MARGIN = 3.0  # over the second best


class RawOrderCheck:
    """Watches the raw groups of one channel, a few of them.

    Parameters
    ----------
    parameters : as the frames are reconstructed; the order is what is checked
    patterns : one per angle
    """

    def __init__(self, parameters: SIMParameters, patterns: Sequence[Pattern]) -> None:
        shape, pixel_size_um = parameters.shape, parameters.pixel_size_um
        height, width = (min(n, _MAX_PX) for n in shape)
        top, left = (shape[0] - height) // 2, (shape[1] - width) // 2
        self._region = slice(top, top + height), slice(left, left + width)
        self._offset_adu = parameters.offset_adu
        response = otf((height, width), pixel_size_um, parameters.na, parameters.emission_um)
        self._otf = response[:, : width // 2 + 1]
        self._window = np.outer(np.hanning(height), np.hanning(width)).astype(np.float32)
        corner = parameters.origin_px[0] + top, parameters.origin_px[1] + left
        seen = [pattern.seen_from(corner, pixel_size_um) for pattern in patterns]
        self._waves = [_wave(p.k_um, pixel_size_um, (height, width)) for p in seen]
        self._expected = _expected(parameters, seen)
        self._pooled, self._groups = np.zeros_like(self._expected), 0
        self._kept: deque[NDArray[np.unsignedinteger[Any]]] = deque()
        self._wanted = _FEWEST_GROUPS

    def offer(self, frames: RawFrames) -> None:
        """Take a copy of what is looked at of a raw group, if one is wanted.

        Called for each group, in one thread.
        """
        if len(self._kept) < self._wanted:
            self._kept.append(np.stack([frame[self._region] for frame in frames]))

    def look(self) -> int | None:
        """Look at the groups that were taken.

        Return the rotation once it is certain, 0 for the right order, None before.

        A rotation by s means that raw frame 0 shows what frame s should. Up to 16 groups are
        pooled, then it begins anew, so that an order which changes later is seen as well. Called in
        one thread, which may be another than that of `offer`.
        """
        verdict = None
        for _ in range(
            len(self._kept)
        ):  # what comes meanwhile is for the next time, or a slow look would never end
            if self._groups == _MAX_GROUPS:
                self._pooled[:], self._groups = 0, 0
            self._pooled += self.amplitudes(self._kept.popleft())
            self._groups += 1
            if self._groups >= _FEWEST_GROUPS:
                verdict = certain(self.explained(self._pooled))
        self._wanted = (
            _FEWEST_GROUPS if verdict is None else 1
        )  # once it is known, one at a time is enough
        return verdict

    def amplitudes(self, frames: RawFrames) -> Amplitudes:
        """Return how strongly, and at which phase, each raw frame of the region shows each pattern,
        complex (n, angle).
        """
        raw = np.asarray(frames, np.float32) - np.float32(self._offset_adu)
        light = raw.mean(axis=(1, 2), keepdims=True)
        raw *= light.mean() / np.maximum(light, 1e-3)  # flicker and bleaching are no pattern
        spectra = scipy.fft.rfft2(raw) * self._otf
        raw = scipy.fft.irfft2(spectra, s=raw.shape[1:])
        mean = raw.mean(axis=0)
        raw = (raw - mean) * (mean * self._window)
        shown = [
            np.ascontiguousarray(parts @ raw) for parts, _ in self._waves
        ]  # real and imaginary part, (n, 2, x)
        sums = [
            (s[:, 0] + 1j * s[:, 1]) @ columns
            for s, (_, columns) in zip(shown, self._waves, strict=True)
        ]
        return np.stack(sums, axis=1).astype(np.complex128)

    def explained(self, amplitudes: Amplitudes) -> NDArray[np.float64]:
        """Return the share of the amplitudes' power that each rotation explains, float64 (n,)."""
        power = float(np.sum(np.abs(amplitudes) ** 2))
        shares = np.zeros(len(amplitudes))
        for rotation in range(len(amplitudes)):
            expected = np.roll(self._expected, -rotation, axis=0)
            strength = np.maximum(
                np.sum(np.conj(expected) * amplitudes, axis=0).real, 0
            )  # of each angle; never negative
            shares[rotation] = np.sum(strength**2 / np.sum(np.abs(expected) ** 2, axis=0)) / max(
                power, 1e-30
            )
        return shares


def certain(shares: NDArray[np.float64]) -> int | None:
    """Return the rotation that explains much, and much more than every other.

    None if there is none.
    """
    second, best = np.sort(shares)[-2:]
    return int(np.argmax(shares)) if best > _SHARE and best > _MARGIN * second else None


def _expected(parameters: SIMParameters, seen: Sequence[Pattern]) -> Amplitudes:
    """Phase factor with which each raw frame shows each pattern, complex (n, angle).

    0 for the patterns of other angles.
    """
    order = parameters.raw_order(len(seen))
    steps = parameters.steps_rad(len(seen), len(order) // len(seen))
    expected = np.zeros((len(order), len(seen)), np.complex128)
    for raw, (angle, phase) in enumerate(order):
        expected[raw, angle] = np.exp(1j * (seen[angle].phase_rad + steps[angle, phase]))
    return expected


def _wave(
    k_um: tuple[float, float], pixel_size_um: float, shape: tuple[int, int]
) -> tuple[NDArray[np.float32], NDArray[np.complex64]]:
    """exp(-2 pi i k r) as an outer product.

    Its real and imaginary part along y, float32 (2, y), and complex64 (x,).
    """
    rows, columns = (
        np.exp(-2j * np.pi * k * pixel_size_um * np.arange(n)).astype(np.complex64)
        for k, n in zip(k_um, shape, strict=True)
    )
    return np.stack([rows.real, rows.imag]), columns
