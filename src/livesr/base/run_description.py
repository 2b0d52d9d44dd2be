"""What is known of a run when it starts: its channels, positions, planes and offsets.

Owns the description that every sink receives and every store is laid out by. Touches no file.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from livesr.base.error_bars import ErrorBars


@dataclass(frozen=True, slots=True)
class ChannelDescription:
    """One acquisition channel as sinks see it; sizes are (y, x) in pixels.

    `labels`, `colors` ("00FF00") and `ai` (provenance of the prediction: model, sha256, runtime
    ...) are empty when the channel has no engine; `window` is how many frames a prediction is made
    of, `uncertainty` how that of the prediction is estimated, empty where it is not.
    `raw_origin_px` is where the camera's region began on its chip, `raw_mirrored` whether it is
    turned over along (y, x) since the calibration. `raw_bit_depth` is how many bits of a pixel the
    camera fills, `raw_dark_adu` about their level without light, `camera` its label, "" where
    nobody said, `camera_drawn` whether it draws its
    pictures itself. `raw_along_t` says that the exposures of a group are a film rather than
    channels of one picture, `localises` that emitters are looked for in them. A reconstruction
    counts `recon_unit_scale` `recon_unit`. A superposition has no raw frames: it is the sum of the
    frames of channels `parts`, made equally bright and multiplied by `weights`. `error_map` says
    that pictures are compared with widefield ("numbers"), and that the maps are stored ("planes").
    `error_bars` are those of its predictions, `limits_stored` whether lower and upper images are
    kept. `depth_range_nm` is the lowest and the highest z that a running image's localisations can
    have, None where z is not measured. `power_mw` is that of the light at the specimen, None where
    nobody said. `kept_updates` are the numbers of exposures after which a picture of a group under
    way is made, where those are to be stored. Pixel (0, 0) of a reconstruction that is `centred`
    has its middle on that of the camera's; else their outer corners lie on each other, as those of
    a prediction and of the reconstruction always do.
    """

    name: str
    raw_labels: tuple[str, ...]
    raw_shape: tuple[int, int]
    raw_dtype: str
    raw_pixel_size_um: float
    recon_shape: tuple[int, int]
    recon_pixel_size_um: float
    recon_method: str
    labels: tuple[str, ...] = ()
    colors: tuple[str, ...] = ()
    sr_shape: tuple[int, int] = (0, 0)
    sr_pixel_size_um: float = 0.0
    ai: Mapping[str, Any] = field(default_factory=dict)
    raw_origin_px: tuple[float, float] = (0.0, 0.0)
    raw_mirrored: tuple[bool, bool] = (False, False)
    raw_bit_depth: int = 16
    camera: str = ""
    camera_drawn: bool = False
    window: int = 3
    uncertainty: Mapping[str, Any] = field(default_factory=dict)
    raw_along_t: bool = False
    localises: bool = False
    recon_unit: str = "ADU"
    recon_unit_scale: float = 1.0
    parts: tuple[str, ...] = ()
    weights: tuple[float, ...] = ()
    error_map: str = ""
    error_bars: ErrorBars | None = None
    limits_stored: bool = False
    power_mw: float | None = None
    raw_dark_adu: float = 0.0
    kept_updates: tuple[int, ...] = ()
    depth_range_nm: tuple[float, float] | None = None
    centred: bool = False

    @property
    def compared(self) -> tuple[str, ...]:
        """What is compared with widefield; () where nothing is."""
        if not self.error_map:
            return ()
        return ("reconstruction", "prediction") if self.labels else ("reconstruction",)


class Stack(NamedTuple):
    """The planes of one position and channel; none where nothing is acquired there.

    `left_out` are planes that a channel never takes, and only every `every`th time point is taken:
    what is known never to come need not be waited for.
    """

    z_planes: int = 0
    z_step_um: float = 1.0
    left_out: tuple[int, ...] = ()
    every: int = 1

    def never_comes(self, t: int, z: int) -> bool:
        """Whether the plan leaves plane `z` of time point `t` out."""
        return z in self.left_out or t % self.every != 0


@dataclass(frozen=True, slots=True)
class RunDescription:
    """What is known when a run starts.

    `positions` are names in index order; `z_planes` is 1 for a plane, of the deepest stack where
    `stacks` differ. `stacks` are those of every position and channel that is acquired; empty where
    every channel is acquired at every position, with all planes. `fields` is the position of every
    (p, g) of a plan with grids. Where time runs inside z, `planes_as_positions` is how many planes
    of a position became positions of their own, 1 elsewhere. `interval_s` is from one time point to
    the next as a plan asks for it; `recorded_interval_s` as a recording has it, where that is
    known, at whatever pace its frames come. `recon_offset_adu` is added to reconstructions in the
    store and on the wire, because a Wiener reconstruction has negative values and the formats have
    none; `sr_offset_adu` is what every `MulticolorFrame.offset_adu` of the run will be. `sidecars`
    are files to keep with the data, by name: their text, or a path to copy.
    """

    stream_id: str
    started_ns: int
    channels: tuple[ChannelDescription, ...]
    positions: tuple[str, ...] = ("0",)
    z_planes: int = 1
    planes_as_positions: int = 1
    z_step_um: float = 1.0
    stacks: Mapping[tuple[int, str], Stack] = field(default_factory=dict)
    fields: Mapping[tuple[int, int], int] = field(default_factory=dict)
    interval_s: float | None = None
    recorded_interval_s: float | None = None
    recon_offset_adu: int = 1000
    sr_offset_adu: int = 0
    record_raw: bool = True
    record_recon: bool = True
    sidecars: Mapping[str, str | Path] = field(default_factory=dict)

    def stack(self, position: int, channel: str) -> Stack:
        """Return what is acquired of a channel at a position.

        Of a superposition, where all of its channels are.
        """
        if self.stacks:
            about = next((c for c in self.channels if c.name == channel), None)
            parts = about.parts if about and about.parts else (channel,)
            stacks = [self.stacks.get((position, part), Stack()) for part in parts]
            left_out = sorted({z for stack in stacks for z in stack.left_out})
            every = math.lcm(*(stack.every for stack in stacks))
            return min(stacks)._replace(left_out=tuple(left_out), every=every)
        return Stack(self.z_planes, self.z_step_um) if position < len(self.positions) else Stack()

    @property
    def places(self) -> list[tuple[int, ChannelDescription]]:
        """Every position and channel that is acquired, or made of what is."""
        return [
            (p, c)
            for p in range(len(self.positions))
            for c in self.channels
            if self.stack(p, c.name).z_planes
        ]

    def channel(self, name: str) -> ChannelDescription:
        """Return the channel called `name`."""
        return next(c for c in self.channels if c.name == name)
