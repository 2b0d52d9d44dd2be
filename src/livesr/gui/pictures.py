"""A picture under a badge that says what it shows: camera, measurement or prediction.

Owns how pixels become a Qt image, and the scale bar. Knows no run.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from livesr.base.frames import MulticolorFrame, Pixels, SRFrame
from livesr.gui.qt import QtCore, QtGui, QtWidgets
from livesr.viewer.composite import (
    DEFAULT_COLORS,
    ChannelView,
    Compositor,
    auto_window,
    length_text,
    scale_bar_um,
)

Kind = Literal["camera", "measurement", "prediction"]
Legend = tuple[tuple[str, str], ...]
"""Structures and their colours, "RRGGBB"."""

_INK, _FAINT, _GROUND = "#e9edf2", "#98a2ae", "#0b0e13"
BADGES: dict[Kind, tuple[str, str, str]] = {
    "camera": ("Camera", "#c9d1d9", "solid"),
    "measurement": ("Measurement", "#56b4e9", "solid"),
    "prediction": ("Prediction (AI)", "#f0a830", "dashed"),
}
_WAITING: dict[Kind, str] = {
    "camera": "no exposure yet",
    "measurement": "no frame yet",
    "prediction": "no prediction yet",
}
_WINDOW_S = 1.0  # how long a display window is kept: one that follows every frame flickers


class Picture(QtWidgets.QFrame):
    """One picture, as large as there is room, with a badge, a line of facts and a scale bar.

    Parameters
    ----------
    kind : what it shows; it never shows anything else
    """

    def __init__(self, kind: Kind, parent: QtWidgets.QWidget | None = None) -> None:
        super().__init__(parent)
        self.kind: Kind = kind
        self.shown = 0
        self._window = _HeldWindow()
        self._compositor: Compositor | None = None
        text, color, border = BADGES[kind]
        self._badge = QtWidgets.QLabel(text)
        self._badge.setStyleSheet(
            f"color: {color}; border: 1px {border} {color}; border-radius: 4px; padding: 1px 7px;"
            " font-weight: 600; background: transparent;"
        )
        self._facts = QtWidgets.QLabel()
        self._facts.setStyleSheet(f"color: {_FAINT}; border: none; background: transparent;")
        self._facts.setAlignment(QtCore.Qt.AlignmentFlag.AlignRight)
        policies = QtWidgets.QSizePolicy.Policy
        self._facts.setSizePolicy(policies.Ignored, policies.Preferred)  # no reason to be wider
        self._widest = 0
        self._canvas = _Canvas(_WAITING[kind])
        head = self._head = QtWidgets.QBoxLayout(QtWidgets.QBoxLayout.Direction.LeftToRight)
        head.addWidget(self._badge, alignment=QtCore.Qt.AlignmentFlag.AlignLeft)
        head.addWidget(self._facts, stretch=1)
        layout = QtWidgets.QVBoxLayout(self)
        layout.setContentsMargins(8, 6, 8, 8)
        layout.setSpacing(6)
        layout.addLayout(head)
        layout.addWidget(self._canvas, stretch=1)
        self.setObjectName("picture")
        edge = f"1px {border} {color}" if kind == "prediction" else "1px solid #2a313a"
        self.setStyleSheet(
            f"QFrame#picture {{ background: {_GROUND}; border: {edge}; border-radius: 6px; }}"
        )

    def show_camera(self, pixels: Pixels, pixel_um: float) -> None:
        """Show an exposure, (y, x) in ADU."""
        self._show(_grey(pixels, self._window.of(pixels)), pixel_um)
        self._tell(f"{int(pixels.min())} to {int(pixels.max())} ADU")

    def show_measurement(self, frame: SRFrame, pixel_um: float) -> None:
        """Show a reconstruction."""
        self._show(_grey(frame.image, self._window.of(frame.image)), pixel_um)
        self._tell(f"t {frame.t}")

    def show_prediction(
        self, frame: MulticolorFrame, colors: Sequence[str], pixel_um: float
    ) -> None:
        """Show the structures of a separated frame in their colours."""
        shape = frame.channels.shape[1:]
        if self._compositor is None or self._compositor.shape != shape:
            self._compositor = Compositor(shape)
        colors = [
            colors[n] if n < len(colors) else DEFAULT_COLORS.get(label.lower(), "FFFFFF")
            for n, label in enumerate(frame.labels)
        ]
        views = [
            ChannelView(color, window) for color, window in zip(colors, frame.display, strict=True)
        ]
        legend = tuple(zip(frame.labels, colors, strict=True))
        self._show(self._compositor.render(frame.channels, views), pixel_um, legend)
        self._tell(f"{'provisional, ' if frame.provisional else ''}t {frame.t}")

    def clear(self) -> None:
        """Show nothing, as before the first frame."""
        self._canvas.show_picture(None, 0.0)
        self._tell("")
        self._window = _HeldWindow()

    def resizeEvent(self, event: Any) -> None:  # noqa: N802 - Qt's name
        """Put the facts beside the badge, or below it."""
        self._widest = 0
        self._tell(self._facts.text())
        super().resizeEvent(event)

    def _tell(self, facts: str) -> None:
        """Show the facts whole: half a number is another number.

        Once below the badge they stay there, for a picture that moves up and down cannot be seen.
        """
        self._facts.setText(facts)
        self._widest = max(self._widest, self._facts.sizeHint().width())
        margins = self.layout().contentsMargins()
        room = self.width() - margins.left() - margins.right() - self._head.spacing()
        fits = self._widest + self._badge.sizeHint().width() <= room
        directions = QtWidgets.QBoxLayout.Direction
        self._head.setDirection(directions.LeftToRight if fits else directions.TopToBottom)

    def _show(self, picture: NDArray[np.uint8], pixel_um: float, legend: Legend = ()) -> None:
        self._canvas.show_picture(picture, pixel_um, legend)
        self.shown += 1


class _HeldWindow:
    """(low, high) of pictures that follow each other; a new one once a second."""

    def __init__(self) -> None:
        self._window: tuple[float, float] | None = None
        self._until_s = 0.0

    def of(self, image: NDArray[Any]) -> tuple[float, float]:
        now_s = time.monotonic()
        if self._window is None or now_s > self._until_s:
            self._window, self._until_s = auto_window(image), now_s + _WINDOW_S
        return self._window


def _grey(image: NDArray[Any], window: tuple[float, float]) -> NDArray[np.uint8]:
    low, high = window
    scaled: NDArray[np.float32] = image.astype(np.float32)
    scaled -= low
    scaled *= 255 / max(high - low, 1e-6)
    np.clip(scaled, 0, 255, out=scaled)
    return scaled.astype(np.uint8)


class _Canvas(QtWidgets.QWidget):
    """The pixels, fitted, with a scale bar in the corner."""

    def __init__(self, waiting: str) -> None:
        super().__init__()
        self._waiting = waiting
        self._image: QtGui.QImage | None = None
        self._pixels: NDArray[np.uint8] | None = None  # what the image looks into
        self._pixel_um, self._legend = 0.0, Legend()
        self.setMinimumSize(90, 90)
        expanding = QtWidgets.QSizePolicy.Policy.Expanding
        self.setSizePolicy(expanding, expanding)

    def sizeHint(self) -> QtCore.QSize:  # noqa: N802 - Qt's name
        return QtCore.QSize(320, 320)

    def show_picture(
        self, picture: NDArray[np.uint8] | None, pixel_um: float, legend: Legend = ()
    ) -> None:
        self._pixels = None if picture is None else np.ascontiguousarray(picture)
        self._pixel_um, self._legend = pixel_um, legend
        if self._pixels is None:
            self._image = None
        else:
            height, width = self._pixels.shape[:2]
            form = QtGui.QImage.Format
            grey = self._pixels.ndim == 2
            self._image = QtGui.QImage(
                self._pixels.data,
                width,
                height,
                self._pixels.strides[0],
                form.Format_Grayscale8 if grey else form.Format_RGB888,
            )
        self.update()

    def paintEvent(self, event: Any) -> None:  # noqa: N802 - Qt's name
        painter = QtGui.QPainter(self)
        if self._image is None:
            painter.setPen(QtGui.QColor(_FAINT))
            painter.drawText(self.rect(), QtCore.Qt.AlignmentFlag.AlignCenter, self._waiting)
            painter.end()
            return
        painter.setRenderHint(QtGui.QPainter.RenderHint.SmoothPixmapTransform)
        size = self._image.size().scaled(self.size(), QtCore.Qt.AspectRatioMode.KeepAspectRatio)
        place = QtCore.QRect(QtCore.QPoint(0, 0), size)
        place.moveCenter(self.rect().center())
        painter.drawImage(place, self._image)
        if self._pixel_um > 0:
            self._draw_scale_bar(painter, place)
        self._draw_legend(painter, place)
        painter.end()

    def _draw_scale_bar(self, painter: QtGui.QPainter, place: QtCore.QRect) -> None:
        assert self._image is not None
        width_um = self._image.width() * self._pixel_um
        length_um = scale_bar_um(width_um)
        length_px = round(length_um / width_um * place.width())
        right, bottom = place.right() - 10, place.bottom() - 10
        bar = QtCore.QRect(right - length_px, bottom - 4, length_px, 4)
        text = QtCore.QRect(bar.left() - 40, bar.top() - 20, length_px + 80, 18)
        painter.fillRect(bar.translated(1, 1), QtGui.QColor("#000000"))
        painter.fillRect(bar, QtGui.QColor(_INK))
        centre = QtCore.Qt.AlignmentFlag.AlignCenter
        _draw_text(painter, text, centre, length_text(length_um), _INK)

    def _draw_legend(self, painter: QtGui.QPainter, place: QtCore.QRect) -> None:
        metrics = painter.fontMetrics()
        height = metrics.height() + 1
        if not self._legend or len(self._legend) * height > place.height() / 2:
            return  # a picture comes before its legend
        width = max(metrics.horizontalAdvance(label) for label, _ in self._legend)
        ground = QtCore.QRect(0, 0, width + 12, len(self._legend) * height + 6)
        ground.moveTopLeft(place.topLeft() + QtCore.QPoint(5, 5))
        painter.fillRect(ground, QtGui.QColor(0, 0, 0, 150))
        left = QtCore.Qt.AlignmentFlag.AlignLeft | QtCore.Qt.AlignmentFlag.AlignVCenter
        for n, (label, color) in enumerate(self._legend):
            row = QtCore.QRect(ground.left() + 6, ground.top() + 3 + n * height, width + 6, height)
            _draw_text(painter, row, left, label, f"#{color}")


def _draw_text(
    painter: QtGui.QPainter, place: QtCore.QRect, flags: Any, text: str, color: str
) -> None:
    """Write with a shadow, for bright ground."""
    for offset, ink in ((1, "#000000"), (0, color)):
        painter.setPen(QtGui.QColor(ink))
        painter.drawText(place.translated(offset, offset), flags, text)


class Tiles(QtWidgets.QWidget):
    """Pictures side by side, below each other or both, as they become largest.

    Parameters
    ----------
    pictures : in reading order; hidden ones take no place
    """

    _GAP = 6
    _HEAD = 44  # height of a picture's badge and margins

    def __init__(
        self, pictures: Sequence[Picture], parent: QtWidgets.QWidget | None = None
    ) -> None:
        super().__init__(parent)
        self._pictures = tuple(pictures)
        for picture in self._pictures:
            picture.setParent(self)
        expanding = QtWidgets.QSizePolicy.Policy.Expanding
        self.setSizePolicy(expanding, expanding)
        self.setMinimumSize(180, 180)

    def sizeHint(self) -> QtCore.QSize:  # noqa: N802 - Qt's name
        """Three pictures in a row."""
        return QtCore.QSize(900, 360)

    def resizeEvent(self, event: Any) -> None:  # noqa: N802 - Qt's name
        """Arrange them anew."""
        self.arrange()

    def arrange(self) -> None:
        """Give every picture that is not hidden its place."""
        shown = [picture for picture in self._pictures if not picture.isHidden()]
        if not shown:
            return
        columns = max(range(1, len(shown) + 1), key=lambda n: self._side(n, len(shown)))
        rows = -(-len(shown) // columns)
        width = (self.width() - self._GAP * (columns - 1)) // columns
        height = (self.height() - self._GAP * (rows - 1)) // rows
        for n, picture in enumerate(shown):
            row, column = divmod(n, columns)
            x, y = column * (width + self._GAP), row * (height + self._GAP)
            picture.setGeometry(x, y, width, height)

    def _side(self, columns: int, n: int) -> float:
        """Return how large a square picture is in so many columns."""
        rows = -(-n // columns)
        return float(min(self.width() / columns, self.height() / rows - self._HEAD))
