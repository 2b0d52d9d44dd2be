"""Coverage-guided fuzzing of what comes from outside: bytes that are refused in a sentence or understood, whatever they are.

``pip install atheris``, then ``python tests/fuzz/fuzz.py TARGET -max_total_time=300``; TARGET is rig, manifest, plan, header or
onnx, everything after it is libFuzzer's. Atheris has no wheels for Windows, so it is no dependency; tests/test_damaged_input.py
damages valid files in the suite.
"""

from __future__ import annotations

import json
import sys
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path

import atheris
import numpy as np
import yaml

with atheris.instrument_imports(include=["livesr"]):
    from livesr.base.config import load_rig
    from livesr.base.errors import LiveSRError
    from livesr.cli.experiment import Experiment, extent, plan_of
    from livesr.live.inference.engine import load_engine
    from livesr.live.inference.identity import identity_engine
    from livesr.live.inference.onnx_file import names_other_files
    from livesr.live.sinks.wire import FRAME, WireError, decode
    from livesr.live.survey import survey

PLAN = {
    "axis_order": "tpcz",
    "time_plan": {"interval": 0.5, "loops": 4},
    "stage_positions": [{"x": 1.0, "y": 2.0, "z": 3.0, "name": "A"}],
    "channels": [{"config": "488", "exposure": 5.0}],
    "z_plan": {"range": 2.0, "step": 0.5},
}
ROOT = Path(__file__).parents[2]
FOLDER = Path(tempfile.mkdtemp(prefix="livesr-fuzz-"))
PIXELS = np.arange(24, dtype="<u2").tobytes()
HEADER = {
    "v": 1,
    "type": "frame",
    "stream": "a",
    "seq": 7,
    "t_pub_ns": 2,
    "t_acq_ns": 1,
    "dtype": "<u2",
    "shape": [2, 3, 4],
}


def rig(data: bytes) -> None:
    file = FOLDER / "rig.yaml"
    file.write_bytes(data)
    load_rig(file)


def manifest(data: bytes) -> None:
    (FOLDER / "engine" / "manifest.yaml").write_bytes(data)
    load_engine(FOLDER / "engine")


def plan(data: bytes) -> None:
    file = FOLDER / "plan.yaml"
    file.write_bytes(data)
    rig = load_rig("virtual_sim")
    read = plan_of(Experiment(plan=file), rig, exposure_ms=5.0)
    extent(read, rig, 5.0)
    survey(read, rig.raw_frames)


def header(data: bytes) -> None:
    message = decode([FRAME, data, PIXELS])
    assert message.pixels is not None
    assert message.pixels.tobytes() == PIXELS


def onnx(data: bytes) -> None:
    names_other_files(data)


def seeds(target: str) -> list[bytes]:
    """Valid inputs, from which damage starts."""
    if target == "rig":
        return [file.read_bytes() for file in (ROOT / "hardware_configs").glob("*/rig.yaml")]
    if target == "manifest":
        return [file.read_bytes() for file in (ROOT / "engines").glob("*/manifest.yaml")]
    if target == "plan":
        return [yaml.safe_dump(PLAN).encode()]
    if target == "header":
        return [json.dumps(HEADER).encode()]
    return [(FOLDER / "engine" / "model.onnx").read_bytes()]


TARGETS: dict[str, tuple[Callable[[bytes], None], tuple[type[Exception], ...]]] = {
    "rig": (rig, (LiveSRError,)),
    "manifest": (manifest, (LiveSRError,)),
    "plan": (plan, (LiveSRError,)),
    "header": (header, (WireError,)),
    "onnx": (onnx, (ValueError,)),
}


def main() -> None:
    if len(sys.argv) < 2 or sys.argv[1] not in TARGETS:
        sys.exit(f"usage: fuzz.py {{{','.join(TARGETS)}}} [options of libFuzzer]")
    name = sys.argv.pop(1)
    target, refusals = TARGETS[name]
    identity_engine(FOLDER / "engine")
    corpus = FOLDER / "corpus"
    corpus.mkdir()
    for number, seed in enumerate(seeds(name)):
        (corpus / f"seed-{number}").write_bytes(seed)

    def once(data: bytes) -> None:
        try:
            target(data)
        except refusals:
            return

    atheris.Setup([sys.argv[0], str(corpus), "-timeout=20", "-rss_limit_mb=4096", *sys.argv[1:]], once)
    atheris.Fuzz()


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    main()
