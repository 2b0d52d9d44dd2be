"""Files and messages with anything in them: refused in a sentence, or understood.

Never a traceback, never a wrong picture.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from backend_contract import session_on
from fuzzing import damaged, examples
from livesr.base.config import load_rig
from livesr.base.errors import LiveSRError
from livesr.base.geometry import Geometry
from livesr.cli.experiment import Experiment, extent, plan_of
from livesr.formats.wire import FRAME, WireError, WireHeader, decode, encode
from livesr.live.inference.engine import load_engine
from livesr.live.inference.identity import identity_engine
from livesr.live.paths import build_path
from livesr.live.plan_summary import summarise

RIGS = Path(__file__).parents[1] / "hardware_configs"
SIDE = 40
PLAN = {
    "axis_order": "tpcz",
    "time_plan": {"interval": 0.5, "loops": 4},
    "stage_positions": [{"x": 1.0, "y": 2.0, "z": 3.0, "name": "A"}, [5, 6, 7]],
    "channels": [
        {"config": "488", "exposure": 5.0},
        {"config": "561", "acquire_every": 2, "do_stack": False},
    ],
    "z_plan": {"range": 2.0, "step": 0.5},
    "metadata": {"who": "me"},
}


def in_a_sentence(error: LiveSRError) -> None:
    said = str(error)
    assert 10 < len(said) < 3000
    assert "Traceback" not in said


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("damaged")


RIG_FILES = {
    file.parent.name: yaml.safe_load(file.read_text(encoding="utf-8"))
    for file in RIGS.glob("[!_]*/rig.yaml")
}


@examples(40)
@given(
    st.sampled_from(sorted(RIG_FILES)).flatmap(
        lambda name: st.tuples(st.just(name), damaged(RIG_FILES[name]))
    )
)
def test_rigs(folder: Path, rig: tuple[str, Any]) -> None:
    """What is accepted reconstructs a frame to numbers of the size that it says."""
    name, data = rig
    place = folder / name
    shutil.copytree(RIGS / name, place, dirs_exist_ok=True)
    (place / "rig.yaml").write_text(yaml.safe_dump(data, allow_unicode=True), encoding="utf-8")
    frame = np.random.default_rng(0).integers(90, 4000, (SIDE, SIDE)).astype(np.uint16)
    try:
        loaded = load_rig(place).with_engine("none").with_engine("none", "upscale")
        for channel in loaded.channels or {"": None}:
            path = build_path(loaded, channel, Geometry((SIDE, SIDE), "uint16", 0.065))
            if path.accumulates:
                continue
            image = path.reconstructor.reconstruct([frame] * path.n_raw)
            assert image.shape == path.description.recon_shape
            assert np.isfinite(image).all()
    except LiveSRError as e:
        in_a_sentence(e)


@pytest.fixture(scope="module")
def engine(folder: Path) -> Path:
    return identity_engine(folder / "engine").folder


@examples(40)
@given(data=st.data())
def test_engine_manifests(engine: Path, data: st.DataObject) -> None:
    """What is accepted runs, and makes pictures of the size and number that it says."""
    text = (engine / "manifest.yaml").read_text(encoding="utf-8")
    changed = data.draw(damaged(yaml.safe_load(text)))
    other = engine.with_name("damaged")
    shutil.copytree(engine, other, dirs_exist_ok=True)
    (other / "manifest.yaml").write_text(
        yaml.safe_dump(changed, allow_unicode=True), encoding="utf-8"
    )
    try:
        loaded = load_engine(other)
        loaded.check_fits("separate", shape=(SIDE, SIDE), pixel_size_nm=32.5, modality="sim")
        backend = session_on(loaded, (SIDE, SIDE), "openvino", "f32", 1)
        backend.input[...] = 0.5
        assert backend.infer().shape == loaded.output_shape((SIDE, SIDE))
        backend.close()
    except LiveSRError as e:
        in_a_sentence(e)


@examples(40)
@given(damaged(PLAN))
def test_plans(folder: Path, plan: Any) -> None:
    """What is accepted can be announced and summarised at once, however long it would run."""
    file = folder / "plan.yaml"
    file.write_text(yaml.safe_dump(plan, allow_unicode=True), encoding="utf-8")
    rig = load_rig("virtual_sim")
    rig = rig.model_copy(
        update={"channels": {name: next(iter(rig.channels.values())) for name in ("488", "561")}}
    )
    try:
        read = plan_of(Experiment(plan=file), rig, exposure_ms=5.0)
        assert "raw frames each" in extent(read, rig, 5.0).sentence(10**9)
        assert summarise(read, rig.raw_frames).z_planes >= 1
    except LiveSRError as e:
        in_a_sentence(e)


PIXELS = np.arange(24, dtype="<u2").reshape(2, 3, 4)
HEADER = {
    "v": 1,
    "type": "frame",
    "stream": "a",
    "seq": 7,
    "t_pub_ns": 2,
    "t_acq_ns": 1,
    "position": 1,
    "raw_seq": [9, 17],
    "dtype": "<u2",
    "shape": [2, 3, 4],
    "axes": "cyx",
    "pixel_size_um": 0.0325,
    "channels": [{"label": "ER", "color": "FF00FF", "window": [0, 9]}, {"label": "MT"}],
    "ai": {"prediction": True},
    "normalisation": {"background": 1.0, "headroom": 2.0},
    "warnings": ["dim"],
}


@examples(200)
@given(damaged(HEADER))
def test_wire_headers(header: Any) -> None:
    """What is accepted holds the pixels that came, and comes back as it is when it is sent on."""
    parts = [FRAME, json.dumps(header).encode(), PIXELS.tobytes()]
    try:
        message = decode(parts)
    except WireError:
        return
    assert message.pixels.tobytes() == PIXELS.tobytes()
    assert message.pixels.shape == tuple(message.header.shape)
    again = decode([bytes(part) for part in encode(FRAME, message.header, message.pixels)])
    assert isinstance(again.header, WireHeader)
    assert again.header.model_dump_json() == message.header.model_dump_json()
