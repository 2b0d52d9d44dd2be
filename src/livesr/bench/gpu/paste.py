"""What `livesr bench gpu` found, as a short text to paste into an issue.

Owns the words. Judges nothing: what is wrong, `Measured` knows.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterator

from livesr.bench.result import AGREEMENT, Measured, Result

_SUITES = ("gpu.parity", "gpu.speed", "gpu.frame")


def to_paste(known: Measured) -> str:
    """Return card, driver, versions, agreement, times and what did not run, a few lines in all.

    Empty where nothing of the GPU's suites was measured.
    """
    results = [r for r in known.results if r.suite in _SUITES]
    if not results:
        return ""
    lines = [*_where(results), *_agreement(results), *_times(results), *_faults(known)]
    return "\n".join(
        part for line in lines for part in textwrap.wrap(line, 78, subsequent_indent="  ")
    )


def _where(results: list[Result]) -> Iterator[str]:
    here = next((r.environment for r in results if r.environment), None)
    if here is None:
        return
    versions = dict(here.versions)
    livesr = versions.pop("livesr", "")
    quick = ", quick: times are not to be quoted" if here.quick else ""
    yield f"livesr {livesr} bench gpu, Python {here.python}, {here.system}{quick}"
    yield f"card and driver: {here.gpu or 'none'}; {here.cores} cores of {here.cpu}"
    yield "with " + ", ".join(f"{name} {version}" for name, version in versions.items())


def _agreement(results: list[Result]) -> Iterator[str]:
    """Yield the worst engine of each runtime and precision, and of whole frames."""
    worst: dict[str, Result] = {}
    for r in (r for r in results if r.unit == AGREEMENT):
        parts = r.name.split(".")
        what = " ".join(parts[2:4]) if r.suite == "gpu.parity" else f"frame {parts[2]}"
        if what not in worst or r.value < worst[what].value:
            worst[what] = r
    if worst:
        said = ", ".join(f"{what} {r.value:.4f}" for what, r in worst.items())
        yield f"least R2 with the CPU in f32: {said}"


def _times(results: list[Result]) -> Iterator[str]:
    """Yield a runtime's times of a frame by side, the network's and of everything around it."""
    times: dict[str, list[str]] = {}
    for r in (r for r in results if r.unit == "ms"):
        *_, name, side = r.name.split(".")
        ratio = f" ({r.ratio:.2f} times {r.reference_name})" if r.ratio is not None else ""
        times.setdefault(name, []).append(f"{side}: {r.value:.4g}{ratio}")
    for name, of in times.items():
        yield f"ms, {name}: {', '.join(of)}"


def _faults(known: Measured) -> Iterator[str]:
    yield f"wrong or failed: {', '.join(known.wrong) or 'nothing'}"
    for entry in known.left_out:
        first = entry.reason.splitlines()[0] if entry.reason else ""
        if entry.fault:
            yield f"failed, {entry.name}: {first}"
    lacking = {e.name.split(".")[-1]: e.reason for e in known.left_out
               if not e.fault and e.name.startswith("gpu.") and e.name.count(".") == 2}  # fmt: skip
    for name, reason in lacking.items():
        yield f"not run, {name}: {reason.splitlines()[0]}"
