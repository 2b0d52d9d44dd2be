"""What a suite found: one number beside its reference, with its targets and where it was measured.

Owns the records, what was left out among them, and their JSON. Measures nothing.
"""

from __future__ import annotations

import platform
import subprocess
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal, Self, cast

import psutil

from livesr.bench.timing import Comparison, Summary

_VERSIONS = (
    "livesr",
    "numpy",
    "scipy",
    "openvino",
    "torch",
    "onnxruntime",
    "pymmcore-plus",
    "numcodecs",
    "zarr",
    "pyzmq",
    "tensorrt",
    "tensorrt-rtx",
    "cupy",
    "cupy-cuda12x",
    "cupy-cuda13x",
)
AGREEMENT = "R²"
"""Unit of what says how far two ways to compute the same agree: the coefficient of determination,
1 if they do, less also where one is brighter than the other."""
_MORE_IS_BETTER = ("of 1", "of the separated frames", "of the frames", AGREEMENT)
_WITH_PARTS = ("scaling", "gpu")


@dataclass(frozen=True, slots=True)
class Target:
    """What has to be reached: `of` the value itself, or its ratio to the reference."""

    limit: float
    at: Literal["most", "least"]
    of: Literal["value", "ratio"] = "value"

    def met(self, value: float, ratio: float | None) -> bool:
        """Whether it is reached; a ratio without a reference is not."""
        found = value if self.of == "value" else ratio
        if found is None:
            return False
        return found <= self.limit if self.at == "most" else found >= self.limit

    def __str__(self) -> str:
        sign = "<=" if self.at == "most" else ">="
        return f"{'ratio ' if self.of == 'ratio' else ''}{sign} {self.limit:g}"

    @classmethod
    def read(cls, text: str) -> Self:
        """Return the target that `str` wrote."""
        *of, sign, limit = text.split()
        return cls(float(limit), "most" if sign == "<=" else "least", "ratio" if of else "value")


@dataclass(frozen=True, slots=True)
class Environment:
    """Where and under what load.

    Attributes
    ----------
    load : the run queue's mean length of the last minute, this run included
    quick : whether everything was smaller and shorter, to see that it runs
    gpu : name, driver and memory of the GPUs that nvidia-smi lists, "" without one
    """

    cpu: str
    cores: int
    pinned: bool
    load: float
    system: str
    python: str
    versions: dict[str, str]
    quick: bool = False
    gpu: str = ""

    @classmethod
    def here(cls, pinned: bool, quick: bool = False) -> Environment:
        """Describe this process."""
        affinity = getattr(psutil.Process(), "cpu_affinity", None)
        return cls(
            cpu=_cpu_name(),
            cores=len(affinity()) if affinity else psutil.cpu_count() or 1,
            pinned=pinned,
            load=round(psutil.getloadavg()[0], 2),
            system=platform.platform(terse=True),
            python=platform.python_version(),
            versions={name: found for name in _VERSIONS if (found := _version(name))},
            quick=quick,
            gpu=_gpu_names(),
        )


@dataclass(frozen=True, slots=True)
class LeftOut:
    """What a suite could not measure.

    Attributes
    ----------
    name : as of a `Result`, or the beginning of several
    reason : a sentence
    fault : whether it should have run here and failed, rather than lack something
    """

    name: str
    reason: str
    fault: bool = False


@dataclass(frozen=True, slots=True)
class Measured:
    """What one call of the benchmarks made: what it measured, and what it left out."""

    results: list[Result] = field(default_factory=list)
    left_out: list[LeftOut] = field(default_factory=list)

    @property
    def wrong(self) -> list[str]:
        """Names of what computes something else than its reference, or failed."""
        disagree = [r.name for r in self.results if r.unit == AGREEMENT and r.met is False]
        return [*disagree, *(entry.name for entry in self.left_out if entry.fault)]


@dataclass(frozen=True, slots=True)
class Result:
    """One measurement.

    Attributes
    ----------
    name : "suite.what"
    value, unit : the subject
    reference, reference_name : the same unit, measured in the same run; None where there is nothing
        to compare with
    ratio, ratio_interval : value / reference and its bootstrap 95 % interval
    targets : all must be met
    samples, reference_samples : what `value` and `reference` come from
    note : what a reader must know to understand the number
    at : where on a scaling curve it lies: side in pixels, channels, frames/s, frames; None
        elsewhere
    """

    name: str
    value: float
    unit: str
    reference: float | None = None
    reference_name: str = ""
    ratio: float | None = None
    ratio_interval: tuple[float, float] | None = None
    targets: tuple[Target, ...] = ()
    samples: Summary | None = None
    reference_samples: Summary | None = None
    note: str = ""
    at: float | None = None
    environment: Environment | None = field(default=None, compare=False)

    @property
    def suite(self) -> str:
        """The suite that it comes from."""
        first, second, *_ = self.name.split(".")
        return f"{first}.{second}" if first in _WITH_PARTS else first

    @property
    def more_is_better(self) -> bool:
        """Whether a larger value is the better one.

        Of rates and shares of what should come, not of times and sizes.
        """
        return self.unit.endswith("/s") or self.unit in _MORE_IS_BETTER

    @property
    def met(self) -> bool | None:
        """Whether every target is reached; None without targets."""
        return all(t.met(self.value, self.ratio) for t in self.targets) if self.targets else None

    def to_json(self) -> dict[str, Any]:
        """Return everything, with the targets as text."""
        return {**asdict(self), "targets": [str(t) for t in self.targets], "met": self.met}

    @classmethod
    def from_json(cls, entry: Mapping[str, Any]) -> Self:
        """Return what `to_json` was made of."""
        known: dict[str, Any] = {key: value for key, value in entry.items() if key != "met"}
        for key in ("samples", "reference_samples"):
            known[key] = Summary(**known[key]) if known[key] else None
        known["targets"] = tuple(Target.read(text) for text in known["targets"])
        if known["ratio_interval"]:
            known["ratio_interval"] = cast("tuple[float, float]", tuple(known["ratio_interval"]))
        known["environment"] = Environment(**known["environment"]) if known["environment"] else None
        return cls(**known)


def compared(
    name: str,
    comparison: Comparison,
    unit: str,
    reference_name: str,
    targets: tuple[Target, ...] = (),
    note: str = "",
) -> Result:
    """Return the result of an interleaved comparison."""
    return Result(
        name=name,
        value=comparison.subject.median,
        unit=unit,
        reference=comparison.reference.median,
        reference_name=reference_name,
        ratio=comparison.ratio,
        ratio_interval=comparison.ratio_interval,
        targets=targets,
        samples=comparison.subject,
        reference_samples=comparison.reference,
        note=note,
    )


def peer_version(package: str) -> str:
    """Return the name of an installed package and its version."""
    return f"{package} {_version(package)}".strip()


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""


def _gpu_names() -> str:
    query = ("nvidia-smi", "--query-gpu=name,driver_version,memory.total", "--format=csv,noheader")
    try:
        done = subprocess.run(query, capture_output=True, text=True, timeout=30, check=False)  # noqa: S603 - a constant
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return "; ".join(done.stdout.split("\n")).strip("; ") if done.returncode == 0 else ""


def _cpu_name() -> str:
    info = Path("/proc/cpuinfo")
    if info.is_file():
        for line in info.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
