"""napari with livesr's plugin in a process of its own, under Xvfb; says what is in its window.

``python this WHAT FOLDER [STORE]``; WHAT is one of the functions below.
"""

import faulthandler
import json
import os
import sys
import time
from dataclasses import replace
from pathlib import Path

what, folder = sys.argv[1], Path(sys.argv[2])
faulthandler.dump_traceback_later(250)  # says where it hangs, if it does
os.environ["NAPARI_CONFIG"] = str(folder / "settings.yaml")  # not those of whoever runs the tests

import napari  # noqa: E402
import numpy as np  # noqa: E402
from npe2 import PluginManager, PluginManifest  # noqa: E402
from qtpy.QtWidgets import QApplication  # noqa: E402

import livesr.napari  # noqa: E402
from contracts import describe, describe_channel, multicolor_frame, sr_frame  # noqa: E402

plugins = PluginManager.instance()
plugins.discover()
if "livesr" not in [m.name for m in plugins.iter_manifests()]:  # installed before it had a plugin
    manifest = Path(livesr.napari.__file__).with_name("napari.yaml")
    plugins.register(PluginManifest.from_file(manifest))

viewer = napari.Viewer()
viewer.window.resize(1300, 850)


def wait(until, seconds=60):
    end = time.monotonic() + seconds
    while not until():
        assert time.monotonic() < end, f"waited {seconds} s in vain; {overlay().text!r}"
        QApplication.processEvents()
        time.sleep(0.01)


def overlay():
    return viewer.canvas.overlays.text if hasattr(viewer, "canvas") else viewer.text_overlay


def layers():
    return {
        layer.name: {
            "visible": bool(layer.visible),
            "scale": [float(s) for s in layer.scale],
            "units": [str(u) for u in layer.units],
            "limits": [float(v) for v in getattr(layer, "contrast_limits", ())],
            "corner": float(np.asarray(layer.data[(0,) * layer.data.ndim])),
        }
        for layer in viewer.layers
    }


def bands(t):
    """A prediction of three structures, side by side."""
    channels = np.zeros((3, 32, 32), np.uint16)
    for c, high in enumerate((200, 300, 400)):
        channels[c, :, 11 * c : 11 * c + 10] = high
    return multicolor_frame(t, channels=channels)


def colors(*full):
    """How many pixels of the canvas have the full colour of each structure, or those given."""
    for _ in range(3):
        QApplication.processEvents()
    picture = viewer.screenshot(str(folder / f"{what}.png"), canvas_only=True, flash=False)
    full = full or ((0, 255, 0), (255, 0, 255), (255, 255, 0))
    return [int((np.abs(picture[..., :3].astype(int) - c).max(2) < 12).sum()) for c in full]


LONG = " ".join(["What is shown of this structure may be of another one."] * 3)


def bright_at_the_edge():
    """How many of the pixels at the right edge of the canvas, a letter wide, are white."""
    for _ in range(3):
        QApplication.processEvents()
    picture = viewer.screenshot(canvas_only=True, flash=False)
    top = picture[: len(picture) // 2, -12:, :3]  # the scale bar is at the bottom
    return int((top.min(2) > 128).sum())


def store():
    """Open a store, given as the last argument."""
    viewer.open(sys.argv[3], plugin="livesr")
    viewer.dims.set_current_step(viewer.dims.axis_labels.index("t"), 0)
    return {"layers": layers(), "colors": colors(), "ndim": viewer.dims.ndim}


def stream():
    """Follow a stream by the widget's own button, until it ends."""
    from livesr.live.sinks.zeromq import ZeroMQSink

    sink = ZeroMQSink("tcp://127.0.0.1:*")
    sink.open(describe())
    sink.status({"warnings": ["Look here.", LONG]})
    _, widget = viewer.window.add_plugin_dock_widget("livesr", "Follow a stream")
    widget.address.setText("nonsense")
    widget.button.click()
    said = {"nonsense": widget.said.text()}
    widget.address.setText(sink.endpoint)
    widget.button.click()
    wait(lambda: "Waiting for the first picture" in overlay().text)
    sink.recon(sr_frame(1))
    sink.separated(bands(0))
    wait(lambda: len(viewer.layers) == 4)
    said["first"] = layers()
    said["words"] = overlay().text
    said["at the edge"] = bright_at_the_edge()
    viewer.layers[0].visible = False
    by_hand = viewer.layers[1]
    by_hand.contrast_limits = (0, 123)
    sink.separated(bands(1))
    wait(lambda: "t 1" in overlay().text)
    said["second"], said["colors"] = layers(), colors()
    gone = viewer.layers[-1].name
    viewer.layers.remove(gone)
    sink.separated(bands(2))
    wait(lambda: "t 2" in overlay().text)
    said["deleted"] = gone in viewer.layers
    sink.close({})
    wait(lambda: "Ended" in overlay().text)
    widget.button.click()
    return said


def depth():
    """Follow a stream whose measurement has a depth: low on the left, high on the right."""
    from livesr.formats.layout import DEPTH_COLORS
    from livesr.live.sinks.zeromq import ZeroMQSink
    from livesr.napari.live_layers import LiveLayers

    nm, image = np.full((32, 32), np.nan, np.float32), np.zeros((32, 32), np.float32)
    nm[:, :10], nm[:, -10:], image[8:] = -400, 400, 500
    sink = ZeroMQSink("tcp://127.0.0.1:*")
    channel = replace(describe_channel(), depth_range_nm=(-400.0, 400.0))
    sink.open(replace(describe(), channels=(channel,)))
    live = LiveLayers(viewer, sink.endpoint)
    wait(lambda: "Waiting for the first picture" in overlay().text)
    sink.recon(replace(sr_frame(1), image=image, depth_nm=nm))
    wait(lambda: len(viewer.layers) == 2)
    ends = [[int(c[i : i + 2], 16) for i in (0, 2, 4)] for c in (DEPTH_COLORS[0], DEPTH_COLORS[-1])]
    said = {"layers": layers(), "colors": colors(*ends)}
    live.close()
    sink.close({})
    return said


def closing():
    """The window is closed during a live view of Micro-Manager's demo camera."""
    from pymmcore_plus import CMMCorePlus

    _, widget = viewer.window.add_plugin_dock_widget("livesr", "Run livesr")
    control = widget.control
    widget.form.choose(rig="demo", store=folder / "run.ome.zarr")
    widget.form.engine.setCurrentIndex(widget.form.engine.findData("none"))
    widget.load_button.click()
    wait(lambda: CMMCorePlus.instance().getCameraDevice() != "")
    widget.start_button.click()
    wait(lambda: control.state == "ready")
    wait(widget.live_button.isEnabled)
    widget.live_button.click()
    wait(lambda: len(viewer.layers))
    viewer.close()
    end = time.monotonic() + 60
    while control.state != "idle" and time.monotonic() < end:
        QApplication.processEvents()
        time.sleep(0.01)
    return {"state": control.state, "problem": control.problem, "reports": len(control.reports)}


def run():
    """An MDA on Micro-Manager's demo camera, by the buttons of the widget."""
    from pymmcore_plus import CMMCorePlus

    _, widget = viewer.window.add_plugin_dock_widget("livesr", "Run livesr")
    widget.form.choose(rig="demo", store=folder / "run.ome.zarr")
    widget.form.engine.setCurrentIndex(widget.form.engine.findData("none"))
    widget.load_button.click()
    wait(lambda: CMMCorePlus.instance().getCameraDevice() != "")
    widget.start_button.click()
    wait(lambda: widget.control.state == "ready")
    wait(widget.acquire_button.isEnabled)
    widget.frames.setValue(3)
    widget.acquire_button.click()
    wait(lambda: widget.control.reports)
    wait(lambda: any(layer.name.endswith("measurement") for layer in viewer.layers))
    widget.stop_button.click()
    wait(lambda: widget.control.state == "idle")
    viewer.screenshot(str(folder / "run.png"), canvas_only=False, flash=False)
    report = widget.control.reports[-1]
    said = {"raw_frames": report["raw_frames"], "store": report["store"], "layers": list(layers())}
    widget.live.close()
    return said


def micromanager():
    """An MDA and live mode by the buttons of napari-micromanager, opened after livesr's widget."""
    from napari_micromanager._gui_objects._mda_widget import MultiDWidget
    from pymmcore_widgets import LiveButton
    from qtpy.QtWidgets import QPushButton
    from useq import MDASequence, TIntervalLoops

    _, widget = viewer.window.add_plugin_dock_widget("livesr", "Run livesr")
    own = widget.control.core
    _, micromanager = viewer.window.add_plugin_dock_widget("napari-micromanager")
    wait(lambda: widget.control.core is micromanager.core)
    said = {"another core than the instance": micromanager.core is not own}
    widget.form.choose(rig="demo", store=folder / "run.ome.zarr")
    widget.form.engine.setCurrentIndex(widget.form.engine.findData("none"))
    widget.load_button.click()
    wait(lambda: widget.control.core.getCameraDevice() != "")
    widget.start_button.click()
    wait(lambda: widget.control.state == "ready")
    buttons = micromanager.findChildren(QPushButton)
    next(button for button in buttons if button.text() == "MDA").click()
    mda = next(w for w in QApplication.allWidgets() if isinstance(w, MultiDWidget))
    loops = TIntervalLoops(interval=0, loops=12)
    mda.setValue(MDASequence(time_plan=loops, channels=["488"]))
    mda.control_btns.run_btn.click()
    wait(lambda: widget.control.reports)
    viewer.screenshot(str(folder / "mda.png"), canvas_only=False, flash=False)
    wait(lambda: widget.control.state == "ready")
    live = next(w for w in QApplication.allWidgets() if isinstance(w, LiveButton))
    live.click()
    wait(lambda: widget.control.status.get("raw_frames", 0) > 20)
    viewer.screenshot(str(folder / "live.png"), canvas_only=False, flash=False)
    live.click()
    wait(lambda: len(widget.control.reports) > 1 and widget.control.state == "ready")
    widget.stop_button.click()
    wait(lambda: widget.control.state == "idle")
    said["reports"] = [
        {name: report[name] for name in ("raw_frames", "raw_missing", "store", "warnings")}
        for report in widget.control.reports
    ]
    said["layers"] = list(layers())
    widget.live.close()
    return said


def micromanager_alone():
    """The window of napari-micromanager, without livesr's."""
    viewer.window.add_plugin_dock_widget("napari-micromanager")
    end = time.monotonic() + 4
    wait(lambda: time.monotonic() > end)
    return {}


def first():
    """Where a store begins, given as the last argument."""
    viewer.open(sys.argv[3], plugin="livesr")
    return {"t": int(viewer.dims.current_step[viewer.dims.axis_labels.index("t")])}


said = {
    "store": store,
    "first": first,
    "stream": stream,
    "depth": depth,
    "run": run,
    "closing": closing,
    "micromanager": micromanager,
    "micromanager_alone": micromanager_alone,
}[what]()
if what != "closing":
    viewer.close()
print(json.dumps(said))
