"""What a run says of itself: numbers, frame quality, warnings, and the runs before.

Owns the words. Shows; changes nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from livesr.base.frames import SRFrame
from livesr.gui.qt import QtCore, QtWidgets
from livesr.live.run_state import Report, Status

_BAD, _GOOD = "#e5534b", "#3fb950"
_WARNING = "background: #f0a830; color: #1b1200; padding: 5px 9px; border-radius: 4px;"
_ERROR = "background: #7d1f1a; color: #ffffff; padding: 5px 9px; border-radius: 4px;"
_NUMBERS = (
    ("raw", "Raw frames", "Exposures that came in this run."),
    ("missing", "Missing", "Exposures that the camera took and that never came."),
    ("measured", "Measured", "Reconstructed frames."),
    ("separated", "Separated", "Predictions that are final."),
    ("skipped", "Skipped", "Time points without a prediction: the network is slower."),
    ("rate", "SR frames/s", "Predictions a second since the run began."),
    ("latency", "Latency", "Median age of what a prediction shows, when it was ready."),
    ("disk", "Disk free", "Where the store is."),
)


class Numbers(QtWidgets.QWidget):
    """The counts of the run in progress, or of the last one."""

    def __init__(self, parent: QtWidgets.QWidget | None = None) -> None:
        super().__init__(parent)
        self._values: dict[str, QtWidgets.QLabel] = {}
        grid = QtWidgets.QGridLayout(self)
        grid.setContentsMargins(0, 0, 0, 0)
        grid.setHorizontalSpacing(10)
        for n, (key, title, tip) in enumerate(_NUMBERS):
            name, value = QtWidgets.QLabel(title), QtWidgets.QLabel("–")
            name.setEnabled(False)  # as the program's style draws what is beside the point
            value.setAlignment(QtCore.Qt.AlignmentFlag.AlignRight)
            for label in (name, value):
                label.setToolTip(tip)
            row, column = divmod(n, 2)
            grid.addWidget(name, row, 3 * column)
            grid.addWidget(value, row, 3 * column + 1)
            self._values[key] = value
        grid.setColumnStretch(1, 1)
        grid.setColumnStretch(4, 1)
        grid.setColumnMinimumWidth(2, 12)

    def show_status(self, status: Status | Report) -> None:
        """Show what a run says; numbers that nobody may overlook are red."""
        separated = bool(status.get("engine"))
        latency_ms = (status.get("latency_ms") or {}).get("p50")
        free = status.get("disk_free_bytes")
        values: dict[str, tuple[str, bool]] = {
            "raw": (f"{status.get('raw_frames', 0):,}", False),
            "missing": _count(status.get("raw_missing", 0)),
            "measured": (f"{status.get('recon_frames', 0):,}", False),
            "separated": (f"{status.get('sr_frames', 0):,}" if separated else "–", False),
            "skipped": _count(status.get("sr_skipped", 0)) if separated else ("–", False),
            "rate": (f"{status.get('sr_fps', 0.0):.1f}" if separated else "–", False),
            "latency": ("–" if latency_ms is None else f"{latency_ms:.0f} ms", False),
            "disk": ("–" if free is None else f"{free / 1e9:.0f} GB", free is not None and free < 2e9),
        }
        for key, (text, bad) in values.items():
            self._values[key].setText(text)
            self._values[key].setStyleSheet(f"color: {_BAD}; font-weight: 600;" if bad else "")

    def text(self, key: str) -> str:
        """Return what stands beside "raw", "missing", "measured", "separated", "skipped" ..."""
        return self._values[key].text()


class Sentences(QtWidgets.QLabel):
    """Warnings, or an error: each a sentence, in a box that is not there without any."""

    def __init__(self, *, error: bool, parent: QtWidgets.QWidget | None = None) -> None:
        super().__init__(parent)
        self.setWordWrap(True)
        self.setTextFormat(QtCore.Qt.TextFormat.PlainText)
        flags = QtCore.Qt.TextInteractionFlag
        self.setTextInteractionFlags(flags.TextSelectableByMouse)
        self.setStyleSheet(_ERROR if error else _WARNING)
        self.hide()

    def say(self, sentences: Sequence[str]) -> None:
        """Show the sentences, each once."""
        text = "\n".join(dict.fromkeys(s for s in sentences if s))
        if text != self.text():
            self.setText(text)
        self.setVisible(bool(text))


def quality_words(frame: SRFrame | None) -> tuple[str, str]:
    """Return what the newest measurement is worth in a few words, and their colour."""
    if frame is None:
        return "–", ""
    words: list[str] = []
    quality = frame.quality
    if quality and quality.patterns:
        patterns = quality.patterns
        words.append(
            f"modulation {100 * patterns.modulation:.0f} %,"
            f" contrast to noise {patterns.contrast_to_noise:.1f}"
        )
    if frame.saturated:
        words.append(f"{frame.saturated:,} saturated pixels")
    if quality and quality.doubt:
        return "; ".join([f"doubtful: {quality.doubt}", *words]), _BAD
    return "; ".join(words) or "no doubt", _BAD if frame.saturated else _GOOD


def report_words(report: Report) -> str:
    """Return one line about a run that is over."""
    words = [f"{report.get('raw_frames', 0):,} raw frames"]
    words.append(f"{report.get('raw_missing', 0):,} missing")
    words.append(f"{report.get('recon_frames', 0):,} measured")
    if report.get("engine"):
        words.append(f"{report.get('sr_frames', 0):,} separated")
        words.append(f"{report.get('sr_skipped', 0):,} skipped")
    return ", ".join(words)


def _count(n: Any) -> tuple[str, bool]:
    return f"{n:,}", n > 0
