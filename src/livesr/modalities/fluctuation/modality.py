"""Fluctuation: ordinary frames of blinking fluorophores become a super-resolution image.

Owns what rig.yaml, the store and a run need to know of it. The arithmetic is in `convergence.py`
(eSRRF) and `cumulants.py` (SOFI).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, ClassVar

from livesr.modalities.fluctuation.config import FluctuationConfig
from livesr.modalities.modality import Benchmark, Modality

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from livesr.base.config import RigConfig
    from livesr.base.frames import FrameQuality, Pixels
    from livesr.base.geometry import Geometry
    from livesr.check.finding import Finding, Found
    from livesr.check.hardware import Looked, Measured
    from livesr.live.arrays import Arrays
    from livesr.live.reconstruct.reconstructor import Reconstructor
    from livesr.modalities.calibrator import Calibrator
    from livesr.modalities.fluctuation.reconstructor import FluctuationReconstructor
    from livesr.optics.exposure import Exposures

UNITS_PER_ADU = 10
"""An image counts tenths of an ADU.

The store rounds to whole numbers, and convergence is a factor far below 1.
"""


class Fluctuation(Modality[FluctuationConfig]):
    """eSRRF and SOFI of frames that fluctuate."""

    name = "fluctuation"
    title = "fluctuation"
    Section: ClassVar[type[FluctuationConfig]] = FluctuationConfig
    unit = "ADU"
    unit_scale = 1 / UNITS_PER_ADU
    raw_along_t = True
    virtual_rig = "virtual_fluctuation"

    def raw_frames(self, section: FluctuationConfig) -> int:
        """Return the exposures that are folded in together."""
        return section.every

    def scale(self, rig: RigConfig) -> float | None:
        """Return the magnification of eSRRF, the order of SOFI."""
        return FluctuationConfig.of(rig).scale

    def build(
        self,
        rig: RigConfig,
        channel: str,
        camera: Geometry,
        arrays: Arrays | None = None,
        like: Reconstructor | None = None,
    ) -> FluctuationReconstructor:
        """Return what folds the frames of a channel in."""
        from livesr.modalities.fluctuation.reconstructor import FluctuationReconstructor

        settings, pixel_nm = FluctuationConfig.of(rig), camera.pixel_size_um * 1e3
        return FluctuationReconstructor(
            camera.shape,
            settings,
            sigma_px(rig, channel, pixel_nm),
            pixel_nm,
            rig.camera.offset_adu,
        )

    def quality(self, exposures: Exposures, frames: Sequence[Pixels | None]) -> FrameQuality | None:
        """Return what is doubtful about frames whose light may change as it likes."""
        from livesr.optics.raw_quality import group_doubt

        return group_doubt(exposures, frames, expected={"dark", "another picture"}).quality()

    # -- the desk ----------------------------------------------------------------------------------

    def check(self, rig: RigConfig, found: Found) -> Iterator[Finding]:
        """Yield what is not plausible of the radius and of the number of frames."""
        from livesr.modalities.fluctuation.check import check

        yield from check(rig, found)

    def check_hardware(self, looked: Looked) -> Iterator[Measured]:
        """Yield whether anything fluctuates."""
        from livesr.modalities.fluctuation.hardware import fluctuations

        yield fluctuations(looked)

    def calibrator(self, rig: RigConfig) -> Calibrator | None:
        """Return what finds radius and sensitivity; None for SOFI, which has neither."""
        if FluctuationConfig.of(rig).method != "esrrf":
            return None
        from livesr.modalities.fluctuation.calibration import SweepCalibrator

        return SweepCalibrator(rig)

    def simulate(self, rig: RigConfig, size: int, groups: int) -> NDArray[np.uint16]:
        """Return groups of frames of many fluorophores that blink on microtubules."""
        from livesr.modalities.fluctuation.simulation import simulated_groups

        return simulated_groups(rig, size, groups)

    @property
    def benchmarks(self) -> Mapping[str, Benchmark]:
        """Speed and quality, and both beside another program."""
        return {
            "fluctuation": Benchmark("livesr.modalities.fluctuation.bench"),
            "fluctuation.peers": Benchmark("livesr.modalities.fluctuation.peers"),
        }


def sigma_px(rig: RigConfig, channel: str, pixel_size_nm: float) -> float:
    """Return the standard deviation of a single emitter's image, in camera pixels."""
    from livesr.optics.psf import gaussian_sigma

    settings = FluctuationConfig.of(rig)
    sigma_nm = settings.psf_sigma_nm or gaussian_sigma(rig.optics.na, rig.emission_nm(channel))
    return sigma_nm / pixel_size_nm
