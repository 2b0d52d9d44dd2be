"""livesr in a window's process: pymmcore-gui where it is installed, and one that behaves likewise.

Closed during an MDA, it ends the MDA, and the store is whole.
"""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr

SCRIPT = Path(__file__).parents[1] / "support" / "gui_in_a_process.py"
EXPOSURES = 9_000


def closed(store: Path, window: str, leaving: str) -> str:
    """Run the window in a process of its own until it has ended; return what it said."""
    screen, settings = [], {}
    if window == "pymmcore-gui":
        if not importlib.util.find_spec("pymmcore_gui"):
            pytest.skip(
                "pymmcore-gui is not installed: pip install"
                " 'git+https://github.com/pymmcore-plus/pymmcore-gui'"
            )
        if not shutil.which("xvfb-run"):
            pytest.skip("no Xvfb on this machine: apt-get install xvfb xauth")
        screen = ["xvfb-run", "-a", "-s", "-screen 0 1280x1024x24"]
    else:
        settings = {"QT_QPA_PLATFORM": "offscreen"}
    done = subprocess.run(
        [*screen, sys.executable, str(SCRIPT), str(store), window, leaving],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), **settings},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "at interpreter shutdown" not in done.stderr
    return done.stdout


@pytest.mark.parametrize(
    ("window", "leaving"),
    [
        ("qt", "window"),
        ("qt", "interpreter"),
        ("qt", "threadless"),
        ("pymmcore-gui", "window"),
        ("pymmcore-gui", "interpreter"),
    ],
)
def test_the_mda_ends_and_the_store_is_whole(tmp_path: Path, window: str, leaving: str) -> None:
    pytest.importorskip("qtpy", reason="Qt is not installed: pip install 'livesr[viewer]'")
    store = tmp_path / "closed.ome.zarr"
    said = closed(store, window, leaving)
    assert ("is_running()=False" in said) == (leaving == "window")
    report = json.loads((store / "livesr" / "report.json").read_text())
    assert 40 < report["raw_frames"] < EXPOSURES
    assert (report["raw_stored"], report["raw_lost"], report["error"]) == (
        report["raw_frames"],
        0,
        None,
    )
    assert any(w.startswith("LiveSR was left while") for w in report["warnings"])
    assert zarr.open_group(store, mode="r")["raw"].attrs["livesr"]["origin_px"] == [0.0, 0.0]
    assert_in_place(store, report)


def test_the_preview_of_pymmcore_gui_is_named_when_it_takes_frames(tmp_path: Path) -> None:
    """Its preview empties the core's buffer when it can; what it takes is told, never silent."""
    store = tmp_path / "previewed.ome.zarr"
    closed(store, "pymmcore-gui", "end")
    report = json.loads((store / "livesr" / "report.json").read_text())
    assert report["raw_frames"] + report["raw_missing"] == 225
    assert bool(report["raw_missing"]) == any("never came" in w for w in report["warnings"])
    assert_in_place(store, report)


def assert_in_place(store: Path, report: dict[str, Any]) -> None:
    """Every exposure that came is where its running number says, and all of them are there."""
    stamps = zarr.open_array(store / "raw" / "0", mode="r")[..., 0, 0].ravel().astype(int)
    (came,) = np.nonzero(stamps)
    assert len(came) == report["raw_frames"]
    assert len(set(stamps[came] - came)) == 1
