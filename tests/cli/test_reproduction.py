"""The comparisons of docs/reproduction.md run from pairs to table, and go on where they were
interrupted."""

from __future__ import annotations

import json
import re
import runpy
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import yaml
from scipy.ndimage import gaussian_filter

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


PITS = [*RECIPE["engine"]["channels"][:2], {"name": "CCPs", "color": "FFFF00"}]  # type: ignore[index]


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
            *([] if "--recipe" in arguments else ["--recipe", str(tmp_path / "tiny.yaml")]),
            "--out",
            str(tmp_path / "out"),
        ]
        monkeypatch.setattr("sys.argv", ["reproduce.py", *command])
        return main()

    return call


@pytest.mark.slow
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


@pytest.fixture
def pits(tmp_path: Path) -> str:
    """A recipe of the paper's second combination, of almost no size, that begins elsewhere."""
    recipe = {
        **RECIPE,
        "data": {**RECIPE["data"], "domain": {"structures": ["microtubules", "er", "ccps"]}},  # type: ignore[dict-item]
        "train": {**RECIPE["train"], "start": "imcsr-mt-er-lyso-light"},  # type: ignore[dict-item]
        "engine": {**RECIPE["engine"], "channels": PITS},  # type: ignore[dict-item]
    }
    (tmp_path / "pits.yaml").write_text(yaml.safe_dump(recipe))
    return str(tmp_path / "pits.yaml")


@pytest.mark.slow
@pytest.mark.parametrize("comparison", ["all-single", "loss", "snr"])
def test_the_second_combination_is_compared_and_tested_on_the_same_cells(
    comparison: str, reproduce: Callable[..., int], pits: str, tmp_path: Path
) -> None:
    assert reproduce(comparison, "--recipe", pits) == 0
    found = json.loads((tmp_path / "out" / comparison / "table.json").read_text(encoding="utf-8"))
    (label, *_) = found["paired"]
    tests = found["paired"][label]
    assert [test["structure"] for test in tests[::4]] == ["Microtubules", "ER", "CCPs"]
    assert all(0 <= test["p"] <= 1 for test in tests)
    result = next(
        iter(next(v for k, v in found.items() if k not in {"settings", "paired"}).values())
    )
    assert set(result["sequences"][0]) >= {"network", "input", "false_positive"}
    assert len(result["diagnostics"]["flicker"]["CCPs"]["values"]) == 1
    assert "On the same cells" in (tmp_path / "out" / comparison / "table.md").read_text("utf-8")


@pytest.mark.slow
def test_figures_on_images_laid_out_as_biosr(
    reproduce: Callable[..., int], pits: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mrcfile = pytest.importorskip("mrcfile")
    rng = np.random.default_rng(3)
    for name in ("Microtubules", "ER", "CCPs"):
        for cell in range(4):
            folder = tmp_path / "BioSR" / name / f"Cell_{cell:03}"
            folder.mkdir(parents=True)
            image = 500 * gaussian_filter(rng.random((128, 128)), 2).astype(np.float32)
            with mrcfile.new(
                folder / ("GTSIM_level_01.mrc" if name == "ER" else "SIM_gt.mrc")
            ) as file:
                file.set_data(image)
            (folder / "RawSIMData_level_01.mrc").write_bytes(b"not read")
    data = ("--biosr", str(tmp_path / "BioSR"), "--recipe", pits)
    assert reproduce("figures", *data) == 0
    for comparison in ("all-single", "loss", "snr"):
        table = (tmp_path / "out" / comparison / "table.md").read_text(encoding="utf-8")
        assert "BioSR pairs" in table
        assert "| CCPs | PCC |" in table
    assert reproduce("loss", "--biosr", str(tmp_path / "BioSR")) == 2
    assert "has no folder of Lysosomes" in capsys.readouterr().err


def test_the_page_names_every_comparison() -> None:
    known = runpy.run_path(str(ROOT / "scripts" / "reproduce.py"))["COMPARISONS"]
    page = (ROOT / "docs" / "reproduction.md").read_text(encoding="utf-8")
    assert set(re.findall(r"^\| `([a-z-]+)` \|", page, re.MULTILINE)) == set(known)
