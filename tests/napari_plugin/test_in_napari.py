"""The plugin in the real napari, under Xvfb: stores, streams and runs, as its window shows them."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from contracts import OFFSET_ADU, describe, multicolor_frame, sr_frame
from livesr.formats.store import RecordedStore
from livesr.live.sinks.ome_zarr import OMEZarrSink

SCRIPT = Path(__file__).parents[1] / "support" / "napari_in_a_process.py"

pytestmark = [
    pytest.mark.skipif(
        not importlib.util.find_spec("napari"),
        reason="napari is not installed: pip install 'livesr[napari]'",
    ),
    pytest.mark.skipif(
        sys.platform != "linux" or not shutil.which("xvfb-run"),
        reason="no Xvfb on this machine: apt-get install xvfb xauth libegl1 libgl1-mesa-dri",
    ),
]


def worked(what: str, folder: Path, *more: str) -> subprocess.CompletedProcess[str]:
    """Run the window to its end."""
    screen = ["xvfb-run", "-a", "-s", "-screen 0 1400x900x24"]
    command = [*screen, sys.executable, str(SCRIPT), what, str(folder), *more]
    paths = os.pathsep.join([str(SCRIPT.parent), *filter(None, [os.environ.get("PYTHONPATH")])])
    return subprocess.run(
        command,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": paths},
        timeout=280,
        check=False,
    )


def understood(done: subprocess.CompletedProcess[str], folder: Path) -> dict[str, Any]:
    assert done.returncode == 0, f"{done.stderr[-3000:]}\nscreenshots: {folder}"
    said: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return said


def in_napari(what: str, folder: Path, *more: str) -> dict[str, Any]:
    """What the window said; its screenshots stay in `folder`."""
    return understood(worked(what, folder, *more), folder)


def test_a_store_is_opened_as_a_whole(tmp_path: Path) -> None:
    sink = OMEZarrSink(tmp_path / "run.ome.zarr")
    sink.open(describe(interval_s=0.5))
    for t in range(2):
        sink.recon(sr_frame(t))
        frame = multicolor_frame(t)
        for c, (_, high) in enumerate(frame.display):
            frame.channels[c] = 0
            frame.channels[c, :, 11 * c : 11 * c + 10] = high
        sink.separated(frame)
    sink.close({})
    said = in_napari("store", tmp_path, str(sink.path))
    layers = said["layers"]
    assert "ER · prediction" in layers
    assert [n for n, layer in layers.items() if layer["visible"]] == [
        f"{label} · prediction" for label in ("Microtubules", "ER", "Lysosomes")
    ]
    assert all(layer["units"][-1] == "micrometer" for layer in layers.values())
    assert layers["ER · prediction"]["scale"] == pytest.approx([0.5, 0.0325, 0.0325])
    assert all(count > 10_000 for count in said["colors"]), said["colors"]


def test_a_store_begins_at_its_first_picture(tmp_path: Path) -> None:
    sink = OMEZarrSink(tmp_path / "run.ome.zarr")
    sink.open(describe(interval_s=0.5))
    for t in range(6):
        sink.recon(sr_frame(t))
        if t in (3, 5):
            sink.separated(multicolor_frame(t))
        else:
            sink.skipped(sr_frame(t).stream, t, "the network cannot keep up")
    sink.close({})
    assert in_napari("first", tmp_path, str(sink.path))["t"] == 3


@pytest.mark.timeout(1800)  # six windows, where it crashes
def test_what_napari_micromanager_acquires_is_recorded(tmp_path: Path) -> None:
    """Its MDA and its live mode, by its own buttons, on the core that it made for itself."""
    if not importlib.util.find_spec("napari_micromanager"):
        pytest.skip("napari-micromanager is not installed: pip install napari-micromanager")
    ended = -signal.SIGSEGV, 128 + signal.SIGSEGV
    for _ in range(3):
        done = worked("micromanager", tmp_path)
        if done.returncode not in ended:
            break
        shutil.rmtree(tmp_path)
        tmp_path.mkdir()
    else:
        alone = [worked("micromanager_alone", tmp_path).returncode for _ in range(3)]
        assert set(alone) & set(ended), "it crashes beside livesr only"
        pytest.skip("napari-micromanager crashes on this computer, without livesr as well")
    said = understood(done, tmp_path)
    assert said["another core than the instance"]
    mda, *lives = said["reports"]  # its live mode starts anew for every change of a setting
    assert (mda["raw_frames"], mda["raw_missing"]) == (12, 0)
    assert len(RecordedStore(Path(mda["store"])).pictures("raw")) == 12
    assert max(live["raw_frames"] for live in lives) > 20


def test_a_stream_is_followed_until_it_ends(tmp_path: Path) -> None:
    said = in_napari("stream", tmp_path)
    assert "nonsense" in said["nonsense"]
    first = said["first"]
    assert [name.rpartition(" · ")[2] for name in first] == ["measurement", *["prediction"] * 3]
    assert [layer["visible"] for layer in first.values()] == [False, True, True, True]
    assert first["live ER · prediction"]["limits"] == [20, 300]
    measured = next(iter(first.values()))
    assert measured["scale"] == pytest.approx([0.0325, 0.0325])
    assert measured["corner"] == sr_frame(1).image[0, 0] != sr_frame(1).image[0, 0] + OFFSET_ADU
    assert "Look here." in said["words"]
    assert "What is shown of this structure" in said["words"]
    assert said["at the edge"] == 0  # no letter is cut off
    assert said["second"]["live Microtubules · prediction"]["limits"] == [0, 123]  # set by hand
    assert all(count > 10_000 for count in said["colors"]), said["colors"]
    assert said["deleted"] is False


def test_depth_colours_the_measurement_of_a_stream(tmp_path: Path) -> None:
    said = in_napari("depth", tmp_path)
    measurement, depth = said["layers"]
    assert measurement.endswith("measurement")
    assert depth == "live depth, nm · measurement"
    assert said["layers"][depth]["limits"] == [-400, 400]
    assert all(count > 10_000 for count in said["colors"]), said["colors"]


def test_a_run_is_made_by_the_buttons_of_its_widget(tmp_path: Path) -> None:
    said = in_napari("run", tmp_path)
    assert [name.partition(" · ")[0] for name in said["layers"]] == ["488", "561"]
    store = RecordedStore(Path(said["store"]))
    assert said["raw_frames"] == len(store.pictures("raw")) == 6


def test_closing_the_window_during_a_live_view_ends_it_without_an_error(tmp_path: Path) -> None:
    done = worked("closing", tmp_path)
    assert understood(done, tmp_path) == {"state": "idle", "problem": "", "reports": 1}
    assert "Error" not in done.stderr, done.stderr[-3000:]
    store = RecordedStore(tmp_path / "run.ome.zarr")
    assert len(store.pictures("raw")) > 1
