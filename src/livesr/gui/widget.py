"""`LiveSRWidget`: livesr as a widget of any Qt program with a `CMMCorePlus`.

Owns the layout, the timer that looks at a run, and what happens when the window goes. What is
looked at lies in `livesr.gui.control` and `livesr.gui.newest`; no thread but Qt's comes here.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from pymmcore_plus import CMMCorePlus

from livesr.base.errors import ConfigError, LiveSRError
from livesr.base.frames import Pixels
from livesr.gui.control import Control, State
from livesr.gui.form import Form
from livesr.gui.pictures import Picture
from livesr.gui.qt import QtCore, QtGui, QtWidgets
from livesr.gui.readout import Numbers, Sentences, quality_words, report_words

log = logging.getLogger(__name__)

_PERIOD_MS = 40
_STATES: dict[State, tuple[str, str]] = {
    "idle": ("Off", "#6e7681"),
    "opening": ("Opening: the engine is being compiled", "#d29922"),
    "ready": ("Ready: what you acquire now is recorded", "#3fb950"),
    "acquiring": ("Recording", "#e5534b"),
    "finishing": ("Finishing: what came is being processed and stored", "#d29922"),
}
_NARROW = 1.15  # width over height from which the pictures stand beside the form


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
    control : the session behind it

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
        self.control = Control(core if core is not None else CMMCorePlus.instance())
        self.setWindowTitle("livesr")
        self._seen, self._camera_seen, self._looking = -1, 0, False
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
        self.state_label, self.quality_label = QtWidgets.QLabel(), QtWidgets.QLabel("–")
        self.runs = QtWidgets.QLabel("No run yet.")
        self.channel = QtWidgets.QComboBox()
        self.pictures = {kind: Picture(kind) for kind in ("camera", "measurement", "prediction")}
        self._lay_out()
        self._connect()
        self._timer = QtCore.QTimer(self)
        self._timer.setInterval(_PERIOD_MS)
        self._timer.timeout.connect(self.look)
        self._timer.start()
        self._rig_chosen()
        self.look()

    # -- layout ------------------------------------------------------------------------------------

    def _lay_out(self) -> None:
        self.frames.setRange(1, 1_000_000)
        self.frames.setValue(25)
        self.frames.setSuffix(" SR frames")
        self.channel.hide()
        for label in (self.quality_label, self.runs):
            label.setWordWrap(True)
            label.setTextFormat(QtCore.Qt.TextFormat.PlainText)
        self.state_label.setWordWrap(True)
        self._splitter = QtWidgets.QSplitter(QtCore.Qt.Orientation.Vertical)
        self._splitter.addWidget(self._panel())
        self._splitter.addWidget(self._picture_panel())
        self._splitter.setStretchFactor(1, 1)
        self._splitter.setChildrenCollapsible(False)
        layout = QtWidgets.QVBoxLayout(self)
        layout.setContentsMargins(8, 8, 8, 8)
        layout.addWidget(self._splitter)

    def _panel(self) -> QtWidgets.QWidget:
        buttons = _row(self.start_button, self.stop_button)
        acquire = _row(self.live_button, self.acquire_button, self.frames)
        panel = QtWidgets.QWidget()
        layout = QtWidgets.QVBoxLayout(panel)
        layout.setContentsMargins(0, 0, 6, 0)
        layout.setSpacing(8)
        layout.addWidget(self.state_label)
        layout.addWidget(self.form)
        layout.addWidget(self.load_button)
        layout.addLayout(buttons)
        layout.addLayout(acquire)
        layout.addWidget(self.error)
        layout.addWidget(self.warnings)
        layout.addWidget(_group("This run", self.numbers))
        layout.addWidget(_group("Newest frame", self.quality_label))
        layout.addWidget(_group("Runs", self.runs))
        layout.addStretch()
        area = QtWidgets.QScrollArea()
        area.setWidget(panel)
        area.setWidgetResizable(True)
        area.setFrameShape(QtWidgets.QFrame.Shape.NoFrame)
        area.setHorizontalScrollBarPolicy(QtCore.Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        area.setMinimumWidth(panel.minimumSizeHint().width() + 14)
        return area

    def _picture_panel(self) -> QtWidgets.QWidget:
        panel = QtWidgets.QWidget()
        layout = QtWidgets.QVBoxLayout(panel)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self.channel)
        self._tiles = QtWidgets.QSplitter(QtCore.Qt.Orientation.Horizontal)
        for picture in self.pictures.values():
            self._tiles.addWidget(picture)
        self._tiles.setChildrenCollapsible(False)
        layout.addWidget(self._tiles, stretch=1)
        return panel

    def resizeEvent(self, event: Any) -> None:  # noqa: N802 - Qt's name
        """Put the pictures beside the form where there is room, else below it."""
        wide = self.width() > _NARROW * self.height()
        directions = QtCore.Qt.Orientation
        self._splitter.setOrientation(directions.Horizontal if wide else directions.Vertical)
        super().resizeEvent(event)

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
        self.control.start(self.form.choice())

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
        rig = self.form.rig
        if self.control.state == "idle":
            self.control.problem = self.form.problem
        self.load_button.setVisible(rig is not None and not self._hardware_is_loaded())

    def _hardware_is_loaded(self) -> bool:
        rig, loaded = self.form.rig, self.control.core.systemConfigurationFile()
        return bool(rig and loaded and Path(loaded).absolute() == rig.cfg_path.absolute())

    def _load_hardware(self) -> None:
        rig, core = self.form.rig, self.control.core
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
            self.control.look()
            self._show_state()
            self._show_frames()
            self._show_camera()
        finally:
            self._looking = False

    def _show_state(self) -> None:
        control = self.control
        state, core = control.state, control.core
        text, color = _STATES[state]
        if state == "acquiring":
            text = f"Recording {'an acquisition' if core.mda.is_running() else 'the live view'}"
            text += f" into {control.store.name}" if control.store else ", without a store"
        self.state_label.setText(f'<b style="color:{color}">●</b>&nbsp; {text}')
        idle = state == "idle"
        for widget, enabled in (
            (self.form, idle),
            (self.load_button, idle),
            (self.start_button, idle and self.form.rig is not None),
            (self.stop_button, state in {"opening", "ready", "acquiring"}),
        ):
            if widget.isEnabled() != enabled:
                widget.setEnabled(enabled)
        self._show_camera_buttons(state)
        self.load_button.setVisible(self.form.rig is not None and not self._hardware_is_loaded())
        status = control.status
        last = control.reports[-1] if control.reports else None
        if shown := status or last:
            self.numbers.show_status(shown)
            self.warnings.say(shown.get("warnings", []))
        self.error.say([control.problem])
        self._show_runs()

    def _show_camera_buttons(self, state: State) -> None:
        core = self.control.core
        there = bool(core.getCameraDevice())
        mda, live = core.mda.is_running(), there and core.isSequenceRunning()
        self.live_button.setEnabled(there and not mda and state != "opening")
        self.live_button.setChecked(live and not mda)
        self.live_button.setText("Stop live" if live and not mda else "Live")
        can_acquire = there and state == "ready" and not live and not mda
        self.acquire_button.setEnabled(can_acquire)
        self.frames.setEnabled(can_acquire)

    def _show_runs(self) -> None:
        reports = self.control.reports
        if not reports:
            return
        lines = [
            f"{Path(str(r['store'])).name if r.get('store') else 'not kept'}: {report_words(r)}"
            for r in reversed(reports)
        ]
        text = "\n".join(lines[:5])
        if text != self.runs.text():
            self.runs.setText(text)
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
        if prediction is None or about is None:
            self.pictures["prediction"].clear()
        else:
            self.pictures["prediction"].show_prediction(
                prediction, about.colors, about.sr_pixel_size_um
            )
        words, color = quality_words(measurement)
        self.quality_label.setText(words)
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

    def closeEvent(self, event: QtGui.QCloseEvent) -> None:  # noqa: N802 - Qt's name
        """End the run, where this is a window of its own; a dock that is put away goes on."""
        if self.isWindow():
            self.shutdown()
        super().closeEvent(event)

    def shutdown(self) -> None:
        """End what runs; returns when the store is closed. The window is drawn meanwhile."""
        self.control.stop()
        while not self.control.wait(0.02):
            QtWidgets.QApplication.processEvents(
                QtCore.QEventLoop.ProcessEventsFlag.ExcludeUserInputEvents
            )


def _row(*widgets: QtWidgets.QWidget) -> QtWidgets.QHBoxLayout:
    row = QtWidgets.QHBoxLayout()
    for widget in widgets:
        row.addWidget(widget, stretch=1)
    return row


def _group(title: str, widget: QtWidgets.QWidget) -> QtWidgets.QGroupBox:
    group = QtWidgets.QGroupBox(title)
    layout = QtWidgets.QVBoxLayout(group)
    layout.setContentsMargins(8, 6, 8, 8)
    layout.addWidget(widget)
    return group
