"""What every evaluation says of itself: the engine, and network beside input with their intervals.

Owns the shape of the results. Scores nothing.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from livesr.evaluation.metrics import Score, bootstrap_interval
from livesr.live.inference.engine import Engine
from livesr.live.inference.session import InferenceSession
from livesr.live.inference.test_time_augmentation import EnsembleSession


def about(engine: Engine, backend: InferenceSession) -> dict[str, Any]:
    """Return which engine ran on what."""
    manifest = engine.manifest
    return {
        "engine": {
            "id": manifest.id,
            "version": manifest.version,
            "sha256": manifest.sha256,
            "trained": manifest.trained,
        },
        "backend": {"name": backend.name, "precision": backend.precision, "device": backend.device},
        **({"ensemble": backend.augmentation} if isinstance(backend, EnsembleSession) else {}),
    }


def compared(network: Sequence[Score], given: Sequence[Score]) -> dict[str, Any]:
    """Return intervals of `network`, `input` and `gain` for every metric, and whether the PCC's are
    disjoint.

    The scores are paired by sequence, and so is the gain: what one sequence gains does not depend
    on how hard it is.
    """
    summary: dict[str, Any] = {"network": {}, "input": {}, "gain": {}}
    for i, metric in enumerate(Score._fields):
        values = {"network": [s[i] for s in network], "input": [s[i] for s in given]}
        values["gain"] = [n - x for n, x in zip(values["network"], values["input"], strict=True)]
        intervals = {who: bootstrap_interval(v) for who, v in values.items()}
        for who, interval in intervals.items():
            summary[who][metric] = interval.to_json()
        if metric == "pcc":
            summary["disjoint"] = intervals["network"].above(intervals["input"])
    return summary


def leaked(
    leakage: Sequence[Mapping[str, Mapping[str, float]]], name: str, labels: Mapping[str, str]
) -> dict[str, Any]:
    """Return intervals of the light of `name`, alone in the field, that is predicted as all others
    and as each.

    `leakage` holds by structure the share predicted as each other, one entry a sequence; `labels`
    are the engine's names.
    """
    shares = [of[name] for of in leakage if name in of]
    into = {
        label: bootstrap_interval([share[other] for share in shares]).to_json()
        for other, label in labels.items()
        if other != name
    }
    return {
        "total": bootstrap_interval([sum(share.values()) for share in shares]).to_json(),
        "into": into,
    }


def finite_score(score: Score) -> dict[str, float | None]:
    """Return a score as JSON can say it."""
    return {name: finite(value) for name, value in score._asdict().items()}


def finite(value: float) -> float | None:
    """Round a number; None for one that is not finite."""
    return round(value, 4) if math.isfinite(value) else None


def interval_text(interval: Mapping[str, Any], digits: int = 3) -> str:
    """Return "mean (low to high)" of an interval as results hold it."""
    if interval["mean"] is None:
        return "none"
    if interval["low"] is None:
        return f"{interval['mean']:.{digits}f}"
    return (
        f"{interval['mean']:.{digits}f} ({interval['low']:.{digits}f} to"
        f" {interval['high']:.{digits}f})"
    )
