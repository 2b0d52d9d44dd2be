"""Open the desktop window in a process of its own, under Xvfb, and say what is on the screen.

``python this OUT.png``.
"""

import json
import socket
import sys
import time

import numpy as np

from preview_source import MemorySource, measurement, prediction


def no_network(*arguments, **_):
    raise AssertionError(f"the window asked the network for {arguments[0]}")


socket.getaddrinfo = no_network

from qtpy.QtWidgets import QApplication, QDockWidget, QLabel, QMainWindow  # noqa: E402
from superqt import QLabeledRangeSlider  # noqa: E402
from superqt.cmap import QColormapComboBox  # noqa: E402

from livesr.viewer.window import SRPreview  # noqa: E402

application = QApplication([])
source = MemorySource()
preview = SRPreview(source.pairs)
window, dock = QMainWindow(), QDockWidget("livesr")
dock.setWidget(preview)
window.setCentralWidget(dock)
window.resize(1000, 700)
window.show()


def wait(seconds):
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        application.processEvents()
        time.sleep(0.005)


def wait_for(condition, seconds=60):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        wait(0.02)


def ranges():
    """What the contrast sliders reach, as far as they are to be seen."""
    sliders = preview.findChildren(QLabeledRangeSlider)
    return [(s.minimum(), s.maximum()) for s in sliders if s.isVisible()]


def words():
    return [
        label.text() for label in preview.findChildren(QLabel) if label.isVisible() and label.text()
    ]


said = {"empty": words()}
frame = np.zeros((3, 64, 64), np.uint16)
frame[0, :, :21] = frame[1, :, 21:42] = frame[2, :, 42:] = 1000
source.give(
    measurement(1, np.full((64, 64), 500, np.uint16)),
    prediction(1, frame, warnings=("Look <b>here</b>.",)),
)
wait_for(lambda: len(ranges()) == 4 and "500 nm" in words())
said["live"] = words()
said["ranges"] = ranges()
said["colormaps"] = [combo.currentText() for combo in preview.findChildren(QColormapComboBox)]
source.give(prediction(2, frame, provisional=True))
wait_for(lambda: "Prediction (AI) · provisional" in words())
wait(0.3)
said["provisional"] = words()
window.grab()
picture = window.screen().grabWindow(window.winId())
picture.save(sys.argv[1])
source.give(
    measurement(3, np.zeros((32, 32), np.uint16)), prediction(3, np.zeros((1, 32, 32), np.uint16))
)
wait(0.3)
source.end()
wait_for(lambda: words()[-1].startswith("Stream ended"))
said["ended"] = words()
preview.close()
window.close()
wait(0.1)
print(json.dumps(said))
