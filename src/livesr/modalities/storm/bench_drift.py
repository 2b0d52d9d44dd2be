"""How well drift is told from localisations, followed live and from all of them at once, beside
Picasso.

Owns the measurement. 2,000 frames of emitters on microtubules are simulated and localised; the
specimen drifts slowly, with a jump half-way or without. What is left is over all frames, both axes
together.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from livesr.base.config import load_rig
from livesr.base.geometry import Geometry
from livesr.bench.result import Result
from livesr.modalities.storm.aim import drift_of
from livesr.modalities.storm.drift import DriftTracker
from livesr.modalities.storm.modality import STORM
from livesr.simulation.blinking_rig import BlinkingBank

_GROUP = 100
_JUMPS_NM = {"slow": (0.0, 0.0), "jump_400": (400.0, -250.0), "jump_1500": (1500.0, 0.0)}

Drift = NDArray[np.float64]


def measure(quick: bool) -> list[Result]:
    """Return what is left of drift, in nm."""
    frames, size = (400, 64) if quick else (2000, 128)
    results = []
    for name, jump_nm in [*_JUMPS_NM.items()][: 1 if quick else None]:
        found, true, field_nm = _film(frames, size, jump_nm)
        live, live_s = _timed(_followed, found, field_nm, frames)
        offline, offline_s = _timed(drift_of, found, field_nm, frames)
        note = f"{len(found)} localisations in {frames} frames; {live_s:.1f} s"
        results.append(Result(f"storm.drift_{name}", _left(live, true), "nm", note=note))
        theirs = {
            kind: f"{kind} {_left(drift, true):.1f} nm in {seconds:.1f} s"
            for kind, (drift, seconds) in _picasso(found, frames, size, field_nm)
        }
        results.append(
            Result(
                f"storm.refined_{name}",
                _left(offline, true),
                "nm",
                _left(live, true),
                "followed live",
                note=f"{offline_s:.1f} s; Picasso: {', '.join(theirs.values()) or 'not installed'}",
            )
        )
    return results


class _DriftingBank(BlinkingBank):
    """Emitters that move with the specimen."""

    drift_nm: Drift

    def truth(self, frame: int) -> NDArray[np.float64]:
        lit = super().truth(frame)
        lit[:, :2] += self.drift_nm[frame] / 1e3
        return lit


def _film(
    frames: int, size: int, jump_nm: tuple[float, float]
) -> tuple[NDArray[np.void], Drift, tuple[float, float]]:
    """Return localisations of a film, the drift of each frame, and the size of the field."""
    t = np.arange(frames)[:, None] * 2000 / frames
    drift = np.concatenate([60 * np.sin(t / 700), -0.04 * t], axis=1)
    drift[frames // 2 :] += jump_nm
    kind = type("Film", (_DriftingBank,), {"drift_nm": drift})
    rig = load_rig("virtual_storm")
    bank = kind(rig, size, frames, lit=25 * (size / 128) ** 2)
    camera = Geometry((size, size), "uint16", bank.pixel_size_um)
    localiser = STORM().build(rig, next(iter(rig.channels)), camera)
    found = [
        localiser.localise(bank.frames[i : i + _GROUP], range(i, i + _GROUP))
        for i in range(0, frames, _GROUP)
    ]
    return np.concatenate(found), drift, localiser.field_nm


def _followed(found: NDArray[np.void], field_nm: tuple[float, float], frames: int) -> Drift:
    tracker, drift = DriftTracker(field_nm), []
    for first in range(0, frames, _GROUP):
        here = found[(found["frame"] >= first) & (found["frame"] < first + _GROUP)]
        drift.append(tracker.update(here["y_nm"], here["x_nm"]))
    return np.repeat(np.array(drift), _GROUP, axis=0)


def _picasso(
    found: NDArray[np.void], frames: int, size: int, field_nm: tuple[float, float]
) -> Iterator[tuple[str, tuple[Drift, float]]]:
    """Yield what Picasso's AIM and redundant cross-correlation make of the same localisations."""
    try:
        import pandas as pd  # type: ignore[import-untyped]
        from picasso import aim, postprocess
    except ImportError:
        return
    pixel_nm = field_nm[0] / size
    columns = {n: found[f"{n}_nm"] / pixel_nm - 0.5 for n in ("x", "y")}
    columns |= {n: found["uncertainty_nm"] / pixel_nm for n in ("lpx", "lpy")}
    columns |= {"frame": found["frame"].astype("u4"), "photons": found["photons"]}
    locs = pd.DataFrame(columns)
    info = [{"Width": size, "Height": size, "Frames": frames, "Pixelsize": pixel_nm}]

    def in_nm(table: Any) -> Drift:
        return np.stack([table["y"], table["x"]], axis=1).astype(np.float64) * pixel_nm

    aim.aim(locs, info, _GROUP)  # it compiles at its first call
    yield "AIM", _timed(lambda: in_nm(aim.aim(locs, info, _GROUP)[2]))
    yield "RCC", _timed(lambda: in_nm(postprocess.undrift(locs, info, _GROUP, display=False)[0]))


def _timed(work: Callable[..., Drift], *given: Any) -> tuple[Drift, float]:
    start = time.perf_counter()
    made = work(*given)
    return made, time.perf_counter() - start


def _left(found: Drift, true: Drift) -> float:
    error = found - true
    return float(np.sqrt(((error - error.mean(axis=0)) ** 2).mean()))
