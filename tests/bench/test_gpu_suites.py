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
from livesr.bench.gpu.paste import to_paste
from livesr.bench.gpu.subjects import agreement, full_engine
from livesr.bench.report import read_json, write_json
from livesr.bench.result import AGREEMENT, Environment, LeftOut, Measured, Result, Target
from livesr.bench.runner import SUITES
from livesr.cli import app
from livesr.live.inference.cuda import why_no_gpu

GPU = [name for name in SUITES if name.startswith("gpu.")]


@pytest.mark.slow
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
    assert "card and driver: none" in said["text"]
    assert "wrong or failed: nothing" in said["text"]
    known = read_json(out)
    agreeing = [r for r in known.results if r.unit == AGREEMENT]
    assert {r.name.split(".")[2] for r in agreeing} == {"openvino", "torch"}
    assert all(r.met for r in agreeing)
    assert {r.suite for r in known.results} == set(GPU)
    reasons = {entry.name: entry.reason for entry in known.left_out}
    for name in ("gpu.parity.tensorrt", "gpu.speed.tensorrt", "gpu.frame.recon"):
        assert "NVIDIA driver" in reasons[name]


def test_what_is_pasted_into_an_issue_says_card_agreement_times_and_what_failed() -> None:
    card = "NVIDIA GeForce RTX 4090, 580.65, 24564 MiB"
    here = Environment(
        "a CPU", 4, True, 1.0, "Windows-11", "3.12.1", {"livesr": "9.9", "onnx": "1.2"}, gpu=card
    )
    least = (Target(0.998, "least"),)
    name = "gpu.parity.tensorrt-rtx"
    results = [
        Result(f"{name}.f16.light", 0.9995, AGREEMENT, targets=least, environment=here),
        Result(f"{name}.f16.full", 0.9990, AGREEMENT, targets=least, environment=here),
        Result(f"{name}.f8.light", 0.5, AGREEMENT, targets=least, environment=here),
        Result("gpu.speed.tensorrt-rtx.512", 4.25, "ms", 9, "torch eager f16", 0.47),
        Result("gpu.speed.tensorrt-rtx.1024", 15.5, "ms", 36, "torch eager f16", 0.43),
        Result("gpu.frame.512", 5.0, "ms", 4.2, "its network alone", 1.2),
        Result("hook.call", 5.0, "us"),
    ]
    left_out = [
        LeftOut("gpu.speed.tensorrt", "It is not installed."),
        LeftOut("gpu.frame.recon", "It crashed.\nTraceback", fault=True),
    ]
    text = to_paste(Measured(results, left_out))
    assert max(map(len, text.splitlines())) <= 78
    words = " ".join(text.split())
    for said in (
        "livesr 9.9 bench gpu, Python 3.12.1, Windows-11",
        f"card and driver: {card}; 4 cores of a CPU",
        "with onnx 1.2",
        "tensorrt-rtx f16 0.9990, tensorrt-rtx f8 0.5000",
        "512: 4.25 (0.47 times torch eager f16), 1024: 15.5 (0.43 times torch eager f16)",
        "ms, frame: 512: 5 (1.20 times its network alone)",
        "wrong or failed: gpu.parity.tensorrt-rtx.f8.light, gpu.frame.recon",
        "failed, gpu.frame.recon: It crashed.",
        "not run, tensorrt: It is not installed.",
    ):
        assert said in words, (said, words)
    assert "hook" not in text
    assert to_paste(Measured([results[-1]])) == ""


def test_the_full_network_is_made_where_none_is_at_hand(tmp_path: Path) -> None:
    for package in ("torch", "onnx", "nncf"):
        pytest.importorskip(package)
    engine = full_engine(tmp_path, groups=1, blocks=1, width=8)
    assert engine.int8_path
    assert (engine.manifest.trained, engine.manifest.window) == (False, 3)


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
