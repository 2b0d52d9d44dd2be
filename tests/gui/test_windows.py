"""livesr's widget in real programs, by their own buttons: what they acquire is in the store, whole.

Screenshots of every step lie beside the stores, in the test's own folder.
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

from livesr.formats.store import RecordedStore

SCRIPT = Path(__file__).parents[1] / "support" / "widget_in_a_process.py"
GROUPS, RAW = 10, 9


def worked(where: str, folder: Path, *, screen: bool = False, api: str = "") -> dict[str, Any]:
    """Run the window until it is closed; return what was seen."""
    pytest.importorskip("qtpy", reason="no Qt: pip install 'livesr[gui]'")
    command = [sys.executable, str(SCRIPT), where, str(folder)]
    settings = {"QT_API": api} if api else {}
    if not screen:
        settings["QT_QPA_PLATFORM"] = "offscreen"
    elif shutil.which("xvfb-run"):
        command = ["xvfb-run", "-a", "-s", "-screen 0 1600x1000x24", *command]
    else:
        pytest.skip("no Xvfb on this machine: apt-get install xvfb xauth")
    home = {name: str(folder) for name in ("HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME")}
    done = subprocess.run(
        command,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), **home, **settings},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    seen: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    assert "failed" not in seen, f"{seen['failed']}; screenshots in {folder}\n{done.stderr}"
    assert "Traceback" not in done.stderr, done.stderr
    return seen


def check_whole(report: dict[str, Any]) -> int:
    """Check that every exposure of a run is in its store; return how many there are."""
    assert not [w for w in report["warnings"] if "another program takes frames" in w]
    raw = zarr.open_array(Path(report["store"]) / "raw" / "0", mode="r")
    filled = np.asarray(raw[:]).reshape(-1, *raw.shape[-2:]).any(axis=(1, 2)).sum()
    assert filled == report["raw_frames"]
    return int(filled)


def check_runs(seen: dict[str, Any]) -> None:
    assert [report["raw_missing"] for report in seen["reports"]] == [0, 0]
    live, mda = sorted(seen["reports"], key=lambda r: r["raw_frames"] == GROUPS * RAW)
    assert check_whole(mda) == GROUPS * RAW
    assert check_whole(live) > 15 * RAW
    assert seen["problem"] == ""
    assert seen["missing"] == "0"
    assert all(seen["shown"].values()), seen["shown"]


def test_the_widget_alone_acquires_by_its_own_buttons(tmp_path: Path) -> None:
    seen = worked("qt", tmp_path)
    check_runs(seen)
    assert "Recording the live view into run_2.ome.zarr" in seen["state in live"]
    assert seen["chosen"].endswith("mean of 2 views")
    said = RecordedStore(tmp_path / "run.ome.zarr").provenance("488")
    assert said["ensemble"] == "half-turn"
    assert seen["state at the end"] == "idle"


@pytest.mark.slow
def test_it_is_the_same_with_pyside(tmp_path: Path) -> None:
    if not importlib.util.find_spec("PySide6"):
        pytest.skip("PySide6 is not installed: pip install PySide6")
    check_runs(worked("qt", tmp_path, api="pyside6"))


@pytest.mark.slow
def test_it_records_what_the_buttons_of_pymmcore_widgets_acquire(tmp_path: Path) -> None:
    pytest.importorskip("pymmcore_widgets", reason="pip install pymmcore-widgets")
    check_runs(worked("pymmcore-widgets", tmp_path))


needs_pymmcore_gui = pytest.mark.skipif(
    not importlib.util.find_spec("pymmcore_gui"),
    reason="pymmcore-gui is not installed: pip install"
    " 'git+https://github.com/pymmcore-plus/pymmcore-gui'",
)


@needs_pymmcore_gui
def test_nothing_is_lost_beside_the_preview_of_pymmcore_gui(tmp_path: Path) -> None:
    seen = worked("pymmcore-gui", tmp_path, screen=True)
    check_runs(seen)
    assert seen["drawn by its preview"] >= 1  # it goes on, with what livesr took
    assert seen["drawn of three sizes and types"] == 1  # what it was made for
    assert seen["narrowest of the docks"] > 0.15  # pictures and plan can be seen


@pytest.mark.parametrize(
    "window", ["closing", pytest.param("closing pymmcore-gui", marks=needs_pymmcore_gui)]
)
def test_closing_the_window_ends_the_acquisition_and_the_store_is_whole(
    window: str, tmp_path: Path
) -> None:
    seen = worked(window, tmp_path, screen="pymmcore-gui" in window)
    assert seen["state at the end"] == "idle"
    store = tmp_path / "run.ome.zarr"
    report = json.loads((store / "livesr" / "report.json").read_text(encoding="utf-8"))
    assert report["error"] is None
    assert 5 * RAW < report["raw_stored"] < 1000 * RAW
    check_whole({**report, "store": store})


def test_what_cannot_be_done_is_a_sentence(tmp_path: Path) -> None:
    seen = worked("refused", tmp_path)
    assert seen["rig"].startswith("No rig 'no such rig'")
    # the pattern display of the one has no live view; the other's is recorded as before
    assert (seen["live view of tirf_sim"], seen["live view of virtual_sim"]) == ("off", "own")
    for width in (400, 150):
        assert seen[f"facts in {width} px"] == ["7067 to 58467 ADU", True]
    state, said = seen["nameless"]
    assert state == "idle"
    assert said.startswith("Store is ticked and names no folder")
    lost, whole = (
        [int(color[n : n + 2], 16) for n in (1, 3, 5)]
        for color in seen["colours of 2 and 0 missing"]
    )
    assert lost[0] == max(lost)  # red
    assert whole[2] == max(whole)  # blue, as everything of this window: nothing is missing
    assert "NOT recorded" in seen["live view"]
    assert seen["fine"] == ""
    wanted, there = seen["wanted and there"]
    assert seen["scrolled"]
    assert wanted <= there  # nothing lies behind the bar
    state, said = seen["store"]
    assert state == "idle"  # before an engine is opened
    assert said.startswith("Cannot create ")
    assert "Traceback" not in said
    assert "later" in seen["store later"]
    assert "Traceback" not in seen["store later"]
