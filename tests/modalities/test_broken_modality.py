"""What a modality of another package that is broken may do to a rig, and to a run."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from contracts import raw_stack
from livesr.base.config import RigConfig, load_rig, parse
from livesr.base.errors import ConfigError, LiveSRError
from livesr.base.geometry import Geometry
from livesr.bench.runner import suites
from livesr.live.measurement import Measurement
from livesr.live.paths import build_path
from livesr.live.recorded import LIVE
from livesr.live.run_state import RunState
from livesr.modalities.registry import MODALITIES

CODE = """
import numpy as np
from livesr import Modality

class Broken(Modality):
    name = "broken"
    {}
"""
PICTURE = """
    def build(self, rig, channel, camera, *_):
        class Way:
            scale, memory_bytes, shape = 1, 0, camera.shape
            def reconstruct(self, frames):
                return {}
        return Way()
"""
CAMERA = Geometry((16, 16), "uint16", 0.1)


@pytest.fixture
def broken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], RigConfig]]:
    """Install a modality whose class has these lines; return a rig of it."""
    monkeypatch.syspath_prepend(tmp_path)
    info = tmp_path / "broken-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: broken\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[livesr.modalities]\nbroken = broken_way:Broken\n")
    MODALITIES.__dict__.pop("_announced", None)

    def rig(lines: str) -> RigConfig:
        (tmp_path / "broken_way.py").write_text(CODE.format(lines))
        data = load_rig("demo").model_dump() | {"modality": "broken", "channels": {}}
        return parse(RigConfig, data, "rig.yaml")

    yield rig
    monkeypatch.undo()
    MODALITIES.__dict__.pop("_announced", None)
    sys.modules.pop("broken_way", None)


@pytest.mark.parametrize(
    ("lines", "sentence"),
    [
        ("Section = 3", "has a Section that is no class derived from livesr.Section"),
        ("ChannelSection = int", "has a ChannelSection that is no class derived from"),
        ("def __init__(self): self.name = 'other'", "does not call itself 'broken'"),
        ("def validate(self, rig): raise KeyError('x')", "cannot look at a rig: KeyError: 'x'"),
        ("def build(self, *a): raise KeyError('x')", "cannot reconstruct channel '': KeyError"),
    ],
)
def test_it_is_named_in_a_sentence(
    broken: Callable[[str], RigConfig], lines: str, sentence: str
) -> None:
    with pytest.raises(ConfigError, match=f"'broken' of broken 1.0 {sentence}"):
        build_path(broken(lines), "", CAMERA)


def test_it_hides_no_benchmark_of_others(broken: Callable[[str], RigConfig]) -> None:
    broken("benchmarks = property(lambda self: 1 / 0)")
    assert "pipeline" in suites()


@pytest.mark.parametrize("made", ["np.zeros((3, 3), np.float32)", "np.zeros((16, 16))"])
def test_a_picture_that_the_sinks_do_not_expect_never_reaches_them(
    broken: Callable[[str], RigConfig], made: str
) -> None:
    path = build_path(broken(PICTURE.format(made)), "", CAMERA)
    measurement = Measurement(path, LIVE, RunState(lambda: None))
    stack = replace(raw_stack(0), frames=(np.zeros((16, 16), np.uint16),))
    with pytest.raises(LiveSRError, match="expected 16x16 float32"):
        measurement.measure(0, stack, None)
