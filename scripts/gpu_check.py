#!/usr/bin/env python
"""Everything that needs a GPU, in one call: environment, tests, parity, benchmark.

JSON, PNG, and what was not run, and why.

    python scripts/gpu_check.py --out check                # an installed livesr, or this folder
    python scripts/gpu_check.py --out check --kit FOLDER   # TensorRT in a Python of its own
    python scripts/gpu_check.py --out check --quick        # small networks and sizes

Needs no network and no installation: python3 with numpy, pydantic, pyyaml, psutil and onnx; torch
for the networks and as the reference; tensorrt and cupy for what is to be checked; pytest and
matplotlib for tests and picture; for whole frames also scipy, threadpoolctl and pymmcore-plus,
useq-schema, numcodecs and google-crc32c with what they import, and array-api-strict for their
tests. What is missing is named, and the parts that need it are not run.

Each part runs in its own process and leaves its result in OUT/parts. The next call with the same
OUT runs what is not done: what there was no time for, what failed, what could not be run; `--again
NAME` repeats a part that is done. Compiled plans stay in OUT/cache. Ends with 0 if nothing failed
(what is not run has not failed), with 1 if something did, with 75 if it has to be called again.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import signal
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

REPOSITORY = Path(__file__).resolve().parents[1]
PACKAGES = (
    "torch",
    "tensorrt",
    "cupy",
    "cupy-cuda13x",
    "cupy-cuda12x",
    "onnx",
    "numpy",
    "pydantic",
    "pytest",
)
FULL = {
    "frames": 3,
    "channels": 3,
    "width": 64,
    "groups": 5,
    "blocks": 10,
    "unshuffle": 1,
    "head": "sigmoid",
}
SMALL = {**FULL, "width": 16, "groups": 1, "blocks": 1}
TARGETS_MS = {512: 5.0, 1024: 20.0}
MIN_PCC, MIN_SPEED_UP, MAX_PATH = 0.999, 2.0, 1.3
AGAIN = 75


class NotRunError(Exception):
    """A part cannot run here; the message is the reason."""


@dataclass(frozen=True)
class Setting:
    """Where a part works, and on how much."""

    out: Path
    quick: bool

    @property
    def sides(self) -> tuple[int, ...]:
        """Sides of the frames that are timed."""
        return (64, 128) if self.quick else (512, 1024)

    @property
    def calls(self) -> int:
        """Calls in each of the blocks that are timed."""
        return 3 if self.quick else 20

    @property
    def engine(self) -> Path:
        """Folder of the full network, with random weights."""
        return self.out / ("small" if self.quick else "full")

    def frames(self, side: int) -> Any:
        """Return normalised frames, the same in every process.

        Bright lines that move, with noise.
        """
        rng = np.random.default_rng(side)
        y, x = np.mgrid[:side, :side].astype(np.float32)
        frames = rng.normal(0.05, 0.03, (3, side, side)).astype(np.float32)
        for _ in range(12):
            angle, offset, drift = rng.uniform(0, np.pi), rng.uniform(0, side), rng.uniform(-1, 1)
            for t in range(3):
                distance = x * np.cos(angle) + y * np.sin(angle) - offset - drift * t
                frames[t] += 0.5 * np.exp(-0.5 * (distance / 1.5) ** 2)
        return frames


# -- parts: each returns what it found, or raises NotRunError --------------------------------------


def environment(setting: Setting) -> dict[str, Any]:
    """Return what is here; never fails."""
    from livesr.live.inference.cuda import why_no_gpu

    query = "name,driver_version,memory.total,clocks.sm,clocks.max.sm,temperature.gpu"
    return {
        "python": platform.python_version(),
        "system": platform.platform(),
        "cores": (
            len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
        ),
        "packages": {name: found for name in PACKAGES if (found := _version(name))},
        "gpu": _output("nvidia-smi", f"--query-gpu={query}", "--format=csv,noheader"),
        "no_gpu": why_no_gpu(),
        "commit": _output("git", "-C", str(REPOSITORY), "rev-parse", "--short", "HEAD"),
    }


def network(setting: Setting) -> dict[str, Any]:
    """Export the full IMC-SR with random weights, and hold its operators to TensorRT's list.

    Runs on any computer.
    """
    _need("torch", "onnx")
    import onnx
    import torch

    from livesr.export.onnx import export_onnx
    from livesr.live.inference.engine import (
        Manifest,
        OnnxWeights,
        OutputChannel,
        Weights,
        sha256_of,
        write_manifest,
    )
    from livesr.live.inference.typed_onnx import typed, unsupported_ops
    from livesr.training import networks

    folder, parameters = setting.engine, SMALL if setting.quick else FULL
    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(0)
    net = networks.build("imcsr", **parameters)
    with torch.no_grad():
        net.out.weight.mul_(
            20
        )  # trained networks use the sigmoid's whole range, fresh ones only its end
    networks.save(folder / "weights.pt", net, "imcsr", dict(parameters))
    error = export_onnx(net, folder / "model.onnx", 3)
    manifest = Manifest(
        id=f"imcsr-{folder.name}-random",
        version="0",
        description="Random weights: to measure with.",
        task="separate",
        trained=False,
        channels=tuple(OutputChannel(name=n, color="FFFFFF") for n in ("A", "B", "C")),
        architecture="imcsr",
        parameters=dict(parameters),
        weights=Weights(onnx=OnnxWeights(sha256=sha256_of(folder / "model.onnx"))),
        license="BSD-3-Clause",
    )
    write_manifest(folder, manifest)
    model = (folder / "model.onnx").read_bytes()
    sizes = {
        p: len(typed(model, p, (1, 3, setting.sides[0], setting.sides[0]))) for p in ("f32", "f16")
    }
    return {
        "parameters": parameters,
        "weights": sum(p.numel() for p in net.parameters()),
        "largest_difference_from_torch": error,
        "operators": sorted({n.op_type for n in onnx.load_model_from_string(model).graph.node}),
        "operators_not_on_the_list": sorted(unsupported_ops(onnx.load_model_from_string(model))),
        "bytes": sizes,
    }


def tests(setting: Setting) -> dict[str, Any]:
    """Run `pytest -m gpu` on what this Python can import."""
    _need("pytest")
    _need_gpu()
    files = [
        p
        for p in sorted((REPOSITORY / "tests").rglob("test_*.py"))
        if "mark.gpu" in p.read_text(encoding="utf-8")
    ]
    collected = {str(p.relative_to(REPOSITORY)): _pytest("--collect-only", str(p)) for p in files}
    able = [name for name, done in collected.items() if done.returncode in (0, 5)]
    if not able:
        raise NotRunError("no test file can be imported here")
    done = _pytest("-rs", *able)
    lines = done.stdout.strip().splitlines()
    found = {
        "summary": lines[-1] if lines else done.stderr[-500:],
        "files": able,
        "files_that_cannot_be_imported": {
            k: v.stdout.strip()[-500:] for k, v in collected.items() if k not in able
        },
        "output": lines[-80:],
    }
    if done.returncode:
        raise AssertionError(json.dumps(found, indent=1))
    return found


def reference(setting: Setting) -> dict[str, Any]:
    """Compute, with torch in FP32, what all others are compared with."""
    _need("torch", "onnx")
    _need_gpu()
    for side in setting.sides:
        np.save(setting.out / f"reference-{side}.npy", _infer(setting, side, "torch", "f32"))
    return {"sides": list(setting.sides), "backend": "torch f32"}


def parity(setting: Setting) -> dict[str, Any]:
    """Compare TensorRT with the reference; each channel's PCC."""
    _need_tensorrt()
    found: dict[str, Any] = {}
    for side in setting.sides:
        path = setting.out / f"reference-{side}.npy"
        if not path.is_file():
            raise NotRunError("the reference in torch f32 was not computed")
        expected = np.load(path)
        for precision in ("f32", "f16"):
            output = _infer(setting, side, "tensorrt", precision)
            pairs = zip(output, expected, strict=True)
            each = [float(np.corrcoef(a.ravel(), b.ravel())[0, 1]) for a, b in pairs]
            found[f"{precision}-{side}"] = {
                "pcc": min(each),
                "max_difference": float(np.abs(output - expected).max()),
            }
    return found


def speed(setting: Setting) -> dict[str, Any]:
    """Time the network alone, TensorRT f16 and torch eager f16 by turns where both are in this
    Python.
    """
    _need_gpu()
    found: dict[str, Any] = {}
    for side in setting.sides:
        subjects = {}
        for name, make in (("tensorrt", _tensorrt_calls), ("torch", _torch_call)):
            try:
                subjects.update(make(setting, side))
            except NotRunError as e:
                found[f"no_{name}"] = str(e)
        found[str(side)] = _by_turns(subjects, setting.calls)
    if not any(found[str(side)] for side in setting.sides):
        raise NotRunError(" ".join(str(found[k]) for k in found if k.startswith("no_")))
    found["gpu_after"] = _output(
        "nvidia-smi", "--query-gpu=clocks.sm,temperature.gpu,power.draw", "--format=csv,noheader"
    )
    return found


def path(setting: Setting) -> dict[str, Any]:
    """Time whole frames, from the upload of raw SIM frames to channels on the host, against the
    network alone.
    """
    _need_gpu()
    return {str(side): _whole(setting, side, "cuda") for side in setting.sides}


# -- what parts are made of ------------------------------------------------------------------------


def _infer(setting: Setting, side: int, backend: str, precision: str) -> Any:
    with _opened(setting, side, backend, precision) as session:
        session.input[...] = setting.frames(side)
        return session.infer().copy()


def _opened(setting: Setting, side: int, backend: str, precision: str) -> Any:
    from livesr.base.compute import ComputeConfig
    from livesr.live.inference.runner import open_session

    compute = ComputeConfig(backend=backend, precision=precision, tile="off")
    return open_session(_engine(setting), (side, side), compute)


def _engine(setting: Setting) -> Any:
    from livesr.live.inference.engine import load_engine

    if not (setting.engine / "manifest.yaml").is_file():
        raise NotRunError("the full network was not exported, which needs torch")
    return load_engine(setting.engine)


def _tensorrt_calls(setting: Setting, side: int) -> dict[str, Callable[[], float]]:
    """Return calls that take one frame and say how many ms it took.

    The network alone, and with the copies.
    """
    _need_tensorrt()
    session = _opened(setting, side, "tensorrt", "f16")
    session.input[...] = setting.frames(side)
    session.resident.device_input.set(setting.frames(side))

    def copied() -> float:
        started = time.perf_counter()
        session.infer()
        return 1e3 * (time.perf_counter() - started)

    return {
        "tensorrt": _resident_call(session.resident),
        "tensorrt with upload and download": copied,
    }


def _torch_call(setting: Setting, side: int) -> dict[str, Callable[[], float]]:
    _need("torch")
    import torch

    from livesr.training import networks

    if not torch.cuda.is_available():
        raise NotRunError("torch sees no CUDA device")
    if not (setting.engine / "weights.pt").is_file():
        raise NotRunError("the full network was not exported")
    torch.backends.cudnn.benchmark = True
    net = (
        networks.load(setting.engine / "weights.pt")
        .cuda()
        .half()
        .to(memory_format=torch.channels_last)
    )
    frames = (
        torch.from_numpy(setting.frames(side))[None]
        .cuda()
        .half()
        .contiguous(memory_format=torch.channels_last)
    )

    def call() -> float:
        start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        with torch.inference_mode():
            start.record()
            net(frames)
            end.record()
        end.synchronize()
        return float(start.elapsed_time(end))

    return {"torch eager": call}


def _whole(setting: Setting, side: int, device: str) -> dict[str, Any]:
    """Return what a frame takes in a run that never waits for a camera, and what its network takes
    alone, in ms.

    Everything is in it that a run does but camera and store: Python's threads, nine raw frames in,
    the channels out. `side` is that of the reconstructed frames.
    """
    from useq import MDAEvent

    from livesr.base.compute import ComputeConfig
    from livesr.base.config import load_rig
    from livesr.base.run_description import RunDescription
    from livesr.live.keeping_up import COMPLETE
    from livesr.live.paths import Geometry, build_path
    from livesr.live.pipeline import Pipeline
    from livesr.simulation.rig import RawBank

    rig = load_rig("virtual_sim").with_engine(str(_engine(setting).folder))
    groups = RawBank(rig, side // 2, 4, seed=0, photons=300.0, bleaching=0.0, interval_s=0.5).frames
    camera = Geometry((side // 2, side // 2), "uint16", 0.065)
    steps = build_path(rig, "488", camera, ComputeConfig(device=device))  # type: ignore[arg-type]
    session = steps.networks.session
    assert session is not None
    sink, network = (
        _Times(),
        _network_ms(setting, side, session.name, session.precision),
    )
    run = RunDescription(
        stream_id="check", started_ns=time.time_ns(), channels=(steps.description,)
    )
    pipeline = Pipeline({"488": steps}, run, [sink], COMPLETE)
    pipeline.open()
    n = 10 + 3 * setting.calls
    for t in range(n):
        for raw, frame in enumerate(groups[t % len(groups)]):
            pipeline.hook.frame_ready(
                frame.copy(), MDAEvent(index={"t": t, "sim": raw}, channel="488"), {}
            )
        sink.wait_for(t - 4)  # the queue stays full, and short
    pipeline.end()
    report = pipeline.join()
    steps.close()
    ms = (
        1e3 * (sink.times[-2] - sink.times[10]) / (len(sink.times) - 12)
    )  # the last one comes when the run ends
    return {
        "ms_a_frame": ms,
        "network_alone_ms": network,
        "ratio": ms / network if network else None,
        "runtime": f"{session.name} {session.precision}",
        "frames": len(sink.times),
        "steps_ms": report["steps_ms"],
        "warnings": report["warnings"],
    }


class _Times:
    """A sink that notes when separated frames come."""

    name = "times"
    lossless = essential = True
    endures = keeps_raw = False
    raw_kept, notes, accounts, free_bytes = None, (), {}, None

    def __init__(self) -> None:
        self.times: list[float] = []
        self._came = threading.Condition()

    def separated(self, frame: Any) -> None:
        with self._came:
            self.times.append(time.perf_counter())
            self._came.notify_all()

    def wait_for(self, count: int) -> None:
        with self._came:
            if not self._came.wait_for(lambda: len(self.times) >= count, 120):
                raise RuntimeError(
                    f"only {len(self.times)} of {count} frames came within two minutes"
                )

    def __getattr__(self, name: str) -> Callable[..., None]:
        return lambda *_: None  # everything else that a sink is told


def _network_ms(setting: Setting, side: int, name: str, precision: str) -> float | None:
    """Return the median time of the network alone on the runtime that the run chose.

    None if it is not on a GPU.
    """
    with _opened(setting, side, name, precision) as session:
        if session.resident is None:
            return None
        call = _resident_call(session.resident)
        return statistics.median([call() for _ in range(2 * setting.calls)][setting.calls // 2 :])


def _resident_call(resident: Any) -> Callable[[], float]:
    """Return a call that runs the network on frames that are on the GPU and says how many ms it
    took there.
    """
    import cupy

    stream = cupy.cuda.Stream(non_blocking=True)

    def call() -> float:
        start, end = cupy.cuda.Event(), cupy.cuda.Event()
        start.record(stream)
        resident.enqueue(stream.ptr)
        end.record(stream)
        end.synchronize()
        return float(cupy.cuda.get_elapsed_time(start, end))

    return call


def _by_turns(subjects: Mapping[str, Callable[[], float]], calls: int) -> dict[str, Any]:
    """Return median and 95th percentile of each, from blocks that alternate, so that a change of
    clock meets all.
    """
    times: dict[str, list[float]] = {name: [] for name in subjects}
    for block in range(6):
        for name, call in subjects.items():
            block_ms = [call() for _ in range(calls)]
            if block:  # the first one warms up
                times[name] += block_ms
    return {
        name: {
            "p50_ms": statistics.median(ms),
            "p95_ms": float(np.percentile(ms, 95)),
            "n": len(ms),
        }
        for name, ms in times.items()
    }


def _pytest(*arguments: str) -> subprocess.CompletedProcess[str]:
    # The project's own options ask for plugins that need not be here, for several processes, which
    # would share the GPU's memory, and for -W error: other versions of other packages are no news
    # of this project.
    options = ["-o", "addopts=", "-m", "gpu", "-q", "-W", "default", "-p", "no:cacheprovider"]
    command = [sys.executable, "-m", "pytest", *options, *arguments]
    return subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)


def _need(*packages: str) -> None:
    if missing := [name for name in packages if find_spec(name) is None]:
        raise NotRunError(f"this Python has no {' and no '.join(missing)}")


def _need_gpu() -> None:
    from livesr.live.inference.cuda import why_no_gpu

    if reason := why_no_gpu():
        raise NotRunError(reason)


def _need_tensorrt() -> None:
    from livesr.live.inference.runtime import why_unavailable

    if reason := why_unavailable("tensorrt"):
        raise NotRunError(reason)


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        if package == "tensorrt" and find_spec(package):  # the kit's has no metadata
            import tensorrt

            return str(tensorrt.__version__)
        return ""


def _output(*command: str) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip()


PARTS: dict[str, Callable[[Setting], dict[str, Any]]] = {
    f.__name__: f for f in (environment, network, tests, reference, parity, speed, path)
}
WITH_TENSORRT = ("environment", "tests", "parity", "speed", "path")  # also run by the kit's Python


# -- the call --------------------------------------------------------------------------------------


def main() -> int:
    """Run what is left of the parts, write report.json and report.png, and return the exit code."""
    arguments = _arguments()
    out: Path = arguments.out.resolve()
    setting = Setting(out, arguments.quick)
    if arguments.part:
        return _one(arguments.part, arguments.result, setting)
    (out / "parts").mkdir(parents=True, exist_ok=True)
    end = time.monotonic() + 60 * arguments.minutes
    names = [(name, None) for name in PARTS]
    if arguments.kit:
        names = [
            pair
            for name in PARTS
            for pair in ((name, None), (name, arguments.kit))
            if not pair[1] or name in WITH_TENSORRT
        ]
    results: dict[str, Any] = {}
    for name, kit in names:
        label = f"{name}-kit" if kit else name
        kept = out / "parts" / f"{label}{'-quick' if arguments.quick else ''}.json"
        if name in arguments.again or not _is_done(kept):
            _run(name, kit, kept, setting, end - time.monotonic())
        results[label] = json.loads(kept.read_text()) if kept.is_file() else _out_of_time()
        print(f"{label:16} {_line(results[label])}", flush=True)
    report = {"parts": results, "targets": _targets(results), "quick": arguments.quick}
    (out / "report.json").write_text(json.dumps(report, indent=1) + "\n")
    for target in report["targets"]:
        print(f"{target['what']:68} {target['said']}")
    print(f"report: {out / 'report.json'}, {_draw(report, out / 'report.png')}")
    states = {result["state"] for result in results.values()}
    return 1 if "failed" in states else AGAIN if "out of time" in states else 0


def _is_done(kept: Path) -> bool:
    return kept.is_file() and json.loads(kept.read_text())["state"] == "done"


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--out", type=Path, required=True, help="folder of the results; made if need be"
    )
    parser.add_argument("--minutes", type=float, default=9.0, help="how long this call may take")
    parser.add_argument(
        "--kit", type=Path, help="folder of a CPython 3.11 with TensorRT and CuPy, beside this one"
    )
    parser.add_argument("--quick", action="store_true", help="a small network and small frames")
    parser.add_argument(
        "--again", nargs="*", default=[], choices=list(PARTS), help="parts to repeat"
    )
    parser.add_argument("--part", choices=list(PARTS), help=argparse.SUPPRESS)
    parser.add_argument("--result", type=Path, help=argparse.SUPPRESS)
    return parser.parse_args()


def _one(name: str, result: Path, setting: Setting) -> int:
    """Run one part in this process and write what came of it."""
    started = time.perf_counter()
    try:
        found = {"state": "done", "found": PARTS[name](setting)}
    except NotRunError as e:
        found = {"state": "not run", "reason": str(e)}
    except ModuleNotFoundError as e:
        found = {"state": "not run", "reason": f"this Python has no {e.name}"}
    except Exception as e:
        found = {"state": "failed", "reason": f"{type(e).__name__}: {e}"}
    found["seconds"] = time.perf_counter() - started
    partial = result.with_suffix(".part")
    partial.write_text(json.dumps(found, indent=1, default=str))
    partial.replace(result)
    return 0


def _run(name: str, kit: Path | None, kept: Path, setting: Setting, seconds: float) -> None:
    """Run a part in a process of its own.

    One that does not end leaves no result, one that crashes a failed one.
    """
    kept.unlink(missing_ok=True)
    if seconds < 5:
        return
    command, more = _kit(kit) if kit else ([sys.executable], {})
    paths = [str(REPOSITORY / "src"), more.pop("PYTHONPATH", ""), os.environ.get("PYTHONPATH", "")]
    env = {**os.environ, **more, "PYTHONPATH": os.pathsep.join(p for p in paths if p)}
    env["LIVESR_CACHE"] = str(setting.out / "cache")
    command += [__file__, "--out", str(setting.out), "--part", name, "--result", str(kept)]
    command += ["--quick"] * setting.quick
    # A group of its own: pytest, which a part starts, must not go on computing beside the parts of
    # the next call.
    part = subprocess.Popen(
        command,
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        output, errors = part.communicate(timeout=seconds)
    except BaseException as e:
        _end(part)
        if isinstance(e, subprocess.TimeoutExpired):
            return
        raise
    if not kept.is_file():
        said = (errors or output).strip()[-2000:]
        kept.write_text(
            json.dumps(
                {"state": "failed", "reason": f"the process ended with {part.returncode}: {said}"}
            )
        )


def _end(part: subprocess.Popen[str]) -> None:
    """End a part and the processes that it has started."""
    if hasattr(os, "killpg"):
        os.killpg(part.pid, signal.SIGKILL)
    else:
        part.kill()
    part.communicate()


def _kit(folder: Path) -> tuple[list[str], dict[str, str]]:
    """Return how to call the kit's Python: (command, environment)."""
    libraries = [str(folder / "lib"), str(folder / "python" / "lib"), *_cuda_libraries()]
    env = {
        "PYTHONHOME": str(folder / "python"),
        "PYTHONPATH": str(folder / "site"),
        "LD_LIBRARY_PATH": os.pathsep.join([*libraries, os.environ.get("LD_LIBRARY_PATH", "")]),
    }
    return [str(folder / "python" / "bin" / "python3.11")], env


def _cuda_libraries() -> list[str]:
    """Where this Python's packages keep the CUDA libraries that CuPy in another Python needs."""
    folders = [Path(p) / "nvidia" for p in sys.path if p]
    return [
        str(lib) for folder in folders if folder.is_dir() for lib in sorted(folder.glob("*/lib"))
    ]


def _out_of_time() -> dict[str, Any]:
    return {"state": "out of time", "reason": "call again with the same --out"}


def _line(result: Mapping[str, Any]) -> str:
    if result["state"] == "done":
        return f"done in {result['seconds']:.1f} s"
    return f"{result['state']}: {result['reason'].splitlines()[0][:300]}"


def _targets(results: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return what was asked for beside what was measured."""
    times, compared, paths, rows = (
        _times(results),
        _found(results, "parity"),
        _found(results, "path"),
        [],
    )
    for side, most in TARGETS_MS.items():
        size, ms = f"{side} x {side}", times.get(side, {}).get("tensorrt")
        eager = times.get(side, {}).get("torch eager")
        faster = eager / ms if ms and eager else None
        whole = paths.get(str(side), {}).get("ratio")
        rows += [
            _row(f"{size}, TensorRT f16, at most {most:g} ms", ms, "ms", most.__ge__),
            _row(
                f"{size}, at least {MIN_SPEED_UP:g} times as fast as torch eager f16",
                faster,
                "times",
                MIN_SPEED_UP.__le__,
            ),
            _row(
                f"{size}, raw upload to channels, at most {MAX_PATH:g} times the network",
                whole,
                "times",
                MAX_PATH.__ge__,
            ),
        ]
    least = min((pair["pcc"] for pair in compared.values()), default=None)
    return [
        *rows,
        _row(f"parity with torch f32, PCC at least {MIN_PCC:g}", least, "", MIN_PCC.__le__),
    ]


def _found(results: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Return what a part found in this Python and in the kit's, the latter's in its place where
    both found it.
    """
    parts = (results.get(label, {}) for label in (name, f"{name}-kit"))
    return {key: value for part in parts for key, value in part.get("found", {}).items()}


def _row(
    what: str, value: float | None, unit: str, meets: Callable[[float], bool]
) -> dict[str, Any]:
    if value is None:
        return {"what": what, "value": None, "met": None, "said": "not run"}
    met = bool(meets(value))
    return {
        "what": what,
        "value": value,
        "met": met,
        "said": f"{value:.4g} {unit}".strip() + (": met" if met else ": missed"),
    }


def _times(results: Mapping[str, Any]) -> dict[int, dict[str, float]]:
    """Return {side: {subject: p50 in ms}} from this Python and the kit's."""
    times: dict[int, dict[str, float]] = {}
    for label in ("speed", "speed-kit"):
        for side, subjects in results.get(label, {}).get("found", {}).items():
            if side.isdigit():
                times.setdefault(int(side), {}).update(
                    {name: t["p50_ms"] for name, t in subjects.items()}
                )
    return times


def _draw(report: Mapping[str, Any], place: Path) -> str:
    """Draw times against targets, and what became of each part.

    Return the path, or why there is none.
    """
    if find_spec("matplotlib") is None:
        return "no picture: this Python has no matplotlib"
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, (left, right) = plt.subplots(
        1, 2, figsize=(13, 5), width_ratios=[1, 1.4], layout="constrained"
    )
    bars = [
        (side, name, ms)
        for side, each in sorted(_times(report["parts"]).items())
        for name, ms in each.items()
    ]
    left.set_title(
        "One frame, full IMC-SR (5 x 10 x 64)"
        if not report["quick"]
        else "One frame, small network"
    )
    if bars:
        left.barh(
            [f"{name}\n{side} x {side}" for side, name, _ in bars],
            [ms for *_, ms in bars],
            color="#4477aa",
        )
        for place_y, (side, _, ms) in enumerate(bars):
            left.text(ms, place_y, f" {ms:.2f} ms", va="center", bbox={"color": "white", "pad": 1})
            if side in TARGETS_MS:
                left.plot([TARGETS_MS[side]] * 2, [place_y - 0.4, place_y + 0.4], color="#cc3311")
        left.set_xlabel("ms, p50; red: target")
        left.margins(x=0.2)
    else:
        left.axis("off")
        left.text(0.5, 0.5, "not run", ha="center", va="center", fontsize=24, color="#888888")
    lines = [f"{label:16} {_line(result)}"[:100] for label, result in report["parts"].items()]
    lines += ["", *(f"{t['what']}: {t['said']}" for t in report["targets"])]
    right.axis("off")
    right.text(
        0, 1, "\n".join(lines), family="monospace", fontsize=7, va="top", transform=right.transAxes
    )
    figure.savefig(place, dpi=110)
    plt.close(figure)
    return str(place)


if __name__ == "__main__":
    sys.exit(main())
