"""Frames of any kind through the whole path.

Blank, saturated, tiny, odd, of every depth, with and without an engine.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from livesr.base.config import RigConfig, load_rig
from livesr.base.errors import LiveSRError
from livesr.live.inference.engine import Engine
from recorded_runs import Live, array, lines, mixing_engine, sim_rig

N_T = 4
OFFSET_ADU, STORED_OFFSET = 100.0, 1000
Groups = NDArray[Any]


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Engine:
    return mixing_engine(tmp_path_factory.mktemp("engines") / "mixing")


def noise(shape: tuple[int, int], n_raw: int, top: int, dtype: str = "uint16") -> Groups:
    return np.random.default_rng(0).integers(0, top + 1, (N_T, n_raw, *shape)).astype(dtype)


def constant(value: int, dtype: str = "uint16", shape: tuple[int, int] = (32, 32)) -> Any:
    return lambda n_raw: np.full((N_T, n_raw, *shape), value, dtype)


FRAMES: dict[str, Any] = {
    "blank": constant(0),
    "at the offset": constant(100),
    "constant": constant(5000),
    "saturated": constant(65535),
    "saturated in 8 bit": constant(255, "uint8"),
    "8 bit": lambda n_raw: noise((32, 32), n_raw, 255, "uint8"),
    "12 bit": lambda n_raw: noise((32, 32), n_raw, 4095),
    "16 bit": lambda n_raw: noise((32, 32), n_raw, 65535),
    "one pixel": constant(700, shape=(1, 1)),
    "one row": lambda n_raw: noise((1, 64), n_raw, 4095),
    "odd": lambda n_raw: noise((33, 47), n_raw, 4095),
    "tall": lambda n_raw: noise((96, 24), n_raw, 4095),
    "blinking": lambda n_raw: (
        constant(60000)(n_raw) * (np.arange(N_T) % 2).astype(np.uint16)[:, None, None, None]
    ),
}
TOO_SMALL = {"one pixel", "one row"}  # for a reconstruction, and for the engine


def rig_of(method: str, engine: Engine | None) -> RigConfig:
    if method == "sim":
        return sim_rig(str(engine.folder) if engine else "none")
    rig = load_rig("demo").with_engine("none")
    rig = rig.model_copy(update={"channels": {"488": next(iter(rig.channels.values()))}})
    return rig.with_engine(str(engine.folder)) if engine else rig


CASES = [(kind, method, True) for kind in FRAMES for method in ("sim", "widefield")]
CASES += [(kind, "sim", False) for kind in ("blank", "saturated", "8 bit", "odd", "one pixel")]
CASES += [(kind, "widefield", False) for kind in ("saturated", "8 bit", "one pixel", "one row")]


@pytest.mark.parametrize(("kind", "method", "separated"), CASES)
def test_what_comes_is_stored_and_what_is_made_of_it_is_right(
    tmp_path: Path, engine: Engine, kind: str, method: str, separated: bool
) -> None:
    rig = rig_of(method, engine if separated else None)
    groups = FRAMES[kind](rig.raw_frames("488"))
    shape, dtype = groups.shape[2:], str(groups.dtype)
    if kind in TOO_SMALL and (separated or method == "sim"):
        with pytest.raises(LiveSRError, match="too small"):
            Live(rig, tmp_path / "r.ome.zarr", shape=shape, dtype=dtype)
        return
    live = Live(rig, tmp_path / "r.ome.zarr", shape=shape, dtype=dtype)
    report = live.record(groups)
    store = live.sink.path
    assert (report["error"], report["raw_lost"], report["recon_failed"], report["sr_failed"]) == (
        None,
        0,
        0,
        0,
    )
    assert (report["recon_frames"], report["sr_frames"]) == (N_T, N_T if separated else 0)
    np.testing.assert_array_equal(array(store, "raw"), groups)
    recon = array(store, "recon").astype(float) - STORED_OFFSET
    offset = rig.camera.offset_adu
    if method == "widefield":
        expected = np.clip(
            np.rint(groups[:, 0].astype(float) - offset), -STORED_OFFSET, 65535 - STORED_OFFSET
        )
        np.testing.assert_array_equal(recon, expected)
    elif groups.min() == groups.max():  # uniform light keeps its level where nothing is tapered
        level = min(float(groups[0, 0, 0, 0]) - offset, 65535 - STORED_OFFSET)
        middle = recon[:, 24:-24, 24:-24]
        np.testing.assert_allclose(middle, level, atol=max(1.0, 0.02 * abs(level)))
    saturated = sum(line.get("saturated") or 0 for line in lines(store, "recon").values())
    assert saturated == np.count_nonzero(
        groups >= min(2**rig.camera.bit_depth, 2 ** (8 * groups.itemsize)) - 1
    )
    if separated:
        sr = array(store, "sr")
        assert sr.shape[0] == N_T
        residuals = [line["residual"] for line in lines(store, "sr").values()]
        assert len(residuals) == N_T
        assert np.isfinite(residuals).all()


@pytest.mark.parametrize("dtype", ["float32", "int16", "uint32", "float64"])
@pytest.mark.parametrize("value", [-5.0, 7.0, np.nan])
def test_pixels_of_another_type_end_the_run_and_are_kept(
    tmp_path: Path, dtype: str, value: float
) -> None:
    if (np.isnan(value) and "float" not in dtype) or (value < 0 and dtype == "uint32"):
        pytest.skip("no such value")
    live = Live(rig_of("widefield", None), tmp_path / "r.ome.zarr")
    report = live.record(np.full((2, 1, 32, 32), value, dtype))
    assert f"A frame of 32x32 {dtype} came in a run of 32x32 uint16" in report["error"]
    assert (
        report["raw_frames"],
        report["raw_unplaced"],
        report["raw_lost"],
        report["recon_frames"],
    ) == (2, 2, 0, 0)
    assert len(list((live.sink.path / "livesr" / "strays").glob("*.tif"))) == 2
