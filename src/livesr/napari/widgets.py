"""Dock widgets of napari.

Owns the field for an address, and what starts and ends the layers that follow a run.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pymmcore_plus import CMMCorePlus
from qtpy.QtWidgets import QFormLayout, QHBoxLayout, QLabel, QLineEdit, QPushButton, QWidget

from livesr.base.errors import LiveSRError
from livesr.gui.widget import LiveSRWidget
from livesr.napari.live_layers import LiveLayers
from livesr.napari.run_pairs import RunPairs

_ADDRESS = "tcp://127.0.0.1:5555"


class FollowWidget(QWidget):
    """Follows the stream of a run, of this computer or another, as layers.

    Parameters
    ----------
    napari_viewer : whose layers they are; napari gives it
    """

    def __init__(self, napari_viewer: Any, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._viewer = napari_viewer
        self._live: LiveLayers | None = None
        self.address = QLineEdit(_ADDRESS)
        self.address.setMinimumWidth(180)
        self.address.setToolTip("What the run publishes on: livesr run RIG --publish ADDRESS")
        self.keys = QLineEdit()
        self.keys.setPlaceholderText("only for a stream that is encrypted")
        self.keys.setToolTip("Folder of this viewer's keys, which 'livesr keys' made")
        self.button = QPushButton("Follow")
        self.said = QLabel()
        self.said.setWordWrap(True)
        row = QHBoxLayout()
        row.addWidget(self.button)
        row.addStretch()
        form = QFormLayout(self)
        form.addRow("Address", self.address)
        form.addRow("Keys", self.keys)
        form.addRow(row)
        form.addRow(self.said)
        self.button.clicked.connect(self._toggle)
        self.address.returnPressed.connect(self._follow)
        self.destroyed.connect(self.stop)

    def stop(self) -> None:
        """Follow nothing any longer; the last pictures stay. May be called twice."""
        if self._live:
            self._live.close()
            self._live = None

    def closeEvent(self, event: Any) -> None:  # noqa: N802 - Qt's name
        """Let the stream go with the widget."""
        self.stop()
        super().closeEvent(event)

    def _toggle(self) -> None:
        if self._live is None:
            self._follow()
        else:
            self.stop()
            self._say("")

    def _follow(self) -> None:
        self.stop()
        keys = self.keys.text().strip()
        try:
            self._live = LiveLayers(
                self._viewer, self.address.text().strip(), Path(keys) if keys else None
            )
        except LiveSRError as e:
            self._say(str(e))
            return
        self._say("")

    def _say(self, sentence: str) -> None:
        self.said.setText(sentence)
        self.button.setText("Stop" if self._live else "Follow")


class RunWidget(LiveSRWidget):
    """Runs livesr on the Micro-Manager core of this program; its pictures are layers.

    That of napari-micromanager, where its window is open here, whichever was opened first: it makes
    a core of its own.

    Parameters
    ----------
    napari_viewer : whose layers they are; napari gives it
    """

    def __init__(self, napari_viewer: Any, parent: QWidget | None = None) -> None:
        super().__init__(parent=parent)
        for picture in self.pictures.values():  # here they are layers
            picture.parentWidget().hide()
        control = self.control
        self.live = LiveLayers(
            napari_viewer, RunPairs(control.newest, lambda: dict(control.status))
        )
        self.destroyed.connect(self.live.close)

    def program_core(self) -> CMMCorePlus:
        """Return the core of napari-micromanager, else `CMMCorePlus.instance()`."""
        try:
            from napari_micromanager.main_window import get_core
        except ImportError:  # not installed, or of a version that takes the instance
            return super().program_core()
        try:
            core: CMMCorePlus = get_core()
            return core
        except RuntimeError:  # it is not open
            return super().program_core()
