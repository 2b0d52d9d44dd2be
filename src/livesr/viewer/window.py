"""The live preview on the desktop.

Ndv in a Qt widget that docks into pymmcore-gui or any other Qt program.

Owns two ndv viewers, measurement and prediction, and the timer that gives them the newest pair.
Needs the extra `viewer`; all of Qt and ndv is imported here and nowhere else.
"""

from __future__ import annotations

import os
import signal
import sys
from contextlib import suppress
from typing import Any

import numpy as np
from numpy.typing import NDArray

from livesr.base.errors import ConfigError
from livesr.formats.wire import Message
from livesr.viewer.composite import auto_window, length_text, scale_bar_um
from livesr.viewer.frame_pairs import (
    FramePair,
    FramePairSource,
    LiveFramePairs,
    Selection,
    intensity,
)
from livesr.viewer.icons import use_own_icons
from livesr.viewer.subscriber import Subscriber

try:
    use_own_icons()
    import cmap
    import ndv
    from ndv.models import ClimsManual
    from qtpy.QtCore import QElapsedTimer, Qt, QTimer, Signal
    from qtpy.QtWidgets import (
        QApplication,
        QHBoxLayout,
        QLabel,
        QSlider,
        QSplitter,
        QVBoxLayout,
        QWidget,
    )
except ImportError as e:
    raise ConfigError(
        f"The desktop window cannot be opened ({e}): pip install 'livesr[viewer]', or leave out"
        " --window for the browser."
    ) from e

_PERIOD_MS = 25
_NO_BAR = (
    "There is no scale bar: ndv {version} does not tell what of a picture is visible. ndv 0.5 does,"
    " and so does the preview in a browser."
)
_BADGES = {
    "prediction": ("Prediction (AI)", "#f0a830", "dashed"),
    "measurement": ("Measurement", "#56b4e9", "solid"),
}
_STATES = {
    "waiting": "Waiting for a stream",
    "starting": "Waiting for the first picture",
    "live": "Live",
    "recorded": "Recorded",
    "silent": "The stream has gone silent: this is its last picture",
    "ended": "Stream ended: this is its last picture",
}


class SRPreview(QWidget):
    """Measurement and prediction side by side, always the newest of a stream, or a store to scrub
    through.

    Parameters
    ----------
    source : address that a run publishes on, or pairs (`LiveFramePairs`, `StoreSource`) that stay
        the caller's
    parent : Qt parent

    Notes
    -----
    It looks at the stream from Qt's own thread and draws the newest frame there is then; a slow
    screen skips frames and the run does not notice. Closing it ends the subscription; so does
    destroying its parent.

    Attributes
    ----------
    shown : pairs drawn so far
    """

    _newer = Signal()

    def __init__(
        self, source: str | FramePairSource = "tcp://127.0.0.1:5555", parent: QWidget | None = None
    ) -> None:
        super().__init__(parent)
        self._subscriber: Subscriber | None = None
        if isinstance(source, str):
            self._subscriber = Subscriber(source)
            self._subscriber.open()
            self.destroyed.connect(self._subscriber.close)
            source = LiveFramePairs(self._subscriber)
        self._pairs = source
        self._seen = -1
        self.shown = 0
        self._prediction, self._measurement = _Picture("prediction"), _Picture("measurement")
        self._state, self._warnings = QLabel(), QLabel()
        self._warnings.setWordWrap(True)
        self._warnings.setStyleSheet(
            "background: #f0a830; color: #1b1200; padding: 3px 9px; border-radius: 4px;"
        )
        self._slider = QSlider(Qt.Orientation.Horizontal)
        self._lay_out()
        self._timer = QTimer(self, interval=_PERIOD_MS)
        self._timer.timeout.connect(self.refresh)
        self._timer.start()
        self._rest = QElapsedTimer()
        self._newer.connect(self._at_once, Qt.ConnectionType.QueuedConnection)
        self._unlisten = source.listen(self._heard)
        self.refresh()

    def _heard(self) -> None:
        """Have `_at_once` called in Qt's thread; in any thread."""
        with suppress(RuntimeError):  # Qt has just destroyed this window
            self._newer.emit()

    def _at_once(self) -> None:
        """Show what is newer, unless the window has drawn just now and has to do other things: then
        the timer will.
        """
        if self._rest.elapsed() >= _PERIOD_MS:
            self.refresh()

    def _lay_out(self) -> None:
        pictures = QSplitter(Qt.Orientation.Horizontal)
        for picture in (self._measurement, self._prediction):
            pictures.addWidget(picture)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(4, 4, 4, 4)
        for widget in (self._warnings, pictures, self._slider, self._state):
            layout.addWidget(widget, stretch=1 if widget is pictures else 0)
        length = self._pairs.length
        self._slider.setVisible(length is not None)
        self._slider.setMaximum(max((length or 1) - 1, 0))
        self._slider.valueChanged.connect(lambda _: self.refresh())

    def refresh(self) -> None:
        """Show the newest pair, if it is another one; called when there is, and by a timer."""
        for picture in (self._measurement, self._prediction):
            picture.place_scale_bar()
        seen = hash((self._pairs.version, self._slider.value(), self._pairs.state))
        if seen == self._seen:
            return
        self._seen = seen
        pair = self._pairs.pair(Selection(), self._slider.value())
        self._measurement.show_message(pair.measurement if pair else None)
        self._prediction.show_message(pair.prediction if pair else None)
        self.shown += pair is not None
        self._say(pair)
        self._rest.start()

    def closeEvent(self, event: Any) -> None:  # noqa: N802 - Qt's name
        """Stop looking at the stream."""
        self._timer.stop()
        self._unlisten()
        if self._subscriber:
            self._subscriber.close()
        super().closeEvent(event)

    def _say(self, pair: FramePair | None) -> None:
        status = self._pairs.status
        words = [_STATES.get(self._pairs.state, self._pairs.state)]
        if isinstance(fps := status.get("sr_fps"), int | float):
            words.append(f"{fps:.1f} SR frames/s")
        warnings = [str(w) for w in status.get("warnings") or ()]
        if pair is not None:
            header = pair.shown.header
            words.append(f"t {header.t}")
            if header.latency_ms is not None:
                words.append(f"latency {header.latency_ms:.0f} ms")
            if header.residual is not None:
                words.append(f"residual {100 * header.residual:.1f} %")
            if pair.prediction and pair.prediction.quality:
                words.append(str(pair.prediction.quality))
            warnings += [w for message in pair.messages for w in message.header.warnings]
        warnings += [p.lacks for p in (self._measurement, self._prediction) if p.lacks]
        if self._pairs.problem:
            warnings.append(self._pairs.problem)
        self._state.setText("   ".join(words))
        self._warnings.setText("\n".join(dict.fromkeys(warnings)))
        self._warnings.setTextFormat(Qt.TextFormat.PlainText)
        self._warnings.setVisible(bool(warnings))


class _Picture(QWidget):
    """One ndv viewer under a badge that says what it shows.

    `lacks` is a sentence about what this version of ndv leaves out, "" where that is nothing.
    """

    def __init__(self, kind: str) -> None:
        super().__init__()
        text, color, border = _BADGES[kind]
        self._kind, self._text = kind, text
        self._badge = QLabel(text)
        style = (
            f"color: {color}; background: #111; border: 1.5px {border} {color}; border-radius: 4px;"
            " padding: 1px 8px;"
        )
        self._badge.setStyleSheet(f"{style} font-weight: 600;")
        self._viewer: Any = None
        self._frame: _Frame | None = None
        self._described: tuple[Any, ...] = ()
        self._windows: list[tuple[float, float]] = []
        self._bar: _ScaleBar | None = None
        self.lacks = ""
        head = QHBoxLayout()
        head.addWidget(self._badge)
        head.addStretch()
        self._layout = QVBoxLayout(self)
        self._layout.setContentsMargins(0, 0, 0, 0)
        self._layout.addLayout(head)
        self.setVisible(False)

    def show_message(self, message: Message | None) -> None:
        """Show a message; without one the picture is not there."""
        self.setVisible(message is not None)
        if message is None or message.pixels is None:
            return
        header = message.header
        described = (header.shape, header.dtype, tuple((c.label, c.color) for c in header.channels))
        values = intensity(message)
        if described != self._described:
            self._described = described
            self._start(message, values)
        assert self._frame is not None
        self._frame.show_pixels(values)
        self._follow_windows(message, values)
        said = [self._text, *(["provisional"] if header.provisional else [])]
        said += [str(message.quality)] if message.quality else []
        self._badge.setText(" · ".join(said))

    def place_scale_bar(self) -> None:
        """Let the bar follow what was zoomed, or the size of the window."""
        if self._bar is not None and self.isVisible():
            self._bar.place()

    def _start(self, message: Message, values: NDArray[np.float32]) -> None:
        """Make or re-make the viewer for pictures of this form."""
        header = message.header
        self._frame = _Frame(message, values)
        model: dict[str, Any] = {
            "channel_mode": "grayscale",
            "default_lut": {"cmap": "gray", "name": "measurement"},
        }
        if self._kind == "prediction":
            luts = {
                n: {
                    "name": c.label,
                    # ndv would call it "custom colormap", for which there is no room
                    "cmap": cmap.Colormap(["#000000", f"#{c.color}"], name=f"#{c.color}"),
                }
                for n, c in enumerate(header.channels)
            }
            model = {"channel_mode": "composite", "channel_axis": 0, "luts": luts}
        viewer = ndv.ArrayViewer(self._frame, **model)
        if self._viewer is not None:
            self._layout.removeWidget(self._viewer.widget())
            self._viewer.widget().deleteLater()
        self._viewer, self._windows = viewer, []
        self._layout.addWidget(viewer.widget(), stretch=1)
        canvas = _canvas_of(viewer)
        self._bar = _ScaleBar(canvas, header.pixel_size_um) if canvas else None
        self.lacks = "" if canvas else _NO_BAR.format(version=getattr(ndv, "__version__", "this"))

    def _follow_windows(self, message: Message, values: NDArray[np.float32]) -> None:
        """Take over the run's display windows, until the user has set one."""
        model = self._viewer.display_model
        luts = (
            [model.default_lut]
            if self._kind == "measurement"
            else [model.luts[n] for n in range(len(values))]
        )
        planes = values[None] if values.ndim == 2 else values
        offset, channels = message.header.offset_adu, message.header.channels
        for n, (lut, plane) in enumerate(zip(luts, planes, strict=True)):
            named = channels[n].window if n < len(channels) else None
            low, high = [w - offset for w in named] if named else auto_window(plane)
            _widen(lut, (low, high), plane)
            if n < len(self._windows) and not _is_at(lut.clims, self._windows[n]):
                continue
            self._windows[n : n + 1] = [(low, high)]
            lut.clims = ClimsManual(min=low, max=high)


class _ScaleBar(QLabel):
    """A bar of round length over the lower right corner of a canvas of ndv."""

    def __init__(self, canvas: Any, pixel_size_um: float | None) -> None:
        super().__init__(canvas.frontend_widget())
        self._canvas, self._pixel_size_um = canvas, pixel_size_um
        self._placed: tuple[float, ...] = ()
        self.setAlignment(Qt.AlignmentFlag.AlignHCenter)
        self.setStyleSheet(
            "color: white; background: rgba(0, 0, 0, 110); border: none;"
            " border-bottom: 3px solid white; padding: 1px 4px; font-weight: 600;"
        )
        self.setAttribute(Qt.WidgetAttribute.WA_TransparentForMouseEvents)
        self.hide()

    def place(self) -> None:
        """Draw the bar for what is visible, where that has changed."""
        around = self._canvas.frontend_widget()
        width, height = around.width(), around.height()
        left, right = (self._canvas.canvas_to_world((x, 0))[0] for x in (0, width))
        um = float(right - left) * (self._pixel_size_um or 0)
        if self._placed == (um, width, height):
            return
        self._placed = um, width, height
        self.setVisible(um > 0)
        if um > 0:
            length_um = scale_bar_um(um)
            self.setText(length_text(length_um))
            self.setFixedWidth(max(round(length_um / um * width), 1))
            self.adjustSize()
            self.move(width - self.width() - 14, height - self.height() - 12)


class _Frame(ndv.DataWrapper):
    """The newest pixels as ndv asks for them, in ADU."""

    def __init__(self, message: Message, values: NDArray[np.float32]) -> None:
        super().__init__(values)
        height, width = message.header.shape[-2:]
        size_um = message.header.pixel_size_um
        self._summary = f"{width} x {height}" + (
            f", {size_um * 1e3:.1f} nm per pixel" if size_um else ""
        )

    def summary_info(self) -> str:
        """Say what the pixels are."""
        return self._summary

    @classmethod
    def supports(cls, obj: Any) -> bool:
        """Never: it is made, not found."""
        return False

    @property
    def dims(self) -> tuple[str, ...]:
        """Names of the axes."""
        return ("c", "y", "x")[-self._data.ndim :]

    @property
    def coords(self) -> dict[str, range]:
        """Pixels along each axis."""
        return {name: range(size) for name, size in zip(self.dims, self._data.shape, strict=True)}

    def show_pixels(self, pixels: NDArray[np.float32]) -> None:
        """Take the place of the pixels that are shown; of the same shape."""
        self._data = pixels
        self.data_changed.emit()


def _canvas_of(viewer: Any) -> Any:
    """Return the canvas of a viewer of ndv; None where a version keeps it elsewhere.

    ndv has no scale bar, and only its canvas knows what of the picture is visible. No name of it is
    public, in ndv 0.5.
    """
    canvas = getattr(viewer, "canvas", None) or getattr(viewer, "_canvas", None)
    known = all(hasattr(canvas, name) for name in ("frontend_widget", "canvas_to_world"))
    return canvas if known else None


def _widen(lut: Any, window: tuple[float, float], plane: NDArray[np.float32]) -> None:
    """Let a slider reach from the faintest to the brightest pixel that was seen, and the window."""
    low, high = min(window[0], float(plane.min())), max(window[1], float(plane.max()))
    before = lut.clim_bounds
    if before != (None, None):
        low, high = min(low, before[0]), max(high, before[1])
    if before != (low, high):
        lut.clim_bounds = (low, high)


def _is_at(clims: Any, window: tuple[float, float]) -> bool:
    return isinstance(clims, ClimsManual) and (clims.min, clims.max) == window


def show_window(pairs: FramePairSource) -> None:
    """Show a window until it is closed.

    Raises
    ------
    ConfigError
        If there is no screen.
    KeyboardInterrupt
        If Ctrl-C closed it.
    """
    if sys.platform == "linux" and not (
        os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
    ):
        raise ConfigError(
            "There is no screen to open a window on: leave out --window for the preview in a"
            " browser."
        )
    application = QApplication.instance() or QApplication([])
    preview = SRPreview(pairs)
    preview.setWindowTitle(f"livesr · {pairs.endpoint}")
    preview.resize(1400, 800)
    preview.show()
    # Qt ends the process if an exception leaves a slot: Ctrl-C must not be one. The preview's timer
    # lets Python notice it.
    previous = signal.signal(signal.SIGINT, lambda *_: application.exit(1))
    try:
        interrupted = application.exec()
    finally:
        signal.signal(signal.SIGINT, previous)
    if interrupted:
        raise KeyboardInterrupt
