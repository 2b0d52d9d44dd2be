"""A core that was made takes its callback away before the interpreter goes, run or no run."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import livesr
from livesr.check.rig import check_rig
from livesr.modalities.sim.simulation.rig import dyes_of
from recorded_runs import RIGS

AT_EXIT = """
import atexit, sys, time
seen = []

def told(z):
    before = len(seen)
    CMMCore.setPosition(core, "Z", z)  # of C++, which tells of it by a thread of its own
    for _ in range(100):
        if len(seen) > before:
            break
        time.sleep(0.01)
    return len(seen) - before

atexit.register(lambda: print(told(1.0)))  # what is registered first comes last
from pymmcore import CMMCore
from pymmcore_plus import CMMCorePlus
from livesr.base.config import load_rig
from livesr.base.errors import ConfigError
from livesr.cli.experiment import Experiment
from livesr.cli.session import Request, load_core

try:
    kept = load_core(Request(rig=load_rig(sys.argv[1]), experiment=Experiment(frames=1)))
except ConfigError as e:
    kept = e  # with the core in its frames
    print(e)
core = CMMCorePlus.instance()
core.events.stagePositionChanged.connect(lambda *of: seen.append(of))
assert told(2.0) == 1
"""


def rig(folder: Path, dyes: str) -> Path:
    """A small virtual rig whose cell is stained for `dyes`."""
    folder.mkdir()
    for name in ("rig.yaml", "rig.cfg"):
        text = (RIGS / "virtual_sim" / name).read_text(encoding="utf-8")
        for old, new in (
            ("Dyes,microtubules+er+lysosomes", f"Dyes,{dyes}"),
            ("SensorSize,256", "SensorSize,64"),
            ("TimePoints,40", "TimePoints,2"),
        ):
            assert name == "rig.yaml" or old in text
            text = text.replace(old, new)
        (folder / name).write_text(text, encoding="utf-8")
    return folder


@pytest.mark.parametrize("dyes", ["er", "nonsense"])
def test_no_event_comes_when_the_interpreter_goes(tmp_path: Path, dyes: str) -> None:
    """A thread of the core that is ended inside of C++ aborts the process: 2 of 20 runs that were
    refused for their dyes did."""
    source = str(Path(livesr.__file__).parents[1])
    done = subprocess.run(
        [sys.executable, "-c", AT_EXIT, str(rig(tmp_path / "rig", dyes))],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": source},
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    *refused, events = done.stdout.splitlines()
    assert events == "0"
    assert bool(refused) == (dyes == "nonsense")


def test_a_property_that_no_camera_can_have_is_refused_with_its_reason(tmp_path: Path) -> None:
    folder = rig(tmp_path / "rig", "er+nonsense")
    done = subprocess.run(
        [sys.executable, "-m", "livesr", "run", str(folder), "--frames", "1", "--json"],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(Path(livesr.__file__).parents[1])},
        timeout=120,
        check=False,
    )
    assert done.returncode == 2, done.stderr
    reason = "Dyes 'er+nonsense' stain nonsense; there are microtubules, er, lysosomes"
    assert f"Camera could not be started: {reason}" in json.loads(done.stdout)["error"]
    (found,) = [f for f in check_rig(folder / "rig.yaml") if f.level == "error"]
    assert (found.code, found.file) == ("dyes", folder / "rig.cfg")
    assert reason in found.says
    assert "Dyes" in (folder / "rig.cfg").read_text(encoding="utf-8").split("\n")[found.line - 1]


def test_every_virtual_rig_is_stained_for_what_there_is() -> None:
    for cfg in RIGS.glob("*/rig.cfg"):
        for line in cfg.read_text(encoding="utf-8").splitlines():
            if line.startswith("#py Property,Camera,Dyes,"):
                assert dyes_of(line.rpartition(",")[2])
