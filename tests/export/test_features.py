"""The second output of a network: what is added, and that every way to run it hands it out."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest

from livesr.base.compute import ComputeConfig
from livesr.base.errors import EngineError
from livesr.export.features import add_features, feature_places
from livesr.live.inference.engine import Engine, load_engine
from livesr.live.inference.identity import identity_engine
from livesr.live.inference.runner import open_session
from livesr.live.unlike import described

PLAIN = "imcsr-ccp-mt-er"  # came without
SIDE = 64


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Engine:
    folder = tmp_path_factory.mktemp("features") / PLAIN
    shutil.copytree(load_engine(PLAIN).folder, folder)
    add_features(folder)
    return load_engine(folder)


def frames(side: int = SIDE) -> np.ndarray:
    return np.random.default_rng(0).random((3, side, side), np.float32) * np.float32(0.5)


def run(engine: Engine, x: np.ndarray, **compute: object) -> tuple[np.ndarray, np.ndarray | None]:
    settings = ComputeConfig(**{"backend": "openvino", "precision": "f32", "tile": "off"} | compute)
    with open_session(engine, x.shape[1:], settings) as session:
        session.input[...] = x
        return session.infer().copy(), None if session.features is None else +session.features


def test_the_prediction_stays_what_it_was_and_old_engines_have_no_features(engine: Engine) -> None:
    before, none = run(load_engine(PLAIN), frames())
    after, features = run(engine, frames())
    np.testing.assert_allclose(after, before, atol=1e-6)
    assert none is None
    assert features is not None
    assert features.shape == (engine.manifest.features,)


def test_every_runtime_gives_the_same_features(engine: Engine) -> None:
    _, here = run(engine, frames())
    _, there = run(engine, frames(), backend="torch")
    assert here is not None
    np.testing.assert_allclose(there, here, atol=1e-5)


def test_they_say_what_the_network_saw_where_it_drew_a_channel(engine: Engine) -> None:
    drawn, features = run(engine, frames())
    assert features is not None
    last, channels = engine.manifest.weights.features_drawn, len(drawn)
    light = features[-channels * (1 + last) :].reshape(channels, -1)[:, 0]
    coarse = drawn.reshape(channels, SIDE // 4, 4, SIDE // 4, 4).max((2, 4))
    np.testing.assert_allclose(light, coarse.mean((1, 2)), atol=1e-5)
    assert described(features, channels, last).shape == (len(features) - channels,)


def test_those_of_tiles_are_near_those_of_the_whole(engine: Engine) -> None:
    x = frames(384)
    _, whole = run(engine, x)
    _, tiles = run(engine, x, tile=256)
    assert whole is not None
    assert tiles is not None
    assert np.corrcoef(whole, tiles)[0, 1] > 0.99


def test_it_is_added_once(engine: Engine) -> None:
    assert add_features(engine.folder) == engine.manifest


def test_a_network_without_a_residual_stream_gets_none(tmp_path: Path) -> None:
    folder = identity_engine(tmp_path / "identity").folder
    with pytest.raises(EngineError, match="residual stream"):
        add_features(folder)
    assert not load_engine(folder).manifest.features
    with pytest.raises(EngineError, match="residual stream"):
        feature_places(onnx.load(folder / "model.onnx"))
