"""livesr inside a GUI.

Pymmcore-gui, napari-micromanager, or any other window on the same pymmcore-plus core.

In the GUI's console:
``from inside_a_gui import attach; sr = attach("my_rig", store="run.ome.zarr")``. Every acquisition
that is started in the window is then a run with a store of its own, the live view too, and the
window's preview goes on.

Run as a script, a window without a screen stands in for the GUI: it previews as theirs do, and
starts live mode, then an MDA.
"""

import os
import sys
from contextlib import ExitStack

import useq
from pymmcore_plus import CMMCorePlus
from qtpy.QtCore import QObject, QTimer, Signal
from qtpy.QtWidgets import QApplication

from livesr import LiveSR, load_rig


def attach(rig: str, live: str = "peek", **settings: object) -> LiveSR:
    """Process what the GUI acquires until it is closed.

    SIM needs live="own", which takes the frames from the preview.
    """
    stack = ExitStack()
    session = stack.enter_context(LiveSR(CMMCorePlus.instance(), rig=rig, live=live, **settings))
    # Emitted in threads of livesr's own: a widget must be told by way of a Qt signal.
    session.finished.connect(
        lambda report: print(f"{report['raw_frames']} frames in {report['store']}", flush=True)
    )
    QApplication.instance().aboutToQuit.connect(stack.close)
    return session


class StandIn(QObject):
    """Previews as pymmcore-gui and napari-micromanager do.

    A timer that looks at the newest frame and leaves it there.
    """

    done = Signal(int)

    def __init__(self, core: CMMCorePlus) -> None:
        super().__init__()
        self.core, self.shown = core, 0
        self.timer = QTimer(self)
        self.timer.timeout.connect(self.look)
        core.events.continuousSequenceAcquisitionStarted.connect(
            lambda: self.timer.start(int(core.getExposure()))
        )
        core.events.sequenceAcquisitionStopped.connect(self.timer.stop)

    def look(self) -> None:
        if self.core.getRemainingImageCount() > 0:
            self.shown += bool(self.core.getLastImage().size)


def main(store: str) -> None:
    os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")
    app = QApplication([])
    core = CMMCorePlus.instance()
    core.loadSystemConfiguration(load_rig("demo").cfg_path)
    core.setExposure(20)
    window = StandIn(core)
    session = attach("demo", store=store)
    plan = useq.MDASequence(time_plan=useq.TIntervalLoops(interval=0, loops=20), channels=["488"])
    QTimer.singleShot(0, lambda: core.setConfig("Channel", "488"))
    QTimer.singleShot(100, core.startContinuousSequenceAcquisition)
    QTimer.singleShot(1600, core.stopSequenceAcquisition)
    QTimer.singleShot(2000, lambda: core.run_mda(plan))
    session.finished.connect(lambda report: window.done.emit(report["raw_frames"]))
    window.done.connect(lambda frames: app.quit() if frames == 20 else None)
    app.exec()
    print(f"the preview showed {window.shown} frames meanwhile")


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "gui.ome.zarr")
