"""Classes stay small and the way of a frame short; the script that measures them counts right."""

from __future__ import annotations

import runpy
from pathlib import Path
from typing import Any

import pytest

REPOSITORY = Path(__file__).parents[2]
PACKAGE = REPOSITORY / "src" / "livesr"
DECISION = REPOSITORY / "docs" / "adr" / "0016-classes-beyond-the-limits.md"
MAX_FIELDS, MAX_METHODS, MAX_FILES = 20, 25, 15

BEYOND = {
    "live/arrays.py:Arrays": (1, 30),
    "live/inference/engine.py:Manifest": (27, 7),
    "live/sinks/ome_zarr.py:OMEZarrSink": (21, 41),
    "live/sinks/series.py:Series": (23, 37),
    "modalities/modality.py:Modality": (8, 28),
    "modalities/sim/config.py:SIMConfig": (21, 10),
}
"""Classes beyond the limits, with the fields and methods that they may have; the decision argues
each."""

SOURCE = '''
"""A module."""
from dataclasses import dataclass

@dataclass
class Record:
    shape: tuple[int, int]
    scale: ClassVar[int] = 2
    dark: bool = False

class Worker:
    slots: int

    def __init__(self, a, b=1, *rest, c, **more):
        """Begin."""
        self.first, (self.second, _) = a, (b, c)

    @property
    def third(self):
        self._third: int = 3
        other.fourth = 4
        return self._third

    @staticmethod
    def of(
        one,
    ):
        def inner():
            return 1

        return inner

    @overload
    def late(self, x: int) -> int: ...

    def late(self, x):
        if x:
            self.late_field += 1

def stub() -> None:
    """Nothing."""
'''


@pytest.fixture(scope="module")
def metrics() -> dict[str, Any]:
    """What scripts/house_metrics.py defines."""
    return runpy.run_path(str(REPOSITORY / "scripts" / "house_metrics.py"), run_name="metrics")


@pytest.fixture
def house(metrics: dict[str, Any], tmp_path: Path) -> Any:
    (tmp_path / "part").mkdir()
    (tmp_path / "part" / "work.py").write_text(SOURCE)
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests" / "test_work.py").write_text("def test_it():\n    pass\n")
    return metrics["measure"](tmp_path)


def test_classes_are_counted(house: Any) -> None:
    found = {c.name: (c.fields, c.methods, c.record) for c in house.classes}
    assert found == {
        "part/work.py:Record": (2, 0, True),
        # slots, first, second, _third, late_field
        "part/work.py:Worker": (5, 4, False),
    }


def test_functions_are_counted(house: Any) -> None:
    worker = "part/work.py:Worker"
    assert {f.name: (f.lines, f.parameters) for f in house.functions} == {
        f"{worker}.__init__": (2, 5),
        f"{worker}.third": (4, 0),
        f"{worker}.of": (5, 1),
        f"{worker}.of.inner": (2, 0),
        f"{worker}.late": (3, 1),
    }
    assert house.lengths == (3, 4, 5)
    assert house.crowded == []


def test_what_a_frame_visits_is_read_in_order(metrics: dict[str, Any]) -> None:
    text = (
        "See `other.py`.\n\n**The way of one frame.** It goes on.\n\n1. `a/b.py`: `C` takes it.\n"
        "2. `d.py`, then `a/b.py` again.\n\n**Checks.** `not_this.py`\n"
    )
    assert metrics["files_of_a_frame"](text) == ["a/b.py", "d.py"]
    assert metrics["files_of_a_frame"]("Nothing is told of `a.py`.") == []


def test_classes_keep_to_the_limits(metrics: dict[str, Any]) -> None:
    sizes = {
        f"{part}/{c.name}": (c.fields, c.methods)
        for part in ("live", "modalities")
        for c in metrics["measure"](PACKAGE / part).classes
    }
    assert len(sizes) > 150
    beyond = {n: s for n, s in sizes.items() if s[0] > MAX_FIELDS or s[1] > MAX_METHODS}
    assert set(beyond) == set(BEYOND), "make it smaller, or argue it in the decision"
    for name, (fields, methods) in beyond.items():
        assert fields <= BEYOND[name][0], f"{name} grew"
        assert methods <= BEYOND[name][1], f"{name} grew"


@pytest.mark.parametrize("name", BEYOND)
def test_every_class_beyond_the_limits_is_argued(name: str) -> None:
    path, _, class_name = name.partition(":")
    assert f"`{class_name}` (`{path}`)" in DECISION.read_text(encoding="utf-8")


def test_the_way_of_a_frame_is_short(metrics: dict[str, Any]) -> None:
    told = (REPOSITORY / "CONTRIBUTING.md").read_text(encoding="utf-8")
    files = metrics["files_of_a_frame"](told)
    assert 5 < len(files) <= MAX_FILES
    assert [name for name in files if not (PACKAGE / name).is_file()] == []
