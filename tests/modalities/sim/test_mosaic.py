"""Recordings whose images hold a whole group side by side, as Nikon's N-SIM writes them."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray

from livesr import load_rig, process, raw_input
from livesr.base.errors import ConfigError
from livesr.formats.store import RecordedStore
from livesr.modalities.sim.simulation.rig import RawBank
from recorded_runs import array, lines

RIG = Path(__file__).parents[3] / "hardware_configs" / "virtual_sim"
SIZE, N_T = 96, 2


@pytest.fixture(scope="module")
def raw() -> NDArray[np.uint16]:
    rig = load_rig(RIG)
    bank = RawBank(rig, SIZE, N_T, seed=0, photons=300.0, bleaching=0.0, interval_s=0.3)
    return bank.frames


def rig_of(folder: Path, mosaic: str) -> Path:
    shutil.copytree(RIG, folder)
    file = folder / "rig.yaml"
    text = file.read_text(encoding="utf-8").replace("\nsim:\n", f"\nsim:\n  mosaic: {mosaic}\n")
    text = text.replace("separate: imcsr-mt-er-lyso-light", "wiener: 0.1")
    file.write_text(text, encoding="utf-8")
    return folder


def side_by_side(raw: NDArray[np.uint16]) -> NDArray[np.uint16]:
    """(t, 9, y, x) -> (t, 3 y, 3 x)."""
    tiles = raw.reshape(len(raw), 3, 3, *raw.shape[-2:])
    return tiles.transpose(0, 1, 3, 2, 4).reshape(len(raw), 3 * raw.shape[-2], 3 * raw.shape[-1])


def test_raw_frames_side_by_side_are_those_one_after_the_other(
    raw: NDArray[np.uint16], tmp_path: Path
) -> None:
    tifffile.imwrite(tmp_path / "mosaic.tif", side_by_side(raw), metadata={"axes": "TYX"})
    tifffile.imwrite(tmp_path / "plain.tif", raw.reshape(-1, SIZE, SIZE), metadata={"axes": "TYX"})
    stores = []
    for name, rig in (("mosaic", rig_of(tmp_path / "rig", "[3, 3]")), ("plain", RIG)):
        known = load_rig(rig).with_engine(None) if name == "plain" else load_rig(rig)
        source = raw_input(tmp_path / f"{name}.tif", known)
        report = process(source, tmp_path / f"{name}.ome.zarr")
        assert report["recon_frames"] == N_T
        stores.append(tmp_path / f"{name}.ome.zarr")
    np.testing.assert_array_equal(array(stores[0], "raw"), raw)
    np.testing.assert_array_equal(*(array(store, "recon") for store in stores))
    assert not any(line.get("doubt") for line in lines(stores[0], "recon").values())
    assert RecordedStore(stores[0])


def test_images_that_are_no_mosaic_are_refused(raw: NDArray[np.uint16], tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "odd.tif", side_by_side(raw)[:, :-1], metadata={"axes": "TYX"})
    with pytest.raises(ConfigError, match=r"287x288 pixels.*3 x 3 raw frames"):
        raw_input(tmp_path / "odd.tif", load_rig(rig_of(tmp_path / "rig", "[3, 3]")))
    with pytest.raises(ConfigError, match="does not hold 9 raw frames"):
        load_rig(rig_of(tmp_path / "other", "[2, 3]"))
