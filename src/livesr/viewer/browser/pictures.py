"""What a preview page is sent: the pictures that it asked for, as JPEG or 16 bit, with plain JSON.

Owns the drawing of a pair as a page asked for it, and the words of the status. Knows no socket
and no page. Whatever came over the wire is made presentable here: the page gets finite numbers and
plain text only.
"""

from __future__ import annotations

import json
import logging
import math
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from livesr.base.timing import now_ns
from livesr.formats.layout import DEPTH_COLORS
from livesr.formats.wire import Message, WireChannel, WireLocalised
from livesr.viewer.browser.messages import ChannelDisplay, View
from livesr.viewer.composite import (
    SAFE_COLORS,
    ChannelView,
    Compositor,
    Picture,
    auto_window,
    colored,
    encode_jpeg,
    grayscale,
    palette,
)
from livesr.viewer.frame_pairs import (
    FramePair,
    FramePairSource,
    error_plane,
    residual_plane,
    uncertainty_plane,
)
from livesr.viewer.overlay import (
    FAINTEST,
    FULL,
    paint_depth,
    paint_error,
    paint_residual,
    paint_uncertainty,
)

log = logging.getLogger(__name__)

_FRAMES_KEPT = 4  # for pages that look at the same
_GRAY = "FFFFFF"
_SHOWN_TIMES = ("p50", "p99")


@dataclass(frozen=True, slots=True)
class Frame:
    """A pair ready to send.

    `pictures` are JPEG files or 16-bit planes, in the order in which `content` names them.

    Two frames of the same `key` look the same.
    """

    key: tuple[Any, ...]
    pair: FramePair
    content: Mapping[str, Any]
    pictures: tuple[bytes | memoryview, ...]

    def header(self, number: int) -> str:
        """JSON text that goes before the pictures.

        The age is as of now: the page's own clock may be another.
        """
        taken_ns = self.pair.shown.header.t_acq_ns or 0
        age_ms = (
            round(max(0.0, (now_ns() - taken_ns) / 1e6), 1) if self.pair.index is None else None
        )
        return json.dumps(
            {"type": "frame", "id": number, "age_ms": age_ms, **self.content}, allow_nan=False
        )


class PictureMaker:
    """Draws what the source has, as a view asks for it.

    For one thread at a time, but for `status`.
    """

    def __init__(self, source: FramePairSource) -> None:
        self._source = source
        self._compositor = Compositor((1, 1))
        self._frames: OrderedDict[tuple[Any, ...], Frame] = OrderedDict()
        self._problem = ""

    def make(self, view: View, index: int = 0, frozen: FramePair | None = None) -> Frame | None:
        """Draw the newest pair, or one that is `frozen`.

        None if there is none or it cannot be drawn, which `status` then says.
        """
        pair = frozen or self._source.pair(
            view.selection,
            index,
            measured=view.mode == "measurement",
            widefield=view.widefield is not None,
        )
        if pair is None:
            return None
        parts = pair.prediction, pair.measurement, pair.widefield, pair.uncertainty, pair.error
        moments = map(_moment, (*parts, pair.depth))
        key = (view, pair.index, pair.separated, *moments)
        if (frame := self._frames.get(key)) is None:
            try:
                frame = self._draw(key, pair, view)
            except ValueError as e:
                self._problem = f"A frame came that cannot be shown: {e}."
                log.debug("a pair cannot be drawn", exc_info=True)
                return None
            self._problem = ""
            self._frames[key] = frame
            if len(self._frames) > _FRAMES_KEPT:
                self._frames.popitem(last=False)
        return frame

    def fail(self, error: Exception) -> None:
        """Let `status` say that nothing more will come because the source failed."""
        self._problem = f"The preview has stopped: {type(error).__name__}: {error}."

    def status(self, channel: str = "") -> dict[str, Any]:
        """State of the stream in words and numbers for a page that shows acquisition channel
        `channel`.
        """
        said = self._source.status
        warnings = [*_texts(said.get("warnings")), self._problem, self._source.problem]
        return {
            "state": self._source.state,
            "source": self._source.endpoint,
            "fps": finite(said.get("sr_fps")),
            "skipped": finite(said.get("sr_skipped")),
            "skipped_share": _share(said.get("sr_skipped"), said.get("sr_frames")),
            "disk_free_bytes": finite(said.get("disk_free_bytes")),
            "engine": _networks(said, channel) or _of_channel(said.get("engine"), channel),
            "backend": _backend(said, channel),
            "audits": [_mean_pcc(a) for a in said.get("audits") or () if isinstance(a, Mapping)],
            "dose": said.get("dose_line") if isinstance(said.get("dose_line"), str) else "",
            "computes": _of_channel(said.get("computes"), channel),
            "warnings": [w for w in warnings if w],
            "streams": [s._asdict() for s in self._source.streams()],
            "length": self._source.length,
        }

    # -- drawing -----------------------------------------------------------------------------------

    def _draw(self, key: tuple[Any, ...], pair: FramePair, view: View) -> Frame:
        prediction, measurement = channel_views(pair, view), measurement_view(pair, view)
        widefield = widefield_view(pair, view)
        named, parts = [], []
        for about, part in self._raw(pair, view) if view.raw else self._jpegs(pair, view):
            named.append(about)
            parts.append(part)
        header = pair.shown.header
        content = {
            "pictures": named,
            "prediction": pair.prediction is not None,
            "separated": pair.prediction is not None or pair.separated,
            "channels": [
                _legend(v, c.label, pair.prediction)
                for v, c in zip(prediction, channels_of(pair), strict=True)
            ],
            "measurement": {
                **_legend(measurement, _method(pair), pair.measurement),
                **_palette(view.measurement, view),
            }
            if measurement
            else None,
            "widefield": {
                **_legend(widefield, "widefield", pair.widefield),
                **_palette(view.widefield, view),
            }
            if widefield and view.widefield
            else None,
            "exposures": header.raw_seq[1] - header.raw_seq[0] + 1 if header.raw_seq else 0,
            "stream": {"channel": header.channel, "position": header.position, "z": header.z},
            "position_name": header.position_name,
            "t": header.t,
            "index": pair.index,
            "t_acq_ms": finite((header.t_acq_ns or 0) / 1e6),
            "latency_ms": finite(header.latency_ms),
            "residual": finite(header.residual),
            "overlay": overlay_of(pair, view),
            "overlay_range": _overlay_range(measurement, pair.measurement),
            "unit": header.unit,
            "uncertainty": pair.uncertainty is not None,
            "error": _rsp(pair),
            "depth": None if view.raw else _depth_scale(pair),
            "score": {label: finite(values.get("pcc")) for label, values in header.score.items()},
            "provisional": header.provisional,
            "judgement": _judgement(pair.prediction),
            "mixing": header.mixing,
            "localised": said.model_dump() if (said := _localised(pair)) else None,
            "warnings": list(dict.fromkeys(w for m in pair.messages for w in m.header.warnings)),
        }
        return Frame(key, pair, content, tuple(parts))

    def _jpegs(self, pair: FramePair, view: View) -> Iterator[tuple[dict[str, Any], bytes]]:
        for name, message, picture in self.pictures(pair, view):
            yield _about(name, message, picture.shape[:2]), encode_jpeg(picture)

    @staticmethod
    def _raw(pair: FramePair, view: View) -> Iterator[tuple[dict[str, Any], memoryview]]:
        for name, message, axes in (
            ("planes", pair.prediction, "cyx"),
            ("measurement", pair.measurement, "yx"),
            ("widefield", pair.widefield if view.widefield else None, "yx"),
        ):
            if message is not None:
                planes = np.ascontiguousarray(_as_uint16(message, axes), "<u2")
                about = _about(name, message, planes.shape[-2:])
                yield (
                    {**about, "planes": planes.shape[0] if planes.ndim == 3 else 1},
                    planes.data.cast("B"),
                )

    def pictures(self, pair: FramePair, view: View) -> Iterator[tuple[str, Message, Picture]]:
        """Draw the pictures of a view one after the other.

        Name, what it shows, uint8 (y, x) or (y, x, 3).

        A picture is overwritten by the next one of its size. Raises ValueError if a message has
        other axes than expected.
        """
        wanted = shown_pictures(pair, view)
        if "widefield" in wanted and pair.widefield is not None and view.widefield is not None:
            gray = self._grey(pair.widefield, widefield_view(pair, view))
            yield "widefield", pair.widefield, colored(gray, view.widefield.lut)
        if "measurement" in wanted and pair.measurement is not None:
            painted = (
                self._error_painted(pair, view) if not pair.prediction and view.error else None
            )
            if painted is None and view.depth:
                painted = self._depth_painted(pair, view)
            if painted is None:
                painted = colored(self._measurement(pair, view), view.measurement.lut)
            yield "measurement", pair.measurement, painted
        if pair.prediction is None:
            return
        if "composite" in wanted:
            yield "composite", pair.prediction, self._prediction(pair, view)
        if "channels" in wanted:
            planes = _as_uint16(pair.prediction, "cyx")
            for plane, shown, channel in zip(
                planes, channel_views(pair, view), channels_of(pair), strict=True
            ):
                one = ChannelView(shown.color, shown.window, shown.gamma)
                yield (
                    f"channel:{channel.label}",
                    pair.prediction,
                    self._composite(plane[None], [one]),
                )

    def _prediction(self, pair: FramePair, view: View) -> Picture:
        assert pair.prediction is not None
        if (overlay := overlay_of(pair, view)) and (
            painted := self._painted(pair, view, overlay)
        ) is not None:
            return painted
        return self._composite(_as_uint16(pair.prediction, "cyx"), channel_views(pair, view))

    def _composite(self, planes: NDArray[np.uint16], views: list[ChannelView]) -> Picture:
        shape = (planes.shape[1], planes.shape[2])
        if self._compositor.shape != shape:
            self._compositor = Compositor(shape)
        return self._compositor.render(planes, views)

    def _painted(self, pair: FramePair, view: View, overlay: str) -> Picture | None:
        if pair.measurement is None:
            return None
        if overlay == "error":
            return self._error_painted(pair, view)
        plane = residual_plane(pair) if overlay == "residual" else uncertainty_plane(pair)
        if plane is None:
            return None
        window = measurement_view(pair, view)
        assert window is not None
        paint = paint_residual if overlay == "residual" else paint_uncertainty
        return paint(self._measurement(pair, view), plane, window.window[1] - window.window[0])

    def _error_painted(self, pair: FramePair, view: View) -> Picture | None:
        found = error_plane(pair)
        if found is None or found[0].shape != self._measurement(pair, view).shape:
            return None
        return paint_error(self._measurement(pair, view), *found)

    def _depth_painted(self, pair: FramePair, view: View) -> Picture | None:
        if (range_nm := depth_range_nm(pair)) is None:
            return None
        assert pair.depth is not None
        assert pair.depth.pixels is not None
        return paint_depth(self._measurement(pair, view), pair.depth.pixels, range_nm)

    def _measurement(self, pair: FramePair, view: View) -> Picture:
        assert pair.measurement is not None
        return self._grey(pair.measurement, measurement_view(pair, view))

    @staticmethod
    def _grey(message: Message, shown: ChannelView | None) -> Picture:
        assert shown is not None
        return grayscale(_as_uint16(message, "yx"), shown.window, shown.gamma)


def shown_pictures(pair: FramePair, view: View) -> frozenset[str]:
    """Names of what a view needs of a pair.

    A pair without a prediction is shown as the measurement that it is.
    """
    beside = {"widefield"} if view.widefield and pair.widefield is not None else set[str]()
    if pair.prediction is None:
        return frozenset({"measurement", *beside})
    wanted = {
        "prediction": {"composite"},
        "measurement": {"measurement"},
        "beside": {"measurement", "composite"},
        "split": {"measurement", "composite"},
        "channels": {"measurement", "channels"},
    }[view.mode]
    if pair.measurement is None:
        wanted = (wanted - {"measurement"}) or {"composite"}
    return frozenset(wanted | beside)


def overlay_of(pair: FramePair, view: View) -> str:
    """Which overlay stands in for the prediction.

    Empty for none, and where a pair has nothing to make it of.
    """
    if view.raw or not pair.matches:
        return ""
    if view.residual:
        return "residual"
    if view.uncertainty and pair.uncertainty is not None:
        return "uncertainty"
    return "error" if view.error and pair.error is not None else ""


def _mean_pcc(audit: Mapping[str, Any]) -> dict[str, Any]:
    """Return one point of the curve of trust."""
    pccs = [finite(pcc) for pcc in dict(audit.get("pcc") or {}).values()]
    known = [pcc for pcc in pccs if pcc is not None]
    return {"t": audit.get("t"), "pcc": sum(known) / len(known) if known else None}


def _localised(pair: FramePair) -> WireLocalised | None:
    """Return what the measurement's group localised."""
    return pair.measurement.header.localised if pair.measurement else None


def _rsp(pair: FramePair) -> dict[str, Any] | None:
    """Return what the page says of the comparison with widefield, None without one."""
    if pair.error is None:
        return None
    header = pair.error.header
    numbers = {label: finite(n.get("rsp")) for label, n in header.compared.items()}
    return {"t": header.t, "rsp": numbers}


def depth_range_nm(pair: FramePair) -> tuple[float, float] | None:
    """Return the z of the first and the last colour; None where z is not known."""
    if pair.depth is None or pair.depth.pixels is None or not pair.depth.header.channels:
        return None
    return pair.depth.header.channels[0].window


def _depth_scale(pair: FramePair) -> dict[str, Any] | None:
    """Return what the page says of the colours of z, None without them."""
    if (range_nm := depth_range_nm(pair)) is None:
        return None
    return {"range_nm": [finite(z) for z in range_nm], "colors": DEPTH_COLORS}


def channel_views(pair: FramePair, view: View) -> list[ChannelView]:
    """How the channels of the prediction are shown.

    As asked for, else as the run says, else by their pixels.
    """
    message = pair.prediction
    if message is None or message.pixels is None:
        return []
    named = zip(channels_of(pair), message.pixels, strict=True)
    safe = SAFE_COLORS if view.safe else {}
    return [
        _shown(
            view.display(c.label),
            safe.get(c.color.upper(), c.color),
            c.window,
            plane,
            message,
        )
        for c, plane in named
    ]


def measurement_view(pair: FramePair, view: View) -> ChannelView | None:
    """How the measurement is shown; None without one."""
    return _grey_view(pair.measurement, view.measurement)


def widefield_view(pair: FramePair, view: View) -> ChannelView | None:
    """How the mean of the exposures is shown; None where it is not."""
    return _grey_view(pair.widefield, view.widefield)


def _grey_view(message: Message | None, asked: ChannelDisplay | None) -> ChannelView | None:
    if message is None or message.pixels is None or asked is None:
        return None
    channels = message.header.channels
    window = channels[0].window if channels else None
    return _shown(asked, _GRAY, window, message.pixels, message)


def _moment(message: Message | None) -> tuple[Any, ...] | None:
    """Return what tells a message from every other one."""
    if message is None:
        return None
    header = message.header
    return header.stream, *message.key, header.t, header.seq, header.provisional


def _shown(
    asked: ChannelDisplay,
    color: str,
    window: tuple[float, float] | None,
    plane: NDArray[Any],
    message: Message,
) -> ChannelView:
    """How a plane is drawn: the window in the plane's own numbers, its offset in them."""
    own = Intensity.of(message)
    wanted = asked.window and (own.number(asked.window[0]), own.number(asked.window[1]))
    chosen = wanted or window or auto_window(plane)
    return ChannelView(
        asked.color or color.upper(), (chosen[0], chosen[1]), asked.gamma, asked.visible
    )


def channels_of(pair: FramePair) -> tuple[WireChannel, ...]:
    """Return the channels of the prediction, none without one."""
    return pair.prediction.header.channels if pair.prediction else ()


def _method(pair: FramePair) -> str:
    """How the measurement was reconstructed, as the run says it."""
    channels = pair.measurement.header.channels if pair.measurement else ()
    return channels[0].label if channels else ""


class Intensity(NamedTuple):
    """What the numbers of a message's pixels say: (number - offset) * scale, in a unit."""

    offset: float = 0.0
    scale: float = 1.0
    unit: str = "ADU"

    @classmethod
    def of(cls, message: Message | None) -> Self:
        """Return that of a message; plain ADU without one."""
        if message is None:
            return cls()
        header = message.header
        return cls(float(header.offset_adu), header.unit_scale, header.unit)

    def value(self, number: float) -> float:
        """Return the intensity of a number."""
        return (number - self.offset) * self.scale

    def number(self, value: float) -> float:
        """Return the number of an intensity."""
        return value / self.scale + self.offset


def _legend(view: ChannelView, label: str, message: Message | None) -> dict[str, Any]:
    """Return what a page is told of a channel, with intensities, not the numbers of its pixels."""
    own = Intensity.of(message)
    return {
        "label": label,
        "color": view.color,
        "window": [finite(own.value(end)) for end in view.window],
        "gamma": view.gamma,
        "visible": view.visible,
        "unit": own.unit,
    }


def _judgement(message: Message | None) -> dict[str, Any] | None:
    """Return what a page is told of a prediction's worth; None where nobody judged."""
    judged = message.judgement if message else None
    return judged.written() if judged else None


def _palette(asked: ChannelDisplay | None, view: View) -> dict[str, Any]:
    """Return the colour table of a measurement, where the page draws it itself."""
    lut = asked.lut if asked else "gray"
    return {
        "lut": lut,
        **({"palette": palette(lut).tolist()} if view.raw and lut != "gray" else {}),
    }


def _about(name: str, message: Message, shape: tuple[int, ...]) -> dict[str, Any]:
    header = message.header
    return {
        "name": name,
        "t": header.t,
        "pixel_size_um": finite(header.pixel_size_um),
        "height": shape[0],
        "width": shape[1],
        "provisional": header.provisional,
        "span_ms": finite(header.span_ms),
        "newest_raw": header.newest_raw,
        "offset_adu": float(header.offset_adu),
        "unit_scale": header.unit_scale,
    }


def _as_uint16(message: Message, axes: str) -> NDArray[np.uint16]:
    """Pixels with the expected axes as uint16, without a copy where they are."""
    pixels, header = message.pixels, message.header
    if pixels is None or header.axes != axes:
        raise ValueError(f"its axes are {header.axes!r}, expected {axes!r}")
    if pixels.dtype.kind == "f":
        pixels = np.nan_to_num(pixels).clip(0, np.iinfo(np.uint16).max)
    return pixels.astype(np.uint16, copy=False)


def finite(value: object) -> float | None:
    """Return a number that JSON can hold, else None."""
    if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
        return value
    return None


def _share(part: object, rest: object) -> float | None:
    """Return the share of `part` in both, None where it is not known."""
    some, others = finite(part), finite(rest)
    if some is None or others is None or some + others <= 0:
        return None
    return some / (some + others)


def _overlay_range(
    measurement: ChannelView | None, message: Message | None
) -> tuple[float, float] | None:
    """Return at what intensity an overlay begins to show, and has its full colour."""
    if measurement is None:
        return None
    span = (measurement.window[1] - measurement.window[0]) * Intensity.of(message).scale
    return FAINTEST * span, FULL * span


def _texts(value: object) -> list[str]:
    return [str(v) for v in value] if isinstance(value, list | tuple) else []


def _backend(said: Mapping[str, Any], channel: str) -> str:
    """Return the backend of the channel on the page; of a server also how long it takes there and
    back.
    """
    name, ways = _of_channel(said.get("backend"), channel), said.get("remote")
    if isinstance(ways, Mapping):
        ways = ways.get(channel, next(iter(ways.values()), None))
    last = ways[-1] if isinstance(ways, list) and ways else None
    if not isinstance(last, Mapping) or last.get("backend") != name:
        return name  # computed here at the moment
    times, share = last.get("latency_ms"), finite(last.get("network_share"))
    p50, p99 = (finite(times.get(p)) if isinstance(times, Mapping) else None for p in _SHOWN_TIMES)
    if p50 is None or p99 is None:
        return name
    way = "" if share is None else f", {share:.0%} of it network"
    return f"{name}, {p50:.0f} ms there and back (p99 {p99:.0f}){way}"


def _networks(said: Mapping[str, Any], channel: str) -> str:
    """Return the networks of the channel, with what tells two copies of an engine apart."""
    networks = said.get("networks")
    if not isinstance(networks, Mapping):
        return ""  # of a run of before
    lists = [networks[channel]] if channel in networks else networks.values()
    names = [str(name) for names in lists if isinstance(names, list) for name in names]
    return ", ".join(dict.fromkeys(names))


def _of_channel(value: object, channel: str) -> str:
    """Engine or backend of the channel on the page; a run gives them per channel."""
    if not isinstance(value, Mapping):
        return str(value or "")
    return (
        str(value[channel])
        if channel in value
        else ", ".join(dict.fromkeys(str(v) for v in value.values()))
    )
