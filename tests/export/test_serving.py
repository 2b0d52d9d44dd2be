"""What `livesr serve` writes, and what a door lets in. Needs no server."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from livesr.base.documents import parse_yaml, read_json
from livesr.base.errors import BackendError, ConfigError
from livesr.cli import _run
from livesr.export.serving import Door, ServedPlan, write_repository
from livesr.export.triton_server import SERVER, find_triton
from livesr.live.inference.engine import load_engine, sha256_of
from livesr.live.inference.identity import identity_engine
from livesr.live.inference.kserve import name_that_says_it
from livesr.live.inference.tensorrt import TensorRTRuntime

LIGHT = "imcsr-mt-er-lyso-light"


def test_a_repository_has_the_engine_and_says_which_it_is(tmp_path: Path) -> None:
    engine = load_engine(LIGHT)
    (served,) = write_repository([engine], tmp_path / "served", Door(port=9000))
    model = tmp_path / "served" / "models" / LIGHT
    assert sha256_of(model / "1" / "model.onnx") == engine.manifest.sha256
    config = (model / "config.pbtxt").read_text(encoding="utf-8")
    for part in (
        f'name: "{LIGHT}"',
        'backend: "onnxruntime"',
        "max_batch_size: 0",
        "dims: [ 1, 3, -1, -1 ]",
        f'key: "sha256" value {{ string_value: "{engine.manifest.sha256}" }}',
        f'key: "version" value {{ string_value: "{engine.manifest.version}" }}',
    ):
        assert part in config
    assert read_json(tmp_path / "served" / "served.json") == [served]
    compose = parse_yaml((tmp_path / "served" / "compose.yaml").read_text(), "compose.yaml")
    triton = compose["services"]["triton"]
    assert triton["ports"] == ["127.0.0.1:9000:8001"]
    assert "--allow-http=false" in triton["command"]
    (one,) = read_json(tmp_path / "served" / "openvino.json")["model_config_list"]
    assert one["config"]["name"] == name_that_says_it(engine.manifest)
    assert one["config"]["base_path"] == f"/models/{LIGHT}"
    assert compose["services"]["openvino"]["profiles"] == ["openvino"]
    start = tmp_path / "served" / "start.sh"
    assert "--grpc-address=127.0.0.1 --grpc-port=9000" in start.read_text()
    assert os.name == "nt" or os.access(start, os.X_OK)


def test_half_precision_is_only_on_the_way(tmp_path: Path) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnx")
    engine = load_engine(LIGHT)
    (served,) = write_repository([engine], tmp_path, Door(), wire="f16")
    path = tmp_path / "models" / LIGHT / "1" / "model.onnx"
    assert served["sha256"] == engine.manifest.sha256
    assert served["file_sha256"] == sha256_of(path) != engine.manifest.sha256
    frames = np.random.default_rng(0).random((1, 3, 32, 48), np.float32)
    here, there = (
        onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
        for data in (engine.read(), path.read_bytes())
    )
    expected = here.run(None, {here.get_inputs()[0].name: frames})[0]
    found = there.run(None, {there.get_inputs()[0].name: frames.astype(np.float16)})[0]
    assert found.dtype == np.float16
    np.testing.assert_allclose(found, expected, atol=2e-3)


def test_a_plan_is_served_for_frames_of_its_size(tmp_path: Path) -> None:
    """Written only: a plan itself needs NVIDIA's card to be built, and to run."""
    engine, other = load_engine(LIGHT), identity_engine(tmp_path / "identity")
    write_repository([engine, other], tmp_path, Door())
    plan = ServedPlan(b"of TensorRT", (512, 640), "f16", "tensorrt 10.11.0.33", "L4, sm_89")
    served, _ = write_repository([engine, other], tmp_path, Door(), plans={LIGHT: plan})
    model = tmp_path / "models" / LIGHT
    assert [f.name for f in (model / "1").iterdir()] == ["model.plan"]
    assert (model / "1" / "model.plan").read_bytes() == plan.data
    assert (served["by"], served["precision"]) == ("tensorrt", "f16")
    config = (model / "config.pbtxt").read_text(encoding="utf-8")
    for part in (
        'platform: "tensorrt_plan"',
        "data_type: TYPE_FP32 dims: [ 1, 3, 512, 640 ]",
        "kind: KIND_GPU",
        'key: "plan" value { string_value: "tensorrt 10.11.0.33, L4, sm_89" }',
        f'key: "sha256" value {{ string_value: "{engine.manifest.sha256}" }}',
    ):
        assert part in config
    assert "backend:" not in config
    kept = (tmp_path / "models" / other.manifest.id / "config.pbtxt").read_text(encoding="utf-8")
    assert 'backend: "onnxruntime"' in kept
    (one,) = read_json(tmp_path / "openvino.json")["model_config_list"]
    assert one["config"]["name"] == name_that_says_it(other.manifest)
    with pytest.raises(BackendError, match="leave out --wire f16"):
        write_repository([engine], tmp_path, Door(), wire="f16", plans={LIGHT: plan})


@pytest.mark.skipif(
    TensorRTRuntime().unavailable() is None, reason="here is what a plan can be built with"
)
def test_without_tensorrt_no_plan_is_promised(tmp_path: Path, capsys: Any) -> None:
    command = ["serve", LIGHT, "--to", str(tmp_path / "served"), "--plan", "512x512"]
    assert _run(command) == 2
    assert "TensorRT" in (said := capsys.readouterr().err)
    assert "leave out --plan" in " ".join(said.split())
    assert not (tmp_path / "served").exists()
    assert _run([*command[:-1], "large"]) == 2
    assert "--plan is y x x" in capsys.readouterr().err
    assert _run([*command[:-2], "--precision", "f16"]) == 2
    assert "add --plan" in capsys.readouterr().err


def test_what_cannot_be_served_is_refused(tmp_path: Path) -> None:
    one, other = (identity_engine(tmp_path / name) for name in "ab")
    with pytest.raises(ConfigError, match="same id"):
        write_repository([one, other], tmp_path / "served", Door())
    in_adu = one.manifest.model_copy(update={"normalisation": "none"})
    from dataclasses import replace

    with pytest.raises(BackendError, match="use --wire f32"):
        write_repository([replace(one, manifest=in_adu)], tmp_path, Door(), wire="f16")
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="cannot be written"):
        write_repository([one], tmp_path / "file", Door())


@pytest.mark.parametrize(
    ("door", "sentence"),
    [
        ({"host": "0.0.0.0"}, "other computers can reach"),
        ({"host": "10.0.0.7", "token": "secret"}, "give --cert and --key"),
        ({"certificate": Path("cert.pem")}, "go together"),
        ({"certificate": Path("cert.pem"), "key": Path("key.pem")}, "is not there"),
        ({"token": 'a"; rm -rf'}, "other signs"),
    ],
)
def test_a_door_is_not_open_wider_than_was_said(door: dict, sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        Door(**door)


def test_a_token_stands_in_no_file(tmp_path: Path) -> None:
    engine = identity_engine(tmp_path / "identity")
    write_repository([engine], tmp_path / "served", Door(token="s3cret-s3cret"))
    for file in (tmp_path / "served").rglob("*"):
        assert file.is_dir() or b"s3cret" not in file.read_bytes(), file
    assert "${LIVESR_ENDPOINT_TOKEN:?}" in (tmp_path / "served" / "start.sh").read_text()
    compose = (tmp_path / "served" / "compose.yaml").read_text()
    assert "${LIVESR_ENDPOINT_TOKEN:?}" in compose
    assert "openvino" not in compose  # which asks nobody for it


def test_the_command_writes_and_says_how_it_goes_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("LIVESR_ENDPOINT_TOKEN", raising=False)
    assert _run(["serve", LIGHT, "identity", "--to", str(tmp_path / "served"), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert [m["id"] for m in told["models"]] == [LIGHT, "identity"]
    assert told["endpoint"] == "grpc://127.0.0.1:8001"
    assert _run(["serve", "identity", "--to", str(tmp_path), "--host", "0.0.0.0", "--json"]) == 2
    assert "--insecure" in json.loads(capsys.readouterr().out)["error"]
    there = ["serve", "identity", "--to", str(tmp_path), "--json"]
    assert _run([*there, "--tritonserver", "x"]) == 2
    assert "is for --start" in json.loads(capsys.readouterr().out)["error"]
    assert _run([*there, "--start", "--tritonserver", str(tmp_path / "none")]) == 2
    assert "is not there" in json.loads(capsys.readouterr().out)["error"]


def test_a_server_is_looked_for_where_it_may_be(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    binary = tmp_path / "bin" / "tritonserver"
    binary.parent.mkdir()
    binary.write_text("#!/bin/sh\n")
    binary.chmod(0o755)
    monkeypatch.setenv(SERVER, str(binary))
    with pytest.raises(BackendError, match="neither the onnxruntime nor the python backend"):
        _ = find_triton().by
    for by in ("python", "onnxruntime"):
        (tmp_path / "backends" / by).mkdir(parents=True)
        assert find_triton().by == by
    monkeypatch.setenv(SERVER, "")
    monkeypatch.setenv("PATH", str(binary.parent))
    assert find_triton().binary == binary
