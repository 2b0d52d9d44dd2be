"""eSRRF beside NanoPyx: time, whether the image is the same, and how near it comes to the truth.

NanoPyx (Saraiva et al. 2025, Nature Methods 22, 283; the authors of eSRRF) computes it of the same
frames in the same process, by its threaded kernels for the CPU.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from livesr.base.config import load_rig
from livesr.base.threads import one_blas_thread
from livesr.bench.result import LeftOut, Result, Target, compared, peer_version
from livesr.bench.timing import interleave, per_second
from livesr.modalities.fluctuation.bench import TRUTH_NM, structure
from livesr.modalities.fluctuation.convergence import Convergence
from livesr.modalities.fluctuation.simulation import fluctuating_bank
from livesr.optics.similarity import pcc

_PACKAGE = "nanopyx"
_TWICE, _SAME = Target(2, "least", "ratio"), Target(0.99, "least")
_MAGNIFICATION, _RADIUS, _SENSITIVITY = 4, 1.5, 2
_MARGIN_PX = 8

Frames = NDArray[np.float32]


def measure(quick: bool) -> list[Result | LeftOut]:
    """Return speed and quality, of livesr alone where NanoPyx is missing."""
    size, frames, blocks = (48, 2, 1) if quick else (128, 2, 3)
    rig = load_rig("virtual_fluctuation")
    bank = fluctuating_bank(rig, size, 20)
    raw = bank.frames.astype(np.float32)
    few, many = raw[:frames], list(raw)
    places = bank.positions_um / bank.pixel_size_um
    blur_px = TRUTH_NM / bank.pixel_size_um / 1e3
    # Half a camera pixel lies between what the two call a place.
    ours, same = (
        Convergence((size, size), _MAGNIFICATION, _RADIUS, _SENSITIVITY, placed=placed)
        for placed in ("centred", "nanopyx")
    )

    def agreement(image: Frames, beside_px: float) -> float:
        truth = structure(places + beside_px, size, _MAGNIFICATION, blur_px)
        return pcc(image[_INSIDE], truth[_INSIDE])

    note = (
        f"{size}^2 frames of the virtual rig, magnification {_MAGNIFICATION}, radius {_RADIUS},"
        f" sensitivity {_SENSITIVITY}, mean of {frames} frames"
    )
    quality_note = note + f"; without the outer {_MARGIN_PX} camera pixels"
    theirs = _nanopyx()
    with one_blas_thread():  # as a run has it
        found = agreement(ours.group(list(few)), 0.0)
        if theirs is None:
            speed = per_second(len(many), lambda: ours.group(many))
            missing = f"{_PACKAGE} is not installed: pip install {_PACKAGE}"
            return [
                Result("fluctuation.peers.speed", speed, "frames/s", note=note),
                Result("fluctuation.peers.truth", found, "of 1", note=quality_note),
                LeftOut("fluctuation.peers.nanopyx", missing),
            ]
        comparison = interleave(
            lambda: [per_second(len(many), lambda: ours.group(many))],
            lambda: [per_second(frames, lambda: theirs(few))],
            blocks,
        )
        image = theirs(few).mean(axis=0)
        agrees = pcc(same.group(list(few))[_INSIDE], image[_INSIDE])
    version = peer_version(_PACKAGE)
    return [
        compared("fluctuation.peers.speed", comparison, "frames/s", version, (_TWICE,), note),
        Result("fluctuation.peers.pcc", agrees, "of 1", targets=(_SAME,), note=quality_note),
        Result(
            "fluctuation.peers.truth",
            found,
            "of 1",
            agreement(image, 0.5),
            version,
            note=f"{quality_note}; with the structure, blurred by {TRUTH_NM:g} nm",
        ),
    ]


_INSIDE = (slice(_MARGIN_PX * _MAGNIFICATION, -_MARGIN_PX * _MAGNIFICATION),) * 2


def _nanopyx() -> Callable[[Frames], Frames] | None:
    """Return its eSRRF of single frames; None where it is not installed."""
    try:
        with warnings.catch_warnings():  # of the accelerators that it lacks
            warnings.simplefilter("ignore")
            from nanopyx.core.transform import eSRRF_ST
    except ImportError:
        return None
    engine = eSRRF_ST(verbose=False)
    options: dict[str, Any] = {
        "magnification": _MAGNIFICATION,
        "radius": _RADIUS,
        "sensitivity": _SENSITIVITY,
    }

    def run(frames: Frames) -> Frames:
        return np.asarray(engine.run(frames, run_type="threaded", **options), np.float32)

    return run
