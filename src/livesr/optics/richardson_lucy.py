"""Richardson-Lucy deconvolution with a Gaussian, blurring with one, and Fourier reweighting.

Owns the arithmetic, in the words of `livesr.live.arrays`; knows nothing of frames.

Richardson 1972, J. Opt. Soc. Am. 62, 55; Lucy 1974, Astronomical J. 79, 745. An estimate of what is
there is multiplied, round by round, by how much more light came than it explains. It stays positive
and keeps its light; more rounds are sharper, and in the end make grains of noise.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import scipy.fft
from numpy.typing import NDArray

if TYPE_CHECKING:
    from livesr.live.arrays import Arrays

Frequencies: TypeAlias = NDArray[np.floating[Any]]

_SIGMAS = 4.0  # that the Gaussian and the margin at the edges reach
_DARK = 1e-6  # of the brightest light: less is what transforms in single precision leave
_TINY = 1e-12


class Filter:
    """A filter of pictures (y, x) of one shape, given by its response to every frequency.

    Beyond the edge its last pixel goes on.

    Parameters
    ----------
    shape : (y, x)
    reach_px : pixels beyond the edge that are looked at
    arrays : what to compute with
    response : of frequencies (y, 1) and (x,), cycles per pixel
    """

    def __init__(
        self,
        shape: tuple[int, int],
        reach_px: float,
        arrays: Arrays,
        response: Callable[[Frequencies, Frequencies], NDArray[Any]],
    ) -> None:
        self._arrays, self._shape, self._margin = arrays, shape, math.ceil(reach_px) + 1
        self._padded = tuple(
            scipy.fft.next_fast_len(n + 2 * self._margin, real=True) for n in shape
        )
        ky, kx = np.fft.fftfreq(self._padded[0]), np.fft.rfftfreq(self._padded[1])
        transfer = response(ky[:, None], kx) / math.prod(self._padded)
        kind = np.complex64 if np.iscomplexobj(transfer) else np.float32
        self._transfer = arrays.array(transfer.astype(kind))

    @property
    def memory_bytes(self) -> int:
        """The transfer function, a padded picture and its spectrum."""
        return 12 * math.prod(self._padded)

    def apply(self, picture: Any) -> Any:
        """Return the filtered picture, a new array float32 (y, x)."""
        arrays, m, (height, width) = self._arrays, self._margin, self._shape
        padded = arrays.xp.zeros(self._padded, dtype=arrays.xp.float32)
        padded[m : m + height, m : m + width] = picture
        padded[:m, :] = padded[m : m + 1, :]
        padded[m + height :, :] = padded[m + height - 1 : m + height, :]
        padded[:, :m] = padded[:, m : m + 1]
        padded[:, m + width :] = padded[:, m + width - 1 : m + width]
        spectrum = arrays.rfft(padded)
        arrays.fft(spectrum, axis=0)
        spectrum *= self._transfer
        arrays.ifft(spectrum, axis=0)
        return arrays.irfft(spectrum, self._padded[1])[m : m + height, m : m + width]


class GaussianBlur(Filter):
    """Convolution with a Gaussian.

    Parameters
    ----------
    shape : (y, x)
    sigma_px : standard deviation
    arrays : what to compute with
    move_px : by how much it moves pictures as well, along each axis
    """

    def __init__(
        self, shape: tuple[int, int], sigma_px: float, arrays: Arrays, move_px: float = 0.0
    ) -> None:
        def response(ky: Frequencies, kx: Frequencies) -> NDArray[Any]:
            transfer = _gaussian(ky, kx, sigma_px)
            return transfer * np.exp(-2j * math.pi * move_px * (ky + kx)) if move_px else transfer

        super().__init__(shape, _SIGMAS * sigma_px, arrays, response)


class Reweighting(Filter):
    """Fourier reweighting: images of points that are Gaussians become half as wide, up to noise.

    Every frequency is divided by what a Gaussian of `sigma_px` leaves of it, G, and multiplied by
    what one of half the width leaves: (1 + w^2) G H / (G^2 + w^2), which is 1 at frequency 0.

    Parameters
    ----------
    shape : (y, x)
    sigma_px : standard deviation of a point's image
    noise : w, Wiener's parameter: frequencies that are left fainter than it are not raised
    arrays : what to compute with
    """

    def __init__(
        self, shape: tuple[int, int], sigma_px: float, noise: float, arrays: Arrays
    ) -> None:
        def response(ky: Frequencies, kx: Frequencies) -> NDArray[Any]:
            given, wanted = _gaussian(ky, kx, sigma_px), _gaussian(ky, kx, sigma_px / 2)
            return (1 + noise**2) * given * wanted / (given**2 + noise**2)

        super().__init__(shape, _SIGMAS * sigma_px, arrays, response)


def _gaussian(ky: Frequencies, kx: Frequencies, sigma_px: float) -> NDArray[np.float64]:
    return np.asarray(np.exp(-2 * (math.pi * sigma_px) ** 2 * (ky**2 + kx**2)), np.float64)


def richardson_lucy(picture: Any, blur: Filter, rounds: int, arrays: Arrays) -> Any:
    """Return what `blur` makes `picture` of, after some rounds.

    Parameters
    ----------
    picture : float32 (y, x), what is not above 0 counts as no light; only read
    rounds : 0 returns the light as it is
    """
    xp = arrays.xp
    light = arrays.clip(picture, 0.0, math.inf, out=xp.empty(picture.shape, dtype=xp.float32))
    estimate, dark = light, xp.max(light) * _DARK + _TINY
    for _ in range(rounds):
        explained = arrays.maximum((blurred := blur.apply(estimate)), dark, out=blurred)
        estimate = estimate * blur.apply(light / explained)
    return arrays.clip(estimate, 0.0, math.inf, out=estimate)
