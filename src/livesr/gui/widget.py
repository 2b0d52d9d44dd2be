"""`LiveSRWidget`: livesr as a widget of any Qt program with a `CMMCorePlus`.

Owns the layout, the timer that looks at a run, and what happens when the window goes. What is
looked at lies in `livesr.gui.control` and `livesr.gui.newest`; no thread but Qt's comes here.
"""

from __future__ import annotations

import logging
import math
import time
from pathlib import Path
from typing import Any

from pymmcore_plus import CMMCorePlus

from livesr.base.errors import ConfigError, LiveSRError
from livesr.base.frames import Pixels
from livesr.gui.control import Control, State
from livesr.gui.form import Form
from livesr.gui.pictures import BADGES, Picture, Tiles
from livesr.gui.qt import QtCore, QtGui, QtWidgets
from livesr.gui.readout import Numbers, Sentences, quality_words, report_words
from livesr.live.sources.acquiring import acquires
from livesr.live.sources.continuous import camera_runs

log = logging.getLogger(__name__)

_PERIOD_MS = 40
_STATES: dict[State, tuple[str, str]] = {
    "idle": ("Off", "#6e7681"),
    "opening": ("Opening: the engine is being compiled", "#d29922"),
    "ready": ("Ready: what you acquire now is recorded", "#3fb950"),
    "acquiring": ("Recording", "#e5534b"),
    "finishing": ("Finishing: what came is being processed and stored", "#d29922"),
}
_OVERLOOKS = {
    "acquisition": "NOT recorded: this acquisition began before livesr was ready; the next one is",
    "live view": "NOT recorded: the live view runs without livesr; stop it, and start it again",
}
_WIDE = 1.15  # width over height from which the pictures stand beside the form
_PANEL_PX = 330
_UNLIMITED = 16_777_215  # Qt's own largest
_STATE_S = 0.2  # the state is looked at so often, also where drawing leaves no time for more
_SHOWN_RUNS = 3
_ACCENT = (
    "QPushButton:enabled {{ background: {color}; color: white; font-weight: 600;"
    " border: none; border-radius: 4px; padding: 6px; }}"
    " QPushButton:!enabled {{ padding: 6px; }}"
)


class LiveSRWidget(QtWidgets.QWidget):
    """Chooses, starts, shows and stops livesr on a core.

    Between Start and Stop, every acquisition of the program on this core is recorded: its MDA, its
    live view, and those of this widget's own buttons.

    Parameters
    ----------
    core : the core that the program acquires with; None takes `CMMCorePlus.instance()`
    parent : Qt parent

    Attributes
    ----------
    camera_frame : Qt signal with the exposure that livesr took last, (y, x) in ADU; as often as the
        widget looks, in Qt's thread
    control : the session behind it: its `state`, `problem` and `reports`
    form : what is chosen; `form.choose(rig=..., store=...)` fills it in
    start_button, stop_button, live_button, acquire_button, frames : what a person presses and turns

    Notes
    -----
    The acquisition waits for nothing here: the widget looks 25 times a second at what came last.
    When its window is closed, or the program ends, the run ends and its store is closed; the
    program ends when that is done.

    Raises
    ------
    ConfigError
        On import, if there is no Qt.
    """

    camera_frame = QtCore.Signal(object)

    def __init__(
        self, core: CMMCorePlus | None = None, parent: QtWidgets.QWidget | None = None
    ) -> None:
        super().__init__(parent)
        self._core = core
        self.control = Control(self.program_core())
        self.setWindowTitle("livesr")
        self._seen, self._state_s, self._looking = -1, -math.inf, False
        self._state: State | None = None
        self._last_camera: Pixels | None = None
        self.form = Form()
        self.start_button = QtWidgets.QPushButton("Start")
        self.stop_button = QtWidgets.QPushButton("Stop")
        self.live_button = QtWidgets.QPushButton("Live")
        self.live_button.setCheckable(True)
        self.acquire_button = QtWidgets.QPushButton("Acquire")
        self.frames = QtWidgets.QSpinBox()
        self.load_button = QtWidgets.QPushButton("Load the rig's hardware")
        self.numbers = Numbers()
        self.error, self.warnings = Sentences(error=True), Sentences(error=False)
        self.state_label, self.summary = QtWidgets.QLabel(), QtWidgets.QLabel()
        self.quality_label, self.runs = QtWidgets.QLabel(), QtWidgets.QLabel()
        self.channel = QtWidgets.QComboBox()
        self.pictures = {kind: Picture(kind) for kind in BADGES}
        self._tiles = Tiles(tuple(self.pictures.values()))
        self._lay_out()
        self._connect()
        self._timer = QtCore.QTimer(self)
        self._timer.setInterval(_PERIOD_MS)
        self._timer.timeout.connect(self.look)
        self._timer.start()
        self._rig_chosen()
        self.look()

    def program_core(self) -> CMMCorePlus:
        """Return the core that the program acquires with now.

        It is asked for while no session is open; override it for a program that changes its core.
        """
        return self._core if self._core is not None else CMMCorePlus.instance()

    # -- layout ------------------------------------------------------------------------------------

    def _lay_out(self) -> None:
        self.frames.setRange(1, 1_000_000)
        self.frames.setValue(25)
        self.frames.setSuffix(" frames")
        self.frames.setToolTip("Super-resolution frames of every channel of the rig.")
        self.live_button.setToolTip("Start and stop the camera; each time is a run.")
        self.acquire_button.setToolTip("A time lapse without pauses; the program's MDA does more.")
        for label in (self.state_label, self.summary, self.quality_label, self.runs):
            label.setWordWrap(True)
            label.setTextFormat(QtCore.Qt.TextFormat.PlainText)
        self.state_label.setTextFormat(QtCore.Qt.TextFormat.RichText)
        self.start_button.setStyleSheet(_ACCENT.format(color="#238636"))
        self.stop_button.setStyleSheet(_ACCENT.format(color="#b62324"))
        self._area = self._panel()
        pictures = QtWidgets.QVBoxLayout()
        pictures.addWidget(self.channel)
        pictures.addWidget(self._tiles, stretch=1)
        self.channel.hide()
        self._box = QtWidgets.QBoxLayout(QtWidgets.QBoxLayout.Direction.TopToBottom, self)
        self._box.setContentsMargins(8, 8, 8, 8)
        self._box.addWidget(self._area)
        self._box.addLayout(pictures, stretch=1)

    def _panel(self) -> QtWidgets.QScrollArea:
        self._column = panel = QtWidgets.QWidget()
        layout = QtWidgets.QVBoxLayout(panel)
        layout.setContentsMargins(0, 0, 4, 0)
        layout.setSpacing(8)
        for widget in (self.state_label, self.summary, self.form, self.load_button):
            layout.addWidget(widget)
        layout.addLayout(_row(self.start_button, self.stop_button))
        camera = _row(self.live_button, self.acquire_button)
        camera.addWidget(self.frames)  # a number has the room that it needs
        layout.addLayout(camera)
        for widget in (self.error, self.warnings, self.numbers, self.quality_label, self.runs):
            layout.addWidget(widget)
        layout.addStretch()
        area = QtWidgets.QScrollArea()
        area.setWidget(panel)
        area.setWidgetResizable(True)
        area.setFrameShape(QtWidgets.QFrame.Shape.NoFrame)
        area.setHorizontalScrollBarPolicy(QtCore.Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        for part in (area.viewport(), panel):  # the ground is that of the window around
            part.setAutoFillBackground(False)
        return area

    def resizeEvent(self, event: Any) -> None:  # noqa: N802 - Qt's name
        """Put the pictures beside the form where there is room, else below it."""
        self._fit()
        super().resizeEvent(event)

    def _fit(self) -> None:
        wide = self.width() > _WIDE * self.height()
        directions = QtWidgets.QBoxLayout.Direction
        self._box.setDirection(directions.LeftToRight if wide else directions.TopToBottom)
        # its bar takes of its width, and what lies behind it cannot be scrolled to
        bar = self._area.verticalScrollBar()
        bar_px = bar.width() if bar.isVisible() else bar.sizeHint().width()
        panel = max(_PANEL_PX, self._column.minimumSizeHint().width() + bar_px)
        self._area.setMinimumWidth(panel)
        self._area.setMaximumWidth(panel if wide else _UNLIMITED)
        needed = self._column.layout().totalHeightForWidth(max(self.width() - 24, _PANEL_PX))
        height = min(needed, self.height() * 3 // 5)  # what does not fit is scrolled
        self._area.setMinimumHeight(0 if wide else height)
        self._area.setMaximumHeight(_UNLIMITED if wide else height)

    # -- what a person does ------------------------------------------------------------------------

    def _connect(self) -> None:
        self.start_button.clicked.connect(self._start)
        self.stop_button.clicked.connect(self.control.stop)
        self.live_button.clicked.connect(lambda: self._tried(self.control.toggle_live))
        self.acquire_button.clicked.connect(lambda: self._tried(self._acquire))
        self.load_button.clicked.connect(lambda: self._tried(self._load_hardware))
        self.form.rig_chosen.connect(self._rig_chosen)
        self.channel.currentTextChanged.connect(self._show_again)
        if application := QtWidgets.QApplication.instance():
            application.aboutToQuit.connect(self.control.close)
        self.destroyed.connect(self.control.close)

    def _start(self) -> None:
        if self.form.rig is None:
            self.control.problem = self.form.problem
            return
        if self.control.state == "idle":
            self.control.core = self.program_core()
        self._tried(lambda: self.control.start(self.form.choice()))

    def _acquire(self) -> None:
        if self.form.rig is not None:
            self.control.acquire(self.form.rig, self.frames.value())

    def _tried(self, action: Any) -> None:
        """Do it; what cannot be done is a sentence."""
        self.control.problem = ""
        try:
            action()
        except Exception as e:  # a driver may raise anything
            if not isinstance(e, LiveSRError):
                log.exception("a button of livesr's widget failed")
            self.control.problem = str(e) or type(e).__name__

    def _rig_chosen(self) -> None:
        if self.control.state == "idle":
            self.control.problem = self.form.problem

    def _is_loaded(self) -> bool:
        rig, loaded = self.form.rig, self.control.core.systemConfigurationFile()
        return bool(rig and loaded and Path(loaded).absolute() == rig.cfg_path.absolute())

    def _load_hardware(self) -> None:
        rig, core = self.form.rig, self.program_core()
        if rig is None:
            return
        if rig.core == "unicore" and not hasattr(core, "loadPyDevice"):
            raise ConfigError(
                f"The camera of rig {rig.name!r} is written in Python, and this program's core runs"
                f" none: open it with 'livesr gui --rig {self.form.rig_name.currentText()}'."
            )
        core.loadSystemConfiguration(rig.cfg_path)
        core.setExposure(rig.exposure_ms)

    # -- what is seen ------------------------------------------------------------------------------

    def look(self) -> None:
        """Show what is there now; the timer calls this."""
        if self._looking:  # a program that draws a camera frame may let Qt's events run
            return
        self._looking = True
        try:
            self._show_frames()
            self._show_camera()
            state = self.control.state
            if state != self._state or time.monotonic() - self._state_s > _STATE_S:
                self._state, self._state_s = state, time.monotonic()
                self.control.look()
                self._show_state()
        finally:
            self._looking = False

    def _show_state(self) -> None:
        control = self.control
        state = control.state
        if state == "idle":
            control.core = self.program_core()
        mda = acquires(control.core)
        text, color = _STATES[state]
        if state == "acquiring":
            text = f"Recording {'an acquisition' if mda else 'the live view'}"
            text += f" into {control.store.name}" if control.store else ", without a store"
        elif state == "ready" and (overlooked := control.overlooks):
            text, color = _OVERLOOKS[overlooked], _STATES["acquiring"][1]
        elif state == "ready" and not control.records_live:
            text = "Ready: acquisitions (MDA) are recorded, the live view is not"
        _say(self.state_label, f'<b style="color:{color}">●</b>&nbsp; <b>{text}</b>')
        idle = state == "idle"
        shown = (
            (self.form, idle),
            (self.summary, not idle),
            (self.load_button, idle and self.form.rig is not None and not self._is_loaded()),
        )
        for widget, wanted in shown:
            widget.setVisible(wanted)
        _say(self.summary, self.form.summary())
        self.start_button.setEnabled(idle)
        self.stop_button.setEnabled(state in {"opening", "ready", "acquiring"})
        self._show_camera_buttons(state, mda)
        if told := control.status or (control.reports[-1] if control.reports else None):
            self.numbers.show_status(told)
            self.warnings.say(told.get("warnings", []))
        self.numbers.setVisible(bool(told))
        self.error.say([control.problem])
        self._show_runs()
        self._fit()

    def _show_camera_buttons(self, state: State, mda: bool) -> None:
        # An MDA that snaps holds the camera's lock as long as it exposes: it is not asked then.
        core = self.control.core
        there = not mda and bool(core.getCameraDevice())
        live = there and camera_runs(core)
        usable = there and state in {"ready", "acquiring"}
        self.live_button.setEnabled(usable)
        self.live_button.setChecked(live)
        self.live_button.setText("Stop live" if live else "Live")
        self.acquire_button.setEnabled(usable and not live)
        self.frames.setEnabled(usable and not live)

    def _show_runs(self) -> None:
        reports = self.control.reports
        if not reports:
            return
        lines = [
            f"{Path(str(r['store'])).name if r.get('store') else 'not kept'}: {report_words(r)}"
            for r in reversed(reports)
        ]
        _say(self.runs, "\n".join(lines[:_SHOWN_RUNS]))
        self.runs.setToolTip("\n".join(str(r["store"]) for r in reports if r.get("store")))

    def _show_frames(self) -> None:
        newest = self.control.newest
        if newest.version == self._seen:
            return
        self._seen = newest.version
        run = newest.run
        names = [c.name for c in run.channels] if run else []
        if names != [self.channel.itemText(n) for n in range(self.channel.count())]:
            self.channel.clear()
            self.channel.addItems(names)
            self.channel.setVisible(len(names) > 1)
        name = self.channel.currentText()
        about = run.channel(name) if run and name in names else None
        measurement, prediction = newest.measurements.get(name), newest.predictions.get(name)
        if measurement is None or about is None:
            self.pictures["measurement"].clear()
        else:
            self.pictures["measurement"].show_measurement(measurement, about.recon_pixel_size_um)
        self.pictures["prediction"].setVisible(about is None or bool(about.labels))
        self._tiles.arrange()
        if prediction is None or about is None:
            self.pictures["prediction"].clear()
        else:
            self.pictures["prediction"].show_prediction(
                prediction, about.colors, about.sr_pixel_size_um
            )
        words, color = quality_words(measurement, prediction)
        _say(self.quality_label, words)
        self.quality_label.setVisible(bool(words))
        self.quality_label.setStyleSheet(f"color: {color};" if color else "")

    def _show_again(self) -> None:
        self._seen = -1

    def _show_camera(self) -> None:
        pixels = self.control.camera_pixels
        if pixels is None or pixels is self._last_camera:
            return
        self._last_camera = pixels
        run = self.control.newest.run
        pixel_um = run.channels[0].raw_pixel_size_um if run else 0.0
        self.pictures["camera"].show_camera(pixels, pixel_um)
        self.camera_frame.emit(pixels)

    # -- the end -----------------------------------------------------------------------------------

    def showEvent(self, event: QtGui.QShowEvent) -> None:  # noqa: N802 - Qt's name
        """Follow the window that it is in now."""
        self.window().installEventFilter(self)
        super().showEvent(event)

    def closeEvent(self, event: QtGui.QCloseEvent) -> None:  # noqa: N802 - Qt's name
        """End what runs, where this is a window of its own; a dock that is put away goes on."""
        if self.isWindow():
            self.shutdown()
        super().closeEvent(event)

    def eventFilter(self, watched: QtCore.QObject, event: QtCore.QEvent) -> bool:  # noqa: N802
        """End what runs when the window has closed, which it may yet refuse."""
        if event.type() == QtCore.QEvent.Type.Close and watched is self.window():
            QtCore.QTimer.singleShot(0, self._window_closed)
        return False

    def _window_closed(self) -> None:
        if not self.window().isVisible():
            self.shutdown()

    def shutdown(self) -> None:
        """End what runs; returns when the store is closed. Other windows are drawn meanwhile."""
        self.control.stop()
        while not self.control.wait(0.02):
            QtWidgets.QApplication.processEvents(
                QtCore.QEventLoop.ProcessEventsFlag.ExcludeUserInputEvents
            )


def _say(label: QtWidgets.QLabel, text: str) -> None:
    if label.text() != text:
        label.setText(text)


def _row(*widgets: QtWidgets.QWidget) -> QtWidgets.QHBoxLayout:
    row = QtWidgets.QHBoxLayout()
    for widget in widgets:
        row.addWidget(widget, stretch=1)
    return row
