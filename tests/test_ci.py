"""What decides whether a change is good.

What failed runs once more, and a known vulnerability fails.
"""

from __future__ import annotations

import os
import runpy
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[1]
ONCE = """
import os, pathlib
def first():
    flag = pathlib.Path(__file__).with_name("ran")
    return not flag.exists() and flag.write_text("") == 0
def test_good(): pass
def test_bad(): {bad}
def test_other(): pass
"""

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason=".ci/run is a shell script")


@pytest.mark.parametrize(
    ("bad", "options", "code", "again"),
    [
        ("assert not first()", "", 0, "1 passed"),
        ("assert False", "", 1, "1 failed"),
        (
            "first() and os._exit(9)",
            "--max-worker-restart=0",
            0,
            "3 passed",
        ),  # the run ends there, test_other is left over
        (
            "first() and os._exit(9)",
            "",
            0,
            "3 passed",
        ),  # passes in the process that replaces the crashed one
    ],
)
def test_what_failed_runs_once_more(
    tmp_path: Path, bad: str, options: str, code: int, again: str
) -> None:
    (tmp_path / "test_once.py").write_text(ONCE.format(bad=bad))
    shutil.copy(REPOSITORY / "tests" / "support" / "whole_run.py", tmp_path / "conftest.py")
    (tmp_path / "pytest.ini").write_text(
        f"[pytest]\naddopts = -p xdist -n 1 --dist loadfile {options}\n"
    )
    outer = {k: v for k, v in os.environ.items() if not k.startswith("PYTEST_")}
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-c", f"pytest || {REPOSITORY / '.ci' / 'again'} $?"],
        cwd=tmp_path,
        env={**outer, "PATH": path, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == code, done.stdout + done.stderr
    assert again in done.stdout.rpartition("again: ")[2].splitlines()[-1]


def test_a_vulnerable_pin_fails(capsys: pytest.CaptureFixture[str]) -> None:
    judge = runpy.run_path(str(REPOSITORY / ".ci" / "audit"))["judge"]
    known = {"name": "zarr", "version": "3.1.6", "vulns": []}
    bad = {
        "name": "pillow",
        "version": "9",
        "vulns": [{"id": "PYSEC-1", "fix_versions": ["10.0.1"], "aliases": []}],
    }
    lost = {
        "name": "torch",
        "skip_reason": "Dependency not found on PyPI and could not be audited: torch (2.13.0)",
    }
    assert judge([known, lost]) == 0
    assert "1 of 2 pins looked up" in capsys.readouterr().out
    assert judge([lost]) == 0
    assert "nothing was looked up" in capsys.readouterr().out
    assert judge([known, bad, lost]) == 1
    assert "pillow 9: PYSEC-1, mended in 10.0.1" in capsys.readouterr().out
