"""STORM: emitters that blink are localised in groups of frames and drawn into a running image.

Owns what rig.yaml, the store and a run need to know of it. The arithmetic is in `localise.py`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, ClassVar

from livesr.base.errors import ConfigError
from livesr.modalities.modality import Benchmark, Modality
from livesr.modalities.storm.config import STORMConfig

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from pymmcore_plus import CMMCorePlus

    from livesr.base.config import RigConfig
    from livesr.base.frames import FrameQuality, Pixels
    from livesr.base.geometry import Geometry
    from livesr.check.finding import Finding, Found
    from livesr.check.hardware import Looked, Measured
    from livesr.check.micromanager import Configuration
    from livesr.live.arrays import Arrays
    from livesr.live.reconstruct.monitor import Monitor
    from livesr.live.reconstruct.reconstructor import Reconstructor
    from livesr.live.sinks.sink import Sink
    from livesr.modalities.calibrator import Calibrator
    from livesr.modalities.storm.localise import Localiser, PhotonScale
    from livesr.modalities.storm.reconstructor import STORMReconstructor
    from livesr.optics.exposure import Exposures
    from livesr.simulation.sequence import DrawImage

FRAMES_AT_ONCE = 100
"""Frames that are localised side by side.

Enough to be fast, few enough that a group of thousands needs no more memory.
"""

UNITS_PER_LOCALISATION = 100
"""A running image counts hundredths of a localisation.

The store rounds to whole numbers, and a drawn emitter is spread over many pixels.
"""


class STORM(Modality[STORMConfig]):
    """Single-molecule localisation of blinking emitters."""

    name = "storm"
    Section: ClassVar[type[STORMConfig]] = STORMConfig
    unit = "localisation"
    unit_scale = 1 / UNITS_PER_LOCALISATION
    raw_along_t = True
    localises = True
    virtual_rig = "virtual_storm"

    def validate(self, rig: RigConfig) -> None:
        """Refuse a rig that reconstructs STORM and does not say how noisy its camera is."""
        used = {rig.modality, *(c.modality for c in rig.channels.values())}
        if self.name in used and rig.camera.gain_e_per_adu is None:
            raise ValueError(
                "a STORM rig needs 'camera.gain_e_per_adu', and 'em_gain' of an EMCCD, to know its"
                " noise: see the camera's data sheet, or measure it with 'livesr characterise'"
            )

    def raw_frames(self, section: STORMConfig) -> int:
        """Return the exposures that are localised together."""
        return section.frames

    def frames_at_once(self, section: STORMConfig) -> int:
        """Return how many of them are localised side by side."""
        return min(section.frames, FRAMES_AT_ONCE)

    def sinks(self, core: CMMCorePlus, rig: RigConfig) -> Sequence[Sink]:
        """Return what holds the density of emitters by a laser, if the rig asks for it."""
        from livesr.modalities.storm.activation import Activation

        config = STORMConfig.of(rig).activation
        if config is None:
            return ()
        return (Activation(core, config, frozenset(rig.channels_of(self.name))),)

    def check_beside(self, rig: RigConfig, cfg: Configuration, found: Found) -> Iterator[Finding]:
        """Look for the activation laser."""
        from livesr.check.rig import check_named

        if (config := STORMConfig.of(rig).activation) is not None:
            named = (config.device, config.property)
            does = ("sets the power of the activation laser", "is that power")
            yield from check_named(cfg, "storm.activation", named, found, "activation", does)

    def scale(self, rig: RigConfig) -> float | None:
        """Return None: the running image has pixels of its own size."""
        return None

    def largest_pixel_nm(self, na: float, emission_nm: float) -> float:
        """Return twice the size with which a single emitter is found best.

        That is about its image's sigma, 0.21 wavelength / NA (Thompson et al. 2002, Biophysical J.
        82, 2775).
        """
        return emission_nm / (2.4 * na)

    def build(
        self,
        rig: RigConfig,
        channel: str,
        camera: Geometry,
        arrays: Arrays | None = None,
        like: Reconstructor | None = None,
    ) -> STORMReconstructor:
        """Return what localises the emitters of a channel and draws them."""
        from livesr.modalities.storm.reconstructor import STORMReconstructor

        settings = STORMConfig.of(rig)
        return STORMReconstructor(
            _localiser(rig, channel, camera, settings),
            camera.pixel_size_um * 1e3,
            settings.pixel_size_nm,
            settings.frames,
            sliding_groups=settings.sliding_groups,
            max_uncertainty_nm=settings.max_uncertainty_nm,
            render=settings.render,
            drift_correction=settings.drift_correction,
        )

    def quality(self, exposures: Exposures, frames: Sequence[Pixels | None]) -> FrameQuality | None:
        """Return what is doubtful about frames in which emitters are localised."""
        from livesr.modalities.storm.quality import quality

        return quality(exposures, frames)

    def monitors(
        self,
        rig: RigConfig,
        channel: str,
        camera: Geometry,
        reconstructor: Reconstructor,
        recorded: bool,
    ) -> list[Monitor]:
        """Return what compares the first frames with the camera and the optics of the rig."""
        from livesr.modalities.storm.monitors import SettingsMonitor
        from livesr.modalities.storm.reconstructor import STORMReconstructor

        assert isinstance(reconstructor, STORMReconstructor)
        if reconstructor.predicted_by:  # they compare fitted spots
            return []
        return [SettingsMonitor(reconstructor.localiser, channel)]

    # -- the desk ----------------------------------------------------------------------------------

    def calibrator(self, rig: RigConfig) -> Calibrator | None:
        """Return what measures a cylindrical lens from a stack of beads."""
        from livesr.modalities.storm.beads import BeadCalibrator

        return BeadCalibrator(rig)

    def check_hardware(self, looked: Looked) -> Iterator[Measured]:
        """Yield how many emitters a frame shows, and whether frames are what rig.yaml says."""
        from livesr.modalities.storm.hardware import emitters, settings

        yield emitters(looked)
        yield settings(looked)

    def simulate(self, rig: RigConfig, size: int, groups: int) -> NDArray[np.uint16]:
        """Return groups of frames of emitters that blink on microtubules."""
        from livesr.simulation.blinking_rig import BlinkingBank

        frames = STORMConfig.of(rig).frames
        return BlinkingBank(rig, size, groups * frames).frames.reshape(groups, frames, size, size)

    @property
    def draw_image(self) -> DrawImage | None:
        """Localisations of a static cell, scattered and drawn."""
        from livesr.modalities.storm.simulation.images import draw_image

        return draw_image

    @property
    def benchmarks(self) -> Mapping[str, Benchmark]:
        """Speed and quality of localisation, and both beside another program."""
        return {
            "storm": Benchmark("livesr.modalities.storm.bench"),
            "storm.peers": Benchmark("livesr.modalities.storm.peers"),
        }


def sigma_nm(rig: RigConfig, channel: str) -> float:
    """Return the width of a single emitter's image in focus, standard deviation."""
    from livesr.optics.psf import gaussian_sigma

    settings = STORMConfig.of(rig)
    return settings.psf_sigma_nm or gaussian_sigma(rig.optics.na, rig.emission_nm(channel))


def _localiser(rig: RigConfig, channel: str, camera: Geometry, settings: STORMConfig) -> Localiser:
    from livesr.modalities.storm.localise import Localiser, PhotonScale

    levels = rig.camera
    scale = PhotonScale.of(
        levels.offset_adu, levels.gain_e_per_adu, levels.em_gain, levels.read_noise_e
    )
    if settings.localiser:
        return _learned(rig, channel, camera, settings.localiser, scale)
    try:
        return Localiser(
            camera.shape,
            camera.pixel_size_um * 1e3,
            sigma_nm(rig, channel),
            scale,
            threshold=settings.threshold,
            astigmatism=settings.astigmatism,
        )
    except ValueError as e:
        raise ConfigError(f"Rig {rig.name!r} cannot be localised: {e}.") from e


def _learned(
    rig: RigConfig, channel: str, camera: Geometry, engine: str, scale: PhotonScale
) -> Localiser:
    from livesr.modalities.storm.network import NetworkLocaliser

    if STORMConfig.of(rig).astigmatism:
        raise ConfigError(
            f"Rig {rig.name!r} has both storm.localiser and storm.astigmatism: a network finds no"
            " z. Leave one out."
        )
    pixel_nm = camera.pixel_size_um * 1e3
    return NetworkLocaliser(engine, camera.shape, pixel_nm, sigma_nm(rig, channel), scale)
