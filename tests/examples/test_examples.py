"""Every example runs as its reader would run it, and ends with a clean exit code."""

from __future__ import annotations

import re
import shutil
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from contracts import describe, multicolor_frame, sr_frame
from livesr.live.sinks.zeromq import ZeroMQSink
from own_process import said_by

EXAMPLES = Path(__file__).parents[2] / "examples"
ARGUMENTS = {
    "headless_sim.py": (["run.ome.zarr", "4"], "0 raw frames lost"),
    "demo_camera.py": (["run.ome.zarr"], "24 frames in"),
    "live_mode.py": (["run.ome.zarr", "2"], "exposures, 0 missing"),
    "inside_a_gui.py": (["gui.ome.zarr"], "20 frames in"),
    "widget_in_qt.py": (["run.ome.zarr", "12"], "24 exposures, 0 missing"),
    "superposition_test.py": (["run.ome.zarr", "3"], "Lysosomes: PCC 0."),
    "arm_then_trigger.py": (["run.ome.zarr"], "36 exposures, 4 groups"),
    "closed_loop.py": (["4"], "4 super-resolution frames, 0 incomplete"),
    "react_to_frames.py": (["0.0"], "ended after"),
    "fluctuations_live.py": (["run.ome.zarr", "2", "short_fluctuation"], "2 images in"),
    "storm_density.py": (["run.ome.zarr", "4", "short_storm"], "the laser is left at 0"),
    "storm_localisations.py": (["run.ome.zarr", "2", "short_storm"], "of the emitters found"),
}


NIGHTLY = {"arm_then_trigger.py", "fluctuations_live.py", "live_mode.py", "superposition_test.py"}


@pytest.mark.parametrize(
    "name",
    [pytest.param(n, marks=pytest.mark.slow if n in NIGHTLY else ()) for n in ARGUMENTS],
)
def test_example(name: str, tmp_path: Path) -> None:
    arguments, words = ARGUMENTS[name]
    if short := [a for a in arguments if a.startswith("short_")]:
        # simulating 1000 frames takes most of the time, and 200 are shown
        shipped = short[0].replace("short_", "virtual_")
        rig = shutil.copytree(EXAMPLES.parent / "hardware_configs" / shipped, tmp_path / short[0])
        cfg = (rig / "rig.cfg").read_text(encoding="utf-8")
        assert "Camera,Frames,1000" in cfg
        (rig / "rig.cfg").write_text(
            cfg.replace("Camera,Frames,1000", "Camera,Frames,200"), encoding="utf-8"
        )
    assert words in said_by(EXAMPLES / name, *arguments, cwd=tmp_path)


def test_the_subscriber_receives_a_demo(tmp_path: Path) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"tcp://127.0.0.1:{probe.getsockname()[1]}"
    command = [
        sys.executable,
        "-m",
        "livesr",
        "demo",
        "--size",
        "64",
        "--frames",
        "60",
        "--publish",
        address,
        "--engine",
        "identity",
    ]
    demo = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.DEVNULL)
    out = said_by(EXAMPLES / "subscribe.py", address, 3, cwd=tmp_path)
    assert demo.wait(60) == 0
    assert out.count("prediction by identity") == 3


def test_the_preview_docks_and_shows_a_stream(tmp_path: Path) -> None:
    pytest.importorskip("ndv", reason="ndv is not installed: pip install 'livesr[viewer]'")
    if not shutil.which("xvfb-run"):
        pytest.skip("no Xvfb on this machine")
    sink = ZeroMQSink("tcp://127.0.0.1:*")
    sink.open(describe())
    over = threading.Event()

    def publish() -> None:
        t = 0
        while not over.wait(0.1):
            sink.recon(sr_frame(t))
            sink.separated(multicolor_frame(t))
            t += 1

    publisher = threading.Thread(target=publish, name="livesr-test-publisher")
    publisher.start()
    command = [
        "xvfb-run",
        "-a",
        sys.executable,
        str(EXAMPLES / "dock_in_gui.py"),
        sink.endpoint,
        "4",
    ]
    done = subprocess.run(
        command, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False
    )
    over.set()
    publisher.join()
    sink.close({})
    assert done.returncode == 0, done.stderr
    assert int(re.search(r"showed (\d+) pictures", done.stdout)[1]) > 3


def test_every_example_is_tested_and_listed() -> None:
    listed = (EXAMPLES / "README.md").read_text(encoding="utf-8")
    assert all(f"`{p.name}`" in listed for p in EXAMPLES.glob("*.py"))
    assert {p.name for p in EXAMPLES.glob("*.py")} == {*ARGUMENTS, "subscribe.py", "dock_in_gui.py"}
