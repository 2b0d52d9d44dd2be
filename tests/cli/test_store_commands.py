"""The commands for a store after its run, each in its own process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from livesr.live.inference.engine import Engine
from own_process import livesr
from recorded_runs import Live, array, mixing_engine, moving_groups, sim_rig


@pytest.fixture
def engine(tmp_path: Path) -> Engine:
    return mixing_engine(
        tmp_path / "engines" / "mixing"
    )  # where commands that run in this folder find it


def as_json(*arguments: object, cwd: Path) -> dict[str, Any]:
    code, out, err = livesr(*arguments, "--json", cwd=cwd)
    assert code == 0, err
    assert out.count("\n") == 1, out
    return json.loads(out)


def test_process_backfill_repair(
    tmp_path: Path, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    live = Live(
        sim_rig("mixing"), tmp_path / "live.ome.zarr", policy="latest", slow={"infer": 0.04}
    )
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
    assert code == 0
    assert json.loads(out)["metadata"] == ["sr/0/zarr.json"]
    assert as_json("check", "live.ome.zarr", cwd=tmp_path)["error"] == 0


def test_a_hole_is_said_by_every_command(
    tmp_path: Path, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    live = Live(sim_rig("mixing"), tmp_path / "live.ome.zarr")
    live.record(moving_groups(40))
    (live.sink.path / "raw" / "0" / "c" / "1" / "0" / "0" / "0").unlink()
    code, out, _ = livesr("check", "live.ome.zarr", "--json", cwd=tmp_path)
    assert code == json.loads(out)["exit_code"] == 1
    assert [i["missing"] for i in json.loads(out)["images"]] == [16, 0, 0]
    code, out, _ = livesr("repair", "live.ome.zarr", cwd=tmp_path)
    assert (code, "t = 16-31" in out, "fine" in out) == (1, True, False)
    code, out, _ = livesr("repair", "live.ome.zarr", cwd=tmp_path)
    assert (code, "t = 16-31" in out, "fine" in out) == (1, True, False)
    code, out, _ = livesr("check", "live.ome.zarr", cwd=tmp_path)
    assert (code, "known to be lost" in out, "not everything" in out) == (1, True, True)
    code, _, err = livesr("check", "nowhere.ome.zarr", cwd=tmp_path)
    assert (code, "There is no store" in err) == (2, True)


def test_of_three_backfills_at_once_one_works(
    tmp_path: Path, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    live = Live(
        sim_rig("mixing"), tmp_path / "live.ome.zarr", policy="latest", slow={"infer": 0.04}
    )
    live.record(moving_groups(40), pace_s=lambda t: 0.01)
    reference = as_json("process", "live.ome.zarr", cwd=tmp_path)["store"]
    script = (
        "import sys, time\nfrom pathlib import Path\nfrom livesr.store.backfill import"
        " backfill\nfrom livesr.base.errors import StoreError\nprint('ready',"
        " flush=True)\nsys.stdin.readline()\ntry:\n    print(backfill(Path('live.ome.zarr'),"
        " on_progress=lambda *_: time.sleep(0.1))['predicted'])\nexcept StoreError as e:\n   "
        " print(e)\n"
    )
    command, pipe = [sys.executable, "-c", script], subprocess.PIPE
    three = [
        subprocess.Popen(command, cwd=tmp_path, stdin=pipe, stdout=pipe, text=True)
        for _ in range(3)
    ]
    for process in three:
        assert process.stdout is not None
        process.stdout.readline()
    for process in three:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    said = [process.communicate(timeout=120)[0].strip() for process in three]
    assert sum(word.isdigit() for word in said) == 1, said
    assert sum("is being completed by" in word and "repair" not in word for word in said) == 2, said
    difference = array(Path(reference), "sr").astype(int) - array(live.sink.path, "sr")
    assert np.abs(difference).max() <= 1
    assert not list((live.sink.path / "livesr").glob("backfill*"))


def test_a_run_that_is_alive_is_left_alone(
    tmp_path: Path, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever its pace: the log of this one has been silent for an hour."""
    monkeypatch.chdir(tmp_path)
    live = Live(sim_rig("mixing"), tmp_path / "live.ome.zarr")
    seen: list[tuple[int, str, str]] = []

    def pause(t: int) -> float:
        if t == 20:
            long_ago = time.time() - 3600
            os.utime(live.sink.path / "livesr" / "frames.jsonl", (long_ago, long_ago))
            seen.extend(
                livesr(c, "live.ome.zarr", cwd=tmp_path)
                for c in ("repair", "backfill", "process", "check")
            )
        return 0.0

    live.record(moving_groups(24), pace_s=pause)
    for code, _, err in seen:
        assert (code, "is being recorded by" in " ".join(err.split()), "livesr repair" in err) == (
            2,
            True,
            False,
        ), err
    assert as_json("check", "live.ome.zarr", cwd=tmp_path)["error"] == 0
    assert np.array_equal(array(live.sink.path, "raw"), moving_groups(24))


def test_process_a_tiff_without_an_engine(tmp_path: Path) -> None:
    import tifffile

    tifffile.imwrite(tmp_path / "raw.tif", moving_groups(3), photometric="minisblack")
    arguments = (
        "process",
        "raw.tif",
        "--rig",
        "virtual_sim",
        "--engine",
        "none",
        "--store",
        "o.ome.zarr",
        "--no-raw",
    )
    report = as_json(*arguments, "--origin", "3", "7", "--interval", "0.5", cwd=tmp_path)
    assert (report["recon_frames"], report["sr_frames"]) == (3, 0)
    assert not (tmp_path / "o.ome.zarr" / "raw").exists()
