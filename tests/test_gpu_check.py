"""scripts/gpu_check.py where there is no GPU.

Whatever can run does, and the rest says why it did not.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from livesr.live.inference.cuda import why_no_gpu

SCRIPT = Path(__file__).parents[1] / "scripts" / "gpu_check.py"


@pytest.mark.skipif(why_no_gpu() is None, reason="a GPU is here")
def test_without_a_gpu_every_part_says_why_it_was_not_run(tmp_path: Path) -> None:
    for package in ("torch", "onnx", "matplotlib"):
        pytest.importorskip(package)
    command = [sys.executable, str(SCRIPT), "--out", str(tmp_path), "--quick", "--minutes", "9"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=590, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    report = json.loads((tmp_path / "report.json").read_text())
    parts = report["parts"]
    assert {name for name, part in parts.items() if part["state"] == "done"} == {
        "environment",
        "network",
    }
    assert parts["network"]["found"]["operators_not_on_the_list"] == []
    assert all("NVIDIA" in part["reason"] for part in parts.values() if part["state"] == "not run")
    assert {part["state"] for part in parts.values()} == {"done", "not run"}
    assert {target["said"] for target in report["targets"]} == {"not run"}
    with Image.open(tmp_path / "report.png") as picture:
        assert picture.width > 1000
    # A second call keeps what is done.
    done_at = (tmp_path / "parts" / "network-quick.json").stat().st_mtime_ns
    subprocess.run(command, capture_output=True, timeout=590, check=True)
    assert (tmp_path / "parts" / "network-quick.json").stat().st_mtime_ns == done_at
