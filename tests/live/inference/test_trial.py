"""Engines are tried out where a crash takes nothing with it.

Real processes, that really crash, hang and take memory.
"""

from __future__ import annotations

import json
import signal
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from backend_contract import settings
from livesr.base.errors import EngineError
from livesr.base.geometry import Geometry
from livesr.live.inference import trial
from livesr.live.inference.engine import (
    MODEL_NAME,
    Engine,
    OnnxWeights,
    Weights,
    load_engine,
    sha256_of,
    write_manifest,
)
from livesr.live.inference.identity import identity_engine
from livesr.live.inference.trial import SHIPPED, is_shipped, try_out
from livesr.live.paths import build_path
from recorded_runs import REPOSITORY_ENGINES, mixing_engine, sim_rig

onnx = pytest.importorskip("onnx")
helper, numpy_helper = onnx.helper, onnx.numpy_helper

pytestmark = pytest.mark.tries_engines
SHAPE = (32, 32)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LIVESR_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "tried"


@pytest.fixture
def engine(tmp_path: Path) -> Engine:
    return mixing_engine(tmp_path / "engines" / "mixing")


def instead(monkeypatch: pytest.MonkeyPatch, program: str) -> None:
    """Run another program in the place of a runtime that fails.

    The network itself depends on the runtime's faults.
    """
    monkeypatch.setattr(trial, "_COMMAND", (sys.executable, "-c", program))


def test_one_that_works_is_tried_once(
    engine: Engine, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    try_out(engine, SHAPE, settings("openvino", "f32"))
    assert len(list(cache.iterdir())) == 1
    instead(monkeypatch, "raise SystemExit('tried again')")
    try_out(engine, SHAPE, settings("openvino", "f32"))
    for other in ((SHAPE[0], 64), "torch", "bf16"):
        shape = other if isinstance(other, tuple) else SHAPE
        with pytest.raises(EngineError, match="tried again"):
            try_out(
                engine,
                shape,
                settings(
                    "torch" if other == "torch" else "openvino",
                    "bf16" if other == "bf16" else "f32",
                ),
            )
    next(cache.iterdir()).write_text("{}")
    with pytest.raises(EngineError, match="tried again"):
        try_out(engine, SHAPE, settings("openvino", "f32"))


@pytest.mark.skipif(sys.platform == "win32", reason="has no signals")
def test_a_crash_is_a_sentence(
    engine: Engine, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    instead(monkeypatch, f"import os; os.kill(os.getpid(), {int(signal.SIGSEGV)})")
    with pytest.raises(
        EngineError,
        match=r"'mixing' crashed \(SIGSEGV\), in a process of its own, on frames of 32 x 32",
    ):
        try_out(engine, SHAPE, settings())
    assert not cache.exists()


@pytest.mark.parametrize("program", ["raise SystemExit(3)", "print('no JSON')", "print('[]')", ""])
def test_an_end_without_an_answer_is_a_crash(
    program: str, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    instead(monkeypatch, program)
    with pytest.raises(EngineError, match="crashed"):
        try_out(engine, SHAPE, settings())


def test_one_that_never_ends_is_ended(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    instead(monkeypatch, "while True: pass")
    monkeypatch.setattr(trial, "LONGEST_S", 0.5)
    monkeypatch.setattr(trial, "LONGEST_ON_GPU_S", 0.5)
    with pytest.raises(EngineError, match="did not come to an end"):
        try_out(engine, SHAPE, settings())


def test_one_that_takes_all_memory_is_ended(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    instead(monkeypatch, "block = bytearray(1 << 27)\nwhile True: pass")
    monkeypatch.setattr(trial, "MAX_OF_MEMORY", 0.0)
    with pytest.raises(EngineError, match="of memory"):
        try_out(engine, SHAPE, settings())


def test_what_a_runtime_refuses_is_not_remembered(engine: Engine, cache: Path) -> None:
    channels = (
        *engine.manifest.channels,
        engine.manifest.channels[0].model_copy(update={"name": "another"}),
    )
    write_manifest(engine.folder, engine.manifest.model_copy(update={"channels": channels}))
    # opening it will say the same, here
    try_out(load_engine(engine.folder), SHAPE, settings("openvino", "f32"))
    assert not cache.exists()


def test_before_a_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LIVESR_HOME", str(tmp_path))
    mixing_engine(tmp_path / "engines" / "mixing")
    instead(monkeypatch, "raise SystemExit(3)")
    with pytest.raises(EngineError, match="crashed"):
        build_path(sim_rig("mixing"), "488", Geometry(SHAPE, "uint16", 0.065))


def test_in_check(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from livesr.check.rig import check_rig

    monkeypatch.setenv("LIVESR_HOME", str(tmp_path))
    mixing_engine(tmp_path / "engines" / "mixing")
    instead(monkeypatch, "raise SystemExit(3)")
    rig = sim_rig("mixing").folder / "rig.yaml"
    text = rig.read_text()
    name = next(c.separate for c in sim_rig("mixing").channels.values() if c.separate)
    assert name == "mixing"
    copy = tmp_path / "rig"
    copy.mkdir()
    (copy / "rig.cfg").write_text((rig.parent / "rig.cfg").read_text())
    (copy / "rig.yaml").write_text(
        "\n".join("    separate: mixing" if "separate:" in x else x for x in text.splitlines())
    )
    found = check_rig(copy / "rig.yaml")
    assert [f for f in found if "crashed" in f.says], found


def test_in_an_import(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from livesr.export.imported import import_model
    from livesr.export.rdf import export_rdf

    export_rdf(mixing_engine(tmp_path / "engines" / "mixing"), tmp_path / "package")
    instead(monkeypatch, "raise SystemExit(3)")
    with pytest.raises(EngineError, match="crashed"):
        import_model(tmp_path / "package", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_what_comes_with_livesr_starts_no_process(monkeypatch: pytest.MonkeyPatch) -> None:
    instead(monkeypatch, "raise SystemExit('started')")
    names = [p.parent.name for p in REPOSITORY_ENGINES.glob("*/manifest.yaml")]
    assert len(names) > 5
    for name in names:
        found = load_engine(REPOSITORY_ENGINES / name)
        assert is_shipped(found), f"add the networks of {name} to SHIPPED"
        try_out(found, SHAPE, settings())
    networks = {sha256_of(p) for p in REPOSITORY_ENGINES.glob("*/*.onnx")}
    assert networks == SHIPPED


def test_a_shipped_network_does_not_vouch_for_another(tmp_path: Path) -> None:
    plain = identity_engine(tmp_path / "identity")
    assert is_shipped(plain)
    graph = helper.make_graph(
        [helper.make_node("Relu", ["frames"], ["channels"])],
        "other",
        [helper.make_tensor_value_info("frames", 1, [1, 3, "y", "x"])],
        [helper.make_tensor_value_info("channels", 1, [1, 3, "y", "x"])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    (tmp_path / "identity" / MODEL_NAME).write_bytes(model.SerializeToString())
    weights = Weights(onnx=OnnxWeights(sha256=sha256_of(tmp_path / "identity" / MODEL_NAME)))
    write_manifest(tmp_path / "identity", plain.manifest.model_copy(update={"weights": weights}))
    assert not is_shipped(load_engine(tmp_path / "identity"))


def test_a_process_does_not_run_what_lies_where_it_starts(
    engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("json.py", "livesr.py", "numpy.py"):
        (tmp_path / name).write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    monkeypatch.chdir(tmp_path)
    try_out(engine, SHAPE, settings("openvino", "f32"))
    assert not (tmp_path / "ran").exists()


def test_the_process_answers_in_json(engine: Engine) -> None:
    asked: dict[str, Any] = {
        "engine": str(engine.folder),
        "shape": SHAPE,
        "how": ["openvino", "f32", 0, "off"],
    }
    assert trial.main(json.loads(json.dumps(asked))) == {"refused": None}
    refused = trial.main(asked | {"shape": (1, 1)})["refused"]
    assert refused is None or np.char.find(refused, "small") >= 0
