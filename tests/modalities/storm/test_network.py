"""Networks that localise: what their output means, and that what they draw is marked."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import zarr

from backend_contract import make_engine
from livesr import LiveSR
from livesr.base.config import load_rig
from livesr.base.errors import ConfigError, EngineError
from livesr.base.geometry import Geometry
from livesr.live.inference.engine import Engine, load_engine
from livesr.live.sources.plan import sim_sequence
from livesr.modalities.storm.config import STORMConfig
from livesr.modalities.storm.localise import PhotonScale
from livesr.modalities.storm.modality import STORM
from livesr.modalities.storm.network import LIGHT_OF_ONE, NetworkLocaliser
from livesr.modalities.storm.reconstructor import STORMReconstructor
from livesr.simulation.blinking_rig import BlinkingBank
from livesr.store.process import process
from livesr.store.raw_input import raw_input
from livesr.training.emitters import SCALE, EmitterPairs, density_map
from rigs import core_of

SIDE, PIXEL_NM = 24, 100.0
TABLE = ("probability", "y", "x", "uncertainty")


def engine(
    folder: Path, gains: Sequence[float], biases: Sequence[float], names: Sequence[str], **say: Any
) -> Engine:
    """Each output channel is the middle frame times a gain, plus a bias."""
    onnx = pytest.importorskip("onnx")
    helper, kind, tensor = onnx.helper, onnx.TensorProto.FLOAT, onnx.numpy_helper.from_array
    window = say.get("window", 1)
    kernel = np.zeros((len(gains), window, 1, 1), np.float32)
    kernel[:, window // 2, 0, 0] = gains
    graph = helper.make_graph(
        [helper.make_node("Conv", ["frames", "w", "b"], ["channels"], kernel_shape=[1, 1])],
        "gains",
        [helper.make_tensor_value_info("frames", kind, [1, window, "y", "x"])],
        [helper.make_tensor_value_info("channels", kind, [1, len(gains), "y", "x"])],
        [tensor(kernel, "w"), tensor(np.asarray(biases, np.float32), "b")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    said = {
        "id": folder.name,
        "task": "localise",
        "trained": True,
        "window": 1,
        "channels": [{"name": name, "color": "FFFFFF"} for name in names],
        "multiple_of": 1,
        "halo": 0,
        "modality": ["storm"],
    }
    return make_engine(folder, model.SerializeToString(), **(said | say))


def localiser(made: Engine) -> NetworkLocaliser:
    shape = (SIDE, SIDE)
    return NetworkLocaliser(str(made.folder), shape, PIXEL_NM, 130.0, PhotonScale())


def spots(*places: tuple[int, int]) -> np.ndarray:
    frame = np.full((SIDE, SIDE), 100, np.uint16)
    for y, x in places:
        frame[y, x] = 2100
    return frame


def test_a_density_map_is_summed_and_its_peaks_are_listed(tmp_path: Path) -> None:
    found, density = localiser(engine(tmp_path / "map", [1.0], [0.0], ["Density"])).see(
        [spots((4, 6)), spots((4, 6), (15, 9))], [70, 71]
    )
    assert density is not None
    assert found["frame"].tolist() == [70, 71, 71]
    np.testing.assert_allclose(found["y_nm"], [450, 450, 1550])
    np.testing.assert_allclose(found["x_nm"], [650, 650, 950])
    assert density[4, 6] == pytest.approx(2 * density[15, 9])
    assert density[15, 9] * LIGHT_OF_ONE == pytest.approx(density.max() * LIGHT_OF_ONE / 2)


def test_a_table_says_where_in_a_pixel_an_emitter_is(tmp_path: Path) -> None:
    made = engine(tmp_path / "table", [2.0, 0, 0, 0], [0.0, 0.25, -0.5, 12.0], TABLE)
    found, density = localiser(made).see([spots((4, 6), (15, 9))], [3])
    assert density is None
    np.testing.assert_allclose(found["y_nm"], [475, 1575])
    np.testing.assert_allclose(found["x_nm"], [600, 900])
    np.testing.assert_allclose(found["uncertainty_nm"], 12)


def test_three_frames_are_seen_and_the_middle_one_is_localised(tmp_path: Path) -> None:
    made = engine(tmp_path / "three", [1.0], [0.0], ["Density"], window=3)
    frames = [spots((3, 3)), spots((9, 9)), spots((15, 15))]
    found = localiser(made).localise(frames, [0, 1, 2])
    np.testing.assert_allclose(found["y_nm"], [350, 950, 1550])


@pytest.mark.parametrize("pixel_nm", [20.0, 50.0, 100.0])
def test_resampling_keeps_emitters_and_moves_them_back_by_the_drift(
    tmp_path: Path, pixel_nm: float
) -> None:
    network = localiser(engine(tmp_path / "map", [1.0], [0.0], ["Density"]))
    density = np.zeros((SIDE, SIDE), np.float32)
    density[10:13, 11:14] = 1 / 9
    n = round(SIDE * PIXEL_NM / pixel_nm)
    picture = network.resampled(density, (n, n), pixel_nm, (200.0, -100.0))
    assert picture.sum() == pytest.approx(1, rel=0.02)
    y, x = (np.sum(picture * axis) / picture.sum() for axis in np.indices(picture.shape))
    assert ((y + 0.5) * pixel_nm, (x + 0.5) * pixel_nm) == pytest.approx((950, 1350), abs=5)


@pytest.mark.parametrize("pixel_nm", [12.5, 20.0, 25.0, 30.0, 40.0, 50.0])
def test_emitters_of_a_finer_map_stay_where_they_are(tmp_path: Path, pixel_nm: float) -> None:
    made, side, fine_nm = engine(tmp_path / "map", [1.0], [0.0], ["Density"]), 192, 12.5
    fine = NetworkLocaliser(str(made.folder), (side, side), fine_nm, 130.0, PhotonScale())
    axis = (np.arange(side) + 0.5) * fine_nm
    light = np.exp(-0.5 * ((axis[:, None] - 1007) ** 2 + (axis - 953) ** 2) / 50**2)
    n = round(side * fine_nm / pixel_nm)
    picture = fine.resampled(np.asarray(light, np.float32), (n, n), pixel_nm, (0.0, 0.0))
    places = (np.arange(n) + 0.5) * pixel_nm
    y, x = ((picture.sum(1 - i) @ places) / picture.sum() for i in (0, 1))
    assert (y, x) == pytest.approx((1007, 953), abs=0.2)


@pytest.mark.parametrize(
    ("names", "say", "message"),
    [
        (("probability", "z"), {}, "probability, y, x"),
        (("Density",), {"task": "restore"}, "does 'restore'"),
    ],
)
def test_what_does_not_localise_is_refused(
    tmp_path: Path, names: Sequence[str], say: dict[str, Any], message: str
) -> None:
    made = engine(tmp_path / "other", [1.0] * len(names), [0.0] * len(names), names, **say)
    with pytest.raises((ConfigError, EngineError), match=message):
        localiser(made)


def test_a_network_and_a_cylindrical_lens_do_not_go_together(tmp_path: Path) -> None:
    made = engine(tmp_path / "map", [1.0], [0.0], ["Density"])
    rig = load_rig("virtual_storm")
    table = {"z_nm": [-300, -100, 100, 300], "width_y_nm": [1.0] * 4, "width_x_nm": [1.0] * 4}
    section = STORMConfig.model_validate({"localiser": str(made.folder), "astigmatism": table})
    with pytest.raises(ConfigError, match="finds no z"):
        STORM().build(rig.with_section(section), "647", Geometry((SIDE, SIDE), "uint16", 0.1))


def test_the_command_line_names_it_where_emitters_are_looked_for() -> None:
    rig = load_rig("virtual_storm").with_localiser("deep-storm")
    assert STORMConfig.of(rig).localiser == "deep-storm"
    assert STORMConfig.of(rig.with_localiser("none")).localiser is None
    with pytest.raises(ConfigError, match="no channel of rig 'virtual SIM' is localised"):
        load_rig("virtual_sim").with_localiser("deep-storm")


def test_a_run_draws_what_the_network_says_and_calls_it_a_prediction(tmp_path: Path) -> None:
    made = engine(tmp_path / "map", [1.0], [0.0], ["Density"])
    whole = load_rig("virtual_storm")
    changes = {"frames": 5, "localiser": str(made.folder), "drift_correction": False}
    rig = whole.with_section(STORMConfig.of(whole).model_copy(update=changes))
    plan = sim_sequence(2, list(rig.channels), raw=5)
    store = tmp_path / "run.ome.zarr"
    with core_of("virtual_storm", 1, SensorSize=32, Frames=10, Lit=4, Photons=3000) as core:
        pictures = []
        with LiveSR(core, rig=rig, plan=plan, store=store) as session:
            session.input_ready.connect(pictures.append)
            core.mda.run(plan)
    assert any("predicted, not measured: map" in w for w in session.report["warnings"])
    described = json.loads((store / "recon" / "zarr.json").read_text())
    assert "predicted by map" in json.dumps(described)
    assert len(pictures) == 2
    assert pictures[1].image.sum() > pictures[0].image.sum() > 0, "it is the running sum"
    assert pictures[0].localisations is not None


def test_a_store_is_localised_again_as_it_was_or_otherwise(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LIVESR_HOME", str(tmp_path / "home"))
    engine(tmp_path / "home" / "engines" / "map", [1.0], [0.0], ["Density"])
    whole = load_rig("virtual_storm")
    changes = {"frames": 5, "drift_correction": False}
    rig = whole.with_section(STORMConfig.of(whole).model_copy(update=changes))
    frames = BlinkingBank(rig, 32, 10).frames
    tifffile.imwrite(tmp_path / "film.tif", frames)
    film, run = tmp_path / "film.tif", tmp_path / "run.ome.zarr"
    process(raw_input(film, rig, localiser="map"), run)
    process(raw_input(run), tmp_path / "again.ome.zarr")
    process(raw_input(run, localiser="none"), tmp_path / "fits.ome.zarr")
    process(raw_input(film, rig), tmp_path / "fitted.ome.zarr")
    drawn = {}
    for name, method in (
        ("run", f"storm, predicted by {load_engine('map')}"),
        ("again", f"storm, predicted by {load_engine('map')}"),
        ("fits", "storm"),
        ("fitted", "storm"),
    ):
        image = zarr.open_group(tmp_path / f"{name}.ome.zarr" / "recon", mode="r")
        assert image.attrs["livesr"]["method"] == method
        drawn[name] = np.asarray(image["0"])
    assert np.array_equal(drawn["run"], drawn["again"])
    assert np.array_equal(drawn["fits"], drawn["fitted"])
    assert not np.array_equal(drawn["run"], drawn["fits"])


def test_training_frames_and_their_map_show_the_same_emitters() -> None:
    maker = EmitterPairs(64)
    seen = 0
    for number in range(16):
        frame, density = maker.make((3, number))
        assert (frame.shape, density.shape) == maker.shapes
        coarse = density[0].reshape(16, SCALE, 16, SCALE).sum((1, 3))
        if coarse.sum() > LIGHT_OF_ONE:
            seen += 1
            assert np.corrcoef(frame[0].ravel(), coarse.ravel())[0, 1] > 0.2
    assert seen > 4


def test_a_density_map_counts_emitters_and_knows_where_they_are() -> None:
    density = density_map((16, 16), np.array([7.5]), np.array([3.0]))
    assert density.sum() == pytest.approx(LIGHT_OF_ONE, rel=0.02)
    y, x = (np.sum(density * axis) / density.sum() for axis in np.indices(density.shape))
    assert (y, x) == pytest.approx((8 * SCALE - 0.5, 3.5 * SCALE - 0.5), abs=0.01)


def test_the_reconstructor_knows_whose_prediction_it_draws(tmp_path: Path) -> None:
    made = engine(tmp_path / "map", [1.0], [0.0], ["Density"])
    network = localiser(made)
    drawn = STORMReconstructor(network, PIXEL_NM, 20.0, 5)
    assert drawn.predicted_by == str(made)
    picture = drawn.reconstruct([spots((4, 6))])
    assert picture.shape == (120, 120)
    y, x = np.unravel_index(int(picture.argmax()), picture.shape)
    assert (y // 5, x // 5) == (4, 6)
