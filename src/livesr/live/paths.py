"""What happens to one acquisition channel: its grouping, reconstruction, engine and composition, built from rig.yaml.

Owns the construction, before a run. Moves no frame: `pipeline.py` does.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from livesr.base.config import ChannelConfig, PatternConfig, RigConfig
from livesr.base.errors import ConfigError
from livesr.base.registry import Registry
from livesr.live.compose import Composer
from livesr.live.grouping.by_index import IndexGrouping
from livesr.live.inference.backend import Backend
from livesr.live.inference.engine import Engine, load_engine
from livesr.live.inference.runner import open_backend
from livesr.live.reconstruct.reconstructor import Reconstructor
from livesr.live.sinks.sink import ChannelDescription

RECONSTRUCTORS = Registry(
    "reconstruction",
    {"sim": "livesr.live.paths:sim_reconstructor", "passthrough": "livesr.live.paths:passthrough_reconstructor"},
)


class Geometry(NamedTuple):
    """What the camera delivers: shape (y, x) and origin of the region in pixels, dtype, pixel size in the sample."""

    shape: tuple[int, int]
    dtype: str
    pixel_size_um: float
    origin_px: tuple[float, float] = (0.0, 0.0)


@dataclass(frozen=True, slots=True)
class ChannelPath:
    """The steps of one channel. `engine` and `backend` are None when it is not separated.

    One path serves several runs; what a run accumulates is made anew for each by `grouping` and `composer`.
    """

    name: str
    n_raw: int
    reconstructor: Reconstructor
    description: ChannelDescription
    ceiling: int
    window: int = 3
    engine: Engine | None = None
    backend: Backend | None = None
    residual_plane: bool = False
    warnings: tuple[str, ...] = ()

    def grouping(self) -> IndexGrouping:
        """Return a fresh grouping."""
        return IndexGrouping(self.n_raw)

    def composer(self) -> Composer | None:
        """Return a fresh composer, None when the channel is not separated."""
        if self.engine is None:
            return None
        shape = self.description.sr_shape
        return Composer(self.engine.manifest, shape, residual_plane=self.residual_plane, warnings=self.warnings)

    @property
    def engine_id(self) -> str | None:
        """Identifier of the engine, None without one."""
        return self.engine.manifest.id if self.engine else None

    def close(self) -> None:
        """Release the runtime."""
        if self.backend:
            self.backend.close()


def build_path(
    rig: RigConfig,
    name: str,
    camera: Geometry,
    *,
    backend: str = "auto",
    precision: str = "auto",
    threads: int = 0,
    residual_plane: bool = False,
) -> ChannelPath:
    """Build the steps of channel `name` for what the camera delivers; compiles the engine.

    Raises
    ------
    ConfigError, EngineError, BackendError
        If the channel, its engine or the runtime do not fit.
    """
    channel = rig.channel(name)
    if channel.upscale:
        raise ConfigError(
            f"Channel {name!r} asks for upscale {channel.upscale!r}; this version separates only. Remove 'upscale'."
        )
    method = channel.reconstruct or rig.modality
    reconstructor: Reconstructor = RECONSTRUCTORS.load(method)(rig, channel, camera)
    n_raw = rig.raw_frames(name)
    ceiling = min(2**rig.camera.bit_depth, 2 ** (8 if camera.dtype == "uint8" else 16)) - 1
    base: dict[str, Any] = {
        "name": name,
        "raw_labels": _raw_labels(rig, method, n_raw),
        "raw_shape": camera.shape,
        "raw_dtype": camera.dtype,
        "raw_pixel_size_um": camera.pixel_size_um,
        "raw_origin_px": camera.origin_px,
        "recon_shape": reconstructor.shape,
        "recon_pixel_size_um": camera.pixel_size_um / reconstructor.scale,
        "recon_method": method,
    }
    if not channel.separate:
        return ChannelPath(name, n_raw, reconstructor, ChannelDescription(**base), ceiling)
    engine = load_engine(channel.separate)
    warnings = engine.check_fits(
        "separate", shape=reconstructor.shape, pixel_size_nm=base["recon_pixel_size_um"] * 1e3, modality=method
    )
    runtime = open_backend(engine, reconstructor.shape, backend=backend, precision=precision, threads=threads)
    manifest = engine.manifest
    description = ChannelDescription(
        **base,
        labels=tuple(c.name for c in manifest.channels),
        colors=tuple(c.color for c in manifest.channels),
        sr_shape=(reconstructor.shape[0] * manifest.scale, reconstructor.shape[1] * manifest.scale),
        sr_pixel_size_um=base["recon_pixel_size_um"] / manifest.scale,
        ai=_provenance(engine, runtime),
    )
    return ChannelPath(
        name,
        n_raw,
        reconstructor,
        description,
        ceiling,
        manifest.window,
        engine,
        runtime,
        residual_plane=residual_plane,
        warnings=tuple(warnings),
    )


def sim_reconstructor(rig: RigConfig, channel: ChannelConfig, camera: Geometry) -> Reconstructor:
    """Linear SIM with the patterns of rig.yaml."""
    from livesr.live.reconstruct.sim import SIMReconstructor
    from livesr.optics.illumination import Pattern

    assert rig.sim is not None  # RigConfig has checked it
    patterns: Sequence[PatternConfig] = channel.patterns or rig.sim.patterns
    return SIMReconstructor(
        camera.shape,
        camera.pixel_size_um,
        rig.optics.na,
        (channel.emission_nm or rig.optics.emission_nm) / 1e3,
        [Pattern(p.k_um, p.phase_rad, p.modulation) for p in patterns],
        phase_steps_rad=rig.sim.phase_steps_rad,
        order=rig.sim.raw_order(),
        offset_adu=rig.camera.offset_adu,
        wiener=rig.sim.wiener,
        attenuation=rig.sim.attenuation,
        attenuation_fwhm_um=rig.sim.attenuation_fwhm_um,
        origin_px=camera.origin_px,
        equalise=rig.sim.equalise,
    )


def passthrough_reconstructor(rig: RigConfig, channel: ChannelConfig, camera: Geometry) -> Reconstructor:
    """One exposure is one frame."""
    from livesr.live.reconstruct.passthrough import Passthrough

    return Passthrough(camera.shape, rig.camera.offset_adu)


def _raw_labels(rig: RigConfig, method: str, n_raw: int) -> tuple[str, ...]:
    if method == "sim" and rig.sim:
        return tuple(f"angle {a} phase {p}" for a, p in rig.sim.raw_order())
    return tuple(f"raw {i}" for i in range(n_raw))


def _provenance(engine: Engine, backend: Backend) -> Mapping[str, Any]:
    """Return what a prediction must say of itself, in the store and on the wire; names of bioimage.io where one exists."""
    manifest = engine.manifest
    return {
        "prediction": True,
        "warning": "Predicted by a neural network, not measured. Compare with the measurement beside it.",
        "model": {
            "id": manifest.id,
            "version": str(manifest.version),
            "sha256": manifest.sha256,
            "trained": manifest.trained,
            "training_data": manifest.training,
        },
        "runtime": {"backend": backend.name, "device": backend.device, "precision": backend.precision},
    }
