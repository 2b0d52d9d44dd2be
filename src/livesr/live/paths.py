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
from typing import Any, Literal, NamedTuple, cast

import numpy as np

from livesr.base.config import ChannelConfig, RigConfig
from livesr.base.errors import BackendError, ConfigError, LiveSRError
from livesr.base.frames import FrameQuality, Pixels
from livesr.base.geometry import Geometry
from livesr.live.arrays import Arrays
from livesr.live.compose import Composer
from livesr.live.correct import Correction, build_correction
from livesr.live.device import HOST_DEVICE, Device, DeviceChoice, Slot, open_device
from livesr.live.grouping.by_index import IndexGrouping
from livesr.live.inference.backend import Backend, ResidentBackend
from livesr.live.inference.engine import Engine, Task, Uncertain, load_engine
from livesr.live.inference.fallback import FallbackBackend
from livesr.live.inference.runner import tile_of
from livesr.live.inference.test_time_augmentation import Augmentation, TestTimeAugmentation
from livesr.live.inference.test_time_augmentation import memory_bytes as augmented_bytes
from livesr.live.inference.trial import try_out
from livesr.live.normalise import BORDER, background_and_scale
from livesr.live.reconstruct.monitor import Monitor
from livesr.live.reconstruct.quality import exposure_quality
from livesr.live.reconstruct.reconstructor import (
    Accumulates,
    DoubtfulFrameError,
    Reconstructor,
    RunningImage,
)
from livesr.live.reconstruct.superpose import Gathering, Superposition
from livesr.live.sinks.sink import ChannelDescription
from livesr.live.upscale import Upscaler
from livesr.live.upscale import memory_bytes as upscaled_bytes
from livesr.modalities.modality import Modality
from livesr.modalities.registry import modality
from livesr.optics.exposure import Exposures, examine

_UNMEASURED = (
    "What the uncertainty of engine {engine!r} by {sides} is worth was not measured: it is the bare"
    " spread. 'livesr limits' measures it."
)


_DRAWN = (
    "{camera} is Micro-Manager's demo camera: it draws a moving wave, and there is no specimen. No"
    " engine knows such a picture, and nothing that one separates from it is there."
)


class Measuring(NamedTuple):
    """What makes a measurement of a raw group; serves one thread."""

    correction: Correction | None
    reconstructor: Reconstructor


@dataclass(frozen=True, slots=True)
class ChannelPath:
    """The steps of one channel.

    `engine` and `backend` make what is stored as `sr`: a separation, or an upscaling alone; None
    without either. `upscale` is the engine, and its runtime, that enlarges what a separation sees.
    `uncertainty` is from which sides its input is seen to estimate how sure the prediction is. One
    path serves several runs; what a run accumulates is made anew for each by `grouping`,
    `upscaler`, `views` and `composer`. `reconstructor` and `correction` are the CPU's; on another
    `device` each slot has its own, `on_device`, and the CPU's take over if the device fails.
    `parts` are the channels whose frames a superposition adds up; nothing is exposed for it.
    `watch` makes the monitors of a run, `doubt` says what is wrong with a raw group. `doubts` is
    what no engine can know of what the camera shows.
    """

    name: str
    n_raw: int
    reconstructor: Reconstructor
    description: ChannelDescription
    ceiling: int
    dark_adu: float = 0.0
    window: int = 3
    engine: Engine | None = None
    backend: Backend | None = None
    upscale: tuple[Engine, Backend] | None = None
    residual_plane: bool = False
    uncertainty: Augmentation | None = None
    warnings: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    doubts: tuple[str, ...] = ()
    correction: Correction | None = None
    watch: Callable[[bool], list[Monitor]] = lambda recorded: []
    doubt: Callable[[Exposures, Sequence[Pixels | None]], FrameQuality | None] = exposure_quality
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
        return isinstance(self.reconstructor, Accumulates)

    @property
    def history(self) -> float:
        """Groups before its own that a picture is made of; infinite for all since the run began."""
        return self.reconstructor.history if isinstance(self.reconstructor, Accumulates) else 0

    def running(self) -> RunningImage | None:
        """Return what one stream of a run will accumulate, None where every picture is made of its
        own group alone.
        """
        if not isinstance(self.reconstructor, Accumulates):
            return None
        return self.reconstructor.running(self.correction.apply if self.correction else None)

    def composer(self) -> Composer | None:
        """Return a fresh composer, None without an engine."""
        if self.engine is None:
            return None
        return Composer(
            self.engine.manifest,
            self.description.sr_shape,
            residual_plane=self.residual_plane,
            spread_scale=self.description.uncertainty.get("scale", 1.0),
            warnings=self.warnings,
        )

    @property
    def measuring(self) -> Measuring:
        """What makes a measurement on the CPU."""
        return Measuring(self.correction, self.reconstructor)

    @property
    def resident(self) -> ResidentBackend | None:
        """The runtime if it takes frames from the device that they were reconstructed on, without
        the host; else None.
        """
        if not self.on_device or self.upscale is not None or self.uncertainty is not None:
            return None
        return getattr(self.backend, "resident", None)

    def exposures(self, frames: Sequence[Any], arrays: Arrays) -> Exposures:
        """Return what raw frames, as the camera gave them, say of their exposure."""
        return examine(frames, self.dark_adu, self.ceiling, arrays.xp, arrays.numbers)

    def give_up(self, runtime: ResidentBackend, error: Exception) -> None:
        """Let the next runtime take over from one that failed on the device.

        Raises
        ------
        BackendError
            If none is left.
        """
        cast("FallbackBackend", self.backend).give_up(runtime, error)

    def monitors(self, recorded: bool) -> list[Monitor]:
        """Return fresh monitors of a run; of `recorded` frames none that changes what is
        reconstructed.
        """
        return self.watch(recorded)

    def quality(self, exposures: Exposures, frames: Sequence[Pixels | None]) -> FrameQuality | None:
        """Return what is doubtful about a raw group whose reconstructor does not say itself.

        None if nothing is; `exposures` are those of the `frames` that came.
        """
        return self.doubt(exposures, frames)

    def views(self) -> TestTimeAugmentation | None:
        """Return a fresh step that predicts with uncertainty, None without one."""
        if self.uncertainty is None:
            return None
        return TestTimeAugmentation(self.uncertainty, self.window, *self._network_shapes)

    def upscaler(self, streams: int) -> Upscaler | None:
        """Return a fresh step that enlarges what the separation sees, None without one."""
        return Upscaler(self.upscale[1], self._upscaled_shape, streams) if self.upscale else None

    def memory_bytes(self, streams: int) -> int:
        """Return what the steps hold while `streams` take turns, the runtimes' own memory aside."""
        upscaled = upscaled_bytes(self._upscaled_shape, streams) if self.upscale else 0
        corrected = self.correction.memory_bytes if self.correction else 0
        views = augmented_bytes(self.window, *self._network_shapes) if self.uncertainty else 0
        slots = len(self.on_device) * (self._group_bytes + 4 * math.prod(self.reconstructor.shape))
        return corrected + self.reconstructor.memory_bytes + upscaled + views + slots

    @property
    def _network_shapes(self) -> tuple[tuple[int, int], tuple[int, int, int]]:
        """(y, x) in and (c, y, x) out of the engine that makes what is stored."""
        assert self.engine is not None
        seen = self._upscaled_shape if self.upscale else self.reconstructor.shape
        return seen, self.engine.output_shape(seen)

    @property
    def _group_bytes(self) -> int:
        shape, dtype = self.description.raw_shape, self.description.raw_dtype
        return self.n_raw * math.prod(shape) * (1 if dtype == "uint8" else 2)

    @property
    def _upscaled_shape(self) -> tuple[int, int]:
        assert self.upscale is not None
        return self.upscale[0].output_shape(self.reconstructor.shape)[1:]

    @property
    def engines(self) -> tuple[Engine, ...]:
        """Every engine that a frame goes through, in order."""
        return (
            *((self.upscale[0],) if self.upscale else ()),
            *((self.engine,) if self.engine else ()),
        )

    @property
    def engine_id(self) -> str | None:
        """Identifier of the engine, None without one."""
        return self.engine.manifest.id if self.engine else None

    @property
    def replacements(self) -> tuple[str, ...]:
        """What took the place of runtimes that failed, in sentences."""
        runtimes = (self.upscale[1] if self.upscale else None, self.backend)
        return tuple(
            sentence for runtime in runtimes for sentence in getattr(runtime, "replacements", ())
        )

    def close(self) -> None:
        """Release the runtimes."""
        if self.backend:
            self.backend.close()
        if self.upscale:
            self.upscale[1].close()


def build_path(
    rig: RigConfig,
    name: str,
    camera: Geometry,
    *,
    backend: str = "auto",
    precision: str = "auto",
    threads: int = 0,
    tile: int | Literal["auto", "off"] = "auto",
    residual_plane: bool = False,
    uncertainty: Augmentation | None = None,
    device: DeviceChoice | Device = "cpu",
) -> ChannelPath:
    """Build the steps of channel `name` for what the camera delivers; compiles the engine.

    What a GPU has no code for is computed on the CPU.

    Raises
    ------
    ConfigError, EngineError, BackendError
        If the channel, its engine or the runtime do not fit.
    """
    channel, way = rig.channel(name), modality(rig.modality_of(name))
    section = rig.section(name)
    correction, offset_adu = build_correction(
        rig, name, camera.shape, camera.origin_px, way.frames_at_once(section)
    )
    # Whoever reconstructs subtracts what the correction leaves.
    left = rig.model_copy(
        update={"camera": rig.camera.model_copy(update={"offset_adu": offset_adu})}
    )
    reconstructor = way.build(left, name, camera)
    raw = _Raw(rig, left, name, camera, way)
    notes: list[str] = []
    place, on_device = _on_device(raw, device, reconstructor, notes)
    base = _described(raw, reconstructor)
    plain = ChannelPath(
        name,
        way.raw_frames(section),
        reconstructor,
        ChannelDescription(**base),
        camera.ceiling(rig.camera.bit_depth),
        _dark_adu(rig),
        residual_plane=residual_plane,
        correction=correction,
        watch=partial(way.monitors, rig, name, camera, reconstructor),
        doubt=way.quality,
        notes=tuple(notes),
        doubts=(_DRAWN.format(camera=camera.camera),) if camera.drawn else (),
        device=place,
        on_device=on_device,
    )
    seen = {"modality": way.method, "resolution_nm": rig.resolution_nm(name)}
    runtime = {"backend": backend, "precision": precision, "threads": threads, "tile": tile}
    return _with_engines(plain, base, _engines(channel), seen, runtime, uncertainty)


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


def _described(raw: _Raw, reconstructor: Reconstructor) -> dict[str, Any]:
    """Return what sinks are told of a channel without engines."""
    camera, way = raw.camera, raw.way
    return {
        "name": raw.channel,
        "raw_labels": way.raw_labels(raw.rig.section(raw.channel)),
        "raw_shape": camera.shape,
        "raw_dtype": camera.dtype,
        "raw_pixel_size_um": camera.pixel_size_um,
        "raw_origin_px": camera.origin_px,
        "raw_mirrored": camera.mirrored,
        "raw_bit_depth": min(camera.bit_depth, 8 * np.dtype(camera.dtype).itemsize),
        "raw_along_t": way.raw_along_t,
        "camera": camera.camera,
        "camera_drawn": camera.drawn,
        "recon_shape": reconstructor.shape,
        "recon_pixel_size_um": camera.pixel_size_um / reconstructor.scale,
        "recon_method": way.method,
        "recon_unit": way.unit,
        "recon_unit_scale": way.unit_scale,
    }


def _dark_adu(rig: RigConfig) -> float:
    """Return the level of a dark frame, about: maps have one for every pixel."""
    offset = rig.corrections.offset
    return float(offset if isinstance(offset, int | float) else rig.camera.offset_adu)


def build_superposition(
    rig: RigConfig,
    paths: Mapping[str, ChannelPath],
    *,
    backend: str = "auto",
    precision: str = "auto",
    threads: int = 0,
    tile: int | Literal["auto", "off"] = "auto",
    residual_plane: bool = False,
    uncertainty: Augmentation | None = None,
) -> ChannelPath:
    """Build the steps of the sum of true channels, whose own `paths` are there.

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
    engines = _engines(rig.superposed)
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
        residual_plane=residual_plane,
        doubts=tuple(
            dict.fromkeys(doubt for name in asked.channels for doubt in paths[name].doubts)
        ),
        parts=tuple(asked.channels),
    )
    coarsest_nm = max(rig.resolution_nm(name) for name in asked.channels)
    seen = {"modality": first.recon_method, "resolution_nm": coarsest_nm}
    runtime = {"backend": backend, "precision": precision, "threads": threads, "tile": tile}
    return _with_engines(plain, base, engines, seen, runtime, uncertainty)


def _with_engines(
    plain: ChannelPath,
    base: Mapping[str, Any],
    engines: Sequence[Engine],
    seen: Mapping[str, Any],
    settings: Mapping[str, Any],
    uncertainty: Augmentation | None,
) -> ChannelPath:
    """Return the path with its engines opened on the runtime that `settings` ask for.

    `base` describes it without.

    `seen` is what else of the frames an engine must have been trained for: modality and resolution.
    """
    if not engines:
        return plain
    name, reconstructor = plain.name, plain.reconstructor
    frame = _Frame(reconstructor.shape, base["recon_pixel_size_um"])
    warnings: list[str] = list(plain.doubts)
    notes = list(plain.notes)
    opened: list[tuple[Engine, Backend]] = []
    try:
        for engine in engines:
            task = engine.manifest.task
            warnings += engine.check_fits(
                task,
                shape=frame.shape,
                pixel_size_nm=frame.pixel_size_um * 1e3,
                **seen,
            )
            try_out(engine, frame.shape, **settings)
            runtime = cast(
                "Backend",
                FallbackBackend(engine, frame.shape, **settings),
            )
            opened.append((engine, runtime))
            if side := tile_of(runtime):
                notes.append(
                    f"Engine {engine.manifest.id!r} sees channel {name!r} in tiles of {side}"
                    " pixels: what it makes of them differs a little from what it would make of"
                    " the whole."
                )
            frame = frame.enlarged(engine)
    except BaseException:
        for _, runtime in opened:
            runtime.close()
        raise
    manifest = engines[-1].manifest
    if uncertainty == "turns" and frame.shape[0] != frame.shape[1]:
        for _, runtime in opened:
            runtime.close()
        raise ConfigError(
            f"Frames of channel {name!r} are {frame.shape[0]} x {frame.shape[1]} and cannot be"
            " turned: estimate the uncertainty from flips, or make the ROI square."
        )
    description = ChannelDescription(
        **base,
        labels=manifest.channel_names,
        colors=tuple(c.color for c in manifest.channels),
        sr_shape=frame.shape,
        sr_pixel_size_um=frame.pixel_size_um,
        window=manifest.window,
        ai={**_provenance(opened), **({"warnings": tuple(warnings)} if warnings else {})},
        uncertainty=_estimate(uncertainty, manifest.limits.uncertainty),
    )
    if uncertainty and not description.uncertainty["calibrated"]:
        notes.append(_UNMEASURED.format(engine=manifest.id, sides=uncertainty))
    return replace(
        plain,
        description=description,
        window=manifest.window,
        engine=opened[-1][0],
        backend=opened[-1][1],
        upscale=opened[0] if len(opened) > 1 else None,
        uncertainty=uncertainty,
        warnings=tuple(warnings),
        notes=tuple(notes),
    )


class _Frame(NamedTuple):
    """Size and sampling of a frame between two engines."""

    shape: tuple[int, int]
    pixel_size_um: float

    def enlarged(self, engine: Engine) -> _Frame:
        return _Frame(
            engine.output_shape(self.shape)[1:], self.pixel_size_um / engine.manifest.scale
        )


def _estimate(sides: Augmentation | None, measured: Uncertain | None) -> Mapping[str, Any]:
    """Return what a run says of its uncertainty.

    `scale` turns the views' standard deviation into that of the prediction.
    """
    if sides is None:
        return {}
    known = measured if measured and measured.augmentation == sides else None
    return {
        "views": sides,
        "calibrated": known is not None,
        "scale": known.scale if known else 1.0,
        "correlation": known.correlation if known else None,
    }


def _engines(channel: ChannelConfig) -> list[Engine]:
    """Load what a channel names, in the order in which a frame goes through.

    Each must do what it is named for.
    """
    engines = []
    for task, named in (("upscale", channel.upscale), ("separate", channel.separate)):
        if named:
            engine = load_engine(named)
            engine.check_fits(cast("Task", task))
            engines.append(engine)
    return engines


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
    if not raw.way.on_devices:
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


def _provenance(opened: Sequence[tuple[Engine, Backend]]) -> Mapping[str, Any]:
    """Return what a prediction must say of itself, in the store and on the wire.

    Names of bioimage.io where one exists.

    `model` and `runtime` are those of the engine that drew the pixels; `engines` are all that they
    went through, in order.
    """
    engines = [
        {
            "task": engine.manifest.task,
            "model": {
                "id": engine.manifest.id,
                "version": str(engine.manifest.version),
                "sha256": engine.manifest.sha256,
                "trained": engine.manifest.trained,
                "training_data": engine.manifest.training,
            },
            "runtime": {
                "backend": backend.name,
                "device": backend.device,
                "precision": backend.precision,
                "tile": tile_of(backend),
            },
        }
        for engine, backend in opened
    ]
    return {
        "prediction": True,
        "warning": (
            "Predicted by a neural network, not measured. Compare with the measurement beside it."
        ),
        "model": engines[-1]["model"],
        "runtime": engines[-1]["runtime"],
        "engines": engines,
    }
