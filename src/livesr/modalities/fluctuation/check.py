"""What `livesr check` asks of a fluctuation rig.

Owns what is plausible of its section. Loads no device.
"""

from __future__ import annotations

from collections.abc import Iterator

from livesr.base.config import RigConfig
from livesr.check.finding import Finding, Found
from livesr.modalities.fluctuation.config import FluctuationConfig
from livesr.optics.psf import gaussian_sigma

_FWHM = 2.355
_USUAL = (0.5, 2.0)  # radius, in widths of a single emitter's image
_FRAMES_OF_ORDER = {2: 50, 3: 100, 4: 200}


def check(rig: RigConfig, found: Found) -> Iterator[Finding]:
    """Yield what is not plausible of the radius and of the number of frames."""
    settings = FluctuationConfig.of(rig)
    if settings.method == "esrrf":
        yield from _radius(rig, settings, found)
    else:
        yield from _frames(settings, found)


def _radius(rig: RigConfig, settings: FluctuationConfig, found: Found) -> Iterator[Finding]:
    if rig.optics.pixel_size_nm is None:
        return
    sigma_nm = settings.psf_sigma_nm or gaussian_sigma(rig.optics.na, rig.optics.emission_nm)
    width_px = _FWHM * sigma_nm / rig.optics.pixel_size_nm
    if not _USUAL[0] * width_px <= settings.radius <= _USUAL[1] * width_px:
        yield found(
            "warning",
            "fluctuation-radius",
            "fluctuation.radius",
            f"The radius is {settings.radius:g} camera pixels, the image of a single emitter"
            f" {width_px:.1f} wide.",
            "Begin with that width; 'livesr calibrate' compares radii.",
        )


def _frames(settings: FluctuationConfig, found: Found) -> Iterator[Finding]:
    usual = _FRAMES_OF_ORDER[settings.order]
    if settings.every < usual:
        yield found(
            "note",
            "fluctuation-frames",
            "fluctuation.every",
            f"Cumulants of order {settings.order} are measured in {settings.every} exposures at a"
            " time: what fluctuates more slowly does not count, and they are noisy.",
            f"Take {usual} or more, and show a longer time with fluctuation.window.",
        )
