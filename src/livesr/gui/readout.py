"""What a run says of itself: numbers, frame quality, warnings, and the runs before.

Owns the words. Shows; changes nothing.
"""

from __future__ import annotations

from collections.abc import Sequence

from livesr.base.frames import MulticolorFrame, SRFrame
from livesr.base.quality import Quality
from livesr.gui.qt import QtCore, QtWidgets
from livesr.live.run_state import Report, Status

_BAD, _DUBIOUS, _GOOD = "#e5534b", "#d29922", "#3fb950"
_COLORS = {Quality.GOOD: _GOOD, Quality.CHECK: _DUBIOUS, Quality.DO_NOT_USE: _BAD}
_REASONS = 2  # of a prediction's judgement; the warnings below have all of them
_LITTLE_BYTES = 5e9  # of a disk that is nearly full
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
        self._told: dict[str, tuple[str, str]] = {}
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
        values = {
            "raw": (f"{status.get('raw_frames', 0):,}", ""),
            "missing": _counted(status.get("raw_missing", 0), _BAD),
            "measured": (f"{status.get('recon_frames', 0):,}", ""),
            "separated": (f"{status.get('sr_frames', 0):,}" if separated else "–", ""),
            "skipped": _counted(status.get("sr_skipped", 0), _DUBIOUS) if separated else ("–", ""),
            "rate": (f"{status.get('sr_fps', 0.0):.1f}" if separated else "–", ""),
            "latency": ("–" if latency_ms is None else f"{latency_ms:.0f} ms", ""),
            "disk": ("–", "") if free is None else _free(free),
        }
        for key, (text, color) in values.items():
            if self._told.get(key) != (text, color):
                self._told[key] = (text, color)
                # in the text, for what has no colour of its own has that of the window around: Qt
                # 6.9 forgets it where the sheet of a label is emptied
                marked = f'<b style="color:{color}">{text}</b>' if color else text
                self._values[key].setText(marked)

    def text(self, key: str) -> str:
        """Return what stands beside "raw", "missing", "measured", "separated", "skipped" ..."""
        return self._told[key][0] if key in self._told else str(self._values[key].text())


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


def quality_words(frame: SRFrame | None, prediction: MulticolorFrame | None) -> tuple[str, str]:
    """Return what the newest frames are worth in a few words, and their colour."""
    if frame is None:
        return "", ""
    quality, words, color = frame.quality, [], _GOOD
    if quality and quality.doubt:
        words.append(f"Doubtful: {quality.doubt}")
        color = _BAD
    if quality and quality.patterns:
        modulation, noise = quality.patterns.modulation, quality.patterns.contrast_to_noise
        words.append(
            f"Patterns: modulation {100 * modulation:.0f} %, contrast to noise {noise:.0f}"
        )
    if frame.saturated:
        words.append(f"{frame.saturated:,} saturated pixels")
        color = _BAD
    if prediction is not None:
        judged = f"Prediction: {prediction.quality}, residual {100 * prediction.residual:.1f} %"
        words += [judged, *prediction.judgement.reasons[:_REASONS]]
        if color == _GOOD:
            color = _COLORS[prediction.quality]
    return "\n".join(words) or "No doubt", color


def report_words(report: Report) -> str:
    """Return one line about a run that is over."""
    words = [f"{report.get('raw_frames', 0):,} raw frames"]
    words.append(f"{report.get('raw_missing', 0):,} missing")
    words.append(f"{report.get('recon_frames', 0):,} measured")
    if report.get("engine"):
        words.append(f"{report.get('sr_frames', 0):,} separated")
        words.append(f"{report.get('sr_skipped', 0):,} skipped")
    return ", ".join(words)


def _counted(n: int, color: str) -> tuple[str, str]:
    return f"{n:,}", color if n else ""


def _free(n_bytes: float) -> tuple[str, str]:
    return f"{n_bytes / 1e9:.0f} GB", _BAD if n_bytes < _LITTLE_BYTES else ""
