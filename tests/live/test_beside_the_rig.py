"""No recording is refused for a damaged file of limits or error bars beside its rig; it is said."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from livesr import cli
from livesr.base import error_bars, rig_limits
from livesr.base.quality import Quality
from livesr.check.rig import check_rig
from livesr.check.store import check_store
from livesr.formats.store import RecordedStore
from livesr.live.inference.engine import load_engine
from recorded_runs import RIGS

FILES = [(rig_limits.FILE, rig_limits.DAMAGED), (error_bars.FILE, error_bars.DAMAGED)]
DAMAGES = {
    "cut off": b"channels: {'488': {",
    "of another kind": b"nonsense: 1\n",
    "not text": b"\x00\xff\xfe" * 20,
    "empty": b"",
}


@pytest.fixture
def rig(tmp_path: Path) -> Path:
    """The virtual rig with a small chip."""
    folder = tmp_path / "rig"
    shutil.copytree(RIGS / "virtual_sim", folder)
    cfg = (folder / "rig.cfg").read_text(encoding="utf-8")
    for old, new in (("SensorSize,256", "SensorSize,128"), ("TimePoints,40", "TimePoints,2")):
        assert old in cfg
        cfg = cfg.replace(old, new)
    (folder / "rig.cfg").write_text(cfg, encoding="utf-8")
    return folder


def command(capsys: pytest.CaptureFixture[str], *arguments: object) -> dict[str, Any]:
    """Run a command that must succeed; return what it prints as JSON."""
    code = cli._run([*map(str, arguments), "--json"])
    out = capsys.readouterr()
    assert code == 0, (out.out, out.err)
    told: dict[str, Any] = json.loads(out.out)
    return told


def assert_said(store: Path, report: dict[str, Any], file: Path, follows: str) -> None:
    """In the report why, with every prediction what follows; no frame is worth less for it."""
    (why,) = [w for w in report["warnings"] if w.startswith(str(file))]
    assert "Mend it, or remove it and run 'livesr calibrate-" in why
    assert follows in report["warnings"]
    pictures = list(RecordedStore(store).pictures("sr").values())
    assert pictures
    assert all(follows in line["warnings"] for line in pictures)
    assert {line["judgement"]["word"] for line in pictures} == {Quality.GOOD}


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize(("name", "follows"), FILES)
def test_a_run_goes_on_without_what_cannot_be_read(
    rig: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    name: str,
    follows: str,
    damage: str,
) -> None:
    (rig / name).write_bytes(DAMAGES[damage])
    store = tmp_path / "run.ome.zarr"
    report = command(
        capsys, "run", rig, "--frames", 2, "--store", store, "--policy", "complete", "--threads", 1
    )
    assert (report["raw_frames"], report["sr_frames"]) == (18, 2)
    assert_said(store, report, rig / name, follows)
    assert (store / "livesr" / name).read_bytes() == DAMAGES[damage]  # the record is as it was
    (found,) = [f for f in check_rig(rig / "rig.yaml") if f.level == "error"]
    assert (found.file, found.code) == (
        rig / name,
        {rig_limits.FILE: "limits", error_bars.FILE: "error-bars"}[name],
    )


@pytest.mark.parametrize(("name", "follows"), FILES)
def test_so_do_what_computes_later_and_what_completes(
    rig: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, follows: str
) -> None:
    plain, store = tmp_path / "plain.ome.zarr", tmp_path / "run.ome.zarr"
    command(capsys, "run", rig, "--frames", 2, "--store", plain, "--engine", "none")
    (rig / name).write_bytes(DAMAGES["cut off"])
    report = command(capsys, "process", plain, "--rig", rig, "--store", store, "--threads", 1)
    assert_said(store, report, rig / name, follows)
    again = tmp_path / "again.ome.zarr"
    report = command(capsys, "process", store, "--store", again, "--threads", 1)
    assert_said(again, report, store / "livesr" / name, follows)
    told = command(capsys, "backfill", store)
    assert any(str(store / "livesr" / name) in note for note in told["warnings"])
    (found,) = [f for f in check_store(store).findings if f.code == "copy"]
    assert (found.level, found.file) == ("warning", store / "livesr" / name)


@pytest.mark.parametrize(
    ("sha256", "level", "words"),
    [
        (None, "note", "Error bars from true channels of this microscope"),
        ("0" * 64, "warning", "is of imcsr-mt-er-lyso-light (000000000000), not of imcsr-mt-er"),
    ],
)
def test_check_says_whose_error_bars_lie_there(
    rig: Path, sha256: str | None, level: str, words: str
) -> None:
    engine = load_engine("imcsr-mt-er-lyso-light").manifest
    error_bars.ErrorBars(
        engine=engine.id,
        sha256=sha256 or engine.sha256,
        coverage=0.9,
        source="pairs",
        units=12,
        structures={},
    ).save(rig / error_bars.FILE)
    (found,) = [f for f in check_rig(rig / "rig.yaml") if f.code == "error-bars"]
    assert (found.level, found.file) == (level, rig / error_bars.FILE)
    assert words in found.says
