"""The commands for a store after its run, each in its own process."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from livesr.live.inference.engine import Engine
from recorded_runs import Live, array, mixing_engine, moving_groups, sim_rig


@pytest.fixture
def engine(tmp_path: Path) -> Engine:
    return mixing_engine(tmp_path / "engines" / "mixing")  # where commands that run in this folder find it


def livesr(*arguments: object, cwd: Path) -> tuple[int, str, str]:
    command = [sys.executable, "-m", "livesr", *map(str, arguments)]
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=120, check=False)
    return done.returncode, done.stdout, done.stderr


def as_json(*arguments: object, cwd: Path) -> dict[str, Any]:
    code, out, err = livesr(*arguments, "--json", cwd=cwd)
    assert code == 0, err
    assert out.count("\n") == 1, out
    return json.loads(out)


def test_process_backfill_repair(tmp_path: Path, engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    live = Live(sim_rig("mixing"), tmp_path / "live.ome.zarr", policy="latest", slow={"infer": 0.04})
    live.record(moving_groups(20), pace_s=lambda t: 0.01)
    processed = as_json("process", "live.ome.zarr", cwd=tmp_path)
    assert Path(processed["store"]).name == "live_processed.ome.zarr"
    assert processed["sr_frames"] == 20
    assert processed["backend"] == {"488": "openvino"}
    filled = as_json("backfill", "live.ome.zarr", cwd=tmp_path)
    assert filled["predicted"] > 0
    difference = array(Path(processed["store"]), "sr").astype(int) - array(live.sink.path, "sr")
    assert np.abs(difference).max() <= 1
    code, out, _ = livesr("backfill", "live.ome.zarr", cwd=tmp_path)
    assert code == 0
    assert "0 predictions and 0 reconstructions computed" in out
    shard = live.sink.path / "sr" / "0" / "c" / "1" / "0" / "0" / "0"
    shard.write_bytes(shard.read_bytes()[:-9])
    repaired = as_json("repair", "live.ome.zarr", cwd=tmp_path)
    assert repaired["images"]["sr"] == {"before": 20, "readable": 16, "after": 20}
    assert repaired["lost"] == {"sr": 4}
    assert as_json("backfill", "live.ome.zarr", cwd=tmp_path)["predicted"] == 4
    difference = array(Path(processed["store"]), "sr").astype(int) - array(live.sink.path, "sr")
    assert np.abs(difference).max() <= 1
    code, out, _ = livesr("repair", "live.ome.zarr", cwd=tmp_path)
    assert code == 0
    assert "nothing was touched" in out
    (live.sink.path / "sr" / "0" / "zarr.json").write_text("")
    code, out, _ = livesr("repair", "live.ome.zarr", "--json", cwd=tmp_path)
    assert code == 1
    assert "sr" in json.loads(out)["problems"][0]


def test_process_a_tiff_without_an_engine(tmp_path: Path) -> None:
    import tifffile

    tifffile.imwrite(tmp_path / "raw.tif", moving_groups(3), photometric="minisblack")
    arguments = ("process", "raw.tif", "--rig", "virtual_sim", "--engine", "none", "--store", "o.ome.zarr", "--no-raw")
    report = as_json(*arguments, "--origin", "3", "7", "--interval", "0.5", cwd=tmp_path)
    assert (report["recon_frames"], report["sr_frames"]) == (3, 0)
    assert not (tmp_path / "o.ome.zarr" / "raw").exists()
