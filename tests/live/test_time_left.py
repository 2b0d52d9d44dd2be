"""A run that had time for several views of every frame says so; the clock is the test's."""

from __future__ import annotations

from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from livesr.base.config import Step
from livesr.cli.output import run_table
from livesr.live.inference.engine import write_manifest
from livesr.live.inference.test_time_augmentation import most_within
from recorded_runs import Live, mixing_engine, moving_groups, sim_rig
from upscaling import edsr_engine

Recorded = Callable[..., dict[str, Any]]
SLOW_NS = 100_000_000_000


@pytest.fixture
def recorded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Recorded:
    def record(
        every_ns: int,
        groups: int = 24,
        trained: bool = True,
        step: Step = "separate",
        **options: Any,
    ) -> dict[str, Any]:
        make = mixing_engine if step == "separate" else edsr_engine
        plain = make(tmp_path / "engine")
        write_manifest(plain.folder, plain.manifest.model_copy(update={"trained": trained}))
        ticks = count(every_ns, every_ns)
        monkeypatch.setattr("livesr.live.run_state.now_ns", lambda: next(ticks))
        rig = sim_rig("none").with_engine(str(plain.folder), step)
        return Live(rig, tmp_path / "run", **options).record(moving_groups(groups))

    return record


@pytest.mark.parametrize(
    ("alone_ms", "square", "views"),
    [
        (1, True, "d4"),
        (9, True, "d4"),
        (9, False, "flips"),
        (10, True, "flips"),
        (20, True, "half-turn"),
    ],
)
def test_as_many_views_as_three_quarters_of_the_time_hold(
    alone_ms: float, square: bool, views: str
) -> None:
    assert most_within(100, alone_ms, square=square) == views


@pytest.mark.parametrize(("ms", "alone_ms"), [(100, 40), (float("nan"), 1), (1, 100)])
def test_no_views_where_not_two_fit(ms: float, alone_ms: float) -> None:
    assert most_within(ms, alone_ms, square=True) is None


def test_a_slow_camera_leaves_time_for_views(recorded: Recorded) -> None:
    report = recorded(SLOW_NS)
    assert report["time_left"]["ensemble"] == "d4"
    assert report["time_left"]["interval_ms"] >= 0.95 * SLOW_NS / 1e6  # of whoever asks the clock
    assert report["time_left"]["network_ms"] > 0
    rows = dict(zip(*(column.cells for column in run_table(report).columns), strict=True))
    assert "--ensemble d4 draws better and would keep up" in rows["time left"]


@pytest.mark.parametrize(
    "case",
    [
        {"every_ns": 1},  # as fast as nothing could be
        {"groups": 8},  # too few to tell
        {"trained": False},
        {"step": "upscale"},  # nobody measured what views are worth to it
        {"ensemble": "half-turn"},
        {"uncertainty": "flips"},
        {"policy": "latest", "slow": {"infer": 0.1}},  # frames were given up
    ],
    ids=lambda case: next(iter(case)),
)
def test_nothing_is_said_where_there_is_none(recorded: Recorded, case: dict[str, Any]) -> None:
    assert "time_left" not in recorded(**{"every_ns": SLOW_NS, **case})
