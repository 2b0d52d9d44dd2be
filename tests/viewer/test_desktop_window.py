"""The desktop window under Xvfb: opened, fed, photographed."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image

from livesr.viewer.icons import CACHE

pytest.importorskip("ndv", reason="ndv is not installed: pip install 'livesr[viewer]'")


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory):
    """What the window said and its picture."""
    if sys.platform != "linux" or not shutil.which("xvfb-run"):
        pytest.skip("no Xvfb on this machine: apt-get install xvfb xauth libegl1 libgl1-mesa-dri")
    png = tmp_path_factory.mktemp("window") / "window.png"
    script = Path(__file__).parents[1] / "support" / "window_in_a_process.py"
    command = [
        "xvfb-run",
        "-a",
        "-s",
        "-screen 0 1280x1024x24",
        sys.executable,
        "-W",
        "error",
        str(script),
        str(png),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1]), np.asarray(
        Image.open(png).convert("RGB")
    ).astype(int)


def test_it_says_what_it_shows(opened) -> None:
    said, _ = opened
    assert said["empty"] == ["Waiting for a stream"]
    assert {"Measurement", "Prediction (AI)", "Look <b>here</b>."} <= set(said["live"])
    assert said["live"][-1] == "Live   t 1   latency 62 ms   residual 3.4 %"
    assert "Prediction (AI) · provisional" in said["provisional"]
    assert said["ended"][-1].startswith("Stream ended: this is its last picture")


def test_sliders_reach_as_far_as_the_pixels_and_no_further(opened) -> None:
    said, _ = opened
    assert said["ranges"] == [[0, 1000]] * 4
    assert {"#00FF00", "#FF00FF", "#FFFF00"} <= set(said["colormaps"])  # the column is narrow


def test_each_picture_has_a_scale_bar(opened) -> None:
    said, _ = opened
    assert said["live"].count("500 nm") == 2  # of 3.2 µm


def test_the_right_colours_are_on_the_screen(opened) -> None:
    _, picture = opened
    for color in ((0, 255, 0), (255, 0, 255), (255, 255, 0)):
        assert (np.abs(picture - color).max(axis=2) < 12).sum() > 10_000, color
    grey = (np.abs(picture - 128).max(axis=2) < 6).sum()
    assert grey > 30_000  # the measurement, half way up its window


@pytest.mark.parametrize("icon", sorted(CACHE.glob("svg_cache/*.svg")), ids=lambda p: p.stem)
def test_every_icon_is_a_drawing(icon: Path) -> None:
    # That none is missing shows the process above, which forbids the network and every warning.
    drawing = ElementTree.parse(icon).getroot()
    assert drawing.tag == "{http://www.w3.org/2000/svg}svg"
    assert any(len(shape.attrib.get("d", "")) > 5 for shape in drawing.iter())


def test_without_a_screen_the_command_says_so(tmp_path: Path) -> None:
    if sys.platform != "linux":
        pytest.skip("elsewhere there is always a screen")
    environment = {k: v for k, v in os.environ.items() if k not in {"DISPLAY", "WAYLAND_DISPLAY"}}
    command = [sys.executable, "-m", "livesr", "view", "tcp://127.0.0.1:9", "--window"]
    done = subprocess.run(
        command, capture_output=True, text=True, env=environment, timeout=120, check=False
    )
    assert done.returncode == 2
    assert "There is no screen" in done.stderr
