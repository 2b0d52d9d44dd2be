"""What livesr asks of a modality: a way in which raw frames become a super-resolution frame.

Owns the base class, whose methods do nothing, or what suits most. A modality has no state: what a
run accumulates lives in the objects that it makes.

::

    rig.yaml ------ Section, validate                  its section, and what the rig needs beside it
    a rig --------- raw_frames, raw_labels, scale,     what a group of exposures is
                    exposed
    the core ------ trigger, prepare_run,              what must hold before and while a run is
                    calibrated_with, sinks             acquired
    a run --------- build, volume, monitors, quality   raw frames -> measurement, and what watches
    the store ----- method, unit, raw_along_t          how it is written
    the desk ------ check, check_hardware,             livesr check, calibrate, simulated data and
                    calibrator, simulate,              livesr bench
                    draw_sequence, draw_image,
                    domain_of, benchmarks

A third-party modality subclasses `Modality`, sets `name` and implements `build`; with a section of
its own in rig.yaml it sets `Section` as well.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Generic, NamedTuple, TypeVar

from livesr.base import config
from livesr.base.config import RigConfig, TriggerConfig
from livesr.base.errors import ConfigError
from livesr.base.geometry import Geometry
from livesr.optics.raw_quality import exposure_quality

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from pymmcore_plus import CMMCorePlus

    from livesr.base.domain import Domain
    from livesr.base.frames import FrameQuality, Pixels
    from livesr.check.finding import Finding, Found
    from livesr.check.hardware import Looked, Measured
    from livesr.check.micromanager import Configuration
    from livesr.live.arrays import Arrays
    from livesr.live.reconstruct.monitor import Monitor
    from livesr.live.reconstruct.reconstructor import Reconstructor, VolumeReconstructor
    from livesr.live.sinks.sink import Sink
    from livesr.modalities.calibrator import Calibrator
    from livesr.optics.exposure import Exposures
    from livesr.simulation.sequence import DrawImage, DrawSequence

S = TypeVar("S", bound=config.Section)


class Benchmark(NamedTuple):
    """A suite of `livesr bench`.

    Attributes
    ----------
    module : has ``measure(quick: bool) -> list[livesr.bench.result.Result]``, whose names begin
        with that of the suite
    cores : that it is measured on
    """

    module: str
    cores: int = 2


class Modality(Generic[S]):
    """One way to make a super-resolution frame; `S` is its section of rig.yaml.

    Attributes
    ----------
    name : in rig.yaml: ``modality: NAME``, ``channels.X.reconstruct: NAME``, and the key of its
        section
    title : in sentences; the name in capitals without
    method : what stores, the wire and engine manifests call its measurements; the name without
    Section : model of its section, whose field `modality` has the name as its default
    ChannelSection : model of the keys that one of its channels may have beside those of all
    unit, unit_scale : a measurement counts `unit_scale` `unit` in each of its numbers
    raw_along_t : whether the exposures of a group are stored as a film rather than as channels of
        one picture
    localises : whether emitters are looked for, whose positions are stored as a table
    structured : whether the raw frames of a group differ on purpose, by patterns of light
    on_devices : whether `build` takes the arrays of another device than the CPU
    needs_sampling : whether nothing can be reconstructed from pixels beyond `largest_pixel_nm`
    centred : whether pixel (0, 0) of a measurement has its centre on that of the camera's pixel
        (0, 0); else their outer corners lie on each other
    picture : what pictures of its measurements are called, beside those of predictions
    virtual_rig : name of a rig in hardware_configs whose virtual camera simulates it, "" without
    region_unknown : what a reader must know of raw frames whose region on the chip got lost; ""
        where it does not matter
    """

    name: ClassVar[str]
    title: ClassVar[str] = ""
    method: ClassVar[str] = ""
    Section: ClassVar[type[config.Section]] = config.Section
    ChannelSection: ClassVar[type[config.ChannelSection]] = config.ChannelSection
    unit: ClassVar[str] = "ADU"
    unit_scale: ClassVar[float] = 1.0
    raw_along_t: ClassVar[bool] = False
    localises: ClassVar[bool] = False
    structured: ClassVar[bool] = False
    on_devices: ClassVar[bool] = False
    needs_sampling: ClassVar[bool] = False
    centred: ClassVar[bool] = False
    picture: ClassVar[str] = "Input"
    virtual_rig: ClassVar[str] = ""
    region_unknown: ClassVar[str] = ""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Give a modality with a name the title and the method that follow from it."""
        super().__init_subclass__(**kwargs)
        own = vars(cls)
        if name := own.get("name"):
            cls.title = own.get("title", name.upper())
            cls.method = own.get("method", name)

    # -- the rig -----------------------------------------------------------------------------------

    def validate(self, rig: RigConfig) -> None:
        """Refuse a rig.yaml that uses this modality and lacks what it needs.

        Called once `rig` is parsed, if it names the modality or has its section.

        Raises
        ------
        ValueError
            With a sentence that says what to give.
        """

    def raw_frames(self, section: S) -> int:
        """Return how many exposures make one super-resolution frame."""
        return 1

    def frames_at_once(self, section: S) -> int:
        """Return how many of them are corrected and reconstructed side by side."""
        return self.raw_frames(section)

    def raw_labels(self, section: S) -> tuple[str, ...]:
        """Return what each raw frame of a group is, for the store."""
        return tuple(f"raw {i}" for i in range(self.raw_frames(section)))

    def exposed(self, section: S, frames: int) -> Sequence[int]:
        """Return which raw frames of a group are exposed where a network needs only `frames`.

        Raw frames that do not differ on purpose may be as many as one likes.

        Raises
        ------
        ValueError
            If there are not as many, with what there is.
        """
        if self.structured and frames > self.raw_frames(section):
            raise ValueError(
                f"{frames} raw frames were asked for, a group of {self.title} has"
                f" {self.raw_frames(section)}"
            )
        return range(frames)

    def scale(self, rig: RigConfig) -> float | None:
        """Return output pixels per camera pixel; None where that depends on the camera."""
        return 1.0

    def largest_pixel_nm(self, na: float, emission_nm: float) -> float:
        """Return the largest pixel in the sample, nm, that samples what the objective passes.

        Two pixels per resolved period: wavelength / (4 NA).
        """
        return emission_nm / (4 * na)

    # -- the core ----------------------------------------------------------------------------------

    def trigger(self, section: S) -> TriggerConfig | None:
        """Return the digital output that lets its light run during an acquisition, None without.

        It stands in rig.yaml under ``NAME.trigger``.
        """
        return None

    def calibrated_with(self, section: S) -> Sequence[tuple[str, str, str]]:
        """Return (device, property, value) of objective and camera orientation that the section
        was measured with.
        """
        return ()

    def sinks(self, core: CMMCorePlus, rig: RigConfig) -> Sequence[Sink]:
        """Return what is to see the frames of a run on `core`, beside store and stream.

        Called before every run that is acquired, of a modality that `rig` uses; what reacts to
        measurements by setting a device is such a sink.

        Raises
        ------
        ConfigError
            If it cannot work; the run does not start.
        """
        return ()

    def prepare_run(self, core: CMMCorePlus, section: S) -> None:
        """Set what must be set on `core` before the first exposure of a run or a measurement.

        Raises
        ------
        ConfigError
            If the section names what the core has not or refuses.
        """

    # -- a run -------------------------------------------------------------------------------------

    def build(
        self,
        rig: RigConfig,
        channel: str,
        camera: Geometry,
        arrays: Arrays | None = None,
        like: Reconstructor | None = None,
    ) -> Reconstructor:
        """Return what reconstructs the raw groups of a channel.

        Parameters
        ----------
        rig : ``rig.section(channel)`` is the section; ``rig.camera.offset_adu`` is the level of a
            dark frame that the corrections leave
        channel : its name
        camera : what its raw frames are
        arrays : what to compute with; the CPU without. Others come only if `on_devices`
        like : with `arrays`: the channel's reconstructor on the CPU, with which this one shares
            what is followed from frame to frame

        Raises
        ------
        ConfigError
            If the channel cannot be reconstructed, with what to do.
        """
        raise NotImplementedError

    def volume(
        self, rig: RigConfig, channel: str, camera: Geometry, planes: int, z_step_um: float
    ) -> VolumeReconstructor:
        """Return what reconstructs stacks of `planes` planes at once, `z_step_um` apart.

        Raises
        ------
        ConfigError
            If there is nothing, or the rig lacks what it needs.
        """
        raise ConfigError(
            f"{self.title} is reconstructed plane by plane: there is no reconstruction of whole"
            " stacks. Leave out --volume."
        )

    def monitors(
        self,
        rig: RigConfig,
        channel: str,
        camera: Geometry,
        reconstructor: Reconstructor,
        recorded: bool,
    ) -> list[Monitor]:
        """Return what watches one run of a channel.

        Monitors see raw frames as the camera gave them, whose dark level is that of `rig`;
        `reconstructor` is what `build` returned. Of a run of `recorded` frames none that changes
        what is reconstructed: what was recorded has to give the same again.
        """
        return []

    def quality(self, exposures: Exposures, frames: Sequence[Pixels | None]) -> FrameQuality | None:
        """Return what is doubtful about a raw group whose reconstructor does not say, None if
        nothing is.

        Parameters
        ----------
        exposures : of those of `frames` that came
        frames : in raw order, (y, x) each as the camera gave it; None where one is missing
        """
        return exposure_quality(exposures, frames)

    # -- the desk ----------------------------------------------------------------------------------

    def check(self, rig: RigConfig, found: Found) -> Iterator[Finding]:
        """Yield what is not plausible in the section of a rig; `livesr check` asks.

        Each by ``found(level, code, place, says, advice)``.
        """
        yield from ()

    def check_beside(self, rig: RigConfig, cfg: Configuration, found: Found) -> Iterator[Finding]:
        """Yield what the section names that is not in Micro-Manager's configuration."""
        yield from ()

    def hardware_groups(self, section: S) -> int | None:
        """Return how many raw groups `livesr check --hardware` is to take; None for as many as a
        frame rate needs.
        """
        return None

    def believing(self, rig: RigConfig) -> RigConfig:
        """Return the rig, but that doubtful frames are reconstructed as well.

        A check shows them, and so does a benchmark.
        """
        return rig

    def not_ready(self, rig: RigConfig, channel: str) -> Measured | None:
        """Return why a channel cannot be reconstructed yet, for `livesr check --hardware`."""
        return None

    def check_hardware(self, looked: Looked) -> Iterator[Measured]:
        """Yield what raw groups of a channel show of this modality."""
        yield from ()

    def calibrator(self, rig: RigConfig) -> Calibrator | None:
        """Return what `livesr calibrate` measures the section with, None if there is nothing to
        calibrate.
        """
        return None

    def simulate(self, rig: RigConfig, size: int, groups: int) -> NDArray[np.uint16]:
        """Return raw groups (t, n, y, x), ADU, of a specimen as the camera of `rig` would show it.

        `size` is the side of its chip.

        Raises
        ------
        ConfigError
            If it cannot be simulated, or the rig lacks what is needed for it.
        """
        raise ConfigError(f"{self.title} cannot be simulated.")

    @property
    def draw_sequence(self) -> DrawSequence | None:
        """What draws time lapses as this modality would record them, with their truth.

        None if it cannot be simulated.
        """
        return None

    def domain_of(self, rig: RigConfig, channel: str, domain: Domain) -> Domain:
        """Return `domain`, narrowed to what a channel of `rig` shows of a cell.

        Raises
        ------
        ConfigError
            If it cannot be simulated, or `rig` does not say enough.
        """
        raise ConfigError(
            f"{self.title} cannot be simulated as one rig records it: leave out --rig."
        )

    @property
    def draw_image(self) -> DrawImage | None:
        """What draws pictures of static cells as this modality would show them.

        None where they are frames of its time lapses, or it cannot be simulated.
        """
        return None

    @property
    def benchmarks(self) -> Mapping[str, Benchmark]:
        """Suites of `livesr bench`, by their names."""
        return {}
