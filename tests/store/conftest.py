"""The engine that the stores of these tests were predicted with."""

from __future__ import annotations

from pathlib import Path

import pytest

from livesr.live.inference.engine import Engine
from recorded_runs import mixing_engine


@pytest.fixture
def engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Engine:
    """An engine whose channels are different mixtures of the three frames, found by its name."""
    home = tmp_path / "home"
    monkeypatch.setenv("LIVESR_HOME", str(home))
    return mixing_engine(home / "engines" / "mixing")
