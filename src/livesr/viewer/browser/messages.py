"""What a page asks for: which pictures, of which stream, in which colours and contrast.

Owns the form of the page's messages. Anything else than these is refused: the port may be reached
by strangers.
"""

from __future__ import annotations

import math
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, field_validator

from livesr.viewer.composite import Lut
from livesr.viewer.frame_pairs import Selection

_Label = Annotated[str, Field(max_length=200)]
_Share = Annotated[float, Field(ge=0, le=1)]
_Shares = Annotated[tuple[_Share, ...], Field(min_length=4, max_length=4)]
_Index = Annotated[int, Field(ge=0, le=1 << 40)]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class ChannelDisplay(_Part):
    """How one channel is to be shown; None leaves it as the run says.

    `lut` is the measurement's.
    """

    label: _Label = ""
    color: Annotated[str, Field(pattern=r"^[0-9A-F]{6}$")] | None = None
    window: Annotated[tuple[float, ...], Field(min_length=2, max_length=2)] | None = None
    gamma: Annotated[float, Field(ge=0.1, le=10)] = 1.0
    visible: bool = True
    lut: Lut = "gray"

    @field_validator("window")
    @classmethod
    def _is_a_window(cls, window: tuple[float, ...] | None) -> tuple[float, ...] | None:
        if window is not None and not all(math.isfinite(w) and abs(w) < 1e6 for w in window):
            raise ValueError("a window is two finite numbers")
        return window


class View(_Part):
    """Everything that the page's pictures depend on.

    Attributes
    ----------
    mode : which pictures
    channels, measurement : how they are shown
    widefield : how the mean of the exposures is shown beside them; None shows none
    residual, uncertainty, error : paint it over the measurement, in the prediction's place; the
        first of them
    depth : give the measurement the colours of its z, where that is known
    raw : 16-bit planes instead of JPEG
    safe : colours that a red-green blind eye tells apart, where the page has not chosen one
    histogram : send histograms now and then
    channel, position, z : which stream, see `Selection`
    """

    mode: Literal["prediction", "measurement", "beside", "channels", "split"] = "beside"
    channels: Annotated[tuple[ChannelDisplay, ...], Field(max_length=64)] = ()
    measurement: ChannelDisplay = ChannelDisplay()
    widefield: ChannelDisplay | None = None
    residual: bool = False
    uncertainty: bool = False
    error: bool = False
    depth: bool = True
    raw: bool = False
    safe: bool = False
    histogram: bool = False
    channel: _Label | None = None
    position: _Index | None = None
    z: _Index | None = None

    @property
    def selection(self) -> Selection:
        """The stream."""
        return Selection(self.channel, self.position, self.z)

    def display(self, label: str) -> ChannelDisplay:
        """Return how the channel `label` is to be shown."""
        return next((c for c in self.channels if c.label == label), ChannelDisplay(label=label))


class Acknowledgement(_Part):
    """Frame `id` is on the screen."""

    type: Literal["ack"]
    id: _Index


class SetView(_Part):
    """Show this from now on."""

    type: Literal["view"]
    view: View


class Probe(_Part):
    """Say what is at this place, in shares of the picture's width and height; None stops that."""

    type: Literal["probe"]
    at: Annotated[tuple[_Share, ...], Field(min_length=2, max_length=2)] | None


class Measure(_Part):
    """Say what a line or a region of the pictures holds, of every picture; None stops that.

    `at` is (left, top, right, bottom) of a region, the two ends (x, y, x, y) of a line, in shares
    of the picture's width and height.
    """

    type: Literal["measure"]
    shape: Literal["line", "region"] = "line"
    at: _Shares | None = None


class Play(_Part):
    """Let a store run, or stop it."""

    type: Literal["play"]
    playing: bool


class Seek(_Part):
    """Show this moment of a store."""

    type: Literal["seek"]
    index: _Index


class TakeSnapshot(_Part):
    """Send what is shown as PNG.

    `field` is the visible part (left, top, right, bottom), `split` where the line is.
    """

    type: Literal["snapshot"]
    field: _Shares = (0.0, 0.0, 1.0, 1.0)
    split: _Share = 0.5


class TakeMovie(_Part):
    """Send a store as MP4, as it is shown; parts of the picture as for a snapshot."""

    type: Literal["movie"]
    field: _Shares = (0.0, 0.0, 1.0, 1.0)
    split: _Share = 0.5


PageMessage = Acknowledgement | SetView | Probe | Measure | Play | Seek | TakeSnapshot | TakeMovie
_MESSAGES: TypeAdapter[PageMessage] = TypeAdapter(
    Annotated[PageMessage, Field(discriminator="type")]
)


def parse_message(text: str | bytes) -> PageMessage | None:
    """Return what the page said, None if it is nothing that a page of this version says."""
    try:
        return _MESSAGES.validate_json(text)
    except ValidationError:
        return None
