"""The engines that the frames of one channel go through, opened.

An upscaling, a separation, or one behind the other.

Owns their sessions, what is allocated for them in each run, and what a prediction must say of
itself. Moves no frame: `separation.py` does.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from livesr.base.compute import Augmentation, ComputeConfig
from livesr.base.config import ChannelConfig, RigConfig
from livesr.base.errors import ConfigError
from livesr.base.run_description import ChannelDescription
from livesr.live.inference.cuda import why_no_gpu
from livesr.live.inference.engine import Engine, Uncertain, load_engine, model_facts
from livesr.live.inference.fallback import FallbackSession
from livesr.live.inference.padding import MEAN_DEVIATION
from livesr.live.inference.remote import RemoteSession
from livesr.live.inference.resampling import ResampledSession, own_pixel_nm, resampled_shape
from livesr.live.inference.runtime import is_remote
from livesr.live.inference.session import InferenceSession, Resident
from livesr.live.inference.test_time_augmentation import (
    TestTimeAugmentation,
    mean_of,
    stored_name,
)
from livesr.live.inference.test_time_augmentation import memory_bytes as augmented_bytes
from livesr.live.inference.trial import try_out
from livesr.live.restore import RawGroups, RestoredSession
from livesr.live.upscale import WINDOW, Upscaler
from livesr.live.upscale import memory_bytes as upscaled_bytes

_UNMEASURED = (
    "What the uncertainty of engine {engine!r} by {augmentation} is worth was not measured: it is"
    " the bare"
    " spread. 'livesr limits' measures it."
)

_NOT_BROUGHT = (
    "Frames are left on their own pixels for engine {engine!r}: resample 'auto' brings them to"
    " {nm:.4g} nm, and what it predicts back."
)

_MOST = 2  # engines behind each other, where the first sees raw frames


class Reconstructed(NamedTuple):
    """Frames as an engine sees them.

    Attributes
    ----------
    shape : (y, x)
    pixel_size_um : in the sample
    modality : what reconstructed them
    resolution_nm : of the reconstruction, None where nobody knows
    """

    shape: tuple[int, int]
    pixel_size_um: float
    modality: str
    resolution_nm: float | None

    def through(self, engine: Engine) -> Reconstructed:
        """Return what `engine` makes of them."""
        return self._replace(
            shape=engine.output_shape(self.shape)[1:],
            pixel_size_um=self.pixel_size_um / engine.manifest.scale,
        )


class Network(NamedTuple):
    """An engine, its session, and the shape (y, x) of the frames that it sees."""

    engine: Engine
    session: InferenceSession
    shape: tuple[int, int]


@dataclass(frozen=True, slots=True)
class Networks:
    """What a frame goes through once it is reconstructed; none, one or two networks.

    One object serves several runs; what a run accumulates is made anew by `upscaler` and
    `augmentation`.

    Attributes
    ----------
    steps : in the order in which a frame goes through. The last makes what is stored as `sr`; one
        before it enlarges what the last one sees
    uncertainty : test-time augmentation that estimates how sure the last one is
    ensemble : test-time augmentation of which the last one predicts the mean; where there is an
        uncertainty too, the same
    warnings : sentences that belong to every frame
    notes : sentences that belong to the run
    raw_order : places of the raw frames that the first one sees, in its order; () where it sees
        frames that were reconstructed
    beside : channel whose newest frame the first one sees as well, "" without
    """

    steps: tuple[Network, ...] = ()
    uncertainty: Augmentation | None = None
    ensemble: Augmentation | None = None
    warnings: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    raw_order: tuple[int, ...] = ()
    beside: str = ""

    @property
    def engines(self) -> tuple[Engine, ...]:
        """Every engine that a frame goes through, in order."""
        return tuple(step.engine for step in self.steps)

    @property
    def engine(self) -> Engine | None:
        """The one that makes what is stored, None without."""
        return self.steps[-1].engine if self.steps else None

    @property
    def session(self) -> InferenceSession | None:
        """That of `engine`, None without."""
        return self.steps[-1].session if self.steps else None

    @property
    def window(self) -> int:
        """How many consecutive frames the last one sees."""
        return self.engine.manifest.window if self.engine else WINDOW

    @property
    def resident(self) -> Resident | None:
        """The way in for frames that are on a GPU, None if a step needs them on the host."""
        several = len(self.steps) != 1 or self.raw_order or self.beside
        if several or self.views is not None:
            return None
        if self.steps[0].engine.manifest.normalisation == MEAN_DEVIATION:
            return None
        return self.steps[0].session.resident

    @property
    def lanes(self) -> tuple[InferenceSession, ...]:
        """Sessions of the last one that may infer at once; one where a frame needs more than it."""
        if not self.steps:
            return ()
        session = self.steps[-1].session
        alone = len(self.steps) == 1 and self.views is None
        return session.lanes if alone and len(session.lanes) > 1 else (session,)

    @property
    def views(self) -> Augmentation | None:
        """The views of a frame that the last one sees, None where it sees the frame alone."""
        return self.ensemble or self.uncertainty

    @property
    def accounts(self) -> list[dict[str, Any]]:
        """What a report says of the ways to servers, in the order of the steps."""
        told = (step.session.account for step in self.steps)
        return [account for account in told if account is not None]

    @property
    def computes(self) -> str:
        """What computes, in one line: of every step, in order; empty without any."""
        line = ", then ".join(dict.fromkeys(step.session.described() for step in self.steps))
        return f"{line}, {mean_of(self.ensemble)}" if self.ensemble else line

    @property
    def replacements(self) -> tuple[str, ...]:
        """What took the place of runtimes that failed, in sentences."""
        return tuple(sentence for step in self.steps for sentence in step.session.replacements)

    def described(
        self, description: ChannelDescription, doubts: Sequence[str] = ()
    ) -> ChannelDescription:
        """Return the description of a channel with what its networks make of the frames.

        `doubts` is what no engine can know of what the camera shows.
        """
        if self.engine is None:
            return description
        manifest, warnings = self.engine.manifest, (*doubts, *self.warnings)
        pixel_size_um = description.recon_pixel_size_um
        for engine in self.engines:
            pixel_size_um /= engine.manifest.scale
        return replace(
            description,
            labels=manifest.channel_names,
            colors=tuple(c.color for c in manifest.channels),
            sr_shape=self._shapes[1][1:],
            sr_pixel_size_um=pixel_size_um,
            window=manifest.window,
            ai={
                **_provenance(self.steps, self._raw_labels(description), self.beside),
                **({"ensemble": self.ensemble} if self.ensemble else {}),
                **({"warnings": warnings} if warnings else {}),
            },
            uncertainty=_estimate(self.uncertainty, manifest.limits.uncertainty),
        )

    def _raw_labels(self, description: ChannelDescription) -> tuple[str, ...]:
        return tuple(description.raw_labels[place] for place in self.raw_order)

    def augmentation(self) -> TestTimeAugmentation | None:
        """Return a fresh step that predicts from several views, None without them."""
        if self.views is None:
            return None
        return TestTimeAugmentation(
            self.views,
            self._inputs,
            *self._shapes,
            averaged=self.ensemble is not None,
            compared=self.uncertainty is not None,
        )

    def upscaler(self, streams: int) -> Upscaler | None:
        """Return a fresh step that enlarges what the last one sees, None without one."""
        if len(self.steps) < 2:
            return None
        return Upscaler(self.steps[0].session, self.steps[-1].shape, streams)

    def memory_bytes(self, streams: int) -> int:
        """Return what the steps hold while `streams` take turns, the runtimes' own memory aside."""
        held = sum(step.session.memory_bytes for step in self.steps)
        upscaled = upscaled_bytes(self.steps[-1].shape, streams) if len(self.steps) > 1 else 0
        views = augmented_bytes(self._inputs, *self._shapes) if self.views else 0
        return held + upscaled + views

    def close(self) -> None:
        """Release the sessions."""
        for step in self.steps:
            step.session.close()

    @property
    def _inputs(self) -> int:
        """Planes that the last one sees."""
        return self.engine.manifest.inputs if self.engine else WINDOW

    @property
    def _shapes(self) -> tuple[tuple[int, int], tuple[int, int, int]]:
        """(y, x) in and (c, y, x) out of the last one."""
        engine, _, shape = self.steps[-1]
        return shape, engine.output_shape(shape)


NO_NETWORKS = Networks()


def load_engines(channel: ChannelConfig) -> list[Engine]:
    """Load what a channel names, in the order in which a frame goes through.

    Raises
    ------
    EngineError
        If one is missing, damaged, or does not do what it is named for.
    """
    engines = []
    for task, named in channel.engines.items():
        engine = load_engine(named)
        engine.check_fits(task)
        engines.append(engine)
    return engines


def engines_of(rig: RigConfig, name: str) -> list[Engine]:
    """Load the engines of a channel of a rig, or of its sum; raises as `load_engines`, or
    ConfigError if the rig describes neither.
    """
    summed = rig.superpose is not None and rig.superpose.name == name
    return load_engines(rig.superposed if summed else rig.channel(name))


def open_networks(
    channel: str,
    engines: Sequence[Engine],
    frames: Reconstructed,
    compute: ComputeConfig,
    raw: RawGroups | None = None,
    beside: str = "",
) -> Networks:
    """Open engines for the frames of a channel, one behind the other.

    Each is tried out in a process of its own first.

    Parameters
    ----------
    channel : its name, for sentences
    engines : as of `load_engines`
    frames : what the first engine sees, if it does not see raw frames
    raw : raw frames, for an engine that sees them; None where there are none
    beside : channel whose frames an engine sees beside them; "" where there is none

    Raises
    ------
    ConfigError
        If views are asked for that such frames do not allow, or engines do not go together.
    EngineError, BackendError
        If an engine or the runtime does not fit.
    """
    steps: list[Network] = []
    warnings: list[str] = []
    notes: list[str] = []
    sees_raw = _check_together(channel, engines, raw)
    _check_beside(channel, engines, beside)
    try:
        for engine in engines:
            seen = frames
            if sees_raw and raw and not steps:
                seen = frames._replace(shape=raw.shape, pixel_size_um=raw.pixel_size_um)
            pixel_nm = seen.pixel_size_um * 1e3
            own_nm = own_pixel_nm(engine, pixel_nm)
            if own_nm and compute.resample == "off":
                notes.append(_NOT_BROUGHT.format(engine=engine.manifest.id, nm=own_nm))
                own_nm = None
            shape = resampled_shape(seen.shape, pixel_nm / own_nm) if own_nm else seen.shape
            warnings += engine.check_fits(
                engine.manifest.task,
                shape=shape,
                pixel_size_nm=own_nm or pixel_nm,
                modality=seen.modality,
                resolution_nm=seen.resolution_nm,
                raw_labels=raw.labels if raw else None,
            )
            try_out(engine, shape, compute)
            session = _opened(engine, shape, compute)
            if own_nm:
                session = ResampledSession(session, engine, seen.shape, shape, own_nm)
            if engine.manifest.task == "restore" and raw:
                session = RestoredSession(session, raw)
                engine = replace(engine, manifest=engine.manifest.shown)
                seen = frames
            steps.append(Network(engine, session, seen.shape))
            frames = seen.through(engine)
        if steps:
            check_square(f"channel {channel!r}", steps[-1].shape, compute.views)
    except BaseException:
        for step in steps:
            step.session.close()
        raise
    uncertainty = compute.compared if steps else None
    return Networks(
        tuple(steps),
        uncertainty,
        compute.averaged if steps else None,
        tuple(warnings),
        (*notes, *_notes(channel, steps, uncertainty)),
        engines[0].raw_order(raw.labels) if sees_raw and raw else (),
        beside,
    )


def _check_beside(channel: str, engines: Sequence[Engine], beside: str) -> None:
    """Refuse an engine of two inputs where there is one, or that is not the first."""
    two = [engine.manifest for engine in engines if engine.manifest.beside]
    if two and not (beside and engines[0].manifest is two[0]):
        raise ConfigError(
            f"Engine {two[0].id!r} sees {two[0].beside[0]} beside the frames of a channel. Channel"
            f" {channel!r} is a sum, or a network stands before it: leave one out."
        )


def _check_together(channel: str, engines: Sequence[Engine], raw: RawGroups | None) -> bool:
    """Return whether the first engine sees raw frames.

    Raises
    ------
    ConfigError
        If there are none, or the engines cannot stand behind each other.
    """
    sees_raw = [engine for engine in engines if engine.manifest.sees_raw]
    if not sees_raw:
        return False
    name = sees_raw[0].manifest.id
    if raw is None:
        raise ConfigError(
            f"Engine {name!r} sees raw frames, and channel {channel!r} has none of its own, or"
            " pictures that are made of many groups: leave it out."
        )
    if len(sees_raw) > 1:
        raise ConfigError(
            f"Channel {channel!r} names {' and '.join(e.manifest.id for e in sees_raw)} for its raw"
            " frames: an engine that reconstructs takes the noise out itself. Leave out 'restore',"
            " or let the modality reconstruct."
        )
    if len(engines) > _MOST:
        raise ConfigError(
            f"Channel {channel!r} names {', '.join(e.manifest.id for e in engines)}: at most"
            f" {_MOST} engines stand behind each other. Leave out 'upscale'."
        )
    return True


def _opened(engine: Engine, shape: tuple[int, int], compute: ComputeConfig) -> InferenceSession:
    """Open an engine with what takes over when its runtime fails."""
    if is_remote(compute.backend):
        return RemoteSession(engine, shape, compute)
    return FallbackSession(engine, shape, compute)


def check_square(of: str, shape: tuple[int, int], views: Augmentation | None) -> None:
    """Raise ConfigError if frames (y, x) of something are to be turned and are no squares."""
    if views == "d4" and shape[0] != shape[1]:
        raise ConfigError(
            f"Frames of {of} are {shape[0]} x {shape[1]} and cannot be turned:"
            " take flips, or make the ROI square."
        )


def _notes(
    channel: str, steps: Sequence[Network], uncertainty: Augmentation | None
) -> Iterator[str]:
    for engine, session, _ in steps:
        if session.skipped and why_no_gpu() is None:
            yield (
                f"Engine {engine.manifest.id!r} runs on {session.described()}."
                f" {' '.join(session.skipped)}"
            )
        if session.resampled_nm:
            yield (
                f"Engine {engine.manifest.id!r} was trained for pixels of"
                f" {engine.manifest.pixel_size_nm} nm: it sees channel {channel!r} brought to"
                f" {session.resampled_nm:.4g} nm, and what it predicts is brought back."
            )
        if session.tile:
            yield (
                f"Engine {engine.manifest.id!r} sees channel {channel!r} in tiles of"
                f" {session.tile} pixels: what it makes of them differs a little from what it would"
                " make of the whole."
            )
    if uncertainty:
        manifest = steps[-1].engine.manifest
        if not _estimate(uncertainty, manifest.limits.uncertainty)["calibrated"]:
            yield _UNMEASURED.format(engine=manifest.id, augmentation=uncertainty)


def _estimate(augmentation: Augmentation | None, measured: Uncertain | None) -> Mapping[str, Any]:
    """Return what a run says of its uncertainty.

    `scale` turns the views' standard deviation into that of the prediction.
    """
    if augmentation is None:
        return {}
    known = measured if measured and measured.augmentation == augmentation else None
    return {
        "views": stored_name(augmentation),
        "calibrated": known is not None,
        "scale": known.scale if known else 1.0,
        "correlation": known.correlation if known else None,
    }


def _provenance(steps: Sequence[Network], raw: Sequence[str], beside: str) -> Mapping[str, Any]:
    """Return what a prediction must say of itself, in the store and on the wire.

    Names of bioimage.io where one exists.

    `model` and `runtime` are those of the engine that drew the pixels; `engines` are all that they
    went through, in order. `raw` are the raw frames that the first one saw, `beside` the channel
    that it saw as well.
    """
    engines: list[dict[str, Any]] = [
        {
            "task": engine.manifest.task,
            "model": model_facts(engine.manifest),
            "runtime": {
                "backend": session.name,
                "device": session.device,
                "precision": session.precision,
                "tile": session.tile,
                **({"pixel_size_nm": nm} if (nm := session.resampled_nm) else {}),
            },
        }
        for engine, session, _ in steps
    ]
    if raw:
        engines[0]["raw_frames"] = list(raw)
    if beside:
        engines[0]["beside"] = beside
    return {
        "prediction": True,
        "warning": (
            "Predicted by a neural network, not measured. Compare with the measurement beside it."
        ),
        "model": engines[-1]["model"],
        "runtime": engines[-1]["runtime"],
        "engines": engines,
    }
