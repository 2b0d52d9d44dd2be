"""Networks without a description: what is found of them, and what is refused in a sentence."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from backend_contract import session_on
from livesr.base.compute import ComputeConfig
from livesr.base.errors import EngineError
from livesr.cli import app
from livesr.export.bare import Said, import_network
from livesr.live.inference.runner import open_session

torch, onnx = pytest.importorskip("torch"), pytest.importorskip("onnx")


def exported(path: Path, architecture: str, *, named: bool = True, **parameters: Any) -> Path:
    """A network as another program exports it: names of its own, free sides, no shape behind."""
    from livesr.export.onnx import export_onnx
    from livesr.training import networks

    torch.manual_seed(0)
    network = networks.build(architecture, **parameters).eval()
    torch.nn.init.normal_(network.out.weight, std=0.3)
    export_onnx(network, path, network.frames, multiple_of=network.multiple_of, fp16_weights=False)
    model = onnx.compose.add_prefix(onnx.load(path), "their/")
    ports = [model.graph.input[0], model.graph.output[0]]
    for port, axes in zip(ports, ("nphw", "NCHW"), strict=True):
        dims = port.type.tensor_type.shape.dim
        for axis, dim in zip(axes, dims, strict=True):
            if axis != "p" or not named:
                dim.dim_param = axis
    del model.graph.value_info[:]
    onnx.save(model, path)
    return path


@pytest.mark.parametrize(
    ("architecture", "parameters", "task", "found"),
    [
        ("unet", {"frames": 1, "channels": 1, "width": 4, "depth": 3}, "restore", (1, 1, 1, 8)),
        ("raw-unet", {"frames": 3, "width": 4}, "reconstruct", (3, 1, 2, 8)),
        ("edsr", {"scale": 2, "blocks": 1, "width": 4}, "upscale", (1, 1, 2, 1)),
    ],
)
def test_what_its_file_does_not_say_is_found(
    architecture: str, parameters: Any, task: Any, found: tuple[int, ...], tmp_path: Path
) -> None:
    path = exported(tmp_path / "net.onnx", architecture, **parameters)
    manifest = import_network(path, tmp_path / "engine", Said(task)).manifest
    assert (manifest.inputs, len(manifest.channels), manifest.scale, manifest.multiple_of) == found
    assert (manifest.task, manifest.window) == (task, 1 if task != "separate" else 3)
    assert manifest.raw_frames == (("raw 0", "raw 1", "raw 2") if task == "reconstruct" else ())


def test_its_halo_is_measured(tmp_path: Path) -> None:
    path = exported(tmp_path / "net.onnx", "edsr", scale=2, blocks=1, width=4)
    halo = import_network(path, tmp_path / "engine", Said("upscale")).manifest.halo
    assert 1 <= halo <= 7  # 7 as its architecture says


@pytest.mark.parametrize(
    ("said", "sentence"),
    [
        (Said("reconstruct", scale=4), "enlarges 2 times, and --scale 4"),
        (Said("reconstruct", raw_frames=("a", "b")), "takes 3 planes, and 2 were named"),
        (Said("reconstruct", channels=("a", "b")), "gives 1 channels, and 2 were named"),
        (Said("upscale"), "takes 3 planes.* sees one frame"),
    ],
)
def test_what_is_said_otherwise_is_refused(said: Said, sentence: str, tmp_path: Path) -> None:
    path = exported(tmp_path / "net.onnx", "raw-unet", frames=3, width=4)
    with pytest.raises(EngineError, match=sentence):
        import_network(path, tmp_path / "engine", said)
    assert not (tmp_path / "engine").exists()


def test_planes_that_the_file_leaves_open(tmp_path: Path) -> None:
    path = exported(tmp_path / "net.onnx", "raw-unet", named=False, frames=3, width=4)
    with pytest.raises(EngineError, match="--raw-frames"):
        import_network(path, tmp_path / "engine", Said("reconstruct"))
    labels = ("angle 0 phase 0", "angle 1 phase 0", "angle 2 phase 0")
    engine = import_network(path, tmp_path / "engine", Said("reconstruct", raw_frames=labels))
    assert engine.manifest.raw_frames == labels
    nine = tuple(f"raw {i}" for i in range(9))
    with pytest.raises(EngineError, match="cannot be run as it is said"):
        import_network(path, tmp_path / "other", Said("reconstruct", raw_frames=nine))


def test_on_the_command_line(tmp_path: Path) -> None:
    path = exported(tmp_path / "net.onnx", "unet", frames=3, channels=2, width=4, depth=1)
    out = tmp_path / "engine"
    command = ["engine", "import", str(path), "--out", str(out)]
    bare = CliRunner().invoke(app, command)
    assert "say what it does with --task" in str(bare.exception)
    unnamed = CliRunner().invoke(app, [*command, "--task", "separate"])
    assert "name the structures" in str(unnamed.exception)
    done = CliRunner().invoke(
        app, [*command, "--task", "separate", "--channels", "ER,MT", "--json"]
    )
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["channels"] == ["ER", "MT"]


def test_tiles_are_normalised_by_the_whole_frame(tmp_path: Path) -> None:
    """One half of the frame is bright: a tile's own mean would show as a seam."""
    path = exported(tmp_path / "net.onnx", "unet", frames=1, channels=1, width=4, depth=1)
    engine = import_network(
        path, tmp_path / "engine", Said("restore", normalisation="mean-deviation")
    )
    frame = np.random.default_rng(0).gamma(2.0, 100.0, (1, 256, 320)).astype(np.float32)
    frame[:, :, 160:] *= 10
    answers = []
    for tile in ("off", 128):
        compute = ComputeConfig(backend="openvino", precision="f32", threads=1, tile=tile)
        with open_session(engine, (256, 320), compute) as session:
            session.input[:] = frame
            answers.append(session.infer().copy())
            np.testing.assert_array_equal(session.input, frame)
    inside = (slice(None), slice(16, -16), slice(16, -16))
    np.testing.assert_allclose(answers[0][inside], answers[1][inside], rtol=1e-3, atol=0.1)
    with session_on(engine, (256, 320), "torch", "f32") as session:
        session.input[:] = 3 * frame + 7  # what it makes of the frame follows light and level
        scaled = session.infer()
        np.testing.assert_allclose(scaled, 3 * answers[0] + 7, rtol=1e-3, atol=1.0)
