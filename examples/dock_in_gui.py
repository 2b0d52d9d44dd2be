"""The live preview as a dock in pymmcore-gui, or in any other Qt program.

``python dock_in_gui.py tcp://127.0.0.1:5555``.

With pymmcore-gui in the environment the preview docks into its window, else into an empty one. A
number of seconds as second argument closes it again.
"""

import sys

from qtpy.QtCore import Qt, QTimer
from qtpy.QtWidgets import QApplication, QDockWidget, QMainWindow

from livesr import SRPreview

address = sys.argv[1] if len(sys.argv) > 1 else "tcp://127.0.0.1:5555"
seconds = float(sys.argv[2]) if len(sys.argv) > 2 else None

try:
    from pymmcore_gui import create_mmgui

    window = create_mmgui(exec_app=False)
    application = QApplication.instance()
except ImportError:
    application = QApplication([])
    window = QMainWindow()
    window.resize(1200, 700)

preview = SRPreview(address)
dock = QDockWidget("Super-resolution, live", window)
dock.setWidget(preview)
window.addDockWidget(Qt.DockWidgetArea.RightDockWidgetArea, dock)
window.show()
if seconds is not None:
    QTimer.singleShot(int(1000 * seconds), application.quit)
application.exec()
print(f"showed {preview.shown} pictures of {address}")
preview.close()
