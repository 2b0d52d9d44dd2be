"""`livesr check --hardware`: a rig with its devices on says what its frames show, and a broken one
is told so."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from livesr.base.config import load_rig
from livesr.check.hardware import look
from livesr.cli import _run
from rig_copies import RIGS
from rigs import core_of


def copied(folder: Path, rig: str, **changes: str) -> Path:
    """A copy of a shipped rig; `cfg` and `yaml` are "before => after", separated by semicolons."""
    target = folder / rig
    shutil.copytree(RIGS / rig, target)
    for name, said in changes.items():
        file = target / f"rig.{name}"
        text = file.read_text(encoding="utf-8")
        for change in said.split(";"):
            before, after = change.split(" => ")
            assert before in text
            text = text.replace(before, after)
        file.write_text(text, encoding="utf-8")
    return target


def looked(
    rig: Path, capsys: pytest.CaptureFixture[str], *flags: str
) -> tuple[int, dict[str, Any], Path]:
    picture = rig.parent / "look.png"
    code = _run(["check", str(rig), "--hardware", "--picture", str(picture), "--json", *flags])
    report = json.loads(capsys.readouterr().out)
    return code, {m["name"]: m for m in report["hardware"]["measured"]}, picture


SMALL = (
    "SensorSize,256 => SensorSize,128;TimePoints,40 => TimePoints,4;Camera,Rig,virtual_sim =>"
    " Camera,Rig,{}"
)


def test_a_sim_rig_that_is_right(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rig = copied(tmp_path, "virtual_sim", cfg=SMALL.format(tmp_path / "virtual_sim"))
    code, seen, picture = looked(rig, capsys)
    assert code == 0
    assert {m["verdict"] for m in seen.values()} == {"ok"}, seen
    assert seen["pattern order"]["value"] == "right"
    assert "128 x 128" in seen["region"]["value"]
    with Image.open(picture) as drawn:
        assert drawn.size == (3 * 390 + 6, 4 * 408 + 6)
        tiles = [
            drawn.crop((6 + 390 * x, 24 + 408 * 3, 390 + 390 * x, 408 * 4)).convert("L")
            for x in (0, 1)
        ]
    assert tiles[0].getextrema()[1] > 200
    assert tiles[0].tobytes() != tiles[1].tobytes()


def test_patterns_in_another_order(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rig = copied(
        tmp_path,
        "virtual_sim",
        cfg=SMALL.format("virtual_sim"),
        yaml="order: angle-major => order: phase-major",
    )
    code, seen, picture = looked(rig, capsys)
    assert code == 1
    assert seen["pattern contrast"]["verdict"] == "error"
    assert seen["pattern contrast"]["advice"]
    assert picture.is_file()


def test_a_storm_rig(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    small = (
        "SensorSize,256 => SensorSize,96;Camera,Frames,1000 => Camera,Frames,100;Camera,Lit,50 =>"
        " Camera,Lit,8"
    )
    code, seen, picture = looked(copied(tmp_path, "virtual_storm", cfg=small), capsys)
    assert code == 0
    words = seen["localisations"]["value"].split()
    assert float(words[0]) > 4
    field_um2 = (96 * 0.107) ** 2
    assert float(words[3]) == pytest.approx(float(words[0]) / field_um2, abs=0.01)
    assert picture.is_file()


def test_the_demo_camera(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, seen, picture = looked(copied(tmp_path, "demo"), capsys, "--channel", "561")
    assert code == 0
    assert "DemoCamera" in seen["camera"]["value"]
    assert "pattern order" not in seen
    assert picture.is_file()


def test_too_much_light_and_a_wrong_offset(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    yaml = "bit_depth: 16 => bit_depth: 12;offset_adu: 100 => offset_adu: 4000"
    code, seen, _ = looked(copied(tmp_path, "demo", yaml=yaml), capsys)
    assert code == 1
    assert seen["saturation"]["verdict"] == "error"
    assert "too high" in seen["offset"]["advice"]


def test_an_error_in_the_files_moves_no_device(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rig = copied(tmp_path, "demo", cfg="Parent,XY,DHub => Parent,XZ,DHub")
    assert _run(["check", str(rig), "--hardware", "--json"]) == 1
    assert "hardware" not in json.loads(capsys.readouterr().out)


def test_a_camera_that_tells_no_exposure_is_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    """Drivers of cameras that a trigger exposes may say 0 ms."""
    with core_of("virtual_sim", 5.0, SensorSize=128, TimePoints=4) as core:
        monkeypatch.setattr(core, "getExposure", lambda *camera: 0.0)
        seen = {m.name: m for m in look(core, load_rig("virtual_sim"), "488").measured}
    assert seen["frame rate"].value.endswith("the camera tells no exposure")
    mib, frames, seconds = (float(part.split()[0]) for part in seen["buffer"].value.split(", "))
    assert frames == mib * 2**20 // (2 * 128 * 128)
    assert seconds == pytest.approx(frames * 128 * 5e-6, abs=0.06)
