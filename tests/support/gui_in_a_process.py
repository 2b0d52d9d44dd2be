"""A window with livesr attached to its core, in a process of its own; it is closed during an MDA.

``python this STORE WINDOW LEAVING``: WINDOW is "pymmcore-gui" or "qt"; LEAVING is "window" where
closing it leaves LiveSR, "interpreter" where nothing does, "threadless" where the interpreter
starts no threads any more when it ends, as from Python 3.12 on; "end" where the window is closed
when a short MDA has ended.
"""

import atexit
import os
import socket
import sys
import threading


def no_network(*arguments: object, **_: object) -> None:
    raise OSError("no network here: icons are looked up on a server otherwise")


socket.getaddrinfo = no_network

from qtpy.QtCore import QTimer  # noqa: E402
from qtpy.QtWidgets import QApplication, QMainWindow  # noqa: E402

from livesr import LiveSR  # noqa: E402
from livesr.base.config import load_rig  # noqa: E402
from livesr.cli.experiment import Experiment  # noqa: E402
from livesr.cli.session import Request, load_core  # noqa: E402
from livesr.live.sources.plan import sim_sequence  # noqa: E402

store, which, leaving = sys.argv[1:]
# Before the core: pymmcore-plus takes Qt's signals where there is an application.
if which == "pymmcore-gui":
    from pymmcore_gui import create_mmgui
    from pymmcore_gui._app import MMQApplication

    application = MMQApplication(sys.argv[:1])
else:
    application = QApplication(sys.argv[:1])
core = load_core(
    Request(
        rig=load_rig("virtual_sim"),
        experiment=Experiment(frames=1),
        engine="none",
        exposure_ms=2.0,
        properties={"SensorSize": "64", "TimePoints": "3"},
    )
)
core.setProperty("Camera", "Stamp", 1)
if which == "pymmcore-gui":
    window = create_mmgui(
        mmcore=core,
        mm_config=False,
        install_sentry=False,
        install_sys_excepthook=False,
        exec_app=False,
    )
else:
    window = QMainWindow()
    window.show()

session = LiveSR(core, rig="virtual_sim", engine="none", store=store)
session.__enter__()
if leaving in {"window", "end"}:
    application.aboutToQuit.connect(lambda: session.__exit__(None, None, None))


def close_when_it_runs() -> None:
    came = session.status().get("raw_frames", 0)
    if session.report or (leaving != "end" and came > 40):
        timer.stop()
        window.close()


groups = 25 if leaving == "end" else 1000
timer = QTimer()
QTimer.singleShot(200, core.snap)  # opens the preview of pymmcore-gui; the stamps begin at 1
if which == "pymmcore-gui":
    atexit.register(os._exit, 0)  # its viewers do not always survive the end of Qt
timer.timeout.connect(close_when_it_runs)
QTimer.singleShot(1500, lambda: core.run_mda(sim_sequence(groups, ["488"])))
timer.start(20)
application.exec()
print(f"{core.mda.is_running()=}", flush=True)


def no_more_threads(thread: threading.Thread) -> None:
    raise RuntimeError("can't create new thread at interpreter shutdown")


if leaving == "threadless":
    threading.Thread.start = no_more_threads
