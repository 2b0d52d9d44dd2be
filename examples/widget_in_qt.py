"""livesr's widget in a Qt window of your own.

``python widget_in_qt.py [run.ome.zarr]``. In a program that has a window already, two lines do:
``widget = LiveSRWidget(core)`` and whatever docks it. What the program acquires on that core
between Start and Stop is recorded and separated.

A number of frames as second argument presses the buttons, and closes the window again.
"""

import os
import sys
from pathlib import Path

from qtpy.QtCore import QTimer
from qtpy.QtWidgets import QApplication, QDockWidget, QMainWindow

store = sys.argv[1] if len(sys.argv) > 1 else "run.ome.zarr"
frames = int(sys.argv[2]) if len(sys.argv) > 2 else None
if frames:
    os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")

application = QApplication([])  # before the core, which then takes Qt's signals

from pymmcore_plus import CMMCorePlus  # noqa: E402

from livesr import LiveSRWidget, load_rig  # noqa: E402

rig = load_rig("demo")
core = CMMCorePlus.instance()
core.loadSystemConfiguration(rig.cfg_path)
core.setExposure(rig.exposure_ms)

window, dock = QMainWindow(), QDockWidget("livesr")
widget = LiveSRWidget(core)
widget.form.choose(rig="demo", store=Path(store))
dock.setWidget(widget)
window.setCentralWidget(dock)
window.resize(1400, 800)
window.show()


def press() -> None:
    """Press what a person would press next."""
    if widget.control.reports:
        window.close()
    elif widget.start_button.isEnabled():
        widget.start_button.click()
    elif widget.acquire_button.isEnabled() and not pressed:
        pressed.append("acquire")
        widget.frames.setValue(frames)
        widget.acquire_button.click()


pressed: list[str] = []
pressing = QTimer(interval=200)
pressing.timeout.connect(press)
if frames:
    pressing.start()
application.exec()
widget.control.close()
if widget.control.problem:
    sys.exit(widget.control.problem)
for report in widget.control.reports:
    print(f"{report['raw_frames']} exposures, {report['raw_missing']} missing: {report['store']}")
