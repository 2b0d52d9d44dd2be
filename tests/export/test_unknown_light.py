"""Light of no known structure: what a network draws of it, and what its engine tells."""

from __future__ import annotations

import shutil
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.lib.stride_tricks import sliding_window_view as sliding
from scipy.ndimage import gaussian_filter

from livesr.base.compute import ComputeConfig
from livesr.base.documents import read_yaml
from livesr.evaluation.limits import measure_on_pairs, write_limits
from livesr.export.engine import export_engine
from livesr.export.imported import import_model
from livesr.export.onnx import reference
from livesr.export.rdf import export_rdf
from livesr.export.serving import Door, write_repository
from livesr.live.inference.engine import (
    FEATURES_OUTPUT,
    TOLD,
    Engine,
    Limits,
    Manifest,
    Weights,
    load_engine,
)
from livesr.live.inference.openvino import OpenVINORuntime
from livesr.live.inference.runner import open_session
from livesr.live.inference.typed_onnx import typed
from livesr.live.unknown_light import unknown_light
from livesr.training import networks
from livesr.training.recipes import load_recipe
from livesr.training.start import begin_with

SIDE = 64
TINY = {
    "channels": 3,
    "width": 16,
    "groups": 1,
    "blocks": 2,
    "reduction": 4,
    "unshuffle": 4,
    "head": "restore",
}


def network(*, unknown: bool = True, seed: int = 0, **more: object) -> torch.nn.Module:
    torch.manual_seed(seed)
    made = networks.build("imcsr", **{**TINY, **more}, unknown=unknown).eval()
    torch.nn.init.normal_(made.out.weight, std=0.1)
    return made


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Engine:
    return exported(tmp_path_factory.mktemp("unknown"))


def exported(folder: Path, **more: object) -> Engine:
    parameters = {**TINY, **more, "unknown": True}
    networks.save(folder / "final.pt", network(**more), "imcsr", parameters)
    recipe = load_recipe("imcsr-mt-er-lyso-light")
    train = recipe.train.model_copy(update={"parameters": parameters})
    recipe = recipe.model_copy(update={"train": train})
    export_engine(recipe, folder / "final.pt", folder / "engine")
    return load_engine(folder / "engine")


def frames(side: int = SIDE) -> np.ndarray:
    return np.random.default_rng(0).random((3, side, side), np.float32) * np.float32(0.5)


def run(engine: Engine, x: np.ndarray, **compute: object) -> tuple[np.ndarray, np.ndarray]:
    settings = ComputeConfig(**{"backend": "openvino", "precision": "f32", "tile": "off"} | compute)
    with open_session(engine, x.shape[1:], settings) as session:
        session.input[...] = x
        drawn = session.infer().copy()
        assert session.features is not None
        return drawn, session.features.copy()


def detail(plane: np.ndarray) -> np.ndarray:
    """What lies between sigmas of 2 and 8 pixels in means over 4; beyond the edges is nothing."""
    there = np.ones_like(plane)
    fine, coarse = (
        gaussian_filter(plane, sigma, mode="constant", radius=radius)
        / gaussian_filter(there, sigma, mode="constant", radius=radius)
        for sigma, radius in ((0.5, 2), (2, 5))
    )
    return np.asarray(fine - coarse)


def test_an_engine_draws_the_structures_and_tells_how_much_light_is_unknown(
    engine: Engine,
) -> None:
    drawn, features = run(engine, frames())
    with torch.inference_mode():
        images = network()(torch.from_numpy(frames())[None])[0].numpy()
    assert images.shape == (4, SIDE, SIDE)
    assert engine.output_shape((SIDE, SIDE)) == drawn.shape == (3, SIDE, SIDE)
    np.testing.assert_allclose(drawn, images[:3], atol=2e-3)  # weights are stored as FP16
    shown = images[:3].sum(0)
    blocks = np.stack([images[3], images.sum(0)])
    blocks = blocks.reshape(2, SIDE // 4, 4, SIDE // 4, 4).mean((2, 4))
    fine = [sliding(plane, (3, 3))[::2, ::2].mean((2, 3)) for plane in (frames()[1] - shown, shown)]
    squares = [(plane**2).mean() for plane in (*map(detail, blocks), *fine)]
    np.testing.assert_allclose(features, squares, rtol=0.02)
    told = unknown_light(features)
    unknown, total, left, structures = np.sqrt(squares)
    assert told is not None
    assert told.share == pytest.approx(unknown / total, rel=0.02)
    assert told.told == pytest.approx(np.sqrt(unknown / total * left / structures), rel=0.02)
    assert 0.05 < told.share < 1
    assert abs(told.told / told.share - 1) > 0.1


def test_every_runtime_tells_the_same(engine: Engine) -> None:
    _, here = run(engine, frames())
    _, there = run(engine, frames(), backend="torch")
    np.testing.assert_allclose(there, here, atol=1e-5)


@pytest.mark.parametrize("unshuffle", [1, 2])
def test_every_pixel_is_told_of_whatever_sides_the_network_takes(
    tmp_path: Path, unshuffle: int
) -> None:
    made = exported(tmp_path, unshuffle=unshuffle, head="partition")
    x = np.zeros((3, 10, 10), np.float32)
    x[:, 9] = 0.5  # beyond the last whole block; "partition" gives light where it was measured
    _, features = run(made, x)
    assert features[1] > 1e-4


def test_tiles_tell_what_the_whole_tells(engine: Engine) -> None:
    (_, whole), (_, tiles) = (run(engine, frames(384), **tile) for tile in ({}, {"tile": 256}))
    np.testing.assert_allclose(unknown_light(tiles), unknown_light(whole), atol=0.02)


@pytest.mark.parametrize("features", [None, np.ones(5, np.float32), np.full(4, np.nan, np.float32)])
def test_what_tells_nothing_is_not_judged(features: np.ndarray | None) -> None:
    assert unknown_light(features) is None


def test_a_dark_frame_has_no_unknown_light() -> None:
    for n in TOLD:
        assert unknown_light(np.zeros(n, np.float32)) == (0, 0)


def test_what_is_left_counts_beside_what_is_shown() -> None:
    few, many, none = (
        unknown_light(np.array([1e-4, 1, 0.04, shown], np.float32)) for shown in (4, 0.04, 0)
    )
    assert few == pytest.approx((0.1 * 0.1**0.5, 0.01))
    assert many == none == pytest.approx((0.1, 0.01))
    assert unknown_light(np.array([4, 1, 4, 1], np.float32)) == (1, 1)


@pytest.mark.parametrize(
    ("features", "told"),
    [
        ([1e-4, 1e-2], 0.1),
        ([1e-4, 1, 4e-4], 0.01 * 2**0.5),
        ([1e-4, 1, 36e-4], 0.01 * 6**0.5),
        ([1e-4, 1, 1], 0.01 * 6**0.5),  # beyond that it is noise
    ],
)
def test_engines_of_before_tell_two_or_three_numbers(features: list[float], told: float) -> None:
    assert unknown_light(np.array(features, np.float32)) == pytest.approx((told, told))


def test_a_network_that_draws_it_begins_with_one_that_does_not(tmp_path: Path) -> None:
    networks.save(tmp_path / "best.pt", network(unknown=False), "imcsr", TINY)
    wider = network(seed=1)
    start = begin_with(wider, str(tmp_path))
    assert start.tensors == start.of
    with torch.inference_mode():
        x = torch.from_numpy(frames())[None]
        known, images = network(unknown=False)(x), wider(x)
    assert float(images[:, 3].sum() / images.sum()) < 0.2
    assert np.corrcoef(known.flatten(), images[:, :3].flatten())[0, 1] > 0.95


def test_it_begins_with_its_own_engine(engine: Engine) -> None:
    start = begin_with(network(seed=1), str(engine.folder))
    assert start.tensors == start.of


def test_a_sigmoid_head_shares_out_nothing() -> None:
    with pytest.raises(ValueError, match="'partition' or 'restore'"):
        networks.build("imcsr", unknown=True)


def test_a_limit_needs_a_network_that_tells(engine: Engine) -> None:
    document = engine.manifest.model_dump() | {"limits": {"unknown_light": 0.1}}
    assert Manifest.model_validate(document).limits.unknown_light == 0.1
    document["weights"] |= {"features": 0}
    with pytest.raises(ValueError, match="take it out, and run 'livesr limits'"):
        Manifest.model_validate(document)


def test_what_engines_said_of_features_before_is_read_over(
    engine: Engine, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for kind, old in ((Limits, "familiarity"), (Weights, "features_drawn")):
        document = read_yaml(engine.folder / "manifest.yaml")
        section = document[kind.__name__.lower()] if kind is Weights else {}
        kind.model_validate({**section, old: {}})
        assert f"{old} is read over" in caplog.text


def test_what_only_tells_is_not_the_last_that_draws(engine: Engine, tmp_path: Path) -> None:
    pytest.importorskip("nncf")
    import onnx

    from livesr.export.quantise import quantise_engine

    folder = tmp_path / "engine"
    shutil.copytree(engine.folder, folder)
    blocks = np.stack([frames(), frames() * np.float32(2)])
    truths = np.stack([run(engine, block)[0] for block in blocks])
    quantise_engine(folder, blocks, (blocks, truths), "noise", max_loss=2, threads=1)
    model = onnx.load_model_from_string(load_engine(folder).read_int8())
    made_by = {name: node.op_type for node in model.graph.node for name in node.output}
    convolutions = [node for node in model.graph.node if node.op_type == "Conv"]
    integers = {n.name for n in convolutions if made_by.get(n.input[0]) == "DequantizeLinear"}
    assert "network.tail.0" in integers
    assert not integers & {"network.head.0", "network.out", "amounts", "frame", "shown"}
    _, exact = run(engine, frames())
    _, in_int8 = run(load_engine(folder), frames(), precision="int8")
    np.testing.assert_allclose(unknown_light(in_int8), unknown_light(exact), atol=0.05)


def test_shares_of_the_light_need_no_convolution_in_f32(engine: Engine) -> None:
    openvino = pytest.importorskip("openvino")
    if "BF16" not in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        pytest.skip("this CPU does not multiply bf16")
    settings = ComputeConfig(backend="openvino", precision="bf16", tile="off")
    with OpenVINORuntime().open(engine, (SIDE, SIDE), settings) as session:
        compiled = session._request.get_compiled_model().get_runtime_model()
        layers = [op.get_rt_info() for op in compiled.get_ordered_ops()]
        kinds = {
            kind: {
                layer["runtimePrecision"].astype(str)
                for layer in layers
                if layer["layerType"].astype(str) == kind
            }
            for kind in ("Convolution", "Softmax")
        }
        session.input[...] = frames()
        drawn, exact = session.infer().copy(), run(engine, frames())[0]
    assert kinds == {"Convolution": {"bf16"}, "Softmax": {"f32"}}
    assert np.corrcoef(drawn.ravel(), exact.ravel())[0, 1] > 0.999


def test_frames_on_the_device_are_told_alike(engine: Engine) -> None:
    from livesr.live.inference.onnx_graph import OnnxGraph
    from livesr.live.inference.torch_cuda import ResidentNetwork

    graph = OnnxGraph(engine.read(), "cpu", torch.float32)
    resident = ResidentNetwork(graph, engine, (SIDE, SIDE), "cpu")
    resident.device_input.copy_(torch.from_numpy(frames()))
    resident.step()
    np.testing.assert_allclose(
        resident.device_features.numpy(), run(engine, frames())[1], atol=1e-5
    )


def test_tensorrt_computes_it_in_f32(engine: Engine) -> None:
    import onnx

    made = onnx.load_model_from_string(typed(engine.read(), "f16", (1, 3, SIDE, SIDE)))
    assert [end.name for end in made.graph.output] == ["channels", FEATURES_OUTPUT]
    assert {end.type.tensor_type.elem_type for end in made.graph.output} == {onnx.TensorProto.FLOAT}
    found = reference(made).run(None, {"frames": frames()[None]})[1].ravel()
    np.testing.assert_allclose(found, run(engine, frames())[1], rtol=0.02)


def test_a_server_tells_it(engine: Engine, tmp_path: Path) -> None:
    pytest.importorskip("tritonclient.grpc", reason="the kserve backend needs tritonclient")
    from kserve_server import KServeServer

    write_repository([engine], tmp_path, Door())
    config = (tmp_path / "models" / engine.manifest.id / "config.pbtxt").read_text()
    assert 'name: "features" data_type: TYPE_FP32 dims: [ 1, 4, 1, 1 ]' in config
    server = KServeServer(engine)
    server.features = (0.01, 0.2, 0.03, 0.2)
    try:
        compute = ComputeConfig(backend="kserve", endpoint=server.endpoint)
        with open_session(engine, (SIDE, SIDE), compute) as session:
            session.input[...] = frames()
            session.infer()
            np.testing.assert_array_equal(session.features, np.float32(server.features))
    finally:
        server.stop()


def test_bioimageio_is_told_of_the_second_output(engine: Engine, tmp_path: Path) -> None:
    rdf = read_yaml(export_rdf(engine, tmp_path / "rdf"))
    channels, features = rdf["outputs"]
    assert (channels["id"], features["id"]) == ("channels", FEATURES_OUTPUT)
    assert len(features["axes"][1]["channel_names"]) == 4
    assert np.load(tmp_path / "rdf" / "test-features.npy").shape == (1, 4, 1, 1)
    back = import_model(tmp_path / "rdf", tmp_path / "back").engine
    assert back.manifest == engine.manifest
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of its own dependencies
        spec = pytest.importorskip("bioimageio.spec", reason="pip install bioimageio.spec")
        with spec.ValidationContext(perform_io_checks=True):
            found = spec.load_description(str(tmp_path / "rdf" / "rdf.yaml"))
    assert found.validation_summary.status == "valid-format", found.validation_summary.format()


def test_pairs_measure_what_is_usual_where_nothing_was_measured(
    engine: Engine, tmp_path: Path
) -> None:
    folder = tmp_path / "engine"
    shutil.copytree(engine.folder, folder)
    pairs = [(frames() * np.float32(i / 8), np.zeros((3, SIDE, SIDE))) for i in range(1, 9)]
    found = measure_on_pairs(folder, pairs, threads=1)
    measured = found["limits"].unknown_light
    usual = [unknown_light(run(engine, x)[1]).share for x, _ in pairs]
    assert measured == pytest.approx(np.quantile(usual, 0.975), rel=0.02)
    write_limits(folder, {"limits": Limits(unknown_light=0.5)})
    assert measure_on_pairs(folder, pairs, threads=1)["limits"].unknown_light == 0.5


def test_it_begins_with_nothing_of_another_width(tmp_path: Path) -> None:
    narrow = {**TINY, "width": 8}
    networks.save(tmp_path / "best.pt", networks.build("imcsr", **narrow), "imcsr", narrow)
    with pytest.raises(ValueError, match="a network of its kind"):
        begin_with(network(), str(tmp_path))


def test_networks_of_one_structure_each_share_out_nothing() -> None:
    with pytest.raises(ValueError, match="choose 'imcsr'"):
        networks.build("imcsr-single", **{**TINY, "unknown": True})
