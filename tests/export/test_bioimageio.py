"""Engines to bioimage.io and back.

Validated by its own library, refused in one sentence, run live.
"""

from __future__ import annotations

import copy
import json
import shutil
import sys
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from numpy.typing import NDArray
from scipy.ndimage import uniform_filter
from typer.testing import CliRunner

from livesr import LiveSR
from livesr.base.errors import BackendError, EngineError
from livesr.base.frames import MulticolorFrame
from livesr.cli import app
from livesr.export.imported import import_model
from livesr.export.rdf import description
from livesr.live.inference.engine import load_engine, sha256_of
from livesr.live.sources.plan import sim_sequence
from rigs import virtual_sim
from two_inputs import two_input_engine

onnx = pytest.importorskip("onnx")

Rdf = dict[str, Any]


def blur(image: NDArray[Any], scale: int = 1) -> NDArray[Any]:
    """What the foreign model does: means of 3 x 3 pixels, 0 outside.

    Each pixel then scale x scale times.
    """
    means = uniform_filter(np.asarray(image, np.float64), 3, mode="constant")
    return means.repeat(scale, 0).repeat(scale, 1)


def network(scale: int, side: int | None = None) -> Any:
    helper, numpy_helper = onnx.helper, onnx.numpy_helper
    kernel = np.full((scale**2, 1, 3, 3), 1 / 9, np.float32)
    graph = helper.make_graph(
        [
            helper.make_node(
                "Conv", ["input", "kernel"], ["means"], kernel_shape=[3, 3], pads=[1] * 4
            ),
            helper.make_node("DepthToSpace", ["means"], ["output"], blocksize=scale, mode="CRD"),
        ],
        "blur",
        [helper.make_tensor_value_info("input", 1, ["n", 1, side or "h", side or "w"])],
        [helper.make_tensor_value_info("output", 1, ["n", 1, "H", "W"])],
        [numpy_helper.from_array(kernel, "kernel")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def package(folder: Path, scale: int = 1, side: int | None = None) -> Rdf:
    """A model as others describe theirs; with a test image in camera counts, and its answer."""
    folder.mkdir(parents=True, exist_ok=True)
    onnx.save(network(scale, side), folder / "weights.onnx")
    counts = np.random.default_rng(0).gamma(2.0, 100.0, (1, 1, 48, 48)).astype(np.float32)
    standard = (counts[0, 0] - counts.mean()) / counts.std()
    np.save(folder / "in.npy", counts)
    np.save(folder / "out.npy", blur(standard, scale).astype(np.float32)[None, None])
    channel = {"type": "channel", "id": "channel", "channel_names": ["raw"]}
    sides = [
        {
            "type": "space",
            "id": i,
            "size": {"min": 16, "step": 4},
            "scale": 0.04,
            "unit": "micrometer",
        }
        for i in "yx"
    ]
    larger = [
        {
            "type": "space",
            "id": i,
            "size": {"tensor_id": "raw", "axis_id": i},
            "scale": 0.04 / scale,
            "halo": 1,
        }
        for i in "yx"
    ]
    return {
        "format_version": "0.5.4",
        "type": "model",
        "name": "Blur (for a test)",
        "description": "Means of 3 x 3 pixels.",
        "authors": [{"name": "Nobody"}],
        "license": "MIT",
        "documentation": "README.md",
        "cite": [{"text": "A paper", "doi": "10.1000/182"}],
        "inputs": [
            {
                "id": "raw",
                "axes": [{"type": "batch"}, channel, *sides],
                "test_tensor": {"source": "in.npy"},
                "preprocessing": [
                    {"id": "zero_mean_unit_variance", "kwargs": {"axes": ["channel", "y", "x"]}}
                ],
            }
        ],
        "outputs": [
            {
                "id": "smooth",
                "axes": [{"type": "batch"}, {**channel, "channel_names": ["smooth"]}, *larger],
                "test_tensor": {"source": "out.npy"},
            }
        ],
        "weights": {
            "onnx": {
                "source": "weights.onnx",
                "sha256": sha256_of(folder / "weights.onnx"),
                "opset_version": 17,
            }
        },
    }


def written(folder: Path, rdf: Rdf) -> Path:
    (folder / "README.md").write_text("# Blur\n")
    (folder / "rdf.yaml").write_text(yaml.safe_dump(rdf))
    return folder


def invoke(*arguments: object) -> dict[str, Any]:
    result = CliRunner().invoke(
        app, ["engine", *map(str, arguments), "--json"], catch_exceptions=False
    )
    return json.loads(result.stdout)


@pytest.mark.parametrize("name", ["identity", "imcsr-mt-er-lyso-light", "edsr-x2"])
def test_an_engine_goes_to_bioimageio_and_comes_back(name: str, tmp_path: Path) -> None:
    rdf = Path(invoke("export-rdf", name, "--out", tmp_path / "zoo")["rdf"])
    given, answer = (
        np.load(tmp_path / "zoo" / f"test-{which}.npy") for which in ("input", "output")
    )
    manifest = load_engine(name).manifest
    assert given.shape[1] == manifest.window
    assert answer.shape[2] == manifest.scale * given.shape[2]
    back = invoke("import", rdf, "--out", tmp_path / "back")
    without_int8 = manifest.weights.model_copy(update={"int8": None})
    assert load_engine(tmp_path / "back").manifest == manifest.model_copy(
        update={"weights": without_int8}
    )
    assert back["pcc"] > 0.98, "bioimage.io's percentiles are of pixels, livesr's of means of four"


@pytest.mark.parametrize("name", ["edsr-x2", "imcsr-mt-er-lyso-light"])
def test_what_is_exported_is_valid(name: str, tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of its own dependencies
        spec = pytest.importorskip("bioimageio.spec", reason="pip install bioimageio.spec")
        rdf = invoke("export-rdf", name, "--out", tmp_path)["rdf"]
        with spec.ValidationContext(perform_io_checks=True):
            found = spec.load_description(rdf)
    assert found.validation_summary.status == "valid-format", found.validation_summary.format()


@pytest.mark.parametrize("scale", [1, 2])
def test_a_foreign_model_runs_live(scale: int, tmp_path: Path) -> None:
    written(tmp_path / "blur", package(tmp_path / "blur", scale))
    packed = shutil.make_archive(str(tmp_path / "blur"), "zip", tmp_path / "blur")
    found = invoke("import", packed, "--out", tmp_path / "engine")
    assert found["task"] == ("separate" if scale == 1 else "upscale")
    assert found["pcc"] > 0.9999
    manifest = load_engine(tmp_path / "engine").manifest
    assert (manifest.id, manifest.scale, manifest.multiple_of, manifest.halo) == (
        "blur-for-a-test",
        scale,
        4,
        1,
    )
    assert manifest.pixel_size_nm is not None
    assert 40 in manifest.pixel_size_nm
    task = {"separate": "engine", "upscale": "upscale"}[found["task"]]
    shown: list[MulticolorFrame] = []
    plan = sim_sequence(2, ["488"])
    with virtual_sim(stamp=False) as core:
        asked = {"engine": "none", task: str(tmp_path / "engine")}
        with LiveSR(
            core,
            rig="virtual_sim",
            plan=plan,
            policy="complete",
            precision="f32",
            threads=1,
            **asked,
        ) as session:
            session.frame_ready.connect(shown.append)
            core.mda.run(plan)
    assert len(shown) == 2
    for frame in shown:
        background = frame.source.normalisation.background
        expected = np.clip(blur(frame.source.image - background, scale), 0, None)
        # At the edge the model sees its own 0, which is the image's mean; and the reconstruction
        # fades over 8 pixels, which it sees evenly lit.
        inside = (slice(12 * scale, -12 * scale),) * 2
        np.testing.assert_allclose(frame.channels[0][inside], expected[inside], atol=1)


def test_percentiles_are_livesr_s_own(tmp_path: Path) -> None:
    rdf = package(tmp_path / "blur")
    rdf["inputs"][0]["preprocessing"] = [
        {"id": "ensure_dtype", "kwargs": {"dtype": "float32"}},
        {
            "id": "scale_range",
            "kwargs": {"axes": ["y", "x"], "min_percentile": 1, "max_percentile": 99.8},
        },
    ]
    found = import_model(written(tmp_path / "blur", rdf), tmp_path / "engine")
    assert found.pcc is not None
    assert found.pcc > 0.95, (
        "at the edges the answer that came with it has the mean instead of the background"
    )


def test_an_answer_that_does_not_come_is_no_engine(tmp_path: Path) -> None:
    rdf = package(tmp_path / "blur")
    np.save(
        tmp_path / "blur" / "out.npy",
        np.random.default_rng(1).random((1, 1, 48, 48)).astype(np.float32),
    )
    with pytest.raises(EngineError, match="correlates with it by"):
        import_model(written(tmp_path / "blur", rdf), tmp_path / "engine")
    assert not (tmp_path / "engine").exists()


def step(id: str, **kwargs: object) -> Callable[[Rdf], None]:
    return lambda rdf: rdf["inputs"][0].update(preprocessing=[{"id": id, "kwargs": kwargs}])


def size(value: object) -> Callable[[Rdf], None]:
    return lambda rdf: [axis.update(size=value) for axis in rdf["inputs"][0]["axes"][2:]]  # type: ignore[func-returns-value]


def older(rdf: Rdf) -> None:
    rdf["format_version"] = "0.4.9"


def without_onnx(rdf: Rdf) -> None:
    rdf["weights"] = {"torchscript": {"source": "weights.pt"}}


def a_volume(rdf: Rdf) -> None:
    axes = rdf["inputs"][0]["axes"]
    axes.insert(2, {**axes[2], "id": "z"})


def two_inputs(rdf: Rdf) -> None:
    rdf["inputs"].append(copy.deepcopy(rdf["inputs"][0]))


def three_colours(rdf: Rdf) -> None:
    rdf["inputs"][0]["axes"][1]["channel_names"] = ["r", "g", "b"]


def cropped(rdf: Rdf) -> None:
    rdf["outputs"][0]["axes"][2]["size"]["offset"] = -8


def probabilities(rdf: Rdf) -> None:
    rdf["outputs"][0]["postprocessing"] = [{"id": "sigmoid"}]


def other_weights(rdf: Rdf) -> None:
    rdf["weights"]["onnx"]["sha256"] = "0" * 64


def elsewhere(rdf: Rdf) -> None:
    rdf["weights"]["onnx"]["source"] = "../weights.onnx"


def nameless(rdf: Rdf) -> None:
    del rdf["name"]


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (older, "described in format 0.4.9; livesr reads 0.5"),
        (without_onnx, "has no ONNX weights"),
        (a_volume, "axes batch, channel, z, y, x; livesr shows planes"),
        (two_inputs, "takes 2 images and gives 1"),
        (three_colours, "takes 3 channels"),
        (size(256), "takes sides of 256"),
        (size({"min": 18, "step": 4}), "min a multiple of step"),
        (cropped, "livesr takes one that covers its input"),
        (probabilities, "has the step 'sigmoid'"),
        (
            step("fixed_zero_mean_unit_variance", mean=100.0, std=5.0),
            "which livesr cannot put into the network",
        ),
        (step("scale_linear", gain=0.01), "expects the counts of its own camera"),
        (other_weights, "its SHA-256 differs"),
        (elsewhere, "not beneath it"),
        (nameless, "'name' is missing"),
    ],
)
def test_what_cannot_run_live_is_refused(
    change: Callable[[Rdf], None], sentence: str, tmp_path: Path
) -> None:
    rdf = package(tmp_path / "blur")
    change(rdf)
    with pytest.raises(EngineError, match=sentence):
        import_model(written(tmp_path / "blur", rdf), tmp_path / "engine")
    assert not (tmp_path / "engine").exists()


def test_a_network_of_one_size_is_refused(tmp_path: Path) -> None:
    rdf = package(tmp_path / "blur", side=48)
    with pytest.raises(EngineError, match="takes images of 48 x 48 only"):
        import_model(written(tmp_path / "blur", rdf), tmp_path / "engine")


def test_what_is_no_model_is_named(tmp_path: Path) -> None:
    (tmp_path / "broken.zip").write_bytes(b"no zip")
    with zipfile.ZipFile(tmp_path / "empty.zip", "w"):
        pass
    for name, sentence in (
        ("broken.zip", "no package"),
        ("empty.zip", "holds no rdf"),
        ("nothing", "holds no rdf"),
    ):
        with pytest.raises(EngineError, match=sentence):
            import_model(tmp_path / name, tmp_path / "engine")


def test_importing_needs_no_torch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = written(tmp_path / "blur", package(tmp_path / "blur"))
    for name in ("torch", "nncf", "matplotlib"):
        monkeypatch.setitem(sys.modules, name, None)
    assert import_model(folder, tmp_path / "engine").pcc > 0.9999
    monkeypatch.setattr("livesr.export.imported.find_spec", lambda name: None)
    with pytest.raises(BackendError, match="needs onnx: pip install onnx"):
        import_model(folder, tmp_path / "another")


def test_an_engine_is_not_overwritten(tmp_path: Path) -> None:
    folder = written(tmp_path / "blur", package(tmp_path / "blur"))
    import_model(folder, tmp_path / "engine")
    with pytest.raises(EngineError, match="holds an engine already"):
        import_model(folder, tmp_path / "engine")
    with pytest.raises(EngineError, match="is the engine itself"):
        invoke("export-rdf", tmp_path / "engine", "--out", tmp_path / "engine")


def test_planes_of_two_channels_are_named_and_normalised_each_for_itself(tmp_path: Path) -> None:
    said = description(two_input_engine(tmp_path / "both", (0.5, 0.5)).manifest)["inputs"][0]
    assert said["axes"][1]["channel_names"] == ["frame", "widefield"]
    assert said["preprocessing"][1]["kwargs"]["axes"] == ["y", "x"]
