"""Layers that show the newest pictures of a run: the measurement, and one for each structure.

Owns the layers and the timer that feeds them. Everything happens in Qt's own thread: what a run
hands over waits elsewhere, each picture in the place of the one before, and a window that is slow
shows fewer of them.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from textwrap import fill
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from psygnal import EmitLoopError

from livesr.base.errors import ConfigError
from livesr.formats.layout import DEPTH_COLORS
from livesr.formats.wire import DEPTH, Message
from livesr.live.session import Session
from livesr.napari.run_pairs import RunPairs, SessionPairs
from livesr.napari.store_layers import (
    ESTIMATE,
    MEASUREMENT,
    PREDICTION,
    depth_colormap,
    layer_name,
)
from livesr.viewer.composite import auto_window
from livesr.viewer.frame_pairs import (
    FramePair,
    FramePairSource,
    LiveFramePairs,
    Selection,
    intensity,
)
from livesr.viewer.subscriber import Subscriber

if TYPE_CHECKING:
    from pathlib import Path

_PERIOD_MS = 40
_LETTER = 0.95  # px for a letter of a sentence and point of its size; 0.9 as measured
_CANVAS_PX, _MARGIN_PX, _FEWEST = 600, 20, 30  # the first where napari, before 0.9, does not say
_BLENDING = {MEASUREMENT: "translucent", ESTIMATE: "additive", PREDICTION: "additive"}
_STATES = {
    "waiting": "Waiting for a stream",
    "starting": "Waiting for the first picture",
    "live": "Live",
    "silent": "The stream has gone silent: this is its last picture",
    "ended": "Ended: this is the last picture",
}


class _Plane(NamedTuple):
    """What one layer shows: (y, x) in ADU, and the window of the run in ADU; of depth in nm."""

    name: str
    color: str | dict[str, Any]
    pixels: NDArray[np.float32]
    window: tuple[float, float]
    pixel_size_um: float
    kind: str
    blending: str


class LiveLayers:
    """Layers of a viewer that follow a run until they are closed.

    Parameters
    ----------
    viewer : `napari.Viewer`
    source : address that a run publishes on, or a `LiveSR` or `Replay` of this program, which then
        need not publish; or pairs of such a run
    keys : folder of this viewer's CURVE keys, for a stream that is encrypted

    Attributes
    ----------
    shown : pictures that were drawn

    Notes
    -----
    To be made, used and closed in Qt's thread. A layer that is deleted by hand is not made again;
    contrast that was set by hand stays.

    Raises
    ------
    ConfigError
        If the address is none.

    Examples
    --------
    >>> live = LiveLayers(viewer, "tcp://127.0.0.1:5555")
    """

    def __init__(
        self, viewer: Any, source: str | Session | RunPairs, keys: Path | None = None
    ) -> None:
        self._viewer = viewer
        self._open: Subscriber | RunPairs
        self._pairs: FramePairSource
        if isinstance(source, str):
            self._open = Subscriber(source, keys=keys)
            self._open.open()
            self._pairs = LiveFramePairs(self._open)
        elif isinstance(source, Session):
            self._open = self._pairs = SessionPairs(source)
        elif isinstance(source, RunPairs):
            self._open = self._pairs = source
        else:
            raise ConfigError(
                f"Live layers were given a {type(source).__name__}, and follow an address such as"
                " tcp://127.0.0.1:5555, or a LiveSR."
            )
        self._layers: dict[str, Any] = {}
        self._windows: dict[str, tuple[float, float]] = {}
        self._drawn: dict[str, Message] = {}
        self._separated: set[str] = set()
        self._words = _overlay(viewer, "text")
        self._words.position = "top_left"  # the scale bar has the other corner
        self.shown = 0
        self._timer = _timer(self.refresh)
        self.refresh()

    def close(self) -> None:
        """Follow the run no longer; its last pictures stay. May be called twice."""
        if self._timer:
            self._timer.stop()
        self._open.close()
        with suppress(RuntimeError, EmitLoopError):  # the window may be gone
            self._words.visible = False

    def refresh(self) -> None:
        """Show the newest pictures, as far as they are others; the timer calls this."""
        channels = dict.fromkeys(stream.channel for stream in self._pairs.streams())
        pairs = [self._pairs.pair(Selection(channel=channel)) for channel in channels]
        there = [pair for pair in pairs if pair is not None]
        for pair in there:
            self._show_pair(pair, several=len(channels) > 1)
        self._say(there)

    def _show_pair(self, pair: FramePair, *, several: bool) -> None:
        place = pair.shown.header.channel if several else ""
        for message in (pair.measurement, pair.depth, pair.uncertainty, pair.prediction):
            if message is None or self._drawn.get(key := f"{place} {message.topic}") is message:
                continue
            self._drawn[key] = message
            self.shown += 1
            for plane in _planes(message, place):
                self._show_plane(plane)
            if message is pair.prediction and place not in self._separated:
                self._separated.add(place)
                self._hide_measurement(place)

    def _hide_measurement(self, place: str) -> None:
        """Let the prediction be seen by itself, not as light on top of the measurement."""
        for name, layer in self._layers.items():
            if name.startswith(place) and name.endswith(MEASUREMENT):
                layer.visible = False

    def _show_plane(self, plane: _Plane) -> None:
        layer = self._layers.get(plane.name)
        if layer is None:
            self._layers[plane.name] = layer = self._viewer.add_image(
                plane.pixels,
                name=plane.name,
                colormap=plane.color,
                contrast_limits=plane.window,
                blending=plane.blending,
                visible=plane.kind != ESTIMATE,
                scale=(plane.pixel_size_um, plane.pixel_size_um),
                axis_labels=("y", "x"),
                units=("micrometer", "micrometer"),
            )
            _overlay(self._viewer, "scale_bar").visible = True
        elif layer not in self._viewer.layers:
            return
        else:
            self._follow_window(layer, plane)
            layer.data = plane.pixels
            layer.scale = (plane.pixel_size_um, plane.pixel_size_um)
        self._windows[plane.name] = tuple(layer.contrast_limits)

    def _follow_window(self, layer: Any, plane: _Plane) -> None:
        """Take over the window of the run, until the user has set one."""
        if tuple(layer.contrast_limits) == self._windows[plane.name]:
            layer.contrast_limits = plane.window

    def _say(self, pairs: list[FramePair]) -> None:
        """Write over the picture what is known of it: never the prediction without its warnings."""
        lines = [self._state_line(pairs)]
        lines += [str(w) for w in self._pairs.status.get("warnings") or ()]
        lines += [w for pair in pairs for m in pair.messages for w in m.header.warnings]
        lines += [self._pairs.problem] if self._pairs.problem else []
        columns = _columns(self._viewer, self._words.font_size)
        text = "\n".join(fill(line, columns) for line in dict.fromkeys(lines))
        if self._words.text != text:
            self._words.text = text
        self._words.visible = True

    def _state_line(self, pairs: list[FramePair]) -> str:
        words = [_STATES[self._pairs.state]]
        if pairs:
            header = pairs[0].shown.header
            words += [f"t {header.t}"]
            words += ["provisional"] if header.provisional else []
            words += [f"latency {header.latency_ms:.0f} ms"] if header.latency_ms else []
            words += [] if header.residual is None else [f"residual {100 * header.residual:.1f} %"]
        return "   ".join(words)


def _planes(message: Message, place: str) -> Iterator[_Plane]:
    """Return what the layers of a message show; the only copy of its pixels."""
    header, values = message.header, intensity(message)
    predicted = bool(header.ai.get("prediction"))
    estimated = not header.ai.get("measurement", True)
    kind = PREDICTION if predicted else ESTIMATE if estimated else MEASUREMENT
    deep = message.topic == DEPTH.decode()  # multiplied with the image below it: its z in colour
    planes = values if values.ndim == 3 else values[None]
    for channel, pixels in zip(header.channels, planes, strict=True):
        label = f"uncertainty of {channel.label}" if estimated else channel.label
        label = "depth, nm" if deep else label
        window = channel.window or auto_window(pixels + np.float32(header.offset_adu))
        low, high = (value - header.offset_adu for value in window)
        yield _Plane(
            name=layer_name(f"live {label}", kind, place),
            color=depth_colormap(DEPTH_COLORS) if deep else f"#{channel.color}",
            pixels=pixels,
            window=(low, max(high, low + 1e-3)),
            pixel_size_um=header.pixel_size_um or 1.0,
            kind=kind,
            blending="multiplicative" if deep else _BLENDING[kind],
        )


def _columns(viewer: Any, font_size: float) -> int:
    """Return how many letters the text over the picture has room for; napari cuts it there."""
    size = getattr(viewer.canvas, "size", None) if hasattr(viewer, "canvas") else None
    width_px = size[1] if size else _CANVAS_PX
    return max(int((width_px - _MARGIN_PX) / (_LETTER * font_size)), _FEWEST)


def _overlay(viewer: Any, name: str) -> Any:
    """Return napari's text or scale bar over the picture; before 0.9 they had another place."""
    if hasattr(viewer, "canvas"):
        return getattr(viewer.canvas.overlays, name)
    return {"text": viewer.text_overlay, "scale_bar": viewer.scale_bar}[name]


def _timer(call: Any) -> Any:
    """Return a running timer of Qt's thread; None where there is no application."""
    from qtpy.QtCore import QThread, QTimer
    from qtpy.QtWidgets import QApplication

    application = QApplication.instance()
    if application is None:
        return None
    if QThread.currentThread() is not application.thread():
        raise ConfigError("Live layers belong to Qt's own thread: make them where the window was.")
    timer = QTimer(application)
    timer.timeout.connect(call)
    timer.start(_PERIOD_MS)
    return timer
