"""`livesr bench gpu` where there may be no GPU.

What can run here is checked for real, and the rest says why it was left out.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

import livesr
from livesr.bench.gpu.subjects import agreement
from livesr.bench.report import read_json, write_json
from livesr.bench.result import AGREEMENT, LeftOut, Measured, Result, Target
from livesr.bench.runner import SUITES
from livesr.cli import app
from livesr.live.inference.cuda import why_no_gpu

GPU = [name for name in SUITES if name.startswith("gpu.")]


@pytest.mark.timeout(900)
@pytest.mark.skipif(why_no_gpu() is None, reason="a GPU is here")
def test_without_a_gpu_the_cpus_runtimes_agree_and_the_rest_says_why_not(tmp_path: Path) -> None:
    for package in ("torch", "onnx", "onnxruntime"):
        pytest.importorskip(package)
    out = tmp_path / "gpu.json"
    command = [sys.executable, "-m", "livesr", "bench", "gpu", "--quick", "--out", str(out)]
    path = str(Path(livesr.__file__).parents[1])  # as on a machine with nothing but the sources
    environment = {**os.environ, "PYTHONPATH": path, "COLUMNS": "200"}
    done = subprocess.run(
        [*command, "--json"],
        capture_output=True,
        text=True,
        timeout=890,
        check=False,
        cwd=tmp_path,
        env=environment,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    said = json.loads(done.stdout)
    assert said["wrong"] == []
    known = read_json(out)
    agreeing = [r for r in known.results if r.unit == AGREEMENT]
    assert {r.name.split(".")[2] for r in agreeing} == {"openvino", "torch"}
    assert all(r.met for r in agreeing)
    assert {r.suite for r in known.results} == set(GPU)
    reasons = {entry.name: entry.reason for entry in known.left_out}
    for name in ("gpu.parity.tensorrt", "gpu.speed.tensorrt", "gpu.frame.recon"):
        assert "NVIDIA driver" in reasons[name]


def test_a_gain_and_an_offset_are_no_agreement() -> None:
    image = np.random.default_rng(0).random((2, 32, 32)).astype(np.float32)
    assert agreement(image, image) == pytest.approx(1)
    assert agreement(1.2 * image, image) < 0.9
    assert agreement(image + 0.2, image) < 0.7
    one_channel = image.copy()
    one_channel[1] = one_channel[1, ::-1]
    assert agreement(one_channel, image) < 0, "the worst channel counts"
    assert agreement(image[:, :16], image) == -np.inf


def test_what_disagrees_or_fails_ends_with_one(tmp_path: Path) -> None:
    known = [Result(f"{name}.x", 1.0, "ms", note="n") for name in GPU]
    target = (Target(0.99, "least"),)
    wrong = Result("gpu.parity.y", 0.5, AGREEMENT, targets=target, note="n")
    missed = Result("gpu.speed.y", 9.0, "ms", targets=(Target(5, "most"),), note="n")
    lacking = LeftOut("gpu.parity.tensorrt", "There is no GPU.")
    for results, left_out, exit_code, named in (
        ([*known, missed], [lacking], 0, []),
        ([*known, wrong], [lacking], 1, ["gpu.parity.y"]),
        (known, [LeftOut("gpu.frame", "It crashed.", fault=True)], 1, ["gpu.frame"]),
    ):
        out = tmp_path / "out.json"
        write_json(Measured(results, left_out), out)
        done = CliRunner().invoke(app, ["bench", "gpu", "--resume", "--out", str(out), "--json"])
        assert done.exit_code == exit_code, done.output
        assert json.loads(done.stdout)["wrong"] == named
