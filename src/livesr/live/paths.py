"""What happens to one acquisition channel.

Its grouping, reconstruction, engine and composition, built from rig.yaml.

Owns the construction, before a run. Moves no frame: `livesr.live.stages` do.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from livesr.base import error_bars, rig_limits
from livesr.base.compute import ON_CPU, ComputeConfig, DeviceChoice
from livesr.base.config import RigConfig
from livesr.base.error_bars import load_error_bars
from livesr.base.errors import BackendError, ConfigError, LiveSRError
from livesr.base.frames import FrameQuality, Pixels, SRFrame
from livesr.base.geometry import Geometry
from livesr.base.quality import Quality
from livesr.base.rig_limits import ChannelLimits, load_rig_limits
from livesr.base.run_description import ChannelDescription
from livesr.base.taken_with import TakenWith
from livesr.formats.layout import MEAN_METHOD
from livesr.live.arrays import Arrays
from livesr.live.compose import Composer
from livesr.live.correct import Correction, build_correction
from livesr.live.device import HOST_DEVICE, Device, Slot, open_device
from livesr.live.edges import EvenEdges
from livesr.live.grouping.by_index import IndexGrouping
from livesr.live.inference.engine import TOLD, Engine
from livesr.live.inference.runtime import is_remote
from livesr.live.inference.session import Resident
from livesr.live.networks import (
    NO_NETWORKS,
    Networks,
    Reconstructed,
    load_engines,
    open_networks,
)
from livesr.live.normalise import BORDER, background_and_scale
from livesr.live.own_engine import notes_of
from livesr.live.reconstruct.mean import GroupMean
from livesr.live.reconstruct.monitor import Monitor
from livesr.live.reconstruct.reconstructor import (
    Accumulates,
    DoubtfulFrameError,
    Fades,
    Reconstructor,
    RunningImage,
    TellsDepth,
    Updates,
)
from livesr.live.reconstruct.superpose import Superposition
from livesr.live.restore import RawGroups
from livesr.live.taken_with import taken_with
from livesr.live.upscale import WINDOW
from livesr.modalities.modality import Modality
from livesr.modalities.registry import MODALITIES, modality
from livesr.optics.exposure import Exposures, examine
from livesr.optics.raw_quality import exposure_quality

_DRAWN = (
    "{camera} is Micro-Manager's demo camera: it draws a moving wave, and there is no specimen. No"
    " engine knows such a picture, and nothing that one separates from it is there."
)
_PREDICTED = "Channel {channel}: the picture is predicted, not measured: {engine} draws it."


class Measuring(NamedTuple):
    """What makes a measurement of a raw group; serves one thread."""

    correction: Correction | None
    reconstructor: Reconstructor


class Own(NamedTuple):
    """What a rig's own recordings tell of the predictions of a channel.

    `limits` are what is usual; `unread` says what lies beside the rig and cannot be read, and what
    follows for a prediction. Error bars are part of the channel's description.
    """

    limits: ChannelLimits | None = None
    unread: tuple[str, ...] = ()


_NOTHING_OWN = Own()


@dataclass(frozen=True, slots=True)
class ChannelPath:
    """The steps of one channel.

    `networks` make what is stored as `sr`. One path serves several runs; what a run accumulates is
    made anew for each by `grouping`, `composer`, `monitors`, and the networks' `upscaler` and
    `views`. `reconstructor` and `correction` are the CPU's; on another `device` each slot has its
    own, `on_device`, and the CPU's take over if the device fails. `parts` are the channels whose
    frames a superposition adds up; nothing is exposed for it.
    `left_adu` is the level of a dark frame that the correction leaves.
    `monitors` makes those of a run, of recorded frames none that changes what is reconstructed.
    `quality` says what is doubtful about a raw group, given the exposures of the frames that came,
    where the reconstructor does not say it itself. `doubts` is what no engine can know of what the
    camera shows. `updates` are as of `Section`.
    `own` is what the rig's own recordings tell of its predictions.
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
    monitors: Callable[[bool], list[Monitor]] = lambda recorded: []
    quality: Callable[[Exposures, Sequence[Pixels | None]], FrameQuality | None] = exposure_quality
    device: Device = HOST_DEVICE
    on_device: tuple[Measuring, ...] = ()
    parts: tuple[str, ...] = ()
    left_adu: float = 0.0
    updates: tuple[int, ...] = ()
    own: Own = _NOTHING_OWN

    def grouping(self, recorded: bool = False) -> IndexGrouping:
        """Return a fresh grouping; of `recorded` frames one without updates, which nobody sees,
        unless they are stored.
        """
        return IndexGrouping(
            self.n_raw, self.description.kept_updates if recorded else self.updates
        )

    @property
    def accumulates(self) -> bool:
        """Whether a picture is made of earlier groups as well, so that a group with exposures
        missing is still of use.
        """
        return isinstance(self.reconstructor, Accumulates)

    @property
    def history(self) -> float:
        """Groups before its own that a picture is made of; infinite for all since the run began."""
        return self.reconstructor.history if isinstance(self.reconstructor, Accumulates) else 0

    @property
    def shown(self) -> float:
        """Groups before its own whose light a picture shows, 0 where it shows its own alone."""
        return self.reconstructor.shown if isinstance(self.reconstructor, Accumulates) else 0

    def running(self) -> RunningImage | None:
        """Return what one stream of a run will accumulate, None where every picture is made of its
        own group alone.
        """
        if not isinstance(self.reconstructor, Accumulates):
            return None
        return self.reconstructor.running(self.correction.apply if self.correction else None)

    def composer(self) -> Composer | None:
        """Return a fresh composer, None without an engine."""
        if self.networks.engine is None:
            return None
        composer = Composer(
            self.networks.engine.manifest,
            self.description.sr_shape,
            residual_plane=self.residual_plane,
            spread_scale=self.description.uncertainty.get("scale", 1.0),
            warnings=self.warnings,
            error_bars=self.description.error_bars,
            rig_limits=self.own.limits,
        )
        for sentence in self.own.unread:
            composer.warn(sentence, Quality.GOOD)
        return composer

    def even_edges(self, arrays: Arrays) -> EvenEdges | None:
        """Return what brightens the edges of the network's input, None where none are darker.

        Enlarged frames and raw frames are left as they are.
        """
        if self.networks.engine is None or not isinstance(self.reconstructor, Fades):
            return None
        if (self.networks.raw_order or self.networks.beside) and len(self.networks.steps) == 1:
            return None
        fade, scale = self.reconstructor.fade, self.networks.engine.manifest.scale
        fits = tuple(scale * len(side) for side in fade) == self.description.sr_shape
        if not fits or all((side == 1).all() for side in fade):
            return None
        return EvenEdges(fade, scale, arrays)

    def subtracted(self, frame: SRFrame) -> float:
        """Return what was subtracted from a frame's picture: a sum is one without background."""
        if not isinstance(self.reconstructor, Superposition):
            return 0.0
        return self.reconstructor.subtracted(frame.parts)

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

    def memory_bytes(self, streams: int) -> int:
        """Return what the steps hold while `streams` take turns, the runtimes' own memory aside."""
        corrected = self.correction.memory_bytes if self.correction else 0
        slots = len(self.on_device) * (self._group_bytes + 4 * math.prod(self.reconstructor.shape))
        networks = self.networks.memory_bytes(streams)
        raw = len(self.networks.raw_order) * math.prod(self.description.raw_shape)
        networks += 4 * WINDOW * streams * raw
        return corrected + self.reconstructor.memory_bytes + networks + slots

    @property
    def window_bytes(self) -> int:
        """What a window that waits for the network adds to the one before it."""
        raw = len(self.networks.raw_order) * math.prod(self.description.raw_shape)
        pictures = 2 if self.networks.beside else 1
        return 4 * (pictures * math.prod(self.description.recon_shape) + raw)

    def group(self, frames: Any) -> NDArray[np.float32] | None:
        """Return the raw frames of a group as the network sees them; None if it sees none.

        `frames` are corrected, on the host, in raw order.
        """
        if not (order := self.networks.raw_order):
            return None
        return np.stack([frames[i] for i in order]).astype(np.float32) - np.float32(self.left_adu)

    @property
    def _group_bytes(self) -> int:
        shape, dtype = self.description.raw_shape, self.description.raw_dtype
        return self.n_raw * math.prod(shape) * (1 if dtype == "uint8" else 2)

    def close(self) -> None:
        """Release the runtimes."""
        self.networks.close()


def close_all(paths: Mapping[str, ChannelPath]) -> None:
    """Release the runtimes of every channel."""
    for path in paths.values():
        path.close()


def build_path(
    rig: RigConfig,
    name: str,
    camera: Geometry,
    compute: ComputeConfig = ON_CPU,
    device: Device | None = None,
) -> ChannelPath:
    """Build the steps of channel `name` for what the camera delivers; compiles the engine.

    What a GPU has no code for is computed on the CPU. `device` is one that is open, instead of the
    one that `compute` names.

    Raises
    ------
    ConfigError, EngineError, BackendError
        If the channel, its engine or the runtime do not fit.
    """
    way = modality(rig.modality_of(name))
    section = rig.section(name)
    correction, offset_adu = build_correction(
        rig,
        name,
        camera.shape,
        camera.origin_px,
        rig.raw_frames(name) if rig.channel(name).learned else way.frames_at_once(section),
    )
    # Whoever reconstructs subtracts what the correction leaves.
    left = rig.model_copy(
        update={"camera": rig.camera.model_copy(update={"offset_adu": offset_adu})}
    )
    learned = rig.channel(name).learned
    if learned:
        reconstructor: Reconstructor = GroupMean(camera.shape, offset_adu)
    else:
        with MODALITIES.blamed(way.name, f"cannot reconstruct channel {name!r}"):
            reconstructor = way.build(left, name, camera)
    raw, updates = _Raw(rig, left, name, camera, way), _updates(rig, name, reconstructor)
    notes: list[str] = []
    if engine := predicted_by(reconstructor):
        notes.append(_PREDICTED.format(channel=name, engine=engine))
    place, on_device = _on_device(raw, device or compute.device, reconstructor, notes)
    plain = ChannelPath(
        name,
        rig.raw_frames(name),
        reconstructor,
        replace(_described(raw, reconstructor), kept_updates=updates if rig.store.rolling else ()),
        camera.ceiling(rig.camera.bit_depth),
        _dark_adu(rig),
        residual_plane=compute.residual_plane,
        correction=correction,
        monitors=_none if learned else partial(way.monitors, rig, name, camera, reconstructor),
        quality=way.quality,
        notes=tuple(notes),
        doubts=(_DRAWN.format(camera=camera.camera),) if camera.drawn else (),
        device=place,
        on_device=on_device,
        left_adu=offset_adu,
        updates=updates,
    )
    engines, resolution_nm = load_engines(rig.channel(name)), rig.resolution_nm(name)
    compute = _with_server(compute, rig)
    two = [engine.manifest.beside[0] for engine in engines if engine.manifest.beside]
    beside = rig.beside(name, two[0]) if two else ""
    made = _with_networks(
        plain, engines, way.method, resolution_nm, compute, _groups(raw, plain), beside
    )
    return _with_calibrations(made, rig, compute)


def _groups(raw: _Raw, path: ChannelPath) -> RawGroups | None:
    """Return what an engine that sees raw frames is opened for; None where a picture is made of
    other groups as well.
    """
    if path.accumulates:
        return None
    about = path.description
    believing = raw.way.believing(raw.left)

    def again() -> Reconstructor:
        return raw.way.build(believing, raw.channel, raw.camera)

    shape, pixel_um = about.raw_shape, about.raw_pixel_size_um
    return RawGroups(shape, pixel_um, about.raw_labels, path.left_adu, again)


def _updates(rig: RigConfig, name: str, reconstructor: Reconstructor) -> tuple[int, ...]:
    """Return when a group under way is shown; a network sees whole groups of raw frames."""
    sees_raw = rig.channel(name).restore is not None
    if sees_raw or not isinstance(reconstructor, Updates):
        return ()
    return rig.section(name).updates


def predicted_by(reconstructor: Reconstructor) -> str:
    """Return the engine that the picture is a prediction of; "" where it is a measurement."""
    return str(getattr(reconstructor, "predicted_by", ""))


def _none(recorded: bool) -> list[Monitor]:
    """Return none: what a modality watches, it sees in whole groups."""
    return []


class _Raw(NamedTuple):
    """What the raw frames of a channel are reconstructed from.

    Attributes
    ----------
    rig, left : the rig as it is, and with the dark level that the corrections leave
    channel : its name
    """

    rig: RigConfig
    left: RigConfig
    channel: str
    camera: Geometry
    way: Modality[Any]


def _described(raw: _Raw, reconstructor: Reconstructor) -> ChannelDescription:
    """Return what sinks are told of a channel without engines."""
    camera, way = raw.camera, raw.way
    measured = MEAN_METHOD if raw.rig.channel(raw.channel).learned else way.method
    engine = predicted_by(reconstructor)
    return ChannelDescription(
        name=raw.channel,
        raw_labels=raw.rig.raw_labels(raw.channel),
        raw_shape=camera.shape,
        raw_dtype=camera.dtype,
        raw_pixel_size_um=camera.pixel_size_um,
        raw_origin_px=camera.origin_px,
        raw_mirrored=camera.mirrored,
        raw_bit_depth=min(camera.bit_depth, 8 * np.dtype(camera.dtype).itemsize),
        raw_along_t=way.raw_along_t,
        localises=way.localises and measured == way.method,
        centred=way.centred and measured == way.method,
        camera=camera.camera,
        camera_drawn=camera.drawn,
        recon_shape=reconstructor.shape,
        recon_pixel_size_um=camera.pixel_size_um / reconstructor.scale,
        recon_method=f"{measured}, predicted by {engine}" if engine else measured,
        recon_unit=way.unit if measured == way.method else "ADU",
        recon_unit_scale=way.unit_scale if measured == way.method else 1.0,
        power_mw=raw.rig.channel(raw.channel).power_mw,
        raw_dark_adu=_dark_adu(raw.rig),
        depth_range_nm=reconstructor.depth_range_nm
        if isinstance(reconstructor, TellsDepth)
        else None,
    )


def _dark_adu(rig: RigConfig) -> float:
    """Return the level of a dark frame, about: maps have one for every pixel."""
    offset = rig.corrections.offset
    return float(offset if isinstance(offset, int | float) else rig.camera.offset_adu)


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
        "centred": first.centred,
    }
    plain = ChannelPath(
        asked.name,
        1,
        _superposition(paths[asked.channels[0]].reconstructor, weights),
        ChannelDescription(**base),
        paths[asked.channels[0]].ceiling,
        residual_plane=compute.residual_plane,
        doubts=tuple(
            dict.fromkeys(doubt for name in asked.channels for doubt in paths[name].doubts)
        ),
        parts=tuple(asked.channels),
    )
    coarsest_nm = max(rig.resolution_nm(name) for name in asked.channels)
    compute = _with_server(compute, rig)
    made = _with_networks(plain, engines, first.recon_method, coarsest_nm, compute)
    return _with_calibrations(made, rig, compute)


def _superposition(first: Reconstructor, weights: Sequence[float]) -> Superposition:
    """Return what adds up pictures like those of the `first` channel's reconstructor."""
    return Superposition(first.shape, weights, first.fade if isinstance(first, Fades) else None)


def _with_server(compute: ComputeConfig, rig: RigConfig) -> ComputeConfig:
    """Return `compute` with the rig's server, where a run names none and frames go to one."""
    if compute.endpoint or not rig.endpoint or not is_remote(compute.backend):
        return compute
    return compute.model_copy(update={"endpoint": rig.endpoint})


def _with_networks(
    plain: ChannelPath,
    engines: Sequence[Engine],
    modality: str,
    resolution_nm: float,
    compute: ComputeConfig,
    raw: RawGroups | None = None,
    beside: str = "",
) -> ChannelPath:
    """Return the path with `engines` opened for its frames, as `compute` asks."""
    about = plain.description
    frames = Reconstructed(about.recon_shape, about.recon_pixel_size_um, modality, resolution_nm)
    networks = open_networks(plain.name, engines, frames, compute, raw, beside)
    return replace(
        plain,
        networks=networks,
        description=replace(
            networks.described(about, plain.doubts), error_map=compute.error_map or ""
        ),
        notes=(*plain.notes, *networks.notes),
    )


def _with_calibrations(path: ChannelPath, rig: RigConfig, compute: ComputeConfig) -> ChannelPath:
    """Return the path with what was measured of its predictions and lies beside the rig.

    No run is refused for a file that cannot be read: what it says is left out, and that is said.
    """
    try:
        return _with_rig_limits(_with_error_bars(_with_notes(path, rig), rig, compute), rig)
    except ConfigError:
        path.close()
        raise


def _with_notes(path: ChannelPath, rig: RigConfig) -> ChannelPath:
    """Return the path with what has changed of the microscope that its engines were trained for."""
    channels = path.parts or (path.name,)
    manifests = [engine.manifest for engine in path.networks.engines]
    changed = [note for manifest in manifests for note in notes_of(manifest, rig, channels)]
    return replace(path, notes=(*path.notes, *changed))


def _with_error_bars(path: ChannelPath, rig: RigConfig, compute: ComputeConfig) -> ChannelPath:
    """Return the path with the error bars that lie beside the rig, if they are of its engine."""
    file, engine = rig.folder / error_bars.FILE, path.networks.engine
    if engine is None:
        return path
    if not file.is_file():
        if compute.error_bars:
            raise ConfigError(
                f"Error bars are asked for, and {file} is not there: make it with 'livesr"
                " calibrate-errors STORE --rig RIG', or leave out error_bars."
            )
        return path
    try:
        bars = load_error_bars(file)
    except ConfigError as e:
        return _without(path, e, error_bars.DAMAGED)
    if (bars.engine, bars.sha256) != (engine.manifest.id, engine.manifest.sha256):
        other = (
            f"{file} is of engine {bars.engine!r} as it was, and channel {path.name!r} is separated"
            f" by {engine.manifest.id!r}: there are no error bars. Run 'livesr calibrate-errors'"
            " again."
        )
        return replace(path, notes=(*path.notes, other))
    if bars.ensemble not in (None, compute.averaged):
        single = (
            f"{file} is of predictions with ensemble {bars.ensemble}, and those of channel"
            f" {path.name!r} are made otherwise: there are no error bars. Take --ensemble"
            f" {bars.ensemble}, or run 'livesr calibrate-errors' again."
        )
        return replace(path, notes=(*path.notes, single))
    if why_not := bars.why_not(path.name, _taken_with(path, rig)):
        return replace(path, notes=(*path.notes, why_not))
    about = replace(path.description, error_bars=bars, limits_stored=compute.error_bars)
    return replace(path, description=about)


def _with_rig_limits(path: ChannelPath, rig: RigConfig) -> ChannelPath:
    """Return the path with the limits that lie beside the rig, if they are of what it is now."""
    file, engine = rig.folder / rig_limits.FILE, path.networks.engine
    if engine is None or engine.manifest.weights.features not in TOLD or not file.is_file():
        return path  # no frame would be held against it
    try:
        limits = load_rig_limits(file).channels.get(path.name)
    except ConfigError as e:
        return _without(path, e, rig_limits.DAMAGED)
    if limits and (why_not := limits.why_not(path.name, _taken_with(path, rig))):
        return replace(path, notes=(*path.notes, why_not))
    return replace(path, own=path.own._replace(limits=limits))


def _taken_with(path: ChannelPath, rig: RigConfig) -> TakenWith:
    about = path.description
    return taken_with(rig, path.name, path.networks.engines, about.sr_pixel_size_um * 1e3, about.ai)


def _without(path: ChannelPath, error: ConfigError, consequence: str) -> ChannelPath:
    """Return the path without what a file beside the rig should say: in the report why, with every
    prediction what follows.
    """
    own = path.own._replace(unread=(*path.own.unread, consequence))
    return replace(path, notes=(*path.notes, str(error)), own=own)


def _on_device(
    raw: _Raw, asked: DeviceChoice | Device, on_cpu: Reconstructor, notes: list[str]
) -> tuple[Device, tuple[Measuring, ...]]:
    """Return the device of a channel, and what makes measurements there.

    Raises
    ------
    BackendError
        If a device that was named cannot be used; where the choice is livesr's, the CPU is taken
        and `notes` say so.
    """
    channel = raw.rig.channel(raw.channel)
    if not raw.way.on_devices or channel.learned or channel.restore:
        return HOST_DEVICE, ()
    device = open_device(asked) if isinstance(asked, str) else asked
    if device is HOST_DEVICE:
        return device, ()
    try:
        return device, _measuring_on(device, raw, on_cpu)
    except BackendError as e:
        if asked != "auto":
            raise
        notes.append(f"{e} It is reconstructed on the CPU.")
        return HOST_DEVICE, ()


def _measuring_on(device: Device, raw: _Raw, on_cpu: Reconstructor) -> tuple[Measuring, ...]:
    """Return what makes measurements on a device, one for each slot.

    They follow from frame to frame what `on_cpu` follows.

    Raises
    ------
    BackendError
        If the device has too little memory, or fails.
    """
    rig, left, name, camera, way = raw
    made, n_raw = [], rig.raw_frames(name)
    try:
        for _ in device.slots:
            correction, _level = build_correction(
                rig, name, camera.shape, camera.origin_px, n_raw, device.arrays
            )
            again = way.build(left, name, camera, device.arrays, on_cpu)
            made.append(Measuring(correction, again))
        device.settle()
        dark = [np.zeros(camera.shape, camera.dtype)] * n_raw
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
