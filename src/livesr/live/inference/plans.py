"""Compiled networks, kept in the user's cache.

Compiling takes minutes, and what comes out serves one kind of GPU.

Owns the key of a plan, the folder, and the proof that a plan is whole and the one that was asked
for. Knows no runtime.
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
import os
import re
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from livesr.base.documents import read_json
from livesr.base.errors import DocumentError
from livesr.base.files import replace_file

log = logging.getLogger(__name__)

_FORMAT = 2  # of what livesr makes of a network before it is compiled: raised when that changes


@dataclass(frozen=True, slots=True)
class PlanKey:
    """All that a plan depends on; where one of these differs, another plan is built.

    Attributes
    ----------
    engine : its identifier, for the file's name
    sha256 : of the ONNX file that it was made of
    runtime : name and version of what compiled it, such as "tensorrt 10.13.3.9"
    device : name and compute capability, such as "NVIDIA H200, sm_90"; the capability alone where a
        plan serves all its cards
    shape : (y, x) of the padded frame
    precision : as of the backend
    """

    engine: str
    sha256: str
    runtime: str
    device: str
    shape: tuple[int, int]
    precision: str
    format: int = _FORMAT

    @property
    def name(self) -> str:
        """Name of the plan's files, without what follows the last dot."""
        digest = hashlib.sha256(json.dumps(self.facts(), sort_keys=True).encode()).hexdigest()
        return f"{self.engine}-{self.shape[0]}x{self.shape[1]}-{self.precision}-{digest[:16]}"

    def facts(self) -> dict[str, Any]:
        """Return the key as JSON has it."""
        return {**asdict(self), "shape": list(self.shape)}


class PlanCache:
    """A folder of plans: NAME.plan, and NAME.json that says what it is and what it must hash to.

    The hash guards against files that were cut off or mixed up, not against somebody who can write
    into the user's own folders: TensorRT runs code that is in a plan.

    Parameters
    ----------
    folder : made when something is stored; `cache_folder()` by default
    """

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = folder or cache_folder() / "plans"

    def path(self, key: PlanKey) -> Path:
        """Where the plan of `key` is, or would be."""
        return self.folder / f"{key.name}.plan"

    def load(self, key: PlanKey) -> bytes | None:
        """Return the plan of `key`.

        None if there is none, or what is there is damaged or was made for another key.
        """
        path = self.path(key)
        if not (path.is_file() and path.with_suffix(".json").is_file()):
            return None
        try:
            about = read_json(path.with_suffix(".json"))
            plan = path.read_bytes()
        except (OSError, DocumentError) as e:
            log.warning("The plan %s cannot be read (%s): it is built anew.", path, e)
            return None
        if not isinstance(about, dict) or about.get("key") != key.facts():
            log.warning("The plan %s was made for something else: it is built anew.", path)
            return None
        if about.get("sha256") != hashlib.sha256(plan).hexdigest():
            log.warning("The plan %s is damaged: it is built anew.", path)
            return None
        return plan

    def store(self, key: PlanKey, plan: bytes, about: Mapping[str, Any] | None = None) -> Path:
        """Write a plan, and `about` beside it, and return its path.

        The plan first, so that half a pair is no plan.
        """
        path = self.path(key)
        facts = {
            "key": key.facts(),
            "sha256": hashlib.sha256(plan).hexdigest(),
            "compiled": time.time(),
            **(about or {}),
        }
        _replace(path, plan)
        _replace(path.with_suffix(".json"), (json.dumps(facts, indent=1) + "\n").encode())
        return path

    def compiled(self, key: PlanKey) -> float | None:
        """Return when the plan of `key` was compiled, seconds since 1970; None if nobody knows."""
        at = self._about(key).get("compiled")
        return float(at) if isinstance(at, int | float) and math.isfinite(at) else None

    def figures(self, key: PlanKey) -> dict[str, int]:
        """Return what the builder said of the plan of `key`; empty if nobody knows."""
        found = self._about(key).get("figures")
        found = found if isinstance(found, dict) else {}
        return {str(name): n for name, n in found.items() if isinstance(n, int)}

    def forget(self, key: PlanKey) -> None:
        """Remove the plan of `key`, if there is one."""
        for suffix in (".json", ".plan"):
            self.path(key).with_suffix(suffix).unlink(missing_ok=True)

    def timings(self, key: PlanKey) -> bytes:
        """Return what the builder measured on this device before, which makes the next build
        shorter; empty if nothing.
        """
        try:
            return self._timings_path(key).read_bytes()
        except OSError:
            return b""

    def store_timings(self, key: PlanKey, timings: bytes) -> None:
        """Keep what the builder measured."""
        _replace(self._timings_path(key), timings)

    def kernels(self, key: PlanKey, card: str) -> bytes:
        """Return what was compiled of the plan on `card` when it was loaded before.

        Empty if nothing.
        """
        try:
            return self._kernels_path(key, card).read_bytes()
        except OSError:
            return b""

    def store_kernels(self, key: PlanKey, card: str, kernels: bytes) -> None:
        """Keep what was compiled of the plan on `card`."""
        _replace(self._kernels_path(key, card), kernels)

    def _about(self, key: PlanKey) -> dict[str, Any]:
        """Return what was written beside the plan of `key`."""
        try:
            about = read_json(self.path(key).with_suffix(".json"))
        except (OSError, DocumentError):
            return {}
        return about if isinstance(about, dict) else {}

    def _kernels_path(self, key: PlanKey, card: str) -> Path:
        return self.folder / f"{key.name}-{_words(card)}.kernels"

    def _timings_path(self, key: PlanKey) -> Path:
        return self.folder / f"{_words(f'{key.runtime} {key.device}')}.timings"


def cache_folder() -> Path:
    """Return where livesr keeps what it can make again.

    $LIVESR_CACHE, else what the system has for this.
    """
    if chosen := os.environ.get("LIVESR_CACHE"):
        return Path(chosen)
    if sys.platform == "win32":
        return (
            Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
            / "livesr"
            / "cache"
        )
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "livesr"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "livesr"


def _words(text: str) -> str:
    """Return `text` as part of a file's name."""
    return re.sub(r"[^A-Za-z0-9.]+", "-", text)


def _replace(path: Path, data: bytes) -> None:
    """Write `path` at once: two processes may build the same plan."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, partial = tempfile.mkstemp(dir=path.parent, suffix=".part")
    with os.fdopen(handle, "wb") as file:
        file.write(data)
    replace_file(Path(partial), path)
