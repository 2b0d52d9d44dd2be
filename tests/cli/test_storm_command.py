"""`livesr run` on a STORM rig, as a user meets it."""

from __future__ import annotations

import shutil
from pathlib import Path

import yaozarrs
import zarr

from livesr.formats.localisations import read_localisations
from own_process import report_of

RIG = Path(__file__).parents[2] / "hardware_configs" / "virtual_storm"
SMALL = {"SensorSize": 64, "Frames": 60, "Fluorophores": 1000, "Lit": 8}


def small_rig(folder: Path) -> Path:
    rig = shutil.copytree(RIG, folder / "rig")
    text = (rig / "rig.yaml").read_text(encoding="utf-8")
    (rig / "rig.yaml").write_text(text.replace("frames: 100\n", "frames: 20\n"), encoding="utf-8")
    cfg = (rig / "rig.cfg").read_text(encoding="utf-8").splitlines()
    for i, line in enumerate(cfg):
        name = line.split(",")[2] if line.startswith("#py Property,Camera,") else ""
        if name in SMALL or name == "Rig":
            cfg[i] = f"#py Property,Camera,{name},{SMALL.get(name, rig / 'rig.yaml')}"
    (rig / "rig.cfg").write_text("\n".join(cfg), encoding="utf-8")
    return rig


def test_a_storm_run_is_localised_stored_and_processed_again(tmp_path: Path) -> None:
    rig = small_rig(tmp_path)
    report = report_of(
        "run",
        rig,
        "--frames",
        3,
        "--exposure",
        5,
        "--store",
        "run.ome.zarr",
        "--publish",
        "tcp://127.0.0.1:*",
        cwd=tmp_path,
    )
    assert (report["raw_frames"], report["recon_frames"], report["raw_lost"], report["error"]) == (
        60,
        3,
        0,
        None,
    )
    store = Path(report["store"])
    yaozarrs.validate_zarr_store(str(store))
    assert zarr.open_array(store / "raw" / "0", mode="r").shape == (60, 64, 64)
    assert zarr.open_array(store / "recon" / "0", mode="r").shape == (3, 342, 342)
    found = read_localisations(store / "localisations.csv")
    assert len(found) > 200
    again = report_of("process", store, "--store", "again.ome.zarr", cwd=tmp_path)
    assert (Path(again["store"]) / "localisations.csv").read_bytes() == (
        store / "localisations.csv"
    ).read_bytes()
