from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from livesr.base import memory


def test_a_computer_without_limits_says_what_is_free() -> None:
    assert 0 < memory.available_bytes() <= psutil.virtual_memory().total


def test_a_container_has_less(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "max").write_text("3000000\n")
    (tmp_path / "current").write_text("1000000\n")
    monkeypatch.setattr(memory, "_GROUPS", ((str(tmp_path / "max"), str(tmp_path / "current")),))
    assert memory.available_bytes() == 2_000_000
    (tmp_path / "max").write_text("max\n")
    assert memory.available_bytes() > 2_000_000


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such limits")
def test_a_limit_of_the_process_counts() -> None:
    limit = "import resource; resource.setrlimit(resource.RLIMIT_AS, (1 << 33, 1 << 33)); "
    ask = "from livesr.base.memory import available_bytes; print(available_bytes())"
    done = subprocess.run(
        [sys.executable, "-c", limit + ask], capture_output=True, text=True, timeout=60, check=True
    )
    assert 0 < int(done.stdout) < 1 << 33
