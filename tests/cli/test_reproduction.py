"""The comparisons of docs/reproduction.md run from pairs to table, and go on where they were
interrupted."""

from __future__ import annotations

import json
import re
import runpy
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

pytest.importorskip("torch")

ROOT = Path(__file__).parents[2]
RECIPE = {
    "description": "A network of almost no size.",
    "data": {"train": 8, "validation": 4, "size": 64, "seed": 5, "validation_seed": 6},
    "train": {
        "parameters": {
            "frames": 3,
            "channels": 3,
            "width": 8,
            "groups": 1,
            "blocks": 1,
            "reduction": 4,
            "unshuffle": 2,
        },
        "steps": 6,
        "patch": 48,
        "batch": 2,
        "precision": "fp32",
    },
    "engine": {
        "id": "tiny",
        "version": "0",
        "task": "separate",
        "window": 3,
        "channels": [{"name": n, "color": "00FF00"} for n in ("Microtubules", "ER", "Lysosomes")],
    },
}


@pytest.fixture
def reproduce(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(RECIPE))
    main = runpy.run_path(str(ROOT / "scripts" / "reproduce.py"))["main"]

    def call(*arguments: str) -> int:
        sizes = [
            "--budget",
            "3",
            "--pairs",
            "8",
            "--sequences",
            "2",
            "--size",
            "96",
            "--diagnosed",
            "1",
            "--threads",
            "1",
            "--workers",
            "1",
        ]
        command = [
            *arguments,
            *sizes,
            "--recipe",
            str(tmp_path / "tiny.yaml"),
            "--out",
            str(tmp_path / "out"),
        ]
        monkeypatch.setattr("sys.argv", ["reproduce.py", *command])
        return main()

    return call


def test_a_comparison_goes_on_and_ends_with_table_and_figure(
    reproduce: Callable[..., int], tmp_path: Path
) -> None:
    assert reproduce("continuity", "--slice", "1e-9") == 75
    assert reproduce("continuity") == 0
    folder = tmp_path / "out" / "continuity"
    table = (folder / "table.md").read_text(encoding="utf-8")
    assert (
        len(re.findall(r"^\| (three frames|one frame) \| calibrated \|", table, re.MULTILINE)) == 6
    )
    found = json.loads((folder / "table.json").read_text(encoding="utf-8"))
    assert found["settings"] == {"budget": 3, "pairs": 8, "sequences": 2}
    assert (folder / "figure.png").stat().st_size > 1000
    trained = {
        p.parents[1]: yaml.safe_load(p.read_text())["window"]
        for p in (tmp_path / "out").rglob("manifest.yaml")
    }
    assert sorted(trained.values()) == [1, 3]
    made = {run: (run / "final.pt").stat().st_mtime_ns for run in trained}
    assert reproduce("continuity") == 0
    assert made == {run: (run / "final.pt").stat().st_mtime_ns for run in trained}, (
        "what is finished is kept"
    )
    assert reproduce("snr") == 0
    again = {p.parent: p.stat().st_mtime_ns for p in (tmp_path / "out").rglob("final.pt")}
    assert again == made, "what two comparisons need is trained once"


def test_the_page_names_every_comparison() -> None:
    known = runpy.run_path(str(ROOT / "scripts" / "reproduce.py"))["COMPARISONS"]
    page = (ROOT / "docs" / "reproduction.md").read_text(encoding="utf-8")
    assert set(re.findall(r"^\| `([a-z-]+)` \|", page, re.MULTILINE)) == set(known)
