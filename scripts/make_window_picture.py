"""Make the picture of livesr's widget in docs/images: ``python scripts/make_window_picture.py``.

Opens the widget without a screen on the virtual SIM rig, starts the live view by its buttons and
photographs it after some frames; takes half a minute.
"""

from __future__ import annotations

import io
import os
import tempfile
from pathlib import Path

os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")

from PIL import Image
from pymmcore_plus.experimental.unicore import UniMMCore
from qtpy.QtCore import QBuffer, QTimer
from qtpy.QtWidgets import QApplication

from livesr import LiveSRWidget, load_rig

PICTURE = Path(__file__).parents[1] / "docs" / "images" / "window.webp"
_SIZE = (1500, 470)
_FRAMES = 30


def main() -> None:
    """Make it and say how large it is."""
    application = QApplication([])
    application.setStyle("Fusion")
    core = UniMMCore()
    core.loadSystemConfiguration(load_rig("virtual_sim").cfg_path)
    core.setExposure(30)
    with tempfile.TemporaryDirectory() as folder:
        widget = LiveSRWidget(core)
        widget.form.choose(rig="virtual_sim", store=Path(folder) / "run.ome.zarr")
        widget.resize(*_SIZE)
        widget.show()
        timer = QTimer(widget)
        timer.timeout.connect(lambda: _go_on(widget))
        timer.start(300)
        application.exec()
    print(f"{PICTURE.name}: {PICTURE.stat().st_size / 1e3:.0f} kB")


def _go_on(widget: LiveSRWidget) -> None:
    """Press what comes next; when there is something to see, photograph it and close."""
    if widget.control.status.get("sr_frames", 0) >= _FRAMES:
        _photograph(widget)
        widget.close()
    elif widget.start_button.isEnabled():
        widget.start_button.click()
    elif widget.live_button.isEnabled() and not widget.live_button.isChecked():
        widget.live_button.click()


def _photograph(widget: LiveSRWidget) -> None:
    buffer = QBuffer()
    buffer.open(QBuffer.OpenModeFlag.WriteOnly)
    widget.grab().save(buffer, "PNG")
    picture = Image.open(io.BytesIO(bytes(buffer.data())))
    picture.convert("RGB").save(PICTURE, "WEBP", quality=85, method=6)


if __name__ == "__main__":
    main()
