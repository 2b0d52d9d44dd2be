"""What an sCMOS or an EMCCD camera makes of light.

Shot noise, gain, read noise, offset, quantisation, saturation.

Owns the statistics of one exposure. Randomness comes in as a numpy Generator. Knows nothing about
optics or time.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class SCMOSNoise:
    """sCMOS noise model: ADU = offset + gain (Poisson(e) + Normal(0, read noise)).

    Attributes
    ----------
    offset_adu : level of a dark frame
    gain_adu_per_e : ADU per photo-electron
    read_noise_e : standard deviation of the read noise in electrons, where `read_variance_e2` is
        not given
    bit_depth : the converter's depth: values saturate at 2**bit_depth - 1; at most 16
    gaussian_above_e : pixels with more expected electrons get normal instead of Poisson shot noise,
        which is far faster. At 50 e the skewness thus lost is 0.14; mean and variance are exact
    read_variance_e2 : optional variance of the read noise per pixel, float32 (y, x), in electrons
        squared. sCMOS pixels differ; see `read_variance_map`

    Notes
    -----
    Model: Huang et al. 2013, Nature Methods 10, 653.
    """

    offset_adu: float = 100.0
    gain_adu_per_e: float = 2.0
    read_noise_e: float = 1.6
    bit_depth: int = 16
    gaussian_above_e: float = 50.0
    read_variance_e2: NDArray[np.float32] | None = field(default=None, repr=False, compare=False)

    def __post_init__(self) -> None:
        _check_depth(self.bit_depth)

    @property
    def saturation_adu(self) -> int:
        """Largest value that a pixel can report."""
        return int(2**self.bit_depth - 1)

    def expose(
        self,
        electrons: NDArray[np.float32],
        rng: np.random.Generator,
        out: NDArray[np.uint16] | None = None,
    ) -> NDArray[np.uint16]:
        """Make one noisy exposure.

        Parameters
        ----------
        electrons : expected photo-electrons per pixel, float32 (y, x), not negative (negative
            values count as 0). Not changed
        rng : source of randomness; the same state gives the same frame
        out : frame to fill; allocated if None

        Returns
        -------
        NDArray[np.uint16]
            The frame in ADU, (y, x); `out` if it was given.
        """
        signal = np.maximum(electrons, np.float32(0), dtype=np.float32)
        dim = signal <= self.gaussian_above_e
        read_variance = (
            self.read_noise_e**2 if self.read_variance_e2 is None else self.read_variance_e2
        )
        # Shot noise of bright pixels and read noise are both normal here: one draw with the summed
        # variance serves.
        spread = np.where(dim, np.float32(0), signal)
        spread += read_variance
        np.sqrt(spread, out=spread)
        spread *= rng.standard_normal(signal.shape, dtype=np.float32)
        signal[dim] = rng.poisson(signal[dim])
        signal += spread
        signal *= self.gain_adu_per_e
        signal += self.offset_adu
        return _digitised(signal, self.saturation_adu, out)


@dataclass(frozen=True, slots=True)
class EMCCDNoise:
    """EMCCD noise model: ADU = offset + (Gamma(Poisson(e + CIC), EM gain) + Normal(0, read noise))
    / (electrons per ADU).

    Attributes
    ----------
    offset_adu : level of a dark frame
    em_gain : mean electrons that the multiplication register makes of one
    gain_e_per_adu : electrons behind the register per ADU
    read_noise_e : standard deviation of the read noise in electrons, behind the register: divided
        by the gain, it is what a photo-electron competes with
    cic_e : clock-induced charge: electrons per pixel and frame that no photon made
    bit_depth : the converter's depth: values saturate at 2**bit_depth - 1; at most 16
    gaussian_above_e : pixels with more expected electrons get normal noise of the same variance,
        which is far faster

    Notes
    -----
    A register of many stages makes exponentially distributed output of one electron, and the sum of
    n of them is Gamma(n): variance 2 n gain^2 for Poisson n, the excess noise factor sqrt(2).
    Basden et al. 2003, MNRAS 345, 985; Hirsch et al. 2013, PLoS ONE 8, e53671.
    """

    offset_adu: float = 100.0
    em_gain: float = 200.0
    gain_e_per_adu: float = 15.0
    read_noise_e: float = 60.0
    cic_e: float = 0.002
    bit_depth: int = 16
    gaussian_above_e: float = 200.0

    def __post_init__(self) -> None:
        _check_depth(self.bit_depth)
        if not (self.em_gain >= 1 and self.gain_e_per_adu > 0):
            raise ValueError(
                f"em_gain is {self.em_gain} and gain_e_per_adu {self.gain_e_per_adu}; expected at"
                " least 1 and above 0"
            )

    @property
    def saturation_adu(self) -> int:
        """Largest value that a pixel can report."""
        return int(2**self.bit_depth - 1)

    def expose(
        self,
        electrons: NDArray[np.float32],
        rng: np.random.Generator,
        out: NDArray[np.uint16] | None = None,
    ) -> NDArray[np.uint16]:
        """Make one noisy exposure; as `SCMOSNoise.expose`."""
        expected = np.maximum(electrons, np.float32(0), dtype=np.float32)
        expected += np.float32(self.cic_e)
        bright = expected > self.gaussian_above_e
        signal = rng.poisson(np.where(bright, 0, expected)).astype(np.float32)
        signal = rng.standard_gamma(signal, dtype=np.float32)
        spread = rng.standard_normal(signal.shape, dtype=np.float32)
        signal[bright] = expected[bright] + np.sqrt(2 * expected[bright]) * spread[bright]
        signal *= np.float32(self.em_gain / self.gain_e_per_adu)
        signal += np.float32(self.read_noise_e / self.gain_e_per_adu) * rng.standard_normal(
            signal.shape, np.float32
        )
        signal += np.float32(self.offset_adu)
        return _digitised(signal, self.saturation_adu, out)


def _check_depth(bit_depth: int) -> None:
    if not 1 <= bit_depth <= 16:
        raise ValueError(f"bit_depth is {bit_depth}; frames are uint16, so it must be 1 to 16")


def _digitised(
    signal: NDArray[np.float32], saturation_adu: int, out: NDArray[np.uint16] | None
) -> NDArray[np.uint16]:
    """Return ADU as the converter has them, in `out` if it is given; `signal` is used up."""
    np.rint(signal, out=signal)
    np.clip(signal, 0, saturation_adu, out=signal)
    if out is None:
        return signal.astype(np.uint16)
    np.copyto(out, signal, casting="unsafe")
    return out


def read_variance_map(
    shape: tuple[int, int], read_noise_e: float, rng: np.random.Generator, spread: float = 0.25
) -> NDArray[np.float32]:
    """Read-noise variance per pixel as sCMOS chips show it: log-normal, with a tail of hot pixels.

    Parameters
    ----------
    shape : chip (y, x)
    read_noise_e : median standard deviation in electrons
    rng : source of randomness
    spread : standard deviation of the logarithm of the read noise; 0.25 puts 1 pixel in 400 above
        twice the median

    Returns
    -------
    NDArray[np.float32]
        Variance in electrons squared, (y, x).
    """
    log_noise = rng.standard_normal(shape, dtype=np.float32) * np.float32(spread)
    variance = np.float32(read_noise_e**2) * np.exp(np.float32(2) * log_noise)
    return np.asarray(variance, np.float32)
