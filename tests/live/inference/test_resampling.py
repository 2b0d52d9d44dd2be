"""Frames of other pixels than those of training: brought to them and back, and nothing else."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from backend_contract import make_engine, small_network
from held_memory import Still, peak_of
from livesr.base.compute import ComputeConfig
from livesr.base.config import RigConfig
from livesr.base.errors import ConfigError
from livesr.base.geometry import Geometry
from livesr.formats.store import RecordedStore
from livesr.live.inference.engine import Engine, load_engine, write_manifest
from livesr.live.inference.resampling import (
    ResampledSession,
    matrix,
    own_pixel_nm,
    resampled,
    resampled_shape,
)
from livesr.live.paths import build_path
from livesr.store.backfill import backfill
from livesr.store.process import process
from livesr.store.raw_input import store_input
from recorded_runs import Live, array, assert_equal, moving_groups, sim_rig


def bead(side: int, nm: float, at_nm: tuple[float, float], width_nm: float) -> NDArray[np.float64]:
    """A Gaussian spot, as pixels of `nm` show it."""
    y, x = (np.indices((side, side)) + 0.5) * nm
    return np.exp(-((y - at_nm[0]) ** 2 + (x - at_nm[1]) ** 2) / (2 * width_nm**2))


@pytest.mark.parametrize(("nm", "wanted_nm"), [(40.0, 32.0), (25.0, 32.0), (32.0, 32.0)])
def test_a_spot_stays_where_it_is_and_as_wide_and_bright(nm: float, wanted_nm: float) -> None:
    side = round(64 * 32 / nm)
    seen = round(side * nm / wanted_nm)
    at, width = (1100.0, 900.0), 70.0
    along = matrix(side, seen)
    made = resampled(bead(side, nm, at, width)[None].astype(np.float32), along, along)[0]
    expected = bead(seen, side * nm / seen, at, width)
    assert np.abs(made - expected).max() < 0.03
    assert made.sum() * (side / seen) ** 2 == pytest.approx(
        bead(side, nm, at, width).sum(), rel=1e-3
    )


def test_an_even_frame_stays_even_up_to_its_edges() -> None:
    for given, wanted in ((512, 620), (512, 397), (7, 11)):
        rows = matrix(given, wanted).sum(1)
        np.testing.assert_allclose(np.asarray(rows).ravel(), 1, atol=1e-6)


def test_what_only_the_finer_pixels_show_is_not_folded_into_the_coarser() -> None:
    stripes = (np.arange(256) % 2).astype(np.float32)  # of two pixels each
    made = matrix(256, 150) @ stripes
    assert np.ptp(made[8:-8]) < 0.1 * np.ptp(stripes)


def test_axes_are_not_exchanged() -> None:
    frames = np.random.default_rng(1).random((2, 20, 30)).astype(np.float32)
    along_y, along_x = matrix(20, 25), matrix(30, 24)
    expected = np.stack([along_y.toarray() @ f @ along_x.toarray().T for f in frames])
    np.testing.assert_allclose(resampled(frames, along_y, along_x), expected, rtol=1e-4, atol=1e-5)


class Echo:
    """A network that gives back the centre, its half and its quarter, each pixel `scale` times."""

    name, version, precision, device, compiled, skipped, tile = "echo", "", "", "", None, (), None
    replacements, shares_memory, features, account = (), False, None, None

    def __init__(self, shape: tuple[int, int], scale: int = 1) -> None:
        self.input, self._scale = np.zeros((3, *shape), np.float32), scale

    def infer(self) -> NDArray[np.float32]:
        centre = self.input[1].repeat(self._scale, 0).repeat(self._scale, 1)
        return np.stack([centre, centre / 2, centre / 4])


@pytest.mark.parametrize("scale", [1, 2])
def test_what_is_predicted_is_on_the_pixels_of_the_frames(scale: int, tmp_path: Path) -> None:
    shape, seen = (64, 96), resampled_shape((64, 96), 40 / 32)
    assert seen == (80, 120)
    engine = make_engine(tmp_path / "small", small_network(scale=scale), scale=scale)
    session = ResampledSession(Echo(seen, scale), engine, shape, seen, 32.0)  # type: ignore[arg-type]
    picture = gaussian_filter(np.random.default_rng(2).random(shape), 3).astype(np.float32)
    session.input[...] = picture
    made = session.infer()
    assert made.shape == (3, scale * shape[0], scale * shape[1])
    enlarged = picture.repeat(scale, 0).repeat(scale, 1)
    near = (0.01 if scale == 1 else 0.1) * np.ptp(picture) + 2e-3
    np.testing.assert_allclose(made[0], enlarged, atol=near)
    np.testing.assert_allclose(made[1], enlarged / 2, atol=near)
    assert session.described().endswith("on pixels of 32 nm")
    session.input[...] = -1
    assert not session.infer().any(), "no light is less than none"


@pytest.mark.parametrize("nm", [23.0, 46.0])
def test_what_it_holds_is_known_before(tmp_path: Path, nm: float) -> None:
    shape = (200, 300)
    seen = resampled_shape(shape, nm / 32)
    engine, network = make_engine(tmp_path / "small", small_network()), Still(3, seen)
    peak, said = peak_of(lambda: ResampledSession(network, engine, shape, seen, 32.0))  # type: ignore[arg-type]
    assert peak < 1.02 * said + 65536
    assert said < 1.05 * peak


# -- in a run --------------------------------------------------------------------------------------

TRAINED = {"min": 24.0, "max": 28.0}  # the rig's frames have pixels of 32.5 nm


@pytest.fixture
def engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Engine:
    monkeypatch.setenv("LIVESR_HOME", str(tmp_path))
    folder = tmp_path / "engines" / "small"
    manifest = make_engine(folder, small_network()).manifest
    changed = {"pixel_size_nm": TRAINED}
    write_manifest(folder, type(manifest).model_validate(manifest.model_dump() | changed))
    return load_engine(folder)


@pytest.fixture
def rig(engine: Engine) -> RigConfig:
    return sim_rig(str(engine.folder))


def recorded(rig: RigConfig, store: Path, **how: Any) -> tuple[dict[str, Any], Path]:
    live = Live(rig, store, **how)
    report = live.record(moving_groups(6))
    return report, live.sink.path


def test_the_middle_of_what_an_engine_was_trained_for_is_its_own(engine: Engine) -> None:
    own = own_pixel_nm(engine, 32.5)
    assert own == pytest.approx(25.92, abs=0.01)
    assert own_pixel_nm(engine, 26.0) is None, "as it was trained for"
    assert own_pixel_nm(engine, 40.0) is None, "too far from it"
    assert own_pixel_nm(load_engine("identity"), 32.5) is None
    assert own_pixel_nm(load_engine("edsr-x2"), 99.0) is None


def test_a_run_says_that_it_brings_frames_to_the_pixels_of_training(
    rig: RigConfig, tmp_path: Path
) -> None:
    report, store = recorded(rig, tmp_path / "store")
    said = " ".join(report["warnings"])
    assert "it sees channel '488' brought to 25.92 nm" in said
    assert "are outside the" not in said
    _, plain = recorded(rig, tmp_path / "plain", resample="off")
    assert RecordedStore(store).provenance("488")["runtime"]["pixel_size_nm"] == pytest.approx(
        25.92, abs=0.01
    )
    assert_equal(store, plain, ("raw", "recon"))
    assert array(store, "sr").shape == array(plain, "sr").shape
    assert (array(store, "sr") != array(plain, "sr")).any()


def test_the_memory_of_a_channel_counts_it(rig: RigConfig) -> None:
    camera = Geometry((64, 64), "uint16", 0.065)
    held = []
    for resample in ("auto", "off"):
        compute = ComputeConfig(device="cpu", threads=1, resample=resample)
        path = build_path(rig, "488", camera, compute)
        assert path.networks.session is not None
        held.append((path.memory_bytes(1), path.networks.session.memory_bytes))
        path.close()
    (brought, beside), (left, nothing) = held
    assert nothing == 0 < beside == brought - left


def test_without_it_the_pixels_are_said_to_be_others(rig: RigConfig, tmp_path: Path) -> None:
    report, store = recorded(rig, tmp_path / "plain", resample="off")
    said = " ".join(report["warnings"])
    assert "outside the 24-28 nm" in said
    assert "resample 'auto' brings them to 25.92 nm" in said
    assert "pixel_size_nm" not in RecordedStore(store).provenance("488")["runtime"]


@pytest.mark.parametrize("resample", ["auto", "off"])
def test_what_a_run_has_begun_goes_on_as_it_was(
    rig: RigConfig, tmp_path: Path, resample: Any
) -> None:
    report, store = recorded(
        rig, tmp_path / "live", resample=resample, policy="latest", slow={"infer": 0.1}
    )
    assert report["sr_skipped"]
    alike = ComputeConfig(threads=1)
    raw = store_input(RecordedStore(store))
    offline = Path(process(raw, tmp_path / "offline", compute=alike)["store"])
    backfill(store, compute=alike)
    assert_equal(store, offline)


@pytest.mark.parametrize(("begun", "asked"), [("auto", "off"), ("off", "auto")])
def test_no_store_is_completed_on_other_pixels(
    rig: RigConfig, tmp_path: Path, begun: Any, asked: Any
) -> None:
    _, store = recorded(
        rig, tmp_path / "live", resample=begun, policy="latest", slow={"infer": 0.1}
    )
    with pytest.raises(ConfigError, match="Leave out --resample"):
        backfill(store, compute=ComputeConfig(threads=1, resample=asked))
    assert backfill(store, compute=ComputeConfig(threads=1, resample=begun))["predicted"]


def test_another_engine_or_rig_is_asked_anew_whether_the_pixels_fit(
    rig: RigConfig, engine: Engine, tmp_path: Path
) -> None:
    fits = make_engine(tmp_path / "engines" / "fits", small_network(seed=1))
    _, path = recorded(sim_rig(str(fits.folder)), tmp_path / "live")
    store = RecordedStore(path)
    assert store_input(store).as_they_came == {"488"}
    assert store_input(store, engine=str(fits.folder)).as_they_came == {"488"}
    assert not store_input(store, rig=rig).as_they_came
    raw = store_input(store, engine=str(engine.folder))
    made = process(raw, tmp_path / "offline", compute=ComputeConfig(threads=1))
    assert "pixel_size_nm" in RecordedStore(Path(made["store"])).provenance("488")["runtime"]


def test_a_recording_of_before_is_processed_on_its_own_pixels_unless_asked(
    rig: RigConfig, tmp_path: Path
) -> None:
    _, store = recorded(rig, tmp_path / "live", resample="off")
    raw = store_input(RecordedStore(store))
    asked = ComputeConfig(threads=1, resample="auto")
    made = RecordedStore(Path(process(raw, tmp_path / "offline", compute=asked)["store"]))
    assert "pixel_size_nm" in made.provenance("488")["runtime"]


def test_a_store_that_names_no_runtime_was_predicted_on_its_own_pixels(
    rig: RigConfig, tmp_path: Path
) -> None:
    _, store = recorded(rig, tmp_path / "live", resample="off")
    meta = store / "sr" / "zarr.json"
    said = json.loads(meta.read_text(encoding="utf-8"))
    del said["attributes"]["livesr"]["runtime"]
    meta.write_text(json.dumps(said), encoding="utf-8")
    assert store_input(RecordedStore(store)).as_they_came == {"488"}
