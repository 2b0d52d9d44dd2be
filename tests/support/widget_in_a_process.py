"""livesr's widget in a window of its own process, worked by buttons as a person would.

``python this WHERE FOLDER``: WHERE is "qt" (the widget alone, its own buttons), "pymmcore-widgets"
(beside the MDA widget and the live button of that package, and their buttons), "pymmcore-gui" (a
dock of that program, and its buttons), "closing" (its window is closed during an acquisition),
"closing pymmcore-gui" or "refused" (what cannot be done). Stores and screenshots go to FOLDER; what
was seen is printed as JSON.
"""

import json
import os
import socket
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any


def no_network(*arguments: object, **_: object) -> None:
    raise OSError("no network here: icons are looked up on a server otherwise")


socket.getaddrinfo = no_network

import numpy as np  # noqa: E402
from qtpy.QtCore import QTimer  # noqa: E402
from qtpy.QtWidgets import QApplication, QHBoxLayout, QLabel, QWidget  # noqa: E402
from useq import MDASequence, TIntervalLoops  # noqa: E402

from livesr.base.config import load_rig  # noqa: E402
from livesr.cli.experiment import Experiment  # noqa: E402
from livesr.cli.session import Request, load_core  # noqa: E402
from livesr.gui.widget import LiveSRWidget  # noqa: E402

GROUPS, RAW = 10, 9
PATIENCE_S = 90.0
where, folder = sys.argv[1], Path(sys.argv[2])
seen: dict[str, Any] = {}
Steps = Iterator[Callable[[], bool]]


def make_core() -> Any:
    request = Request(
        rig=load_rig("virtual_sim"),
        experiment=Experiment(frames=1),
        exposure_ms=5.0,
        properties={"SensorSize": "64", "TimePoints": "3"},
    )
    return load_core(request)


def after(seconds: float) -> Callable[[], bool]:
    over = time.monotonic() + seconds
    return lambda: time.monotonic() > over


def picture(name: str) -> None:
    for window in QApplication.topLevelWidgets():
        if window.isVisible():
            window.grab().save(str(folder / f"{name}.png"))


def work(steps: Steps, window: QWidget) -> None:
    """Do the steps, each when the one before has come true; then close the window."""
    waiting: list[Any] = [lambda: True, time.monotonic()]

    def go_on() -> None:
        over = time.monotonic() > waiting[1] + PATIENCE_S
        if not waiting[0]() and not over:
            return
        try:
            if over:
                raise TimeoutError(f"nothing came of it for {PATIENCE_S:.0f} s, after {seen}")
            waiting[:] = next(steps), time.monotonic()
        except StopIteration:
            timer.stop()
            window.close()
        except BaseException as e:  # Qt ends the process where an exception leaves a slot
            seen["failed"] = repr(e)
            picture("failed")
            timer.stop()
            window.close()

    timer = QTimer(window)
    timer.timeout.connect(go_on)
    timer.start(20)


def frames(widget: LiveSRWidget) -> int:
    return int(widget.control.status.get("raw_frames", 0))


def take_live(widget: LiveSRWidget, press: Callable[[], None]) -> Steps:
    """Start and stop the live view by a button."""
    before = len(widget.control.reports)
    press()
    yield lambda: frames(widget) > 15 * RAW
    picture("live")
    seen["state in live"] = widget.state_label.text()
    press()
    yield lambda: len(widget.control.reports) > before


def take_mda(widget: LiveSRWidget, press: Callable[[], None]) -> Steps:
    """Run an acquisition by a button."""
    before = len(widget.control.reports)
    press()
    yield lambda: len(widget.control.reports) > before
    yield after(0.3)
    picture("mda")


def started(widget: LiveSRWidget) -> Steps:
    widget.form.choose(rig="virtual_sim", store=folder / "run.ome.zarr")
    picture("off")
    widget.start_button.click()
    yield lambda: widget.control.state == "ready" and widget.live_button.isEnabled()


def stopped(widget: LiveSRWidget) -> Steps:
    seen["reports"] = [
        {key: report.get(key) for key in ("raw_frames", "raw_missing", "warnings", "store")}
        for report in widget.control.reports
    ]
    seen["problem"] = widget.error.text()
    seen["missing"] = widget.numbers.text("missing")
    seen["shown"] = {kind: picture.shown for kind, picture in widget.pictures.items()}
    widget.stop_button.click()
    yield lambda: widget.control.state == "idle"


def by_its_own_buttons(widget: LiveSRWidget) -> Steps:
    widget.form.views.setCurrentIndex(widget.form.views.findData("half-turn"))
    seen["chosen"] = widget.form.summary()
    yield from started(widget)
    widget.frames.setValue(GROUPS)
    yield from take_mda(widget, widget.acquire_button.click)
    yield lambda: widget.live_button.isEnabled()
    yield from take_live(widget, widget.live_button.click)
    yield from stopped(widget)


def beside_others(widget: LiveSRWidget, mda: Any, live: Any) -> Steps:
    yield from started(widget)
    loops = TIntervalLoops(interval=0, loops=GROUPS * RAW)
    mda.setValue(MDASequence(time_plan=loops, channels=[{"config": "488", "exposure": 5.0}]))
    yield after(0.3)
    yield from take_live(widget, live)
    yield from take_mda(widget, mda.control_btns.run_btn.click)
    yield from stopped(widget)


def in_pymmcore_gui(window: Any, widget: LiveSRWidget) -> Steps:
    from pymmcore_gui import CoreAction, WidgetAction
    from pymmcore_gui.widgets.image_preview._preview_base import ImagePreviewBase

    drawn: list[Any] = []
    append = ImagePreviewBase.append
    for kind in ImagePreviewBase.__subclasses__():
        append = kind.append
        kind.append = lambda self, data, append=append: (drawn.append(data), append(self, data))
    mda = window.get_widget(WidgetAction.MDA_WIDGET)
    live = window.get_action(CoreAction.TOGGLE_LIVE).trigger
    window.get_action(CoreAction.SNAP).trigger()  # its preview is there from now on
    yield lambda: bool(drawn)
    yield after(0.5)
    before = len(drawn)
    for frame in (drawn[-1], drawn[-1][:32, :32].copy(), drawn[-1].astype("uint8")):
        widget.camera_frame.emit(frame)
    seen["drawn of three sizes and types"] = len(drawn) - before
    snapped = len(drawn)
    sizes = window.dock_manager.splitterSizes(widget.parentWidget().dockAreaWidget())
    seen["narrowest of the docks"] = min(sizes) / sum(sizes)
    yield from beside_others(widget, mda, live)
    seen["drawn by its preview"] = len(drawn) - snapped


def closing(widget: LiveSRWidget) -> Steps:
    yield from started(widget)
    widget.frames.setValue(1000)
    widget.acquire_button.click()
    yield lambda: frames(widget) > 5 * RAW


def color_of(widget: LiveSRWidget, missing: int) -> str:
    """The most colourful pixel of the number."""
    widget.numbers.show_status({"raw_missing": missing})
    widget.numbers.show()
    picture = widget.numbers.grab(widget.numbers._values["missing"].geometry()).toImage()
    places = [(x, y) for x in range(picture.width()) for y in range(picture.height())]
    colors = [picture.pixelColor(*place) for place in places]
    return str(max(colors, key=lambda c: max(c.getRgb()[:3]) - min(c.getRgb()[:3])).name())


def refused(widget: LiveSRWidget) -> Steps:
    widget.setStyleSheet("QWidget { color: #0000ff; }")  # napari's is of this kind
    seen["colours of 2 and 0 missing"] = [color_of(widget, missing) for missing in (2, 0)]
    for rig in ("tirf_sim", "virtual_sim"):
        widget.form.choose(rig=rig)
        seen[f"live view of {rig}"] = widget.form.choice().live
    tile = widget.pictures["camera"]
    tile.show_camera(np.array([[7067, 58467]], np.uint16), 0.0)
    for width in (400, 150):
        tile.resize(width, 200)
        yield after(0.2)
        facts = tile.findChildren(QLabel)[1]
        seen[f"facts in {width} px"] = facts.text(), facts.sizeHint().width() <= facts.width()
    widget.form.store.setText(" ")
    widget.start_button.click()
    yield after(0.3)
    seen["nameless"] = widget.control.state, widget.error.text()
    widget.form.choose(rig="no such rig")
    yield after(0.3)
    seen["rig"] = widget.error.text()
    widget.form.choose(rig="virtual_sim", store=folder / "run.ome.zarr")
    widget.form.engine.setCurrentIndex(widget.form.engine.findData("none"))
    (folder / "file").write_text("in the way")
    widget.form.choose(store=folder / "file" / "run.ome.zarr")
    yield after(0.3)
    seen["fine"] = widget.error.text()
    widget.start_button.click()
    yield lambda: bool(widget.error.text())
    seen["store"] = widget.control.state, widget.error.text()
    widget.form.choose(store=folder / "later" / "run.ome.zarr")
    widget.start_button.click()
    yield lambda: widget.control.state == "ready" and widget.acquire_button.isEnabled()
    (folder / "later").write_text("in the way")
    widget.acquire_button.click()
    yield lambda: bool(widget.error.text())
    seen["store later"] = widget.error.text()
    yield lambda: widget.live_button.isEnabled()
    widget.live_button.click()
    yield after(0.5)
    seen["live view"] = widget.state_label.text()
    widget.live_button.click()
    widget.stop_button.click()
    yield lambda: widget.control.state == "idle"
    widget.setStyleSheet("QWidget { font-size: 22pt; }")
    widget.resize(300, 500)  # the form is scrolled
    yield after(0.5)
    picture("refused")
    seen["wanted and there"] = (
        widget._column.minimumSizeHint().width(),
        widget._area.viewport().width(),
    )
    seen["scrolled"] = widget._area.verticalScrollBar().isVisible()


if "pymmcore-gui" in where:
    from livesr.gui.mmgui import open_window

    def opened(window: Any, widget: LiveSRWidget) -> None:
        seen["widget"] = widget
        closes = where.startswith("closing")
        work(closing(widget) if closes else in_pymmcore_gui(window, widget), window)

    open_window(make_core, opened=opened)
    seen["state at the end"] = seen.pop("widget").control.state
else:
    application = QApplication(sys.argv[:1])
    core = make_core()
    window = widget = LiveSRWidget(core)
    if where == "pymmcore-widgets":
        from pymmcore_widgets import LiveButton, MDAWidget

        window = QWidget()
        layout = QHBoxLayout(window)
        mda, live = MDAWidget(mmcore=core), LiveButton(mmcore=core)
        for part in (mda, live, widget):
            layout.addWidget(part)
        steps = beside_others(widget, mda, live.click)
    else:
        steps = {"qt": by_its_own_buttons, "closing": closing, "refused": refused}[where](widget)
    window.resize(1400, 800)
    window.show()
    work(steps, window)
    application.exec()
    seen["state at the end"] = widget.control.state
print(json.dumps(seen), flush=True)
os._exit(0)  # Qt's viewers do not always survive the end of the interpreter
