"""What cells are simulated under, so that they look as one SIM rig shows them.

Owns which of a domain's ranges rig.yaml narrows, and by how much. Simulates nothing.
"""

from __future__ import annotations

import numpy as np

from livesr.base.config import RigConfig
from livesr.base.errors import ConfigError
from livesr.modalities.sim.config import SIMChannelConfig, SIMConfig, patterns_of
from livesr.optics.otf import cutoff_um
from livesr.simulation.domain import Domain, Range

_ANGLES = 3  # that time lapses are simulated with
_NA, _EMISSION_UM = 0.01, 0.01  # either way: as exactly as it is known, and what a filter passes
_PIXEL, _K, _DAMPING, _GAIN, _NOISE = 0.01, 0.02, 0.15, 0.05, 0.1  # relative, either way
_CONTRAST = (0.6, 1.05)  # of the calibrated modulation: a thick specimen takes some of it
_K_OVER_CUTOFF = (0.2, 1.25)  # of patterns that an objective makes and that gain something
_BRIGHTEST = 2.2  # a raw frame's pixels beside its bright parts: the pattern doubles them


def domain_of(rig: RigConfig, channel: str, domain: Domain) -> Domain:
    """Return `domain` with the optics, patterns, camera and filter of a channel of `rig`.

    What nobody has measured keeps its range: the patterns before a calibration, the OTF where
    `damping` is 1, gain and noise of a camera that was not characterised or has an EM register. So
    does all that is not the rig's: cells, light, haze, bleaching.

    Raises
    ------
    ConfigError
        If its pixel size is not said, its raw frames alias, another engine stands before the one
        that separates, or its patterns are none of those that are simulated.
    """
    section, settings = SIMConfig.of(rig), rig.channel(channel)
    pixel_nm = settings.pixel_size_nm or rig.optics.pixel_size_nm
    if pixel_nm is None:
        raise ConfigError(
            "The rig does not say how large its pixels are, and cells cannot be simulated for it:"
            " set optics.pixel_size_nm in rig.yaml."
        )
    if (section.angles, section.harmonics, section.waves) != (_ANGLES, 1, "overtones"):
        raise ConfigError(
            f"The rig has angles: {section.angles}, harmonics: {section.harmonics} (waves:"
            f" {section.waves}); cells are simulated under {_ANGLES} angles of one wave. Leave out"
            " --rig, or give a rig of that kind."
        )
    before = {*settings.engines, *(["reconstruct"] if settings.learned else [])} - {"separate"}
    if before:
        raise ConfigError(
            f"In that channel rig.yaml has an engine in {' and '.join(sorted(before))}, and cells"
            " are simulated as SIM itself shows them: take it out, or leave out --rig."
        )
    na, emission_um = rig.optics.na, rig.emission_nm(channel) / 1e3
    exact = _exact(pixel_nm / 1e3, na, emission_um)
    na_error = exact * min(_NA, na / 2)
    damping = settings.damping or rig.optics.damping
    measured: dict[str, object] = {}
    if patterns := patterns_of(rig, channel):
        k = np.array([np.hypot(*p.k_um) for p in patterns]) / cutoff_um(na, emission_um)
        if k.min() < _K_OVER_CUTOFF[0] or k.max() > _K_OVER_CUTOFF[1]:
            raise ConfigError(
                f"The patterns' k is {k.min():.2f} to {k.max():.2f} of what the optics pass (2 NA /"
                " wavelength), and no objective makes such, or they gain nothing: run livesr check"
                " and livesr calibrate first."
            )
        modulation = float(np.mean([p.modulation for p in patterns]))
        measured |= {
            "k_over_cutoff": _around(k, _K),
            "modulation": (_CONTRAST[0] * modulation, min(_CONTRAST[1] * modulation, 0.98)),
        }
    if damping < 1:
        low, high = _around(damping, _DAMPING)
        measured["damping"] = (low, min(high, 1.0))
    if rig.camera.em_gain is None:
        if (gain := rig.camera.gain_e_per_adu) is not None:
            measured["gain_adu_per_e"] = _around(1 / gain, _GAIN)
            most = (2**rig.camera.bit_depth - 1 - rig.camera.offset_adu) * gain / _BRIGHTEST
            if most < domain.photons[1]:  # beyond it the camera saturates
                measured["photons"] = (min(domain.photons[0], most / 2), most)
        if (noise := rig.camera.read_noise_e) is not None:
            measured["read_noise_e"] = _around(noise, _NOISE)
    wiener = SIMChannelConfig.of(rig, channel).wiener or section.wiener
    return domain.model_copy(
        update={
            **measured,
            "pixel_size_um": pixel_nm / 1e3,
            "pixel_size_spread": exact * _PIXEL,
            "na": (na - na_error, na + na_error),
            "emission_um": (
                emission_um - exact * _EMISSION_UM,
                emission_um + exact * _EMISSION_UM,
            ),
            "damping_assumed": damping,
            "wiener": (wiener, wiener),
            "attenuation": (section.attenuation, section.attenuation),
            "attenuation_fwhm_um": section.attenuation_fwhm_um,
            "sectioning": section.sectioning,
            "apodisation": (section.apodisation, section.apodisation),
        }
    )


def _exact(pixel_um: float, na: float, emission_um: float) -> float:
    """Return how much of the usual margins pixels and optics have, 0 to 1, so that none of the
    microscopes in between aliases.

    Raises
    ------
    ConfigError
        If the rig itself does.
    """
    passed, sampled = cutoff_um(na, emission_um), 0.5 / pixel_um
    if passed >= sampled:
        raise ConfigError(
            f"The optics pass {passed:.2f} cycles/um (2 NA / wavelength), and pixels of"
            f" {1e3 * pixel_um:g} nm sample up to {sampled:.2f}: such raw frames alias, and cells"
            " cannot be simulated for them. Correct optics in rig.yaml, or leave out --rig."
        )
    widest = cutoff_um(na + _NA, emission_um - _EMISSION_UM) / passed * (1 + _PIXEL)
    # Convex in the margin: a chord lies above.
    return min(0.99 * (sampled / passed - 1) / (widest - 1), 1.0)


def _around(values: float | np.ndarray, relative: float) -> Range:
    """Return a range that holds `values`, each off by so much of it."""
    low, high = np.min(values) * (1 - relative), np.max(values) * (1 + relative)
    return round(float(low), 6), round(float(high), 6)
