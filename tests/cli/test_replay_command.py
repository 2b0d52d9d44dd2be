"""`livesr run --replay` and `livesr process` on recordings of other programs, as a user meets
them."""

from __future__ import annotations

import json
import shutil
import signal
import sys
from pathlib import Path

import numpy as np
import pytest
import tifffile
import zarr
from test_commands import as_json, livesr, start

from waiting import until

FRAMES = np.random.default_rng(0).integers(100, 900, (36, 64, 64)).astype(np.uint16)
RUN = ["run", "virtual_sim", "--engine", "identity", "--replay"]


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    tifffile.imwrite(tmp_path / "raw.tif", FRAMES, photometric="minisblack")
    return tmp_path / "raw.tif"


def test_a_recording_takes_the_place_of_the_camera(tmp_path: Path, raw: Path) -> None:
    options = ["--rate", "max", "--policy", "complete", "--store", "o.ome.zarr"]
    code, report = as_json(*RUN, "raw.tif", *options, cwd=tmp_path)
    assert (code, report["raw_frames"], report["sr_frames"], report["raw_lost"]) == (0, 36, 4, 0)
    assert report["replay"]["rate"] == "max"
    assert any("holds no times" in warning for warning in report["warnings"])
    np.testing.assert_array_equal(
        zarr.open_group(report["store"], mode="r")["raw/0"][:].reshape(FRAMES.shape), FRAMES
    )
    code, processed = as_json(
        "process", "raw.tif", "--rig", "virtual_sim", "--engine", "identity", cwd=tmp_path
    )
    assert code == 0
    for name in ("raw/0", "recon/0", "sr/0"):
        one, other = (zarr.open_group(r["store"], mode="r")[name][:] for r in (report, processed))
        np.testing.assert_allclose(one, other, atol=1 if name == "sr/0" else 0)


def test_a_rig_without_rig_cfg_replays_and_cannot_acquire(tmp_path: Path, raw: Path) -> None:
    shutil.copytree(
        Path(__file__).parents[2] / "hardware_configs" / "virtual_sim", tmp_path / "rig"
    )
    (tmp_path / "rig" / "rig.cfg").unlink()
    run = ["run", "rig", "--engine", "identity", "--frames", "1"]
    code, report = as_json(
        *run, "--replay", "raw.tif", "--rate", "max", "--policy", "complete", cwd=tmp_path
    )
    assert (code, report["recon_frames"]) == (0, 1)
    code, _, err = livesr(*run, cwd=tmp_path)
    assert (code, "names 'rig.cfg', which is not beside it" in " ".join(err.split())) == (2, True)


def test_frames_and_rate_are_the_users(tmp_path: Path, raw: Path) -> None:
    code, report = as_json(*RUN, "raw.tif", "--rate", "200", "--frames", "2", cwd=tmp_path)
    assert (code, report["raw_frames"], report["replay"]["rate"]) == (0, 18, 200.0)


def test_a_recording_that_was_cut_off_ends_with_1(tmp_path: Path, raw: Path) -> None:
    raw.write_bytes(raw.read_bytes()[:200_000])
    code, report = as_json(*RUN, "raw.tif", "--rate", "max", "--policy", "complete", cwd=tmp_path)
    assert (code, report["sr_frames"]) == (1, 2)
    assert "raw.tif ends within frame 25 of 36" in report["error"]


def test_what_cannot_be_replayed_is_one_sentence(tmp_path: Path, raw: Path) -> None:
    for arguments, words in {
        ("nothing.tif",): "There is no nothing.tif",
        ("raw.tif", "--rate", "fast"): "expected recorded, max, or exposures a second",
        ("raw.tif", "--rate", "0"): "must be above 0",
        ("raw.tif", "--axes", "t,c,y,x"): "names 2 axes before y, x",
    }.items():
        code, _, err = livesr(*RUN, *arguments, cwd=tmp_path)
        assert (code, words in " ".join(err.split())) == (2, True), err
        assert "Traceback" not in err


@pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX signals")
def test_ctrl_c_ends_a_replay_cleanly(tmp_path: Path, raw: Path) -> None:
    process = start([*RUN, "raw.tif", "--rate", "9", "--store", "o.ome.zarr", "--json"], tmp_path)
    frames = tmp_path / "o.ome.zarr" / "livesr" / "frames.jsonl"
    until(lambda: frames.is_file() and frames.stat().st_size)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=120)
    report = json.loads(out)
    assert (process.returncode, report["interrupted"]) == (130, True), err
    assert 0 < report["raw_frames"] < 36
    assert zarr.open_group(report["store"], mode="r")["raw/0"].shape[0] >= 1
