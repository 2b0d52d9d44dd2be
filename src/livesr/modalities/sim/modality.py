"""Linear SIM: a few exposures under stripes of light make one frame of twice the resolution.

Owns what rig.yaml, the core, the store and a run need to know of it. The arithmetic is in
`reconstructor.py`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, cast

from livesr.base.errors import ConfigError
from livesr.modalities.modality import Benchmark, Modality
from livesr.modalities.sim.config import (
    PatternConfig,
    QualityLimitsConfig,
    SIMChannelConfig,
    SIMConfig,
    check_patterns,
    patterns_of,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    import numpy as np
    from numpy.typing import NDArray
    from pymmcore_plus import CMMCorePlus

    from livesr.base.config import RigConfig, TriggerConfig
    from livesr.base.geometry import Geometry
    from livesr.check.finding import Finding, Found
    from livesr.check.hardware import Looked, Measured
    from livesr.check.micromanager import Configuration
    from livesr.live.arrays import Arrays
    from livesr.live.reconstruct.monitor import Monitor
    from livesr.live.reconstruct.reconstructor import Reconstructor, VolumeReconstructor
    from livesr.modalities.calibrator import Calibrator
    from livesr.modalities.sim.parameters import SIMParameters
    from livesr.modalities.sim.quality import QualityLimits
    from livesr.modalities.sim.reconstructor import SIMReconstructor
    from livesr.optics.illumination import Pattern
    from livesr.simulation.domain import Domain
    from livesr.simulation.sequence import DrawSequence


class SIM(Modality[SIMConfig]):
    """Structured illumination microscopy of one plane."""

    name = "sim"
    Section: ClassVar[type[SIMConfig]] = SIMConfig
    ChannelSection: ClassVar[type[SIMChannelConfig]] = SIMChannelConfig
    structured = True
    centred = True
    on_devices = True
    needs_sampling = True
    picture = "SIM reconstruction"
    virtual_rig = "virtual_sim"
    region_unknown = (
        "where the camera's region began on its chip is no longer known and is taken to be (0, 0)."
        " If a region was used, the phases of the patterns are not those of the calibration."
    )

    def validate(self, rig: RigConfig) -> None:
        """Refuse a rig without its section, and patterns of channels that do not fit it."""
        if self.name not in rig.sections:
            raise ValueError("a SIM rig needs a 'sim' section with its patterns")
        section = SIMConfig.of(rig)
        if rig.superpose and section.update != "group":
            raise ValueError(
                f"sim.update is {section.update!r}, and a superposition adds whole groups of its"
                " channels, which are exposed one after the other: between them there is nothing to"
                " add. Leave update at group."
            )
        for name in rig.channels:
            try:
                own = SIMChannelConfig.of(rig, name).patterns or []
                check_patterns(own, section.angles, section.harmonics, section.lattice)
            except ValueError as e:
                raise ValueError(f"channel {name!r}: {e}") from None

    def raw_frames(self, section: SIMConfig) -> int:
        """Return the exposures of all angles and phases."""
        return section.raw_frames

    def raw_labels(self, section: SIMConfig) -> tuple[str, ...]:
        """Return which angle and phase each raw frame shows."""
        return tuple(f"angle {a} phase {p}" for a, p in section.raw_order())

    def exposed(self, section: SIMConfig, frames: int) -> Sequence[int]:
        """Return the first phases of all angles: no direction is seen twice before all are."""
        super().exposed(section, frames)
        order = section.raw_order()
        first = sorted(range(len(order)), key=lambda raw: (order[raw][1], order[raw][0]))
        return sorted(first[:frames])

    def scale(self, rig: RigConfig) -> float | None:
        """Return 2: twice the resolution needs twice the pixels; more of nonlinear SIM."""
        return float(SIMConfig.of(rig).scale)

    # -- the core ----------------------------------------------------------------------------------

    def trigger(self, section: SIMConfig) -> TriggerConfig | None:
        """Return the output that lets the pattern display run."""
        return section.trigger

    def calibrated_with(self, section: SIMConfig) -> Sequence[tuple[str, str, str]]:
        """Return what of the optics the patterns hold for."""
        return section.calibrated_with

    def prepare_run(self, core: CMMCorePlus, section: SIMConfig) -> None:
        """Bring a display whose pattern software chooses to its first one."""
        if section.pattern_property:
            device, name = section.pattern_property
            try:
                core.setProperty(device, name, 0)
            except Exception as e:  # a device that is written in Python raises whatever it likes
                raise ConfigError(
                    f"sim.pattern_property is [{device}, {name}], which could not be set to 0: {e}."
                    " It must name a loaded device and its property that selects the pattern:"
                    " correct it in rig.yaml, or leave it out."
                ) from e

    # -- a run -------------------------------------------------------------------------------------

    def build(
        self,
        rig: RigConfig,
        channel: str,
        camera: Geometry,
        arrays: Arrays | None = None,
        like: Reconstructor | None = None,
    ) -> SIMReconstructor:
        """Return what reconstructs a channel with its patterns; with `like`, following the same
        drift.
        """
        from livesr.live.arrays import HOST
        from livesr.modalities.sim.reconstructor import SIMReconstructor

        section = SIMConfig.of(rig)
        parameters, patterns = parameters_of(rig, channel, camera)
        if not patterns:
            raise ConfigError(
                f"Rig {rig.name!r} has no patterns yet: run 'livesr calibrate {rig.folder}'."
            )
        return SIMReconstructor(
            parameters,
            patterns,
            limits_of(section.quality_limits),
            follow=section.follow_drift,
            drift=cast("SIMReconstructor", like).drift if like else None,
            arrays=arrays or HOST,
        )

    def volume(
        self, rig: RigConfig, channel: str, camera: Geometry, planes: int, z_step_um: float
    ) -> VolumeReconstructor:
        """Return what reconstructs stacks of three-beam patterns."""
        from livesr.modalities.sim.volume import Axial, ThreeBeamVolume

        excitation_nm = SIMChannelConfig.of(rig, channel).excitation_nm
        index = rig.optics.immersion_index
        if excitation_nm is None or index is None:
            raise ConfigError(
                "A stack is reconstructed with the wavelength that made the patterns and the index"
                " of the immersion: give excitation_nm of the channel and optics.immersion_index in"
                " rig.yaml."
            )
        parameters, patterns = parameters_of(rig, channel, camera)
        axial = Axial(z_step_um, index, excitation_nm / 1e3)
        return ThreeBeamVolume(parameters, patterns, axial, planes)

    def monitors(
        self,
        rig: RigConfig,
        channel: str,
        camera: Geometry,
        reconstructor: Reconstructor,
        recorded: bool,
    ) -> list[Monitor]:
        """Return what watches the raw order and, live, the pattern vectors."""
        from livesr.modalities.sim.monitors import raw_order_monitor, vector_monitor

        watching: list[Monitor] = [raw_order_monitor(rig, channel, camera)]
        if recorded:
            return watching
        following = vector_monitor(rig, channel, camera, cast("SIMReconstructor", reconstructor))
        return [*watching, following] if following else watching

    # -- the desk ----------------------------------------------------------------------------------

    def check(self, rig: RigConfig, found: Found) -> Iterator[Finding]:
        """Yield what is not plausible of patterns and phase steps."""
        from livesr.modalities.sim.check import check

        return check(rig, found)

    def check_beside(self, rig: RigConfig, cfg: Configuration, found: Found) -> Iterator[Finding]:
        """Look for what shows the patterns."""
        from livesr.modalities.sim.check import check_beside

        return check_beside(rig, cfg, found)

    def hardware_groups(self, section: SIMConfig) -> int | None:
        """Return as many groups as tell the order of the patterns."""
        from livesr.modalities.sim.hardware import GROUPS

        return GROUPS

    def believing(self, rig: RigConfig) -> RigConfig:
        """Return the rig, but that doubtful frames are reconstructed as well."""
        section = SIMConfig.of(rig)
        limits = section.quality_limits.model_copy(update={"when_doubtful": "reconstruct"})
        return rig.with_section(section.model_copy(update={"quality_limits": limits}))

    def not_ready(self, rig: RigConfig, channel: str) -> Measured | None:
        """Say that there are no patterns yet."""
        from livesr.modalities.sim.hardware import no_patterns

        return None if patterns_of(rig, channel) else no_patterns()

    def check_hardware(self, looked: Looked) -> Iterator[Measured]:
        """Yield contrast, phase and order of the patterns."""
        from livesr.modalities.sim.hardware import check_hardware

        return check_hardware(looked)

    def calibrator(self, rig: RigConfig) -> Calibrator | None:
        """Return what measures patterns, raw order and OTF."""
        from livesr.modalities.sim.calibration.channel import SIMCalibrator

        return SIMCalibrator(rig)

    def simulate(self, rig: RigConfig, size: int, groups: int) -> NDArray[np.uint16]:
        """Return raw groups of a living cell."""
        from livesr.modalities.sim.simulation.rig import RawBank

        bank = RawBank(rig, size, groups, seed=0, photons=300.0, bleaching=0.0, interval_s=0.5)
        return bank.frames

    @property
    def draw_sequence(self) -> DrawSequence | None:
        """Moving cells under rigs that are drawn from a domain."""
        from livesr.modalities.sim.simulation.sequence import SIMSequence

        return SIMSequence

    def domain_of(self, rig: RigConfig, channel: str, domain: Domain) -> Domain:
        """Return `domain` with the optics, patterns, camera and filter of that channel."""
        from livesr.modalities.sim.domain import domain_of

        return domain_of(rig, channel, domain)

    @property
    def benchmarks(self) -> Mapping[str, Benchmark]:
        """The reconstruction beside its Fourier transforms, and beside another program."""
        return {
            "sim": Benchmark("livesr.modalities.sim.bench", cores=1),
            "sim.peers": Benchmark("livesr.modalities.sim.peers"),
        }


def parameters_of(
    rig: RigConfig, channel: str, camera: Geometry
) -> tuple[SIMParameters, list[Pattern]]:
    """Return what a channel's frames are reconstructed with: parameters, and its patterns."""
    from livesr.modalities.sim.parameters import SIMParameters

    section, settings = SIMConfig.of(rig), rig.channel(channel)
    patterns, origin_px = _patterns_seen(rig, channel, camera)
    parameters = SIMParameters(
        camera.shape,
        camera.pixel_size_um,
        rig.optics.na,
        rig.emission_nm(channel) / 1e3,
        phase_steps_rad=section.phase_steps_rad,
        order=section.raw_order(),
        offset_adu=rig.camera.offset_adu,
        wiener=SIMChannelConfig.of(rig, channel).wiener or section.wiener,
        attenuation=section.attenuation,
        attenuation_fwhm_um=section.attenuation_fwhm_um,
        sectioning=section.sectioning,
        apodisation=section.apodisation,
        origin_px=origin_px,
        equalise=section.equalise,
        damping=settings.damping or rig.optics.damping,
        scale=section.scale,
    )
    return parameters, patterns


def _patterns_seen(
    rig: RigConfig, channel: str, camera: Geometry
) -> tuple[list[Pattern], tuple[float, float]]:
    """Return the patterns as the camera's picture shows them, and the origin that their phases are
    to be referred to.

    Pixel u of a mirrored region of n pixels from x0 on is the chip's x0 + n - 1 - u: a pattern with
    the opposite k, seen from -(x0 + n - 1). Phase steps, and so the raw order, stay.
    """
    y, x = (
        -(first + n - 1) if mirrored else first
        for first, n, mirrored in zip(camera.origin_px, camera.shape, camera.mirrored, strict=True)
    )
    return [pattern_of(p).mirrored(camera.mirrored) for p in patterns_of(rig, channel)], (y, x)


def pattern_of(config: PatternConfig) -> Pattern:
    """Return the pattern that rig.yaml describes."""
    from livesr.optics.illumination import Pattern

    overtones = tuple((o.phase_rad, o.modulation) for o in config.overtones)
    others = tuple(o.k_um for o in config.overtones if o.k_um is not None)
    return Pattern(config.k_um, config.phase_rad, config.modulation, overtones, others)


def limits_of(config: QualityLimitsConfig) -> QualityLimits:
    """Return the limits that rig.yaml sets."""
    from livesr.modalities.sim.quality import QualityLimits

    return QualityLimits(
        config.when_doubtful,
        config.contrast_to_noise,
        config.phase_error_rad,
        config.modulation,
        config.motion_nm,
        config.saturated,
    )
