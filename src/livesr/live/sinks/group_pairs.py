"""Reconstructions beside what they were made of, as training images.

Owns the folders that `livesr train` takes: of each channel `clean/` (the reconstruction), `noisy/`
(the mean of the group, which is widefield) and `raw/` (the exposures, one group after the other),
with files of the same names and the same field; and a recipe for either input.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import yaml

from livesr.base.errors import ConfigError
from livesr.base.frames import RawStack, SRFrame, Stream
from livesr.base.run_description import ChannelDescription, RunDescription
from livesr.formats.layout import folder_names
from livesr.live.sinks.sink import to_uint16

if TYPE_CHECKING:
    from tifffile import TiffWriter

FRAMES_PER_FILE = 16
"""Time points of a file: one file in six validates, so a run should have several."""

BORDER = 0.06
"""Share of each side that is left out: a reconstruction fades there."""

_KINDS = ("clean", "noisy", "raw")
_PATCH, _SMALLEST_PATCH = 128, 64
_PAIRS, _VALIDATION_PAIRS = 2400, 96


class PlanesFile:
    """A TIFF of consecutive time points of one stream, one or several planes each."""

    def __init__(self, path: Path, t: int) -> None:
        import tifffile

        self._writer: TiffWriter = tifffile.TiffWriter(path)
        self._first = self._next = t

    def continues(self, t: int) -> bool:
        """Return whether time point `t` belongs here."""
        return t == self._next < self._first + FRAMES_PER_FILE

    def write(self, *planes: Any) -> None:
        """Write all planes of the next time point."""
        for plane in planes:
            self._writer.write(plane, photometric="minisblack", contiguous=True, metadata=None)
        self._next += 1

    def close(self) -> None:
        """Finish the file."""
        self._writer.close()


def prefix_of(run: RunDescription) -> str:
    """Return what names of files of this run begin with."""
    return f"{datetime.fromtimestamp(run.started_ns / 1e9, UTC):%Y%m%d-%H%M%S}-{run.stream_id[:6]}"


def grouped(run: RunDescription) -> list[ChannelDescription]:
    """Return the channels whose pictures are made of several exposures on a grid that is a whole
    number of times as fine.
    """
    return [
        c
        for c in run.channels
        if len(c.raw_labels) > 1
        and not (c.raw_along_t or c.parts or c.localises)
        and scale_of(c) >= 1
    ]


def scale_of(channel: ChannelDescription) -> int:
    """Return pixels of the reconstruction per camera pixel; 0 where that is no whole number."""
    scale = round(channel.recon_shape[0] / channel.raw_shape[0])
    fits = channel.recon_shape == tuple(scale * n for n in channel.raw_shape)
    return scale if fits else 0


class GroupPairs:
    """Writes reconstructions, means and exposures of complete groups.

    Parameters
    ----------
    folder : created if needed. Files of former runs stay, and so do recipes that are there

    Raises
    ------
    ConfigError
        If a picture is too small to train on.
    """

    def __init__(self, folder: Path, run: RunDescription) -> None:
        self._folder, self._run, self._prefix = folder, run, prefix_of(run)
        channels = grouped(run)
        names = folder_names(tuple(c.name for c in channels))
        self._channels = {c.name: (c, name) for c, name in zip(channels, names, strict=True)}
        self._files: dict[Stream, tuple[PlanesFile, ...]] = {}
        self._waiting: dict[Stream, dict[int, RawStack]] = {}
        for channel, name in self._channels.values():
            self._prepare(channel, name)

    def raw(self, stack: RawStack) -> None:
        """Keep the exposures until their picture comes."""
        complete = all(exposure is not None for exposure in stack.frames)
        if complete and stack.stream.channel in self._channels:
            self._waiting.setdefault(stack.stream, {})[stack.t] = stack

    def recon(self, frame: SRFrame) -> None:
        """Write a group, if it is complete and its picture shows its patterns."""
        waiting = self._waiting.get(frame.stream, {})
        stack = waiting.pop(frame.t, None)
        for t in [t for t in waiting if t < frame.t]:  # a group that was given up
            del waiting[t]
        resolved = not frame.quality or frame.quality.resolved
        files = self._files.get(frame.stream)
        if files and not (resolved and stack and files[0].continues(frame.t)):
            self._end(frame.stream)
        if stack is None or not resolved or frame.stream.channel not in self._channels:
            return
        if frame.stream not in self._files:
            self._files[frame.stream] = self._begin(frame)
        channel, _ = self._channels[frame.stream.channel]
        exposures = [_inside(raw, channel.raw_shape, 1) for raw in stack.frames]
        picture = _inside(frame.image, channel.raw_shape, scale_of(channel))
        clean, noisy, raw = self._files[frame.stream]
        clean.write(to_uint16(picture, self._run.recon_offset_adu))
        noisy.write(np.mean(exposures, axis=0, dtype=np.float32))
        raw.write(*exposures)

    def close(self) -> None:
        """Finish the files."""
        for stream in list(self._files):
            self._end(stream)

    def _prepare(self, channel: ChannelDescription, name: str) -> None:
        scale = scale_of(channel)
        side = min(scale * (n - 2 * int(n * BORDER)) for n in channel.raw_shape)
        side = side // (8 * scale) * 8 * scale
        if side < _SMALLEST_PATCH:
            raise ConfigError(
                f"Reconstructions of {channel.recon_shape[0]}x{channel.recon_shape[1]} pixels are"
                f" too small to train on: without their edges they need {_SMALLEST_PATCH} on each"
                " side. Use a larger region."
            )
        for kind in _KINDS:
            (self._folder / name / kind).mkdir(parents=True, exist_ok=True)
        for recipe, content in _recipes(self._folder / name, channel, min(side, _PATCH)).items():
            path = self._folder / name / recipe
            if not path.exists():
                path.write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf-8")

    def _begin(self, frame: SRFrame) -> tuple[PlanesFile, ...]:
        position, channel, z = frame.stream
        name = f"{self._prefix}_p{position:03d}_z{z:03d}_t{frame.t:06d}.tif"
        folder = self._folder / self._channels[channel][1]
        return tuple(PlanesFile(folder / kind / name, frame.t) for kind in _KINDS)

    def _end(self, stream: Stream) -> None:
        for file in self._files.pop(stream, ()):
            file.close()


def _inside(image: Any, raw_shape: Sequence[int], scale: int) -> Any:
    """Return the same field of an exposure (`scale` 1) and of what is finer, without its edges."""
    y, x = (scale * int(n * BORDER) for n in raw_shape)
    return image[y : image.shape[0] - y, x : image.shape[1] - x]


def _recipes(folder: Path, channel: ChannelDescription, size: int) -> dict[str, dict[str, Any]]:
    """Return both recipes by their file's name; the fields are those of
    `livesr.training.recipes`.
    """
    scale, n = scale_of(channel), len(channel.raw_labels)
    some = sorted({i * n // 3 for i in range(3)})
    nm = round(1e3 * channel.raw_pixel_size_um, 3)
    data = {
        "train": _PAIRS,
        "validation": _VALIDATION_PAIRS,
        "size": size,
        "seed": 1,
        "validation_seed": 2,
        "images": {
            "folders": {channel.name: str(folder.absolute())},
            "pixel_size_nm": nm,
            "modality": channel.recon_method,
            "centred": True,
            "on_bad_file": "skip",  # the last file of a killed run
        },
    }
    train = {"minutes": 70, "batch": 8, "patch": size // scale, "loss": {"kind": "l1"}}
    engine = {
        "version": "0.1",
        "window": 1,
        "pixel_size_nm": {"min": round(0.87 * nm, 2), "max": round(1.13 * nm, 2)},
    }
    safe = folder.name.lower()
    labels = [channel.raw_labels[i] for i in some]
    unet = {"channels": 1, "width": 32, "depth": 3, "scale": scale}
    return {
        "recipe.yaml": {
            "description": f"{channel.name}: {channel.recon_method} from widefield, of own runs.",
            "data": {"kind": "paired", **data},
            "train": {"architecture": "unet", "parameters": {"frames": 1, **unet}, **train},
            "engine": {
                "id": f"own-{safe}-widefield",
                "task": "upscale" if scale > 1 else "restore",
                **engine,
                "channels": [{"name": "Predicted", "color": "FFFFFF"}],
                "modality": ["widefield"],
            },
        },
        "recipe-raw.yaml": {
            "description": f"{channel.name}: of {len(some)} of {n} exposures, of own runs.",
            "data": {"kind": "reconstruct", "frames": some, **data},
            "train": {
                "architecture": "unet",
                "parameters": {"frames": len(some), **unet},
                **train,
            },
            "engine": {
                "id": f"own-{safe}-raw-{len(some)}",
                "task": "reconstruct",
                "raw_frames": labels,
                **engine,
                "channels": [{"name": "Predicted", "color": "FFFFFF"}],
                "modality": [channel.recon_method],
            },
        },
    }
