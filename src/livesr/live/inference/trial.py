"""An engine tried out in a process of its own, before a camera starts.

Owns that process: a network that makes a runtime crash, hang or take all memory then ends nothing
but the trial. What passed is remembered in the user's cache, with all that it may depend on;
engines that came with livesr are known. Judges no picture.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from livesr.base import contained
from livesr.base.compute import ComputeConfig
from livesr.base.documents import read_json
from livesr.base.errors import BackendError, DocumentError, EngineError, LiveSRError
from livesr.live.inference.cuda import why_no_gpu
from livesr.live.inference.engine import Engine, load_engine
from livesr.live.inference.plans import cache_folder
from livesr.live.inference.runner import open_session
from livesr.live.inference.runtime import is_remote

log = logging.getLogger(__name__)

SHIPPED = frozenset({
    "50bf6eb50a687fed3158c61d0c421562f256bb0800981048a17b3bceb3717146",  # deep-storm/model.onnx
    "3a7f4edd59eb07fbfc045e2da36990bd8e562457b564ad6c17748bdbe18fc166",  # edsr-x2/model.onnx
    "1a88a52cd8c52d847b4acd48d2958c4d0bdaa98c9f09b5c157cda263714d8354",  # edsr-x3/model.onnx
    "1e2f0ff57764f3007a1ea065a6038535edb34d16f2191d56230db7ee227b2879",  # edsr-x4/model.onnx
    "a66de052938bd48359e0a76c6fbddfb01a9bbe774a76960028ee1d7fd5eef96e",  # identity/model.onnx
    # imcsr-ccp-mt-er/model.onnx
    "80346b147e1544341d375b473cf78225ad35e935ae5348eaf0e83ce91b92acac",
    # imcsr-mt-er-lyso/model-int8.onnx
    "164a4018273a50fd8c9071c907ed36dd4c9a5385b76bdffc10b24f6bdacc4d95",
    # imcsr-mt-er-lyso/model.onnx
    "495427ec531da2eafd98db29bc232ef65cd0af4fc43ee5a1871522033a3de212",
    # imcsr-mt-er-lyso-in-focus/model-int8.onnx
    "fa8401a67744281acb02444dc6373064c8b9d0a9e8072ff2a575b89dab55b225",
    # imcsr-mt-er-lyso-in-focus/model.onnx
    "22aa7a0edb2566ce9f83c27c7881573115ccff157e718a29b67ea69ab9572963",
    # imcsr-mt-er-lyso-light/model-int8.onnx
    "cac1203a856556611bfac244dcfa51624ab4375e64cbaf1c7231bba5e160df25",
    # imcsr-mt-er-lyso-light/model.onnx
    "e103817d49be7b85d5ae322facef6e4fd13656ce50b2d37df7599917b5663aef",
    # imcsr-mt-mito/model-int8.onnx
    "a37f02c0f047fc6d47c5b21fd1a4e2a7470e1807d7a808cf7bc668f56aa77ae4",
    "21e7b0755068fe1bf788b876f8a563b3b3df00f23959cb0290ed078f9933b521",  # imcsr-mt-mito/model.onnx
    "aff2fa75cd5e2d7c2b7214f6ec7964741ed6ea354faa00a91065cd48953680a8",  # sim-lowlight-9/model.onnx
    "2d36d2b3b48387e2d7d32a69ad3e6a0d197906efc8deb036aa6b384aaab1c12c",  # unet-sim-3/model.onnx
})  # fmt: skip
"""SHA-256 of the networks that come with livesr."""

LONGEST_S, LONGEST_ON_GPU_S = 120.0, 900.0  # TensorRT measures for minutes
MAX_OF_MEMORY = 0.8  # of what was free when the trial began
_LOOK_S = 0.02
_RUNTIMES = (
    "openvino",
    "torch",
    "tensorrt",
    "tensorrt-rtx-cu13",
    "tensorrt-rtx-cu12",
    "onnx",
    "numpy",
)


def try_out(engine: Engine, shape: tuple[int, int], compute: ComputeConfig) -> None:
    """Let another process open `engine` for frames of `shape` (y, x) and infer once.

    Parameters as of `open_session`.

    Does nothing for what came with livesr, has passed before, or is to run on a remote runtime,
    which is another process already. What a runtime refuses in a sentence passes: it will say so
    again.

    Raises
    ------
    EngineError
        If the other process crashed, took too long or too much memory, or the network cannot be
        run.
    """
    if is_shipped(engine) or is_remote(compute.backend):
        return
    how = [compute.backend, compute.precision, compute.threads, compute.tile]
    facts = _facts(engine, shape, how)
    if is_known(facts):
        return
    engine.read()  # what is not to be parsed at all is refused here
    log.info("%s is tried out in a process of its own", engine)
    asked = {"engine": str(engine.folder), "shape": shape, "how": how}
    refused = _run([*_COMMAND, json.dumps(asked)], engine, shape)
    if not refused:
        _remember(facts)


def is_shipped(engine: Engine) -> bool:
    """Whether all of its networks come with livesr."""
    weights = engine.manifest.weights
    return {weights.onnx.sha256, *([weights.int8.sha256] if weights.int8 else [])} <= SHIPPED


def is_known(facts: dict[str, Any]) -> bool:
    """Whether a trial of all this has passed before."""
    try:
        return bool(read_json(_place(facts)) == facts)
    except DocumentError:
        return False


def _facts(engine: Engine, shape: tuple[int, int], how: list[Any]) -> dict[str, Any]:
    """Return all that the outcome may depend on; the manifest names the weights by their hash."""
    manifest = hashlib.sha256(engine.manifest.model_dump_json().encode()).hexdigest()
    return {
        "manifest": manifest,
        "sha256": engine.manifest.sha256,
        "shape": list(shape),
        "how": how,
        "gpu": why_no_gpu() is None,
        "runtimes": {name: _version(name) for name in ("livesr", *_RUNTIMES)},
    }


def _version(package: str) -> str | None:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _place(facts: dict[str, Any]) -> Path:
    digest = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()
    return cache_folder() / "tried" / f"{digest[:32]}.json"


def _remember(facts: dict[str, Any]) -> None:
    place = _place(facts)
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        contained.replace_text(place.parent, place.name, json.dumps(facts), error=EngineError)
    except (OSError, EngineError) as e:
        log.warning(
            "%s cannot be written (%s): the engine will be tried out again next time", place, e
        )


def _run(command: list[str], engine: Engine, shape: tuple[int, int]) -> str | None:
    """Return what a runtime said against it, None if it passed."""
    limit_s = LONGEST_S if why_no_gpu() else LONGEST_ON_GPU_S
    max_bytes = int(psutil.virtual_memory().available * MAX_OF_MEMORY)
    try:
        process = subprocess.Popen(  # noqa: S603 - this Python, and a module of ours
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            creationflags=getattr(subprocess, "CREATE_NO_WINDOW", 0),
        )
    except OSError as e:
        raise BackendError(
            f"No process could be started to try out engine {engine.manifest.id!r}: {e}."
        ) from e
    try:
        trouble, said, complaints = _watched(process, time.monotonic() + limit_s, max_bytes)
    finally:
        process.kill()
        process.wait()
        for pipe in (process.stdout, process.stderr):
            if pipe:
                pipe.close()
    with suppress(ValueError, IndexError, KeyError, TypeError):
        if not trouble and process.returncode == 0:
            refused: str | None = json.loads(said.splitlines()[-1])["refused"]
            return refused
    raise EngineError(
        f"Engine {engine.manifest.id!r} {trouble or _ended(process.returncode, complaints)}, in a"
        f" process of its own, on frames of {shape[0]} x {shape[1]}: it was not run here. Use"
        " another engine, or another runtime with --backend."
    )


def _watched(
    process: subprocess.Popen[bytes], deadline_s: float, max_bytes: int
) -> tuple[str, bytes, bytes]:
    """Wait for the end; return what went wrong ("" if nothing did), and what the process wrote."""
    while True:
        try:
            said, complaints = process.communicate(timeout=_LOOK_S)
        except subprocess.TimeoutExpired:
            if time.monotonic() > deadline_s:
                return "did not come to an end", b"", b""
            if _memory(process.pid) > max_bytes:
                return f"took more than {max_bytes / 1e9:.1f} GB of memory", b"", b""
        else:
            return "", said, complaints


def _memory(pid: int) -> int:
    try:
        return int(psutil.Process(pid).memory_info().rss)
    except psutil.Error:  # it has just ended
        return 0


def _ended(code: int, complaints: bytes) -> str:
    if code < 0:
        with suppress(ValueError):
            return f"crashed ({signal.Signals(-code).name})"
    lines = complaints.decode("utf-8", "replace").strip().splitlines()
    return f"crashed (exit {code:#x}{': ' + lines[-1][:200] if lines else ''})"


# -- in the process of its own ---------------------------------------------------------------------

_COMMAND = (sys.executable, "-P", "-m", "livesr.live.inference.trial")


def main(asked: dict[str, Any]) -> dict[str, str | None]:
    """Open and infer once; return what was said against it."""
    shape = (int(asked["shape"][0]), int(asked["shape"][1]))
    backend, precision, threads, tile = asked["how"]
    compute = ComputeConfig(backend=backend, precision=precision, threads=threads, tile=tile)
    try:
        with open_session(load_engine(asked["engine"]), shape, compute) as session:
            session.input[:] = np.random.default_rng(0).random(session.input.shape, np.float32)
            session.infer()
    except LiveSRError as e:
        return {"refused": str(e)}
    return {"refused": None}


def _give_way() -> None:
    """End by itself if whoever waits is killed, leave no core file, and be the first to go where
    memory is short.
    """
    if sys.platform != "win32":
        import resource

        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        signal.alarm(int(LONGEST_ON_GPU_S))
    with suppress(OSError):
        contained.write_text(Path("/proc/self"), "oom_score_adj", "1000")


if __name__ == "__main__":
    _give_way()
    print("\n" + json.dumps(main(json.loads(sys.argv[1]))), flush=True)
    os._exit(0)  # what a runtime does at its end is no part of the trial
