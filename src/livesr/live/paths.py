"""What happens to one acquisition channel.

Its grouping, reconstruction, engine and composition, built from rig.yaml.

Owns the construction, before a run. Moves no frame: `pipeline.py` does.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import numpy as np

from livesr.base.compute import ON_CPU, ComputeConfig, DeviceChoice
from livesr.base.config import ChannelConfig, PatternConfig, RigConfig
from livesr.base.errors import BackendError, ConfigError, LiveSRError
from livesr.base.frames import Pixels
from livesr.base.registry import Registry
from livesr.base.run_description import ChannelDescription
from livesr.live.arrays import HOST, Arrays
from livesr.live.compose import Composer
from livesr.live.correct import Correction, build_correction
from livesr.live.device import HOST_DEVICE, Device, Slot, open_device
from livesr.live.grouping.by_index import IndexGrouping
from livesr.live.inference.engine import Engine
from livesr.live.inference.session import Resident
from livesr.live.networks import (
    NO_NETWORKS,
    Networks,
    Reconstructed,
    load_engines,
    open_networks,
)
from livesr.live.normalise import BORDER, background_and_scale
from livesr.live.reconstruct.reconstructor import DoubtfulFrameError, Reconstructor
from livesr.live.reconstruct.superpose import Gathering, Superposition
from livesr.modalities.sim.raw_order import RawOrderCheck
from livesr.modalities.sim.vector_drift import MIN_PX, VectorDrift
from livesr.modalities.storm.reconstructor import (
    FRAMES_AT_ONCE,
    UNITS_PER_LOCALISATION,
    RunningImage,
    STORMReconstructor,
)
from livesr.optics.exposure import Exposures, examine
from livesr.optics.illumination import Pattern

if TYPE_CHECKING:
    from livesr.modalities.sim.parameters import SIMParameters
    from livesr.modalities.sim.pattern_drift import PatternDrift
    from livesr.modalities.sim.reconstructor import SIMReconstructor

RECONSTRUCTORS = Registry(
    "reconstruction",
    {
        "sim": "livesr.live.paths:sim_reconstructor",
        "storm": "livesr.live.paths:storm_reconstructor",
        "passthrough": "livesr.live.paths:passthrough_reconstructor",
    },
)


_DRAWN = (
    "{camera} is Micro-Manager's demo camera: it draws a moving wave, and there is no specimen. No"
    " engine knows such a picture, and nothing that one separates from it is there."
)


class Geometry(NamedTuple):
    """What the camera delivers.

    Shape (y, x) and origin of the region in pixels, dtype, pixel size in the sample.

    `mirrored` is whether the picture of the region is turned over along (y, x), compared with the
    one that was calibrated. `bit_depth` is how many bits of a pixel are filled, `camera` the label
    of the device, "" where nobody said; `drawn` is whether it draws its pictures itself, as
    Micro-Manager's demo camera.
    """

    shape: tuple[int, int]
    dtype: str
    pixel_size_um: float
    origin_px: tuple[float, float] = (0.0, 0.0)
    mirrored: tuple[bool, bool] = (False, False)
    bit_depth: int = 16
    camera: str = ""
    drawn: bool = False

    def ceiling(self, bit_depth: int) -> int:
        """Return the largest pixel in ADU, where rig.yaml gives the camera `bit_depth`."""
        bits: int = min(bit_depth, self.bit_depth, 8 * np.dtype(self.dtype).itemsize)
        return int(2**bits - 1)

    def words(self) -> str:
        """Say it in a few words."""
        (y, x), (y0, x0) = self.shape, self.origin_px
        by = f" of {self.camera}" if self.camera else ""
        return (
            f"{x} x {y} pixels of {self.bit_depth} bit and {1e3 * self.pixel_size_um:g} nm from"
            f" ({x0:g}, {y0:g}){by}"
        )


class Measuring(NamedTuple):
    """What makes a measurement of a raw group; serves one thread."""

    correction: Correction | None
    reconstructor: Reconstructor


@dataclass(frozen=True, slots=True)
class ChannelPath:
    """The steps of one channel.

    `networks` make what is stored as `sr`. One path serves several runs; what a run accumulates is
    made anew for each by `grouping`, `composer`, and the networks' `upscaler` and `views`.
    `reconstructor` and `correction` are the CPU's; on another `device` each slot has its own,
    `on_device`, and the CPU's take over if the device fails. `parts` are the channels whose frames
    a superposition adds up; nothing is exposed for it. `doubts` is what no engine can know of what
    the camera shows.
    """

    name: str
    n_raw: int
    reconstructor: Reconstructor
    description: ChannelDescription
    ceiling: int
    dark_adu: float = 0.0
    networks: Networks = NO_NETWORKS
    residual_plane: bool = False
    notes: tuple[str, ...] = ()
    doubts: tuple[str, ...] = ()
    correction: Correction | None = None
    raw_order: Callable[[], RawOrderCheck] | None = None
    vectors: Callable[[], VectorDrift] | None = None
    device: Device = HOST_DEVICE
    on_device: tuple[Measuring, ...] = ()
    parts: tuple[str, ...] = ()

    def gathering(self) -> Gathering:
        """Return what waits for the frames of all `parts` of a time point."""
        return Gathering(self.parts)

    def grouping(self) -> IndexGrouping:
        """Return a fresh grouping."""
        return IndexGrouping(self.n_raw)

    @property
    def accumulates(self) -> bool:
        """Whether a picture is made of earlier groups as well, so that a group with exposures
        missing is still of use.
        """
        return isinstance(self.reconstructor, STORMReconstructor)

    @property
    def history(self) -> float:
        """Groups before its own that a picture is made of; infinite for all since the run began."""
        if not isinstance(self.reconstructor, STORMReconstructor):
            return 0
        if self.reconstructor.drift_correction:  # is counted from the first group
            return math.inf
        return (self.reconstructor.sliding_groups or math.inf) - 1

    def running(self) -> RunningImage | None:
        """Return what one stream of a run will accumulate, None where every picture is made of its
        own group alone.
        """
        if not isinstance(self.reconstructor, STORMReconstructor):
            return None
        return self.reconstructor.running(self.correction.apply if self.correction else None)

    def composer(self) -> Composer | None:
        """Return a fresh composer, None without an engine."""
        if self.networks.engine is None:
            return None
        return Composer(
            self.networks.engine.manifest,
            self.description.sr_shape,
            residual_plane=self.residual_plane,
            spread_scale=self.description.uncertainty.get("scale", 1.0),
            warnings=self.warnings,
        )

    @property
    def warnings(self) -> tuple[str, ...]:
        """Sentences that belong to every prediction."""
        return (*self.doubts, *self.networks.warnings) if self.networks.engine else ()

    @property
    def measuring(self) -> Measuring:
        """What makes a measurement on the CPU."""
        return Measuring(self.correction, self.reconstructor)

    @property
    def resident(self) -> Resident | None:
        """The way into the network for frames on the device that they were reconstructed on; None
        if they come from the host.
        """
        return self.networks.resident if self.on_device else None

    def exposures(self, frames: Sequence[Any], arrays: Arrays) -> Exposures:
        """Return what raw frames, as the camera gave them, say of their exposure."""
        return examine(frames, self.dark_adu, self.ceiling, arrays.xp, arrays.numbers)

    def order_check(self) -> RawOrderCheck | None:
        """Return a fresh check of the raw order, None where there is no pattern."""
        return self.raw_order() if self.raw_order else None

    def vector_check(self) -> VectorDrift | None:
        """Return a fresh check of the pattern vectors, None where they are not followed."""
        return self.vectors() if self.vectors else None

    def memory_bytes(self, streams: int) -> int:
        """Return what the steps hold while `streams` take turns, the runtimes' own memory aside."""
        corrected = self.correction.memory_bytes if self.correction else 0
        slots = len(self.on_device) * (self._group_bytes + 4 * math.prod(self.reconstructor.shape))
        networks = self.networks.memory_bytes(streams)
        return corrected + self.reconstructor.memory_bytes + networks + slots

    @property
    def _group_bytes(self) -> int:
        shape, dtype = self.description.raw_shape, self.description.raw_dtype
        return self.n_raw * math.prod(shape) * (1 if dtype == "uint8" else 2)

    def close(self) -> None:
        """Release the runtimes."""
        self.networks.close()


def build_path(
    rig: RigConfig,
    name: str,
    camera: Geometry,
    compute: ComputeConfig = ON_CPU,
    device: Device | None = None,
) -> ChannelPath:
    """Build the steps of channel `name` for what the camera delivers; compiles the engine.

    What a GPU has no code for (anything but SIM) is computed on the CPU. `device` is one that is
    open, instead of the one that `compute` names.

    Raises
    ------
    ConfigError, EngineError, BackendError
        If the channel, its engine or the runtime do not fit.
    """
    channel = rig.channel(name)
    method = channel.reconstruct or rig.modality
    n_raw = rig.raw_frames(name)
    at_once = min(n_raw, FRAMES_AT_ONCE) if method == "storm" else n_raw
    correction, offset_adu = build_correction(rig, name, camera.shape, camera.origin_px, at_once)
    # Whoever reconstructs subtracts what the correction leaves.
    left = rig.model_copy(
        update={"camera": rig.camera.model_copy(update={"offset_adu": offset_adu})}
    )
    reconstructor: Reconstructor = RECONSTRUCTORS.load(method)(left, channel, camera)
    notes: list[str] = []
    place: Device = HOST_DEVICE
    on_device: tuple[Measuring, ...] = ()
    if method == "sim":
        place, on_device = _on_device(
            rig, left, name, camera, device or compute.device, reconstructor, notes
        )
    ceiling = camera.ceiling(rig.camera.bit_depth)
    base: dict[str, Any] = {
        "name": name,
        "raw_labels": _raw_labels(rig, method, n_raw),
        "raw_shape": camera.shape,
        "raw_dtype": camera.dtype,
        "raw_pixel_size_um": camera.pixel_size_um,
        "raw_origin_px": camera.origin_px,
        "raw_mirrored": camera.mirrored,
        "raw_bit_depth": min(camera.bit_depth, 8 * np.dtype(camera.dtype).itemsize),
        "camera": camera.camera,
        "camera_drawn": camera.drawn,
        "recon_shape": reconstructor.shape,
        "recon_pixel_size_um": camera.pixel_size_um / reconstructor.scale,
        "recon_method": method,
        **_units(method),
    }
    raw_order = partial(_raw_order, rig, channel, camera) if method == "sim" else None
    follows = (
        method == "sim"
        and rig.sim is not None
        and rig.sim.follow_drift
        and min(camera.shape) >= MIN_PX
    )
    vectors = (
        partial(_vector_drift, rig, channel, camera, cast("SIMReconstructor", reconstructor))
        if follows
        else None
    )
    plain = ChannelPath(
        name,
        n_raw,
        reconstructor,
        ChannelDescription(**base),
        ceiling,
        float(
            about
            if isinstance(about := rig.corrections.offset, int | float)
            else rig.camera.offset_adu
        ),
        residual_plane=compute.residual_plane,
        correction=correction,
        raw_order=raw_order,
        vectors=vectors,
        notes=tuple(notes),
        doubts=(_DRAWN.format(camera=camera.camera),) if camera.drawn else (),
        device=place,
        on_device=on_device,
    )
    engines, resolution_nm = load_engines(channel), rig.resolution_nm(name)
    return _with_networks(plain, engines, method, resolution_nm, compute)


def build_superposition(
    rig: RigConfig,
    paths: Mapping[str, ChannelPath],
    compute: ComputeConfig = ON_CPU,
) -> ChannelPath:
    """Build the steps of the sum of true channels, whose own `paths` are there.

    It is added up on the CPU, on whatever device the channels are reconstructed.

    Raises
    ------
    ConfigError, EngineError, BackendError
        If the channels do not add up, or the engine or the runtime do not fit.
    """
    assert rig.superpose is not None
    asked = rig.superpose
    if missing := [name for name in asked.channels if name not in paths]:
        raise ConfigError(
            f"The run superposes {asked.name}, and does not acquire {', '.join(missing)}: every"
            " channel is needed at every time point."
        )
    parts = [paths[name].description for name in asked.channels]
    first = parts[0]
    if any(
        (p.recon_shape, p.recon_method) != (first.recon_shape, first.recon_method) for p in parts
    ):
        raise ConfigError(
            f"The channels {asked.name} cannot be added: "
            + ", ".join(
                f"{p.name} is {p.recon_method} {p.recon_shape[0]}x{p.recon_shape[1]}" for p in parts
            )
            + ". Give them the same reconstruction."
        )
    engines = load_engines(rig.superposed)
    if (
        rig.superposed.separate
        and (found := engines[-1].manifest.channel_names)
        and len(found) != len(parts)
    ):
        raise ConfigError(
            f"Engine {engines[-1].manifest.id!r} separates {', '.join(found)}, and {len(parts)}"
            f" channels are superposed, {asked.name}: name one channel for each structure, in the"
            " engine's order."
        )
    weights = tuple(asked.weights or (1.0,) * len(parts))
    base: dict[str, Any] = {
        "name": asked.name,
        "raw_labels": (),
        "raw_shape": (0, 0),
        "raw_dtype": first.raw_dtype,
        "raw_pixel_size_um": first.raw_pixel_size_um,
        "recon_shape": first.recon_shape,
        "recon_pixel_size_um": first.recon_pixel_size_um,
        "recon_method": f"sum of {first.recon_method}",
        "recon_unit": first.recon_unit,
        "recon_unit_scale": first.recon_unit_scale,
        "parts": tuple(asked.channels),
        "weights": weights,
    }
    plain = ChannelPath(
        asked.name,
        1,
        Superposition(first.recon_shape, weights),
        ChannelDescription(**base),
        paths[asked.channels[0]].ceiling,
        residual_plane=compute.residual_plane,
        doubts=tuple(
            dict.fromkeys(doubt for name in asked.channels for doubt in paths[name].doubts)
        ),
        parts=tuple(asked.channels),
    )
    coarsest_nm = max(rig.resolution_nm(name) for name in asked.channels)
    return _with_networks(plain, engines, first.recon_method, coarsest_nm, compute)


def _with_networks(
    plain: ChannelPath,
    engines: Sequence[Engine],
    modality: str,
    resolution_nm: float,
    compute: ComputeConfig,
) -> ChannelPath:
    """Return the path with `engines` opened for its frames, as `compute` asks."""
    about = plain.description
    frames = Reconstructed(about.recon_shape, about.recon_pixel_size_um, modality, resolution_nm)
    networks = open_networks(plain.name, engines, frames, compute)
    return replace(
        plain,
        networks=networks,
        description=networks.described(about, plain.doubts),
        notes=(*plain.notes, *networks.notes),
    )


def _on_device(
    rig: RigConfig,
    left: RigConfig,
    name: str,
    camera: Geometry,
    asked: DeviceChoice | Device,
    on_cpu: Reconstructor,
    notes: list[str],
) -> tuple[Device, tuple[Measuring, ...]]:
    """Return the device of a SIM channel, and what makes measurements there.

    Raises
    ------
    BackendError
        If a device that was named cannot be used; where the choice is livesr's, the CPU is taken
        and `notes` say so.
    """
    device = open_device(asked) if isinstance(asked, str) else asked
    if device is HOST_DEVICE:
        return device, ()
    try:
        return device, _measuring_on(
            device, rig, left, name, camera, cast("SIMReconstructor", on_cpu).drift
        )
    except BackendError as e:
        if asked != "auto":
            raise
        notes.append(f"{e} It is reconstructed on the CPU.")
        return HOST_DEVICE, ()


def _measuring_on(
    device: Device,
    rig: RigConfig,
    left: RigConfig,
    name: str,
    camera: Geometry,
    drift: PatternDrift,
) -> tuple[Measuring, ...]:
    """Return what makes SIM measurements on a device, one for each slot; they follow one drift.

    Raises
    ------
    BackendError
        If the device has too little memory, or fails.
    """
    made = []
    try:
        for _ in device.slots:
            n_raw = rig.raw_frames(name)
            correction, _level = build_correction(
                rig, name, camera.shape, camera.origin_px, n_raw, device.arrays
            )
            again = sim_reconstructor(
                left, rig.channel(name), camera, drift=drift, arrays=device.arrays
            )
            made.append(Measuring(correction, again))
        device.settle()
        dark = [np.zeros(camera.shape, camera.dtype)] * rig.raw_frames(name)
        for measuring, slot in zip(made, device.slots, strict=True):
            _warm_up(measuring, slot, device.arrays, dark)
    except LiveSRError:
        raise
    except Exception as e:  # CuPy and the driver raise errors of their own kinds
        raise BackendError(
            f"Channel {name!r} cannot be reconstructed on {device.description}: {type(e).__name__}:"
            f" {e}."
        ) from e
    return tuple(made)


def _warm_up(measuring: Measuring, slot: Slot, arrays: Arrays, dark: Sequence[Pixels]) -> None:
    """Measure a dark group.

    CuPy compiles what it computes with now, and what cannot be computed shows before the run.
    """
    correction, reconstructor = measuring
    with slot, suppress(DoubtfulFrameError):
        frames = slot.upload(dark)
        examine(frames, 0.0, xp=arrays.xp, numbers=arrays.numbers)
        image = reconstructor.reconstruct(correction.apply(frames) if correction else frames)
        background_and_scale(image, border=BORDER, arrays=arrays)
        slot.download(image)


def sim_reconstructor(
    rig: RigConfig,
    channel: ChannelConfig,
    camera: Geometry,
    *,
    drift: PatternDrift | None = None,
    arrays: Arrays = HOST,
) -> SIMReconstructor:
    """Linear SIM with the patterns of rig.yaml."""
    from livesr.modalities.sim.quality import QualityLimits
    from livesr.modalities.sim.reconstructor import SIMReconstructor

    assert rig.sim is not None  # RigConfig has checked it
    if not (channel.patterns or rig.sim.patterns):
        raise ConfigError(
            f"Rig {rig.name!r} has no patterns yet: run 'livesr calibrate {rig.folder}'."
        )
    limits = rig.sim.quality_limits
    return SIMReconstructor(
        *_sim_parameters(rig, channel, camera),
        QualityLimits(
            limits.when_doubtful,
            limits.contrast_to_noise,
            limits.phase_error_rad,
            limits.modulation,
            limits.motion_nm,
            limits.saturated,
        ),
        follow=rig.sim.follow_drift,
        drift=drift,
        arrays=arrays,
    )


def _sim_parameters(
    rig: RigConfig, channel: ChannelConfig, camera: Geometry
) -> tuple[SIMParameters, list[Pattern]]:
    """Return what a channel's frames are reconstructed with: parameters, and its patterns."""
    from livesr.modalities.sim.parameters import SIMParameters

    assert rig.sim is not None  # RigConfig has checked it
    patterns, origin_px = _patterns(rig, channel, camera)
    parameters = SIMParameters(
        camera.shape,
        camera.pixel_size_um,
        rig.optics.na,
        (channel.emission_nm or rig.optics.emission_nm) / 1e3,
        phase_steps_rad=rig.sim.phase_steps_rad,
        order=rig.sim.raw_order(),
        offset_adu=rig.camera.offset_adu,
        wiener=channel.wiener or rig.sim.wiener,
        attenuation=rig.sim.attenuation,
        attenuation_fwhm_um=rig.sim.attenuation_fwhm_um,
        apodisation=rig.sim.apodisation,
        origin_px=origin_px,
        equalise=rig.sim.equalise,
        damping=channel.damping or rig.optics.damping,
    )
    return parameters, patterns


def _patterns(
    rig: RigConfig, channel: ChannelConfig, camera: Geometry
) -> tuple[list[Pattern], tuple[float, float]]:
    """Return the patterns as the camera's picture shows them, and the origin that their phases are
    to be referred to.

    Pixel u of a mirrored region of n pixels from x0 on is the chip's x0 + n - 1 - u: a pattern with
    the opposite k, seen from -(x0 + n - 1). Phase steps, and so the raw order, stay.
    """
    assert rig.sim is not None  # RigConfig has checked it
    patterns = [
        pattern_of(p).mirrored(camera.mirrored) for p in channel.patterns or rig.sim.patterns
    ]
    y, x = (
        -(first + n - 1) if mirrored else first
        for first, n, mirrored in zip(camera.origin_px, camera.shape, camera.mirrored, strict=True)
    )
    return patterns, (y, x)


def _raw_order(rig: RigConfig, channel: ChannelConfig, camera: Geometry) -> RawOrderCheck:
    """Return a fresh check that the pattern display began where rig.yaml says."""
    return RawOrderCheck(*_sim_parameters(rig, channel, camera))


def _vector_drift(
    rig: RigConfig, channel: ChannelConfig, camera: Geometry, reconstructor: SIMReconstructor
) -> VectorDrift:
    """Return what watches the pattern vectors of a run."""
    return VectorDrift(*_sim_parameters(rig, channel, camera), reconstructor.drift)


def storm_reconstructor(rig: RigConfig, channel: ChannelConfig, camera: Geometry) -> Reconstructor:
    """Emitters localised in groups of frames, drawn into a running image."""
    from livesr.modalities.storm.localise import Localiser, PhotonScale
    from livesr.optics.psf import gaussian_sigma

    settings, pixel_size_nm = rig.storm, camera.pixel_size_um * 1e3
    sigma_nm = settings.psf_sigma_nm or gaussian_sigma(
        rig.optics.na, channel.emission_nm or rig.optics.emission_nm
    )
    levels = rig.camera
    scale = PhotonScale.of(
        levels.offset_adu, levels.gain_e_per_adu, levels.em_gain, levels.read_noise_e
    )
    try:
        localiser = Localiser(
            camera.shape, pixel_size_nm, sigma_nm, scale, threshold=settings.threshold
        )
    except ValueError as e:
        raise ConfigError(f"Rig {rig.name!r} cannot be localised: {e}.") from e
    return STORMReconstructor(
        localiser,
        pixel_size_nm,
        settings.pixel_size_nm,
        settings.frames,
        sliding_groups=settings.sliding_groups,
        max_uncertainty_nm=settings.max_uncertainty_nm,
        render=settings.render,
        drift_correction=settings.drift_correction,
    )


def pattern_of(config: PatternConfig) -> Pattern:
    """Return the pattern that rig.yaml describes."""
    overtones = tuple((o.phase_rad, o.modulation) for o in config.overtones)
    return Pattern(config.k_um, config.phase_rad, config.modulation, overtones)


def passthrough_reconstructor(
    rig: RigConfig, channel: ChannelConfig, camera: Geometry
) -> Reconstructor:
    """One exposure is one frame."""
    from livesr.modalities.widefield.reconstructor import Passthrough

    return Passthrough(camera.shape, rig.camera.offset_adu)


def _raw_labels(rig: RigConfig, method: str, n_raw: int) -> tuple[str, ...]:
    if method == "sim" and rig.sim:
        return tuple(f"angle {a} phase {p}" for a, p in rig.sim.raw_order())
    return tuple(f"raw {i}" for i in range(n_raw))


def _units(method: str) -> dict[str, Any]:
    """Return what a reconstruction counts and where its exposures lie in the store."""
    if method != "storm":
        return {}
    return {
        "recon_unit": "localisation",
        "recon_unit_scale": 1 / UNITS_PER_LOCALISATION,
        "raw_along_t": True,
    }
