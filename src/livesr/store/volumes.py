"""An offline run whose stacks are reconstructed as a whole, in three dimensions.

Owns the gathering of stacks, and the store that they become. What is computed of a stack is the
modality's; frames of one plane take the way of `process.py` instead.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from numpy.typing import NDArray

from livesr.base.errors import ConfigError, DamagedFileError, RecordingError, RunError
from livesr.base.frames import FrameQuality, Normalisation, RawStack, SRFrame, Stream
from livesr.base.progress import Progress
from livesr.base.run_description import RunDescription, Stack
from livesr.formats import layout
from livesr.formats.skips import PLANES_MISSING
from livesr.live.paths import ChannelPath, build_path
from livesr.live.reconstruct.reconstructor import VolumeReconstructor
from livesr.live.run_state import Report
from livesr.live.sinks.ome_zarr import OMEZarrSink
from livesr.modalities.registry import modality
from livesr.store.raw_input import RawInput, description

OFFSET_ADU = 5000
"""Of its pictures in a store: they go further below zero than those of single planes."""

_SHARE = 0.9  # of the memory that is free

Place = tuple[int, str]
Say = Callable[[str], None]


@dataclass(slots=True)
class _Channel:
    """What becomes of the stacks of one channel."""

    path: ChannelPath
    volume: VolumeReconstructor
    planes: int


def process_volumes(
    raw: RawInput,
    store: Path,
    *,
    z_step_um: float | None = None,
    record_raw: bool = True,
    on_progress: Progress = lambda done, total: None,
    say: Say = lambda sentence: None,
) -> Report:
    """Reconstruct every stack of `raw` as a whole; return the report of the run.

    Engines are left out: they were trained with pictures of single planes.

    Parameters
    ----------
    store : OME-Zarr to write; a path that exists gets the next number
    z_step_um : from plane to plane, instead of what the recording says
    say : is told beforehand how much memory a stack takes

    Raises
    ------
    UsageError
        If there are no stacks, the modality has no such reconstruction, the rig lacks what it
        needs, or the memory does not suffice.
    RunError
        If the run had to end early.
    """
    stack = Stack(int(raw.run.get("z_planes", 1)), z_step_um or raw.run.get("z_step_um", 1.0))
    try:
        if stack.z_planes < 2:
            raise ConfigError(
                f"{raw.name} holds single planes, and no stack to reconstruct as a whole. Leave out"
                " --volume, or say with --axes which axis is z."
            )
        channels = {name: _channel(raw, name, stack) for name in raw.cameras}
        most = max(channel.volume.memory_bytes for channel in channels.values())
        _check_memory(most, say)
        run = _description(raw, channels, stack, record_raw)
        return _Run(raw, channels, OMEZarrSink(store), run, on_progress).report(most)
    finally:
        raw.close()


def _channel(raw: RawInput, name: str, stack: Stack) -> _Channel:
    rig = raw.rig.model_copy(
        update={"channels": {n: raw.rig.channel(n).without_engines() for n in raw.rig.channels}}
    )
    camera, way = raw.cameras[name], modality(rig.modality_of(name))
    path = build_path(rig, name, camera)
    left = rig.camera.model_copy(update={"offset_adu": path.left_adu})
    believed = rig.model_copy(update={"camera": left})
    volume = way.volume(believed, name, camera, stack.z_planes, stack.z_step_um)
    return _Channel(path, volume, stack.z_planes)


def _check_memory(needed: int, say: Say) -> None:
    free = psutil.virtual_memory().available
    say(f"A stack takes {needed / 1e9:.2f} GB of memory, {free / 1e9:.1f} GB are free.")
    if needed > _SHARE * free:
        raise ConfigError(
            f"A stack takes {needed / 1e9:.1f} GB of memory, and {free / 1e9:.1f} GB are free: crop"
            " the recording along y and x, split it along z, or use a computer with more."
        )


def _description(
    raw: RawInput, channels: Mapping[str, _Channel], stack: Stack, record_raw: bool
) -> RunDescription:
    about = []
    for channel in channels.values():
        plain, scale = channel.path.description, channel.volume.scale
        y, x = (round(n * scale) for n in plain.raw_shape)
        about.append(
            replace(
                plain,
                recon_shape=(y, x),
                recon_pixel_size_um=plain.raw_pixel_size_um / scale,
                recon_method=f"{plain.recon_method} {layout.VOLUME}",
            )
        )
    changes = {"recon_offset_adu": OFFSET_ADU, "z_step_um": stack.z_step_um, "stacks": {}}
    return replace(description(raw, about, **changes), record_raw=record_raw)


class _Run:
    """One pass over a recording, from open to close of its store."""

    def __init__(
        self,
        raw: RawInput,
        channels: Mapping[str, _Channel],
        sink: OMEZarrSink,
        run: RunDescription,
        on_progress: Progress,
    ) -> None:
        self._raw, self._channels, self._sink, self._run = raw, channels, sink, run
        self._on_progress, self._total = on_progress, raw.groups
        self._held: dict[tuple[Place, int], dict[int, RawStack]] = {}
        self._said: list[dict[str, Any]] = []
        self._notes: list[str] = []
        self._counts = dict.fromkeys(("raw", "missing", "groups", "incomplete", "recon"), 0)
        self._doubtful = 0

    def report(self, memory_bytes: int) -> Report:
        """Reconstruct everything, and return what became of it."""
        self._sink.open(self._run)
        self._on_progress(0, self._total)
        failed: BaseException | None = None
        try:
            for stack in self._stacks():
                self._take(stack)
        except DamagedFileError as e:
            failed = RunError(str(e))
        except BaseException as e:  # Ctrl-C as well: what is there becomes a whole store
            failed = e
        self._give_up()
        with suppress(RecordingError):  # its report says what is lost, and so does the store
            self._sink.finish()
        counts = self._counts
        made = Report(
            store=str(self._sink.path),
            publish=None,
            offline=True,
            raw_frames=counts["raw"],
            raw_missing=counts["missing"],
            raw_lost=counts["raw"] - (self._sink.raw_kept or 0) if self._run.record_raw else 0,
            groups=counts["groups"],
            groups_incomplete=counts["incomplete"],
            recon_frames=counts["recon"],
            recon_doubtful=self._doubtful,
            sr_frames=0,
            sr_fps=0.0,
            warnings=[*self._raw.notes, *self._raw.remarks(), *self._notes],
        )
        whole: dict[str, Any] = {**made, "volumes": self._said, "memory_bytes": memory_bytes}
        why = {"error": str(failed) or type(failed).__name__} if failed else {}
        whole |= {**self._sink.accounts, **why}
        self._sink.close(whole)
        if failed:
            raise failed
        return made

    def _stacks(self) -> Iterator[RawStack]:
        grouping = {name: channel.path.grouping(True) for name, channel in self._channels.items()}
        for frame in self._raw.frames():
            yield from grouping[frame.stream.channel].push(frame)
        for each in grouping.values():
            yield from each.flush()

    def _take(self, stack: RawStack) -> None:
        """Store a raw group; reconstruct the stack that it completes."""
        came = len(stack.came)
        self._counts["raw"] += came
        if stack.unplaced:
            self._sink.unplaced(stack)
            return
        self._counts["missing"] += len(stack.frames) - came
        self._counts["groups"] += 1
        self._counts["incomplete"] += not stack.complete
        place = (stack.stream.position, stack.stream.channel), stack.t
        held = self._held.setdefault(place, {})
        held[stack.stream.z] = stack
        if len(held) == self._channels[stack.stream.channel].planes:
            self._make([held[z] for z in sorted(held)])
            del self._held[place]

    def _make(self, stacks: list[RawStack]) -> None:
        first = stacks[0]
        for stack in stacks:
            self._sink.raw(stack)
        if lacking := [stack.stream.z for stack in stacks if not stack.complete]:
            self._leave_out(stacks, f"exposures of planes {lacking} are missing")
            return
        channel = self._channels[first.stream.channel]
        made = channel.volume.reconstruct(_raw_block(channel.path, stacks))
        doubt = channel.volume.doubt
        self._doubtful += len(stacks) * bool(doubt)
        self._said.append({**_where(first), "orders": list(channel.volume.found)})
        if doubt:
            self._notes.append(f"The stack of {_named(first)} is doubtful: {doubt}.")
        scale = max(float(np.percentile(made, 99.9)), 1.0)
        for stack, picture in zip(stacks, made, strict=True):
            quality = FrameQuality(None, doubt) if doubt else None
            frame = SRFrame(
                picture,
                stack.stream,
                stack.t,
                stack.t_acq_ns,
                stack.t_last_ns,
                Normalisation(0.0, scale),
                t_camera_ms=stack.t_camera_ms,
                quality=quality,
                exposure_ms=stack.exposure_ms,
                stage=stack.stage,
            )
            self._sink.recon(frame)
            self._counts["recon"] += 1
            self._on_progress(self._counts["recon"], self._total)

    def _give_up(self) -> None:
        """Store the raw frames of stacks that lack planes."""
        for held in self._held.values():
            stacks = [held[z] for z in sorted(held)]
            for stack in stacks:
                self._sink.raw(stack)
            self._leave_out(stacks, PLANES_MISSING)
        self._held.clear()

    def _leave_out(self, stacks: list[RawStack], why: str) -> None:
        for stack in stacks:
            self._sink.skipped(stack.stream, stack.t, why)
        self._notes.append(f"The stack of {_named(stacks[0])} is not reconstructed: {why}.")


def _raw_block(path: ChannelPath, stacks: list[RawStack]) -> NDArray[np.float32]:
    """Return corrected raw frames (z, n, y, x)."""
    planes = []
    for stack in stacks:
        frames = list(stack.frames)
        corrected = path.correction.apply(frames) if path.correction else frames
        planes.append(np.array(corrected, np.float32))
    return np.stack(planes)


def _where(stack: RawStack) -> dict[str, Any]:
    stream: Stream = stack.stream
    return {"position": stream.position, "channel": stream.channel, "t": stack.t}


def _named(stack: RawStack) -> str:
    channel = f", channel {stack.stream.channel}" if stack.stream.channel else ""
    return f"time point {stack.t}{channel}"
