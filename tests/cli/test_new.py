"""`livesr new`: a rig of one's own from one that is there, by options and by answers; and what a
computer without its adapters says.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from livesr import cli
from livesr.base.config import load_rig

REPOSITORY = Path(__file__).parents[2]
MINE = Path("here/mine")
ALONE = pytest.mark.skipif(sys.platform == "win32", reason="a POSIX terminal")


@pytest.fixture(autouse=True)
def empty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_options_change_what_differs_and_nothing_else(capsys: pytest.CaptureFixture[str]) -> None:
    given = ["--na", "1.45", "--pixel-size", "60", "--rename", "COM6=COM3", "--rename", "Dev1=Dev2"]
    assert cli._run(["new", "my_rig", "--from", "tirf_sim", *given, "--json"]) == 0
    assert '"level": "error"' not in capsys.readouterr().out
    mine, theirs = load_rig("my_rig"), load_rig(REPOSITORY / "hardware_configs" / "tirf_sim")
    assert (mine.optics.na, mine.optics.pixel_size_nm, mine.name) == (1.45, 60, "my rig")
    same = {"folder", "name", "optics"}
    assert mine.model_dump(exclude=same) == theirs.model_dump(exclude=same)
    before = theirs.cfg_path.read_text(encoding="utf-8").splitlines()
    after = mine.cfg_path.read_text(encoding="utf-8").splitlines()
    changed = [(a, b) for a, b in zip(before, after, strict=True) if a != b]
    assert all(
        b == a.replace("COM6", "COM3").replace("Dev1", "Dev2").replace("0.065", "0.06")
        for a, b in changed
    )
    assert len(changed) == 10
    text = (mine.folder / "rig.yaml").read_text(encoding="utf-8")
    assert "# Numerical aperture of the TIRF objective." in text


def test_a_configuration_of_one_s_own_takes_the_place(tmp_path: Path) -> None:
    own = tmp_path / "scope.cfg"
    own.write_bytes(b"Property,Core,Initialize,0\n# 20 \xb5m\n")
    assert cli._run(["new", "here/mine", "--from", "demo", "--cfg", str(own), "--yes"]) == 0
    assert load_rig("here/mine").cfg_path.read_bytes() == own.read_bytes()


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("virtual_sim", [f"livesr calibrate {MINE}"]),
        ("virtual_storm", [f"livesr calibrate {MINE} --beads STACK.tif --z-step 25"]),
        ("demo", []),
    ],
)
def test_the_calibration_that_comes_next_is_one_that_the_rig_takes(
    source: str, said: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli._run(["new", str(MINE), "--from", source, "--yes"]) == 0
    lines = [line.strip() for line in capsys.readouterr().out.splitlines()]
    assert [line for line in lines if line.startswith("livesr calibrate")] == said


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["taken"], "there already"),
        (["a", "--from", "tirf_sin"], "tirf_sim"),
        (["a", "--rename", "COM99=COM1"], "no 'COM99'"),
        (["a", "--rename", "COM6"], "OLD=NEW"),
        (["a", "--cfg", "none.cfg"], "no file"),
        (["a", "--na", "nan"], "--na"),
        (["a", "--pixel-size", "-1"], "--pixel-size"),
    ],
)
def test_what_it_refuses_leaves_nothing(
    arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("hardware_configs/taken").mkdir(parents=True)
    assert cli._run(["new", *arguments, "--yes"]) == 2
    assert said in " ".join(capsys.readouterr().err.split())
    assert [p.name for p in Path("hardware_configs").iterdir()] == ["taken"]


@ALONE
def test_a_terminal_is_asked(tmp_path: Path) -> None:
    import pty

    ours, theirs = pty.openpty()
    asking = subprocess.Popen(
        [sys.executable, "-m", "livesr", "new", "asked", "--from", "tirf_sim"],
        stdin=theirs,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    # NA, pixel, exposure, table, rig.cfg, serial port, card; an empty answer keeps what was there
    os.write(ours, b"1.4\n\n20\nour TIRF\n\nCOM3\n\n")
    said, _ = asking.communicate(timeout=120)
    os.close(ours)
    os.close(theirs)
    assert asking.returncode == 0, said
    rig = load_rig("asked")
    assert (rig.optics.na, rig.optics.pixel_size_nm, rig.exposure_ms) == (1.4, 65, 20)
    assert rig.description == "our TIRF"
    assert "Device,COM3,SerialManager,COM3" in rig.cfg_path.read_text(encoding="utf-8")
    assert "livesr calibrate" in said


def test_a_library_that_is_not_there_is_named_with_its_devices(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert cli._run(["run", "tirf_sim", "--frames", "3"]) == 2
    said = " ".join(capsys.readouterr().err.split())
    assert "'HamamatsuHam', for Camera (HamamatsuHam_DCAM)" in said
    assert "'NIDAQ', for DAQ (NIDAQHub), Lasers" in said
    assert "Looked in" in said
    assert "mmcore" in said
    assert "hardware is on" not in said


def test_a_library_that_cannot_be_loaded_is_told_in_full(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from pymmcore_plus import CMMCorePlus

    core = CMMCorePlus()
    folder = tmp_path / "adapters"
    folder.mkdir()
    there = Path(core.getDeviceAdapterSearchPaths()[0])
    (demo,) = [p for p in there.iterdir() if "DemoCamera" in p.name]
    (folder / demo.name.replace("DemoCamera", "Broken")).write_bytes(b"no library")
    monkeypatch.setenv("MICROMANAGER_PATH", str(folder))
    rig = tmp_path / "rig"
    assert cli._run(["new", str(rig), "--from", "demo", "--yes"]) == 0
    cfg = rig / "rig.cfg"
    cfg.write_text("Property,Core,Initialize,0\nDevice,Camera,Broken,Cam\n", encoding="utf-8")
    capsys.readouterr()
    assert cli._run(["run", str(rig), "--frames", "3"]) == 2
    said = " ".join(capsys.readouterr().err.split())
    assert "Broken" in said
    assert "file too short" in said or "invalid" in said, "the system's own reason"


def test_the_new_rig_runs(tmp_path: Path) -> None:
    assert cli._run(["new", "cell", "--from", "virtual_sim", "--exposure", "2", "--yes"]) == 0
    written = yaml.safe_load(Path("hardware_configs/cell/rig.yaml").read_text(encoding="utf-8"))
    assert written["exposure_ms"] == 2
    cfg = Path("hardware_configs/cell/rig.cfg")  # with fewer pixels, which are simulated sooner
    small = cfg.read_text(encoding="utf-8").replace("SensorSize,256", "SensorSize,64")
    cfg.write_text(small.replace("TimePoints,40", "TimePoints,3"), encoding="utf-8")
    done = cli._run(["run", "cell", "--frames", "3", "--engine", "identity", "--json"])
    assert done == 0


@pytest.mark.parametrize("of", ["virtual_sim", "virtual_audit", "virtual_storm"])
def test_a_virtual_camera_shows_the_new_rig(of: str, tmp_path: Path) -> None:
    assert cli._run(["new", "mine", "--from", of, "--na", "1.3", "--yes"]) == 0
    lines = load_rig("mine").cfg_path.read_text(encoding="utf-8").splitlines()
    named = [line.rpartition(",")[2] for line in lines if ",Rig," in line]
    assert [load_rig(name).optics.na for name in named] == [1.3]
